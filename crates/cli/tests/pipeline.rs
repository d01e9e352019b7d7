//! From text to a mid-trained model, each command as a user types it, and every result in the form that is promised.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{Home, check_close, check_same, doubles, numbers, tree};
use remit_store::tensors::TensorFile;
use serde_json::{Value, json};

/// The keys of a JSON object, sorted.
fn keys(object: &Value) -> Vec<&str> {
    let object = object.as_object().unwrap_or_else(|| panic!("an object, not {object}"));
    let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn golden(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(family)
}

fn golden_json(family: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden(family).join("golden.json")).unwrap()).unwrap()
}

/// Rows of a golden float tensor.
fn rows(file: &TensorFile, name: &str) -> Vec<Vec<f64>> {
    let info = file.info(name).unwrap();
    let (count, width) = (info.num_elements(), *info.shape.last().unwrap());
    let mut values = vec![0.0; count];
    file.read_f32(name, &mut values).unwrap();
    values.chunks(width).map(doubles).collect()
}

/// Rows of golden token ids.
fn id_rows(file: &TensorFile, name: &str) -> Vec<Vec<u64>> {
    let width = *file.info(name).unwrap().shape.last().unwrap();
    let ids = file.bytes(name).unwrap().chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    ids.collect::<Vec<_>>().chunks(width).map(<[u64]>::to_vec).collect()
}

#[test]
fn from_text_to_a_mid_trained_model() {
    let home = Home::new();
    // Tokenizer and token store, from files named on the command line.
    let made = home
        .json("train-tokenizer sums.jsonl words.txt --out tokenizer.json --vocab-size 300 --quiet --json");
    assert_eq!(made, json!({ "tokenizer": "tokenizer.json", "vocab_size": 300 }));
    let summary =
        home.json("prepare sums.jsonl --tokenizer tokenizer.json --holdout 0.1 --out tokens --quiet --json");
    let documents =
        [&summary["num_documents"], &summary["num_heldout_documents"]].map(|n| n.as_u64().unwrap());
    assert_eq!(documents[0] + documents[1], 600);
    assert!((30..90).contains(&documents[1]), "about a tenth is kept apart: {documents:?}");
    assert_eq!(summary["sources"][0]["name"], "sums");

    // A model from nothing, and a reference that has seen more.
    let pretrained = home.json("pretrain --config recipe.toml --quiet --json");
    assert_eq!(pretrained["steps"], 24);
    assert_eq!(pretrained["checkpoint"], "pretrain/checkpoints/step-00000024");
    let losses = home.losses("pretrain");
    assert_eq!(losses.len(), 24);
    assert!((5.2..6.2).contains(&losses[0]), "a fresh model guesses among 300 tokens: {}", losses[0]);
    assert!(losses[23] < losses[0] - 1.0, "it has learnt: {losses:?}");
    home.ok("midtrain --config recipe.toml --quiet --run reference --midtrain.objective.kind=ntp --midtrain.steps=40");

    // Its scores, and mid-training with and without them.
    let scored =
        home.json("score --reference reference --tokens tokens --out scores --window 32 --quiet --json");
    assert_eq!(scored["complete"], true);
    let ntp =
        home.json("midtrain --config recipe.toml --run ntp --midtrain.objective.kind=ntp --quiet --json");
    assert_eq!(ntp["weights"], Value::Null);
    let remit = home.json("midtrain --config recipe.toml --scores scores --quiet --json");
    assert_eq!(remit["checkpoint"], "remit/checkpoints/step-00000012");
    assert!(remit["weights"]["std_weight"].as_f64().unwrap() > 0.0);
    assert!(remit["held_out"]["text"].as_f64().unwrap().is_finite());
    check_run(&home, "ntp", false);
    check_run(&home, "remit", true);
    assert_eq!(
        home.metrics("ntp")[1]["ntp_loss"],
        home.metrics("remit")[1]["ntp_loss"],
        "the same first batch"
    );

    check_weights(&home);
    check_generate(&home);
}

/// The files of a run of 12 steps with an evaluation every 4.
fn check_run(home: &Home, run: &str, weighted: bool) {
    let files = tree(&home.at(run));
    for name in [
        "config.json",
        "generation_config.json",
        "integrity.json",
        "model.safetensors",
        "state/optimizer.safetensors",
        "state/progress.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        assert!(files.contains_key(&format!("checkpoints/step-00000012/{name}")), "{run} lacks {name}");
    }
    let settings: toml::Table = toml::from_str(&home.text(&format!("{run}/settings.toml"))).unwrap();
    assert_eq!(settings["data"]["window"].as_integer(), Some(32));

    let metrics = home.metrics(run);
    let (evaluations, steps): (Vec<_>, Vec<_>) =
        metrics.iter().partition(|record| record.get("held_out").is_some());
    let numbers_of =
        |records: &[&Value]| records.iter().map(|r| r["step"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(numbers_of(&evaluations), [0, 4, 8, 12]);
    assert_eq!(numbers_of(&steps), (1..=12).collect::<Vec<_>>());
    let mut expected = vec!["step", "tokens", "loss", "ntp_loss", "learning_rate", "grad_norm"];
    if weighted {
        expected.extend([
            "mean_weight",
            "std_weight",
            "clipped_low",
            "clipped_high",
            "weighted_up",
            "effective_sample_share",
            "mean_delta",
        ]);
    }
    expected.sort_unstable();
    for step in &steps {
        assert_eq!(keys(step), expected);
        let [loss, ntp_loss] = ["loss", "ntp_loss"].map(|key| step[key].as_f64().unwrap());
        assert_eq!(loss == ntp_loss, !weighted, "{step}");
    }
    let rates: Vec<f64> = steps.iter().map(|step| step["learning_rate"].as_f64().unwrap()).collect();
    assert!(rates.is_sorted_by(|a, b| a > b) && rates[11] < 2e-4, "decays to near zero: {rates:?}");

    let timings = home.text(&format!("{run}/timings.jsonl"));
    assert_eq!(timings.lines().count(), 12);
    let events: Vec<_> =
        files.iter().filter(|(name, _)| name.starts_with("tensorboard/events.out.tfevents.")).collect();
    let [(_, events)] = events[..] else { panic!("one event file, not {}", events.len()) };
    for tag in ["train/loss", "held_out/text"] {
        assert!(
            events.windows(tag.len()).any(|bytes| bytes == tag.as_bytes()),
            "{run}: no {tag} for TensorBoard"
        );
    }
}

/// `remit weights` in its three forms; the weights are worked out again from the log-probabilities.
fn check_weights(home: &Home) {
    home.write("text.txt", "12 plus 30 is 42. So 42 minus 30 is 12.");
    const LINE: &str = "weights --learner pretrain --reference reference --text text.txt";
    let shown = home.json(&format!("{LINE} --json"));
    assert_eq!(keys(&shown), ["sequences", "summary"]);
    let [sequence] = &shown["sequences"].as_array().unwrap()[..] else { panic!("one sequence") };
    check_weighting(sequence);
    let weights = numbers(&sequence["weights"]);
    let mean = weights.iter().sum::<f64>() / weights.len() as f64;
    check_close("mean", &[shown["summary"]["mean_weight"].as_f64().unwrap()], &[mean], 1e-6);
    let losses: Vec<f64> = numbers(&sequence["logp_learner"]).iter().map(|log_prob| -log_prob).collect();
    let weighted: f64 = losses.iter().zip(&weights).map(|(loss, weight)| loss * weight).sum();
    let summary = ["ntp_loss", "remit_loss"].map(|key| shown["summary"][key].as_f64().unwrap());
    let expected = [losses.iter().sum::<f64>(), weighted].map(|sum| sum / losses.len() as f64);
    check_close("losses", &summary, &expected, 1e-6);

    let text = home.ok(LINE);
    assert!(!text.contains('\u{1b}'), "no colours where the output is no terminal");
    for part in ["plus", "mean weight", "NTP loss", "ReMiT loss"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    home.ok(&format!("{LINE} --html page.html"));
    let page = home.text("page.html");
    assert!(page.starts_with("<!DOCTYPE html>") || page.starts_with("<!doctype html>"), "{:.60}", page);
    assert!(page.contains("minus"), "the text is in the page");
    for outside in ["http://", "https://", "src=\"/"] {
        assert!(!page.contains(outside), "the page is self-contained: {outside}");
    }

    // Ids need no tokenizer, several sequences are weighed each by itself, and other settings can be tried.
    home.write("ids.json", "[[0, 40, 41, 42, 43], [7, 8, 9]]");
    let ids = home.json("weights --learner pretrain --reference reference --ids ids.json --json");
    let lengths: Vec<usize> = ids["sequences"].as_array().unwrap().iter().map(check_weighting).collect();
    assert_eq!(lengths, [4, 2]);
    let wide = home.json(
        "weights --learner pretrain --reference reference --ids ids.json --json --weights.epsilon_low=1 \
         --weights.epsilon_high=1",
    );
    assert_eq!(
        [&wide["summary"]["clipped_low"], &wide["summary"]["clipped_high"]],
        [&json!(0.0), &json!(0.0)]
    );
}

/// Checks the arrays of one sequence against the formula; returns their length.
fn check_weighting(sequence: &Value) -> usize {
    assert_eq!(keys(sequence), ["delta", "ids", "logp_learner", "logp_reference", "weights"]);
    let [learner, reference, delta, weights] =
        ["logp_learner", "logp_reference", "delta", "weights"].map(|key| numbers(&sequence[key]));
    assert_eq!(learner.len() + 1, sequence["ids"].as_array().unwrap().len(), "one shorter than `ids`");
    assert!(learner.iter().chain(&reference).all(|&log_prob| log_prob < 0.0));
    let sums: Vec<f64> = learner.iter().zip(&delta).map(|(log_prob, delta)| log_prob + delta).collect();
    check_close("learner and delta", &sums, &reference, 1e-6);
    let mean = delta.iter().sum::<f64>() / delta.len() as f64;
    let expected: Vec<f64> =
        delta.iter().map(|delta| (2.0 / (1.0 + (mean - delta).exp())).clamp(0.8, 1.2)).collect();
    check_close("weights", &weights, &expected, 1e-5);
    weights.len()
}

/// `remit generate` from text and from ids, greedy and sampled.
fn check_generate(home: &Home) {
    home.write("prompts.json", "[[0, 40, 41], [7]]");
    let sequences = |line: &str| {
        let result = home
            .json(&format!("generate --model remit --ids prompts.json --max-new-tokens 12 --json {line}"));
        assert_eq!(keys(&result), ["sequences"]);
        result["sequences"].as_array().unwrap().iter().map(numbers).collect::<Vec<_>>()
    };
    let greedy = sequences("--greedy");
    assert_eq!([&greedy[0][..3], &greedy[1][..1]], [&[0.0, 40.0, 41.0][..], &[7.0]]);
    for sequence in &greedy {
        let ended = sequence.last() == Some(&0.0);
        assert!(sequence.iter().all(|&id| id < 300.0) && (ended || [15, 13].contains(&sequence.len())));
    }
    assert_eq!(greedy, sequences("--greedy --threads 1"));
    let sampled = sequences("--temperature 1.5 --top-p 0.9 --seed 3");
    assert_eq!(sampled, sequences("--temperature 1.5 --top-p 0.9 --seed 3"));
    assert_ne!(sampled, sequences("--temperature 1.5 --top-p 0.9 --seed 4"));
    assert_eq!(greedy, sequences("--temperature 1 --top-p 1e-6"), "the likeliest token alone is greedy");

    for size in [1, 2, 64] {
        let line = format!("--temperature 1.5 --top-p 0.9 --seed 3 --batch-size {size}");
        assert_eq!(sampled, sequences(&line), "the batch changes nothing");
    }
    assert_eq!(greedy, sequences("--temperature 1 --top-k 1"), "the likeliest token alone is greedy");
    let both = sequences("--temperature 1.5 --top-p 0.9 --seed 3 --num-samples 2");
    let next = sequences("--temperature 1.5 --top-p 0.9 --seed 4");
    assert_eq!(both, [&sampled[0], &next[0], &sampled[1], &next[1]].map(Clone::clone));

    let line = "generate --model remit --ids prompts.json --max-new-tokens 12 --json --greedy";
    let result = home.json(&format!("{line} --log-probs"));
    assert_eq!(keys(&result), ["log_probs", "sequences"]);
    for (sequence, (log_probs, prompt)) in
        greedy.iter().zip(result["log_probs"].as_array().unwrap().iter().zip([3, 1]))
    {
        let log_probs = numbers(log_probs);
        assert_eq!(log_probs.len(), sequence.len() - prompt);
        assert!(log_probs.iter().all(|&log_prob| log_prob < 0.0 && log_prob > -300f64.ln()));
    }

    let line = "generate --model remit --prompt 12 --max-new-tokens 40 --seed 1";
    let free = home.ok(line);
    let stop =
        free.char_indices().nth(10).map(|(at, _)| free[at..].trim_end().chars().take(2).collect::<String>());
    let stop = stop.expect("some text");
    let args = [line.split(' ').collect::<Vec<_>>(), vec!["--stop", "never there", "--stop", &stop]].concat();
    let cut = common::Done::of(home.command_of(&args)).stdout;
    let cut = cut.trim_end_matches('\n');
    assert!(free.starts_with(cut) && cut.contains(&stop) && cut.len() < free.len(), "{free}: {stop}: {cut}");

    let args = ["generate", "--model", "remit", "--prompt", "12 plus", "--max-new-tokens", "8", "--greedy"];
    let text = common::Done::of(home.command_of(&args));
    assert!(text.code == Some(0) && text.stdout.starts_with("12 plus"), "{text:?}");
}

#[test]
fn weights_and_losses_are_those_of_transformers() {
    for family in ["llama", "llama3"] {
        let home = Home::new();
        let file = TensorFile::open(&golden(family).join("forward.safetensors")).unwrap();
        let ids = id_rows(&file, "input_ids");
        home.write("ids.json", json!(ids).to_string());
        let directory = golden(family);
        let [learner, reference] = ["learner", "reference"].map(|name| directory.join(name));
        let line = format!(
            "weights --learner {} --reference {} --ids ids.json --json",
            learner.display(),
            reference.display()
        );
        let shown = home.json(&line);
        let sequences = shown["sequences"].as_array().unwrap();
        assert_eq!(sequences.len(), 3);
        for name in ["logp_learner", "logp_reference", "delta", "weights"] {
            for (sequence, want) in sequences.iter().zip(rows(&file, name)) {
                check_close(&format!("{family} {name}"), &numbers(&sequence[name]), &want, 1e-4);
            }
        }
        for (sequence, ids) in sequences.iter().zip(&ids) {
            assert_eq!(sequence["ids"], json!(ids));
        }
        let golden = golden_json(family);
        for name in ["ntp_loss", "remit_loss", "mean_weight", "clipped_low", "clipped_high"] {
            let [got, want] = [&shown["summary"], &golden].map(|json| json[name].as_f64().unwrap());
            check_close(&format!("{family} {name}"), &[got], &[want], 1e-5);
        }
    }
}

#[test]
fn greedy_continuations_are_those_of_transformers() {
    for family in ["llama", "llama3"] {
        let home = Home::new();
        let golden_values = golden_json(family);
        let length = golden_values["greedy_prompt_len"].as_u64().unwrap() as usize;
        let whole: Vec<Vec<f64>> =
            golden_values["greedy_ids"].as_array().unwrap().iter().map(numbers).collect();
        let prompts: Vec<Vec<u32>> =
            whole.iter().map(|ids| ids[..length].iter().map(|&id| id as u32).collect()).collect();
        home.write("prompts.json", json!(prompts).to_string());
        let line = format!(
            "generate --model {} --ids prompts.json --max-new-tokens {} --greedy --json",
            golden(family).join("learner").display(),
            whole[0].len() - length
        );
        let got: Vec<Vec<f64>> =
            home.json(&line)["sequences"].as_array().unwrap().iter().map(numbers).collect();
        assert_eq!(got, whole, "{family}");
    }
}

#[test]
fn stored_scores_train_as_the_reference_beside_the_learner_does() {
    let home = Home::trained();
    for dtype in ["f16", "f32"] {
        home.ok(&format!("score --config recipe.toml --quiet --out scores-{dtype} --dtype {dtype}"));
        home.ok(&format!("midtrain --config recipe.toml --quiet --run {dtype} --scores scores-{dtype}"));
    }
    home.ok("midtrain --config recipe.toml --quiet --run online");
    check_same("f32 scores against the reference itself", &home.outcome("online"), &home.outcome("f32"));
    let [online, f16] = ["online", "f16"].map(|run| home.losses(run));
    // A rounded score moves a weight by 0.002 at most where scores are above -8, and most by far less.
    check_close("loss with f16 scores", &f16, &online, 1e-4);
    assert!(online != f16, "float16 does round");
    home.ok("midtrain --config recipe.toml --quiet --run ntp --midtrain.objective.kind=ntp");
    assert!(home.parameters("ntp") != home.parameters("online"), "the reference has an effect");
}

#[test]
fn scores_in_three_parts_are_the_scores_in_one() {
    let home = Home::trained();
    home.ok("score --config recipe.toml --quiet --out whole");
    let part = |shard: &str| {
        home.json(&format!("score --config recipe.toml --quiet --out parts --shard {shard} --json"))
    };
    assert_eq!(
        [part("2/3"), part("1/3"), part("3/3")].map(|done| done["complete"].clone()),
        [false, false, true]
    );
    let [whole, parts] = ["whole", "parts"].map(|name| tree(&home.at(name)));
    let scores = |files: &BTreeMap<String, Vec<u8>>| -> Vec<u8> {
        files
            .iter()
            .filter(|(name, _)| name.ends_with("scores.bin"))
            .flat_map(|(_, bytes)| bytes.clone())
            .collect()
    };
    assert!(!scores(&whole).is_empty());
    assert!(scores(&whole) == scores(&parts), "the scores of the parts, one after another");
    for (run, scores) in [("of-whole", "whole"), ("of-parts", "parts")] {
        home.ok(&format!("midtrain --config recipe.toml --quiet --run {run} --scores {scores}"));
    }
    check_same("runs on both", &home.outcome("of-whole"), &home.outcome("of-parts"));
}

#[test]
fn a_dry_run_shows_what_would_be_done_and_does_nothing() {
    let home = Home::trained();
    home.write("text.txt", "1 plus 2 is 3.");
    home.write("ids.json", "[[0, 40]]");
    let before = tree(home.path());
    let check = |line: &str, parts: &[&str]| {
        let shown = home.ok(line);
        for part in parts {
            assert!(shown.contains(part), "{line}: no {part:?} in\n{shown}");
        }
        check_same(line, &before, &tree(home.path()));
    };
    check(
        "train-tokenizer --config recipe.toml --out new/tokenizer.json --dry-run",
        &["[tokenizer]\n", "vocab_size = 300", "digits = \"single\"", "sums.jsonl", "new/tokenizer.json"],
    );
    check(
        "prepare --config recipe.toml --out new --dry-run",
        &["[prepare]\n", "holdout = 0.1", "append_eos = true", "sums", "KiB", "to new"],
    );
    let of_a_run =
        ["learning_rate = 0.", "parameters  ", "steps  ", "predictions  ", "memory  ", "time, ", "passes"];
    check("pretrain --config recipe.toml --run new --dry-run", &of_a_run);
    check("midtrain --config recipe.toml --run new --dry-run", &of_a_run);
    check(
        "score --config recipe.toml --dry-run",
        &[
            "[score]\n",
            "dtype = \"f16\"",
            "reference/checkpoints/step-00000024",
            "windows",
            "KiB",
            "parameters",
            "time",
        ],
    );
    check(
        "weights --learner pretrain --reference reference --text text.txt --html new.html --dry-run",
        &["[weights]\n", "epsilon_low = 0.2", "pretrain/checkpoints/step-00000024", "parameters", "tokens"],
    );
    check(
        "generate --model pretrain --ids ids.json --max-new-tokens 4 --dry-run",
        &["pretrain/checkpoints/step-00000024", "parameters", "1 prompts"],
    );
    check(
        "quickstart --dry-run --dir new",
        &["[flywheel]\n", "run = \"new\"", "[rl]\n", "remit i1 s1", "to do"],
    );
    let facts = home.json("midtrain --config recipe.toml --run new --dry-run --json");
    assert_eq!(
        keys(&facts),
        [
            "first",
            "fits",
            "memory",
            "memory_available",
            "memory_total",
            "parameters",
            "predictions",
            "seconds",
            "settings",
            "steps"
        ]
    );
    assert_eq!(facts["predictions"], 12 * 8 * 32);
    assert_eq!(facts["parameters"].as_u64(), Some(home.parameters("pretrain").len() as u64));
}
