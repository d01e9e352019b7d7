//! A shuffle that needs no memory: a keyed permutation of `0..len`, computed one element at a time.

/// Rounds of the Feistel network. Four make it pseudo-random for large domains (Luby and Rackoff 1988); small ones,
/// whose halves are a few bits, need more to mix.
const NUM_ROUNDS: usize = 8;

/// What a permutation depends on besides its length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub seed: u64,
    pub purpose: &'static str,
    pub index: u64,
    pub pass: u64,
}

/// A pseudo-random permutation of `0..len`: a balanced Feistel network on the next even number of bits, applied again
/// where it leads outside the range (cycle walking; fewer than four times on average).
#[derive(Clone, Debug)]
pub(super) struct Permutation {
    len: u64,
    half_bits: u32,
    round_keys: [u64; NUM_ROUNDS],
}

impl Permutation {
    pub fn new(len: u64, key: Key) -> Permutation {
        let bits = (u64::BITS - len.saturating_sub(1).leading_zeros()).max(2);
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"remit window order 1 ").update(key.purpose.as_bytes());
        for number in [key.seed, key.index, key.pass] {
            hasher.update(&number.to_le_bytes());
        }
        let mut bytes = [0; 8 * NUM_ROUNDS];
        hasher.finalize_xof().fill(&mut bytes);
        let (keys, _) = bytes.as_chunks::<8>();
        let round_keys = std::array::from_fn(|round| u64::from_le_bytes(keys[round]));
        Permutation { len, half_bits: bits.div_ceil(2), round_keys }
    }

    /// Where `index` goes.
    pub fn at(&self, index: u64) -> u64 {
        assert!(index < self.len, "index {index} is below the length {}", self.len);
        let mut value = index;
        loop {
            value = self.network(value);
            if value < self.len {
                return value;
            }
        }
    }

    fn network(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.round_keys {
            (left, right) = (right, left ^ (mix(right.wrapping_add(key)) & mask));
        }
        left << self.half_bits | right
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u64) -> Key {
        Key { seed, purpose: "test", index: 0, pass: 0 }
    }

    proptest! {
        #[test]
        fn every_index_is_reached_once(len in 1u64..3000, seed: u64) {
            let permutation = Permutation::new(len, key(seed));
            let mut reached = vec![false; len as usize];
            for index in 0..len {
                let to = permutation.at(index) as usize;
                prop_assert!(!reached[to]);
                reached[to] = true;
            }
        }

        #[test]
        fn large_domains_stay_in_range(len in (1u64 << 40)..(1 << 50), index: u64, seed: u64) {
            prop_assert!(Permutation::new(len, key(seed)).at(index % len) < len);
        }
    }

    #[test]
    fn every_part_of_the_key_matters() {
        let base = Key { seed: 1, purpose: "a", index: 2, pass: 3 };
        let shuffled = |key| (0..100).map(|i| Permutation::new(100, key).at(i)).collect::<Vec<_>>();
        for other in [
            Key { seed: 2, ..base },
            Key { purpose: "b", ..base },
            Key { index: 3, ..base },
            Key { pass: 4, ..base },
        ] {
            assert_ne!(shuffled(base), shuffled(other));
        }
        assert_eq!(shuffled(base), shuffled(base));
    }

    #[test]
    fn over_many_keys_each_index_goes_everywhere_alike() {
        // For each (from, to), the number of hits is binomial with mean 400 and deviation below 20.
        const LEN: u64 = 10;
        let mut hits = [[0u32; LEN as usize]; LEN as usize];
        for seed in 0..400 * LEN {
            let permutation = Permutation::new(LEN, key(seed));
            for from in 0..LEN {
                hits[from as usize][permutation.at(from) as usize] += 1;
            }
        }
        assert!(hits.iter().flatten().all(|count| (300..500).contains(count)), "{hits:?}");
    }
}
