//! What can go wrong when a corpus is generated.

use crate::families::Family;
use crate::level::Level;

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
}

impl Error {
    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        let names = || Family::ALL.map(|family| format!("`{family}`")).join(", ");
        match self {
            Self::NoFamilies | Self::UnknownFamily { .. } => Some(format!("the families are {}", names())),
            Self::Rate { .. } => Some("0.15 makes 15 of 100 documents noisy".to_owned()),
            Self::TooManyTestProblems { .. } => Some("ask for fewer, or name more families".to_owned()),
        }
    }
}
