//! Scores from disk.

use std::path::{Path, PathBuf};

use memmap2::Mmap;
use remit_fault::fault;

use super::layout::{DATA, Header, MANIFEST, Manifest, damaged, not_complete, other_shape, read_json};
use super::merge::{Survey, survey};
use super::{ScoreDtype, ScoreKey, Shard};
use crate::Error;
use crate::hash::hash_file;
use crate::tensors::map_file;

/// A complete score store, memory-mapped: opening it reads next to nothing.
#[derive(Debug)]
pub struct ScoreStore {
    path: PathBuf,
    manifest: Manifest,
    /// The scores of each shard.
    maps: Vec<Mmap>,
    /// The first window of each shard.
    starts: Vec<u64>,
}

impl ScoreStore {
    /// Opens the scores in `directory` for this token store, window layout and reference, and no other.
    ///
    /// # Errors
    /// No scores there; scores of something else, saying which of the three differs; scores that are not complete,
    /// naming the shards that are missing; a file that is missing, of another version or of another size than the
    /// manifest says; a refusal of the operating system.
    pub fn open(directory: &Path, key: &ScoreKey) -> Result<ScoreStore, Error> {
        let manifest_path = directory.join(MANIFEST);
        let manifest = match read_json::<Manifest>(&manifest_path)? {
            Some(manifest) => manifest,
            // Complete shards that nobody has merged are as good, and reading should not have to write.
            None => match survey(directory)? {
                Survey::Complete(manifest) => manifest,
                Survey::Waiting { header, unfinished } => {
                    // Worth knowing before one waits for them: whether they will be the right ones.
                    header.map_or(Ok(()), |header| header.check_key(directory, key))?;
                    return Err(not_complete(directory, &unfinished));
                }
            },
        };
        let header = &manifest.header;
        header.check_key(directory, key)?;
        let count = u32::try_from(manifest.shards.len()).unwrap_or(u32::MAX);
        if count == 0 {
            return Err(damaged(&manifest_path, "it names no shards"));
        }
        let mut maps = Vec::new();
        let mut starts = Vec::new();
        for shard in Shard::all(count) {
            let path = shard.directory(directory).join(DATA);
            let windows = shard.windows(header.num_windows);
            if !path.exists() {
                let problem = format!("it is missing; the manifest says that shard {shard} is complete");
                return Err(damaged(&path, problem));
            }
            let map = map_file(&path)?;
            let expected = header.bytes_of(windows.end - windows.start);
            if map.len() as u64 != expected {
                let num_windows = windows.end - windows.start;
                let problem = format!(
                    "it has {} bytes, and {num_windows} windows of {} scores in {} take {expected}",
                    map.len(),
                    header.length,
                    header.dtype
                );
                return Err(damaged(&path, problem));
            }
            maps.push(map);
            starts.push(windows.start);
        }
        Ok(ScoreStore { path: directory.to_owned(), manifest, maps, starts })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the scores are of.
    pub fn key(&self) -> &ScoreKey {
        &self.manifest.header.key
    }

    /// Number of windows.
    pub fn num_windows(&self) -> u64 {
        self.header().num_windows
    }

    /// Scores a window, `T`.
    pub fn length(&self) -> usize {
        self.header().length
    }

    /// How they are stored.
    pub fn dtype(&self) -> ScoreDtype {
        self.header().dtype
    }

    /// Reads the scores of a window: `out`, of [`length`](ScoreStore::length), is by prediction.
    ///
    /// # Errors
    /// A window beyond the last; an `out` of another length.
    pub fn scores(&self, window_index: u64, out: &mut [f32]) -> Result<(), Error> {
        let header = self.header();
        if window_index >= header.num_windows {
            return Err(fault!(
                "window {window_index} is beyond the {} windows of the scores in `{}`",
                header.num_windows,
                self.path.display()
            ));
        }
        if out.len() != header.length {
            let (found, wanted) = (header.length.to_string(), out.len().to_string());
            return Err(other_shape(&self.path, "window length", &found, &wanted));
        }
        // The last shard that starts no later; of shards without windows, which start where the next one does, the
        // next one is later.
        let shard = self.starts.partition_point(|&start| start <= window_index) - 1;
        let row_bytes = header.length * header.dtype.bytes();
        let start = (window_index - self.starts[shard]) as usize * row_bytes;
        header.dtype.decode(&self.maps[shard][start..start + row_bytes], out);
        Ok(())
    }

    /// Hashes all scores and compares them with what was written.
    ///
    /// # Errors
    /// The first file that differs; a refusal of the operating system.
    pub fn verify(&self) -> Result<(), Error> {
        for (shard, written) in Shard::all(self.maps.len() as u32).zip(&self.manifest.shards) {
            let path = shard.directory(&self.path).join(DATA);
            let hash = hash_file(&path)?;
            if hash != written.blake3 {
                let problem = format!(
                    "its content has changed since it was written (BLAKE3 {hash}, was {})",
                    written.blake3
                );
                return Err(damaged(&path, problem));
            }
        }
        Ok(())
    }

    fn header(&self) -> &Header {
        &self.manifest.header
    }
}
