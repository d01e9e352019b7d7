//! Sums of products of rationals, square roots of whole numbers and letters; and quotients of two such sums.
//!
//! The square roots of different whole numbers that no square divides are linearly independent over the rationals, so
//! two sums are the same number, or the same function, where their coefficients are.

use std::collections::{BTreeMap, BTreeSet};

use super::rational::{Rational, square_part};

/// Terms of a sum at most.
const MOST_TERMS: usize = 256;
/// The largest exponent that is multiplied out.
const LARGEST_EXPONENT: u32 = 32;

/// A square root and powers of letters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Monomial {
    /// What stands under the root, 1 for none.
    radicand: i128,
    /// Exponents by letter, none of them 0.
    powers: BTreeMap<String, u32>,
}

/// A sum: coefficients by monomial, none of them 0.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sum(BTreeMap<Monomial, Rational>);

/// A quotient of two sums. Operations give nothing where numbers or sums grow too large.
#[derive(Clone, Debug)]
pub(super) struct Quotient {
    above: Sum,
    /// Not 0.
    below: Sum,
}

impl Sum {
    fn of(monomial: Monomial, coefficient: Rational) -> Sum {
        Sum(BTreeMap::from([(monomial, coefficient)])).without_zeros()
    }

    fn constant(value: Rational) -> Sum {
        Sum::of(Monomial { radicand: 1, powers: BTreeMap::new() }, value)
    }

    fn without_zeros(mut self) -> Sum {
        self.0.retain(|_, coefficient| coefficient.numerator != 0);
        self
    }

    fn add(&self, other: &Sum) -> Option<Sum> {
        let mut sum = self.clone();
        for (monomial, coefficient) in &other.0 {
            let before = sum.0.get(monomial).copied();
            let after = before.map_or(Some(*coefficient), |before| before.add(*coefficient))?;
            sum.0.insert(monomial.clone(), after);
        }
        (sum.0.len() <= MOST_TERMS).then(|| sum.without_zeros())
    }

    fn mul(&self, other: &Sum) -> Option<Sum> {
        let mut product = Sum(BTreeMap::new());
        for (a, left) in &self.0 {
            for (b, right) in &other.0 {
                let (outer, radicand) = square_part(a.radicand.checked_mul(b.radicand)?)?;
                let mut powers = a.powers.clone();
                for (letter, exponent) in &b.powers {
                    *powers.entry(letter.clone()).or_default() += exponent;
                }
                let coefficient = left.mul(*right)?.mul(Rational::new(outer, 1)?)?;
                product = product.add(&Sum::of(Monomial { radicand, powers }, coefficient))?;
            }
        }
        Some(product)
    }

    fn as_constant(&self) -> Option<Rational> {
        match self.0.iter().next() {
            None => Rational::new(0, 1),
            Some((monomial, value))
                if self.0.len() == 1 && monomial.radicand == 1 && monomial.powers.is_empty() =>
            {
                Some(*value)
            }
            Some(_) => None,
        }
    }
}

impl Quotient {
    pub fn constant(value: Rational) -> Quotient {
        Quotient { above: Sum::constant(value), below: Sum::constant(Rational::ONE) }
    }

    pub fn letter(name: &str) -> Quotient {
        let monomial = Monomial { radicand: 1, powers: BTreeMap::from([(name.to_owned(), 1)]) };
        Quotient { above: Sum::of(monomial, Rational::ONE), below: Sum::constant(Rational::ONE) }
    }

    pub fn add(&self, other: &Quotient) -> Option<Quotient> {
        if self.below == other.below {
            return Some(Quotient { above: self.above.add(&other.above)?, below: self.below.clone() });
        }
        let above = self.above.mul(&other.below)?.add(&other.above.mul(&self.below)?)?;
        Some(Quotient { above, below: self.below.mul(&other.below)? })
    }

    pub fn mul(&self, other: &Quotient) -> Option<Quotient> {
        Some(Quotient { above: self.above.mul(&other.above)?, below: self.below.mul(&other.below)? })
    }

    pub fn negated(&self) -> Quotient {
        let above =
            self.above.0.iter().map(|(monomial, value)| (monomial.clone(), value.negated())).collect();
        Quotient { above: Sum(above), below: self.below.clone() }
    }

    /// Nothing for a division by 0.
    pub fn div(&self, other: &Quotient) -> Option<Quotient> {
        let inverse = Quotient { above: other.below.clone(), below: other.above.clone() };
        if inverse.below.0.is_empty() { None } else { self.mul(&inverse) }
    }

    pub fn power(&self, exponent: i128) -> Option<Quotient> {
        let size = u32::try_from(exponent.checked_abs()?).ok().filter(|size| *size <= LARGEST_EXPONENT)?;
        // 0^0 and 0^-1.
        if self.above.0.is_empty() && exponent <= 0 {
            return None;
        }
        let one = Quotient::constant(Rational::ONE);
        let power = (0..size).try_fold(one.clone(), |power, _| power.mul(self))?;
        if exponent < 0 { one.div(&power) } else { Some(power) }
    }

    /// Of a rational that is not below 0: any square root, other roots where they are rational.
    pub fn root(&self, degree: u32) -> Option<Quotient> {
        let value = self.as_constant()?;
        if degree != 2 {
            return value.root(degree).map(Quotient::constant);
        }
        // sqrt(p / q) = sqrt(p q) / q
        let (outer, radicand) = square_part(value.numerator.checked_mul(value.denominator)?)?;
        let coefficient = Rational::new(outer, value.denominator)?;
        let monomial = Monomial { radicand, powers: BTreeMap::new() };
        Some(Quotient { above: Sum::of(monomial, coefficient), below: Sum::constant(Rational::ONE) })
    }

    /// The rational that it is.
    pub fn as_constant(&self) -> Option<Rational> {
        let below = self.below.as_constant()?;
        self.above.as_constant()?.mul(Rational::new(below.denominator, below.numerator)?)
    }

    /// Whether both are the same; nothing where that is too large to tell.
    pub fn equals(&self, other: &Quotient) -> Option<bool> {
        Some(self.above.mul(&other.below)? == other.above.mul(&self.below)?)
    }

    /// The letters in it.
    pub fn letters(&self) -> BTreeSet<&str> {
        let monomials = self.above.0.keys().chain(self.below.0.keys());
        monomials.flat_map(|monomial| monomial.powers.keys().map(String::as_str)).collect()
    }
}
