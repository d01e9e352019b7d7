//! What a token store is made of: the settings that matter and the files' contents.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Prepare, Vocabulary};
use crate::hash::hash_file;
use crate::read::{ResolvedFormat, SourceFiles, Split, TokenDtype};
use crate::token_store::FORMAT_VERSION;
use crate::{Error, error};

/// Kept in the store, so that a second run can tell whether there is anything to do.
pub(super) const INPUTS_FILE: &str = "inputs.json";

/// Everything that the bytes of a store depend on. Files are known by their content, not by where they lie or when
/// they were written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Inputs {
    version: u32,
    tokenizer: Option<String>,
    tokenizer_config: Option<String>,
    vocab_size: u32,
    eos: Option<u32>,
    holdout: f64,
    append_eos: bool,
    prepend_bos: bool,
    skip_bad_records: bool,
    sources: Vec<InputSource>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputSource {
    name: String,
    text_field: String,
    split: Split,
    token_dtype: TokenDtype,
    weight: Option<f64>,
    repeat: Option<f64>,
    files: Vec<InputFile>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputFile {
    /// Without the directories it lies in.
    name: String,
    format: ResolvedFormat,
    bytes: u64,
    blake3: String,
}

impl Inputs {
    /// Reads every file once, for its hash: a small part of what tokenizing it takes.
    pub fn read(
        settings: &Prepare,
        vocabulary: &Vocabulary,
        sources: &[SourceFiles],
    ) -> Result<Inputs, Error> {
        let read_source = |SourceFiles { source, files }: &SourceFiles| -> Result<InputSource, Error> {
            let mut read = Vec::with_capacity(files.len());
            for file in files {
                read.push(InputFile {
                    name: file.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                    format: file.format,
                    bytes: file.bytes,
                    blake3: hash_file(&file.path)?,
                });
            }
            Ok(InputSource {
                name: source.name.clone(),
                text_field: source.text_field.clone(),
                split: source.split,
                token_dtype: source.token_dtype,
                weight: source.weight,
                repeat: source.repeat,
                files: read,
            })
        };
        let tokenizer = vocabulary.tokenizer.as_ref();
        let config = tokenizer.and_then(|tokenizer| tokenizer.config());
        Ok(Inputs {
            version: FORMAT_VERSION,
            tokenizer: tokenizer.map(|tokenizer| tokenizer.hash().to_owned()),
            tokenizer_config: config.map(|config| blake3::hash(config).to_hex().to_string()),
            vocab_size: vocabulary.size,
            eos: vocabulary.eos,
            holdout: settings.holdout,
            append_eos: settings.append_eos,
            prepend_bos: settings.prepend_bos,
            skip_bad_records: settings.skip_bad_records,
            sources: sources.iter().map(read_source).collect::<Result<_, _>>()?,
        })
    }

    /// What `directory` was made of; `None` when it does not say.
    pub fn load(directory: &Path) -> Result<Option<Inputs>, Error> {
        let path = directory.join(INPUTS_FILE);
        match std::fs::read(&path) {
            // Not readable as ours is as good as not there: an older version, or no store at all.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(cause)
                if matches!(
                    cause.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(cause) => Err(error::io("read", &path, cause)),
        }
    }

    pub fn save(&self, directory: &Path) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(self).expect("plain values are valid JSON");
        remit_store::atomic::write(&directory.join(INPUTS_FILE), &bytes)
    }

    /// The first thing in which what is wanted now differs from what was made before.
    pub fn difference(&self, before: &Inputs) -> Option<String> {
        if self == before {
            return None;
        }
        let names =
            |inputs: &Inputs| inputs.sources.iter().map(|source| source.name.clone()).collect::<Vec<_>>();
        if names(self) != names(before) {
            return Some(format!("its sources are {:?}, not {:?}", names(before), names(self)));
        }
        let settings = |inputs: &Inputs| {
            let inputs = Inputs { sources: Vec::new(), ..inputs.clone() };
            serde_json::to_value(inputs).expect("plain values are valid JSON")
        };
        if let Some(difference) = first_difference(&settings(before), &settings(self)) {
            return Some(difference);
        }
        for (now, before) in self.sources.iter().zip(&before.sources) {
            let settings = |source: &InputSource| {
                let source = InputSource { files: Vec::new(), ..source.clone() };
                serde_json::to_value(source).expect("plain values are valid JSON")
            };
            if let Some(difference) = first_difference(&settings(before), &settings(now)) {
                return Some(format!("source `{}`: {difference}", now.name));
            }
            if now.files.len() != before.files.len() {
                let (before, files) = (before.files.len(), now.files.len());
                return Some(format!("source `{}`: it has {before} files, not {files}", now.name));
            }
            if let Some((now_file, _)) =
                now.files.iter().zip(&before.files).find(|(now, before)| now != before)
            {
                return Some(format!("source `{}`: the file `{}` has changed", now.name, now_file.name));
            }
        }
        // The fields above are all there are; a new one that is forgotten there must not pass as equal.
        Some("its settings".into())
    }

    /// Whether the files are still as long as they were when their hashes were taken.
    pub fn check_unchanged(&self, sources: &[SourceFiles]) -> Result<(), Error> {
        for file in sources.iter().flat_map(|source| &source.files) {
            let metadata = file.path.metadata().map_err(|cause| error::io("read", &file.path, cause))?;
            if metadata.len() != file.bytes {
                return Err(error::input_changed(&file.path));
            }
        }
        Ok(())
    }
}

fn first_difference(before: &serde_json::Value, now: &serde_json::Value) -> Option<String> {
    let now = now.as_object()?;
    let (key, value) = now.iter().find(|(key, value)| before.get(key) != Some(value))?;
    Some(format!("its `{key}` is {}, not {value}", before.get(key).unwrap_or(&serde_json::Value::Null)))
}
