//! The very text, but for the spaces around it.

use serde::{Deserialize, Serialize};

use super::{Marker, Verifier, reward};
use crate::Error;

/// Settings of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What stands before the answer, such as `=>`; without it the whole completion is the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Accepts the very text.
#[derive(Clone, Debug)]
pub struct Exact {
    marker: Marker,
}

impl Exact {
    /// The verifier.
    ///
    /// # Errors
    /// An empty marker.
    pub fn new(settings: &Settings) -> Result<Exact, Error> {
        Ok(Exact { marker: Marker::new(settings.after.as_deref())? })
    }
}

impl Verifier for Exact {
    fn reward(&self, completion: &str, answer: &str) -> f64 {
        reward(
            self.marker.answer(completion).is_some_and(|found| !found.is_empty() && found == answer.trim()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_spaces_around_it_do_not_count() {
        let after = |after: Option<&str>| {
            Exact::new(&Settings { after: after.map(str::to_owned) }).expect("good settings")
        };
        let (plain, arrow) = (after(None), after(Some("=>")));
        assert_eq!(plain.reward(" 16:10\n", "16:10"), 1.0);
        for wrong in ["16:10.", "16: 10", "16:1", "16:100", "so 16:10", ""] {
            assert_eq!(plain.reward(wrong, "16:10"), 0.0, "{wrong}");
        }
        assert_eq!(plain.reward("Bob", "bob"), 0.0);
        assert_eq!(plain.reward("", ""), 0.0, "nothing is no answer");
        assert_eq!(arrow.reward("a no; c yes => c", "c"), 1.0);
        assert_eq!(arrow.reward("c", "c"), 0.0, "the format is part of the answer");
    }
}
