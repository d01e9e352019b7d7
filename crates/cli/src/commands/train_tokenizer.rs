//! `remit train-tokenizer`: text to `tokenizer.json`.

use super::{describe, sources};
use crate::args::{Flags, Shared};
use crate::commands::prepare::Watch;
use crate::render::error::Failure;
use crate::render::{print, units};
use clap::Args;
use remit_corpus::{TrainTokenizer, train_tokenizer};
use std::path::PathBuf;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Text, JSONL or Parquet files to learn from, besides or instead of the recipe's `[tokenizer]`
    pub files: Vec<PathBuf>,
    /// Where `tokenizer.json` goes; `tokenizer_config.json` comes beside it
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Tokens wanted in all
    #[arg(long, value_name = "N")]
    pub vocab_size: Option<u32>,
    /// Field with the text, or a template such as "{question}\n{answer}"
    #[arg(long, value_name = "FIELD")]
    pub text_field: Option<String>,
    /// Count, report and skip malformed records instead of stopping at the first
    #[arg(long)]
    pub skip_bad_records: bool,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { files, out, vocab_size, text_field, skip_bad_records } = arguments;
    let flags = Flags::default()
        .value("tokenizer.skip_bad_records", skip_bad_records.then_some(true))
        .value("tokenizer.sources", sources(&files, text_field.as_deref())?)
        .value("tokenizer.vocab_size", vocab_size.map(i64::from));
    let settings = shared.resolve::<TrainTokenizer>("tokenizer", flags)?;
    if shared.dry_run {
        return print(&format!(
            "{}\n# from {}\n# to {}\n",
            settings.toml,
            describe(&settings.value.sources),
            out.display()
        ));
    }
    let watch = Watch::new(shared.display(), "train-tokenizer");
    let trained = train_tokenizer(&settings.value, &watch)?;
    trained.write(&out)?;
    watch.finish();
    let result = serde_json::json!({"tokenizer": out, "vocab_size": trained.vocab_size});
    shared
        .print(|| format!("{}: {} tokens\n", out.display(), units::count(trained.vocab_size.into())), &result)
}
