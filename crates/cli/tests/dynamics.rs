//! `remit dynamics`: a run beside a reference, what is measured again, and what is said of bad input.

mod common;

use common::{Home, check_close};
use serde_json::Value;

const LINE: &str =
    "dynamics remit --reference reference --store text=tokens/heldout --window 32 --windows 6 --quiet";

/// A mid-training run with checkpoints at steps 4, 8 and 12.
fn home() -> Home {
    let home = Home::trained();
    home.ok("midtrain --config recipe.toml --quiet --midtrain.objective.kind=ntp \
             --midtrain.checkpoints.permanent_every=4");
    home
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("a number, not {value}"))
}

#[test]
fn a_run_beside_its_reference() {
    let home = home();
    let shown = home.json(&format!("{LINE} --json"));
    let written: Value = serde_json::from_slice(&home.read("remit/dynamics.json")).unwrap();
    assert_eq!(written, shown);
    let points = shown["points"].as_array().unwrap();
    let steps: Vec<u64> = points.iter().map(|point| point["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [0, 4, 8, 12], "the start, and what the run has kept");
    assert_eq!(points[0]["tokens"], 0);
    assert!(points[1]["tokens"].as_u64().unwrap() > 0);
    for point in points {
        let text = &point["stores"]["text"];
        let of = |key: &str| number(&text[key]);
        assert!((1..=6 * 32).contains(&text["predictions"].as_u64().unwrap()));
        check_close("the gap", &[of("gap")], &[of("nll") - of("reference_nll")], 1e-9);
        assert!(of("kl_reference_learner") > 0.0 && of("kl_learner_reference") > 0.0, "{text}");
        assert!((0.0..=1.0).contains(&of("agreement")) && of("entropy") > 0.0, "{text}");
        assert_eq!(of("reference_nll"), number(&points[0]["stores"]["text"]["reference_nll"]));
    }

    // The reference's own run ends at no distance at all; the whole store's likelihood is what training says of it.
    let own = home.json(
        "dynamics reference --reference reference --store text=tokens/heldout --window 32 --windows 0 --quiet --json",
    );
    let last = &own["points"].as_array().unwrap().last().unwrap()["stores"]["text"];
    for key in ["gap", "kl_reference_learner", "kl_learner_reference"] {
        assert_eq!(number(&last[key]), 0.0, "{key}");
    }
    assert_eq!((number(&last["agreement"]), &last["nll"]), (1.0, &last["reference_nll"]));
    let logged = home.metrics("reference").into_iter().rev().find(|record| !record["held_out"].is_null());
    let logged = number(&logged.expect("an evaluation at the end")["held_out"]["text"]);
    check_close("held-out loss", &[number(&last["nll"])], &[logged], 1e-5);
}

#[test]
fn the_same_again() {
    let home = home();
    let table = home.ok(LINE);
    assert!(table.starts_with("store  run") && table.ends_with("remit/dynamics.json\n"), "{table}");
    let first = home.text("remit/dynamics.json");
    home.ok(&format!("{LINE} --threads 1 --out single.json"));
    assert_eq!(first, home.text("single.json"), "any number of threads");

    // A figure that nobody could measure shows which points are kept.
    let mut marked: Value = serde_json::from_str(&first).unwrap();
    marked["points"].as_array_mut().unwrap().pop();
    marked["points"][1]["stores"]["text"]["gap"] = 99.0.into();
    home.write("remit/dynamics.json", marked.to_string());
    let again = home.json(&format!("{LINE} --json"));
    assert_eq!(again["points"][1]["stores"]["text"]["gap"], 99.0);
    let wanted: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&again["points"][0], &again["points"][3]), (&wanted["points"][0], &wanted["points"][3]));

    // Other settings, other figures.
    let other = home.json(&format!("{LINE} --json --dynamics.windows=5"));
    assert_ne!(other["points"][1]["stores"]["text"]["gap"], 99.0);
    home.ok(LINE);
    assert_eq!(first, home.text("remit/dynamics.json"));
    let shown = home.ok(&format!("{LINE} --dry-run --out new.json"));
    assert!(shown.contains("windows    24 of 32 predictions"), "{shown}");
    assert!(!home.at("new.json").exists());
}

#[test]
fn tasks_of_every_checkpoint() {
    let home = Home::prepared();
    home.ok(
        "pretrain --config recipe.toml --run long --pretrain.model.max_position_embeddings=512 --pretrain.steps=2 --quiet",
    );
    let found = home.json(
        "dynamics long --reference long --tasks micro10_list --problems 2 --samples 2 --k 1,2 \
         --dynamics.eval.max_new_tokens=4 --dynamics.eval.nll=false --quiet --json",
    );
    let scores = &found["points"][0]["tasks"]["micro10_list"];
    for metric in ["exact_match,none", "pass@1,none", "pass@2,none"] {
        assert!((0.0..=1.0).contains(&number(&scores[metric]["mean"])), "{found}");
    }
    assert_eq!(found["points"][0]["step"], 2, "it began from no checkpoint");
    let table = home
        .ok("dynamics long --reference long --tasks micro10_list --problems 2 --samples 2 --k 1,2 \
                         --dynamics.eval.max_new_tokens=4 --dynamics.eval.nll=false --quiet");
    assert!(table.contains("micro10_list  long     2  pass@2"), "{table}");
}

#[test]
fn what_cannot_be_measured() {
    let home = home();
    let check = |line: &str, error: &str, hint: &str| {
        let done = home.remit(&format!("dynamics {line} --quiet"));
        assert_eq!(
            (done.code, done.stderr),
            (Some(1), format!("error: {error}\nhint: {hint}\n")),
            "remit dynamics {line}"
        );
    };
    let reference = "--reference reference --store text=tokens/heldout --window 32";
    let say = "say what is measured: `remit dynamics RUN --reference DIR --store NAME=STORE`";
    check("", "`dynamics.runs` names no run", say);
    check("remit", "`dynamics.reference` is missing", say);
    check("remit --reference reference", "`dynamics.stores` names no token store", say);
    check(
        &format!("tokens {reference} --windows 1"),
        "`tokens` is neither a checkpoint nor a run with one",
        "give a directory with `config.json`, or a run directory whose run has saved a checkpoint",
    );
    check(
        "remit reference --reference reference --store text=tokens/heldout",
        "no file for the results is given",
        "give one with `--out FILE`: it follows only from a single run directory",
    );
    let done = home.remit(&format!("dynamics remit {reference} --windows 9999"));
    assert!(
        done.stderr.contains("store `tokens/heldout` has ")
            && done
                .stderr
                .contains(" windows of 32 predictions, 9999 are asked for\nhint: lower `windows` to "),
        "{}",
        done.stderr
    );
    check(
        "remit --reference reference --store text=tokens/heldout --window 65 --windows 1",
        &format!(
            "windows of 65 predictions are longer than the 64 positions of `{}`",
            home.checkpoint("reference").strip_prefix(home.path()).unwrap().display()
        ),
        "lower `window`",
    );
    home.write("remit/dynamics.json", "{\"format_version\": 7}");
    check(
        &format!("remit {reference} --windows 1"),
        "`remit/dynamics.json` has format version 7, this program writes 1",
        "choose another output with `--out`, or remove the file",
    );

    let done = home.remit("dynamics remit --reference reference --store tokens/heldout");
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("hint: for example `--store text=tokens/heldout`"), "{}", done.stderr);
    std::fs::rename(home.at("pretrain"), home.at("moved")).unwrap();
    check(
        &format!("remit {reference} --windows 1"),
        "run `remit` began from `pretrain`, where there is no checkpoint",
        "paths are relative to the current directory; leave the start out with `--dynamics.start=false`",
    );
    home.ok(&format!(
        "dynamics remit {reference} --windows 1 --dynamics.start=false --out without.json --quiet"
    ));
    std::fs::rename(home.at("moved"), home.at("pretrain")).unwrap();

    // Another tokenizer, of another size.
    home.ok("train-tokenizer words.txt --out small.json --vocab-size 280 --quiet");
    home.ok("prepare words.txt --tokenizer small.json --out small --quiet");
    home.ok(
        "pretrain --config recipe.toml --run other --pretrain.data.tokens=small --pretrain.steps=1 --quiet",
    );
    let done = home.remit(&format!("dynamics other {reference} --windows 1"));
    assert!(
        done.stderr.contains("has 300 tokens, `other/checkpoints/step-00000001` has 280"),
        "{}",
        done.stderr
    );
    let done = home.remit("dynamics remit --reference reference --store text=small --window 32 --windows 1");
    assert!(
        done.stderr
            .contains("store `small` has another tokenizer than the reference `reference/checkpoints/"),
        "{}",
        done.stderr
    );
}
