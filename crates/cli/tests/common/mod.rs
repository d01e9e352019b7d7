//! What the tests of the program share: a tiny corpus, a recipe for it, and the built program run in their directory.
//!
//! Commands are written as they would be typed, in one line, and their paths are relative to the home directory, so
//! that messages are the same wherever the tests run.

#![allow(dead_code)] // each test file uses its own part

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use remit_store::checkpoint::checkpoints_of;
use remit_store::tensors::TensorDirectory;
use serde_json::Value;

/// Everything a user would write down, for a model of some 28 thousand parameters.
pub const RECIPE: &str = r#"[tokenizer]
vocab_size = 300
sources = [{ name = "sums", path = "sums.jsonl" }, { name = "words", path = "words.txt", split = "line" }]

[prepare]
tokenizer = "tokenizer.json"
holdout = 0.1
sources = [{ name = "sums", path = "sums.jsonl" }, { name = "words", path = "words.txt", split = "line" }]

[pretrain]
run = "pretrain"
steps = 24

[pretrain.model]
kind = "llama"
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
intermediate_size = 64
max_position_embeddings = 64

[pretrain.data]
tokens = "tokens"
window = 32
batch_windows = 8

[pretrain.optimizer]
learning_rate = 3e-3

[score]
reference = "reference"
tokens = "tokens"
out = "scores"
window = 32

[midtrain]
run = "remit"
from = "pretrain"
steps = 12

[midtrain.data]
tokens = "tokens"
window = 32
batch_windows = 8

[midtrain.objective]
kind = "remit"

[midtrain.reference]
checkpoint = "reference"

[midtrain.optimizer]
learning_rate = 1e-3

[midtrain.held_out]
every = 4
stores = { text = "tokens/heldout" }

[sft]
run = "sft"
from = "pretrain"
epochs = 2

[sft.data]
window = 32
batch_windows = 4

[sft.data.examples]
files = ["rows.jsonl"]

[sft.held_out]
stores = { text = "tokens/heldout" }

[rl]
run = "rl"
from = "pretrain"
steps = 12
verifier = "digit"
transcripts_every = 4

[rl.verifiers.digit]
kind = "regex"
pattern = '(\d)'

[rl.prompts]
files = ["rows.jsonl"]

[rl.rollout]
prompts = 4
batch_size = 8

[rl.grpo]
num_generations = 6
max_completion_length = 10

[rl.optimizer]
learning_rate = 1e-3

[rl.held_out]
stores = { text = "tokens/heldout" }
"#;

/// The recipe of the single verbs without what the flywheel fills in, and the flywheel's own tables: a tiny one of seconds.
/// They name a corpus `tests`.
pub fn wheel_recipe(flywheel: &str) -> String {
    let filled_in = [
        "run = ",
        "from = ",
        "tokens = ",
        "reference = ",
        "out = ",
        "checkpoint = ",
        "tokenizer = ",
        "kind = \"remit\"",
    ];
    let mut text: String = RECIPE
        .lines()
        .filter(|line| !filled_in.iter().any(|key| line.starts_with(key)))
        .filter(|line| !["[midtrain.objective]", "[midtrain.reference]"].contains(line))
        .map(|line| line.replace("tokens/heldout", "@corpus/heldout") + "\n")
        .collect();
    for (from, to) in [
        ("steps = 24", "steps = 8"),
        ("[midtrain]\nsteps = 12", "[midtrain]\nsteps = 6"),
        ("[rl]\nsteps = 12", "[rl]\nsteps = 4"),
        ("epochs = 2", "epochs = 1"),
        ("[sft.held_out]\n", "[sft.held_out]\nwindows = 4\n"),
        ("max_position_embeddings = 64", "max_position_embeddings = 160"),
    ] {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    text = text.replace(
        "stores = { text = \"@corpus/heldout\" }",
        "stores = { text = \"@corpus/heldout\", tests = \"@tests\" }",
    );
    let eval = "\n[eval]\ntasks = [\"micro10_clock\"]\nmax_new_tokens = 4\n\n[eval.micro10]\nproblems = 2\n";
    let dynamics = "\n[dynamics]\nwindow = 32\nwindows = 4\nstores = { text = \"@corpus/heldout\" }\n";
    text + flywheel + eval + dynamics
}

/// A directory with a corpus and a recipe in it, removed at the end.
pub struct Home {
    directory: tempfile::TempDir,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Home {
    /// Texts and the recipe; nothing is made of them yet.
    pub fn new() -> Home {
        let home = Home { directory: tempfile::tempdir().unwrap() };
        home.write("recipe.toml", RECIPE);
        home.write("sums.jsonl", sums(1, 600));
        home.write("words.txt", words(2, 300));
        home.write("rows.jsonl", rows(3, 60));
        home
    }

    /// With tokenizer and token store.
    pub fn prepared() -> Home {
        let home = Home::new();
        home.ok("train-tokenizer --config recipe.toml --out tokenizer.json --quiet");
        home.ok("prepare --config recipe.toml --out tokens --quiet");
        home
    }

    /// With a pre-trained model as well, and a stand-in reference: the same model trained a little further.
    pub fn trained() -> Home {
        let home = Home::prepared();
        home.ok("pretrain --config recipe.toml --quiet");
        home.ok("midtrain --config recipe.toml --quiet --run reference --midtrain.objective.kind=ntp \
                 --midtrain.steps=24");
        home
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.at(name), bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    /// Copies a directory of this home to another name in it.
    pub fn copy(&self, from: &str, to: &str) {
        for (name, bytes) in tree(&self.at(from)) {
            let path = self.at(to).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    /// `remit` and the words of `line`, split at white space, ready to be started here.
    pub fn command(&self, line: &str) -> Command {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.command_of(&words)
    }

    /// `remit` and these arguments.
    pub fn command_of(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_remit"));
        command.args(args).current_dir(self.path()).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn remit(&self, line: &str) -> Done {
        Done::of(self.command(line))
    }

    /// What a command that must succeed prints.
    pub fn ok(&self, line: &str) -> String {
        self.remit(line).ok(line)
    }

    /// The one JSON object that a command with `--json` prints in one line.
    pub fn json(&self, line: &str) -> Value {
        let stdout = self.ok(line);
        assert_eq!(stdout.matches('\n').count(), 1, "one line: {stdout}");
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{line}: {error}: {stdout}"))
    }

    /// The records of a run's `metrics.jsonl`.
    pub fn metrics(&self, run: &str) -> Vec<Value> {
        let text = self.text(&format!("{run}/metrics.jsonl"));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The losses of a run, a step each.
    pub fn losses(&self, run: &str) -> Vec<f64> {
        self.metrics(run).iter().filter_map(|record| record["loss"].as_f64()).collect()
    }

    /// A run's last checkpoint.
    pub fn checkpoint(&self, run: &str) -> PathBuf {
        let last = checkpoints_of(&self.at(run)).unwrap().pop();
        last.unwrap_or_else(|| panic!("`{run}` has no checkpoint")).path().to_owned()
    }

    /// All parameters of a run's last checkpoint, in the order of their names.
    pub fn parameters(&self, run: &str) -> Vec<f32> {
        let tensors = TensorDirectory::open(&self.checkpoint(run)).unwrap();
        let mut parameters = Vec::new();
        for name in tensors.names() {
            let mut values = vec![0.0; tensors.info(name).unwrap().num_elements()];
            tensors.read_f32(name, &mut values).unwrap();
            parameters.extend(values);
        }
        parameters
    }

    /// What a run leaves that must not depend on how it came about: its log and its checkpoints. What a clock says is
    /// in `timings.jsonl` and `tensorboard/`; `settings.toml` has the name of the run in it.
    pub fn outcome(&self, run: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = tree(&self.at(run));
        let has =
            |files: &BTreeMap<String, Vec<u8>>, name: &str| files.keys().any(|key| key.starts_with(name));
        for name in ["metrics.jsonl", "timings.jsonl", "settings.toml", "checkpoints/", "tensorboard/events."]
        {
            assert!(has(&files, name), "`{run}` has no {name}");
        }
        files.retain(|name, _| {
            !["timings.jsonl", "settings.toml"].contains(&name.as_str()) && !name.starts_with("tensorboard/")
        });
        files
    }
}

impl Done {
    pub fn of(mut command: Command) -> Done {
        let output = command.output().unwrap();
        Done {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// What was printed, where it succeeded.
    pub fn ok(self, line: &str) -> String {
        assert_eq!(self.code, Some(0), "remit {line}\n{}", self.stderr);
        self.stdout
    }
}

/// Every file below `directory` by its path there.
pub fn tree(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(directory: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                walk(&path, &format!("{name}/"), files);
            } else {
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(directory, "", &mut files);
    files
}

/// The same files with the same bytes.
#[track_caller]
pub fn check_same(what: &str, left: &BTreeMap<String, Vec<u8>>, right: &BTreeMap<String, Vec<u8>>) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(left), names(right), "{what}");
    for (name, bytes) in left {
        assert!(*bytes == right[name], "{what}: {name} differs");
    }
}

/// No two numbers further apart than `tolerance` times the largest.
#[track_caller]
pub fn check_close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    assert!(!want.is_empty(), "{what}: nothing to compare");
    let largest = want.iter().fold(0f64, |largest, value| largest.max(value.abs()));
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0f64, f64::max);
    assert!(worst <= tolerance * largest, "{what}: off by {worst}, largest {largest}");
}

/// The numbers of a JSON array.
pub fn numbers(array: &Value) -> Vec<f64> {
    let array = array.as_array().unwrap_or_else(|| panic!("an array, not {array}"));
    array.iter().map(|number| number.as_f64().unwrap()).collect()
}

pub fn doubles(floats: &[f32]) -> Vec<f64> {
    floats.iter().map(|&float| f64::from(float)).collect()
}

/// Numbers without a pattern, the same every time.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Below `bound`.
    pub fn roll(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

/// JSONL of `count` sums with a consequence drawn from each.
pub fn sums(seed: u64, count: usize) -> String {
    let mut dice = Dice::new(seed);
    let mut line = || {
        let (a, b) = (dice.roll(100), dice.roll(100));
        let sum = a + b;
        format!("{{\"text\":\"{a} plus {b} is {sum}. So {sum} minus {b} is {a}.\",\"level\":\"easy\"}}\n")
    };
    (0..count).map(|_| line()).collect()
}

/// JSONL of `count` sums to complete; what a verifier looks for is the first digit.
pub fn rows(seed: u64, count: usize) -> String {
    let mut dice = Dice::new(seed);
    let mut line = || {
        let (a, b) = (dice.roll(100), dice.roll(100));
        let sum = a + b;
        let digit = &sum.to_string()[..1];
        format!("{{\"prompt\":\"{a} plus {b} is\",\"completion\":\" {sum}.\",\"solution\":\"{digit}\"}}\n")
    };
    (0..count).map(|_| line()).collect()
}

/// `count` lines of a few words each.
pub fn words(seed: u64, count: usize) -> String {
    const WORDS: [&str; 12] =
        ["the", "cat", "sat", "on", "a", "mat", "then", "it", "ran", "to", "see", "red"];
    let mut dice = Dice::new(seed);
    let mut line = || {
        let words: Vec<&str> = (0..12).map(|_| WORDS[dice.roll(12) as usize]).collect();
        words.join(" ") + ".\n"
    };
    (0..count).map(|_| line()).collect()
}
