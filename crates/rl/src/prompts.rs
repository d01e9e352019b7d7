//! What is asked: rows with a prompt, an answer and a verifier.

use crate::Error;
use crate::settings::Impossible;
use crate::verifiers::Verifiers;
use remit_corpus::examples::{Encoder, Examples, Place, Rows, TooLong};

/// A prompt to complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// The ground truth that its verifier compares with.
    pub answer: String,
    /// The verifier's name.
    pub verifier: String,
    /// The row it comes from.
    pub place: Place,
}

/// A row whose ground truth no completion could meet: where it stands, its verifier, the ground truth, and why.
type Refusal = (Place, String, String, String);

/// All prompts of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompts {
    /// In the order of the rows, at least one.
    pub prompts: Vec<Prompt>,
    /// Rows left out because they are too long.
    pub dropped: u64,
    /// Rows left out because no completion could meet their ground truth.
    pub impossible: u64,
}

impl Prompts {
    /// Reads the rows of `settings`, whose prompts may have up to `room` tokens where a completion may have `longest`.
    ///
    /// # Errors
    /// Rows without prompt, answer or verifier; those that are too long or whose ground truth is impossible, where they
    /// are not dropped; no row.
    pub fn read(
        settings: &Examples,
        encoder: &Encoder,
        verifiers: &Verifiers,
        impossible: Impossible,
        room: usize,
        longest: usize,
    ) -> Result<Prompts, Error> {
        let (mut prompts, mut dropped) = (Vec::new(), 0);
        let mut refused: Vec<Refusal> = Vec::new();
        let fields = encoder.fields().into_iter().chain(verifiers.fields());
        for row in Rows::open(&settings.files)?.only(fields) {
            let row = row?;
            let tokens = encoder.prompt(&row)?;
            let answer = encoder.answer(&row)?;
            let verifier = verifiers.of(&row)?;
            if let Some(problem) = verifiers.refusal(&verifier, &answer) {
                refused.push((row.place.clone(), verifier, answer, problem));
                continue;
            }
            match settings.too_long {
                _ if tokens.len() <= room => {
                    prompts.push(Prompt { tokens, answer, verifier, place: row.place.clone() });
                }
                TooLong::Drop => dropped += 1,
                TooLong::Error => {
                    let place = Box::new(row.place.clone());
                    return Err(Error::PromptTooLong { place, tokens: tokens.len(), longest, room });
                }
            }
        }
        let num_impossible = refused.len() as u64;
        if let (Impossible::Error, Some((place, verifier, answer, problem))) =
            (impossible, refused.into_iter().next())
        {
            let (place, more) = (Box::new(place), num_impossible - 1);
            return Err(Error::Impossible { place, verifier, answer, problem, more });
        }
        if prompts.is_empty() {
            return Err(Error::NoPrompts { dropped: dropped + num_impossible });
        }
        Ok(Prompts { prompts, dropped, impossible: num_impossible })
    }

    /// What identifies prompts, answers and verifiers, in hexadecimal.
    pub fn content_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"remit prompts 1 ");
        for Prompt { tokens, answer, verifier, place: _ } in &self.prompts {
            hasher.update(&(tokens.len() as u64).to_le_bytes());
            for token in tokens {
                hasher.update(&token.to_le_bytes());
            }
            for text in [answer, verifier] {
                hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Tokens of the longest prompt.
    pub fn longest(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0)
    }
}
