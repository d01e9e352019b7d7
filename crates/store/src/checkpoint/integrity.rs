//! `integrity.json`: what a directory's files were when they were written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::hash::hash_file;
use crate::{Error, atomic, damage};

/// Its name. It is written last, so a directory that has it is complete.
pub const INTEGRITY: &str = "integrity.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Integrity {
    format_version: u32,
    /// By path below the directory, with `/` between its parts.
    files: BTreeMap<String, FileState>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileState {
    bytes: u64,
    blake3: String,
}

const FORMAT_VERSION: u32 = 1;

/// Hashes every file below `directory` and writes them down.
pub(super) fn seal(directory: &Path) -> Result<(), Error> {
    let mut files = BTreeMap::new();
    collect(directory, "", &mut files)?;
    let integrity = Integrity { format_version: FORMAT_VERSION, files };
    atomic::write_json(&directory.join(INTEGRITY), &integrity)
}

/// Hashes the files of a checkpoint again and compares. Files that were added since do not matter.
///
/// # Errors
/// The first file (in order of name) that is missing or changed, or `integrity.json` itself where it cannot be read; a
/// refusal of the operating system.
pub fn verify_directory(directory: &Path) -> Result<(), Error> {
    let path = directory.join(INTEGRITY);
    let text = fs::read(&path).map_err(|cause| Error::io("read", &path, cause))?;
    let damaged = |path: &Path, problem: String| {
        damage::damaged(path, "part of its checkpoint", problem).with_hint(
            "remove this checkpoint and run the same command again: it goes on from the one before",
        )
    };
    let integrity: Integrity =
        serde_json::from_slice(&text).map_err(|error| damaged(&path, error.to_string()))?;
    if integrity.format_version != FORMAT_VERSION {
        return Err(damage::other_version(&path, integrity.format_version, FORMAT_VERSION));
    }
    for (name, state) in &integrity.files {
        let file = directory.join(name);
        let bytes = match file.metadata() {
            Ok(metadata) => metadata.len(),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                return Err(damaged(&file, "it is missing".into()));
            }
            Err(cause) => return Err(Error::io("read", file, cause)),
        };
        if bytes != state.bytes {
            return Err(damaged(&file, format!("it had {} bytes when written and has {bytes}", state.bytes)));
        }
        let hash = hash_file(&file)?;
        if hash != state.blake3 {
            let problem =
                format!("its content has changed since it was written (BLAKE3 {hash}, was {})", state.blake3);
            return Err(damaged(&file, problem));
        }
    }
    Ok(())
}

fn collect(directory: &Path, prefix: &str, files: &mut BTreeMap<String, FileState>) -> Result<(), Error> {
    let list = |cause| Error::io("list", directory, cause);
    for entry in fs::read_dir(directory).map_err(list)? {
        let entry = entry.map_err(list)?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            let cause = std::io::Error::new(std::io::ErrorKind::InvalidFilename, "its name is not UTF-8");
            return Err(Error::io("list", path, cause));
        };
        let name = format!("{prefix}{name}");
        let metadata = path.metadata().map_err(|cause| Error::io("read", &path, cause))?;
        if metadata.is_dir() {
            collect(&path, &format!("{name}/"), files)?;
        } else {
            files.insert(name, FileState { bytes: metadata.len(), blake3: hash_file(&path)? });
        }
    }
    Ok(())
}
