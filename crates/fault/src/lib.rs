//! The error that the crates share: what is wrong and, apart from it, what to do about it.
//!
//! Nobody asks one of these what kind it is. Where a caller does something else after a failure, the function returns a
//! type that says so.

use std::fmt::{self, Display};
use std::io::{self, ErrorKind};
use std::path::Path;

/// What a user can do something about: facts in the message, advice in the hint. Made by [`fault!`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    message: String,
    hint: Option<String>,
}

/// An [`Error`] with this message, written as for [`format!`].
#[macro_export]
macro_rules! fault {
    ($($message:tt)+) => { $crate::Error::new(format!($($message)+)) };
}

impl Error {
    /// An error without a hint.
    pub fn new(message: impl Into<String>) -> Error {
        Error { message: message.into(), hint: None }
    }

    /// The operating system refused. `action` is what was tried, a verb: "read", "write", "create".
    pub fn io(action: &str, path: impl AsRef<Path>, cause: io::Error) -> Error {
        let error = fault!("cannot {action} `{}`: {cause}", path.as_ref().display());
        let hint = match cause.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "nothing that was there before has been touched: free some space and run the same command again"
            }
            ErrorKind::FileTooLarge => {
                "nothing that was there before has been touched: raise the limit on the size of files (`ulimit -f`) and run the same command again"
            }
            ErrorKind::PermissionDenied => "check who owns it and its permissions",
            ErrorKind::ReadOnlyFilesystem => "choose an output path on a writable file system",
            _ => return error,
        };
        error.with_hint(hint)
    }

    /// The same with this hint and no other.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Error {
        Error { hint: Some(hint.into()), ..self }
    }

    /// The same about one of several things: `part` and a colon stand before the message.
    #[must_use]
    pub fn within(self, part: impl Display) -> Error {
        Error { message: format!("{part}: {}", self.message), ..self }
    }

    /// What to do about it, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

impl Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_has_the_facts_and_the_hint_stands_apart() {
        let error = fault!("{} of {count} are missing", 2, count = 3).with_hint("look for them");
        assert_eq!(error.to_string(), "2 of 3 are missing");
        assert_eq!(error.hint().unwrap(), "look for them");
        let error = error.within(format_args!("request {}", 1));
        assert_eq!(error.to_string(), "request 1: 2 of 3 are missing");
        assert_eq!(error.hint().unwrap(), "look for them");
        assert_eq!(fault!("nothing").hint(), None);
    }

    #[test]
    fn the_system_is_quoted_and_a_hint_given_where_there_is_one() {
        let io = |kind| Error::io("write", "a/b", io::Error::new(kind, "it said so"));
        assert_eq!(io(ErrorKind::NotFound).to_string(), "cannot write `a/b`: it said so");
        assert_eq!(io(ErrorKind::NotFound).hint(), None);
        assert!(
            io(ErrorKind::QuotaExceeded)
                .hint()
                .unwrap()
                .ends_with("free some space and run the same command again")
        );
        assert!(io(ErrorKind::FileTooLarge).hint().unwrap().contains("`ulimit -f`"));
        assert_eq!(io(ErrorKind::PermissionDenied).hint().unwrap(), "check who owns it and its permissions");
        assert!(io(ErrorKind::ReadOnlyFilesystem).hint().unwrap().contains("writable"));
    }
}
