//! Running a tree under a limit of steps.

use std::collections::BTreeMap;

use super::ProgramError;
use super::parse::{Comparison, Expression, Node, Operator, Program, Statement};

/// The steps a program may take: statements begun, rounds of a loop and operands looked at.
pub const MAX_STEPS: u64 = 10_000;

impl Program {
    /// What the program prints, one value a line. `hole` is the expression behind `_`, evaluated wherever it stands.
    ///
    /// # Errors
    /// A name without a value, overflow, division by zero, a hole without filling, or more than [`MAX_STEPS`].
    pub fn run(&self, hole: Option<&Expression>) -> Result<String, ProgramError> {
        let mut machine = Machine { values: BTreeMap::new(), printed: Vec::new(), steps: 0, hole };
        machine.statements(&self.0)?;
        Ok(machine.printed.join("\n"))
    }
}

struct Machine<'a> {
    values: BTreeMap<&'a str, i64>,
    printed: Vec<String>,
    steps: u64,
    hole: Option<&'a Expression>,
}

impl<'a> Machine<'a> {
    fn statements(&mut self, statements: &'a [Statement]) -> Result<(), ProgramError> {
        for statement in statements {
            self.statement(statement)?;
        }
        Ok(())
    }

    fn statement(&mut self, statement: &'a Statement) -> Result<(), ProgramError> {
        self.step()?;
        match statement {
            Statement::Assign(name, node) => {
                let value = self.value(node)?;
                self.values.insert(name, value);
            }
            Statement::Print(node) => {
                let value = self.value(node)?;
                self.printed.push(value.to_string());
            }
            Statement::Repeat(times, body) => {
                for _ in 0..self.value(times)? {
                    self.step()?;
                    self.statements(body)?;
                }
            }
            Statement::While(left, comparison, right, body) => {
                while compare(self.value(left)?, *comparison, self.value(right)?) {
                    self.step()?;
                    self.statements(body)?;
                }
            }
        }
        Ok(())
    }

    fn value(&mut self, node: &'a Node) -> Result<i64, ProgramError> {
        self.step()?;
        match node {
            Node::Number(number) => Ok(*number),
            Node::Name(name) => {
                let value = self.values.get(name.as_str()).copied();
                value.ok_or_else(|| ProgramError::Unknown { name: name.clone() })
            }
            // What fills a hole has none itself, so this does not come back.
            Node::Hole => self.value(&self.hole.ok_or(ProgramError::Hole)?.0),
            Node::Negative(inner) => self.value(inner)?.checked_neg().ok_or(ProgramError::Overflow),
            Node::Binary(left, operator, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                calculate(left, *operator, right)
            }
        }
    }

    fn step(&mut self) -> Result<(), ProgramError> {
        self.steps += 1;
        if self.steps > MAX_STEPS { Err(ProgramError::OutOfSteps { steps: MAX_STEPS }) } else { Ok(()) }
    }
}

fn calculate(left: i64, operator: Operator, right: i64) -> Result<i64, ProgramError> {
    if right == 0 && matches!(operator, Operator::Divide | Operator::Remainder) {
        return Err(ProgramError::DivisionByZero);
    }
    let result = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide => floor_divide(left, right),
        Operator::Remainder => {
            floor_divide(left, right).map(|quotient| left.wrapping_sub(quotient.wrapping_mul(right)))
        }
    };
    result.ok_or(ProgramError::Overflow)
}

fn floor_divide(left: i64, right: i64) -> Option<i64> {
    let quotient = left.checked_div(right)?;
    let is_rounded_up = left % right != 0 && (left < 0) != (right < 0);
    Some(if is_rounded_up { quotient - 1 } else { quotient })
}

fn compare(left: i64, comparison: Comparison, right: i64) -> bool {
    match comparison {
        Comparison::Less => left < right,
        Comparison::LessOrEqual => left <= right,
        Comparison::Greater => left > right,
        Comparison::GreaterOrEqual => left >= right,
        Comparison::Equal => left == right,
        Comparison::Different => left != right,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(text: &str) -> Result<String, ProgramError> {
        Program::parse(text)?.run(None)
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(run(text), Ok(expected.to_owned()), "{text}");
    }

    #[test]
    fn precedence_and_grouping() {
        check("print(2+3*4)", "14");
        check("print((2+3)*4)", "20");
        check("print(10-3-2)", "5");
        check("print(20//3//2)", "3");
        check("print(2*-3+-(-1))", "-5");
        check("print(7-2*3%4)", "5");
    }

    #[test]
    fn division_rounds_as_in_python() {
        for (left, right, quotient, remainder) in
            [(7, 2, 3, 1), (-7, 2, -4, 1), (7, -2, -4, -1), (-7, -2, 3, -1), (-6, 2, -3, 0)]
        {
            check(
                &format!("print({left}//{right});print({left}%{right})"),
                &format!("{quotient}\n{remainder}"),
            );
        }
    }

    #[test]
    fn statements_and_loops() {
        check("x=3;x+=4;x*=2;x-=1;print(x)", "13");
        check("x=1\n repeat 3 { x=x*2; print(x) }\n", "2\n4\n8");
        check("n=27;k=0;while n!=1 {n=n//2;k+=1};print(k)", "4");
        check("repeat -2 {print(1)};print(0)", "0");
        check("s=0;i=1;while i<=4 {j=0;while j<i {s+=1;j+=1};i+=1};print(s)", "10");
        check("", "");
    }

    #[test]
    fn holes_are_filled_with_expressions() {
        let program = Program::parse("x=4;y=x*_+1;print(y)").expect("a program");
        let filled = |text: &str| program.run(Some(&Expression::parse(text).expect("an expression")));
        assert_eq!(filled("3"), Ok("13".to_owned()));
        assert_eq!(filled("1+2"), Ok("13".to_owned()), "the filling binds tighter than what surrounds it");
        assert_eq!(filled("x-1"), Ok("13".to_owned()));
        assert_eq!(filled("y"), Err(ProgramError::Unknown { name: "y".to_owned() }));
        assert_eq!(program.run(None), Err(ProgramError::Hole));
    }

    #[test]
    fn every_way_to_fail_is_an_error() {
        assert_eq!(run("print(1//0)"), Err(ProgramError::DivisionByZero));
        assert_eq!(run("print(1%0)"), Err(ProgramError::DivisionByZero));
        assert_eq!(run("x=9;while x>0 {x=x*x}"), Err(ProgramError::Overflow));
        let lowest = "x=-9223372036854775807-1;";
        for expression in ["-x", "x//-1", "x%-1", "x-1"] {
            assert_eq!(run(&format!("{lowest}print({expression})")), Err(ProgramError::Overflow));
        }
        let endless = ProgramError::OutOfSteps { steps: MAX_STEPS };
        assert_eq!(run("while 1==1 {}"), Err(endless.clone()));
        assert_eq!(run("repeat 9223372036854775807 {}"), Err(endless.clone()));
        assert_eq!(run("repeat 99999 {repeat 99999 {print(1)}}"), Err(endless));
    }

    proptest! {
        /// Programs are written by models: whatever they write ends, in an output or an error.
        #[test]
        fn no_text_is_too_strange(words in prop::collection::vec(
            prop::sample::select(vec![
                "print(", "repeat ", "while ", "x", "y", "_", "=", "+=", "*=", "-", "+", "*", "//", "%", "(", ")",
                "{", "}", ";", "\n", "<", "==", "!=", "0", "1", "7", "9223372036854775807", "x=3;", "é",
            ]),
            0..40,
        )) {
            let text = words.concat();
            let filling = Expression::parse("x-1").expect("an expression");
            let _ = Program::parse(&text).map(|program| program.run(Some(&filling)));
            let _ = Expression::parse(&text);
        }

        #[test]
        fn arithmetic_is_that_of_the_host(a in -99i64..100, b in -99i64..100, c in 1i64..100) {
            let expected = format!("{}\n{}\n{}", a - b * c, (a - b) * c, (a + b).div_euclid(c));
            check(&format!("a={a};b={b};c={c};print(a-b*c);print((a-b)*c);print((a+b)//c)"), &expected);
        }
    }
}
