//! What can go wrong between text and windows, with the facts; the advice is in [`Error::hint`].

use std::io;
use std::path::{Path, PathBuf};

use crate::examples::{Place, RowProblem};

/// An error of the corpus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} `{}`: {cause}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// Writing an output failed.
    #[error(transparent)]
    Store(#[from] remit_store::Error),
    /// A compressed file does not decompress.
    #[error("cannot decompress `{}`: {message}", path.display())]
    Decompress {
        /// The file.
        path: PathBuf,
        /// What the decompressor said.
        message: String,
    },
    /// No source was given.
    #[error("no source is given")]
    NoSources,
    /// Two sources have one name.
    #[error("two sources are named `{name}`")]
    SameName {
        /// The name.
        name: String,
    },
    /// A setting has a value that makes no sense.
    #[error("{setting} must be {wanted}, not {found}")]
    Setting {
        /// Which setting, with the source it belongs to where there is one.
        setting: String,
        /// What it must be.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
    /// A source's path leads to no file.
    #[error("source `{name}`: no file at `{}`", path.display())]
    NoFiles {
        /// The source.
        name: String,
        /// Its path.
        path: PathBuf,
    },
    /// The format of a file cannot be told from its name.
    #[error("source `{name}`: cannot tell the format of `{}` from its name", path.display())]
    UnknownFormat {
        /// The source.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// A path of examples leads to no file.
    #[error("no file at `{}`", path.display())]
    NoRowFiles {
        /// The path.
        path: PathBuf,
    },
    /// The format of a file of examples cannot be told from its name.
    #[error("cannot tell the format of `{}` from its name", path.display())]
    UnknownRowFormat {
        /// The file.
        path: PathBuf,
    },
    /// A row cannot be made an example.
    #[error("{place}: {problem}")]
    Row {
        /// Where it stands.
        place: Place,
        /// What is wrong with it.
        problem: Box<RowProblem>,
    },
    /// A chat template is missing or wrong.
    #[error("chat template `{name}`: {message}")]
    ChatTemplate {
        /// Its name or path.
        name: String,
        /// What is wrong with it.
        message: String,
        /// What to do about it.
        hint: Option<&'static str>,
    },
    /// There is no example to train on.
    #[error("there is no example: {why}")]
    NoExamples {
        /// Why there is none.
        why: String,
    },
    /// One record cannot be read; `skip_bad_records` counts and skips it instead.
    #[error("{place}: {problem}")]
    BadRecord {
        /// File and line, or file and record number.
        place: String,
        /// What is wrong with it.
        problem: BadRecord,
    },
    /// A column file lacks the text column.
    #[error("`{}`: no column `{field}`; it has {}", path.display(), list(available))]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        field: String,
        /// The columns it has.
        available: Vec<String>,
    },
    /// The text column of a column file is no text.
    #[error("`{}`: column `{field}` is {found}, not text", path.display())]
    ColumnNotText {
        /// The file.
        path: PathBuf,
        /// The column.
        field: String,
        /// Its type.
        found: String,
    },
    /// A Parquet file is damaged or uses a feature that is not supported.
    #[error("cannot read `{}` as Parquet: {message}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        message: String,
    },
    /// A raw token array is damaged or of a kind that is not supported.
    #[error("`{}`: {message}", path.display())]
    TokenArray {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A template that puts fields together cannot be parsed.
    #[error("{setting} `{template}`: {message}")]
    Template {
        /// The setting.
        setting: &'static str,
        /// The template.
        template: String,
        /// What is wrong with it.
        message: &'static str,
    },
    /// A source came to nothing.
    #[error("source `{name}` has no tokens: {why}")]
    EmptySource {
        /// The source.
        name: String,
        /// Why, with counts.
        why: String,
    },
    /// A tokenizer file cannot be used.
    #[error("`{}` is not a usable tokenizer: {message}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A special token is needed that the tokenizer does not name.
    #[error("the tokenizer `{}` names no {which} token", path.display())]
    NoSpecialToken {
        /// The tokenizer file.
        path: PathBuf,
        /// `eos` or `bos`.
        which: &'static str,
    },
    /// Encoding or decoding failed inside the tokenizer.
    #[error("the tokenizer failed: {message}")]
    Encode {
        /// What it said.
        message: String,
    },
    /// The output exists and was made of something else.
    #[error("`{}` holds a token store made of other inputs: {difference}", path.display())]
    OtherInputs {
        /// The output directory.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
    /// The output exists and is no token store.
    #[error("`{}` exists and is not a token store", path.display())]
    NotATokenStore {
        /// The output directory.
        path: PathBuf,
    },
    /// Another process prepares the same output.
    #[error("another process is preparing `{}`", path.display())]
    Busy {
        /// The output directory.
        path: PathBuf,
    },
    /// An input changed while it was read.
    #[error("`{}` changed while it was being read", path.display())]
    InputChanged {
        /// The file.
        path: PathBuf,
    },
    /// A file of a token store is missing, of another version, or contradicts the manifest.
    #[error("token store `{}`: {message}", path.display())]
    BadStore {
        /// The store's directory.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A mixture names a source that the token store does not have.
    #[error("the mixture names a source `{name}`; the token store has {}", list(available))]
    UnknownSource {
        /// The name.
        name: String,
        /// The sources there are.
        available: Vec<String>,
    },
    /// Some sources have a weight and others have none.
    #[error("source `{without}` has no weight, but `{with}` has one")]
    MissingWeight {
        /// A source without.
        without: String,
        /// A source with.
        with: String,
    },
    /// There is no window to draw.
    #[error("there are no windows of length {length}: {why}")]
    NoWindows {
        /// Predictions a window.
        length: usize,
        /// Why there are none.
        why: String,
    },
    /// A weighted source would have to be repeated more often than it may be.
    #[error(
        "source `{name}` would be passed through {needed:.2} times to give its share of {total} windows; its repeat \
         allows {cap}"
    )]
    TooManyPasses {
        /// The source.
        name: String,
        /// Passes needed.
        needed: f64,
        /// Passes allowed.
        cap: f64,
        /// Windows wanted in all.
        total: u64,
    },
    /// Weighted sources with a repeat need the number of windows wanted, to check the repeat.
    #[error(
        "source `{name}` has a weight and a repeat, which can only be checked against a total number of windows"
    )]
    NoTotal {
        /// The source.
        name: String,
    },
}

/// What is wrong with one record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// The line is not JSON.
    #[error("malformed JSON: {0}")]
    Json(String),
    /// The line is JSON, but no object.
    #[error("the record is {0}, not an object")]
    NotAnObject(&'static str),
    /// The text field is missing.
    #[error("no field `{field}`; the record has {}", list(available))]
    MissingField {
        /// The field asked for.
        field: String,
        /// The fields the record has, sorted.
        available: Vec<String>,
    },
    /// The text field is not a string.
    #[error("field `{field}` is {found}, not a string")]
    NotAString {
        /// The field.
        field: String,
        /// What it is.
        found: &'static str,
    },
    /// The text is not UTF-8.
    #[error("invalid UTF-8")]
    InvalidUtf8,
}

impl Error {
    /// An operating system error with what was tried (a verb) and on which path.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, cause: io::Error) -> Error {
        Error::Io { action, path: path.as_ref().to_owned(), cause }
    }

    /// A row at `place` with what is wrong with it.
    pub(crate) fn row(place: Place, problem: impl Into<RowProblem>) -> Error {
        Error::Row { place, problem: Box::new(problem.into()) }
    }

    /// What to do about it, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Store(error) => error.hint(),
            Error::Io { cause, .. } => match cause.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("free some space and run the same command again: it continues where it was".into())
                }
                io::ErrorKind::FileTooLarge => Some(
                    "raise the limit on the size of files (`ulimit -f`) and run the same command again: it continues where it was"
                        .into(),
                ),
                io::ErrorKind::PermissionDenied => Some("check who owns it and its permissions".into()),
                _ => None,
            },
            Error::Decompress { .. } => {
                Some("the file is damaged, cut off, or not what its name says: fetch it again".into())
            }
            Error::NoSources => Some("add a `[[sources]]` table with `name` and `path`".into()),
            Error::SameName { .. } => Some("give each source a name of its own".into()),
            Error::NoFiles { .. } => {
                Some("check the path; it may be a file, a directory or a pattern with `*`".into())
            }
            Error::NoRowFiles { .. } => {
                Some("check the path in `files`; it may be a file, a directory or a pattern with `*`".into())
            }
            Error::UnknownRowFormat { .. } => {
                Some("examples are read from `.jsonl`, `.json` and `.parquet` files".into())
            }
            Error::Row { problem, .. } => problem.hint(),
            Error::ChatTemplate { hint, .. } => hint.map(str::to_owned),
            Error::NoExamples { .. } => Some("check `files`, and `too_long` if it is \"drop\"".into()),
            Error::UnknownFormat { .. } => {
                Some("set the source's `format` to text, jsonl, parquet or tokens".into())
            }
            Error::BadRecord { problem: BadRecord::MissingField { field, available }, .. }
            | Error::NoColumn { field, available, .. } => Some(field_hint(field, available)),
            Error::BadRecord { .. } => {
                Some("repair the record, or count and skip such records with `--skip-bad-records`".into())
            }
            Error::ColumnNotText { .. } => {
                Some("set the source's `text_field` to a column of strings".into())
            }
            Error::Template { .. } => Some(
                "name fields in braces, as in \"{question}\\n{answer}\"; write {{ and }} for braces".into(),
            ),
            Error::EmptySource { .. } => Some("check its path and `text_field`, or remove the source".into()),
            Error::Tokenizer { .. } => {
                Some("give a Hugging Face `tokenizer.json`, or make one with `remit train-tokenizer`".into())
            }
            Error::NoSpecialToken { which, .. } => Some(format!(
                "name it as `{which}_token` in the `tokenizer_config.json` beside the tokenizer, or set `{}` to false",
                if *which == "eos" { "append_eos" } else { "prepend_bos" }
            )),
            Error::OtherInputs { .. } => {
                Some("choose another output, or replace this one with `--overwrite`".into())
            }
            Error::NotATokenStore { .. } => Some("choose another output".into()),
            Error::Busy { .. } => Some("wait for it to end, or choose another output".into()),
            Error::InputChanged { .. } => {
                Some("run the same command again once the file no longer changes".into())
            }
            Error::BadStore { path, .. } if !path.exists() => {
                Some("check the path, or make the store with `remit prepare`".into())
            }
            Error::BadStore { .. } => Some("make it again with `remit prepare --overwrite`".into()),
            Error::UnknownSource { name, available } => {
                nearest(name, available).map(|near| format!("did you mean `{near}`?"))
            }
            Error::MissingWeight { .. } => Some("give every source a weight, or none".into()),
            Error::NoWindows { .. } => Some("choose a shorter window or a larger corpus".into()),
            Error::TooManyPasses { .. } => {
                Some("lower its weight, raise its repeat, or train on fewer windows".into())
            }
            Error::NoTotal { .. } => Some("remove the repeat, or say how many windows are wanted".into()),
            Error::Setting { .. }
            | Error::Parquet { .. }
            | Error::TokenArray { .. }
            | Error::Encode { .. } => None,
        }
    }

    /// Whether this concerns one record, so that reading may go on after it.
    pub(crate) fn is_bad_record(&self) -> bool {
        matches!(self, Error::BadRecord { .. })
    }
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

fn field_hint(field: &str, available: &[String]) -> String {
    match nearest(field, available) {
        Some(near) => format!("did you mean `{near}`? Set the source's `text_field`"),
        None => {
            "set the source's `text_field` to one of them, or to a template such as \"{question}\\n{answer}\""
                .into()
        }
    }
}

/// `a`, `b` and `c`, in backticks.
pub(crate) fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
