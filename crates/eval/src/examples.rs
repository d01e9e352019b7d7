//! What the tests of this crate share: a small tokenizer and a model of which every parameter matters.

use remit_corpus::{Source, Tokenizer, TrainTokenizer, train_tokenizer};
use remit_engine::{Cpu, ModelId, Usage};
use remit_micro10::{Family, Level, Noise, Problems, Split};
use remit_model::Decoder;
use remit_model::families::llama::config::Settings;

/// Of 300 tokens, trained on problems.
pub fn tokenizer() -> Tokenizer {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("problems.jsonl");
    let families = Family::MICRO10.into();
    let problems = Problems {
        families,
        level: Level::default(),
        seed: 1,
        count: 100,
        noise: Noise::NONE,
        split: Split::Train,
    };
    remit_store::atomic::write_json_lines(&path, problems.documents().expect("good settings"))
        .expect("written");
    let settings = TrainTokenizer::new(vec![Source::new("problems", path)], 300);
    let trained = train_tokenizer(&settings, &()).expect("trained");
    Tokenizer::from_bytes(&trained.json, Some(&trained.config)).expect("a tokenizer")
}

/// Whose next tokens are far from equally likely.
pub fn decoder(tokenizer: &Tokenizer, max_length: usize) -> Decoder {
    let settings = Settings {
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: Some(2),
        intermediate_size: 64,
        max_position_embeddings: max_length,
        initializer_range: 0.3,
        ..Default::default()
    };
    let architecture =
        settings.build(tokenizer.vocab_size() as usize, tokenizer.eos()).expect("good settings");
    Decoder::fresh(architecture, 7)
}

/// An engine with that decoder.
pub fn engine(tokenizer: &Tokenizer, max_length: usize) -> (Cpu, ModelId) {
    let mut engine = Cpu::new();
    let model = engine.insert(decoder(tokenizer, max_length), &Usage::default()).expect("no length yet");
    (engine, model)
}
