//! The engine against workers that are none: a thread at the other end of two pipes, or a shell.

use super::protocol::{Array, Frame, Header, Values, encode, read};
use super::*;
use crate::Error as EngineError;
use remit_model::families::llama;
use remit_optim::{AdamW, WeightDecayRule};
use std::io::Write;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);

/// What a worker does about a request.
enum Reply {
    /// It answers with these fields and arrays.
    Fields(Value, Vec<Array>),
    /// It writes these bytes.
    Bytes(Vec<u8>),
    /// It says no more, but stays.
    Silence,
    /// It goes.
    End,
}

fn ok(arrays: Vec<Array>) -> Reply {
    Reply::Fields(json!({"ok": true}), arrays)
}

fn f32s(name: &str, values: &[f32]) -> Array {
    Array::new(name, &[values.len()], Values::F32(values.to_vec()))
}

fn u32s(name: &str, values: &[u32]) -> Array {
    Array::new(name, &[values.len()], Values::U32(values.to_vec()))
}

fn object(value: Value) -> Header {
    let Value::Object(header) = value else { panic!("an object") };
    header
}

fn hello() -> Value {
    json!({
        "protocol": 1, "torch": "2.11.0+cpu", "transformers": "5.17.0", "python": "3.12.3", "device": "cpu",
        "devices": [], "attention": "sdpa", "nccl": null, "world_size": 1, "bf16": true,
    })
}

/// A worker at the other end of pipes. It greets with `hello`, and `reply` says what it does about each request, of
/// which it keeps the operations.
fn meet(
    hello: Value,
    limit: Duration,
    mut reply: impl FnMut(&str, &Frame) -> Reply + Send + 'static,
) -> (Outcome<Torch>, Arc<Mutex<Vec<String>>>) {
    let (mut requests, input) = std::io::pipe().unwrap();
    let (output, mut answers) = std::io::pipe().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = asked.clone();
    std::thread::spawn(move || {
        answers.write_all(&encode(object(hello), &[]).unwrap()).unwrap();
        while let Ok(Some(frame)) = read(&mut requests) {
            let operation = frame.header["op"].as_str().unwrap().to_owned();
            kept.lock().unwrap().push(operation.clone());
            let bytes = match reply(&operation, &frame) {
                Reply::Fields(header, arrays) => encode(object(header), &arrays).unwrap(),
                Reply::Bytes(bytes) => bytes,
                Reply::Silence => continue,
                Reply::End => break,
            };
            if answers.write_all(&bytes).is_err() {
                break;
            }
        }
    });
    let torch = Worker::meet(output, input, None, limit).map_err(EngineError::from);
    let torch = torch.and_then(|(worker, hello)| Torch::with(worker, hello, &TorchSettings::default()));
    (torch, asked)
}

fn architecture() -> Architecture {
    let settings = llama::config::Settings {
        hidden_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 12,
        max_position_embeddings: 32,
        ..Default::default()
    };
    settings.build(11, Some(3)).unwrap()
}

fn learning() -> Learning {
    Learning {
        optimizer: AdamW::new(1e-3),
        decay: WeightDecayRule::default(),
        clip_norm: 1.0,
        recompute: false,
        end_tokens: vec![],
    }
}

/// An engine with a learner, and the operations that its worker has been asked for.
fn with_learner(
    limit: Duration,
    mut reply: impl FnMut(&str, &Frame) -> Reply + Send + 'static,
) -> (Torch, Arc<Mutex<Vec<String>>>) {
    let (torch, asked) = meet(hello(), limit, move |operation, frame| match operation {
        "configure" | "learn" => ok(vec![]),
        _ => reply(operation, frame),
    });
    let mut torch = torch.unwrap();
    let origin = Origin::Fresh { architecture: Box::new(architecture()), seed: 5 };
    torch.learn(&origin, &learning(), &Usage::default()).unwrap();
    asked.lock().unwrap().clear();
    (torch, asked)
}

/// Two windows of three predictions; the last of each is masked out.
fn batch() -> Batch {
    let window = |index| remit_batch::Window {
        index,
        tokens: vec![1, 2, 4, 5],
        mask: vec![true, true, false],
        documents: vec![0, 1, 1],
    };
    Batch::stack(&[window(70), window(80)], true)
}

/// Next-token prediction, with the number of times it was asked.
struct Plain(usize);

impl Rule for Plain {
    fn differentiate(&mut self, first: usize, log_probs: &[f32], _: &[f32], d: &mut [f32], _: &mut [f32]) {
        assert_eq!((first, log_probs.len()), (0, 6));
        self.0 += 1;
        d.fill(-1.0);
    }
}

fn text_of(error: &EngineError) -> String {
    format!("{error} // {}", error.hint().unwrap_or_default())
}

/// The error of a step whose forward pass is answered so, and what was asked.
fn step(reply: impl Fn() -> Reply + Send + 'static) -> (Refusal, Vec<String>) {
    let (mut torch, asked) =
        with_learner(SHORT, move |operation, _| if operation == "forward" { reply() } else { ok(vec![]) });
    torch.begin();
    let refusal = torch.accumulate(&batch(), 3, &mut Plain(0)).expect_err("a refusal");
    let asked = asked.lock().unwrap().clone();
    (refusal, asked)
}

fn engine_error(refusal: Refusal) -> String {
    match refusal {
        Refusal::Engine(error) => text_of(&error),
        other => panic!("{other:?}"),
    }
}

fn greeting_error(hello: Value) -> String {
    text_of(&meet(hello, SHORT, |_, _| ok(vec![])).0.expect_err("no engine"))
}

fn with(key: &str, value: Value) -> Value {
    let mut hello = hello();
    hello[key] = value;
    hello
}

#[test]
fn a_worker_of_another_version_is_refused() {
    assert_eq!(
        greeting_error(with("protocol", json!(2))).split(" // ").next().unwrap(),
        "the PyTorch worker's answer to `start` cannot be used: it speaks protocol 2, not 1"
    );
    let message = greeting_error(with("torch", json!("2.7.1+cu118")));
    assert!(
        message.starts_with("torch is version 2.7.1+cu118, but at least 2.8 is needed // `pip install"),
        "{message}"
    );
    let message = greeting_error(with("transformers", json!("4.57.0")));
    assert!(message.starts_with("transformers is version 4.57.0, but at least 5.0 is needed"), "{message}");
    meet(with("torch", json!("3.0")), SHORT, |_, _| ok(vec![])).0.unwrap();
    assert!(greeting_error(with("devices", json!(7))).contains("cannot be used: invalid type"));
}

#[test]
fn a_missing_package_is_told_with_its_hint() {
    let error =
        json!({"kind": "user", "message": "there is no `torch`", "hint": "pip install torch", "rank": 0});
    assert_eq!(
        greeting_error(json!({"protocol": 1, "error": error})),
        "the PyTorch worker cannot do what `start` asks: there is no `torch` // pip install torch"
    );
}

#[test]
fn the_dtype_follows_the_device() {
    let dtype = |device| meet(with("device", json!(device)), SHORT, |_, _| ok(vec![])).0.unwrap().dtype();
    assert_eq!(dtype("cpu"), Dtype::F32);
    assert_eq!(dtype("cuda:0"), Dtype::Bf16);
}

#[test]
fn a_program_that_cannot_be_started_is_named() {
    let settings = TorchSettings { python: Some("/no/such/python".into()), ..Default::default() };
    let message = text_of(&Torch::start(&settings, |_| {}).expect_err("no program"));
    assert!(message.starts_with("cannot start `/no/such/python`: "), "{message}");
    assert!(message.contains("// set `[engine] python`"), "{message}");
    let settings = TorchSettings { timeout_seconds: f64::NAN, ..Default::default() };
    assert!(
        text_of(&Torch::start(&settings, |_| {}).expect_err("no limit"))
            .contains("`engine.timeout_seconds` = NaN")
    );
}

#[cfg(unix)]
fn shell(script: &str, limit: Duration) -> String {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    let error = Worker::spawn(command, limit).expect_err("no worker");
    text_of(&error.into())
}

#[cfg(unix)]
#[test]
fn a_process_that_dies_is_quoted() {
    let message = shell("echo first >&2; echo 'it broke' >&2; exit 3", LONG);
    assert!(
        message.starts_with(
            "the PyTorch worker has ended (exit status: 3) during `start`\n  | first\n  | it broke //"
        ),
        "{message}"
    );
    let message = shell("kill -9 $$", LONG);
    assert!(message.starts_with("the PyTorch worker has ended (signal: 9"), "{message}");
    // Only the last lines are kept, however much is written.
    let message = shell("i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1", LONG);
    assert!(message.contains("\n  | line 2999 ") && !message.contains("line 2959\n"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_process_that_hangs_is_killed_in_time() {
    let started = Instant::now();
    // What the shell starts holds its pipes open.
    let message = shell("echo waiting >&2; sleep 30; echo never", SHORT);
    assert!(
        message.starts_with("the PyTorch worker has not answered `start` within 0.3 s\n  | waiting"),
        "{message}"
    );
    assert!(message.contains("raise `[engine] timeout_seconds`"), "{message}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[cfg(unix)]
#[test]
fn a_program_that_is_no_worker_is_told_from_one() {
    let message = shell("echo 'Usage: python [option]'", LONG);
    assert!(message.contains("a frame begins with `RMT1`, not with `Usage: python [o`"), "{message}");
    let message = shell("printf 'RMT1\\377\\377\\377\\377\\0\\0\\0\\0\\0\\0\\0\\0'; sleep 30", LONG);
    assert!(message.contains("would have 4294967295 bytes"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_worker_ends_with_its_engine() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), encode(object(hello()), &[]).unwrap()).unwrap();
    let mut command = Command::new("/bin/sh");
    // It reads until its standard input ends, then says so.
    command.args(["-c", "cat \"$1\"; cat > /dev/null; echo ended > \"$1\"", "sh"]).arg(file.path());
    let (worker, _) = Worker::spawn(command, LONG).unwrap();
    drop(worker);
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "ended\n");
}

#[test]
fn a_step_asks_the_rule_once_for_all_rows() {
    let (mut torch, asked) = with_learner(LONG, |operation, frame| match operation {
        "forward" => {
            let names: Vec<_> = frame.arrays.iter().map(|array| array.name.as_str()).collect();
            assert_eq!(names, ["inputs", "targets", "mask", "starts"]);
            assert!(frame.arrays.iter().all(|array| array.shape == [2, 3]));
            // What is masked out need not be finite.
            let log_probs = f32s("log_probs", &[-1.0, -2.0, f32::NAN, -3.0, -4.0, f32::INFINITY]);
            ok(vec![f32s("lse", &[0.0; 6]), log_probs])
        }
        "backward" => {
            assert_eq!(frame.arrays, [f32s("d_log_probs", &[-1.0; 6]), f32s("d_lse", &[0.0; 6])]);
            ok(vec![])
        }
        "update" => Reply::Fields(json!({"ok": true, "gradient_norm": 2.5}), vec![]),
        _ => ok(vec![]),
    });
    torch.begin();
    let mut rule = Plain(0);
    torch.accumulate(&batch(), 3, &mut rule).unwrap();
    assert_eq!(rule.0, 1);
    assert_eq!(torch.update(0.1).unwrap(), 2.5);
    assert_eq!(torch.updates(), 1);
    assert_eq!(*asked.lock().unwrap(), ["begin", "forward", "backward", "update"]);
}

#[test]
fn a_loss_that_is_not_finite_names_its_window_and_forgets() {
    for value in [f32::NAN, f32::NEG_INFINITY] {
        let (refusal, asked) = step(move || {
            ok(vec![f32s("log_probs", &[-1.0, -1.0, -1.0, -1.0, value, value]), f32s("lse", &[0.0; 6])])
        });
        assert!(matches!(refusal, Refusal::Loss(80)), "{refusal:?}");
        assert_eq!(asked, ["begin", "forward", "forget"]);
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_refused() {
    let answer = || Reply::Fields(json!({"ok": true, "gradient_norm": null}), vec![]);
    let (mut torch, _) = with_learner(LONG, move |_, _| answer());
    assert!(matches!(torch.update(0.1), Err(Refusal::Gradient)));
    assert_eq!(torch.updates(), 0);
}

#[test]
fn answers_of_the_wrong_shape_or_type_end_the_worker() {
    let lse = || f32s("lse", &[0.0; 6]);
    type Arrays = fn() -> Vec<Array>;
    let cases: [(&str, Arrays); 4] = [
        ("array `log_probs` has shape [5], not [6]", || vec![f32s("log_probs", &[0.0; 5])]),
        ("array `log_probs` has another element type", || vec![u32s("log_probs", &[0; 6])]),
        ("there is no array `log_probs`", || vec![f32s("lse", &[0.0; 6])]),
        ("there is no array `lse`", || vec![f32s("log_probs", &[0.0; 6])]),
    ];
    for (expected, arrays) in cases {
        let message = engine_error(step(move || ok(arrays())).0);
        assert!(
            message.contains("answer to `forward` cannot be used") && message.contains(expected),
            "{message}"
        );
    }
    let message = engine_error(step(move || Reply::Fields(json!({"fine": true}), vec![lse()])).0);
    assert!(message.contains("neither an answer nor an event"), "{message}");
    let (mut torch, _) = with_learner(LONG, |_, _| ok(vec![]));
    let message = engine_error(torch.update(0.1).expect_err("no norm"));
    assert!(message.contains("there is no `gradient_norm`"), "{message}");
    // It is not asked again.
    assert_eq!(
        torch.gradients().expect_err("gone").to_string(),
        "the PyTorch worker is gone, after an earlier error"
    );
}

#[test]
fn a_worker_that_breaks_off_hangs_or_talks_nonsense_ends_the_step() {
    let frame = || encode(object(json!({"ok": true})), &[f32s("log_probs", &[0.0; 6])]).unwrap();
    let message = engine_error(step(|| Reply::End).0);
    assert!(message.starts_with("the PyTorch worker has ended (no process) during `forward`"), "{message}");
    assert!(message.contains("nothing that was saved is lost"), "{message}");
    let message = engine_error(step(|| Reply::Silence).0);
    assert!(message.starts_with("the PyTorch worker has not answered `forward` within 0.3 s"), "{message}");
    // Half of a frame, and then nothing: as good as silence.
    let message = engine_error(step(move || Reply::Bytes(frame()[..40].to_vec())).0);
    assert!(message.contains("has not answered `forward`"), "{message}");
    let message = engine_error(step(|| Reply::Bytes(b"loss: 3.2\nloss: 3.1\n".to_vec())).0);
    assert!(message.contains("not with `loss: 3.2\\nloss: `"), "{message}");
}

#[test]
fn errors_of_every_kind_are_told() {
    let report = |kind: &'static str| {
        move || {
            let error = json!({"kind": kind, "message": "so it is", "hint": "do that", "rank": 0, "traceback": "File x\nline 3"});
            Reply::Fields(json!({"ok": false, "error": error}), vec![])
        }
    };
    for kind in ["user", "out_of_memory"] {
        assert_eq!(
            engine_error(step(report(kind)).0),
            "the PyTorch worker cannot do what `forward` asks: so it is // do that"
        );
    }
    assert_eq!(
        engine_error(step(report("internal")).0),
        "the PyTorch worker cannot do what `forward` asks: so it is\n  | File x\n  | line 3 // do that"
    );
    assert!(engine_error(step(report("other")).0).contains("an error that is not described"));
}

#[test]
fn a_rank_that_is_gone_ends_the_worker_with_its_last_words() {
    let error = json!({
        "kind": "ended", "message": "rank 1 of 4 was ended by signal 9", "hint": null, "rank": 1,
        "traceback": "loading\nhalf of it",
    });
    let (mut torch, _) =
        with_learner(LONG, move |_, _| Reply::Fields(json!({"ok": false, "error": error}), vec![]));
    let message = engine_error(torch.update(0.1).expect_err("an error"));
    assert!(
        message.starts_with(
            "the PyTorch worker has ended (rank 1 of 4 was ended by signal 9) during `update`\n  | loading\n  | half of it"
        ),
        "{message}"
    );
    assert!(message.contains("nothing that was saved is lost"), "{message}");
    // All are gone with it.
    assert_eq!(torch.updates(), 0);
    assert!(engine_error(torch.update(0.1).expect_err("gone")).contains("is gone, after an earlier error"));
}

#[test]
fn processes_share_threads_and_are_told_what_each_has_of_the_learner() {
    for (world_size, threads) in [(1, rayon::current_num_threads()), (10_000, 1)] {
        let told = Arc::new(Mutex::new(Value::Null));
        let kept = told.clone();
        let (torch, _) = meet(with("world_size", json!(world_size)), LONG, move |_, frame| {
            *kept.lock().unwrap() = Value::Object(frame.header.clone());
            ok(vec![])
        });
        assert_eq!(torch.unwrap().hello().world_size, world_size);
        let told = told.lock().unwrap();
        assert_eq!((&told["threads"], &told["sharding"]), (&json!(threads), &json!("full")));
    }
}

#[test]
fn the_error_of_a_call_that_returns_none_comes_with_the_next() {
    let (mut torch, asked) = with_learner(LONG, |operation, _| match operation {
        "begin" => {
            let error =
                json!({"kind": "internal", "message": "no gradient", "hint": null, "traceback": null});
            Reply::Fields(json!({"ok": false, "error": error}), vec![])
        }
        _ => ok(vec![]),
    });
    torch.begin();
    let message = engine_error(torch.accumulate(&batch(), 3, &mut Plain(0)).expect_err("an error"));
    assert!(message.contains("`begin` asks: no gradient"), "{message}");
    assert_eq!(*asked.lock().unwrap(), ["begin"]);
}

#[test]
fn distillation_names_the_window_of_a_bad_row() {
    let answers = [
        json!({"ok": true, "cross_entropy": 2.0, "divergence": 0.5, "bad_row": null}),
        json!({"ok": true, "cross_entropy": null, "divergence": 0.5, "bad_row": 4}),
        json!({"ok": true, "cross_entropy": null, "divergence": 0.5, "bad_row": 99}),
    ];
    let mut answers = answers.into_iter();
    let (mut torch, _) = with_learner(LONG, move |operation, frame| match operation {
        "distill" => {
            assert_eq!(frame.header["denominator"], json!(4.0));
            assert_eq!(frame.header["direction"], json!("forward"));
            Reply::Fields(answers.next().unwrap(), vec![])
        }
        _ => ok(vec![]),
    });
    let teacher = torch.register(architecture());
    let mut distill =
        || torch.distill(&batch(), teacher, &Distillation::default(), Denominator::from_tokens(4));
    assert_eq!(distill().unwrap(), DistillationSums { cross_entropy: 2.0, divergence: 0.5 });
    assert!(matches!(distill(), Err(Refusal::Loss(80))));
    assert!(engine_error(distill().expect_err("no such row")).contains("there is no row 99"));
}

#[test]
fn what_the_model_does_not_allow_is_refused_before_the_worker_is_asked() {
    let (mut torch, asked) = with_learner(LONG, |_, _| ok(vec![]));
    let window =
        remit_batch::Window { index: 0, tokens: vec![1; 41], mask: vec![true; 40], documents: vec![0; 40] };
    let long = Batch::stack(&[window], false);
    let message = text_of(&torch.log_probs(LEARNER, &long, Predictions::All).expect_err("too long"));
    assert!(message.starts_with("40 positions are asked for, the model allows 32"), "{message}");
    let request = Request { prompt: vec![11], seed: 0, max_new_tokens: 1 };
    let settings = Generation::new(Sampling::Greedy);
    let message =
        text_of(&torch.generate(LEARNER, &[request], &settings, &mut ()).expect_err("no such token"));
    assert!(message.starts_with("token id 11 at position 0"), "{message}");
    assert!(asked.lock().unwrap().is_empty());
}

/// Keeps what it is told; ends request 1 after two tokens.
#[derive(Default)]
struct Onlooker {
    advanced: Vec<usize>,
    finished: Vec<(usize, Completion)>,
}

impl Watch for Onlooker {
    fn stop(&mut self, request: usize, tokens: &[u32]) -> bool {
        request == 1 && tokens.len() == 2
    }

    fn advance(&mut self, tokens: usize) {
        self.advanced.push(tokens);
    }

    fn finish(&mut self, request: usize, completion: &Completion) {
        self.finished.push((request, completion.clone()));
    }
}

fn event(requests: &[u32], tokens: &[u32]) -> Reply {
    let log_probs: Vec<f32> = tokens.iter().map(|&token| -(token as f32)).collect();
    let arrays = vec![u32s("requests", requests), u32s("tokens", tokens), f32s("log_probs", &log_probs)];
    Reply::Fields(json!({"event": "tokens"}), arrays)
}

fn requests() -> Vec<Request> {
    [3, 5, 1, 0, 4]
        .map(|max_new_tokens| Request { prompt: vec![1, 2], seed: u64::MAX, max_new_tokens })
        .into()
}

/// A generation whose worker says these things in turn.
fn continued(replies: Vec<Reply>, watch: &mut dyn Watch) -> (Outcome<Vec<Completion>>, Vec<Value>) {
    let stops = Arc::new(Mutex::new(Vec::new()));
    let kept = stops.clone();
    let mut replies = replies.into_iter();
    let (mut torch, _) = with_learner(SHORT, move |operation, frame| {
        match operation {
            "continue" => kept.lock().unwrap().push(frame.header["stop"].clone()),
            _ => {
                assert_eq!(frame.header["end_tokens"], json!([3]));
                assert_eq!(frame.arrays[3].values, Values::I64(vec![-1; 5]));
            }
        }
        replies.next().unwrap_or(Reply::Silence)
    });
    let settings = Generation { stop_sequences: vec![vec![6, 7]], ..Generation::new(Sampling::Greedy) };
    let result = torch.generate(LEARNER, &requests(), &settings, watch);
    let stops = stops.lock().unwrap().clone();
    (result, stops)
}

#[test]
fn generation_follows_the_worker_and_ends_what_the_watch_ends() {
    let last = vec![u32s("lengths", &[2, 2, 1, 0, 2])];
    let replies = vec![event(&[0, 1, 2, 4], &[5, 5, 5, 6]), event(&[1, 4, 0], &[5, 7, 3]), ok(last)];
    let mut watch = Onlooker::default();
    let (result, stops) = continued(replies, &mut watch);
    let completions = result.unwrap();
    let found: Vec<_> = completions.iter().map(|it| (it.tokens.clone(), it.finish)).collect();
    let expected = [
        (vec![5, 3], Finish::End),
        (vec![5, 5], Finish::Stop),
        (vec![5], Finish::Length),
        (vec![], Finish::Length),
        (vec![6, 7], Finish::Stop),
    ];
    assert_eq!(found, expected);
    assert_eq!(completions[4].log_probs, [-6.0, -7.0]);
    assert_eq!(stops, [json!([2]), json!([1, 4, 0])]);
    assert_eq!(watch.advanced, [4, 3]);
    let order: Vec<_> = watch.finished.iter().map(|(request, _)| *request).collect();
    assert_eq!(order, [3, 2, 1, 4, 0]);
    assert!(watch.finished.iter().all(|(request, completion)| *completion == completions[*request]));
}

#[test]
fn generation_believes_nothing_that_cannot_be() {
    let lengths = |lengths: &[u32]| ok(vec![u32s("lengths", lengths)]);
    let all = || event(&[0, 1, 2, 4], &[3, 3, 3, 3]);
    for (replies, expected) in [
        (vec![event(&[9], &[1])], "a token of request 9, which is not at work"),
        (vec![event(&[3], &[1])], "a token of request 3, which is not at work"),
        (vec![event(&[2], &[1]), event(&[2], &[1])], "a token of request 2, which is not at work"),
        (vec![event(&[0], &[11])], "token id 11"),
        (vec![event(&[0, 1], &[1])], "1 tokens and 1 log-probabilities of 2 requests"),
        (vec![lengths(&[0; 5])], "request 0 is not finished"),
        (vec![all(), lengths(&[1, 1, 1, 0])], "other lengths"),
        (vec![all(), ok(vec![])], "there is no array `lengths`"),
        (vec![event(&[0], &[1])], "has not answered `generate`"),
    ] {
        let message = text_of(&continued(replies, &mut ()).0.expect_err("no completions"));
        assert!(message.contains(expected), "{message}");
    }
}

/// The engine with a real worker, where there is one: `VIRTUAL_ENV=... cargo test -p remit-engine -- --ignored`.
#[test]
#[ignore = "needs Python with torch and transformers"]
fn a_real_worker_agrees_with_this_process() {
    assert!(std::env::var_os("VIRTUAL_ENV").is_some(), "VIRTUAL_ENV names the environment to use");
    let settings = TorchSettings { device: "cpu".into(), ..Default::default() };
    let report = crate::check::run(&crate::Settings::Torch(settings), |_| {}, &mut |_| {}).unwrap();
    assert!(report.is_good(), "{report:#?}");
}
