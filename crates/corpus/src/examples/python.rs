//! Values as Python writes them: the templates that come with models were made for it.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// `str(value)`: what `{{ value }}` prints.
pub(super) fn str(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::String => value.as_str().unwrap_or_default().to_owned(),
        _ => repr(value),
    }
}

/// What Python takes for white space: Unicode's, and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `strip()`, of the ends that are asked for.
pub(super) fn strip(text: &str, start: bool, end: bool) -> &str {
    let text = if start { text.trim_start_matches(is_space) } else { text };
    if end { text.trim_end_matches(is_space) } else { text }
}

/// The methods of text that depend on what white space is; `None` for all others, and where they are given what to look
/// for.
pub(super) fn method(value: &Value, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let text = value.as_str().filter(|_| args.is_empty())?;
    Some(Ok(match method {
        "strip" => strip(text, true, true).into(),
        "lstrip" => strip(text, true, false).into(),
        "rstrip" => strip(text, false, true).into(),
        "split" => text.split(is_space).filter(|part| !part.is_empty()).map(Value::from).collect(),
        "isspace" => (!text.is_empty() && text.chars().all(is_space)).into(),
        _ => return None,
    }))
}

/// `repr(value)`, as inside of a list.
fn repr(value: &Value) -> String {
    let list = |open: &str, close: &str| {
        let items: Vec<String> = value.try_iter().into_iter().flatten().map(|item| repr(&item)).collect();
        format!("{open}{}{close}", items.join(", "))
    };
    match value.kind() {
        ValueKind::Undefined => "Undefined".into(),
        ValueKind::None => "None".into(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.into(),
        ValueKind::Number if !value.is_integer() => float(value),
        ValueKind::String => quote(value.as_str().unwrap_or_default()),
        ValueKind::Seq if value.is_tuple() => list("(", ")"),
        ValueKind::Seq | ValueKind::Iterable => list("[", "]"),
        ValueKind::Map => {
            let pair =
                |key: Value| format!("{}: {}", repr(&key), repr(&value.get_item(&key).unwrap_or_default()));
            let items: Vec<String> = value.try_iter().into_iter().flatten().map(pair).collect();
            format!("{{{}}}", items.join(", "))
        }
        _ => value.to_string(),
    }
}

/// A string as a literal: in single quotes, unless it has some and no double ones.
fn quote(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 || c == '\x7F' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// The shortest digits that read back as the same number; an exponent below 1e-4 and from 1e16 on.
fn float(value: &Value) -> String {
    let Ok(number) = f64::try_from(value.clone()) else { return value.to_string() };
    if !number.is_finite() {
        return number.to_string().to_lowercase();
    }
    let written = format!("{number:e}");
    let (digits, exponent) = written.split_once('e').expect("an exponent was asked for");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    if number == 0.0 || (-4..16).contains(&exponent) {
        return format!("{number:?}");
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// The filter `tojson` as `transformers` defines it: `json.dumps` with `ensure_ascii = False`, and the order of keys
/// kept.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent = options.get::<Option<usize>>("indent")?;
    let separators = match options.get::<Option<Vec<String>>>("separators")? {
        None => [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
        Some(separators) => separators
            .try_into()
            .map_err(|_| Error::new(ErrorKind::InvalidOperation, "tojson needs two separators"))?,
    };
    let json = Json {
        indent,
        separators,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    let mut out = String::new();
    json.write(&mut out, value, 0)?;
    Ok(out)
}

struct Json {
    indent: Option<usize>,
    /// Between items, and between a key and its value.
    separators: [String; 2],
    ascii: bool,
    sorted: bool,
}

impl Json {
    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
            ValueKind::Number => out.push_str(&match float(value).as_str() {
                "nan" => "NaN".to_owned(),
                "inf" => "Infinity".to_owned(),
                "-inf" => "-Infinity".to_owned(),
                number => number.to_owned(),
            }),
            ValueKind::String => self.quote(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.all(out, ['[', ']'], &items, depth, |out, item| self.write(out, item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.all(out, ['{', '}'], &keys, depth, |out, key| {
                    match key.as_str() {
                        Some(key) => self.quote(out, key),
                        // Python writes keys that are no strings as the strings of their JSON.
                        None => {
                            out.push('"');
                            self.write(out, key, depth + 1)?;
                            out.push('"');
                        }
                    }
                    out.push_str(&self.separators[1]);
                    self.write(out, &value.get_item(key)?, depth + 1)
                })?;
            }
            kind => {
                let message = format!("tojson cannot write what is {kind}");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    fn all(
        &self,
        out: &mut String,
        [open, close]: [char; 2],
        items: &[Value],
        depth: usize,
        write: impl Fn(&mut String, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = self.indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent * depth));
            }
        };
        out.push(open);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(&self.separators[0]);
            }
            line(out, depth + 1);
            write(out, item)?;
        }
        if !items.is_empty() {
            line(out, depth);
        }
        out.push(close);
        Ok(())
    }

    fn quote(&self, out: &mut String, text: &str) {
        let quoted = serde_json::Value::from(text).to_string();
        if !self.ascii {
            return out.push_str(&quoted);
        }
        for c in quoted.chars() {
            match c {
                ' '..='~' => out.push(c),
                c => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
            }
        }
    }
}

/// `strftime` of midnight of 26 July 2024, a Friday; `None` where the format asks for more than its date and time.
pub(super) fn fixed_day(format: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = rest.next()?;
        // A dash leaves zeros in front out.
        let (directive, bare) = if directive == '-' { (rest.next()?, true) } else { (directive, false) };
        let text = match directive {
            'd' | 'e' => "26",
            'b' | 'h' => "Jul",
            'B' => "July",
            'm' => "07",
            'Y' => "2024",
            'y' => "24",
            'a' => "Fri",
            'A' => "Friday",
            'j' => "208",
            'u' | 'w' => "5",
            'H' | 'M' | 'S' => "00",
            'I' => "12",
            'p' => "AM",
            'F' => "2024-07-26",
            'D' | 'x' => "07/26/24",
            'T' | 'X' => "00:00:00",
            '%' => "%",
            _ => return None,
        };
        match text.trim_start_matches('0') {
            "" if bare => out.push('0'),
            short if bare => out.push_str(short),
            _ => out.push_str(text),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `print(str(x))` and `print(json.dumps(x, ensure_ascii=False))` of Python 3.12.
    #[test]
    fn values_are_written_as_python_writes_them() {
        let check = |json: &str, printed: &str, dumped: &str| {
            let value: Value = serde_json::from_str(json).unwrap();
            assert_eq!(str(&value), printed);
            let mut out = String::new();
            let plain =
                Json { indent: None, separators: [", ".into(), ": ".into()], ascii: false, sorted: false };
            plain.write(&mut out, &value, 0).unwrap();
            assert_eq!(out, dumped);
        };
        check("null", "None", "null");
        check("true", "True", "true");
        check("1.0", "1.0", "1.0");
        check("1e16", "1e+16", "1e+16");
        check("123456789012345.6", "123456789012345.6", "123456789012345.6");
        check("0.00001", "1e-05", "1e-05");
        check("0.0001", "0.0001", "0.0001");
        check("-0.0", "-0.0", "-0.0");
        check("18446744073709551615", "18446744073709551615", "18446744073709551615");
        check(
            r#"{"b": [1, "é'\n", {}], "a": "\"'"}"#,
            r#"{'b': [1, "é'\n", {}], 'a': '"\''}"#,
            r#"{"b": [1, "é'\n", {}], "a": "\"'"}"#,
        );
        check(r#""plain é""#, "plain é", r#""plain é""#);
    }

    #[test]
    fn the_day_is_always_the_same() {
        assert_eq!(fixed_day("%d %b %Y, %d-%B-%Y, %-m %-H%%").unwrap(), "26 Jul 2024, 26-July-2024, 7 0%");
        assert_eq!(fixed_day("%Z"), None);
        assert_eq!(fixed_day("%"), None);
    }
}
