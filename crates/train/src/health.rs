//! Rules that look at what a run logs, and warn or stop where nothing good can come of going on.
//!
//! Whether a rule is broken at a step follows from the lines of `metrics.jsonl` up to it and from the settings alone: a
//! run that goes on from a checkpoint reads the lines again and stands where it stood. A rule is reported once a run,
//! where it is first broken. A rule whose figures a run does not log is silent.

use crate::Error;
use crate::metrics::{EvalRecord, HealthRecord, MetricsLog, Record, StepRecord};
use crate::run::Observer;
use crate::settings::HeldOut;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

/// The rules of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Of weighted training: nearly all weights are at a bound.
    pub weights_saturated: WeightsSaturated,
    /// Of reinforcement learning: the policy hardly varies any more.
    pub entropy_collapse: EntropyCollapse,
    /// The loss on held-out text has risen.
    pub forgetting: Forgetting,
    /// Of reinforcement learning: the reward does not move, or no group tells good from bad.
    pub reward_stuck: RewardStuck,
}

/// What is done where a rule is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Nothing; the rule is not looked at.
    Off,
    /// A line in the log and a warning.
    #[default]
    Warn,
    /// A line in the log and a checkpoint; then the run ends with an error.
    Stop,
}

/// The share of tokens whose weight is at a bound, `clipped_low + clipped_high`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WeightsSaturated {
    /// What is done about it.
    pub action: Action,
    /// Broken where the mean is above it.
    pub limit: f64,
    /// Steps of the mean.
    pub span: usize,
}

impl Default for WeightsSaturated {
    fn default() -> Self {
        WeightsSaturated { action: Action::Warn, limit: 0.95, span: 20 }
    }
}

/// The mean surprise of what is sampled, `entropy`, as a share of what it was at first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EntropyCollapse {
    /// What is done about it.
    pub action: Action,
    /// Broken where the share is below it.
    pub limit: f64,
    /// Steps of the two means, the last and the first of the run.
    pub span: usize,
}

impl Default for EntropyCollapse {
    fn default() -> Self {
        EntropyCollapse { action: Action::Warn, limit: 0.1, span: 20 }
    }
}

/// The rise of held-out losses over the first evaluation of the run, in nats a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Forgetting {
    /// What is done about it.
    pub action: Action,
    /// Broken where a store's loss has risen by more.
    pub limit: f64,
    /// Names of the stores in `held_out.stores`; `text`, if there is one, where nothing is said.
    pub stores: Vec<String>,
}

impl Default for Forgetting {
    fn default() -> Self {
        Forgetting { action: Action::Warn, limit: 0.5, stores: vec!["text".into()] }
    }
}

/// The standard deviation of the mean reward from step to step, and `equal_groups`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardStuck {
    /// What is done about it.
    pub action: Action,
    /// Broken where the deviation is below it, or where in all steps of the span all groups have equal rewards.
    pub limit: f64,
    /// Steps that are looked at.
    pub span: usize,
}

impl Default for RewardStuck {
    fn default() -> Self {
        RewardStuck { action: Action::Warn, limit: 1e-6, span: 15 }
    }
}

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// See [`WeightsSaturated`].
    WeightsSaturated,
    /// See [`EntropyCollapse`].
    EntropyCollapse,
    /// See [`Forgetting`].
    Forgetting,
    /// See [`RewardStuck`].
    RewardStuck,
}

impl Rule {
    /// Its key in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Rule::WeightsSaturated => "weights_saturated",
            Rule::EntropyCollapse => "entropy_collapse",
            Rule::Forgetting => "forgetting",
            Rule::RewardStuck => "reward_stuck",
        }
    }

    /// What it means that the rule is broken, and what helps.
    pub fn meaning(self) -> &'static str {
        match self {
            Rule::WeightsSaturated => {
                "nearly all weights are at a bound, so they tell two kinds of token apart and no more: a larger epsilon, a higher temperature or a nearer reference grades them"
            }
            Rule::EntropyCollapse => {
                "the policy samples nearly the same every time and has little left to learn from: a lower learning rate, a higher `grpo.epsilon_high` or a KL term keeps it open"
            }
            Rule::Forgetting => {
                "the learner is losing what it knew: a lower learning rate or some of the old text in the data holds it"
            }
            Rule::RewardStuck => {
                "there is nothing to learn from rewards that do not differ: easier prompts, another verifier or a better start make them differ"
            }
        }
    }
}

/// A rule that is broken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breach {
    /// The rule.
    pub rule: Rule,
    /// What was measured.
    pub figure: String,
    /// Its value.
    pub value: f64,
    /// The rule's limit.
    pub limit: f64,
    /// What was to be done about it when it was found.
    pub action: Action,
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Breach { rule, figure, value, limit, .. } = self;
        write!(f, "{figure} is {value:.4}, the limit is {limit} (`health.{}`)", rule.name())
    }
}

impl Health {
    /// Whether it is what holds where nothing is said; settings are then written without it.
    pub fn is_default(&self) -> bool {
        *self == Health::default()
    }

    /// Checks the rules of `stage`, the recipe's table, whose held-out stores are known.
    ///
    /// # Errors
    /// A limit or a span that makes no sense; a store that is not evaluated.
    pub fn validate(&self, stage: &'static str, held_out: &HeldOut) -> Result<(), Error> {
        let wrong = |rule: Rule, key: &str, problem: String| {
            Err(Error::Setting { stage, key: format!("health.{}.{key}", rule.name()), problem })
        };
        let Health { weights_saturated, entropy_collapse, forgetting, reward_stuck } = self;
        let rules = [
            (Rule::WeightsSaturated, weights_saturated.limit, weights_saturated.span),
            (Rule::EntropyCollapse, entropy_collapse.limit, entropy_collapse.span),
            (Rule::Forgetting, forgetting.limit, 1),
            (Rule::RewardStuck, reward_stuck.limit, reward_stuck.span),
        ];
        for (rule, limit, span) in rules {
            if !(limit >= 0.0 && limit.is_finite()) {
                return wrong(rule, "limit", "must be a finite number, 0 or more".into());
            }
            if span == 0 {
                return wrong(rule, "span", "is 0, but must be 1 or more".into());
            }
        }
        if forgetting.stores != Forgetting::default().stores
            && let Some(name) = forgetting.stores.iter().find(|name| !held_out.stores.contains_key(*name))
        {
            return wrong(
                Rule::Forgetting,
                "stores",
                format!("names `{name}`, which `held_out.stores` lacks"),
            );
        }
        Ok(())
    }

    fn action(&self, rule: Rule) -> Action {
        match rule {
            Rule::WeightsSaturated => self.weights_saturated.action,
            Rule::EntropyCollapse => self.entropy_collapse.action,
            Rule::Forgetting => self.forgetting.action,
            Rule::RewardStuck => self.reward_stuck.action,
        }
    }
}

/// The last values of a figure, as many as a rule looks at.
#[derive(Debug)]
struct Span {
    length: usize,
    values: VecDeque<f64>,
}

impl Span {
    fn new(length: usize) -> Span {
        Span { length, values: VecDeque::new() }
    }

    fn push(&mut self, value: Option<f64>) {
        if self.values.len() == self.length && value.is_some() {
            self.values.pop_front();
        }
        self.values.extend(value);
    }

    fn is_full(&self) -> bool {
        self.values.len() == self.length
    }

    /// Summed anew each time: a sum that is carried along would depend on where the run was resumed.
    fn mean(&self) -> Option<f64> {
        self.is_full().then(|| self.values.iter().sum::<f64>() / self.length as f64)
    }

    /// Population standard deviation.
    fn deviation(&self) -> Option<f64> {
        let mean = self.mean()?;
        let squares: f64 = self.values.iter().map(|value| (value - mean).powi(2)).sum();
        Some((squares / self.length as f64).sqrt())
    }
}

/// What the rules know of a run.
#[derive(Debug)]
pub(crate) struct Monitor {
    rules: Health,
    clipped: Span,
    entropy: Span,
    /// Mean entropy of the first steps.
    first_entropy: Option<f64>,
    reward: Span,
    equal_groups: Span,
    /// Losses of the first evaluation.
    first_losses: Option<BTreeMap<String, f64>>,
    /// By rule, where it was first broken.
    broken: BTreeMap<Rule, HealthRecord>,
}

impl Monitor {
    fn new(rules: Health) -> Monitor {
        Monitor {
            clipped: Span::new(rules.weights_saturated.span),
            entropy: Span::new(rules.entropy_collapse.span),
            first_entropy: None,
            reward: Span::new(rules.reward_stuck.span),
            equal_groups: Span::new(rules.reward_stuck.span),
            first_losses: None,
            broken: BTreeMap::new(),
            rules,
        }
    }

    /// Where the rules stand in a run that goes on from the checkpoint of `resumed`, by the lines of its log up to there.
    pub(crate) fn open(rules: &Health, log: &Path, resumed: Option<u64>) -> Result<Monitor, Error> {
        let mut monitor = Monitor::new(rules.clone());
        let Some(resumed) = resumed else { return Ok(monitor) };
        let text = match std::fs::read_to_string(log) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(monitor),
            Err(error) => return Err(remit_store::Error::io("read", log, error).into()),
        };
        let mut breaches = Vec::new();
        for line in text.lines() {
            // What is torn lies behind the checkpoint, and whoever opens the log to write complains of the rest.
            let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { break };
            if value.get("step").and_then(serde_json::Value::as_u64).is_none_or(|step| step > resumed) {
                break;
            }
            let record = serde_json::from_str(line)
                .map_err(|error| Error::State { path: log.to_owned(), problem: error.to_string() })?;
            match record {
                Record::Step(step) => breaches = monitor.check_step(&step),
                Record::Eval(eval) => breaches = monitor.check_eval(&eval),
                // Under other rules than these it may be none.
                Record::Health(record) => {
                    if breaches.iter().any(|breach| breach.rule == record.health.rule) {
                        monitor.broken.insert(record.health.rule, record);
                    }
                }
            }
        }
        Ok(monitor)
    }

    /// Looks at a step, after its line was logged.
    pub(crate) fn step(
        &mut self,
        record: &StepRecord,
        metrics: &mut MetricsLog,
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        let breaches = self.check_step(record);
        self.report(record.step, record.tokens, breaches, metrics, observer)
    }

    /// Looks at an evaluation, after its line was logged.
    pub(crate) fn eval(
        &mut self,
        record: &EvalRecord,
        metrics: &mut MetricsLog,
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        let breaches = self.check_eval(record);
        self.report(record.step, record.tokens, breaches, metrics, observer)
    }

    /// The error that ends the run, where a rule is broken that is to stop it.
    pub(crate) fn stopped(&self) -> Option<Error> {
        let stops = |record: &&HealthRecord| self.rules.action(record.health.rule) == Action::Stop;
        let record = self.broken.values().filter(stops).min_by_key(|record| record.step)?;
        Some(Error::Unhealthy { step: record.step, breach: Box::new(record.health.clone()) })
    }

    fn report(
        &mut self,
        step: u64,
        tokens: u64,
        breaches: Vec<Breach>,
        metrics: &mut MetricsLog,
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        for health in breaches {
            if health.action == Action::Off || self.broken.contains_key(&health.rule) {
                continue;
            }
            let record = HealthRecord { step, tokens, health };
            metrics.health(&record)?;
            observer.health(&record);
            self.broken.insert(record.health.rule, record);
        }
        Ok(())
    }

    /// Takes in a step; what rules say of it, whether or not it was said before.
    fn check_step(&mut self, record: &StepRecord) -> Vec<Breach> {
        let figure = |name: &str| record.figures.get(name).copied();
        self.clipped.push(record.weights.as_ref().map(|weights| weights.clipped_low + weights.clipped_high));
        // A step that has sampled nothing to learn from logs an entropy of 0.
        self.entropy.push(figure("entropy").filter(|_| figure("completion_length") != Some(0.0)));
        self.reward.push(figure("reward"));
        self.equal_groups.push(figure("equal_groups"));
        if self.first_entropy.is_none() {
            self.first_entropy = self.entropy.mean();
        }
        [self.saturated(), self.collapsed(), self.stuck()].into_iter().flatten().collect()
    }

    fn saturated(&self) -> Option<Breach> {
        let (limit, value) = (self.rules.weights_saturated.limit, self.clipped.mean()?);
        (value > limit)
            .then(|| self.breach(Rule::WeightsSaturated, "clipped_low + clipped_high", value, limit))
    }

    fn collapsed(&self) -> Option<Breach> {
        let first = self.first_entropy.filter(|first| *first > 0.0)?;
        let (limit, value) = (self.rules.entropy_collapse.limit, self.entropy.mean()? / first);
        (value < limit).then(|| self.breach(Rule::EntropyCollapse, "entropy / first entropy", value, limit))
    }

    fn stuck(&self) -> Option<Breach> {
        let (limit, rule) = (self.rules.reward_stuck.limit, Rule::RewardStuck);
        if self.equal_groups.is_full() && self.equal_groups.values.iter().all(|share| *share >= 1.0) {
            return Some(self.breach(rule, "equal_groups", 1.0, 1.0));
        }
        let value = self.reward.deviation()?;
        (value < limit).then(|| self.breach(rule, "deviation of reward", value, limit))
    }

    /// Takes in an evaluation; the store that has risen the most, if any has by too much.
    fn check_eval(&mut self, record: &EvalRecord) -> Vec<Breach> {
        let first = self.first_losses.get_or_insert_with(|| record.held_out.clone());
        let rises = self.rules.forgetting.stores.iter().filter_map(|name| {
            let (before, now) = (first.get(name)?, record.held_out.get(name)?);
            Some((name, now - before))
        });
        let limit = self.rules.forgetting.limit;
        let most = rises.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, rise)| *rise > limit);
        let breach = most.map(|(name, rise)| {
            self.breach(Rule::Forgetting, &format!("rise of held-out {name}"), rise, limit)
        });
        breach.into_iter().collect()
    }

    fn breach(&self, rule: Rule, figure: &str, value: f64, limit: f64) -> Breach {
        Breach { rule, figure: figure.to_owned(), value, limit, action: self.rules.action(rule) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::WeightFigures;

    fn step(figures: &[(&str, f64)]) -> StepRecord {
        StepRecord {
            step: 1,
            tokens: 1,
            loss: 1.0,
            ntp_loss: None,
            learning_rate: 1.0,
            grad_norm: 1.0,
            z_loss: None,
            weights: None,
            figures: figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        }
    }

    fn weighted(clipped_low: f64, clipped_high: f64) -> StepRecord {
        let weights = WeightFigures {
            mean_weight: 1.0,
            std_weight: 0.1,
            clipped_low,
            clipped_high,
            weighted_up: 0.5,
            effective_sample_share: 0.9,
            mean_delta: None,
        };
        StepRecord { weights: Some(weights), ..step(&[]) }
    }

    fn eval(losses: &[(&str, f64)]) -> EvalRecord {
        let held_out = losses.iter().map(|(name, loss)| ((*name).to_owned(), *loss)).collect();
        EvalRecord { step: 1, tokens: 1, held_out }
    }

    fn found(monitor: &mut Monitor, record: &StepRecord) -> Option<(Rule, f64)> {
        monitor.check_step(record).first().map(|breach| (breach.rule, breach.value))
    }

    #[test]
    fn weights_saturate_above_the_mean_of_low_and_high_over_the_last_steps() {
        let rule = WeightsSaturated { limit: 0.75, span: 2, ..Default::default() };
        let mut monitor = Monitor::new(Health { weights_saturated: rule, ..Health::default() });
        assert_eq!(found(&mut monitor, &weighted(0.5, 0.5)), None, "one step fewer than the span");
        assert_eq!(found(&mut monitor, &weighted(0.25, 0.25)), None, "exactly at the limit");
        assert_eq!(found(&mut monitor, &weighted(0.25, 0.5)), None, "the first step has left the span");
        assert_eq!(found(&mut monitor, &weighted(0.5, 0.375)), Some((Rule::WeightsSaturated, 0.8125)));
        assert_eq!(found(&mut Monitor::new(Health::default()), &step(&[])), None);
    }

    #[test]
    fn entropy_collapses_below_a_share_of_the_first_steps() {
        let rule = EntropyCollapse { limit: 0.25, span: 2, ..Default::default() };
        let mut monitor = Monitor::new(Health { entropy_collapse: rule, ..Health::default() });
        let mut next = |entropy| found(&mut monitor, &step(&[("entropy", entropy)]));
        // First mean 2, later means 1.5, 0.5 and 0.25.
        assert_eq!([next(1.0), next(3.0), next(0.0), next(1.0)], [None; 4]);
        assert_eq!(next(-0.5), Some((Rule::EntropyCollapse, 0.125)));
    }

    #[test]
    fn steps_without_completions_have_no_entropy() {
        let rule = EntropyCollapse { limit: 0.5, span: 2, ..Default::default() };
        let mut monitor = Monitor::new(Health { entropy_collapse: rule, ..Health::default() });
        let mut next = |entropy, length| {
            found(&mut monitor, &step(&[("entropy", entropy), ("completion_length", length)]))
        };
        assert_eq!([next(1.0, 9.0), next(1.0, 9.0), next(0.0, 0.0), next(0.0, 0.0)], [None; 4]);
        assert_eq!([next(0.75, 9.0), next(0.125, 9.0)], [None, Some((Rule::EntropyCollapse, 0.4375))]);
    }

    #[test]
    fn a_policy_without_entropy_from_the_first_step_has_not_collapsed() {
        let rule = EntropyCollapse { span: 1, ..Default::default() };
        let mut monitor = Monitor::new(Health { entropy_collapse: rule, ..Health::default() });
        for _ in 0..3 {
            assert_eq!(found(&mut monitor, &step(&[("entropy", 0.0)])), None);
        }
    }

    #[test]
    fn reward_is_stuck_below_a_deviation() {
        let rule = RewardStuck { limit: 0.25, span: 2, ..Default::default() };
        let mut monitor = Monitor::new(Health { reward_stuck: rule, ..Health::default() });
        let mut next = |reward| found(&mut monitor, &step(&[("reward", reward), ("equal_groups", 0.5)]));
        assert_eq!(next(0.5), None, "one step fewer than the span");
        assert_eq!(next(1.0), None, "exactly at the limit");
        assert_eq!(next(0.75), Some((Rule::RewardStuck, 0.125)));
    }

    #[test]
    fn reward_is_stuck_where_no_group_differs() {
        let rule = RewardStuck { span: 2, ..Default::default() };
        let mut monitor = Monitor::new(Health { reward_stuck: rule, ..Health::default() });
        let mut next = |reward, equal| {
            let breaches = monitor.check_step(&step(&[("reward", reward), ("equal_groups", equal)]));
            breaches.into_iter().next().map(|breach| breach.figure)
        };
        assert_eq!([next(0.0, 1.0), next(1.0, 0.5), next(0.0, 1.0)], [None, None, None]);
        assert_eq!(next(1.0, 1.0).as_deref(), Some("equal_groups"));
    }

    #[test]
    fn forgetting_is_a_rise_over_the_first_evaluation() {
        let mut monitor = Monitor::new(Health::default());
        let mut next = |text, other| {
            let breaches = monitor.check_eval(&eval(&[("text", text), ("other", other)]));
            breaches.into_iter().next().map(|breach| (breach.figure, breach.value))
        };
        assert_eq!([next(3.0, 1.0), next(2.0, 1.0), next(3.5, 9.0)], [None, None, None]);
        assert_eq!(next(3.75, 1.0), Some(("rise of held-out text".into(), 0.75)));
        let rule = Forgetting { stores: vec!["a".into(), "b".into()], ..Default::default() };
        let mut monitor = Monitor::new(Health { forgetting: rule, ..Health::default() });
        monitor.check_eval(&eval(&[("a", 1.0), ("b", 1.0)]));
        let breaches = monitor.check_eval(&eval(&[("a", 3.0), ("b", 2.0)]));
        assert_eq!((breaches[0].figure.as_str(), breaches[0].value), ("rise of held-out a", 2.0));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let key = |text: &str| {
            let health: Health = toml::from_str(text).expect("settings");
            match health.validate("rl", &HeldOut::default()) {
                Err(Error::Setting { stage: "rl", key, .. }) => key,
                other => format!("{other:?}"),
            }
        };
        assert_eq!(key(""), "Ok(())");
        assert_eq!(key("weights_saturated.span = 0"), "health.weights_saturated.span");
        assert_eq!(key("entropy_collapse.span = 0"), "health.entropy_collapse.span");
        assert_eq!(key("reward_stuck.span = 0"), "health.reward_stuck.span");
        assert_eq!(key("weights_saturated.limit = -0.1"), "health.weights_saturated.limit");
        assert_eq!(key("entropy_collapse.limit = inf"), "health.entropy_collapse.limit");
        assert_eq!(key("forgetting.limit = nan"), "health.forgetting.limit");
        assert_eq!(key("reward_stuck.limit = -1.0"), "health.reward_stuck.limit");
        assert_eq!(key("forgetting.stores = [\"old\"]"), "health.forgetting.stores");
        for text in ["forgeting = {}", "forgetting.span = 3", "reward_stuck.actoin = \"off\""] {
            toml::from_str::<Health>(text).expect_err("a misspelt key");
        }
        toml::from_str::<Health>("forgetting.action = \"halt\"").expect_err("an unknown action");
    }

    #[test]
    fn default_rules_are_not_written_into_settings() {
        let written = |settings: &crate::Settings| toml::to_string(settings).expect("settings");
        let mut settings = crate::Settings::default();
        assert!(!written(&settings).contains("health"));
        assert!(!toml::to_string(&crate::dpo::Settings::default()).expect("settings").contains("health"));
        settings.common.health.forgetting.action = Action::Stop;
        assert!(written(&settings).contains("[health.forgetting]\naction = \"stop\""));
    }
}
