//! From a recipe file and the command line to the typed settings of one stage.
//!
//! A recipe is a TOML file with one table a stage: `[prepare]`, `[pretrain]`, `[midtrain]` and so on. Settings are
//! resolved once, in this order: the defaults of the typed struct (`#[serde(default)]`), then the stage's table in
//! the recipe, then dotted overrides from the command line:
//!
//! ```text
//! remit midtrain --config recipe.toml --midtrain.optimizer.learning_rate=1e-3 --objective.kind ntp
//! ```
//!
//! An override may leave the stage out when the rest of its name still has a dot. Its value is read as TOML and taken
//! as a plain string where it is not TOML, so `--data.field=text` needs no inner quotes; in templates of text `\n`, `\t`,
//! `\r` and `\\` are then read as a shell does not. An element of an array is
//! reached by its index: `--prepare.sources.0.repeat=2`.
//!
//! One override changes one thing: a table that is given in part has in its other settings what the stage has when the
//! table is left out. Of settings that stand for one another (`steps`, `tokens` and `epochs`; `warmup_steps` and
//! `warmup_fraction`) the command line's goes before the recipe's.
//!
//! Two rules make tagged choices (`kind = "..."`) pleasant to override. Choosing another `kind` than the recipe's
//! drops those settings of the recipe's choice that the new one does not have, with a warning. A table that leaves
//! `kind` out has the `kind` that the stage has by default.
//!
//! Paths in a recipe are relative to the current directory, as they are on the command line, not to the recipe. A text
//! that begins with `~/` is a path below the home directory, except in templates.
//!
//! What a settings struct must keep to: `deny_unknown_fields` everywhere, no `flatten` (serde then reports unknown
//! keys without naming the allowed ones), and tagged enums as `#[serde(tag = "kind")]`.

mod error;
mod list;
mod overrides;
mod reader;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::{Place, SettingsError};
pub use list::list;
pub use overrides::split_overrides;
pub use tree::{at_home, unescape};

use reader::{Fault, FaultKind, Step};
use tree::{Node, Origin, Value};

/// The settings of one stage, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved<T> {
    /// The settings themselves.
    pub value: T,
    /// The complete resolved table, defaults included, under its `[section]` heading: a recipe in its own right.
    /// `--dry-run` prints it and the run directory keeps it. Options that are not set do not appear.
    pub toml: String,
    /// What was accepted but has no effect; one sentence each, to be shown as warnings.
    pub warnings: Vec<String>,
}

/// Reads `file` and resolves the settings of `section`; see the module's documentation for the rules.
///
/// `defaults` are what the stage has in tables that its settings leave out, where a part of one is given.
///
/// `known_sections` are all the tables that a recipe may have, `section` among them. `overrides` are
/// `dotted.key=value` as [`split_overrides`] returns them (a leading `--` is allowed). Overrides of another known
/// section have no effect, with a warning.
pub fn resolve<T: DeserializeOwned + Serialize>(
    file: Option<&Path>,
    section: &str,
    known_sections: &[&str],
    defaults: &toml::Table,
    overrides: &[String],
) -> Result<Resolved<T>, SettingsError> {
    let recipe = match file {
        Some(path) => Recipe::read(path, known_sections)?,
        None => Recipe::empty(known_sections),
    };
    recipe.resolve(section, defaults, overrides)
}

/// A recipe file, read and checked for TOML syntax and for its top-level tables. The tables' contents are checked as
/// they are resolved.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// `None` for the empty recipe of a command without a file.
    path: Option<PathBuf>,
    text: String,
    sections: BTreeMap<String, Node>,
    known_sections: Vec<String>,
}

impl Recipe {
    /// The recipe that sets nothing.
    pub fn empty(known_sections: &[&str]) -> Recipe {
        Recipe {
            path: None,
            text: String::new(),
            sections: BTreeMap::new(),
            known_sections: known_sections.iter().map(|name| name.to_string()).collect(),
        }
    }

    /// Reads the recipe at `path`, which may have the tables `known_sections` and nothing else.
    pub fn read(path: &Path, known_sections: &[&str]) -> Result<Recipe, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_path_buf(), source })?;
        Recipe::parse(path, text, known_sections)
    }

    /// The recipe that `text` is, under the name `path`.
    pub fn parse(path: &Path, text: String, known_sections: &[&str]) -> Result<Recipe, SettingsError> {
        let mut recipe = Recipe { path: Some(path.to_path_buf()), text, ..Recipe::empty(known_sections) };
        let entries = tree::parse_document(&recipe.text).map_err(|fault| SettingsError::Syntax {
            message: fault.message,
            place: recipe.place(&Origin::File(fault.span), &[]),
        })?;
        for (name, entry) in entries {
            let is_table = matches!(entry.node.value, Value::Table(_));
            let known = recipe.known_sections.contains(&name);
            if !is_table && !known {
                let place = recipe.place(&entry.key_origin, &[]);
                return Err(SettingsError::OutsideTable { key: name, known: recipe.known_sections, place });
            }
            if !known {
                let place = recipe.place(&entry.key_origin, &[]);
                return Err(SettingsError::UnknownSection { name, known: recipe.known_sections, place });
            }
            if !is_table {
                return Err(SettingsError::WrongType {
                    key: name,
                    expected: "a table".to_string(),
                    found: entry.node.describe(),
                    place: recipe.place(&entry.node.origin, &[]),
                });
            }
            recipe.sections.insert(name, entry.node);
        }
        Ok(recipe)
    }

    /// Whether the recipe has the table `[section]`.
    pub fn has(&self, section: &str) -> bool {
        self.sections.contains_key(section)
    }

    /// Resolves the settings of `section`; see [`resolve`].
    pub fn resolve<T: DeserializeOwned + Serialize>(
        &self,
        section: &str,
        defaults: &toml::Table,
        overrides: &[String],
    ) -> Result<Resolved<T>, SettingsError> {
        let mut warnings = Vec::new();
        let mut root = match self.sections.get(section) {
            Some(node) => node.clone(),
            None => {
                if let Some(path) = &self.path {
                    warnings.push(format!(
                        "`{}` has no table `[{section}]`: only defaults and the command line set this stage",
                        path.display()
                    ));
                }
                Node { value: Value::Table(BTreeMap::new()), origin: Origin::Default }
            }
        };
        let changed_kinds =
            overrides::apply(&mut root, section, &self.known_sections, overrides, &mut warnings)?;
        tree::expand_home(&mut root)?;
        tree::fill_tables(&mut root, defaults);
        // What there is when nothing is said, where that is enough.
        let silent = Node { value: Value::Table(BTreeMap::new()), origin: Origin::Default };
        if let Some(silent) =
            reader::read::<T>(&silent).ok().and_then(|value| toml::Table::try_from(value).ok())
        {
            tree::fill_tables(&mut root, &silent);
        }
        let value: T = loop {
            let fault = match reader::read(&root) {
                Ok(value) => match ignored_beside_kind(&root, &value) {
                    None => break value,
                    Some(fault) => fault,
                },
                Err(fault) => fault,
            };
            let repaired = drop_default_of_other_kind(&mut root, &fault)
                || drop_setting_of_former_kind(&mut root, section, &fault, &changed_kinds, &mut warnings)
                || fill_default_kind::<T>(&mut root, &fault);
            if !repaired {
                return Err(self.explain(&root, section, fault, overrides));
            }
        };
        let toml = toml::to_string(&BTreeMap::from([(section, &value)]))
            .map_err(|source| SettingsError::Unwritable { section: section.to_string(), source })?;
        Ok(Resolved { value, toml, warnings })
    }

    /// Turns a reader's fault into the error that names key, place and what would be right.
    fn explain(&self, root: &Node, section: &str, fault: Fault, overrides: &[String]) -> SettingsError {
        let (path, node) = reader::refine(root, &fault);
        let table = reader::dotted(section, &path);
        let place = self.place(&node.origin, overrides);
        match fault.kind {
            FaultKind::UnknownKey { name, allowed } => {
                let place = match node.entry(&name) {
                    Some(entry) => self.place(&entry.key_origin, overrides),
                    None => place,
                };
                let mut candidates: Vec<String> = allowed.iter().map(|key| key.to_string()).collect();
                if path.is_empty() && matches!(*place, Place::CommandLine { .. }) {
                    // `--midtrian.steps=1`: the misspelt word may be the stage itself.
                    candidates.extend(self.known_sections.iter().cloned());
                }
                let nearest = error::nearest(&name, candidates.iter().map(String::as_str));
                let allowed = allowed.iter().map(|key| key.to_string()).collect();
                SettingsError::UnknownKey { key: format!("{table}.{name}"), table, nearest, allowed, place }
            }
            FaultKind::UnknownChoice { found, allowed } => {
                let allowed: Vec<String> = allowed.iter().map(|choice| choice.to_string()).collect();
                SettingsError::UnknownChoice { key: table, found, allowed, place }
            }
            FaultKind::Missing { name } => SettingsError::Missing {
                key: format!("{table}.{name}"),
                table,
                name: name.to_string(),
                place,
                recipe: self.path.clone(),
            },
            FaultKind::Type { found, expected } => {
                SettingsError::WrongType { key: table, expected, found: found.describe(), place }
            }
            FaultKind::Invalid { message } => SettingsError::Invalid { key: table, message, place },
        }
    }

    fn place(&self, origin: &Origin, overrides: &[String]) -> Box<Place> {
        Box::new(match (origin, &self.path) {
            (Origin::File(span), Some(path)) => Place::in_text(path, &self.text, span.clone()),
            (Origin::CommandLine { index }, _) => Place::CommandLine { argument: overrides[*index].clone() },
            _ => Place::Defaults,
        })
    }
}

/// serde lets a tagged variant without settings take any key, even with `deny_unknown_fields`. Such a variant is
/// written back as its `kind` alone, so every other key beside it was ignored and is unknown.
fn ignored_beside_kind<T: Serialize>(root: &Node, value: &T) -> Option<Fault> {
    fn search(node: &Node, written: &toml::Value, path: &mut Vec<Step>) -> Option<Fault> {
        match (&node.value, written) {
            (Value::Table(entries), toml::Value::Table(written)) => {
                if written.len() == 1 && written.contains_key("kind") {
                    let name = entries.keys().find(|key| *key != "kind")?;
                    return Some(Fault::unknown_key(path, name, &["kind"]));
                }
                entries.iter().find_map(|(key, entry)| {
                    let written = written.get(key)?;
                    path.push(Step::Key(key.clone()));
                    let fault = search(&entry.node, written, path);
                    path.pop();
                    fault
                })
            }
            (Value::Array(items), toml::Value::Array(written)) => {
                items.iter().zip(written).enumerate().find_map(|(index, (item, written))| {
                    path.push(Step::Index(index));
                    let fault = search(item, written, path);
                    path.pop();
                    fault
                })
            }
            _ => None,
        }
    }
    search(root, &toml::Value::try_from(value).ok()?, &mut Vec::new())
}

/// A table that was filled up with defaults is of another `kind` than these are of.
fn drop_default_of_other_kind(root: &mut Node, fault: &Fault) -> bool {
    let FaultKind::UnknownKey { name, .. } = &fault.kind else { return false };
    let Some(path) = reader::names(&reader::refine(root, fault).0) else { return false };
    match root.descend_mut(&path).map(|node| &mut node.value) {
        Some(Value::Table(entries))
            if entries.get(name).is_some_and(|entry| entry.key_origin == Origin::Default) =>
        {
            entries.remove(name);
            true
        }
        _ => false,
    }
}

/// An unknown key beside a `kind` that the command line changed is a setting of the recipe's former kind.
fn drop_setting_of_former_kind(
    root: &mut Node,
    section: &str,
    fault: &Fault,
    changed_kinds: &[Vec<String>],
    warnings: &mut Vec<String>,
) -> bool {
    let FaultKind::UnknownKey { name, .. } = &fault.kind else { return false };
    let Some(path) = reader::names(&reader::refine(root, fault).0) else { return false };
    if !changed_kinds.contains(&path) {
        return false;
    }
    let Some(Value::Table(entries)) = root.descend_mut(&path).map(|node| &mut node.value) else {
        return false;
    };
    let from_recipe = entries.get(name).is_some_and(|entry| matches!(entry.key_origin, Origin::File(_)));
    if from_recipe {
        entries.remove(name);
        let path: Vec<Step> = path.into_iter().map(Step::Key).collect();
        let table = reader::dotted(section, &path);
        warnings.push(format!(
            "`{table}.{name}` of the recipe has no effect: the command line chose another `{table}.kind`"
        ));
    }
    from_recipe
}

/// A table without `kind` gets the `kind` that is there when the whole table is left out.
fn fill_default_kind<T: DeserializeOwned + Serialize>(root: &mut Node, fault: &Fault) -> bool {
    if !matches!(fault.kind, FaultKind::Missing { name: "kind" }) {
        return false;
    }
    let Some(path) = reader::names(&fault.path()) else { return false };
    let mut without = root.clone();
    let Some((last, parents)) = path.split_last() else { return false };
    let Some(Value::Table(entries)) = without.descend_mut(parents).map(|node| &mut node.value) else {
        return false;
    };
    entries.remove(last);
    let Ok(default) = reader::read::<T>(&without) else { return false };
    let Ok(default) = toml::Value::try_from(&default) else { return false };
    let kind =
        path.iter().try_fold(&default, |table, key| table.get(key)).and_then(|table| table.get("kind"));
    let Some(kind) = kind.and_then(toml::Value::as_str) else { return false };
    match root.descend_mut(&path).map(|node| &mut node.value) {
        Some(Value::Table(entries)) => {
            entries.insert("kind".to_string(), tree::Entry::default_string(kind));
            true
        }
        _ => false,
    }
}
