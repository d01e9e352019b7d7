//! What a verifier says of a completion: the outcome, and why.

/// A judgement of one completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it comes to.
    pub outcome: Outcome,
    /// What was found and what was expected, for people.
    pub why: String,
}

/// What a judgement comes to. Only what is right earns anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The answer is the right one.
    Right,
    /// It is another.
    Wrong,
    /// No answer was found, or none that can be read.
    NoAnswer,
    /// Whether it is the right one cannot be told.
    Undecided,
}

impl Outcome {
    /// From 0 to 1.
    pub fn reward(self) -> f64 {
        if self == Outcome::Right { 1.0 } else { 0.0 }
    }

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Right => "right",
            Outcome::Wrong => "wrong",
            Outcome::NoAnswer => "no_answer",
            Outcome::Undecided => "undecided",
        }
    }
}

impl Verdict {
    pub(crate) fn new(outcome: Outcome, why: impl Into<String>) -> Verdict {
        Verdict { outcome, why: why.into() }
    }

    /// Right or wrong, by what was found and what was expected.
    pub(crate) fn of(
        is_right: bool,
        found: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> Verdict {
        match is_right {
            true => Verdict::new(Outcome::Right, format!("`{found}` is `{expected}`")),
            false => Verdict::new(Outcome::Wrong, format!("`{found}` is not `{expected}`")),
        }
    }

    pub(crate) fn no_answer(why: impl Into<String>) -> Verdict {
        Verdict::new(Outcome::NoAnswer, why)
    }

    pub(crate) fn undecided(why: impl Into<String>) -> Verdict {
        Verdict::new(Outcome::Undecided, why)
    }
}
