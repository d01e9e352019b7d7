//! Where the answer begins: after the last `####`, `=>` or whatever a format puts before it, to the end of that line.

use serde::{Deserialize, Serialize};

use crate::Error;

/// Settings of a comparison of what stands behind a marker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What stands before the answer, such as `=>`; without it the whole completion is the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Finds the answer part of a completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker(Option<String>);

impl Marker {
    /// After the last `after`, or the whole completion if there is none to look for.
    ///
    /// # Errors
    /// An empty marker.
    pub fn new(after: Option<&str>) -> Result<Marker, Error> {
        match after {
            Some("") => Err(Error::EmptyMarker),
            after => Ok(Marker(after.map(str::to_owned))),
        }
    }

    /// What stands before the answer; empty where the whole completion is the answer.
    pub fn text(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Why there is no answer part.
    pub(crate) fn missing(&self) -> String {
        format!("there is no `{}`", self.text())
    }

    /// The answer part, without the spaces around it; nothing where the marker is missing.
    pub fn answer<'a>(&self, completion: &'a str) -> Option<&'a str> {
        let Some(marker) = &self.0 else { return Some(completion.trim()) };
        let (_, rest) = completion.rsplit_once(marker.as_str())?;
        Some(rest.lines().next().unwrap_or_default().trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_marker_counts_to_the_end_of_its_line() {
        let marker = Marker::new(Some("=>")).expect("a marker");
        assert_eq!(marker.answer("1+1=3 => 3; no => 2 \nQ: next"), Some("2"));
        assert_eq!(marker.answer("=>"), Some(""));
        assert_eq!(marker.answer("=>\n2"), Some(""));
        assert_eq!(marker.answer("2"), None);
        assert_eq!(Marker::new(None).expect("none").answer(" a\nb "), Some("a\nb"));
    }
}
