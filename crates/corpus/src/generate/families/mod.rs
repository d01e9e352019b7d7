//! The problem families, one a file: what is drawn, how it is put, how it is worked.
//!
//! A family joins by a file with `draw`, a variant of [`Family`] and an independent solver in `tests.rs`. Its ranges
//! must hold well over `8 * TEST_PROBLEMS` different problems, for an eighth of them is test.

mod addition;
mod equation;
mod list;
mod modulo;
mod multiplication;
mod story;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::dice::Dice;
use super::error::Error;
use super::problems::Problem;

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
}

impl Family {
    /// Every family, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::Addition,
        Self::Multiplication,
        Self::Modulo,
        Self::Equation,
        Self::Story,
        Self::List,
        Self::Text,
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
        }
    }

    /// A problem of this family, of either split.
    pub(super) fn draw(self, dice: &mut Dice) -> Problem {
        match self {
            Self::Addition => addition::draw(dice),
            Self::Multiplication => multiplication::draw(dice),
            Self::Modulo => modulo::draw(dice),
            Self::Equation => equation::draw(dice),
            Self::Story => story::draw(dice),
            Self::List => list::draw(dice),
            Self::Text => text::draw(dice),
        }
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
