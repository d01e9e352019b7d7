//! GSM8K: stories of grade-school mathematics, asked as lm-evaluation-harness asks them.
//!
//! The prompt is `Question: ...\nAnswer:`, solved examples stand before it with an empty line between them, an answer
//! ends before the next `Question:`. The examples are the first of their file that are not the question itself, as
//! lm-evaluation-harness leaves it out where questions and examples come from one split. The reference solution is a blank and the record's `answer`; no end token, for
//! nothing says that a text ends there.

use std::path::PathBuf;

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
    let examples = Examples::read(settings.shots.gsm8k.as_ref())?;
    let rows = read(path)?.into_iter().enumerate();
    let questions = rows.map(|(id, row)| {
        let Solved { question, answer, number } = Solved::of(&row)?;
        Ok(Question {
            id,
            prompt: examples.before(question)?,
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
        version: 2,
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

/// Solved examples to stand before questions.
pub(super) struct Examples {
    path: PathBuf,
    /// Before each question.
    count: usize,
    /// The first of the file, by question, each with the empty line behind it; more than `count` where there are.
    solved: Vec<(String, String)>,
}

impl Examples {
    /// Those that settings ask for.
    pub fn read(shots: Option<&ShotsOf>) -> Result<Examples, Error> {
        let Some(ShotsOf { path, count }) = shots else {
            return Ok(Examples { path: PathBuf::new(), count: 0, solved: Vec::new() });
        };
        let example = |row: &Row| {
            let Solved { question, answer, .. } = Solved::of(row)?;
            Ok((question.trim().to_owned(), format!("{} {answer}\n\n", prompt(question))))
        };
        let solved = read(path)?.iter().map(example).collect::<Result<_, Error>>()?;
        let examples = Examples { path: path.clone(), count: *count, solved };
        examples.of("")?;
        Ok(examples)
    }

    /// The prompt of a question, behind its examples.
    pub fn before(&self, question: &str) -> Result<String, Error> {
        Ok(self.of(question)? + &prompt(question))
    }

    /// The first examples that are not the question itself.
    fn of(&self, question: &str) -> Result<String, Error> {
        let others = || self.solved.iter().filter(|(solved, _)| solved != question.trim());
        if others().nth(self.count.saturating_sub(1)).is_none() && self.count > 0 {
            let (wanted, found) = (self.count, others().count());
            let left_out = if found < self.solved.len() { " beside the question itself" } else { "" };
            let problem = format!("{wanted} solved examples are wanted, and there are {found}{left_out}");
            return Err(Error::Row { place: self.path.display().to_string(), problem });
        }
        Ok(others().take(self.count).map(|(_, example)| example.as_str()).collect())
    }
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
        assert_eq!(
            task.questions[0].prompt,
            "Question: Two?\nAnswer: 2,000\n#### 2,000\n\nQuestion: Three?\nAnswer: 3\n#### 3\n\nQuestion: One?\nAnswer:",
            "the question is left out of its examples, and the next stands in"
        );
        assert_eq!(
            task.questions[1].prompt,
            "Question: One?\nAnswer: 1\n#### 1\n\nQuestion: Three?\nAnswer: 3\n#### 3\n\nQuestion: Two?\nAnswer:"
        );
        let question = &task.questions[2];
        assert_eq!(
            question.prompt,
            "Question: One?\nAnswer: 1\n#### 1\n\nQuestion: Two?\nAnswer: 2,000\n#### 2,000\n\nQuestion: Three?\nAnswer:"
        );
        let solution = question.solution.as_ref().expect("it has one");
        assert_eq!((solution.text.as_str(), solution.ends), (" 3\n#### 3", false));
        assert!(task.questions[1].judge.accepts("2000"));

        let many = ShotsOf { path: path.clone(), count: 4 };
        let error = Examples::read(Some(&many)).err().expect("too many").to_string();
        assert!(error.ends_with("4 solved examples are wanted, and there are 3"), "{error}");
        settings.shots.gsm8k = Some(ShotsOf { path, count: 3 });
        let error = super::task(&settings).expect_err("too many").to_string();
        assert!(
            error.ends_with("3 solved examples are wanted, and there are 2 beside the question itself"),
            "{error}"
        );
    }
}
