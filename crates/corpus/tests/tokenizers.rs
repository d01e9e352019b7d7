//! Training and encoding, held against the `tokenizers` library.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use remit_corpus::{Digits, Source, Tokenizer, TrainTokenizer, TrainedTokenizer, train_tokenizer};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

const TEXT: &str = "It was the best of times, it was the worst of times: 1234567 of them.\n\n  It's said, they'd \
                    say, that (if I'm right) she'll have gone 12.5 miles -- and we've seen éclairs, naïve 東京 🦀!\r\n\
                    \tfn main() { println!(\"{}\", 3 + 4); } // done\n";

fn train(text: &str, vocab_size: u32, digits: Digits) -> TrainedTokenizer {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("a.txt"), text).unwrap();
    let mut settings = TrainTokenizer::new(vec![Source::new("a", home.path())], vocab_size);
    settings.digits = digits;
    train_tokenizer(&settings, &()).unwrap()
}

fn open(trained: &TrainedTokenizer) -> Tokenizer {
    Tokenizer::from_bytes(&trained.json, Some(&trained.config)).unwrap()
}

/// Text with many different words of random syllables.
fn varied_text() -> String {
    let mut state = 1u64;
    let mut dice = move |sides: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    };
    let mut text = String::from(TEXT);
    for _ in 0..20_000 {
        for _ in 0..=dice(3) {
            let syllable = dice(14) * dice(14);
            text.push(b"bcdfghjklmnprst"[syllable as usize % 15] as char);
            text.push(b"aeiou"[(syllable / 15) as usize % 5] as char);
        }
        text.push_str([" ", ", ", "\n", " 977 "][dice(4) as usize]);
    }
    text
}

#[test]
fn training_is_the_same_every_time_and_keeps_its_promises() {
    let text = varied_text();
    let first = train(&text, 600, Digits::Single);
    // Threads race and hash maps differ; neither may show.
    for _ in 0..3 {
        assert_eq!(train(&text, 600, Digits::Single), first);
    }
    let tokenizer = open(&first);
    assert_eq!((tokenizer.vocab_size(), first.vocab_size), (600, 600));
    assert_eq!((tokenizer.eos(), tokenizer.id("<|endoftext|>"), tokenizer.bos()), (Some(0), Some(0), None));
    for text in [TEXT, "", " ", "\u{0}\u{7f}é\u{fffd}"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text);
    }
    let numbers = tokenizer.encode("977").unwrap();
    assert_eq!(numbers.len(), 3, "digits stand alone");
    let grouped = open(&train(&text, 600, Digits::Group));
    assert!(grouped.encode("977").unwrap().len() < 3);
    let config: serde_json::Value = serde_json::from_slice(&first.config).unwrap();
    assert_eq!(config["tokenizer_class"], "PreTrainedTokenizerFast");
    assert_eq!(config["eos_token"], "<|endoftext|>");
}

#[test]
fn the_merges_are_those_of_the_library() {
    // The library's own trainer, on the same words.
    let text = varied_text();
    let ours = open(&train(&text, 500, Digits::Single));
    let mut theirs = tokenizers::Tokenizer::from_bytes(ours.json()).unwrap();
    let mut trainer = TrainerWrapper::from(
        BpeTrainer::builder()
            .vocab_size(500)
            .min_frequency(2)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![tokenizers::AddedToken::from("<|endoftext|>", true)])
            .build(),
    );
    theirs.train(&mut trainer, std::iter::once(text.as_str())).unwrap();
    let vocab: BTreeMap<String, u32> = theirs.get_vocab(true).into_iter().collect();
    for (token, id) in &vocab {
        assert_eq!(ours.id(token), Some(*id), "{token}");
    }
    assert_eq!(vocab.len(), 500);
}

#[test]
fn a_small_text_gives_a_small_vocabulary() {
    let trained = train("aaaa aaaa", 1000, Digits::Single);
    // Merges: aa, aaaa; the second word is ` aaaa`, of which `Ġaaaa` occurs once only.
    assert_eq!(trained.vocab_size, 257 + 2);
    assert_eq!(open(&trained).encode("aaaa").unwrap().len(), 1);
}

#[test]
fn special_tokens_in_the_text_are_special() {
    let tokenizer = open(&train(&varied_text(), 400, Digits::Single));
    let theirs = tokenizers::Tokenizer::from_bytes(tokenizer.json()).unwrap();
    let text = "end<|endoftext|> of times";
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(ids, theirs.encode(text, false).unwrap().get_ids());
    assert!(ids.contains(&0));
}

#[test]
fn limits_in_the_file_do_not_cut_documents() {
    let trained = train(&varied_text(), 300, Digits::Single);
    let mut json: serde_json::Value = serde_json::from_slice(&trained.json).unwrap();
    json["truncation"] = serde_json::json!(
        {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    );
    let limited = Tokenizer::from_bytes(&serde_json::to_vec(&json).unwrap(), None).unwrap();
    assert_eq!(limited.encode(TEXT).unwrap(), open(&trained).encode(TEXT).unwrap());
    assert_ne!(limited.hash(), open(&trained).hash());
}

/// The tokenizers that the short way is taken for, and two that it must not be taken for.
fn kinds() -> Vec<(Tokenizer, tokenizers::Tokenizer)> {
    let text = varied_text();
    let mut jsons = vec![train(&text, 700, Digits::Single).json, train(&text, 700, Digits::Group).json];
    let mut gpt_2: serde_json::Value = serde_json::from_slice(&jsons[0]).unwrap();
    gpt_2["pre_tokenizer"] = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    jsons.push(serde_json::to_vec(&gpt_2).unwrap());
    gpt_2["pre_tokenizer"]["add_prefix_space"] = true.into();
    jsons.push(serde_json::to_vec(&gpt_2).unwrap());
    gpt_2["normalizer"] = serde_json::json!({"type": "NFC"});
    jsons.push(serde_json::to_vec(&gpt_2).unwrap());
    jsons
        .iter()
        .map(|json| {
            (Tokenizer::from_bytes(json, None).unwrap(), tokenizers::Tokenizer::from_bytes(json).unwrap())
        })
        .collect()
}

#[test]
fn ids_are_those_of_the_library() {
    let kinds = kinds();
    for (i, (ours, theirs)) in kinds.iter().enumerate() {
        for text in
            [TEXT, "", "  ", "\r\n\r\n x", "a\n\nb", "e\u{301}", &"long ".repeat(100), &"x".repeat(5000)]
        {
            let expected = theirs.encode(text, false).unwrap();
            assert_eq!(ours.encode(text).unwrap(), expected.get_ids(), "kind {i}, text {text:?}");
        }
    }
    let check = |text: String| {
        for (ours, theirs) in &kinds {
            let expected = theirs.encode(text.as_str(), false).unwrap();
            prop_assert_eq!(ours.encode(&text).unwrap(), expected.get_ids());
        }
        Ok(())
    };
    let mut runner = proptest::test_runner::TestRunner::default();
    runner.run(&"(?s)[a-zA-Z0-9 \n\r\t'é東.!<|>_-]{0,80}", check).unwrap();
    runner.run(&"(?s).{0,60}", check).unwrap();
}
