//! `remit sft`.

use super::stage;
use crate::args::{Flags, Shared};
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
    /// Run directory
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Checkpoint or run to start from
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// Passes over the rows
    #[arg(long, value_name = "N")]
    pub epochs: Option<f64>,
    /// Chat template: `chatml`, `tulu`, `own` or a Jinja file
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { files, run, from, epochs, template } = arguments;
    let flags = Flags::default()
        .value("sft.data.examples.files", super::paths(&files))
        .value("sft.data.examples.template", template)
        .path("sft.run", run.as_deref())
        .path("sft.from", from.as_deref())
        .value("sft.epochs", epochs);
    stage::run(Text::Sft, flags, shared)
}
