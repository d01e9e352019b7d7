//! What a user writes: the tables of the single verbs as templates, and `[flywheel]`.

use crate::settings::{After, Arm, Settings};
use crate::{Error, identity};
use remit_corpus::{Prepare, TrainTokenizer};
use remit_objective::Objective;
use remit_train::ScoreSettings;
use serde::Serialize;
use serde::de::DeserializeOwned;

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
    /// `[sft]`.
    pub sft: Option<remit_train::Settings>,
    /// `[dpo]`.
    pub dpo: Option<remit_train::dpo::Settings>,
    /// `[rl]`.
    pub rl: Option<remit_rl::Settings>,
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
    pub sft: Option<remit_train::Settings>,
    pub dpo: Option<remit_train::dpo::Settings>,
    pub rl: Option<remit_rl::Settings>,
}

const FROM_ARMS: &str = "it follows from the arms";
const FROM_GRAPH: &str = "it follows from the stages before";
const FROM_RUN: &str = "everything goes to `flywheel.run`";
const FROM_SEEDS: &str = "it is one of `flywheel.seeds`";

impl Recipe {
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
        for after in &self.flywheel.after {
            match after {
                After::Sft if self.sft.is_none() => return missing("sft", "`flywheel.after` names"),
                After::Dpo if self.dpo.is_none() => return missing("dpo", "`flywheel.after` names"),
                After::Rl if self.rl.is_none() => return missing("rl", "`flywheel.after` names"),
                _ => {}
            }
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
        for (stage, settings) in
            [("pretrain", &self.pretrain), ("midtrain", &self.midtrain), ("sft", &self.sft)]
        {
            let Some(settings) = settings else { continue };
            let key = |key: &str| format!("{stage}.{key}");
            let is_first = stage == "pretrain";
            check(!settings.run.as_os_str().is_empty(), &key("run"), FROM_RUN)?;
            check(!is_first && settings.from.is_some(), &key("from"), FROM_GRAPH)?;
            check(!settings.data.tokens.as_os_str().is_empty(), &key("data.tokens"), FROM_GRAPH)?;
            check(settings.objective != Objective::Ntp, &key("objective"), FROM_ARMS)?;
            check(settings.reference.is_some(), &key("reference"), FROM_ARMS)?;
            check(!is_first && settings.seed != 1, &key("seed"), FROM_SEEDS)?;
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
        if let Some(dpo) = &self.dpo {
            check(!dpo.run.as_os_str().is_empty(), "dpo.run", FROM_RUN)?;
            check(dpo.cache.is_some(), "dpo.cache", FROM_RUN)?;
            check(!dpo.from.as_os_str().is_empty(), "dpo.from", FROM_GRAPH)?;
            check(dpo.seed != 1, "dpo.seed", FROM_SEEDS)?;
        }
        if let Some(rl) = &self.rl {
            check(!rl.run.as_os_str().is_empty(), "rl.run", FROM_RUN)?;
            check(!rl.from.as_os_str().is_empty(), "rl.from", FROM_GRAPH)?;
            check(rl.seed != 1, "rl.seed", FROM_SEEDS)?;
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

    /// The templates with what `arm` has different.
    pub(crate) fn templates(&self, arm: &Arm) -> Result<Templates, Error> {
        for key in arm.settings.keys() {
            if !["midtrain", "score", "sft", "dpo", "rl"].contains(&key.as_str()) {
                let problem = "is no stage that an arm can have its own way: `midtrain`, `score`, `sft`, `dpo` and `rl` are";
                return Err(Error::Setting {
                    key: format!("flywheel.arms: {}.settings.{key}", arm.name),
                    problem: problem.into(),
                });
            }
        }
        let changed = Recipe {
            midtrain: changed(arm, "midtrain", &self.midtrain)?,
            score: changed(arm, "score", &self.score)?,
            sft: changed(arm, "sft", &self.sft)?,
            dpo: changed(arm, "dpo", &self.dpo)?,
            rl: changed(arm, "rl", &self.rl)?,
            ..self.clone()
        };
        changed.check_owned()?;
        Ok(Templates {
            midtrain: changed.midtrain.expect("`validate` asks for it"),
            score: changed.score,
            sft: changed.sft,
            dpo: changed.dpo,
            rl: changed.rl,
        })
    }
}

/// A template with an arm's own settings in it.
fn changed<T: Clone + Serialize + DeserializeOwned>(
    arm: &Arm,
    stage: &str,
    template: &Option<T>,
) -> Result<Option<T>, Error> {
    let Some(change) = arm.settings.get(stage) else { return Ok(template.clone()) };
    let key = format!("flywheel.arms: {}.settings.{stage}", arm.name);
    let wrong = |problem: String| Error::Setting { key: key.clone(), problem };
    let toml::Value::Table(change) = change else { return Err(wrong("is not a table".into())) };
    let Some(template) = template else {
        return Err(wrong(format!("changes `[{stage}]`, which the recipe does not have")));
    };
    let mut table = toml::Table::try_from(template).expect("settings are plain values");
    identity::merge(&mut table, change);
    table.try_into().map(Some).map_err(|error: toml::de::Error| wrong(error.message().to_owned()))
}
