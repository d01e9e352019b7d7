//! What can go wrong when the prose of dependencies is read.

use std::path::PathBuf;

/// Ordinary text could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not that of a lock file.
    #[error("the lock file cannot be read: {cause}")]
    Lockfile {
        /// Why. Not a `source`: the message already ends with it.
        cause: Box<toml::de::Error>,
    },
    /// A crate of the fixed list is not a dependency.
    #[error("crate `{name}` is not in the lock file")]
    NotLocked {
        /// The crate.
        name: String,
    },
    /// The sources of a crate are not in Cargo's registry.
    #[error("the sources of crate `{name}` {version} are not under `{}`", .registry.display())]
    NotFetched {
        /// The crate.
        name: String,
        /// The version that the lock file pins.
        version: String,
        /// The folder that was searched.
        registry: PathBuf,
    },
    /// Neither `CARGO_HOME` nor a home directory is known.
    #[error("the place of Cargo's registry is unknown")]
    NoCargoHome,
    /// A file could not be read or written.
    #[error(transparent)]
    Store(#[from] remit_store::Error),
}

impl Error {
    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Lockfile { .. } => Some("pass the text of this project's `Cargo.lock`".to_owned()),
            Self::NotLocked { .. } => Some(
                "pass the lock file that this program was built with, `Cargo.lock` in its checkout"
                    .to_owned(),
            ),
            Self::NotFetched { .. } => {
                Some("run `cargo fetch --locked` in this project's checkout".to_owned())
            }
            Self::NoCargoHome => Some("set `CARGO_HOME` to the folder that holds `registry`".to_owned()),
            Self::Store(error) => error.hint(),
        }
    }
}
