//! Where questions come from: one task a file.
//!
//! A task is a list of questions with prompts, the texts that end an answer, and the filters that find an answer in
//! a completion. `micro10` is a group: each of its families is a task of its own.

mod gsm8k;
mod micro10;
mod rows;
mod svamp;

use serde_json::Value;

use crate::{Error, Settings};
use remit_judge::{Filter, Judge};

/// The group of the generated problems.
pub const MICRO10: &str = "micro10";

/// The questions of one name.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its name in settings and results.
    pub name: String,
    /// The name in a table below its group.
    pub alias: String,
    /// The group whose figures it is part of, where the group was asked for.
    pub group: Option<&'static str>,
    /// Changes whenever the same settings would give other figures.
    pub version: u32,
    /// Solved examples before each question.
    pub shots: usize,
    /// Questions there are, before `limit`.
    pub num_available: usize,
    /// Tokens of an answer at most.
    pub max_new_tokens: usize,
    /// An answer ends before the first of these.
    pub stop: &'static [&'static str],
    /// How an answer is found; each gives figures of its own.
    pub filters: &'static [Filter],
    /// What is asked.
    pub questions: Vec<Question>,
}

/// One question.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its place in the whole of its task, whatever part of it is asked.
    pub id: usize,
    /// Where it comes from, for the log.
    pub document: Value,
    /// What the model is given.
    pub prompt: String,
    /// The right answer, for the log.
    pub target: String,
    /// The reference solution behind the prompt.
    pub solution: Option<Solution>,
    /// Whether an answer is right.
    pub judge: Judge,
}

/// What could have been written.
#[derive(Clone, Debug)]
pub struct Solution {
    /// The text behind the prompt.
    pub text: String,
    /// Whether the end token behind it is part of it.
    pub ends: bool,
}

/// All names that `tasks` may have.
pub fn names() -> Vec<String> {
    let families = micro10::names();
    [MICRO10]
        .map(str::to_owned)
        .into_iter()
        .chain(families)
        .chain(["gsm8k", "svamp"].map(str::to_owned))
        .collect()
}

/// The tasks that the settings name, each once, in the order of the names, with questions up to `limit`.
///
/// # Errors
/// [`Error::UnknownTask`], and files that are missing or cannot be used.
pub(crate) fn tasks(settings: &Settings) -> Result<Vec<Task>, Error> {
    let mut tasks: Vec<Task> = Vec::new();
    for name in &settings.tasks {
        let more = match name.as_str() {
            MICRO10 => micro10::all(settings)?,
            "gsm8k" => vec![gsm8k::task(settings)?],
            "svamp" => vec![svamp::task(settings)?],
            name => vec![
                micro10::one(settings, name)?.ok_or_else(|| Error::UnknownTask { name: name.to_owned() })?,
            ],
        };
        for task in more {
            match tasks.iter_mut().find(|known| known.name == task.name) {
                Some(known) => known.group = known.group.or(task.group),
                None => tasks.push(task),
            }
        }
    }
    for task in &mut tasks {
        task.questions.truncate(settings.limit.unwrap_or(usize::MAX));
        task.max_new_tokens = settings.max_new_tokens.unwrap_or(task.max_new_tokens);
    }
    Ok(tasks)
}
