//! Random choices by purpose.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The random choices made for one purpose about one document.
///
/// Each document has its own stream for each purpose, so a change to one (another rate of noise) leaves every
/// other choice as it was, and any document can be made without those before it.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    pub(crate) fn new(seed: u64, purpose: &str, index: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("remit generated problems");
        hasher.update(&seed.to_le_bytes()).update(purpose.as_bytes());
        let mut stream = ChaCha8Rng::from_seed(*hasher.finalize().as_bytes());
        stream.set_stream(index);
        Self(stream)
    }

    /// A whole number from `low` to `high`, both included.
    ///
    /// Written out, because `rand` may change its ranges between versions and with them every corpus. The bias of
    /// multiply and shift is below one in 2^50 for the small ranges used here.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        assert!(low <= high, "a range of {low} to {high} is empty");
        let span = (high - low + 1) as u128;
        low + ((u128::from(self.0.next_u64()) * span) >> 64) as i64
    }

    /// True with probability `share`. What is true at one share stays true at every larger one.
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        ((self.0.next_u64() >> 11) as f64) / ((1u64 << 53) as f64) < share
    }

    /// One of `options`, which must not be empty.
    pub(crate) fn choose<'a, T: ?Sized>(&mut self, options: &[&'a T]) -> &'a T {
        options[self.between(0, options.len() as i64 - 1) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_include_both_ends_evenly() {
        let mut dice = Dice::new(0, "test", 0);
        let mut counts = [0; 4];
        for _ in 0..4000 {
            counts[(dice.between(-1, 2) + 1) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn streams_differ_by_seed_purpose_and_index() {
        let first = |seed, purpose, index| Dice::new(seed, purpose, index).0.next_u64();
        let all = [first(0, "a", 0), first(1, "a", 0), first(0, "b", 0), first(0, "a", 1)];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), 4);
        assert_eq!(first(0, "a", 1), all[3]);
    }
}
