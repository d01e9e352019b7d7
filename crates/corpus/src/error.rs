//! Errors of which several files speak.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::path::Path;

use remit_fault::fault;

use crate::Error;

/// What is wrong with one record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRecord {
    /// The line is not JSON.
    #[error("malformed JSON: {0}")]
    Json(String),
    /// The line is JSON, but no object.
    #[error("the record is {0}, not an object")]
    NotAnObject(&'static str),
    /// A field is missing. The fields that there are, are sorted.
    #[error("no field `{field}`; the record has {}", list(available))]
    MissingField { field: String, available: Vec<String> },
    /// A field is not a string, but what was found.
    #[error("field `{field}` is {found}, not a string")]
    NotAString { field: String, found: &'static str },
    /// The text is not UTF-8.
    #[error("invalid UTF-8")]
    InvalidUtf8,
}

impl BadRecord {
    /// The error of a record of a source; `skip_bad_records` counts and skips it instead.
    pub fn in_source(&self, place: impl Display) -> Error {
        fault!("{place}: {self}").with_hint(match self {
            BadRecord::MissingField { field, available } => field_hint(field, available),
            _ => "repair the record, or count and skip such records with `--skip-bad-records`".into(),
        })
    }

    /// The error of a row of examples, without its place.
    pub fn in_row(&self) -> Error {
        Error::new(self.to_string()).with_hint(match self {
            BadRecord::MissingField { field, available } => match nearest(field, available) {
                Some(near) => format!("did you mean `{near}`? Name it in braces, as in \"{{{near}}}\""),
                None => "put the fields that there are together, as in prompt = \"{question}\\n\", or set `messages` to the one \
                         with the conversation"
                    .into(),
            },
            BadRecord::NotAString { .. } => {
                "name a field of text; a name with dots leads into an object, as in \"{a.b}\"".into()
            }
            _ => "repair the record".into(),
        })
    }
}

/// The operating system refused. `action` is what was tried, a verb.
pub(crate) fn io(action: &str, path: impl AsRef<Path>, cause: io::Error) -> Error {
    let error = fault!("cannot {action} `{}`: {cause}", path.as_ref().display());
    let hint = match cause.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free some space and run the same command again: it continues where it was"
        }
        ErrorKind::FileTooLarge => {
            "raise the limit on the size of files (`ulimit -f`) and run the same command again: it continues where it was"
        }
        ErrorKind::PermissionDenied => "check who owns it and its permissions",
        _ => return error,
    };
    error.with_hint(hint)
}

/// An input changed while it was read.
pub(crate) fn input_changed(path: &Path) -> Error {
    fault!("`{}` changed while it was being read", path.display())
        .with_hint("run the same command again once the file no longer changes")
}

/// A source came to nothing.
pub(crate) fn empty_source(name: &str, why: impl Display) -> Error {
    fault!("source `{name}` has no tokens: {why}")
        .with_hint("check its path and `text_field`, or remove the source")
}

/// A Parquet file is damaged or uses a feature that is not supported.
pub(crate) fn parquet(path: &Path, cause: &parquet::errors::ParquetError) -> Error {
    fault!("cannot read `{}` as Parquet: {cause}", path.display())
}

/// The name most like `wanted`, if one is like it at all.
pub(crate) fn nearest<'a>(wanted: &str, names: &'a [String]) -> Option<&'a str> {
    names
        .iter()
        .map(|name| (strsim::jaro_winkler(&wanted.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.as_str())
}

/// What to do where a source has no field of this name.
pub(crate) fn field_hint(field: &str, available: &[String]) -> String {
    match nearest(field, available) {
        Some(near) => format!("did you mean `{near}`? Set the source's `text_field`"),
        None => {
            "set the source's `text_field` to one of them, or to a template such as \"{question}\\n{answer}\""
                .into()
        }
    }
}

/// `a`, `b` and `c`, in backticks.
pub(crate) fn list(names: &[impl Display]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
