//! One process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

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
    /// [`Error::Locked`], [`Error::Io`].
    pub fn try_acquire(directory: &Path, what: &'static str) -> Result<Lock, Error> {
        let (path, file) = open(directory)?;
        match file.try_lock() {
            Ok(()) => Lock::sign(path, file),
            Err(TryLockError::WouldBlock) => {
                // Absent for the moment in which the other process has locked and not signed yet.
                let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
                Err(Error::Locked { what, path: directory.to_owned(), pid })
            }
            Err(TryLockError::Error(cause)) => Err(Error::io("lock", path, cause)),
        }
    }

    /// Takes the lock `<directory>/.lock`, waiting for whoever has it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn acquire(directory: &Path) -> Result<Lock, Error> {
        let (path, file) = open(directory)?;
        file.lock().map_err(|cause| Error::io("lock", &path, cause))?;
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
        drop(Lock::acquire(home.path()).unwrap());
        assert_eq!(fs::read(home.path().join(".lock")).unwrap(), b"");
    }
}
