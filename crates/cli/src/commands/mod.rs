//! One verb a file.

pub mod average;
pub mod compare;
pub mod dpo;
pub mod dynamics;
pub mod engine;
pub mod eval;
mod excerpts;
mod first;
pub mod flywheel;
pub mod generate;
pub mod inspect;
pub mod prepare;
pub mod problems;
pub mod quickstart;
pub mod report;
pub mod rl;
pub mod score;
pub mod settings;
pub mod sft;
pub mod stage;
pub mod train;
pub mod train_tokenizer;
pub mod verify;
pub mod weights;

use crate::args::text_of;
use crate::render::error::Failure;
use crate::render::print;
use crate::settings::unescape;
use remit_corpus::Source;
use serde::Serialize;
use std::path::{Path, PathBuf};

crate::hints!(
    remit_engine::Error,
    remit_micro10::Error,
    remit_eval::Error,
    remit_eval::compare::Error,
    remit_eval::dynamics::Error,
    remit_flywheel::Error,
    remit_report::Error,
    remit_results::Error,
    remit_rl::Error,
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
        source.insert("path".into(), text_of(path)?.into());
        if let Some(field) = text_field {
            source.insert("text_field".into(), unescape(field).into());
        }
        sources.push(source);
    }
    Ok(Some(sources.into_iter().map(toml::Value::Table).collect::<Vec<_>>().into()))
}

/// Files named on the command line, as a list of a recipe.
fn paths(files: &[PathBuf]) -> Result<Option<toml::Value>, Failure> {
    if files.is_empty() {
        return Ok(None);
    }
    let path = |path: &PathBuf| Ok(toml::Value::from(text_of(path)?));
    Ok(Some(files.iter().map(path).collect::<Result<Vec<_>, Failure>>()?.into()))
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
    let example = "for example [[1, 5, 7], [1, 9]]";
    let sequences: Vec<Vec<u32>> = serde_json::from_str(&text).map_err(|error| {
        Failure::new(format!("`{}` is not an array of arrays of token ids: {error}", path.display()))
            .hint(example)
    })?;
    if sequences.is_empty() {
        return Err(Failure::new(format!("`{}` has no sequence", path.display())).hint(example));
    }
    Ok(sequences)
}

#[cfg(test)]
mod tests {
    use crate::args::SECTIONS;
    use crate::settings::{Recipe, Resolved, SettingsError};
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use std::path::Path;

    fn check<T: DeserializeOwned + Serialize>(recipe: &Recipe, section: &str) {
        let resolved: Result<Resolved<T>, SettingsError> =
            recipe.resolve(section, &super::stage::defaults(section), &[]);
        let warnings = resolved.unwrap_or_else(|error| panic!("[{section}]: {error}")).warnings;
        assert!(warnings.is_empty(), "[{section}]: {warnings:?}");
    }

    #[test]
    fn every_recipe_can_be_read() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
        let mut count = 0;
        for entry in std::fs::read_dir(directory).expect("the recipes") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            count += 1;
            let recipe = Recipe::read(&path, &SECTIONS).unwrap_or_else(|error| panic!("{error}"));
            for section in SECTIONS.into_iter().filter(|section| recipe.has(section)) {
                match section {
                    "flywheel" => check::<remit_flywheel::Settings>(&recipe, section),
                    "tokenizer" => check::<remit_corpus::TrainTokenizer>(&recipe, section),
                    "prepare" => check::<remit_corpus::Prepare>(&recipe, section),
                    "pretrain" | "midtrain" | "sft" => check::<remit_train::Settings>(&recipe, section),
                    "dpo" => check::<remit_train::dpo::Settings>(&recipe, section),
                    "rl" => check::<remit_rl::Settings>(&recipe, section),
                    "score" => check::<remit_train::ScoreSettings>(&recipe, section),
                    "eval" => check::<remit_eval::Settings>(&recipe, section),
                    "dynamics" => check::<remit_eval::dynamics::Settings>(&recipe, section),
                    "engine" => check::<remit_engine::Settings>(&recipe, section),
                    "weights" => check::<remit_objective::Weighting>(&recipe, section),
                    other => panic!("no settings are known for `[{other}]`"),
                }
            }
        }
        assert!(count >= 2, "the quickstart and one for a user's own text");
    }
}
