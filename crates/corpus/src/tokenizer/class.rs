//! Tokenizers that `transformers` 5 does not take from `tokenizer.json` as they stand there.
//!
//! Where `tokenizer_class` names one of these classes, it takes the vocabulary, the merges and the post-processor, and builds
//! the rest anew: how text is normalized and cut into words. `model_type` in `config.json` can overrule the name.

use serde_json::{Value, json};

use super::{CONFIG_FILE, Files, MODEL_FILE};

/// How Qwen 2 cuts words.
const QWEN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The text of the token that GPT 2 and its kin end documents with.
const END: &str = "<|endoftext|>";
/// Special tokens by name.
pub(super) type Defaults = &'static [(&'static str, &'static str)];
/// Classes that are built anew here.
const KNOWN: [&str; 4] = ["LlamaTokenizer", "Qwen2Tokenizer", "GPT2Tokenizer", "GPTNeoXTokenizer"];
/// Classes of language models that are built anew in ways that are not known here.
const OTHERS: [&str; 7] = [
    "CodeLlamaTokenizer",
    "CohereTokenizer",
    "GemmaTokenizer",
    "Qwen3_5Tokenizer",
    "T5Tokenizer",
    "XGLMTokenizer",
    "XLMRobertaTokenizer",
];

/// The class that a tokenizer is opened as and built anew; `None` where `tokenizer.json` counts as it is.
fn class(files: &Files) -> Option<String> {
    let read = |name: &str| -> Value {
        files.get(name).and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
    };
    let (config, model) = (read(CONFIG_FILE), read(MODEL_FILE));
    let named = config["tokenizer_class"].as_str().or(model["tokenizer_class"].as_str());
    let named = named.map(|name| name.trim_end_matches("Fast").to_owned());
    let class = match model["model_type"].as_str() {
        Some("olmo2") => None,
        Some("qwen3") => named.or(Some("Qwen2Tokenizer".into())),
        _ => named,
    };
    class.filter(|class| KNOWN.contains(&class.as_str()) || OTHERS.contains(&class.as_str()))
}

/// Whether `config.json` decides how the others are read, as it does for few models.
pub(super) fn is_decided_by_model(files: &Files) -> bool {
    let without = Files(files.0.iter().filter(|(name, _)| *name != MODEL_FILE).cloned().collect());
    class(files) != class(&without)
}

/// How a text becomes ids, without the vocabulary and what only concerns offsets and texts.
pub(super) fn ways(json: &Value) -> Value {
    let mut ways = json.clone();
    for key in ["vocab", "merges"] {
        ways["model"][key] = Value::Null;
    }
    ways["decoder"] = Value::Null;
    if let Some(steps) = ways["pre_tokenizer"]["pretokenizers"].as_array_mut() {
        steps.iter_mut().for_each(|step| step["trim_offsets"] = Value::Null);
    }
    ways["pre_tokenizer"]["trim_offsets"] = Value::Null;
    ways
}

/// What a class makes of `tokenizer.json`, and the names of special tokens that it takes for granted.
///
/// # Errors
/// When the class builds itself in a way that is not known here.
pub(super) fn rebuilt(json: &Value, files: &Files) -> Result<Option<(Value, Defaults)>, String> {
    let Some(class) = class(files) else { return Ok(None) };
    let config: Value = files.get(CONFIG_FILE).map_or(Value::Null, |config| {
        // What is wrong with it is told by whoever reads the special tokens.
        serde_json::from_slice(config).unwrap_or_default()
    });
    let blank = |default: bool| config["add_prefix_space"].as_bool().unwrap_or(default);
    let byte_level = |blank: bool, words: bool| json!({"type": "ByteLevel", "add_prefix_space": blank, "trim_offsets": true, "use_regex": words});
    let mut new = json.clone();
    let defaults: Defaults = match class.as_str() {
        "LlamaTokenizer" => {
            let is_old = config["legacy"].as_bool().unwrap_or(false);
            let scheme = match (blank(true), is_old) {
                (false, _) => "never",
                (true, true) => "always",
                (true, false) => "first",
            };
            let mut steps = vec![
                json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
                json!({"type": "ByteFallback"}),
                json!({"type": "Fuse"}),
            ];
            steps
                .extend(blank(true).then(|| json!({"type": "Strip", "content": " ", "start": 1, "stop": 0})));
            new["normalizer"] = Value::Null;
            new["pre_tokenizer"] =
                json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
            new["decoder"] = json!({"type": "Sequence", "decoders": steps});
            &[("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>")]
        }
        "Qwen2Tokenizer" => {
            let words =
                json!({"type": "Split", "pattern": {"Regex": QWEN}, "behavior": "Isolated", "invert": false});
            new["normalizer"] = json!({"type": "NFC"});
            new["pre_tokenizer"] =
                json!({"type": "Sequence", "pretokenizers": [words, byte_level(blank(false), false)]});
            new["decoder"] = byte_level(true, true);
            &[("unk_token", END), ("eos_token", END), ("pad_token", END)]
        }
        "GPT2Tokenizer" | "GPTNeoXTokenizer" => {
            let is_neox = class == "GPTNeoXTokenizer";
            new["normalizer"] = if is_neox { json!({"type": "NFC"}) } else { Value::Null };
            new["pre_tokenizer"] = byte_level(blank(false), true);
            new["decoder"] = byte_level(true, true);
            if is_neox {
                // This one alone asks the settings that a `tokenizer.json` silences, and finds nothing.
                new["post_processor"] = Value::Null;
            }
            match is_neox {
                true => &[
                    ("unk_token", END),
                    ("bos_token", END),
                    ("eos_token", END),
                    ("pad_token", "<|padding|>"),
                ],
                false => &[("unk_token", END), ("bos_token", END), ("eos_token", END)],
            }
        }
        other => {
            return Err(format!(
                "its tokenizer_class `{other}` is built anew by `transformers` and not supported"
            ));
        }
    };
    if json["model"]["type"] != "BPE" {
        return Err(format!("its tokenizer_class `{class}` has a BPE model, and this is none"));
    }
    let is_llama = class == "LlamaTokenizer";
    let affix = if is_llama { Value::Null } else { "".into() };
    new["model"] = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": affix,
        "end_of_word_suffix": affix, "fuse_unk": is_llama, "byte_fallback": is_llama, "ignore_merges": false,
        "vocab": json["model"]["vocab"], "merges": json["model"]["merges"],
    });
    // With its own list of added tokens, the config's are the only ones.
    if config["added_tokens_decoder"].is_object() {
        new["added_tokens"] = json!([]);
    }
    Ok(Some((new, defaults)))
}
