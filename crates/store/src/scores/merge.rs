//! From complete shards to a complete store.

use std::path::Path;

use remit_fault::fault;

use super::Shard;
use super::layout::{
    Header, MANIFEST, Manifest, ManifestShard, SHARD_FILE, ShardFile, UnfinishedShard, other_shards,
    read_journal, read_json, shards_in, to_json,
};
use crate::lock::Lock;
use crate::{Error, atomic};

/// How far a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merge {
    /// It has its manifest.
    Complete,
    /// These shards are still missing.
    Waiting(Vec<UnfinishedShard>),
}

/// Makes the manifest of the store in `directory` if every shard is complete.
/// [`ScoreWriter::finish`](super::ScoreWriter::finish) does it; explicitly it is needed only after shards were copied
/// together from several machines. Several processes may do it at once.
///
/// # Errors
/// No scores there; shards that do not belong together; a damaged file; a refusal of the operating system.
pub fn merge(directory: &Path) -> Result<Merge, Error> {
    if !directory.is_dir() {
        return Err(no_scores(directory));
    }
    // Of shards that finish together, each finds all complete and writes: one after the other.
    let _lock = Lock::acquire(directory, "score store", |_| ())?;
    if directory.join(MANIFEST).exists() {
        return Ok(Merge::Complete);
    }
    match survey(directory)? {
        Survey::Complete(manifest) => {
            atomic::write(&directory.join(MANIFEST), &to_json(&manifest))?;
            Ok(Merge::Complete)
        }
        Survey::Waiting { unfinished, .. } => Ok(Merge::Waiting(unfinished)),
    }
}

/// A directory without scores.
fn no_scores(directory: &Path) -> Error {
    fault!("there are no scores in `{}`", directory.display())
        .with_hint("make them with `remit score --reference DIR --tokens STORE`")
}

/// What the shards of a store amount to.
pub(super) enum Survey {
    /// Its manifest, were it written.
    Complete(Manifest),
    Waiting {
        /// `None` while no shard has been begun in earnest.
        header: Option<Header>,
        /// Never empty.
        unfinished: Vec<UnfinishedShard>,
    },
}

/// Looks at every shard of the store; errors as of [`merge`].
pub(super) fn survey(directory: &Path) -> Result<Survey, Error> {
    if !directory.is_dir() {
        return Err(no_scores(directory));
    }
    let shards = shards_in(directory)?;
    let (Some(first), Some(last)) = (shards.first(), shards.last()) else {
        return Err(no_scores(directory));
    };
    if first.count != last.count {
        return Err(other_shards(directory, first.count, last.count));
    }
    let mut header: Option<Header> = None;
    let mut complete = Vec::new();
    let mut unfinished = Vec::new();
    for shard in Shard::all(first.count) {
        let path = shard.directory(directory);
        let Some(file) = read_json::<ShardFile>(&path.join(SHARD_FILE))? else {
            unfinished.push(UnfinishedShard { shard, progress: None });
            continue;
        };
        let header = header.get_or_insert_with(|| file.header.clone());
        file.header.check(&path, header)?;
        match file.blake3 {
            Some(blake3) => complete.push(ManifestShard { blake3 }),
            None => {
                let windows = shard.windows(header.num_windows);
                let progress = Some((read_journal(&path)?, windows.end - windows.start));
                unfinished.push(UnfinishedShard { shard, progress });
            }
        }
    }
    Ok(match header {
        Some(header) if unfinished.is_empty() => Survey::Complete(Manifest { header, shards: complete }),
        header => Survey::Waiting { header, unfinished },
    })
}
