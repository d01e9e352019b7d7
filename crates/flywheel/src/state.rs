//! What lies in a run directory, compared with the graph.
//!
//! ```text
//! <run>/.lock                        held by the flywheel that writes here
//! <run>/nodes/midtrain-3f2a.../      what the stage itself leaves: it resumes by itself
//! <run>/nodes/midtrain-3f2a.../begun.json    written first: what it is made from; gone at the end
//! <run>/nodes/midtrain-3f2a.../node.json     written last: id, inputs, files, cost
//! <run>/flywheel.json                what came of it all
//! ```

use crate::graph::{Input, Node};
use crate::{Cost, Error, Graph, Stage};
use remit_results::files::{self, NODES};
pub use remit_results::flywheel::{FileState, NodeRecord, State};
use remit_store::atomic;
use remit_store::checkpoint::{CHECKPOINTS, INTEGRITY, verify_directory};
use remit_store::hash::{hash_bytes, hash_file};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a node that is being made is made from: the content of each node, by role.
const BEGUN: &str = "begun.json";
/// The record of a node that is being made again.
const FORMER: &str = "former.json";

/// What is left out of a record: what a clock says, places, and what belongs to the record itself.
const NOT_RESULTS: [&str; 7] =
    [files::NODE, BEGUN, FORMER, ".lock", files::TIMINGS, files::SETTINGS, files::TENSORBOARD];

/// How closely a finished node is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Whether every file is there in its size.
    Glance,
    /// Whether every file has its content.
    Whole,
}

/// Where a node stands.
///
/// # Errors
/// A record that cannot be read.
pub fn examine(graph: &Graph, index: usize, look: Look) -> Result<State, Error> {
    let node = &graph.nodes[index];
    let Some(record) = read_record(&node.directory.join(files::NODE))? else {
        return Ok(if node.directory.exists() { State::Begun } else { State::Todo });
    };
    if record.id != node.id {
        return Ok(State::Damaged(format!("`{}` is of another node, {:.12}", files::NODE, record.id)));
    }
    for (name, state) in &record.files {
        if let Some(problem) = problem_of(&node.directory, name, state, look)? {
            return Ok(State::Damaged(problem));
        }
    }
    for (role, content) in &record.inputs {
        let Some(Input::Node(parent, _)) = node.inputs.get(role) else { continue };
        let parent = &graph.nodes[*parent];
        let now = latest_record(&parent.directory)?;
        if now.is_some_and(|now| now.content != *content) {
            return Ok(State::Outdated(format!("it was made from another {}", parent.name())));
        }
    }
    Ok(State::Done)
}

/// What is wrong with a file, if anything.
fn problem_of(directory: &Path, name: &str, state: &FileState, look: Look) -> Result<Option<String>, Error> {
    let path = directory.join(name);
    let Ok(metadata) = path.metadata() else { return Ok(Some(format!("`{name}` is missing"))) };
    if metadata.len() != state.bytes {
        return Ok(Some(format!("`{name}` had {} bytes and has {}", state.bytes, metadata.len())));
    }
    let is_checkpoint = path.file_name().is_some_and(|name| name == INTEGRITY);
    if (look == Look::Whole || is_checkpoint) && hash_file(&path)? != state.blake3 {
        return Ok(Some(format!("the content of `{name}` has changed")));
    }
    if !is_checkpoint {
        return Ok(None);
    }
    let checkpoint = path.parent().expect("a file is in a directory");
    if look == Look::Whole {
        return Ok(verify_directory(checkpoint).err().map(|error| error.to_string()));
    }
    let sizes: Sizes =
        std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let wrong = sizes.files.iter().find(|(name, size)| {
        checkpoint.join(name).metadata().map_or(true, |metadata| metadata.len() != size.bytes)
    });
    Ok(wrong.map(|(file, _)| format!("`{file}` of `{}` is missing or cut", checkpoint_name(name))))
}

/// The part of `integrity.json` that a glance needs.
#[derive(Default, Deserialize)]
struct Sizes {
    files: BTreeMap<String, Size>,
}

#[derive(Deserialize)]
struct Size {
    bytes: u64,
}

fn checkpoint_name(name: &str) -> &str {
    name.strip_suffix(INTEGRITY).map_or(name, |name| name.trim_end_matches('/'))
}

/// Reads a record, if it is there.
///
/// # Errors
/// A file that cannot be read or is none.
pub fn read_record(path: &Path) -> Result<Option<NodeRecord>, Error> {
    let record: Option<NodeRecord> = read_json(path)?;
    match record {
        Some(record) if record.format_version != NodeRecord::FORMAT_VERSION => {
            let (found, known) = (record.format_version, NodeRecord::FORMAT_VERSION);
            let problem = format!("it has version {found}, this program writes {known}");
            Err(Error::Record { path: path.to_owned(), problem })
        }
        record => Ok(record),
    }
}

/// The content of a file that may be missing.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(remit_store::Error::io("read", path, cause).into()),
    };
    let wrong =
        |error: serde_json::Error| Error::Record { path: path.to_owned(), problem: error.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(wrong)
}

/// The record of a node, or the one that it had before it was set aside.
pub(crate) fn latest_record(directory: &Path) -> Result<Option<NodeRecord>, Error> {
    match read_record(&directory.join(files::NODE))? {
        Some(record) => Ok(Some(record)),
        None => read_record(&directory.join(FORMER)),
    }
}

/// Opens the directory of a node whose inputs are made. What is there already is gone on with only if it was begun from
/// the same: a run does not see of itself that its first checkpoint is another. The input that is another, if one is.
pub(crate) fn begin(graph: &Graph, index: usize) -> Result<Option<String>, Error> {
    let node = &graph.nodes[index];
    let create = |cause| remit_store::Error::io("create", &node.directory, cause);
    std::fs::create_dir_all(&node.directory).map_err(create)?;
    let now = contents(graph, node)?;
    let path = node.directory.join(BEGUN);
    let begun: Option<BTreeMap<String, String>> = read_json(&path)?;
    let before = match begun {
        Some(begun) => Some(begun),
        None => read_record(&node.directory.join(FORMER))?.map(|former| former.inputs),
    };
    let mut other = None;
    if let Some(before) = before.filter(|before| *before != now) {
        let differs = |role: &&String| before.get(*role) != now.get(*role);
        other = now.keys().find(differs).cloned().or(Some("an input".to_owned()));
        // What says so goes last: killed before that, it is found again.
        for (name, path) in entries(&node.directory)? {
            if ![BEGUN, FORMER].contains(&name.as_str()) {
                atomic::remove(&path)?;
            }
        }
    }
    atomic::write_json(&path, &now)?;
    Ok(other)
}

/// The content of the nodes that a node is made from, by role.
fn contents(graph: &Graph, node: &Node) -> Result<BTreeMap<String, String>, Error> {
    let mut contents = BTreeMap::new();
    for (role, input) in &node.inputs {
        let Input::Node(parent, _) = input else { continue };
        let parent = latest_record(&graph.nodes[*parent].directory)?.expect("parents are made first");
        contents.insert(role.clone(), parent.content);
    }
    Ok(contents)
}

/// Writes the record of a node that is made. Whether its content is another than what it had before, if it had any.
pub(crate) fn finish(
    graph: &Graph,
    index: usize,
    held_out: BTreeMap<String, f64>,
    cost: Cost,
) -> Result<bool, Error> {
    let node = &graph.nodes[index];
    let mut files = BTreeMap::new();
    collect(&node.directory, "", &mut files)?;
    let content = content_of(node, &files);
    let inputs = contents(graph, node)?;
    let former = read_record(&node.directory.join(FORMER))?;
    let differs = former.is_some_and(|former| former.content != content);
    let record = NodeRecord {
        format_version: NodeRecord::FORMAT_VERSION,
        id: node.id.clone(),
        identity: node.identity.clone(),
        inputs,
        files,
        content,
        held_out,
        cost,
    };
    atomic::write_json(&node.directory.join(files::NODE), &record)?;
    tidy(node)?;
    Ok(differs)
}

/// Removes what only a node needs that is being made. One that was killed between its record and this has it still.
pub(crate) fn tidy(node: &Node) -> Result<(), Error> {
    for name in [BEGUN, FORMER] {
        atomic::remove(&node.directory.join(name))?;
    }
    Ok(())
}

/// The files of a node that are its result. Of a checkpoint, `integrity.json` stands for all.
fn collect(directory: &Path, prefix: &str, files: &mut BTreeMap<String, FileState>) -> Result<(), Error> {
    let list = |cause| remit_store::Error::io("list", directory, cause);
    let is_checkpoint = directory.join(INTEGRITY).is_file();
    for entry in std::fs::read_dir(directory).map_err(list)? {
        let path = entry.map_err(list)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let left_out = prefix.is_empty() && NOT_RESULTS.contains(&name.as_str());
        if left_out || name == ".lock" || (is_checkpoint && name != INTEGRITY) {
            continue;
        }
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            collect(&path, &format!("{name}/"), files)?;
        } else {
            let bytes = path.metadata().map_err(|cause| remit_store::Error::io("read", &path, cause))?.len();
            files.insert(name, FileState { bytes, blake3: hash_file(&path)? });
        }
    }
    Ok(())
}

/// The hash of the files of a node. `results.json` has a date in it, and nothing is made of it.
fn content_of(node: &Node, files: &BTreeMap<String, FileState>) -> String {
    let counts = |name: &str| node.stage != Stage::Eval || name != files::RESULTS;
    let lines = files.iter().filter(|(name, _)| counts(name));
    let text: String = lines.map(|(name, file)| format!("{name} {}\n", file.blake3)).collect();
    hash_bytes(text.as_bytes())
}

/// Takes a node back to where it can be made again: what is wrong goes away, then its record goes aside. Checkpoints
/// that are whole stay, so that a run goes on from them.
pub(crate) fn set_aside(node: &Node, state: &State) -> Result<(), Error> {
    let record = node.directory.join(files::NODE);
    let spared = match state {
        State::Damaged(_) if node.stage.has_checkpoints() => spare(node)?,
        _ => false,
    };
    if !spared {
        for (name, path) in entries(&node.directory)? {
            if ![files::NODE, FORMER].contains(&name.as_str()) {
                atomic::remove(&path)?;
            }
        }
    }
    // Last: killed before this, it begins again with what is wrong.
    Ok(atomic::rename(&record, &node.directory.join(FORMER))?)
}

/// Removes the damaged checkpoints of a run; whether that was all that is wrong with it.
fn spare(node: &Node) -> Result<bool, Error> {
    for (_, path) in entries(&node.directory.join(CHECKPOINTS))? {
        if verify_directory(&path).is_err() {
            atomic::remove(&path)?;
        }
    }
    let Some(record) = read_record(&node.directory.join(files::NODE))? else { return Ok(false) };
    for (name, state) in record.files.iter().filter(|(name, _)| !name.ends_with(INTEGRITY)) {
        if problem_of(&node.directory, name, state, Look::Whole)?.is_some() {
            return Ok(false);
        }
    }
    // The run goes on behind its last checkpoint: one that is gone from before that would not come back.
    let names = record.files.keys().filter(|name| name.ends_with(INTEGRITY));
    Ok(names.map(|name| !node.directory.join(name).exists()).is_sorted())
}

/// Node directories that the graph does not have, by name.
///
/// # Errors
/// A directory that cannot be listed.
pub fn stale(graph: &Graph) -> Result<Vec<(String, PathBuf)>, Error> {
    let mut entries = entries(&graph.run.join(NODES))?;
    entries.retain(|(name, _)| graph.named(name).is_none());
    Ok(entries)
}

fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let list = |cause| remit_store::Error::io("list", directory, cause);
    let mut entries = Vec::new();
    if directory.is_dir() {
        for entry in std::fs::read_dir(directory).map_err(list)? {
            let entry = entry.map_err(list)?;
            entries.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    entries.sort();
    Ok(entries)
}
