//! `137 mod 9=?` worked as `9*15=135; 137-135=2`.

use super::{Dice, Family, Problem};

pub(super) fn draw(dice: &mut Dice) -> Problem {
    let (a, m) = (dice.between(10, 999), dice.between(3, 12));
    let question = match dice.between(0, 2) {
        0 => format!("{a} mod {m}=?"),
        1 => format!("What is the remainder of {a} divided by {m}?"),
        _ => format!("Divide {a} by {m}. What is left?"),
    };
    let multiple = a / m * m;
    Problem {
        family: Family::Modulo,
        key: format!("{a} mod {m}"),
        question,
        working: vec![format!("{m}*{}={multiple}", a / m), format!("{a}-{multiple}={}", a % m)],
        answer: (a % m).to_string(),
    }
}
