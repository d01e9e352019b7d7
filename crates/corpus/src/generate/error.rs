//! What can go wrong when a corpus is generated.

use std::path::PathBuf;

use super::families::Family;
use super::level::Level;

/// A corpus could not be generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The list of families is empty.
    #[error("no problem families are named")]
    NoFamilies,
    /// A family was asked for by a name that none has.
    #[error("unknown problem family `{name}`")]
    UnknownFamily {
        /// The name as given.
        name: String,
    },
    /// A rate of noise is not a share of documents.
    #[error("noise rate `{name}` is {value}, not a number from 0 to 1")]
    Rate {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// More test problems were asked for than are certain to exist.
    #[error(
        "{count} test problems of level {level} asked of {families} families, at most {most} are certain to be distinct"
    )]
    TooManyTestProblems {
        /// Test problems asked for.
        count: usize,
        /// Families they were asked of.
        families: usize,
        /// Their level.
        level: Level,
        /// The most that can be asked of that many families.
        most: usize,
    },
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
        let names = || Family::ALL.map(|family| format!("`{family}`")).join(", ");
        match self {
            Self::NoFamilies | Self::UnknownFamily { .. } => Some(format!("the families are {}", names())),
            Self::Rate { .. } => Some("0.15 makes 15 of 100 documents noisy".to_owned()),
            Self::TooManyTestProblems { .. } => Some("ask for fewer, or name more families".to_owned()),
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
