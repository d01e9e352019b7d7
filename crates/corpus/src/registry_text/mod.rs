//! Ordinary English without a network: the prose of the pinned dependencies.
//!
//! Building this program puts the sources of its dependencies into Cargo's registry, at the versions of the lock
//! file and checked by their hashes: a corpus of a few megabytes of careful technical English that every machine
//! which can build the program has, byte for byte the same. What is taken: the Markdown files and the comments
//! of [`CRATES`], without code, tables, addresses and licences, no paragraph twice.

mod error;
mod prose;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde::{Deserialize, Serialize};

pub use error::Error;

/// The crates whose text is taken: dependencies of every build of this program, direct or not, each pinned once, so
/// that building has fetched the very version that is read.
pub const CRATES: &[&str] = &[
    "aho-corasick",
    "bitflags",
    "blake3",
    "bytemuck",
    "bytes",
    "cc",
    "chrono",
    "compact_str",
    "crossbeam-epoch",
    "crossbeam-utils",
    "daachorse",
    "flate2",
    "half",
    "indicatif",
    "itertools",
    "log",
    "memchr",
    "memmap2",
    "minimal-lexical",
    "nom",
    "num-traits",
    "parquet",
    "portable-atomic",
    "proc-macro2",
    "rayon",
    "rayon-core",
    "regex",
    "regex-automata",
    "regex-syntax",
    "serde",
    "serde_core",
    "serde_json",
    "snap",
    "tokenizers",
    "winnow",
    "zerocopy",
    "zlib-rs",
    "zstd",
    "zstd-safe",
];

/// A document with fewer bytes of prose than this is not worth its separators.
const DOCUMENT_BYTES_MIN: usize = 200;

/// The prose of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Document {
    /// Paragraphs, separated by blank lines, ending in a line feed.
    pub text: String,
    /// The file, as `NAME-VERSION/path`.
    pub source: String,
}

/// The prose of [`CRATES`] at the versions that `lockfile` (the text of a `Cargo.lock`) pins.
///
/// `cargo_home` is Cargo's home, where `registry/src` lies. Documents come in the order of their sources.
///
/// # Errors
/// A lock file that cannot be read or lacks a crate, a crate whose sources are not there, a file that cannot be read.
pub fn documents(lockfile: &str, cargo_home: &Path) -> Result<Vec<Document>, Error> {
    text_of(CRATES, lockfile, cargo_home)
}

/// What [`documents`] depends on: `NAME-VERSION` of [`CRATES`], in order. Nothing for a lock file that cannot be read;
/// [`documents`] says so.
pub fn pins(lockfile: &str) -> Vec<String> {
    let packages = packages(lockfile).unwrap_or_default().into_iter();
    let taken = packages.filter(|package| CRATES.contains(&package.name.as_str()));
    let mut pins: Vec<String> =
        taken.map(|package| format!("{}-{}", package.name, package.version)).collect();
    pins.sort();
    pins
}

/// Where Cargo keeps its registry: `CARGO_HOME`, or `.cargo` in the user's home.
///
/// # Errors
/// Neither is known.
pub fn cargo_home() -> Result<PathBuf, Error> {
    let named = env::var_os("CARGO_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    named.or_else(|| env::home_dir().map(|home| home.join(".cargo"))).ok_or(Error::NoCargoHome)
}

fn text_of(crates: &[&str], lockfile: &str, cargo_home: &Path) -> Result<Vec<Document>, Error> {
    let versions = pinned_versions(lockfile)?;
    let registry = cargo_home.join("registry").join("src");
    let mut names = crates.to_vec();
    names.sort_unstable();
    let mut seen = HashSet::new();
    let mut documents = Vec::new();
    for name in names {
        let version = versions.get(name).ok_or_else(|| Error::NotLocked { name: name.to_owned() })?;
        let crate_name = format!("{name}-{version}");
        let folder = find_sources(&registry, &crate_name)?.ok_or_else(|| Error::NotFetched {
            name: name.to_owned(),
            version: version.clone(),
            registry: registry.clone(),
        })?;
        for file in text_files(&folder)? {
            let markdown = read_markdown(&folder.join(&file))?;
            let fresh = |paragraph: &String| seen.insert(skeleton(paragraph));
            let text =
                prose::paragraphs(&markdown).into_iter().filter(fresh).collect::<Vec<_>>().join("\n\n");
            if text.len() >= DOCUMENT_BYTES_MIN {
                documents.push(Document { text: text + "\n", source: format!("{crate_name}/{file}") });
            }
        }
    }
    Ok(documents)
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    /// Nothing for packages of our own.
    source: Option<String>,
}

fn packages(lockfile: &str) -> Result<Vec<Package>, Error> {
    #[derive(Deserialize)]
    struct Lockfile {
        package: Vec<Package>,
    }
    let lockfile: Lockfile =
        toml::from_str(lockfile).map_err(|cause| Error::Lockfile { cause: Box::new(cause) })?;
    Ok(lockfile.package)
}

/// Name to version of every package that comes from a registry; the newest where there are several.
fn pinned_versions(lockfile: &str) -> Result<BTreeMap<String, String>, Error> {
    // Cargo sorts packages by name and version, so the newest is kept. None of `CRATES` is there twice.
    let packages = packages(lockfile)?.into_iter().filter(|package| package.source.is_some());
    Ok(packages.map(|package| (package.name, package.version)).collect())
}

/// The folder of a crate in whichever registry has it.
fn find_sources(registry: &Path, crate_name: &str) -> Result<Option<PathBuf>, Error> {
    if !registry.is_dir() {
        return Ok(None);
    }
    let folders = entries(registry)?.into_iter().map(|(_, index)| index.join(crate_name));
    Ok(folders.into_iter().find(|folder| folder.is_dir()))
}

/// Paths below `folder` of the files to read, with `/` between their parts, in the order of their bytes.
fn text_files(folder: &Path) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), folder.to_owned())];
    while let Some((prefix, folder)) = open.pop() {
        for (name, path) in entries(&folder)? {
            let below = format!("{prefix}{name}");
            if path.is_dir() {
                open.push((below + "/", path));
            } else if is_wanted(&name) {
                found.push(below);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Names and paths in a folder. The registry's own marks (`.cargo-ok` and the like) are passed over.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let failed = |cause| remit_store::Error::io("read", folder, cause);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            found.push((name, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Rust sources and Markdown, but no change logs, licences and rules of conduct.
fn is_wanted(name: &str) -> bool {
    const UNWANTED: [&str; 9] =
        ["agents", "change", "code_of", "code-of", "copying", "history", "licen", "news", "release"];
    let name = name.to_lowercase();
    name.ends_with(".rs") || (name.ends_with(".md") && !UNWANTED.iter().any(|word| name.starts_with(word)))
}

fn read_markdown(path: &Path) -> Result<String, Error> {
    let bytes = fs::read(path).map_err(|cause| remit_store::Error::io("read", path, cause))?;
    // A few test files of parsers are deliberately not UTF-8; no prose of theirs is lost here.
    let text = String::from_utf8_lossy(&bytes);
    let is_rust = path.extension().is_some_and(|extension| extension == "rs");
    Ok(if is_rust { prose::comments(&text) } else { text.into_owned() })
}

/// What makes a paragraph the same as another: its plain words. Comments that a macro or a habit repeats for each
/// type differ in digits and identifiers only.
fn skeleton(paragraph: &str) -> String {
    let is_plain = |word: &&str| word.chars().all(|c| c.is_ascii_alphabetic() || c == '-');
    let words = paragraph.split(' ').map(|word| word.trim_end_matches([',', '.', ';', ':'])).filter(is_plain);
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKFILE: &str = "\
version = 4
[[package]]
name = \"one\"
version = \"0.1.0\"
source = \"registry+https://example.org/index\"
[[package]]
name = \"ours\"
version = \"0.1.0\"
[[package]]
name = \"two\"
version = \"1.2.3\"
source = \"registry+https://example.org/index\"
[[package]]
name = \"two\"
version = \"2.0.0\"
source = \"registry+https://example.org/index\"
";

    fn sentence(about: &str) -> String {
        let middle = "is long enough to be kept, because it has so many ordinary words in it";
        format!("The sentence about {about} {middle}. It goes on for a while so that {middle}.")
    }

    /// A home of Cargo with the two crates of `LOCKFILE`.
    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: String| {
            let path = home.path().join("registry/src/example.org-0123").join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        };
        let (a, b, c) = (sentence("apples"), sentence("bread"), sentence("cheese"));
        write("one-0.1.0/src/z.rs", format!("/// {a}\n///\n/// {b}\nfn f() {{}}\n// {}\n", sentence("milk")));
        write("one-0.1.0/README.md", format!("# One\n\n{a}\n\n{c}\n"));
        write("one-0.1.0/CHANGELOG.md", sentence("changes"));
        write("one-0.1.0/LICENSE-MIT.md", sentence("licences"));
        write("one-0.1.0/.hidden/x.md", sentence("hidden things"));
        write("one-0.1.0/notes.txt", sentence("other files"));
        write("two-1.2.3/lib.rs", format!("//! {}\n", sentence("old versions")));
        write(
            "two-2.0.0/lib.rs",
            format!("//! {b}\n//!\n//! {}\n//!\n//! {}\n", sentence("dates"), sentence("u8 eggs")),
        );
        write("two-2.0.0/short.md", "This is one short sentence with not very much in it.".to_owned());
        home
    }

    #[test]
    fn documents_come_in_order_and_no_paragraph_twice() {
        let home = home();
        let documents = text_of(&["two", "one"], LOCKFILE, home.path()).expect("both are there");
        let document = |source: &str, paragraphs: [&str; 2]| Document {
            source: source.to_owned(),
            text: paragraphs.map(sentence).join("\n\n") + "\n",
        };
        // The apples of `z.rs` were in the README before it, and the bread of `two` in `z.rs`.
        assert_eq!(documents[0], document("one-0.1.0/README.md", ["apples", "cheese"]));
        assert_eq!(documents[1], document("one-0.1.0/src/z.rs", ["bread", "milk"]));
        assert_eq!(documents[2], document("two-2.0.0/lib.rs", ["dates", "u8 eggs"]));
        assert_eq!(documents.len(), 3);
    }

    #[test]
    fn paragraphs_that_differ_in_names_and_numbers_only_are_the_same() {
        assert_eq!(skeleton("Reads a u8, or 1 byte."), skeleton("Reads a u16, or 2 byte."));
        assert_ne!(skeleton("Reads a u8, or 1 byte."), skeleton("Writes a u8, or 1 byte."));
    }

    #[test]
    fn what_is_missing_is_named() {
        let home = home();
        let error = text_of(&["three"], LOCKFILE, home.path()).expect_err("not locked");
        assert_eq!(error.to_string(), "crate `three` is not in the lock file");
        let error = text_of(&["ours"], LOCKFILE, home.path()).expect_err("not of a registry");
        assert_eq!(error.to_string(), "crate `ours` is not in the lock file");

        let empty = tempfile::tempdir().expect("a folder");
        let error = text_of(&["one"], LOCKFILE, empty.path()).expect_err("not fetched");
        let registry = empty.path().join("registry").join("src");
        let expected = format!("the sources of crate `one` 0.1.0 are not under `{}`", registry.display());
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().is_some_and(|hint| hint.contains("`cargo fetch --locked`")));

        let error = text_of(&["one"], "package = 3", home.path()).expect_err("no lock file");
        assert!(error.to_string().starts_with("the lock file cannot be read: "), "{error}");
    }

    #[test]
    fn written_lines_hold_text_and_source() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("text.jsonl");
        let document =
            Document { text: "A \"quoted\"\nline.\n".to_owned(), source: "one-0.1.0/a.md".to_owned() };
        remit_store::atomic::write_json_lines(&path, [document]).expect("written");
        let written = fs::read_to_string(&path).expect("there");
        assert_eq!(written, "{\"text\":\"A \\\"quoted\\\"\\nline.\\n\",\"source\":\"one-0.1.0/a.md\"}\n");
    }

    #[test]
    fn the_crates_are_pinned_once_each_and_hold_megabytes_of_prose() {
        let lockfile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
        let lockfile = fs::read_to_string(lockfile).expect("the workspace has a lock file");
        for name in CRATES {
            let count = lockfile.matches(&format!("\nname = \"{name}\"\n")).count();
            assert_eq!(count, 1, "`{name}` is pinned {count} times: choose other crates");
        }
        let documents = documents(&lockfile, &cargo_home().expect("a home")).expect("all is fetched");
        let num_bytes: usize = documents.iter().map(|document| document.text.len()).sum();
        assert!(num_bytes > 2_000_000, "{num_bytes}");
        assert!(documents.iter().all(|document| !document.text.contains("://")));
    }
}
