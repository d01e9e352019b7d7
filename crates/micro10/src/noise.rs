//! Planted noise: what a token weighting should learn to weigh down.

use serde::{Deserialize, Serialize};

use crate::dice::Dice;
use crate::error::Error;
use crate::problems::Problem;

/// The share of a corrupted solution's letters and digits that is replaced, beside the one that always is.
const CORRUPTED_CHARACTERS: f64 = 0.2;

const OPENINGS: [&str; 5] =
    ["Let me think. ", "First, ", "We work step by step. ", "Ok. ", "To solve this, note: "];
const CONNECTIVES: [&str; 3] = ["; so ", "; then ", "; next "];

/// How much noise is planted, as shares of documents from 0 to 1. The two fall on documents independently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Noise {
    /// Documents in whose working and answer characters are replaced by others of their kind.
    pub corrupted: f64,
    /// Documents with an opening phrase and connectives that say nothing.
    pub filler: f64,
}

impl Noise {
    /// No noise.
    pub const NONE: Self = Self { corrupted: 0.0, filler: 0.0 };
    /// What makes the worse one of a pair.
    pub(crate) const REJECTED: Self = Self { corrupted: 1.0, filler: 0.0 };

    pub(crate) fn check(&self) -> Result<(), Error> {
        let Self { corrupted, filler } = *self;
        for (name, value) in [("corrupted", corrupted), ("filler", filler)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Rate { name, value });
            }
        }
        Ok(())
    }

    /// The document of `problem` with the noise that falls on document `index`, and whether none did.
    pub(crate) fn document(&self, problem: &Problem, seed: u64, index: u64) -> (String, bool) {
        let mut working = problem.working.clone();
        let mut answer = problem.answer.clone();
        let mut dice = Dice::new(seed, "corruption", index);
        let corrupted = dice.chance(self.corrupted);
        if corrupted {
            corrupt(working.iter_mut().chain([&mut answer]).collect(), &mut dice);
        }
        let mut dice = Dice::new(seed, "filler", index);
        let filler = dice.chance(self.filler);
        let (opening, connective) =
            if filler { (dice.choose(&OPENINGS), dice.choose(&CONNECTIVES)) } else { ("", "; ") };
        let text = format!("{} {opening}{} => {answer}\n", problem.prompt(), working.join(connective));
        (text, !(corrupted || filler))
    }
}

/// Replaces letters by letters and digits by digits, one at least.
fn corrupt(parts: Vec<&mut String>, dice: &mut Dice) {
    let is_target = |c: &char| c.is_ascii_alphanumeric();
    let num_targets = parts.iter().flat_map(|part| part.chars()).filter(is_target).count();
    let certain = dice.between(0, num_targets as i64 - 1) as usize;
    let mut target = 0;
    for part in parts {
        let replaced = part.chars().map(|c| {
            if !is_target(&c) {
                return c;
            }
            target += 1;
            if target - 1 == certain || dice.chance(CORRUPTED_CHARACTERS) { another(c, dice) } else { c }
        });
        *part = replaced.collect();
    }
}

/// A different character of the same kind.
fn another(c: char, dice: &mut Dice) -> char {
    let (first, size) = match c {
        '0'..='9' => (b'0', 10),
        'a'..='z' => (b'a', 26),
        _ => (b'A', 26),
    };
    let offset = i64::from(c as u8 - first);
    char::from(first + ((offset + dice.between(1, size - 1)) % size) as u8)
}
