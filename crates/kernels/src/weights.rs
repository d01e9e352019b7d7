//! Matrices of parameters as products read them.

/// A matrix of parameters `[out, in]`.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// As they are trained.
    F32(&'a [f32]),
    /// Rounded to bfloat16, the bits of each: up to three parts, one below the other, as files have what one product
    /// takes together. Products of [`Precision::Bf16`](crate::Precision::Bf16) only.
    Bf16([&'a [u16]; 3]),
}

impl<'a> Weights<'a> {
    /// One rounded part.
    pub fn rounded(values: &'a [u16]) -> Weights<'a> {
        Weights::Bf16([values, &[], &[]])
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        match self {
            Weights::F32(values) => values.len(),
            Weights::Bf16(parts) => parts.iter().map(|part| part.len()).sum(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The parts, each with the number of outputs before it and its own, of `input` columns.
    pub(crate) fn parts(self, input: usize) -> impl Iterator<Item = (usize, usize, Numbers<'a>)> {
        let parts = match self {
            Weights::F32(values) => [Numbers::F32(values), Numbers::F32(&[]), Numbers::F32(&[])],
            Weights::Bf16(parts) => parts.map(Numbers::Bf16),
        };
        let mut before = 0;
        parts.into_iter().filter(|part| part.len() > 0).map(move |part| {
            let (first, count) = (before, part.len() / input);
            before += count;
            (first, count, part)
        })
    }
}

impl<'a> From<&'a [f32]> for Weights<'a> {
    fn from(values: &'a [f32]) -> Weights<'a> {
        Weights::F32(values)
    }
}

impl<'a> From<&'a Vec<f32>> for Weights<'a> {
    fn from(values: &'a Vec<f32>) -> Weights<'a> {
        Weights::F32(values)
    }
}

/// Numbers of an operand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers<'a> {
    F32(&'a [f32]),
    /// Bits of bfloat16.
    Bf16(&'a [u16]),
}

impl<'a> Numbers<'a> {
    pub fn len(self) -> usize {
        match self {
            Numbers::F32(values) => values.len(),
            Numbers::Bf16(values) => values.len(),
        }
    }

    /// Those from `first` on, none where there are fewer.
    pub fn from(self, first: usize) -> Self {
        match self {
            Numbers::F32(values) => Numbers::F32(&values[first.min(values.len())..]),
            Numbers::Bf16(values) => Numbers::Bf16(&values[first.min(values.len())..]),
        }
    }

    /// The bits of one as bfloat16.
    #[inline(always)]
    pub fn rounded(self, index: usize) -> u32 {
        match self {
            Numbers::F32(values) => round(values[index]),
            Numbers::Bf16(values) => u32::from(values[index]),
        }
    }
}

/// The bits of the nearest bfloat16, of two the even one, as `vcvtneps2bf16` makes it: what is too small for a normal
/// number is zero.
#[inline(always)]
pub(crate) fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16;
    let quiet = (bits >> 16) | 0x40;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        quiet
    } else if magnitude < 0x0080_0000 {
        (bits >> 16) & 0x8000
    } else {
        rounded
    }
}

/// Rounds parameters to bfloat16: see [`Weights::Bf16`].
///
/// # Panics
/// When the lengths differ.
pub fn round_to(values: &[f32], rounded: &mut [u16]) {
    use rayon::prelude::*;
    const GRAIN: usize = 1 << 16;
    assert_eq!(values.len(), rounded.len(), "one for each");
    values.par_chunks(GRAIN).zip(rounded.par_chunks_mut(GRAIN)).for_each(|(from, to)| round_slice(from, to));
}

crate::simd::simd_fn!(
    /// Rounds one by one.
    round_slice(from: &[f32], to: &mut [u16]) {
        for (from, to) in from.iter().zip(to) {
            *to = round(*from) as u16;
        }
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_the_nearest_even() {
        for (x, expected) in [
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 3.0 / 256.0, 1.0 + 1.0 / 64.0),
            (-1.0 - 1.0001 / 256.0, -1.0 - 1.0 / 128.0),
            (f32::MAX, f32::INFINITY),
            (f32::MIN_POSITIVE / 2.0, 0.0),
        ] {
            let mut rounded = [0];
            round_to(&[x], &mut rounded);
            assert_eq!(f32::from_bits(u32::from(rounded[0]) << 16), expected, "{x}");
        }
        for nan in [f32::NAN, f32::from_bits(0x7f80_0001)] {
            assert!(f32::from_bits(round(nan) << 16).is_nan());
        }
    }
}
