//! `remit problems`: generated problems with worked solutions, as documents or as rows.

use crate::args::Shared;
use crate::render::error::Failure;
use crate::render::units;
use clap::{Args, ValueEnum};
use remit_micro10::{Family, Level, Noise, Problems, Split};
use remit_store::atomic::write_json_lines;
use std::path::PathBuf;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where the JSON lines go
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub count: usize,
    /// What each line holds
    #[arg(long, value_enum, default_value_t = Form::Rows)]
    pub form: Form,
    /// Families, with commas between; the ten of micro10 by default
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub families: Vec<String>,
    /// How hard they are: 1, 2 or 3
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub level: u8,
    /// Which half of all problems they come from
    #[arg(long, value_enum, default_value_t = Half::Train)]
    pub split: Half,
    /// Decides every choice
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Share of problems with corrupted working
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub corrupted: f64,
    /// Share of problems with filler phrases
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub filler: f64,
}

/// What a line holds.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Form {
    /// `prompt`, `completion`, `solution` and `dataset`: for `sft`, `rl`
    Rows,
    /// `prompt`, `chosen` and `rejected`, the solution with wrong characters in it: for `dpo`
    Pairs,
    /// `text`: for `prepare`
    Documents,
}

/// The two halves.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Half {
    /// Seven eighths of all problems
    Train,
    /// One eighth, what `eval` asks
    Test,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { out, count, form, families, level, split, seed, corrupted, filler } = arguments;
    let families = match &families[..] {
        [] => Family::MICRO10.into(),
        names => names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
    };
    let split = match split {
        Half::Train => Split::Train,
        Half::Test => Split::Test,
    };
    let level = Level::try_from(level).map_err(Failure::usage)?;
    let noise = Noise { corrupted, filler };
    let problems = Problems { families, level, seed, count, noise, split };
    if !shared.dry_run {
        match form {
            Form::Rows => write_json_lines(&out, problems.rows()?)?,
            Form::Pairs => write_json_lines(&out, problems.pairs()?)?,
            Form::Documents => write_json_lines(&out, problems.documents()?)?,
        }
    }
    let names: Vec<&str> = problems.families.iter().map(|family| family.name()).collect();
    shared.print(
        || format!("{} problems of {}: {}\n", units::count(count as u64), names.join(", "), out.display()),
        &problems,
    )
}
