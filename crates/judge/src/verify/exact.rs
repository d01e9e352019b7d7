//! The very text, but for the spaces around it.

use super::{Verifier, reward};
use crate::find::Marker;

/// Accepts the very text behind its marker.
#[derive(Clone, Debug)]
pub struct Exact(pub Marker);

impl Verifier for Exact {
    fn reward(&self, completion: &str, answer: &str) -> f64 {
        let found = self.0.answer(completion);
        reward(found.is_some_and(|found| !found.is_empty() && found == answer.trim()))
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
