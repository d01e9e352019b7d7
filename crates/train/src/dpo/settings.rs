//! Settings of preference optimisation, as a recipe's `[dpo]` table writes them.

use crate::settings::{Common, Schedule, wrong};
use crate::{Error, stage_settings};
use remit_corpus::examples::Examples;
use remit_objective::Dpo;
use remit_optim::schedule::Kind;
use std::path::{Path, PathBuf};

/// The recipe's table.
pub(super) const STAGE: &str = "dpo";

/// The directory beside the run directory that keeps log-probabilities where no other is named.
const CACHE: &str = "reference-log-probs";

stage_settings! {
    /// Settings of a run.
    beginning {
        /// The reference, named as `from` is; `from` where it is left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        reference: Option<PathBuf>,
        /// Directory of the reference's log-probabilities, which runs may share; `reference-log-probs` beside the run
        /// directory where it is left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        cache: Option<PathBuf>,
    }
    length {
        /// In place of `steps`, length of the run in passes over the pairs, rounded up to whole steps.
        #[serde(skip_serializing_if = "Option::is_none")]
        epochs: Option<f64>,
    }
    own {
        /// What is preferred to what.
        examples: Examples,
        /// Predictions of the longest sequence that is taken; `examples.too_long` says what happens to longer ones.
        /// Windows of held-out text have as many.
        window: usize,
        /// Pairs an optimiser step.
        batch_pairs: usize,
        /// Pairs a forward pass. The result does not depend on it beyond rounding.
        micro_batch_pairs: usize,
        /// What is minimised.
        loss: Dpo,
    }
    places ["examples.files", "reference", "cache"]
}

impl Default for Settings {
    fn default() -> Self {
        let schedule = Schedule { kind: Kind::Linear, warmup_fraction: Some(0.1), ..Schedule::default() };
        Settings {
            common: Common { schedule: Some(schedule), ..Common::fine_tuning(1e-6) },
            reference: None,
            cache: None,
            epochs: None,
            examples: Examples::default(),
            window: 1024,
            batch_pairs: 32,
            micro_batch_pairs: 4,
            loss: Dpo::default(),
        }
    }
}

impl Settings {
    /// Pairs a forward pass, which are never more than those of a step.
    pub fn micro_batch(&self) -> usize {
        self.micro_batch_pairs.min(self.batch_pairs)
    }

    /// Where the reference's log-probabilities are kept.
    pub fn cache(&self) -> PathBuf {
        // Of the path itself, for a bare name has an empty parent.
        self.cache.clone().unwrap_or_else(|| self.common.run.parent().unwrap_or(Path::new("")).join(CACHE))
    }

    /// Checks what can be checked without opening a file.
    ///
    /// # Errors
    /// A setting that is missing or makes no sense.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |key: &str, problem: &str| Err(wrong(STAGE, key, problem));
        self.common.validate(STAGE)?;
        let missing = "is missing: it names the checkpoint to train or the run that made it";
        self.common.require_from(STAGE, missing)?;
        if self.examples.files.is_empty() {
            return wrong(
                "examples.files",
                "is missing: its rows have a prompt, a chosen and a rejected completion",
            );
        }
        for (key, path) in [("reference", &self.reference), ("cache", &self.cache)] {
            if path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
                return wrong(key, "is an empty path");
            }
        }
        for (key, number) in [
            ("window", self.window),
            ("batch_pairs", self.batch_pairs),
            ("micro_batch_pairs", self.micro_batch_pairs),
        ] {
            if number == 0 {
                return wrong(key, "is 0, but must be 1 or more");
            }
        }
        match (self.common.steps, self.epochs) {
            (Some(_), Some(_)) | (None, None) => {
                return wrong("steps", "is the length of the run: give one of `steps` and `epochs`");
            }
            (Some(0), _) => return wrong("steps", "is 0, but must be 1 or more"),
            (_, Some(epochs)) if !(epochs > 0.0 && epochs.is_finite()) => {
                return wrong("epochs", "must be a finite number above 0");
            }
            _ => {}
        }
        Ok(self.loss.validate()?)
    }

    /// The run's length in steps, where an epoch has so many pairs.
    ///
    /// # Errors
    /// A length beyond counting.
    pub(super) fn length(&self, pairs: u64) -> Result<u64, Error> {
        let batch = self.batch_pairs as u64;
        let steps = match self.epochs {
            Some(epochs) => ((pairs as f64 * epochs / batch as f64).ceil() as u64).max(1),
            None => self.common.steps.expect("`validate` asks for one of the two"),
        };
        if steps.checked_mul(batch).is_none() {
            let problem = format!("comes to {steps} steps, whose pairs are beyond counting");
            return Err(wrong(STAGE, "steps", problem));
        }
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let mut settings = Settings::default();
        (settings.common.run, settings.common.from) = ("a/run".into(), Some("sft".into()));
        (settings.examples.files, settings.epochs) = (vec!["pairs.jsonl".into()], Some(1.0));
        settings
    }

    #[test]
    fn an_epoch_is_rounded_up_to_whole_steps() {
        let length = |epochs, pairs| Settings { epochs: Some(epochs), ..settings() }.length(pairs).unwrap();
        assert_eq!(
            [length(1.0, 64), length(1.0, 65), length(0.5, 65), length(2.0, 65), length(0.1, 1)],
            [2, 3, 2, 5, 1]
        );
    }

    #[test]
    fn runs_beside_one_another_share_the_cache() {
        assert_eq!(settings().cache(), Path::new("a/reference-log-probs"));
        let mut bare = settings();
        bare.common.run = "run".into();
        assert_eq!(bare.cache(), Path::new("reference-log-probs"));
        assert_eq!(Settings { cache: Some("c".into()), ..settings() }.cache(), Path::new("c"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        settings().validate().expect("complete settings");
        let key = |change: fn(&mut Settings)| {
            let mut settings = settings();
            change(&mut settings);
            match settings.validate().expect_err("something is wrong") {
                Error::Setting { stage: "dpo", key, .. } => key,
                other => other.to_string(),
            }
        };
        assert_eq!(key(|s| s.common.run = PathBuf::new()), "run");
        assert_eq!(key(|s| s.common.from = Some(PathBuf::new())), "from");
        assert_eq!(key(|s| s.reference = Some(PathBuf::new())), "reference");
        assert_eq!(key(|s| s.examples.files.clear()), "examples.files");
        assert_eq!(key(|s| s.window = 0), "window");
        assert_eq!(key(|s| s.batch_pairs = 0), "batch_pairs");
        assert_eq!(key(|s| s.micro_batch_pairs = 0), "micro_batch_pairs");
        assert_eq!(key(|s| s.common.steps = Some(3)), "steps");
        assert_eq!(key(|s| s.epochs = None), "steps");
        assert_eq!(key(|s| s.epochs = Some(f64::NAN)), "epochs");
        assert_eq!(key(|s| s.common.clip_norm = -1.0), "clip_norm");
        assert!(key(|s| s.loss.beta = 0.0).contains("beta"));
    }

    #[test]
    fn what_every_stage_has_stands_beside_its_own_in_one_table() {
        let text = "run = \"a\"\nfrom = \"sft\"\nsteps = 7\nwindow = 9\n[optimizer]\nlearning_rate = 0.5\n";
        let read: Settings = toml::from_str(text).expect("settings");
        assert_eq!((read.common.steps, read.window, read.common.optimizer.learning_rate), (Some(7), 9, 0.5));
        // What is not said is as the stage has it, not as stages have it in general.
        assert_eq!(read.common.schedule, Settings::default().common.schedule);
        assert_eq!(read.common.moments, crate::settings::Moments::Reset);
        let written = toml::to_string(&read).expect("TOML");
        assert_eq!(toml::from_str::<Settings>(&written).expect("the same"), read);
        let keys: Vec<&str> = written.lines().map_while(|line| Some(line.split_once(" = ")?.0)).collect();
        let wanted =
            ["run", "seed", "from", "moments", "steps", "precision", "recompute", "clip_norm", "window"];
        assert_eq!(keys[..wanted.len()], wanted);
    }

    #[test]
    fn unknown_keys_are_errors() {
        toml::from_str::<Settings>("run = \"a\"\nloss = { beta = 5.0, length_normalised = true }")
            .expect("settings");
        for text in ["bta = 1.0", "loss = { bta = 1.0 }"] {
            let error = toml::from_str::<Settings>(text).expect_err("a misspelt key");
            assert!(error.message().contains("bta"), "{error}");
        }
    }
}
