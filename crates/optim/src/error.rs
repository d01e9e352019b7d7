//! What can be wrong with an optimiser's settings.

/// A setting that makes no sense, or that does not fit the run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number outside its range.
    #[error("{section} setting `{key}` is {value}, but must be {expected}")]
    Setting {
        /// Whose setting it is, such as `optimizer`.
        section: &'static str,
        /// The key as written in a recipe.
        key: &'static str,
        /// The value found.
        value: f64,
        /// The values allowed, in words.
        expected: &'static str,
    },
    /// A setting that the chosen kind of schedule would ignore.
    #[error("schedule setting `{key}` has no meaning for kind `{kind}`")]
    UnusedSetting {
        /// The key as written in a recipe.
        key: &'static str,
        /// The schedule's kind.
        kind: &'static str,
    },
    /// One length given in two ways.
    #[error("schedule settings `{steps}` and `{fraction}` are both given")]
    GivenTwice {
        /// The key that counts steps.
        steps: &'static str,
        /// The key that gives a share of the run.
        fraction: &'static str,
    },
    /// Warm-up and decay do not fit into the run.
    #[error("schedule needs {warmup} steps of warm-up and {decay} of decay, but the run has {total}")]
    TooLong {
        /// Steps of warm-up.
        warmup: u64,
        /// Steps of decay with a length of its own.
        decay: u64,
        /// Steps of the run.
        total: u64,
    },
    /// A pattern that no parameter's name matches.
    #[error("weight decay exclusion `{pattern}` matches no parameter")]
    PatternMatchesNothing {
        /// The pattern.
        pattern: String,
        /// Some names there are, for comparison.
        examples: Vec<String>,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Setting { .. } => None,
            Error::UnusedSetting { key, .. } => Some(format!("remove `{key}` or choose another kind")),
            Error::GivenTwice { steps, fraction } => Some(format!("keep either `{steps}` or `{fraction}`")),
            Error::TooLong { .. } => Some("shorten them or lengthen the run".to_string()),
            Error::PatternMatchesNothing { examples, .. } => {
                let names: Vec<String> = examples.iter().map(|name| format!("`{name}`")).collect();
                Some(format!("`*` stands for any characters; parameters are named like {}", names.join(", ")))
            }
        }
    }
}
