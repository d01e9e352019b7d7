//! One safetensors file, memory-mapped.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use remit_fault::fault;
use safetensors::Dtype;

use super::convert;
use super::header::{self, Entry};
use crate::{Error, damage};

/// One safetensors file. Nothing is read before it is asked for.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: Mmap,
    entries: BTreeMap<String, Entry>,
}

/// What a file says of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    /// Element type in the file.
    pub dtype: Dtype,
    /// Sizes, outermost first; empty for a scalar.
    pub shape: &'a [usize],
}

impl TensorInfo<'_> {
    /// Number of elements.
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl TensorFile {
    /// Maps the file and checks its header against its length.
    ///
    /// The file must not be changed in place while it is open; what this crate writes is replaced, never changed.
    ///
    /// # Errors
    /// A file that cannot be opened or is not a whole safetensors file.
    pub fn open(path: &Path) -> Result<TensorFile, Error> {
        let map = map_file(path)?;
        let entries = header::parse(&map).map_err(|problem| {
            let error = damage::damaged(path, "safetensors file", problem);
            if map.starts_with(b"version https://git-lfs.") {
                // What a clone without Git LFS leaves in the place of large files.
                error.with_hint("it is a Git LFS pointer: run `git lfs pull` in its repository")
            } else {
                error
            }
        })?;
        Ok(TensorFile { path: path.to_owned(), map, entries })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Element type and shape of a tensor.
    ///
    /// # Errors
    /// A tensor that is not there.
    pub fn info(&self, name: &str) -> Result<TensorInfo<'_>, Error> {
        let entry = self.entry(name)?;
        Ok(TensorInfo { dtype: entry.dtype, shape: &entry.shape })
    }

    /// The bytes of a tensor as they are in the file: little-endian, row-major, of any alignment.
    ///
    /// # Errors
    /// A tensor that is not there.
    pub fn bytes(&self, name: &str) -> Result<&[u8], Error> {
        Ok(&self.map[self.entry(name)?.range.clone()])
    }

    /// The bits of a tensor of bfloat16 as they lie in the file; `None` where its elements are of another type or not
    /// aligned, and on machines of the other byte order.
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn bf16_bits(&self, name: &str) -> Result<Option<&[u16]>, Error> {
        let entry = self.entry(name)?;
        if entry.dtype != Dtype::BF16 || cfg!(target_endian = "big") {
            return Ok(None);
        }
        // SAFETY: any two bytes are a `u16`.
        let (before, bits, behind) = unsafe { self.map[entry.range.clone()].align_to::<u16>() };
        Ok((before.is_empty() && behind.is_empty()).then_some(bits))
    }

    /// Reads a tensor of F32, BF16 or F16 into `out`, row-major; every such value is a float32, so this is exact.
    ///
    /// # Errors
    /// A tensor that is not there or has another element type; an `out` of another length than the tensor.
    pub fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), Error> {
        let shape = &self.entry(name)?.shape;
        if out.len() != shape.iter().product::<usize>() {
            let (path, wanted) = (self.path.display(), out.len());
            return Err(fault!(
                "`{path}`: tensor `{name}` has shape {shape:?}, but {wanted} elements are wanted"
            )
            .with_hint(OTHER_CONFIG));
        }
        self.read_f32_part(name, 0, out)
    }

    /// Reads the elements of a tensor from `first` on, as many as `out` takes; otherwise as
    /// [`read_f32`](TensorFile::read_f32).
    ///
    /// # Errors
    /// A tensor that is not there or has another element type.
    ///
    /// # Panics
    /// Where the tensor ends before.
    pub fn read_f32_part(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), Error> {
        let entry = self.entry(name)?;
        let bytes = &self.map[entry.range.clone()];
        let (from, to) = (first, first + out.len());
        match entry.dtype {
            Dtype::F32 => convert::from_f32(&bytes[4 * from..4 * to], out),
            Dtype::BF16 => convert::from_bf16(&bytes[2 * from..2 * to], out),
            Dtype::F16 => convert::from_f16(&bytes[2 * from..2 * to], out),
            dtype => {
                let path = self.path.display();
                return Err(fault!(
                    "`{path}` holds tensor `{name}` as {dtype}; F32, BF16 and F16 are supported"
                )
                .with_hint("convert the checkpoint to bfloat16 or float32 first"));
            }
        }
        Ok(())
    }

    fn entry(&self, name: &str) -> Result<&Entry, Error> {
        self.entries.get(name).ok_or_else(|| no_tensor(&self.path, name))
    }
}

const OTHER_CONFIG: &str = "check that `config.json` is the one that belongs to these tensors";

/// A tensor that is not in the file or directory at `path`.
pub(super) fn no_tensor(path: &Path, name: &str) -> Error {
    fault!("`{}` has no tensor `{name}`", path.display()).with_hint(OTHER_CONFIG)
}

/// Maps a file to memory for reading.
pub(crate) fn map_file(path: &Path) -> Result<Mmap, Error> {
    let file = File::open(path).map_err(|cause| Error::io("open", path, cause))?;
    // SAFETY: the bytes must not change below the map. Files of this crate are complete when they take their name and
    // are replaced by rename, which leaves a map on the old content; `open` asks the same of other people's files.
    unsafe { Mmap::map(&file) }.map_err(|cause| Error::io("map", path, cause))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use safetensors::tensor::TensorView;

    use super::*;

    #[test]
    fn tensors_of_every_dtype_are_listed_and_the_float_ones_read() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x.safetensors");
        let f32s: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let f16s: Vec<u8> = [half::f16::from_f32(0.5), half::f16::NEG_INFINITY]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let bf16s = [0x80, 0x3f, 0x00, 0xc0];
        let view = |dtype, bytes| TensorView::new(dtype, vec![2], bytes).unwrap();
        let bytes = safetensors::serialize(
            [
                ("c.f32", view(Dtype::F32, &f32s)),
                ("b.f16", view(Dtype::F16, &f16s)),
                ("a.bf16", view(Dtype::BF16, &bf16s)),
                ("d.f64", view(Dtype::F64, &[0; 16])),
            ],
            None,
        )
        .unwrap();
        fs::write(&path, bytes).unwrap();

        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["a.bf16", "b.f16", "c.f32", "d.f64"]);
        assert_eq!(file.info("c.f32").unwrap(), TensorInfo { dtype: Dtype::F32, shape: &[2] });
        assert_eq!(file.info("c.f32").unwrap().num_elements(), 2);
        assert_eq!(file.bytes("a.bf16").unwrap(), bf16s);
        let read = |name| {
            let mut out = [0.0; 2];
            file.read_f32(name, &mut out).map(|()| out)
        };
        assert_eq!(read("c.f32").unwrap(), [1.5, -2.0]);
        assert_eq!(read("b.f16").unwrap(), [0.5, f32::NEG_INFINITY]);
        assert_eq!(read("a.bf16").unwrap(), [1.0, -2.0]);
        for (name, second) in [("c.f32", -2.0), ("b.f16", f32::NEG_INFINITY), ("a.bf16", -2.0)] {
            let mut out = [0.0];
            file.read_f32_part(name, 1, &mut out).unwrap();
            assert_eq!(out, [second], "{name}");
        }
        let error = read("d.f64").unwrap_err();
        assert!(
            error.to_string().ends_with("holds tensor `d.f64` as F64; F32, BF16 and F16 are supported"),
            "{error}"
        );
        let error = read("e").unwrap_err();
        assert!(error.to_string().ends_with("x.safetensors` has no tensor `e`"), "{error}");
        let error = file.read_f32("c.f32", &mut [0.0; 3]).unwrap_err();
        assert!(error.to_string().contains("tensor `c.f32` has shape [2], but 3 elements"), "{error}");
    }

    #[test]
    fn missing_empty_and_foreign_files_are_named() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x.safetensors");
        let error = TensorFile::open(&path).unwrap_err();
        assert!(error.to_string().contains("cannot open `"), "{error}");
        fs::write(&path, b"").unwrap();
        let error = TensorFile::open(&path).unwrap_err();
        assert!(
            error.to_string().contains("x.safetensors` is not a whole safetensors file: it has 0 bytes"),
            "{error}"
        );
        fs::write(&path, b"version https://git-lfs.github.com/spec/v1\n").unwrap();
        let error = TensorFile::open(&path).unwrap_err();
        assert!(error.hint().unwrap().contains("git lfs pull"), "{:?}", error.hint());
        fs::write(&path, b"PK\x03\x04 a pickle of another library").unwrap();
        let error = TensorFile::open(&path).unwrap_err();
        assert!(error.to_string().contains("more than the 100000000 the format allows"), "{error}");
        assert!(error.hint().unwrap().contains("again"), "{:?}", error.hint());
    }
}
