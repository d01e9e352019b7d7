//! Program output, by running the little language of [`remit_corpus::program`] under its limit of steps.
//!
//! - [`Output`]: the completion is a program, and the answer what it must print;
//! - [`Completed`]: the completion is what is missing from programs, and the answer those programs and their output,
//!   one a line: `x=2;print(x*_) => 6`. Whatever expression makes all of them print the right thing is right.

use remit_corpus::program::{Check, Program, satisfies};
use serde::{Deserialize, Serialize};

use super::{Marker, Verifier, reward};
use crate::Error;

/// Settings of both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What stands before the program or the missing part, such as `=>`; without it the whole completion is it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Accepts programs that print the answer.
#[derive(Clone, Debug)]
pub struct Output {
    marker: Marker,
}

/// Accepts what completes the programs of the answer.
#[derive(Clone, Debug)]
pub struct Completed {
    marker: Marker,
}

impl Output {
    /// The verifier.
    ///
    /// # Errors
    /// An empty marker.
    pub fn new(settings: &Settings) -> Result<Output, Error> {
        Ok(Output { marker: Marker::new(settings.after.as_deref())? })
    }
}

impl Verifier for Output {
    fn reward(&self, completion: &str, answer: &str) -> f64 {
        let Some(program) = self.marker.answer(completion) else { return 0.0 };
        let output = Program::parse(program).and_then(|program| program.run(None));
        reward(output.is_ok_and(|output| !output.is_empty() && output == answer.trim()))
    }
}

impl Completed {
    /// The verifier.
    ///
    /// # Errors
    /// An empty marker.
    pub fn new(settings: &Settings) -> Result<Completed, Error> {
        Ok(Completed { marker: Marker::new(settings.after.as_deref())? })
    }
}

impl Verifier for Completed {
    fn reward(&self, completion: &str, answer: &str) -> f64 {
        let Some(filling) = self.marker.answer(completion) else { return 0.0 };
        reward(Check::parse_all(answer).is_ok_and(|checks| satisfies(filling, &checks)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_run() {
        let verifier = Output::new(&Settings::default()).expect("good settings");
        let check = |program: &str, answer: &str, expected: f64| {
            assert_eq!(verifier.reward(program, answer), expected, "{program}");
        };
        check("x=1\nrepeat 3 {x=x*2}\nprint(x)", "8", 1.0);
        check("print(1);print(2)", "1\n2", 1.0);
        check("print(1);print(2)", "2", 0.0);
        check("print(8", "8", 0.0);
        check("8", "8", 0.0);
        check("while 1==1 {}", "8", 0.0);
        check("", "", 0.0);
        check("__import__('os').system('true')", "0", 0.0);
    }

    #[test]
    fn completions_are_run_in_place() {
        let settings = Settings { after: Some("=>".to_owned()) };
        let verifier = Completed::new(&settings).expect("good settings");
        let answer = "x=2;y=x*4+_;print(y) => 16\nx=5;y=x*4+_;print(y) => 28";
        let check = |completion: &str, expected: f64| {
            assert_eq!(verifier.reward(completion, answer), expected, "{completion}");
        };
        check("2*4=8; 16-8=8 => 8\n", 1.0);
        check("=> 16-8", 1.0);
        check("=> x+6", 0.0);
        check("=> 9", 0.0);
        check("=> 8;print(16)", 0.0);
        check("8", 0.0);
        assert_eq!(verifier.reward("=> 8", "8"), 0.0, "an answer that is no program verifies nothing");
    }
}
