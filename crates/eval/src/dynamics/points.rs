//! The checkpoints that are measured.

use std::path::{Path, PathBuf};

use remit_results::files;
use remit_store::checkpoint::{checkpoints_of, locate};
use serde::Deserialize;

use super::Error;

/// A checkpoint and where it stands in its run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// The run as it was named; for a single checkpoint the checkpoint.
    pub run: PathBuf,
    /// Steps of the run before it; 0 for the run's start and for a checkpoint that belongs to no run.
    pub step: u64,
    /// Predictions that the run was trained on before it, where that is known.
    pub tokens: Option<u64>,
    /// The checkpoint.
    pub checkpoint: PathBuf,
}

/// What is wanted of `state/progress.json`.
#[derive(Deserialize)]
struct Progress {
    step: u64,
    tokens: u64,
}

/// What is wanted of a run's `settings.toml`.
#[derive(Deserialize)]
struct Begun {
    from: Option<PathBuf>,
}

/// The checkpoint at `path`, or all of the run there, oldest first; before them the one that it began from, if `start`.
pub(super) fn places(path: &Path, start: bool) -> Result<Vec<Place>, Error> {
    if path.join("config.json").is_file() {
        return Ok(vec![place(path, path, None)?]);
    }
    let mut places = Vec::new();
    for checkpoint in checkpoints_of(path)? {
        places.push(place(path, checkpoint.path(), Some(checkpoint.step()))?);
    }
    let Some(first) = places.first() else { return Err(Error::NoCheckpoint { path: path.to_owned() }) };
    if start
        && first.step > 0
        && let Some(from) = began_from(path)?
    {
        let found = locate(&from)?;
        let checkpoint = found.ok_or_else(|| Error::NoStart { run: path.to_owned(), from })?;
        places.insert(0, Place { run: path.to_owned(), step: 0, tokens: Some(0), checkpoint });
    }
    Ok(places)
}

fn place(run: &Path, checkpoint: &Path, step: Option<u64>) -> Result<Place, Error> {
    let path = checkpoint.join("state").join("progress.json");
    let progress: Option<Progress> = read(&path, |text| serde_json::from_str(text))?;
    let step = step.or(progress.as_ref().map(|progress| progress.step)).unwrap_or(0);
    let tokens = progress.map(|progress| progress.tokens);
    Ok(Place { run: run.to_owned(), step, tokens, checkpoint: checkpoint.to_owned() })
}

/// The checkpoint that a run began from, as its settings name it.
fn began_from(run: &Path) -> Result<Option<PathBuf>, Error> {
    let begun: Option<Begun> = read(&run.join(files::SETTINGS), |text| toml::from_str(text))?;
    Ok(begun.and_then(|begun| begun.from))
}

/// The content of a file that may be missing.
fn read<T, E: std::fmt::Display>(
    path: &Path,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, Error> {
    let malformed = |problem: String| remit_results::Error::Malformed { path: path.to_owned(), problem };
    let text = match std::fs::read_to_string(path) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|cause| malformed(cause.to_string()))?,
    };
    parse(&text).map(Some).map_err(|problem| malformed(problem.to_string()).into())
}
