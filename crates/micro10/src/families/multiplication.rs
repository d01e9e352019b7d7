//! `7*342=?` worked as `7*300=2100; 7*40=280; 7*2=14; 2100+280=2380; 2380+14=2394`.

use super::{Dice, Draft, Level};

pub(super) fn draw(dice: &mut Dice, level: Level) -> Draft {
    let (smallest, largest) = level.pick((2, 12), (2, 12), (13, 29));
    let (low, high) = level.pick((11, 120), (11, 999), (101, 999));
    let (a, b) = (dice.between(smallest, largest), dice.between(low, high));
    let question = match dice.between(0, 2) {
        0 => format!("{a}*{b}=?"),
        1 => format!("What is {a} times {b}?"),
        _ => format!("Multiply {b} by {a}."),
    };
    Draft::new(format!("{}*{}", a.min(b), a.max(b)), question, by_places(a, b), a * b)
}

fn by_places(a: i64, b: i64) -> Vec<String> {
    let parts: Vec<i64> =
        [100, 10, 1].into_iter().map(|place| b / place % 10 * place).filter(|&part| part > 0).collect();
    let mut steps: Vec<String> = parts.iter().map(|part| format!("{a}*{part}={}", a * part)).collect();
    let mut sum = a * parts[0];
    for part in &parts[1..] {
        steps.push(format!("{sum}+{}={}", a * part, sum + a * part));
        sum += a * part;
    }
    steps
}
