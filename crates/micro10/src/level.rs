//! How hard a problem is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How hard a problem is: 1, 2 (the default) or 3, by the size of its numbers and the steps of its working.
///
/// Levels overlap where their ranges do; a problem that two of them can draw is in the same split at both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Level {
    /// The first step towards level 2.
    One,
    /// What a model of a million parameters learns in minutes.
    #[default]
    Two,
    /// Larger numbers, more steps.
    Three,
}

impl Level {
    /// Every level, easiest first.
    pub const ALL: [Self; 3] = [Self::One, Self::Two, Self::Three];

    /// Distinct test problems that every family is certain to have at this level: the small numbers of level 1 make
    /// few problems.
    pub fn test_problems(self) -> usize {
        self.pick(100, 1000, 1000)
    }

    /// The value for this level.
    pub(crate) fn pick<T>(self, one: T, two: T, three: T) -> T {
        match self {
            Self::One => one,
            Self::Two => two,
            Self::Three => three,
        }
    }
}

impl From<Level> for u8 {
    fn from(level: Level) -> u8 {
        level.pick(1, 2, 3)
    }
}

impl TryFrom<u8> for Level {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|&level| u8::from(level) == number);
        known.ok_or_else(|| format!("level {number} is none of 1, 2 and 3"))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        u8::from(*self).fmt(f)
    }
}
