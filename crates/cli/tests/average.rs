//! `remit average`: runs of two seeds to one checkpoint, and what cannot be averaged.

mod common;

use common::Home;
use remit_store::tensors::TensorDirectory;
use std::path::Path;

fn numbers(directory: &Path) -> Vec<f32> {
    let tensors = TensorDirectory::open(directory).unwrap();
    let mut numbers = Vec::new();
    for name in tensors.names() {
        let mut values = vec![0.0; tensors.info(name).unwrap().num_elements()];
        tensors.read_f32(name, &mut values).unwrap();
        numbers.extend(values);
    }
    numbers
}

#[test]
fn runs_of_two_seeds_become_one_checkpoint() {
    let home = Home::prepared();
    for seed in [1, 2] {
        home.ok(&format!(
            "pretrain --config recipe.toml --quiet --steps 2 --run seed-{seed} --pretrain.seed={seed}"
        ));
    }
    home.ok("average seed-1 seed-2 --out none --dry-run");
    assert!(!home.at("none").exists());
    home.ok("average seed-1 seed-2 --out mean");
    let [a, b] = ["seed-1", "seed-2"].map(|run| home.parameters(run));
    let mean: Vec<f32> =
        a.iter().zip(&b).map(|(&a, &b)| ((f64::from(a) + f64::from(b)) / 2.0) as f32).collect();
    assert_eq!(numbers(&home.at("mean")), mean);
    // It is a checkpoint like any other, with the tokenizer of the first.
    home.ok("generate --model mean --prompt 1 --max-new-tokens 2 --greedy");
    home.ok(
        "midtrain --config recipe.toml --quiet --from mean --run on --midtrain.objective.kind=ntp --steps 1",
    );
    let again = home.remit("average seed-1 seed-2 --out mean");
    assert!(again.code == Some(1) && again.stderr.contains("`mean` exists already"), "{again:?}");
}

#[test]
fn another_architecture_and_a_lonely_checkpoint_are_refused() {
    let home = Home::prepared();
    home.ok("pretrain --config recipe.toml --quiet --steps 1 --run a");
    home.ok("pretrain --config recipe.toml --quiet --steps 1 --run b --pretrain.model.num_hidden_layers=1");
    let done = home.remit("average a b --out mean");
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("error: `num_hidden_layers` is 2 in `a/checkpoints/"), "{}", done.stderr);
    assert!(
        done.stderr.contains("hint: an average is of checkpoints of one architecture"),
        "{}",
        done.stderr
    );
    assert!(!home.at("mean").exists());
    assert_eq!(home.remit("average a --out mean").code, Some(2));
}
