//! Program output, by running the little language of [`remit_micro10::program`] under its limit of steps.
//!
//! - [`Output`]: the completion is a program, and the answer what it must print;
//! - [`Completed`]: the completion is what is missing from programs, and the answer those programs and their output,
//!   one a line: `x=2;print(x*_) => 6`. Whatever expression makes all of them print the right thing is right.

use remit_micro10::program::{Check, Program, satisfies};

use super::Verifier;
use crate::find::Marker;
use crate::{Outcome, Verdict};

/// Accepts programs that print the answer.
#[derive(Clone, Debug)]
pub struct Output(pub Marker);

/// Accepts what completes the programs of the answer.
#[derive(Clone, Debug)]
pub struct Completed(pub Marker);

impl Verifier for Output {
    fn judge(&self, completion: &str, answer: &str) -> Verdict {
        let Some(program) = self.0.answer(completion) else { return Verdict::no_answer(self.0.missing()) };
        match Program::parse(program).and_then(|program| program.run(None)) {
            Err(error) => Verdict::no_answer(format!("the program fails: {error}")),
            Ok(output) if output.is_empty() => Verdict::no_answer("the program prints nothing"),
            Ok(output) => Verdict::of(output == answer.trim(), &output, answer.trim()),
        }
    }

    fn refusal(&self, answer: &str) -> Option<String> {
        answer.trim().is_empty().then(|| "it is empty".to_owned())
    }
}

impl Verifier for Completed {
    fn judge(&self, completion: &str, answer: &str) -> Verdict {
        let Some(filling) = self.0.answer(completion) else { return Verdict::no_answer(self.0.missing()) };
        match Check::parse_all(answer) {
            Err(error) => Verdict::undecided(format!("the ground truth is no list of programs: {error}")),
            Ok(checks) if satisfies(filling, &checks) => {
                Verdict::new(Outcome::Right, format!("`{filling}` makes all programs print what they must"))
            }
            Ok(_) => Verdict::new(
                Outcome::Wrong,
                format!("`{filling}` does not make all programs print what they must"),
            ),
        }
    }

    fn refusal(&self, answer: &str) -> Option<String> {
        Check::parse_all(answer).err().map(|error| format!("it is no list of programs: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_run() {
        let verifier = Output(Marker::new(None).expect("a good marker"));
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
        let verifier = Completed(Marker::new(Some("=>")).expect("a good marker"));
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
