//! The files of a run directory, as far as a report needs them.

use crate::Error;
use remit_objective::WeightFigures;
use remit_results::dynamics::{Dynamics, read_dynamics};
use remit_results::files;
use remit_results::flywheel::{Flywheel, NodeRecord, NodeState, Owner, Point, State};
use remit_store::checkpoint::{CHECKPOINTS, checkpoints_of};
use remit_store::tensors::TensorDirectory;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What the files of a flywheel that has not finished would say now.
#[derive(Clone, Debug)]
pub struct Now {
    /// What has come of it.
    pub flywheel: Flywheel,
    /// As in `recipe.toml`.
    pub recipe: String,
}

/// A run directory, read.
#[derive(Clone, Debug)]
pub struct Run {
    /// Whether it is a flywheel's, and whether `flywheel.json` says whose its nodes are.
    pub(crate) kind: Kind,
    pub(crate) wheel: Flywheel,
    /// Of a flywheel's nodes that have one, by name.
    pub(crate) logs: BTreeMap<String, Log>,
    /// `results.json` of the evaluations, by the node's name.
    pub(crate) results: BTreeMap<String, BTreeMap<String, serde_json::Map<String, Value>>>,
    /// By the node's name.
    pub(crate) dynamics: BTreeMap<String, Dynamics>,
    /// `settings.toml` of mid-trainings, by the node's name; of a single run, its own.
    pub(crate) settings: BTreeMap<String, toml::Table>,
    pub(crate) recipe: Option<toml::Table>,
    /// Of the first model that has a checkpoint.
    pub(crate) num_parameters: Option<u64>,
    /// Names and hashes of what a single run was made of.
    pub(crate) inputs: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Flywheel,
    /// A flywheel before its `flywheel.json`: nodes that nobody says the arms of.
    Nodes,
    Single,
}

/// `metrics.jsonl`, what is shown of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Log {
    /// Tokens and losses of every evaluation, by store.
    pub held_out: Vec<(f64, BTreeMap<String, f64>)>,
    /// Tokens and figures of every step that has weights, in the order of [`WeightFigures::NAMES`].
    pub weights: Vec<(f64, [Option<f64>; 7])>,
    pub health: Vec<Health>,
    pub steps: u64,
}

/// A rule of health that was broken.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Health {
    pub step: u64,
    pub rule: String,
    pub value: Value,
    pub limit: Value,
    pub action: String,
}

/// What [`WeightFigures::NAMES`] are called.
pub(crate) const WEIGHT_TITLES: [&str; 7] = [
    "mean weight",
    "standard deviation of the weight",
    "share at the lower bound",
    "share at the upper bound",
    "share weighted up",
    "effective sample size, a share of the batch",
    "mean gap to the reference, in nats",
];

impl Run {
    /// Reads a run directory, finished or not. `now` is for where somebody knows better than its files.
    ///
    /// # Errors
    /// A directory that is none; a file that is damaged.
    pub fn read(directory: &Path, now: Option<&Now>) -> Result<Run, Error> {
        let nodes = directory.join(files::NODES);
        let known = match now {
            Some(now) => Some(now.flywheel.clone()),
            None => read_flywheel(&directory.join(files::FLYWHEEL))?,
        };
        let (kind, wheel) = match known {
            Some(known) => (Kind::Flywheel, known),
            None if nodes.is_dir() => (Kind::Nodes, Flywheel::of(nodes_of(&nodes)?)),
            None if directory.join(files::METRICS).is_file() => (Kind::Single, Flywheel::of(Vec::new())),
            None => return Err(Error::NoRun { path: directory.to_owned() }),
        };
        let path = directory.join(files::RECIPE);
        let recipe = match now {
            Some(now) => {
                Some(now.recipe.parse().map_err(|error: toml::de::Error| wrong(&path, error.to_string()))?)
            }
            None => read_toml(&path)?,
        };
        let mut run = Run {
            kind,
            wheel,
            recipe,
            logs: BTreeMap::new(),
            results: BTreeMap::new(),
            dynamics: BTreeMap::new(),
            settings: BTreeMap::new(),
            num_parameters: None,
            inputs: BTreeMap::new(),
        };
        if kind == Kind::Single {
            run.add("run", directory)?;
            let inputs: Option<BTreeMap<String, Value>> = read_json(&directory.join(files::INPUTS))?;
            let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let inputs = inputs.into_iter().flatten();
            run.inputs = inputs.map(|(name, value)| (name, text(value))).collect();
        }
        for name in run.wheel.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>() {
            run.add(&name, &nodes.join(&name))?;
        }
        Ok(run)
    }

    /// The first mid-training of every arm that has one: that of its first iteration and seed. The arm, the node's name, and
    /// its settings as they were written.
    pub fn first_midtrainings(&self) -> Vec<(&str, &str, &toml::Table)> {
        let mut first: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
        for node in self.wheel.nodes.iter().filter(|node| is_midtraining(node)) {
            for owner in node.owners.iter().filter(|owner| owner.iteration == 1) {
                let ours = (owner.seed, node.name.as_str());
                first.entry(&owner.arm).and_modify(|first| *first = ours.min(*first)).or_insert(ours);
            }
        }
        let found = first.into_iter();
        found.filter_map(|(arm, (_, node))| Some((arm, node, self.settings.get(node)?))).collect()
    }

    /// Reads what a node has left so far.
    fn add(&mut self, name: &str, directory: &Path) -> Result<(), Error> {
        let path = directory.join(files::METRICS);
        if let Some(text) = read_text(&path)? {
            self.logs.insert(name.to_owned(), Log::parse(&text).map_err(|problem| wrong(&path, problem))?);
        }
        if let Some(settings) = read_toml(&directory.join(files::SETTINGS))? {
            self.settings.insert(name.to_owned(), settings);
        }
        #[derive(Deserialize)]
        struct Results {
            results: BTreeMap<String, serde_json::Map<String, Value>>,
        }
        if let Some(Results { results }) = read_json(&directory.join(files::RESULTS))? {
            self.results.insert(name.to_owned(), results);
        }
        if self.num_parameters.is_none() {
            self.num_parameters = num_parameters(directory)?;
        }
        if let Some(dynamics) = read_dynamics(&directory.join(files::DYNAMICS))? {
            self.dynamics.insert(name.to_owned(), dynamics);
        }
        Ok(())
    }

    /// The mid-trainings of an iteration: seed, node, log. In order of seeds.
    pub(crate) fn midtrainings(&self, arm: &str, iteration: u32) -> Vec<(u64, &NodeState, &Log)> {
        let mut found = Vec::new();
        for node in self.wheel.nodes.iter().filter(|node| is_midtraining(node)) {
            let Some(log) = self.logs.get(&node.name) else { continue };
            let ours = |owner: &&Owner| owner.arm == arm && owner.iteration == iteration;
            found.extend(node.owners.iter().filter(ours).map(|owner| (owner.seed, node, log)));
        }
        found.sort_by_key(|(seed, ..)| *seed);
        found
    }

    /// The mid-trainings of an iteration that are drawn: those that are done, or all where none is.
    pub(crate) fn drawn(&self, arm: &str, iteration: u32) -> Vec<(u64, &NodeState, &Log)> {
        let mut found = self.midtrainings(arm, iteration);
        if found.iter().any(|(_, node, _)| node.state == State::Done) {
            found.retain(|(_, node, _)| node.state == State::Done);
        }
        found
    }
}

/// The parameters of a run's first checkpoint, by what its tensors' files say of themselves.
fn num_parameters(directory: &Path) -> Result<Option<u64>, Error> {
    if !directory.join(CHECKPOINTS).is_dir() {
        return Ok(None);
    }
    let checkpoints = checkpoints_of(directory)?;
    let Some(checkpoint) = checkpoints.first() else { return Ok(None) };
    let tensors = TensorDirectory::open(checkpoint.path())?;
    let count = |name: &str| tensors.info(name).map_or(0, |info| info.num_elements() as u64);
    Ok(Some(tensors.names().map(count).sum()))
}

/// Whether it is one, by its stage.
fn is_midtraining(node: &NodeState) -> bool {
    node.stage == Point::Midtrain.name()
}

fn read_flywheel(path: &Path) -> Result<Option<Flywheel>, Error> {
    let wheel: Option<Flywheel> = read_json(path)?;
    match wheel {
        Some(Flywheel { format_version: found, .. }) if found != Flywheel::FORMAT_VERSION => {
            let known = Flywheel::FORMAT_VERSION;
            Err(wrong(path, format!("it has version {found}, this program reads {known}")))
        }
        wheel => Ok(wheel),
    }
}

/// Nodes by what lies in their directories; each mid-training stands for itself.
fn nodes_of(directory: &Path) -> Result<Vec<NodeState>, Error> {
    let list = |cause| remit_store::Error::io("list", directory, cause);
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(list)? {
        paths.push(entry.map_err(list)?.path());
    }
    paths.sort();
    let mut nodes = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((stage, id)) = name.split_once('-').filter(|_| path.is_dir() && !name.contains('.')) else {
            continue;
        };
        let record: Option<NodeRecord> = read_json(&path.join(files::NODE))?;
        let state = if record.is_some() { State::Done } else { State::Begun };
        let mut node = NodeState {
            id: record.map_or_else(|| id.to_owned(), |record| record.id),
            stage: stage.to_owned(),
            subject: None,
            owners: BTreeSet::new(),
            inputs: Vec::new(),
            state,
            cost: None,
            name: name.clone(),
        };
        if is_midtraining(&node) {
            node.owners.insert(Owner { arm: name, iteration: 0, seed: 1 });
        }
        nodes.push(node);
    }
    Ok(nodes)
}

impl Log {
    /// Reads a log. A last line without its end is one that a kill cut, and left out.
    pub(crate) fn parse(text: &str) -> Result<Log, String> {
        let mut log = Log::default();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let Some(line) = line.strip_suffix('\n') else { break };
            let value: Value =
                serde_json::from_str(line).map_err(|error| format!("line {}: {error}", index + 1))?;
            log.add(&value);
        }
        Ok(log)
    }

    fn add(&mut self, line: &Value) {
        let tokens = line["tokens"].as_f64().unwrap_or(0.0);
        let step = line["step"].as_u64().unwrap_or(0);
        self.steps = self.steps.max(step);
        if let Some(losses) = line["held_out"].as_object() {
            let losses = losses.iter().filter_map(|(name, loss)| Some((name.clone(), loss.as_f64()?)));
            self.held_out.push((tokens, losses.collect()));
        }
        let figures = WeightFigures::NAMES.map(|name| line[name].as_f64());
        if figures[0].is_some() {
            self.weights.push((tokens, figures));
        }
        if let Some(health) = line.get("health") {
            let word = |key: &str| health[key].as_str().unwrap_or("unnamed").to_owned();
            self.health.push(Health {
                step,
                rule: word("rule"),
                value: health["value"].clone(),
                limit: health["limit"].clone(),
                action: word("action"),
            });
        }
    }

    /// The losses on one store: tokens and loss, in order.
    pub(crate) fn losses(&self, store: &str) -> Vec<(f64, f64)> {
        self.held_out.iter().filter_map(|(tokens, losses)| Some((*tokens, *losses.get(store)?))).collect()
    }
}

fn wrong(path: &Path, problem: String) -> Error {
    Error::File { path: path.to_owned(), problem }
}

fn read_text(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause)
            if matches!(cause.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(cause) => Err(remit_store::Error::io("read", path, cause).into()),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| wrong(path, error.to_string()))
}

fn read_toml(path: &Path) -> Result<Option<toml::Table>, Error> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    text.parse().map(Some).map_err(|error: toml::de::Error| wrong(path, error.to_string()))
}
