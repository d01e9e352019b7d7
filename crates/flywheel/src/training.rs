//! The stages that train, as one: what the flywheel fills into the settings of any, and what it asks of them.
//!
//! A further stage is a variant here, with its arm in each match.

use crate::settings::{After, Arm};
use crate::{Error, Stage};
use remit_corpus::examples::Examples;
use remit_rl::Rl;
use remit_train::Text;
use remit_train::dpo::Dpo;
use remit_train::settings::{Common, StageSettings};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::PathBuf;

/// A stage that trains, with its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Training {
    /// Over text.
    Text(Text, Box<remit_train::Settings>),
    /// Over preferences.
    Dpo(Box<remit_train::dpo::Settings>),
    /// With rewards.
    Rl(Box<remit_rl::Settings>),
}

/// Does the same with the stage and the settings of whichever it is.
macro_rules! each {
    ($training:expr, |$stage:ident, $settings:ident| $body:expr) => {
        match $training {
            Training::Text(stage, $settings) => {
                let $stage = *stage;
                $body
            }
            Training::Dpo($settings) => {
                let $stage = Dpo;
                $body
            }
            Training::Rl($settings) => {
                let $stage = Rl;
                $body
            }
        }
    };
}
pub(crate) use each;

/// The tables of a recipe.
pub trait Tables {
    /// What can go wrong.
    type Error;

    /// The table of this name, where there is one.
    ///
    /// # Errors
    /// One that is not what it is to be.
    fn table<T: DeserializeOwned + Serialize>(&mut self, name: &str) -> Result<Option<T>, Self::Error>;
}

impl Training {
    /// The table of a stage behind mid-training.
    pub(crate) fn read<T: Tables>(after: After, tables: &mut T) -> Result<Option<Training>, T::Error> {
        let name = after.point().name();
        Ok(match after {
            After::Sft => tables.table(name)?.map(|settings| Training::Text(Text::Sft, settings)),
            After::Dpo => tables.table(name)?.map(Training::Dpo),
            After::Rl => tables.table(name)?.map(Training::Rl),
        })
    }

    /// The same with what `arm` has different.
    pub(crate) fn changed(&self, arm: &Arm) -> Result<Training, Error> {
        Ok(match self {
            Training::Text(stage, settings) => Training::Text(*stage, arm.changed(stage.name(), settings)?),
            Training::Dpo(settings) => Training::Dpo(arm.changed(self.name(), settings)?),
            Training::Rl(settings) => Training::Rl(arm.changed(self.name(), settings)?),
        })
    }

    /// Which node it makes.
    pub fn stage(&self) -> Stage {
        match self {
            Training::Text(Text::Pretrain, _) => Stage::Pretrain,
            Training::Text(Text::Midtrain, _) => Stage::Midtrain,
            Training::Text(Text::Sft, _) => Stage::Sft,
            Training::Dpo(_) => Stage::Dpo,
            Training::Rl(_) => Stage::Rl,
        }
    }

    /// The verb and the recipe's table.
    pub fn name(&self) -> &'static str {
        self.stage().name()
    }

    /// What every stage has.
    pub fn common(&self) -> &Common {
        each!(self, |_stage, settings| &settings.common)
    }

    pub(crate) fn common_mut(&mut self) -> &mut Common {
        each!(self, |_stage, settings| &mut settings.common)
    }

    /// The reference that a user may name, where the arms do not say which.
    pub(crate) fn reference_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Training::Text(..) => None,
            Training::Dpo(settings) => settings.reference.as_mut(),
            Training::Rl(settings) => settings.reference.as_mut(),
        }
    }

    /// The rows that it learns from, and what they are called.
    pub(crate) fn examples_mut(&mut self) -> Option<(&'static str, &mut Examples)> {
        match self {
            Training::Text(Text::Sft, settings) => Some(("examples", settings.data.examples.as_mut()?)),
            Training::Text(..) => None,
            Training::Dpo(settings) => Some(("examples", &mut settings.examples)),
            Training::Rl(settings) => Some(("prompts", &mut settings.prompts)),
        }
    }

    /// The path of the token store, where it reads one.
    pub(crate) fn tokens_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Training::Text(Text::Pretrain | Text::Midtrain, settings) => Some(&mut settings.data.tokens),
            _ => None,
        }
    }

    /// Checks what can be checked without opening a file.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        each!(self, |stage, settings| Ok(remit_train::Stage::validate(stage, settings)?))
    }

    /// The settings that make its id, with what the stage decides where they are silent, which counts as if it were said;
    /// and those of them that are no part of its result.
    pub(crate) fn identified(&self) -> (Value, Vec<&'static str>) {
        fn of<S: remit_train::Stage>(stage: S, settings: &S::Settings) -> (Value, Vec<&'static str>) {
            let mut settings = settings.clone();
            stage.complete(&mut settings);
            (
                serde_json::to_value(settings).expect("settings are plain values"),
                S::Settings::no_part_of_result(),
            )
        }
        each!(self, |stage, settings| of(stage, settings))
    }
}
