//! `print(max([12,45,30]))` worked as `max(12,45)=45; max(45,30)=45`.

use super::{Dice, Draft, Level};

pub(super) fn draw(dice: &mut Dice, level: Level) -> Draft {
    let (size, low, high) = level.pick((3, 1, 20), (3, 10, 99), (5, 10, 99));
    let values: Vec<i64> = (0..size).map(|_| dice.between(low, high)).collect();
    let literal = comma_separated(&values);
    let (expression, working, answer) = match dice.between(0, 4) {
        0 => {
            let mut sorted = values.clone();
            sorted.sort_unstable();
            (format!("sorted([{literal}])"), in_order("smallest", &sorted), comma_separated(&sorted))
        }
        1 => {
            let reversed: Vec<i64> = values.iter().rev().copied().collect();
            (format!("[{literal}][::-1]"), in_order("last", &reversed), comma_separated(&reversed))
        }
        2 => {
            let (steps, result) = fold(&values, |a, b| (format!("max({a},{b})"), a.max(b)));
            (format!("max([{literal}])"), steps, result.to_string())
        }
        3 => {
            let (steps, result) = fold(&values, |a, b| (format!("min({a},{b})"), a.min(b)));
            (format!("min([{literal}])"), steps, result.to_string())
        }
        _ => {
            let (steps, result) = fold(&values, |a, b| (format!("{a}+{b}"), a + b));
            (format!("sum([{literal}])"), steps, result.to_string())
        }
    };
    let question = match dice.between(0, 2) {
        0 => format!("print({expression})"),
        1 => format!("What does print({expression}) show?"),
        _ => format!("Run print({expression})."),
    };
    Draft::new(expression, question, working, answer)
}

fn comma_separated(values: &[i64]) -> String {
    values.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

fn in_order(first: &str, values: &[i64]) -> Vec<String> {
    let word = |index| if index == 0 { first } else { "then" };
    values.iter().enumerate().map(|(index, value)| format!("{} {value}", word(index))).collect()
}

/// The steps of a left fold and its result; `step` gives what a step is called and what it yields.
fn fold(values: &[i64], step: impl Fn(i64, i64) -> (String, i64)) -> (Vec<String>, i64) {
    let (mut steps, mut result) = (Vec::new(), values[0]);
    for &value in &values[1..] {
        let (name, next) = step(result, value);
        steps.push(format!("{name}={next}"));
        result = next;
    }
    (steps, result)
}
