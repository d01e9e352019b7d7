//! `y=x*4+_;print(y-7) prints 9 for x=2 and 21 for x=5. Fill _.` worked as `9+7=16; 2*4=8; 16-8=8`.
//!
//! The programs are those of [`crate::program`]. One constant is missing; two runs are shown, so that the output of one
//! is no answer. Whatever makes the program print the right things is right: the answer is verified by running it.

use crate::program::{Check, Expression, Program};

use super::{Dice, Draft, Level};

/// A program with its constants in place, and which of them is to be found.
struct Puzzle {
    /// The program, `_` where the constant is missing.
    program: String,
    /// The constant.
    answer: i64,
    /// From the output and the first input back to the constant.
    working: Vec<String>,
}

pub(super) fn draw(dice: &mut Dice, level: Level) -> Draft {
    let inputs = [dice.between(2, 5), dice.between(6, 9)];
    let puzzle = match level {
        Level::One => line(dice, inputs[0]),
        Level::Two => line_and_print(dice, inputs[0]),
        Level::Three => repeated(dice, inputs[0]),
    };
    let checks = inputs.map(|x| check(&puzzle, x));
    let question = phrase(dice, &puzzle.program, inputs, [&checks[0].output, &checks[1].output]);
    let key = format!("{} {}", puzzle.program, puzzle.answer);
    let draft = Draft::new(key, question, puzzle.working, puzzle.answer);
    Draft { checks: checks.into(), ..draft }
}

/// The program for one input, and what it prints with the right constant.
fn check(puzzle: &Puzzle, x: i64) -> Check {
    let program = format!("x={x};{}", puzzle.program);
    let filling = Expression::parse(&puzzle.answer.to_string()).expect("a number is an expression");
    let output = Program::parse(&program).and_then(|program| program.run(Some(&filling)));
    Check { program, output: output.expect("small numbers, no division") }
}

fn phrase(dice: &mut Dice, program: &str, [x, other_x]: [i64; 2], [out, other_out]: [&str; 2]) -> String {
    match dice.between(0, 2) {
        0 => format!("{program} prints {out} for x={x} and {other_out} for x={other_x}. Fill _."),
        1 => format!("Fill _ so that {program} shows {out} if x={x} and {other_out} if x={other_x}."),
        _ => format!("x={x} gives {out}, x={other_x} gives {other_out}: {program}. What is _?"),
    }
}

/// `y=x*a+b;print(y)`
fn line(dice: &mut Dice, x: i64) -> Puzzle {
    let (a, b) = (dice.between(2, 9), dice.between(1, 99));
    let (product, out) = (x * a, x * a + b);
    if dice.between(0, 1) == 0 {
        let working = vec![format!("{out}-{b}={product}"), format!("{product}/{x}={a}")];
        Puzzle { program: format!("y=x*_+{b};print(y)"), answer: a, working }
    } else {
        let working = vec![format!("{x}*{a}={product}"), format!("{out}-{product}={b}")];
        Puzzle { program: format!("y=x*{a}+_;print(y)"), answer: b, working }
    }
}

/// `y=x*a+b;print(y-c)` or `print(y+c)`
fn line_and_print(dice: &mut Dice, x: i64) -> Puzzle {
    let (a, b) = (dice.between(2, 9), dice.between(1, 20));
    let (product, y) = (x * a, x * a + b);
    let adds = dice.between(0, 1) == 0;
    // What is taken away is at most `y`, so that no number is negative.
    let c = dice.between(1, if adds { 20 } else { y.min(20) });
    let (sign, inverse, out) = if adds { ('+', '-', y + c) } else { ('-', '+', y - c) };
    let back = format!("{out}{inverse}{c}={y}");
    match dice.between(0, 2) {
        0 => Puzzle {
            program: format!("y=x*_+{b};print(y{sign}{c})"),
            answer: a,
            working: vec![back, format!("{y}-{b}={product}"), format!("{product}/{x}={a}")],
        },
        1 => Puzzle {
            program: format!("y=x*{a}+_;print(y{sign}{c})"),
            answer: b,
            working: vec![back, format!("{x}*{a}={product}"), format!("{y}-{product}={b}")],
        },
        _ => {
            let last = if adds { format!("{out}-{y}={c}") } else { format!("{y}-{out}={c}") };
            Puzzle {
                program: format!("y=x*{a}+{b};print(y{sign}_)"),
                answer: c,
                working: vec![format!("{x}*{a}={product}"), format!("{product}+{b}={y}"), last],
            }
        }
    }
}

/// `y=x*a+c;repeat n {y=y+b};print(y)`
fn repeated(dice: &mut Dice, x: i64) -> Puzzle {
    let (a, c) = (dice.between(2, 9), dice.between(1, 20));
    let (n, b) = (dice.between(2, 5), dice.between(2, 12));
    let (product, start, added) = (x * a, x * a + c, n * b);
    let out = start + added;
    let program = |a: &str, b: &str, c: &str| format!("y=x*{a}+{c};repeat {n} {{y=y+{b}}};print(y)");
    let [shown_a, shown_b, shown_c] = [a, b, c].map(|constant| constant.to_string());
    let multiply = format!("{x}*{a}={product}");
    let loops = format!("{n}*{b}={added}");
    let without_loops = format!("{out}-{added}={start}");
    match dice.between(0, 2) {
        0 => Puzzle {
            program: program("_", &shown_b, &shown_c),
            answer: a,
            working: vec![
                loops,
                without_loops,
                format!("{start}-{c}={product}"),
                format!("{product}/{x}={a}"),
            ],
        },
        1 => Puzzle {
            program: program(&shown_a, "_", &shown_c),
            answer: b,
            working: vec![
                multiply,
                format!("{product}+{c}={start}"),
                format!("{out}-{start}={added}"),
                format!("{added}/{n}={b}"),
            ],
        },
        _ => Puzzle {
            program: program(&shown_a, &shown_b, "_"),
            answer: c,
            working: vec![loops, without_loops, multiply, format!("{start}-{product}={c}")],
        },
    }
}
