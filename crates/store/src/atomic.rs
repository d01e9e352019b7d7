//! Files and directories that appear whole or not at all.
//!
//! Everything is written beside its final place as `<name>.partial`, flushed to the device, renamed, and the parent
//! directory flushed. A kill or a full disk at any moment leaves what was there before. A `.partial` left by a killed
//! process is removed by the next attempt. One writer at a time for one path: see `RunDirectory` for a lock.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{Error, damage};

/// Writes `bytes` to `path`, replacing a file that is there. The parent directory must exist.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes)?;
    file.commit()
}

/// Writes `value` to `path` as indented JSON with a newline at its end, as [`write()`] does.
///
/// # Panics
/// When the value is none that JSON has: a map whose keys are no texts.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(value).expect("keys are texts");
    text.push(b'\n');
    write(path, &text)
}

/// Writes each record to `path` as one line of JSON, as [`write()`] does, without holding them all in memory.
///
/// # Panics
/// As [`write_json`].
pub fn write_json_lines(path: &Path, records: impl IntoIterator<Item = impl Serialize>) -> Result<(), Error> {
    let mut file = AtomicFile::create(path)?;
    for record in records {
        let mut line = serde_json::to_vec(&record).expect("keys are texts");
        line.push(b'\n');
        file.write_all(&line)?;
    }
    file.commit()
}

/// Makes the directory `final_path` by letting `fill` fill `<name>.partial` beside it, which is then flushed, file by
/// file, and renamed. Missing parent directories are made. Whatever `fill` returns as an error is returned, and
/// nothing stays on disk.
///
/// # Errors
/// Something that is at `final_path` already; it is not touched and `fill` is not called.
pub fn directory<E: From<Error>>(
    final_path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let partial = partial_path(final_path);
    if final_path.symlink_metadata().is_ok() {
        return Err(damage::exists(final_path).into());
    }
    remove(&partial)?;
    fs::create_dir_all(&partial).map_err(|cause| Error::io("create", &partial, cause))?;
    let result = fill(&partial).and_then(|()| {
        sync_tree(&partial)?;
        rename(&partial, final_path).map_err(E::from)
    });
    if result.is_err() {
        // The error that `fill` met is the one worth telling; a leftover is removed by the next attempt anyway.
        let _ = remove(&partial);
    }
    result
}

/// A file that takes its name only when it is complete: for content too large to hold in memory at once.
/// Dropped without [`commit`](AtomicFile::commit), it leaves nothing behind.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    /// `None` once committed.
    file: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Begins `<path>.partial`, over the leftover of a killed process if there is one. The parent directory must
    /// exist.
    pub fn create(path: &Path) -> Result<AtomicFile, Error> {
        let partial = partial_path(path);
        let file = File::create(&partial).map_err(|cause| Error::io("create", &partial, cause))?;
        Ok(AtomicFile { path: path.to_owned(), file: Some(BufWriter::with_capacity(1 << 18, file)) })
    }

    /// Appends `bytes`.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let file = self.file.as_mut().expect("`commit` takes the file by value, so it is here until then");
        file.write_all(bytes).map_err(|cause| Error::io("write", &self.path, cause))
    }

    /// Flushes the content to the device and gives the file its name, replacing what had it before.
    pub fn commit(mut self) -> Result<(), Error> {
        let failed = |cause| Error::io("write", &self.path, cause);
        let file = self.file.as_mut().expect("`commit` takes the file by value, so it is here until then");
        file.flush().map_err(failed)?;
        file.get_ref().sync_all().map_err(failed)?;
        rename(&partial_path(&self.path), &self.path)?;
        self.file = None;
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // Not flushed: the content is about to be removed, and flushing could fail once more.
            drop(file.into_parts());
            let _ = fs::remove_file(partial_path(&self.path));
        }
    }
}

/// Appends `bytes` to `path` (made if missing) and flushes them to the device before returning. Not atomic: a kill
/// may leave a part of `bytes` at the end, so a reader must be able to tell a torn record, as journals here do.
/// After an error, such as a full disk, the file is as it was before.
pub fn append(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let is_new = !path.exists();
    let failed = |cause| Error::io("append to", path, cause);
    let mut file = OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if let Err(cause) = file.write_all(bytes).and_then(|()| file.sync_data()) {
        let _ = file.set_len(length);
        return Err(failed(cause));
    }
    if is_new { sync_directory(parent(path)) } else { Ok(()) }
}

/// Renames and flushes the directory that holds the new name. Both paths are on one file system.
///
/// # Errors
/// A refusal of the operating system.
pub fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|cause| Error::io("rename to", to, cause))?;
    sync_directory(parent(to))
}

/// Where `path` is being written until it is complete.
pub(crate) fn partial_path(path: &Path) -> PathBuf {
    // Through the file name, so that a trailing slash does not end up inside.
    let mut name = OsString::from(path.file_name().unwrap_or_default());
    name.push(".partial");
    path.with_file_name(name)
}

/// Removes a file or a directory with all in it; nothing there is fine.
///
/// # Errors
/// A refusal of the operating system.
pub fn remove(path: &Path) -> Result<(), Error> {
    let result = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(cause) => Err(cause),
    };
    match result {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, cause)),
        _ => Ok(()),
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), Error> {
    // A directory cannot be opened for this on every system; where it cannot, renaming is all there is.
    #[cfg(unix)]
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|cause| Error::io("flush", path, cause))?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Flushes every file below `directory`, then the directories that name them.
fn sync_tree(directory: &Path) -> Result<(), Error> {
    let entries = fs::read_dir(directory).map_err(|cause| Error::io("list", directory, cause))?;
    for entry in entries {
        let entry = entry.map_err(|cause| Error::io("list", directory, cause))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|cause| Error::io("read", &path, cause))?;
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            // Opened for writing because some systems flush only what may be written.
            OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|file| file.sync_all())
                .map_err(|cause| Error::io("flush", &path, cause))?;
        }
    }
    sync_directory(directory)
}

/// The directory that holds `path`, also where the path is a bare name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names in `directory`, sorted.
    fn listing(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.json");
        write(&path, b"one").unwrap();
        fs::write(home.path().join("a.json.partial"), b"left by a kill, and longer").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(listing(home.path()), ["a.json"]);
    }

    #[test]
    fn a_missing_parent_is_named() {
        let home = tempfile::tempdir().unwrap();
        let error = write(&home.path().join("nowhere/a.json"), b"x").unwrap_err();
        assert!(error.to_string().starts_with("cannot create `"), "{error}");
        assert!(error.to_string().contains("nowhere/a.json.partial`: No such file"), "{error}");
    }

    /// `/dev/full` accepts an open and refuses every byte, which is what a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_keeps_the_file_that_was_there() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.json");
        write(&path, b"before").unwrap();
        std::os::unix::fs::symlink("/dev/full", home.path().join("a.json.partial")).unwrap();
        let error = write(&path, b"after").unwrap_err();
        assert!(error.to_string().contains("a.json`: No space left on device"), "{error}");
        assert!(error.hint().unwrap().contains("free some space"), "{:?}", error.hint());
        assert_eq!(fs::read(&path).unwrap(), b"before");
        assert_eq!(listing(home.path()), ["a.json"]);
    }

    #[test]
    fn an_abandoned_file_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let mut file = AtomicFile::create(&home.path().join("big")).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(listing(home.path()), [""; 0]);
    }

    #[test]
    fn a_directory_appears_whole() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("deep/store");
        fs::create_dir_all(home.path().join("deep/store.partial/old")).unwrap();
        directory(&home.path().join("deep/store/"), |inside| {
            assert!(!path.exists());
            assert_eq!(listing(inside), [""; 0], "the leftover of a killed process is gone");
            fs::create_dir(inside.join("sub")).unwrap();
            write(&inside.join("sub/a"), b"a")
        })
        .unwrap();
        assert_eq!(fs::read(path.join("sub/a")).unwrap(), b"a");
        assert_eq!(listing(&home.path().join("deep")), ["store"]);
    }

    #[test]
    fn a_failed_directory_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("store");
        let error = directory(&path, |inside| {
            write(&inside.join("a"), b"a")?;
            write(&inside.join("missing/b"), b"b")
        })
        .unwrap_err();
        assert!(error.to_string().contains("missing/b"), "{error}");
        assert_eq!(listing(home.path()), [""; 0]);
    }

    #[test]
    fn a_directory_is_never_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("store");
        fs::create_dir(&path).unwrap();
        let error = directory(&path, |_| -> Result<(), Error> { panic!("not called") }).unwrap_err();
        assert!(error.to_string().ends_with("store` exists already"), "{error}");
        assert_eq!(error.hint().unwrap(), "remove it or choose another path");
    }

    #[test]
    fn lines_of_json_escape_what_would_end_them() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("texts.jsonl");
        write_json_lines(&path, ["a \"quoted\"\nline", "b"]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "\"a \\\"quoted\\\"\\nline\"\n\"b\"\n");
        assert_eq!(listing(home.path()), ["texts.jsonl"]);
    }

    #[test]
    fn appending_makes_the_file_and_extends_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("journal");
        append(&path, b"1\n").unwrap();
        append(&path, b"2\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"1\n2\n");
    }
}
