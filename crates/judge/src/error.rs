//! Settings of a verifier that make no sense; the advice is in [`Error::hint`].

/// A verifier could not be built.
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
            Error::Pattern { .. } => {
                Some("write it in single quotes, so that TOML leaves its backslashes alone".into())
            }
            Error::Choices { .. } => None,
            Error::EmptyMarker => Some("leave it out to look at the whole completion".into()),
        }
    }
}
