//! The problem families, one a file: what is drawn, how it is put, how it is worked.
//!
//! A family joins by a file with `draw`, a variant of [`Family`] and an independent solver in `tests.rs`. Its ranges
//! must hold well over eight times [`Level::test_problems`] different problems, for an eighth of them is test.

mod addition;
mod clock;
mod complete;
mod equation;
mod list;
mod modulo;
mod multiplication;
mod ordering;
mod sets;
mod story;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::dice::Dice;
use crate::error::Error;
use crate::level::Level;
use crate::problems::Problem;
use crate::program::Check;

/// The people of stories and orders.
const NAMES: [&str; 10] = ["Ann", "Bob", "Cat", "Dan", "Eve", "Fay", "Gus", "Hal", "Ivy", "Jon"];

/// A kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// The sum of two numbers, digit by digit with carries.
    Addition,
    /// A product, worked by the places of one factor.
    Multiplication,
    /// A remainder.
    Modulo,
    /// A linear equation in one unknown.
    Equation,
    /// A story about things had, bought, lost and found.
    Story,
    /// What a line of Python prints about a list of numbers.
    List,
    /// What a few lines of Python make of a text.
    Text,
    /// The constant missing from a small program, verified by running it.
    Complete,
    /// Who is at a place of an order, from comparisons of neighbours.
    Ordering,
    /// The time of day some hours and minutes away.
    Clock,
    /// What two sets share, or what one has alone.
    Sets,
}

/// What a family is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Numbers.
    Mathematics,
    /// Programs.
    Code,
    /// Everything else that can be concluded.
    Reasoning,
}

impl Family {
    /// Every family, in the order of the documentation.
    pub const ALL: [Self; 11] = [
        Self::Addition,
        Self::Multiplication,
        Self::Modulo,
        Self::Equation,
        Self::Story,
        Self::List,
        Self::Text,
        Self::Complete,
        Self::Ordering,
        Self::Clock,
        Self::Sets,
    ];

    /// The ten families of `micro10`, the benchmark that comes with the program: four of mathematics, three of code,
    /// three of reasoning. Plain addition is left to the first steps of small models.
    pub const MICRO10: [Self; 10] = [
        Self::Multiplication,
        Self::Modulo,
        Self::Equation,
        Self::Story,
        Self::List,
        Self::Text,
        Self::Complete,
        Self::Ordering,
        Self::Clock,
        Self::Sets,
    ];

    /// The name in settings and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Addition => "addition",
            Self::Multiplication => "multiplication",
            Self::Modulo => "modulo",
            Self::Equation => "equation",
            Self::Story => "story",
            Self::List => "list",
            Self::Text => "text",
            Self::Complete => "complete",
            Self::Ordering => "ordering",
            Self::Clock => "clock",
            Self::Sets => "sets",
        }
    }

    /// What the family is about.
    pub fn subject(self) -> Subject {
        match self {
            Self::Addition | Self::Multiplication | Self::Modulo | Self::Equation | Self::Story => {
                Subject::Mathematics
            }
            Self::List | Self::Text | Self::Complete => Subject::Code,
            Self::Ordering | Self::Clock | Self::Sets => Subject::Reasoning,
        }
    }

    /// A problem of this family, of either split.
    pub(crate) fn draw(self, dice: &mut Dice, level: Level) -> Problem {
        let draw = match self {
            Self::Addition => addition::draw,
            Self::Multiplication => multiplication::draw,
            Self::Modulo => modulo::draw,
            Self::Equation => equation::draw,
            Self::Story => story::draw,
            Self::List => list::draw,
            Self::Text => text::draw,
            Self::Complete => complete::draw,
            Self::Ordering => ordering::draw,
            Self::Clock => clock::draw,
            Self::Sets => sets::draw,
        };
        let Draft { key, question, working, answer, checks } = draw(dice, level);
        Problem { family: self, level, key, question, working, answer, checks }
    }
}

/// A problem as its family's file makes it; the fields are those of [`Problem`].
struct Draft {
    key: String,
    question: String,
    working: Vec<String>,
    answer: String,
    checks: Vec<Check>,
}

impl Draft {
    fn new(key: String, question: String, working: Vec<String>, answer: impl ToString) -> Draft {
        Draft { key, question, working, answer: answer.to_string(), checks: Vec::new() }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Family {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|family| family.name() == name);
        known.ok_or_else(|| Error::UnknownFamily { name: name.to_owned() })
    }
}
