//! Tokens to values. Whatever has two readings is a problem, never a guess.

use super::Problem;
use super::polynomial::Quotient;
use super::rational::Rational;
use super::token::Token;
use crate::find::is_turning_or_scaling;

/// Brackets within brackets at most.
const DEEPEST: usize = 24;
/// Greek letters that stand for quantities, and the circle's number.
const GREEK: [&str; 22] = [
    "pi", "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda",
    "mu", "nu", "xi", "rho", "sigma", "tau", "phi", "chi", "psi", "omega",
];
/// Words after a number that are no unit.
const NO_UNITS: [&str; 16] = [
    "and",
    "if",
    "mod",
    "base",
    "more",
    "less",
    "dozen",
    "pair",
    "pairs",
    "remainder",
    "with",
    "of",
    "to",
    "for",
    "rd",
    "th",
];

/// What an answer is.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// A quantity with its unit, if it has one.
    Value(Quotient, Option<String>),
    /// `x = 5`: the left side and what it is.
    Named(Vec<Token>, Box<Answer>),
    /// `1, 2`, in this order.
    List(Vec<Answer>),
    /// `(1, 2)`, `[1, 2)`: a tuple or an interval with its brackets.
    Brackets(char, Vec<Answer>, char),
    /// `\{1, 2\}`.
    Set(Vec<Answer>),
    /// Sets and intervals together.
    Union(Vec<Answer>),
    /// Rows of a matrix.
    Matrix(Vec<Vec<Answer>>),
    /// Infinity, or minus infinity.
    Infinity(bool),
    /// Digits in a base.
    Based(String, String),
    /// Words.
    Words(String),
}

/// The value of a whole answer.
pub(super) fn answer(tokens: &[Token]) -> Result<Answer, Problem> {
    check_depth(tokens)?;
    let parts = split(tokens, &|token| *token == command("cup"))?;
    if parts.len() > 1 {
        return parts.into_iter().map(element).collect::<Result<_, _>>().map(Answer::Union);
    }
    if let [lhs, rhs] = split(tokens, &|token| *token == Token::Sign('='))?[..] {
        return Ok(Answer::Named(name(lhs)?, Box::new(list(rhs)?)));
    }
    if let [lhs, rhs] = split(tokens, &|token| *token == command("in"))?[..] {
        name(lhs)?;
        return answer(rhs);
    }
    list(tokens)
}

fn command(name: &str) -> Token {
    Token::Command(name.to_owned())
}

/// What stands left of `=`: a letter, with or without an index.
fn name(tokens: &[Token]) -> Result<Vec<Token>, Problem> {
    match tokens {
        [Token::Letter(_)] => Ok(tokens.to_vec()),
        [Token::Command(name)] if GREEK.contains(&&name[..]) && name != "pi" => Ok(tokens.to_vec()),
        _ => Err("it is an equation".to_owned()),
    }
}

fn list(tokens: &[Token]) -> Result<Answer, Problem> {
    let mut parts = split(tokens, &|token| *token == Token::Sign(','))?;
    // `1, 2 and 3`, `1, 2, and 3`.
    if let Some(last) = parts.pop() {
        let is_and = |token: &Token| matches!(token, Token::Words(word) if word == "and");
        match last {
            [and, rest @ ..] if is_and(and) && !parts.is_empty() => parts.push(rest),
            last => parts.extend(split(last, &is_and)?),
        }
    }
    if let [only] = parts[..] {
        return element(only);
    }
    parts.into_iter().map(element).collect::<Result<_, _>>().map(Answer::List)
}

/// One value, tuple, interval, set or matrix.
fn element(tokens: &[Token]) -> Result<Answer, Problem> {
    match tokens {
        [] => return Err("a part of it is empty".to_owned()),
        [Token::Words(words)] => return Ok(Answer::Words(words.to_lowercase())),
        [Token::Command(name)] if name == "emptyset" => return Ok(Answer::Set(Vec::new())),
        [Token::Command(name)] | [Token::Sign('+'), Token::Command(name)] if name == "infty" => {
            return Ok(Answer::Infinity(false));
        }
        [Token::Sign('-'), Token::Command(name)] if name == "infty" => return Ok(Answer::Infinity(true)),
        [Token::Number(digits), Token::Sign('_'), base @ ..] => return based(digits, base),
        [Token::Command(open), inner @ .., Token::Command(close)]
            if open == "{" && close == "}" && is_one(tokens) =>
        {
            let items = if inner.is_empty() { Vec::new() } else { items(inner)? };
            return Ok(Answer::Set(items));
        }
        [Token::Sign(open @ ('(' | '[')), inner @ .., Token::Sign(close @ (')' | ']'))] if is_one(tokens) => {
            let items = items(inner)?;
            if items.len() > 1 {
                return Ok(Answer::Brackets(*open, items, *close));
            }
        }
        [Token::Command(begin), inner @ .., Token::Command(end)]
            if begin.starts_with("begin ") && is_one(tokens) =>
        {
            let kind = begin.trim_start_matches("begin ");
            if ["pmatrix", "bmatrix"].contains(&kind) && end.ends_with(kind) {
                return matrix(inner);
            }
        }
        _ => {}
    }
    quantity(tokens)
}

fn items(tokens: &[Token]) -> Result<Vec<Answer>, Problem> {
    split(tokens, &|token| *token == Token::Sign(','))?.into_iter().map(element).collect()
}

fn matrix(tokens: &[Token]) -> Result<Answer, Problem> {
    let mut rows = split(tokens, &|token| *token == command("\\"))?;
    rows.pop_if(|row| row.is_empty());
    let entries = |row: &[Token]| {
        split(row, &|token| *token == Token::Sign('&'))?
            .into_iter()
            .map(element)
            .collect::<Result<Vec<_>, _>>()
    };
    rows.into_iter().map(entries).collect::<Result<_, _>>().map(Answer::Matrix)
}

fn based(digits: &str, base: &[Token]) -> Result<Answer, Problem> {
    match base {
        [Token::Number(base)] | [Token::Sign('{'), Token::Number(base), Token::Sign('}')] => {
            Ok(Answer::Based(digits.to_owned(), base.clone()))
        }
        _ => Err("its index is no number".to_owned()),
    }
}

/// A value with its unit: `\$5`, `5\%`, `5 \text{ cm}^2`, `90^\circ`.
fn quantity(tokens: &[Token]) -> Result<Answer, Problem> {
    if let [sign @ Token::Sign('-'), dollar, rest @ ..] = tokens
        && *dollar == command("$")
    {
        return Ok(Answer::Value(
            value(&[std::slice::from_ref(sign), rest].concat())?,
            Some("dollar".to_owned()),
        ));
    }
    if let [dollar, rest @ ..] = tokens
        && *dollar == command("$")
    {
        let rest = match rest {
            [rest @ .., Token::Words(words)] if ["dollars", "dollar"].contains(&&words[..]) => rest,
            rest => rest,
        };
        return Ok(Answer::Value(value(rest)?, Some("dollar".to_owned())));
    }
    let (rest, exponent) = match tokens {
        [rest @ .., words @ Token::Words(_), Token::Sign('^'), Token::Number(exponent)] => {
            ([rest, std::slice::from_ref(words)].concat(), format!("^{exponent}"))
        }
        [
            rest @ ..,
            words @ Token::Words(_),
            Token::Sign('^'),
            Token::Sign('{'),
            Token::Number(exponent),
            Token::Sign('}'),
        ] => ([rest, std::slice::from_ref(words)].concat(), format!("^{exponent}")),
        tokens => (tokens.to_vec(), String::new()),
    };
    match &rest[..] {
        [rest @ .., Token::Sign('%')] if exponent.is_empty() => {
            Ok(Answer::Value(value(rest)?, Some("%".to_owned())))
        }
        [rest @ .., Token::Sign('^'), Token::Command(circ)] if circ == "circ" => {
            Ok(Answer::Value(value(rest)?, Some("degree".to_owned())))
        }
        [rest @ .., Token::Sign('^'), Token::Sign('{'), Token::Command(circ), Token::Sign('}')]
            if circ == "circ" =>
        {
            Ok(Answer::Value(value(rest)?, Some("degree".to_owned())))
        }
        [rest @ .., Token::Words(words)] if !rest.is_empty() => {
            Ok(Answer::Value(value(rest)?, Some(unit(words)? + &exponent)))
        }
        rest => Ok(Answer::Value(value(rest)?, None)),
    }
}

/// A unit in one spelling.
fn unit(words: &str) -> Result<String, Problem> {
    let words = words.to_lowercase();
    let each: Vec<&str> = words.split_whitespace().collect();
    let is_other = |word: &&str| is_turning_or_scaling(word) || NO_UNITS.contains(word);
    if each.len() > 3 || each.iter().any(is_other) {
        return Err(format!("`{words}` is no unit"));
    }
    let words = words.trim_end_matches('.');
    Ok(match words {
        "percent" => "%",
        "cm" | "centimeters" | "centimetres" => "centimeter",
        "m" | "meters" | "metres" => "meter",
        "km" | "kilometers" | "kilometres" => "kilometer",
        "in" | "inches" => "inch",
        "ft" | "feet" => "foot",
        "mph" | "miles per hour" | "miles/hour" => "mile per hour",
        words => words.strip_suffix('s').unwrap_or(words),
    }
    .to_owned())
}

fn value(tokens: &[Token]) -> Result<Quotient, Problem> {
    let mut reader = Reader { tokens: tokens.to_vec(), at: 0 };
    let value = reader.sum()?;
    match reader.peek() {
        None => Ok(value),
        Some(token) => Err(unexpected(token)),
    }
}

fn unexpected(token: &Token) -> Problem {
    match token {
        Token::Number(text) | Token::Words(text) => format!("`{text}` is not understood there"),
        Token::Command(name) => format!("`\\{name}` is not understood there"),
        Token::Letter(c) | Token::Sign(c) => format!("`{c}` is not understood there"),
    }
}

fn too_large() -> Problem {
    "its numbers are too large, or it divides by 0".to_owned()
}

/// How a token changes the depth of brackets.
fn depth_of(token: &Token) -> i32 {
    match token {
        Token::Sign('(' | '[' | '{') => 1,
        Token::Sign(')' | ']' | '}') => -1,
        Token::Command(name) if name == "{" || name.starts_with("begin ") => 1,
        Token::Command(name) if name == "}" || name.starts_with("end ") => -1,
        _ => 0,
    }
}

fn check_depth(tokens: &[Token]) -> Result<(), Problem> {
    let mut depth = 0;
    for token in tokens {
        depth += depth_of(token);
        if depth < 0 || depth > DEEPEST as i32 {
            return Err("its brackets do not match".to_owned());
        }
    }
    if depth == 0 { Ok(()) } else { Err("its brackets do not match".to_owned()) }
}

/// Whether the first bracket is closed by the last token only.
fn is_one(tokens: &[Token]) -> bool {
    let mut depth = 0;
    let closed = tokens.iter().position(|token| {
        depth += depth_of(token);
        depth == 0
    });
    closed == Some(tokens.len() - 1)
}

/// The parts between separators outside all brackets.
fn split<'a>(
    tokens: &'a [Token],
    is_separator: &dyn Fn(&Token) -> bool,
) -> Result<Vec<&'a [Token]>, Problem> {
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0, 0);
    for (at, token) in tokens.iter().enumerate() {
        depth += depth_of(token);
        if depth == 0 && is_separator(token) {
            parts.push(&tokens[begin..at]);
            begin = at + 1;
        }
    }
    parts.push(&tokens[begin..]);
    Ok(parts)
}

/// Reads an expression from the left.
struct Reader {
    tokens: Vec<Token>,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        self.at += 1;
        self.tokens.get(self.at - 1).cloned()
    }

    fn take(&mut self, sign: char) -> bool {
        let is_next = self.peek() == Some(&Token::Sign(sign));
        self.at += usize::from(is_next);
        is_next
    }

    fn sum(&mut self) -> Result<Quotient, Problem> {
        let is_negative = self.take('-');
        if !is_negative {
            self.take('+');
        }
        let first = self.product()?;
        let mut sum = if is_negative { first.negated() } else { first };
        loop {
            let is_negative = match self.peek() {
                Some(Token::Sign('+')) => false,
                Some(Token::Sign('-')) => true,
                _ => return Ok(sum),
            };
            self.at += 1;
            let term = self.product()?;
            sum = sum.add(&if is_negative { term.negated() } else { term }).ok_or_else(too_large)?;
        }
    }

    fn product(&mut self) -> Result<Quotient, Problem> {
        let mut product = self.factor()?;
        let mut has_divided = false;
        loop {
            match self.peek() {
                Some(Token::Command(name)) if name == "cdot" => {
                    self.at += 1;
                    product = product.mul(&self.factor()?).ok_or_else(too_large)?;
                }
                Some(Token::Sign('/')) => {
                    if has_divided {
                        return Err("it divides twice".to_owned());
                    }
                    self.at += 1;
                    product = product.div(&self.factor()?).ok_or_else(too_large)?;
                    has_divided = true;
                    continue;
                }
                Some(token) if begins_factor(token) => {
                    self.check_implicit(has_divided)?;
                    product = product.mul(&self.factor()?).ok_or_else(too_large)?;
                }
                _ => return Ok(product),
            }
        }
    }

    /// Whether two things side by side can only mean their product.
    fn check_implicit(&self, has_divided: bool) -> Result<(), Problem> {
        let (before, next) = (&self.tokens[self.at - 1], &self.tokens[self.at]);
        if has_divided {
            return Err("it is not plain what is divided by".to_owned());
        }
        match (before, next) {
            (_, Token::Number(_)) => Err("a number follows without a sign".to_owned()),
            (Token::Number(_), Token::Command(name)) if name == "frac" => {
                Err("it is a mixed number or a product".to_owned())
            }
            (Token::Letter('f' | 'g' | 'h'), Token::Sign('(')) => {
                Err("it is a function or a product".to_owned())
            }
            (Token::Letter(a), Token::Letter(b)) if a.is_uppercase() && b.is_uppercase() => {
                Err("it is a name or a product".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn factor(&mut self) -> Result<Quotient, Problem> {
        let base = self.base()?;
        if !self.take('^') {
            return Ok(base);
        }
        if let Some(Token::Number(digits)) = self.peek()
            && digits.len() > 1
        {
            return Err("an exponent of several digits needs braces".to_owned());
        }
        let exponent = self.argument()?.as_constant().ok_or("an exponent is no number")?;
        if self.peek() == Some(&Token::Sign('^')) {
            return Err("it has a power of a power".to_owned());
        }
        let power = match exponent.denominator {
            1 => base.power(exponent.numerator),
            2 => base.root(2).and_then(|root| root.power(exponent.numerator)),
            _ => return Err("it has a root that is not square".to_owned()),
        };
        power.ok_or_else(too_large)
    }

    fn base(&mut self) -> Result<Quotient, Problem> {
        match self.next() {
            None => Err("something is missing".to_owned()),
            Some(Token::Number(digits)) => {
                Rational::decimal(&digits).map(Quotient::constant).ok_or_else(too_large)
            }
            Some(Token::Letter(letter)) => self.letter(letter.to_string()),
            Some(Token::Command(name)) if GREEK.contains(&&name[..]) => self.letter(name),
            Some(Token::Sign('(')) => self.until(')'),
            Some(Token::Sign('{')) => self.until('}'),
            Some(Token::Command(name)) if name == "frac" => {
                let (above, below) = (self.argument()?, self.argument()?);
                above.div(&below).ok_or_else(too_large)
            }
            Some(Token::Command(name)) if name == "sqrt" => self.root(),
            Some(token) => Err(unexpected(&token)),
        }
    }

    fn until(&mut self, close: char) -> Result<Quotient, Problem> {
        let value = self.sum()?;
        if self.take(close) {
            Ok(value)
        } else {
            Err(self.peek().map_or("a bracket is open".into(), unexpected))
        }
    }

    fn letter(&mut self, mut name: String) -> Result<Quotient, Problem> {
        if self.take('_') {
            match self.next() {
                Some(Token::Number(digits)) if digits.len() == 1 => name = format!("{name}_{digits}"),
                Some(Token::Letter(index)) => name = format!("{name}_{index}"),
                _ => return Err("an index is not understood".to_owned()),
            }
        }
        Ok(Quotient::letter(&name))
    }

    fn root(&mut self) -> Result<Quotient, Problem> {
        let mut degree = 2;
        if self.take('[') {
            degree = match self.next() {
                Some(Token::Number(digits)) => digits.parse().ok().filter(|degree| (2..=64).contains(degree)),
                _ => None,
            }
            .ok_or("the degree of a root is not understood")?;
            if !self.take(']') {
                return Err("the degree of a root is not understood".to_owned());
            }
        }
        let radicand = self.argument()?;
        radicand.root(degree).ok_or_else(|| "it has a root that is not simple".to_owned())
    }

    /// The argument of a command: in braces, or one digit, letter or command.
    fn argument(&mut self) -> Result<Quotient, Problem> {
        match self.peek().cloned() {
            Some(Token::Sign('{')) => self.base(),
            Some(Token::Letter(letter)) => {
                self.at += 1;
                Ok(Quotient::letter(&letter.to_string()))
            }
            Some(Token::Command(name)) if GREEK.contains(&&name[..]) => self.base(),
            // `\frac12` is 1/2: an argument without braces is one digit.
            Some(Token::Number(digits)) if digits.chars().all(|c| c.is_ascii_digit()) => {
                let (first, rest) = digits.split_at(1);
                match rest {
                    "" => self.at += 1,
                    rest => self.tokens[self.at] = Token::Number(rest.to_owned()),
                }
                Rational::decimal(first).map(Quotient::constant).ok_or_else(too_large)
            }
            _ => Err("the argument of a command is not understood".to_owned()),
        }
    }
}

fn begins_factor(token: &Token) -> bool {
    match token {
        Token::Number(_) | Token::Letter(_) | Token::Sign('(' | '{') => true,
        Token::Command(name) => ["frac", "sqrt"].contains(&&name[..]) || GREEK.contains(&&name[..]),
        _ => false,
    }
}
