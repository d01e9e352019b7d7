//! Every family is solved again here, from the text of its questions alone.

use std::collections::{BTreeSet, HashSet};

use super::{Dice, Family, Level, NAMES, Subject};
use crate::{Error, Noise, Problem, Problems, Split, final_answer};

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
            let expected = match family {
                Family::List | Family::Text => num_equations,
                Family::Ordering | Family::Sets => 0,
                Family::Clock => problem.working.len() - 1, // The last step reads the time off.
                _ => problem.working.len(),
            };
            assert_eq!(num_equations, expected, "{problem:?}");
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
fn every_family_has_the_promised_number_of_test_problems_at_every_level() {
    assert_eq!(Level::default().test_problems(), 1000);
    for (family, level) in families_and_levels() {
        let settings = Problems {
            families: BTreeSet::from([family]),
            level,
            seed: 11,
            count: level.test_problems(),
            noise: Noise::NONE,
            split: Split::Test,
        };
        let documents = settings.documents().expect("the count is allowed");
        let keys: HashSet<String> = documents.map(|document| document.problem.key).collect();
        assert_eq!(keys.len(), level.test_problems(), "{family} {level}");
    }
}

#[test]
fn micro10_is_ten_families_of_three_subjects() {
    let of = |subject| Family::MICRO10.into_iter().filter(|family| family.subject() == subject).count();
    let counts = [Subject::Mathematics, Subject::Code, Subject::Reasoning].map(of);
    assert_eq!(counts, [4, 3, 3]);
    assert_eq!(BTreeSet::from(Family::MICRO10).len(), 10);
}

#[test]
fn a_right_document_is_accepted_and_another_answer_is_not() {
    for family in Family::ALL {
        let problems: Vec<Problem> = draws(family, 500).collect();
        for problem in &problems {
            let document = problem.document();
            let completion =
                document.strip_prefix(&problem.prompt()).expect("a document begins with its prompt");
            assert!(problem.accepts(final_answer(completion).expect("it ends in an answer")), "{document}");
            for wrong in [format!("{}0", problem.answer), format!("-{}", problem.answer), String::new()] {
                assert!(!problem.accepts(&wrong), "{wrong} for {document}");
            }
        }
        for pair in problems.windows(2).filter(|pair| pair[0].answer != pair[1].answer) {
            assert!(!pair[0].accepts(&pair[1].answer), "{pair:?}");
        }
    }
}

#[test]
fn phrasings_are_several() {
    for (family, level) in families_and_levels() {
        let shape = |problem: Problem| -> String {
            problem.question.chars().filter(|c| c.is_ascii_alphabetic()).take(4).collect()
        };
        let shapes: HashSet<String> = draws_at(family, level, 300).map(shape).collect();
        assert!(shapes.len() >= 3, "{family} {level}: {shapes:?}");
    }
}

#[test]
fn a_harder_level_has_longer_documents() {
    for family in Family::ALL {
        let mean = |level| {
            let total: usize = draws_at(family, level, 500).map(|problem| problem.document().len()).sum();
            total as f64 / 500.0
        };
        let [one, two, three] = Level::ALL.map(mean);
        // The clock's level 3 turns past midnight and back, at no more words.
        assert!(one < two && (two < three || family == Family::Clock), "{family}: {one} {two} {three}");
    }
}

#[test]
fn about_an_eighth_of_the_problems_are_test() {
    for family in Family::ALL {
        let num_test =
            draws_at(family, Level::Two, 8000).filter(|problem| problem.split() == Split::Test).count();
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
        for problem in draws_at(family, Level::Two, 20_000) {
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
            let longest = problem.level.pick(160, 200, 250);
            assert!(text.is_ascii() && text.len() < longest, "{} bytes: {text}", text.len());
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

fn families_and_levels() -> impl Iterator<Item = (Family, Level)> {
    Family::ALL.into_iter().flat_map(|family| Level::ALL.map(|level| (family, level)))
}

/// Problems of every level in turn.
fn draws(family: Family, count: u64) -> impl Iterator<Item = Problem> {
    Level::ALL.into_iter().flat_map(move |level| draws_at(family, level, count / 3))
}

fn draws_at(family: Family, level: Level, count: u64) -> impl Iterator<Item = Problem> {
    (0..count).map(move |index| family.draw(&mut Dice::new(5, "problem", index), level))
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
        Family::Equation if n.len() == 4 => {
            let solutions: Vec<i64> = (-100..100).filter(|x| n[0] * x + n[1] == n[2] * x + n[3]).collect();
            assert_eq!(solutions.len(), 1, "{question}");
            solutions[0].to_string()
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
        Family::Complete => solve_program(question),
        Family::Ordering => solve_ordering(question),
        Family::Clock => solve_clock(question, &n),
        Family::Sets => solve_sets(question),
    }
}

/// The one constant with which plain arithmetic, not our interpreter, gives both outputs.
fn solve_program(question: &str) -> String {
    let program = &question[question.find("y=x*").expect("a program")..];
    let program = &program[..program.find("print(").expect("a program prints")];
    let print = &question[question.find("print(").expect("as above")..];
    let program = format!("{program}{}", &print[..=print.find(')').expect("as above")]);
    let told = question.replace(&program, "");
    let n = numbers(&told);
    let [(x, out), (other_x, other_out)] =
        if question.starts_with("x=") { [(n[0], n[1]), (n[2], n[3])] } else { [(n[1], n[0]), (n[3], n[2])] };
    let value =
        |part: &str, filling: i64| if part == "_" { filling } else { part.parse().expect("a constant") };
    let runs = |x: i64, filling: i64| -> i64 {
        let statements: Vec<&str> = program.split(';').collect();
        let (a, b) = statements[0]["y=x*".len()..].split_once('+').expect("a sum");
        let mut y = x * value(a, filling) + value(b, filling);
        for statement in &statements[1..] {
            if let Some(repeated) = statement.strip_prefix("repeat ") {
                let (times, body) = repeated.split_once(" {y=y+").expect("a loop");
                y += value(times, filling) * value(body.trim_end_matches('}'), filling);
            } else if let Some(added) = statement.strip_prefix("print(y+") {
                y += value(added.trim_end_matches(')'), filling);
            } else if let Some(taken) = statement.strip_prefix("print(y-") {
                y -= value(taken.trim_end_matches(')'), filling);
            } else {
                assert_eq!(*statement, "print(y)");
            }
        }
        y
    };
    let fits: Vec<i64> =
        (-200..200).filter(|&c| runs(x, c) == out && runs(other_x, c) == other_out).collect();
    assert_eq!(fits.len(), 1, "{question}");
    fits[0].to_string()
}

/// Counts who is below whom, by closing the relation.
fn solve_ordering(question: &str) -> String {
    let (clues, asked) = question.split_once(". Who is ").expect("a question");
    let mut above: HashSet<(&str, &str)> = HashSet::new();
    for clue in clues.split(", ") {
        let names: Vec<&str> = NAMES.into_iter().filter(|name| clue.contains(name)).collect();
        let (first, second) =
            if clue.starts_with(names[0]) { (names[0], names[1]) } else { (names[1], names[0]) };
        let is_less = ["<", "shorter", "younger", "slower"].iter().any(|word| clue.contains(word));
        above.insert(if is_less { (second, first) } else { (first, second) });
    }
    for _ in 0..5 {
        for (high, middle) in above.clone() {
            for (other, low) in above.clone() {
                if other == middle {
                    above.insert((high, low));
                }
            }
        }
    }
    let people: BTreeSet<&str> = above.iter().flat_map(|&(high, low)| [high, low]).collect();
    let place = ["second", "third", "fourth"].iter().position(|rank| asked.starts_with(rank));
    let is_least = ["shortest", "youngest", "slowest"].iter().any(|word| asked.starts_with(word));
    let num_above = place.map_or(if is_least { people.len() - 1 } else { 0 }, |place| place + 1);
    let at_place = |name: &&&str| above.iter().filter(|(_, low)| *low == **name).count() == num_above;
    let found: Vec<&&str> = people.iter().filter(at_place).collect();
    assert_eq!(found.len(), 1, "{question}");
    (*found[0]).to_owned()
}

/// Ticks a clock minute by minute.
fn solve_clock(question: &str, n: &[i64]) -> String {
    // The train that came names its time last.
    let (time, span) = if question.contains("took") { n.split_at(n.len() - 2) } else { n.split_at(2) };
    let (time, span) = if question.contains("took") { (span, time) } else { (time, span) };
    let minutes = if span.len() == 2 { 60 * span[0] + span[1] } else { span[0] };
    let is_back = ["earlier", "minus", "took"].iter().any(|word| question.contains(word));
    let (mut hour, mut minute) = (time[0], time[1]);
    for _ in 0..minutes {
        (hour, minute) = match (is_back, hour, minute) {
            (false, 23, 59) => (0, 0),
            (false, hour, 59) => (hour + 1, 0),
            (false, hour, minute) => (hour, minute + 1),
            (true, 0, 0) => (23, 59),
            (true, hour, 0) => (hour - 1, 59),
            (true, hour, minute) => (hour, minute - 1),
        };
    }
    format!("{hour}:{}{minute}", if minute < 10 { "0" } else { "" })
}

fn solve_sets(question: &str) -> String {
    let is_list = |word: &&str| word.len() >= 5 && word.as_bytes()[1] == b',';
    let lists: Vec<BTreeSet<&str>> = question
        .split([' ', '{', '}', '.', '?'])
        .filter(is_list)
        .map(|list| list.split(',').collect())
        .collect();
    assert_eq!(lists.len(), 2, "{question}");
    let found: Vec<&str> = if question.contains("just one") {
        lists[0].symmetric_difference(&lists[1]).copied().collect()
    } else if question.contains("both") || question.contains("share") {
        lists[0].intersection(&lists[1]).copied().collect()
    } else {
        lists[0].difference(&lists[1]).copied().collect()
    };
    found.join(",")
}

fn solve_story(question: &str, n: &[i64]) -> i64 {
    if let Some(answer) = solve_longest_story(question, n) {
        answer
    } else if question.contains("more. How many") && !question.contains("in all") || question.contains("adds")
    {
        n[0] + n[1]
    } else if ["are left", "sells", "fewer."].iter().any(|word| question.contains(word)) {
        n[0] - n[1]
    } else if question.contains("fewer than") {
        n[1] - n[0]
    } else if question.contains("bags") {
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

/// Level 3.
fn solve_longest_story(question: &str, n: &[i64]) -> Option<i64> {
    if question.contains("bags") && n.len() == 4 {
        Some(n[0] + n[1] * n[2] - n[3])
    } else if question.contains("times as many") {
        Some(n[0] + n[0] * n[1] + n[2])
    } else if question.contains("besides") {
        Some(n[1] + n[1] * n[0] + n[2])
    } else if question.contains("shares") || question.contains("heaps") {
        Some((n[0] + n[1]) / n[2] + n[3])
    } else {
        None
    }
}

fn solve_list(question: &str, mut n: Vec<i64>) -> String {
    let join = |n: &[i64]| n.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    if question.contains("[::-1]") {
        n.pop(); // The `1` of the slice is the last number of the question.
        n.reverse();
        return join(&n);
    }
    let total = n.iter().sum::<i64>();
    n.sort_unstable();
    match question {
        q if q.contains("sorted") => join(&n),
        q if q.contains("max") => n[n.len() - 1].to_string(),
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
