//! Corpora that the flywheel and the quickstart make themselves.

use crate::Error;
use remit_corpus::registry_text;
use remit_micro10::{Family, Level, Noise, Problems, Split};
use remit_store::atomic::write_json_lines;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// Of so many documents of ordinary text, one is kept apart.
const HELD_OUT_ONE_IN: usize = 40;

/// A corpus to generate, as JSON lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Generated {
    /// Ordinary English: the prose of the program's pinned dependencies, a `text` a line.
    Text(Text),
    /// Problems with worked solutions, a `text` a line: for `prepare`.
    Problems(Generator),
    /// Problems as `prompt`, `completion` and `solution`: for `sft` and `rl`.
    Rows(Generator),
    /// Problems as `prompt`, `chosen` and `rejected`: for `dpo`.
    Pairs(Generator),
}

/// Which of the ordinary text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Text {
    /// Whether it is the part kept apart.
    pub held_out: bool,
}

/// Which problems.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Generator {
    /// How many.
    pub count: usize,
    /// Decides every choice.
    pub seed: u64,
    /// The families drawn from; the ten of micro10 by default.
    pub families: BTreeSet<Family>,
    /// How hard they are.
    pub level: Level,
    /// Which half of all problems they come from.
    pub split: Split,
    /// Noise planted in the solutions.
    pub noise: Noise,
}

impl Default for Generator {
    fn default() -> Self {
        Generator {
            count: 1000,
            seed: 1,
            families: Family::MICRO10.into(),
            level: Level::default(),
            split: Split::Train,
            noise: Noise::NONE,
        }
    }
}

impl Generator {
    fn problems(&self) -> Problems {
        let Generator { count, seed, families, level, split, noise } = self.clone();
        Problems { families, level, seed, count, noise, split }
    }
}

impl Generated {
    /// Writes it. `lockfile` is the text of the `Cargo.lock` that pins what ordinary text is taken from.
    ///
    /// # Errors
    /// Settings that make no sense, dependencies whose sources are not there, a file that cannot be written.
    pub fn write(&self, path: &Path, lockfile: &str) -> Result<(), Error> {
        match self {
            Generated::Text(Text { held_out }) => {
                let documents = registry_text::documents(lockfile, &registry_text::cargo_home()?)?;
                let is_apart = |index: usize| index.is_multiple_of(HELD_OUT_ONE_IN);
                let part = documents.iter().enumerate().filter(|(index, _)| is_apart(*index) == *held_out);
                write_json_lines(path, part.map(|(_, document)| document))?;
            }
            Generated::Problems(generator) => write_json_lines(path, generator.problems().documents()?)?,
            Generated::Rows(generator) => write_json_lines(path, generator.problems().rows()?)?,
            Generated::Pairs(generator) => write_json_lines(path, generator.problems().pairs()?)?,
        }
        Ok(())
    }

    /// What beside its settings decides the content: for ordinary text, the versions it is taken from.
    pub(crate) fn pins(&self, lockfile: &str) -> Vec<String> {
        match self {
            Generated::Text(_) => registry_text::pins(lockfile),
            _ => Vec::new(),
        }
    }
}
