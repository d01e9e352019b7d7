//! `Ann>Bob, Cat<Bob. Who is tallest?` worked as `Ann>Bob; Bob>Cat; first Ann`.

use super::{Dice, Draft, Level, NAMES};

const RANKS: [&str; 5] = ["first", "second", "third", "fourth", "last"];

/// How an order is spoken of: more, less, the end of the most, the end of the least.
const SCALES: [[&str; 4]; 3] = [
    ["taller", "shorter", "tallest", "shortest"],
    ["older", "younger", "oldest", "youngest"],
    ["faster", "slower", "fastest", "slowest"],
];

/// The split looks at the order of the names and the rank only: that they are taller or older is phrasing.
pub(super) fn draw(dice: &mut Dice, level: Level) -> Draft {
    let size = level.pick(3, 4, 5);
    let order: Vec<&str> = distinct(dice, size);
    let place = dice.between(0, size as i64 - 1) as usize;
    let is_last = place == size - 1;
    let rank = if is_last { RANKS[4] } else { RANKS[place] };

    let mut pairs: Vec<[&str; 2]> = order.windows(2).map(|pair| [pair[0], pair[1]]).collect();
    let mut working: Vec<String> = pairs.iter().map(|[more, less]| format!("{more}>{less}")).collect();
    working.push(format!("{rank} {}", order[place]));
    shuffle(dice, &mut pairs);
    let question = phrase(dice, &pairs, place, is_last);
    Draft::new(format!("{} {rank}", order.join(">")), question, working, order[place])
}

fn phrase(dice: &mut Dice, pairs: &[[&str; 2]], place: usize, is_last: bool) -> String {
    let scale = SCALES[dice.between(0, SCALES.len() as i64 - 1) as usize];
    let [more, less, most, least] = scale;
    let asked = match (is_last, place) {
        (true, _) => least.to_owned(),
        (_, 0) => most.to_owned(),
        (_, place) => format!("{} {most}", RANKS[place]),
    };
    let is_short = dice.between(0, 1) == 0;
    let clues: Vec<String> = pairs
        .iter()
        .map(|[high, low]| match (is_short, dice.between(0, 1) == 0) {
            (true, true) => format!("{high}>{low}"),
            (true, false) => format!("{low}<{high}"),
            (false, true) => format!("{high} is {more} than {low}"),
            (false, false) => format!("{low} is {less} than {high}"),
        })
        .collect();
    format!("{}. Who is {asked}?", clues.join(", "))
}

/// `count` different names in a random order.
fn distinct(dice: &mut Dice, count: usize) -> Vec<&'static str> {
    let mut names = NAMES.to_vec();
    shuffle(dice, &mut names);
    names.truncate(count);
    names
}

fn shuffle<T>(dice: &mut Dice, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, dice.between(0, last as i64) as usize);
    }
}
