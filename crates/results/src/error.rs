//! Why a file of results cannot be used, with the facts; the advice is in [`Error::hint`].

use std::path::PathBuf;

/// A file that is there and cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be understood.
    #[error("cannot read `{}`: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// It is of another version.
    #[error("`{}` has format version {found}, this program writes {known}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// Ours.
        known: u32,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some("choose another output with `--out`, or remove the file".to_owned())
    }
}
