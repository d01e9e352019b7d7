//! What can go wrong between the files of a run and its report, with the facts; the advice is in [`Error::hint`].

use std::path::PathBuf;

/// An error of the report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Of reading or writing files.
    #[error(transparent)]
    Store(#[from] remit_store::Error),
    /// Of reading results.
    #[error(transparent)]
    Results(#[from] remit_results::Error),
    /// A directory that nothing can be said about.
    #[error("`{}` is no run directory: it has neither `flywheel.json`, `nodes` nor `metrics.jsonl`", path.display())]
    NoRun {
        /// The directory.
        path: PathBuf,
    },
    /// A file that is not what its name says.
    #[error("`{}` cannot be read: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Store(error) => error.hint(),
            Error::Results(error) => error.hint(),
            Error::NoRun { .. } => Some(
                "give the directory that `remit flywheel` or a single run wrote, the `run` of its recipe"
                    .to_owned(),
            ),
            Error::File { .. } => None,
        }
    }
}
