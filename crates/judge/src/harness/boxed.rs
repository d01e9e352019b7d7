//! `\boxed`, as lm-evaluation-harness finds it for minerva_math and hendrycks_math.

/// The last `\boxed` or `\fbox` with its braces, as `last_boxed_only_string` has it: `\boxed ` with a blank goes up to the
/// next dollar, and goes before all others; escaped braces count as braces; a box that is not closed is none.
pub fn last_boxed(text: &str) -> Option<String> {
    if let Some((_, rest)) = text.rsplit_once("\\boxed ") {
        return Some(format!("\\boxed {}", rest.split('$').next().unwrap_or_default()));
    }
    let begin = text.rfind("\\boxed").or_else(|| text.rfind("\\fbox"))?;
    let mut depth = 0;
    for (at, c) in text[begin..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => continue,
        }
        if c == '}' && depth == 0 {
            return Some(text[begin..=begin + at].to_owned());
        }
    }
    None
}

/// What is in a box, as `remove_boxed` has it; nothing where it fails an assertion, as for `\fbox`.
pub fn remove_boxed(boxed: &str) -> Option<&str> {
    if boxed.contains("\\boxed ") {
        return boxed.strip_prefix("\\boxed ");
    }
    boxed.strip_prefix("\\boxed{")?.strip_suffix('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_found_as_upstream_finds_them() {
        let found = |text: &str| last_boxed(text);
        assert_eq!(found(r"\boxed{1} \boxed{\frac{1}{2}}.").as_deref(), Some(r"\boxed{\frac{1}{2}}"));
        assert_eq!(found(r"\boxed 3$ and $4").as_deref(), Some(r"\boxed 3"));
        assert_eq!(found(r"\boxed 3$ \boxed{4}").as_deref(), Some(r"\boxed 3"));
        assert_eq!(found(r"\boxed{1} \boxed{2").as_deref(), None);
        assert_eq!(found(r"\fbox{2}").as_deref(), Some(r"\fbox{2}"));
        assert_eq!(found("none"), None);
        assert_eq!(remove_boxed(r"\boxed{\{1\}}"), Some(r"\{1\}"));
        assert_eq!(remove_boxed(r"\boxed 3"), Some("3"));
        assert_eq!(remove_boxed(r"\fbox{2}"), None);
    }
}
