//! The content of `flywheel.json`: every node and its cost, every figure, and the arms compared.

use crate::Cost;
use crate::statistics::{Mean, Paired};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The arm that is always there: the ordinary pipeline, iteration 0 of every other.
pub const BASELINE: &str = "ntp";

/// The task of figures that are losses on held-out text; their metric is the store's name.
pub const HELD_OUT: &str = "held-out";

/// Everything about a flywheel, finished or not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flywheel {
    /// [`Flywheel::FORMAT_VERSION`].
    pub format_version: u32,
    /// Every node.
    #[serde(default)]
    pub nodes: Vec<NodeState>,
    /// Nodes in the run directory that the present recipe does not have.
    #[serde(default)]
    pub stale: Vec<String>,
    /// Figures of every finished evaluation and run.
    #[serde(default)]
    pub figures: Vec<Figure>,
    /// The arms side by side, means over seeds.
    #[serde(default)]
    pub comparison: Vec<Comparison>,
    /// What the arms took.
    #[serde(default)]
    pub costs: Vec<ArmCost>,
}

impl Flywheel {
    /// Of `flywheel.json`.
    pub const FORMAT_VERSION: u32 = 1;

    /// One of these nodes, of which nothing more is known.
    pub fn of(nodes: Vec<NodeState>) -> Flywheel {
        Flywheel {
            format_version: Self::FORMAT_VERSION,
            nodes,
            stale: Vec::new(),
            figures: Vec::new(),
            comparison: Vec::new(),
            costs: Vec::new(),
        }
    }

    /// The nodes that are not done.
    pub fn left(&self) -> usize {
        self.nodes.iter().filter(|node| node.state != State::Done).count()
    }
}

/// A node and how it stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeState {
    /// Its directory under `nodes`.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its stage's name.
    pub stage: String,
    /// What is in it, or what it evaluates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Whom it is for.
    #[serde(default)]
    pub owners: BTreeSet<Owner>,
    /// What it is made from, by name.
    #[serde(default)]
    pub inputs: Vec<String>,
    /// How it stands.
    #[serde(flatten)]
    pub state: State,
    /// What it took, where it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// Whom a node is made for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// The arm.
    pub arm: String,
    /// Its iteration; 0 is the ordinary pipeline.
    pub iteration: u32,
    /// The seed.
    pub seed: u64,
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "problem")]
pub enum State {
    /// Made.
    Done,
    /// Begun: the stage goes on where it was.
    Begun,
    /// To do.
    Todo,
    /// Made, but not as it was any more.
    Damaged(String),
    /// Made from what an input was before it was made again, which came out differently.
    Outdated(String),
}

impl State {
    /// As `flywheel.json` has it.
    pub fn name(&self) -> &'static str {
        match self {
            State::Done => "done",
            State::Begun => "begun",
            State::Todo => "todo",
            State::Damaged(_) => "damaged",
            State::Outdated(_) => "outdated",
        }
    }

    /// In a word or two.
    pub fn word(&self) -> &'static str {
        match self {
            State::Todo => "to do",
            other => other.name(),
        }
    }
}

/// A point of the pipeline that has a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Point {
    /// After mid-training: the base model.
    Midtrain,
    /// After fine-tuning.
    Sft,
    /// After preference optimisation.
    Dpo,
    /// After reinforcement learning.
    Rl,
}

impl Point {
    /// All of them, in the order of the pipeline.
    pub const ALL: [Point; 4] = [Point::Midtrain, Point::Sft, Point::Dpo, Point::Rl];

    /// The name in recipes and tables.
    pub fn name(self) -> &'static str {
        match self {
            Point::Midtrain => "midtrain",
            Point::Sft => "sft",
            Point::Dpo => "dpo",
            Point::Rl => "rl",
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One number about one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Whose model.
    #[serde(flatten)]
    pub owner: Owner,
    /// At which point of the pipeline.
    pub point: Point,
    /// A task of the evaluation, or [`HELD_OUT`].
    pub task: String,
    /// `exact_match,none`, `nll,none`, `pass@4,none`; of held-out text, the store's name.
    pub metric: String,
    /// The value.
    pub value: f64,
    /// The node that says so.
    pub node: String,
}

/// A figure of an arm's iteration over all seeds, beside the ordinary pipeline's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The arm.
    pub arm: String,
    /// Its iteration.
    pub iteration: u32,
    /// At which point.
    pub point: Point,
    /// As in [`Figure`].
    pub task: String,
    /// As in [`Figure`].
    pub metric: String,
    /// Over the seeds that have it.
    pub mean: Mean,
    /// The arm less the ordinary pipeline, seed by seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Paired>,
}

/// What an arm's iteration took up to a point, means over the seeds that have come so far. Evaluations are not counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmCost {
    /// The arm.
    pub arm: String,
    /// Its iteration.
    pub iteration: u32,
    /// Up to where.
    pub point: Point,
    /// Seeds.
    pub seeds: usize,
    /// With everything that it depends on: pre-training, the reference and all that made it.
    pub total: Cost,
    /// What this iteration adds to the one before: scores of the reference included, whoever shares them.
    pub own: Cost,
    /// Of an iteration's last point: the steps of reinforcement learning that the ordinary pipeline would have for this
    /// iteration's own compute on top of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rl_steps_at_equal_compute: Option<u64>,
}

/// `node.json`: a finished node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord {
    /// [`NodeRecord::FORMAT_VERSION`].
    pub format_version: u32,
    /// The node.
    pub id: String,
    /// What the id is the hash of.
    pub identity: Value,
    /// The content of each node that it was made from, by role.
    pub inputs: BTreeMap<String, String>,
    /// What it left, by path.
    pub files: BTreeMap<String, FileState>,
    /// Its content: the hash of its files.
    pub content: String,
    /// Held-out losses after the last step, of a run.
    pub held_out: BTreeMap<String, f64>,
    /// What it took.
    pub cost: Cost,
}

impl NodeRecord {
    /// Of `node.json`.
    pub const FORMAT_VERSION: u32 = 1;
}

/// A file of a finished node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileState {
    /// Its size.
    pub bytes: u64,
    /// Its hash.
    pub blake3: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_reads_back_in_every_state() {
        let states = [State::Done, State::Begun, State::Todo, State::Damaged("cut".to_owned())];
        for state in states.into_iter().chain([State::Outdated("made from another".to_owned())]) {
            let mut node = json!({ "name": "rl-1", "id": "1", "stage": "rl", "owners": [], "inputs": [], "state": state.name() });
            if let State::Damaged(problem) | State::Outdated(problem) = &state {
                node["problem"] = json!(problem);
            }
            let read: NodeState = serde_json::from_value(node.clone()).expect("a node");
            assert_eq!(read.state, state);
            assert_eq!(serde_json::to_value(&read).expect("JSON"), node);
        }
    }
}
