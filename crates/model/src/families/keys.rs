//! Typed access to `config.json` with errors that name the key.

use super::Family;
use crate::{Error, Rope, RopeScaling};
use serde_json::{Map, Value};
use std::path::Path;

/// A view of `config.json`, or of a table inside it.
pub(super) struct Keys<'a> {
    table: &'a Map<String, Value>,
    path: &'a Path,
    family: Family,
    /// Names of the tables around this one, with a dot behind each.
    prefix: String,
}

impl<'a> Keys<'a> {
    pub(super) fn new(table: &'a Map<String, Value>, path: &'a Path, family: Family) -> Self {
        Keys { table, path, family, prefix: String::new() }
    }

    /// For reading `model_type`, before the family is known.
    pub(super) fn of_any_family(table: &'a Map<String, Value>, path: &'a Path) -> Self {
        Keys::new(table, path, Family::Llama)
    }

    /// The value, with `null` counting as absent.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.table.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::ConfigKey {
            path: self.path.to_owned(),
            key: format!("{}{key}", self.prefix),
            problem: problem.into(),
        }
    }

    pub(super) fn unsupported(&self, key: &str, value: &Value) -> Error {
        Error::UnsupportedSwitch {
            path: self.path.to_owned(),
            family: self.family,
            key: format!("{}{key}", self.prefix),
            value: value.to_string(),
        }
    }

    fn need<T>(&self, key: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<T, Error> {
        let value = self.get(key).ok_or_else(|| self.wrong(key, "is missing"))?;
        read(value).ok_or_else(|| self.wrong(key, format!("is {value}, not {kind}")))
    }

    fn or<T>(
        &self,
        key: &str,
        kind: &str,
        default: T,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, Error> {
        if self.get(key).is_none() { Ok(default) } else { self.need(key, kind, read) }
    }

    pub(super) fn text(&self, key: &str) -> Result<&'a str, Error> {
        self.need(key, "a string", Value::as_str)
    }

    pub(super) fn count(&self, key: &str) -> Result<usize, Error> {
        self.need(key, "a positive integer", positive)
    }

    pub(super) fn count_or(&self, key: &str, default: usize) -> Result<usize, Error> {
        self.or(key, "a positive integer", default, positive)
    }

    pub(super) fn number(&self, key: &str) -> Result<f64, Error> {
        self.need(key, "a number", Value::as_f64)
    }

    pub(super) fn number_or(&self, key: &str, default: f64) -> Result<f64, Error> {
        self.or(key, "a number", default, Value::as_f64)
    }

    pub(super) fn flag_or(&self, key: &str, default: bool) -> Result<bool, Error> {
        self.or(key, "true or false", default, Value::as_bool)
    }

    /// One token id or a list of them.
    pub(super) fn tokens(&self, key: &str) -> Result<Vec<u32>, Error> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        self.or(key, "a token id or a list of them", Vec::new(), |value| match value {
            Value::Array(values) => values.iter().map(id).collect(),
            value => id(value).map(|id| vec![id]),
        })
    }

    /// A switch of which only some values are implemented; `allowed` holds them, the default first.
    pub(super) fn only(&self, key: &str, allowed: &[Value]) -> Result<(), Error> {
        match self.get(key) {
            Some(value) if !allowed.contains(value) => Err(self.unsupported(key, value)),
            _ => Ok(()),
        }
    }

    fn table(&self, key: &str) -> Result<Option<Keys<'a>>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let table = value.as_object().ok_or_else(|| self.wrong(key, format!("is {value}, not a table")))?;
        let prefix = format!("{}{key}.", self.prefix);
        Ok(Some(Keys { table, path: self.path, family: self.family, prefix }))
    }

    /// Rotary settings, as `transformers` 5 writes them (`rope_parameters`) or as earlier versions did (`rope_theta`
    /// and `rope_scaling`).
    pub(super) fn rope(&self) -> Result<Rope, Error> {
        let new = self.table("rope_parameters")?;
        let theta = match &new {
            Some(new) => new.number_or("rope_theta", self.number_or("rope_theta", 10000.0)?)?,
            None => self.number_or("rope_theta", 10000.0)?,
        };
        let scaling = match new {
            Some(new) => new.rope_scaling()?,
            None => self.table("rope_scaling")?.map_or(Ok(RopeScaling::None), |old| old.rope_scaling())?,
        };
        Ok(Rope { theta, scaling })
    }

    fn rope_scaling(&self) -> Result<RopeScaling, Error> {
        let key = if self.get("rope_type").is_some() { "rope_type" } else { "type" };
        let kind = self.or(key, "a string", "default", Value::as_str)?;
        match kind {
            "default" => Ok(RopeScaling::None),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: self.number("factor")?,
                low_frequency: self.number("low_freq_factor")?,
                high_frequency: self.number("high_freq_factor")?,
                original_length: self.number("original_max_position_embeddings")?,
            }),
            other => Err(self.unsupported(key, &Value::from(other))),
        }
    }
}

fn positive(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0)
}
