//! What can go wrong between memory and disk, with the facts; the advice is in [`Error::hint`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use crate::checkpoint::CHECKPOINT;
use crate::hash::short;
use crate::json_lines::LOG;
use crate::scores::{KeyDifference, SCORES, UnfinishedShard};
use crate::tensors::SAFETENSORS;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused; its own words are part of the message.
    #[error("cannot {action} `{}`: {cause}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said. Not a `source`: the message already ends with it.
        cause: io::Error,
    },
    /// Something would have to be overwritten.
    #[error("`{}` exists already", path.display())]
    Exists {
        /// What stands in the way.
        path: PathBuf,
    },
    /// A file that is cut short, altered or of another kind.
    #[error("`{}` is not a whole {what}: {problem}", path.display())]
    Damaged {
        /// The file, or the directory where the fault is between its files.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A directory without safetensors files, or no directory at all.
    #[error("{}", no_tensors(directory, stem))]
    NoTensors {
        /// Where they were looked for.
        directory: PathBuf,
        /// `<stem>.safetensors` was looked for.
        stem: String,
    },
    /// A tensor that is not there.
    #[error("`{}` has no tensor `{name}`", path.display())]
    UnknownTensor {
        /// The file or directory.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor whose elements cannot be read as float32.
    #[error("`{}` holds tensor `{name}` as {dtype}; F32, BF16 and F16 are supported", path.display())]
    UnsupportedDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its element type.
        dtype: Dtype,
    },
    /// A tensor of another size than its reader expects.
    #[error("`{}`: tensor `{name}` has shape {shape:?}, but {wanted} elements are wanted", path.display())]
    ElementCount {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape in the file.
        shape: Vec<usize>,
        /// How many elements were asked for.
        wanted: usize,
    },
    /// Two tensors of one name to be written.
    #[error("`{}` would hold tensor `{name}` twice", path.display())]
    DuplicateTensor {
        /// The file that was to be written.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A file of another version of this program.
    #[error("`{}` has format version {found}, and version {supported} is supported", path.display())]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version this program reads.
        supported: u32,
    },
    /// A directory that another process writes to.
    #[error("another process{} is using {what} `{}`", pid_in_words(*pid), path.display())]
    Locked {
        /// What the directory is.
        what: &'static str,
        /// The directory.
        path: PathBuf,
        /// The process, where it has said so.
        pid: Option<u32>,
    },
    /// Scores of another token store, window layout or reference than the one they are wanted for.
    #[error("the scores in `{}` are of {}", path.display(), differences_in_words(differences))]
    StaleScores {
        /// The score store.
        path: PathBuf,
        /// What differs; never empty.
        differences: Vec<KeyDifference>,
    },
    /// Scores of another size or type.
    #[error("the scores in `{}` have {what} {found}, but {wanted} is wanted", path.display())]
    ScoreShape {
        /// The score store.
        path: PathBuf,
        /// What differs: number of windows, window length, or dtype.
        what: &'static str,
        /// As it is there.
        found: String,
        /// As it is wanted.
        wanted: String,
    },
    /// A score store that was begun in another number of shards.
    #[error("the scores in `{}` were begun in {found} shard(s), not in {wanted}", path.display())]
    ShardCount {
        /// The score store.
        path: PathBuf,
        /// Number of shards there.
        found: u32,
        /// Number of shards asked for.
        wanted: u32,
    },
    /// A shard that does not exist, such as `5/4`.
    #[error("there is no shard `{given}`: write `i/n` with i from 1 to n, and n at most 9999")]
    NoSuchShard {
        /// As given.
        given: String,
    },
    /// A directory without scores.
    #[error("there are no scores in `{}`", path.display())]
    NoScores {
        /// Where they were looked for.
        path: PathBuf,
    },
    /// Scores that are still being computed, or were given up.
    #[error("the scores in `{}` are not complete: {}", path.display(), in_words(unfinished))]
    UnfinishedScores {
        /// The score store.
        path: PathBuf,
        /// The shards that are missing; never empty.
        unfinished: Vec<UnfinishedShard>,
    },
    /// A score that is NaN or infinite.
    #[error("the score of window {window} at position {position} is {value}")]
    NonFiniteScore {
        /// The window's place in its layout.
        window: u64,
        /// The prediction within the window.
        position: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// A window that has no scores.
    #[error("window {window} is beyond the {num_windows} windows of the scores in `{}`", path.display())]
    NoSuchWindow {
        /// The score store.
        path: PathBuf,
        /// The window asked for.
        window: u64,
        /// The windows there are.
        num_windows: u64,
    },
}

impl Error {
    /// An operating system error with what was tried (a verb: "read", "write", "create") and on which path.
    pub fn io(action: &'static str, path: impl AsRef<Path>, cause: io::Error) -> Error {
        Error::Io { action, path: path.as_ref().to_owned(), cause }
    }

    /// What to do about it, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Io { cause, .. } => match cause.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(
                    "nothing that was there before has been touched: free some space and run the same command again"
                        .into(),
                ),
                io::ErrorKind::FileTooLarge => Some(
                    "nothing that was there before has been touched: raise the limit on the size of files (`ulimit -f`) and run the same command again"
                        .into(),
                ),
                io::ErrorKind::PermissionDenied => Some("check who owns it and its permissions".into()),
                io::ErrorKind::ReadOnlyFilesystem => Some("choose an output path on a writable file system".into()),
                _ => None,
            },
            Error::Exists { .. } => Some("remove it or choose another path".into()),
            Error::Damaged { what: SAFETENSORS, path, .. } if is_lfs_pointer(path) => {
                Some("it is a Git LFS pointer: run `git lfs pull` in its repository".into())
            }
            Error::Damaged { what: SCORES, .. } => Some("remove it and run `remit score` again".into()),
            Error::Damaged { what: CHECKPOINT, .. } => {
                Some("remove this checkpoint and run the same command again: it goes on from the one before".into())
            }
            Error::Damaged { what: LOG, .. } => Some("repair or remove that line".into()),
            Error::Damaged { .. } => Some("copy or download it again".into()),
            Error::NoTensors { .. } => Some(
                "name the directory that holds `config.json` and `model.safetensors`, as `save_pretrained` writes them"
                    .into(),
            ),
            Error::UnsupportedDtype { .. } => Some("convert the checkpoint to bfloat16 or float32 first".into()),
            Error::UnknownTensor { .. } | Error::ElementCount { .. } => {
                Some("check that `config.json` is the one that belongs to these tensors".into())
            }
            Error::DuplicateTensor { .. } => None,
            Error::FormatVersion { .. } => Some("read it with the version of `remit` that wrote it".into()),
            Error::StaleScores { .. } => Some(
                "score this token store, window layout and reference into another directory with `remit score`".into(),
            ),
            Error::ScoreShape { .. } => Some("use the same settings, or another directory".into()),
            Error::ShardCount { found, .. } => {
                Some(format!("go on with `--shard i/{found}`, or remove the directory to begin anew"))
            }
            Error::NoScores { .. } => Some("make them with `remit score --reference DIR --tokens STORE`".into()),
            Error::UnfinishedScores { .. } => {
                Some("run the command of each missing shard again: it goes on where it stopped".into())
            }
            Error::NonFiniteScore { .. } => {
                Some("the reference is not sound on this text: check it with `remit weights`".into())
            }
            Error::NoSuchShard { .. } | Error::NoSuchWindow { .. } => None,
            Error::Locked { .. } => Some("wait for it to end, stop it, or choose another directory".into()),
        }
    }
}

fn no_tensors(directory: &Path, stem: &str) -> String {
    let path = directory.display();
    if directory.is_dir() {
        format!("`{path}` has neither `{stem}.safetensors` nor `{stem}.safetensors.index.json`")
    } else {
        format!("there is no directory `{path}`")
    }
}

fn pid_in_words(pid: Option<u32>) -> String {
    pid.map_or(String::new(), |pid| format!(" (pid {pid})"))
}

fn differences_in_words(differences: &[KeyDifference]) -> String {
    let words = |difference: &KeyDifference| {
        let KeyDifference { what, stored, wanted } = difference;
        format!("another {what} ({} there, {} wanted)", short(stored), short(wanted))
    };
    differences.iter().map(words).collect::<Vec<_>>().join(" and ")
}

fn in_words(unfinished: &[UnfinishedShard]) -> String {
    unfinished.iter().map(UnfinishedShard::to_string).collect::<Vec<_>>().join(", ")
}

/// What a clone without Git LFS leaves in the place of large files.
fn is_lfs_pointer(path: &Path) -> bool {
    let mut start = [0; 24];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *b"version https://git-lfs."
}
