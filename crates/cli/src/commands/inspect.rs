//! `remit inspect`: what a checkpoint is, and what training it would take.

use super::print_json;
use crate::args::Shared;
use crate::render::error::Failure;
use crate::render::table::Table;
use crate::render::{print, units};
use clap::Args;
use remit_corpus::{Bos, Tokenizer};
use remit_engine::Precision;
use remit_model::{
    Architecture, Attention, Decoder, Frozen, Keep, NormPlace, Pairing, PartSizes, QkNorm, RopeScaling,
    Workspace,
};
use remit_store::tensors::TensorDirectory;
use remit_train::locate_checkpoint;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Checkpoint, or a run whose latest checkpoint is meant
    #[arg(value_name = "DIR")]
    pub model: PathBuf,
    /// Window for which memory is estimated; 2048, or what the model allows if that is less
    #[arg(long, value_name = "N")]
    pub window: Option<usize>,
}

/// Runs the verb. Opens the checkpoint as any other verb would, so that what does not fit is found here too; no
/// parameter is read.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let path = locate_checkpoint(&arguments.model)?;
    let model = Decoder::mapped(&path)?;
    let facts = Facts::of(&model, &path, arguments.window)?;
    if shared.json {
        return print_json(&facts.to_json(&path, model.architecture()));
    }
    print(&facts.to_text(&path, model.architecture()))
}

/// What is shown.
struct Facts {
    /// By name, as text.
    switches: Vec<(&'static str, String)>,
    sizes: PartSizes,
    files: Files,
    tokenizer: Option<TokenizerFacts>,
    chat_template: Option<&'static str>,
    memory: Memory,
    window: usize,
}

impl Facts {
    fn of(model: &Frozen, path: &Path, window: Option<usize>) -> Result<Facts, Failure> {
        let max_length = model.architecture().max_length;
        let window = match window {
            Some(window) if window == 0 || window > max_length => {
                return Err(Failure::new(format!(
                    "`--window {window}` is not from 1 to {max_length} (`max_position_embeddings`)"
                )));
            }
            Some(window) => window,
            None => max_length.min(2048),
        };
        Ok(Facts {
            switches: switches(model.architecture()),
            sizes: model.layout().part_sizes(),
            files: Files::of(path)?,
            tokenizer: tokenizer(path)?,
            chat_template: chat_template(path)?,
            memory: Memory::of(model, window),
            window,
        })
    }

    fn to_text(&self, path: &Path, architecture: &Architecture) -> String {
        let mut table = Table::new(&["", &path.display().to_string()]);
        let mut row = |name: &str, value: String| table.row([name, &value]);
        row("family", format!("{} ({})", architecture.family.name(), architecture.family.class()));
        for (name, value) in &self.switches {
            row(name, value.clone());
        }
        row("parameters", units::count(self.sizes.total() as u64));
        for (part, count) in self.parts() {
            row(&format!("  {part}"), if count == 0 { "-".into() } else { units::count(count as u64) });
        }
        row("files", format!("{}, {}", self.files.dtypes(), units::bytes(self.files.bytes)));
        row("tokenizer", self.tokenizer.as_ref().map_or("none".into(), |facts| facts.to_text(architecture)));
        row("chat template", self.chat_template.unwrap_or("none").to_owned());
        let memory = &self.memory;
        row(
            "memory to train",
            format!("{} (one window of {})", units::bytes(memory.training()), self.window),
        );
        row("  parameters, gradients, moments", units::bytes(memory.state));
        row("  activations", units::bytes(memory.activations));
        row("  activations with `recompute`", units::bytes(memory.recomputed));
        row("memory to score or generate", format!("{} beside the files", units::bytes(memory.reading)));
        table.to_plain()
    }

    fn to_json(&self, path: &Path, architecture: &Architecture) -> Value {
        let object = |pairs: Vec<(&'static str, Value)>| -> Value {
            pairs.into_iter().map(|(key, value)| (key.replace(' ', "_"), value)).collect::<Map<_, _>>().into()
        };
        let switches = self.switches.iter().map(|(key, value)| (*key, value.as_str().into())).collect();
        let parts = self.parts().into_iter().map(|(key, count)| (key, count.into())).collect();
        json!({
            "path": path,
            "family": architecture.family.name(),
            "class": architecture.family.class(),
            "switches": object(switches),
            "shape": {
                "vocab_size": architecture.vocab_size, "width": architecture.width, "layers": architecture.layers,
                "heads": architecture.heads, "kv_heads": architecture.kv_heads(),
                "qk_width": architecture.qk_width(), "v_width": architecture.v_width(),
                "mlp_width": architecture.mlp_width, "max_length": architecture.max_length,
                "tied": architecture.tied, "cache_width": architecture.cache_width(),
            },
            "parameters": self.sizes.total(),
            "parts": object(parts),
            "dtypes": self.files.tensors,
            "bytes": self.files.bytes,
            "tokenizer": self.tokenizer.as_ref().map(|facts| json!({
                "vocab_size": facts.vocab_size, "hash": facts.hash, "eos": facts.eos,
                "prefix": facts.prefix,
            })),
            "chat_template": self.chat_template,
            "memory": {
                "window": self.window, "training": self.memory.training(), "state": self.memory.state,
                "activations": self.memory.activations, "recomputed": self.memory.recomputed,
                "reading": self.memory.reading,
            },
        })
    }

    fn parts(&self) -> Vec<(&'static str, usize)> {
        let PartSizes { embedding, attention, mlp, norms, head } = self.sizes;
        vec![
            ("embedding", embedding),
            ("attention", attention),
            ("mlp", mlp),
            ("norms", norms),
            ("head", head),
        ]
    }
}

/// The switches in words.
fn switches(architecture: &Architecture) -> Vec<(&'static str, String)> {
    let Architecture { layers, width, mlp_width, vocab_size, max_length, norm_epsilon, tied, .. } =
        *architecture;
    let place = match architecture.norms {
        NormPlace::Before => "in front of attention and MLP",
        NormPlace::After => "behind attention and MLP",
    };
    vec![
        ("blocks", format!("{layers} of width {width}, MLP {mlp_width}")),
        ("attention", attention(architecture)),
        ("norms", format!("{place}, epsilon {norm_epsilon:e}")),
        ("positions", positions(architecture)),
        ("longest window", max_length.to_string()),
        ("vocabulary", format!("{vocab_size}, embedding and head {}", if tied { "tied" } else { "untied" })),
    ]
}

fn attention(architecture: &Architecture) -> String {
    let heads = architecture.heads;
    match architecture.attention {
        Attention::Grouped { kv_heads, head_width, norm } => {
            let norm = match norm {
                QkNorm::None => "",
                QkNorm::PerHead => ", queries and keys normed by head",
                QkNorm::Whole => ", queries and keys normed over all heads",
            };
            format!("{heads} query and {kv_heads} key/value heads of {head_width}{norm}")
        }
        Attention::Latent { query_rank, rank, own, turned, value, .. } => {
            let queries = query_rank.map_or("the stream".to_owned(), |rank| format!("rank {rank}"));
            format!(
                "latent, {heads} heads: queries of {own} + {turned} from {queries}, \
                 keys of {own} + {turned} and values of {value} from rank {rank}"
            )
        }
    }
}

fn positions(architecture: &Architecture) -> String {
    let rope = &architecture.rope;
    let mut text = format!("RoPE, base {}", rope.theta);
    if let RopeScaling::Llama3 { factor, original_length, .. } = rope.scaling {
        text += &format!(", stretched {factor} times from {original_length} as in Llama 3");
    }
    if rope.pairing == Pairing::Neighbours {
        text += ", neighbours turn together";
    }
    if !rope.without.is_empty() {
        let blocks: Vec<String> = rope.without.iter().map(ToString::to_string).collect();
        text += &format!("; none in blocks {}", blocks.join(", "));
    }
    text
}

/// What the tensors are stored as.
struct Files {
    /// Tensors by element type.
    tensors: BTreeMap<String, usize>,
    bytes: u64,
}

impl Files {
    fn of(path: &Path) -> Result<Files, Failure> {
        let directory = TensorDirectory::open(path)?;
        let mut files = Files { tensors: BTreeMap::new(), bytes: 0 };
        for name in directory.names() {
            *files.tensors.entry(directory.info(name)?.dtype.to_string()).or_default() += 1;
            files.bytes += directory.bytes(name)?.len() as u64;
        }
        Ok(files)
    }

    fn dtypes(&self) -> String {
        let one = |(dtype, tensors): (&String, &usize)| format!("{tensors} tensors of {dtype}");
        self.tensors.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

struct TokenizerFacts {
    vocab_size: u32,
    hash: String,
    eos: Option<u32>,
    /// What stands in front of a text.
    prefix: Vec<u32>,
    /// The same in words.
    begin: String,
}

impl TokenizerFacts {
    fn to_text(&self, architecture: &Architecture) -> String {
        let eos = self.eos.map_or("no end token".to_owned(), |eos| format!("end token {eos}"));
        let padded = (architecture.vocab_size as u64).saturating_sub(self.vocab_size.into());
        let padding = if padded > 0 { format!(", {padded} rows of the model unused") } else { String::new() };
        format!(
            "{} tokens, text begins with {}, {eos}{padding}, {:.12}",
            self.vocab_size, self.begin, self.hash
        )
    }
}

fn tokenizer(path: &Path) -> Result<Option<TokenizerFacts>, Failure> {
    let Some(tokenizer) = Tokenizer::of_checkpoint(path)? else { return Ok(None) };
    let prefix = tokenizer.prefix(&Bos::Own)?;
    Ok(Some(TokenizerFacts {
        vocab_size: tokenizer.vocab_size(),
        hash: tokenizer.hash().to_owned(),
        eos: tokenizer.eos(),
        begin: tokenizer.describe_prefix(&prefix),
        prefix,
    }))
}

/// Where the chat template is, if there is one.
fn chat_template(path: &Path) -> Result<Option<&'static str>, Failure> {
    if path.join("chat_template.jinja").is_file() {
        return Ok(Some("chat_template.jinja"));
    }
    let path = path.join("tokenizer_config.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::new(format!("cannot read `{}`: {error}", path.display()))),
    };
    let config: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("`{}` is not JSON: {error}", path.display())))?;
    Ok((!config["chat_template"].is_null()).then_some("tokenizer_config.json"))
}

/// Bytes by part.
struct Memory {
    state: u64,
    activations: u64,
    recomputed: u64,
    reading: u64,
}

impl Memory {
    fn of(model: &Frozen, window: usize) -> Memory {
        let architecture = model.architecture();
        let logits = (window * architecture.vocab_size * size_of::<f32>()) as u64;
        let passes = |keep| Workspace::bytes(architecture, window, keep) + logits.max(16 << 20);
        Memory {
            state: 4 * (model.layout().len() * size_of::<f32>()) as u64,
            activations: passes(Keep::Everything),
            recomputed: passes(Keep::BlockInputs),
            reading: Frozen::frozen_bytes(architecture, Precision::F32) + passes(Keep::Nothing),
        }
    }

    fn training(&self) -> u64 {
        self.state + self.activations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(family: &str, window: Option<usize>) -> Result<(String, Value), Failure> {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(family).join("learner");
        let model = Decoder::mapped(&path)?;
        let facts = Facts::of(&model, &path, window)?;
        let path = Path::new("DIR");
        Ok((facts.to_text(path, model.architecture()), facts.to_json(path, model.architecture())))
    }

    #[test]
    fn switches_are_said_in_words() {
        for (family, expected) in [
            ("llama", "4 query and 2 key/value heads of 8\n"),
            ("llama3", "stretched 8 times from 32 as in Llama 3\n"),
            ("olmo2", "queries and keys normed over all heads\n"),
            ("olmo2", "behind attention and MLP, epsilon 1e-6\n"),
            ("smollm3", "RoPE, base 2000000; none in blocks 3\n"),
            ("qwen3", "4 query and 2 key/value heads of 16, queries and keys normed by head\n"),
            ("youtu", "queries of 8 + 4 from rank 24, keys of 8 + 4 and values of 8 from rank 16\n"),
            ("youtu", "neighbours turn together\n"),
            ("youtu", "38 tensors of F32, 165 KiB\n"),
        ] {
            let (text, _) = inspected(family, None).expect("a golden checkpoint");
            assert!(text.contains(expected), "{text}\nshould contain {expected:?}");
        }
    }

    #[test]
    fn parts_and_memory_add_up() {
        let (_, json) = inspected("youtu", Some(100)).expect("a golden checkpoint");
        let parts = json["parts"].as_object().expect("parts").values();
        let sum: u64 = parts.map(|part| part.as_u64().expect("a count")).sum();
        assert_eq!(json["parameters"], sum);
        assert_eq!(json["memory"]["state"], 16 * sum);
        assert_eq!(json["memory"]["window"], 100);
        assert_eq!(json["shape"]["cache_width"], 16 + 4);
        let error = format!("{:?}", inspected("youtu", Some(129)).expect_err("too long"));
        assert!(error.contains("`--window 129` is not from 1 to 128"), "{error}");
    }

    #[test]
    fn a_chat_template_is_a_file_or_a_key() {
        let home = tempfile::tempdir().expect("a directory");
        let found = || chat_template(home.path()).expect("readable");
        let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).expect("written");
        assert_eq!(found(), None);
        write("tokenizer_config.json", "{}");
        assert_eq!(found(), None);
        write("tokenizer_config.json", "{\"chat_template\": \"{{ messages }}\"}");
        assert_eq!(found(), Some("tokenizer_config.json"));
        write("chat_template.jinja", "{{ messages }}");
        assert_eq!(found(), Some("chat_template.jinja"));
    }
}
