//! What stands in front of a text, which tokens are special, and what becomes of tokenizers that put a blank in front of
//! every text. The expected ids are those of `transformers` 5 on the same files.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use remit_corpus::examples::{Counted, Encoder, Examples, Place, Row};
use remit_corpus::{Bos, Prepare, Source, TokenStore, Tokenizer, prepare};
use serde_json::{Value, json};

const SPECIAL: [&str; 3] = ["<unk>", "<s>", "</s>"];

fn added(id: usize, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": false, "special": true})
}

/// Puts `tokens` in front of a text, and `behind` behind it.
fn template(front: &[&str], behind: &[&str]) -> Value {
    let piece = |token: &&str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let mut single: Vec<Value> = front.iter().map(piece).collect();
    single.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
    single.extend(behind.iter().map(piece));
    let tokens: serde_json::Map<_, _> = SPECIAL
        .iter()
        .enumerate()
        .map(|(id, token)| (token.to_string(), json!({"id": token, "ids": [id], "tokens": [token]})))
        .collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": tokens})
}

/// As Llama 2 has it: a blank in front of every text, blanks written as `▁`, the letters `a` to `e`, digits, and the words
/// `▁a`, `▁5`, `▁ab` and `ab`.
fn sentencepiece() -> Value {
    let characters = "▁abcde0123456789:\n";
    let words = ["▁a", "▁5", "▁ab", "ab"].map(str::to_owned);
    let tokens =
        SPECIAL.map(str::to_owned).into_iter().chain(characters.chars().map(String::from)).chain(words);
    let vocab: serde_json::Map<_, _> = tokens.enumerate().map(|(id, token)| (token, id.into())).collect();
    let normalizers = json!([{"type": "Prepend", "prepend": "▁"},
                             {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]);
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": null,
        "post_processor": template(&["<s>"], &[]), "decoder": null,
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "vocab": vocab,
                  "merges": ["▁ a", "▁ 5", "a b", "▁a b"]},
    })
}

/// The same by a pre-tokenizer.
fn metaspace(scheme: &str) -> Value {
    let mut json = sentencepiece();
    json["normalizer"] = Value::Null;
    json["pre_tokenizer"] =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
    json
}

/// Opens a directory with these files.
fn open(files: &[(&str, Value)]) -> Result<Tokenizer, String> {
    let home = tempfile::tempdir().unwrap();
    for (name, value) in files {
        fs::write(home.path().join(name), value.to_string()).unwrap();
    }
    let told = |error: remit_corpus::Error| error.to_string().replace(home.path().to_str().unwrap(), "@");
    Tokenizer::open(home.path()).map_err(told)
}

fn with_config(json: Value, config: Value) -> Tokenizer {
    open(&[("tokenizer.json", json), ("tokenizer_config.json", config)]).unwrap()
}

fn usual() -> Value {
    json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
}

fn shown(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    ids.iter().map(|&id| tokenizer.token(id).unwrap()).collect()
}

#[track_caller]
fn check_prefix(post_processor: Value, config: Value, expected: &[u32]) {
    let mut json = sentencepiece();
    json["post_processor"] = post_processor;
    assert_eq!(with_config(json, config).prefix(&Bos::Own).unwrap(), expected);
}

#[test]
fn what_stands_in_front_is_what_the_post_processor_puts_there() {
    check_prefix(template(&["<s>"], &[]), usual(), &[1]);
    check_prefix(template(&[], &[]), usual(), &[]);
    check_prefix(Value::Null, usual(), &[]);
    check_prefix(template(&["<s>", "<unk>"], &[]), usual(), &[1, 0]);
    check_prefix(template(&["<s>"], &["</s>"]), usual(), &[1]);
    let roberta = json!({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1],
                         "trim_offsets": true, "add_prefix_space": false});
    check_prefix(roberta, usual(), &[1]);
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let sequence = json!({"type": "Sequence", "processors": [byte_level, template(&["<s>"], &[])]});
    check_prefix(sequence, usual(), &[1]);
    // Beside a `tokenizer.json`, these two settings say nothing.
    check_prefix(template(&["<s>"], &[]), json!({"bos_token": "<s>", "add_bos_token": false}), &[1]);
    check_prefix(template(&[], &[]), json!({"bos_token": "<s>", "add_bos_token": true}), &[]);
    check_prefix(template(&[], &[]), json!({"bos_token": null, "eos_token": "</s>"}), &[]);

    let mut json = sentencepiece();
    json["post_processor"] = template(&[], &["<unk>"]);
    let error = open(&[("tokenizer.json", json), ("tokenizer_config.json", usual())]).unwrap_err();
    assert_eq!(
        error,
        "`@/tokenizer.json` is not a usable tokenizer: its post-processor puts `<unk>` behind a text, where only the \
         end token is supported"
    );
}

#[test]
fn nothing_stands_in_front_twice() {
    let tokenizer = with_config(sentencepiece(), usual());
    let prefix = tokenizer.prefix(&Bos::Own).unwrap();
    assert_eq!(shown(&tokenizer, &tokenizer.encode_document(&prefix, "ab").unwrap()), ["<s>", "▁ab"]);
    assert_eq!(shown(&tokenizer, &tokenizer.encode_document(&prefix, "<s>ab").unwrap()), ["<s>", "▁ab"]);
    assert!(tokenizer.prefix(&Bos::None).unwrap().is_empty());
    assert_eq!(tokenizer.prefix(&Bos::Token("</s>".into())).unwrap(), [2]);
    assert_eq!(tokenizer.describe_prefix(&prefix), "<s> (1)");
}

/// The end token, by its text.
#[track_caller]
fn check_eos(files: &[(&str, Value)], expected: Option<&str>) {
    let files = [&[("tokenizer.json", sentencepiece())], files].concat();
    let tokenizer = open(&files).unwrap();
    assert_eq!(tokenizer.eos().and_then(|id| tokenizer.token(id)).as_deref(), expected);
}

#[test]
fn the_end_token_is_looked_for_in_the_order_of_the_files() {
    let (config, map) = ("tokenizer_config.json", "special_tokens_map.json");
    let unk = json!({"eos_token": "<unk>"});
    check_eos(&[], Some("</s>"));
    check_eos(&[(config, json!({}))], Some("</s>"));
    check_eos(&[(config, unk.clone())], Some("<unk>"));
    check_eos(&[(config, json!({"eos_token": null}))], None);
    check_eos(&[(map, unk.clone())], Some("<unk>"));
    check_eos(&[(map, json!({"eos_token": {"content": "<unk>", "lstrip": true}}))], Some("<unk>"));
    check_eos(&[(config, usual()), (map, unk.clone())], Some("<unk>"));
    // With its own list of added tokens, the config is the only file that counts.
    let mut whole = usual();
    whole["added_tokens_decoder"] = json!({"2": {"content": "</s>", "special": true}});
    check_eos(&[(config, whole), (map, unk)], Some("</s>"));

    // Two usual names say nothing.
    let mut json = sentencepiece();
    json["added_tokens"].as_array_mut().unwrap().push(added(25, "<|im_end|>"));
    assert_eq!(open(&[("tokenizer.json", json)]).unwrap().eos(), None);
}

/// How `ab <x> a` is read beside these files.
#[track_caller]
fn check_added(files: &[(&str, Value)], expected: &[&str]) {
    let files = [&[("tokenizer.json", sentencepiece())], files].concat();
    let tokenizer = open(&files).unwrap();
    assert_eq!(shown(&tokenizer, &tokenizer.encode("ab <x> a").unwrap()), expected);
    let plain = open(&files[..1]).unwrap();
    assert_eq!(tokenizer.hash() == plain.hash(), tokenizer.vocab_size() == plain.vocab_size());
}

#[test]
fn tokens_that_any_file_adds_are_tokens() {
    let with = |key: &str, value: Value| {
        let mut config = usual();
        config[key] = value;
        config
    };
    let (config, map, added) = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json");
    // `<`, `x` and `>` are unknown, and unknown ones in a row are one token.
    let split = ["▁ab", "▁", "<unk>", "▁a"];
    // Behind a special token the tokenizer puts its blank again.
    let one = ["▁ab", "▁", "<x>", "▁", "▁a"];
    check_added(&[(config, usual())], &split);
    let decoder = |id: &str| json!({id: {"content": "<x>", "special": true}});
    check_added(&[(config, with("added_tokens_decoder", decoder("25")))], &one);
    for key in ["additional_special_tokens", "extra_special_tokens"] {
        check_added(&[(config, with(key, json!(["<x>"])))], &one);
        check_added(&[(config, usual()), (map, json!({key: ["<x>"]}))], &one);
    }
    check_added(&[(config, with("extra_special_tokens", json!({"image_token": "<x>"})))], &one);
    check_added(&[(config, with("pad_token", json!("<x>")))], &one);
    check_added(&[(config, with("x_token", json!("<x>")))], &one);
    let strips = json!([{"content": "<x>", "lstrip": true, "special": true}]);
    check_added(&[(config, with("additional_special_tokens", strips))], &["▁ab", "<x>", "▁", "▁a"]);
    // A token that is not special is looked for behind the normalizer, which puts a blank in front of it.
    check_added(&[(config, usual()), (added, json!({"<x>": 25}))], &["▁ab", "▁<x>", "▁a"]);
    let mut both = with("extra_special_tokens", json!(["<y>"]));
    both["additional_special_tokens"] = json!(["<x>"]);
    let tokenizer = with_config(sentencepiece(), both);
    assert_eq!(shown(&tokenizer, &tokenizer.encode("ab <x> a").unwrap()), split);
    let mut is_text = with("extra_special_tokens", json!(["<x>"]));
    is_text["split_special_tokens"] = true.into();
    check_added(&[(config, is_text)], &split);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let error = |files: &[(&str, Value)]| {
        open(&[&[("tokenizer.json", sentencepiece())], files].concat()).unwrap_err()
    };
    let config = "tokenizer_config.json";
    assert_eq!(
        error(&[(config, json!({"added_tokens_decoder": {"40": {"content": "<x>"}}}))]),
        "`@/tokenizer_config.json` is not a usable tokenizer: it gives the token `<x>` the id 40, and its id is 25"
    );
    assert_eq!(
        error(&[("added_tokens.json", json!({"<x>": 2}))]),
        "`@/added_tokens.json` is not a usable tokenizer: it gives the token `<x>` the id 2, and its id is 25"
    );
    assert_eq!(
        error(&[("special_tokens_map.json", json!({"eos_token": "<end>"}))]),
        "`@/special_tokens_map.json` is not a usable tokenizer: its eos_token `<end>` is not in the vocabulary"
    );
    assert_eq!(
        error(&[(config, json!({"eos_token": 2}))]),
        "`@/tokenizer_config.json` is not a usable tokenizer: its eos_token has 2, which is neither text nor an object \
         with `content`"
    );
    assert_eq!(
        error(&[("added_tokens.json", json!([]))]),
        "`@/added_tokens.json` is not a usable tokenizer: it is no JSON object"
    );
}

#[track_caller]
fn check_parts(json: Value, parts: &[&str], expected: &[&[&str]]) {
    let tokenizer = with_config(json, usual());
    let (ids, ends) = tokenizer.encode_parts(parts).unwrap();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let found: Vec<_> = starts.zip(&ends).map(|(start, &end)| shown(&tokenizer, &ids[start..end])).collect();
    assert_eq!(found, expected);
    // Generation goes on behind the ids of the first part by itself.
    assert_eq!(tokenizer.encode(parts[0]).unwrap(), ids[..ends[0]]);
}

#[test]
fn a_blank_in_front_of_a_text_is_put_at_no_seam() {
    for json in [sentencepiece(), metaspace("first"), metaspace("always")] {
        check_parts(json.clone(), &["c:", " 5"], &[&["▁", "c", ":"], &["▁5"]]);
        check_parts(json.clone(), &["c:", "5"], &[&["▁", "c", ":"], &["5"]]);
        // The token `▁5` would reach across.
        check_parts(json.clone(), &["c: ", "5", " 5"], &[&["▁", "c", ":", "▁"], &["5"], &["▁5"]]);
        check_parts(json.clone(), &["", "5"], &[&[], &["▁5"]]);
        check_parts(json.clone(), &["c", ""], &[&["▁", "c"], &[]]);
        // The token `ab` would reach across, and the rest follows without a blank of its own.
        check_parts(json, &["ca", "b b"], &[&["▁", "c", "a"], &["b", "▁", "b"]]);
    }
    // Behind a special token the tokenizer's rule holds, as in the whole text.
    check_parts(sentencepiece(), &["ca", "b</s>5"], &[&["▁", "c", "a"], &["b", "</s>", "▁5"]]);
    check_parts(metaspace("first"), &["ca", "b</s>5"], &[&["▁", "c", "a"], &["b", "</s>", "5"]]);
    check_parts(metaspace("always"), &["ca", "b</s>5"], &[&["▁", "c", "a"], &["b", "</s>", "▁5"]]);
    check_parts(metaspace("never"), &["c: ", "5"], &[&["c", ":", "▁"], &["5"]]);
}

fn row(value: Value) -> Row {
    let place = Place { path: "rows.jsonl".into(), number: 1, counted: Counted::Lines };
    Row::new(place, value.to_string()).unwrap()
}

#[test]
fn rows_have_the_ids_of_the_whole_text() {
    let mut config = usual();
    config["chat_template"] =
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}0 {{ m.content }} 1\
                               {% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
            .into();
    let tokenizer = Arc::new(with_config(sentencepiece(), config));
    let encoder = Encoder::new(&Examples::default(), tokenizer.clone()).unwrap();
    let example = encoder.example(&row(json!({"prompt": "c:", "completion": " 5 a"}))).unwrap();
    assert_eq!(shown(&tokenizer, &example.tokens), ["<s>", "▁", "c", ":", "▁5", "▁a", "</s>"]);
    assert_eq!(example.num_completion_tokens(), 3);

    let said = |role: &str, content: &str| json!({"role": role, "content": content});
    let messages =
        json!([said("user", "c"), said("assistant", "5"), said("user", "a"), said("assistant", "ab")]);
    let example = encoder.example(&row(json!({"messages": messages}))).unwrap();
    let rendered = "<s>0 c 1 5</s>0 a 1 ab</s>";
    assert_eq!(example.tokens, tokenizer.encode(rendered).unwrap());
    let learned: Vec<u32> = example.tokens[1..]
        .iter()
        .zip(&example.mask)
        .filter(|(_, counts)| **counts)
        .map(|(&id, _)| id)
        .collect();
    assert_eq!(shown(&tokenizer, &learned), ["▁5", "</s>", "▁ab", "</s>"]);
    let prompt = encoder.prompt(&row(json!({"messages": messages}))).unwrap();
    assert_eq!(prompt, tokenizer.encode("<s>0 c 1 5</s>0 a 1").unwrap());
}

/// The tokens of a store of one document.
fn stored(tokenizer: &Path, text: &str, change: impl FnOnce(&mut Prepare)) -> Vec<u32> {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("text.jsonl");
    fs::write(&file, json!({"text": text}).to_string() + "\n").unwrap();
    let mut settings = Prepare::new(tokenizer, vec![Source::new("text", file.to_str().unwrap())]);
    change(&mut settings);
    let out = home.path().join("store");
    prepare(&settings, &out, &()).unwrap();
    let store = TokenStore::open(&out).unwrap();
    assert_eq!(store.tokenizer().unwrap().unwrap().hash(), Tokenizer::open(tokenizer).unwrap().hash());
    (0..store.num_tokens()).map(|index| store.token(index)).collect()
}

#[test]
fn documents_begin_like_prompts_and_are_cut_without_a_blank() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("tokenizer.json"), sentencepiece().to_string()).unwrap();
    fs::write(home.path().join("special_tokens_map.json"), usual().to_string()).unwrap();
    fs::write(home.path().join("added_tokens.json"), json!({"<x>": 25}).to_string()).unwrap();
    let tokenizer = Tokenizer::open(home.path()).unwrap();
    assert_eq!(stored(home.path(), "ab <x>", |_| ()), [1, 23, 25, 2]);
    assert_eq!(stored(home.path(), "ab", |settings| settings.bos = Bos::None), [23, 2]);
    assert_eq!(stored(home.path(), "ab", |settings| settings.bos = Bos::Token("<unk>".into())), [0, 23, 2]);
    // The end of a document is the beginning of the next, so the end token does not stand there twice.
    let set_end = |settings: &mut Prepare| settings.bos = Bos::Token("</s>".into());
    assert_eq!(stored(home.path(), "ab", set_end), [23, 2]);

    let long = "ab 5:\nab\n".repeat(150_000);
    let whole = [vec![1], tokenizer.encode(&long).unwrap(), vec![2]].concat();
    assert!(stored(home.path(), &long, |_| ()) == whole, "a cut adds no blank");
}

#[test]
fn a_class_that_transformers_builds_anew_is_built_anew() {
    let with = |name: &str, more: Value| {
        let mut config = usual();
        config["tokenizer_class"] = name.into();
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let ids = |tokenizer: &Tokenizer, text: &str| shown(tokenizer, &tokenizer.encode(text).unwrap());
    let plain = with_config(sentencepiece(), with("PreTrainedTokenizerFast", json!({})));
    assert_eq!(ids(&plain, " a</s>5"), ["▁", "▁a", "</s>", "▁5"]);
    // `LlamaTokenizer` puts its blank where there is none, and only at the beginning; `legacy` at every one.
    let llama = with_config(sentencepiece(), with("LlamaTokenizerFast", json!({"add_bos_token": false})));
    assert_eq!(ids(&llama, " a</s>5"), ["▁a", "</s>", "5"]);
    assert_eq!(llama.prefix(&Bos::Own).unwrap(), [1]);
    assert_ne!(llama.hash(), plain.hash());
    let legacy = with_config(sentencepiece(), with("LlamaTokenizer", json!({"legacy": true})));
    assert_eq!(ids(&legacy, " a</s>5"), ["▁a", "</s>", "▁5"]);
    let bare = with_config(sentencepiece(), with("LlamaTokenizer", json!({"add_prefix_space": false})));
    assert_eq!(ids(&bare, "a</s> 5"), ["a", "</s>", "▁5"]);
    // Characters without a token have none: the class names no unknown token to its model.
    assert_eq!(ids(&llama, "a?b"), ["▁ab"]);

    // The class of GPT 2 cuts words in its own way, which its digits are no part of; `olmo2` overrules it.
    let mut json = sentencepiece();
    json["normalizer"] = Value::Null;
    json["post_processor"] = Value::Null;
    json["pre_tokenizer"] =
        json!({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Isolated", "invert": false});
    let config = with("GPT2Tokenizer", json!({}));
    let files = [("tokenizer.json", json), ("tokenizer_config.json", config)];
    let gpt_2 = open(&files).unwrap();
    assert_eq!(ids(&gpt_2, "ab"), ["ab"]);
    let olmo_2 = [&files[..], &[("config.json", json!({"model_type": "olmo2", "hidden_size": 8}))]].concat();
    let olmo_2 = open(&olmo_2).unwrap();
    assert_eq!(ids(&olmo_2, "ab"), ["a", "b"]);
    // What decided is kept with the tokenizer's files, wherever they go.
    let kept: Vec<_> = olmo_2.files().map(|(name, _)| name).collect();
    assert_eq!(kept, ["tokenizer.json", "tokenizer_config.json", "config.json"]);
    let kept = olmo_2.files().map(|(name, bytes)| (name, serde_json::from_slice(bytes).unwrap()));
    let again = open(&kept.collect::<Vec<_>>()).unwrap();
    assert_eq!((again.hash(), ids(&again, "ab")), (olmo_2.hash(), ids(&olmo_2, "ab")));

    let config = with("GemmaTokenizer", json!({}));
    let error = open(&[("tokenizer.json", sentencepiece()), ("tokenizer_config.json", config)]).unwrap_err();
    assert_eq!(
        error,
        "`@/tokenizer_config.json` is not a usable tokenizer: its tokenizer_class `GemmaTokenizer` is built anew by \
         `transformers` and not supported"
    );
}
