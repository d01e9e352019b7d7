//! What a user says about one source of text, and which files that is.

use std::path::{Path, PathBuf};

use remit_fault::fault;
use serde::{Deserialize, Serialize};

use super::input::plain_name;
use super::paths::find;
use super::template::Template;
use crate::{Error, Progress};

/// One named source of documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name, by which mixtures speak of it.
    pub name: String,
    /// A file, a directory (all files below it, hidden ones left out) or a pattern with `*`. Several files are read in
    /// the order of their paths.
    pub path: PathBuf,
    /// What the files are.
    #[serde(default)]
    pub format: Format,
    /// The field (JSONL) or column (Parquet) with the text, or a template such as `"{question}\n{answer}"`.
    #[serde(default = "default_text_field")]
    pub text_field: String,
    /// What a document is in plain text.
    #[serde(default)]
    pub split: Split,
    /// The width of the tokens in files without a header.
    #[serde(default)]
    pub token_dtype: TokenDtype,
    /// Its share of a mixture, relative to the other sources' weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// How often one epoch passes through it; with weights, how often it may be passed through at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<f64>,
}

/// The format of a source's files. `.gz`, `.zst` and `.br` after the name are decompressed on the fly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// By the file name: `.txt .text .md` are text, `.jsonl .ndjson` JSONL, `.parquet` Parquet, `.npy .bin` tokens.
    #[default]
    Auto,
    /// UTF-8 text.
    Text,
    /// One JSON object a line.
    Jsonl,
    /// Parquet.
    Parquet,
    /// Token ids: `.npy` (one dimension; u16, u32, i32 or i64), anything else as raw little-endian numbers.
    Tokens,
    /// Token ids as raw little-endian numbers, whatever the name: OLMo's `.npy` files have no header.
    Raw,
}

/// What a document is in plain text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// The whole file.
    #[default]
    File,
    /// Every line that is not empty.
    Line,
    /// Every paragraph: lines up to one with nothing but white space in it.
    BlankLine,
}

/// The width of the tokens in files without a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenDtype {
    /// Two bytes.
    #[default]
    U16,
    /// Four bytes.
    U32,
    /// Four bytes with a sign.
    I32,
    /// Eight bytes with a sign.
    I64,
}

/// A format once the file name has been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ResolvedFormat {
    Text,
    Jsonl,
    Parquet,
    Tokens,
    Raw,
}

impl ResolvedFormat {
    /// Whether what is read is token ids already.
    pub fn is_tokens(self) -> bool {
        matches!(self, ResolvedFormat::Tokens | ResolvedFormat::Raw)
    }
}

impl Source {
    /// A source with everything but name and path at its default.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Source {
        Source {
            name: name.into(),
            path: path.into(),
            format: Format::default(),
            text_field: default_text_field(),
            split: Split::default(),
            token_dtype: TokenDtype::default(),
            weight: None,
            repeat: None,
        }
    }

    /// Checks what can be checked without looking at a file.
    pub(crate) fn check(&self) -> Result<(), Error> {
        Template::parse(&self.text_field)?;
        if let Some(weight) = self.weight {
            crate::order::check_weight(&self.name, weight)?;
        }
        if let Some(repeat) = self.repeat {
            crate::order::check_repeat(&self.name, repeat)?;
        }
        Ok(())
    }
}

fn default_text_field() -> String {
    "text".into()
}

/// The files of a source in reading order, each with its format.
pub(crate) fn expand(
    source: &Source,
    progress: &dyn Progress,
) -> Result<Vec<(PathBuf, ResolvedFormat)>, Error> {
    let found = find(&source.path, || format!("source `{}`: path", source.name))?;
    for note in &found.notes {
        progress.message(&format!("source `{}`: {note}", source.name));
    }
    let mut files = Vec::new();
    let mut unknown = Vec::new();
    for path in found.files {
        match resolve(source.format, &path) {
            Some(format) => files.push((path, format)),
            None => unknown.push(path),
        }
    }
    if let (Some(path), true) = (unknown.first(), files.is_empty() && !source.path.is_dir()) {
        let (name, path) = (&source.name, path.display());
        return Err(fault!("source `{name}`: cannot tell the format of `{path}` from its name").with_hint(
            "set the source's `format` to text, jsonl, parquet, tokens or raw; of compressed files, `.gz`, `.zst` and \
             `.br` are read",
        ));
    }
    // In a directory, other files (a licence, a readme) may lie beside the data.
    let num_unknown = unknown.len();
    if num_unknown > 0 {
        progress.message(&format!(
            "source `{}`: left out {num_unknown} files of `{}` whose names tell no format",
            source.name,
            source.path.display()
        ));
    }
    if files.is_empty() {
        return Err(fault!("source `{}`: no file at `{}`", source.name, source.path.display())
            .with_hint("check the path; it may be a file, a directory or a pattern with `*`"));
    }
    Ok(files)
}

fn resolve(format: Format, path: &Path) -> Option<ResolvedFormat> {
    match format {
        Format::Text => Some(ResolvedFormat::Text),
        Format::Jsonl => Some(ResolvedFormat::Jsonl),
        Format::Parquet => Some(ResolvedFormat::Parquet),
        Format::Tokens => Some(ResolvedFormat::Tokens),
        Format::Raw => Some(ResolvedFormat::Raw),
        Format::Auto => match Path::new(&plain_name(path)).extension()?.to_str()? {
            "txt" | "text" | "md" => Some(ResolvedFormat::Text),
            "jsonl" | "ndjson" => Some(ResolvedFormat::Jsonl),
            "parquet" => Some(ResolvedFormat::Parquet),
            "npy" | "bin" => Some(ResolvedFormat::Tokens),
            _ => None,
        },
    }
}
