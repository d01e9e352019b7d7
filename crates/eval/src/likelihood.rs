//! Log-probabilities of given completions, many at a time.
//!
//! Completions of about the same length share a pass; what fills the shorter ones up stands behind them, where a causal
//! model does not see it. Of the rows that a pass gives, the head reads those before the tokens of the completions.

use remit_batch::{Batch, Window};
use remit_kernels::head::Scratch;
use remit_model::{Decoder, Error, Input, Keep, Storage, Workspace};

/// Rows of a pass, unless one sequence has more. Not a setting: it decides the last bits of the results.
const ROWS: usize = 2048;

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
pub fn log_probs<P: Storage>(
    decoder: &mut Decoder<P>,
    sequences: &[Sequence],
    advance: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Vec<f32>>, Error> {
    for Sequence { prompt, completion } in sequences {
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        decoder.check_ids(prompt)?;
        decoder.check_ids(completion)?;
    }
    // Without a completion there is nothing to predict.
    let mut order: Vec<usize> =
        (0..sequences.len()).filter(|&i| !sequences[i].completion.is_empty()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(sequences[index].num_predictions()));
    let mut results = vec![Vec::new(); sequences.len()];
    let Some(&longest) = order.first() else { return Ok(results) };
    let longest = sequences[longest].num_predictions();
    decoder.allow_length(longest)?;
    let mut workspace = Workspace::new(decoder.architecture(), longest.max(ROWS), Keep::Nothing);
    let mut scratch = Scratch::default();
    let mut rest = &order[..];
    while let Some(&first) = rest.first() {
        let length = sequences[first].num_predictions();
        let (together, behind) = rest.split_at((ROWS / length).clamp(1, rest.len()));
        rest = behind;
        let windows: Vec<Window> =
            together.iter().map(|&index| sequences[index].window(index, length)).collect();
        let batch = Batch::stack(&windows, false);
        let log_probs = wanted(decoder, &batch, &mut workspace, &mut scratch);
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

/// The log-probabilities of the batch's targets where its mask is true, in order.
fn wanted<P: Storage>(
    decoder: &Decoder<P>,
    batch: &Batch,
    workspace: &mut Workspace,
    scratch: &mut Scratch,
) -> Vec<f32> {
    let input = Input { ids: &batch.inputs, length: batch.length, starts: batch.starts.as_deref() };
    let all = decoder.forward(input, workspace);
    let width = decoder.architecture().width;
    let (mut hidden, mut targets) = (Vec::new(), Vec::new());
    for (row, _) in batch.mask.iter().enumerate().filter(|(_, counts)| **counts) {
        hidden.extend_from_slice(&all[row * width..][..width]);
        targets.push(batch.targets[row]);
    }
    decoder.head().log_probs(&hidden, decoder.head_parameters(), &targets, scratch).log_probs
}
