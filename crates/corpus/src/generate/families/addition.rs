//! `37+45=?` worked as `7+5+0=12; 3+4+1=8`, answer `82`: each step adds two digits and the carry.

use super::{Dice, Family, Problem};

pub(super) fn draw(dice: &mut Dice) -> Problem {
    let (a, b) = (dice.between(10, 199), dice.between(10, 199));
    let question = match dice.between(0, 2) {
        0 => format!("{a}+{b}=?"),
        1 => format!("What is {a} plus {b}?"),
        _ => format!("Add {a} and {b}."),
    };
    Problem {
        family: Family::Addition,
        // The sum does not depend on the order, so neither does the split.
        key: format!("{}+{}", a.min(b), a.max(b)),
        question,
        working: digits(a, b),
        answer: (a + b).to_string(),
    }
}

fn digits(mut a: i64, mut b: i64) -> Vec<String> {
    let (mut steps, mut carry) = (Vec::new(), 0);
    while a > 0 || b > 0 {
        let sum = a % 10 + b % 10 + carry;
        steps.push(format!("{}+{}+{carry}={sum}", a % 10, b % 10));
        (a, b, carry) = (a / 10, b / 10, sum / 10);
    }
    steps
}
