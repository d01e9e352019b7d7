//! The `[flywheel]` table of a recipe.

use crate::{Error, Generated, identity};
use remit_objective::Objective;
pub use remit_results::flywheel::{BASELINE, Point};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Settings of a flywheel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The run directory of the whole.
    pub run: PathBuf,
    /// Turns after iteration 0.
    pub iterations: u32,
    /// What is repeated to tell an effect from chance: each seed has its own order of windows in mid-training and
    /// fine-tuning, and its own draws in reinforcement learning.
    pub seeds: Vec<u64>,
    /// Whether each seed has a pre-training of its own as well; otherwise all start from the same one.
    pub pretrain_per_seed: bool,
    /// The pre-mid checkpoint, where there is one already: in place of `[tokenizer]` and `[pretrain]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// The stages behind mid-training, in order.
    pub after: Vec<After>,
    /// Corpora to generate, by the names that paths refer to as `@NAME`.
    pub data: BTreeMap<String, Generated>,
    /// What is compared with plain next-token prediction, which is always there as the arm `ntp`.
    pub arms: Vec<Arm>,
}

/// A stage behind mid-training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum After {
    /// Fine-tuning, as `[sft]` says.
    Sft,
    /// Preference optimisation, as `[dpo]` says.
    Dpo,
    /// Reinforcement learning, as `[rl]` says.
    Rl,
}

/// One way to do mid-training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name in tables.
    pub name: String,
    /// What its mid-training minimises.
    pub objective: Objective,
    /// The model that its objective looks up to: a stage of the iteration before (`rl`, `dpo`, `sft`, `midtrain`), such a
    /// stage at a step (`rl@40`), or the path of a checkpoint.
    #[serde(default = "default_reference")]
    pub reference: String,
    /// Turns, where it has fewer than the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterations: Option<u32>,
    /// The last point that its turns go to, where that is before the last of `after`: reinforcement learning is most of
    /// what a turn takes, and not every arm needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Point>,
    /// Whether the reference's scores are written down first. Unless set: where `[score]` is there and the objective
    /// can do with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scored: Option<bool>,
    /// What its stages have different from the recipe's tables: `settings.rl.steps = 300`.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub settings: toml::Table,
}

/// What an arm's `reference` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A stage of the iteration before; at a step of its run, or at its end.
    Stage(Point, Option<u64>),
    /// A checkpoint, the same in every iteration.
    Path(PathBuf),
}

fn default_reference() -> String {
    "rl".into()
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            run: PathBuf::new(),
            iterations: 1,
            seeds: vec![1],
            pretrain_per_seed: false,
            base: None,
            after: vec![After::Sft, After::Rl],
            data: BTreeMap::new(),
            arms: Vec::new(),
        }
    }
}

impl After {
    /// All of them, in the order of the pipeline.
    pub const ALL: [After; 3] = [After::Sft, After::Dpo, After::Rl];

    /// The point behind it.
    pub fn point(self) -> Point {
        match self {
            After::Sft => Point::Sft,
            After::Dpo => Point::Dpo,
            After::Rl => Point::Rl,
        }
    }
}

impl Arm {
    /// Plain next-token prediction.
    pub(crate) fn baseline() -> Arm {
        Arm {
            name: BASELINE.into(),
            objective: Objective::Ntp,
            reference: default_reference(),
            iterations: None,
            until: None,
            scored: None,
            settings: toml::Table::new(),
        }
    }

    /// What `reference` says.
    pub fn parse_reference(&self) -> Reference {
        let (name, step) = match self.reference.split_once('@') {
            Some((name, step)) => (name, step.parse().map(Some)),
            None => (self.reference.as_str(), Ok(None)),
        };
        let point = Point::ALL.into_iter().find(|point| point.name() == name);
        match (point, step) {
            (Some(point), Ok(step)) => Reference::Stage(point, step),
            _ => Reference::Path(PathBuf::from(&self.reference)),
        }
    }

    /// Turns of this arm: one where nothing of it moves from turn to turn.
    pub fn turns(&self, iterations: u32) -> u32 {
        let moves =
            self.objective.needs_reference() && matches!(self.parse_reference(), Reference::Stage(..));
        let most = self.iterations.unwrap_or(iterations).min(iterations);
        if moves { most } else { most.min(1) }
    }

    /// The stages behind mid-training that its turns have, of those that there are.
    pub fn after<'a>(&self, after: &'a [After]) -> &'a [After] {
        let last = |until| after.iter().position(|stage| stage.point() == until).map_or(0, |index| index + 1);
        &after[..self.until.map_or(after.len(), last)]
    }

    /// The settings of a stage with what this arm has different.
    pub(crate) fn changed<T: Clone + Serialize + DeserializeOwned>(
        &self,
        stage: &str,
        template: &T,
    ) -> Result<T, Error> {
        let Some(change) = self.settings.get(stage) else { return Ok(template.clone()) };
        let key = format!("flywheel.arms: {}.settings.{stage}", self.name);
        let wrong = |problem: String| Error::Setting { key: key.clone(), problem };
        let toml::Value::Table(change) = change else { return Err(wrong("is not a table".into())) };
        let mut table = toml::Table::try_from(template).expect("settings are plain values");
        identity::merge(&mut table, change);
        table.try_into().map_err(|error: toml::de::Error| wrong(error.message().to_owned()))
    }

    /// Checks where its turns end against the stages that there are.
    fn check_until(&self, after: &[After], iterations: u32) -> Result<(), Error> {
        let Some(until) = self.until else { return Ok(()) };
        let wrong =
            |problem| Err(Error::Setting { key: format!("flywheel.arms: {}.until", self.name), problem });
        if until != Point::Midtrain && after.iter().all(|stage| stage.point() != until) {
            return wrong(format!("is `{}`, a stage that `flywheel.after` does not have", until.name()));
        }
        let own =
            |point| point == Point::Midtrain || self.after(after).iter().any(|stage| stage.point() == point);
        match self.parse_reference() {
            Reference::Stage(point, _) if self.turns(iterations) > 1 && !own(point) => wrong(format!(
                "is `{}`, but its second turn looks up to `{}` of its first: set `iterations = 1`, or go on to there",
                until.name(),
                point.name()
            )),
            _ => Ok(()),
        }
    }

    /// Checks the reference against the stages that there are.
    fn check(&self, after: &[After]) -> Result<(), Error> {
        if !self.objective.needs_reference() {
            return Ok(());
        }
        let unknown = |problem: String| Error::Reference {
            arm: self.name.clone(),
            reference: self.reference.clone(),
            problem,
        };
        match self.parse_reference() {
            Reference::Stage(point, _) => {
                let is_there = point == Point::Midtrain || after.iter().any(|stage| stage.point() == point);
                if !is_there {
                    return Err(unknown("is a stage that `flywheel.after` does not have".into()));
                }
            }
            Reference::Path(path) if !path.exists() => {
                return Err(unknown("is neither a stage nor a checkpoint that is there".into()));
            }
            Reference::Path(_) => {}
        }
        Ok(())
    }
}

impl Settings {
    /// Checks what can be checked without opening a file.
    ///
    /// # Errors
    /// A setting that is missing or makes no sense; an arm named twice; a reference that nobody makes.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong =
            |key: &str, problem: String| Err(Error::Setting { key: format!("flywheel.{key}"), problem });
        if self.run.as_os_str().is_empty() {
            return wrong("run", "is missing: it names the run directory".into());
        }
        if self.seeds.is_empty() {
            return wrong("seeds", "is empty, but every arm needs one".into());
        }
        if let Some(seed) = twice(&self.seeds) {
            return wrong("seeds", format!("has {seed} twice"));
        }
        if let Some(stage) = twice(&self.after) {
            return wrong("after", format!("has `{}` twice", stage.point().name()));
        }
        if self.iterations == 0 && !self.arms.is_empty() {
            return wrong("iterations", "is 0, so that no arm but `ntp` would ever be run".into());
        }
        for name in self.data.keys() {
            check_name("data", name)?;
            if name == "corpus" {
                return wrong("data.corpus", "has the name of the token store that `[prepare]` makes".into());
            }
        }
        let mut names = BTreeSet::from([BASELINE]);
        for arm in &self.arms {
            check_name("arms", &arm.name)?;
            if !names.insert(&arm.name) {
                return Err(Error::TwoArms { name: arm.name.clone() });
            }
            if arm.iterations == Some(0) {
                return wrong(&format!("arms.{}.iterations", arm.name), "is 0: leave the arm out".into());
            }
            arm.objective.validate(true)?;
            arm.check(&self.after)?;
            arm.check_until(&self.after, self.iterations)?;
        }
        Ok(())
    }

    /// The points that have a model, in order.
    pub fn points(&self) -> Vec<Point> {
        std::iter::once(Point::Midtrain).chain(self.after.iter().map(|after| after.point())).collect()
    }
}

fn twice<T: Ord + Copy>(values: &[T]) -> Option<T> {
    let mut seen = BTreeSet::new();
    values.iter().copied().find(|&value| !seen.insert(value))
}

fn check_name(table: &str, name: &str) -> Result<(), Error> {
    let fits = |c: char| c.is_alphanumeric() || "-_.+^".contains(c);
    if name.is_empty() || !name.chars().all(fits) {
        let problem = "is not a name of letters, digits and `-_.+^`".to_owned();
        return Err(Error::Setting { key: format!("flywheel.{table}: `{name}`"), problem });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        toml::from_str(text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn refused(text: &str) -> String {
        settings(text).validate().expect_err("refused").to_string()
    }

    #[test]
    fn mistakes_are_named() {
        let arm = |name: &str, more: &str| {
            format!("[[arms]]\nname = '{name}'\nobjective = {{ kind = 'remit' }}\n{more}\n")
        };
        assert!(refused("seeds = [1]").contains("`flywheel.run` is missing"));
        assert!(refused("run = 'r'\nseeds = []").contains("`flywheel.seeds` is empty"));
        assert!(refused("run = 'r'\nseeds = [1, 2, 1]").contains("has 1 twice"));
        assert!(refused("run = 'r'\nafter = ['sft', 'sft']").contains("has `sft` twice"));
        let two = format!("run = 'r'\n{}{}", arm("a", ""), arm("a", ""));
        assert_eq!(refused(&two), "two arms are named `a`");
        assert_eq!(refused(&format!("run = 'r'\n{}", arm("ntp", ""))), "two arms are named `ntp`");
        let none = format!("run = 'r'\niterations = 0\n{}", arm("a", ""));
        assert!(refused(&none).contains("`flywheel.iterations` is 0"));
        let unmade = format!("run = 'r'\nafter = ['sft']\n{}", arm("a", ""));
        assert!(refused(&unmade).contains("reference `rl` of arm `a` is a stage that `flywheel.after`"));
        let nowhere = format!("run = 'r'\n{}", arm("a", "reference = 'lr'"));
        assert!(refused(&nowhere).contains("reference `lr` of arm `a` is neither a stage nor"));
        assert!(refused(&format!("run = 'r'\n{}", arm("a/b", ""))).contains("`a/b`"));
        let beyond = format!("run = 'r'\n{}", arm("a", "until = 'dpo'"));
        assert!(refused(&beyond).contains("a.until` is `dpo`, a stage that `flywheel.after` does not have"));
        let short = format!("run = 'r'\niterations = 2\n{}", arm("a", "until = 'sft'"));
        assert!(refused(&short).contains("its second turn looks up to `rl` of its first"));
        let once = format!("run = 'r'\niterations = 2\n{}", arm("a", "until = 'sft'\niterations = 1"));
        settings(&once).validate().unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn turns_end_where_their_arm_says() {
        let after = [After::Sft, After::Dpo, After::Rl];
        let until = |until| Arm { until, ..Arm::baseline() };
        assert_eq!(until(None).after(&after), after);
        assert_eq!(until(Some(Point::Rl)).after(&after), after);
        assert_eq!(until(Some(Point::Sft)).after(&after), [After::Sft]);
        assert_eq!(until(Some(Point::Midtrain)).after(&after), []);
    }

    #[test]
    fn references_and_turns() {
        let arm = |objective: &str, reference: &str| Arm {
            objective: toml::from_str(objective).expect("an objective"),
            reference: reference.into(),
            ..Arm::baseline()
        };
        let remit = "kind = 'remit'";
        assert_eq!(arm(remit, "rl").parse_reference(), Reference::Stage(Point::Rl, None));
        assert_eq!(arm(remit, "rl@40").parse_reference(), Reference::Stage(Point::Rl, Some(40)));
        assert_eq!(arm(remit, "rl@x").parse_reference(), Reference::Path("rl@x".into()));
        assert_eq!(arm(remit, "rl").turns(3), 3);
        assert_eq!(arm(remit, "some/where").turns(3), 1, "the same in every turn");
        assert_eq!(arm("kind = 'ntp'", "rl").turns(3), 1, "it looks up to nobody");
        assert_eq!(Arm { iterations: Some(2), ..arm(remit, "sft") }.turns(3), 2);
    }
}
