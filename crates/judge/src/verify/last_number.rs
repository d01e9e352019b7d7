//! The last number of a completion, as for GSM8K: `so she has $1,234.50 left.` for `1234.5`.
//!
//! Numbers are compared exactly, as fractions: `0.50`, `.5` and `1/2` are one number, `3.33` and `10/3` are two. The
//! currency before a number and the unit after it are not compared; a percent sign is a unit. After a marker (`####`
//! unless set otherwise) only the rest of that line counts; a completion without it is looked at as a whole. The ground
//! truth is read the same way, so a whole GSM8K solution will do.
//!
//! Refused, because they may mean another number: `10-18`, `12:30`, `2*3`, `x = 3y`, `5 thousand`, `1 234`, `3 1/2`,
//! `17 or 18`, `not 18`, `>18`.

use serde::{Deserialize, Serialize};

use super::Verifier;
use crate::find::{Marker, Number};
use crate::{Error, Verdict};

/// Settings of the comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What stands before the answer, where the completion has it.
    pub after: String,
    /// Whether a completion without the marker is wrong, as in GSM8K's strict score.
    pub strict: bool,
}

impl Default for Settings {
    /// GSM8K's marker, not insisted on.
    fn default() -> Self {
        Settings { after: "####".to_owned(), strict: false }
    }
}

/// Accepts the right last number.
#[derive(Clone, Debug)]
pub struct LastNumber {
    marker: Marker,
    strict: bool,
}

impl LastNumber {
    /// The verifier.
    ///
    /// # Errors
    /// An empty marker.
    pub fn new(settings: &Settings) -> Result<LastNumber, Error> {
        Ok(LastNumber { marker: Marker::new(Some(&settings.after))?, strict: settings.strict })
    }

    /// The number of a ground truth.
    fn expected(&self, answer: &str) -> Option<Number> {
        Number::last(self.marker.answer(answer).unwrap_or(answer))
    }
}

impl Verifier for LastNumber {
    fn judge(&self, completion: &str, answer: &str) -> Verdict {
        let part = match self.marker.answer(completion) {
            Some(part) => part,
            None if self.strict => return Verdict::no_answer(self.marker.missing()),
            None => completion,
        };
        match (Number::last(part), self.expected(answer)) {
            (None, _) => Verdict::no_answer("there is no last number that can only be read in one way"),
            (Some(_), None) => Verdict::undecided("the ground truth has no number that can be read"),
            (Some(found), Some(expected)) => Verdict::of(found.equals(expected), found, expected),
        }
    }

    fn refusal(&self, answer: &str) -> Option<String> {
        let is_found = self.expected(answer).is_some_and(|expected| expected.equals(expected));
        (!is_found).then(|| "it has no number that can be read".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_decides_where_it_is_there() {
        let loose = LastNumber::new(&Settings::default()).expect("good settings");
        let strict =
            LastNumber::new(&Settings { strict: true, ..Settings::default() }).expect("good settings");
        let truth = "She has 3*6=18 eggs.\n#### 18";
        assert_eq!(loose.reward("3*6=18\n#### 18\nQ: 7+1?", truth), 1.0);
        assert_eq!(loose.reward("3*6=18, so 18", truth), 1.0);
        assert_eq!(strict.reward("3*6=18, so 18", truth), 0.0);
        assert_eq!(strict.reward("#### 18", truth), 1.0);
        assert_eq!(loose.reward("18 #### none", truth), 0.0);
        assert_eq!(loose.reward("#### 18", "no number"), 0.0);
    }
}
