//! `solve 3x+5=26` worked as `3x=26-5=21; x=21/3=7`; at level 3 `5x+3=2x+18` as `5-2=3; 3x=18-3=15; x=15/3=5`.

use super::{Dice, Draft, Level};

pub(super) fn draw(dice: &mut Dice, level: Level) -> Draft {
    if level == Level::Three { unknown_on_both_sides(dice) } else { unknown_on_one_side(dice, level) }
}

fn unknown_on_one_side(dice: &mut Dice, level: Level) -> Draft {
    let (largest_a, largest_x, largest_b) = level.pick((6, 12, 20), (9, 25, 40), (9, 25, 40));
    let (a, x) = (dice.between(2, largest_a), dice.between(2, largest_x));
    let product = a * x;
    let adds = dice.between(0, 1) == 0;
    // What is taken away is at most the product, so that no side is negative.
    let b = if adds { dice.between(1, largest_b) } else { dice.between(1, product.min(largest_b)) };
    let (sign, inverse, c) = if adds { ('+', '-', product + b) } else { ('-', '+', product - b) };
    let equation = format!("{a}x{sign}{b}={c}");
    let working = vec![format!("{a}x={c}{inverse}{b}={product}"), format!("x={product}/{a}={x}")];
    Draft::new(equation.clone(), phrase(dice, &equation), working, x)
}

fn unknown_on_both_sides(dice: &mut Dice) -> Draft {
    let (a, x, b) = (dice.between(4, 9), dice.between(2, 25), dice.between(1, 40));
    let c = dice.between(2, a - 2);
    let (rest, d) = (a - c, (a - c) * x + b);
    let equation = format!("{a}x+{b}={c}x+{d}");
    let working = vec![
        format!("{a}-{c}={rest}"),
        format!("{rest}x={d}-{b}={}", rest * x),
        format!("x={}/{rest}={x}", rest * x),
    ];
    Draft::new(equation.clone(), phrase(dice, &equation), working, x)
}

fn phrase(dice: &mut Dice, equation: &str) -> String {
    match dice.between(0, 2) {
        0 => format!("solve {equation}"),
        1 => format!("If {equation}, what is x?"),
        _ => format!("{equation}. Find x."),
    }
}
