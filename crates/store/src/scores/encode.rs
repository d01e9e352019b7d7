//! Scores between memory and file.

use half::f16;

use super::ScoreDtype;

impl ScoreDtype {
    /// Bytes a score.
    pub fn bytes(self) -> usize {
        match self {
            ScoreDtype::F16 => 2,
            ScoreDtype::F32 => 4,
        }
    }

    /// Appends the little-endian form of finite `scores` to `bytes`.
    pub(super) fn encode(self, scores: &[f32], bytes: &mut Vec<u8>) {
        let largest = f16::MAX.to_f32();
        match self {
            ScoreDtype::F16 => {
                let nearest = |score: f32| f16::from_f32(score.clamp(-largest, largest));
                bytes.extend(scores.iter().flat_map(|&score| nearest(score).to_le_bytes()));
            }
            ScoreDtype::F32 => bytes.extend(scores.iter().flat_map(|score| score.to_le_bytes())),
        }
    }

    /// The inverse of `encode`, but for rounding. `scores` has one element an encoded score.
    pub(super) fn decode(self, bytes: &[u8], scores: &mut [f32]) {
        match self {
            ScoreDtype::F16 => {
                for (score, pair) in scores.iter_mut().zip(bytes.chunks_exact(2)) {
                    *score = f16::from_le_bytes([pair[0], pair[1]]).to_f32();
                }
            }
            ScoreDtype::F32 => {
                for (score, quad) in scores.iter_mut().zip(bytes.chunks_exact(4)) {
                    *score = f32::from_le_bytes([quad[0], quad[1], quad[2], quad[3]]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(scores: &[f32]) -> Vec<f32> {
        let mut bytes = Vec::new();
        ScoreDtype::F16.encode(scores, &mut bytes);
        assert_eq!(bytes.len(), 2 * scores.len());
        let mut out = vec![0.0; scores.len()];
        ScoreDtype::F16.decode(&bytes, &mut out);
        out
    }

    /// The bound on a score's error that the module's documentation derives.
    fn score_error_max(score: f64) -> f64 {
        let exponent = if score == 0.0 { -15 } else { score.abs().log2().floor() as i32 };
        2f64.powi(exponent.max(-14) - 11)
    }

    /// The paper's weights of a window, without the clipping, which can only bring two weights closer.
    fn weights(scores: &[f32], learner: &[f64], temperature: f64) -> Vec<f64> {
        let delta: Vec<f64> =
            scores.iter().zip(learner).map(|(&score, learner)| f64::from(score) - learner).collect();
        let mean = delta.iter().sum::<f64>() / delta.len() as f64;
        delta.iter().map(|delta| 2.0 / (1.0 + (-(delta - mean) / temperature).exp())).collect()
    }

    #[test]
    fn float32_is_exact_and_little_endian() {
        let scores = [-0.1f32, 0.0, -1e30];
        let mut bytes = Vec::new();
        ScoreDtype::F32.encode(&scores, &mut bytes);
        assert_eq!(bytes[..4], (-0.1f32).to_le_bytes());
        let mut out = [1.0; 3];
        ScoreDtype::F32.decode(&bytes, &mut out);
        assert_eq!(out, scores);
    }

    #[test]
    fn float16_saturates() {
        assert_eq!(
            stored(&[-65504.0, -65519.9, -65520.0, -1e30, f32::MIN, 1e9]),
            [-65504.0, -65504.0, -65504.0, -65504.0, -65504.0, 65504.0]
        );
    }

    /// At and around every float16 and every midpoint between two, where rounding errs most.
    #[test]
    fn the_error_of_a_score_is_bounded_everywhere() {
        for bits in 0..f16::MAX.to_bits() {
            let (low, high) = (f16::from_bits(bits).to_f32(), f16::from_bits(bits + 1).to_f32());
            let middle = (low + high) / 2.0; // exact: float32 has the bits for it
            let near = [low, low.next_up(), middle.next_down(), middle, middle.next_up(), high.next_down()];
            for score in near {
                let error = f64::from(stored(&[-score])[0]) + f64::from(score);
                let bound = score_error_max(f64::from(score));
                assert!(error.abs() <= bound, "{score}: {error} is above {bound}");
            }
            let error = f64::from(stored(&[-middle])[0]) + f64::from(middle);
            assert_eq!(error.abs(), score_error_max(f64::from(low)), "the bound is reached at {middle}");
        }
    }

    /// One token rounded up and all others down, at the sigmoid's steepest point: the bound cannot be improved.
    #[test]
    fn the_bound_on_weights_is_reached() {
        for (exponent, temperature) in [(0, 1.0), (3, 1.0), (3, 0.25), (5, 2.0)] {
            let error = 2f64.powi(exponent - 11);
            let base = 2f32.powi(exponent);
            // Ties go to even: `base` is even, its neighbour is not, so these two midpoints round away from each other.
            let (up, down) = (-(base + error as f32), -(base + 3.0 * error as f32));
            let mut scores = vec![down; 1000];
            scores[0] = up;
            let learner: Vec<f64> = scores.iter().map(|&score| f64::from(score)).collect();
            let exact = weights(&scores, &learner, temperature);
            assert!(exact.iter().all(|&weight| weight == 1.0));
            let moved = weights(&stored(&scores), &learner, temperature)[0] - 1.0;
            let bound = error / temperature;
            assert!(moved.abs() <= bound && moved.abs() > 0.99 * bound, "{moved} of {bound}");
        }
    }

    proptest! {
        #[test]
        fn the_error_of_a_weight_is_bounded(
            scores in proptest::collection::vec((-40f32..0.0, -6i32..4), 1..60),
            gaps in proptest::collection::vec(-3f64..3.0, 60),
            temperature in 0.1f64..4.0,
        ) {
            // Of all magnitudes, not only large ones.
            let scores: Vec<f32> = scores.iter().map(|&(score, power)| score * 2f32.powi(power - 3)).collect();
            let learner: Vec<f64> =
                scores.iter().zip(&gaps).map(|(&score, gap)| f64::from(score) - gap).collect();
            let exact = weights(&scores, &learner, temperature);
            let rounded = weights(&stored(&scores), &learner, temperature);
            let errors: Vec<f64> = scores.iter().map(|&score| score_error_max(f64::from(score))).collect();
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            let largest = errors.iter().copied().fold(0.0, f64::max);
            for t in 0..scores.len() {
                let moved = (exact[t] - rounded[t]).abs();
                prop_assert!(moved <= (errors[t] + mean) / (2.0 * temperature) + 1e-12);
                prop_assert!(moved <= largest / temperature + 1e-12);
            }
        }
    }
}
