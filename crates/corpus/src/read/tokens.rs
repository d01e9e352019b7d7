//! Arrays of token ids made elsewhere: NumPy files and raw little-endian numbers.

use std::path::{Path, PathBuf};

use remit_fault::fault;

use super::input::Input;
use super::pieces::{Content, PIECE_TOKENS, Piece};
use super::{Item, Position, ReadError, Reader, TokenDtype};
use crate::Error;

/// Reads a one-dimensional array of token ids.
pub(crate) struct TokenReader {
    path: PathBuf,
    input: Input,
    number: Number,
    /// Tokens the header promises; raw files have none.
    promised: Option<u64>,
    eos: Option<u32>,
    vocab_size: u32,
    /// Tokens taken, of which the first `given` have been given.
    taken_tokens: Vec<u32>,
    given: usize,
    /// Tokens not yet given that are known to hold no `eos`.
    searched: usize,
    taken: u64,
    piece: u64,
    ended: bool,
}

/// How a number lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    U16,
    U32,
    I32,
    I64,
}

impl Number {
    fn width(self) -> usize {
        match self {
            Number::U16 => 2,
            Number::U32 | Number::I32 => 4,
            Number::I64 => 8,
        }
    }

    fn read(self, bytes: &[u8]) -> i64 {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let value = i64::from_le_bytes(wide);
        if self == Number::I32 { i64::from(value as i32) } else { value }
    }
}

impl TokenReader {
    pub fn open(
        path: &Path,
        has_header: bool,
        dtype: TokenDtype,
        at: Position,
        eos: Option<u32>,
        vocab_size: u32,
    ) -> Result<TokenReader, Error> {
        let (number, promised, header_bytes) = if has_header {
            let (number, count, header_bytes) = npy_header(path, &mut Input::open(path, 0)?)?;
            (number, Some(count), header_bytes)
        } else {
            let number = match dtype {
                TokenDtype::U16 => Number::U16,
                TokenDtype::U32 => Number::U32,
                TokenDtype::I32 => Number::I32,
                TokenDtype::I64 => Number::I64,
            };
            (number, None, 0)
        };
        Ok(TokenReader {
            path: path.to_owned(),
            input: Input::open(path, header_bytes + at.offset * number.width() as u64)?,
            number,
            promised,
            eos,
            vocab_size,
            taken_tokens: Vec::new(),
            given: 0,
            searched: 0,
            taken: at.offset,
            piece: at.piece,
            ended: false,
        })
    }

    fn take_more(&mut self) -> Result<(), Error> {
        self.taken_tokens.drain(..self.given);
        self.given = 0;
        let width = self.number.width();
        let mut count = PIECE_TOKENS as u64;
        if let Some(promised) = self.promised {
            count = count.min(promised - self.taken.min(promised));
        }
        let mut bytes = vec![0; count as usize * width];
        let num_bytes = self.input.read_full(&mut bytes)?;
        if num_bytes % width != 0 || (self.promised.is_some() && num_bytes < bytes.len()) {
            let message = match self.promised {
                Some(promised) => format!(
                    "cut off: it promises {promised} tokens and has {}",
                    self.taken + (num_bytes / width) as u64
                ),
                None => format!(
                    "its size is no multiple of {width} bytes, the width of its tokens; is `token_dtype` right?"
                ),
            };
            return Err(wrong(&self.path, &message));
        }
        self.ended = num_bytes < bytes.len() || num_bytes == 0;
        self.taken_tokens.reserve(num_bytes / width);
        for number in bytes[..num_bytes].chunks_exact(width) {
            let id = self.number.read(number);
            if !(0..i64::from(self.vocab_size)).contains(&id) {
                let message = format!(
                    "token {} is {id}, outside the vocabulary of {} tokens",
                    self.taken, self.vocab_size
                );
                let error = wrong(&self.path, &message);
                return Err(match self.promised {
                    Some(_) => error,
                    None => error.with_hint(
                        "check the source's `token_dtype`, and that the tokenizer is the one that made it",
                    ),
                });
            }
            self.taken_tokens.push(id as u32);
            self.taken += 1;
        }
        Ok(())
    }

    fn give(&mut self, count: usize, last: bool) -> Option<Item> {
        let tokens = self.taken_tokens[self.given..self.given + count].to_vec();
        self.given += count;
        self.searched = 0;
        let first = self.piece == 0;
        self.piece = if last { 0 } else { self.piece + 1 };
        Some(Item::Piece(Piece { content: Content::Tokens(tokens), first, last }))
    }
}

impl Reader for TokenReader {
    fn next(&mut self) -> Result<Option<Item>, ReadError> {
        loop {
            let pending = &self.taken_tokens[self.given..];
            let window = pending.len().min(PIECE_TOKENS);
            let end = self
                .eos
                .and_then(|eos| pending[self.searched..window].iter().position(|&token| token == eos));
            if let Some(end) = end {
                return Ok(self.give(self.searched + end + 1, true));
            }
            // A full piece is given once a token after it is known, so that no document ends with an empty piece.
            if pending.len() > PIECE_TOKENS {
                return Ok(self.give(PIECE_TOKENS, false));
            }
            if self.ended {
                let count = pending.len();
                return Ok(if count == 0 { None } else { self.give(count, true) });
            }
            self.searched = window;
            self.take_more()?;
        }
    }

    fn position(&self) -> Position {
        let num_pending = (self.taken_tokens.len() - self.given) as u64;
        Position { offset: self.taken - num_pending, record: 0, piece: self.piece, mid_line: false }
    }

    fn bytes_read(&self) -> u64 {
        self.input.bytes_read()
    }
}

/// A raw token array is damaged or of a kind that is not supported.
fn wrong(path: &Path, message: &str) -> Error {
    fault!("`{}`: {message}", path.display())
}

/// The number format, the count and the length of the header of a NumPy file
/// (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
fn npy_header(path: &Path, input: &mut Input) -> Result<(Number, u64, u64), Error> {
    let wrong = |message: String| wrong(path, &message);
    let cut_off = || wrong("cut off inside the NumPy header".into());
    let mut start = [0; 8];
    if input.read_full(&mut start)? < 8 || &start[..6] != b"\x93NUMPY" {
        return Err(wrong("not a NumPy file".into()).with_hint(
            "where it is raw numbers, as OLMo's `.npy` files are, set the source's `format` to \"raw\" and `token_dtype` to \
             their width: \"u16\", \"u32\", \"i32\" or \"i64\"",
        ));
    }
    let length_width = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(wrong(format!("NumPy format version {version} is not supported"))),
    };
    let mut length = [0; 4];
    if input.read_full(&mut length[..length_width])? < length_width {
        return Err(cut_off());
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > 1 << 16 {
        return Err(wrong(format!("a NumPy header of {length} bytes is not one of a plain array")));
    }
    let mut header = vec![0; length];
    if input.read_full(&mut header)? < length {
        return Err(cut_off());
    }
    let header = String::from_utf8_lossy(&header).into_owned();

    let dtype = value_of(&header, "descr").and_then(|rest| rest.split(['\'', '"']).nth(1)).unwrap_or("");
    let number = match dtype {
        "<u2" => Number::U16,
        "<u4" => Number::U32,
        "<i4" => Number::I32,
        "<i8" => Number::I64,
        other => {
            return Err(wrong(format!(
                "its dtype is `{other}`; token arrays are `<u2`, `<u4`, `<i4` or `<i8`"
            )));
        }
    };
    let shape = value_of(&header, "shape")
        .and_then(|rest| rest.strip_prefix('('))
        .and_then(|rest| rest.split(')').next())
        .unwrap_or("");
    let sizes: Vec<&str> = shape.split(',').map(str::trim).filter(|size| !size.is_empty()).collect();
    let &[size] = sizes.as_slice() else {
        return Err(wrong(format!("its shape is ({shape}); token arrays have one dimension")));
    };
    let count = size.parse().map_err(|_| wrong(format!("its shape is ({shape})")))?;
    Ok((number, count, (8 + length_width + length) as u64))
}

/// What follows a key of the header's dictionary.
fn value_of<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}'"))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}
