//! `remit generate`: continue a prompt.

use super::{print_json, read_ids};
use crate::args::Shared;
use crate::commands::weights::no_tokenizer;
use crate::render::error::Failure;
use crate::render::print;
use clap::Args;
use remit_corpus::Tokenizer;
use remit_model::{Decoder, Sampling, generate};
use remit_train::locate_checkpoint;
use std::path::PathBuf;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Checkpoint or run
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Text to continue
    #[arg(long, value_name = "TEXT", required_unless_present = "ids", conflicts_with = "ids")]
    pub prompt: Option<String>,
    /// JSON array of arrays of token ids to continue; needs no tokenizer
    #[arg(long, value_name = "FILE")]
    pub ids: Option<PathBuf>,
    /// Tokens to add at most; fewer when the model ends the text
    #[arg(long, value_name = "N")]
    pub max_new_tokens: usize,
    /// Always take the likeliest token
    #[arg(long, conflicts_with_all = ["temperature", "top_p"])]
    pub greedy: bool,
    /// Divisor of the logits
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    pub temperature: f32,
    /// Draw among the likeliest tokens that together hold this mass
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f32,
    /// Seed of the draws
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { model, prompt, ids, max_new_tokens, greedy, temperature, top_p, seed } = arguments;
    let sampling = if greedy { Sampling::Greedy } else { Sampling::Random { temperature, top_p, seed } };
    sampling.validate()?;
    let path = locate_checkpoint(&model)?;
    let tokenizer_path = path.join("tokenizer.json");
    let tokenizer = if tokenizer_path.is_file() { Some(Tokenizer::open(&tokenizer_path)?) } else { None };
    let prompts = match (ids, prompt) {
        (Some(file), _) => read_ids(&file)?,
        (None, Some(text)) => {
            let tokenizer = tokenizer.as_ref().ok_or_else(|| no_tokenizer(&path))?;
            // A document begins behind an end token in training, so a prompt does too.
            let mut ids: Vec<u32> = tokenizer.eos().into_iter().collect();
            ids.extend(tokenizer.encode(&text)?);
            vec![ids]
        }
        (None, None) => unreachable!("clap asks for one of the two"),
    };
    if shared.dry_run {
        let architecture = remit_model::Architecture::open(&path)?;
        let parameters = architecture.family.layout(&architecture).len() as u64;
        return print(&format!(
            "model {} ({} parameters), {} prompts\n",
            path.display(),
            crate::render::units::count(parameters),
            prompts.len()
        ));
    }
    let mut decoder = Decoder::frozen(&path)?;
    let mut sequences = Vec::new();
    for prompt in &prompts {
        sequences.push(generate(&mut decoder, prompt, max_new_tokens, sampling)?);
    }
    if shared.json {
        return print_json(&serde_json::json!({ "sequences": sequences }));
    }
    for sequence in &sequences {
        match &tokenizer {
            Some(tokenizer) => {
                let text: &[u32] =
                    if sequence.first().copied() == tokenizer.eos() { &sequence[1..] } else { sequence };
                print(&(tokenizer.decode(text)? + "\n"))?;
            }
            None => print_json(sequence)?,
        }
    }
    Ok(())
}
