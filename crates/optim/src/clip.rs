//! Clipping by the global norm, as `torch.nn.utils.clip_grad_norm_`:
//!
//! ```text
//! norm   = sqrt(sum of squares of all gradients)
//! factor = min(1, max_norm / (norm + 1e-6))
//! ```
//!
//! The factor goes into the optimiser's pass ([`Update::gradient_scale`](crate::Update)): gradients are never rewritten.

use rayon::prelude::*;

use crate::CHUNK;
use crate::simd::simd_fn;

/// The Euclidean norm of all gradients together, in `f64`.
///
/// Squares are summed by fixed chunks of each slice, and the chunks in order: the bits are the same for any number of
/// threads. A gradient that is not finite gives a norm that is not finite.
pub fn global_norm<'a>(gradients: impl IntoIterator<Item = &'a [f32]>) -> f64 {
    let chunks: Vec<&[f32]> = gradients.into_iter().flat_map(|gradients| gradients.chunks(CHUNK)).collect();
    let sums: Vec<f64> = chunks.into_par_iter().map(sum_of_squares).collect();
    sums.iter().sum::<f64>().sqrt()
}

/// What gradients are multiplied by so that their global norm stays within `max_norm`.
///
/// A norm that is not a number gives a factor that is not a number, so that it cannot pass unseen.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    let factor = max_norm / (norm + 1e-6);
    if factor > 1.0 { 1.0 } else { factor }
}

/// Sums run side by side, so that the order of additions is fixed whatever the vector width.
const LANES: usize = 32;

simd_fn! {
    fn sum_of_squares(values: &[f32]) -> f64 {
        let mut sums = [0.0f64; LANES];
        let (rows, rest) = values.as_chunks::<LANES>();
        for row in rows {
            for (sum, &value) in sums.iter_mut().zip(row) {
                let value = f64::from(value);
                *sum += value * value;
            }
        }
        for (sum, &value) in sums.iter_mut().zip(rest) {
            let value = f64::from(value);
            *sum += value * value;
        }
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_form() {
        assert_eq!(global_norm([&[3.0, 0.0][..], &[], &[-4.0]]), 5.0);
        assert_eq!(global_norm([]), 0.0);
        let ones = vec![1.0; 3 * CHUNK + 41];
        assert_eq!(global_norm([&ones[..], &ones[..7]]), ((3 * CHUNK + 48) as f64).sqrt());
    }

    #[test]
    fn every_element_counts_once() {
        let mut values = vec![0.0; CHUNK + LANES + 5];
        for i in [0, 31, 32, CHUNK - 1, CHUNK, CHUNK + LANES, CHUNK + LANES + 4] {
            values[i] = -2.0;
            assert_eq!(global_norm([&values[..]]), 2.0, "element {i}");
            values[i] = 0.0;
        }
    }

    #[test]
    fn large_gradients_do_not_overflow() {
        assert!((global_norm([&[f32::MAX; 4][..]]) / (2.0 * f64::from(f32::MAX)) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let values: Vec<f32> = (0..3 * CHUNK + 11).map(|i| (i as f32 * 0.37).sin()).collect();
        let on_threads = |num_threads| {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(num_threads).build().expect("threads start");
            pool.install(|| global_norm([&values[..100], &values[100..]]).to_bits())
        };
        let plain: f64 = values.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
        assert!((f64::from_bits(on_threads(1)) / plain.sqrt() - 1.0).abs() < 1e-12);
        assert_eq!(on_threads(1), on_threads(3));
    }

    #[test]
    fn factors() {
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert_eq!(clip_factor(0.0, 1.0), 1.0);
        assert_eq!(clip_factor(4.0 - 1e-6, 1.0), 0.25);
        // PyTorch's guard against division by zero makes a norm of exactly the bound shrink a little.
        assert_eq!(clip_factor(1.0, 1.0), 1.0 / (1.0 + 1e-6));
        assert!(clip_factor(global_norm([&[f32::NAN][..]]), 1.0).is_nan());
        assert_eq!(clip_factor(global_norm([&[f32::NEG_INFINITY][..]]), 1.0), 0.0);
    }
}
