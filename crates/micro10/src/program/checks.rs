//! Ground truth for completed programs: programs with a hole and what they must print.

use std::fmt;
use std::str::FromStr;

use super::{Expression, Program, ProgramError};

/// Between a program and what it must print.
const ARROW: &str = " => ";

/// A program with a hole, and what it must print once the hole is filled: `x=2;print(x*_) => 6`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The program.
    pub program: String,
    /// What it must print.
    pub output: String,
}

impl Check {
    /// Reads the checks of an answer, one a line.
    ///
    /// # Errors
    /// A line without ` => ` or whose program cannot be read; no line at all.
    pub fn parse_all(text: &str) -> Result<Vec<Check>, ProgramError> {
        let checks: Vec<Check> = text.lines().map(str::parse).collect::<Result<_, _>>()?;
        if checks.is_empty() {
            return Err(ProgramError::Syntax { at: 0, expected: "a program, ` => ` and its output" });
        }
        Ok(checks)
    }

    fn holds(&self, filling: &Expression) -> bool {
        let output = Program::parse(&self.program).and_then(|program| program.run(Some(filling)));
        output.is_ok_and(|output| output == self.output)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{ARROW}{}", self.program, self.output)
    }
}

impl FromStr for Check {
    type Err = ProgramError;

    fn from_str(line: &str) -> Result<Check, ProgramError> {
        let missing = ProgramError::Syntax { at: line.len(), expected: "` => ` and the output" };
        let (program, output) = line.split_once(ARROW).ok_or(missing)?;
        Program::parse(program)?;
        Ok(Check { program: program.to_owned(), output: output.trim().to_owned() })
    }
}

/// Whether `filling`, an expression as a model wrote it, makes every program print what it must. With no checks there
/// is nothing to satisfy, and nothing satisfies it.
pub fn satisfies(filling: &str, checks: &[Check]) -> bool {
    let Ok(filling) = Expression::parse(filling) else { return false };
    !checks.is_empty() && checks.iter().all(|check| check.holds(&filling))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_expression_that_prints_the_right_things_will_do() {
        let text = "x=2;y=x*4+_;print(y-7) => 9\nx=5;y=x*4+_;print(y-7) => 21";
        let checks = Check::parse_all(text).expect("two checks");
        assert_eq!(checks.len(), 2);
        let shown: Vec<String> = checks.iter().map(Check::to_string).collect();
        assert_eq!(shown.join("\n"), text);
        for right in ["8", " 8 ", "4+4", "x-x+8", "2*(1+3)"] {
            assert!(satisfies(right, &checks), "{right}");
        }
        for wrong in ["9", "-8", "x+6", "8;print(9)", "8 9", "eight", "", "_", "y", "16//0", "8.0"] {
            assert!(!satisfies(wrong, &checks), "{wrong}");
        }
        assert!(!satisfies("8", &[]));
    }

    #[test]
    fn broken_checks_are_errors() {
        for text in ["", "x=1;print(x)", "x= => 1"] {
            assert!(Check::parse_all(text).is_err(), "{text}");
        }
    }
}
