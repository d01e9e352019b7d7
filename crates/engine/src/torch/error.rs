//! What can go wrong with the worker.

use std::path::PathBuf;

/// An error of the worker or around it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no Python.
    #[error("no Python was found: VIRTUAL_ENV is not set, and PATH has neither `python3` nor `python`")]
    NoPython,
    /// It could not be started.
    #[error("cannot start `{}`: {cause}", .python.display())]
    Start {
        /// The program.
        python: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The directory of temporary files cannot be used.
    #[error("cannot write the worker's files to `{}`: {cause}", .directory.display())]
    Temporary {
        /// Where.
        directory: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// A package that is too old.
    #[error("{package} is version {found}, but at least {needed} is needed")]
    Version {
        /// Its name.
        package: &'static str,
        /// The version that is installed.
        found: String,
        /// The version that is needed.
        needed: &'static str,
    },
    /// A path that JSON cannot hold.
    #[error("`{}` is not UTF-8, which the PyTorch worker needs", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The worker has said that it cannot do what was asked.
    #[error("the PyTorch worker cannot do what `{operation}` asks: {message}{}", traceback.as_deref().map(indented).unwrap_or_default())]
    Answer {
        /// What it was asked for.
        operation: &'static str,
        /// What kind of error it is.
        kind: Kind,
        /// The facts.
        message: String,
        /// What to do about it.
        hint: Option<String>,
        /// Where it happened, unless that is the user's business.
        traceback: Option<String>,
    },
    /// The worker is no more.
    #[error("the PyTorch worker has ended ({status}) during `{operation}`{}", indented(words))]
    Ended {
        /// What it was asked for.
        operation: &'static str,
        /// Its exit status, in words.
        status: String,
        /// The last lines of its standard error.
        words: String,
    },
    /// No answer came in time.
    #[error("the PyTorch worker has not answered `{operation}` within {seconds} s{}", indented(words))]
    Silent {
        /// What it was asked for.
        operation: &'static str,
        /// The limit.
        seconds: f64,
        /// The last lines of its standard error.
        words: String,
    },
    /// An answer that is none.
    #[error("the PyTorch worker's answer to `{operation}` cannot be used: {problem}{}", indented(words))]
    Nonsense {
        /// What it was asked for.
        operation: &'static str,
        /// What is wrong with the answer.
        problem: String,
        /// The last lines of its standard error.
        words: String,
    },
    /// A worker that has been given up before.
    #[error("the PyTorch worker is gone, after an earlier error")]
    Gone,
}

/// Kinds of errors that a worker reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// What was asked for cannot be had.
    User,
    /// The device has too little memory.
    OutOfMemory,
    /// The worker's own fault.
    Internal,
    /// One of several processes is gone, or has not answered in time, and with it all of them.
    Ended,
}

/// The versions that are needed, for the user's shell.
const INSTALL: &str = "pip install 'torch>=2.8' 'transformers>=5.0'";

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NoPython => Some(format!(
                "install Python 3.10 or later and `{INSTALL}`, or set `[engine] python` to the program"
            )),
            Error::Start { .. } => Some("set `[engine] python` to a Python 3.10 or later".into()),
            Error::Temporary { .. } => {
                Some("set TMPDIR to a directory with room for a model's parameters".into())
            }
            Error::Version { .. } => {
                Some(format!("`{INSTALL}`, or set `[engine] python` to a Python that has them"))
            }
            Error::Answer { hint, .. } => hint.clone(),
            Error::Ended { .. } => Some(
                "nothing that was saved is lost: start again to go on from the latest checkpoint; a worker that was killed \
                 has often run out of memory"
                    .into(),
            ),
            Error::Silent { .. } => Some(
                "if it was only slow, raise `[engine] timeout_seconds`; nothing that was saved is lost".into(),
            ),
            Error::Nonsense { .. } => Some(format!(
                "is `[engine] python` a Python with the packages that are needed? `{INSTALL}`"
            )),
            Error::Path { .. } | Error::Gone => None,
        }
    }
}

/// Lines below a message, if there are any.
fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("\n  | {line}")).collect()
}
