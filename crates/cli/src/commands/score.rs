//! `remit score`: a reference's log-probabilities of a token store, written down once.

use crate::args::{Flags, Shared};
use crate::commands::train::speed;
use crate::progress::{Display, Windows};
use crate::render::error::Failure;
use crate::render::{print, units};
use clap::Args;
use remit_engine::Engine;
use remit_store::scores::{Merge, Shard};
use remit_train::{ScoreObserver, ScorePlan, ScoreSettings, score};
use std::path::PathBuf;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Reference: a checkpoint, or a run whose latest checkpoint is meant
    #[arg(long, value_name = "DIR")]
    pub reference: Option<PathBuf>,
    /// Token store
    #[arg(long, value_name = "STORE")]
    pub tokens: Option<PathBuf>,
    /// Score store to make
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Predictions a window
    #[arg(long, value_name = "N")]
    pub window: Option<usize>,
    /// How scores are stored: f16 or f32
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<String>,
    /// Score the i-th of n parts, from 1/n to n/n, each in a process of its own; the last to finish merges
    #[arg(long, value_name = "i/n")]
    pub shard: Option<String>,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { reference, tokens, out, window, dtype, shard } = arguments;
    let flags = Flags::default()
        .path("score.reference", reference.as_deref())
        .path("score.tokens", tokens.as_deref())
        .path("score.out", out.as_deref())
        .value("score.window", window.map(|window| window as i64))
        .value("score.dtype", dtype);
    let settings = shared.resolve::<ScoreSettings>("score", flags)?;
    let shard: Shard = match shard {
        Some(text) => text.parse().map_err(|error| Failure::usage(format!("`--shard {text}`: {error}")))?,
        None => Shard::WHOLE,
    };
    let plan = ScorePlan::new(settings.value)?;
    let windows = shard.windows(plan.windows.len());
    if shared.dry_run {
        return dry_run(&plan, &settings.toml, windows.end - windows.start);
    }
    let merge = make(&plan, shard, &mut *shared.engine()?, shared.display())?;
    let result = serde_json::json!({
        "scores": plan.settings.out, "windows": windows.end - windows.start, "complete": matches!(merge, Merge::Complete),
    });
    let out = plan.settings.out.display();
    let text = || match merge {
        Merge::Complete => format!("{out}\n"),
        Merge::Waiting(shards) => {
            let names: Vec<String> = shards.iter().map(|unfinished| unfinished.shard.to_string()).collect();
            format!("{out}: still to come: shard {}\n", names.join(", "))
        }
    };
    shared.print(text, &result)
}

/// Resolved settings, parameters, windows, disk space, time.
fn dry_run(plan: &ScorePlan, settings: &str, windows: u64) -> Result<(), Failure> {
    let ScorePlan { settings: ScoreSettings { window, dtype, precision, out, .. }, .. } = plan;
    let bytes = plan.windows.len() * (window * dtype.bytes()) as u64;
    // A forward pass is a third of a training step.
    let flops = plan.architecture.training_flops(*window) / 3.0 * (windows * *window as u64) as f64;
    let parameters = plan.architecture.num_parameters();
    print(&format!(
        "{settings}\nreference    {} ({} parameters)\nwindows      {} of {}\nstore        {} ({})\n\
         time         {}, estimated here and now\n",
        plan.checkpoint.display(),
        units::count(parameters),
        units::count(windows),
        units::count(plan.windows.len()),
        out.display(),
        units::bytes(bytes),
        units::duration(flops / (0.8 * speed(*precision)))
    ))
}

/// Scores with progress.
pub(crate) fn make(
    plan: &ScorePlan,
    shard: Shard,
    engine: &mut dyn Engine,
    display: Display,
) -> Result<Merge, Failure> {
    let mut watch = Watch { display, length: plan.settings.window as u64, bar: None, shown: 0 };
    let merge = score(plan, shard, engine, &mut watch)?;
    if let Some(bar) = watch.bar {
        bar.finish();
    }
    Ok(merge)
}

struct Watch {
    display: Display,
    length: u64,
    bar: Option<Windows>,
    shown: u64,
}

impl ScoreObserver for Watch {
    fn advance(&mut self, done: u64, total: u64) {
        let bar = self.bar.get_or_insert_with(|| {
            self.shown = done;
            Windows::start(self.display, "score", done, total)
        });
        bar.add(done - self.shown, (done - self.shown) * self.length);
        self.shown = done;
    }
}
