//! Making what is missing, one node after another.
//!
//! Every stage resumes by itself and does nothing where it is done, so a flywheel that was killed goes on in the very
//! step, window or unit where it was.

use crate::cost::Costly;
use crate::graph::{Graph, Node, Work};
use crate::report;
use crate::state::{self, Look, State};
use crate::training::{Training, each};
use crate::{Cost, Error, cost};
use remit_corpus::{Prepare, TrainTokenizer};
use remit_eval::Evaluation;
use remit_eval::dynamics::{self, Dynamics, Point};
use remit_results::files::{NODES, RESULTS, SETTINGS};
use remit_results::flywheel::Flywheel;
use remit_rl::Rl;
use remit_store::Lock;
use remit_store::atomic;
use remit_train::dpo::Dpo;
use remit_train::{Planned, ScorePlan, Stage, Summary};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Who runs single stages and shows how they come on. What it is given is settled; it only has to call the stage.
pub trait Runner {
    /// What can go wrong.
    type Error: From<Error>;

    /// A node begins; so many of the graph's are made.
    fn begin(&mut self, node: &Node, done: usize, total: usize);
    /// Something a person may want to know.
    fn message(&mut self, text: &str);
    /// Something that nobody should miss.
    fn warn(&mut self, text: &str);
    /// Trains a tokenizer and writes it to `out`.
    fn tokenizer(&mut self, settings: &TrainTokenizer, out: &Path) -> Result<(), Self::Error>;
    /// Makes the token store `out`.
    fn prepare(&mut self, settings: &Prepare, out: &Path) -> Result<(), Self::Error>;
    /// Runs a stage that trains.
    fn train<P: Planned<Error: Into<Error>>>(&mut self, plan: P) -> Result<Summary, Self::Error>;
    /// Writes scores.
    fn score(&mut self, plan: &ScorePlan) -> Result<(), Self::Error>;
    /// Evaluates; also returns how many tokens were read or generated for it.
    fn eval(&mut self, plan: &remit_eval::Plan) -> Result<(Evaluation, u64), Self::Error>;
    /// Puts models beside a reference and writes the file that the plan names.
    fn dynamics(&mut self, plan: &dynamics::Plan) -> Result<Dynamics, Self::Error>;
}

/// Runs everything that is not done and reports. The same call again goes on where the last one was stopped.
///
/// # Errors
/// Another flywheel in the same run directory; whatever stops a stage.
pub fn run<R: Runner>(graph: &Graph, runner: &mut R) -> Result<Flywheel, R::Error> {
    let _lock = lock(graph)?;
    let stale = state::stale(graph)?.len();
    if stale > 0 {
        runner.message(&format!(
            "{stale} nodes of other settings stay in `{}`: `--prune` removes them",
            graph.run.display()
        ));
    }
    let mut turn = Turn { graph, runner, whole: BTreeSet::new(), done: BTreeSet::new() };
    // Until all are done: one that came out differently has sent those before it back.
    while let Some(index) = (0..graph.nodes.len()).find(|index| !turn.done.contains(index)) {
        turn.ensure(index, Look::Glance)?;
    }
    Ok(report::write(graph)?)
}

/// Removes the nodes that the graph does not have and returns their names.
///
/// # Errors
/// Another flywheel in the same run directory; a directory that cannot be removed.
pub fn prune(graph: &Graph) -> Result<Vec<String>, Error> {
    let _lock = lock(graph)?;
    let mut names = Vec::new();
    for (name, path) in state::stale(graph)? {
        atomic::remove(&path)?;
        names.push(name);
    }
    Ok(names)
}

fn lock(graph: &Graph) -> Result<Lock, Error> {
    let nodes = graph.run.join(NODES);
    std::fs::create_dir_all(&nodes).map_err(|cause| remit_store::Error::io("create", &nodes, cause))?;
    Ok(Lock::try_acquire(&graph.run, "flywheel")?)
}

struct Turn<'a, R> {
    graph: &'a Graph,
    runner: &'a mut R,
    /// Nodes whose every file has been read and found whole.
    whole: BTreeSet<usize>,
    done: BTreeSet<usize>,
}

impl<R: Runner> Turn<'_, R> {
    /// Makes a node unless it is done. What it is made from is looked at closely first: a damaged checkpoint is never
    /// built upon, and never replaced in silence.
    fn ensure(&mut self, index: usize, look: Look) -> Result<(), R::Error> {
        if self.whole.contains(&index) || (look == Look::Glance && self.done.contains(&index)) {
            return Ok(());
        }
        let node = &self.graph.nodes[index];
        let state = state::examine(self.graph, index, look)?;
        match &state {
            State::Done => {
                state::tidy(node)?;
                self.done.insert(index);
                if look == Look::Whole {
                    self.whole.insert(index);
                }
                return Ok(());
            }
            State::Damaged(problem) | State::Outdated(problem) => {
                self.runner.warn(&format!("{} ({}): {problem}; it is made again", node.name(), node.label()));
                state::set_aside(node, &state)?;
            }
            State::Begun | State::Todo => {}
        }
        for parent in node.parents() {
            self.ensure(parent, Look::Whole)?;
        }
        self.runner.begin(node, self.done.len(), self.graph.nodes.len());
        if let Some(role) = state::begin(self.graph, index)? {
            self.runner.warn(&format!(
                "{} ({}): it was begun with another `{role}`; it begins anew",
                node.name(),
                node.label()
            ));
        }
        let (held_out, cost) = self.work(node)?;
        if state::finish(self.graph, index, held_out, cost)? {
            self.runner.warn(&format!(
                "{}: made again, it is not what it was (another kind of processor, another release?); what depends on it is made again too",
                node.name()
            ));
            self.done.clear();
            self.whole.clear();
        }
        self.done.insert(index);
        self.whole.insert(index);
        Ok(())
    }

    /// Runs the stage; held-out losses and what it took.
    fn work(&mut self, node: &Node) -> Result<(BTreeMap<String, f64>, Cost), R::Error> {
        let started = Instant::now();
        let mut held_out = BTreeMap::new();
        let clock = |cost: Cost| Cost { seconds: started.elapsed().as_secs_f64(), ..cost };
        let cost = match &node.work {
            Work::Data(name, generated) => {
                generated.write(&node.directory.join(format!("{name}.jsonl")), &self.graph.lockfile)?;
                clock(Cost::default())
            }
            Work::Tokenizer(settings) => {
                self.runner.tokenizer(settings, &node.directory.join("tokenizer.json"))?;
                clock(Cost::default())
            }
            Work::Prepare(settings) => {
                self.runner.prepare(settings, &node.directory.join("store"))?;
                clock(Cost::default())
            }
            Work::Train(training) => {
                let (losses, cost) = each!(training, |stage, settings| self.train(node, stage, settings))?;
                held_out = losses;
                cost
            }
            Work::Score(settings) => {
                let plan = ScorePlan::new(settings.clone()).map_err(Error::from)?;
                self.runner.score(&plan)?;
                clock(cost::of_scoring(&plan))
            }
            Work::Eval(settings) => {
                // Results without a record are of a process killed between the two; nobody knows what they took.
                atomic::remove(&node.directory.join(RESULTS)).map_err(Error::from)?;
                let checkpoint = remit_train::locate_checkpoint(&settings.model).map_err(Error::from)?;
                let plan = remit_eval::Plan::new(settings, &checkpoint).map_err(Error::from)?;
                let (_, tokens) = self.runner.eval(&plan)?;
                let length = plan.suite.longest_prompt();
                let cost = Cost { forward: tokens, generated: tokens, ..Cost::default() };
                clock(cost::with_flops(cost, &plan.architecture, None, length))
            }
            Work::Dynamics(settings) => {
                let plan = dynamics::Plan::new((**settings).clone()).map_err(Error::from)?;
                let dynamics = self.runner.dynamics(&plan)?;
                atomic::write_json(&plan.out, &named(dynamics)).map_err(Error::from)?;
                clock(cost::of_dynamics(&plan)?)
            }
        };
        Ok((held_out, cost))
    }

    /// Runs a stage that trains; held-out losses and what it took.
    fn train<S: Stage>(
        &mut self,
        node: &Node,
        stage: S,
        settings: &S::Settings,
    ) -> Result<(BTreeMap<String, f64>, Cost), R::Error>
    where
        S::Plan: Costly,
        Error: From<S::Error>,
    {
        let mut plan = stage.plan(settings.clone()).map_err(Error::from)?;
        remit_train::go_on(&mut plan);
        refresh_settings(node, plan.settings())?;
        let cost = plan.cost();
        let held_out = self.runner.train(plan)?.held_out;
        let cost = cost(&node.directory)?;
        let (tokens, seconds) = (cost::tokens_of(&node.directory)?, cost::seconds_of(&node.directory)?);
        Ok((held_out, Cost { tokens, seconds, ..cost }))
    }
}

/// Runs by the names of their nodes: a result says nothing of where it lies.
fn named(dynamics: Dynamics) -> Dynamics {
    let of_node = |path: &Path| -> PathBuf {
        let parts: Vec<_> = path.iter().collect();
        let nodes = parts.iter().rposition(|part| *part == NODES);
        nodes.map_or_else(|| path.to_owned(), |nodes| PathBuf::from(parts[nodes + 1]))
    };
    let points = dynamics.points.into_iter().map(|point| Point { run: of_node(&point.run), ..point });
    Dynamics { points: points.collect(), reference: of_node(&dynamics.reference), ..dynamics }
}

/// Writes the settings of an unfinished run anew. Its id vouches for all that matters; what may differ are places, where
/// the flywheel was moved, and how often it saves.
fn refresh_settings(node: &Node, settings: &impl serde::Serialize) -> Result<(), Error> {
    let path = node.directory.join(SETTINGS);
    if path.is_file() {
        let text = toml::to_string_pretty(settings).expect("settings are plain values");
        atomic::write(&path, text.as_bytes())?;
    }
    Ok(())
}
