//! `remit sft`.

use super::stage::{self, Training};
use crate::args::Shared;
use crate::render::error::Failure;
use clap::Args;
use remit_train::Text;
use std::path::PathBuf;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Rows to learn from: JSONL, JSON or Parquet, with `prompt` and `completion` or with `messages`
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What all verbs that train have.
    #[command(flatten)]
    pub training: Training,
    /// Length of the run in passes over the rows
    #[arg(long, value_name = "N")]
    pub epochs: Option<f64>,
    /// Chat template: `chatml`, `tulu`, `own` or a Jinja file
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { files, training, epochs, template } = arguments;
    let flags = training
        .flags("sft")
        .value("sft.data.examples.files", super::paths(&files)?)
        .value("sft.data.examples.template", template)
        .value("sft.epochs", epochs);
    stage::run(Text::Sft, flags, shared)
}
