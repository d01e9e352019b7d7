//! Settings of an evaluation, as a recipe's `[eval]` table writes them.

use std::path::PathBuf;

use remit_corpus::Bos;
use remit_engine::Precision;
use remit_micro10::{Level, Split};
use remit_model::generate::Sampling;
use serde::{Deserialize, Serialize};

use crate::Error;

/// What is asked, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The checkpoint, or a run directory whose latest checkpoint is meant.
    pub model: PathBuf,
    /// The tasks: `micro10`, one of its families such as `micro10_clock`, `gsm8k`, `svamp`.
    pub tasks: Vec<String>,
    /// The first so many questions of each task, of each family for micro10; all without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Samples a question beside the greedy answer, for pass@k; none at 0.
    pub samples: usize,
    /// The `k` of pass@k, each at most `samples`. When empty: 1 and `samples`.
    pub k: Vec<u64>,
    /// Divisor of the logits of the samples.
    pub temperature: f64,
    /// Mass that samples are drawn from, in (0, 1].
    pub top_p: f64,
    /// Tokens of an answer at most. Without it what the task says: 128 for micro10, 256 for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<usize>,
    /// What prompts begin with: `own`, what the tokenizer's post-processor puts in front of a text; `none`; or a token.
    pub bos: Bos,
    /// Arithmetic of matrix products.
    #[serde(skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Whether the negative log-likelihood of the reference solutions is measured, where a task has them.
    pub nll: bool,
    /// Answers at work at the same time. Changes speed and memory, never a result.
    pub batch_size: usize,
    /// Seed of the samples.
    pub seed: u64,
    /// Where the results go; see [`Plan::out`](crate::Plan::out) for where they go without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
    /// Replace the results of another evaluation there.
    pub overwrite: bool,
    /// The problems of micro10.
    pub micro10: Micro10,
    /// The files of the other tasks.
    pub paths: Paths,
    /// Solved examples before each question.
    pub shots: Shots,
}

/// Which problems of micro10 are asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Micro10 {
    /// A family.
    pub problems: usize,
    /// Left out of each family before the first that is asked. Problems of one seed are distinct in the test split, so
    /// `skip` keeps a development set apart from a test set.
    pub skip: usize,
    /// How hard they are.
    pub level: Level,
    /// The half of the problem space they come from.
    pub split: Split,
    /// Decides the problems.
    pub seed: u64,
}

/// Files of the tasks that are not generated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// JSON lines with `question` and `answer`, as GSM8K comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gsm8k: Option<PathBuf>,
    /// An array of objects with `Body`, `Question` and `Answer`, as SVAMP comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub svamp: Option<PathBuf>,
}

/// Solved examples of the tasks that are not generated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shots {
    /// Before each question of GSM8K.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gsm8k: Option<ShotsOf>,
    /// Before each question of SVAMP, from a file of GSM8K's form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub svamp: Option<ShotsOf>,
}

/// Solved examples of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShotsOf {
    /// JSON lines with `question` and `answer`.
    pub path: PathBuf,
    /// How many: the first of the file.
    pub count: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            model: PathBuf::new(),
            tasks: vec!["micro10".to_owned()],
            limit: None,
            samples: 0,
            k: Vec::new(),
            temperature: 1.0,
            top_p: 1.0,
            max_new_tokens: None,
            bos: Bos::default(),
            precision: Precision::default(),
            nll: true,
            batch_size: 32,
            seed: 0,
            out: None,
            overwrite: false,
            micro10: Micro10::default(),
            paths: Paths::default(),
            shots: Shots::default(),
        }
    }
}

impl Default for Micro10 {
    fn default() -> Self {
        Micro10 { problems: 100, skip: 0, level: Level::default(), split: Split::Test, seed: 0 }
    }
}

impl Settings {
    /// Settings that say where something lies, which counts by its content, or how fast it goes, and nothing about a result.
    pub const NO_PART_OF_RESULT: [&str; 7] =
        ["model", "out", "overwrite", "batch_size", "paths", "shots.gsm8k.path", "shots.svamp.path"];

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Pass`], and what [`Sampling`] refuses.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |key: &str, problem: &str| {
            Err(Error::Setting { key: key.to_owned(), problem: problem.to_owned() })
        };
        if self.tasks.is_empty() {
            return refuse("tasks", "names no task");
        }
        for (key, value) in [
            ("micro10.problems", Some(self.micro10.problems)),
            ("batch_size", Some(self.batch_size)),
            ("limit", self.limit),
            ("max_new_tokens", self.max_new_tokens),
        ] {
            if value == Some(0) {
                return refuse(key, "is 0");
            }
        }
        if let Some(&k) = self.k.iter().find(|&&k| k == 0 || k > self.samples as u64) {
            return Err(Error::Pass { k, samples: self.samples });
        }
        Ok(self.sampling().validate()?)
    }

    /// The `k` of pass@k, ascending, each once.
    pub fn ks(&self) -> Vec<u64> {
        let samples = self.samples as u64;
        let mut ks = if self.k.is_empty() && samples > 0 { vec![1, samples] } else { self.k.clone() };
        ks.sort_unstable();
        ks.dedup();
        ks
    }

    /// How samples are drawn.
    pub fn sampling(&self) -> Sampling {
        Sampling::Random { temperature: self.temperature as f32, top_k: None, top_p: self.top_p as f32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_k_has_its_samples() {
        let of = |samples, k: &[u64]| Settings { samples, k: k.to_vec(), ..Settings::default() };
        assert_eq!(of(0, &[]).ks(), [0; 0]);
        assert_eq!(of(1, &[]).ks(), [1]);
        assert_eq!(of(8, &[]).ks(), [1, 8]);
        assert_eq!(of(8, &[4, 2, 4]).ks(), [2, 4]);
        let error = |settings: Settings| settings.validate().expect_err("refused").to_string();
        assert_eq!(error(of(4, &[1, 5])), "pass@5 cannot be estimated from 4 samples a question");
        assert_eq!(error(of(0, &[1])), "pass@1 cannot be estimated from 0 samples a question");
        assert_eq!(error(of(4, &[0])), "pass@0 cannot be estimated from 4 samples a question");
        of(4, &[4]).validate().expect("good settings");
    }

    #[test]
    fn numbers_that_make_no_sense_are_named() {
        let error = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.validate().expect_err("refused").to_string()
        };
        assert_eq!(error(|s| s.tasks.clear()), "`eval.tasks` names no task");
        assert_eq!(error(|s| s.limit = Some(0)), "`eval.limit` is 0");
        assert_eq!(error(|s| s.micro10.problems = 0), "`eval.micro10.problems` is 0");
        assert_eq!(error(|s| s.batch_size = 0), "`eval.batch_size` is 0");
        assert!(error(|s| s.temperature = 0.0).contains("temperature"));
        assert!(error(|s| s.top_p = 1.5).contains("top-p"));
    }
}
