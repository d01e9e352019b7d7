//! Continuing a prompt, one sequence at a time, with a cache of what earlier positions left.

use crate::Error;
use crate::decoder::{Cache, Decoder, Storage};
use crate::workspace::{Keep, Workspace};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The likeliest; the lowest id among equals.
    Greedy,
    /// Drawn from the distribution at a temperature, among the likeliest tokens that together hold `top_p`.
    Random {
        /// Divisor of the logits, above 0.
        temperature: f32,
        /// Mass to draw from, in (0, 1].
        top_p: f32,
        /// Seed of the draws.
        seed: u64,
    },
}

impl Sampling {
    /// Checks the settings.
    pub fn validate(&self) -> Result<(), Error> {
        let Sampling::Random { temperature, top_p, .. } = *self else { return Ok(()) };
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::Sampling {
                key: "temperature",
                value: temperature.into(),
                range: "above 0; use `--greedy` for the likeliest token",
            });
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::Sampling { key: "top-p", value: top_p.into(), range: "above 0, at most 1" });
        }
        Ok(())
    }
}

/// `prompt` and up to `max_new_tokens` more; ends early after an end token of the model.
pub fn generate<P: Storage>(
    decoder: &mut Decoder<P>,
    prompt: &[u32],
    max_new_tokens: usize,
    sampling: Sampling,
) -> Result<Vec<u32>, Error> {
    sampling.validate()?;
    if prompt.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    decoder.check_ids(prompt)?;
    decoder.allow_length(prompt.len().saturating_add(max_new_tokens))?;
    let mut random = match sampling {
        Sampling::Random { seed, .. } => ChaCha8Rng::seed_from_u64(seed),
        Sampling::Greedy => ChaCha8Rng::seed_from_u64(0),
    };
    let mut cache = Cache::new(decoder.architecture(), prompt.len() + max_new_tokens);
    let mut workspace = Workspace::new(decoder.architecture(), prompt.len(), Keep::Nothing);
    let width = decoder.architecture().width;
    let mut sequence = prompt.to_vec();
    for _ in 0..max_new_tokens {
        let hidden = decoder.advance(&sequence[cache.positions..], &mut cache, &mut workspace);
        let last = &hidden[hidden.len() - width..];
        let logits = decoder.head().all_logits(last, decoder.head_parameters());
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(Error::LogitsNotFinite { position: sequence.len() - 1 });
        }
        let next = match sampling {
            Sampling::Greedy => argmax(&logits),
            Sampling::Random { temperature, top_p, .. } => draw(&logits, temperature, top_p, &mut random),
        };
        sequence.push(next);
        if decoder.architecture().end_tokens.contains(&next) {
            break;
        }
    }
    Ok(sequence)
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

fn draw(logits: &[f32], temperature: f32, top_p: f32, random: &mut ChaCha8Rng) -> u32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut tokens: Vec<(u32, f64)> = logits
        .iter()
        .enumerate()
        .map(|(id, logit)| (id as u32, f64::from((logit - max) / temperature).exp()))
        .collect();
    tokens.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let total: f64 = tokens.iter().map(|token| token.1).sum();
    let mut mass = 0.0;
    let kept = tokens.iter().take_while(|token| {
        let inside = mass < f64::from(top_p) * total;
        mass += token.1;
        inside
    });
    let kept: Vec<_> = kept.copied().collect();
    let mut left = random.random::<f64>() * kept.iter().map(|token| token.1).sum::<f64>();
    for (id, probability) in &kept {
        left -= probability;
        if left < 0.0 {
            return *id;
        }
    }
    kept.last().expect("the likeliest token is always kept").0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_p_keeps_the_smallest_set_that_holds_the_mass() {
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.15f32.ln(), 0.05f32.ln()];
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut count = |top_p: f32| {
            let mut counts = [0; 4];
            (0..4000).for_each(|_| counts[draw(&logits, 1.0, top_p, &mut random) as usize] += 1);
            counts
        };
        assert_eq!(count(0.4)[0], 4000);
        let two = count(0.7);
        assert_eq!(two[2] + two[3], 0);
        assert!((two[0] as f64 / 4000.0 - 0.625).abs() < 0.03, "{two:?}");
        let all = count(1.0);
        assert!((all[3] as f64 / 4000.0 - 0.05).abs() < 0.015, "{all:?}");
    }

    #[test]
    fn a_low_temperature_is_greedy() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        assert!((0..100).all(|_| draw(&[0.0, 0.1, -0.1], 0.001, 1.0, &mut random) == 1));
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
    }
}
