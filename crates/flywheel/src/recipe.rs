//! What a user writes: the tables of the single verbs as templates, and `[flywheel]`.

use crate::settings::{After, Arm, Settings};
use crate::training::{Tables, Training};
use crate::{Error, Stage};
use remit_corpus::{Prepare, TrainTokenizer};
use remit_objective::Objective;
use remit_train::settings::Common;
use remit_train::{ScoreSettings, Text};
use std::collections::BTreeMap;
use std::path::Path;

/// A recipe with one table a stage. The flywheel fills in places, seeds, objectives and references.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// `[flywheel]`.
    pub flywheel: Settings,
    /// `[tokenizer]`.
    pub tokenizer: Option<TrainTokenizer>,
    /// `[prepare]`.
    pub prepare: Option<Prepare>,
    /// `[pretrain]`.
    pub pretrain: Option<remit_train::Settings>,
    /// `[midtrain]`.
    pub midtrain: Option<remit_train::Settings>,
    /// `[score]`; without it references run beside the learner.
    pub score: Option<ScoreSettings>,
    /// `[sft]`, `[dpo]`, `[rl]`: those that there are.
    pub after: BTreeMap<After, Training>,
    /// `[eval]`; without it nothing is evaluated but the held-out text of the runs.
    pub eval: Option<remit_eval::Settings>,
    /// `[dynamics]`; without it no model is put beside another.
    pub dynamics: Option<remit_eval::dynamics::Settings>,
    /// What ids say of the engine that models run in; nothing of the one of this process.
    pub engine: Option<String>,
    /// The text of the `Cargo.lock` that generated ordinary text comes from.
    pub lockfile: String,
}

/// The templates as one arm has them.
#[derive(Clone, Debug)]
pub(crate) struct Templates {
    pub midtrain: remit_train::Settings,
    pub score: Option<ScoreSettings>,
    pub after: BTreeMap<After, Training>,
}

const FROM_ARMS: &str = "it follows from the arms";
const FROM_GRAPH: &str = "it follows from the stages before";
const FROM_RUN: &str = "everything goes to `flywheel.run`";
const FROM_SEEDS: &str = "it is one of `flywheel.seeds`";

impl Recipe {
    /// The tables of a recipe that has `[flywheel]`. `lockfile` is the text of the `Cargo.lock` that generated ordinary
    /// text comes from.
    ///
    /// # Errors
    /// A table that is not what it is to be.
    pub fn read<T: Tables>(tables: &mut T, lockfile: &str) -> Result<Recipe, T::Error> {
        Ok(Recipe {
            engine: None,
            flywheel: tables.table("flywheel")?.expect("it is there"),
            tokenizer: tables.table("tokenizer")?,
            prepare: tables.table("prepare")?,
            pretrain: tables.table("pretrain")?,
            midtrain: tables.table("midtrain")?,
            score: tables.table("score")?,
            after: {
                let mut after = BTreeMap::new();
                for stage in After::ALL {
                    after.extend(Training::read(stage, tables)?.map(|training| (stage, training)));
                }
                after
            },
            eval: tables.table("eval")?,
            dynamics: tables.table("dynamics")?,
            lockfile: lockfile.to_owned(),
        })
    }

    /// Checks the flywheel's settings, that every stage has its table, and that none sets what is filled in.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn validate(&self) -> Result<(), Error> {
        self.flywheel.validate()?;
        let missing = |table, wanted| Err(Error::MissingTable { table, wanted });
        if self.prepare.is_none() {
            return missing("prepare", "says what the corpus is");
        }
        if self.pretrain.is_none() && self.flywheel.base.is_none() {
            return missing("pretrain", "makes the checkpoint that mid-training starts from");
        }
        if self.midtrain.is_none() {
            return missing("midtrain", "is what the arms are about");
        }
        if let Some(after) = self.flywheel.after.iter().find(|after| !self.after.contains_key(after)) {
            return missing(after.point().name(), "`flywheel.after` names");
        }
        self.check_owned()
    }

    fn check_owned(&self) -> Result<(), Error> {
        let check = |is_set: bool, key: &str, how| match is_set {
            true => Err(Error::Owned { key: key.to_owned(), how }),
            false => Ok(()),
        };
        if let Some(prepare) = &self.prepare {
            let made = self.tokenizer.is_some() || self.flywheel.base.is_some();
            check(made && prepare.tokenizer.is_some(), "prepare.tokenizer", FROM_GRAPH)?;
        }
        let base = self.flywheel.base.is_some();
        check(base && self.tokenizer.is_some(), "tokenizer", "the one of `flywheel.base` is used")?;
        check(base && self.pretrain.is_some(), "pretrain", "`flywheel.base` is in its place")?;
        for training in self.training() {
            let key = |key: &str| format!("{}.{key}", training.name());
            let is_first = training.stage() == Stage::Pretrain;
            let Common { run, from, seed, .. } = training.common();
            let is_set = |path: &Path| !path.as_os_str().is_empty();
            check(is_set(run), &key("run"), FROM_RUN)?;
            check(!is_first && from.as_deref().is_some_and(is_set), &key("from"), FROM_GRAPH)?;
            check(!is_first && *seed != 1, &key("seed"), FROM_SEEDS)?;
            match &training {
                Training::Text(_, settings) => {
                    check(is_set(&settings.data.tokens), &key("data.tokens"), FROM_GRAPH)?;
                    check(settings.objective != Objective::Ntp, &key("objective"), FROM_ARMS)?;
                    check(settings.reference.is_some(), &key("reference"), FROM_ARMS)?;
                }
                Training::Dpo(settings) => check(settings.cache.is_some(), &key("cache"), FROM_RUN)?,
                Training::Rl(_) => {}
            }
        }
        if let Some(score) = &self.score {
            for (path, key, how) in [
                (&score.reference, "score.reference", FROM_ARMS),
                (&score.tokens, "score.tokens", FROM_GRAPH),
                (&score.out, "score.out", FROM_RUN),
            ] {
                check(!path.as_os_str().is_empty(), key, how)?;
            }
        }
        if let Some(eval) = &self.eval {
            check(!eval.model.as_os_str().is_empty(), "eval.model", FROM_GRAPH)?;
            check(eval.out.is_some(), "eval.out", FROM_RUN)?;
        }
        if let Some(dynamics) = &self.dynamics {
            check(!dynamics.runs.is_empty(), "dynamics.runs", FROM_GRAPH)?;
            check(!dynamics.reference.as_os_str().is_empty(), "dynamics.reference", FROM_GRAPH)?;
            check(dynamics.out.is_some(), "dynamics.out", FROM_RUN)?;
        }
        Ok(())
    }

    /// The stages that train, in the order of the pipeline.
    fn training(&self) -> Vec<Training> {
        let text = |stage, settings: &Option<remit_train::Settings>| {
            settings.clone().map(|settings| Training::Text(stage, Box::new(settings)))
        };
        let [pretrain, midtrain] =
            [text(Text::Pretrain, &self.pretrain), text(Text::Midtrain, &self.midtrain)];
        pretrain.into_iter().chain(midtrain).chain(self.after.values().cloned()).collect()
    }

    /// The templates with what `arm` has different.
    pub(crate) fn templates(&self, arm: &Arm) -> Result<Templates, Error> {
        let wrong = |table: &str, problem: String| {
            Err(Error::Setting { key: format!("flywheel.arms: {}.settings.{table}", arm.name), problem })
        };
        let after = After::ALL.map(|after| after.point().name());
        for table in arm.settings.keys().map(String::as_str) {
            let is_there = match table {
                "midtrain" => self.midtrain.is_some(),
                "score" => self.score.is_some(),
                _ if after.contains(&table) => self.after.values().any(|training| training.name() == table),
                _ => {
                    let [first @ .., last] = after.map(|name| format!("`{name}`"));
                    let known = first.join(", ");
                    return wrong(
                        table,
                        format!(
                            "is no stage that an arm can have its own way: `midtrain`, `score`, {known} and {last} are"
                        ),
                    );
                }
            };
            if !is_there {
                return wrong(table, format!("changes `[{table}]`, which the recipe does not have"));
            }
        }
        let after = self.after.iter().map(|(after, training)| Ok((*after, training.changed(arm)?)));
        let changed = Recipe {
            midtrain: self.midtrain.as_ref().map(|settings| arm.changed("midtrain", settings)).transpose()?,
            score: self.score.as_ref().map(|settings| arm.changed("score", settings)).transpose()?,
            after: after.collect::<Result<_, Error>>()?,
            ..self.clone()
        };
        changed.check_owned()?;
        let midtrain = changed.midtrain.expect("`validate` asks for it");
        Ok(Templates { midtrain, score: changed.score, after: changed.after })
    }
}
