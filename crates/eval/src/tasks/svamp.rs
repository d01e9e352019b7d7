//! SVAMP: short stories with one operation, whose answer is a number.
//!
//! A question is `Body` and `Question` with a blank between them, asked and judged as GSM8K's. There is no worked
//! solution to measure a likelihood of.

use serde_json::Value;

use super::rows::{Row, read};
use super::{Question, Task, gsm8k};
use crate::{Error, Settings};
use remit_judge::Judge;

pub(super) fn task(settings: &Settings) -> Result<Task, Error> {
    let path = settings.paths.svamp.as_deref().ok_or(Error::NoPath { task: "svamp" })?;
    let examples = gsm8k::Examples::read(settings.shots.svamp.as_ref())?;
    let rows = read(path)?.into_iter().enumerate();
    let questions = rows.map(|(id, row)| {
        let number = number(&row)?;
        let question = format!("{} {}", row.text("Body")?.trim(), row.text("Question")?.trim());
        Ok(Question {
            id,
            prompt: examples.before(&question)?,
            target: number.clone(),
            solution: None,
            judge: Judge::Number(number),
            document: row.value,
        })
    });
    let questions = questions.collect::<Result<Vec<Question>, Error>>()?;
    Ok(Task {
        name: "svamp".to_owned(),
        alias: "svamp".to_owned(),
        group: None,
        version: 1,
        shots: settings.shots.svamp.as_ref().map_or(0, |shots| shots.count),
        num_available: questions.len(),
        max_new_tokens: 256,
        stop: gsm8k::STOP,
        filters: gsm8k::FILTERS,
        questions,
    })
}

/// The answer as people write it: `51.0` is 51.
fn number(row: &Row) -> Result<String, Error> {
    match row.value.get("Answer") {
        Some(Value::Number(number)) => {
            let value = number.as_f64().ok_or_else(|| row.wrong(format!("`Answer` is {number}")))?;
            Ok(value.to_string())
        }
        Some(Value::String(text)) if text.trim().parse::<f64>().is_ok_and(f64::is_finite) => {
            let value: f64 = text.trim().parse().expect("it has just been read");
            Ok(value.to_string())
        }
        Some(other) => Err(row.wrong(format!("`Answer` is {other}, not a number"))),
        None => Err(row.wrong("no field `Answer`")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_as_people_write_them() {
        let of = |answer: Value| {
            number(&Row { place: "row 1".to_owned(), value: json!({ "Answer": answer }) })
                .map_err(|error| error.to_string())
        };
        assert_eq!(of(json!(51.0)).as_deref(), Ok("51"));
        assert_eq!(of(json!(51)).as_deref(), Ok("51"));
        assert_eq!(of(json!("0.50")).as_deref(), Ok("0.5"));
        assert_eq!(of(json!(null)), Err("row 1: `Answer` is null, not a number".to_owned()));
        assert_eq!(of(json!("many")), Err("row 1: `Answer` is \"many\", not a number".to_owned()));
    }

    #[test]
    fn a_question_is_its_body_and_what_is_asked() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stories.json");
        let story =
            json!([{ "Body": "Ann has 3 coins ", "Question": " How many are 2 more?", "Answer": 5.0 }]);
        std::fs::write(&path, story.to_string()).expect("written");
        let mut settings = Settings::default();
        settings.paths.svamp = Some(path);
        let task = task(&settings).expect("a task");
        assert_eq!(task.questions[0].prompt, "Question: Ann has 3 coins How many are 2 more?\nAnswer:");
        assert!(task.questions[0].judge.accepts("$5.") && task.questions[0].solution.is_none());
    }
}
