//! Everything that is shown to a person: messages, tables, numbers, the weights of tokens.
//!
//! Results go to stdout, everything else to stderr. Colour is only ever an addition: it is left out where the output
//! is no terminal, and nothing is said by colour alone.

pub mod error;
pub mod style;
pub mod table;
pub mod units;
pub mod weights;

use std::io::{self, Write};

use error::Failure;

/// Writes `text` to stdout as it is. When the reader has gone away, as `head` does, the program ends quietly.
///
/// # Errors
/// When stdout cannot be written for another reason.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.map_err(|error| Failure::new(error).context("cannot write to stdout")),
    }
}
