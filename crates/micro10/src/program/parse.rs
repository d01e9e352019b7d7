//! From text to a tree.

use super::ProgramError;

/// The longest text that is read, in bytes.
const MAX_BYTES: usize = 4096;
/// How deeply parentheses, signs and blocks may be nested.
const MAX_DEPTH: usize = 40;

/// A program that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(pub(super) Vec<Statement>);

/// An expression that was read; what fills a hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression(pub(super) Node);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// `name = value`; `name += value` is read as `name = name + value`.
    Assign(String, Node),
    Print(Node),
    Repeat(Node, Vec<Statement>),
    While(Node, Comparison, Node, Vec<Statement>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Number(i64),
    Name(String),
    Hole,
    Negative(Box<Node>),
    Binary(Box<Node>, Operator, Box<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    Different,
}

impl Program {
    /// Reads a program; `_` is a hole.
    ///
    /// # Errors
    /// Text that is no program, too long or nested too deeply.
    pub fn parse(text: &str) -> Result<Program, ProgramError> {
        let mut parser = Parser::new(text, true)?;
        let statements = parser.statements()?;
        parser.end("a statement, or the end of the program")?;
        Ok(Program(statements))
    }
}

impl Expression {
    /// Reads a single expression, without holes: nothing can follow it, so a filled hole cannot smuggle in statements.
    ///
    /// # Errors
    /// Text that is no expression, too long or nested too deeply.
    pub fn parse(text: &str) -> Result<Expression, ProgramError> {
        let mut parser = Parser::new(text, false)?;
        let node = parser.expression()?;
        parser.end("the end of the expression")?;
        Ok(Expression(node))
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    holes: bool,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, holes: bool) -> Result<Parser<'a>, ProgramError> {
        if text.len() > MAX_BYTES {
            return Err(ProgramError::TooLong { bytes: text.len(), most: MAX_BYTES });
        }
        Ok(Parser { text, at: 0, depth: 0, holes })
    }

    fn statements(&mut self) -> Result<Vec<Statement>, ProgramError> {
        let mut statements = Vec::new();
        loop {
            self.separators();
            if self.rest().is_empty() || self.rest().starts_with('}') {
                return Ok(statements);
            }
            statements.push(self.statement()?);
            self.spaces();
            if !self.rest().is_empty() && !self.rest().starts_with([';', '\n', '}']) {
                return Err(self.expected("`;`, a new line or the end"));
            }
        }
    }

    fn statement(&mut self) -> Result<Statement, ProgramError> {
        match self.name().ok_or_else(|| self.expected("a statement"))? {
            "print" => {
                self.take("(", "`(`")?;
                let value = self.expression()?;
                self.take(")", "`)`")?;
                Ok(Statement::Print(value))
            }
            "repeat" => {
                let times = self.expression()?;
                Ok(Statement::Repeat(times, self.block()?))
            }
            "while" => {
                let left = self.expression()?;
                let comparison = self.comparison()?;
                let right = self.expression()?;
                Ok(Statement::While(left, comparison, right, self.block()?))
            }
            name => self.assignment(name),
        }
    }

    fn assignment(&mut self, name: &str) -> Result<Statement, ProgramError> {
        let updates = [("+=", Operator::Add), ("-=", Operator::Subtract), ("*=", Operator::Multiply)];
        for (token, operator) in updates {
            if self.eat(token) {
                let (old, value) = (Node::Name(name.to_owned()), self.expression()?);
                let updated = Node::Binary(Box::new(old), operator, Box::new(value));
                return Ok(Statement::Assign(name.to_owned(), updated));
            }
        }
        self.take("=", "`=`")?;
        Ok(Statement::Assign(name.to_owned(), self.expression()?))
    }

    fn block(&mut self) -> Result<Vec<Statement>, ProgramError> {
        self.take("{", "`{`")?;
        let body = self.nested(Self::statements)?;
        self.take("}", "`}`")?;
        Ok(body)
    }

    fn comparison(&mut self) -> Result<Comparison, ProgramError> {
        let all = [
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("==", Comparison::Equal),
            ("!=", Comparison::Different),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let found = all.into_iter().find(|(token, _)| self.eat(token));
        found.map(|(_, comparison)| comparison).ok_or_else(|| self.expected("a comparison"))
    }

    fn expression(&mut self) -> Result<Node, ProgramError> {
        self.chain(&[("+", Operator::Add), ("-", Operator::Subtract)], Self::term)
    }

    fn term(&mut self) -> Result<Node, ProgramError> {
        let operators = [("*", Operator::Multiply), ("//", Operator::Divide), ("%", Operator::Remainder)];
        self.chain(&operators, Self::factor)
    }

    /// Operands of one precedence, grouped from the left.
    fn chain(
        &mut self,
        operators: &[(&str, Operator)],
        operand: fn(&mut Self) -> Result<Node, ProgramError>,
    ) -> Result<Node, ProgramError> {
        let mut left = operand(self)?;
        let mut num_operands = 1;
        while let Some(&(_, operator)) = operators.iter().find(|(token, _)| self.eat(token)) {
            // A long chain is a deep tree: running it recurses into its left side.
            num_operands += 1;
            if num_operands > MAX_DEPTH {
                return Err(ProgramError::TooDeep { at: self.at });
            }
            left = Node::Binary(Box::new(left), operator, Box::new(operand(self)?));
        }
        Ok(left)
    }

    fn factor(&mut self) -> Result<Node, ProgramError> {
        if self.eat("-") {
            return Ok(Node::Negative(Box::new(self.nested(Self::factor)?)));
        }
        if self.eat("(") {
            let inner = self.nested(Self::expression)?;
            self.take(")", "`)`")?;
            return Ok(inner);
        }
        if self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            return self.number();
        }
        match self.name() {
            Some("_") if self.holes => Ok(Node::Hole),
            Some(name) if !["_", "print", "repeat", "while"].contains(&name) => {
                Ok(Node::Name(name.to_owned()))
            }
            _ => Err(self.expected("a number, a name or `(`")),
        }
    }

    fn number(&mut self) -> Result<Node, ProgramError> {
        let digits = self.run_of(|c| c.is_ascii_digit());
        digits.parse().map(Node::Number).map_err(|_| ProgramError::Overflow)
    }

    /// A name at this place: a letter or `_`, then letters, digits and `_`.
    fn name(&mut self) -> Option<&'a str> {
        self.spaces();
        let starts = self.rest().starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        starts.then(|| self.run_of(|c| c.is_ascii_alphanumeric() || c == '_'))
    }

    fn run_of(&mut self, belongs: fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn nested<T>(&mut self, parse: fn(&mut Self) -> Result<T, ProgramError>) -> Result<T, ProgramError> {
        if self.depth == MAX_DEPTH {
            return Err(ProgramError::TooDeep { at: self.at });
        }
        self.depth += 1;
        let parsed = parse(self)?;
        self.depth -= 1;
        Ok(parsed)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn spaces(&mut self) {
        self.run_of(|c| c == ' ' || c == '\t');
    }

    fn separators(&mut self) {
        self.run_of(|c| c.is_ascii_whitespace() || c == ';');
    }

    fn eat(&mut self, token: &str) -> bool {
        self.spaces();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn take(&mut self, token: &str, expected: &'static str) -> Result<(), ProgramError> {
        if self.eat(token) { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn end(&mut self, expected: &'static str) -> Result<(), ProgramError> {
        self.separators();
        if self.rest().is_empty() { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn expected(&self, expected: &'static str) -> ProgramError {
        ProgramError::Syntax { at: self.at, expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Program::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn mistakes_say_where() {
        assert_eq!(error("x=1;y"), "at byte 5: expected `=`");
        assert_eq!(error("x=1 y=2"), "at byte 4: expected `;`, a new line or the end");
        assert_eq!(error("print(1"), "at byte 7: expected `)`");
        assert_eq!(error("x=(1+)"), "at byte 5: expected a number, a name or `(`");
        assert_eq!(error("repeat 3 {x=1"), "at byte 13: expected `}`");
        assert_eq!(error("while x {x=1}"), "at byte 8: expected a comparison");
        assert_eq!(error("x=1}"), "at byte 3: expected a statement, or the end of the program");
        assert_eq!(error("3=x"), "at byte 0: expected a statement");
        assert_eq!(error("x=print"), "at byte 7: expected a number, a name or `(`");
        assert_eq!(error("x=99999999999999999999"), "a number grew beyond 64 bits");
    }

    #[test]
    fn an_expression_is_one_expression() {
        assert!(Expression::parse(" 2*(x+1) ").is_ok());
        for text in ["", "1;print(9)", "1\nprint(9)", "x=1", "_", "1+_", "print(1)", "1)+(1"] {
            assert!(Expression::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hostile_texts_are_refused_without_a_deep_stack() {
        for text in ["(".repeat(4000), "-".repeat(4000), "1+".repeat(2000) + "1"] {
            let error = Expression::parse(&text).expect_err("too deep");
            assert!(matches!(error, ProgramError::TooDeep { .. }), "{error}");
        }
        let blocks = "repeat 1 {".repeat(300);
        assert!(matches!(Program::parse(&blocks), Err(ProgramError::TooDeep { .. })));
        assert_eq!(error(&"x".repeat(5000)), "a program of 5000 bytes, at most 4096 are read");
        assert!(Program::parse("x=\u{ff11}").is_err(), "only ASCII digits are digits");
    }
}
