//! What can be wrong with the settings of a reward.

/// A setting that makes no sense.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A pattern that is no regular expression.
    #[error("`pattern` is no regular expression: {cause}")]
    Pattern {
        /// Why. Not a `source`: the message already ends with it.
        cause: Box<regex::Error>,
    },
    /// More or fewer choices than there are letters for.
    #[error("`choices` is {choices}, but must be from 2 to 26")]
    Choices {
        /// The number found.
        choices: u8,
    },
    /// A marker of no characters, which is found everywhere.
    #[error("`after` is empty")]
    EmptyMarker,
}

impl Error {
    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Pattern { .. } => {
                Some("write it in single quotes, so that TOML leaves its backslashes alone".to_owned())
            }
            Self::Choices { .. } => None,
            Self::EmptyMarker => Some("leave it out to look at the whole completion".to_owned()),
        }
    }
}
