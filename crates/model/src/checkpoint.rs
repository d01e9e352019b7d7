//! A decoder in Hugging Face layout: `config.json`, `generation_config.json`, `model.safetensors` or shards.

use crate::decoder::{FrozenParameters, MappedParameters, RoundedParameters, read_entries};
use crate::layout::{Entry, Layout};
use crate::{Architecture, Decoder, Error, Frozen, families};
use remit_fault::fault;
use remit_kernels::Precision;
use remit_store::atomic;
use remit_store::tensors::{FileDtype, TensorDirectory, TensorOut, write_tensors};
use serde_json::{Map, Value};
use std::io::ErrorKind;
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
    /// Reads `config.json` in `directory`, and `generation_config.json` where there is one: its end tokens go before.
    pub fn open(directory: &Path) -> Result<Architecture, Error> {
        let path = directory.join("config.json");
        let Some(source) = read_json(&path)? else {
            return Err(fault!("no `config.json` in `{}`", directory.display()).with_hint(if directory.is_dir() {
                "a checkpoint is a directory with `config.json` and `model.safetensors`, as `save_pretrained` writes it"
            } else {
                "the directory does not exist"
            }));
        };
        let mut architecture = families::read(source, &path)?;
        let path = directory.join("generation_config.json");
        if let Some(generation) = read_json(&path)? {
            architecture.generation = generation;
            families::read_end_tokens(&mut architecture, &path)?;
        }
        Ok(architecture)
    }

    /// The same, with every tensor of the checkpoint checked against it as [`Decoder::open`] does.
    pub fn of_checkpoint(directory: &Path) -> Result<Architecture, Error> {
        Ok(open(directory)?.0)
    }
}

/// The object in a file; `None` where there is no such file.
fn read_json(path: &Path) -> Result<Option<Map<String, Value>>, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::io("read", path, error)),
    };
    let object = serde_json::from_str(&text);
    object.map(Some).map_err(|error| fault!("`{}` is not a JSON object: {error}", path.display()))
}

impl Decoder {
    /// Opens a checkpoint directory. Parameters are read from the memory-mapped files straight into the decoder's
    /// own buffer, in `f32`.
    pub fn open(directory: &Path) -> Result<Decoder, Error> {
        let (architecture, layout, files) = open(directory)?;
        let mut parameters = vec![0.0; layout.len()];
        read_entries(&files, layout.entries(), &mut parameters);
        Ok(Decoder::from_parts(architecture, layout, parameters))
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
        self.architecture().save(directory, options.dtype)
    }
}

impl Architecture {
    /// Writes `config.json` and `generation_config.json` of a checkpoint whose numbers have the type `dtype`.
    pub fn save(&self, directory: &Path, dtype: FileDtype) -> Result<(), Error> {
        let mut config = self.source.clone();
        let dtype = match dtype {
            FileDtype::F32 => "float32",
            FileDtype::Bf16 => "bfloat16",
        };
        // `transformers` 5 calls it `dtype`; other readers still look for `torch_dtype`.
        config.insert("dtype".into(), dtype.into());
        config.insert("torch_dtype".into(), dtype.into());
        atomic::write_json(&directory.join("config.json"), &Value::Object(config))?;
        let generation = Value::Object(generation(self));
        atomic::write_json(&directory.join("generation_config.json"), &generation)
    }

    /// Lets generation stop at further tokens, here and wherever the checkpoint is opened.
    pub fn add_end_tokens(&mut self, tokens: &[u32]) {
        let missing: Vec<u32> =
            tokens.iter().copied().filter(|token| !self.end_tokens.contains(token)).collect();
        if missing.is_empty() {
            return;
        }
        let mut generation = generation(self);
        self.end_tokens.extend(missing);
        generation.insert("eos_token_id".into(), self.end_tokens.clone().into());
        self.generation = generation;
    }
}

/// `generation_config.json` as it was read, or as it follows from `config.json`.
fn generation(architecture: &Architecture) -> Map<String, Value> {
    if !architecture.generation.is_empty() {
        return architecture.generation.clone();
    }
    let ids = ["bos_token_id", "eos_token_id", "pad_token_id"].into_iter().filter_map(|key| {
        let id = architecture.source.get(key).filter(|id| !id.is_null())?;
        Some((key.to_owned(), id.clone()))
    });
    [("_from_model_config".to_owned(), true.into())].into_iter().chain(ids).collect()
}

impl Frozen {
    /// Parameters, in bytes as `f32`, up to which [`Decoder::frozen`] reads them into memory: there speed is worth more
    /// than the memory, beyond it the other way round.
    pub const OWNED_BYTES_MAX: u64 = 1 << 30;

    /// Opens a checkpoint directory only to read it: small ones into memory, large ones by [`Decoder::mapped`]. With
    /// products of bfloat16 see [`RoundedParameters`].
    pub fn frozen(directory: &Path, precision: Precision) -> Result<Frozen, Error> {
        let (architecture, layout, files) = open(directory)?;
        if precision == Precision::Bf16 {
            let parameters = FrozenParameters::Rounded(RoundedParameters::new(files, &layout));
            let mut decoder = Decoder::from_parts(architecture, layout, parameters);
            decoder.precision = precision;
            return Ok(decoder);
        }
        if Frozen::is_mapped(&layout) {
            let parameters = FrozenParameters::Mapped(MappedParameters::new(files));
            return Ok(Decoder::from_parts(architecture, layout, parameters));
        }
        let mut parameters = vec![0.0; layout.len()];
        read_entries(&files, layout.entries(), &mut parameters);
        Ok(Decoder::from_parts(architecture, layout, FrozenParameters::Owned(parameters)))
    }

    /// Opens a checkpoint directory and leaves the parameters in its memory-mapped files. Opening reads no parameter.
    /// A pass converts one block after the other to `f32`, and the head's matrix once and for all: beyond the files
    /// themselves that is what it takes ([`Decoder::frozen_bytes`]), and the results are those of [`Decoder::open`] to
    /// the last bit.
    pub fn mapped(directory: &Path) -> Result<Frozen, Error> {
        let (architecture, layout, files) = open(directory)?;
        let parameters = FrozenParameters::Mapped(MappedParameters::new(files));
        Ok(Decoder::from_parts(architecture, layout, parameters))
    }

    /// Bytes that the parameters of [`Decoder::frozen`] take beyond the mapped files; at most, in bfloat16.
    pub fn frozen_bytes(architecture: &Architecture, precision: Precision) -> u64 {
        let layout = architecture.family.layout(architecture);
        if precision == Precision::Bf16 {
            return RoundedParameters::bytes_max(&layout);
        }
        let block = layout.blocks.first().map_or(0, |block| block.all.len());
        let numbers = if Frozen::is_mapped(&layout) { block + layout.head.len() } else { layout.len() };
        (numbers * size_of::<f32>()) as u64
    }

    fn is_mapped(layout: &Layout) -> bool {
        (layout.len() * size_of::<f32>()) as u64 > Frozen::OWNED_BYTES_MAX
    }
}

/// A checkpoint's switches, layout and files, checked against one another.
pub(crate) fn open(directory: &Path) -> Result<(Architecture, Layout, TensorDirectory), Error> {
    let architecture = Architecture::open(directory)?;
    let files = TensorDirectory::open(directory)?;
    let layout = architecture.family.layout(&architecture);
    check_tensors(&files, layout.entries(), &architecture, directory)?;
    Ok((architecture, layout, files))
}

/// Every tensor that the architecture needs, in its shape and of a type that can be read, and no other.
fn check_tensors(
    files: &TensorDirectory,
    entries: &[Entry],
    architecture: &Architecture,
    directory: &Path,
) -> Result<(), Error> {
    let path = directory.display();
    let mismatched = |error: Error| {
        error.with_hint(
            "`config.json` and the safetensors files do not belong together, or a shard is missing",
        )
    };
    for Entry { name, shape, .. } in entries {
        if !files.contains(name) {
            return Err(mismatched(fault!("tensor `{name}` {shape:?} is missing in `{path}`")));
        }
        let found = files.info(name)?.shape;
        if found != shape.as_slice() {
            return Err(mismatched(fault!(
                "tensor `{name}` in `{path}` has shape {found:?}, the configuration says {shape:?}"
            )));
        }
        files.read_f32_part(name, 0, &mut [])?;
    }
    let known: std::collections::HashSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    for name in files.names().filter(|name| !known.contains(name)) {
        if !is_redundant(files, name, architecture)? {
            let (shape, family) = (files.info(name)?.shape, architecture.family.name());
            return Err(mismatched(fault!(
                "tensor `{name}` {shape:?} in `{path}` is not part of a `{family}` model"
            )));
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
