//! Measuring: both models read the same windows, and their logits are compared a few hundred rows at a time.

use std::collections::BTreeMap;

use remit_batch::{Batch, Window};
use remit_corpus::Windows;
use remit_engine::{Engine, Error as EngineError, ModelId, Usage};
use remit_store::atomic;

use super::{Distance, Dynamics, Error, FORMAT_VERSION, Means, Plan, Planned, Point, Score, read_dynamics};

/// Rows of a pass, unless one window has more. Not a setting: it decides the last bits of the results.
const ROWS: usize = 2048;

/// Someone who looks on; also at the tasks, a checkpoint each. `()` does not.
pub trait Observer: crate::Observer {
    /// So many windows are to be read, over all checkpoints, and so many of them are reused.
    fn start(&mut self, _reused: u64, _total: u64) {}

    /// So many more windows with so many predictions are done.
    fn read(&mut self, _windows: u64, _predictions: u64) {}

    /// A checkpoint is done, and in the file.
    fn measured(&mut self, _point: &Point) {}
}

impl Observer for () {}

/// Measures every checkpoint and writes the file after each. Points of the same inputs that are there already are kept;
/// others make way.
///
/// # Errors
/// Files that cannot be read or written, [`Error::NotFinite`], those of the tasks.
pub fn measure(plan: &Plan, engine: &mut dyn Engine, observer: &mut dyn Observer) -> Result<Dynamics, Error> {
    let former = read_dynamics(&plan.out)?.map_or(Vec::new(), |former| former.points);
    let mut points: Vec<Option<Point>> =
        plan.points.iter().map(|planned| reuse(planned, former.iter())).collect();
    let per_point = plan.windows();
    let reused = points.iter().flatten().count() as u64;
    observer.start(reused * per_point, points.len() as u64 * per_point);
    let mut reference = None;
    for (index, planned) in plan.points.iter().enumerate() {
        if points[index].is_some() {
            continue;
        }
        // Runs that began from one checkpoint share their first point.
        let point = match reuse(planned, points.iter().flatten()) {
            Some(point) => {
                observer.read(per_point, 0);
                point
            }
            None => {
                let reference = match reference {
                    Some(reference) => reference,
                    None => *reference.insert(engine.open(&plan.reference, &Usage::default())?),
                };
                point(plan, planned, reference, engine, observer)?
            }
        };
        points[index] = Some(point);
        atomic::write_json(&plan.out, &gather(plan, &points))?;
        observer.measured(points[index].as_ref().expect("it was made just now"));
    }
    if let Some(reference) = reference {
        engine.close(reference);
    }
    let dynamics = gather(plan, &points);
    // Also where every point was there: the runs may have other names, or fewer points be wanted.
    if read_dynamics(&plan.out)?.as_ref() != Some(&dynamics) {
        atomic::write_json(&plan.out, &dynamics)?;
    }
    Ok(dynamics)
}

/// The figures of a point of the same inputs, at this point's place.
fn reuse<'a>(planned: &Planned, mut points: impl Iterator<Item = &'a Point>) -> Option<Point> {
    let point = points.find(|point| point.inputs == planned.inputs)?.clone();
    Some(Point { run: planned.run.clone(), step: planned.step, tokens: planned.tokens, ..point })
}

fn gather(plan: &Plan, points: &[Option<Point>]) -> Dynamics {
    Dynamics {
        format_version: FORMAT_VERSION,
        reference: plan.reference.clone(),
        reference_hash: plan.reference_hash.clone(),
        window: plan.settings.window,
        points: points.iter().flatten().cloned().collect(),
    }
}

fn point(
    plan: &Plan,
    planned: &Planned,
    reference: ModelId,
    engine: &mut dyn Engine,
    observer: &mut dyn Observer,
) -> Result<Point, Error> {
    let learner = engine.open(&planned.checkpoint, &Usage::default())?;
    let mut stores = BTreeMap::new();
    for (name, (windows, count)) in &plan.stores {
        let mask_documents = plan.settings.mask_documents;
        let advance = &mut |windows, predictions| observer.read(windows, predictions);
        let means = compare(engine, [learner, reference], windows, *count, mask_documents, advance)?;
        let means = means.ok_or_else(|| Error::NotFinite {
            checkpoint: planned.checkpoint.clone(),
            store: name.clone(),
        })?;
        stores.insert(name.clone(), means);
    }
    engine.close(learner);
    let mut tasks = BTreeMap::new();
    if let Some(eval) = &planned.eval {
        let results = eval.ask(engine, observer)?;
        for name in results.results.keys() {
            let scores = results.figures(name).into_iter().map(|figure| {
                let score = Score { mean: figure.mean.mean, standard_error: figure.mean.standard_error };
                (format!("{},{}", figure.metric, figure.filter), score)
            });
            tasks.insert(name.clone(), scores.collect());
        }
    }
    Ok(Point {
        run: planned.run.clone(),
        step: planned.step,
        tokens: planned.tokens,
        checkpoint_hash: planned.checkpoint_hash.clone(),
        inputs: planned.inputs.clone(),
        stores,
        tasks,
    })
}

/// How far `learner` and `reference` are apart on the first `count` windows, which hold at least one prediction. `advance`
/// is told of windows and predictions that are done. `None` where a logit is not finite.
///
/// # Errors
/// Windows that a model does not allow.
///
/// # Panics
/// When the vocabularies differ in size, or there are fewer windows.
pub fn compare(
    engine: &mut dyn Engine,
    [learner, reference]: [ModelId; 2],
    windows: &Windows,
    count: u64,
    mask_documents: bool,
    advance: &mut dyn FnMut(u64, u64),
) -> Result<Option<Means>, EngineError> {
    let length = windows.length();
    let together = (ROWS / length).max(1) as u64;
    let (mut sum, mut predictions) = (Distance::default(), 0);
    for first in (0..count).step_by(together as usize) {
        let part: Vec<Window> =
            (first..count.min(first + together)).map(|index| windows.window(index)).collect();
        let batch = Batch::stack(&part, mask_documents);
        // One prediction after the other, whoever compared them.
        engine.distances(learner, reference, &batch)?.iter().for_each(|distance| sum.add(distance));
        let counted = batch.num_unmasked() as u64;
        predictions += counted;
        advance(part.len() as u64, counted);
    }
    Ok(sum.is_finite().then(|| sum.mean(predictions)))
}
