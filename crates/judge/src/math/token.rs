//! An answer as tokens: numbers, letters, commands, words and signs, without what LaTeX adds for the eye.

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Digits, with a point between or before them.
    Number(String),
    /// A letter that stands for a quantity.
    Letter(char),
    /// The name of a command: `frac`, `sqrt`, `pi`, `{` for `\{`.
    Command(String),
    /// Words: in plain letters, or the argument of `\text`.
    Words(String),
    /// Any other character.
    Sign(char),
}

/// Commands that say how something looks.
const LOOK: [&str; 20] = [
    "left",
    "right",
    "big",
    "Big",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "bigg",
    "Bigg",
    "biggl",
    "biggr",
    "quad",
    "qquad",
    "displaystyle",
    "textstyle",
    "limits",
    "middle",
    "hfill",
    "rm",
];
/// Commands whose argument is text.
const TEXT: [&str; 11] = [
    "text",
    "textbf",
    "textit",
    "textrm",
    "textsf",
    "mbox",
    "mathrm",
    "hbox",
    "operatorname",
    "textnormal",
    "textup",
];
/// Commands whose argument stands for itself.
const TRANSPARENT: [&str; 6] = ["boxed", "fbox", "mathbf", "boldsymbol", "ensuremath", "mathit"];
/// Letters that two of which, side by side, are a product. Others make words: `no`, `is`, `AB`.
const FACTORS: &str = "abckmnpqrtuvwxyz";

/// The tokens of an answer; none for an empty one.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let text = one_spelling(text);
    let chars: Vec<char> = with_plain_thousands(strip(&text)).chars().collect();
    let mut tokens = Vec::new();
    cut(&chars, &mut tokens);
    // `12.` ends a sentence.
    while matches!(tokens.last(), Some(Token::Sign('.' | ',' | ';'))) {
        tokens.pop();
    }
    tokens
}

/// One character for what can be written with several.
fn one_spelling(text: &str) -> String {
    let mut spelt = String::new();
    for c in text.chars() {
        match c {
            '\u{2212}' | '\u{2010}'..='\u{2013}' => spelt.push('-'),
            '×' | '·' | '⋅' | '*' => spelt.push_str("\\cdot "),
            '÷' => spelt.push('/'),
            'π' => spelt.push_str("\\pi "),
            '∞' => spelt.push_str("\\infty "),
            '∪' => spelt.push_str("\\cup "),
            '√' => spelt.push_str("\\sqrt "),
            '°' => spelt.push_str("^\\circ "),
            c if c.is_whitespace() => spelt.push(' '),
            c => spelt.push(c),
        }
    }
    spelt
}

/// Without the dollars or brackets of mathematics around all of it, and a closing point.
fn strip(text: &str) -> &str {
    let mut text = text.trim().trim_end_matches('.').trim();
    for (open, close) in [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")] {
        if let Some(inner) = text.strip_prefix(open).and_then(|text| text.strip_suffix(close))
            && !inner.ends_with('\\')
        {
            text = inner.trim();
        }
    }
    text.trim_end_matches('.').trim()
}

/// `1,234`, `1{,}234`, `1\,234` and `1,\!234` are 1234; in brackets a bare comma parts two numbers.
fn with_plain_thousands(text: &str) -> String {
    let mut text = text.replace("\\!", "").replace("{,}", "\u{1}");
    for at in text.match_indices("\\,").map(|(at, _)| at).collect::<Vec<_>>().into_iter().rev() {
        let joins = ends_in_group(&text[..at]) && begins_with_group(&text[at + 2..]);
        text.replace_range(at..at + 2, if joins { "\u{1}" } else { " " });
    }
    // The whole answer must begin so: otherwise a list is as likely.
    let sign = text.len() - text.trim_start_matches(['-', '+', '$', '\\', ' ']).len();
    let run =
        text[sign..].find(|c: char| !c.is_ascii_digit() && c != ',').unwrap_or(text.len() - sign) + sign;
    let groups: Vec<&str> = text[sign..run].split(',').collect();
    let is_grouped = groups.len() > 1
        && (1..=3).contains(&groups[0].len())
        && !groups[0].starts_with('0')
        && groups[1..].iter().all(|group| group.len() == 3);
    if is_grouped {
        text = format!("{}{}{}", &text[..sign], groups.concat(), &text[run..]);
    }
    text.replace('\u{1}', "")
}

fn ends_in_group(text: &str) -> bool {
    let digits = text.chars().rev().take_while(char::is_ascii_digit).count();
    (1..=3).contains(&digits)
}

fn begins_with_group(text: &str) -> bool {
    text.chars().take_while(char::is_ascii_digit).count() == 3
}

fn cut(chars: &[char], tokens: &mut Vec<Token>) {
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let rest = &chars[at..];
        at += match c {
            ' ' | '~' | '$' => 1,
            '\\' => command(rest, tokens),
            '.' | '0'..='9' if rest.iter().any(char::is_ascii_digit) && number(rest) > 0 => {
                let length = number(rest);
                tokens.push(Token::Number(rest[..length].iter().collect()));
                length
            }
            c if c.is_alphabetic() => {
                let word: String = rest.iter().take_while(|c| c.is_alphabetic()).collect();
                letters(&word, tokens);
                word.chars().count()
            }
            c => {
                tokens.push(Token::Sign(c));
                1
            }
        };
    }
}

/// The length of the number that `chars` begin with, 0 where it is none.
fn number(chars: &[char]) -> usize {
    let digits = |from: usize| chars[from..].iter().take_while(|c| c.is_ascii_digit()).count();
    let whole = digits(0);
    match chars.get(whole) {
        Some('.') if digits(whole + 1) > 0 => whole + 1 + digits(whole + 1),
        _ => whole,
    }
}

fn letters(word: &str, tokens: &mut Vec<Token>) {
    let is_product = word.chars().all(|c| FACTORS.contains(c)) && word.len() <= 2 && !UNITS.contains(&word);
    if word.chars().count() == 1 || is_product {
        tokens.extend(word.chars().map(Token::Letter));
    } else {
        push_words(word, tokens);
    }
}

/// Units of two letters that could be products.
const UNITS: [&str; 6] = ["cm", "mm", "km", "kg", "am", "pm"];

fn push_words(words: &str, tokens: &mut Vec<Token>) {
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match tokens.last_mut() {
        _ if words.is_empty() => {}
        Some(Token::Words(before)) => *before = format!("{before} {words}"),
        _ => tokens.push(Token::Words(words)),
    }
}

/// The tokens of the command that `chars` begin with; how many characters it takes.
fn command(chars: &[char], tokens: &mut Vec<Token>) -> usize {
    let name: String = chars[1..].iter().take_while(|c| c.is_ascii_alphabetic()).collect();
    let mut end = 1 + name.len();
    if name.is_empty() {
        match chars.get(1) {
            Some(',' | ';' | ':' | ' ' | '!' | '(' | ')' | '[' | ']') => {}
            Some('%') => tokens.push(Token::Sign('%')),
            Some(c) => tokens.push(Token::Command(c.to_string())),
            None => tokens.push(Token::Sign('\\')),
        }
        return 2.min(chars.len());
    }
    if LOOK.contains(&name.as_str()) {
        // `\left.` opens nothing.
        return end + usize::from(["left", "right"].contains(&name.as_str()) && chars.get(end) == Some(&'.'));
    }
    let is_text = TEXT.contains(&name.as_str());
    if is_text || TRANSPARENT.contains(&name.as_str()) || name == "begin" || name == "end" {
        end += chars[end..].iter().take_while(|c| **c == ' ').count();
        if let Some(length) = argument(&chars[end..]) {
            let inner = &chars[end + 1..end + 1 + length];
            let text: String = inner.iter().collect();
            match &name[..] {
                "begin" | "end" => tokens.push(Token::Command(format!("{name} {text}"))),
                _ if is_text => words(&text, tokens),
                _ => cut(inner, tokens),
            }
            return end + length + 2;
        }
    }
    tokens.push(Token::Command(match &name[..] {
        "dfrac" | "tfrac" | "cfrac" => "frac".to_owned(),
        "times" | "ast" => "cdot".to_owned(),
        "lbrace" => "{".to_owned(),
        "rbrace" => "}".to_owned(),
        "varnothing" => "emptyset".to_owned(),
        _ => name,
    }));
    end
}

/// Text of a command: words, or what else it holds.
fn words(text: &str, tokens: &mut Vec<Token>) {
    let inner = text.trim();
    let letter = inner.trim_start_matches('(').trim_end_matches(')');
    if letter.chars().count() == 1 && letter.chars().all(char::is_uppercase) {
        tokens.extend(letter.chars().map(Token::Letter));
    } else if inner.chars().all(|c| c.is_alphabetic() || " '-./".contains(c)) {
        push_words(inner, tokens);
    } else {
        cut(&inner.chars().collect::<Vec<_>>(), tokens);
    }
}

/// The length of what stands in the braces that `chars` begin with.
fn argument(chars: &[char]) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in chars.iter().enumerate() {
        match c {
            '{' if at == 0 || chars[at - 1] != '\\' => depth += 1,
            '}' if chars[at.saturating_sub(1)] != '\\' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (at > 0).then(|| at - 1);
        }
    }
    None
}
