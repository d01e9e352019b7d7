//! What is asked: rows with a prompt, an answer and a verifier.

use crate::Error;
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

/// All prompts of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompts {
    /// In the order of the rows, at least one.
    pub prompts: Vec<Prompt>,
    /// Rows left out because they are too long.
    pub dropped: u64,
}

impl Prompts {
    /// Reads the rows of `settings`, whose prompts may have up to `room` tokens where a completion may have `longest`.
    ///
    /// # Errors
    /// Rows without prompt, answer or verifier, and those that are too long where they are not dropped; no row.
    pub fn read(
        settings: &Examples,
        encoder: &Encoder,
        verifiers: &Verifiers,
        room: usize,
        longest: usize,
    ) -> Result<Prompts, Error> {
        let (mut prompts, mut dropped) = (Vec::new(), 0);
        let fields = encoder.fields().into_iter().chain(verifiers.fields());
        for row in Rows::open(&settings.files)?.only(fields) {
            let row = row?;
            let tokens = encoder.prompt(&row)?;
            let answer = encoder.answer(&row)?;
            let verifier = verifiers.of(&row)?;
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
        if prompts.is_empty() {
            return Err(Error::NoPrompts { dropped });
        }
        Ok(Prompts { prompts, dropped })
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
