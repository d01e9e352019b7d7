//! Rewards by verification: is the answer in a completion the right one?
//!
//! Every verifier errs on the side of refusing. A right answer that is refused costs a little signal; a wrong one that
//! is accepted is found by the policy and becomes what is learned. What is ambiguous (`10-18`, `2 million`, `3x`, `A or
//! B`) is therefore worth nothing, and a completion never makes a verifier fail or hang: patterns match in linear time,
//! programs run under a limit of steps in an interpreter of our own.
//!
//! Each rule is a file: [`exact`], [`normalised`], [`last_number`], [`math`], [`choice`], [`pattern`] and [`program`].

pub mod choice;
pub mod exact;
pub mod last_number;
pub mod math;
pub mod normalised;
pub mod pattern;
pub mod program;

pub use choice::Choice;
pub use exact::Exact;
pub use last_number::LastNumber;
pub use math::Math;
pub use normalised::Normalised;
pub use pattern::Pattern;
pub use program::{Completed, Output};

use serde::{Deserialize, Serialize};

use crate::find::marker::{self, Marker};
use crate::{Error, Verdict};

/// Judges completions.
pub trait Verifier: Send + Sync {
    /// What a completion comes to, given the ground truth of its prompt.
    fn judge(&self, completion: &str, answer: &str) -> Verdict;

    /// Why no completion could ever be right, given this ground truth; nothing where one could.
    fn refusal(&self, answer: &str) -> Option<String>;

    /// The reward of a completion, from 0 to 1.
    fn reward(&self, completion: &str, answer: &str) -> f64 {
        self.judge(completion, answer).outcome.reward()
    }
}

/// The choice among the verifiers, as a recipe writes it: `kind = "last_number"` and its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Verify {
    /// The last number, as for GSM8K: see [`last_number`].
    LastNumber(last_number::Settings),
    /// The very text: see [`exact`].
    Exact(marker::Settings),
    /// The text but for case, spaces and closing punctuation: see [`normalised`].
    Normalised(marker::Settings),
    /// A letter among choices: see [`choice`].
    Choice(choice::Settings),
    /// What a regular expression finds: see [`pattern`].
    Regex(pattern::Settings),
    /// A mathematical answer: see [`math`].
    Math(math::Settings),
    /// A program that prints the answer: see [`program`].
    Output(marker::Settings),
    /// What completes a program: see [`program`].
    Completed(marker::Settings),
}

impl Verify {
    /// Verifiers that need no definition, by name.
    pub fn built_in() -> [(&'static str, Verify); 12] {
        let whole = marker::Settings::default;
        let arrow = || marker::Settings { after: Some("=>".to_owned()) };
        [
            ("last_number", Verify::LastNumber(last_number::Settings::default())),
            ("gsm8k", Verify::LastNumber(last_number::Settings::default())),
            ("svamp", Verify::LastNumber(last_number::Settings::default())),
            ("exact", Verify::Exact(whole())),
            ("normalised", Verify::Normalised(whole())),
            ("choice", Verify::Choice(choice::Settings::default())),
            ("math", Verify::Math(math::Settings::default())),
            ("boxed", Verify::Math(math::Settings { boxed: true })),
            ("output", Verify::Output(whole())),
            ("completed", Verify::Completed(whole())),
            ("micro10", Verify::Exact(arrow())),
            ("micro10_complete", Verify::Completed(arrow())),
        ]
    }

    /// The verifier.
    ///
    /// # Errors
    /// Settings that make no sense.
    pub fn build(&self) -> Result<Box<dyn Verifier>, Error> {
        let marker = |settings: &marker::Settings| Marker::new(settings.after.as_deref());
        Ok(match self {
            Verify::LastNumber(settings) => Box::new(LastNumber::new(settings)?),
            Verify::Exact(settings) => Box::new(Exact(marker(settings)?)),
            Verify::Normalised(settings) => Box::new(Normalised(marker(settings)?)),
            Verify::Choice(settings) => Box::new(Choice::new(settings)?),
            Verify::Regex(settings) => Box::new(Pattern::new(settings)?),
            Verify::Math(settings) => Box::new(Math::new(settings)),
            Verify::Output(settings) => Box::new(Output(marker(settings)?)),
            Verify::Completed(settings) => Box::new(Completed(marker(settings)?)),
        })
    }
}

/// Why what is looked for behind a marker, on one line, can never be this text.
fn refusal_of_text(marker: &Marker, answer: &str) -> Option<String> {
    if answer.is_empty() {
        Some("it is empty".to_owned())
    } else if marker.answer(&format!("{}{answer}", marker.text())) != Some(answer) {
        Some(format!("only the rest of a line behind the last `{}` is compared", marker.text()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Verify, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn every_kind_is_read_and_built() {
        for (text, completion, answer) in [
            ("kind = 'last_number'", "so 1,234 in all", "1234"),
            ("kind = 'exact'\nafter = '=>'", "1+1=2 => 2", "2"),
            ("kind = 'normalised'", " Paris. ", "paris"),
            ("kind = 'choice'\nchoices = 5", "the answer is (E)", "E"),
            ("kind = 'regex'\npattern = 'is (\\d+)'", "it is 7", "7"),
            ("kind = 'math'", r"so $\frac{1}{2}$", "0.5"),
            ("kind = 'math'\nboxed = true", r"\boxed{\frac{1}{2}}", "0.5"),
            ("kind = 'output'", "x=3;print(x*2)", "6"),
            ("kind = 'completed'\nafter = '=>'", "6/2=3 => 3", "x=2;print(x*_) => 6"),
        ] {
            let verify = parse(text).expect(text);
            let verifier = verify.build().expect(text);
            assert_eq!(verifier.reward(completion, answer), 1.0, "{text}");
            assert_eq!(verifier.reward("", answer), 0.0, "{text}");
            let written = toml::to_string(&verify).expect("plain values");
            assert_eq!(parse(&written), Ok(verify), "{written}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let unknown = parse("kind = 'exact'\nbefore = '=>'").expect_err("unknown");
        assert!(unknown.contains("unknown field `before`"), "{unknown}");
        assert!(parse("kind = 'judge'").expect_err("unknown").contains("unknown variant `judge`"));
        let error = |text: &str| parse(text).expect("read").build().err().expect("refused");
        assert!(
            error("kind = 'regex'\npattern = '('")
                .to_string()
                .starts_with("`pattern` is no regular expression")
        );
        assert_eq!(
            error("kind = 'choice'\nchoices = 1").to_string(),
            "`choices` is 1, but must be from 2 to 26"
        );
        assert_eq!(error("kind = 'exact'\nafter = ''").to_string(), "`after` is empty");
    }
}
