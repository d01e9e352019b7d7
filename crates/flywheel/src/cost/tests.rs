use super::*;
use remit_corpus::{Prepare, Source, TrainTokenizer, prepare, train_tokenizer};
use remit_model::{Decoder, SaveOptions};
use remit_store::scores::Shard;
use remit_train::settings::Model;
use remit_train::{Stage, dpo};

/// Predictions of every window and longest sequence here.
const LENGTH: usize = 12;

// Parameters in products: a block of width 8 with a MLP of 16 has 4 x 8 x 8 for attention and 3 x 8 x 16; the head has
// 8 x 257. Each takes two operations forward and four backward. Attention takes 7 x 8 x LENGTH a block on top, a third of
// which counts as forward.

/// Operations of a forward pass of the learner, of one block, a prediction: 2 (640 + 2056) + 224.
const LEARNER: f64 = 5616.0;
/// The same of the reference, which has two blocks: 2 (2 x 640 + 2056) + 2 x 224.
const REFERENCE: f64 = 7120.0;

fn flops(cost: &Cost) -> f64 {
    cost.forward as f64 * LEARNER + cost.backward as f64 * 2.0 * LEARNER + cost.reference as f64 * REFERENCE
}

/// Without `flops`, which are checked on the way.
fn passes(cost: Cost) -> [u64; 3] {
    assert!((cost.flops / flops(&cost) - 1.0).abs() < 1e-12, "{} instead of {}", cost.flops, flops(&cost));
    [cost.forward, cost.backward, cost.reference]
}

fn architecture(layers: usize) -> Architecture {
    let text = format!(
        "kind = 'llama'\nhidden_size = 8\nnum_hidden_layers = {layers}\nnum_attention_heads = 2\n\
         intermediate_size = 16\nmax_position_embeddings = 32"
    );
    let model: Model = toml::from_str(&text).expect("settings of a family");
    model.build(257, Some(0)).expect("an architecture")
}

/// A learner of one block and a reference of two, whose tokenizer has a token for every byte; a store of 39 tokens, and
/// so four windows.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        let home = Home(tempfile::tempdir().expect("a folder"));
        home.write("text.txt", "nothing twice");
        let tokenizer = TrainTokenizer::new(vec![Source::new("text", home.at("text.txt"))], 257);
        let tokenizer = train_tokenizer(&tokenizer, &()).expect("a tokenizer");
        for (name, layers) in [("learner", 1), ("reference", 2)] {
            tokenizer.write(&home.at(name).join("tokenizer.json")).expect("written");
            let decoder = Decoder::fresh(architecture(layers), 1);
            decoder.save(&home.at(name), SaveOptions::default()).expect("saved");
        }
        let tokens: Vec<u8> = (1..40u16).flat_map(u16::to_le_bytes).collect();
        std::fs::write(home.at("ids.bin"), tokens).expect("written");
        let source = Source::new("ids", home.at("ids.bin"));
        let settings = Prepare { tokenizer: None, vocab_size: Some(257), ..Prepare::new("", vec![source]) };
        prepare(&settings, &home.at("store"), &()).expect("a store");
        home
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).expect("written");
    }

    /// Settings where `@` stands for the folder.
    fn settings<T: serde::de::DeserializeOwned>(&self, text: &str) -> T {
        let home = self.0.path().to_str().expect("a plain path");
        toml::from_str(&text.replace('@', &format!("{home}/"))).unwrap_or_else(|error| panic!("{error}"))
    }

    fn training(&self, text: &str) -> [u64; 3] {
        let common = "run = '@run'\nfrom = '@learner'\nsteps = 3\n\
             data = { tokens = '@store', window = 12, batch_windows = 2, micro_batch_windows = MICRO }\n";
        let (micro, rest) = text.split_once(';').expect("windows a pass and the rest");
        let settings = self.settings(&format!("{}{rest}", common.replace("MICRO", micro)));
        passes(of_training(&remit_train::Text::Midtrain.plan(settings).expect("a plan")))
    }

    /// What a run with `grpo` and the log `lines` has taken, and what it has generated. Two prompts of 2 and 4 tokens,
    /// the first token included; four completions each of at most 9 tokens.
    fn rl(&self, grpo: &str, rest: &str, lines: &[&str]) -> ([u64; 3], u64) {
        let row = |prompt| serde_json::json!({ "prompt": prompt, "answer": "1" }).to_string() + "\n";
        self.write("prompts.jsonl", &["a", "abc"].map(row).concat());
        let settings = self.settings(&format!(
            "run = '@run'\nfrom = '@learner'\nreference = '@reference'\nverifier = 'exact'\nnum_iterations = 2\n\
             prompts.files = ['@prompts.jsonl']\nrollout.prompts = 2\n{rest}\n\
             grpo = {{ num_generations = 4, max_completion_length = 9, {grpo} }}"
        ));
        let plan = remit_rl::Rl.plan(settings).expect("a plan");
        assert_eq!(plan.window, LENGTH);
        let line = |line: &&str| format!("{{\"loss\": 0.5, {}}}\n", line.replace('\'', "\""));
        // A line of another kind counts for nothing.
        let log: String = lines.iter().map(line).collect();
        self.write("metrics.jsonl", &format!("{log}{{\"tokens\": 7000}}\n"));
        let cost = of_rl(&plan)(self.0.path()).expect("a log");
        (passes(cost), cost.generated)
    }
}

#[test]
fn costs_add_up() {
    let one =
        Cost { tokens: 1, forward: 2, backward: 3, reference: 4, generated: 5, flops: 6.0, seconds: 7.0 };
    let twice: Cost = [one, one].into_iter().sum();
    let wanted =
        Cost { tokens: 2, forward: 4, backward: 6, reference: 8, generated: 10, flops: 12.0, seconds: 14.0 };
    assert_eq!(twice, wanted);
}

#[test]
fn a_backward_pass_is_two_forward_passes() {
    let (learner, reference) = (architecture(1), architecture(2));
    let of = |forward, backward, reference| Cost { forward, backward, reference, ..Cost::default() };
    let flops = |cost: Cost, other| with_flops(cost, &learner, other, LENGTH).flops;
    assert_eq!(flops(of(1, 0, 0), Some(&reference)), 5616.0);
    assert_eq!(flops(of(0, 1, 0), Some(&reference)), 11232.0);
    assert_eq!(flops(of(0, 0, 1), Some(&reference)), 7120.0);
    // 3 x 5616 + 5 x 11232 + 7 x 7120.
    assert_eq!(flops(of(3, 5, 7), Some(&reference)), 122_848.0);
    assert_eq!(flops(of(3, 5, 0), None), 73_008.0);
}

#[test]
fn training_counts_the_reference_beside_it_the_survey_and_what_is_made_again() {
    let home = Home::new();
    // 3 steps of 2 windows of 12.
    assert_eq!(home.training("1;"), [72, 72, 0]);
    assert_eq!(home.training("1;recompute = true"), [144, 72, 0]);
    let reference = "reference.checkpoint = '@reference'\n";
    // A window by itself needs no survey; the batch as a whole does, unless it is one piece.
    let sequence = "objective = { kind = 'rho1', scope = 'sequence' }\n";
    let batch = "objective = { kind = 'rho1', scope = 'batch' }\n";
    assert_eq!(home.training(&format!("1;{sequence}{reference}")), [72, 72, 72]);
    assert_eq!(home.training(&format!("0;{batch}{reference}")), [72, 72, 72]);
    assert_eq!(home.training(&format!("1;{batch}{reference}")), [144, 72, 72]);
    assert_eq!(home.training(&format!("1;recompute = true\n{batch}{reference}")), [216, 72, 72]);
    // Who needs no reference runs none.
    assert_eq!(home.training(&format!("1;{reference}")), [72, 72, 0]);
    // Scores are paid where they are made.
    struct Silent;
    impl remit_train::ScoreObserver for Silent {
        fn advance(&mut self, _: u64, _: u64) {}
    }
    let settings = home.settings("reference = '@reference'\ntokens = '@store'\nout = '@scores'\nwindow = 12");
    let plan = remit_train::ScorePlan::new(settings).expect("a plan");
    remit_train::score(&plan, Shard { index: 0, count: 1 }, &mut remit_engine::Cpu::new(), &mut Silent)
        .expect("scores");
    let scored = format!("1;{batch}{reference}reference.scores = '@scores'\n");
    assert_eq!(home.training(&scored), [144, 72, 0]);
}

#[test]
fn scoring_is_a_pass_of_the_reference_over_all_windows() {
    let home = Home::new();
    let settings = home.settings("reference = '@reference'\ntokens = '@store'\nout = '@scores'\nwindow = 12");
    let cost = of_scoring(&remit_train::ScorePlan::new(settings).expect("a plan"));
    // Of 38 predictions the last window has 2, and is filled up.
    assert_eq!(passes(cost), [0, 0, 48]);
    assert!((cost.flops / (48.0 * REFERENCE) - 1.0).abs() < 1e-12);
}

#[test]
fn preferences_count_both_sides_of_the_pairs_used_and_the_reference_once() {
    let home = Home::new();
    // A byte is a token, with one in front and one behind; of n tokens n - 1 are predicted: 6, 4; 12, 6.
    let rows = [("ab", "cde", "c"), ("ab", "cdefghijk", "cde")].map(|(prompt, chosen, rejected)| {
        serde_json::json!({ "prompt": prompt, "chosen": chosen, "rejected": rejected }).to_string() + "\n"
    });
    home.write("pairs.jsonl", &rows.concat());
    let cost = |rest: &str| {
        let settings: dpo::Settings = home.settings(&format!(
            "run = '@run'\nfrom = '@learner'\nreference = '@reference'\nsteps = 3\nwindow = 16\nbatch_pairs = 2\n\
             examples.files = ['@pairs.jsonl']\n{rest}"
        ));
        let plan = dpo::Dpo.plan(settings).expect("a plan");
        assert_eq!(plan.longest, LENGTH);
        passes(of_dpo(&plan))
    };
    // Two pairs have 28 predictions; six are used, 14 each.
    assert_eq!(cost(""), [84, 84, 28]);
    assert_eq!(cost("recompute = true"), [168, 84, 28]);
}

/// All groups differ; half of them; none, an idle step. Completions are of 5, 6 and 1 tokens.
const LOG: [&str; 3] = [
    "'tokens': 40, 'equal_groups': 0.0, 'truncated': 0.25",
    "'tokens': 88, 'equal_groups': 0.5, 'truncated': 0.0",
    "'tokens': 96, 'equal_groups': 1.0, 'truncated': 0.0",
];

#[test]
fn updates_count_the_groups_that_move_something() {
    let home = Home::new();
    // Sampled: 96 tokens, and in each of three steps two prompts of 3 tokens but for their last.
    // Updated, twice: 8 sequences of 3 + 5 tokens, then 4 of 3 + 6, then none.
    assert_eq!(home.rl("", "", &LOG), ([108 + 200, 200, 0], 96));
    assert_eq!(home.rl("", "recompute = true", &LOG), ([108 + 400, 200, 0], 96));
    // With a KL term all move: 64, 8 of 3 + 6, 8 of 3 + 1; the reference reads them all.
    assert_eq!(home.rl("beta = 0.1", "", &LOG), ([108 + 336, 336, 336], 96));
    // Two of the first eight were cut off at 9 tokens; six of 22 tokens are left.
    let masked = "mask_truncated_completions = true";
    assert_eq!(home.rl(masked, "", &LOG), ([108 + 2 * (40 + 36), 2 * (40 + 36), 0], 96));
}

#[test]
fn groups_that_were_dropped_count_as_sampled() {
    let home = Home::new();
    // Of 16 completions 8 were kept, of 4 tokens; then 4 of 7; then none. On average 5 tokens.
    let log = [
        "'tokens': 32, 'equal_groups': 0.5, 'sampled': 16",
        "'tokens': 60, 'equal_groups': 0.75, 'sampled': 16",
        "'tokens': 60, 'equal_groups': 1.0, 'sampled': 16",
    ];
    // 16 x 4 + 16 x 7 + 16 x 5, and 12 prompts of 3 tokens but for their last.
    let sampled = 256 + 24;
    // 8 of 3 + 4 tokens, 4 of 3 + 7, twice.
    assert_eq!(home.rl("dynamic_sampling = true", "", &log), ([sampled + 192, 192, 0], 256));
    let with_kl = "dynamic_sampling = true, beta = 0.1";
    assert_eq!(home.rl(with_kl, "", &log), ([sampled + 192, 192, 192], 256));
    // A run that kept nothing: the longest that it may have sampled.
    let nothing = ["'tokens': 0, 'equal_groups': 1.0, 'sampled': 16"];
    assert_eq!(home.rl("dynamic_sampling = true", "", &nothing), ([16 * 9 + 8, 0, 0], 16 * 9));
}

#[test]
fn dynamics_count_each_model_by_its_own_architecture() {
    let home = Home::new();
    let copy = home.at("twin");
    std::fs::create_dir(&copy).expect("a folder");
    for file in std::fs::read_dir(home.at("learner")).expect("a folder") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), copy.join(file.file_name())).expect("copied");
    }
    let cost = |runs: &str| {
        let settings = home.settings(&format!(
            "runs = [{runs}]\nreference = '@reference'\nstores.ids = '@store'\nwindow = 12\nwindows = 0\n\
             out = '@dynamics.json'"
        ));
        of_dynamics(&dynamics::Plan::new(settings).expect("a plan")).expect("models")
    };
    assert_eq!(passes(cost("'@learner'")), [48, 0, 48]);
    // The same model in another place is read once.
    assert_eq!(passes(cost("'@learner', '@twin'")), [48, 0, 48]);
    let both = cost("'@learner', '@reference'");
    assert_eq!((both.forward, both.reference), (96, 96));
    let wanted = 48.0 * (LEARNER + 3.0 * REFERENCE);
    assert!((both.flops / wanted - 1.0).abs() < 1e-12, "{} instead of {wanted}", both.flops);
}
