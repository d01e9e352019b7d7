//! `remit quickstart`: the flywheel on the embedded default, iterations 0 and 1.

use super::flywheel;
use crate::args::{SECTIONS, Shared};
use crate::render::error::Failure;
use crate::settings::Recipe;
use clap::Args;
use std::path::PathBuf;

/// The recipe, and the lock file that says which versions of the dependencies the ordinary text comes from.
const RECIPE: &str = include_str!("../../../../recipes/quickstart.toml");
pub(super) const LOCKFILE: &str = include_str!("../../../../Cargo.lock");

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where everything goes
    #[arg(long, value_name = "DIR", default_value = "runs/quickstart")]
    pub dir: PathBuf,
    /// Show every node: done, begun, to do, damaged, or stale
    #[arg(long)]
    pub status: bool,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    if shared.config.is_some() {
        return Err(Failure::usage("the quickstart has a recipe of its own")
            .hint("`remit flywheel --config FILE` runs yours"));
    }
    let recipe = Recipe::parse("recipes/quickstart.toml".as_ref(), RECIPE.to_owned(), &SECTIONS)?;
    let arguments = flywheel::Arguments { run: Some(arguments.dir), status: arguments.status, prune: false };
    flywheel::turn(recipe, arguments, shared)
}
