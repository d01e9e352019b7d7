//! One evaluation as it lies on disk: its results, and what became of each question.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::Error;
use crate::plan::log_name;
use crate::{Results, read_results};
use remit_results::files::RESULTS;
use remit_results::statistics::{pass_at_k, ratio};

/// What each problem, by its number, adds to a figure: a sum and the units it is over, as for
/// [`ratio`](remit_results::statistics::ratio()).
pub(super) type Parts = BTreeMap<usize, (f64, f64)>;

/// An evaluation.
#[derive(Debug)]
pub(super) struct Evaluation {
    /// As it was named.
    pub path: PathBuf,
    pub results: Results,
    directory: PathBuf,
    /// By task.
    logs: BTreeMap<String, Vec<Line>>,
}

/// What is read of a line of a log.
#[derive(Debug, Deserialize)]
struct Line {
    doc_id: usize,
    doc: Value,
    prompt: String,
    target: String,
    filter: String,
    exact_match: f64,
    #[serde(default)]
    samples_exact_match: Vec<f64>,
    nll: Option<f64>,
    nll_tokens: Option<f64>,
}

impl Evaluation {
    /// Reads a directory that `remit eval` left, or its `results.json`, and the logs beside it.
    pub fn read(path: &Path) -> Result<Evaluation, Error> {
        let is_file = path.is_file();
        let file = if is_file { path.to_owned() } else { path.join(RESULTS) };
        if path.is_dir() && !file.exists() {
            return Err(Error::NoResults { path: path.to_owned(), below: below(path) });
        }
        let results = read_results(&file)?;
        let directory = file.parent().unwrap_or(Path::new("")).to_owned();
        let mut logs = BTreeMap::new();
        for task in results.task_hashes.keys() {
            logs.insert(task.clone(), read_log(&directory.join(log_name(task)))?);
        }
        Ok(Evaluation { path: path.to_owned(), results, directory, logs })
    }

    /// The tasks whose questions are not those of `first`.
    pub fn other_questions(&self, first: &Evaluation) -> Vec<String> {
        let mut tasks: Vec<&String> =
            self.results.task_hashes.keys().chain(first.results.task_hashes.keys()).collect();
        tasks.sort_unstable();
        tasks.dedup();
        let same = |task: &str| {
            self.results.task_hashes.get(task) == first.results.task_hashes.get(task)
                && self.questions(task) == first.questions(task)
        };
        tasks.into_iter().filter(|task| !same(task)).cloned().collect()
    }

    /// Number, question, prompt and answer of every line of a task.
    fn questions<'a>(&'a self, task: &str) -> BTreeMap<(usize, &'a str), (String, &'a str, &'a str)> {
        let of = |line: &'a Line| {
            ((line.doc_id, &*line.filter), (line.doc.to_string(), &*line.prompt, &*line.target))
        };
        self.logs.get(task).into_iter().flatten().map(of).collect()
    }

    /// What each problem of `task` adds to a figure.
    ///
    /// # Errors
    /// [`Error::Log`] where the log lacks what the figure was made of, or comes to another figure.
    pub fn parts(&self, task: &str, metric: &str, filter: &str) -> Result<Parts, Error> {
        let bad = |problem: String| Error::Log { path: self.directory.join(log_name(task)), problem };
        let mut parts = Parts::new();
        for line in self.logs.get(task).into_iter().flatten() {
            // The likelihood has no filter: every line of a question repeats it.
            if metric == "nll" {
                if let (Some(nll), Some(tokens)) = (line.nll, line.nll_tokens) {
                    parts.insert(line.doc_id, (nll, tokens));
                }
            } else if line.filter == filter {
                let value = line.value(metric).ok_or_else(|| {
                    bad(format!("question {} has too few samples for {metric}", line.doc_id))
                })?;
                if parts.insert(line.doc_id, (value, 1.0)).is_some() {
                    return Err(bad(format!("question {} is there twice", line.doc_id)));
                }
            }
        }
        if parts.values().any(|part| !part.0.is_finite() || part.1.is_nan() || part.1 <= 0.0) {
            return Err(bad(format!("it has a {metric} that is no number")));
        }
        let found = ratio(&parts.values().copied().collect::<Vec<_>>()).mean;
        let figure = self.results.figure(task, metric, filter).map_or(f64::NAN, |figure| figure.mean);
        let agrees = (found - figure).abs() <= 1e-9 * figure.abs().max(1.0);
        if !agrees {
            let questions = parts.len();
            return Err(bad(format!(
                "its {questions} questions come to {metric} {found}, where `{RESULTS}` has {figure}"
            )));
        }
        Ok(parts)
    }
}

impl Line {
    /// The score of a question in `exact_match` or `pass@k`; nothing without the samples for it.
    fn value(&self, metric: &str) -> Option<f64> {
        let Some(k) = metric.strip_prefix("pass@") else { return Some(self.exact_match) };
        let samples = self.samples_exact_match.len() as u64;
        let correct = self.samples_exact_match.iter().filter(|&&right| right == 1.0).count();
        let k = k.parse().ok().filter(|k| (1..=samples).contains(k))?;
        Some(pass_at_k(samples, correct as u64, k))
    }
}

fn read_log(path: &Path) -> Result<Vec<Line>, Error> {
    let text = std::fs::read_to_string(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => Error::NoLog { path: path.to_owned() },
        _ => crate::Error::Io { action: "read", path: path.to_owned(), cause }.into(),
    })?;
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| Error::Log {
            path: path.to_owned(),
            problem: format!("line {}: {error}", number + 1),
        })
    };
    text.lines().enumerate().map(line).collect()
}

/// The first evaluation at most three levels below a directory, such as `eval/step-00000200/micro10` of a run.
fn below(path: &Path) -> Option<PathBuf> {
    let mut level = vec![path.to_owned()];
    for _ in 0..3 {
        let entries = level.iter().filter_map(|path| std::fs::read_dir(path).ok()).flatten().flatten();
        let mut next: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        next.sort_unstable();
        if let Some(found) = next.iter().find(|path| path.join(RESULTS).is_file()) {
            return Some(found.clone());
        }
        level = next;
    }
    None
}
