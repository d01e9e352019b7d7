//! What a user says about one source of text, and which files that is.

use std::path::{Path, PathBuf};

use remit_fault::fault;
use serde::{Deserialize, Serialize};

use super::template::Template;
use crate::{Error, Progress, error};

/// One named source of documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name, by which mixtures speak of it.
    pub name: String,
    /// A file, a directory (all files below it, hidden ones and links to directories left out) or a pattern with `*`.
    /// Several files are read in the order of their paths.
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
    /// The width of the tokens in `.bin` files.
    #[serde(default)]
    pub token_dtype: TokenDtype,
    /// Its share of a mixture, relative to the other sources' weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// How often one epoch passes through it; with weights, how often it may be passed through at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<f64>,
}

/// The format of a source's files. `.gz` and `.zst` after the name are decompressed on the fly.
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

/// The width of the tokens in a raw `.bin` file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenDtype {
    /// Two bytes.
    #[default]
    U16,
    /// Four bytes.
    U32,
}

/// A format once the file name has been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ResolvedFormat {
    Text,
    Jsonl,
    Parquet,
    Tokens,
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
    let paths = paths_at(&source.path, || format!("source `{}`: path", source.name))?;
    // In a directory, other files (a licence, a readme) may lie beside the data.
    let is_directory = source.path.is_dir();
    let mut files = Vec::new();
    let mut num_unknown = 0;
    for path in paths {
        match resolve(source.format, &path) {
            Some(format) => files.push((path, format)),
            None if is_directory => num_unknown += 1,
            None => {
                let (name, path) = (&source.name, path.display());
                return Err(fault!("source `{name}`: cannot tell the format of `{path}` from its name")
                    .with_hint("set the source's `format` to text, jsonl, parquet or tokens"));
            }
        }
    }
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

/// The files that a setting of this path means, sorted: itself, all below a directory, or all that match a pattern
/// with `*`. None where there is none.
///
/// # Errors
/// A pattern that makes no sense, a directory that cannot be read.
pub fn files_at(path: &Path) -> Result<Vec<PathBuf>, Error> {
    paths_at(path, || "path".into())
}

/// The files at `path`, sorted: itself, all below a directory, or all that match a pattern. None where there is none.
pub(crate) fn paths_at(path: &Path, setting: impl Fn() -> String) -> Result<Vec<PathBuf>, Error> {
    let pattern = path.to_str().filter(|path| path.contains('*'));
    let mut paths = Vec::new();
    // A file may have a star in its name; a pattern is what leads to nothing as it stands.
    match (path.metadata(), pattern) {
        (Ok(metadata), _) if metadata.is_dir() => walk(path, &mut paths)?,
        (Ok(_), _) => paths.push(path.to_owned()),
        (Err(_), Some(pattern)) => {
            let matches = glob::glob(pattern).map_err(|error| {
                let setting = setting();
                fault!(
                    "{setting} must be a file, a directory or a pattern with `*`, not `{pattern}` ({error})"
                )
            })?;
            for path in matches {
                let path = path.map_err(|error| error::io("read", error.path(), io_copy(error.error())))?;
                if path.is_file() {
                    paths.push(path);
                }
            }
        }
        (Err(cause), None) if cause.kind() == std::io::ErrorKind::NotFound => {}
        (Err(cause), None) => return Err(error::io("read", path, cause)),
    }
    paths.sort();
    Ok(paths)
}

fn resolve(format: Format, path: &Path) -> Option<ResolvedFormat> {
    match format {
        Format::Text => Some(ResolvedFormat::Text),
        Format::Jsonl => Some(ResolvedFormat::Jsonl),
        Format::Parquet => Some(ResolvedFormat::Parquet),
        Format::Tokens => Some(ResolvedFormat::Tokens),
        Format::Auto => {
            let name = path.file_name()?.to_str()?.to_lowercase();
            let name = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(&name);
            match Path::new(name).extension()?.to_str()? {
                "txt" | "text" | "md" => Some(ResolvedFormat::Text),
                "jsonl" | "ndjson" => Some(ResolvedFormat::Jsonl),
                "parquet" => Some(ResolvedFormat::Parquet),
                "npy" | "bin" => Some(ResolvedFormat::Tokens),
                _ => None,
            }
        }
    }
}

/// All files below `directory`.
fn walk(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<(), Error> {
    let entries = std::fs::read_dir(directory).map_err(|cause| error::io("list", directory, cause))?;
    for entry in entries {
        let entry = entry.map_err(|cause| error::io("list", directory, cause))?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let kind = entry.file_type().map_err(|cause| error::io("read", &path, cause))?;
        if kind.is_dir() {
            walk(&path, paths)?;
        } else if path.is_file() {
            // Also a link to a file; a link to a directory is not followed, since it may lead in a circle.
            paths.push(path);
        }
    }
    Ok(())
}

/// The glob library lends its error; ours own theirs.
fn io_copy(error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), error.to_string())
}
