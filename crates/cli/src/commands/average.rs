//! `remit average`: the plain average of checkpoints.

use crate::args::Shared;
use crate::render::error::Failure;
use clap::Args;
use remit_corpus::Companions;
use remit_model::Architecture;
use remit_store::atomic;
use remit_train::locate_checkpoint;
use serde_json::json;
use std::path::PathBuf;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Checkpoints, or runs whose latest checkpoints are meant; of one architecture
    #[arg(required = true, value_name = "CHECKPOINT", num_args = 2..)]
    pub checkpoints: Vec<PathBuf>,
    /// The checkpoint to make, in float32; tokenizer and chat template are those of the first
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { checkpoints, out } = arguments;
    let paths = checkpoints.iter().map(|path| locate_checkpoint(path)).collect::<Result<Vec<_>, _>>()?;
    if shared.dry_run {
        paths.iter().try_for_each(|path| Architecture::of_checkpoint(path).map(drop))?;
    } else {
        let companions = Companions::read(&paths[0])?;
        atomic::directory(&out, |directory| -> Result<(), Failure> {
            remit_model::average(&paths, directory)?;
            Ok(companions.write(directory)?)
        })?;
    }
    let text = || {
        let lines: String = paths.iter().map(|path| format!("{}\n", path.display())).collect();
        format!("{lines}-> {}\n", out.display())
    };
    shared.print(text, &json!({"checkpoints": paths, "out": out}))
}
