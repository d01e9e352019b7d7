//! What a node is known by: a hash over everything that its result depends on, and nothing else.
//!
//! ```text
//! id = BLAKE3( stage, format version of the stage, settings without places, inputs by role )
//! ```
//!
//! An input is the id of another node or the content hash of a file. Where things lie, in which order arms are
//! written and what they are called does not count; nor do settings that change speed alone.

use remit_store::hash::hash_bytes;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What an id is made of.
pub(crate) fn identity(
    stage: &str,
    version: u32,
    settings: &impl Serialize,
    left_out: &[&str],
    inputs: &BTreeMap<String, String>,
) -> Value {
    let mut settings = serde_json::to_value(settings).expect("settings are plain values");
    for path in left_out {
        remove(&mut settings, path);
    }
    let mut identity = json!({ "stage": stage, "version": version, "settings": settings, "inputs": inputs });
    identity.sort_all_objects();
    identity
}

/// The id, 64 hexadecimal digits.
pub(crate) fn id_of(identity: &Value) -> String {
    hash_bytes(&serde_json::to_vec(identity).expect("a value is JSON"))
}

/// Removes `a.b.c`; in an array, from every element.
fn remove(value: &mut Value, path: &str) {
    if let Value::Array(items) = value {
        items.iter_mut().for_each(|item| remove(item, path));
        return;
    }
    let Value::Object(entries) = value else { return };
    match path.split_once('.') {
        None => {
            entries.remove(path);
        }
        Some((first, rest)) => {
            if let Some(inner) = entries.get_mut(first) {
                remove(inner, rest);
            }
        }
    }
}

/// Puts `change` into `table`, table by table. A table that chooses a `kind` takes the place of the one before.
pub(crate) fn merge(table: &mut toml::Table, change: &toml::Table) {
    for (key, value) in change {
        match (table.get_mut(key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(change)) if !change.contains_key("kind") => {
                merge(inner, change);
            }
            _ => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_count_and_all_else_does() {
        let id = |settings: Value, inputs: &[(&str, &str)]| {
            let inputs = inputs.iter().map(|(role, id)| ((*role).to_owned(), (*id).to_owned())).collect();
            id_of(&identity("sft", 1, &settings, &["run", "sources.path", "data.tokens"], &inputs))
        };
        let settings = |run: &str, steps: u64, path: &str| json!({ "run": run, "steps": steps, "data": { "tokens": run }, "sources": [{ "name": "a", "path": path }] });
        let first = id(settings("here", 5, "x"), &[("from", "1")]);
        assert_eq!(first, id(settings("there", 5, "y"), &[("from", "1")]));
        assert_ne!(first, id(settings("here", 6, "x"), &[("from", "1")]));
        assert_ne!(first, id(settings("here", 5, "x"), &[("from", "2")]));
        assert_ne!(first, id(settings("here", 5, "x"), &[("form", "1")]));
        let other = identity("rl", 1, &settings("here", 5, "x"), &[], &BTreeMap::new());
        let newer = identity("rl", 2, &settings("here", 5, "x"), &[], &BTreeMap::new());
        assert_ne!(id_of(&other), id_of(&newer));
    }

    #[test]
    fn a_choice_takes_the_place_of_the_former_one() {
        let parse = |text: &str| toml::from_str::<toml::Table>(text).expect("a table");
        let mut table =
            parse("steps = 1\n[schedule]\nkind = 'linear'\nfinal_ratio = 0.1\n[data]\nwindow = 8\nbatch = 2");
        merge(&mut table, &parse("schedule = { kind = 'constant' }\ndata.window = 16"));
        let wanted = parse("steps = 1\n[schedule]\nkind = 'constant'\n[data]\nwindow = 16\nbatch = 2");
        assert_eq!(table, wanted);
    }
}
