//! The files of a run directory, as far as a report needs them.

use crate::Error;
use remit_eval::dynamics::{DYNAMICS, Dynamics, read_dynamics};
use remit_store::checkpoint::checkpoints_of;
use remit_store::tensors::TensorDirectory;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FLYWHEEL: &str = "flywheel.json";
const FORMAT_VERSION: u32 = 1;
const METRICS: &str = "metrics.jsonl";
const CHECKPOINTS: &str = "checkpoints";
/// The arm that the others are compared with.
pub(crate) const BASELINE: &str = "ntp";

/// What the files of a flywheel that has not finished would say now.
#[derive(Clone, Debug)]
pub struct Now {
    /// As in `flywheel.json`.
    pub flywheel: String,
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

/// `flywheel.json`, what is shown of it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Flywheel {
    pub format_version: u32,
    #[serde(default)]
    pub nodes: Vec<Node>,
    #[serde(default)]
    pub figures: Vec<Figure>,
    #[serde(default)]
    pub comparison: Vec<Comparison>,
    #[serde(default)]
    pub costs: Vec<ArmCost>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Node {
    pub name: String,
    pub id: String,
    pub stage: String,
    #[serde(default)]
    pub owners: Vec<Owner>,
    #[serde(default)]
    pub inputs: Vec<String>,
    pub state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Owner {
    pub arm: String,
    pub iteration: u32,
    pub seed: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Figure {
    #[serde(flatten)]
    pub owner: Owner,
    pub point: String,
    pub task: String,
    pub metric: String,
    pub value: f64,
    pub node: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Comparison {
    pub arm: String,
    pub iteration: u32,
    pub point: String,
    pub task: String,
    pub metric: String,
    pub mean: Mean,
    #[serde(default)]
    pub difference: Option<Difference>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Mean {
    pub mean: f64,
    pub count: usize,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Difference {
    pub difference: Mean,
    #[serde(default)]
    pub t_interval: Option<Interval>,
}

impl Difference {
    /// The interval over seeds, where it says something: seeds that differ by the very same amount, as two may by chance,
    /// have one without width.
    pub fn interval(&self) -> Option<Interval> {
        self.t_interval.filter(|interval| interval.has_width() || self.difference.mean.abs() < NOTHING)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(crate) struct Interval {
    pub low: f64,
    pub high: f64,
}

/// Sums of the same numbers in another order differ by less.
const NOTHING: f64 = 1e-9;

impl Interval {
    pub fn has_width(&self) -> bool {
        self.high - self.low > NOTHING
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ArmCost {
    pub arm: String,
    pub iteration: u32,
    pub point: String,
    pub seeds: usize,
    pub total: Cost,
    pub own: Cost,
    #[serde(default)]
    pub rl_steps_at_equal_compute: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Cost {
    pub tokens: u64,
    pub forward: u64,
    pub backward: u64,
    pub reference: u64,
    pub generated: u64,
    pub flops: f64,
    pub seconds: f64,
}

/// `metrics.jsonl`, what is shown of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Log {
    /// Tokens and losses of every evaluation, by store.
    pub held_out: Vec<(f64, BTreeMap<String, f64>)>,
    /// Tokens and figures of every step that has weights.
    pub weights: Vec<(f64, BTreeMap<String, f64>)>,
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

/// Figures of weights in a step's line, and what they are called.
pub(crate) const WEIGHT_FIGURES: [(&str, &str); 7] = [
    ("mean_weight", "mean weight"),
    ("std_weight", "standard deviation of the weight"),
    ("clipped_low", "share at the lower bound"),
    ("clipped_high", "share at the upper bound"),
    ("weighted_up", "share weighted up"),
    ("effective_sample_share", "effective sample size, a share of the batch"),
    ("mean_delta", "mean gap to the reference, in nats"),
];

impl Run {
    /// Reads a run directory, finished or not. `now` is for where somebody knows better than its files.
    ///
    /// # Errors
    /// A directory that is none; a file that is damaged.
    pub fn read(directory: &Path, now: Option<&Now>) -> Result<Run, Error> {
        let file = directory.join(FLYWHEEL);
        let text = match now {
            Some(now) => Some(now.flywheel.clone()),
            None => read_text(&file)?,
        };
        let kind = match text {
            Some(_) => Kind::Flywheel,
            None if directory.join("nodes").is_dir() => Kind::Nodes,
            None if directory.join(METRICS).is_file() => Kind::Single,
            None => return Err(Error::NoRun { path: directory.to_owned() }),
        };
        let wheel = match (&text, kind) {
            (Some(text), _) => Flywheel::parse(text).map_err(|problem| wrong(&file, problem))?,
            (None, Kind::Nodes) => nodes_of(&directory.join("nodes"))?,
            (None, _) => Flywheel::default(),
        };
        let path = directory.join("recipe.toml");
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
            let name = "run".to_owned();
            run.add(&name, directory)?;
            if let Some(text) = read_text(&directory.join("inputs.json"))? {
                let path = directory.join("inputs.json");
                let inputs: BTreeMap<String, Value> =
                    serde_json::from_str(&text).map_err(|error| wrong(&path, error.to_string()))?;
                let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                run.inputs = inputs.into_iter().map(|(name, value)| (name, text(value))).collect();
            }
        }
        for name in run.wheel.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>() {
            run.add(&name, &directory.join("nodes").join(&name))?;
        }
        Ok(run)
    }

    /// The first mid-training of every arm that has one: that of its first turn and seed. The arm, the node's name, and
    /// its settings as they were written.
    pub fn first_midtrainings(&self) -> Vec<(&str, &str, &toml::Table)> {
        let mut first: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
        for node in self.wheel.nodes.iter().filter(|node| node.stage == "midtrain") {
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
        let path = directory.join(METRICS);
        if let Some(text) = read_text(&path)? {
            self.logs.insert(name.to_owned(), Log::parse(&text).map_err(|problem| wrong(&path, problem))?);
        }
        if let Some(settings) = read_toml(&directory.join("settings.toml"))? {
            self.settings.insert(name.to_owned(), settings);
        }
        let path = directory.join("results.json");
        if let Some(text) = read_text(&path)? {
            #[derive(Deserialize)]
            struct Results {
                results: BTreeMap<String, serde_json::Map<String, Value>>,
            }
            let results: Results =
                serde_json::from_str(&text).map_err(|error| wrong(&path, error.to_string()))?;
            self.results.insert(name.to_owned(), results.results);
        }
        if self.num_parameters.is_none() {
            self.num_parameters = num_parameters(directory)?;
        }
        if let Some(dynamics) = read_dynamics(&directory.join(DYNAMICS))? {
            self.dynamics.insert(name.to_owned(), dynamics);
        }
        Ok(())
    }

    /// The mid-trainings of a turn: seed, node, log. In order of seeds.
    pub(crate) fn midtrainings(&self, arm: &str, iteration: u32) -> Vec<(u64, &Node, &Log)> {
        let mut found = Vec::new();
        for node in self.wheel.nodes.iter().filter(|node| node.stage == "midtrain") {
            let Some(log) = self.logs.get(&node.name) else { continue };
            let ours = |owner: &&Owner| owner.arm == arm && owner.iteration == iteration;
            found.extend(node.owners.iter().filter(ours).map(|owner| (owner.seed, node, log)));
        }
        found.sort_by_key(|(seed, ..)| *seed);
        found
    }

    /// The mid-trainings of a turn that are drawn: those that are done, or all where none is.
    pub(crate) fn drawn(&self, arm: &str, iteration: u32) -> Vec<(u64, &Node, &Log)> {
        let mut found = self.midtrainings(arm, iteration);
        if found.iter().any(|(_, node, _)| node.state == "done") {
            found.retain(|(_, node, _)| node.state == "done");
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

impl Flywheel {
    fn parse(text: &str) -> Result<Flywheel, String> {
        let wheel: Flywheel = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if wheel.format_version != FORMAT_VERSION {
            let found = wheel.format_version;
            return Err(format!("it has version {found}, this program reads {FORMAT_VERSION}"));
        }
        Ok(wheel)
    }
}

/// Nodes by what lies in their directories; each mid-training stands for itself.
fn nodes_of(directory: &Path) -> Result<Flywheel, Error> {
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
        let owner = Owner { arm: name.clone(), iteration: 0, seed: 1 };
        let record = path.join("node.json");
        #[derive(Deserialize)]
        struct Record {
            id: String,
        }
        let id = match read_text(&record)? {
            Some(text) => {
                let record: Record =
                    serde_json::from_str(&text).map_err(|error| wrong(&record, error.to_string()))?;
                record.id
            }
            None => id.to_owned(),
        };
        nodes.push(Node {
            id,
            stage: stage.to_owned(),
            owners: if stage == "midtrain" { vec![owner] } else { Vec::new() },
            inputs: Vec::new(),
            state: if record.is_file() { "done" } else { "begun" }.to_owned(),
            name,
        });
    }
    Ok(Flywheel { nodes, ..Flywheel::default() })
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
        if line.get("mean_weight").is_some() {
            let figures = WEIGHT_FIGURES.iter();
            let figures = figures.filter_map(|(key, _)| Some(((*key).to_owned(), line[*key].as_f64()?)));
            self.weights.push((tokens, figures.collect()));
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

fn read_toml(path: &Path) -> Result<Option<toml::Table>, Error> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    text.parse().map(Some).map_err(|error: toml::de::Error| wrong(path, error.to_string()))
}
