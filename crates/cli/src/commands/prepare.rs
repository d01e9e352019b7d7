//! `remit prepare`: sources to a token store.

use super::sources;
use crate::args::{Flags, Shared};
use crate::progress::{Bytes, Display};
use crate::render::error::{Failure, warn};
use crate::render::table::Table;
use crate::render::{print, units};
use clap::Args;
use remit_corpus::{Prepare, Progress, Summary, prepare};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Text, JSONL (.gz, .zst, .br), Parquet, .npy or .bin files, instead of the recipe's sources
    pub files: Vec<PathBuf>,
    /// The token store to make
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// A `tokenizer.json`, or a directory with one
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Field with the text, or a template such as "{question}\n{answer}", in which \n is a line feed
    #[arg(long, value_name = "FIELD")]
    pub text_field: Option<String>,
    /// Share of the documents to keep apart, in `heldout` inside the store
    #[arg(long, value_name = "SHARE")]
    pub holdout: Option<f64>,
    /// Count, report and skip malformed records instead of stopping at the first
    #[arg(long)]
    pub skip_bad_records: bool,
    /// Replace a store made of other inputs
    #[arg(long)]
    pub overwrite: bool,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { files, out, tokenizer, text_field, holdout, skip_bad_records, overwrite } = arguments;
    let flags = Flags::default()
        .value("prepare.sources", sources(&files, text_field.as_deref())?)
        .path("prepare.tokenizer", tokenizer.as_deref())
        .value("prepare.holdout", holdout)
        .value("prepare.skip_bad_records", skip_bad_records.then_some(true))
        .value("prepare.overwrite", overwrite.then_some(true))
        .value("prepare.threads", shared.threads.map(|threads| threads as i64));
    let settings = shared.resolve::<Prepare>("prepare", flags)?;
    if shared.dry_run {
        let mut table = Table::new(&["source", "files", "size"]);
        for input in settings.value.inputs()? {
            table.row([input.name, input.num_files.to_string(), units::bytes(input.num_bytes)]);
        }
        return print(&format!("{}\n{}to {}\n", settings.toml, table.to_plain(), out.display()));
    }
    let summary = make(&settings.value, &out, shared.display())?;
    shared.print(|| describe(&summary, &out), &summary)
}

/// Prepares with progress.
pub(crate) fn make(settings: &Prepare, out: &Path, display: Display) -> Result<Summary, Failure> {
    let watch = Watch::new(display, "prepare");
    let summary = prepare(settings, out, &watch)?;
    watch.finish();
    if summary.skipped.count > 0 {
        warn(&format!("{} malformed records were skipped", summary.skipped.count));
    }
    Ok(summary)
}

fn describe(summary: &Summary, out: &Path) -> String {
    let mut table = Table::new(&["source", "documents", "tokens"]);
    for source in &summary.sources {
        table.row([source.name.clone(), units::count(source.num_documents), units::count(source.num_tokens)]);
    }
    let apart = match summary.num_heldout_documents {
        0 => String::new(),
        documents => format!(
            "kept apart: {} documents, {} tokens\n",
            units::count(documents),
            units::count(summary.num_heldout_tokens)
        ),
    };
    let already = if summary.already_prepared { " (was there already)" } else { "" };
    format!("{}{apart}{}{already}\n", table.to_plain(), out.display())
}

/// Shows the progress of reading files.
pub(crate) struct Watch {
    display: Display,
    label: &'static str,
    bar: Mutex<Option<(Bytes, u64)>>,
}

impl Watch {
    /// Nothing is shown before the first call.
    pub(crate) fn new(display: Display, label: &'static str) -> Watch {
        Watch { display, label, bar: Mutex::new(None) }
    }

    /// Ends with a line that stays.
    pub(crate) fn finish(self) {
        if let Some((bar, _)) = self.bar.into_inner().unwrap_or_else(PoisonError::into_inner) {
            bar.finish();
        }
    }
}

impl Progress for Watch {
    fn advance(&self, done_bytes: u64, total_bytes: u64, _tokens: u64) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let (bar, shown) = bar.get_or_insert_with(|| {
            (Bytes::start(self.display, self.label, done_bytes, total_bytes), done_bytes)
        });
        bar.add(done_bytes.saturating_sub(*shown));
        *shown = done_bytes.max(*shown);
    }

    fn message(&self, text: &str) {
        match &*self.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((bar, _)) => bar.note(text),
            None => eprintln!("{text}"),
        }
    }
}
