//! Which parameters weight decay applies to.
//!
//! Matrices decay; norms and biases, which have one dimension, do not. Some recipes also spare the embeddings, as OLMo 2
//! does (arXiv 2501.00656): `exclude = ["*embed_tokens*"]`.

use remit_fault::fault;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Weight decay applies to parameters with two or more dimensions whose name matches no pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WeightDecayRule {
    /// Patterns of whole names to leave out, in which `*` stands for any characters.
    pub exclude: Vec<String>,
}

impl WeightDecayRule {
    /// Whether the parameter decays.
    pub fn decays(&self, name: &str, shape: &[usize]) -> bool {
        shape.len() >= 2 && !self.exclude.iter().any(|pattern| matches(pattern, name))
    }

    /// Checks that every pattern matches some parameter of the model, so that a misspelt one is not silently idle.
    ///
    /// # Errors
    /// A pattern that matches none of the names.
    pub fn validate<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Result<(), Error> {
        for pattern in &self.exclude {
            if !names.clone().any(|name| matches(pattern, name)) {
                let examples: Vec<String> = names.take(3).map(|name| format!("`{name}`")).collect();
                let examples = examples.join(", ");
                return Err(fault!("weight decay exclusion `{pattern}` matches no parameter").with_hint(
                    format!("`*` stands for any characters; parameters are named like {examples}"),
                ));
            }
        }
        Ok(())
    }
}

/// Whether the whole name matches. The pieces between stars are found from left to right, each as early as possible;
/// the last must be the name's end.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    let mut pieces: Vec<&str> = tail.split('*').collect();
    let last = pieces.pop().expect("splitting gives at least one piece");
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] =
        ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight"];

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("model.norm.weight", "model.norm.weight", true),
            ("model.norm", "model.norm.weight", false),
            ("norm.weight", "model.norm.weight", false),
            ("*", "", true),
            ("*.weight", "model.norm.weight", true),
            ("*.weights", "model.norm.weight", false),
            ("model.*.weight", "model.norm.weight", true),
            ("*layers.*.up_proj*", "model.layers.0.mlp.up_proj.weight", true),
            ("*up_proj*layers*", "model.layers.0.mlp.up_proj.weight", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*ab*ab", "ab", false),
            ("*ab*ab", "abab", true),
            ("é*è", "éàè", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn matrices_decay_unless_excluded() {
        let rule = WeightDecayRule::default();
        assert!(rule.decays(NAMES[0], &[160, 32]) && rule.decays("conv", &[3, 4, 5]));
        assert!(!rule.decays(NAMES[2], &[32]) && !rule.decays("scale", &[]));
        let rule = WeightDecayRule { exclude: vec!["*embed_tokens*".to_string()] };
        assert!(!rule.decays(NAMES[0], &[160, 32]) && rule.decays(NAMES[1], &[64, 32]));
    }

    #[test]
    fn an_idle_pattern_is_an_error() {
        let rule = WeightDecayRule { exclude: vec!["*norm*".to_string(), "*embedding*".to_string()] };
        let error = rule.validate(NAMES.into_iter()).expect_err("no embedding");
        assert_eq!(error.to_string(), "weight decay exclusion `*embedding*` matches no parameter");
        assert!(error.hint().is_some_and(|hint| hint.contains("named like `model.embed_tokens.weight`, ")));
        assert_eq!(
            WeightDecayRule { exclude: vec!["*norm*".to_string()] }.validate(NAMES.into_iter()),
            Ok(())
        );
    }
}
