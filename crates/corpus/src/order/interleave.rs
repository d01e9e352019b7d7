//! Sources in turn, in shares that hold at every scale, found by position alone.
//!
//! The first source takes the positions at which `round(p * w / W)` grows (a Beatty sequence), with `w` its weight and
//! `W` that of all; what is left is numbered anew and shared among the others in the same way. So the number of
//! windows of any source among the first `p` is known without looking at them.
//!
//! How far a count can be from its exact share: rounding leaves what is left for the others off by `L_1 <= 1/2`, and
//! each further source passes on `L_k <= (1 - r_k) L_(k-1) + 1/2`, with `r_k` its share among those left, while its
//! own count is off by `r_k L_(k-1) + 1/2` at most. So no count of `n` sources is off by more than `max(1, n - 1) / 2`:
//! half a window for two sources, two for five.

/// The weights as whole numbers, so that no position is ever lost to rounding.
#[derive(Clone, Debug)]
pub(super) struct Interleave {
    weights: Vec<u64>,
    /// The weight of each source and all after it.
    rests: Vec<u64>,
}

/// What the weights add up to, nearly.
const SCALE: f64 = (1u64 << 40) as f64;

impl Interleave {
    /// `None` when no weight is above 0.
    pub fn new(weights: &[f64]) -> Option<Interleave> {
        let highest = weights.iter().copied().fold(0.0, f64::max);
        if highest == 0.0 {
            return None;
        }
        // Divided by the highest first, so that the sum cannot overflow.
        let sum: f64 = weights.iter().map(|weight| weight / highest).sum();
        let whole = |weight: &f64| match weight / highest / sum * SCALE {
            0.0 => 0,
            share => (share.round() as u64).max(1),
        };
        let weights: Vec<u64> = weights.iter().map(whole).collect();
        let mut rests = weights.clone();
        for i in (0..rests.len() - 1).rev() {
            rests[i] += rests[i + 1];
        }
        Some(Interleave { weights, rests })
    }

    /// Whether a source is drawn at all.
    pub fn draws(&self, source: usize) -> bool {
        self.weights[source] > 0
    }

    /// The source at `position`, and how many of its windows come before.
    pub fn locate(&self, position: u64) -> (usize, u64) {
        let mut left = position;
        for source in 0..self.weights.len() {
            let before = self.taken(source, left);
            if self.taken(source, left + 1) > before {
                return (source, before);
            }
            left -= before;
        }
        unreachable!("the last source with a weight takes all that is left")
    }

    /// Windows of each source among the first `total`.
    pub fn counts(&self, total: u64) -> Vec<u64> {
        let mut left = total;
        (0..self.weights.len())
            .map(|source| {
                let taken = self.taken(source, left);
                left -= taken;
                taken
            })
            .collect()
    }

    /// Of the first `count` positions left by the sources before, those that `source` takes.
    fn taken(&self, source: usize, count: u64) -> u64 {
        let (weight, rest) = (u128::from(self.weights[source]), u128::from(self.rests[source]));
        if weight == 0 {
            return 0;
        }
        ((u128::from(count) * weight + rest / 2) / rest) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_weights_alternate_and_zero_is_never_drawn() {
        let interleave = Interleave::new(&[2.0, 0.0, 2.0]).unwrap();
        let sources: Vec<_> = (0..6).map(|position| interleave.locate(position)).collect();
        assert_eq!(sources, [(0, 0), (2, 0), (0, 1), (2, 1), (0, 2), (2, 2)]);
        assert!(Interleave::new(&[0.0]).is_none());
    }

    proptest! {
        #[test]
        fn counts_follow_the_weights_at_every_length(weights in prop::collection::vec(0.001f64..10.0, 1..6)) {
            let interleave = Interleave::new(&weights).unwrap();
            let sum: f64 = weights.iter().sum();
            // Derived above; the rest is the rounding of weights to whole numbers.
            let bound = weights.len().saturating_sub(1).max(1) as f64 / 2.0 + 1e-6;
            let mut counts = vec![0u64; weights.len()];
            for position in 0..2000 {
                let (source, count) = interleave.locate(position);
                prop_assert_eq!(count, counts[source]);
                counts[source] += 1;
                prop_assert_eq!(&interleave.counts(position + 1), &counts);
                for (count, weight) in counts.iter().zip(&weights) {
                    let wanted = weight / sum * (position + 1) as f64;
                    prop_assert!((*count as f64 - wanted).abs() <= bound, "{} for {}", count, wanted);
                }
            }
        }
    }
}
