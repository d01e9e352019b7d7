//! A tiny language of integers, to verify programs without a host language.
//!
//! What a model writes is never given to Python or a shell: it is parsed here, and run under a limit of steps. The
//! language can compute and print; there is nothing else it could do.
//!
//! ```text
//! program    = [ statement { (";" | newline) statement } ]
//! statement  = name ("=" | "+=" | "-=" | "*=") expression
//!            | "print" "(" expression ")"
//!            | "repeat" expression "{" program "}"
//!            | "while" expression ("<" | "<=" | ">" | ">=" | "==" | "!=") expression "{" program "}"
//! expression = term { ("+" | "-") term }
//! term       = factor { ("*" | "//" | "%") factor }
//! factor     = digits | name | "_" | "-" factor | "(" expression ")"
//! ```
//!
//! Values are 64-bit integers; `//` and `%` round towards minus infinity, as in Python. The hole `_` stands for an
//! expression that is supplied when the program runs. What goes wrong, overflow included, is an error and never a
//! panic: programs are written by models.

mod checks;
mod parse;
mod run;

pub use checks::{Check, satisfies};
pub use parse::{Expression, Program};
pub use run::MAX_STEPS;

/// Why a program could not be read or run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// The text is longer than any program of ours.
    #[error("a program of {bytes} bytes, at most {most} are read")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The longest that is read.
        most: usize,
    },
    /// Something else was expected.
    #[error("at byte {at}: expected {expected}")]
    Syntax {
        /// Where, from 0.
        at: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// Parentheses or blocks inside each other beyond the limit.
    #[error("at byte {at}: nested too deeply")]
    TooDeep {
        /// Where, from 0.
        at: usize,
    },
    /// A name is read before it is given a value.
    #[error("`{name}` has no value yet")]
    Unknown {
        /// The name.
        name: String,
    },
    /// A result does not fit 64 bits.
    #[error("a number grew beyond 64 bits")]
    Overflow,
    /// A division by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// The program did not end in time.
    #[error("still running after {steps} steps")]
    OutOfSteps {
        /// The limit.
        steps: u64,
    },
    /// The program has a hole, and nothing to fill it was given.
    #[error("the hole `_` is not filled")]
    Hole,
}
