//! Verifiers by name: the built-in ones, and those that a recipe defines.

use crate::Error;
use remit_corpus::examples::Row;
use remit_judge::{Verifier, Verify};
use serde_json::Value;
use std::collections::BTreeMap;

/// Where a row names its verifier: ours, open-instruct's and verl's name for it.
const FIELDS: [&str; 3] = ["verifier", "dataset", "data_source"];

/// The verifiers that a run may use.
pub struct Verifiers {
    by_name: BTreeMap<String, Box<dyn Verifier>>,
    /// The one for every row.
    every: Option<String>,
}

impl Verifiers {
    /// The built-in ones and `defined`, which go before; `every` is the one for every row, if there is one.
    ///
    /// # Errors
    /// Settings of a verifier that make no sense; an `every` that does not exist.
    pub fn new(defined: &BTreeMap<String, Verify>, every: Option<&str>) -> Result<Verifiers, Error> {
        let mut by_name = BTreeMap::new();
        for (name, verify) in Verify::built_in() {
            by_name.insert(name.to_owned(), verify.build()?);
        }
        for (name, verify) in defined {
            by_name.insert(name.clone(), verify.build()?);
        }
        let verifiers = Verifiers { by_name, every: every.map(str::to_owned) };
        match every {
            Some(name) if !verifiers.by_name.contains_key(name) => Err(verifiers.unknown(name, None)),
            _ => Ok(verifiers),
        }
    }

    /// The fields of a row that may name its verifier.
    pub fn fields(&self) -> impl Iterator<Item = String> + use<> {
        FIELDS.into_iter().map(str::to_owned)
    }

    /// The name of a row's verifier.
    ///
    /// # Errors
    /// A row that names none where there is none for all, or one that does not exist.
    pub fn of(&self, row: &Row) -> Result<String, Error> {
        if let Some(every) = &self.every {
            return Ok(every.clone());
        }
        let named = FIELDS.iter().find_map(|field| match row.get(field) {
            Some(Value::String(name)) => Some(name),
            // open-instruct allows several; the first judges.
            Some(Value::Array(names)) => match names.first() {
                Some(Value::String(name)) => Some(name),
                _ => None,
            },
            _ => None,
        });
        match named {
            None => Err(Error::NoVerifier { place: Box::new(row.place.clone()) }),
            Some(name) if self.by_name.contains_key(name) => Ok(name.clone()),
            Some(name) => Err(self.unknown(name, Some(row))),
        }
    }

    /// The reward of a completion.
    ///
    /// # Panics
    /// When `name` is not from [`Verifiers::of`].
    pub fn reward(&self, name: &str, completion: &str, answer: &str) -> f64 {
        self.by_name[name].reward(completion, answer)
    }

    fn unknown(&self, name: &str, row: Option<&Row>) -> Error {
        Error::UnknownVerifier {
            place: row.map(|row| Box::new(row.place.clone())),
            name: name.to_owned(),
            known: self.by_name.keys().cloned().collect(),
        }
    }
}

impl std::fmt::Debug for Verifiers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifiers").field("names", &self.by_name.keys()).field("every", &self.every).finish()
    }
}
