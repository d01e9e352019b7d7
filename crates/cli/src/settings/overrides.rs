//! Dotted overrides: taken out of the command line before anything else reads it, then put into the tree.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::error::SettingsError;
use super::reader::{Step, dotted};
use super::tree::{self, Entry, Node, Origin, Value};

/// Settings that are templates of text, in which a shell's `\n` is a line feed.
pub(super) const TEMPLATES: [&str; 6] =
    ["text_field", "prompt", "completion", "chosen", "rejected", "answer"];

/// Parts a command line into what the argument parser reads and the overrides, as `dotted.key=value`.
///
/// An argument is an override when it starts with `--` and its name, up to the first `=`, has a dot. Without `=` the
/// next argument is its value, unless that starts with `--` too. Everything after a lone `--` is left alone.
pub fn split_overrides(
    args: impl IntoIterator<Item = OsString>,
) -> Result<(Vec<OsString>, Vec<String>), SettingsError> {
    let mut rest = Vec::new();
    let mut overrides = Vec::new();
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        if arg == "--" {
            rest.push(arg);
            rest.extend(args);
            break;
        }
        // Names are ASCII, so a lossy look is enough to tell an override.
        let looks = arg.to_string_lossy();
        let name = looks.strip_prefix("--").map(|text| text.split('=').next().unwrap_or(text));
        if !name.is_some_and(|name| name.contains('.')) {
            rest.push(arg);
            continue;
        }
        let text = unicode(arg)?;
        let text = text.strip_prefix("--").expect("overrides start with two dashes");
        if text.contains('=') {
            overrides.push(text.to_string());
            continue;
        }
        match args.next_if(|next| !next.to_string_lossy().starts_with("--")) {
            Some(value) => overrides.push(format!("{text}={}", unicode(value)?)),
            None => return Err(SettingsError::NoValue { argument: format!("--{text}") }),
        }
    }
    Ok((rest, overrides))
}

fn unicode(arg: OsString) -> Result<String, SettingsError> {
    arg.into_string()
        .map_err(|arg| SettingsError::NotUnicode { argument: arg.to_string_lossy().into_owned() })
}

/// Puts the overrides of `section` into its tree, in order.
///
/// Returns the tables whose `kind` was the recipe's choice and is another one now. Overrides of other known sections
/// become warnings.
pub(super) fn apply(
    root: &mut Node,
    section: &str,
    known_sections: &[String],
    overrides: &[String],
    warnings: &mut Vec<String>,
) -> Result<Vec<Vec<String>>, SettingsError> {
    let mut changed_kinds = Vec::new();
    for (index, argument) in overrides.iter().enumerate() {
        let malformed = || SettingsError::Malformed { argument: argument.clone() };
        let text = argument.strip_prefix("--").unwrap_or(argument);
        let Some((key, value)) = text.split_once('=') else {
            return Err(SettingsError::NoValue { argument: argument.clone() });
        };
        let mut keys: Vec<&str> = key.split('.').collect();
        if keys.iter().any(|part| part.is_empty()) {
            return Err(malformed());
        }
        if keys[0] == section {
            keys.remove(0);
        } else if known_sections.iter().any(|known| known == keys[0]) {
            warnings
                .push(format!("`{key}` on the command line has no effect: this command reads `[{section}]`"));
            continue;
        }
        let Some((last, parents)) = keys.split_last() else { return Err(malformed()) };
        let table = descend(root, section, parents, last, index, argument)?;
        let node = tree::parse_override(value, TEMPLATES.contains(last), index);
        match &mut table.value {
            Value::Table(entries) => {
                let former = entries.get(*last).map(|entry| &entry.node);
                if *last == "kind" && former.is_some_and(|former| is_other_choice_of_file(former, &node)) {
                    changed_kinds.push(parents.iter().map(|part| part.to_string()).collect());
                }
                for other in tree::alternatives(last) {
                    if entries.get(other).is_some_and(|entry| matches!(entry.key_origin, Origin::File(_))) {
                        entries.remove(other);
                        warnings.push(format!(
                            "`{}` of the recipe has no effect: `{key}` on the command line is in its place",
                            [parents, &[other]].concat().join(".")
                        ));
                    }
                }
                // The key's place in the recipe says nothing about a value from the command line.
                entries.insert(last.to_string(), Entry { key_origin: Origin::CommandLine { index }, node });
            }
            Value::Array(items) => {
                let element = last.parse().ok().and_then(|at: usize| items.get_mut(at));
                *element.expect("`descend` has checked the index") = node;
            }
            _ => unreachable!("`descend` returns a table or an array"),
        }
    }
    Ok(changed_kinds)
}

/// The table or array that holds `last`, making tables on the way.
fn descend<'a>(
    root: &'a mut Node,
    section: &str,
    parents: &[&str],
    last: &str,
    index: usize,
    argument: &str,
) -> Result<&'a mut Node, SettingsError> {
    let mut node = root;
    let mut path = Vec::new();
    for (depth, part) in parents.iter().chain([&last]).enumerate() {
        let key = dotted(section, &path);
        let argument = argument.to_string();
        match &node.value {
            Value::Table(_) => path.push(Step::Key(part.to_string())),
            Value::Array(items) => match part.parse() {
                Ok(at) if at < items.len() => path.push(Step::Index(at)),
                _ => {
                    return Err(SettingsError::NoElement {
                        key,
                        element: part.to_string(),
                        len: items.len(),
                        argument,
                    });
                }
            },
            _ => {
                let found = node.describe();
                return Err(SettingsError::NothingInside { key, inside: part.to_string(), found, argument });
            }
        }
        if depth == parents.len() {
            break;
        }
        let step = path.last().expect("a step was just pushed");
        node = match (&mut node.value, step) {
            (Value::Table(entries), _) => {
                let origin = Origin::CommandLine { index };
                let empty = Node { value: Value::Table(BTreeMap::new()), origin: origin.clone() };
                let entry = Entry { key_origin: origin, node: empty };
                &mut entries.entry(part.to_string()).or_insert(entry).node
            }
            (Value::Array(items), Step::Index(at)) => &mut items[*at],
            _ => unreachable!("the step was made for this node"),
        };
    }
    Ok(node)
}

fn is_other_choice_of_file(former: &Node, new: &Node) -> bool {
    match (&former.value, &former.origin, &new.value) {
        (Value::String(former), Origin::File(_), Value::String(new)) => former != new,
        _ => false,
    }
}
