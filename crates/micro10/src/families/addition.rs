//! `37+45=?` worked as `7+5+0=12; 3+4+1=8`, answer `82`: each step adds two digits and the carry.

use super::{Dice, Draft, Level};

pub(super) fn draw(dice: &mut Dice, level: Level) -> Draft {
    let (low, high) = level.pick((2, 60), (10, 199), (100, 1999));
    let (a, b) = (dice.between(low, high), dice.between(low, high));
    let question = match dice.between(0, 2) {
        0 => format!("{a}+{b}=?"),
        1 => format!("What is {a} plus {b}?"),
        _ => format!("Add {a} and {b}."),
    };
    // The sum does not depend on the order, so neither does the split.
    let key = format!("{}+{}", a.min(b), a.max(b));
    Draft::new(key, question, digits(a, b), a + b)
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
