//! Everything an evaluation will do, settled and checked before it does it, and doing it.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::likelihood::ROWS;
use remit_corpus::Tokenizer;
use remit_engine::{Engine, Usage};
use remit_model::{Architecture, Decoder};
use remit_results::files::RESULTS;
use remit_store::atomic;
use remit_store::checkpoint::CHECKPOINTS;
use remit_store::hash::hash_checkpoint;
use serde_json::{Map, Value, json};

use crate::results::{Results, read_results, samples, task_hashes};
use crate::suite::{Answers, Observer, Suite};
use crate::{Error, Settings};

/// An evaluation, ready to begin.
#[derive(Debug)]
pub struct Plan {
    /// The questions and how they are asked.
    pub suite: Suite,
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// Its switches.
    pub architecture: Architecture,
    /// Its content's hash.
    pub model_hash: String,
    tokenizer: Tokenizer,
}

/// What an evaluation came to.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The figures.
    pub results: Results,
    /// The directory that holds them.
    pub out: PathBuf,
    /// Whether they were there already, of the same settings, model and questions.
    pub already_there: bool,
}

impl Plan {
    /// Opens and checks everything. `checkpoint` is what `settings.model` means.
    ///
    /// # Errors
    /// A checkpoint that cannot be read or has no tokenizer, and the errors of [`Suite::new`] and
    /// [`Suite::check_length`].
    pub fn new(settings: &Settings, checkpoint: &Path) -> Result<Plan, Error> {
        settings.validate()?;
        let architecture = Decoder::mapped(checkpoint)?.architecture().clone();
        let tokenizer = Tokenizer::of_checkpoint(checkpoint)?;
        let tokenizer = tokenizer.ok_or_else(|| Error::NoTokenizer { checkpoint: checkpoint.to_owned() })?;
        let suite = Suite::new(settings, &tokenizer)?;
        suite.check_length(architecture.max_length)?;
        let model_hash = hash_checkpoint(checkpoint)?;
        Ok(Plan { suite, checkpoint: checkpoint.to_owned(), architecture, model_hash, tokenizer })
    }

    /// Where the results go: `out`, or `eval` in the run that the checkpoint belongs to, or in the checkpoint itself;
    /// there in a directory of the checkpoint's name and one of the tasks'.
    pub fn out(&self) -> PathBuf {
        let Settings { out, tasks, .. } = &self.suite.settings;
        if let Some(out) = out {
            return out.clone();
        }
        let tasks = tasks.join("+");
        let checkpoints = self.checkpoint.parent().filter(|parent| parent.ends_with(CHECKPOINTS));
        match (checkpoints.and_then(Path::parent), self.checkpoint.file_name()) {
            (Some(run), Some(name)) => run.join("eval").join(name).join(tasks),
            _ => self.checkpoint.join("eval").join(tasks),
        }
    }

    /// Puts the questions to the checkpoint and writes nothing.
    ///
    /// # Errors
    /// Those of [`Suite::ask`], and a checkpoint that cannot be read.
    pub fn ask(&self, engine: &mut dyn Engine, observer: &mut dyn Observer) -> Result<Results, Error> {
        Ok(self.results(&self.answers(engine, observer)?))
    }

    fn answers(
        &self,
        engine: &mut dyn Engine,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Vec<Answers>>, Error> {
        let usage = Usage { rows: ROWS, precision: self.suite.settings.precision, ..Usage::default() };
        let model = engine.open(&self.checkpoint, &usage)?;
        let answers = self.suite.ask(engine, model, &self.tokenizer, observer);
        engine.close(model);
        answers
    }

    /// The hash of the checkpoint's tokenizer.
    pub fn tokenizer_hash(&self) -> &str {
        self.tokenizer.hash()
    }

    /// Of answers, the figures and what they are of.
    fn results(&self, answers: &[Vec<Answers>]) -> Results {
        Results { config: self.config(), ..self.suite.results(answers) }
    }

    /// Settings, model and what follows from them.
    fn config(&self) -> Map<String, Value> {
        let settings = &self.suite.settings;
        let config = json!({
            "model": "remit",
            "model_args": format!("pretrained={}", self.checkpoint.display()),
            "model_num_parameters": self.architecture.num_parameters(),
            "model_hash": self.model_hash,
            "tokenizer_hash": self.tokenizer.hash(),
            "max_length": self.architecture.max_length,
            "limit": settings.limit,
            "random_seed": settings.seed,
            "batch_size": settings.batch_size,
            "settings": settings,
            "version": env!("CARGO_PKG_VERSION"),
        });
        let Value::Object(config) = config else { unreachable!("it is written as one") };
        config
    }

    /// How the results of `former` differ from what this plan would give: `key: old -> new`.
    fn differences(&self, former: &Results) -> Vec<String> {
        let (config, hashes) = (self.config(), task_hashes(&self.suite));
        let mut differences = Vec::new();
        for key in ["model_hash", "tokenizer_hash", "version"] {
            compare(key, former.config.get(key), config.get(key), &mut differences);
        }
        compare("", former.config.get("settings"), config.get("settings"), &mut differences);
        if differences.is_empty() && former.task_hashes != hashes {
            differences.push("the questions".to_owned());
        }
        differences
    }
}

pub(crate) fn compare(
    path: &str,
    former: Option<&Value>,
    now: Option<&Value>,
    differences: &mut Vec<String>,
) {
    if Settings::NO_PART_OF_RESULT.contains(&path) || former == now {
        return;
    }
    if let (Some(Value::Object(former)), Some(Value::Object(now))) = (former, now) {
        let mut keys: Vec<&String> = former.keys().chain(now.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            compare(&path, former.get(key), now.get(key), differences);
        }
        return;
    }
    let show = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) if path.ends_with("_hash") => text.chars().take(12).collect(),
        Some(value) => value.to_string(),
    };
    differences.push(format!("{path}: {} -> {}", show(former), show(now)));
}

/// Evaluates and writes `results.json` and a `samples_<task>.jsonl` a task. Where the results of the same settings,
/// model and questions are there already, they are read and nothing is done.
///
/// # Errors
/// [`Error::OtherEvaluation`] where other results are there and `overwrite` is not set; the errors of [`Suite::ask`];
/// files that cannot be written.
pub fn evaluate(
    plan: &Plan,
    engine: &mut dyn Engine,
    observer: &mut dyn Observer,
) -> Result<Evaluation, Error> {
    let out = plan.out();
    let path = out.join(RESULTS);
    if path.exists() {
        if let Some(results) = former(plan, &path)? {
            return Ok(Evaluation { results, out, already_there: true });
        }
    } else {
        // Where nothing can be written, that is said before the work and not after it.
        std::fs::create_dir_all(&out).map_err(|cause| Error::Io {
            action: "create",
            path: out.clone(),
            cause,
        })?;
    }
    let date = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let started = Instant::now();
    let answers = plan.answers(engine, observer)?;
    let mut results = plan.results(&answers);
    results.date = date;
    results.total_evaluation_time_seconds = format!("{:.3}", started.elapsed().as_secs_f64());
    for (task, answers) in plan.suite.tasks.iter().zip(&answers) {
        atomic::write_json_lines(&out.join(log_name(&task.name)), samples(task, answers))?;
    }
    // Last: where it is, the rest is.
    atomic::write_json(&path, &results)?;
    Ok(Evaluation { results, out, already_there: false })
}

/// The results at `path` if they are what `plan` would give. Others are removed where that is wanted.
fn former(plan: &Plan, path: &Path) -> Result<Option<Results>, Error> {
    let results = read_results(path)?;
    let differences = plan.differences(&results);
    if differences.is_empty() {
        return Ok(Some(results));
    }
    let out = path.parent().expect("a file in a directory").to_owned();
    if !plan.suite.settings.overwrite {
        return Err(Error::OtherEvaluation { out, differences });
    }
    let logs = results.task_hashes.keys().map(|task| out.join(log_name(task)));
    for path in std::iter::once(path.to_owned()).chain(logs) {
        match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Io { action: "remove", path, cause });
            }
            _ => {}
        }
    }
    Ok(None)
}

pub(crate) fn log_name(task: &str) -> String {
    format!("samples_{task}.jsonl")
}
