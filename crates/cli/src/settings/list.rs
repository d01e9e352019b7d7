//! All keys of a table with their defaults, found by asking the types themselves: each is offered a key and a choice
//! that it cannot know, and its complaint names those that it does.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::reader::{self, FaultKind};
use super::tree::{Entry, Node, Origin, Value};

/// Sorts before every name, so that it is complained about first.
const UNKNOWN: &str = "?";

/// The keys of `section`, dotted, a line each: with the default, or as a comment where there is none, and with the
/// choices where only some words can stand there.
pub fn list<T: DeserializeOwned + Serialize>(section: &str, defaults: &toml::Table) -> String {
    let silent = reader::read::<T>(&table(BTreeMap::new())).ok();
    let mut known = silent.and_then(|value| toml::Table::try_from(value).ok()).unwrap_or_default();
    known.extend(defaults.clone());
    let mut lines = vec![format!("[{section}]")];
    walk::<T>(&mut Vec::new(), &known, &mut lines);
    lines.join("\n") + "\n"
}

fn walk<T: DeserializeOwned>(path: &mut Vec<String>, known: &toml::Table, lines: &mut Vec<String>) {
    for &name in keys::<T>(path).unwrap_or_default() {
        path.push(name.to_owned());
        let key = path.join(".");
        let choices =
            choices::<T>(path).map(|choices| format!("  # {}", choices.join(", "))).unwrap_or_default();
        match known.get(name) {
            // One that is chosen by its kind has the keys of that kind.
            Some(toml::Value::Table(inside)) if keys::<T>(path).is_none() => {
                let kinds =
                    kinds::<T>(path).map(|kinds| format!("  # {}", kinds.join(", "))).unwrap_or_default();
                match inside.is_empty() {
                    true => lines.push(format!("# {key}{choices}{kinds}")),
                    false => {
                        let line = |(name, value): (&String, &toml::Value)| {
                            let kinds = if name == "kind" { &kinds } else { "" };
                            format!("{key}.{name} = {value}{kinds}")
                        };
                        lines.extend(inside.iter().map(line));
                    }
                }
            }
            Some(toml::Value::Table(inside)) => walk::<T>(path, inside, lines),
            Some(value) => lines.push(format!("{key} = {value}{choices}")),
            None if keys::<T>(path).is_some() => walk::<T>(path, &toml::Table::new(), lines),
            None => match kinds::<T>(path) {
                Some(kinds) => lines.push(format!("# {key}.kind  # {}", kinds.join(", "))),
                None => lines.push(format!("# {key}{choices}")),
            },
        }
        path.pop();
    }
}

/// The keys that the table at `path` may have.
fn keys<T: DeserializeOwned>(path: &[String]) -> Option<&'static [&'static str]> {
    let unknown = BTreeMap::from([(UNKNOWN.to_owned(), Value::Boolean(true))]);
    match complaint::<T>(path, table(unknown).value)? {
        FaultKind::UnknownKey { name, allowed } if name == UNKNOWN => Some(allowed),
        _ => None,
    }
}

/// The words that may stand at `path`.
fn choices<T: DeserializeOwned>(path: &[String]) -> Option<&'static [&'static str]> {
    chosen::<T>(path, Value::String(UNKNOWN.to_owned()))
}

/// The kinds that the table at `path` may have.
fn kinds<T: DeserializeOwned>(path: &[String]) -> Option<&'static [&'static str]> {
    let unknown = BTreeMap::from([("kind".to_owned(), Value::String(UNKNOWN.to_owned()))]);
    chosen::<T>(path, table(unknown).value)
}

fn chosen<T: DeserializeOwned>(path: &[String], value: Value) -> Option<&'static [&'static str]> {
    match complaint::<T>(path, value)? {
        FaultKind::UnknownChoice { found, allowed } if found == UNKNOWN => Some(allowed),
        _ => None,
    }
}

/// What is said of a value at `path`.
fn complaint<T: DeserializeOwned>(path: &[String], value: Value) -> Option<FaultKind> {
    let wrapped =
        path.iter().rev().fold(value, |inside, key| table(BTreeMap::from([(key.clone(), inside)])).value);
    reader::read::<T>(&Node { value: wrapped, origin: Origin::Default }).err().map(|fault| fault.kind)
}

fn table(entries: BTreeMap<String, Value>) -> Node {
    let node = |value| Node { value, origin: Origin::Default };
    let entry = |value| Entry { key_origin: Origin::Default, node: node(value) };
    node(Value::Table(entries.into_iter().map(|(key, value)| (key, entry(value))).collect()))
}
