//! The figures of an evaluation, in the shape of lm-evaluation-harness's `results.json`.
//!
//! ```text
//! results   task or group -> { alias, "exact_match,none": .., "exact_match_stderr,none": .., "pass@4,none": .., "nll,none": .. }
//! ```
//!
//! What follows the comma is the filter that found the answers. A standard error that cannot be told is `"N/A"`, as
//! there. What that program does not have is kept under `config` or beside its keys, never under another meaning.

use std::collections::BTreeMap;
use std::path::Path;

use remit_results::statistics::{Mean, pass_at_k, ratio};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::Error;
use crate::suite::{Answers, Suite};
use crate::tasks::Task;
use remit_judge::Filter;

/// The content of `results.json`. Everything but `date` and the times is a function of settings, model and questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Figures of tasks and groups; see [`Results::figures`].
    pub results: BTreeMap<String, Map<String, Value>>,
    /// The same of groups alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, Map<String, Value>>,
    /// The tasks of each group; a task without one has an entry of its own without members.
    pub group_subtasks: BTreeMap<String, Vec<String>>,
    /// How each task was asked.
    pub configs: BTreeMap<String, Value>,
    /// Version of each task.
    pub versions: BTreeMap<String, u32>,
    /// Solved examples of each task.
    #[serde(rename = "n-shot")]
    pub num_shots: BTreeMap<String, usize>,
    /// Which way is better, by task and metric.
    pub higher_is_better: BTreeMap<String, BTreeMap<String, bool>>,
    /// Questions there are and questions asked.
    #[serde(rename = "n-samples")]
    pub num_samples: BTreeMap<String, Counts>,
    /// The settings, and what they came to: `model_hash`, `settings` and so on.
    pub config: Map<String, Value>,
    /// What was asked, prompts, solutions and right answers, hashed.
    pub task_hashes: BTreeMap<String, String>,
    /// When it began, in seconds since 1970.
    pub date: f64,
    /// Seconds it took, as text, as there.
    pub total_evaluation_time_seconds: String,
}

/// Questions of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// There are.
    pub original: usize,
    /// Were asked.
    pub effective: usize,
}

/// One number of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// `exact_match`, `pass@4`, `nll`.
    pub metric: String,
    /// The filter that found the answers; `none` where there is no choice.
    pub filter: String,
    /// The value with its standard error.
    pub mean: Mean,
}

/// One line of the log of answers.
#[derive(Debug, Serialize)]
pub(crate) struct Sample<'a> {
    doc_id: usize,
    doc: &'a Value,
    prompt: &'a str,
    target: &'a str,
    /// One greedy answer.
    resps: [[&'a str; 1]; 1],
    filtered_resps: [String; 1],
    filter: &'static str,
    metrics: Vec<String>,
    exact_match: f64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    samples: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples_exact_match: Vec<f64>,
    /// Of the whole solution, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    nll: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nll_tokens: Option<usize>,
}

impl Results {
    /// The figures of a task or group; none for an unknown name.
    pub fn figures(&self, name: &str) -> Vec<Figure> {
        let Some(entries) = self.results.get(name) else { return Vec::new() };
        let count = self.num_samples.get(name).map_or(0, |counts| counts.effective);
        let figure = |(key, value): (&String, &Value)| {
            let (metric, filter) = key.split_once(',')?;
            let mean = value.as_f64().filter(|_| !metric.ends_with("_stderr"))?;
            let standard_error = entries.get(&format!("{metric}_stderr,{filter}")).and_then(Value::as_f64);
            let mean = Mean { mean, standard_error, count };
            Some(Figure { metric: metric.to_owned(), filter: filter.to_owned(), mean })
        };
        entries.iter().filter_map(figure).collect()
    }

    /// One figure, such as `exact_match,none` of `micro10`.
    pub fn figure(&self, name: &str, metric: &str, filter: &str) -> Option<Mean> {
        let figures = self.figures(name).into_iter();
        figures
            .filter(|figure| figure.metric == metric && figure.filter == filter)
            .map(|figure| figure.mean)
            .next()
    }
}

/// Reads a results file.
///
/// # Errors
/// [`Error::Io`], and [`Error::NotResults`] for something else.
pub fn read_results(path: &Path) -> Result<Results, Error> {
    let bytes =
        std::fs::read(path).map_err(|cause| Error::Io { action: "read", path: path.to_owned(), cause })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::NotResults { path: path.to_owned(), problem: error.to_string() })
}

impl Suite {
    /// The results of `answers`, as [`Suite::ask`] gives them, with the settings for `config` and without date and time.
    pub fn results(&self, answers: &[Vec<Answers>]) -> Results {
        let settings = serde_json::to_value(&self.settings).expect("settings always become JSON");
        let mut results = Results {
            results: BTreeMap::new(),
            groups: BTreeMap::new(),
            group_subtasks: BTreeMap::new(),
            configs: BTreeMap::new(),
            versions: BTreeMap::new(),
            num_shots: BTreeMap::new(),
            higher_is_better: BTreeMap::new(),
            num_samples: BTreeMap::new(),
            config: Map::from_iter([("settings".to_owned(), settings)]),
            task_hashes: task_hashes(self),
            date: 0.0,
            total_evaluation_time_seconds: String::new(),
        };
        let ks = self.settings.ks();
        let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
        for (task, answers) in self.tasks.iter().zip(answers) {
            let figures = figures(task, answers, &ks);
            let counts = Counts { original: task.num_available, effective: task.questions.len() };
            results.enter(&task.name, &task.alias, task.version, &figures, counts);
            results.num_shots.insert(task.name.clone(), task.shots);
            results.configs.insert(task.name.clone(), configuration(task));
            match task.group {
                Some(group) => groups.entry(group).or_default().add(task, figures, counts),
                None => {
                    results.group_subtasks.insert(task.name.clone(), Vec::new());
                }
            }
        }
        for (name, Group { members, figures, counts }) in groups {
            results.enter(name, name, 1, &mean_figures(&figures), counts);
            results.groups.insert(name.to_owned(), results.results[name].clone());
            results.group_subtasks.insert(name.to_owned(), members);
        }
        results
    }
}

/// The tasks of a group, as they come.
#[derive(Default)]
struct Group {
    members: Vec<String>,
    /// By task.
    figures: Vec<Vec<Figure>>,
    counts: Counts,
}

impl Group {
    fn add(&mut self, task: &Task, figures: Vec<Figure>, counts: Counts) {
        self.members.push(task.name.clone());
        self.figures.push(figures);
        self.counts.original += counts.original;
        self.counts.effective += counts.effective;
    }
}

impl Results {
    fn enter(&mut self, name: &str, alias: &str, version: u32, figures: &[Figure], counts: Counts) {
        let mut entries = Map::from_iter([("alias".to_owned(), json!(alias))]);
        let mut better = BTreeMap::new();
        for Figure { metric, filter, mean } in figures {
            let error = mean.standard_error.map_or(json!("N/A"), |error| json!(error));
            entries.insert(format!("{metric},{filter}"), json!(mean.mean));
            entries.insert(format!("{metric}_stderr,{filter}"), error);
            better.insert(metric.clone(), metric != "nll");
        }
        self.results.insert(name.to_owned(), entries);
        self.higher_is_better.insert(name.to_owned(), better);
        self.versions.insert(name.to_owned(), version);
        self.num_samples.insert(name.to_owned(), counts);
    }
}

/// The figures of a task.
fn figures(task: &Task, answers: &[Answers], ks: &[u64]) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut add = |metric: String, filter: &str, mean| {
        figures.push(Figure { metric, filter: filter.to_owned(), mean });
    };
    for &filter in task.filters {
        let judged: Vec<Judged> = task
            .questions
            .iter()
            .zip(answers)
            .map(|(question, answers)| judge(question, answers, filter))
            .collect();
        let greedy: Vec<f64> = judged.iter().map(|judged| judged.greedy).collect();
        add("exact_match".to_owned(), filter.name(), Mean::of(&greedy));
        for &k in ks {
            let estimate = |judged: &Judged| {
                let correct = judged.samples.iter().filter(|&&right| right == 1.0).count();
                pass_at_k(judged.samples.len() as u64, correct as u64, k)
            };
            let estimates: Vec<f64> = judged.iter().map(estimate).collect();
            add(format!("pass@{k}"), filter.name(), Mean::of(&estimates));
        }
    }
    let solutions: Vec<(f64, f64)> = answers
        .iter()
        .filter(|answers| !answers.solution.is_empty())
        .map(|answers| (nll(answers), answers.solution.len() as f64))
        .collect();
    if !solutions.is_empty() {
        add("nll".to_owned(), "none", ratio(&solutions));
    }
    figures
}

/// The figures of a group: of each, the mean over its tasks.
fn mean_figures(tasks: &[Vec<Figure>]) -> Vec<Figure> {
    let Some(first) = tasks.first() else { return Vec::new() };
    let of = |place: usize| -> Vec<Mean> { tasks.iter().map(|figures| figures[place].mean).collect() };
    let figures = first.iter().enumerate();
    figures.map(|(place, figure)| Figure { mean: Mean::of_strata(&of(place)), ..figure.clone() }).collect()
}

/// Which answers to a question are right: 1 or 0.
struct Judged {
    answer: String,
    greedy: f64,
    samples: Vec<f64>,
}

fn judge(question: &crate::Question, answers: &Answers, filter: Filter) -> Judged {
    let right = |answer: &str| if question.judge.accepts(answer) { 1.0 } else { 0.0 };
    let answer = filter.answer(&answers.greedy);
    let samples = answers.samples.iter().map(|sample| right(&filter.answer(sample))).collect();
    Judged { greedy: right(&answer), answer, samples }
}

/// Of the whole solution, in nats.
fn nll(answers: &Answers) -> f64 {
    -answers.solution.iter().map(|&log_prob| f64::from(log_prob)).sum::<f64>()
}

/// The log of a task: a line for every question and filter.
pub(crate) fn samples<'a>(task: &'a Task, answers: &'a [Answers]) -> impl Iterator<Item = Sample<'a>> {
    let pairs = task.questions.iter().zip(answers);
    pairs.flat_map(move |(question, answers)| {
        task.filters.iter().map(move |&filter| {
            let judged = judge(question, answers, filter);
            let has_solution = !answers.solution.is_empty();
            Sample {
                doc_id: question.id,
                doc: &question.document,
                prompt: &question.prompt,
                target: &question.target,
                resps: [[&answers.greedy]],
                filtered_resps: [judged.answer],
                filter: filter.name(),
                metrics: vec!["exact_match".to_owned()],
                exact_match: judged.greedy,
                samples: &answers.samples,
                samples_exact_match: judged.samples,
                nll: has_solution.then(|| nll(answers)),
                nll_tokens: has_solution.then_some(answers.solution.len()),
            }
        })
    })
}

fn configuration(task: &Task) -> Value {
    json!({
        "task": task.name,
        "output_type": "generate_until",
        "num_fewshot": task.shots,
        "generation_kwargs": { "until": task.stop, "do_sample": false, "max_gen_toks": task.max_new_tokens },
        "filter_list": task.filters.iter().map(|filter| json!({ "name": filter.name() })).collect::<Vec<_>>(),
        "metadata": { "version": task.version },
    })
}

/// What decides the figures of each task apart from the model and how it is asked.
pub(crate) fn task_hashes(suite: &Suite) -> BTreeMap<String, String> {
    let hash = |task: &Task| {
        let mut hasher = blake3::Hasher::new();
        for question in &task.questions {
            let solution = question.solution.as_ref().map_or("", |solution| &solution.text);
            for text in [&question.prompt, &question.target, solution] {
                // Lengths keep the texts apart.
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    };
    suite.tasks.iter().map(|task| (task.name.clone(), hash(task))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Micro10, Settings, examples};

    /// Two families of three questions, four samples each.
    fn suite(tasks: &[&str]) -> Suite {
        let settings = Settings {
            tasks: tasks.iter().map(|&task| task.to_owned()).collect(),
            samples: 4,
            k: vec![2],
            micro10: Micro10 { problems: 3, ..Micro10::default() },
            ..Settings::default()
        };
        Suite::new(&settings, &examples::tokenizer()).expect("good settings")
    }

    /// Question `i` of a task has its greedy answer right where `greedy[i]`, `correct[i]` samples right, and a solution
    /// of `i + 1` tokens of half a nat more each.
    fn answers(task: &Task, greedy: [bool; 3], correct: [usize; 3]) -> Vec<Answers> {
        let questions = task.questions.iter().enumerate();
        let answer = |(i, question): (usize, &crate::Question)| {
            let right = question.solution.as_ref().expect("it has one").text.trim_end().to_owned();
            let of = |is_right: bool| if is_right { right.clone() } else { " => nothing".to_owned() };
            Answers {
                greedy: of(greedy[i]),
                samples: (0..4).map(|sample| of(sample < correct[i])).collect(),
                solution: vec![-0.5 * (i + 1) as f32; i + 1],
            }
        };
        questions.map(answer).collect()
    }

    #[track_caller]
    fn check(results: &Results, name: &str, metric: &str, mean: f64, standard_error: f64) {
        let found = results.figure(name, metric, "none").unwrap_or_else(|| panic!("{name} has no {metric}"));
        assert!((found.mean - mean).abs() < 1e-12, "{name} {metric}: {found:?}");
        assert!((found.standard_error.expect("an error") - standard_error).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn figures_by_hand() {
        let suite = suite(&["micro10_clock", "micro10_list"]);
        let [clock, list] = &suite.tasks[..] else { panic!("two tasks") };
        let answers = [answers(clock, [true, false, true], [4, 0, 1]), answers(list, [false; 3], [0, 0, 0])];
        let results = suite.results(&answers);
        // Shares: sqrt(p (1 - p) / (n - 1)) of 2/3 of 3.
        check(&results, "micro10_clock", "exact_match", 2.0 / 3.0, (2.0f64 / 9.0 / 2.0).sqrt());
        // pass@2 of 4, 0 and 1 right of 4: 1, 0 and 1/2; deviations 1/2, -1/2, 0.
        check(&results, "micro10_clock", "pass@2", 0.5, (0.5f64 / 2.0 / 3.0).sqrt());
        check(&results, "micro10_list", "exact_match", 0.0, 0.0);
        // Nats 0.5, 2 and 4.5 of 1, 2 and 3 tokens: 7/6 a token; residuals -2/3, -1/3, 1.
        check(&results, "micro10_clock", "nll", 7.0 / 6.0, (14.0f64 / 9.0 / 2.0 / 3.0).sqrt() / 2.0);
        assert_eq!(results.figures("micro10_clock").len(), 3);
        assert!(results.groups.is_empty() && results.figures("micro10").is_empty());
        assert!(results.higher_is_better["micro10_clock"]["pass@2"]);
        assert!(!results.higher_is_better["micro10_clock"]["nll"]);

        let text = serde_json::to_string(&results).expect("JSON");
        assert_eq!(serde_json::from_str::<Results>(&text).expect("read again"), results);
    }

    #[test]
    fn a_group_is_the_mean_of_its_families() {
        let suite = suite(&["micro10"]);
        let mut each: Vec<Vec<Answers>> =
            suite.tasks.iter().map(|task| answers(task, [false; 3], [0; 3])).collect();
        each[0] = answers(&suite.tasks[0], [true, true, true], [4, 4, 4]);
        each[1] = answers(&suite.tasks[1], [true, false, true], [4, 0, 1]);
        let results = suite.results(&each);
        check(&results, "micro10", "exact_match", 1.0 / 6.0, (2.0f64 / 9.0 / 2.0).sqrt() / 10.0);
        check(&results, "micro10", "pass@2", 0.15, (0.5f64 / 2.0 / 3.0).sqrt() / 10.0);
        assert_eq!(results.groups["micro10"], results.results["micro10"]);
        assert_eq!(results.group_subtasks["micro10"].len(), 10);
        assert_eq!(results.num_samples["micro10"], Counts { original: 30, effective: 30 });
    }

    #[test]
    fn the_log_has_a_line_for_every_question() {
        let suite = suite(&["micro10_clock"]);
        let task = &suite.tasks[0];
        let answers = answers(task, [true, false, true], [4, 0, 1]);
        let lines: Vec<Value> =
            samples(task, &answers).map(|sample| serde_json::to_value(sample).expect("JSON")).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[2]["doc_id"], 2);
        assert_eq!(lines[2]["resps"], json!([[answers[2].greedy]]));
        assert_eq!(lines[2]["filtered_resps"], json!([task.questions[2].target]));
        assert_eq!((&lines[2]["exact_match"], &lines[1]["exact_match"]), (&json!(1.0), &json!(0.0)));
        assert_eq!(lines[2]["samples_exact_match"], json!([1.0, 0.0, 0.0, 0.0]));
        assert_eq!((&lines[2]["nll"], &lines[2]["nll_tokens"]), (&json!(4.5), &json!(3)));
    }
}
