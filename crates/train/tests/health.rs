//! Rules of health through real runs: warned, stopped, resumed.

use remit_corpus::Companions;
use remit_engine::{Cpu, Engine, Usage};
use remit_optim::Schedule;
use remit_train::health::{Action, Forgetting, Rule, WeightsSaturated};
use remit_train::held_out::HeldOutPlan;
use remit_train::metrics::{EvalRecord, HealthRecord, StepRecord, StepTiming, WeightFigures};
use remit_train::settings::{Checkpoints, Moments, Settings};
use remit_train::{
    Error, Frame, Health, Method, Observer, Progress, Start, Summary, Taken, read_summary, run,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Steps that leave the learner as it is and log shares of clipped weights: a tenth at step 1, and so on. At `kill` it
/// fails.
struct Clipping {
    kill: Option<u64>,
}

impl Method for Clipping {
    type Error = Error;

    fn step(
        &mut self,
        _: &mut dyn Engine,
        progress: &mut Progress,
        learning_rate: f64,
    ) -> Result<Taken, Error> {
        let step = progress.step;
        if self.kill == Some(step) {
            return Err(Error::StepNotFinite { step, what: "loss".into() });
        }
        progress.tokens += 3;
        let weights = WeightFigures {
            mean_weight: 1.0,
            std_weight: 0.1,
            clipped_low: step as f64 / 30.0,
            clipped_high: step as f64 / 15.0,
            weighted_up: 0.5,
            effective_sample_share: 0.9,
            mean_delta: None,
        };
        let record = StepRecord {
            step,
            tokens: progress.tokens,
            loss: 1.0,
            ntp_loss: None,
            learning_rate,
            grad_norm: 1.0,
            z_loss: None,
            weights: Some(weights),
            figures: BTreeMap::new(),
        };
        Ok(Taken { record, parts: BTreeMap::new(), tokens: 3 })
    }
}

/// Keeps what it is told of health.
#[derive(Default)]
struct Watch(Vec<HealthRecord>);

impl Observer for Watch {
    fn begin(&mut self, _: u64, _: u64) {}
    fn step(&mut self, _: &StepRecord, _: &StepTiming) {}
    fn eval(&mut self, _: &EvalRecord) {}
    fn health(&mut self, record: &HealthRecord) {
        self.0.push(record.clone());
    }
    fn message(&mut self, _: &str) {}
}

fn take(path: &Path, action: Action, kill: Option<u64>) -> (Result<Summary, Error>, Vec<HealthRecord>) {
    take_with(path, WeightsSaturated { action, limit: 0.55, span: 3 }, kill)
}

fn take_with(
    path: &Path,
    rule: WeightsSaturated,
    kill: Option<u64>,
) -> (Result<Summary, Error>, Vec<HealthRecord>) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models/llama/learner");
    let mut settings = Settings::default();
    settings.common.run = path.to_owned();
    settings.common.health = Health { weights_saturated: rule, ..Health::default() };
    let frame = Frame {
        run: path.to_owned(),
        settings: toml::Table::try_from(&settings).expect("a table"),
        inputs: BTreeMap::new(),
        steps: 10,
        learning_rate: 1e-3,
        schedule: Schedule::default(),
        start: Start::From(golden, Moments::Reset),
        learning: Settings::default().common.learning(),
        usage: Usage { rows: 48, length: 48, ..Usage::default() },
        companions: Companions::default(),
        checkpoints: Checkpoints { ephemeral_every: 4, ..Checkpoints::default() },
        held_out: HeldOutPlan::default(),
        health: settings.common.health,
    };
    let mut watch = Watch::default();
    let result = run::run(&frame, &mut Clipping { kill }, &mut Cpu::new(), &mut watch);
    (result, watch.0)
}

fn log(path: &Path) -> String {
    std::fs::read_to_string(path.join("metrics.jsonl")).expect("a log")
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("run");
    (home, path)
}

#[test]
fn a_warning_is_one_line_and_the_same_after_a_kill() {
    let (_home, straight) = home();
    let (result, told) = take(&straight, Action::Warn, None);
    result.expect("a whole run");
    // Means of steps s - 2 to s are (s - 1) / 10: above 0.55 from step 7 on, and not at step 6.
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].step, told[0].tokens, told[0].health.rule), (7, 21, Rule::WeightsSaturated));
    let lines: Vec<String> = log(&straight).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 11);
    assert!(lines[7].starts_with(
        r#"{"step":7,"tokens":21,"health":{"rule":"weights_saturated","figure":"clipped_low + clipped_high","value":0.6"#
    ));
    assert!(lines[7].ends_with(r#","limit":0.55,"action":"warn"}}"#), "{}", lines[7]);
    assert_eq!(read_summary(&straight).expect("a summary").last.expect("a step").step, 10);
    // Before the rule is broken, with its span half in the lines that are kept; between the breach and the next
    // checkpoint; after it.
    for kill in [6, 8, 10] {
        let (_home, killed) = home();
        take(&killed, Action::Warn, Some(kill)).0.expect_err("a kill");
        let (result, told) = take(&killed, Action::Warn, None);
        result.expect("the rest");
        assert_eq!(told.len(), usize::from(kill < 10), "after a kill at step {kill}");
        assert_eq!(log(&killed), log(&straight), "after a kill at step {kill}");
    }
}

#[test]
fn a_stop_leaves_a_checkpoint_from_which_a_warning_goes_on() {
    let (_home, path) = home();
    let (result, told) = take(&path, Action::Stop, None);
    let error = result.expect_err("a stop");
    assert!(matches!(&error, Error::Unhealthy { step: 7, breach } if breach.rule == Rule::WeightsSaturated));
    assert_eq!(
        error.to_string(),
        "step 7: the run is stopped: clipped_low + clipped_high is 0.6000, the limit is 0.55 (`health.weights_saturated`)"
    );
    assert!(error.hint().expect("a hint").contains("set `health.weights_saturated.action` to \"warn\""));
    assert_eq!(told.len(), 1);
    assert!(path.join("checkpoints/step-00000007/integrity.json").is_file());
    let stopped = log(&path);
    assert_eq!(stopped.lines().count(), 8);

    let (result, told) = take(&path, Action::Stop, None);
    assert!(matches!(result, Err(Error::Unhealthy { step: 7, .. })), "stopped is stopped");
    assert_eq!((told.len(), log(&path)), (0, stopped.clone()));

    let (result, told) = take(&path, Action::Warn, None);
    result.expect("the rest");
    assert_eq!(told.len(), 0);
    let (_home, straight) = home();
    take(&straight, Action::Warn, None).0.expect("a whole run");
    assert!(log(&path).starts_with(&stopped));
    assert_eq!(log(&path).replace("\"stop\"", "\"warn\""), log(&straight));
}

#[test]
fn a_higher_limit_lifts_a_stop_until_it_is_broken_itself() {
    let (_home, path) = home();
    take(&path, Action::Stop, None).0.expect_err("a stop");
    let higher = WeightsSaturated { action: Action::Stop, limit: 0.75, span: 3 };
    let (result, told) = take_with(&path, higher, None);
    // The mean of steps s - 2 to s is (s - 1) / 10.
    assert!(
        matches!(&result, Err(Error::Unhealthy { step: 9, breach }) if breach.limit == 0.75),
        "{result:?}"
    );
    assert_eq!(told.len(), 1);
}

#[test]
fn what_is_off_is_silent() {
    let (_home, path) = home();
    let (result, told) = take(&path, Action::Off, None);
    result.expect("a whole run");
    assert_eq!((told.len(), log(&path).lines().count()), (0, 10));
}

#[test]
fn rules_keep_their_defaults_where_a_table_names_some_keys() {
    let health: Health =
        toml::from_str("forgetting.limit = 0.25\nweights_saturated.action = \"off\"").expect("rules");
    assert_eq!(health.forgetting, Forgetting { limit: 0.25, ..Forgetting::default() });
    let WeightsSaturated { action, limit, span } = health.weights_saturated;
    assert_eq!((action, limit, span), (Action::Off, 0.95, 20));
}
