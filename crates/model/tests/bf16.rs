//! Products of bfloat16 operands: how far gradients and log-probabilities are from those of `f32`, and that bits depend on
//! no file, batch or thread.

use remit_batch::Rule;
use remit_kernels::Precision;
use remit_kernels::head::{Gradients, Scratch};
use remit_model::generate::{Request, Sampling, Settings, generate};
use remit_model::{Decoder, Input, Keep, SaveOptions, Storage, Workspace};
use remit_store::tensors::FileDtype;
use std::path::{Path, PathBuf};

const FAMILIES: [&str; 6] = ["llama", "llama3", "olmo2", "qwen3", "smollm3", "youtu"];
const WINDOW: usize = 24;

fn golden(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(family).join("learner")
}

fn open(family: &str, precision: Precision) -> Decoder {
    let mut decoder = Decoder::open(&golden(family)).expect("a golden checkpoint");
    decoder.precision = precision;
    decoder.allow_length(WINDOW).expect("a short window");
    decoder
}

/// Three windows, the second of two documents.
fn batch(vocab: usize) -> (Vec<u32>, Vec<u32>) {
    let ids = (0..3 * WINDOW).map(|i| (i * i * 7 + i * 3 + 1) as u32 % vocab as u32).collect();
    let starts =
        (0..3 * WINDOW).map(|i| if (WINDOW + 10..2 * WINDOW).contains(&i) { 10 } else { 0 }).collect();
    (ids, starts)
}

/// The mean of the negative log-probabilities.
struct Mean(f32);

impl Rule for Mean {
    fn differentiate(&mut self, _: usize, _: &[f32], _: &[f32], d_log_probs: &mut [f32], d_lse: &mut [f32]) {
        d_log_probs.fill(-self.0);
        d_lse.fill(0.0);
    }
}

/// Log-probabilities and gradients.
fn learn(decoder: &Decoder) -> (Vec<f32>, Vec<f32>) {
    let (ids, starts) = batch(decoder.architecture().vocab_size);
    let mut targets = ids[1..].to_vec();
    targets.push(0);
    let mut workspace = Workspace::new(decoder.architecture(), ids.len(), Keep::Everything);
    let input = Input { ids: &ids, length: WINDOW, starts: Some(&starts) };
    let mut gradients = vec![0.0; decoder.parameters.len()];
    let hidden = decoder.forward(input, &mut workspace).to_vec();
    let mut d_hidden = vec![0.0; hidden.len()];
    let head = Gradients { hidden: &mut d_hidden, parameters: &mut gradients[decoder.layout().head()] };
    let rule = &mut Mean(1.0 / ids.len() as f32);
    let parameters = decoder.head_parameters();
    let rows =
        decoder.head().train(&hidden, parameters, &targets, WINDOW, rule, head, &mut Scratch::default());
    decoder.backward(input, &d_hidden, &mut workspace, &mut gradients);
    (rows.log_probs, gradients)
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[test]
fn gradients_point_where_those_of_f32_point() {
    for family in FAMILIES {
        let decoder = open(family, Precision::F32);
        let [(exact_log_probs, exact), (log_probs, rounded)] =
            [Precision::F32, Precision::Bf16].map(|precision| learn(&open(family, precision)));
        assert_ne!(exact, rounded, "{family}: it was rounded");
        let cosine = |a: &[f32], b: &[f32]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        let whole = cosine(&exact, &rounded);
        let entries = decoder.layout().entries().iter();
        let each = entries.map(|entry| {
            (cosine(&exact[entry.range.clone()], &rounded[entry.range.clone()]), entry.name.as_str())
        });
        let (worst, name) = each.min_by(|a, b| a.0.total_cmp(&b.0)).expect("there are tensors");
        // Operands are off by at most 2^-9 of themselves, independently: a product of two by 2^-8.5, and what some products
        // in a row give by the root of their number times that. Log-probabilities are sums of that kind of the logits' size.
        let products = 7.0 * decoder.layout().entries().len() as f64 / 9.0;
        let allowed = 2f64.powf(-8.5) * products.sqrt();
        let error: Vec<f32> = log_probs.iter().zip(&exact_log_probs).map(|(a, b)| a - b).collect();
        let size = (dot(&exact_log_probs, &exact_log_probs) / error.len() as f64).sqrt();
        let off = (dot(&error, &error) / error.len() as f64).sqrt() / size;
        println!(
            "{family}: cosine {whole:.6}, of {name} {worst:.6}; log-probabilities off by {off:.1e}, allowed {allowed:.1e}"
        );
        assert!(whole > 0.999, "{family}: cosine {whole}");
        assert!(worst > 0.998, "{family}: cosine {worst} of {name}");
        assert!(off > 0.0 && off < allowed, "{family}: off by {off}, allowed {allowed}");
    }
}

/// Tokens and their log-probabilities.
type Continuation = (Vec<u32>, Vec<f32>);

/// Hidden rows, log-probabilities, continuations.
fn everything<P: Storage>(mut decoder: Decoder<P>) -> (Vec<f32>, Vec<f32>, Vec<Continuation>) {
    decoder.allow_length(2 * WINDOW).expect("short windows");
    let (ids, starts) = batch(decoder.architecture().vocab_size);
    let mut workspace = Workspace::new(decoder.architecture(), ids.len(), Keep::Nothing);
    let input = Input { ids: &ids, length: WINDOW, starts: Some(&starts) };
    let hidden = decoder.forward(input, &mut workspace).to_vec();
    let rows = decoder.head().log_probs(&hidden, decoder.head_weights(), &ids, &mut Scratch::default());
    let continuations = [1, 2, 64].map(|batch_size| continued(&mut decoder, &ids, batch_size));
    assert_eq!(continuations[0], continuations[1]);
    assert_eq!(continuations[0], continuations[2]);
    // A window alone.
    for window in 0..3 {
        let range = window * WINDOW..(window + 1) * WINDOW;
        let input = Input { ids: &ids[range.clone()], length: WINDOW, starts: Some(&starts[range.clone()]) };
        let width = decoder.architecture().width;
        let alone = decoder.forward(input, &mut workspace);
        assert_eq!(alone, &hidden[range.start * width..range.end * width]);
    }
    let [continuations, ..] = continuations;
    (hidden, rows.log_probs, continuations)
}

fn continued<P: Storage>(decoder: &mut Decoder<P>, ids: &[u32], batch_size: usize) -> Vec<Continuation> {
    let prompts = [&ids[..3], &ids[..9], &ids[5..6], &ids[..9], &ids[20..40]];
    let requests: Vec<Request> = (0..)
        .zip(prompts)
        .map(|(seed, prompt)| Request { prompt: prompt.to_vec(), seed, max_new_tokens: 9 })
        .collect();
    let sampling = Sampling::Random { temperature: 1.0, top_k: None, top_p: 1.0 };
    let settings = Settings { batch_size, ..Settings::new(sampling) };
    let completions = generate(decoder, &requests, &settings, &mut ()).expect("continuations");
    completions.into_iter().map(|completion| (completion.tokens, completion.log_probs)).collect()
}

#[test]
fn bits_depend_on_no_file_batch_or_thread() {
    for family in FAMILIES {
        for dtype in [FileDtype::F32, FileDtype::Bf16] {
            let directory = tempfile::tempdir().expect("a directory");
            let options = SaveOptions { dtype, max_shard_bytes: None };
            open(family, Precision::F32).save(directory.path(), options).expect("saved");
            let opened = || {
                let mut decoder = Decoder::open(directory.path()).expect("opened");
                decoder.precision = Precision::Bf16;
                decoder.allow_length(WINDOW).expect("a short window");
                decoder
            };
            let own = everything(opened());
            let frozen = || Decoder::frozen(directory.path(), Precision::Bf16).expect("frozen");
            assert_eq!(own, everything(frozen()), "{family}");
            assert_eq!(own, everything(remit_model::Frozen::from(opened())), "{family}");
            let learned = learn(&opened());
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                assert_eq!(own, pool.install(|| everything(frozen())), "{family}, {threads} threads");
                assert_eq!(learned, pool.install(|| learn(&opened())), "{family}, {threads} threads");
            }
        }
    }
}
