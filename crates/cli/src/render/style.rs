//! Whether and how richly to colour.

use std::io::{self, IsTerminal};

/// How many colours the output takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Colours {
    /// No escape sequences at all.
    None,
    /// The eight named ones.
    Named,
    /// The palette of 256.
    Indexed,
    /// Red, green and blue in 256 steps each.
    True,
}

impl Colours {
    /// What stdout takes.
    pub fn of_stdout() -> Colours {
        Colours::detect(io::stdout().is_terminal(), |name| std::env::var(name).ok())
    }

    /// What stderr takes.
    pub fn of_stderr() -> Colours {
        Colours::detect(io::stderr().is_terminal(), |name| std::env::var(name).ok())
    }

    /// `NO_COLOR` wins over everything (<https://no-color.org>); `CLICOLOR_FORCE` colours what is no terminal.
    fn detect(is_terminal: bool, variable: impl Fn(&str) -> Option<String>) -> Colours {
        let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
        let forced = set("CLICOLOR_FORCE") && variable("CLICOLOR_FORCE").as_deref() != Some("0");
        let terminal = variable("TERM").unwrap_or_default();
        if set("NO_COLOR") || !forced && (!is_terminal || terminal == "dumb" || terminal.is_empty()) {
            return Colours::None;
        }
        match variable("COLORTERM").as_deref() {
            Some("truecolor" | "24bit") => Colours::True,
            _ if forced || terminal.contains("256color") => Colours::Indexed,
            _ => Colours::Named,
        }
    }

    /// `text` in the way that `ink` says, where there are colours.
    pub fn paint(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Error => "1;31",
            Ink::Warning => "1;33",
            Ink::Hint => "1;36",
            Ink::Quiet => "2",
            Ink::Heading => "1",
        };
        match self {
            Colours::None => text.to_string(),
            _ => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// What a piece of text is, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// The word `error`.
    Error,
    /// The word `warning`.
    Warning,
    /// The word `hint`.
    Hint,
    /// Less important than the rest.
    Quiet,
    /// A heading.
    Heading,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(is_terminal: bool, environment: &[(&str, &str)], expected: Colours) {
        let found = Colours::detect(is_terminal, |name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn colours_are_for_terminals_that_take_them() {
        check(true, &[("TERM", "xterm")], Colours::Named);
        check(true, &[("TERM", "xterm-256color")], Colours::Indexed);
        check(true, &[("TERM", "xterm-256color"), ("COLORTERM", "truecolor")], Colours::True);
        check(true, &[("TERM", "dumb")], Colours::None);
        check(true, &[], Colours::None);
        check(false, &[("TERM", "xterm-256color"), ("COLORTERM", "truecolor")], Colours::None);
        check(true, &[("TERM", "xterm"), ("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], Colours::None);
        check(true, &[("TERM", "xterm"), ("NO_COLOR", "")], Colours::Named);
        check(false, &[("CLICOLOR_FORCE", "1")], Colours::Indexed);
        check(false, &[("CLICOLOR_FORCE", "0"), ("TERM", "xterm")], Colours::None);
    }
}
