//! A decoder in Hugging Face layout: `config.json`, `generation_config.json`, `model.safetensors` or shards.

use crate::layout::Entry;
use crate::{Architecture, Decoder, Error, families};
use remit_store::atomic;
use remit_store::tensors::{FileDtype, TensorDirectory, TensorOut, write_tensors};
use serde_json::{Map, Value, json};
use std::path::Path;

/// How a decoder is written.
#[derive(Clone, Copy, Debug)]
pub struct SaveOptions {
    /// Type of the numbers in the files.
    pub dtype: FileDtype,
    /// Bytes after which a further file is begun; one file when absent.
    pub max_shard_bytes: Option<u64>,
}

impl Default for SaveOptions {
    fn default() -> Self {
        SaveOptions { dtype: FileDtype::F32, max_shard_bytes: None }
    }
}

impl Architecture {
    /// Reads `config.json` in `directory`.
    pub fn open(directory: &Path) -> Result<Architecture, Error> {
        let path = directory.join("config.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    || error.kind() == std::io::ErrorKind::NotADirectory =>
            {
                return Err(Error::NoConfig { directory: directory.to_owned() });
            }
            Err(error) => return Err(remit_store::Error::io("read", &path, error).into()),
        };
        let source: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|error| Error::BadConfig { path: path.clone(), cause: error.to_string() })?;
        families::read(source, &path)
    }
}

impl Decoder {
    /// Opens a checkpoint directory. Parameters are read from the memory-mapped files straight into the decoder's
    /// own buffer, in `f32`.
    pub fn open(directory: &Path) -> Result<Decoder, Error> {
        let architecture = Architecture::open(directory)?;
        let files = TensorDirectory::open(directory)?;
        let mut decoder = Decoder::zeroed(architecture);
        let layout = decoder.layout().clone();
        check_names(&files, layout.entries(), decoder.architecture(), directory)?;
        for entry in layout.entries() {
            files.read_f32(&entry.name, &mut decoder.parameters[entry.range.clone()])?;
        }
        Ok(decoder)
    }

    /// Writes the decoder into `directory`, which exists; making it appear atomically is the caller's business.
    pub fn save(&self, directory: &Path, options: SaveOptions) -> Result<(), Error> {
        let tensors: Vec<TensorOut> = self
            .layout()
            .entries()
            .iter()
            .map(|entry| TensorOut {
                name: &entry.name,
                shape: &entry.shape,
                data: &self.parameters[entry.range.clone()],
            })
            .collect();
        write_tensors(directory, "model", &tensors, options.dtype, options.max_shard_bytes)?;
        let mut config = self.architecture().source.clone();
        let dtype = match options.dtype {
            FileDtype::F32 => "float32",
            FileDtype::Bf16 => "bfloat16",
        };
        // `transformers` 5 calls it `dtype`; other readers still look for `torch_dtype`.
        config.insert("dtype".into(), dtype.into());
        config.insert("torch_dtype".into(), dtype.into());
        write_json(&directory.join("config.json"), &Value::Object(config.clone()))?;
        let id = |key: &str| config.get(key).cloned().unwrap_or(Value::Null);
        let generation = json!({
            "_from_model_config": true,
            "bos_token_id": id("bos_token_id"),
            "eos_token_id": id("eos_token_id"),
            "pad_token_id": id("pad_token_id"),
        });
        let Value::Object(mut generation) = generation else {
            unreachable!("the literal above is an object")
        };
        generation.retain(|_, value| !value.is_null());
        write_json(&directory.join("generation_config.json"), &Value::Object(generation))
    }
}

fn write_json(path: &Path, value: &Value) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(value).expect("a JSON value can always be written");
    text.push('\n');
    Ok(atomic::write(path, text.as_bytes())?)
}

/// Every tensor that the architecture needs, in its shape, and no other.
fn check_names(
    files: &TensorDirectory,
    entries: &[Entry],
    architecture: &Architecture,
    directory: &Path,
) -> Result<(), Error> {
    let directory = || directory.to_owned();
    for Entry { name, shape, .. } in entries {
        if !files.contains(name) {
            return Err(Error::MissingTensor {
                directory: directory(),
                name: name.clone(),
                shape: shape.clone(),
            });
        }
        let found = files.info(name)?.shape;
        if found != shape.as_slice() {
            return Err(Error::WrongShape {
                directory: directory(),
                name: name.clone(),
                found: found.to_vec(),
                expected: shape.clone(),
            });
        }
    }
    let known: std::collections::HashSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    for name in files.names().filter(|name| !known.contains(name)) {
        if !is_redundant(files, name, architecture)? {
            let shape = files.info(name)?.shape.to_vec();
            return Err(Error::UnknownTensor {
                directory: directory(),
                name: name.to_owned(),
                shape,
                family: architecture.family,
            });
        }
    }
    Ok(())
}

/// Tensors that some writers add although they follow from the rest: rotary frequencies, and the head of a tied
/// model when it is the embedding table once more.
fn is_redundant(files: &TensorDirectory, name: &str, architecture: &Architecture) -> Result<bool, Error> {
    if name.ends_with("rotary_emb.inv_freq") {
        return Ok(true);
    }
    let table = "model.embed_tokens.weight";
    Ok(architecture.tied && name == "lm_head.weight" && files.bytes(name)? == files.bytes(table)?)
}
