//! What the files of a score store say, and where they are.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use remit_fault::fault;
use serde::{Deserialize, Serialize};

use crate::hash::short;
use crate::{Error, damage};

/// What scores are of. The hashes are compared as strings and shown shortened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreKey {
    /// Content hash of the token store.
    pub tokens: String,
    /// Hash of the window layout: how the tokens are cut into windows.
    pub layout: String,
    /// Identity of the reference: see [`hash_checkpoint`](crate::hash::hash_checkpoint).
    pub reference: String,
    /// Arithmetic of the reference's products, `f32` where nothing is said.
    #[serde(default = "f32", skip_serializing_if = "is_f32")]
    pub precision: String,
}

fn f32() -> String {
    "f32".to_owned()
}

fn is_f32(precision: &str) -> bool {
    precision == "f32"
}

/// How a score is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScoreDtype {
    /// float16, two bytes; what it costs is derived in the [module's documentation](super).
    #[default]
    F16,
    /// float32, four bytes, exact.
    F32,
}

/// One of several contiguous ranges of windows, each computed by a process of its own. Written `i/n`, from `1/n` to
/// `n/n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which, counted from 0.
    pub index: u32,
    /// Of how many; at most 9999.
    pub count: u32,
}

/// A shard that keeps a store from being complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnfinishedShard {
    /// Which.
    pub shard: Shard,
    /// Windows on the device and windows in all; `None` where it has not been begun.
    pub progress: Option<(u64, u64)>,
}

impl ScoreKey {
    /// What differs between this, the stored key, and the wanted one, in words.
    fn differences(&self, wanted: &ScoreKey) -> Vec<String> {
        let parts = [
            ("token store", &self.tokens, &wanted.tokens),
            ("window layout", &self.layout, &wanted.layout),
            ("reference", &self.reference, &wanted.reference),
            ("precision", &self.precision, &wanted.precision),
        ];
        let differing = parts.into_iter().filter(|(_, stored, wanted)| stored != wanted);
        differing
            .map(|(what, stored, wanted)| {
                format!("another {what} ({} there, {} wanted)", short(stored), short(wanted))
            })
            .collect()
    }
}

impl fmt::Display for ScoreDtype {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            ScoreDtype::F16 => "f16",
            ScoreDtype::F32 => "f32",
        })
    }
}

impl Shard {
    /// The only shard of a store that is computed by one process.
    pub const WHOLE: Shard = Shard { index: 0, count: 1 };

    /// The windows of this shard, of `num_windows` in all. Together the shards cover all windows in order.
    pub fn windows(self, num_windows: u64) -> Range<u64> {
        let start = |index: u32| {
            let product = u128::from(num_windows) * u128::from(index);
            u64::try_from(product / u128::from(self.count)).expect("at most `num_windows`")
        };
        start(self.index)..start(self.index + 1)
    }

    /// Refuses a shard beyond its count, or one without a name of four digits.
    pub(super) fn check(self) -> Result<(), Error> {
        if self.index < self.count && self.count <= SHARD_COUNT_MAX {
            Ok(())
        } else {
            Err(no_such_shard(&self.to_string()))
        }
    }

    /// The shards of a store of `count`.
    pub(super) fn all(count: u32) -> impl Iterator<Item = Shard> {
        (0..count).map(move |index| Shard { index, count })
    }

    pub(super) fn directory(self, store: &Path) -> PathBuf {
        store.join(format!("shard-{:04}-of-{:04}", self.index + 1, self.count))
    }

    /// The inverse of `directory`, of a file name; `None` for other names.
    fn from_directory_name(name: &str) -> Option<Shard> {
        let (number, count) = name.strip_prefix("shard-")?.split_once("-of-")?;
        format!("{}/{}", number.parse::<u32>().ok()?, count.parse::<u32>().ok()?).parse().ok()
    }
}

const SHARD_COUNT_MAX: u32 = 9999;

impl fmt::Display for Shard {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}/{}", u64::from(self.index) + 1, self.count)
    }
}

impl FromStr for Shard {
    type Err = Error;

    /// Reads `i/n` with `i` from 1 to `n`.
    fn from_str(text: &str) -> Result<Shard, Error> {
        let parse = || {
            let (number, count) = text.split_once('/')?;
            let index = number.parse::<u32>().ok()?.checked_sub(1)?;
            let shard = Shard { index, count: count.parse().ok()? };
            shard.check().ok().map(|()| shard)
        };
        parse().ok_or_else(|| no_such_shard(text))
    }
}

fn no_such_shard(given: &str) -> Error {
    fault!("there is no shard `{given}`: write `i/n` with i from 1 to n, and n at most {SHARD_COUNT_MAX}")
}

impl fmt::Display for UnfinishedShard {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self.progress {
            Some((done, all)) => write!(formatter, "shard {} has {done} of {all} windows", self.shard),
            None => write!(formatter, "shard {} has not been begun", self.shard),
        }
    }
}

/// What every part of a store agrees on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub format_version: u32,
    #[serde(flatten)]
    pub key: ScoreKey,
    pub num_windows: u64,
    /// Scores a window.
    pub length: usize,
    pub dtype: ScoreDtype,
}

pub(super) const FORMAT_VERSION: u32 = 1;

/// `shard.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ShardFile {
    #[serde(flatten)]
    pub header: Header,
    /// Of `scores.bin`; absent until that is complete.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub blake3: Option<String>,
}

/// `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    #[serde(flatten)]
    pub header: Header,
    /// In order of windows.
    pub shards: Vec<ManifestShard>,
}

/// A shard in the manifest; its place is that of its number, its windows are those that fall to it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ManifestShard {
    pub blake3: String,
}

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const SHARD_FILE: &str = "shard.json";
pub(super) const DATA: &str = "scores.bin";
pub(super) const JOURNAL: &str = "journal";

/// A damaged file of a score store.
pub(super) fn damaged(path: &Path, problem: impl fmt::Display) -> Error {
    damage::damaged(path, "part of a score store", problem).with_hint("remove it and run `remit score` again")
}

/// Scores of another size or type.
pub(super) fn other_shape(path: &Path, what: &str, found: &str, wanted: &str) -> Error {
    fault!("the scores in `{}` have {what} {found}, but {wanted} is wanted", path.display())
        .with_hint("use the same settings, or another directory")
}

/// A score store that was begun in another number of shards.
pub(super) fn other_shards(path: &Path, found: u32, wanted: u32) -> Error {
    fault!("the scores in `{}` were begun in {found} shard(s), not in {wanted}", path.display()).with_hint(
        format!("go on with `remit score --shard i/{found}`, or remove the directory to begin anew"),
    )
}

/// Scores that are still being computed, or were given up.
pub(super) fn not_complete(path: &Path, unfinished: &[UnfinishedShard]) -> Error {
    let unfinished: Vec<String> = unfinished.iter().map(UnfinishedShard::to_string).collect();
    fault!("the scores in `{}` are not complete: {}", path.display(), unfinished.join(", "))
        .with_hint("run the command of each missing shard again: it goes on where it stopped")
}

impl Header {
    /// Bytes of a number of windows.
    pub fn bytes_of(&self, windows: u64) -> u64 {
        // A damaged manifest may hold any numbers; saturated, they are the size of no file.
        windows.saturating_mul(self.length.saturating_mul(self.dtype.bytes()) as u64)
    }

    /// Whether this, read from `path`, is what is wanted.
    pub fn check(&self, path: &Path, wanted: &Header) -> Result<(), Error> {
        self.check_key(path, &wanted.key)?;
        let parts = [
            ("number of windows", self.num_windows.to_string(), wanted.num_windows.to_string()),
            ("window length", self.length.to_string(), wanted.length.to_string()),
            ("dtype", self.dtype.to_string(), wanted.dtype.to_string()),
        ];
        match parts.into_iter().find(|(_, found, wanted)| found != wanted) {
            Some((what, found, wanted)) => Err(other_shape(path, what, &found, &wanted)),
            None => Ok(()),
        }
    }

    pub fn check_key(&self, path: &Path, wanted: &ScoreKey) -> Result<(), Error> {
        let differences = self.key.differences(wanted);
        if differences.is_empty() {
            Ok(())
        } else {
            Err(fault!("the scores in `{}` are of {}", path.display(), differences.join(" and ")).with_hint(
                "score this token store, window layout and reference into another directory with `remit score`",
            ))
        }
    }
}

/// Reads `manifest.json` or `shard.json`; `None` where it is not there.
pub(super) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, Error> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::io("read", path, cause)),
    };
    let damaged = |error: serde_json::Error| damaged(path, error);
    // The version first: the rest of another version's file may not parse at all.
    let Version { format_version } = serde_json::from_slice(&text).map_err(damaged)?;
    if format_version != FORMAT_VERSION {
        return Err(damage::other_version(path, format_version, FORMAT_VERSION));
    }
    serde_json::from_slice(&text).map(Some).map_err(damaged)
}

pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("names and numbers are JSON");
    text.push(b'\n');
    text
}

/// The shards that have a directory, in order.
pub(super) fn shards_in(store: &Path) -> Result<Vec<Shard>, Error> {
    let list = |cause| Error::io("list", store, cause);
    let mut shards = Vec::new();
    for entry in fs::read_dir(store).map_err(list)? {
        let name = entry.map_err(list)?.file_name();
        shards.extend(name.to_str().and_then(Shard::from_directory_name));
    }
    shards.sort_by_key(|shard| (shard.count, shard.index));
    Ok(shards)
}

/// The last number of the journal: how many windows of the shard are on the device. A line that a kill has torn, and
/// what may follow it, does not count.
pub(super) fn read_journal(shard_directory: &Path) -> Result<u64, Error> {
    let path = shard_directory.join(JOURNAL);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(cause) => return Err(Error::io("read", path, cause)),
    };
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    let numbers = lines.map_while(|line| std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?.parse().ok());
    Ok(numbers.last().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cover_all_windows_in_order() {
        for (num_windows, count) in [(10, 1), (10, 3), (2, 5), (0, 2), (u64::MAX, 7)] {
            let mut next = 0;
            for shard in Shard::all(count) {
                let windows = shard.windows(num_windows);
                assert_eq!(windows.start, next);
                assert!(windows.end - windows.start <= num_windows / u64::from(count) + 1);
                next = windows.end;
            }
            assert_eq!(next, num_windows);
        }
    }

    #[test]
    fn shards_are_read_from_words() {
        assert_eq!("1/1".parse::<Shard>().unwrap(), Shard::WHOLE);
        assert_eq!("3/4".parse::<Shard>().unwrap(), Shard { index: 2, count: 4 });
        assert_eq!(Shard { index: 2, count: 4 }.to_string(), "3/4");
        for bad in ["0/4", "5/4", "1", "a/b", "", "1/10000", "-1/3"] {
            let error = bad.parse::<Shard>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("there is no shard `{bad}`: write `i/n` with i from 1 to n, and n at most 9999")
            );
        }
    }

    #[test]
    fn directories_are_told_from_other_names() {
        let shard = Shard { index: 2, count: 40 };
        let directory = shard.directory(Path::new("store"));
        assert_eq!(directory, Path::new("store/shard-0003-of-0040"));
        assert_eq!(Shard::from_directory_name("shard-0003-of-0040"), Some(shard));
        for name in ["shard-0000-of-0040", "shard-0041-of-0040", "shard-1", "manifest.json"] {
            assert_eq!(Shard::from_directory_name(name), None);
        }
    }

    #[test]
    fn a_torn_journal_counts_up_to_the_tear() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(read_journal(home.path()).unwrap(), 0);
        for (text, expected) in [("", 0), ("8\n16\n", 16), ("8\n16", 8), ("8\n\0\0\n24\n", 8), ("8", 0)] {
            fs::write(home.path().join(JOURNAL), text).unwrap();
            assert_eq!(read_journal(home.path()).unwrap(), expected, "{text:?}");
        }
    }
}
