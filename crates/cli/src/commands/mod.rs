//! One verb a file.

pub mod generate;
pub mod inspect;
pub mod prepare;
pub mod quickstart;
pub mod score;
pub mod train;
pub mod train_tokenizer;
pub mod weights;

use crate::render::error::Failure;
use crate::render::print;
use remit_corpus::Source;
use serde::Serialize;
use std::path::{Path, PathBuf};

crate::hints!(
    remit_corpus::Error,
    remit_corpus::generate::Error,
    remit_model::Error,
    remit_objective::Error,
    remit_store::Error,
    remit_train::Error,
);

/// Prints one JSON object.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&(serde_json::to_string(value).map_err(Failure::new)? + "\n"))
}

/// Files named on the command line, as sources of their own names.
fn sources(files: &[PathBuf], text_field: Option<&str>) -> Result<Option<toml::Value>, Failure> {
    if files.is_empty() {
        return Ok(None);
    }
    let mut sources: Vec<toml::Table> = Vec::new();
    for path in files {
        let stem = path.file_name().map_or("source".into(), |name| name.to_string_lossy());
        let stem = stem.split('.').next().unwrap_or("source").to_owned();
        let taken = |name: &str| sources.iter().any(|source| source["name"].as_str() == Some(name));
        let name = (1..)
            .map(|n| if n == 1 { stem.clone() } else { format!("{stem}-{n}") })
            .find(|name| !taken(name));
        let mut source = toml::Table::new();
        source.insert("name".into(), name.expect("numbers do not run out").into());
        source.insert("path".into(), path.to_string_lossy().into_owned().into());
        if let Some(field) = text_field {
            source.insert("text_field".into(), field.into());
        }
        sources.push(source);
    }
    Ok(Some(sources.into_iter().map(toml::Value::Table).collect::<Vec<_>>().into()))
}

/// The sources of a recipe, for a first look.
fn describe(sources: &[Source]) -> String {
    sources
        .iter()
        .map(|source| format!("{} ({})", source.name, source.path.display()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Reads `--ids FILE.json`: an array of arrays of token ids.
fn read_ids(path: &Path) -> Result<Vec<Vec<u32>>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read `{}`: {error}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::new(format!("`{}` is not an array of arrays of token ids: {error}", path.display()))
            .hint("for example [[1, 5, 7], [1, 9]]")
    })
}
