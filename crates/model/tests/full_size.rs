//! The published shapes at full size, with random parameters: saved in bfloat16 shards, opened, one forward pass. Takes
//! some minutes, 13 GiB of memory and 7 GB of disk, so it is run on demand:
//!
//!     cargo test --release -p remit-model --test full_size -- --ignored --nocapture --test-threads 1

use remit_kernels::head::Scratch;
use remit_kernels::matmul::{Matrix, MatrixMut, Write, matmul};
use remit_kernels::{Instructions, Precision};
use remit_model::{Architecture, Decoder, Frozen, Input, Keep, SaveOptions, Workspace, families};
use remit_store::tensors::{FileDtype, TensorDirectory};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// Bytes that any of the three may take at its peak.
const MEMORY_MAX: u64 = 16 << 30;
/// Bytes that opening may take, the map itself aside.
const OPENING_MAX: u64 = 32 << 20;
const WINDOW: usize = 32;
/// Positions that are scored with products of bfloat16.
const SCORED: usize = 1024;

/// A line of `/proc/self/status`, in bytes.
fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find(|line| line.starts_with(key)).expect("a line of this name");
    let kibibytes: u64 =
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kibibytes << 10
}

/// Forgets the highest memory use so far.
fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux");
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

fn check(name: &str, parameters: usize, config: Value) {
    let Value::Object(source) = config else { panic!("a table") };
    let architecture = families::read(source, Path::new("config.json")).expect("a supported configuration");
    let layout = architecture.family.layout(&architecture);
    assert_eq!(layout.len(), parameters, "{name}: the published number of parameters");
    let home = tempfile::tempdir().expect("a directory");

    forget_peak();
    let started = Instant::now();
    let decoder = Decoder::fresh(architecture.clone(), 1);
    let options = SaveOptions { dtype: FileDtype::Bf16, max_shard_bytes: Some(2 << 30) };
    decoder.save(home.path(), options).expect("saved");
    let first = decoder.parameters[..8].to_vec();
    drop(decoder);
    let (built, seconds) = (status("VmHWM:"), started.elapsed().as_secs_f64());
    println!("{name}: {parameters} parameters built and saved in {seconds:.0} s, peak {:.2} GiB", gib(built));

    forget_peak();
    let before = status("RssAnon:");
    let mut model = Decoder::mapped(home.path()).expect("opened");
    let opening = status("RssAnon:").saturating_sub(before);
    let mib = |bytes: u64| bytes as f64 / 1048576.0;
    println!("  opening took {:.1} MiB, peak {:.1} MiB", mib(opening), mib(status("VmHWM:")));

    let started = Instant::now();
    let ids: Vec<u32> = (0..WINDOW as u32).map(|i| i * 997 % architecture.vocab_size as u32).collect();
    model.allow_length(WINDOW).expect("a short window");
    let mut workspace = Workspace::new(&architecture, WINDOW, Keep::Nothing);
    let input = Input { ids: &ids, length: WINDOW, starts: None };
    let hidden = model.forward(input, &mut workspace).to_vec();
    let rows = model.head().log_probs(&hidden, model.head_weights(), &ids, &mut Scratch::default());
    let (peak, anonymous) = (status("VmHWM:"), status("RssAnon:"));
    println!(
        "  forward pass over {WINDOW} positions in {:.1} s, peak {:.2} GiB, of it {:.2} GiB not the files'",
        started.elapsed().as_secs_f64(),
        gib(peak),
        gib(anonymous)
    );
    assert!(rows.log_probs.iter().all(|log_prob| log_prob.is_finite()));

    let files = TensorDirectory::open(home.path()).expect("tensors");
    let mut stored = [0.0; 8];
    files.read_f32_part("model.embed_tokens.weight", 0, &mut stored).expect("there");
    for (stored, first) in stored.iter().zip(first) {
        assert!((stored - first).abs() <= first.abs() / 256.0, "rounded to the nearest bfloat16");
    }
    score_rounded(home.path(), &architecture);
    assert!(built < MEMORY_MAX && peak < MEMORY_MAX, "{name}: more memory than allowed");
    assert!(opening < OPENING_MAX, "{name}: opening reads parameters");
    let expected = before + Frozen::frozen_bytes(&architecture, Precision::F32);
    assert!(anonymous < expected + (512 << 20), "{name}: a pass holds more than one block and the head");
}

/// Scores a window with products of bfloat16, the parameters used as they lie in the files.
fn score_rounded(directory: &Path, architecture: &Architecture) {
    let mut model = Decoder::frozen(directory, Precision::Bf16).expect("opened");
    let ids: Vec<u32> = (0..SCORED as u32).map(|i| i * 997 % architecture.vocab_size as u32).collect();
    model.allow_length(SCORED).expect("an allowed window");
    let mut workspace = Workspace::new(architecture, SCORED, Keep::Nothing);
    let input = Input { ids: &ids, length: SCORED, starts: None };
    let mut seconds = f64::INFINITY;
    // The first pass reads the files from the disk.
    for _ in 0..3 {
        let started = Instant::now();
        let hidden = model.forward(input, &mut workspace).to_vec();
        let rows = model.head().log_probs(&hidden, model.head_weights(), &ids, &mut Scratch::default());
        seconds = seconds.min(started.elapsed().as_secs_f64());
        assert!(rows.log_probs.iter().all(|log_prob| log_prob.is_finite()));
    }
    let rate = architecture.training_flops(SCORED) / 3.0 * SCORED as f64 / seconds;
    let peak = product_rate();
    println!(
        "  bf16 with {}: {SCORED} positions scored in {seconds:.2} s, {:.0} GFLOP/s, {:.2} of the {:.0} that one large \
         product reaches; {:.2} GiB not the files'",
        Instructions::current().name(),
        rate / 1e9,
        rate / peak,
        peak / 1e9,
        gib(status("RssAnon:")),
    );
}

/// Floating-point operations a second of a large product of bfloat16 operands.
fn product_rate() -> f64 {
    const SIZE: usize = 2048;
    let (a, b) = (vec![0.5; SIZE * SIZE], vec![0.25; SIZE * SIZE]);
    let mut c = vec![0.0; SIZE * SIZE];
    let mut seconds = f64::INFINITY;
    for _ in 0..7 {
        let started = Instant::now();
        let [a, b] = [&a, &b].map(|x| Matrix::new(x, SIZE, SIZE));
        matmul(MatrixMut::new(&mut c, SIZE, SIZE), Write::Replace, a, b, Precision::Bf16);
        seconds = seconds.min(started.elapsed().as_secs_f64());
    }
    2.0 * (SIZE * SIZE * SIZE) as f64 / seconds
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn olmo_2_1b() {
    check(
        "OLMo-2-0425-1B",
        1_484_916_736,
        json!({
            "model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"], "attention_bias": false,
            "attention_dropout": 0.0, "eos_token_id": 100257, "hidden_act": "silu", "hidden_size": 2048,
            "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 4096,
            "num_attention_heads": 16, "num_hidden_layers": 16, "num_key_value_heads": 16, "pad_token_id": 100277,
            "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 500000, "tie_word_embeddings": false,
            "vocab_size": 100352,
        }),
    );
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn smollm3_3b() {
    check(
        "SmolLM3-3B",
        3_075_098_624,
        json!({
            "model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"], "attention_bias": false,
            "attention_dropout": 0.0, "eos_token_id": 128012, "hidden_act": "silu", "hidden_size": 2048,
            "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 65536,
            "max_window_layers": 28, "mlp_bias": false, "no_rope_layer_interval": 4, "num_attention_heads": 16,
            "num_hidden_layers": 36, "num_key_value_heads": 4, "pad_token_id": 128004, "pretraining_tp": 2,
            "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 5000000.0, "sliding_window": null,
            "use_sliding_window": false, "tie_word_embeddings": true, "vocab_size": 128256,
        }),
    );
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn youtu_llm_2b() {
    check(
        "Youtu-LLM-2B",
        1_961_560_064,
        json!({
            "model_type": "youtu", "architectures": ["YoutuForCausalLM"], "attention_bias": false,
            "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128001, "hidden_act": "silu",
            "hidden_size": 2048, "intermediate_size": 6144, "kv_lora_rank": 512, "max_position_embeddings": 131072,
            "num_attention_heads": 16, "num_hidden_layers": 32, "num_key_value_heads": 16, "q_lora_rank": 1536,
            "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-6, "rope_interleave": true,
            "rope_scaling": null, "rope_theta": 1600000, "tie_word_embeddings": true, "v_head_dim": 128,
            "vocab_size": 128256,
        }),
    );
}
