//! `Ann has 12 pens and buys 3 bags of 4. How many pens?` worked as `3*4=12; 12+12=24`.

use super::{Dice, Draft, Level, NAMES};

const THINGS: [&str; 8] = ["apples", "pens", "coins", "books", "eggs", "cards", "shells", "stamps"];

/// The split looks at the numbers and the plot only: the same story about another person is the same problem.
pub(super) fn draw(dice: &mut Dice, level: Level) -> Draft {
    let (name, things) = (dice.choose(&NAMES), dice.choose(&THINGS));
    let plot: fn(&mut Dice, &str, &str) -> Draft = match (level, dice.between(0, 2)) {
        (Level::One, 0) => has_fewer,
        (Level::One, 1) => gets,
        (Level::One, _) => loses,
        (Level::Two, 0) => buys,
        (Level::Two, 1) => loses_and_finds,
        (Level::Two, _) => has_more,
        (Level::Three, 0) => buys_and_gives,
        (Level::Three, 1) => has_times_as_many,
        (Level::Three, _) => shares,
    };
    plot(dice, name, things)
}

fn gets(dice: &mut Dice, name: &str, things: &str) -> Draft {
    let (a, b) = (dice.between(5, 60), dice.between(2, 60));
    let question = match dice.between(0, 1) {
        0 => format!("{name} has {a} {things} and gets {b} more. How many {things}?"),
        _ => format!("To {a} {things} {name} adds {b}. How many {things} now?"),
    };
    Draft::new(format!("gets {a} {b}"), question, vec![format!("{a}+{b}={}", a + b)], a + b)
}

fn loses(dice: &mut Dice, name: &str, things: &str) -> Draft {
    let a = dice.between(5, 60);
    let b = dice.between(1, a - 1);
    let question = match dice.between(0, 1) {
        0 => format!("{name} has {a} {things} and loses {b}. How many {things} are left?"),
        _ => format!("Of {a} {things} {name} sells {b}. How many {things} now?"),
    };
    Draft::new(format!("loses {a} {b}"), question, vec![format!("{a}-{b}={}", a - b)], a - b)
}

fn has_fewer(dice: &mut Dice, name: &str, things: &str) -> Draft {
    let a = dice.between(5, 60);
    let b = dice.between(1, a - 1);
    let other = another(dice, name);
    let question = match dice.between(0, 1) {
        0 => format!("{name} has {a} {things}. {other} has {b} fewer. How many {things} has {other}?"),
        _ => format!("{other} has {b} {things} fewer than {name}, who has {a}. How many has {other}?"),
    };
    Draft::new(format!("has fewer {a} {b}"), question, vec![format!("{a}-{b}={}", a - b)], a - b)
}

fn buys(dice: &mut Dice, name: &str, things: &str) -> Draft {
    let (a, b, c) = (dice.between(5, 60), dice.between(2, 9), dice.between(2, 12));
    let question = match dice.between(0, 1) {
        0 => format!("{name} has {a} {things} and buys {b} bags of {c}. How many {things}?"),
        _ => format!(
            "{name} owns {a} {things}. Then {b} bags with {c} each are bought. How many {things} now?"
        ),
    };
    let working = vec![format!("{b}*{c}={}", b * c), format!("{a}+{}={}", b * c, a + b * c)];
    Draft::new(format!("buys {a} {b} {c}"), question, working, a + b * c)
}

fn loses_and_finds(dice: &mut Dice, name: &str, things: &str) -> Draft {
    let a = dice.between(5, 60);
    let (b, c) = (dice.between(1, a - 1), dice.between(1, 30));
    let question = match dice.between(0, 1) {
        0 => format!("{name} has {a} {things}, loses {b}, then finds {c}. How many {things}?"),
        _ => format!("Of {a} {things} {name} gives away {b} and gets {c} new. How many {things} now?"),
    };
    let working = vec![format!("{a}-{b}={}", a - b), format!("{}+{c}={}", a - b, a - b + c)];
    Draft::new(format!("loses and finds {a} {b} {c}"), question, working, a - b + c)
}

fn has_more(dice: &mut Dice, name: &str, things: &str) -> Draft {
    let (a, b) = (dice.between(5, 60), dice.between(2, 60));
    let other = another(dice, name);
    let question = match dice.between(0, 1) {
        0 => format!("{name} has {a} {things}. {other} has {b} more. How many {things} in all?"),
        _ => format!("{other} has {b} {things} more than {name}, who has {a}. How many {things} together?"),
    };
    let working = vec![format!("{a}+{b}={}", a + b), format!("{a}+{}={}", a + b, a + a + b)];
    Draft::new(format!("has more {a} {b}"), question, working, a + a + b)
}

fn buys_and_gives(dice: &mut Dice, name: &str, things: &str) -> Draft {
    let (a, b, c) = (dice.between(5, 60), dice.between(2, 9), dice.between(2, 12));
    let (bought, d) = (b * c, dice.between(1, a));
    let question = match dice.between(0, 1) {
        0 => format!("{name} has {a} {things}, buys {b} bags of {c} and gives {d} away. How many {things}?"),
        _ => {
            format!("To {a} {things} {name} adds {b} bags with {c} each, then sells {d}. How many {things}?")
        }
    };
    let working = vec![
        format!("{b}*{c}={bought}"),
        format!("{a}+{bought}={}", a + bought),
        format!("{}-{d}={}", a + bought, a + bought - d),
    ];
    Draft::new(format!("buys and gives {a} {b} {c} {d}"), question, working, a + bought - d)
}

fn has_times_as_many(dice: &mut Dice, name: &str, things: &str) -> Draft {
    let (a, b, c) = (dice.between(5, 40), dice.between(2, 9), dice.between(2, 30));
    let other = another(dice, name);
    let question = match dice.between(0, 1) {
        0 => {
            format!("{name} has {a} {things}. {other} has {b} times as many and finds {c}. How many in all?")
        }
        _ => format!("{other} has {b} times the {a} {things} of {name}, and {c} besides. How many together?"),
    };
    let working = vec![
        format!("{a}*{b}={}", a * b),
        format!("{}+{c}={}", a * b, a * b + c),
        format!("{a}+{}={}", a * b + c, a + a * b + c),
    ];
    Draft::new(format!("has times as many {a} {b} {c}"), question, working, a + a * b + c)
}

fn shares(dice: &mut Dice, name: &str, things: &str) -> Draft {
    let (b, each) = (dice.between(2, 9), dice.between(3, 20));
    let (total, c) = (b * each, dice.between(1, 40));
    let d = dice.between(1, total - 1);
    let a = total - d;
    let question = match dice.between(0, 1) {
        0 => format!(
            "{name} has {a} {things}, finds {d}, shares all among {b} and adds {c} to one share. How many {things} in it?"
        ),
        _ => format!(
            "{a} and {d} {things} are put in {b} equal heaps. {name} lays {c} on one. How many {things} in it?"
        ),
    };
    let working =
        vec![format!("{a}+{d}={total}"), format!("{total}/{b}={each}"), format!("{each}+{c}={}", each + c)];
    Draft::new(format!("shares {a} {d} {b} {c}"), question, working, each + c)
}

fn another(dice: &mut Dice, name: &str) -> &'static str {
    let others: Vec<&'static str> = NAMES.into_iter().filter(|other| *other != name).collect();
    dice.choose(&others)
}
