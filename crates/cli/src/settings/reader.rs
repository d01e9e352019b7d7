//! Reads typed settings from the tree, and keeps what went wrong as facts instead of words.
//!
//! serde hands its complaints (`unknown_field`, `invalid_type`, ...) to the error type as data. A deserializer of our
//! own keeps that data, together with the path it was at, so nothing has to be parsed back out of a message.

use std::collections::btree_map;
use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, StringDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};

use super::tree::{Entry, Node, Value};

/// Reads a `T` from the table `root`.
pub(super) fn read<T: DeserializeOwned>(root: &Node) -> Result<T, Fault> {
    T::deserialize(root)
}

/// What went wrong, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub kind: FaultKind,
    /// From the leaf to the root: each level adds its step on the way out.
    steps_outwards: Vec<Step>,
}

#[derive(Debug)]
pub(super) enum FaultKind {
    UnknownKey { name: String, allowed: &'static [&'static str] },
    UnknownChoice { found: String, allowed: &'static [&'static str] },
    Missing { name: &'static str },
    Type { found: Found, expected: String },
    Invalid { message: String },
}

/// One step down the tree.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The value serde did not want.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    Boolean(bool),
    Integer(i128),
    Float(f64),
    String(String),
    Other(String),
}

impl Fault {
    /// From the root to the leaf.
    pub fn path(&self) -> Vec<Step> {
        self.steps_outwards.iter().rev().cloned().collect()
    }

    pub fn unknown_key(table: &[Step], name: &str, allowed: &'static [&'static str]) -> Fault {
        let kind = FaultKind::UnknownKey { name: name.to_string(), allowed };
        Fault { kind, steps_outwards: table.iter().rev().cloned().collect() }
    }

    fn new(kind: FaultKind) -> Fault {
        Fault { kind, steps_outwards: Vec::new() }
    }

    fn under(mut self, step: Step) -> Fault {
        self.steps_outwards.push(step);
        self
    }
}

/// `section.key[2].key`, as messages name a setting.
pub(super) fn dotted(section: &str, path: &[Step]) -> String {
    path.iter().fold(section.to_string(), |text, step| match step {
        Step::Key(key) => format!("{text}.{key}"),
        Step::Index(index) => format!("{text}[{index}]"),
    })
}

/// The path as keys, or `None` when it leads through an array.
pub(super) fn names(path: &[Step]) -> Option<Vec<String>> {
    path.iter()
        .map(|step| match step {
            Step::Key(key) => Some(key.clone()),
            Step::Index(_) => None,
        })
        .collect()
}

/// The node a fault is about, with its path.
///
/// Inside a tagged enum serde reads from a copy of its own, so the fault's path ends at the enum's table. The culprit
/// is then searched below that table, and taken if it is the only one that fits.
pub(super) fn refine<'a>(root: &'a Node, fault: &Fault) -> (Vec<Step>, &'a Node) {
    let mut path = Vec::new();
    let mut node = root;
    for step in fault.path() {
        let next = match (&node.value, &step) {
            (Value::Table(entries), Step::Key(key)) => entries.get(key).map(|entry| &entry.node),
            (Value::Array(items), Step::Index(index)) => items.get(*index),
            _ => None,
        };
        let Some(next) = next else { break };
        node = next;
        path.push(step);
    }
    let fits = |candidate: &Node| match &fault.kind {
        FaultKind::UnknownKey { name, .. } => candidate.entry(name).is_some(),
        FaultKind::UnknownChoice { found, .. } => Found::String(found.clone()).is(candidate),
        FaultKind::Type { found, .. } => found.is(candidate),
        FaultKind::Missing { .. } | FaultKind::Invalid { .. } => false,
    };
    if !fits(node) {
        let mut matches = Vec::new();
        search(node, &mut path.clone(), &fits, &mut matches);
        if let [only] = &mut matches[..] {
            return std::mem::replace(only, (Vec::new(), node));
        }
    }
    (path, node)
}

fn search<'a>(
    node: &'a Node,
    path: &mut Vec<Step>,
    fits: &impl Fn(&Node) -> bool,
    matches: &mut Vec<(Vec<Step>, &'a Node)>,
) {
    let mut visit = |step: Step, child: &'a Node| {
        path.push(step);
        if fits(child) {
            matches.push((path.clone(), child));
        }
        search(child, path, fits, matches);
        path.pop();
    };
    match &node.value {
        Value::Table(entries) => {
            entries.iter().for_each(|(key, entry)| visit(Step::Key(key.clone()), &entry.node));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| visit(Step::Index(index), item));
        }
        _ => {}
    }
}

impl Found {
    fn new(unexpected: Unexpected) -> Found {
        match unexpected {
            Unexpected::Bool(truth) => Found::Boolean(truth),
            Unexpected::Unsigned(number) => Found::Integer(i128::from(number)),
            Unexpected::Signed(number) => Found::Integer(i128::from(number)),
            Unexpected::Float(number) => Found::Float(number),
            Unexpected::Str(text) => Found::String(text.to_string()),
            Unexpected::Seq => Found::Other("an array".to_string()),
            Unexpected::Map | Unexpected::StructVariant => Found::Other("a table".to_string()),
            Unexpected::UnitVariant | Unexpected::NewtypeVariant | Unexpected::TupleVariant => {
                Found::Other("a name alone".to_string())
            }
            other => Found::Other(other.to_string()),
        }
    }

    fn is(&self, node: &Node) -> bool {
        match (self, node.value.plain()) {
            (Found::Boolean(found), Value::Boolean(truth)) => found == truth,
            (Found::Integer(found), Value::Integer(number)) => found == number,
            (Found::Float(found), Value::Float(number)) => found.to_bits() == number.to_bits(),
            (Found::String(found), Value::String(text)) => found == text,
            (Found::Other(found), _) => *found == node.describe(),
            _ => false,
        }
    }

    /// What a message calls this value.
    pub fn describe(&self) -> String {
        match self {
            Found::Boolean(truth) => format!("`{truth}`"),
            Found::Integer(number) => format!("the number `{number}`"),
            Found::Float(number) => format!("the number `{number:?}`"),
            Found::String(text) => format!("the string `{text}`"),
            Found::Other(description) => description.clone(),
        }
    }
}

/// serde's words for what it wanted, in the words of a recipe.
fn expected_words(expected: &dyn Expected) -> String {
    let words = expected.to_string();
    match words.as_str() {
        "f32" | "f64" => "a number".to_string(),
        "u8" | "u16" | "u32" | "u64" | "usize" => format!("a whole number from 0 to {}", largest(&words)),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_string(),
        "a nonzero u8" | "a nonzero u16" | "a nonzero u32" | "a nonzero u64" | "a nonzero usize" => {
            "a whole number, 1 or more".to_string()
        }
        "a boolean" => "`true` or `false`".to_string(),
        "a sequence" => "an array".to_string(),
        "path string" => "a string with a path".to_string(),
        "a map" => "a table".to_string(),
        _ if words.starts_with("struct ") => "a table".to_string(),
        _ if words.contains("tagged enum ") => "a table with a `kind`".to_string(),
        _ if words.starts_with("enum ") => "a name".to_string(),
        _ => words,
    }
}

fn largest(unsigned: &str) -> u64 {
    match unsigned {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        _ => u64::MAX,
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never shown: `Recipe::explain` turns every fault into a `SettingsError`. serde asks for it all the same.
        write!(f, "{:?} at {:?}", self.kind, self.path())
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<M: fmt::Display>(message: M) -> Fault {
        Fault::new(FaultKind::Invalid { message: message.to_string() })
    }

    fn invalid_type(unexpected: Unexpected, expected: &dyn Expected) -> Fault {
        Fault::new(FaultKind::Type { found: Found::new(unexpected), expected: expected_words(expected) })
    }

    fn invalid_value(unexpected: Unexpected, expected: &dyn Expected) -> Fault {
        Fault::invalid_type(unexpected, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Fault {
        Fault::custom(format_args!("it has {length} elements, not {expected}"))
    }

    fn unknown_variant(variant: &str, allowed: &'static [&'static str]) -> Fault {
        Fault::new(FaultKind::UnknownChoice { found: variant.to_string(), allowed })
    }

    fn unknown_field(field: &str, allowed: &'static [&'static str]) -> Fault {
        Fault::new(FaultKind::UnknownKey { name: field.to_string(), allowed })
    }

    fn missing_field(field: &'static str) -> Fault {
        Fault::new(FaultKind::Missing { name: field })
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value.plain() {
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => match i64::try_from(*number) {
                Ok(number) => visitor.visit_i64(number),
                Err(_) => visitor.visit_u64(u64::try_from(*number).expect("the parser admits 64 bits only")),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(truth) => visitor.visit_bool(*truth),
            Value::Datetime(_) => Err(de::Error::invalid_type(Unexpected::Other(&self.describe()), &visitor)),
            Value::Array(items) => visit_array(items, visitor),
            Value::Table(entries) => visitor.visit_map(Entries { rest: entries.iter(), pending: None }),
            Value::Typed { .. } => unreachable!("a typed value holds a plain one"),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Typed { text, .. } => visitor.visit_borrowed_str(text),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.value {
            Value::String(text) => visitor.visit_enum(BorrowedStrDeserializer::new(text)),
            Value::Typed { text, .. } => visitor.visit_enum(BorrowedStrDeserializer::new(text)),
            Value::Table(entries) if entries.len() == 1 => {
                let (key, entry) = entries.iter().next().expect("the table has one entry");
                visitor.visit_enum(Variant { key, entry })
            }
            _ => Err(de::Error::invalid_type(Unexpected::Other(&self.describe()), &visitor)),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

fn visit_array<'de, V: Visitor<'de>>(items: &'de [Node], visitor: V) -> Result<V::Value, Fault> {
    let mut elements = Elements { items, next: 0 };
    let value = visitor.visit_seq(&mut elements)?;
    if elements.next < items.len() {
        return Err(de::Error::custom(format_args!(
            "it has {} elements, not {}",
            items.len(),
            elements.next
        )));
    }
    Ok(value)
}

struct Elements<'de> {
    items: &'de [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for &mut Elements<'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        let step = Step::Index(self.next);
        self.next += 1;
        seed.deserialize(item).map(Some).map_err(|fault| fault.under(step))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

struct Entries<'de> {
    rest: btree_map::Iter<'de, String, Entry>,
    /// The entry whose key was read and whose value comes next.
    pending: Option<(&'de String, &'de Entry)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.pending = self.rest.next();
        match self.pending {
            Some((key, _)) => seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let (key, entry) = self.pending.take().expect("serde asks for a key before its value");
        seed.deserialize(&entry.node).map_err(|fault| fault.under(Step::Key(key.clone())))
    }
}

/// `{ name = content }`: an enum variant with content.
struct Variant<'de> {
    key: &'de String,
    entry: &'de Entry,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Fault;
    type Variant = Variant<'de>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Variant<'de>), Fault> {
        let name = seed.deserialize(StringDeserializer::new(self.key.clone()))?;
        Ok((name, self))
    }
}

impl Variant<'_> {
    fn locate(&self) -> impl FnOnce(Fault) -> Fault + use<> {
        let step = Step::Key(self.key.clone());
        |fault| fault.under(step)
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        let node = &self.entry.node;
        Err(de::Error::invalid_type(Unexpected::Other(&node.describe()), &"the name alone"))
            .map_err(self.locate())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(&self.entry.node).map_err(self.locate())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Fault> {
        self.entry.node.deserialize_any(visitor).map_err(self.locate())
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.entry.node.deserialize_any(visitor).map_err(self.locate())
    }
}
