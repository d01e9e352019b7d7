//! `remit report`: what a flywheel came to, as a page.

use super::{excerpts, flywheel};
use crate::args::Shared;
use crate::render::error::Failure;
use clap::Args;
use remit_engine::Engine;
use remit_flywheel::{Graph, report};
use remit_report::{Now, Options, Run, paths};
use std::path::{Path, PathBuf};

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Run directory of a flywheel, finished or not, or of a single run
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Leave out what a clock said
    #[arg(long)]
    pub no_times: bool,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { run, no_times } = arguments;
    // With its recipe a flywheel that has not finished knows its arms.
    let now = match &shared.config {
        Some(_) => {
            let (recipe, toml) = flywheel::read(flywheel::open(shared)?, Some(&run), shared)?;
            Some(Now { flywheel: report::read(&Graph::new(&recipe)?)?, recipe: toml })
        }
        None => None,
    };
    if shared.dry_run {
        Run::read(&run, now.as_ref())?;
        let [html, markdown] = paths(&run);
        return shared.print(
            || format!("would write {} and {}\n", html.display(), markdown.display()),
            &serde_json::json!({ "html": html, "markdown": markdown }),
        );
    }
    let [html, markdown] = write(&run, now.as_ref(), no_times, &mut *shared.engine()?)?;
    let value = serde_json::json!({ "html": html, "markdown": markdown });
    shared.print(|| format!("{}\n{}\n", html.display(), markdown.display()), &value)
}

/// Writes the report of a run directory; the paths of the page and of the Markdown.
pub(super) fn write(
    run: &Path,
    now: Option<&Now>,
    no_times: bool,
    engine: &mut dyn Engine,
) -> Result<[PathBuf; 2], Failure> {
    let read = Run::read(run, now)?;
    let excerpts = excerpts::of_run(&read, run, engine)?;
    let document = remit_report::report(&read, &Options { no_times, excerpts });
    Ok(remit_report::write(&document, run)?)
}
