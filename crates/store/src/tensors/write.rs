//! Tensors to safetensors files, a chunk at a time.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use remit_fault::fault;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo as RawInfo};
use serde::Serialize;

use super::convert::{bf16_bits, encode};
use crate::atomic::{self, AtomicFile};
use crate::{Error, damage};

/// The element type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileDtype {
    /// float32, exact.
    F32,
    /// bfloat16, rounded to nearest even; exact for what was read from bfloat16.
    Bf16,
}

/// A tensor to be written.
#[derive(Clone, Copy, Debug)]
pub struct TensorOut<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Sizes, outermost first; empty for a scalar.
    pub shape: &'a [usize],
    /// Its elements, row-major.
    pub data: &'a [f32],
}

/// Writes `<stem>.safetensors`; or, where `shard_bytes_max` is given and the tensors take more bytes than that, shards
/// `<stem>-00001-of-0000N.safetensors` and `<stem>.safetensors.index.json`. Stem "model" makes what `transformers`
/// opens.
///
/// Tensors are laid out in order of name, whatever their order here, and shards are filled in that order; a tensor
/// larger than `shard_bytes_max` has a shard of its own. The bytes are those of the `safetensors` library. Memory
/// beyond `tensors` is a fraction of a megabyte.
///
/// Every file appears whole; to have them all or none, write into an [`atomic::directory`].
///
/// # Errors
/// Tensors of this stem that are there already; two tensors of one name; a refusal of the operating system.
///
/// # Panics
/// Where a tensor's data has another length than its shape says.
pub fn write_tensors(
    directory: &Path,
    stem: &str,
    tensors: &[TensorOut],
    dtype: FileDtype,
    shard_bytes_max: Option<u64>,
) -> Result<(), Error> {
    let one = directory.join(format!("{stem}.safetensors"));
    let index = directory.join(format!("{stem}.safetensors.index.json"));
    for path in [&one, &index] {
        // The other of the two would win or lose against what is written now, depending on the reader.
        if path.exists() {
            return Err(damage::exists(path));
        }
    }
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by_key(|tensor| tensor.name);
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(fault!("`{}` would hold tensor `{}` twice", one.display(), pair[0].name));
    }
    let shards = split(&sorted, dtype, shard_bytes_max);
    if let [tensors] = shards[..] {
        return write_file(&one, tensors, dtype);
    }
    let mut weight_map = BTreeMap::new();
    for (number, tensors) in shards.iter().enumerate() {
        let name = format!("{stem}-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        write_file(&directory.join(&name), tensors, dtype)?;
        weight_map.extend(tensors.iter().map(|tensor| (tensor.name, name.clone())));
    }
    let total_size = sorted.iter().map(|tensor| dtype.bytes_of(tensor)).sum();
    let contents = Index { metadata: IndexMetadata { total_size }, weight_map };
    atomic::write_json(&index, &contents)
}

impl FileDtype {
    fn element_bytes(self) -> usize {
        match self {
            FileDtype::F32 => 4,
            FileDtype::Bf16 => 2,
        }
    }

    fn bytes_of(self, tensor: &TensorOut) -> u64 {
        (tensor.data.len() * self.element_bytes()) as u64
    }
}

#[derive(Serialize)]
struct Index<'a> {
    metadata: IndexMetadata,
    weight_map: BTreeMap<&'a str, String>,
}

#[derive(Serialize)]
struct IndexMetadata {
    total_size: u64,
}

/// Fills one shard after the other. At least one, even without tensors.
fn split<'a, 'b>(
    tensors: &'a [&'b TensorOut<'b>],
    dtype: FileDtype,
    shard_bytes_max: Option<u64>,
) -> Vec<&'a [&'b TensorOut<'b>]> {
    let limit = shard_bytes_max.unwrap_or(u64::MAX);
    let mut shards = Vec::new();
    let (mut start, mut bytes) = (0, 0u64);
    for (end, tensor) in tensors.iter().enumerate() {
        let more = dtype.bytes_of(tensor);
        if end > start && bytes + more > limit {
            shards.push(&tensors[start..end]);
            (start, bytes) = (end, 0);
        }
        bytes += more;
    }
    shards.push(&tensors[start..]);
    shards
}

fn write_file(path: &Path, tensors: &[&TensorOut], dtype: FileDtype) -> Result<(), Error> {
    let mut file = AtomicFile::create(path)?;
    let header = header(tensors, dtype);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let mut chunk = vec![0; CHUNK_ELEMENTS * dtype.element_bytes()];
    for tensor in tensors {
        for values in tensor.data.chunks(CHUNK_ELEMENTS) {
            let encoded = &mut chunk[..values.len() * dtype.element_bytes()];
            match dtype {
                FileDtype::F32 => encode(values, encoded, f32::to_le_bytes),
                FileDtype::Bf16 => encode(values, encoded, |value| bf16_bits(value).to_le_bytes()),
            }
            file.write_all(encoded)?;
        }
    }
    file.commit()
}

/// Elements converted at a time: few enough to stay in cache, enough to be written in one go.
const CHUNK_ELEMENTS: usize = 1 << 15;

/// The header as the `safetensors` library writes it: entries in order of their data, padded so that the data is
/// aligned to 8 bytes.
fn header(tensors: &[&TensorOut], dtype: FileDtype) -> Vec<u8> {
    let mut end = 0;
    let entries = tensors.iter().map(|tensor| {
        let num_elements: usize = tensor.shape.iter().product();
        assert_eq!(num_elements, tensor.data.len(), "tensor `{}` of shape {:?}", tensor.name, tensor.shape);
        let start = end;
        end += tensor.data.len() * dtype.element_bytes();
        let dtype = match dtype {
            FileDtype::F32 => Dtype::F32,
            FileDtype::Bf16 => Dtype::BF16,
        };
        let info = RawInfo { dtype, shape: tensor.shape.to_vec(), data_offsets: (start, end) };
        (tensor.name.to_owned(), info)
    });
    // `transformers` refuses a file that does not name the framework it is for.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), entries.collect()).expect(
        "offsets follow one another and agree with the shapes, which are in memory and so do not overflow",
    );
    let mut header = serde_json::to_vec(&metadata).expect("names and numbers are JSON");
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

#[cfg(test)]
mod tests {
    use std::fs;

    use safetensors::tensor::TensorView;

    use super::*;
    use crate::tensors::{TensorDirectory, TensorFile};

    /// Every kind of float32, and more of them than a chunk.
    fn values(count: usize) -> Vec<f32> {
        let mut state = 1u32;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                f32::from_bits(state)
            })
            .collect()
    }

    fn bytes_of(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn the_file_is_the_one_the_library_writes() {
        let home = tempfile::tempdir().unwrap();
        let data = values(CHUNK_ELEMENTS * 2 + 6);
        let small = values(3);
        let tensors = [
            TensorOut { name: "model.layers.1", shape: &[2, data.len() / 2], data: &data },
            TensorOut { name: "empty", shape: &[0, 4], data: &[] },
            TensorOut { name: "model.layers.0", shape: &[3], data: &small },
        ];
        write_tensors(home.path(), "model", &tensors, FileDtype::F32, None).unwrap();
        let owned: Vec<_> = tensors.iter().map(|tensor| (tensor, bytes_of(tensor.data))).collect();
        let views = owned.iter().map(|(tensor, bytes)| {
            (tensor.name, TensorView::new(Dtype::F32, tensor.shape.to_vec(), bytes).unwrap())
        });
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let expected = safetensors::serialize(views, Some(format)).unwrap();
        assert!(fs::read(home.path().join("model.safetensors")).unwrap() == expected);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn float32_comes_back_bit_by_bit() {
        let home = tempfile::tempdir().unwrap();
        let data = values(1000);
        let tensors = [TensorOut { name: "a", shape: &[10, 100], data: &data }];
        write_tensors(home.path(), "model", &tensors, FileDtype::F32, None).unwrap();
        let read = TensorDirectory::open(home.path()).unwrap();
        let mut out = vec![0.0; 1000];
        read.read_f32("a", &mut out).unwrap();
        assert_eq!(bytes_of(&out), bytes_of(&data));
        assert_eq!(read.info("a").unwrap().shape, [10, 100]);
    }

    #[test]
    fn bfloat16_comes_back_bit_by_bit() {
        let home = tempfile::tempdir().unwrap();
        // Bit patterns of every bfloat16, infinities and NaN included.
        let data: Vec<f32> = (0..=u16::MAX).map(|bits| f32::from_bits(u32::from(bits) << 16)).collect();
        let write = |stem, data| {
            let tensors = [TensorOut { name: "a", shape: &[1 << 16], data }];
            write_tensors(home.path(), stem, &tensors, FileDtype::Bf16, None).unwrap();
            TensorFile::open(&home.path().join(format!("{stem}.safetensors"))).unwrap()
        };
        let first = write("first", &data);
        assert_eq!(first.info("a").unwrap().dtype, Dtype::BF16);
        assert_eq!(first.bytes("a").unwrap()[2 * 0x7f81..][..2], [0x81, 0x7f]);
        let mut out = vec![0.0; 1 << 16];
        first.read_f32("a", &mut out).unwrap();
        assert_eq!(bytes_of(&out), bytes_of(&data));
        assert!(write("second", &out).bytes("a").unwrap() == first.bytes("a").unwrap());
    }

    #[test]
    fn shards_hold_what_fits_in_order_of_name() {
        let home = tempfile::tempdir().unwrap();
        let data = values(8);
        let shape = [[3], [1], [8], [2], [2]];
        let names = ["e", "d", "c", "b", "a"];
        let tensors: Vec<_> = names
            .iter()
            .zip(&shape)
            .map(|(name, shape)| TensorOut { name, shape, data: &data[..shape[0]] })
            .collect();
        // 16 bytes: a 8, b 8 | c 32, too large for any | d 4, e 12.
        write_tensors(home.path(), "model", &tensors, FileDtype::F32, Some(16)).unwrap();
        let text = fs::read_to_string(home.path().join("model.safetensors.index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(index["metadata"]["total_size"], 64);
        let shard = |name: &str| index["weight_map"][name].as_str().unwrap().to_owned();
        assert_eq!(
            ["a", "b", "c", "d", "e"].map(shard),
            [1, 1, 2, 3, 3].map(|number| format!("model-0000{number}-of-00003.safetensors"))
        );
        let read = TensorDirectory::open(home.path()).unwrap();
        for tensor in &tensors {
            assert_eq!(read.bytes(tensor.name).unwrap(), bytes_of(tensor.data), "{}", tensor.name);
        }
    }

    #[test]
    fn equal_names_and_files_in_the_way_are_errors() {
        let home = tempfile::tempdir().unwrap();
        let scalar = |name| TensorOut { name, shape: &[], data: &[1.0] };
        let write = |tensors: &[TensorOut]| {
            write_tensors(home.path(), "model", tensors, FileDtype::F32, None)
                .map_err(|error| error.to_string())
        };
        let error = write(&[scalar("a"), scalar("b"), scalar("a")]).unwrap_err();
        assert!(error.ends_with("would hold tensor `a` twice"), "{error}");
        write(&[scalar("a")]).unwrap();
        let error = write(&[scalar("a")]).unwrap_err();
        assert!(error.ends_with("model.safetensors` exists already"), "{error}");
    }
}
