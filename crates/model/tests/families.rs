//! Every family at odd shapes: gradients against central differences, the cache against whole windows, frozen decoders
//! against owned ones, files against memory, and what each family refuses.

use remit_kernels::Precision;
use remit_kernels::head::Scratch;
use remit_model::families::{Family, llama, olmo2, qwen3, read, smollm3, youtu};
use remit_model::generate::{Completion, Finish, Request, Sampling, Settings, Watch, generate};
use remit_model::{Architecture, Decoder, Frozen, Input, Keep, SaveOptions, Workspace};
use remit_store::tensors::{FileDtype, TensorDirectory};
use serde_json::{Map, Value, json};
use std::path::Path;

const WINDOW: usize = 7;

/// One or two architectures a family: five heads, one key/value head, odd widths, few tokens.
fn odd_architectures() -> Vec<Architecture> {
    let (vocab, end) = (23, Some(2));
    let llama = llama::config::Settings {
        hidden_size: 15,
        num_hidden_layers: 3,
        num_attention_heads: 5,
        num_key_value_heads: Some(1),
        head_dim: Some(6),
        intermediate_size: 11,
        max_position_embeddings: 64,
        tie_word_embeddings: false,
        ..Default::default()
    };
    let olmo2 = olmo2::config::Settings {
        hidden_size: 20,
        num_hidden_layers: 2,
        num_attention_heads: 5,
        num_key_value_heads: Some(1),
        intermediate_size: 13,
        max_position_embeddings: 64,
        ..Default::default()
    };
    let smollm3 = smollm3::config::Settings {
        hidden_size: 30,
        num_hidden_layers: 3,
        num_attention_heads: 5,
        num_key_value_heads: Some(1),
        no_rope_layer_interval: 2,
        intermediate_size: 9,
        max_position_embeddings: 64,
        ..Default::default()
    };
    let qwen3 = qwen3::config::Settings {
        hidden_size: 15,
        num_hidden_layers: 2,
        num_attention_heads: 6,
        num_key_value_heads: Some(2),
        head_dim: Some(10),
        intermediate_size: 7,
        max_position_embeddings: 64,
        ..Default::default()
    };
    let youtu = youtu::config::Settings {
        hidden_size: 17,
        num_hidden_layers: 2,
        num_attention_heads: 5,
        q_lora_rank: Some(9),
        kv_lora_rank: 7,
        qk_nope_head_dim: 5,
        qk_rope_head_dim: 4,
        v_head_dim: 3,
        intermediate_size: 12,
        max_position_embeddings: 64,
        ..Default::default()
    };
    let straight = youtu::config::Settings {
        q_lora_rank: None,
        rope_interleave: false,
        tie_word_embeddings: false,
        ..youtu.clone()
    };
    vec![
        llama.build(vocab, end).expect("llama"),
        olmo2.build(vocab, end).expect("olmo2"),
        smollm3.build(vocab, end).expect("smollm3"),
        qwen3.build(vocab, end).expect("qwen3"),
        youtu.build(vocab, end).expect("youtu"),
        straight.build(vocab, end).expect("youtu with queries straight from the stream"),
    ]
}

/// Numbers in [-1, 1).
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// A decoder of which every parameter matters: matrices wide, norms around one.
fn random(architecture: &Architecture) -> Decoder {
    let mut decoder = Decoder::fresh(architecture.clone(), 7);
    for entry in decoder.layout().entries().to_vec() {
        let values = &mut decoder.parameters[entry.range.clone()];
        let gain = entry.shape.len() == 1;
        for (value, noise) in values.iter_mut().zip(noise(entry.range.len(), entry.range.start as u64)) {
            *value = if gain { 1.0 + 0.3 * noise } else { 0.4 * noise };
        }
    }
    decoder.allow_length(64).expect("short windows");
    decoder
}

fn ids(count: usize, vocab: usize) -> Vec<u32> {
    (0..count).map(|i| (i * 7 + i * i * 3) as u32 % vocab as u32).collect()
}

/// Two windows of seven positions; the second has a document from its fourth position on.
fn batch(vocab: usize) -> (Vec<u32>, Vec<u32>) {
    let starts = (0..2 * WINDOW).map(|i| if i >= WINDOW + 3 { 3 } else { 0 }).collect();
    (ids(2 * WINDOW, vocab), starts)
}

/// `sum_n a_n . hidden_n` over the batch, in `f64`.
fn loss(decoder: &Decoder, upstream: &[f32], workspace: &mut Workspace) -> f64 {
    let (ids, starts) = batch(decoder.architecture().vocab_size);
    let input = Input { ids: &ids, length: WINDOW, starts: Some(&starts) };
    let hidden = decoder.forward(input, workspace);
    hidden.iter().zip(upstream).map(|(h, a)| f64::from(*h) * f64::from(*a)).sum()
}

#[test]
fn gradients_are_those_of_central_differences() {
    for architecture in odd_architectures() {
        let name = architecture.family.name();
        let mut decoder = random(&architecture);
        let rows = 2 * WINDOW;
        let upstream = noise(rows * architecture.width, 3);
        let (ids, starts) = batch(architecture.vocab_size);
        let input = Input { ids: &ids, length: WINDOW, starts: Some(&starts) };
        let mut gradients = vec![0.0; decoder.parameters.len()];
        let mut workspace = Workspace::new(&architecture, rows + 3, Keep::Everything);
        decoder.forward(input, &mut workspace);
        decoder.backward(input, &upstream, &mut workspace, &mut gradients);

        let mut again = vec![0.0; decoder.parameters.len()];
        let mut recomputing = Workspace::new(&architecture, rows, Keep::BlockInputs);
        decoder.forward(input, &mut recomputing);
        decoder.backward(input, &upstream, &mut recomputing, &mut again);
        assert_eq!(gradients, again, "{name}: recomputed blocks give the same gradients");

        for entry in decoder.layout().entries().to_vec() {
            let largest = gradients[entry.range.clone()].iter().fold(0f32, |a, b| a.max(b.abs()));
            assert!(largest > 0.05 || entry.name == "lm_head.weight", "{name} {}: {largest}", entry.name);
            // A few places of each parameter, the embedding's among the ids that occur.
            for at in entry.range.clone().step_by((entry.range.len() / 6).max(1)) {
                let (kept, h) = (decoder.parameters[at], 2e-3);
                decoder.parameters[at] = kept + h;
                let above = loss(&decoder, &upstream, &mut workspace);
                decoder.parameters[at] = kept - h;
                let below = loss(&decoder, &upstream, &mut workspace);
                decoder.parameters[at] = kept;
                let want = (above - below) / (2.0 * f64::from(h));
                let got = f64::from(gradients[at]);
                assert!(
                    (got - want).abs() < 5e-3 * f64::from(largest) + 2e-3,
                    "{name} {}[{}]: {got} instead of {want}, largest {largest}",
                    entry.name,
                    at - entry.range.start
                );
            }
        }
    }
}

/// Greedy continuations by whole forward passes, without a cache.
fn plain_continuation(decoder: &Decoder, prompt: &[u32], count: usize) -> Vec<u32> {
    let Architecture { vocab_size: vocab, width, .. } = *decoder.architecture();
    let mut ids = prompt.to_vec();
    for _ in 0..count {
        let mut workspace = Workspace::new(decoder.architecture(), ids.len(), Keep::Nothing);
        let input = Input { ids: &ids, length: ids.len(), starts: None };
        let hidden = decoder.forward(input, &mut workspace);
        let last = &hidden[hidden.len() - width..];
        let logit = |token: &[f32]| last.iter().zip(token).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let logits: Vec<f64> = decoder.head_parameters().chunks(width).map(logit).collect();
        let best = (0..vocab).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).expect("a vocabulary");
        ids.push(best as u32);
    }
    ids
}

/// The prompt and its likeliest continuation.
fn greedy<P: remit_model::Storage>(decoder: &mut Decoder<P>, prompt: &[u32], count: usize) -> Vec<u32> {
    let request = Request { prompt: prompt.to_vec(), seed: 0, max_new_tokens: count };
    let settings = Settings::new(Sampling::Greedy);
    let completions = generate(decoder, &[request], &settings, &mut ()).expect("a continuation");
    [prompt, &completions[0].tokens].concat()
}

#[test]
fn the_cache_continues_as_whole_windows_do() {
    for architecture in odd_architectures() {
        let architecture = Architecture { end_tokens: Vec::new(), ..architecture };
        let mut decoder = random(&architecture);
        for length in [1, 2, 11] {
            let prompt = ids(length, architecture.vocab_size);
            let want = plain_continuation(&decoder, &prompt, 12);
            let got = greedy(&mut decoder, &prompt, 12);
            assert_eq!(got, want, "{}", architecture.family.name());
        }
    }
}

/// Requests of many lengths: prompts of 1 to 30 tokens, 1 to 20 new ones.
fn requests(count: usize, vocab: usize) -> Vec<Request> {
    (0..count)
        .map(|i| Request {
            prompt: ids(i * 7 % 30 + 1, vocab).iter().map(|id| (id + i as u32) % vocab as u32).collect(),
            seed: i as u64 % 5,
            max_new_tokens: i * 3 % 20 + 1,
        })
        .collect()
}

/// At a temperature, cut both ways.
fn random_settings(batch_size: usize) -> Settings {
    let sampling = Sampling::Random { temperature: 1.3, top_k: Some(20), top_p: 0.98 };
    Settings { batch_size, ..Settings::new(sampling) }
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads").install(work)
}

#[test]
fn a_sequence_is_the_same_alone_and_in_any_batch() {
    for architecture in odd_architectures() {
        let (name, vocab) = (architecture.family.name(), architecture.vocab_size);
        let mut decoder = random(&architecture);
        let requests = requests(90, vocab);
        let mut run = |requests: &[Request], batch_size, threads| {
            on_threads(threads, || {
                generate(&mut decoder, requests, &random_settings(batch_size), &mut ())
                    .expect("continuations")
            })
        };
        let alone: Vec<Completion> =
            requests.iter().map(|request| run(std::slice::from_ref(request), 1, 1).remove(0)).collect();
        for (batch_size, threads) in [(64, 1), (64, 2), (3, 2), (1, 1), (17, 1)] {
            // Equal to the last bit: `PartialEq` of `f32` is enough, for there is no NaN.
            assert!(run(&requests, batch_size, threads) == alone, "{name}: {batch_size}, {threads} threads");
        }
        let backwards: Vec<Request> = requests.iter().rev().cloned().collect();
        let mut got = run(&backwards, 64, 1);
        got.reverse();
        assert!(got == alone, "{name}: whoever comes first");
        let of = |finish| alone.iter().filter(|completion| completion.finish == finish).count();
        assert!(of(Finish::End) > 0 && of(Finish::Length) > 0, "{name}: both ways to end occur");
    }
}

#[test]
fn samples_of_one_prompt_are_those_of_its_seeds() {
    for architecture in odd_architectures() {
        let mut decoder = random(&architecture);
        let prompts = [ids(11, architecture.vocab_size), ids(1, architecture.vocab_size), vec![3; 5]];
        let requests: Vec<Request> = (0..36)
            .map(|i| Request {
                prompt: prompts[i / 4 % 3].clone(),
                seed: i as u64,
                max_new_tokens: if i % 5 == 0 { 1 } else { 15 },
            })
            .collect();
        let mut run = |requests: &[Request], batch_size| {
            generate(&mut decoder, requests, &random_settings(batch_size), &mut ()).expect("continuations")
        };
        let alone: Vec<Completion> =
            requests.iter().map(|request| run(std::slice::from_ref(request), 1).remove(0)).collect();
        for batch_size in [2, 5, 36] {
            assert!(run(&requests, batch_size) == alone, "{}: {batch_size}", architecture.family.name());
        }
    }
}

#[test]
fn log_probs_are_those_of_whole_windows() {
    for architecture in odd_architectures() {
        let mut decoder = random(&architecture);
        let requests = requests(30, architecture.vocab_size);
        let completions =
            generate(&mut decoder, &requests, &random_settings(8), &mut ()).expect("continuations");
        for (request, completion) in requests.iter().zip(&completions) {
            let ids = [&request.prompt[..], &completion.tokens].concat();
            let mut workspace = Workspace::new(&architecture, ids.len(), Keep::Nothing);
            let input = Input { ids: &ids, length: ids.len(), starts: None };
            let hidden = decoder.forward(input, &mut workspace);
            let first = request.prompt.len() - 1;
            let hidden = &hidden[first * architecture.width..(ids.len() - 1) * architecture.width];
            let targets = &completion.tokens;
            let want =
                decoder.head().log_probs(hidden, decoder.head_weights(), targets, &mut Scratch::default());
            assert_eq!(completion.log_probs.len(), targets.len());
            for (got, want) in completion.log_probs.iter().zip(&want.log_probs) {
                assert!((got - want).abs() < 1e-5, "{}: {got}, {want}", architecture.family.name());
            }
        }
    }
}

/// Notes what it is told, and stops a request behind its third token.
#[derive(Default)]
struct Notes {
    steps: Vec<usize>,
    finished: Vec<usize>,
}

impl Watch for Notes {
    fn stop(&mut self, request: usize, tokens: &[u32]) -> bool {
        request == 4 && tokens.len() == 3
    }

    fn advance(&mut self, tokens: usize) {
        self.steps.push(tokens);
    }

    fn finish(&mut self, request: usize, _: &Completion) {
        self.finished.push(request);
    }
}

#[test]
fn sequences_enter_as_others_leave() {
    let architecture = Architecture { end_tokens: Vec::new(), ..odd_architectures().remove(0) };
    let mut decoder = random(&architecture);
    let lengths = [1, 9, 4, 0, 9, 2, 2, 7, 1, 3];
    let requests: Vec<Request> = (0..10)
        .map(|i| Request { prompt: vec![3, i], seed: 0, max_new_tokens: lengths[i as usize] })
        .collect();
    let mut notes = Notes::default();
    let settings = Settings { batch_size: 3, ..Settings::new(Sampling::Greedy) };
    let got = generate(&mut decoder, &requests, &settings, &mut notes).expect("continuations");
    let got: Vec<_> = got.iter().map(|completion| (completion.tokens.len(), completion.finish)).collect();
    let mut want = lengths.map(|length| (length, Finish::Length));
    want[4] = (3, Finish::Stop);
    assert_eq!(got, want);
    // The three places are taken by 0 4 5 7, by 1, and by 2 6 8 9; 3 asks for nothing.
    assert_eq!(notes.steps, [3, 3, 3, 3, 3, 3, 3, 3, 3, 2, 1, 1, 1]);
    assert_eq!(notes.finished, [0, 3, 4, 2, 5, 6, 8, 1, 9, 7]);
}

#[test]
fn stop_sequences_and_end_tokens_end_a_sequence() {
    let mut architecture = Architecture { end_tokens: Vec::new(), ..odd_architectures().remove(3) };
    let request = Request { prompt: ids(6, architecture.vocab_size), seed: 3, max_new_tokens: 20 };
    let requests = [request];
    let free = generate(&mut random(&architecture), &requests, &random_settings(1), &mut ()).expect("tokens");
    let tokens = &free[0].tokens;
    let stop = tokens[4..7].to_vec();
    let end = (0..tokens.len() - 2).find(|&at| tokens[at..].starts_with(&stop)).expect("it is there") + 3;
    let settings = Settings { stop_sequences: vec![vec![1; 9], stop], ..random_settings(1) };
    let got = generate(&mut random(&architecture), &requests, &settings, &mut ()).expect("tokens");
    assert_eq!((&got[0].tokens[..], got[0].finish), (&tokens[..end], Finish::Stop));

    architecture.end_tokens = vec![tokens[5]];
    let end = tokens.iter().position(|&token| token == tokens[5]).expect("it is there") + 1;
    let got = generate(&mut random(&architecture), &requests, &random_settings(1), &mut ()).expect("tokens");
    assert_eq!((&got[0].tokens[..], got[0].finish), (&tokens[..end], Finish::End));
}

#[test]
fn a_workspace_takes_the_bytes_it_says() {
    for architecture in odd_architectures() {
        for keep in [Keep::Everything, Keep::BlockInputs, Keep::Nothing] {
            let workspace = Workspace::new(&architecture, 10, keep);
            let numbers = format!("{workspace:?}").matches("0.0").count();
            assert_eq!(Workspace::bytes(&architecture, 10, keep), 4 * numbers as u64);
        }
    }
}

fn saved(decoder: &Decoder, dtype: FileDtype, max_shard_bytes: Option<u64>) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    decoder.save(directory.path(), SaveOptions { dtype, max_shard_bytes }).expect("saved");
    directory
}

/// What a decoder says of the batch: hidden rows, log-probabilities, a continuation.
fn everything<P: remit_model::Storage>(mut decoder: Decoder<P>) -> (Vec<f32>, Vec<f32>, Vec<u32>) {
    decoder.allow_length(64).expect("short windows");
    let (ids, starts) = batch(decoder.architecture().vocab_size);
    let mut workspace = Workspace::new(decoder.architecture(), ids.len(), Keep::Nothing);
    let input = Input { ids: &ids, length: WINDOW, starts: Some(&starts) };
    let hidden = decoder.forward(input, &mut workspace).to_vec();
    let rows = decoder.head().log_probs(&hidden, decoder.head_weights(), &ids, &mut Scratch::default());
    let continuation = greedy(&mut decoder, &ids[..3], 9);
    (hidden, rows.log_probs, continuation)
}

#[test]
fn frozen_decoders_give_the_same_bits() {
    for architecture in odd_architectures() {
        for (dtype, shards) in [(FileDtype::F32, None), (FileDtype::Bf16, Some(2000))] {
            let directory = saved(&random(&architecture), dtype, shards);
            let owned = everything(Decoder::open(directory.path()).expect("opened"));
            assert_eq!(owned, everything(Decoder::mapped(directory.path()).expect("mapped")));
            assert_eq!(owned, everything(Decoder::frozen(directory.path(), Precision::F32).expect("frozen")));
            let thawed = Frozen::from(Decoder::open(directory.path()).expect("opened"));
            assert_eq!(owned, everything(thawed));
        }
    }
}

#[test]
fn every_tensor_comes_back_byte_for_byte() {
    for architecture in odd_architectures() {
        for dtype in [FileDtype::F32, FileDtype::Bf16] {
            for shards in [None, Some(2000)] {
                let first = saved(&random(&architecture), dtype, shards);
                let second = saved(
                    &Decoder::open(first.path()).expect("opened"),
                    dtype,
                    shards.map(|bytes| bytes * 2),
                );
                let [first, second] = [&first, &second]
                    .map(|directory| TensorDirectory::open(directory.path()).expect("tensors"));
                assert!(first.names().eq(second.names()));
                assert!(
                    !architecture.tied || !first.contains("lm_head.weight"),
                    "a tied head is not written"
                );
                for name in first.names() {
                    assert_eq!(first.info(name).expect("there"), second.info(name).expect("there"));
                    assert_eq!(
                        first.bytes(name).expect("there"),
                        second.bytes(name).expect("there"),
                        "{name}"
                    );
                }
            }
        }
    }
}

#[test]
fn keys_without_a_meaning_here_survive() {
    for architecture in odd_architectures() {
        let mut source = architecture.source.clone();
        source.insert("something".into(), json!({"of": ["someone", 1.5, null]}));
        let mut read = read(source.clone(), Path::new("config.json")).expect("readable");
        read.generation.insert("temperature".into(), json!(0.6));
        read.generation.insert("eos_token_id".into(), json!([2, 5]));
        let directory = saved(&Decoder::fresh(read, 1), FileDtype::Bf16, None);
        let again = Architecture::open(directory.path()).expect("readable");
        for (key, value) in &source {
            assert_eq!(again.source.get(key), Some(value), "{key}");
        }
        assert_eq!(again.source["architectures"], json!([architecture.family.class()]));
        assert_eq!(again.source["dtype"], "bfloat16");
        assert_eq!(again.generation["temperature"], 0.6);
        assert_eq!(again.end_tokens, [2, 5], "those of `generation_config.json` go before");
    }
}

fn golden(family: &str) -> Map<String, Value> {
    let path = format!("{}/../../golden/models/{family}/learner/config.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("a golden file")).expect("JSON")
}

/// The golden configuration of a family with some keys set.
fn with(family: &str, keys: Value) -> Result<Architecture, String> {
    let mut source = golden(family);
    source.extend(keys.as_object().expect("keys").clone());
    read(source, Path::new("config.json")).map_err(|error| error.to_string())
}

#[test]
fn unsupported_switches_name_their_key() {
    let everywhere = [
        ("attention_bias", json!(true)),
        ("attention_dropout", json!(0.1)),
        ("is_causal", json!(false)),
        ("add_cross_attention", json!(true)),
        ("clip_qkv", json!(8.0)),
        ("final_logit_softcapping", json!(30.0)),
        ("embedding_multiplier", json!(12.0)),
        ("hidden_act", json!("gelu")),
        ("n_routed_experts", json!(64)),
        ("num_experts", json!(8)),
        ("partial_rotary_factor", json!(0.5)),
        ("quantization_config", json!({"bits": 4})),
    ];
    for family in Family::ALL.map(Family::name) {
        for (key, value) in &everywhere {
            let expected = format!("`config.json`: `{key}` = {value} is not supported for `{family}`");
            assert_eq!(with(family, json!({ *key: value })).expect_err(key), expected);
        }
        for (rope, key) in [
            (json!({"rope_type": "yarn", "factor": 4.0}), "rope_type` = \"yarn\""),
            (json!({"type": "linear", "factor": 4.0}), "type` = \"linear\""),
            (json!({"rope_type": "dynamic"}), "rope_type` = \"dynamic\""),
            (json!({"full_attention": {"rope_type": "default"}}), "full_attention` = {"),
            (json!({"rope_type": "default", "partial_rotary_factor": 0.25}), "partial_rotary_factor` = 0.25"),
        ] {
            for table in ["rope_parameters", "rope_scaling"] {
                let error = with(family, json!({ table: rope })).expect_err(key);
                assert!(error.starts_with(&format!("`config.json`: `{table}.{key}")), "{error}");
            }
        }
        let error = with(family, json!({"layer_types": vec!["full_attention"; 2]})).expect_err("too few");
        assert!(error.starts_with("`config.json`: key `layer_types` has 2 entries for "), "{error}");
        let kinds = ["full_attention", "sliding_attention", "full_attention", "full_attention", "a"];
        assert_eq!(
            with(family, json!({"layer_types": kinds})).expect_err("one slides"),
            format!("`config.json`: `layer_types` = \"sliding_attention\" is not supported for `{family}`")
        );
    }
    for (family, keys, named) in [
        ("llama", json!({"sliding_window": 64}), "sliding_window` = 64"),
        ("olmo2", json!({"sliding_window": 64}), "sliding_window` = 64"),
        ("youtu", json!({"sliding_window": 64}), "sliding_window` = 64"),
        ("youtu", json!({"num_key_value_heads": 2}), "num_key_value_heads` = 2"),
        (
            "qwen3",
            json!({"layer_types": null, "use_sliding_window": true, "sliding_window": 64, "max_window_layers": 1}),
            "sliding_window` = 64",
        ),
        (
            "smollm3",
            json!({"layer_types": null, "use_sliding_window": true, "sliding_window": 64}),
            "sliding_window` = 64",
        ),
        ("smollm3", json!({"no_rope_layers": [1, 2, 1, 1, 1]}), "no_rope_layers` = 2"),
    ] {
        let error = with(family, keys).expect_err(named);
        assert_eq!(error, format!("`config.json`: `{named} is not supported for `{family}`"));
    }
    for (family, keys, expected) in [
        (
            "olmo2",
            json!({"num_hidden_layers": 1000000}),
            "key `num_hidden_layers` is 1000000, more than 16384",
        ),
        ("smollm3", json!({"no_rope_layers": [1, 0]}), "key `no_rope_layers` has 2 entries for 5 blocks"),
        ("smollm3", json!({"no_rope_layers": "all"}), "key `no_rope_layers` is \"all\", not a list"),
        ("youtu", json!({"kv_lora_rank": -1}), "key `kv_lora_rank` is -1, not a positive integer"),
        ("youtu", json!({"qk_rope_head_dim": 3}), "key `qk_rope_head_dim` leads to 3, which 2 must divide"),
        (
            "olmo2",
            json!({"num_key_value_heads": 3}),
            "key `num_key_value_heads` leads to 4, which 3 must divide",
        ),
        ("qwen3", json!({"head_dim": 5}), "key `head_dim` leads to 5, which 2 must divide"),
        ("qwen3", json!({"head_dim": "wide"}), "key `head_dim` is \"wide\", not a positive integer"),
        (
            "llama",
            json!({"rope_theta": "long", "rope_parameters": null}),
            "key `rope_theta` is \"long\", not a number",
        ),
    ] {
        let error = with(family, keys).expect_err(expected);
        assert_eq!(error, format!("`config.json`: {expected}"));
    }
}

#[test]
fn switches_that_are_off_are_accepted() {
    for family in Family::ALL.map(Family::name) {
        for keys in [
            json!({"attention_dropout": 0, "mlp_bias": false, "quantization_config": null}),
            json!({"attention_dropout": null, "n_routed_experts": null, "num_experts": 0}),
            json!({"sliding_window": null}),
            json!({"sliding_window": 64, "use_sliding_window": false}),
            json!({"sliding_window": 128, "use_sliding_window": true, "layer_types": null}),
            json!({"sliding_window": 64, "use_sliding_window": true, "layer_types": vec!["full_attention"; 5]}),
            json!({"rope_scaling": null}),
            json!({"rope_scaling": {}, "partial_rotary_factor": 1.0}),
            json!({"hidden_act": "swish"}),
            json!({"pretraining_tp": 2, "max_window_layers": 28}),
        ] {
            with(family, keys.clone()).unwrap_or_else(|error| panic!("{family} {keys}: {error}"));
        }
    }
    let sliding = json!({"layer_types": null, "use_sliding_window": true, "sliding_window": 64});
    let mut deep = sliding.clone();
    deep["max_window_layers"] = 3.into();
    with("qwen3", deep).expect("no block is deep enough to slide");
    let mut turned = sliding;
    turned["no_rope_layers"] = json!([1, 1, 1, 1, 1]);
    with("smollm3", turned).expect("no block without rotation to slide");
}

#[test]
fn what_a_configuration_does_not_say_is_what_transformers_takes() {
    let without = |family: &str, keys: &[&str]| {
        let mut source = golden(family);
        keys.iter().for_each(|key| drop(source.remove(*key)));
        read(source, Path::new("config.json")).expect("readable")
    };
    let keys = [
        "rope_parameters",
        "rms_norm_eps",
        "tie_word_embeddings",
        "no_rope_layers",
        "layer_types",
        "max_position_embeddings",
    ];
    let facts = |family| {
        let Architecture { rope, norm_epsilon, tied, max_length, .. } = without(family, &keys);
        (rope.theta, norm_epsilon, tied, max_length, rope.without)
    };
    assert_eq!(facts("llama"), (10000.0, 1e-6, false, 2048, vec![]));
    assert_eq!(facts("olmo2"), (10000.0, 1e-5, false, 2048, vec![]));
    assert_eq!(facts("qwen3"), (10000.0, 1e-6, false, 32768, vec![]));
    assert_eq!(facts("smollm3"), (2000000.0, 1e-6, true, 32768, vec![3]));
    assert_eq!(facts("youtu"), (10000.0, 1e-6, true, 131072, vec![]));
    assert_eq!(without("qwen3", &["head_dim"]).qk_width(), 128);
    assert_eq!(without("llama", &["head_dim"]).qk_width(), 8);
    assert_eq!(with("smollm3", json!({"num_key_value_heads": null})).expect("readable").kv_heads(), 4);
    assert_eq!(
        with("youtu", json!({"q_lora_rank": null})).expect("readable").latent_width(),
        4 * 12 + 16 + 4
    );
    assert_eq!(without("youtu", &["q_lora_rank"]).latent_width(), 1536 + 16 + 4);
    // The older way to scale RoPE goes before the newer, and brings its own base.
    let old = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0});
    let rope = with("llama", json!({"rope_scaling": old, "rope_theta": 77.0})).expect("readable").rope;
    assert_eq!(rope.theta, 77.0);
    let original = |rope: remit_model::Rope| match rope.scaling {
        remit_model::RopeScaling::Llama3 { original_length, .. } => original_length,
        remit_model::RopeScaling::None => panic!("scaled"),
    };
    assert_eq!(original(rope), 128.0, "of `max_position_embeddings`");
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    for architecture in odd_architectures() {
        let family = architecture.family.name();
        let directory = saved(&random(&architecture), FileDtype::F32, None);
        let opened = |change: &dyn Fn(&mut Map<String, Value>)| {
            let path = directory.path().join("config.json");
            let mut config = architecture.source.clone();
            change(&mut config);
            std::fs::write(&path, serde_json::to_string(&config).expect("JSON")).expect("written");
            let [open, mapped] =
                [Decoder::open(directory.path()).err(), Decoder::mapped(directory.path()).err()]
                    .map(|error| error.expect("refused").to_string());
            assert_eq!(open, mapped);
            open.replace(&*directory.path().to_string_lossy(), "DIR")
        };
        let layers = architecture.layers;
        let lists = |config: &mut Map<String, Value>, layers: usize| {
            config.insert("num_hidden_layers".into(), layers.into());
            config.remove("no_rope_layers");
        };
        let missing = opened(&|config| lists(config, layers + 1));
        assert!(missing.starts_with(&format!("tensor `model.layers.{layers}.")), "{missing}");
        assert!(missing.ends_with("is missing in `DIR`"), "{missing}");
        let unknown = opened(&|config| lists(config, layers - 1));
        assert!(unknown.starts_with(&format!("tensor `model.layers.{}.", layers - 1)), "{unknown}");
        assert!(unknown.ends_with(&format!("in `DIR` is not part of a `{family}` model")), "{unknown}");
        let wrong = opened(&|config| drop(config.insert("intermediate_size".into(), 10.into())));
        assert!(
            wrong.starts_with("tensor `model.layers.0.mlp.gate_proj.weight` in `DIR` has shape "),
            "{wrong}"
        );
        assert!(wrong.contains("the configuration says [10, "), "{wrong}");
        let untied =
            opened(&|config| drop(config.insert("tie_word_embeddings".into(), (!architecture.tied).into())));
        assert!(untied.starts_with("tensor `lm_head.weight` "), "{untied}");
    }
}
