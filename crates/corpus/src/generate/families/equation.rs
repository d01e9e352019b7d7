//! `solve 3x+5=26` worked as `3x=26-5=21; x=21/3=7`.

use super::{Dice, Family, Problem};

pub(super) fn draw(dice: &mut Dice) -> Problem {
    let (a, x) = (dice.between(2, 9), dice.between(2, 25));
    let product = a * x;
    let adds = dice.between(0, 1) == 0;
    // What is taken away is at most the product, so that no side is negative.
    let b = if adds { dice.between(1, 40) } else { dice.between(1, product.min(40)) };
    let (sign, inverse, c) = if adds { ('+', '-', product + b) } else { ('-', '+', product - b) };
    let equation = format!("{a}x{sign}{b}={c}");
    let question = match dice.between(0, 2) {
        0 => format!("solve {equation}"),
        1 => format!("If {equation}, what is x?"),
        _ => format!("{equation}. Find x."),
    };
    Problem {
        family: Family::Equation,
        key: equation,
        question,
        working: vec![format!("{a}x={c}{inverse}{b}={product}"), format!("x={product}/{a}={x}")],
        answer: x.to_string(),
    }
}
