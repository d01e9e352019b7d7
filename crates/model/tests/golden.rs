//! Logits, log-probabilities and greedy continuations against `transformers`, and the round trip through files.

use remit_kernels::head::Scratch;
use remit_model::generate::{Request, Sampling, Settings, generate};
use remit_model::{Architecture, Decoder, Input, Keep, SaveOptions, Workspace};
use remit_store::tensors::{FileDtype, TensorDirectory, TensorFile};
use std::path::{Path, PathBuf};

const FAMILIES: [&str; 6] = ["llama", "llama3", "olmo2", "qwen3", "smollm3", "youtu"];

fn golden(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(family)
}

fn read(file: &TensorFile, name: &str) -> Vec<f32> {
    let count = file.info(name).expect("a golden tensor").shape.iter().product();
    let mut values = vec![0.0; count];
    file.read_f32(name, &mut values).expect("golden values");
    values
}

fn read_ids(file: &TensorFile, name: &str) -> Vec<u32> {
    let ids = file.bytes(name).expect("golden ids").chunks(8);
    ids.map(|bytes| i64::from_le_bytes(bytes.try_into().expect("eight bytes")) as u32).collect()
}

/// Equal to `tolerance` relative to the largest entry.
fn check(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(0f32, |a, b| a.max(b.abs()));
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    println!("{what}: off by {:.1e} of the largest entry", worst / largest);
    assert!(worst <= tolerance * largest, "{what}: off by {worst}, largest entry {largest}");
}

/// All logits `[N, V]` of hidden rows `[N, width]`, one product at a time.
fn logits(hidden: &[f32], head: &[f32], width: usize) -> Vec<f32> {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let row = |row| head.chunks(width).map(move |token| product(row, token) as f32);
    hidden.chunks(width).flat_map(row).collect()
}

fn logits_and_log_probs(decoder: &mut Decoder, ids: &[u32], windows: usize) -> (Vec<f32>, Vec<f32>) {
    let length = ids.len() / windows;
    decoder.allow_length(length).expect("a short window");
    let mut workspace = Workspace::new(decoder.architecture(), ids.len(), Keep::Nothing);
    let hidden = decoder.forward(Input { ids, length, starts: None }, &mut workspace).to_vec();
    let logits = logits(&hidden, decoder.head_parameters(), decoder.architecture().width);
    // The last position of a window has no target here; any id will do, its row is dropped.
    let targets: Vec<u32> =
        (0..ids.len()).map(|i| if (i + 1) % length == 0 { 0 } else { ids[i + 1] }).collect();
    let rows = decoder.head().log_probs(&hidden, decoder.head_weights(), &targets, &mut Scratch::default());
    let log_probs = rows.log_probs.chunks(length).flat_map(|row| row[..length - 1].to_vec()).collect();
    (logits, log_probs)
}

#[test]
fn logits_and_log_probs_equal_those_of_transformers() {
    for family in FAMILIES {
        let forward = TensorFile::open(&golden(family).join("forward.safetensors")).expect("golden file");
        let ids = read_ids(&forward, "input_ids");
        for (model, name) in [("learner", "logp_learner"), ("reference", "logp_reference")] {
            let mut decoder = Decoder::open(&golden(family).join(model)).expect("a golden checkpoint");
            let (logits, log_probs) = logits_and_log_probs(&mut decoder, &ids, 3);
            if model == "learner" {
                check(&format!("{family} logits"), &logits, &read(&forward, "logits"), 1e-5);
            }
            check(&format!("{family} {name}"), &log_probs, &read(&forward, name), 1e-5);
        }
    }
}

#[test]
fn greedy_continuations_equal_those_of_transformers() {
    for family in FAMILIES {
        let text = std::fs::read_to_string(golden(family).join("golden.json")).expect("golden file");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let prompt_length = json["greedy_prompt_len"].as_u64().expect("a count") as usize;
        let mut decoder = Decoder::open(&golden(family).join("learner")).expect("a golden checkpoint");
        let sequences: Vec<Vec<u32>> =
            serde_json::from_value(json["greedy_ids"].clone()).expect("sequences of ids");
        // From prompts of different lengths: what is further on in a sequence is its continuation as well.
        let (mut requests, mut want) = (Vec::new(), Vec::new());
        for sequence in &sequences {
            for more in [0, 5, 2] {
                let (prompt, rest) = sequence.split_at(prompt_length + more);
                let max_new_tokens = rest.len();
                requests.push(Request { prompt: prompt.to_vec(), seed: 0, max_new_tokens });
                want.push(rest);
            }
        }
        for batch_size in [1, 2, 64] {
            let settings = Settings { batch_size, ..Settings::new(Sampling::Greedy) };
            let got = generate(&mut decoder, &requests, &settings, &mut ()).expect("continuations");
            for (got, want) in got.iter().zip(&want) {
                assert_eq!(got.tokens, *want, "{family}, {batch_size} at a time");
            }
        }
    }
}

#[test]
fn files_come_back_byte_for_byte() {
    for family in FAMILIES {
        let source = golden(family).join("learner");
        let decoder = Decoder::open(&source).expect("a golden checkpoint");
        for (dtype, max_shard_bytes) in
            [(FileDtype::F32, None), (FileDtype::Bf16, None), (FileDtype::Bf16, Some(20_000))]
        {
            let [first, second] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
            let options = SaveOptions { dtype, max_shard_bytes };
            decoder.save(first.path(), options).expect("saved");
            let again = Decoder::open(first.path()).expect("opened");
            again.save(second.path(), options).expect("saved again");
            if dtype == FileDtype::F32 {
                assert_eq!(decoder.parameters, again.parameters);
                let [theirs, ours] = [source.as_path(), first.path()]
                    .map(|path| TensorDirectory::open(path).expect("tensors"));
                assert!(theirs.names().eq(ours.names()), "{family}");
                for name in theirs.names() {
                    assert_eq!(
                        theirs.bytes(name).expect("there"),
                        ours.bytes(name).expect("there"),
                        "{name}"
                    );
                }
            }
            let mut files: Vec<_> = std::fs::read_dir(first.path())
                .expect("a directory")
                .map(|e| e.expect("an entry").file_name())
                .collect();
            files.sort();
            assert_eq!(files.iter().any(|f| f == "model.safetensors.index.json"), max_shard_bytes.is_some());
            for file in files {
                let read = |dir: &tempfile::TempDir| std::fs::read(dir.path().join(&file)).expect("a file");
                assert_eq!(read(&first), read(&second), "{file:?}");
            }
        }
    }
}

#[test]
fn recomputed_blocks_give_the_same_gradients() {
    let mut decoder = Decoder::open(&golden("llama").join("learner")).expect("a golden checkpoint");
    decoder.allow_length(16).expect("short");
    let ids: Vec<u32> = (0..32).map(|i| i * 5 % 160).collect();
    let starts: Vec<u32> = (0..32).map(|i| if i % 16 < 7 { 0 } else { 7 }).collect();
    let d_hidden: Vec<f32> = (0..32 * 32).map(|i| (i as f32 * 0.37).sin()).collect();
    let run = |keep| {
        let mut workspace = Workspace::new(decoder.architecture(), 40, keep);
        let mut gradients = vec![0.0; decoder.parameters.len()];
        let input = Input { ids: &ids, length: 16, starts: Some(&starts) };
        let hidden = decoder.forward(input, &mut workspace).to_vec();
        decoder.backward(input, &d_hidden, &mut workspace, &mut gradients);
        (hidden, gradients)
    };
    assert_eq!(run(Keep::Everything), run(Keep::BlockInputs));
}

fn edited(edit: impl Fn(&mut serde_json::Map<String, serde_json::Value>)) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(golden("llama").join("learner")).expect("golden files") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), directory.path().join(entry.file_name())).expect("a copy");
    }
    let path = directory.path().join("config.json");
    let mut config = serde_json::from_str(&std::fs::read_to_string(&path).expect("a file")).expect("JSON");
    edit(&mut config);
    std::fs::write(&path, serde_json::to_string(&config).expect("JSON")).expect("written");
    directory
}

#[test]
fn what_cannot_be_read_is_named() {
    let message = |directory: &Path| {
        let error = Decoder::open(directory).expect_err("unreadable");
        (error.to_string().replace(&*directory.to_string_lossy(), "DIR"), error.hint().unwrap_or_default())
    };
    let of = |edit: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| message(edited(edit).path());

    let (text, hint) = of(&|c| drop(c.insert("model_type".into(), "llame".into())));
    assert_eq!(text, "model_type `llame` in `DIR/config.json` is not supported");
    assert_eq!(hint, "supported: `llama`, `olmo2`, `smollm3`, `youtu`, `qwen3`; did you mean `llama`?");
    let (text, _) = of(&|c| drop(c.insert("attention_bias".into(), true.into())));
    assert_eq!(text, "`DIR/config.json`: `attention_bias` = true is not supported for `llama`");
    let (text, _) = of(&|c| {
        drop(c.insert("rope_parameters".into(), serde_json::json!({"rope_type": "yarn", "factor": 4.0})))
    });
    assert_eq!(
        text,
        "`DIR/config.json`: `rope_parameters.rope_type` = \"yarn\" is not supported for `llama`"
    );
    let (text, _) = of(&|c| drop(c.remove("hidden_size")));
    assert_eq!(text, "`DIR/config.json`: key `hidden_size` is missing");
    let (text, _) = of(&|c| drop(c.insert("num_key_value_heads".into(), 3.into())));
    assert_eq!(text, "`DIR/config.json`: key `num_key_value_heads` leads to 4, which 3 must divide");
    let (text, _) = of(&|c| drop(c.insert("vocab_size".into(), 161.into())));
    assert_eq!(
        text,
        "tensor `model.embed_tokens.weight` in `DIR` has shape [160, 32], the configuration says [161, 32]"
    );
    let (text, _) = of(&|c| drop(c.insert("num_hidden_layers".into(), 4.into())));
    assert_eq!(text, "tensor `model.layers.3.input_layernorm.weight` [32] is missing in `DIR`");
    let (text, _) = of(&|c| drop(c.insert("num_hidden_layers".into(), 2.into())));
    assert_eq!(
        text,
        "tensor `model.layers.2.input_layernorm.weight` [32] in `DIR` is not part of a `llama` model"
    );
    let (text, _) = of(&|c| drop(c.insert("tie_word_embeddings".into(), true.into())));
    assert_eq!(text, "tensor `lm_head.weight` [160, 32] in `DIR` is not part of a `llama` model");

    let empty = tempfile::tempdir().expect("a directory");
    assert_eq!(message(empty.path()).0, "no `config.json` in `DIR`");
}

#[test]
fn old_and_new_spellings_of_rope_mean_the_same() {
    let architecture =
        |directory: tempfile::TempDir| Architecture::open(directory.path()).expect("readable").rope;
    let llama3 = serde_json::json!({"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 32});
    let mut with_theta = llama3.clone();
    with_theta["rope_theta"] = 500000.0.into();
    let new = architecture(edited(|c| drop(c.insert("rope_parameters".into(), with_theta.clone()))));
    let old = architecture(edited(|c| {
        c.remove("rope_parameters");
        c.insert("rope_theta".into(), 500000.0.into());
        c.insert("rope_scaling".into(), llama3.clone());
    }));
    assert_eq!(new, old);
    assert_eq!(new.theta, 500000.0);
}

#[test]
fn requests_beyond_the_model_are_errors() {
    let mut decoder = Decoder::open(&golden("llama").join("learner")).expect("a golden checkpoint");
    let request =
        |prompt: &[u32], max_new_tokens| Request { prompt: prompt.to_vec(), seed: 0, max_new_tokens };
    let mut message = |requests: &[Request], settings: &Settings| {
        generate(&mut decoder, requests, settings, &mut ()).expect_err("refused").to_string()
    };
    let greedy = Settings::new(Sampling::Greedy);
    assert_eq!(message(&[request(&[], 1)], &greedy), "the prompt is empty");
    assert_eq!(
        message(&[request(&[1, 160], 1)], &greedy),
        "token id 160 at position 1 is not in the model's vocabulary of 160"
    );
    assert_eq!(
        message(&[request(&[1], 128)], &greedy),
        "129 positions are asked for, the model allows 128 (`max_position_embeddings`)"
    );
    assert_eq!(
        message(&[request(&[1], 127), request(&[1, 2], 127)], &greedy),
        "request 2 of 2: 129 positions are asked for, the model allows 128 (`max_position_embeddings`)"
    );
    let mut refused = |temperature, top_k, top_p| {
        let sampling = Sampling::Random { temperature, top_k, top_p };
        message(&[request(&[1], 1)], &Settings::new(sampling))
    };
    assert_eq!(
        refused(0.0, None, 1.0),
        "`temperature` = 0 is out of range: above 0; greedy decoding takes the likeliest token"
    );
    assert_eq!(refused(1.0, Some(0), 1.0), "`top-k` = 0 is out of range: at least 1");
    assert_eq!(refused(1.0, None, 0.0), "`top-p` = 0 is out of range: above 0, at most 1");
    let none = Settings { batch_size: 0, ..greedy };
    assert_eq!(message(&[request(&[1], 1)], &none), "`batch-size` = 0 is out of range: at least 1");
}
