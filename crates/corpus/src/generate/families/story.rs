//! `Ann has 12 pens and buys 3 bags of 4. How many pens?` worked as `3*4=12; 12+12=24`.

use super::{Dice, Family, Problem};

const NAMES: [&str; 10] = ["Ann", "Bob", "Cat", "Dan", "Eve", "Fay", "Gus", "Hal", "Ivy", "Jon"];
const THINGS: [&str; 8] = ["apples", "pens", "coins", "books", "eggs", "cards", "shells", "stamps"];

/// The split looks at the numbers and the plot only: the same story about another person is the same problem.
pub(super) fn draw(dice: &mut Dice) -> Problem {
    let (name, things) = (dice.choose(&NAMES), dice.choose(&THINGS));
    match dice.between(0, 2) {
        0 => buys(dice, name, things),
        1 => loses_and_finds(dice, name, things),
        _ => has_more(dice, name, things),
    }
}

fn buys(dice: &mut Dice, name: &str, things: &str) -> Problem {
    let (a, b, c) = (dice.between(5, 60), dice.between(2, 9), dice.between(2, 12));
    let question = match dice.between(0, 1) {
        0 => format!("{name} has {a} {things} and buys {b} bags of {c}. How many {things}?"),
        _ => format!(
            "{name} owns {a} {things}. Then {b} bags with {c} each are bought. How many {things} now?"
        ),
    };
    Problem {
        family: Family::Story,
        key: format!("buys {a} {b} {c}"),
        question,
        working: vec![format!("{b}*{c}={}", b * c), format!("{a}+{}={}", b * c, a + b * c)],
        answer: (a + b * c).to_string(),
    }
}

fn loses_and_finds(dice: &mut Dice, name: &str, things: &str) -> Problem {
    let a = dice.between(5, 60);
    let (b, c) = (dice.between(1, a - 1), dice.between(1, 30));
    let question = match dice.between(0, 1) {
        0 => format!("{name} has {a} {things}, loses {b}, then finds {c}. How many {things}?"),
        _ => format!("Of {a} {things} {name} gives away {b} and gets {c} new. How many {things} now?"),
    };
    Problem {
        family: Family::Story,
        key: format!("loses and finds {a} {b} {c}"),
        question,
        working: vec![format!("{a}-{b}={}", a - b), format!("{}+{c}={}", a - b, a - b + c)],
        answer: (a - b + c).to_string(),
    }
}

fn has_more(dice: &mut Dice, name: &str, things: &str) -> Problem {
    let (a, b) = (dice.between(5, 60), dice.between(2, 60));
    let others: Vec<&str> = NAMES.into_iter().filter(|other| *other != name).collect();
    let other = dice.choose(&others);
    let question = match dice.between(0, 1) {
        0 => format!("{name} has {a} {things}. {other} has {b} more. How many {things} in all?"),
        _ => format!("{other} has {b} {things} more than {name}, who has {a}. How many {things} together?"),
    };
    Problem {
        family: Family::Story,
        key: format!("has more {a} {b}"),
        question,
        working: vec![format!("{a}+{b}={}", a + b), format!("{a}+{}={}", a + b, a + a + b)],
        answer: (a + a + b).to_string(),
    }
}
