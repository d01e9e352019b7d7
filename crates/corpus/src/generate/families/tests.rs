//! Every family is solved again here, from the text of its questions alone.

use std::collections::{BTreeSet, HashSet};

use super::super::problems::{Problem, Problems, Split, TEST_PROBLEMS};
use super::super::{Error, Noise};
use super::{Dice, Family};

#[test]
fn answers_follow_from_the_questions() {
    for family in Family::ALL {
        for problem in draws(family, 3000) {
            assert_eq!(problem.answer, solve(family, &problem.question), "{problem:?}");
        }
    }
}

#[test]
fn every_equation_of_a_working_holds_and_the_last_step_is_the_answer() {
    for family in Family::ALL {
        for problem in draws(family, 3000) {
            let mut num_equations = 0;
            for step in &problem.working {
                let sides: Vec<i64> = step.split('=').filter_map(evaluate).collect();
                assert!(sides.windows(2).all(|pair| pair[0] == pair[1]), "{step} in {problem:?}");
                num_equations += sides.len() / 2;
            }
            let is_arithmetic = !matches!(family, Family::List | Family::Text);
            assert!(!is_arithmetic || num_equations == problem.working.len(), "{problem:?}");
            let last = problem.working.last().expect("a working has steps");
            let expected = match family {
                // The last sum is the leading digits; those before it are the last digits of theirs.
                Family::Addition => {
                    let lower = problem.answer.len() - (problem.working.len() - 1);
                    &problem.answer[..lower]
                }
                Family::List => problem.answer.rsplit(',').next().expect("split yields one part at least"),
                _ => &problem.answer,
            };
            let end = last.rsplit(['=', ' ']).next().expect("split yields one part at least");
            assert_eq!(end, expected, "{problem:?}");
        }
    }
}

#[test]
fn every_family_has_the_promised_number_of_test_problems() {
    for family in Family::ALL {
        let settings = Problems {
            families: BTreeSet::from([family]),
            seed: 11,
            count: TEST_PROBLEMS,
            noise: Noise::NONE,
            split: Split::Test,
        };
        let documents = settings.documents().expect("the count is allowed");
        let keys: HashSet<String> = documents.map(|document| document.problem.key).collect();
        assert_eq!(keys.len(), TEST_PROBLEMS, "{family}");
    }
}

#[test]
fn about_an_eighth_of_the_problems_are_test() {
    for family in Family::ALL {
        let num_test = draws(family, 8000).filter(|problem| problem.split() == Split::Test).count();
        assert!((800..1200).contains(&num_test), "{family}: {num_test} of 8000");
    }
}

#[test]
fn the_split_is_blind_to_phrasing_order_and_names() {
    let of_sum = |problem: &Problem| {
        let mut numbers = numbers(&problem.question);
        numbers.sort_unstable();
        numbers
    };
    for family in [Family::Addition, Family::Multiplication] {
        let mut splits = std::collections::HashMap::new();
        for problem in draws(family, 20_000) {
            assert_eq!(*splits.entry(of_sum(&problem)).or_insert(problem.split()), problem.split());
        }
        assert!(splits.len() < 16_000, "too few repetitions to have tested anything");
    }
    for problem in draws(Family::Story, 1000) {
        assert!(!problem.key.contains(char::is_uppercase), "{problem:?}");
    }
}

#[test]
fn everything_is_ascii_and_short() {
    for family in Family::ALL {
        for problem in draws(family, 1000) {
            let text = problem.document();
            assert!(text.is_ascii() && text.len() < 160, "{text}");
        }
    }
}

#[test]
fn families_are_found_by_the_name_they_print_and_serialise() {
    for family in Family::ALL {
        assert_eq!(family.to_string().parse::<Family>().expect("its own name"), family);
        assert_eq!(serde_json::to_string(&family).expect("a string"), format!("\"{family}\""));
    }
    let error = "sums".parse::<Family>().expect_err("there is no such family");
    assert_eq!(error.to_string(), "unknown problem family `sums`");
    assert!(matches!(error, Error::UnknownFamily { .. }));
    assert!(error.hint().is_some_and(|hint| hint.contains("`addition`, `multiplication`")));
}

fn draws(family: Family, count: u64) -> impl Iterator<Item = Problem> {
    (0..count).map(move |index| family.draw(&mut Dice::new(5, "problem", index)))
}

/// A second opinion on the answer to `question`.
fn solve(family: Family, question: &str) -> String {
    let n = numbers(question);
    match family {
        Family::Addition => (n[0] + n[1]).to_string(),
        Family::Multiplication => (0..n[1]).map(|_| n[0]).sum::<i64>().to_string(),
        Family::Modulo => {
            let mut rest = n[0];
            while rest >= n[1] {
                rest -= n[1];
            }
            rest.to_string()
        }
        Family::Equation => {
            let added = if question.contains('+') { n[1] } else { -n[1] };
            let solutions: Vec<i64> = (-100..100).filter(|x| n[0] * x + added == n[2]).collect();
            assert_eq!(solutions.len(), 1, "{question}");
            solutions[0].to_string()
        }
        Family::Story => solve_story(question, &n).to_string(),
        Family::List => solve_list(question, n),
        Family::Text => run_text_program(question),
    }
}

fn solve_story(question: &str, n: &[i64]) -> i64 {
    if question.contains("bags") {
        n[0] + n[1] * n[2]
    } else if question.contains("loses") || question.contains("gives away") {
        n[0] - n[1] + n[2]
    } else if question.contains("in all") {
        n[0] + (n[0] + n[1])
    } else {
        assert!(question.ends_with("together?"), "{question}");
        (n[0] + n[1]) + n[1]
    }
}

fn solve_list(question: &str, mut n: Vec<i64>) -> String {
    let join = |n: &[i64]| n.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    if question.contains("[::-1]") {
        // The `1` of the slice is the last number of the question.
        n.truncate(3);
        return join(&[n[2], n[1], n[0]]);
    }
    let total = n.iter().sum::<i64>();
    n.sort_unstable();
    match question {
        q if q.contains("sorted") => join(&n),
        q if q.contains("max") => n[2].to_string(),
        q if q.contains("min") => n[0].to_string(),
        q if q.contains("sum") => total.to_string(),
        q => panic!("unknown program in {q}"),
    }
}

fn run_text_program(question: &str) -> String {
    let mut s: Vec<char> = Vec::new();
    let program = question.trim_start_matches("After ");
    let program = program.trim_end_matches(" what is s?").trim_end_matches(". What is s?");
    for statement in program.split(';') {
        match statement {
            "s=s[::-1]" => s.reverse(),
            "s=s[1:]" => drop(s.remove(0)),
            "s=s[:-1]" => drop(s.pop()),
            "print(s)" => {}
            _ => {
                let literal = statement.split('\'').nth(1).expect("a text in quotes");
                if statement.starts_with("s='") {
                    s.clear();
                } else {
                    assert!(statement.starts_with("s+='"), "{statement}");
                }
                s.extend(literal.chars());
            }
        }
    }
    s.into_iter().collect()
}

/// The value of one side of an equation, or nothing for a side with an unknown in it.
fn evaluate(side: &str) -> Option<i64> {
    if let Some(arguments) = side.strip_prefix("max(").or(side.strip_prefix("min(")) {
        let values = numbers(arguments);
        return if side.starts_with("max") { values.into_iter().max() } else { values.into_iter().min() };
    }
    if side.contains(|c: char| !c.is_ascii_digit() && !"+-*/".contains(c)) {
        return None;
    }
    let n = numbers(side);
    let operators: Vec<char> = side.chars().filter(|c| "+-*/".contains(*c)).collect();
    n[1..].iter().zip(operators).try_fold(n[0], |value, (operand, operator)| match operator {
        '+' => Some(value + operand),
        '-' => Some(value - operand),
        '*' => Some(value * operand),
        _ => (value % operand == 0).then(|| value / operand),
    })
}

/// The digits of `text` as numbers, without signs.
fn numbers(text: &str) -> Vec<i64> {
    let parts = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().expect("digits")).collect()
}
