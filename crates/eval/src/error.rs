//! What can go wrong between a checkpoint and its results, with the facts; the advice is in [`Error::hint`].

use std::io;
use std::path::PathBuf;

use crate::tasks;

/// An error of the evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Of the crates below.
    #[error(transparent)]
    Fault(#[from] remit_store::Error),
    /// Of generated problems.
    #[error(transparent)]
    Problems(#[from] remit_micro10::Error),
    /// Of the engine.
    #[error(transparent)]
    Engine(#[from] remit_engine::Error),
    /// The operating system refused.
    #[error("cannot {action} `{}`: {cause}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said. Not a `source`: the message already ends with it.
        cause: io::Error,
    },
    /// A setting that makes no sense.
    #[error("`eval.{key}` {problem}")]
    Setting {
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// More samples would be needed.
    #[error("pass@{k} cannot be estimated from {samples} samples a question")]
    Pass {
        /// The `k` asked for.
        k: u64,
        /// The samples there will be.
        samples: usize,
    },
    /// A task was asked for by a name that none has.
    #[error("there is no task `{name}`")]
    UnknownTask {
        /// The name as given.
        name: String,
    },
    /// A task that reads a file was given none.
    #[error("task `{task}` has no file of questions")]
    NoPath {
        /// The task.
        task: &'static str,
    },
    /// A file of questions that cannot be used.
    #[error("{place}: {problem}")]
    Row {
        /// File and line, or file and element.
        place: String,
        /// What is wrong there.
        problem: String,
    },
    /// A checkpoint whose texts cannot be read.
    #[error("`{}` has no `tokenizer.json`", checkpoint.display())]
    NoTokenizer {
        /// The checkpoint.
        checkpoint: PathBuf,
    },
    /// A question that leaves the model no room for an answer.
    #[error(
        "question {id} of `{task}` has {prompt} tokens; with {more} more of {what} they are more than the \
         {max_length} positions that the model allows"
    )]
    TooLong {
        /// The task.
        task: String,
        /// The question.
        id: usize,
        /// Tokens of its prompt.
        prompt: usize,
        /// Tokens to come.
        more: usize,
        /// `an answer` or `its solution`.
        what: &'static str,
        /// The model's limit.
        max_length: usize,
    },
    /// A log-probability that is not finite.
    #[error("the log-probabilities of the solution of question {id} of `{task}` are not finite")]
    NotFinite {
        /// The task.
        task: String,
        /// The question.
        id: usize,
    },
    /// Results of something else are in the way.
    #[error("`{}` holds the results of another evaluation: {}", out.display(), differences.join(", "))]
    OtherEvaluation {
        /// The output directory.
        out: PathBuf,
        /// What differs.
        differences: Vec<String>,
    },
    /// A file that is no results file.
    #[error("`{}` is not a results file: {problem}", path.display())]
    NotResults {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Fault(error) => error.hint(),
            Error::Problems(error) => error.hint(),
            Error::Engine(error) => error.hint(),
            Error::Pass { .. } => Some("raise `samples`, or lower `k`".to_owned()),
            Error::UnknownTask { name } => Some(task_hint(name)),
            Error::NoPath { task } => Some(format!(
                "set `{task}` under `[eval.paths]`, or give `--eval.paths.{task}=FILE`; `docs/evaluation.md` says \
                 where such files come from"
            )),
            Error::NoTokenizer { .. } => Some("put that of the model beside its `config.json`".to_owned()),
            Error::TooLong { what: "an answer", .. } => {
                Some("lower `max_new_tokens`, or the number of `shots`".to_owned())
            }
            Error::TooLong { .. } => Some(
                "leave the solutions out with `--eval.nll=false`, or lower the number of `shots`".to_owned(),
            ),
            Error::OtherEvaluation { .. } => {
                Some("choose another output with `--out`, or replace this one with `--overwrite`".to_owned())
            }
            Error::NotResults { .. } => Some("choose another output with `--out`".to_owned()),
            Error::Io { .. } | Error::Setting { .. } | Error::Row { .. } | Error::NotFinite { .. } => None,
        }
    }
}

fn task_hint(name: &str) -> String {
    let names = tasks::names();
    let near = names
        .iter()
        .map(|known| (strsim::jaro_winkler(&name.to_lowercase(), known), known))
        .filter(|(likeness, _)| *likeness >= 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let question = near.map_or(String::new(), |(_, near)| format!("did you mean `{near}`? "));
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    format!("{question}the tasks are {}", names.join(", "))
}
