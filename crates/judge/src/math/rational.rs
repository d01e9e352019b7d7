//! Fractions of whole numbers of up to 127 bits; beyond that, nothing.

/// In lowest terms, the denominator above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rational {
    pub numerator: i128,
    pub denominator: i128,
}

impl Rational {
    pub const ONE: Rational = Rational { numerator: 1, denominator: 1 };

    /// `numerator / denominator`; nothing where the denominator is 0 or a number too large.
    pub fn new(numerator: i128, denominator: i128) -> Option<Rational> {
        if denominator == 0 || numerator == i128::MIN || denominator == i128::MIN {
            return None;
        }
        let divisor = gcd(numerator, denominator);
        let (numerator, denominator) = (numerator / divisor, denominator / divisor);
        let sign = denominator.signum();
        Some(Rational { numerator: sign * numerator, denominator: sign * denominator })
    }

    /// The value of `12`, `1.50` or `.5`.
    pub fn decimal(text: &str) -> Option<Rational> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let scale = 10i128.checked_pow(u32::try_from(part.len()).ok()?)?;
        Rational::new(format!("{whole}{part}").parse().ok()?, scale)
    }

    pub fn add(self, other: Rational) -> Option<Rational> {
        let left = self.numerator.checked_mul(other.denominator)?;
        let right = other.numerator.checked_mul(self.denominator)?;
        Rational::new(left.checked_add(right)?, self.denominator.checked_mul(other.denominator)?)
    }

    pub fn mul(self, other: Rational) -> Option<Rational> {
        let numerator = self.numerator.checked_mul(other.numerator)?;
        Rational::new(numerator, self.denominator.checked_mul(other.denominator)?)
    }

    pub fn negated(self) -> Rational {
        Rational { numerator: -self.numerator, ..self }
    }

    /// The root of this degree where it is rational; nothing for what is below 0.
    pub fn root(self, degree: u32) -> Option<Rational> {
        Rational::new(whole_root(self.numerator, degree)?, whole_root(self.denominator, degree)?)
    }
}

fn gcd(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.abs(), b.abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

fn whole_root(number: i128, degree: u32) -> Option<i128> {
    if number < 0 {
        return None;
    }
    let guess = (number as f64).powf(1.0 / f64::from(degree)).round() as i128;
    (guess.saturating_sub(1)..=guess.saturating_add(1)).find(|root| root.checked_pow(degree) == Some(number))
}

/// `outer^2 * inner = number` with an `inner` that no square divides; nothing where finding it takes too long.
pub(super) fn square_part(number: i128) -> Option<(i128, i128)> {
    /// Squares of numbers up to a million are looked for.
    const LARGEST: i128 = 1_000_000_000_000;
    if !(0..=LARGEST).contains(&number) {
        return None;
    }
    let (mut outer, mut inner, mut factor) = (1, number.max(1), 2);
    while factor * factor <= inner {
        while inner % (factor * factor) == 0 {
            inner /= factor * factor;
            outer *= factor;
        }
        factor += 1;
    }
    Some(if number == 0 { (0, 1) } else { (outer, inner) })
}
