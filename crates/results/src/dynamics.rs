//! The content of `dynamics.json`: a run's checkpoints beside a frozen reference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use remit_objective::Means;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// The version of the results file.
pub const FORMAT_VERSION: u32 = 1;

/// Every checkpoint beside the reference: a function of settings, checkpoints, stores and tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dynamics {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The reference's checkpoint.
    pub reference: PathBuf,
    /// Its content's hash.
    pub reference_hash: String,
    /// Predictions a window.
    pub window: usize,
    /// By run as they were named, and by step.
    pub points: Vec<Point>,
}

/// One checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// The run as it was named; for a single checkpoint the checkpoint.
    pub run: PathBuf,
    /// Steps of the run before it; 0 for the run's start and for a checkpoint that belongs to no run.
    pub step: u64,
    /// Predictions that the run was trained on before it, where that is known.
    pub tokens: Option<u64>,
    /// The hash of the checkpoint's content.
    pub checkpoint_hash: String,
    /// The hash of all that the figures depend on. Figures of the same inputs are not measured again.
    pub inputs: String,
    /// By name of the store.
    pub stores: BTreeMap<String, Means>,
    /// By task or group, and by metric and filter, such as `pass@4,none`; empty where no tasks were asked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tasks: BTreeMap<String, BTreeMap<String, Score>>,
}

/// A figure of a task.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// The mean over questions.
    pub mean: f64,
    /// Its standard error, where it can be told.
    pub standard_error: Option<f64>,
}

/// Reads the file at `path`; `None` where there is none.
///
/// # Errors
/// [`Error::Malformed`], [`Error::Version`].
pub fn read_dynamics(path: &Path) -> Result<Option<Dynamics>, Error> {
    let malformed = |problem: String| Error::Malformed { path: path.to_owned(), problem };
    let text = match std::fs::read(path) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|cause| malformed(cause.to_string()))?,
    };
    let value: Value = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
    if let Some(found) = value["format_version"].as_u64()
        && found != u64::from(FORMAT_VERSION)
    {
        return Err(Error::Version { path: path.to_owned(), found, known: FORMAT_VERSION });
    }
    serde_json::from_value(value).map(Some).map_err(|error| malformed(error.to_string()))
}
