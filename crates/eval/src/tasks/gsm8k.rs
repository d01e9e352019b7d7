//! GSM8K: stories of grade-school mathematics, asked as lm-evaluation-harness asks them.
//!
//! The prompt is `Question: ...\nAnswer:`, solved examples stand before it with an empty line between them, an answer
//! ends before the next `Question:`. The reference solution is a blank and the record's `answer`; no end token, for
//! nothing says that a text ends there.

use std::path::Path;

use super::rows::{Row, read};
use super::{Question, Solution, Task};
use crate::settings::ShotsOf;
use crate::{Error, Settings};
use remit_judge::{Filter, Judge};

/// What stands before the answer in a solution.
const MARK: &str = "#### ";

/// The filters of tasks whose answer is a number, the strict one first.
pub(super) const FILTERS: &[Filter] = &[Filter::StrictMatch, Filter::FlexibleExtract];

/// The texts before which an answer ends.
pub(super) const STOP: &[&str] = &["Question:", "</s>", "<|im_end|>"];

pub(super) fn task(settings: &Settings) -> Result<Task, Error> {
    let path = settings.paths.gsm8k.as_deref().ok_or(Error::NoPath { task: "gsm8k" })?;
    let examples = examples(settings.shots.gsm8k.as_ref())?;
    let rows = read(path)?.into_iter().enumerate();
    let questions = rows.map(|(id, row)| {
        let Solved { question, answer, number } = Solved::of(&row)?;
        Ok(Question {
            id,
            prompt: format!("{examples}{}", prompt(question)),
            target: answer.to_owned(),
            solution: Some(Solution { text: format!(" {answer}"), ends: false }),
            judge: Judge::Number(number.to_owned()),
            document: row.value,
        })
    });
    let questions = questions.collect::<Result<Vec<Question>, Error>>()?;
    Ok(Task {
        name: "gsm8k".to_owned(),
        alias: "gsm8k".to_owned(),
        group: None,
        version: 1,
        shots: settings.shots.gsm8k.as_ref().map_or(0, |shots| shots.count),
        num_available: questions.len(),
        max_new_tokens: 256,
        stop: STOP,
        filters: FILTERS,
        questions,
    })
}

/// How a question is put.
pub(super) fn prompt(question: &str) -> String {
    format!("Question: {question}\nAnswer:")
}

/// Solved examples, each with the empty line behind it.
pub(super) fn examples(shots: Option<&ShotsOf>) -> Result<String, Error> {
    let Some(ShotsOf { path, count }) = shots else { return Ok(String::new()) };
    let rows = read(path)?;
    if rows.len() < *count {
        return Err(few(path, rows.len(), *count));
    }
    let example = |row: &Row| {
        let Solved { question, answer, .. } = Solved::of(row)?;
        Ok(format!("{} {answer}\n\n", prompt(question)))
    };
    rows.iter().take(*count).map(example).collect()
}

fn few(path: &Path, found: usize, wanted: usize) -> Error {
    let problem = format!("{wanted} solved examples are wanted, and there are {found}");
    Error::Row { place: path.display().to_string(), problem }
}

/// A record's parts.
struct Solved<'a> {
    question: &'a str,
    answer: &'a str,
    /// What stands behind the last mark.
    number: &'a str,
}

impl Solved<'_> {
    fn of(row: &Row) -> Result<Solved<'_>, Error> {
        let (question, answer) = (row.text("question")?, row.text("answer")?);
        let number = answer.rsplit_once(MARK).map(|(_, number)| number.trim());
        match number.filter(|number| number.contains(|c: char| c.is_ascii_digit())) {
            Some(number) => Ok(Solved { question, answer, number }),
            None => Err(row.wrong("its `answer` has no number behind `#### `")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_stand_before_the_question_as_in_lm_evaluation_harness() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("solved.jsonl");
        let line = |question: &str, answer: &str| {
            format!("{}\n", serde_json::json!({ "question": question, "answer": answer }))
        };
        let text = line("One?", "1\n#### 1")
            + &line("Two?", "2,000\n#### 2,000")
            + "\n"
            + &line("Three?", "3\n#### 3");
        std::fs::write(&path, text).expect("written");
        let mut settings = Settings::default();
        settings.paths.gsm8k = Some(path.clone());
        settings.shots.gsm8k = Some(ShotsOf { path: path.clone(), count: 2 });
        let task = task(&settings).expect("a task");
        assert_eq!((task.shots, task.num_available), (2, 3));
        let question = &task.questions[2];
        assert_eq!(
            question.prompt,
            "Question: One?\nAnswer: 1\n#### 1\n\nQuestion: Two?\nAnswer: 2,000\n#### 2,000\n\nQuestion: Three?\nAnswer:"
        );
        let solution = question.solution.as_ref().expect("it has one");
        assert_eq!((solution.text.as_str(), solution.ends), (" 3\n#### 3", false));
        assert!(task.questions[1].judge.accepts("2000"));

        let many = ShotsOf { path, count: 4 };
        let error = examples(Some(&many)).expect_err("too many").to_string();
        assert!(error.ends_with("4 solved examples are wanted, and there are 3"), "{error}");
    }
}
