//! One process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use remit_fault::fault;

use crate::Error;

/// An exclusive hold on a path, for as long as this lives. The operating system lets go of it when the process ends,
/// however it ends, so a killed run never has to be unlocked by hand.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock `<directory>/.lock`, or says who has it. `what` names the directory to people.
    ///
    /// # Errors
    /// Another process that has it; a refusal of the operating system.
    pub fn try_acquire(directory: &Path, what: &str) -> Result<Lock, Error> {
        let (path, file) = open(directory)?;
        if is_free(&path, &file)? { Lock::sign(path, file) } else { Err(held(directory, &path, what)) }
    }

    /// Takes the lock `<directory>/.lock`. Where another process has it, `waiting` is told who, and this waits.
    ///
    /// # Errors
    /// A refusal of the operating system.
    pub fn acquire(directory: &Path, what: &str, waiting: impl FnOnce(&Error)) -> Result<Lock, Error> {
        let (path, file) = open(directory)?;
        if !is_free(&path, &file)? {
            waiting(&held(directory, &path, what));
            file.lock().map_err(|cause| Error::io("lock", &path, cause))?;
        }
        Lock::sign(path, file)
    }

    /// Writes down who holds it, for the message to others.
    fn sign(path: PathBuf, mut file: File) -> Result<Lock, Error> {
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|cause| Error::io("write", path, cause))?;
        Ok(Lock { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The file stays: removing it could take it from under a process that has just opened it. Emptied, it is the
        // same in every finished directory. Closing it lets go.
        let _ = self.file.set_len(0);
    }
}

/// Locks the file, if no other process has.
fn is_free(path: &Path, file: &File) -> Result<bool, Error> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(cause)) => Err(Error::io("lock", path, cause)),
    }
}

fn held(directory: &Path, path: &Path, what: &str) -> Error {
    // Absent for the moment in which the other process has locked and not signed yet.
    let pid: Option<u32> = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    let pid = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
    fault!("another process{pid} is using {what} `{}`", directory.display())
        .with_hint("wait for it to end, stop it, or choose another directory")
}

fn open(directory: &Path) -> Result<(PathBuf, File), Error> {
    let path = directory.join(".lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|cause| Error::io("open", &path, cause))?;
    Ok((path, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let home = tempfile::tempdir().unwrap();
        let first = Lock::try_acquire(home.path(), "run directory").unwrap();
        let error = Lock::try_acquire(home.path(), "run directory").unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "another process (pid {}) is using run directory `{}`",
                std::process::id(),
                home.path().display()
            )
        );
        assert!(error.hint().unwrap().contains("wait for it to end"));
        drop(first);
        drop(Lock::try_acquire(home.path(), "run directory").unwrap());
        drop(Lock::acquire(home.path(), "run directory", |_| panic!("it is free")).unwrap());
        assert_eq!(fs::read(home.path().join(".lock")).unwrap(), b"");
    }
}
