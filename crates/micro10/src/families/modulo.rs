//! `137 mod 9=?` worked as `9*15=135; 137-135=2`.

use super::{Dice, Draft, Level};

pub(super) fn draw(dice: &mut Dice, level: Level) -> Draft {
    let (low, high) = level.pick((10, 299), (10, 999), (1000, 9999));
    let (smallest, largest) = level.pick((3, 9), (3, 12), (7, 29));
    let (a, m) = (dice.between(low, high), dice.between(smallest, largest));
    let question = match dice.between(0, 2) {
        0 => format!("{a} mod {m}=?"),
        1 => format!("What is the remainder of {a} divided by {m}?"),
        _ => format!("Divide {a} by {m}. What is left?"),
    };
    let multiple = a / m * m;
    let working = vec![format!("{m}*{}={multiple}", a / m), format!("{a}-{multiple}={}", a % m)];
    Draft::new(format!("{a} mod {m}"), question, working, a % m)
}
