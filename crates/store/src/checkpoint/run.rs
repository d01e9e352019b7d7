//! The run directory: who may write, which checkpoints there are, and which of them stay.

use std::fs;
use std::path::{Path, PathBuf};

use super::integrity;
use crate::lock::Lock;
use crate::{Error, atomic};

/// A run's directory, held by this process alone until it is dropped.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    _lock: Lock,
}

/// A complete checkpoint of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    step: u64,
    path: PathBuf,
}

/// Which checkpoints of a run stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Permanent: those at steps that are multiples of this. `None` (or 0): none are.
    pub every: Option<u64>,
    /// Beside the permanent ones, the newest so many of all; the newest stays even where this is 0.
    pub last: usize,
}

impl RunDirectory {
    /// Opens a run's directory, making it if it is not there, and clears away what a killed process left half done.
    ///
    /// # Errors
    /// Another process that has it open; a refusal of the operating system.
    pub fn open_or_create(path: &Path) -> Result<RunDirectory, Error> {
        let checkpoints = path.join(CHECKPOINTS);
        fs::create_dir_all(&checkpoints).map_err(|cause| Error::io("create", &checkpoints, cause))?;
        let lock = Lock::try_acquire(path, "run directory")?;
        for (name, path) in entries(&checkpoints)? {
            if name.starts_with(TRASH) || (name.starts_with(STEP) && name.ends_with(".partial")) {
                atomic::remove(&path)?;
            }
        }
        Ok(RunDirectory { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Saves the checkpoint of `step`: `fill` writes its files into the (empty, temporary) directory it is given.
    /// The checkpoint appears when all of them are on the device, or not at all.
    ///
    /// # Errors
    /// What `fill` returns; a step that has a checkpoint already; a refusal of the operating system.
    pub fn save_checkpoint<E: From<Error>>(
        &self,
        step: u64,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Checkpoint, E> {
        let path = self.path.join(CHECKPOINTS).join(format!("{STEP}{step:08}"));
        atomic::directory(&path, |directory| {
            fill(directory)?;
            integrity::seal(directory).map_err(E::from)
        })?;
        Ok(Checkpoint { step, path })
    }

    /// The run's complete checkpoints, oldest first.
    ///
    /// # Errors
    /// A refusal of the operating system.
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>, Error> {
        checkpoints_of(&self.path)
    }

    /// The checkpoint to go on from: the complete one with the highest step.
    ///
    /// # Errors
    /// A refusal of the operating system.
    pub fn latest(&self) -> Result<Option<Checkpoint>, Error> {
        Ok(self.checkpoints()?.pop())
    }

    /// Removes the checkpoints that `keep` does not keep and returns their steps, oldest first. Each goes out of
    /// sight under a single rename before its files are removed, so a kill never leaves half of one in its place.
    ///
    /// Called after every [`save_checkpoint`](RunDirectory::save_checkpoint), and once when a run resumes: a kill
    /// between the two would otherwise leave one checkpoint more than an uninterrupted run has.
    ///
    /// # Errors
    /// A refusal of the operating system.
    pub fn retain(&self, keep: Retention) -> Result<Vec<u64>, Error> {
        let checkpoints = self.checkpoints()?;
        let num_old = checkpoints.len().saturating_sub(keep.last.max(1));
        let mut removed = Vec::new();
        for Checkpoint { step, path } in &checkpoints[..num_old] {
            let is_permanent = keep.every.is_some_and(|every| every > 0 && step.is_multiple_of(every));
            if !is_permanent {
                let trash = self.path.join(CHECKPOINTS).join(format!("{TRASH}{step:08}"));
                atomic::remove(&trash)?;
                atomic::rename(path, &trash)?;
                atomic::remove(&trash)?;
                removed.push(*step);
            }
        }
        Ok(removed)
    }
}

/// The complete checkpoints of the run at `run`, oldest first, without taking hold of it: for those who only read,
/// such as a stage that starts from another run's end. None where there is no such directory.
///
/// # Errors
/// A refusal of the operating system.
pub fn checkpoints_of(run: &Path) -> Result<Vec<Checkpoint>, Error> {
    let directory = run.join(CHECKPOINTS);
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut checkpoints = Vec::new();
    for (name, path) in entries(&directory)? {
        let step = name.strip_prefix(STEP).and_then(|digits| digits.parse().ok());
        if let Some(step) = step
            && path.join(integrity::INTEGRITY).is_file()
        {
            checkpoints.push(Checkpoint { step, path });
        }
    }
    checkpoints.sort_by_key(|checkpoint| checkpoint.step);
    Ok(checkpoints)
}

/// The checkpoint that `path` means: itself where it has a `config.json`, or the latest of the run there, verified. `None`
/// where it is neither.
///
/// # Errors
/// A latest checkpoint that is damaged; a refusal of the operating system.
pub fn locate(path: &Path) -> Result<Option<PathBuf>, Error> {
    if path.join("config.json").is_file() {
        return Ok(Some(path.to_owned()));
    }
    let Some(checkpoint) = checkpoints_of(path)?.pop() else { return Ok(None) };
    checkpoint.verify()?;
    Ok(Some(checkpoint.path))
}

impl Checkpoint {
    /// The number of optimizer steps it comes after.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hashes its files again: see [`verify_directory`](super::verify_directory).
    ///
    /// # Errors
    /// As there.
    pub fn verify(&self) -> Result<(), Error> {
        integrity::verify_directory(&self.path)
    }
}

/// The directory of a run's checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// What a checkpoint's name begins with; the step follows in eight digits or more.
const STEP: &str = "step-";
/// What the name of a checkpoint on its way out begins with.
const TRASH: &str = ".trash-step-";

/// Names and paths in a directory. Names that are not UTF-8 are not ours.
fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let list = |cause| Error::io("list", directory, cause);
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(list)? {
        let entry = entry.map_err(list)?;
        if let Ok(name) = entry.file_name().into_string() {
            entries.push((name, entry.path()));
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::tensors::{FileDtype, TensorDirectory, TensorOut, write_tensors};

    const FILES: [&str; 4] = ["config.json", "model.safetensors", "state/cursor.json", "tokenizer.json"];

    /// Writes the files of a checkpoint up to `end`, each with `step` in it.
    fn fill(directory: &Path, step: u64, end: usize) -> Result<(), Error> {
        fs::create_dir(directory.join("state")).unwrap();
        for name in &FILES[..end] {
            atomic::write(&directory.join(name), format!("{name} at {step}").as_bytes())?;
        }
        Ok(())
    }

    fn run_with(steps: &[u64]) -> (tempfile::TempDir, RunDirectory) {
        let home = tempfile::tempdir().unwrap();
        let run = RunDirectory::open_or_create(&home.path().join("run")).unwrap();
        for &step in steps {
            run.save_checkpoint(step, |directory| fill(directory, step, FILES.len())).unwrap();
        }
        (home, run)
    }

    fn steps(run: &RunDirectory) -> Vec<u64> {
        run.checkpoints().unwrap().iter().map(Checkpoint::step).collect()
    }

    #[test]
    fn the_highest_step_is_the_latest() {
        let (home, run) = run_with(&[]);
        assert_eq!(run.latest().unwrap(), None);
        assert_eq!(checkpoints_of(&home.path().join("nowhere")).unwrap(), []);
        for step in [900, 100_000_000, 1000] {
            run.save_checkpoint(step, |directory| fill(directory, step, 1)).unwrap();
        }
        let latest = run.latest().unwrap().unwrap();
        assert_eq!(latest.step(), 100_000_000);
        assert!(latest.path().ends_with("checkpoints/step-100000000"));
        assert!(run.checkpoints().unwrap()[0].path().ends_with("checkpoints/step-00000900"));
        latest.verify().unwrap();
        // Copied by hand and not finished: no `integrity.json`, so not a checkpoint.
        fs::create_dir(run.path().join("checkpoints/step-200000000")).unwrap();
        assert_eq!(run.latest().unwrap().unwrap(), latest);
    }

    #[test]
    fn a_step_is_saved_once() {
        let (_home, run) = run_with(&[5]);
        let error = run.save_checkpoint(5, |directory| fill(directory, 6, 1)).unwrap_err();
        assert!(error.to_string().ends_with("step-00000005` exists already"), "{error}");
    }

    #[test]
    fn one_process_at_a_time() {
        let (home, run) = run_with(&[]);
        let error = RunDirectory::open_or_create(run.path()).unwrap_err().to_string();
        assert!(error.starts_with("another process (pid "), "{error}");
        drop(run);
        RunDirectory::open_or_create(&home.path().join("run")).unwrap();
    }

    #[test]
    fn each_damage_is_named() {
        let (_home, run) = run_with(&[]);
        let mut step = 0;
        let mut check = |damage: &dyn Fn(&Path), expected: &[&str]| {
            step += 1;
            let checkpoint =
                run.save_checkpoint(step, |directory| fill(directory, step, FILES.len())).unwrap();
            checkpoint.verify().unwrap();
            damage(checkpoint.path());
            let error = checkpoint.verify().unwrap_err().to_string();
            for part in expected {
                assert!(error.contains(part), "{error:?} should contain {part:?}");
            }
        };
        for name in FILES {
            check(
                &|path| fs::remove_file(path.join(name)).unwrap(),
                &[name, "` is not a whole part of its checkpoint: it is missing"],
            );
            check(&|path| fs::write(path.join(name), "x").unwrap(), &[name, "bytes when written and has 1"]);
            check(
                &|path| {
                    let mut bytes = fs::read(path.join(name)).unwrap();
                    bytes[3] ^= 1;
                    fs::write(path.join(name), bytes).unwrap();
                },
                &[name, "its content has changed since it was written"],
            );
        }
        check(
            &|path| fs::write(path.join("integrity.json"), "{").unwrap(),
            &["integrity.json", "EOF while parsing"],
        );
        check(
            &|path| {
                let path = path.join("integrity.json");
                let text = fs::read_to_string(&path).unwrap();
                fs::write(&path, text.replace("\"format_version\": 1", "\"format_version\": 2")).unwrap();
            },
            &["has format version 2, and version 1 is supported"],
        );
    }

    /// An error after each of the files: the previous checkpoint is whole, nothing else is there.
    #[test]
    fn a_failure_at_any_file_leaves_the_previous_checkpoint() {
        let (_home, run) = run_with(&[1]);
        for end in 0..=FILES.len() {
            let error = run
                .save_checkpoint(2, |directory| {
                    fill(directory, 2, end)?;
                    Err(Error::io("write", directory, std::io::ErrorKind::StorageFull.into()))
                })
                .unwrap_err();
            assert!(error.hint().unwrap().contains("nothing that was there before has been touched"));
            let latest = run.latest().unwrap().unwrap();
            assert_eq!(latest.step(), 1);
            latest.verify().unwrap();
            assert_eq!(entries(&run.path().join("checkpoints")).unwrap().len(), 1);
        }
        run.save_checkpoint(2, |directory| fill(directory, 2, FILES.len())).unwrap().verify().unwrap();
    }

    /// A panic skips the clean-up as a kill does; the leftovers are swept by the next process, and by a second
    /// attempt in this one.
    #[test]
    fn a_kill_at_any_file_leaves_the_previous_checkpoint() {
        let (home, mut run) = run_with(&[1]);
        for end in 0..=FILES.len() {
            let killed = catch_unwind(AssertUnwindSafe(|| {
                run.save_checkpoint(2, |directory| -> Result<(), Error> {
                    fill(directory, 2, end)?;
                    std::panic::resume_unwind(Box::new("killed"));
                })
            }));
            assert!(killed.is_err());
            assert!(run.path().join("checkpoints/step-00000002.partial").is_dir());
            if end % 2 == 0 {
                drop(run);
                run = RunDirectory::open_or_create(&home.path().join("run")).unwrap();
                assert_eq!(entries(&run.path().join("checkpoints")).unwrap().len(), 1);
            }
            let latest = run.latest().unwrap().unwrap();
            assert_eq!(latest.step(), 1);
            latest.verify().unwrap();
        }
        run.save_checkpoint(2, |directory| fill(directory, 2, FILES.len())).unwrap().verify().unwrap();
        assert_eq!(steps(&run), [1, 2]);
    }

    /// `/dev/full` refuses every byte, as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_leaves_the_previous_checkpoint_and_says_so() {
        let (_home, run) = run_with(&[1]);
        let save = |is_full: bool| {
            run.save_checkpoint(2, |directory| {
                if is_full {
                    let full = directory.join("model.safetensors.partial");
                    std::os::unix::fs::symlink("/dev/full", full).unwrap();
                }
                let tensors = [TensorOut { name: "a", shape: &[2], data: &[1.0, 2.0] }];
                write_tensors(directory, "model", &tensors, FileDtype::F32, None)
            })
        };
        let error = save(true).unwrap_err();
        assert!(error.to_string().contains("model.safetensors`: No space left on device"), "{error}");
        assert!(error.hint().unwrap().contains("free some space"), "{:?}", error.hint());
        run.latest().unwrap().unwrap().verify().unwrap();
        assert_eq!(steps(&run), [1]);
        TensorDirectory::open(save(false).unwrap().path()).unwrap();
    }

    #[test]
    fn retention_keeps_the_permanent_and_the_newest() {
        let saved = [100, 200, 250, 300, 350, 400];
        let check = |every, last, expected: &[u64]| {
            let (_home, run) = run_with(&saved);
            let removed = run.retain(Retention { every, last }).unwrap();
            assert_eq!(steps(&run), expected);
            let gone: Vec<_> = saved.iter().copied().filter(|step| !expected.contains(step)).collect();
            assert_eq!(removed, gone);
            assert_eq!(entries(&run.path().join("checkpoints")).unwrap().len(), expected.len());
            for checkpoint in run.checkpoints().unwrap() {
                checkpoint.verify().unwrap();
            }
        };
        check(None, 2, &[350, 400]);
        check(None, 0, &[400]);
        check(None, 9, &saved);
        check(Some(200), 1, &[200, 400]);
        check(Some(200), 3, &[200, 300, 350, 400]);
        check(Some(0), 1, &[400]);
        check(Some(1), 0, &saved);
    }

    #[test]
    fn a_kill_inside_a_removal_leaves_no_half_checkpoint() {
        let (home, run) = run_with(&[1, 2]);
        let trash = run.path().join("checkpoints/.trash-step-00000001");
        fs::rename(run.path().join("checkpoints/step-00000001"), &trash).unwrap();
        fs::remove_file(trash.join("config.json")).unwrap();
        assert_eq!(steps(&run), [2]);
        drop(run);
        let run = RunDirectory::open_or_create(&home.path().join("run")).unwrap();
        assert_eq!(steps(&run), [2]);
        assert!(!trash.exists());
    }
}
