//! Training steps on random tokens, timed round by round: remit's side of `parity/benchmark.py`.
//!
//! Reads commands on standard input, one a line: `round` runs some steps and prints one line of JSON with the median
//! of their tokens a second and the peak memory of this process; `quit` (or the end of the input) ends it. Between
//! rounds the process waits, so that another program can be timed in turn.
//!
//! ```text
//! echo round | cargo run --release --example train_benchmark -- --size S --mode ntp --threads 1
//! ```

use remit_batch::{Batch, Window};
use remit_engine::{Cpu, Engine, ModelId, Precision, Predictions, Usage};
use remit_model::Decoder;
use remit_model::families::llama;
use remit_objective::{Objective, Weighting};
use remit_store::scores::{ScoreDtype, ScoreKey, ScoreStore, ScoreWriter, Shard};
use remit_train::reference::Reference;
use remit_train::settings::Settings;
use remit_train::step::TextStep;
use std::error::Error;
use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

/// Shapes of a model and of what it is trained on.
#[derive(Clone, Copy)]
struct Size {
    vocab: usize,
    width: usize,
    heads: usize,
    kv_heads: usize,
    mlp_width: usize,
    layers: usize,
    window: usize,
    batch: usize,
    tied: bool,
}

const SMALL: Size = Size {
    vocab: 4096,
    width: 256,
    heads: 4,
    kv_heads: 4,
    mlp_width: 688,
    layers: 6,
    window: 256,
    batch: 8,
    tied: false,
};
const MEDIUM: Size = Size {
    vocab: 8192,
    width: 512,
    heads: 8,
    kv_heads: 8,
    mlp_width: 1376,
    layers: 8,
    window: 512,
    batch: 4,
    tied: false,
};
/// SmolLM2-135M.
const SMOLLM2: Size = Size {
    vocab: 49_152,
    width: 576,
    heads: 9,
    kv_heads: 3,
    mlp_width: 1536,
    layers: 30,
    window: 512,
    batch: 4,
    tied: true,
};

/// Steps that are not timed, before the first round.
const WARM_UP: usize = 2;

struct Arguments {
    size: Size,
    mode: String,
    precision: Precision,
    recompute: bool,
    steps: usize,
    threads: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = parse(std::env::args().skip(1))?;
    rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build_global()?;
    let windows = windows(&arguments.size);
    let mut trainer = None;
    for command in std::io::stdin().lock().lines() {
        match command?.trim() {
            "quit" => break,
            "round" => {}
            other => return Err(format!("unknown command `{other}`: `round` or `quit`").into()),
        }
        if trainer.is_none() {
            let mut fresh = build(&arguments, &windows)?;
            for _ in 0..WARM_UP {
                step(&mut fresh, &windows)?;
            }
            trainer = Some(fresh);
        }
        let trainer = trainer.as_mut().expect("it has just been built");
        let (mut seconds, mut loss) = (Vec::new(), 0.0);
        for _ in 0..arguments.steps {
            let started = Instant::now();
            loss = step(trainer, &windows)?;
            seconds.push(started.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let median = (seconds[(seconds.len() - 1) / 2] + seconds[seconds.len() / 2]) / 2.0;
        let tokens = (arguments.size.window * arguments.size.batch) as f64;
        println!(
            "{}",
            serde_json::json!({
                "mode": arguments.mode, "threads": arguments.threads, "loss": loss,
                "tokens_per_second": tokens / median, "peak_mib": peak_mib(),
            })
        );
    }
    Ok(())
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, Box<dyn Error>> {
    let mut arguments = Arguments {
        size: SMALL,
        mode: "ntp".into(),
        precision: Precision::F32,
        recompute: false,
        steps: 3,
        threads: 1,
    };
    while let Some(word) = words.next() {
        if word == "--bench" {
            continue;
        }
        let mut value = || words.next().ok_or(format!("`{word}` needs a value"));
        match word.as_str() {
            "--size" => {
                arguments.size = match value()?.as_str() {
                    "S" => SMALL,
                    "M" => MEDIUM,
                    "135M" => SMOLLM2,
                    other => return Err(format!("unknown size `{other}`: `S`, `M` or `135M`").into()),
                }
            }
            "--mode" => arguments.mode = value()?,
            "--precision" => arguments.precision = serde_json::from_value(value()?.into())?,
            "--recompute" => arguments.recompute = value()?.parse()?,
            "--steps" => arguments.steps = value()?.parse()?,
            "--threads" => arguments.threads = value()?.parse()?,
            other => return Err(format!("unknown argument `{other}`").into()),
        }
    }
    Ok(arguments)
}

fn step((engine, step): &mut (Cpu, TextStep), windows: &[Window]) -> Result<f64, Box<dyn Error>> {
    let outcome = step.take(engine, windows, 1e-3).map_err(|refusal| format!("{refusal:?}"))?;
    Ok(outcome.summary.ntp_loss)
}

/// The learner, and in the two ReMiT modes a reference of the same shape.
fn build(arguments: &Arguments, windows: &[Window]) -> Result<(Cpu, TextStep), Box<dyn Error>> {
    let size = &arguments.size;
    let objective = match arguments.mode.as_str() {
        "ntp" => Objective::Ntp,
        "remit-scored" | "remit-online" => Objective::Weighted(Weighting::default()),
        other => {
            return Err(format!("unknown mode `{other}`: `ntp`, `remit-scored` or `remit-online`").into());
        }
    };
    let mut settings = Settings { objective, ..Settings::default() };
    (settings.common.precision, settings.common.recompute) = (arguments.precision, arguments.recompute);
    settings.data.window = size.window;
    settings.data.batch_windows = size.batch;
    settings.data.mask_documents = false;
    let usage = Usage {
        rows: size.batch * size.window,
        length: size.window,
        precision: arguments.precision,
        ..Usage::default()
    };
    let mut engine = Cpu::new();
    let reference = match arguments.mode.as_str() {
        "remit-online" => Reference::Online(engine.insert(decoder(size, 2)?, &usage)?),
        "remit-scored" => {
            let model = engine.insert(decoder(size, 2)?, &usage)?;
            let scores = score(&mut engine, model, windows)?;
            engine.close(model);
            Reference::Scored(Box::new(scores))
        }
        _ => Reference::None,
    };
    engine.insert_learner(decoder(size, 1)?, &settings.common.learning(), &usage)?;
    Ok((engine, TextStep::new(reference, &settings)))
}

fn decoder(size: &Size, seed: u64) -> Result<Decoder, Box<dyn Error>> {
    let settings = llama::config::Settings {
        hidden_size: size.width,
        num_hidden_layers: size.layers,
        num_attention_heads: size.heads,
        num_key_value_heads: Some(size.kv_heads),
        intermediate_size: size.mlp_width,
        tie_word_embeddings: size.tied,
        ..llama::config::Settings::default()
    };
    Ok(Decoder::fresh(settings.build(size.vocab, None)?, seed))
}

/// A score store of the windows, in a directory that is gone when the store is closed.
fn score(engine: &mut Cpu, reference: ModelId, windows: &[Window]) -> Result<ScoreStore, Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let path: &Path = home.path();
    let word = |word: &str| word.to_owned();
    let key = ScoreKey {
        tokens: word("random"),
        layout: word("random"),
        reference: word("random"),
        precision: word("f32"),
    };
    let (count, length) = (windows.len() as u64, windows[0].mask.len());
    let mut writer = ScoreWriter::open(path, &key, count, length, ScoreDtype::F16, Shard::WHOLE)?;
    let batch = Batch::stack(windows, false);
    writer.write(0, &engine.log_probs(reference, &batch, Predictions::All)?)?;
    writer.finish()?;
    Ok(ScoreStore::open(path, &key)?)
}

/// Random tokens, the same at every call.
fn windows(size: &Size) -> Vec<Window> {
    let mut state = 1u64;
    let mut token = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32 % size.vocab as u32
    };
    (0..size.batch as u64)
        .map(|index| Window {
            index,
            tokens: (0..=size.window).map(|_| token()).collect(),
            mask: vec![true; size.window],
            documents: vec![0; size.window],
        })
        .collect()
}

/// The most memory that this process has held, in MiB; 0 where the system does not say.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
