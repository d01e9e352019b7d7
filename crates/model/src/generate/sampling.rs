//! How the next token is chosen from a row of logits.

use crate::Error;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use remit_fault::fault;
use remit_kernels::softmax;
use std::cmp::Ordering;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The likeliest; the lowest id among equals.
    Greedy,
    /// Drawn from the distribution at a temperature: of the `top_k` likeliest tokens those that together hold `top_p` of
    /// their mass.
    Random {
        /// Divisor of the logits, above 0.
        temperature: f32,
        /// How many of the likeliest tokens to draw from; all when absent.
        top_k: Option<usize>,
        /// Mass to draw from, in (0, 1].
        top_p: f32,
    },
}

impl Sampling {
    /// Checks the settings.
    pub fn validate(&self) -> Result<(), Error> {
        let Sampling::Random { temperature, top_k, top_p } = *self else { return Ok(()) };
        if !(temperature > 0.0 && temperature.is_finite()) {
            return refuse("temperature", temperature, "above 0; greedy decoding takes the likeliest token");
        }
        if top_k == Some(0) {
            return refuse("top-k", 0.0, "at least 1");
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return refuse("top-p", top_p, "above 0, at most 1");
        }
        Ok(())
    }
}

/// A setting out of range.
pub(super) fn refuse(key: &str, value: f32, range: &str) -> Result<(), Error> {
    Err(fault!("`{key}` = {} is out of range: {range}", f64::from(value)))
}

/// A token and its log-probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Choice {
    pub token: u32,
    /// At the temperature that was asked for, among all tokens.
    pub log_prob: f32,
}

/// Buffers that one choice leaves to the next.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    masses: Vec<f32>,
    kept: Vec<u32>,
}

/// Chooses from finite `logits [V]`. Draws once from `random` where it is left to chance.
pub(super) fn choose(
    logits: &[f32],
    sampling: Sampling,
    log_prob_temperature: f32,
    random: &mut ChaCha8Rng,
    buffers: &mut Buffers,
) -> Choice {
    let Buffers { masses, kept } = buffers;
    masses.resize(logits.len(), 0.0);
    let max = softmax::max(logits);
    let token = match sampling {
        Sampling::Greedy => argmax(logits),
        Sampling::Random { temperature, top_k, top_p } => {
            softmax::exponentials(logits, 1.0 / temperature, max / temperature, masses);
            let cut = top_k.is_some_and(|k| k < logits.len()) || top_p < 1.0;
            if cut {
                truncate(logits, masses, top_k.unwrap_or(logits.len()), top_p, kept);
                draw(kept.iter().copied(), masses, random)
            } else {
                draw(0..logits.len() as u32, masses, random)
            }
        }
    };
    let scale = 1.0 / log_prob_temperature;
    let lse = max * scale + softmax::exponentials(logits, scale, max * scale, masses).ln();
    Choice { token, log_prob: logits[token as usize] * scale - lse }
}

fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// The tokens to draw from, the likeliest first; the lower id among equals.
fn truncate(logits: &[f32], masses: &[f32], top_k: usize, top_p: f32, kept: &mut Vec<u32>) {
    let order =
        |a: &u32, b: &u32| -> Ordering { logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)) };
    kept.clear();
    if top_k < logits.len() {
        kept.extend(0..logits.len() as u32);
        kept.select_nth_unstable_by(top_k - 1, order);
        kept.truncate(top_k);
    } else {
        // Tokens so unlikely that all of them together hold less than what may be left out need not be sorted.
        let total: f64 = masses.iter().map(|&mass| f64::from(mass)).sum();
        let least = (0.999 * f64::from(1.0 - top_p) * total / logits.len() as f64) as f32;
        kept.extend((0..logits.len() as u32).filter(|&id| masses[id as usize] >= least));
    }
    kept.sort_unstable_by(order);
    if top_p < 1.0 {
        let of = |id: u32| f64::from(masses[id as usize]);
        // Without `top_k` the mass is that of all tokens, unsorted ones included.
        let total: f64 = if top_k < logits.len() {
            kept.iter().map(|&id| of(id)).sum()
        } else {
            masses.iter().map(|&mass| f64::from(mass)).sum()
        };
        let mut mass = 0.0;
        let inside = kept.iter().take_while(|&&id| {
            let inside = mass < f64::from(top_p) * total;
            mass += of(id);
            inside
        });
        let count = inside.count();
        kept.truncate(count.max(1));
    }
}

/// One of `tokens`, which are not none, by mass.
fn draw(tokens: impl Iterator<Item = u32> + Clone, masses: &[f32], random: &mut ChaCha8Rng) -> u32 {
    let of = |id: u32| f64::from(masses[id as usize]);
    let mut left = random.random::<f64>() * tokens.clone().map(of).sum::<f64>();
    let mut last = 0;
    for id in tokens {
        left -= of(id);
        last = id;
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const DRAWS: usize = 8000;

    /// How often each token is drawn.
    fn shares(logits: &[f32], temperature: f32, top_k: Option<usize>, top_p: f32) -> Vec<f64> {
        let (mut random, mut buffers) = (ChaCha8Rng::seed_from_u64(1), Buffers::default());
        let mut counts = vec![0.0; logits.len()];
        let sampling = Sampling::Random { temperature, top_k, top_p };
        for _ in 0..DRAWS {
            counts[choose(logits, sampling, 1.0, &mut random, &mut buffers).token as usize] += 1.0;
        }
        counts.iter().map(|count| count / DRAWS as f64).collect()
    }

    fn check(got: Vec<f64>, want: &[f64]) {
        for (got_one, &want_one) in got.iter().zip(want) {
            let close = (got_one - want_one).abs() < 0.02;
            assert!(if want_one == 0.0 { *got_one == 0.0 } else { close }, "{got:?} instead of {want:?}");
        }
    }

    fn logits() -> [f32; 4] {
        [0.15f32.ln(), 0.5f32.ln(), 0.05f32.ln(), 0.3f32.ln()]
    }

    #[test]
    fn draws_follow_the_distribution() {
        check(shares(&logits(), 1.0, None, 1.0), &[0.15, 0.5, 0.05, 0.3]);
        check(shares(&logits(), 1.0, Some(4), 1.0), &[0.15, 0.5, 0.05, 0.3]);
    }

    #[test]
    fn temperature_divides_the_logits() {
        let squares = [0.15f64, 0.5, 0.05, 0.3].map(|p| p * p);
        let sum: f64 = squares.iter().sum();
        check(shares(&logits(), 0.5, None, 1.0), &squares.map(|square| square / sum));
        check(shares(&[0.0, 0.1, -0.1], 0.001, None, 1.0), &[0.0, 1.0, 0.0]);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_holds_the_mass() {
        check(shares(&logits(), 1.0, None, 0.4), &[0.0, 1.0, 0.0, 0.0]);
        check(shares(&logits(), 1.0, None, 0.7), &[0.0, 0.625, 0.0, 0.375]);
        check(shares(&logits(), 1.0, None, 0.9), &[0.15 / 0.95, 0.5 / 0.95, 0.0, 0.3 / 0.95]);
        check(shares(&logits(), 1.0, None, 1e-6), &[0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn top_k_keeps_the_likeliest() {
        check(shares(&logits(), 1.0, Some(1), 1.0), &[0.0, 1.0, 0.0, 0.0]);
        check(shares(&logits(), 1.0, Some(3), 1.0), &[0.15 / 0.95, 0.5 / 0.95, 0.0, 0.3 / 0.95]);
        check(shares(&[1.0, 1.0, 1.0], 1.0, Some(2), 1.0), &[0.5, 0.5, 0.0]);
        // Of the three likeliest, 0.84 of the mass is the likeliest two: 0.8 of 0.95.
        check(shares(&logits(), 1.0, Some(3), 0.84), &[0.0, 0.625, 0.0, 0.375]);
    }

    #[test]
    fn greedy_takes_the_first_of_the_likeliest() {
        let (mut random, mut buffers) = (ChaCha8Rng::seed_from_u64(1), Buffers::default());
        let choice = choose(&[1.0, 3.0, 3.0, 2.0], Sampling::Greedy, 1.0, &mut random, &mut buffers);
        assert_eq!(choice.token, 1);
    }

    #[test]
    fn log_probs_are_of_all_tokens_at_their_own_temperature() {
        let (mut random, mut buffers) = (ChaCha8Rng::seed_from_u64(1), Buffers::default());
        let sampling = Sampling::Random { temperature: 0.1, top_k: Some(1), top_p: 0.5 };
        for (temperature, want) in [(1.0, 0.5f32), (0.5, 0.25 / 0.365)] {
            let choice = choose(&logits(), sampling, temperature, &mut random, &mut buffers);
            assert_eq!(choice.token, 1);
            assert!((choice.log_prob - want.ln()).abs() < 1e-6, "{choice:?}");
        }
    }
}
