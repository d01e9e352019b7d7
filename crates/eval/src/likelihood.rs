//! Log-probabilities of given completions, many at a time.
//!
//! Completions of about the same length share a pass; what fills the shorter ones up stands behind them, where a causal
//! model does not see it. Of the rows that a pass gives, the head reads those before the tokens of the completions.

use remit_batch::{Batch, Window};
use remit_engine::{Engine, Error, ModelId, Predictions};

/// Rows of a pass, unless one sequence has more. Not a setting: it decides the last bits of the results.
pub(crate) const ROWS: usize = 2048;

/// A completion behind its prompt.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// At least one token.
    pub prompt: &'a [u32],
    /// The tokens whose log-probabilities are wanted.
    pub completion: &'a [u32],
}

impl Sequence<'_> {
    /// What the model reads and is asked for: all tokens, and at each prediction whether it is of the completion.
    fn window(&self, index: usize, length: usize) -> Window {
        let mut tokens = [self.prompt, self.completion].concat();
        let num_predictions = tokens.len() - 1;
        let first = self.prompt.len() - 1;
        tokens.resize(length + 1, 0);
        let mask = (0..length).map(|t| t >= first && t < num_predictions).collect();
        Window { index: index as u64, tokens, mask, documents: vec![0; length] }
    }

    fn num_predictions(&self) -> usize {
        self.prompt.len() + self.completion.len() - 1
    }
}

/// The log-probability of every token of every completion, given its prompt and the tokens before it. `advance` is told
/// of sequences and of tokens that are done.
///
/// # Errors
/// Sequences that are longer than the model allows, have no prompt, or hold ids beyond its vocabulary.
pub fn log_probs(
    engine: &mut dyn Engine,
    model: ModelId,
    sequences: &[Sequence],
    advance: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Vec<f32>>, Error> {
    for Sequence { prompt, completion } in sequences {
        if prompt.is_empty() {
            return Err(remit_model::generate::empty_prompt().into());
        }
        let architecture = engine.architecture(model);
        architecture.check_ids(prompt)?;
        architecture.check_ids(completion)?;
    }
    // Without a completion there is nothing to predict.
    let mut order: Vec<usize> =
        (0..sequences.len()).filter(|&i| !sequences[i].completion.is_empty()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(sequences[index].num_predictions()));
    let mut results = vec![Vec::new(); sequences.len()];
    let mut rest = &order[..];
    while let Some(&first) = rest.first() {
        let length = sequences[first].num_predictions();
        let (together, behind) = rest.split_at((ROWS / length).clamp(1, rest.len()));
        rest = behind;
        let windows: Vec<Window> =
            together.iter().map(|&index| sequences[index].window(index, length)).collect();
        let batch = Batch::stack(&windows, false);
        let log_probs = engine.log_probs(model, &batch, Predictions::Unmasked)?;
        advance(together.len() as u64, log_probs.len() as u64);
        let mut left = &log_probs[..];
        for &index in together {
            let (own, others) = left.split_at(sequences[index].completion.len());
            results[index] = own.to_vec();
            left = others;
        }
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use remit_engine::Cpu;
    use remit_model::generate::{Request, Sampling, Settings};
    use remit_model::{Decoder, Input, Keep, Workspace};

    use super::*;
    use crate::examples;

    /// Prompts and completions of many lengths, more than fit in one pass.
    fn sequences() -> Vec<(Vec<u32>, Vec<u32>)> {
        let ids = |seed: u32, count: u32| (0..count).map(|i| (seed * 31 + i * i * 7 + i) % 300).collect();
        (0..90).map(|i| (ids(i, 1 + i % 40), ids(i + 500, i * 7 % 23))).collect()
    }

    fn all((engine, model): &mut (Cpu, ModelId), sequences: &[(Vec<u32>, Vec<u32>)]) -> Vec<Vec<f32>> {
        let sequences: Vec<Sequence> =
            sequences.iter().map(|(prompt, completion)| Sequence { prompt, completion }).collect();
        log_probs(engine, *model, &sequences, &mut |_, _| ()).expect("good ids")
    }

    #[track_caller]
    fn check_close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{found:?} is not {expected:?}");
        }
    }

    /// From all logits of one sequence: the log-softmax at the position before each token.
    fn alone(decoder: &mut Decoder, prompt: &[u32], completion: &[u32]) -> Vec<f32> {
        let ids = [prompt, completion].concat();
        decoder.allow_length(ids.len()).expect("short");
        let mut workspace = Workspace::new(decoder.architecture(), ids.len(), Keep::Nothing);
        let input = Input { ids: &ids, length: ids.len(), starts: None };
        let hidden = decoder.forward(input, &mut workspace);
        let log_prob = |(place, &id): (usize, &u32)| {
            let hidden = &hidden[(prompt.len() + place - 1) * 32..][..32];
            let logit = |token: &[f32]| hidden.iter().zip(token).map(|(a, b)| a * b).sum::<f32>();
            let row: Vec<f32> = decoder.head_parameters().chunks(32).map(logit).collect();
            let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            (f64::from(row[id as usize]) - sum.ln()) as f32
        };
        completion.iter().enumerate().map(log_prob).collect()
    }

    #[test]
    fn many_together_are_as_one_alone() {
        let tokenizer = examples::tokenizer();
        let (mut decoder, mut engine) =
            (examples::decoder(&tokenizer, 128), examples::engine(&tokenizer, 128));
        let sequences = sequences();
        let rows: usize = sequences.iter().map(|(prompt, completion)| prompt.len() + completion.len()).sum();
        assert!(rows > ROWS, "more than one pass");
        for ((prompt, completion), found) in sequences.iter().zip(all(&mut engine, &sequences)) {
            check_close(&found, &alone(&mut decoder, prompt, completion));
        }
    }

    #[test]
    fn they_are_those_of_generation() {
        let tokenizer = examples::tokenizer();
        let mut engine = examples::engine(&tokenizer, 128);
        let requests: Vec<Request> = (1..12)
            .map(|i| Request { prompt: (i..2 * i + 3).collect(), seed: 0, max_new_tokens: 20 })
            .collect();
        let greedy = Settings::new(Sampling::Greedy);
        let completions = engine.0.generate(engine.1, &requests, &greedy, &mut ()).expect("good requests");
        let sequences: Vec<_> = requests
            .iter()
            .zip(&completions)
            .map(|(request, completion)| (request.prompt.clone(), completion.tokens.clone()))
            .collect();
        for (found, completion) in all(&mut engine, &sequences).iter().zip(&completions) {
            check_close(found, &completion.log_probs);
        }
        // The neighbours of a token have other log-probabilities, so a shift by one would be seen.
        let log_probs = &completions[0].log_probs;
        assert!(log_probs.windows(2).any(|pair| (pair[0] - pair[1]).abs() > 0.1), "{log_probs:?}");
    }

    #[test]
    fn sequences_that_cannot_be_read() {
        let (mut engine, model) = examples::engine(&examples::tokenizer(), 16);
        let mut error = |prompt: &[u32], completion: &[u32]| {
            let sequences = [Sequence { prompt, completion }];
            let found = log_probs(&mut engine, model, &sequences, &mut |_, _| ()).map(|found| found[0].len());
            found.map_err(|error| error.to_string())
        };
        assert_eq!(error(&[], &[1]).expect_err("nothing to read"), "the prompt is empty");
        assert!(error(&[1], &[300]).expect_err("no such token").starts_with("token id 300 at position 0"));
        let too_long = error(&[1; 8], &[1; 10]).expect_err("18 tokens, of which 17 are read");
        assert!(too_long.starts_with("17 positions are asked for, the model allows 16"), "{too_long}");
        assert_eq!(error(&[1; 8], &[1; 9]).expect("the last token is not read"), 9);
        assert_eq!(error(&[1; 8], &[]).expect("nothing to do"), 0);
    }
}
