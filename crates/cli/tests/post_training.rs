//! Fine-tuning and reinforcement learning by the program: what they learn, what they write down, and what they refuse.

mod common;

use common::{Home, check_close, check_same, doubles, rows};
use serde_json::Value;

fn figure(line: &Value, name: &str) -> f64 {
    line[name].as_f64().unwrap_or_else(|| panic!("no {name} in {line}"))
}

/// Lines of steps, without those of evaluations.
fn steps(home: &Home, run: &str) -> Vec<Value> {
    home.metrics(run).into_iter().filter(|line| line.get("loss").is_some()).collect()
}

#[test]
fn fine_tuning_learns_completions_and_counts_their_tokens() {
    let home = Home::trained();
    // What rows come to is said before anything is done.
    let plan = home.json("sft --config recipe.toml --dry-run --json");
    let examples = &plan["examples"];
    assert_eq!((examples["examples"].as_u64(), examples["dropped"].as_u64()), (Some(60), Some(0)));
    let steps_wanted = (2.0 * examples["windows"].as_f64().unwrap() / 4.0).ceil();
    assert_eq!(plan["steps"].as_f64(), Some(steps_wanted));

    home.ok("sft --config recipe.toml --quiet --epochs 20 --sft.optimizer.learning_rate=3e-3");
    let steps = steps(&home, "sft");
    let (first, last) = (figure(&steps[0], "loss"), figure(steps.last().unwrap(), "loss"));
    assert!(last < 0.5 * first, "the loss only fell from {first} to {last}");
    assert_eq!(figure(&steps[0], "loss"), figure(&steps[0], "ntp_loss"));
    // Twenty passes over every token of every completion, and none of a prompt.
    let tokens = figure(steps.last().unwrap(), "tokens") / examples["completion_tokens"].as_f64().unwrap();
    assert!((19.9..20.6).contains(&tokens), "{tokens} passes");
    // The checkpoint is one that everything else opens.
    let checkpoint = home.checkpoint("sft");
    for name in ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json"] {
        assert!(checkpoint.join(name).is_file(), "{name}");
    }
    home.ok("generate --model sft --prompt 12 --max-new-tokens 4 --quiet");
}

#[test]
fn fine_tuning_in_micro_batches_and_wider_windows_is_the_same() {
    let home = Home::trained();
    let line = |run: &str, more: &str| format!("sft --config recipe.toml --quiet --run {run} {more}");
    home.ok(&line("whole", ""));
    home.ok(&line("parts", "--sft.data.micro_batch_windows=1"));
    let [whole, parts] = ["whole", "parts"].map(|run| doubles(&home.parameters(run)));
    check_close("4x1 instead of 1x4", &parts, &whole, 1e-4);
    home.ok(&line("threads", "--threads 1"));
    check_same("one thread", &home.outcome("whole"), &home.outcome("threads"));
}

#[test]
fn conversations_bring_their_template_along() {
    let home = Home::trained();
    home.write(
        "chat.jsonl",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"1 plus 1 is\"},{\"role\":\"assistant\",\"content\":\"2.\"}]}\n",
    );
    let sft = |more: &str| {
        format!(
            "sft chat.jsonl --config recipe.toml --quiet --run chat --sft.data.window=64 --epochs 2 {more}"
        )
    };
    let refused = home.remit(&sft(""));
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("chat.jsonl:1") && refused.stderr.contains("template"),
        "{}",
        refused.stderr
    );
    home.ok(&sft("--template tulu"));
    let template = std::fs::read_to_string(home.checkpoint("chat").join("chat_template.jinja")).unwrap();
    assert!(template.contains("<|assistant|>"), "{template}");
    // The next stage finds it there, and keeps it.
    home.ok("sft chat.jsonl --config recipe.toml --quiet --from chat --run again --sft.data.window=64");
    assert!(home.checkpoint("again").join("chat_template.jinja").is_file());
}

#[test]
fn reinforcement_learning_raises_its_reward() {
    let home = Home::trained();
    home.ok(
        "rl --config recipe.toml --quiet --steps 60 --rl.rollout.prompts=8 --rl.optimizer.learning_rate=3e-3",
    );
    let steps = steps(&home, "rl");
    assert_eq!(steps.len(), 60);
    let mean = |range: std::ops::Range<usize>| {
        let count = range.len() as f64;
        steps[range].iter().map(|line| figure(line, "reward")).sum::<f64>() / count
    };
    let (first, last) = (mean(0..10), mean(50..60));
    assert!(last > first + 0.1, "the reward only went from {first} to {last}");
    for name in ["entropy", "completion_length", "equal_groups", "truncated", "clip_low", "clip_high"] {
        assert!(figure(&steps[0], name) >= 0.0, "{name}");
    }
    assert!(steps.iter().all(|line| figure(line, "log_prob_gap") < 1e-4), "sampler and trainer disagree");
    // One update a rollout batch is on policy: nothing is ever clipped.
    assert!(steps.iter().all(|line| figure(line, "clip_low") + figure(line, "clip_high") == 0.0));
    let transcript = home.text("rl/transcripts/step-00000001.txt");
    assert!(transcript.contains("plus") && transcript.contains("reward 0.000"), "{transcript}");
    let timings = home.text("rl/timings.jsonl");
    assert!(timings.lines().all(|line| line.contains("\"rollout\":") && line.contains("\"update\":")));
}

#[test]
fn rollouts_depend_on_no_batch_and_no_thread() {
    let home = Home::trained();
    let line = |run: &str, more: &str| format!("rl --config recipe.toml --quiet --run {run} {more}");
    home.ok(&line("whole", ""));
    for (run, more) in [("alone", "--rl.rollout.batch_size=1"), ("threads", "--threads 1")] {
        home.ok(&line(run, more));
        check_same(run, &home.outcome("whole"), &home.outcome(run));
    }
    home.ok(&line("other", "--rl.seed=2"));
    assert_ne!(home.losses("whole"), home.losses("other"));
}

#[test]
fn reuse_of_a_rollout_batch_is_clipped() {
    let home = Home::trained();
    home.ok("rl --config recipe.toml --quiet --rl.num_iterations=4 --rl.optimizer.learning_rate=1e-2 \
             --rl.grpo.epsilon=0.05 --rl.grpo.mask_truncated_completions=false");
    let clipped = |line: &Value| figure(line, "clip_low") + figure(line, "clip_high");
    assert!(steps(&home, "rl").iter().any(|line| clipped(line) > 0.0), "nothing was ever clipped");
}

#[test]
fn a_stuck_run_stops_and_explains() {
    let home = Home::trained();
    // A pattern that no completion has.
    home.write("never.toml", home.text("recipe.toml").replace("'(\\d)'", "'never (\\d)'"));
    let line = "rl --config never.toml --quiet --rl.patience=3 --rl.checkpoints.ephemeral_every=1";
    let stuck = home.remit(line);
    assert_eq!(stuck.code, Some(1), "{}", stuck.stderr);
    assert!(
        stuck.stderr.contains("step 3: all groups of the last 3 steps have equal rewards"),
        "{}",
        stuck.stderr
    );
    assert!(stuck.stderr.contains("transcripts/"), "{}", stuck.stderr);
    // Nothing was learned, so nothing was changed; and again it stops at the same step.
    let parameters = home.parameters("rl");
    assert_eq!(parameters, home.parameters("pretrain"));
    assert!(home.remit(line).stderr.contains("step 3: all groups"));
    // Without patience it goes on to its end.
    home.ok("rl --config never.toml --quiet --run patient --rl.patience=0");
    assert_eq!(steps(&home, "patient").len(), 12);
    // Groups that are dropped leave nothing, not even to hold to the reference.
    home.ok("rl --config never.toml --quiet --run dropped --rl.patience=0 --rl.steps=2 --rl.grpo.dynamic_sampling=true \
             --rl.grpo.beta=0.05");
    assert_eq!(home.parameters("dropped"), parameters);
}

#[test]
fn rows_that_cannot_be_used_are_named() {
    let home = Home::trained();
    let long = "7 ".repeat(80);
    for (name, row, verb, wanted) in [
        (
            "empty",
            r#"{"prompt":"1 plus 1 is","completion":""}"#.into(),
            "sft",
            "empty.jsonl:61: the completion is empty",
        ),
        ("no-prompt", r#"{"completion":"2"}"#.into(), "sft", "no-prompt.jsonl:61"),
        (
            "long",
            format!(r#"{{"prompt":"{long}","completion":"2"}}"#),
            "sft",
            "long.jsonl:61: the prompt has ",
        ),
        (
            "roles",
            r#"{"messages":[{"role":"user","content":"1 plus 1 is"}]}"#.into(),
            "sft --template tulu --sft.data.window=64",
            "roles.jsonl:61: no message of the conversation is the assistant's",
        ),
        ("no-answer", r#"{"prompt":"1 plus 1 is"}"#.into(), "rl", "no-answer.jsonl:61"),
        (
            "too-long",
            format!(r#"{{"prompt":"{long}","solution":"2"}}"#),
            "rl",
            "too-long.jsonl:61: the prompt has ",
        ),
    ] {
        let row: String = row;
        home.write(&format!("{name}.jsonl"), rows(3, 60) + &row + "\n");
        let done = home.remit(&format!("{verb} {name}.jsonl --config recipe.toml --quiet --run {name}"));
        assert_eq!(done.code, Some(1), "{name}: {}", done.stderr);
        assert!(done.stderr.contains(wanted), "{name}: {}", done.stderr);
        assert!(!home.at(name).join("checkpoints").exists(), "{name}: something was begun");
    }
    // Left out on demand, and counted.
    let plan =
        home.json("sft long.jsonl --config recipe.toml --dry-run --json --sft.data.examples.too_long=drop");
    assert_eq!(plan["examples"]["dropped"], 1);
    let plan =
        home.json("rl too-long.jsonl --config recipe.toml --dry-run --json --rl.prompts.too_long=drop");
    assert_eq!((plan["dropped"].as_u64(), plan["prompts"].as_u64()), (Some(1), Some(60)));
}

/// The path stays the same, what lies there does not.
#[test]
fn a_run_goes_on_with_no_other_rows() {
    let home = Home::trained();
    for verb in ["sft", "rl"] {
        home.write("rows.jsonl", rows(3, 60));
        home.ok(&format!("{verb} --config recipe.toml --quiet"));
        home.write("rows.jsonl", rows(4, 60));
        let refused = home.remit(&format!("{verb} --config recipe.toml --quiet"));
        assert_eq!(refused.code, Some(1), "{verb}");
        assert!(
            refused.stderr.contains(&format!("run `{verb}` was begun with other data")),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn verifiers_that_nobody_knows_are_named() {
    let home = Home::trained();
    let unknown = home.remit("rl --config recipe.toml --quiet --verifier digits");
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("there is no verifier `digits`"), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("did you mean `digit`?"), "{}", unknown.stderr);
    // Without one for all, rows name their own.
    let recipe = home.text("recipe.toml").replace("verifier = \"digit\"\n", "");
    home.write("rows-decide.toml", recipe);
    let silent = home.remit("rl --config rows-decide.toml --quiet");
    assert!(silent.stderr.contains("rows.jsonl:1: the row names no verifier"), "{}", silent.stderr);
    home.write(
        "named.jsonl",
        "{\"prompt\":\"1 plus\",\"reward_model\":{\"ground_truth\":\"1\"},\"data_source\":\"gsm8k\"}\n\
         {\"messages\":[{\"role\":\"user\",\"content\":\"1 plus\"}],\"ground_truth\":\"1\",\"dataset\":[\"gms8k\"]}\n",
    );
    let named = home.remit("rl named.jsonl --config rows-decide.toml --quiet --rl.prompts.template=tulu");
    assert!(named.stderr.contains("named.jsonl:2: there is no verifier `gms8k`"), "{}", named.stderr);
    assert!(named.stderr.contains("did you mean `gsm8k`?"), "{}", named.stderr);
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let home = Home::trained();
    for (setting, wanted) in [
        ("rl.grpo.num_generations=1", "`num_generations` is 1"),
        ("rl.rollout.temperature=0.0", "`rl.rollout.temperature` must be above 0"),
        ("rl.steps_per_generation=5", "`rl.steps_per_generation` is more than `rollout.prompts`"),
        ("rl.grpo.loss_type=gspo", "gspo"),
        ("rl.grpo.epsilonn=0.1", "epsilon"),
        ("rl.grpo.max_completion_length=64", "the prompt has "),
    ] {
        let done = home.remit(&format!("rl --config recipe.toml --quiet --{setting}"));
        assert!(done.code.is_some_and(|code| code == 1 || code == 2), "{setting}: {:?}", done.code);
        assert!(done.stderr.contains(wanted), "{setting}: {}", done.stderr);
    }
    for (setting, wanted) in [
        ("sft.data.tokens=tokens", "`sft.data.tokens` is given beside `examples`"),
        ("sft.data.mask_documents=false", "`sft.data.mask_documents` is false"),
        ("sft.data.examples.template=chatml", "<|im_start|>"),
    ] {
        let done = home.remit(&format!("sft --config recipe.toml --quiet --{setting}"));
        assert_eq!(done.code, Some(1), "{setting}");
        assert!(done.stderr.contains(wanted), "{setting}: {}", done.stderr);
    }
    let misplaced =
        home.remit("midtrain --config recipe.toml --quiet --midtrain.data.examples.files=['rows.jsonl']");
    assert!(misplaced.stderr.contains("`midtrain.data.examples` is for `sft`"), "{}", misplaced.stderr);
}

#[test]
fn impossible_ground_truths_are_named_before_anything_is_done() {
    let home = Home::trained();
    home.write(
        "rows-no.jsonl",
        "{\"prompt\":\"1 plus\",\"solution\":\"2\"}\n{\"prompt\":\"1 plus\",\"solution\":\"x^2+1\"}\n\
         {\"prompt\":\"1 plus\",\"solution\":\"\"}\n{\"prompt\":\"1 plus\",\"solution\":\"none\"}\n",
    );
    let line = "rl rows-no.jsonl --config recipe.toml --quiet --verifier gsm8k";
    for line in [line.to_owned(), format!("{line} --dry-run")] {
        let refused = home.remit(&line);
        assert_eq!(refused.code, Some(1), "{line}");
        let wanted = "rows-no.jsonl:2: verifier `gsm8k` can never accept the ground truth `x^2+1`: it has no number that can be read; nor those of 2 more rows";
        assert!(refused.stderr.contains(wanted), "{}", refused.stderr);
    }
    let plan = home.json(&format!("{line} --dry-run --json --rl.impossible=drop"));
    assert_eq!((&plan["prompts"], &plan["impossible"]), (&Value::from(1), &Value::from(3)));
}

#[test]
fn verdicts_on_the_completions_of_a_file_say_why() {
    let home = Home::trained();
    let rows = [
        (r"It is \boxed{\frac{1}{2}}.", "0.5", "boxed"),
        (r"It is \boxed{\frac{1}{2}}.", "2", "gsm8k"),
        (r"\boxed{1{,}000}", "1000", "gsm8k"),
        ("$9{,}500", "500", "gsm8k"),
        (r"\boxed{\sin x}", "1", "math"),
        ("5", "none", "gsm8k"),
    ];
    let line = |&(completion, solution, verifier): &(&str, &str, &str)| {
        serde_json::json!({ "completion": completion, "solution": solution, "verifier": verifier })
            .to_string()
            + "\n"
    };
    home.write("judged.jsonl", rows.iter().map(line).collect::<String>());
    let result = home.json("verify judged.jsonl --json --quiet");
    let outcomes: Vec<&str> =
        result["rows"].as_array().unwrap().iter().map(|row| row["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["right", "no_answer", "right", "wrong", "undecided", "undecided"]);
    assert_eq!(result["impossible"], 1);
    assert_eq!(result["mean_reward"].as_f64(), Some(2.0 / 6.0));
    let text = home.ok("verify judged.jsonl --quiet");
    assert!(text.contains("judged.jsonl:4: 0 wrong: `9500` is not `500`\n"), "{text}");
    assert!(text.contains("judged.jsonl:6: verifier `gsm8k` can never accept the ground truth"), "{text}");
    let all = home.ok("verify judged.jsonl --quiet --verifier exact --dry-run");
    assert!(all.ends_with("6 rows, no completion\n"), "{all}");
}

#[test]
fn prompts_of_a_file_and_of_a_conversation_are_continued() {
    let home = Home::trained();
    let model = home.checkpoint("pretrain");
    let model = model.display();
    let chat = "{% for m in messages %}{{ m.role + ':' + m.content + '\\n' }}{% endfor %}\
                {% if add_generation_prompt %}assistant:{% endif %}";
    home.write(&format!("{model}/chat_template.jinja"), chat);
    home.write(
        "prompts.jsonl",
        "{\"prompt\":\"3 plus 4 is\"}\n{\"messages\":[{\"role\":\"user\",\"content\":\"3 plus 4 is\"}]}\n\
         {\"prompt\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"so\"}]}\n",
    );
    let generate = |more: &str| {
        home.json(&format!("generate --model {model} --greedy --max-new-tokens 3 --json {more}"))
    };
    let ids = |answer: &Value, index: usize| answer["sequences"][index].clone();
    let plain = generate("--prompts prompts.jsonl");
    assert_eq!(plain["sequences"].as_array().unwrap().len(), 3);
    home.write(
        "one.jsonl",
        "{\"prompt\":\"user:3 plus 4 is\\nassistant:\"}\n{\"prompt\":\"user:a\\nassistant:so\"}\n",
    );
    let spelled = generate("--prompts one.jsonl --bos none");
    assert_eq!([ids(&plain, 1), ids(&plain, 2)], [ids(&spelled, 0), ids(&spelled, 1)]);
    assert_eq!(plain["texts"].as_array().unwrap().len(), 3);
    let asked = generate("--prompts prompts.jsonl --chat");
    assert_eq!([ids(&asked, 0), ids(&asked, 1)], [ids(&plain, 1), ids(&plain, 1)]);
    assert_ne!(ids(&plain, 0), ids(&plain, 1));
    let said = home.command_of(&[
        "generate",
        "--model",
        &model.to_string(),
        "--greedy",
        "--max-new-tokens",
        "3",
        "--chat",
        "--prompt",
        "3 plus 4 is",
    ]);
    let said = common::Done::of(said).ok("a chat");
    assert_eq!(said, format!("{}\n", asked["texts"][0].as_str().unwrap()));
    let refused = home.remit(&format!("generate --model {model} --max-new-tokens 3"));
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
}

/// Every stage takes along what its checkpoint came with: all templates, the tokenizer's older files, all end tokens.
#[test]
fn what_a_checkpoint_came_with_stays_with_it() {
    let home = Home::trained();
    home.copy(&format!("pretrain/checkpoints/{}", name_of(&home.checkpoint("pretrain"))), "theirs");
    let chat = "{% for m in messages %}{{ m.role + ':' + m.content + '\\n' }}{% endfor %}";
    std::fs::create_dir(home.at("theirs/additional_chat_templates")).unwrap();
    let ours = [
        ("chat_template.jinja", chat.to_owned()),
        ("additional_chat_templates/tool_use.jinja", format!("TOOLS {chat}")),
        ("special_tokens_map.json", "{\"pad_token\": \"<|endoftext|>\"}".to_owned()),
        ("added_tokens.json", "{}".to_owned()),
        ("tokenizer_config.json", "{\"chat_template\": \"older\", \"model_max_length\": 64}".to_owned()),
        ("tokenizer.model", "of another program".to_owned()),
    ];
    for (name, text) in &ours {
        home.write(&format!("theirs/{name}"), text);
    }
    home.write("theirs/generation_config.json", "{\"eos_token_id\": [0, 7], \"top_k\": 5}");
    let kept = |run: &str| {
        let checkpoint = home.checkpoint(run);
        for (name, text) in &ours {
            let found = std::fs::read_to_string(checkpoint.join(name))
                .unwrap_or_else(|error| panic!("{run}: {name}: {error}"));
            assert_eq!(found, *text, "{run}: {name}");
        }
        let generation = std::fs::read(checkpoint.join("generation_config.json")).unwrap();
        let generation: Value = serde_json::from_slice(&generation).unwrap();
        assert_eq!(generation["eos_token_id"], serde_json::json!([0, 7]), "{run}");
        assert_eq!(generation["top_k"], 5, "{run}");
    };
    home.write("pairs.jsonl", "{\"prompt\":\"1 plus 1 is\",\"chosen\":\" 2.\",\"rejected\":\" 3.\"}\n");
    home.ok("midtrain --config recipe.toml --quiet --from theirs --run mid --midtrain.objective.kind=ntp --steps 1");
    kept("mid");
    home.ok("sft --config recipe.toml --quiet --from mid --run tuned --steps 1");
    kept("tuned");
    home.ok("dpo pairs.jsonl --quiet --from tuned --run preferred --steps 1 --dpo.window=32");
    kept("preferred");
    home.ok("rl --config recipe.toml --quiet --from preferred --run rewarded --steps 1");
    kept("rewarded");

    // A template of one's own takes the place of all others.
    home.write("mine.jinja", chat.replace(':', ">"));
    home.ok("sft --config recipe.toml --quiet --from mid --run mine --steps 1 --template mine.jinja");
    let mine = home.checkpoint("mine");
    assert_eq!(std::fs::read_to_string(mine.join("chat_template.jinja")).unwrap(), chat.replace(':', ">"));
    assert!(!mine.join("additional_chat_templates").exists());
    let config: Value =
        serde_json::from_slice(&std::fs::read(mine.join("tokenizer_config.json")).unwrap()).unwrap();
    assert_eq!(config, serde_json::json!({"model_max_length": 64}));
    assert!(mine.join("tokenizer.model").is_file());
}

/// The same corpus, whose documents end with another token than the learner knows.
#[test]
fn documents_end_as_the_learner_ends() {
    let home = Home::trained();
    home.copy(&format!("pretrain/checkpoints/{}", name_of(&home.checkpoint("pretrain"))), "theirs");
    home.write("theirs/generation_config.json", "{\"eos_token_id\": [5, 7]}");
    home.write("theirs/tokenizer_config.json", "{\"eos_token\": null}");
    let refused = home.remit(
        "midtrain --config recipe.toml --from theirs --run mid --midtrain.objective.kind=ntp --steps 1 --dry-run",
    );
    assert_eq!(refused.code, Some(1));
    let error =
        "documents in the token store `tokens` end with token 0, and the learner `theirs` ends with 5 or 7";
    assert!(refused.stderr.contains(error), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("hint: prepare it again: `remit prepare FILES --tokenizer theirs`"),
        "{}",
        refused.stderr
    );
}

fn name_of(path: &std::path::Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}
