//! Sampled continuations of random prompts, timed round by round: remit's side of `parity/benchmark.py --task generate`.
//!
//! Reads commands on standard input, one a line: `round` continues a batch of prompts and prints one line of JSON with
//! the new tokens a second and the peak memory of this process; `quit` (or the end of the input) ends it. Between rounds
//! the process waits, so that another program can be timed in turn.
//!
//! ```text
//! echo round | cargo run --release --example generate_benchmark -- --size S --batch 64 --threads 1
//! ```

use remit_kernels::Precision;
use remit_model::families::llama;
use remit_model::generate::{Request, Sampling, Settings, generate};
use remit_model::{Decoder, Frozen};
use std::error::Error;
use std::io::BufRead;
use std::path::PathBuf;
use std::time::Instant;

/// Tokens of each prompt.
const PROMPT: usize = 32;

struct Arguments {
    size: String,
    model: Option<PathBuf>,
    precision: Precision,
    batch: usize,
    new_tokens: usize,
    threads: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = parse(std::env::args().skip(1))?;
    rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build_global()?;
    let mut decoder = None;
    for command in std::io::stdin().lock().lines() {
        match command?.trim() {
            "quit" => break,
            "round" => {}
            other => return Err(format!("unknown command `{other}`: `round` or `quit`").into()),
        }
        if decoder.is_none() {
            let mut fresh = build(&arguments)?;
            round(&mut fresh, arguments.batch, 4)?;
            decoder = Some(fresh);
        }
        let decoder = decoder.as_mut().expect("it has just been built");
        let started = Instant::now();
        let tokens = round(decoder, arguments.batch, arguments.new_tokens)?;
        let tokens_per_second = tokens as f64 / started.elapsed().as_secs_f64();
        println!(
            "{}",
            serde_json::json!({
                "batch": arguments.batch, "threads": arguments.threads, "tokens": tokens,
                "tokens_per_second": tokens_per_second, "peak_mib": peak_mib(),
            })
        );
    }
    Ok(())
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, Box<dyn Error>> {
    let mut arguments = Arguments {
        size: "S".into(),
        model: None,
        precision: Precision::F32,
        batch: 64,
        new_tokens: 128,
        threads: 1,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("`{word}` needs a value"));
        match word.as_str() {
            "--size" => arguments.size = value()?,
            "--model" => arguments.model = Some(value()?.into()),
            "--precision" => arguments.precision = value()?.parse()?,
            "--batch" => arguments.batch = value()?.parse()?,
            "--new-tokens" => arguments.new_tokens = value()?.parse()?,
            "--threads" => arguments.threads = value()?.parse()?,
            other => return Err(format!("unknown argument `{other}`").into()),
        }
    }
    Ok(arguments)
}

/// A checkpoint, or a model of the sizes of `train_benchmark` with random parameters, without an end token.
fn build(arguments: &Arguments) -> Result<Frozen, Box<dyn Error>> {
    if let Some(directory) = &arguments.model {
        return Ok(Decoder::frozen(directory, arguments.precision)?);
    }
    let (vocab, width, heads, mlp_width, layers) = match arguments.size.as_str() {
        "S" => (4096, 256, 4, 688, 6),
        "M" => (8192, 512, 8, 1376, 8),
        other => return Err(format!("unknown size `{other}`: `S` or `M`").into()),
    };
    let settings = llama::config::Settings {
        hidden_size: width,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        intermediate_size: mlp_width,
        tie_word_embeddings: false,
        ..llama::config::Settings::default()
    };
    let mut decoder = Decoder::fresh(settings.build(vocab, None)?, 1);
    decoder.precision = arguments.precision;
    Ok(decoder.into())
}

/// New tokens of a batch of prompts, sampled at temperature 1.
fn round(decoder: &mut Frozen, batch: usize, new_tokens: usize) -> Result<usize, Box<dyn Error>> {
    let vocab = decoder.architecture().vocab_size;
    let mut state = 1u64;
    let mut token = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32 % vocab as u32
    };
    let requests: Vec<Request> = (0..batch as u64)
        .map(|seed| Request {
            prompt: (0..PROMPT).map(|_| token()).collect(),
            seed,
            max_new_tokens: new_tokens,
        })
        .collect();
    let sampling = Sampling::Random { temperature: 1.0, top_k: None, top_p: 1.0 };
    let settings = Settings { batch_size: batch, ..Settings::new(sampling) };
    let completions = generate(decoder, &requests, &settings, &mut ())?;
    Ok(completions.iter().map(|completion| completion.tokens.len()).sum())
}

/// The most memory that this process has held, in MiB; 0 where the system does not say.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
