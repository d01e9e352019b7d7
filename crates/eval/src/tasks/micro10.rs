//! micro10: ten families of generated problems, each a task of its own.
//!
//! The problems of a family are those of [`Problems`] with this family alone, so they are the same whatever else is
//! asked. The reference solution is the clean document behind the prompt, its line feed and the end token included:
//! all that training on the document would predict there.

use std::collections::BTreeSet;

use remit_micro10::{Family, Noise, Problems};
use serde_json::json;

use super::{MICRO10, Question, Solution, Task};
use crate::{Error, Micro10, Settings};
use remit_judge::{Filter, Judge};

/// The names of the families' tasks.
pub(super) fn names() -> impl Iterator<Item = String> {
    Family::MICRO10.into_iter().map(name)
}

/// All ten, as a group.
pub(super) fn all(settings: &Settings) -> Result<Vec<Task>, Error> {
    let task = |family| Ok(Task { group: Some(MICRO10), ..task(settings, family)? });
    Family::MICRO10.into_iter().map(task).collect()
}

/// The family whose task has this name, if one has.
pub(super) fn one(settings: &Settings, wanted: &str) -> Result<Option<Task>, Error> {
    let family = Family::MICRO10.into_iter().find(|&family| name(family) == wanted);
    family.map(|family| task(settings, family)).transpose()
}

fn name(family: Family) -> String {
    format!("{MICRO10}_{family}")
}

fn task(settings: &Settings, family: Family) -> Result<Task, Error> {
    let Micro10 { problems, skip, level, split, seed } = settings.micro10;
    let count = skip.saturating_add(problems);
    let families = BTreeSet::from([family]);
    let problems = Problems { families, level, seed, count, noise: Noise::NONE, split };
    let questions = problems.documents()?.enumerate().skip(skip).map(|(id, document)| {
        let problem = document.problem;
        let prompt = problem.prompt();
        let solution = problem.document()[prompt.len()..].to_owned();
        Question {
            id,
            document: json!({ "question": problem.question, "family": family, "level": level, "key": problem.key }),
            target: problem.answer.clone(),
            solution: Some(Solution { text: solution, ends: true }),
            prompt,
            judge: Judge::Problem(Box::new(problem)),
        }
    });
    let questions: Vec<Question> = questions.collect();
    Ok(Task {
        name: name(family),
        alias: family.to_string(),
        group: None,
        version: 1,
        shots: 0,
        num_available: questions.len(),
        max_new_tokens: 128,
        stop: &["\n"],
        filters: &[Filter::FinalAnswer],
        questions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(change: impl Fn(&mut Settings)) -> Vec<(usize, String)> {
        let mut settings = Settings::default();
        change(&mut settings);
        let task = one(&settings, "micro10_clock").expect("good settings").expect("a family");
        task.questions.into_iter().map(|question| (question.id, question.prompt)).collect()
    }

    #[test]
    fn a_question_is_a_document_up_to_its_answer() {
        for task in all(&Settings::default()).expect("good settings") {
            assert_eq!((task.group, task.questions.len()), (Some("micro10"), 100));
            for question in &task.questions {
                let Judge::Problem(problem) = &question.judge else { panic!("a problem") };
                let solution = question.solution.as_ref().expect("every problem has one");
                assert_eq!(format!("{}{}", question.prompt, solution.text), problem.document());
                assert!(question.prompt.ends_with("\nA:") && solution.text.ends_with('\n'), "{question:?}");
                assert!(question.judge.accepts(&Filter::FinalAnswer.answer(&solution.text)), "{question:?}");
                assert!(!question.judge.accepts(&Filter::FinalAnswer.answer("")), "{question:?}");
            }
        }
    }

    #[test]
    fn skipped_problems_are_those_that_were_asked_before() {
        let all = prompts(|s| s.micro10.problems = 60);
        let (dev, test) = (
            prompts(|s| s.micro10.problems = 20),
            prompts(|s| (s.micro10.skip, s.micro10.problems) = (20, 40)),
        );
        assert_eq!([&dev[..], &test[..]].concat(), all);
        assert_eq!(test[0].0, 20, "a question keeps its number");
        let distinct: BTreeSet<&String> = all.iter().map(|(_, prompt)| prompt).collect();
        assert_eq!(distinct.len(), 60);
        assert_ne!(prompts(|s| s.micro10.seed = 1), prompts(|_| ()));
    }

    #[test]
    fn more_problems_than_there_are() {
        let settings =
            Settings { micro10: Micro10 { skip: 950, ..Micro10::default() }, ..Settings::default() };
        let error = one(&settings, "micro10_clock").expect_err("refused");
        assert!(error.to_string().starts_with("1050 test problems of level 2"), "{error}");
        assert!(one(&settings, "micro10_clok").expect("no such family").is_none());
    }
}
