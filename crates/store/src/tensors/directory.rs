//! A checkpoint's tensors: one file, or shards with an index.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use remit_fault::fault;
use serde::Deserialize;

use super::file::no_tensor;
use super::header::UniqueMap;
use super::{TensorFile, TensorInfo};
use crate::Error;
use crate::damage::damaged;

/// The tensors of a directory, whether they lie in one file or in shards. Nothing is read before it is asked for.
#[derive(Debug)]
pub struct TensorDirectory {
    path: PathBuf,
    files: Vec<TensorFile>,
    /// The file of each tensor.
    places: BTreeMap<String, usize>,
}

/// What `<stem>.safetensors.index.json` holds, as far as it is needed.
#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

impl TensorDirectory {
    /// Opens a Hugging Face checkpoint: `model.safetensors`, or the shards of `model.safetensors.index.json`.
    ///
    /// # Errors
    /// Neither of them there; a file or index that is not whole, a shard that is missing or lacks a tensor of the index,
    /// and a tensor in two shards.
    pub fn open(directory: &Path) -> Result<TensorDirectory, Error> {
        TensorDirectory::open_stem(directory, "model")
    }

    /// Opens `<stem>.safetensors`, or the shards of `<stem>.safetensors.index.json`: what
    /// [`write_tensors`](super::write_tensors) wrote under this stem.
    ///
    /// # Errors
    /// As [`open`](TensorDirectory::open).
    pub fn open_stem(directory: &Path, stem: &str) -> Result<TensorDirectory, Error> {
        let files = match tensor_paths(directory, stem)? {
            Paths::One(path) => vec![TensorFile::open(&path)?],
            Paths::Shards { index, weight_map } => open_shards(directory, &index, &weight_map)?,
        };
        let mut places = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            for name in file.names() {
                if let Some(first) = places.insert(name.to_owned(), number) {
                    let (first, second) = (file_name(files[first].path()), file_name(file.path()));
                    let problem = format!("tensor `{name}` is in `{first}` and again in `{second}`");
                    return Err(damaged(directory, "checkpoint", problem));
                }
            }
        }
        Ok(TensorDirectory { path: directory.to_owned(), files, places })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Element type and shape of a tensor.
    ///
    /// # Errors
    /// A tensor that is not there.
    pub fn info(&self, name: &str) -> Result<TensorInfo<'_>, Error> {
        self.file(name)?.info(name)
    }

    /// The bytes of a tensor as they are in its file: little-endian, row-major, of any alignment.
    ///
    /// # Errors
    /// A tensor that is not there.
    pub fn bytes(&self, name: &str) -> Result<&[u8], Error> {
        self.file(name)?.bytes(name)
    }

    /// [`TensorFile::bf16_bits`].
    pub fn bf16_bits(&self, name: &str) -> Result<Option<&[u16]>, Error> {
        self.file(name)?.bf16_bits(name)
    }

    /// Reads a tensor into `out`: see [`TensorFile::read_f32`].
    ///
    /// # Errors
    /// As there.
    pub fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), Error> {
        self.file(name)?.read_f32(name, out)
    }

    /// Reads the elements of a tensor from `first` on: see [`TensorFile::read_f32_part`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn read_f32_part(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), Error> {
        self.file(name)?.read_f32_part(name, first, out)
    }

    fn file(&self, name: &str) -> Result<&TensorFile, Error> {
        match self.places.get(name) {
            Some(&number) => Ok(&self.files[number]),
            None => Err(no_tensor(&self.path, name)),
        }
    }
}

/// The safetensors files of a checkpoint in order of name, the one or the shards of the index: what decides which
/// model it is.
pub(crate) fn model_files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    match tensor_paths(directory, "model")? {
        Paths::One(path) => Ok(vec![path]),
        Paths::Shards { weight_map, .. } => {
            let shards: BTreeSet<_> = weight_map.values().collect();
            Ok(shards.into_iter().map(|shard| directory.join(shard)).collect())
        }
    }
}

/// How a checkpoint is laid out.
enum Paths {
    One(PathBuf),
    Shards { index: PathBuf, weight_map: BTreeMap<String, String> },
}

/// As `transformers` does, one file is preferred where there is also an index.
fn tensor_paths(directory: &Path, stem: &str) -> Result<Paths, Error> {
    let one = directory.join(format!("{stem}.safetensors"));
    if one.is_file() {
        return Ok(Paths::One(one));
    }
    let index = directory.join(format!("{stem}.safetensors.index.json"));
    if !index.is_file() {
        let path = directory.display();
        let error = if directory.is_dir() {
            fault!("`{path}` has neither `{stem}.safetensors` nor `{stem}.safetensors.index.json`")
        } else {
            fault!("there is no directory `{path}`")
        };
        return Err(error.with_hint(
            "name the directory that holds `config.json` and `model.safetensors`, as `save_pretrained` writes them",
        ));
    }
    let text = fs::read(&index).map_err(|cause| Error::io("read", &index, cause))?;
    let Index { weight_map: UniqueMap(weight_map) } =
        serde_json::from_slice(&text).map_err(|error| damaged(&index, INDEX, error))?;
    for shard in weight_map.values() {
        // An index comes from strangers: it may name files beside itself, not any file of this machine.
        let mut components = Path::new(shard).components();
        if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
            return Err(damaged(&index, INDEX, format!("shard `{shard}` is not a file name")));
        }
    }
    Ok(Paths::Shards { index, weight_map })
}

fn open_shards(
    directory: &Path,
    index: &Path,
    weight_map: &BTreeMap<String, String>,
) -> Result<Vec<TensorFile>, Error> {
    let mut shards: BTreeMap<&str, TensorFile> = BTreeMap::new();
    for (name, shard) in weight_map {
        if !shards.contains_key(&shard[..]) {
            let path = directory.join(shard);
            if !path.exists() {
                return Err(damaged(index, INDEX, format!("it names shard `{shard}`, which is not there")));
            }
            shards.insert(shard, TensorFile::open(&path)?);
        }
        if !shards[&shard[..]].contains(name) {
            let problem = format!("it places tensor `{name}` in `{shard}`, which has none");
            return Err(damaged(index, INDEX, problem));
        }
    }
    Ok(shards.into_values().collect())
}

/// What a damaged index should have been.
const INDEX: &str = "index of shards";

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::{FileDtype, TensorOut, write_tensors};

    /// Two shards: `a` in the first, `b` and `c` in the second.
    fn sharded() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        let tensors = [
            TensorOut { name: "a", shape: &[2], data: &[1.0, 2.0] },
            TensorOut { name: "b", shape: &[1], data: &[3.0] },
            TensorOut { name: "c", shape: &[], data: &[4.0] },
        ];
        write_tensors(home.path(), "model", &tensors, FileDtype::F32, Some(8)).unwrap();
        home
    }

    const SECOND: &str = "model-00002-of-00002.safetensors";

    #[test]
    fn shards_read_as_one() {
        let home = sharded();
        let tensors = TensorDirectory::open(home.path()).unwrap();
        assert_eq!(tensors.names().collect::<Vec<_>>(), ["a", "b", "c"]);
        let mut out = [0.0; 2];
        tensors.read_f32("a", &mut out).unwrap();
        assert_eq!(out, [1.0, 2.0]);
        tensors.read_f32("c", &mut out[..1]).unwrap();
        assert_eq!(out[0], 4.0);
        assert!(tensors.info("c").unwrap().shape.is_empty());
        assert_eq!(tensors.bytes("b").unwrap(), 3.0f32.to_le_bytes());
        let error = tensors.info("d").unwrap_err();
        assert!(error.to_string().ends_with("` has no tensor `d`"), "{error}");
        assert_eq!(model_files(home.path()).unwrap().len(), 2);
    }

    #[test]
    fn a_directory_without_tensors_says_what_was_looked_for() {
        let home = tempfile::tempdir().unwrap();
        let error = TensorDirectory::open(home.path()).unwrap_err();
        let expected = format!(
            "`{}` has neither `model.safetensors` nor `model.safetensors.index.json`",
            home.path().display()
        );
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().unwrap().contains("config.json"), "{:?}", error.hint());
        let error = TensorDirectory::open(&home.path().join("gone")).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("there is no directory `{}`", home.path().join("gone").display())
        );
    }

    #[test]
    fn damaged_checkpoints_name_the_file_and_the_tensor() {
        let check = |damage: &dyn Fn(&Path), expected: &str| {
            let home = sharded();
            damage(home.path());
            let error = TensorDirectory::open(home.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} should contain {expected:?}");
        };
        let index = |from: &'static str, to: &'static str| {
            move |home: &Path| {
                let path = home.join("model.safetensors.index.json");
                let text = fs::read_to_string(&path).unwrap();
                assert!(text.contains(from), "{text}");
                fs::write(path, text.replace(from, to)).unwrap();
            }
        };
        check(
            &|home| fs::remove_file(home.join(SECOND)).unwrap(),
            "model.safetensors.index.json` is not a whole index of shards: \
             it names shard `model-00002-of-00002.safetensors`, which is not there",
        );
        check(
            &|home| {
                let bytes = fs::read(home.join(SECOND)).unwrap();
                fs::write(home.join(SECOND), &bytes[..bytes.len() - 3]).unwrap();
            },
            "model-00002-of-00002.safetensors` is not a whole safetensors file: \
             its header describes 8 bytes of data and only 5 are there",
        );
        check(
            &index("model-00001-of-00002", "model-00002-of-00002"),
            "it places tensor `a` in `model-00002-of-00002.safetensors`, which has none",
        );
        check(&index("model-00001-of-00002", "../model-00001-of-00002"), "is not a file name");
        check(&index("\"b\"", "\"c\""), "`c` occurs twice");
        check(&index("}", ""), "EOF");
        check(
            &|home| {
                fs::remove_file(home.join(SECOND)).unwrap();
                let tensors = ["a", "b", "c"].map(|name| TensorOut { name, shape: &[], data: &[0.0] });
                write_tensors(home, "again", &tensors, FileDtype::F32, None).unwrap();
                fs::rename(home.join("again.safetensors"), home.join(SECOND)).unwrap();
            },
            "tensor `a` is in `model-00001-of-00002.safetensors` and again in `model-00002-of-00002.safetensors`",
        );
    }
}
