//! What is said to someone whose files, settings or disk are not as they should be: the message, the advice, the exit
//! code. Nothing here may end in a failed assertion of the program, and nothing may be passed over in silence.

mod common;

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};

use common::{Done, Home, check_same, sums, tree};
use remit_store::checkpoint::{checkpoints_of, verify_directory};
use serde_json::{Value, json};

/// Checks that a command ends with `code` and with this error and hint, to the letter, as the last it says; and that
/// with `--json` it says the same in one line. `#` stands for a hash or a very long number.
#[track_caller]
fn check_code(home: &Home, code: i32, line: &str, error: &str, hint: &str) {
    let done = home.remit(&format!("{line} --quiet"));
    let hint_line = if hint.is_empty() { String::new() } else { format!("hint: {hint}\n") };
    let said = without_hashes(&done.stderr);
    assert!(said.ends_with(&format!("error: {error}\n{hint_line}")), "remit {line}\n{said}\n{}", done.stdout);
    assert_eq!((done.code, done.stdout.as_str()), (Some(code), ""), "remit {line}");

    let done = home.remit(&format!("{line} --quiet --json"));
    let last = done.stderr.lines().last().unwrap_or_default();
    let said: Value =
        serde_json::from_str(last).unwrap_or_else(|problem| panic!("{problem}: {}", done.stderr));
    let text = |value: &Value| without_hashes(value.as_str().unwrap_or_default());
    let causes = said["causes"].as_array().unwrap();
    let causes: String = causes.iter().map(|cause| format!("\n  caused by: {}", text(cause))).collect();
    assert_eq!((text(&said["error"]) + &causes, text(&said["hint"])), (error.to_owned(), hint.to_owned()));
    assert_eq!((done.code, done.stdout.as_str()), (Some(code), ""), "remit {line} --json");
}

#[track_caller]
fn check(home: &Home, line: &str, error: &str, hint: &str) {
    check_code(home, 1, line, error, hint);
}

/// Runs of twelve hexadecimal digits or more as `#`.
fn without_hashes(text: &str) -> String {
    let (mut out, mut run) = (String::new(), String::new());
    for character in text.chars().chain(['\0']) {
        if character.is_ascii_hexdigit() {
            run.push(character);
            continue;
        }
        out += if run.len() >= 12 { "#" } else { &run };
        run.clear();
        out.push(character);
    }
    out.pop();
    out
}

const MIDTRAIN: &str = "midtrain --config recipe.toml --run new";

#[test]
fn files_that_are_not_there() {
    let home = Home::trained();
    check(
        &home,
        "prepare none.jsonl --tokenizer tokenizer.json --out new",
        "source `none`: no file at `none.jsonl`",
        "check the path; it may be a file, a directory or a pattern with `*`",
    );
    check(
        &home,
        "pretrain --config none.toml",
        "cannot read the recipe `none.toml`\n  caused by: No such file or directory (os error 2)",
        "paths are relative to the current directory",
    );
    check(
        &home,
        &format!("{MIDTRAIN} --tokens nowhere"),
        "token store `nowhere`: there is no such directory",
        "check the path, or make the store with `remit prepare`",
    );
    let no_checkpoint = "`nowhere` is neither a checkpoint nor a run with one";
    let hint = "give a directory with `config.json`, or a run directory whose run has saved a checkpoint";
    for line in [
        &format!("{MIDTRAIN} --from nowhere"),
        &format!("{MIDTRAIN} --reference nowhere"),
        "score --config recipe.toml --reference nowhere",
        "weights --learner nowhere --reference reference --text words.txt",
        "generate --model nowhere --prompt a --max-new-tokens 1",
    ] {
        check(&home, line, no_checkpoint, hint);
    }
    check(
        &home,
        &format!("{MIDTRAIN} --scores nowhere"),
        "there are no scores in `nowhere`",
        "make them with `remit score --reference DIR --tokens STORE`",
    );
    check(
        &home,
        "weights --learner pretrain --reference reference --text none.txt",
        "cannot read `none.txt`: No such file or directory (os error 2)",
        "",
    );
    assert!(!home.at("new").exists(), "nothing is begun before everything is checked");
}

#[test]
fn a_wrong_text_field() {
    let home = Home::prepared();
    let line =
        |field: &str| format!("prepare sums.jsonl --tokenizer tokenizer.json --out new --text-field {field}");
    check(
        &home,
        &line("body"),
        "sums.jsonl:1: no field `body`; the record has `level`, `text`",
        "set the source's `text_field` to one of them, or to a template such as \"{question}\\n{answer}\"",
    );
    check(
        &home,
        &line("txt"),
        "sums.jsonl:1: no field `txt`; the record has `level`, `text`",
        "did you mean `text`? Set the source's `text_field`",
    );
}

#[test]
fn malformed_records_are_named_or_skipped() {
    let home = Home::prepared();
    home.write("bad.jsonl", format!("{}{{\"text\": oh}}\n{}[7]\n", sums(1, 3), sums(2, 2)));
    let line = "prepare bad.jsonl --tokenizer tokenizer.json --out new";
    check(
        &home,
        line,
        "bad.jsonl:4: malformed JSON: expected value at column 10",
        "repair the record, or count and skip such records with `--skip-bad-records`",
    );
    assert!(!home.at("new").exists());
    let done = home.remit(&format!("{line} --skip-bad-records --json"));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("warning: 2 malformed records were skipped\n"), "{}", done.stderr);
    let summary: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&summary["num_documents"], &summary["skipped"]["count"]), (&json!(5), &json!(2)));
    assert_eq!(summary["skipped"]["examples"][1], "bad.jsonl:7: the record is an array, not an object");
}

#[test]
fn a_vocabulary_larger_than_the_models() {
    let home = Home::trained();
    home.copy("pretrain/checkpoints/step-00000024", "model");
    fs::remove_file(home.at("model/tokenizer.json")).unwrap();
    home.ok("train-tokenizer sums.jsonl words.txt --out other.json --vocab-size 301 --quiet");
    home.ok("prepare sums.jsonl --tokenizer other.json --out other --quiet");
    let error = "token store `other` has a vocabulary of 301, the model `model` one of 300";
    let hint = "prepare the corpus with the model's own tokenizer";
    check(&home, &format!("{MIDTRAIN} --from model --tokens other"), error, hint);
    check(&home, "score --config recipe.toml --reference model --tokens other", error, hint);
    home.write("ids.json", "[[0, 300]]");
    check(
        &home,
        "generate --model model --ids ids.json --max-new-tokens 1",
        "token id 300 at position 1 is not in the model's vocabulary of 300",
        "the text was tokenized with another tokenizer than the model's",
    );
    check(
        &home,
        "weights --learner model --reference reference --ids ids.json",
        "token id 300 at position 1 is not in the model's vocabulary of 300",
        "the text was tokenized with another tokenizer than the model's",
    );
    home.write("ids.json", "[]");
    check(
        &home,
        "weights --learner model --reference reference --ids ids.json",
        "`ids.json` has no sequence",
        "for example [[1, 5, 7], [1, 9]]",
    );
}

#[test]
fn another_tokenizer() {
    let home = Home::trained();
    home.ok("train-tokenizer words.txt --out other/tokenizer.json --vocab-size 280 --quiet");
    home.copy("reference/checkpoints/step-00000024", "model");
    home.copy("other", "model");
    let compared =
        "log-probabilities can be compared token by token only where both models have the same tokenizer";
    let error =
        |role: &str| format!("the {role} `model` has another tokenizer than `tokens`: # instead of #");
    let prepare = format!("{compared}; prepare the corpus with it");
    check(&home, &format!("{MIDTRAIN} --reference model"), &error("reference"), &prepare);
    check(&home, "score --config recipe.toml --reference model", &error("reference"), &prepare);
    check(
        &home,
        &format!("{MIDTRAIN} --from model"),
        &error("learner"),
        "prepare the corpus again with the model's `tokenizer.json`",
    );
    check(
        &home,
        "weights --learner pretrain --reference model --text words.txt",
        "the reference `model` has another tokenizer than the learner `pretrain/checkpoints/step-00000024`: # \
         instead of #",
        compared,
    );
}

#[test]
fn unknown_keys_name_the_nearest() {
    let home = Home::trained();
    let keys = "the keys of `midtrain.optimizer` are `learning_rate`, `betas`, `epsilon`, `weight_decay`";
    check(
        &home,
        &format!("{MIDTRAIN} --midtrain.optimizer.lerning_rate=1e-3"),
        "unknown key `midtrain.optimizer.lerning_rate` on the command line (`--midtrain.optimizer.lerning_rate=1e-3`)",
        &format!("did you mean `learning_rate`? {keys}"),
    );
    let recipe =
        common::RECIPE.replace("[midtrain.optimizer]\nlearning_rate", "[midtrain.optimizer]\nlearning_rat");
    let line = 1 + recipe.lines().position(|line| line.starts_with("learning_rat ")).unwrap();
    home.write("typo.toml", &recipe);
    check(
        &home,
        "midtrain --config typo.toml --run new",
        &format!(
            "unknown key `midtrain.optimizer.learning_rat` at typo.toml:{line}:1\n  {line} | learning_rat = \
             1e-3\n     | ^^^^^^^^^^^^"
        ),
        &format!("did you mean `learning_rate`? {keys}"),
    );
    home.write("table.toml", common::RECIPE.replace("[score]", "[scores]"));
    let done = home.remit("score --config table.toml");
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("unknown table `[scores]` at table.toml:"), "{}", done.stderr);
    assert!(done.stderr.contains("hint: did you mean `[score]`?"), "{}", done.stderr);
    check(
        &home,
        &format!("{MIDTRAIN} --midtrain.objective.kind=remmit"),
        "`midtrain.objective.kind` has the unknown value `remmit` on the command line \
         (`--midtrain.objective.kind=remmit`)",
        "did you mean `remit`? the choices are `ntp`, `remit`, `rho1`, `kd`",
    );
}

#[test]
fn command_lines_that_are_not_understood() {
    let home = Home::new();
    check_code(
        &home,
        2,
        "score --config recipe.toml --shard 4/3",
        "`--shard 4/3`: there is no shard `4/3`: write `i/n` with i from 1 to n, and n at most 9999",
        "",
    );
    check_code(
        &home,
        2,
        "pretrain --pretrain.steps",
        "`--pretrain.steps` on the command line has no value",
        "write `--pretrain.steps=VALUE`, with `=` where the value starts with two dashes",
    );
    for (line, part) in [
        ("pretrian", "unrecognized subcommand 'pretrian'"),
        ("pretrain --rum new", "unexpected argument '--rum' found"),
        ("generate --model pretrain --prompt a", "--max-new-tokens <N>"),
        ("generate --model pretrain --max-new-tokens 3", "--prompt <TEXT>"),
        (
            "generate --model pretrain --prompt a --ids b --max-new-tokens 3",
            "cannot be used with '--ids <FILE>'",
        ),
        ("weights --learner a --reference b", "--text <FILE>"),
        ("score --window many", "invalid value 'many' for '--window <N>'"),
        ("pretrain --threads 0", "`--threads 0`: from 1 to 1024"),
        ("pretrain --threads 100000", "`--threads 100000`: from 1 to 1024"),
    ] {
        let done = home.remit(line);
        assert!(done.stderr.starts_with("error: ") && done.stderr.contains(part), "{line}: {}", done.stderr);
        assert_eq!((done.code, done.stdout.as_str()), (Some(2), ""), "{line}");
        let done = home.remit(&format!("{line} --json"));
        let said: Value = serde_json::from_str(&done.stderr).unwrap_or_else(|_| panic!("{}", done.stderr));
        assert!(said["error"].as_str().unwrap().contains(part), "{line}: {said}");
        assert_eq!((done.code, done.stderr.lines().count()), (Some(2), 1), "{line}");
    }
}

#[test]
fn safetensors_files_that_are_not_whole() {
    let home = Home::trained();
    home.copy("pretrain/checkpoints/step-00000024", "model");
    let whole = home.read("model/model.safetensors");
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut garbled = whole.clone();
    garbled[8..12].copy_from_slice(b"oops");
    let cases: [(&[u8], String); 4] = [
        (
            &whole[..8 + header + 100],
            format!("its header describes {} bytes of data and only 100 are there", whole.len() - 8 - header),
        ),
        (&huge, format!("its header claims {} bytes, more than the 100000000 the format allows", u64::MAX)),
        (&garbled, "its header is not valid: expected value at line 1 column 1".into()),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", String::new()),
    ];
    for (bytes, problem) in cases {
        home.write("model/model.safetensors", bytes);
        for line in [
            &format!("{MIDTRAIN} --from model"),
            &format!("{MIDTRAIN} --reference model"),
            "generate --model model --prompt a --max-new-tokens 1",
            "weights --learner model --reference reference --text words.txt",
            "score --config recipe.toml --reference model --out new-scores",
        ] {
            let done = home.remit(&format!("{line} --quiet"));
            let message = "error: `model/model.safetensors` is not a whole safetensors file: ";
            let hint = match problem.is_empty() {
                true => "hint: it is a Git LFS pointer: run `git lfs pull` in its repository\n",
                false => "hint: copy or download it again\n",
            };
            assert!(done.stderr.contains(&format!("{message}{problem}")), "{line}: {}", done.stderr);
            assert!(done.stderr.ends_with(hint), "{line}: {}", done.stderr);
            assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{line}");
        }
    }
    assert!(!home.at("new").exists() && !home.at("new-scores").exists(), "nothing is begun");
}

#[test]
fn models_of_a_kind_that_is_not_supported() {
    let home = Home::trained();
    home.copy("pretrain/checkpoints/step-00000024", "model");
    let config: Value = serde_json::from_slice(&home.read("model/config.json")).unwrap();
    let with = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        home.write("model/config.json", config.to_string());
    };
    for family in ["gpt2", "mamba"] {
        with("model_type", json!(family));
        for line in [
            &format!("{MIDTRAIN} --from model"),
            &format!("{MIDTRAIN} --reference model"),
            "generate --model model --prompt a --max-new-tokens 1",
            "weights --learner model --reference reference --text words.txt",
        ] {
            let done = home.remit(line);
            let message = format!("error: model_type `{family}` in `model/config.json` is not supported\n");
            assert!(done.stderr.ends_with('\n') && done.stderr.contains(&message), "{line}: {}", done.stderr);
            assert!(done.stderr.contains("hint: supported: ") && done.stderr.contains("`llama`"), "{line}");
            assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{line}");
        }
    }
    with("hidden_act", json!("gelu"));
    check(
        &home,
        &format!("{MIDTRAIN} --from model"),
        "`model/config.json`: `hidden_act` = \"gelu\" is not supported for `llama`",
        "this program refuses rather than approximate; use a checkpoint without this switch",
    );
    with("hidden_size", json!(64));
    let done = home.remit(&format!("{MIDTRAIN} --from model"));
    assert!(done.code == Some(1) && done.stderr.contains(", the configuration says ["), "{}", done.stderr);
    assert!(!done.stderr.contains("internal error"), "{}", done.stderr);
    with("num_attention_heads", json!(0));
    let done = home.remit(&format!("{MIDTRAIN} --from model"));
    assert!(done.code == Some(1) && done.stderr.contains("`num_attention_heads`"), "{}", done.stderr);
}

#[test]
fn windows_longer_than_the_model_allows() {
    let home = Home::trained();
    let error = |model: &str| {
        format!(
            "windows of 65 predictions are longer than the 64 positions that `{model}` allows \
             (`max_position_embeddings`)"
        )
    };
    let hint = "set `window` to 64 or less";
    let model = "pretrain/checkpoints/step-00000024";
    check(&home, &format!("{MIDTRAIN} --midtrain.data.window=65"), &error(model), hint);
    check(
        &home,
        "pretrain --config recipe.toml --run new --pretrain.data.window=65",
        &error("[model]"),
        hint,
    );
    check(&home, "score --config recipe.toml --reference pretrain --window 65", &error(model), hint);
    for (tokens, positions) in [("99", "101"), ("18446744073709551615", "#")] {
        check(
            &home,
            &format!("generate --model pretrain --prompt a --max-new-tokens {tokens}"),
            &format!("{positions} positions are asked for, the model allows 64 (`max_position_embeddings`)"),
            "use shorter windows, a shorter prompt or fewer new tokens",
        );
    }
}

#[test]
fn scores_of_something_else() {
    let home = Home::trained();
    home.ok("score --config recipe.toml --quiet");
    home.ok("prepare words.txt sums.jsonl --tokenizer tokenizer.json --out other --quiet");
    let hint =
        "score this token store, window layout and reference into another directory with `remit score`";
    let scored = format!("{MIDTRAIN} --scores scores");
    home.ok(&format!("{scored} --dry-run"));
    let error = |what: &str| format!("the scores in `scores` are of another {what} (# there, # wanted)");
    let store = error("token store");
    check(&home, &format!("{scored} --tokens other --midtrain.held_out.stores={{}}"), &store, hint);
    for setting in ["--midtrain.data.window=16", "--midtrain.data.mask_documents=false"] {
        check(&home, &format!("{scored} {setting}"), &error("window layout"), hint);
    }
    check(&home, &format!("{scored} --reference pretrain"), &error("reference"), hint);
    // The same where they are made.
    check(&home, "score --config recipe.toml --tokens other", &store, hint);
    check(&home, "score --config recipe.toml --window 16", &error("window layout"), hint);
    check(&home, "score --config recipe.toml --reference pretrain", &error("reference"), hint);
    check(
        &home,
        "score --config recipe.toml --dtype f32",
        "the scores in `scores` have dtype f16, but f32 is wanted",
        "use the same settings, or another directory",
    );
    check(
        &home,
        "score --config recipe.toml --shard 1/2",
        "the scores in `scores` were begun in 1 shard(s), not in 2",
        "go on with `remit score --shard i/1`, or remove the directory to begin anew",
    );
    home.ok("score --config recipe.toml --quiet --out parts --shard 1/2");
    check(
        &home,
        &format!("{MIDTRAIN} --scores parts"),
        "the scores in `parts` are not complete: shard 2/2 has not been begun",
        "run the command of each missing shard again: it goes on where it stopped",
    );
    // Damaged scores must not be trained on.
    let path = "scores/shard-0001-of-0001/scores.bin";
    let bytes = home.read(path);
    home.write(path, &bytes[..bytes.len() - 2]);
    let done = home.remit(&scored);
    assert!(done.code == Some(1) && done.stderr.contains("scores.bin` is not a whole"), "{}", done.stderr);
    assert!(done.stderr.contains("hint: remove it and run `remit score` again"), "{}", done.stderr);
}

#[test]
fn a_run_begun_with_other_settings() {
    let home = Home::trained();
    home.ok(&format!("{MIDTRAIN} --quiet"));
    let before = tree(&home.at("new"));
    let hint = "use another run directory, or put the settings back to go on";
    check(
        &home,
        &format!("{MIDTRAIN} --midtrain.seed=5"),
        "run `new` was begun with other settings: `seed`: 1 -> 5",
        hint,
    );
    check(
        &home,
        &format!("{MIDTRAIN} --midtrain.seed=5 --midtrain.objective.epsilon_low=0.3"),
        "run `new` was begun with other settings: `objective.epsilon_low`: 0.2 -> 0.3, `seed`: 1 -> 5",
        hint,
    );
    check_same("a run that was refused", &before, &tree(&home.at("new")));
    // The directory itself may be moved.
    fs::rename(home.at("new"), home.at("moved")).unwrap();
    home.ok("midtrain --config recipe.toml --run moved --quiet");
    check_same("a run that was moved", &before, &tree(&home.at("moved")));
}

#[test]
fn a_run_that_has_saved_nothing_may_be_begun_anew() {
    let home = Home::trained();
    let diverging = home.remit(&format!("{MIDTRAIN} --midtrain.optimizer.learning_rate=1e30 --quiet"));
    assert_eq!(diverging.code, Some(1), "{}", diverging.stderr);
    // The advice was a lower learning rate.
    home.ok(&format!("{MIDTRAIN} --quiet"));
    home.ok("midtrain --config recipe.toml --run straight --quiet");
    check_same("begun anew", &home.outcome("straight"), &home.outcome("new"));
    assert!(home.text("new/settings.toml").contains("learning_rate = 0.001\n"));
}

#[test]
fn a_damaged_checkpoint_of_the_run() {
    let home = Home::trained();
    let line = |run: &str| {
        format!(
            "midtrain --config recipe.toml --run {run} --midtrain.checkpoints.ephemeral_every=4 \
             --midtrain.checkpoints.keep_last=2"
        )
    };
    home.ok(&format!("{} --quiet", line("whole")));
    home.copy("whole", "new");
    let last = "new/checkpoints/step-00000012";
    for name in ["model.safetensors", "state/optimizer.safetensors", "state/progress.json", "config.json"] {
        let path = format!("{last}/{name}");
        let whole = home.read(&path);
        let mut changed = whole.clone();
        *changed.last_mut().unwrap() ^= 1;
        home.write(&path, &changed);
        let hint = "remove this checkpoint and run the same command again: it goes on from the one before";
        check(
            &home,
            &line("new"),
            &format!(
                "`{path}` is not a whole part of its checkpoint: its content has changed since it was written \
                 (BLAKE3 #, was #)"
            ),
            hint,
        );
        // Nor does anything else start from it.
        check(
            &home,
            "midtrain --config recipe.toml --run next --from new",
            &format!(
                "`{path}` is not a whole part of its checkpoint: its content has changed since it was written \
                 (BLAKE3 #, was #)"
            ),
            hint,
        );
        home.write(&path, &whole);
    }
    // The advice works.
    fs::remove_dir_all(home.at(last)).unwrap();
    home.ok(&format!("{} --quiet", line("new")));
    check_same("after the advice was taken", &home.outcome("whole"), &home.outcome("new"));
}

/// `remit` with a limit on the size of the files it writes, in KiB, which stands in for a disk that fills up.
#[cfg(unix)]
fn limited(home: &Home, kib: u64, line: &str) -> Done {
    let mut command = Command::new("sh");
    // Ignoring the signal turns the limit into an error of the write.
    command.args(["-c", &format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", 2 * kib)]);
    command.arg(env!("CARGO_BIN_EXE_remit")).args(line.split_whitespace()).current_dir(home.path());
    Done::of(command)
}

#[cfg(unix)]
#[test]
fn a_disk_that_fills_up_inside_a_checkpoint() {
    let home = Home::trained();
    let line = |run: &str| {
        format!(
            "midtrain --config recipe.toml --quiet --run {run} --midtrain.checkpoints.ephemeral_every=4 \
             --midtrain.checkpoints.keep_last=3"
        )
    };
    home.ok(&line("whole"));
    home.copy("whole", "new");
    for step in ["step-00000008", "step-00000012"] {
        fs::remove_dir_all(home.at("new/checkpoints").join(step)).unwrap();
    }
    let before = tree(&home.at("new/checkpoints/step-00000004"));
    let sizes =
        ["model.safetensors", "state/optimizer.safetensors"].map(|name| before[name].len() as u64 / 1024);
    assert!(sizes[0] + 20 < sizes[1], "the optimiser's file is the larger one: {sizes:?}");
    // First the model itself does not fit, then only the optimiser's state behind it.
    for (kib, file) in [(sizes[0] - 10, "model.safetensors"), (sizes[0] + 10, "state/optimizer.safetensors")]
    {
        let done = limited(&home, kib, &line("new"));
        let message = format!(
            "error: cannot write `new/checkpoints/step-00000008.partial/{file}`: File too large (os error 27)\n\
             hint: nothing that was there before has been touched: raise the limit on the size of files (`ulimit \
             -f`) and run the same command again\n"
        );
        assert!(done.stderr.ends_with(&message), "{}", done.stderr);
        assert_eq!(done.code, Some(1));
        check_same("the checkpoint before", &before, &tree(&home.at("new/checkpoints/step-00000004")));
        verify_directory(&home.at("new/checkpoints/step-00000004")).unwrap();
        assert_eq!(checkpoints_of(&home.at("new")).unwrap().len(), 1, "half a checkpoint is none");
        assert!(!home.at("new/checkpoints/step-00000008.partial").exists(), "and takes no space");
    }
    home.ok(&line("new"));
    check_same("with space again", &home.outcome("whole"), &home.outcome("new"));
}

#[cfg(unix)]
#[test]
fn a_disk_that_fills_up_elsewhere() {
    let home = Home::trained();
    for (kib, line, file) in [
        (8, "prepare --config recipe.toml --quiet --out new", "new.partial/tokens.bin"),
        (
            8,
            "score --config recipe.toml --quiet --out new-scores",
            "new-scores/shard-0001-of-0001/scores.bin",
        ),
        (1, "midtrain --config recipe.toml --quiet --run new-run", "new-run/metrics.jsonl"),
        (1, "train-tokenizer --config recipe.toml --quiet --out new.json", "new.json"),
        (1, "weights --learner pretrain --reference reference --text sums.jsonl --html new.html", "new.html"),
    ] {
        let done = limited(&home, kib, line);
        assert_eq!(done.code, Some(1), "{line}: {}", done.stderr);
        let message = format!("`{file}`: File too large (os error 27)\nhint: ");
        assert!(done.stderr.contains(&message), "{line}: {}", done.stderr);
        home.ok(line);
    }
    home.ok("prepare --config recipe.toml --quiet --out straight");
    check_same("prepare", &tree(&home.at("straight")), &tree(&home.at("new")));
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_cannot_be_written() {
    let home = Home::trained();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = home
        .command("generate --model pretrain --prompt a --max-new-tokens 3 --json")
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(said["error"], "cannot write to stdout");
    assert_eq!(said["causes"][0], "No space left on device (os error 28)");
}

/// Writes NaN over the first number of a tensor.
fn poison(home: &Home, checkpoint: &str, tensor: &str) {
    let path = format!("{checkpoint}/model.safetensors");
    let mut bytes = home.read(&path);
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let start = 8 + header + json[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    home.write(&path, bytes);
}

const DIVERGED: &str = "a lower learning rate, longer warm-up or a smaller `clip_norm` helps when training diverges; \
                        the same command again goes on from the last checkpoint";

#[test]
fn a_loss_that_is_not_finite() {
    let home = Home::trained();
    home.copy("pretrain/checkpoints/step-00000024", "model");
    poison(&home, "model", "model.norm.weight");
    let done =
        home.remit("midtrain --config recipe.toml --run new --from model --midtrain.held_out.stores={}");
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let message = "error: step 1: the loss of window ";
    assert!(done.stderr.contains(message), "{}", done.stderr);
    assert!(done.stderr.contains(") is not finite; nothing was updated\n"), "{}", done.stderr);
    assert!(done.stderr.contains("(source `sums`)") || done.stderr.contains("(source `words`)"));
    assert!(done.stderr.ends_with(&format!("hint: {DIVERGED}\n")), "{}", done.stderr);
    assert_eq!(home.losses("new"), [0f64; 0], "no such step is logged");
    assert_eq!(checkpoints_of(&home.at("new")).unwrap(), [], "nor saved");
    check(
        &home,
        "midtrain --config recipe.toml --run held-out --from model",
        "step 0: the loss of held-out `text` is not finite",
        DIVERGED,
    );
    let done = home.remit("score --config recipe.toml --reference model --out new-scores --quiet");
    assert!(
        done.code == Some(1) && done.stderr.contains("error: the score of window 0 at position 0 is NaN\n"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("hint: the reference is not sound on this text"), "{}", done.stderr);
    // As a reference beside the learner it must not pass either, nor where it is only looked at.
    let done = home.remit("midtrain --config recipe.toml --run beside --reference model --quiet");
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("error: the reference's log-probabilities of window "), "{}", done.stderr);
    let unsound = "its parameters are damaged, or its training has diverged: use another checkpoint";
    assert!(done.stderr.ends_with(&format!(" are not finite\nhint: {unsound}\n")), "{}", done.stderr);
    for (learner, reference, role) in [("model", "reference", "learner"), ("pretrain", "model", "reference")]
    {
        check(
            &home,
            &format!("weights --learner {learner} --reference {reference} --text words.txt"),
            &format!("the {role}'s log-probabilities of sequence 0 are not finite"),
            unsound,
        );
    }
    for sampling in ["--greedy", "--top-p 0.5"] {
        check(
            &home,
            &format!("generate --model model --prompt a --max-new-tokens 3 {sampling}"),
            "the model's logits behind position 1 are not finite",
            unsound,
        );
    }
}

#[test]
fn training_that_diverges() {
    let home = Home::trained();
    for rate in ["1e10", "1e30"] {
        let line = format!(
            "midtrain --config recipe.toml --run at-{rate} --midtrain.optimizer.learning_rate={rate} \
             --midtrain.checkpoints.ephemeral_every=1"
        );
        let done = home.remit(&format!("{line} --quiet"));
        assert_eq!(done.code, Some(1), "{rate}: {}", done.stderr);
        assert!(done.stderr.contains("error: step 2: the "), "{rate}: {}", done.stderr);
        assert!(
            done.stderr.contains("window") && done.stderr.contains("nothing was updated"),
            "{}",
            done.stderr
        );
        assert!(done.stderr.ends_with(&format!("hint: {DIVERGED}\n")), "{rate}: {}", done.stderr);
        let run = format!("at-{rate}");
        assert_eq!(home.losses(&run).len(), 1, "the step before is logged, this one is not");
        assert_eq!(checkpoints_of(&home.at(&run)).unwrap().pop().unwrap().step(), 1);
        assert!(home.parameters(&run).iter().all(|parameter| parameter.is_finite()));
    }
}

#[test]
fn two_processes_on_one_run() {
    let home = Home::trained();
    let line = "midtrain --config recipe.toml --run shared --midtrain.steps=100000";
    let mut first = home.command(line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // What it starts from is said after the run directory is taken.
    let mut begun = [0; 8];
    first.stderr.as_mut().unwrap().read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"starting");
    let before = home.text("shared/settings.toml");
    check(
        &home,
        line,
        &format!("another process (pid {}) is using run directory `shared`", first.id()),
        "wait for it to end, stop it, or choose another directory",
    );
    assert_eq!(home.text("shared/settings.toml"), before);
    assert!(first.try_wait().unwrap().is_none(), "the first goes on");
    first.kill().unwrap();
    first.wait().unwrap();
    // A killed process holds nothing.
    home.ok(&line.replace("100000", "1"));
}

#[test]
fn a_store_that_is_there_already() {
    let home = Home::prepared();
    fs::create_dir(home.at("plain")).unwrap();
    home.write("plain/file", "mine");
    check(
        &home,
        "prepare sums.jsonl --tokenizer tokenizer.json --out plain",
        "`plain` exists and is not a token store",
        "choose another output",
    );
    let before = tree(&home.at("tokens"));
    let done = home.remit("prepare sums.jsonl --tokenizer tokenizer.json --out tokens");
    assert!(
        done.code == Some(1) && done.stderr.contains("`tokens` holds a token store made of other inputs: "),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("--overwrite"), "{}", done.stderr);
    check_same("a store that was not to be replaced", &before, &tree(&home.at("tokens")));
    home.ok("prepare sums.jsonl --tokenizer tokenizer.json --out tokens --overwrite --quiet");
    assert!(tree(&home.at("tokens")) != before);
}

#[test]
fn settings_that_make_no_sense() {
    let home = Home::trained();
    let hint = "`--dry-run` shows all settings as they are resolved";
    for (setting, error) in [
        ("steps=0", "`midtrain.steps` must be more than nothing, as must `tokens` and `epochs`"),
        (
            "tokens=5 --midtrain.epochs=1",
            "`midtrain.steps` is the length of the run: give one of `steps`, `tokens` and `epochs`",
        ),
        ("data.window=0", "`midtrain.data.window` is 0, but a window has at least one prediction"),
        ("data.batch_windows=0", "`midtrain.data.batch_windows` is 0, but a step has at least one window"),
        ("clip_norm=-1", "`midtrain.clip_norm` must be a finite number, 0 or more"),
        (
            "steps=9223372036854775807",
            "`midtrain.steps` comes to # steps, whose predictions are beyond counting",
        ),
    ] {
        check(&home, &format!("{MIDTRAIN} --midtrain.{setting}"), error, hint);
    }
    check(
        &home,
        "pretrain --config recipe.toml --run new --pretrain.model.hidden_size=1000000000000",
        "`[model]`: key `hidden_size` is #, more than 16777216",
        "",
    );
    check(
        &home,
        "pretrain --config recipe.toml --run new --pretrain.model.hidden_size=9999360",
        "`[model]`: key `hidden_size` and the other sizes lead to 6.0e14 parameters",
        "",
    );
    for setting in [
        "optimizer.learning_rate=-1",
        "optimizer.learning_rate=nan",
        "objective.epsilon_low=2",
        "objective.temperature=0",
        "optimizer.betas=[1.0,0.9]",
        "data.mixture={none={weight=1}}",
        "steps=-1",
        "seed=-1",
        "steps=1.5",
        "data.window=1e99",
        "schedule={kind=\"exotic\"}",
    ] {
        let done = home.remit(&format!("{MIDTRAIN} --midtrain.{setting}"));
        assert_eq!(done.code, Some(1), "{setting}: {}", done.stderr);
        assert!(
            done.stderr.starts_with("error: ") && !done.stderr.contains("internal error"),
            "{setting}: {}",
            done.stderr
        );
        let key = setting.split(['.', '=']).nth(1).unwrap();
        assert!(
            done.stderr.contains(key) || done.stderr.contains("none") || done.stderr.contains("epochs"),
            "{setting}: {}",
            done.stderr
        );
    }
    assert!(!home.at("new").exists(), "nothing is begun");
}
