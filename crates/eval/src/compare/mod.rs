//! Evaluations side by side: arms by tasks, with paired differences, their intervals and what these allow to say.
//!
//! An arm is one recipe trained with several seeds, and an evaluation of each. Two arms are compared pair by pair: with
//! `b` and `a` the figures of an arm and of the baseline, there are two intervals of their difference, which answer two
//! questions.
//!
//! ```text
//! over seeds      t interval of b_s - a_s, one a seed s: what other seeds would give on these problems
//! over problems   bootstrap of the problems, each with its mean over seeds of b - a: what these models would give on others
//! ```
//!
//! A group is the mean of its tasks, so its problems are drawn again within each of them. The verdict goes by the
//! interval over seeds where there are at least [`FEW_SEEDS`], otherwise by the one over problems: with two seeds the
//! former has one degree of freedom and says next to nothing.
//!
//! [`ComparePlan::new`] reads the evaluations and sees that they can be compared; [`ComparePlan::compare`] does it.

mod error;
mod read;

use std::path::PathBuf;

use remit_results::statistics::{Bootstrap, CONFIDENCE, Interval, bootstrap_strata, paired, ratio};
use serde::Serialize;

use crate::plan;
use read::{Evaluation, Parts};

pub use error::Error;

/// With so many seeds the verdict goes by the interval over seeds.
pub const FEW_SEEDS: usize = 3;

/// What is compared when nothing is said; each where the evaluations have it.
pub const METRICS: [&str; 2] = ["exact_match", "nll"];

/// Evaluations of one recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// Directories that `remit eval` left, or `results.json` files, one a seed, in the same order for all arms.
    pub evaluations: Vec<PathBuf>,
}

/// How arms are compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CompareSettings {
    /// The arm that the others are compared with; the first when left out.
    pub baseline: Option<String>,
    /// `exact_match`, `nll`, `pass@4`; [`METRICS`] when empty.
    pub metrics: Vec<String>,
    /// What the intervals are meant to hold the true difference with.
    pub confidence: f64,
    /// The resampling of problems.
    pub bootstrap: Bootstrap,
}

impl Default for CompareSettings {
    fn default() -> Self {
        CompareSettings {
            baseline: None,
            metrics: Vec::new(),
            confidence: CONFIDENCE,
            bootstrap: Bootstrap::default(),
        }
    }
}

/// Evaluations that can be compared.
#[derive(Debug)]
pub struct ComparePlan {
    settings: CompareSettings,
    arms: Vec<Arm>,
    /// The place of the baseline among them.
    baseline: usize,
    figures: Vec<Measured>,
}

/// What each problem of each stratum adds: a numerator and a denominator.
type Strata = Vec<Vec<(f64, f64)>>;

/// One figure of all evaluations.
#[derive(Debug)]
struct Measured {
    subject: Subject,
    /// By arm, seed and stratum (a task; those of a group): what each problem adds, in the order of their numbers.
    parts: Vec<Vec<Strata>>,
}

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Subject {
    /// A task or a group.
    pub task: String,
    /// The tasks of a group; none for a task.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// `exact_match`, `pass@4`, `nll`.
    pub metric: String,
    /// The filter that found the answers; `none` where there is no choice.
    pub filter: String,
    /// Which way is better.
    pub higher_is_better: bool,
    /// Problems.
    pub problems: usize,
}

/// Arms side by side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The arms as they were named.
    pub arms: Vec<Arm>,
    /// The one that the others are compared with.
    pub baseline: String,
    /// Seeds of each arm.
    pub seeds: usize,
    /// What the verdicts go by.
    pub verdict_by: Basis,
    /// Of all intervals.
    pub confidence: f64,
    /// Metric by metric, tasks before groups.
    pub rows: Vec<Row>,
}

/// One figure of all arms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// In the order of the arms.
    pub arms: Vec<Standing>,
}

/// One figure of one arm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// The arm.
    pub arm: String,
    /// The mean over seeds.
    pub mean: f64,
    /// By seed.
    pub seeds: Vec<f64>,
    /// To the baseline, which has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
}

/// An arm less the baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The mean over seeds.
    pub mean: f64,
    /// By seed.
    pub seeds: Vec<f64>,
    /// The t interval over seeds; absent for one seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_seeds: Option<Interval>,
    /// The bootstrap interval over problems; absent where a task has one problem only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_problems: Option<Interval>,
    /// What may be said.
    pub verdict: Verdict,
}

/// What a verdict goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The t interval over seeds.
    Seeds,
    /// The bootstrap interval over problems.
    Problems,
}

/// What an interval allows to say of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All of it is above 0.
    Above,
    /// All of it is below 0.
    Below,
    /// It holds 0, or there is none.
    NotDistinguishable,
}

impl Verdict {
    /// By an interval.
    pub fn of(interval: Option<Interval>) -> Verdict {
        match interval {
            Some(interval) if interval.low > 0.0 => Verdict::Above,
            Some(interval) if interval.high < 0.0 => Verdict::Below,
            _ => Verdict::NotDistinguishable,
        }
    }
}

impl Basis {
    /// For so many seeds.
    pub fn of(seeds: usize) -> Basis {
        if seeds < FEW_SEEDS { Basis::Problems } else { Basis::Seeds }
    }
}

impl ComparePlan {
    /// Reads the evaluations of `arms`.
    ///
    /// # Errors
    /// Arms that cannot be paired, and evaluations of different questions, with other settings or without their logs.
    pub fn new(arms: &[Arm], settings: &CompareSettings) -> Result<ComparePlan, Error> {
        let baseline = check(arms, settings)?;
        let mut read: Vec<Vec<Evaluation>> = Vec::new();
        for arm in arms {
            read.push(arm.evaluations.iter().map(|path| Evaluation::read(path)).collect::<Result<_, _>>()?);
            let evaluations = read.last().expect("it was just put there");
            check_models(&arm.name, evaluations)?;
        }
        let first = &read[0][0];
        for other in read.iter().flatten().skip(1) {
            let (first_path, path) = (first.path.clone(), other.path.clone());
            let tasks = other.other_questions(first);
            if !tasks.is_empty() {
                return Err(Error::OtherQuestions { first: first_path, other: path, tasks });
            }
        }
        let subjects = subjects(first, &settings.metrics)?;
        for other in read.iter().flatten().skip(1) {
            let differences = differences(first, other, &subjects);
            if !differences.is_empty() {
                let (first, other) = (first.path.clone(), other.path.clone());
                return Err(Error::OtherSettings { first, other, differences });
            }
        }
        let figures =
            subjects.into_iter().map(|subject| measure(subject, &read)).collect::<Result<_, _>>()?;
        Ok(ComparePlan { settings: settings.clone(), arms: arms.to_vec(), baseline, figures })
    }

    /// The figures that will be compared.
    pub fn subjects(&self) -> impl Iterator<Item = &Subject> {
        self.figures.iter().map(|figure| &figure.subject)
    }

    /// Compares. A function of the evaluations and the settings alone.
    pub fn compare(&self) -> Comparison {
        let seeds = self.arms[0].evaluations.len();
        Comparison {
            arms: self.arms.clone(),
            baseline: self.arms[self.baseline].name.clone(),
            seeds,
            verdict_by: Basis::of(seeds),
            confidence: self.settings.confidence,
            rows: self.figures.iter().map(|figure| self.row(figure)).collect(),
        }
    }

    fn row(&self, figure: &Measured) -> Row {
        let standing = |(place, arm): (usize, &Arm)| {
            let (of_arm, baseline) = (&figure.parts[place], &figure.parts[self.baseline]);
            let seeds: Vec<f64> = of_arm.iter().map(|strata| mean_of(strata)).collect();
            let difference = (place != self.baseline).then(|| difference(baseline, of_arm, &self.settings));
            Standing { arm: arm.name.clone(), mean: mean(&seeds), seeds, difference }
        };
        Row { subject: figure.subject.clone(), arms: self.arms.iter().enumerate().map(standing).collect() }
    }
}

/// `b - a`; both by seed and stratum.
fn difference(a: &[Strata], b: &[Strata], settings: &CompareSettings) -> Difference {
    let figures = |arm: &[Strata]| arm.iter().map(|strata| mean_of(strata)).collect::<Vec<_>>();
    let (of_a, of_b) = (figures(a), figures(b));
    let over_seeds = paired(&of_a, &of_b, settings.confidence, None);
    let strata: Strata = (0..a[0].len()).map(|stratum| mean_differences(a, b, stratum)).collect();
    // One problem drawn again is itself: an interval without width, which would say that it is certain.
    let drawable = strata.iter().all(|problems| problems.len() > 1);
    let over_problems =
        if drawable { bootstrap_strata(&strata, settings.confidence, &settings.bootstrap) } else { None };
    let by = match Basis::of(a.len()) {
        Basis::Seeds => over_seeds.t_interval,
        Basis::Problems => over_problems,
    };
    Difference {
        mean: over_seeds.difference.mean,
        seeds: of_a.iter().zip(&of_b).map(|(a, b)| b - a).collect(),
        over_seeds: over_seeds.t_interval,
        over_problems,
        verdict: Verdict::of(by),
    }
}

/// Of each problem of a stratum, the mean over seeds of `b - a`, and its units.
fn mean_differences(a: &[Strata], b: &[Strata], stratum: usize) -> Vec<(f64, f64)> {
    let seeds = a.len() as f64;
    let of = |problem: usize| {
        let sum: f64 = a.iter().zip(b).map(|(a, b)| b[stratum][problem].0 - a[stratum][problem].0).sum();
        (sum / seeds, a[0][stratum][problem].1)
    };
    (0..a[0][stratum].len()).map(of).collect()
}

/// The mean of the strata's ratios.
fn mean_of(strata: &[Vec<(f64, f64)>]) -> f64 {
    mean(&strata.iter().map(|parts| ratio(parts).mean).collect::<Vec<_>>())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sees that the arms can be paired; returns the place of the baseline.
fn check(arms: &[Arm], settings: &CompareSettings) -> Result<usize, Error> {
    let CompareSettings { baseline, confidence, .. } = settings;
    if !(*confidence > 0.0 && *confidence < 1.0) {
        return Err(Error::Confidence { confidence: *confidence });
    }
    if arms.len() < 2 {
        return Err(Error::FewArms { count: arms.len() });
    }
    for (place, arm) in arms.iter().enumerate() {
        if arm.evaluations.is_empty() {
            return Err(Error::NoEvaluation { name: arm.name.clone() });
        }
        if arms[..place].iter().any(|before| before.name == arm.name) {
            return Err(Error::SameName { name: arm.name.clone() });
        }
        if arm.evaluations.len() != arms[0].evaluations.len() {
            return Err(Error::OtherCount {
                first: arms[0].name.clone(),
                num_first: arms[0].evaluations.len(),
                other: arm.name.clone(),
                num_other: arm.evaluations.len(),
            });
        }
    }
    let Some(name) = baseline else { return Ok(0) };
    arms.iter().position(|arm| arm.name == *name).ok_or_else(|| Error::UnknownBaseline {
        name: name.clone(),
        arms: arms.iter().map(|arm| arm.name.clone()).collect(),
    })
}

/// Two evaluations of one model would pass for two seeds without any spread between them.
fn check_models(arm: &str, evaluations: &[Evaluation]) -> Result<(), Error> {
    let hash = |evaluation: &Evaluation| evaluation.results.config.get("model_hash").cloned();
    for (place, second) in evaluations.iter().enumerate() {
        let same = |first: &&Evaluation| hash(first).is_some() && hash(first) == hash(second);
        if let Some(first) = evaluations[..place].iter().find(same) {
            let (first, second) = (first.path.clone(), second.path.clone());
            return Err(Error::SameModel { arm: arm.to_owned(), first, second });
        }
    }
    Ok(())
}

/// The figures of `metrics` that the first evaluation has: metric by metric, tasks before groups.
fn subjects(first: &Evaluation, metrics: &[String]) -> Result<Vec<Subject>, Error> {
    let results = &first.results;
    let (groups, tasks): (Vec<&String>, Vec<&String>) =
        results.results.keys().partition(|name| results.groups.contains_key(*name));
    let names: Vec<&String> = tasks.into_iter().chain(groups).collect();
    let of_metric = |metric: &str| -> Vec<Subject> {
        let figures = names
            .iter()
            .flat_map(|name| results.figures(name).into_iter().map(move |figure| (*name, figure)));
        figures
            .filter(|(_, figure)| figure.metric == metric)
            .map(|(name, figure)| Subject {
                task: name.clone(),
                members: results.group_subtasks.get(name).cloned().unwrap_or_default(),
                higher_is_better: results
                    .higher_is_better
                    .get(name)
                    .and_then(|of| of.get(metric))
                    .copied()
                    .unwrap_or(true),
                metric: figure.metric,
                filter: figure.filter,
                problems: figure.mean.count,
            })
            .collect()
    };
    if metrics.is_empty() {
        return Ok(METRICS.into_iter().flat_map(of_metric).collect());
    }
    let mut subjects = Vec::new();
    for (place, metric) in metrics.iter().enumerate() {
        let found = of_metric(metric);
        if found.is_empty() {
            let mut known: Vec<String> =
                names.iter().flat_map(|name| results.figures(name)).map(|figure| figure.metric).collect();
            known.sort_unstable();
            known.dedup();
            return Err(Error::UnknownMetric { name: metric.clone(), metrics: known });
        }
        if !metrics[..place].contains(metric) {
            subjects.extend(found);
        }
    }
    Ok(subjects)
}

/// Settings that name no way to ask: whose model, which questions (their content is compared), which figures.
const NO_MATTER: [&str; 4] = ["k", "seed", "tasks", "limit"];

/// Settings of the samples alone.
const OF_SAMPLES: [&str; 3] = ["samples", "temperature", "top_p"];

/// How the settings that `subjects` depend on differ: `key: first -> other`.
fn differences(first: &Evaluation, other: &Evaluation, subjects: &[Subject]) -> Vec<String> {
    let with_samples = subjects.iter().any(|subject| subject.metric.starts_with("pass@"));
    let with_nll = subjects.iter().any(|subject| subject.metric == "nll");
    let settings = |evaluation: &Evaluation| {
        let mut settings = evaluation.results.config.get("settings").cloned();
        if let Some(serde_json::Value::Object(settings)) = &mut settings {
            settings.retain(|key, _| match key.as_str() {
                key if NO_MATTER.contains(&key) => false,
                key if OF_SAMPLES.contains(&key) => with_samples,
                "nll" => with_nll,
                _ => true,
            });
        }
        settings
    };
    let mut differences = Vec::new();
    plan::compare("", settings(first).as_ref(), settings(other).as_ref(), &mut differences);
    for subject in subjects {
        let figure = |evaluation: &Evaluation| {
            evaluation.results.figure(&subject.task, &subject.metric, &subject.filter).is_some()
        };
        if differences.is_empty() && figure(first) != figure(other) {
            differences.push(format!("{} of {}: only in the first", subject.metric, subject.task));
        }
    }
    if first.results.versions != other.results.versions {
        differences.push("the versions of the tasks".to_owned());
    }
    differences
}

/// What each problem adds to a figure, in all evaluations.
fn measure(subject: Subject, read: &[Vec<Evaluation>]) -> Result<Measured, Error> {
    let tasks = if subject.members.is_empty() { vec![subject.task.clone()] } else { subject.members.clone() };
    let first = &read[0][0];
    let mut of_first: Vec<Parts> = Vec::new();
    for task in &tasks {
        of_first.push(first.parts(task, &subject.metric, &subject.filter)?);
    }
    let strata = |evaluation: &Evaluation| -> Result<Strata, Error> {
        let of_task = |(task, of_first): (&String, &Parts)| {
            let parts = evaluation.parts(task, &subject.metric, &subject.filter)?;
            // The questions are the same, so only the tokens of their solutions can differ.
            if !parts.iter().map(units).eq(of_first.iter().map(units)) {
                let (first, other) = (first.path.clone(), evaluation.path.clone());
                return Err(Error::OtherTokens { first, other, task: task.clone() });
            }
            Ok(parts.into_values().collect())
        };
        tasks.iter().zip(&of_first).map(of_task).collect()
    };
    let of_arm = |arm: &Vec<Evaluation>| arm.iter().map(strata).collect();
    let parts = read.iter().map(of_arm).collect::<Result<_, _>>()?;
    Ok(Measured { subject, parts })
}

/// The number of a problem and its units.
fn units((id, part): (&usize, &(f64, f64))) -> (usize, f64) {
    (*id, part.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: fn() -> CompareSettings = CompareSettings::default;

    /// One stratum of shares a seed.
    fn arm(seeds: &[&[f64]]) -> Vec<Strata> {
        let parts = |values: &[f64]| values.iter().map(|&value| (value, 1.0)).collect();
        seeds.iter().map(|values| vec![parts(values)]).collect()
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    /// Figures 1/4, 2/4, 1/4 and 2/4, 4/4, 4/4: differences 1/4, 1/2, 3/4 with error 1/4 / sqrt 3, and the quantile of
    /// two degrees of freedom, 0.95 sqrt(2 / (1 - 0.95^2)).
    #[test]
    fn three_seeds_by_hand() {
        let a = arm(&[&[1.0, 0.0, 0.0, 0.0], &[1.0, 1.0, 0.0, 0.0], &[0.0, 0.0, 0.0, 1.0]]);
        let b = arm(&[&[1.0, 1.0, 0.0, 0.0], &[1.0; 4], &[1.0; 4]]);
        let found = difference(&a, &b, &SETTINGS());
        close(found.mean, 0.5);
        assert_eq!(found.seeds, [0.25, 0.5, 0.75]);
        let half = 0.95 * (2.0f64 / (1.0 - 0.95 * 0.95)).sqrt() * 0.25 / 3.0f64.sqrt();
        let interval = found.over_seeds.expect("three seeds");
        close(interval.low, 0.5 - half);
        close(interval.high, 0.5 + half);
        assert_eq!(found.verdict, Verdict::NotDistinguishable, "{interval:?}");
        // Over problems, by their means 1/3, 2/3, 2/3, 1/3, it would have been.
        assert_eq!(Verdict::of(found.over_problems), Verdict::Above);

        let turned = difference(&b, &a, &SETTINGS());
        close(turned.mean, -0.5);
        close(turned.over_seeds.expect("three seeds").low, -interval.high);
        assert_eq!(Verdict::of(turned.over_problems), Verdict::Below);
    }

    #[test]
    fn what_is_paired_decides_both_intervals() {
        let a = arm(&[&[1.0, 0.0, 0.0, 0.0], &[1.0, 1.0, 0.0, 0.0], &[1.0, 1.0, 1.0, 0.0]]);
        let b = arm(&[&[1.0, 1.0, 0.0, 0.0], &[1.0, 1.0, 1.0, 0.0], &[1.0; 4]]);
        let found = difference(&a, &b, &SETTINGS());
        // Each seed gains a quarter: no spread over seeds.
        assert_eq!(found.over_seeds, Some(Interval { low: 0.25, high: 0.25 }));
        assert_eq!(found.verdict, Verdict::Above);
        let other_seeds = [b[2].clone(), b[1].clone(), b[0].clone()];
        let found_other = difference(&a, &other_seeds, &SETTINGS());
        close(found_other.mean, found.mean);
        assert_eq!(found_other.seeds, [0.75, 0.25, -0.25]);
        assert_eq!(found_other.verdict, Verdict::NotDistinguishable);
        // Problems in another order change the interval over problems alone.
        let mut other_problems = b.clone();
        other_problems.iter_mut().for_each(|strata| strata[0].reverse());
        let found_other = difference(&a, &other_problems, &SETTINGS());
        assert_eq!(found_other.over_seeds, found.over_seeds);
        let width = |found: &Difference| found.over_problems.map(|interval| interval.high - interval.low);
        assert!(width(&found_other) > width(&found), "{found_other:?}");
    }

    #[test]
    fn few_seeds_are_judged_by_problems() {
        let a = arm(&[&[0.0; 12], &[0.0; 12]]);
        let b = arm(&[&[1.0; 12], &[0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]);
        let found = difference(&a, &b, &SETTINGS());
        assert!(found.over_seeds.expect("two seeds").low < 1.0);
        assert_eq!(found.verdict, Verdict::Above);
        let one = difference(&a[..1], &b[..1], &SETTINGS());
        assert_eq!((one.over_seeds, one.verdict), (None, Verdict::Above));
        assert_eq!((Basis::of(2), Basis::of(3)), (Basis::Problems, Basis::Seeds));
        let single = difference(&arm(&[&[0.0]]), &arm(&[&[1.0]]), &SETTINGS());
        assert_eq!((single.over_problems, single.verdict), (None, Verdict::NotDistinguishable));
    }

    /// Nats 3 over 2 tokens against 5 over 2, and 4 over 8 against 8 over 8 in the second task: -1 and -1/2 a token.
    #[test]
    fn tokens_are_weighed_within_a_task_and_tasks_equally() {
        let a = vec![vec![vec![(2.0, 1.0), (3.0, 1.0)], vec![(2.0, 2.0), (6.0, 6.0)]]];
        let b = vec![vec![vec![(1.0, 1.0), (2.0, 1.0)], vec![(1.0, 2.0), (3.0, 6.0)]]];
        let found = difference(&a, &b, &SETTINGS());
        close(found.mean, -0.75);
        let interval = found.over_problems.expect("two problems a task");
        close(interval.low, -0.75);
        close(interval.high, -0.75);
        assert_eq!(found.verdict, Verdict::Below);
    }

    #[test]
    fn no_difference_is_not_distinguishable() {
        let a = arm(&[&[0.0, 1.0], &[1.0, 1.0], &[0.0, 0.0]]);
        assert_eq!(difference(&a, &a, &SETTINGS()).verdict, Verdict::NotDistinguishable);
    }
}
