//! Which files a path means: itself, all below a directory, or those of them that a pattern matches.
//!
//! A directory and a pattern are searched by the same rules, so that `data` and `data/**/*.jsonl` mean the same JSONL
//! files:
//!
//! - What is hidden (its name begins with a dot) is left out, unless the pattern spells the dot out.
//! - Links are followed. A directory is read once, wherever else links lead to it, and a link to a directory that holds
//!   the link is left out: both are said.
//! - A link that leads to nothing is an error: what it stands for is missing.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use remit_fault::fault;

use crate::{Error, error};

/// The files at a path, and what is to be said of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Sorted.
    pub files: Vec<PathBuf>,
    /// Links that were left out, a sentence each.
    pub notes: Vec<String>,
}

/// The files that a setting of this path means, sorted: itself, all below a directory, or all that match a pattern
/// with `*`. None where there is none.
///
/// # Errors
/// A pattern that makes no sense, a directory that cannot be read, a link that leads to nothing.
pub fn files_at(path: &Path) -> Result<Vec<PathBuf>, Error> {
    Ok(find(path, || "path".into())?.files)
}

/// The files at `path`. Errors call it `setting`.
pub(crate) fn find(path: &Path, setting: impl Fn() -> String) -> Result<Found, Error> {
    // A file may have a star in its name; a pattern is what leads to nothing as it stands.
    let steps = match path.metadata() {
        Ok(metadata) if metadata.is_dir() => vec![Step::Any],
        Ok(_) => return Ok(Found { files: vec![path.to_owned()], notes: Vec::new() }),
        Err(_) if is_pattern(path) => Vec::new(),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            return match path.is_symlink() {
                true => Err(dangling(path)),
                false => Ok(Found::default()),
            };
        }
        Err(cause) => return Err(error::io("read", path, cause)),
    };
    let (base, steps) = match steps.is_empty() {
        false => (path.to_owned(), steps),
        true => match parse(path) {
            Ok((base, steps)) if base.is_dir() || base.as_os_str().is_empty() => (base, steps),
            Ok(_) => return Ok(Found::default()),
            Err(why) => {
                let (setting, pattern) = (setting(), path.display());
                return Err(fault!(
                    "{setting} must be a file, a directory or a pattern with `*`, not `{pattern}` ({why})"
                ));
            }
        },
    };
    let mut search = Search { found: Found::default(), entered: BTreeSet::new(), links: Vec::new() };
    search.enter(&base, &steps)?;
    // Links come last, so that of two ways to a directory the one without a link is taken.
    while let Some(link) = search.links.pop() {
        search.follow(&link)?;
    }
    let Search { mut found, .. } = search;
    found.files.sort();
    found.notes.sort();
    Ok(found)
}

/// Whether a path is meant as a pattern where it leads to nothing.
fn is_pattern(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&b'*')
}

/// A part of a pattern, between two slashes.
#[derive(Clone, Debug)]
enum Step {
    /// `**`: directories to any depth.
    Any,
    Name {
        pattern: glob::Pattern,
        wants_hidden: bool,
    },
}

/// The directory that a pattern begins with, and what follows.
fn parse(pattern: &Path) -> Result<(PathBuf, Vec<Step>), String> {
    let mut base = PathBuf::new();
    let mut steps = Vec::new();
    for component in pattern.components() {
        // What is there as it stands is no pattern, as `[en]` in `text[en]/*.jsonl`.
        if steps.is_empty() && base.join(component).symlink_metadata().is_ok() {
            base.push(component);
            continue;
        }
        let Component::Normal(name) = component else {
            return Err("`..` cannot stand behind a `*`".into());
        };
        let name = name.to_str().ok_or("a pattern must be UTF-8")?;
        if name == "**" {
            steps.push(Step::Any);
            continue;
        }
        let pattern = glob::Pattern::new(name).map_err(|error| error.to_string())?;
        steps.push(Step::Name { pattern, wants_hidden: name.starts_with('.') });
    }
    Ok((base, steps))
}

/// What is left of a pattern behind an entry of a directory: every way that it can be read.
fn behind(steps: &[Step], name: &str) -> Vec<Vec<Step>> {
    let is_hidden = name.starts_with('.');
    match steps {
        [] => Vec::new(),
        [Step::Any, rest @ ..] => {
            let mut ways = behind(rest, name);
            if !is_hidden {
                ways.push(steps.to_vec());
            }
            ways
        }
        [Step::Name { pattern, wants_hidden }, rest @ ..] => {
            let fits = pattern.matches(name) && (!is_hidden || *wants_hidden);
            if fits { vec![rest.to_vec()] } else { Vec::new() }
        }
    }
}

/// Whether nothing is left to match: a file is found. `**` at the end takes files as well.
fn ends(steps: &[Step]) -> bool {
    matches!(steps, [] | [Step::Any])
}

struct Search {
    found: Found,
    /// Directories without links in their paths.
    entered: BTreeSet<PathBuf>,
    links: Vec<Link>,
}

/// A link to a directory.
struct Link {
    path: PathBuf,
    target: PathBuf,
    ways: Vec<Vec<Step>>,
}

impl Search {
    fn enter(&mut self, directory: &Path, steps: &[Step]) -> Result<(), Error> {
        self.walk(directory, &[steps.to_vec()])
    }

    /// Takes what matches one of `ways` in a directory and below it.
    fn walk(&mut self, directory: &Path, ways: &[Vec<Step>]) -> Result<(), Error> {
        let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let real = here.canonicalize().map_err(|cause| error::io("list", here, cause))?;
        self.entered.insert(real);
        let entries = std::fs::read_dir(here).map_err(|cause| error::io("list", here, cause))?;
        let mut entries =
            entries.collect::<Result<Vec<_>, _>>().map_err(|cause| error::io("list", here, cause))?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = directory.join(entry.file_name());
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let rest: Vec<_> = ways.iter().flat_map(|way| behind(way, &name)).collect();
            if rest.is_empty() {
                continue;
            }
            let kind = entry.file_type().map_err(|cause| error::io("read", &path, cause))?;
            if kind.is_dir() {
                self.walk(&path, &rest)?;
                continue;
            }
            match path.metadata() {
                Ok(metadata) if metadata.is_dir() => {
                    let target = path.canonicalize().map_err(|cause| error::io("read", &path, cause))?;
                    self.links.push(Link { path, target, ways: rest });
                }
                Ok(metadata) if metadata.is_file() && rest.iter().any(|way| ends(way)) => {
                    self.found.files.push(path);
                }
                Ok(_) => {}
                Err(_) if kind.is_symlink() => return Err(dangling(&path)),
                Err(cause) => return Err(error::io("read", &path, cause)),
            }
        }
        Ok(())
    }

    fn follow(&mut self, link: &Link) -> Result<(), Error> {
        let Link { path, target, ways } = link;
        if ways.iter().all(|way| way.is_empty()) {
            return Ok(());
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let holder = parent.canonicalize().map_err(|cause| error::io("read", parent, cause))?;
        let (link, real) = (path.display(), target.display());
        if holder.starts_with(target) {
            self.found.notes.push(format!("left out `{link}`: it links to `{real}`, which holds it"));
        } else if self.entered.contains(target) {
            self.found.notes.push(format!("left out `{link}`: it links to `{real}`, which is read already"));
        } else {
            self.walk(path, ways)?;
        }
        Ok(())
    }
}

/// A link leads to nothing.
fn dangling(path: &Path) -> Error {
    let link = path.display();
    let error = match path.read_link() {
        Ok(target) if path.metadata().is_err_and(|cause| cause.kind() == std::io::ErrorKind::NotFound) => {
            fault!("`{link}` links to `{}`, which does not exist", target.display())
        }
        Ok(target) => fault!("`{link}` links to `{}`, which leads nowhere", target.display()),
        Err(cause) => return error::io("read", path, cause),
    };
    error.with_hint("bring back what it links to, or remove the link")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Home(tempfile::TempDir);

    impl Home {
        /// Files with nothing in them.
        fn with(names: &[&str]) -> Home {
            let home = Home(tempfile::tempdir().unwrap());
            for name in names {
                let path = home.at(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            home
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn link(&self, target: &str, name: &str) {
            fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
            symlink(target, self.at(name)).unwrap();
        }

        fn say(&self, text: &str) -> String {
            let real = self.0.path().canonicalize().unwrap();
            text.replace(&format!("{}/", real.display()), "").replace(&real.display().to_string(), "HOME")
        }

        /// The files, and behind them the notes.
        fn find(&self, path: &str) -> Vec<String> {
            match find(&self.at(path), || "path".into()) {
                Ok(Found { files, notes }) => {
                    let files = files.iter().map(|file| file.to_string_lossy().into_owned());
                    files.chain(notes).map(|text| self.say(&text)).collect()
                }
                Err(error) => vec![self.say(&error.to_string())],
            }
        }
    }

    #[test]
    fn a_pattern_and_the_directory_mean_the_same_files() {
        let home = Home::with(&[
            "d/a.x",
            "d/b/a.x",
            "d/b/c/a.x",
            "d/b.y",
            "e/a.x",
            "d/[en]/a.x",
            "d/b/._a.x",
            "d/.h/a.x",
        ]);
        home.link("../e", "d/z");
        let all = ["d/[en]/a.x", "d/a.x", "d/b/a.x", "d/b/c/a.x", "d/z/a.x"];
        assert_eq!(home.find("d/**/*.x"), all);
        assert_eq!(home.find("**/d/**/*.x")[..4], all[..4]);
        assert_eq!(home.find("d/**"), home.find("d"));
        assert_eq!(home.find("d/**/*"), home.find("d"));
        assert_eq!(home.find("d").iter().filter(|file| file.ends_with(".x")).count(), all.len());
        assert_eq!(home.find("d/*.x"), ["d/a.x"]);
        assert_eq!(home.find("d/*/*.x"), ["d/[en]/a.x", "d/b/a.x", "d/z/a.x"]);
        assert_eq!(home.find("d/[en]/*"), ["d/[en]/a.x"]);
        assert_eq!(home.find("d/b/.*"), ["d/b/._a.x"]);
        assert_eq!(home.find("d/.h/*"), ["d/.h/a.x"]);
        assert_eq!(
            home.find("d/b/*/../*.x"),
            ["path must be a file, a directory or a pattern with `*`, not \
            `d/b/*/../*.x` (`..` cannot stand behind a `*`)"]
        );
        for nothing in ["none", "none/*", "d/*.z", "d/a.x/*", "d/b.y/**"] {
            assert!(home.find(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn links_that_lead_back_are_left_out_and_said() {
        let home = Home::with(&["d/a.x", "d/b/a.x", "e.x"]);
        home.link(".", "d/self");
        home.link("..", "d/b/up");
        home.link("../..", "d/b/above");
        home.link("b", "d/again");
        home.link("../e.x", "d/file.x");
        let files = ["d/a.x", "d/b/a.x", "d/file.x"];
        let notes = [
            "left out `d/again`: it links to `d/b`, which is read already",
            "left out `d/b/above`: it links to `HOME`, which holds it",
            "left out `d/b/up`: it links to `d`, which holds it",
            "left out `d/self`: it links to `d`, which holds it",
        ];
        let expected: Vec<&str> = files.into_iter().chain(notes).collect();
        assert_eq!(home.find("d"), expected);
        assert_eq!(home.find("d/**/*.x"), expected);
        // Two directories that link to each other.
        home.link("../g", "f/g");
        home.link("../f", "g/f");
        home.link("../d/a.x", "g/a.x");
        assert_eq!(home.find("f"), ["f/g/a.x", "left out `f/g/f`: it links to `f`, which is read already"]);
    }

    #[test]
    fn what_a_link_should_lead_to_must_be_there() {
        let home = Home::with(&["d/a.x", "d/b/a.x", "d/c/a.x"]);
        home.link("nowhere.x", "d/b/m.x");
        let missing = ["`d/b/m.x` links to `nowhere.x`, which does not exist"];
        for path in ["d", "d/**/*.x", "d/*/*.x", "d/b/*", "d/b/m.x"] {
            assert_eq!(home.find(path), missing, "{path}");
        }
        assert_eq!(home.find("d/*.x"), ["d/a.x"], "where nothing of it is asked for");
        assert_eq!(home.find("d/b/a*"), ["d/b/a.x"]);
        // A directory that is missing may hold what is asked for.
        home.link("/gone/shard", "d/c/shard");
        assert_eq!(home.find("d/c/**/*.x"), ["`d/c/shard` links to `/gone/shard`, which does not exist"]);
        assert_eq!(home.find("d/c/*.x"), ["d/c/a.x"]);
        home.link("round", "e/round");
        assert_eq!(home.find("e"), ["`e/round` links to `round`, which leads nowhere"]);
    }

    #[test]
    fn names_that_are_not_utf_8_are_found() {
        let home = Home::with(&["d/a.x"]);
        let name = std::ffi::OsStr::from_bytes(b"\xFFz.x");
        fs::write(home.at("d").join(name), "").unwrap();
        let expected = ["d/a.x", "d/\u{FFFD}z.x"];
        assert_eq!(home.find("d"), expected);
        assert_eq!(home.find("d/*.x"), expected);
    }
}
