//! Files of questions: JSON lines, or one JSON array.

use std::path::Path;

use serde_json::Value;

use crate::Error;

/// A record and where it is, for messages.
pub(super) struct Row {
    pub place: String,
    pub value: Value,
}

impl Row {
    /// The text of a field.
    pub fn text(&self, field: &str) -> Result<&str, Error> {
        match self.value.get(field) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.wrong(format!("`{field}` is {other}, not text"))),
            None => Err(self.wrong(format!("no field `{field}`"))),
        }
    }

    /// An error about this record.
    pub fn wrong(&self, problem: impl Into<String>) -> Error {
        Error::Row { place: self.place.clone(), problem: problem.into() }
    }
}

/// The records of a file, at least one.
pub(super) fn read(path: &Path) -> Result<Vec<Row>, Error> {
    let text = std::fs::read_to_string(path).map_err(|cause| Error::Io {
        action: "read",
        path: path.to_owned(),
        cause,
    })?;
    let name = path.display();
    let malformed = |place: String, error: serde_json::Error| Error::Row {
        place,
        problem: format!("malformed JSON: {error}"),
    };
    let mut rows = Vec::new();
    if text.trim_start().starts_with('[') {
        let values: Vec<Value> =
            serde_json::from_str(&text).map_err(|error| malformed(name.to_string(), error))?;
        let numbered = values.into_iter().enumerate();
        rows.extend(
            numbered.map(|(index, value)| Row { place: format!("{name}: record {}", index + 1), value }),
        );
    } else {
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let place = format!("{name}:{}", index + 1);
            let value = serde_json::from_str(line).map_err(|error| malformed(place.clone(), error))?;
            rows.push(Row { place, value });
        }
    }
    if rows.is_empty() {
        return Err(Error::Row { place: name.to_string(), problem: "there is no record".to_owned() });
    }
    Ok(rows)
}
