//! `remit generate`: continue prompts, many at a time.

use super::{print_json, read_ids};
use crate::args::Shared;
use crate::commands::weights::no_tokenizer;
use crate::progress::Sequences;
use crate::render::error::Failure;
use crate::render::print;
use clap::Args;
use remit_corpus::examples::{Counted, Encoder, Examples, Place, Row, Rows};
use remit_corpus::{Bos, Tokenizer};
use remit_engine::{Precision, Usage};
use remit_model::generate::{Completion, Request, Sampling, Settings, Watch};
use remit_train::locate_checkpoint;
use std::path::PathBuf;
use std::sync::Arc;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Checkpoint or run
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Text to continue
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["ids", "prompts"], conflicts_with_all = ["ids", "prompts"])]
    pub prompt: Option<String>,
    /// Rows to continue, JSON lines or Parquet: `prompt`, a text or messages, of which the last stays open where it is the
    /// assistant's; or `messages` up to the assistant's last answer. Messages go through the model's chat template
    #[arg(long, value_name = "FILE", conflicts_with = "ids")]
    pub prompts: Option<PathBuf>,
    /// Put prompts that are text through the model's chat template too, as what a user says; what ends a turn there ends
    /// a continuation
    #[arg(long, conflicts_with_all = ["ids", "bos"])]
    pub chat: bool,
    /// What stands in front of the prompt: own (what the tokenizer's post-processor puts there), none or a token
    #[arg(long, value_name = "TOKEN", default_value_t, conflicts_with = "ids")]
    pub bos: Bos,
    /// JSON array of arrays of token ids to continue; needs no tokenizer
    #[arg(long, value_name = "FILE")]
    pub ids: Option<PathBuf>,
    /// Tokens to add at most; fewer when the model ends the text
    #[arg(long, value_name = "N")]
    pub max_new_tokens: usize,
    /// Always take the likeliest token
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p"])]
    pub greedy: bool,
    /// Divisor of the logits
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    pub temperature: f32,
    /// Draw among the K likeliest tokens
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Draw among the likeliest tokens that together hold this mass
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f32,
    /// Seed of the draws. Sample `i` of every prompt, from 0, has the seed `S + i`: a continuation depends on its prompt
    /// and its seed alone
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Continuations of each prompt; they come one after the other
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub num_samples: u32,
    /// Sequences at work at the same time. Never changes a result
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub batch_size: usize,
    /// Arithmetic of matrix products: f32, or bf16, which reads half the bytes a token
    #[arg(long, value_name = "P", default_value = "f32")]
    pub precision: Precision,
    /// End a continuation that contains this text, which stays in it; `\n` is a line feed. May be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Also print each new token's log-probability under the model (temperature 1, no token left out)
    #[arg(long, requires = "json")]
    pub log_probs: bool,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments {
        model,
        prompt,
        prompts,
        chat,
        ids,
        max_new_tokens,
        greedy,
        temperature,
        top_k,
        top_p,
        ..
    } = arguments;
    let Arguments { seed, num_samples, batch_size, stop, log_probs, bos, precision, .. } = arguments;
    let stop: Vec<String> = stop.iter().map(|text| crate::settings::unescape(text)).collect();
    let sampling = if greedy { Sampling::Greedy } else { Sampling::Random { temperature, top_k, top_p } };
    let mut settings = Settings { batch_size, ..Settings::new(sampling) };
    settings.validate()?;
    if stop.iter().any(String::is_empty) {
        return Err(Failure::usage("`--stop` needs a text"));
    }
    let path = locate_checkpoint(&model)?;
    let tokenizer = Tokenizer::of_checkpoint(&path)?.map(Arc::new);
    let prefix = match &tokenizer {
        Some(tokenizer) => tokenizer.prefix(&bos)?,
        None => Vec::new(),
    };
    let is_text = ids.is_none();
    let prompts = match ids {
        Some(file) => read_ids(&file)?,
        None => {
            let tokenizer = tokenizer.clone().ok_or_else(|| no_tokenizer(&path))?;
            let template = chat.then(|| "own".to_owned());
            let encoder = Encoder::new(&Examples { template, bos, ..Examples::default() }, tokenizer)?;
            if chat {
                settings.stop_sequences.extend(encoder.stop_tokens()?.into_iter().map(|token| vec![token]));
            }
            encode(&encoder, prompt, prompts, chat)?
        }
    };
    if shared.dry_run {
        let parameters = remit_model::Architecture::open(&path)?.num_parameters();
        return print(&format!(
            "model {} ({} parameters), {} prompts{}\n",
            path.display(),
            crate::render::units::count(parameters),
            prompts.len(),
            begin_with(tokenizer.as_deref().filter(|_| is_text && !chat), &prefix)
        ));
    }
    if tokenizer.is_none() && !stop.is_empty() {
        return Err(no_tokenizer(&path));
    }
    let requests: Vec<Request> = prompts
        .iter()
        .flat_map(|prompt| (0..num_samples).map(move |sample| (prompt, sample)))
        .map(|(prompt, sample)| Request {
            prompt: prompt.clone(),
            seed: seed.wrapping_add(sample.into()),
            max_new_tokens,
        })
        .collect();
    let mut engine = shared.engine()?;
    let model = engine.open(&path, &Usage { precision, ..Usage::default() })?;
    let progress = Sequences::start(shared.display(), "generate", requests.len() as u64);
    let mut watch = Onlooker { tokenizer: tokenizer.as_deref(), stop: &stop, progress: &progress };
    let completions = engine.generate(model, &requests, &settings, &mut watch)?;
    progress.finish();

    let sequences = requests.iter().zip(&completions);
    let sequences: Vec<Vec<u32>> =
        sequences.map(|(request, completion)| [&request.prompt[..], &completion.tokens].concat()).collect();
    if shared.json {
        let mut result = serde_json::json!({ "sequences": sequences });
        if let Some(tokenizer) = tokenizer.filter(|_| is_text) {
            let texts = completions.iter().map(|completion| tokenizer.decode(&completion.tokens));
            result["texts"] = serde_json::json!(texts.collect::<Result<Vec<_>, _>>()?);
        }
        if log_probs {
            let each = completions.iter().map(|completion| &completion.log_probs);
            result["log_probs"] = serde_json::json!(each.collect::<Vec<_>>());
        }
        return print_json(&result);
    }
    for (sequence, completion) in sequences.iter().zip(&completions) {
        match &tokenizer {
            // Of a conversation what the assistant says.
            Some(tokenizer) if chat => print(&(tokenizer.decode(&completion.tokens)? + "\n"))?,
            Some(tokenizer) => {
                let text = sequence.strip_prefix(&prefix[..]).unwrap_or(sequence);
                print(&(tokenizer.decode(text)? + "\n"))?;
            }
            None => print_json(sequence)?,
        }
    }
    Ok(())
}

/// The ids of a text, or of the rows of a file.
fn encode(
    encoder: &Encoder,
    prompt: Option<String>,
    rows: Option<PathBuf>,
    chat: bool,
) -> Result<Vec<Vec<u32>>, Failure> {
    if let Some(file) = rows {
        let rows = Rows::open(&[file])?.only(encoder.fields());
        return rows.map(|row| Ok(encoder.prompt(&row?)?)).collect();
    }
    let text = prompt.expect("clap asks for one of them");
    if !chat {
        return Ok(vec![encoder.tokenizer().encode_document(encoder.prefix(), &text)?]);
    }
    let place = Place { path: "--prompt".into(), number: 1, counted: Counted::Lines };
    let row = Row::new(place, serde_json::json!({ "prompt": text }).to_string().as_str())?;
    Ok(vec![encoder.prompt(&row)?])
}

/// What texts begin with, as a dry run tells it behind their number.
pub(super) fn begin_with(tokenizer: Option<&Tokenizer>, prefix: &[u32]) -> String {
    tokenizer.map_or(String::new(), |tokenizer| {
        format!(", which begin with {}", tokenizer.describe_prefix(prefix))
    })
}

/// Shows progress and looks for stop texts.
struct Onlooker<'a> {
    /// There where there are stop texts.
    tokenizer: Option<&'a Tokenizer>,
    stop: &'a [String],
    progress: &'a Sequences,
}

impl Watch for Onlooker<'_> {
    fn stop(&mut self, _: usize, tokens: &[u32]) -> bool {
        self.tokenizer.is_some_and(|tokenizer| tokenizer.has_reached(tokens, self.stop))
    }

    fn advance(&mut self, tokens: usize) {
        self.progress.add(0, tokens as u64);
    }

    fn finish(&mut self, _: usize, _: &Completion) {
        self.progress.add(1, 0);
    }
}
