//! Names for content: BLAKE3 as 64 hexadecimal digits. Equal content has equal names wherever and however it was made.

use std::path::Path;

use blake3::Hasher;

use crate::Error;
use crate::tensors::model_files;

/// The hash of `bytes`.
pub fn hash_bytes(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The hash of a file's content, on all cores.
///
/// # Errors
/// A refusal of the operating system.
pub fn hash_file(path: &Path) -> Result<String, Error> {
    let mut hasher = Hasher::new();
    hasher.update_mmap_rayon(path).map_err(|cause| Error::io("read", path, cause))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// The identity of a model: the hash of `config.json` and the tensors that
/// [`TensorDirectory::open`](crate::tensors::TensorDirectory::open) reads, names and contents. What lies beside them
/// (tokenizer, optimizer state) does not count, nor does the directory's name.
///
/// # Errors
/// A missing `config.json` or shard, a directory without tensors, an index that cannot be read.
pub fn hash_checkpoint(directory: &Path) -> Result<String, Error> {
    let mut hasher = Hasher::new();
    let tensors = model_files(directory)?;
    for path in std::iter::once(directory.join("config.json")).chain(tensors) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The length keeps name and content apart; the content's hash has a fixed length.
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(hash_file(&path)?.as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Enough of a hash to tell two apart by eye.
pub(crate) fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tensors::{FileDtype, TensorOut, write_tensors};

    /// Test vectors of BLAKE3's own repository.
    #[test]
    fn it_is_blake3() {
        assert_eq!(hash_bytes(b""), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
        assert_eq!(hash_bytes(&[0]), "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213");
    }

    #[test]
    fn a_file_has_the_hash_of_its_bytes() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a");
        for length in [0, 1, 1 << 20] {
            let bytes = vec![3; length];
            fs::write(&path, &bytes).unwrap();
            assert_eq!(hash_file(&path).unwrap(), hash_bytes(&bytes));
        }
        let error = hash_file(&home.path().join("b")).unwrap_err();
        assert!(error.to_string().starts_with("cannot read `"), "{error}");
    }

    #[test]
    fn a_model_is_its_configuration_and_tensors() {
        let make = |config: &str, value: f32, shard: Option<u64>| {
            let home = tempfile::tempdir().unwrap();
            fs::write(home.path().join("config.json"), config).unwrap();
            let tensors = [("a", 1.0), ("b", value)];
            let tensors: Vec<_> = tensors
                .iter()
                .map(|(name, value)| TensorOut { name, shape: &[], data: std::slice::from_ref(value) })
                .collect();
            write_tensors(home.path(), "model", &tensors, FileDtype::F32, shard).unwrap();
            home
        };
        let hash = |home: &tempfile::TempDir| hash_checkpoint(home.path()).unwrap();
        let first = make("{}", 2.0, Some(4));
        let identity = hash(&first);
        assert_eq!(identity.len(), 64);
        assert_eq!(identity, hash(&make("{}", 2.0, Some(4))));
        assert_ne!(identity, hash(&make("{ }", 2.0, Some(4))));
        assert_ne!(identity, hash(&make("{}", 2.5, Some(4))), "a change in the last shard");
        fs::write(first.path().join("optimizer.safetensors"), "x").unwrap();
        assert_eq!(identity, hash(&first));
        fs::remove_file(first.path().join("config.json")).unwrap();
        let error = hash_checkpoint(first.path()).unwrap_err();
        assert!(error.to_string().contains("config.json`: No such file"), "{error}");
    }
}
