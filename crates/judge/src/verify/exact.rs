//! The very text, but for the spaces around it.

use super::{Verifier, refusal_of_text};
use crate::Verdict;
use crate::find::Marker;

/// Accepts the very text behind its marker.
#[derive(Clone, Debug)]
pub struct Exact(pub Marker);

impl Verifier for Exact {
    fn judge(&self, completion: &str, answer: &str) -> Verdict {
        match self.0.answer(completion) {
            None => Verdict::no_answer(self.0.missing()),
            Some("") => Verdict::no_answer("there is no text"),
            Some(found) => Verdict::of(found == answer.trim(), found, answer.trim()),
        }
    }

    fn refusal(&self, answer: &str) -> Option<String> {
        refusal_of_text(&self.0, answer.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_spaces_around_it_do_not_count() {
        let after = |after: Option<&str>| Exact(Marker::new(after).expect("a good marker"));
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
