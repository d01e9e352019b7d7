//! Names that people can type for what nodes are called by their hashes: `models/remit-1-seed-2-rl`.

use crate::graph::Graph;
use crate::{Error, Owner};
use remit_results::files::NODES;
use remit_store::{Error as StoreError, atomic};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where they are in the run directory.
const MODELS: &str = "models";

/// Makes the links of the models that there are, and removes all others.
pub(crate) fn link(graph: &Graph) -> Result<(), Error> {
    let folder = graph.run.join(MODELS);
    std::fs::create_dir_all(&folder).map_err(|cause| StoreError::io("create", &folder, cause))?;
    let wanted = wanted(graph);
    let entries = std::fs::read_dir(&folder).map_err(|cause| StoreError::io("read", &folder, cause))?;
    for entry in entries {
        let path = entry.map_err(|cause| StoreError::io("read", &folder, cause))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_link = path.is_symlink();
        if is_link && std::fs::read_link(&path).ok().as_ref() != wanted.get(name) {
            std::fs::remove_file(&path).map_err(|cause| StoreError::io("remove", &path, cause))?;
        }
    }
    for (name, target) in &wanted {
        let path = folder.join(name);
        if !path.is_symlink() {
            let partial = folder.join(format!("{name}.partial"));
            make(target, &partial)?;
            atomic::rename(&partial, &path)?;
        }
    }
    Ok(())
}

/// Each name with where it leads, seen from the folder of links.
fn wanted(graph: &Graph) -> BTreeMap<String, PathBuf> {
    let mut wanted = BTreeMap::new();
    for chain in &graph.chains {
        let Owner { arm, iteration, seed } = &chain.owner;
        for &(point, model, _) in &chain.points {
            let node = &graph.nodes[model];
            if node.directory.is_dir() {
                let name = format!("{arm}-{iteration}-seed-{seed}-{}", point.name());
                wanted.insert(name, Path::new("..").join(NODES).join(node.name()));
            }
        }
    }
    wanted
}

fn make(target: &Path, path: &Path) -> Result<(), Error> {
    atomic::remove(path)?;
    std::os::unix::fs::symlink(target, path).map_err(|cause| StoreError::io("link", path, cause))?;
    Ok(())
}
