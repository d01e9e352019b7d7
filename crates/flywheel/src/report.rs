//! What came of it: `flywheel.json`, with every node and its cost, every evaluation, and the arms compared.

use crate::graph::Graph;
use crate::models;
use crate::state::{self, Look, NodeRecord};
use crate::training::Training;
use crate::{Chain, Error, Work};
use remit_eval::read_results;
use remit_results::flywheel::{
    ArmCost, BASELINE, Comparison, Figure, Flywheel, HELD_OUT, NodeState, Owner, Point, State,
};
use remit_results::statistics::{Bootstrap, CONFIDENCE, Mean, paired};
use remit_results::{Cost, files};
use remit_store::atomic;
use std::collections::{BTreeMap, BTreeSet};

/// What there is so far.
///
/// # Errors
/// Records and results that cannot be read.
pub fn read(graph: &Graph) -> Result<Flywheel, Error> {
    let mut nodes = Vec::new();
    let mut records: BTreeMap<usize, NodeRecord> = BTreeMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let state = state::examine(graph, index, Look::Glance)?;
        // What is damaged or outdated counts for nothing until it is made again.
        let record = match state {
            State::Done => state::read_record(&node.directory.join(files::NODE))?,
            _ => None,
        };
        nodes.push(NodeState {
            name: node.name(),
            id: node.id.clone(),
            stage: node.stage.name().to_owned(),
            subject: node.subject.clone(),
            owners: node.owners.clone(),
            inputs: node.parents().into_iter().map(|parent| graph.nodes[parent].name()).collect(),
            cost: record.as_ref().map(|record| record.cost),
            state,
        });
        records.extend(record.map(|record| (index, record)));
    }
    let figures = figures(graph, &records)?;
    Ok(Flywheel {
        format_version: Flywheel::FORMAT_VERSION,
        nodes,
        stale: state::stale(graph)?.into_iter().map(|(name, _)| name).collect(),
        comparison: compare(graph, &figures),
        figures,
        costs: costs(graph, &records),
    })
}

/// Reads and writes it down.
pub(crate) fn write(graph: &Graph) -> Result<Flywheel, Error> {
    let flywheel = read(graph)?;
    atomic::write_json(&graph.run.join(files::FLYWHEEL), &flywheel)?;
    models::link(graph)?;
    Ok(flywheel)
}

/// The figures of every model that has some.
fn figures(graph: &Graph, records: &BTreeMap<usize, NodeRecord>) -> Result<Vec<Figure>, Error> {
    let mut figures = Vec::new();
    for chain in &graph.chains {
        for &(point, model, eval) in &chain.points {
            let mut put = |task: &str, metric: String, value: f64, node: usize| {
                let (owner, task, node) = (chain.owner.clone(), task.to_owned(), graph.nodes[node].name());
                figures.push(Figure { owner, point, task, metric, value, node });
            };
            for (name, loss) in records.get(&model).into_iter().flat_map(|record| &record.held_out) {
                put(HELD_OUT, name.clone(), *loss, model);
            }
            let Some(eval) = eval.filter(|eval| records.contains_key(eval)) else { continue };
            let Work::Eval(settings) = &graph.nodes[eval].work else { unreachable!("it is an evaluation") };
            let results = read_results(&graph.nodes[eval].directory.join(files::RESULTS))?;
            for task in &settings.tasks {
                for figure in results.figures(task) {
                    put(task, format!("{},{}", figure.metric, figure.filter), figure.mean.mean, eval);
                }
            }
        }
    }
    Ok(figures)
}

/// Means over seeds, and differences to the ordinary pipeline seed by seed.
fn compare(graph: &Graph, figures: &[Figure]) -> Vec<Comparison> {
    type Key<'a> = (&'a str, u32, Point, &'a str, &'a str);
    let key = |figure: &'_ Figure| -> (String, u32, Point, String, String) {
        let Figure { owner, point, task, metric, .. } = figure;
        (owner.arm.clone(), owner.iteration, *point, task.clone(), metric.clone())
    };
    let of = |wanted: Key<'_>| -> BTreeMap<u64, f64> {
        let (arm, iteration, point, task, metric) = wanted;
        let same = |figure: &&Figure| {
            (figure.owner.arm.as_str(), figure.owner.iteration, figure.point, &*figure.task, &*figure.metric)
                == (arm, iteration, point, task, metric)
        };
        figures.iter().filter(same).map(|figure| (figure.owner.seed, figure.value)).collect()
    };
    let mut seen = BTreeSet::new();
    let mut comparisons = Vec::new();
    debug_assert!(!graph.chains.is_empty());
    for figure in figures.iter().filter(|figure| seen.insert(key(figure))) {
        let Figure { owner: Owner { arm, iteration, .. }, point, task, metric, .. } = figure;
        let ours = of((arm, *iteration, *point, task, metric));
        let difference = (arm != BASELINE).then(|| {
            let theirs = of((BASELINE, 0, *point, task, metric));
            let pairs = ours.iter().filter_map(|(seed, ours)| Some((*theirs.get(seed)?, *ours)));
            let (a, b): (Vec<f64>, Vec<f64>) = pairs.unzip();
            paired(&a, &b, CONFIDENCE, Some(&Bootstrap::default()))
        });
        comparisons.push(Comparison {
            arm: arm.clone(),
            iteration: *iteration,
            point: *point,
            task: task.clone(),
            metric: metric.clone(),
            mean: Mean::of(&ours.values().copied().collect::<Vec<_>>()),
            difference: difference.filter(|difference| difference.difference.count > 0),
        });
    }
    comparisons
}

/// What arms took, up to each point that at least one seed has reached.
fn costs(graph: &Graph, records: &BTreeMap<usize, NodeRecord>) -> Vec<ArmCost> {
    let mut found: Vec<ArmCost> = Vec::new();
    // What an iteration and those before it took beyond the ordinary pipeline, a seed each.
    let mut beyond: BTreeMap<(String, u32), Vec<f64>> = BTreeMap::new();
    for chain in &graph.chains {
        let Owner { arm, iteration, seed } = &chain.owner;
        let spent = spent_before(graph, chain);
        let ordinary =
            graph.chains.iter().find(|other| other.owner.arm == BASELINE && other.owner.seed == *seed);
        let ordinary = ordinary.map_or_else(BTreeSet::new, |ordinary| all_of(graph, ordinary));
        for (at, &(point, model, _)) in chain.points.iter().enumerate() {
            if !records.contains_key(&model) {
                continue;
            }
            let closure = graph.closure(model);
            let cost = |index: &usize| records.get(index).map(|record| record.cost);
            let total: Cost = closure.iter().filter_map(cost).sum();
            let own: Cost = closure.difference(&spent).filter_map(cost).sum();
            let is_last = at + 1 == chain.points.len() && arm != BASELINE;
            if is_last {
                let cost: Cost = closure.difference(&ordinary).filter_map(cost).sum();
                beyond.entry((arm.clone(), *iteration)).or_default().push(cost.flops);
            }
            let same =
                |cost: &&mut ArmCost| cost.arm == *arm && cost.iteration == *iteration && cost.point == point;
            match found.iter_mut().find(same) {
                Some(sum) => {
                    sum.seeds += 1;
                    sum.total += total;
                    sum.own += own;
                }
                None => found.push(ArmCost {
                    arm: arm.clone(),
                    iteration: *iteration,
                    point,
                    seeds: 1,
                    total,
                    own,
                    // A mark until means are known.
                    rl_steps_at_equal_compute: is_last.then_some(0),
                }),
            }
        }
    }
    for cost in &mut found {
        cost.total = cost.total.over(cost.seeds);
        cost.own = cost.own.over(cost.seeds);
    }
    let step = rl_step(graph, records);
    for cost in &mut found {
        let beyond =
            cost.rl_steps_at_equal_compute.and_then(|_| beyond.get(&(cost.arm.clone(), cost.iteration)));
        cost.rl_steps_at_equal_compute = beyond.zip(step).map(|(beyond, (steps, flops))| {
            let mean = beyond.iter().sum::<f64>() / beyond.len() as f64;
            steps + (mean / flops).round() as u64
        });
    }
    found
}

/// The nodes that the iteration before has paid for; for the ordinary pipeline, those that are nobody's in particular.
fn spent_before(graph: &Graph, chain: &Chain) -> BTreeSet<usize> {
    let Owner { arm, iteration, seed } = &chain.owner;
    let before = |other: &&Chain| match iteration {
        0 => false,
        1 => other.owner.arm == BASELINE && other.owner.seed == *seed,
        _ => other.owner.arm == *arm && other.owner.iteration + 1 == *iteration && other.owner.seed == *seed,
    };
    match graph.chains.iter().find(before) {
        Some(before) => all_of(graph, before),
        None => (0..graph.nodes.len()).filter(|&index| graph.nodes[index].owners.is_empty()).collect(),
    }
}

/// Everything that a chain's models depend on.
fn all_of(graph: &Graph, chain: &Chain) -> BTreeSet<usize> {
    chain.points.iter().flat_map(|(_, model, _)| graph.closure(*model)).collect()
}

/// Steps of the ordinary pipeline's reinforcement learning, and the mean compute of one.
fn rl_step(graph: &Graph, records: &BTreeMap<usize, NodeRecord>) -> Option<(u64, f64)> {
    let mut found = Vec::new();
    for chain in graph.chains.iter().filter(|chain| chain.owner.arm == BASELINE) {
        for (_, model, _) in &chain.points {
            if let (Work::Train(Training::Rl(settings)), Some(record)) =
                (&graph.nodes[*model].work, records.get(model))
            {
                found.push((settings.steps(), record.cost.flops));
            }
        }
    }
    let steps = found.first()?.0;
    let flops = found.iter().map(|(_, flops)| flops).sum::<f64>() / found.len() as f64;
    (flops > 0.0).then_some((steps, flops / steps as f64))
}
