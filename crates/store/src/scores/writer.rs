//! Scores to disk, resumable after a kill at any moment.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use remit_fault::fault;

use super::layout::{
    DATA, FORMAT_VERSION, Header, JOURNAL, MANIFEST, Manifest, SHARD_FILE, ShardFile, UnfinishedShard,
    damaged, not_complete, other_shards, read_journal, read_json, shards_in, to_json,
};
use super::{Merge, ScoreDtype, ScoreKey, Shard, merge};
use crate::hash::hash_file;
use crate::lock::Lock;
use crate::{Error, atomic};

/// Writes the scores of one shard, window after window.
///
/// Progress is durable before it is claimed: what [`next_window`](ScoreWriter::next_window) says after a kill is on
/// the device. It may lie behind what had been written; the windows between are computed again. It is always the end
/// of one of the former [`write`](ScoreWriter::write)s, so with the same grouping of windows, or a computation that
/// does not depend on grouping, the finished bytes are those of an uninterrupted process.
#[derive(Debug)]
pub struct ScoreWriter {
    store: PathBuf,
    directory: PathBuf,
    header: Header,
    shard: Shard,
    windows: Range<u64>,
    next: u64,
    /// `None` where the shard was complete when it was opened.
    data: Option<File>,
    /// Encoded scores of one `write`, kept for its memory.
    buffer: Vec<u8>,
    unsynced_bytes: usize,
    synced_at: Instant,
    _lock: Lock,
}

impl ScoreWriter {
    /// Opens a shard of the store in `directory` for `num_windows` windows of `length` scores in all, making what is
    /// not there, and goes on where a former process stopped.
    ///
    /// # Errors
    /// The beginning of other scores in the directory; another process that computes this shard; a shard beyond the
    /// count; a damaged file; a refusal of the operating system.
    ///
    /// # Panics
    /// Where `length` is 0.
    pub fn open(
        directory: &Path,
        key: &ScoreKey,
        num_windows: u64,
        length: usize,
        dtype: ScoreDtype,
        shard: Shard,
    ) -> Result<ScoreWriter, Error> {
        assert!(length > 0, "a window has at least one prediction");
        shard.check()?;
        let header = Header { format_version: FORMAT_VERSION, key: key.clone(), num_windows, length, dtype };
        let store = directory.to_owned();
        let directory = shard.directory(&store);
        fs::create_dir_all(&store).map_err(|cause| Error::io("create", &store, cause))?;
        if let Some(manifest) = read_json::<Manifest>(&store.join(MANIFEST))? {
            manifest.header.check(&store, &header)?;
        }
        for other in shards_in(&store)? {
            if let Some(file) = read_json::<ShardFile>(&other.directory(&store).join(SHARD_FILE))? {
                file.header.check(&store, &header)?;
            }
            if other.count != shard.count {
                return Err(other_shards(&store, other.count, shard.count));
            }
        }
        fs::create_dir_all(&directory).map_err(|cause| Error::io("create", &directory, cause))?;
        let lock = Lock::try_acquire(&directory, "score shard")?;
        let windows = shard.windows(num_windows);
        let is_complete = match read_json::<ShardFile>(&directory.join(SHARD_FILE))? {
            Some(file) => file.blake3.is_some(),
            None => {
                let file = ShardFile { header: header.clone(), blake3: None };
                atomic::write(&directory.join(SHARD_FILE), &to_json(&file))?;
                atomic::sync_directory(&store)?;
                false
            }
        };
        let (next, data) = if is_complete {
            (windows.end, None)
        } else {
            let (done, data) = resume(&directory, &header, windows.end - windows.start)?;
            (windows.start + done, Some(data))
        };
        Ok(ScoreWriter {
            store,
            directory,
            header,
            shard,
            windows,
            next,
            data,
            buffer: Vec::new(),
            unsynced_bytes: 0,
            synced_at: Instant::now(),
            _lock: lock,
        })
    }

    /// The windows of this shard.
    pub fn windows(&self) -> Range<u64> {
        self.windows.clone()
    }

    /// The window to compute next; the end of [`windows`](ScoreWriter::windows) when there is none.
    pub fn next_window(&self) -> u64 {
        self.next
    }

    /// Appends the scores of one window or more, row-major `[n, length]`, from `first_window` on.
    ///
    /// Every score must be finite, also at positions that are masked (put 0 there).
    ///
    /// # Errors
    /// A score that is NaN or infinite, with nothing of this call written; a refusal of the operating system.
    ///
    /// # Panics
    /// Where `first_window` is not [`next_window`](ScoreWriter::next_window), or `scores` is not a whole number of
    /// windows within this shard.
    pub fn write(&mut self, first_window: u64, scores: &[f32]) -> Result<(), Error> {
        let length = self.header.length;
        assert_eq!(first_window, self.next, "windows are written in order");
        assert!(
            scores.len().is_multiple_of(length),
            "{} scores are no number of windows of {length}",
            scores.len()
        );
        let end = first_window + (scores.len() / length) as u64;
        assert!(end <= self.windows.end, "window {end} is beyond the shard's windows {:?}", self.windows);
        if let Some(place) = scores.iter().position(|score| !score.is_finite()) {
            let (window, position) = (first_window + (place / length) as u64, place % length);
            return Err(fault!("the score of window {window} at position {position} is {}", scores[place])
                .with_hint("the reference is not sound on this text: check it with `remit weights`"));
        }
        let Some(data) = &mut self.data else {
            return Ok(()); // a complete shard has no next window, so there was nothing to write
        };
        self.buffer.clear();
        self.header.dtype.encode(scores, &mut self.buffer);
        if let Err(cause) = data.write_all(&self.buffer) {
            // A full disk takes half a window; whoever frees space and goes on must not find it in the way.
            let _ = data.set_len(self.header.bytes_of(self.next - self.windows.start));
            return Err(Error::io("write", self.directory.join(DATA), cause));
        }
        self.next = end;
        self.unsynced_bytes += self.buffer.len();
        if self.unsynced_bytes >= SYNC_BYTES || self.synced_at.elapsed() >= SYNC_INTERVAL {
            self.sync()?;
        }
        Ok(())
    }

    /// Makes all that was written durable and claims it. Called every now and then by
    /// [`write`](ScoreWriter::write), and by those who know that they are about to stop.
    ///
    /// # Errors
    /// A refusal of the operating system.
    pub fn sync(&mut self) -> Result<(), Error> {
        if let Some(data) = &self.data
            && self.unsynced_bytes > 0
        {
            data.sync_data().map_err(|cause| Error::io("flush", self.directory.join(DATA), cause))?;
            let claim = format!("{}\n", self.next - self.windows.start);
            atomic::append(&self.directory.join(JOURNAL), claim.as_bytes())?;
        }
        self.unsynced_bytes = 0;
        self.synced_at = Instant::now();
        Ok(())
    }

    /// Declares the shard complete, and the store if this is the last shard to be so. Doing it again changes nothing.
    ///
    /// # Errors
    /// Windows that are still to be written; those of [`merge()`].
    pub fn finish(mut self) -> Result<Merge, Error> {
        self.sync()?;
        if self.next != self.windows.end {
            let progress = Some((self.next - self.windows.start, self.windows.end - self.windows.start));
            return Err(not_complete(&self.store, &[UnfinishedShard { shard: self.shard, progress }]));
        }
        if self.data.is_some() {
            let blake3 = Some(hash_file(&self.directory.join(DATA))?);
            let file = ShardFile { header: self.header.clone(), blake3 };
            atomic::write(&self.directory.join(SHARD_FILE), &to_json(&file))?;
        }
        atomic::remove(&self.directory.join(JOURNAL))?;
        merge(&self.store)
    }
}

/// Bytes after which progress is made durable: seldom enough to cost nothing.
const SYNC_BYTES: usize = 8 << 20;
/// Time after which it is: as much as a kill can cost. What is written does not depend on it.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);

/// The number of windows on the device, and the data file cut to them, at its end.
fn resume(directory: &Path, header: &Header, num_windows: u64) -> Result<(u64, File), Error> {
    let done = read_journal(directory)?;
    let path = directory.join(DATA);
    let failed = |cause| Error::io("open", &path, cause);
    let file = OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let claimed = header.bytes_of(done);
    if done > num_windows || bytes < claimed {
        let problem =
            format!("it has {bytes} bytes, but the journal beside it counts {done} windows of {num_windows}");
        return Err(damaged(&path, problem));
    }
    file.set_len(claimed).and_then(|()| file.sync_all()).map_err(|cause| Error::io("cut", &path, cause))?;
    // Rewritten, the journal is without what a kill may have torn, and so can be appended to.
    atomic::write(&directory.join(JOURNAL), format!("{done}\n").as_bytes())?;
    Ok((done, file))
}
