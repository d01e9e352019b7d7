//! A unit of pieces to a unit of tokens, on the threads of the current pool.

use rayon::prelude::*;

use super::{Prepare, Vocabulary};
use crate::read::{Content, Cursor, Piece, Unit};
use crate::{Error, Skipped};

/// Text tokenized by one task, in bytes.
const TASK_BYTES: usize = 1 << 17;

/// A tokenized unit.
pub(super) struct EncodedUnit {
    pub source: usize,
    pub pieces: Vec<EncodedPiece>,
    pub skipped: Skipped,
    pub num_empty: u64,
    pub ends_source: bool,
    pub next: Cursor,
    pub bytes_done: u64,
}

/// A tokenized piece.
pub(super) struct EncodedPiece {
    /// With the special tokens at the document's ends.
    pub tokens: Vec<u32>,
    /// It begins a document; whether that is kept apart.
    pub begins: Option<bool>,
    /// It ends a document.
    pub ends: bool,
}

pub(super) fn encode(unit: Unit, settings: &Prepare, vocabulary: &Vocabulary) -> Result<EncodedUnit, Error> {
    let Unit { source, pieces, skipped, num_empty, ends_source, next, bytes_done } = unit;
    let mut tasks: Vec<Vec<Piece>> = Vec::new();
    let mut room = 0;
    for piece in pieces {
        if room == 0 {
            tasks.push(Vec::new());
            room = TASK_BYTES;
        }
        room = room.saturating_sub(piece.content.size() + 1);
        tasks.last_mut().expect("a task was begun").push(piece);
    }
    let encoded = tasks
        .into_par_iter()
        .map(|task| task.into_iter().map(|piece| encode_piece(piece, settings, vocabulary)).collect())
        .collect::<Result<Vec<Vec<EncodedPiece>>, Error>>()?;
    let pieces = encoded.into_iter().flatten().collect();
    Ok(EncodedUnit { source, pieces, skipped, num_empty, ends_source, next, bytes_done })
}

fn encode_piece(piece: Piece, settings: &Prepare, vocabulary: &Vocabulary) -> Result<EncodedPiece, Error> {
    let Piece { content, first, last } = piece;
    let begins = first.then(|| is_held_out(&content, settings.holdout));
    let tokens = match content {
        Content::Tokens(tokens) => tokens,
        Content::Text(text) => {
            let tokenizer =
                vocabulary.tokenizer.as_ref().expect("text without a tokenizer is refused at the start");
            let mut tokens = if first {
                tokenizer.encode_document(&vocabulary.prefix, &text)?
            } else {
                tokenizer.encode_behind(&text)?
            };
            if last && settings.append_eos {
                tokens.push(vocabulary.eos.expect("checked at the start"));
            }
            tokens
        }
    };
    Ok(EncodedPiece { tokens, begins, ends: last })
}

/// Decided by the text alone, so that copies of a document are on one side.
fn is_held_out(content: &Content, holdout: f64) -> bool {
    if holdout == 0.0 {
        return false;
    }
    let hash = match content {
        Content::Text(text) => blake3::hash(text.as_bytes()),
        Content::Tokens(tokens) => {
            let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
            blake3::hash(&bytes)
        }
    };
    let start = hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes");
    // 53 bits, so that the quotient is exact.
    let share = (u64::from_le_bytes(start) >> 11) as f64 / (1u64 << 53) as f64;
    share < holdout
}
