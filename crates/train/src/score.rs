//! The reference's log-probabilities of a whole token store, written down once.

use crate::Error;
use crate::plan::{check_model, cut, locate_checkpoint, open_model, score_key};
use remit_batch::Batch;
use remit_corpus::{TokenStore, Windows};
use remit_engine::{Engine, Precision, Predictions, Usage};
use remit_model::Architecture;
use remit_store::scores::{Merge, ScoreDtype, ScoreKey, ScoreWriter, Shard};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Settings of scoring, as a recipe's `[score]` table writes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScoreSettings {
    /// The reference: a checkpoint, or a run directory whose latest checkpoint is meant.
    pub reference: PathBuf,
    /// The token store.
    pub tokens: PathBuf,
    /// The score store.
    pub out: PathBuf,
    /// Predictions a window; scores fit runs with this window only.
    pub window: usize,
    /// Windows a forward pass.
    pub batch_windows: usize,
    /// Whether the documents of a window are hidden from one another; scores fit runs that do the same.
    pub mask_documents: bool,
    /// How scores are stored.
    pub dtype: ScoreDtype,
    /// Arithmetic of matrix products.
    pub precision: Precision,
}

impl Default for ScoreSettings {
    fn default() -> Self {
        ScoreSettings {
            reference: PathBuf::new(),
            tokens: PathBuf::new(),
            out: PathBuf::new(),
            window: 256,
            batch_windows: 8,
            mask_documents: true,
            dtype: ScoreDtype::F16,
            precision: Precision::F32,
        }
    }
}

/// Scoring, ready to begin.
#[derive(Debug)]
pub struct ScorePlan {
    /// Its settings.
    pub settings: ScoreSettings,
    /// The windows to score.
    pub windows: Windows,
    /// The reference's checkpoint.
    pub checkpoint: PathBuf,
    /// The reference's switches.
    pub architecture: Architecture,
}

/// Someone who watches the scoring.
pub trait ScoreObserver {
    /// So many windows of this shard are done.
    fn advance(&mut self, done: u64, total: u64);
}

impl ScorePlan {
    /// Opens and checks everything that `settings` name.
    pub fn new(settings: ScoreSettings) -> Result<ScorePlan, Error> {
        for (key, path) in
            [("reference", &settings.reference), ("tokens", &settings.tokens), ("out", &settings.out)]
        {
            if path.as_os_str().is_empty() {
                return Err(Error::Setting { stage: "score", key: key.into(), problem: "is missing".into() });
            }
        }
        if settings.batch_windows == 0 || settings.window == 0 {
            let key = if settings.window == 0 { "window" } else { "batch_windows" };
            return Err(Error::Setting { stage: "score", key: key.into(), problem: "is 0".into() });
        }
        let store = TokenStore::open(&settings.tokens)?;
        let windows = cut(&store, settings.window)?;
        let checkpoint = locate_checkpoint(&settings.reference)?;
        let architecture = open_model(&checkpoint)?;
        check_model("reference", &checkpoint, &architecture, &store, settings.window)?;
        Ok(ScorePlan { settings, windows, checkpoint, architecture })
    }
}

/// Scores the windows of `shard`; goes on where an earlier call was stopped.
pub fn score(
    plan: &ScorePlan,
    shard: Shard,
    engine: &mut dyn Engine,
    observer: &mut dyn ScoreObserver,
) -> Result<Merge, Error> {
    let ScorePlan { settings, windows, checkpoint, .. } = plan;
    let key: ScoreKey = score_key(windows, checkpoint, settings.mask_documents, settings.precision)?;
    let mut writer =
        ScoreWriter::open(&settings.out, &key, windows.len(), settings.window, settings.dtype, shard)?;
    let range = writer.windows();
    let total = range.end - range.start;
    observer.advance(writer.next_window() - range.start, total);
    if writer.next_window() < range.end {
        let usage = Usage {
            rows: settings.batch_windows * settings.window,
            length: settings.window,
            precision: settings.precision,
            ..Usage::default()
        };
        let reference = engine.open(checkpoint, &usage)?;
        while writer.next_window() < range.end {
            let first = writer.next_window();
            let part: Vec<_> = (first..range.end.min(first + settings.batch_windows as u64))
                .map(|index| windows.window(index))
                .collect();
            let batch = Batch::stack(&part, settings.mask_documents);
            let mut scores = engine.log_probs(reference, &batch, Predictions::All)?;
            for (score, _) in scores.iter_mut().zip(&batch.mask).filter(|(_, counts)| !**counts) {
                *score = 0.0;
            }
            writer.write(first, &scores)?;
            observer.advance(writer.next_window() - range.start, total);
        }
        engine.close(reference);
    }
    Ok(writer.finish()?)
}
