//! What a checkpoint holds beyond the model: all that is needed to go on as if nothing had happened.
//!
//! `state/progress.json` counts; moments and exact parameters lie beside it ([`remit_engine::state`]). There is no random
//! state: what is drawn is a function of the seed and of how many windows have been used.

use crate::Error;
use crate::settings::Checkpoints;
use remit_corpus::Companions;
use remit_engine::{Engine, Origin, Snapshot, state};
use remit_store::atomic;
use serde::{Deserialize, Serialize};
use std::path::Path;

const VERSION: u32 = 1;
const PROGRESS: &str = "progress.json";

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    version: u32,
    /// Steps taken by this run.
    pub step: u64,
    /// Updates that the moments have seen, those before this run included.
    pub updates: u64,
    /// Windows, pairs or prompts used by this run: the data cursor.
    pub windows: u64,
    /// Unmasked predictions trained on by this run.
    pub tokens: u64,
    /// Steps in a row, up to here, that had nothing to learn from.
    #[serde(default)]
    pub idle: u64,
}

impl Progress {
    pub(crate) fn start(updates: u64) -> Progress {
        Progress { version: VERSION, step: 0, updates, windows: 0, tokens: 0, idle: 0 }
    }
}

/// Fills the directory of a checkpoint.
pub(crate) fn save(
    engine: &mut dyn Engine,
    progress: &Progress,
    settings: &Checkpoints,
    companions: &Companions,
    directory: &Path,
) -> Result<(), Error> {
    let max_shard_bytes = (settings.max_shard_bytes > 0).then_some(settings.max_shard_bytes);
    engine.save(directory, &Snapshot { dtype: settings.dtype.into(), max_shard_bytes })?;
    companions.write(directory)?;
    Ok(atomic::write_json(&state::directory(directory).join(PROGRESS), progress)?)
}

/// Learner and progress exactly as [`save`] found them.
pub(crate) fn load(directory: &Path) -> Result<(Origin, Progress), Error> {
    let path = state::directory(directory).join(PROGRESS);
    let progress = read(&path)?;
    if progress.version != VERSION {
        let problem = format!("it has version {}, this program writes {VERSION}", progress.version);
        return Err(Error::State { path, problem });
    }
    let origin = Origin::Checkpoint { path: directory.to_owned(), moments: Some(progress.updates) };
    Ok((origin, progress))
}

/// How many updates have made the moments of a checkpoint.
pub(crate) fn updates_of(directory: &Path) -> Result<u64, Error> {
    Ok(read(&state::directory(directory).join(PROGRESS))?.updates)
}

fn read(path: &Path) -> Result<Progress, Error> {
    let wrong = |problem: String| Error::State { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
}
