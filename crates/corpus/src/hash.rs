//! The hash of a file of any size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::{Error, error};

/// Bytes hashed at once: enough to share among all cores.
const CHUNK_BYTES: usize = 8 << 20;

/// blake3 of a file, in hexadecimal. Read in chunks and not mapped: pages of a map count as this program's memory,
/// and that must not grow with the corpus.
pub(crate) fn hash_file(path: &Path) -> Result<String, Error> {
    let failed = |cause| error::io("read", path, cause);
    let mut file = File::open(path).map_err(|cause| error::io("open", path, cause))?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        let count = file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk).map_err(failed)?;
        if count == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update_rayon(&chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_whole() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        let bytes: Vec<u8> = (0..CHUNK_BYTES + 12_345).map(|i| (i % 251) as u8).collect();
        for len in [0, 5, CHUNK_BYTES, bytes.len()] {
            std::fs::write(&path, &bytes[..len]).unwrap();
            assert_eq!(hash_file(&path).unwrap(), blake3::hash(&bytes[..len]).to_hex().to_string());
        }
    }
}
