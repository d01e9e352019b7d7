//! What can be wrong with an objective's settings.

/// A setting that makes no sense, or that does not fit the data at hand.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number outside its range.
    #[error("objective setting `{key}` is {value}, but must be {expected}")]
    Setting {
        /// The key as written in a recipe.
        key: &'static str,
        /// The value found.
        value: f64,
        /// The values allowed, in words.
        expected: &'static str,
    },
    /// The rule compares the learner with a reference, and the run has none.
    #[error("objective `{kind}` needs a reference, and none is given")]
    ReferenceMissing {
        /// The objective's kind.
        kind: &'static str,
    },
    /// A selection that keeps no token at all: its loss would be 0 / 0.
    #[error("`fraction` {fraction} of {unmasked} unmasked tokens selects none of them")]
    EmptySelection {
        /// The fraction asked for.
        fraction: f64,
        /// Unmasked tokens in the optimiser batch.
        unmasked: u64,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Setting { .. } => None,
            Error::ReferenceMissing { .. } => Some(
                "name a reference checkpoint or a score store, or choose an objective that needs none: `kind = \"ntp\"`"
                    .to_string(),
            ),
            Error::EmptySelection { .. } => {
                Some("raise `fraction`, enlarge the batch, or use `scope = \"batch\"`".to_string())
            }
        }
    }
}
