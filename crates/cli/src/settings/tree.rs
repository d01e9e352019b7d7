//! A TOML tree in which every key and value remembers where it was written.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::SettingsError;
use super::overrides::TEMPLATES;

/// Where a key or value was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Origin {
    /// Bytes of the recipe.
    File(Range<usize>),
    /// The place of the override among those given.
    CommandLine { index: usize },
    /// Nowhere: it is there by default.
    Default,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub value: Value,
    pub origin: Origin,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(BTreeMap<String, Entry>),
    /// What the command line said, kept as typed beside its TOML meaning: `--name=2024` may be meant as a string.
    Typed {
        text: String,
        value: Box<Value>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key_origin: Origin,
    pub node: Node,
}

impl Entry {
    pub fn default_string(text: &str) -> Entry {
        Entry {
            key_origin: Origin::Default,
            node: Node { value: Value::String(text.to_string()), origin: Origin::Default },
        }
    }
}

impl Node {
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Table(entries) => entries.get(key),
            _ => None,
        }
    }

    /// The node under nested tables, if all of them are there.
    pub fn descend_mut(&mut self, path: &[String]) -> Option<&mut Node> {
        path.iter().try_fold(self, |node, key| match &mut node.value {
            Value::Table(entries) => entries.get_mut(key).map(|entry| &mut entry.node),
            _ => None,
        })
    }

    /// What a message calls this value.
    pub fn describe(&self) -> String {
        self.value.describe()
    }
}

impl Value {
    fn describe(&self) -> String {
        match self {
            Value::String(text) => format!("the string `{text}`"),
            Value::Integer(number) => format!("the number `{number}`"),
            Value::Float(number) => format!("the number `{number:?}`"),
            Value::Boolean(truth) => format!("`{truth}`"),
            Value::Datetime(text) => format!("the date `{text}`"),
            Value::Array(_) => "an array".to_string(),
            Value::Table(_) => "a table".to_string(),
            Value::Typed { value, .. } => value.describe(),
        }
    }

    /// The value as TOML means it.
    pub fn plain(&self) -> &Value {
        match self {
            Value::Typed { value, .. } => value,
            value => value,
        }
    }
}

/// Text that is not TOML, or a number that no setting can hold.
#[derive(Debug)]
pub(super) struct SyntaxFault {
    pub message: String,
    pub span: Range<usize>,
}

/// The top-level entries of a recipe.
pub(super) fn parse_document(text: &str) -> Result<BTreeMap<String, Entry>, SyntaxFault> {
    // An editor's byte order mark is blanked, not cut, so that spans still count bytes of the file.
    let blanked = text.strip_prefix('\u{feff}').map(|rest| format!("   {rest}"));
    let table = DeTable::parse(blanked.as_deref().unwrap_or(text)).map_err(|error| SyntaxFault {
        message: error.message().trim_end().replace('\n', ", "),
        span: error.span().unwrap_or(0..0),
    })?;
    entries(table.into_inner(), &Origin::File)
}

/// The value of an override: TOML where it is TOML, otherwise the text itself, with the escapes of a template read.
pub(super) fn parse_override(text: &str, is_template: bool, index: usize) -> Node {
    let origin = Origin::CommandLine { index };
    let parsed = DeValue::parse(text).ok().and_then(|value| node(value, &|_| origin.clone()).ok());
    let value = match parsed.map(|node| node.value) {
        None if is_template => Value::String(unescape(text)),
        None => Value::String(text.to_string()),
        Some(value @ (Value::String(_) | Value::Array(_) | Value::Table(_))) => value,
        Some(value) => Value::Typed { text: text.to_string(), value: Box::new(value) },
    };
    Node { value, origin }
}

/// Text as it is typed in a shell, which knows no escapes: `\n`, `\t` and `\r` are line feed, tab and carriage return,
/// `\\` a backslash. Any other backslash stands for itself.
pub fn unescape(text: &str) -> String {
    let mut unescaped = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let meant = match (c, rest.peek()) {
            ('\\', Some('n')) => Some('\n'),
            ('\\', Some('t')) => Some('\t'),
            ('\\', Some('r')) => Some('\r'),
            ('\\', Some('\\')) => Some('\\'),
            _ => None,
        };
        if meant.is_some() {
            rest.next();
        }
        unescaped.push(meant.unwrap_or(c));
    }
    unescaped
}

/// The path that a text means which begins with `~/`; none for any other text.
///
/// # Errors
/// When there is no home directory.
pub fn at_home(text: &str) -> Result<Option<String>, SettingsError> {
    let Some(rest) = text.strip_prefix("~/") else { return Ok(None) };
    match std::env::var("HOME") {
        Ok(home) if !home.is_empty() => Ok(Some(format!("{}/{rest}", home.trim_end_matches('/')))),
        _ => Err(SettingsError::NoHome),
    }
}

/// Puts the home directory into every text that begins with `~/` and is no template.
pub(super) fn expand_home(node: &mut Node) -> Result<(), SettingsError> {
    match &mut node.value {
        Value::String(text) => {
            if let Some(expanded) = at_home(text)? {
                *text = expanded;
            }
        }
        Value::Array(items) => items.iter_mut().try_for_each(expand_home)?,
        Value::Table(entries) => {
            let paths = entries.iter_mut().filter(|(key, _)| !TEMPLATES.contains(&key.as_str()));
            paths.map(|(_, entry)| &mut entry.node).try_for_each(expand_home)?;
        }
        _ => {}
    }
    Ok(())
}

/// Settings of which only one can be given.
const ALTERNATIVES: [&[&str]; 3] = [
    &["steps", "tokens", "epochs"],
    &["warmup_steps", "warmup_fraction"],
    &["decay_steps", "decay_fraction"],
];

/// The settings that cannot be given beside `key`.
pub(super) fn alternatives(key: &str) -> impl Iterator<Item = &'static str> {
    let groups = ALTERNATIVES.into_iter().filter(move |group| group.contains(&key));
    groups.flatten().copied().filter(move |other| *other != key)
}

/// Fills up the tables inside `node` with what they have by default, so that to give one setting of a table changes
/// that one alone. Tables that are left out stay out.
pub(super) fn fill_tables(node: &mut Node, defaults: &toml::Table) {
    let Value::Table(entries) = &mut node.value else { return };
    for (key, default) in defaults {
        let (Some(entry), toml::Value::Table(default)) = (entries.get_mut(key), default) else { continue };
        fill_tables(&mut entry.node, default);
        let Value::Table(inside) = &mut entry.node.value else { continue };
        for (key, default) in default {
            if !inside.contains_key(key) && !alternatives(key).any(|other| inside.contains_key(other)) {
                inside
                    .insert(key.clone(), Entry { key_origin: Origin::Default, node: default_node(default) });
            }
        }
    }
}

fn default_node(value: &toml::Value) -> Node {
    let value = match value {
        toml::Value::String(text) => Value::String(text.clone()),
        toml::Value::Integer(number) => Value::Integer((*number).into()),
        toml::Value::Float(number) => Value::Float(*number),
        toml::Value::Boolean(truth) => Value::Boolean(*truth),
        toml::Value::Datetime(date) => Value::Datetime(date.to_string()),
        toml::Value::Array(items) => Value::Array(items.iter().map(default_node).collect()),
        toml::Value::Table(table) => {
            let entry = |value| Entry { key_origin: Origin::Default, node: default_node(value) };
            Value::Table(table.iter().map(|(key, value)| (key.clone(), entry(value))).collect())
        }
    };
    Node { value, origin: Origin::Default }
}

fn entries(
    table: DeTable<'_>,
    origin: &impl Fn(Range<usize>) -> Origin,
) -> Result<BTreeMap<String, Entry>, SyntaxFault> {
    table
        .into_iter()
        .map(|(key, value)| {
            let key_origin = origin(key.span());
            Ok((key.into_inner().into_owned(), Entry { key_origin, node: node(value, origin)? }))
        })
        .collect()
}

fn node(value: Spanned<DeValue<'_>>, origin: &impl Fn(Range<usize>) -> Origin) -> Result<Node, SyntaxFault> {
    let span = value.span();
    let too_large = |number: &dyn std::fmt::Display| SyntaxFault {
        message: format!("the number `{number}` is too large"),
        span: span.clone(),
    };
    let value = match value.into_inner() {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(number) => Value::Integer(
            i128::from_str_radix(number.as_str(), number.radix())
                .ok()
                .filter(|&n| i128::from(i64::MIN) <= n && n <= i128::from(u64::MAX))
                .ok_or_else(|| too_large(&number))?,
        ),
        DeValue::Float(number) => {
            let parsed: f64 = number.as_str().parse().map_err(|_| too_large(&number))?;
            if parsed.is_infinite() && !number.as_str().contains("inf") {
                return Err(too_large(&number));
            }
            Value::Float(parsed)
        }
        DeValue::Boolean(truth) => Value::Boolean(truth),
        DeValue::Datetime(date) => Value::Datetime(date.to_string()),
        DeValue::Array(items) => {
            Value::Array(items.into_iter().map(|item| node(item, origin)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => Value::Table(entries(table, origin)?),
    };
    Ok(Node { value, origin: origin(span) })
}
