//! Settings of the dynamics, as a recipe's `[dynamics]` table writes them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Error;

/// What is measured, of which checkpoints, against which reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Run directories, all of whose checkpoints are measured, and single checkpoints.
    pub runs: Vec<PathBuf>,
    /// The frozen reference: a checkpoint, or a run directory whose latest checkpoint is meant.
    pub reference: PathBuf,
    /// Token stores by the name that their figures have.
    pub stores: BTreeMap<String, PathBuf>,
    /// Predictions a window.
    pub window: usize,
    /// Windows of each store, from its beginning; 0 for all.
    pub windows: u64,
    /// Whether the documents of a window are hidden from one another.
    pub mask_documents: bool,
    /// Whether the checkpoint that a run began from is measured as its step 0, where it began from one.
    pub start: bool,
    /// Tasks that each checkpoint is put to; none without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<crate::Settings>,
    /// The file to write. Without it `dynamics.json` in the run directory, where there is just one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            runs: Vec::new(),
            reference: PathBuf::new(),
            stores: BTreeMap::new(),
            window: 256,
            windows: 64,
            mask_documents: true,
            start: true,
            eval: None,
            out: None,
        }
    }
}

impl Settings {
    /// Settings that say where something lies, which counts by its content, or how fast it goes, and nothing about a result.
    /// Of `eval` those that [`crate::Settings::NO_PART_OF_RESULT`] names, but for what no dynamics set.
    pub const NO_PART_OF_RESULT: [&str; 8] = [
        "runs",
        "reference",
        "stores",
        "out",
        "eval.batch_size",
        "eval.paths",
        "eval.shots.gsm8k.path",
        "eval.shots.svamp.path",
    ];

    /// Checks what can be checked without opening a file.
    ///
    /// # Errors
    /// [`Error::Setting`], and those of the tasks' settings.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |key: &'static str, problem: &'static str| Err(Error::Setting { key, problem });
        if self.runs.is_empty() {
            return refuse("runs", "names no run");
        }
        if self.reference.as_os_str().is_empty() {
            return refuse("reference", "is missing");
        }
        if self.stores.is_empty() && self.eval.is_none() {
            return refuse("stores", "names no token store");
        }
        if self.window == 0 {
            return refuse("window", "is 0");
        }
        if let Some(eval) = &self.eval {
            eval.validate()?;
            if !eval.model.as_os_str().is_empty() {
                return refuse("eval.model", "has no meaning here");
            }
            if eval.out.is_some() {
                return refuse("eval.out", "has no meaning here");
            }
            if eval.overwrite {
                return refuse("eval.overwrite", "has no meaning here");
            }
        }
        Ok(())
    }
}
