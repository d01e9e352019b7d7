//! Typed access to `config.json` with errors that name the key.

use super::Family;
use crate::{Architecture, Error, Pairing, Rope, RopeScaling};
use remit_fault::fault;
use serde_json::{Map, Value};
use std::fmt::Display;
use std::path::Path;

/// A view of `config.json`, or of a table inside it.
pub(super) struct Keys<'a> {
    table: &'a Map<String, Value>,
    path: &'a Path,
    family: Family,
    /// Names of the tables around this one, with a dot behind each.
    prefix: String,
}

/// More than any model has of anything. Counts are multiplied before the files vouch for them, so they must be such that
/// no product of two overflows.
const COUNT_MAX: usize = 1 << 24;

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

    pub(super) fn wrong(&self, key: &str, problem: impl Display) -> Error {
        fault!("`{}`: key `{}{key}` {problem}", self.path.display(), self.prefix)
    }

    pub(super) fn unsupported(&self, key: &str, value: &Value) -> Error {
        let (path, prefix, family) = (self.path.display(), &self.prefix, self.family.name());
        fault!("`{path}`: `{prefix}{key}` = {value} is not supported for `{family}`")
            .with_hint("this program refuses rather than approximate; use a checkpoint without this switch")
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
        self.count_up_to(key, COUNT_MAX)
    }

    pub(super) fn count_up_to(&self, key: &str, most: usize) -> Result<usize, Error> {
        match self.need(key, "a positive integer", positive)? {
            count if count > most => Err(self.wrong(key, format!("is {count}, more than {most}"))),
            count => Ok(count),
        }
    }

    pub(super) fn count_or(&self, key: &str, default: usize) -> Result<usize, Error> {
        if self.get(key).is_none() { Ok(default) } else { self.count(key) }
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

    /// A switch that can only be off: false, nothing, or one of the numbers `allowed`.
    pub(super) fn off(&self, key: &str, allowed: &[f64]) -> Result<(), Error> {
        match self.get(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(value) if value.as_f64().is_some_and(|number| allowed.contains(&number)) => Ok(()),
            Some(value) => Err(self.unsupported(key, value)),
        }
    }

    /// Whether the key is there and says `null`, which is not always what its absence says.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(Value::is_null)
    }

    /// What is wrong unless `value`, which the key decides, is a positive multiple of `divisor`.
    pub(super) fn divisible(&self, key: &str, value: usize, divisor: usize) -> Result<(), Error> {
        if value > 0 && value.is_multiple_of(divisor) {
            return Ok(());
        }
        Err(self.wrong(key, format!("leads to {value}, which {divisor} must divide")))
    }

    /// A list with an entry for every block, read by `read`; `None` where there is no list.
    pub(super) fn by_layer<T>(
        &self,
        key: &str,
        layers: usize,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().ok_or_else(|| self.wrong(key, format!("is {value}, not a list")))?;
        if list.len() < layers {
            return Err(self.wrong(key, format!("has {} entries for {layers} blocks", list.len())));
        }
        let entry = |value| read(value).ok_or_else(|| self.unsupported(key, value));
        list[..layers].iter().map(entry).collect::<Result<_, _>>().map(Some)
    }

    /// Refuses attention that sees only the last positions, where it would make a difference.
    pub(super) fn refuse_sliding(&self, sliding: Sliding) -> Result<(), Error> {
        let full = |value: &Value| (value == "full_attention").then_some(());
        if self.by_layer("layer_types", sliding.layers, full)?.is_some() {
            return Ok(());
        }
        if !sliding.somewhere || !self.flag_or("use_sliding_window", sliding.by_default)? {
            return Ok(());
        }
        let key = "sliding_window";
        match (self.get(key), sliding.window) {
            (None, Some(window)) if !self.is_null(key) => Err(self.unsupported(key, &window.into())),
            (None, _) => Ok(()),
            (Some(value), _) if value.as_u64().is_some_and(|n| n >= sliding.max_length as u64) => Ok(()),
            (Some(value), _) => Err(self.unsupported(key, value)),
        }
    }

    fn table(&self, key: &str) -> Result<Option<Keys<'a>>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let table = value.as_object().ok_or_else(|| self.wrong(key, format!("is {value}, not a table")))?;
        let prefix = format!("{}{key}.", self.prefix);
        Ok(Some(Keys { table, path: self.path, family: self.family, prefix }))
    }

    /// Rotary settings, as earlier versions of `transformers` wrote them (`rope_scaling` and `rope_theta`), which win
    /// there as here, or as version 5 does (`rope_parameters`).
    pub(super) fn rope(&self, default_theta: f64, max_length: usize) -> Result<Rope, Error> {
        self.only("partial_rotary_factor", &[Value::from(1.0), Value::from(1)])?;
        let theta = self.number_or("rope_theta", default_theta)?;
        let old = self.table("rope_scaling")?.filter(|old| !old.table.is_empty());
        let table = old.or(self.table("rope_parameters")?);
        let (theta, scaling) = match table {
            None => (theta, RopeScaling::None),
            Some(table) => {
                let original = self.number_or("original_max_position_embeddings", 0.0)?;
                let original = if original > 0.0 {
                    original
                } else {
                    table.number_or("original_max_position_embeddings", max_length as f64)?
                };
                (table.number_or("rope_theta", theta)?, table.rope_scaling(original)?)
            }
        };
        let rope = Rope { theta, scaling, pairing: Pairing::Halves, without: Vec::new() };
        self.check_rope(&rope)?;
        Ok(rope)
    }

    fn rope_scaling(&self, original_length: f64) -> Result<RopeScaling, Error> {
        if let Some((key, value)) = self.table.iter().find(|(_, value)| value.is_object()) {
            return Err(self.unsupported(key, value)); // settings that differ by block
        }
        self.only("partial_rotary_factor", &[Value::from(1.0), Value::from(1)])?;
        let key = if self.get("rope_type").is_some() { "rope_type" } else { "type" };
        let kind = self.or(key, "a string", "default", Value::as_str)?;
        match kind {
            "default" => Ok(RopeScaling::None),
            "llama3" => {
                self.off("mscale_all_dim", &[0.0])?;
                Ok(RopeScaling::Llama3 {
                    factor: self.number("factor")?,
                    low_frequency: self.number("low_freq_factor")?,
                    high_frequency: self.number("high_freq_factor")?,
                    original_length,
                })
            }
            other => Err(self.unsupported(key, &Value::from(other))),
        }
    }

    fn check_rope(&self, rope: &Rope) -> Result<(), Error> {
        let positive = match rope.scaling {
            RopeScaling::None => rope.theta > 0.0,
            RopeScaling::Llama3 { factor, low_frequency, high_frequency, original_length } => {
                rope.theta > 0.0 && factor > 0.0 && original_length > 0.0 && high_frequency > low_frequency
            }
        };
        if positive {
            return Ok(());
        }
        Err(self.wrong("rope_parameters", "holds numbers that give no frequencies"))
    }
}

/// What a family makes of the keys about sliding windows.
pub(super) struct Sliding {
    /// Blocks.
    pub layers: usize,
    /// A window of this many positions or more is never felt.
    pub max_length: usize,
    /// Whether there is a block that would slide.
    pub somewhere: bool,
    /// `use_sliding_window` where it is not given.
    pub by_default: bool,
    /// `sliding_window` where it is not given.
    pub window: Option<usize>,
}

impl Sliding {
    /// Where the key alone makes every block slide.
    pub(super) fn everywhere(architecture: &Architecture) -> Sliding {
        Sliding {
            layers: architecture.layers,
            max_length: architecture.max_length,
            somewhere: true,
            by_default: true,
            window: None,
        }
    }
}

fn positive(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0)
}
