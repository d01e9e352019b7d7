//! Rows to examples: every shape of row, the exact boundary of what counts, and what is refused.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use remit_corpus::Tokenizer;
use remit_corpus::examples::{Counted, Encoder, Example, Examples, Place, Row, Rows, TooLong};
use remit_micro10::{Family, Level, Noise, Problems, Split};
use serde_json::{Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// One token a byte, one more for `: `, and the special ones.
fn tokenizer(special: &[&str], config: Value) -> Arc<Tokenizer> {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort();
    let mut vocab: serde_json::Map<String, Value> =
        alphabet.iter().enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
    vocab.insert(":Ġ".into(), 256.into());
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(i, content)| {
            json!({"id": 257 + i, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    // A token to begin with stands in front of a text where the post-processor puts it there, as Llama's does.
    let post_processor = config["bos_token"].as_str().map(|bos| {
        json!({"type": "TemplateProcessing", "pair": [],
               "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
               "special_tokens": {bos: {"id": bos, "ids": [257], "tokens": [bos]}}})
    });
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": post_processor, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": [": Ġ"]},
    });
    let json = serde_json::to_vec(&json).unwrap();
    let config = serde_json::to_vec(&config).unwrap();
    Arc::new(Tokenizer::from_bytes(&json, Some(&config)).unwrap())
}

/// With a token to begin and one to end.
fn llama() -> Arc<Tokenizer> {
    tokenizer(&["<s>", "</s>"], json!({"bos_token": "<s>", "eos_token": "</s>"}))
}

/// With one token for both, and those of chatml.
fn qwen() -> Arc<Tokenizer> {
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    tokenizer(&special, json!({"bos_token": null, "eos_token": "<|im_end|>"}))
}

fn row(value: Value) -> Row {
    let place = Place { path: "rows.jsonl".into(), number: 7, counted: Counted::Lines };
    Row::new(place, value.to_string()).unwrap()
}

fn encoder(tokenizer: &Arc<Tokenizer>, settings: Examples) -> Encoder {
    Encoder::new(&settings, tokenizer.clone()).unwrap()
}

fn templated(template: &str) -> Examples {
    Examples { template: Some(template.into()), ..Examples::default() }
}

/// The text, with brackets around the tokens whose predictions count.
fn shown(tokenizer: &Tokenizer, example: &Example) -> String {
    assert_eq!(example.mask.len() + 1, example.tokens.len());
    let mut text = String::new();
    let mut inside = false;
    for (i, &token) in example.tokens.iter().enumerate() {
        let counts = i > 0 && example.mask[i - 1];
        if counts != inside {
            text.push_str(if counts { "⟦" } else { "⟧" });
            inside = counts;
        }
        text.push_str(&tokenizer.decode(&[token]).unwrap());
    }
    text + if inside { "⟧" } else { "" }
}

#[track_caller]
fn check(tokenizer: &Arc<Tokenizer>, settings: Examples, value: Value, expected: &str) {
    let example = encoder(tokenizer, settings).example(&row(value)).unwrap();
    assert_eq!(shown(tokenizer, &example), expected);
}

#[track_caller]
fn check_error(settings: Examples, value: Value, message: &str, hint: &str) {
    let error = encoder(&llama(), settings).example(&row(value)).unwrap_err();
    assert_eq!(error.to_string(), format!("rows.jsonl:7: {message}"));
    assert_eq!(error.hint().unwrap_or_default(), hint);
}

#[test]
fn plain_rows_begin_and_end_like_documents() {
    let value = json!({"prompt": "Q: 1+1\nA:", "completion": " 2\n"});
    check(&llama(), Examples::default(), value.clone(), "<s>Q: 1+1\nA:⟦ 2\n</s>⟧");
    // Nothing that is not in the post-processor: neither the end token nor one that is only named.
    check(&qwen(), Examples::default(), value.clone(), "Q: 1+1\nA:⟦ 2\n<|im_end|>⟧");
    let set = |bos: &str| Examples { bos: bos.to_owned().into(), ..Examples::default() };
    check(&qwen(), set("<|im_end|>"), value.clone(), "<|im_end|>Q: 1+1\nA:⟦ 2\n<|im_end|>⟧");
    check(&llama(), set("none"), value.clone(), "Q: 1+1\nA:⟦ 2\n</s>⟧");
    let error = Encoder::new(&set("<bos>"), llama()).unwrap_err().to_string();
    assert_eq!(error, "bos must be own, none or a token of the vocabulary, not `<bos>`");
    let bare = tokenizer(&[], json!({}));
    check(&bare, Examples::default(), value, "Q: 1+1\nA:⟦ 2\n⟧");
    // Without anything in front, nothing predicts the first token.
    check(&bare, Examples::default(), json!({"prompt": "", "completion": "ab"}), "a⟦b⟧");
}

#[test]
fn a_token_across_the_boundary_of_prompt_and_completion_is_taken_apart() {
    let tokenizer = llama();
    let joined = tokenizer.encode("A: 2").unwrap();
    assert_eq!(joined.len(), 3, "`: ` is one token");
    let encoder = encoder(&tokenizer, Examples::default());
    let row = row(json!({"prompt": "A:", "completion": " 2"}));
    let example = encoder.example(&row).unwrap();
    let [bos, eos] = [tokenizer.bos().unwrap(), tokenizer.eos().unwrap()];
    let parts = ["A", ":", " ", "2"].map(|part| tokenizer.encode(part).unwrap()[0]);
    assert_eq!(example.tokens, [bos, parts[0], parts[1], parts[2], parts[3], eos]);
    assert_eq!(example.mask, [false, false, true, true, true]);
    assert_eq!((example.num_prompt_tokens(), example.num_completion_tokens()), (3, 3));
    assert_eq!(encoder.prompt(&row).unwrap(), example.tokens[..3], "generation begins at the same boundary");
}

#[test]
fn tokens_that_the_text_spells_out_are_not_added_again() {
    let value = json!({"prompt": "<s>a", "completion": "b</s>"});
    check(&llama(), Examples::default(), value, "<s>a⟦b</s>⟧");
}

#[test]
fn fields_are_put_together() {
    let settings = Examples {
        prompt: "Question: {question}\nAnswer:".into(),
        completion: " {extra.answer} #{n}".into(),
        ..Examples::default()
    };
    let value = json!({"question": "1+1?", "extra": {"answer": "two"}, "n": 2, "messages": "ignored"});
    check(&llama(), settings, value, "<s>Question: 1+1?\nAnswer:⟦ two #2</s>⟧");
}

#[test]
fn rows_that_teach_nothing_say_why() {
    let plain = Examples::default;
    check_error(
        plain(),
        json!({"prompt": "a", "completions": "b"}),
        "no field `completion`; the record has `completions`, `prompt`",
        "did you mean `completions`? Name it in braces, as in \"{completions}\"",
    );
    check_error(
        plain(),
        json!({"prompt": "a", "completion": null}),
        "field `completion` is null, not a string",
        "name a field of text; a name with dots leads into an object, as in \"{a.b}\"",
    );
    check_error(
        plain(),
        json!({"prompt": "a", "completion": ""}),
        "the completion is empty",
        "repair or remove the record",
    );
    let error = encoder(&llama(), plain()).example(&row(json!({"dialog": []}))).unwrap_err();
    assert!(error.hint().unwrap().ends_with("or set `messages` to the one with the conversation"));
    let bad = Examples { chosen: "{chosen".into(), ..plain() };
    let error = Encoder::new(&bad, llama()).unwrap_err().to_string();
    assert_eq!(error, "chosen `{chosen`: a `{` has no `}` after it");
}

const CHAT: &str = r#"{"messages": [
    {"role": "system", "content": "Short."}, {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "2"}, {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "4"}]}"#;

fn chat() -> Value {
    serde_json::from_str(CHAT).unwrap()
}

#[test]
fn conversations_count_what_the_assistant_says() {
    check(
        &llama(),
        templated("tulu"),
        chat(),
        "<s><|system|>\nShort.\n<|user|>\n1+1?\n<|assistant|>\n⟦2</s>⟧\n<|user|>\n2+2?\n<|assistant|>\n⟦4</s>⟧",
    );
    check(
        &qwen(),
        templated("chatml"),
        chat(),
        "<|im_start|>system\nShort.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n⟦2<|im_end|>⟧\n\
         <|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n⟦4<|im_end|>⟧\n",
    );
}

#[test]
fn prompts_are_what_training_sees_in_front_of_the_answer() {
    for (tokenizer, template) in [(llama(), "tulu"), (qwen(), "chatml"), (qwen(), "tulu")] {
        let encoder = encoder(&tokenizer, templated(template));
        let whole = encoder.example(&row(chat())).unwrap();
        let prompt = encoder.prompt(&row(chat())).unwrap();
        assert_eq!(whole.tokens[..prompt.len()], prompt);
        assert!(whole.mask[prompt.len() - 1] && !whole.mask[prompt.len() - 2]);
        // The same question as text, as a list, and as a conversation without an answer.
        let question = json!([{"role": "user", "content": "1+1?"}]);
        let forms = [json!({"prompt": "1+1?"}), json!({"prompt": question}), json!({"messages": question})];
        let prompts = forms.map(|form| encoder.prompt(&row(form)).unwrap());
        assert!(prompts[0] == prompts[1] && prompts[1] == prompts[2]);
        let completed = encoder.example(&row(json!({"prompt": "1+1?", "completion": "2"}))).unwrap();
        assert_eq!(completed.tokens[..prompts[0].len()], prompts[0]);
        assert_eq!(completed.num_prompt_tokens(), prompts[0].len());
    }
    let stops =
        |tokenizer: Arc<Tokenizer>, template| encoder(&tokenizer, templated(template)).stop_tokens().unwrap();
    assert_eq!(stops(llama(), "tulu"), [258]);
    assert_eq!(stops(qwen(), "chatml"), [259]);
    let pad = tokenizer(&["<|im_start|>", "<|im_end|>", "</s>"], json!({"eos_token": "</s>"}));
    assert_eq!(stops(pad, "chatml"), [259, 258], "the end token and the end of a turn");
}

#[test]
fn prompts_of_messages_are_not_learnt() {
    let prompt = json!([
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]);
    let expected = "<s><|user|>\na\n<|assistant|>\nb</s>\n<|user|>\nc\n<|assistant|>\n⟦d</s>⟧";
    let d = json!([{"role": "assistant", "content": "d"}]);
    let mut whole = prompt.as_array().unwrap().clone();
    whole.push(d[0].clone());
    for completion in [json!("d"), d, json!(whole)] {
        let value = json!({"prompt": prompt, "completion": completion});
        check(&llama(), templated("tulu"), value, expected);
    }
    let value = json!({"prompt": "a", "completion": [{"role": "assistant", "content": "b"}]});
    check(&llama(), templated("tulu"), value, "<s><|user|>\na\n<|assistant|>\n⟦b</s>⟧");
}

/// The template of Qwen 2.5 without tools: no marks.
const UNMARKED: &str = "{% for message in messages %}{% if loop.first and message.role != 'system' %}<|im_start|>system\n\
                        Help.<|im_end|>\n{% endif %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
                        {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn with_own(template: &str) -> Arc<Tokenizer> {
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    tokenizer(&special, json!({"eos_token": "<|im_end|>", "chat_template": template}))
}

#[test]
fn an_open_turn_goes_on() {
    let question = json!({"role": "user", "content": "A colour?"});
    let prompt = json!([question, {"role": "assistant", "content": "Sure, it is"}]);
    let (before, after) =
        ("<|im_start|>user\nA colour?<|im_end|>\n<|im_start|>assistant\nSure, it is", "<|im_end|>");
    let chatml = encoder(&qwen(), templated("chatml"));
    let ids = chatml.prompt(&row(json!({"prompt": prompt}))).unwrap();
    assert_eq!(qwen().decode(&ids).unwrap(), before);
    for completion in [json!([{"role": "assistant", "content": " red."}]), json!(" red.")] {
        let value = json!({"prompt": prompt, "completion": completion});
        check(&qwen(), templated("chatml"), value.clone(), &format!("{before}⟦ red.{after}⟧\n"));
        let example = chatml.example(&row(value)).unwrap();
        assert_eq!(example.tokens[..ids.len()], ids, "generation begins behind the same ids");
        // Without marks as well.
        let value = json!({"prompt": prompt, "completion": completion});
        let expected = format!("<|im_start|>system\nHelp.<|im_end|>\n{before}⟦ red.{after}⟧\n");
        check(&with_own(UNMARKED), templated("own"), value, &expected);
    }
    // A template that takes white space away takes it away behind an open turn too.
    let trimming = UNMARKED.replace("{{ message.content }}", "{{ message.content | trim }}");
    let prompt = json!([question, {"role": "assistant", "content": " Sure, it is \n"}]);
    let ids =
        encoder(&with_own(&trimming), templated("own")).prompt(&row(json!({"prompt": prompt}))).unwrap();
    let expected = format!("<|im_start|>system\nHelp.<|im_end|>\n{before}");
    assert_eq!(with_own(&trimming).decode(&ids).unwrap(), expected);
    let silent = UNMARKED.replace("{{ message.content }}", "...");
    let error =
        encoder(&with_own(&silent), templated("own")).prompt(&row(json!({"prompt": prompt}))).unwrap_err();
    let why = "cannot be left open: the template changes or leaves out its text";
    assert!(error.to_string().contains(why), "{error}");
}

#[test]
fn rows_with_tools_have_a_template_of_their_own() {
    let own = json!([
        {"name": "default", "template": UNMARKED},
        {"name": "tool_use", "template": format!("TOOLS {{{{ tools | length }}}}\n{UNMARKED}")},
    ]);
    let own = tokenizer(
        &["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        json!({"eos_token": "<|im_end|>", "chat_template": own}),
    );
    let turns = "<|im_start|>system\nHelp.<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n⟦b<|im_end|>⟧\n";
    let messages = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
    for (tools, before) in
        [(json!(null), ""), (json!([{"name": "f"}]), "TOOLS 1\n"), (json!([]), "TOOLS 0\n")]
    {
        let value = json!({"messages": messages, "tools": tools});
        check(&own, templated("own"), value, &format!("{before}{turns}"));
    }
}

#[test]
fn rows_of_sharegpt_are_conversations() {
    let value = json!({"conversations": [
        {"from": "system", "value": "Short."}, {"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"},
        {"from": "user", "value": "2+2?"}, {"from": "assistant", "value": "4", "weight": 1}]});
    let encoder = encoder(&llama(), templated("tulu"));
    assert_eq!(encoder.example(&row(value)).unwrap(), encoder.example(&row(chat())).unwrap());
    let error =
        encoder.example(&row(json!({"conversations": [{"from": "bard", "value": "x"}]}))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rows.jsonl:7: `conversations` is no list of messages: message 1 is from `bard`"
    );
}

#[test]
fn a_template_without_marks_tells_by_its_beginnings() {
    let value = json!({"messages": chat()["messages"].as_array().unwrap()[1..]});
    let expected = "<|im_start|>system\nHelp.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n\
                    ⟦2<|im_end|>⟧\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n⟦4<|im_end|>⟧\n";
    check(&with_own(UNMARKED), Examples::default(), value.clone(), expected);
    check(&with_own(UNMARKED), templated("own"), value.clone(), expected);
    let named = json!([{"name": "tools", "template": "x"}, {"name": "default", "template": UNMARKED}]);
    let listed = tokenizer(
        &["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        json!({"eos_token": "<|im_end|>", "chat_template": named}),
    );
    check(&listed, templated("own"), value.clone(), expected);
    // Plain rows stay plain unless the template is asked for.
    let plain = json!({"prompt": "a", "completion": "b"});
    check(&with_own(UNMARKED), Examples::default(), plain, "a⟦b<|im_end|>⟧");

    let forgetful = UNMARKED.replace(
        "{{ message.content }}",
        "{{ message.content if loop.last or message.role == 'user' else '...' }}",
    );
    let error = encoder(&with_own(&forgetful), templated("own")).example(&row(value)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rows.jsonl:7: the chat template `own` does not say what the model writes: rendered up to message 2, the text is \
         no beginning of the text with what follows; they part at \"2<|im_end|>\\n\" and \"...<|im_end|>\\n<|im_start\""
    );
    assert!(error.hint().unwrap().contains("{% generation %}"));
}

#[test]
fn conversations_that_cannot_be_learnt_say_why() {
    check_error(
        Examples::default(),
        chat(),
        "the row is a conversation, and there is no chat template",
        "set `template` to \"tulu\", which any tokenizer can write, \"chatml\" or a file",
    );
    check_error(
        templated("tulu"),
        json!({"messages": [{"role": "wizard", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        "the chat template `tulu` fails: no role is named wizard: there are system, user and assistant (line 4)",
        "",
    );
    check_error(
        templated("tulu"),
        json!({"messages": [{"role": "user", "content": "a"}]}),
        "no message of the conversation is the assistant's; the roles are `user`",
        "training needs a message with the role `assistant`; repair or remove the record",
    );
    check_error(
        templated("tulu"),
        json!({"messages": [{"speaker": "human", "value": "a"}]}),
        "`messages` is no list of messages: message 1 has no `role`",
        "a message is an object with `role` and `content`, or with `from` (human, gpt, system or tool) and `value`",
    );
    check_error(
        templated("tulu"),
        json!({"messages": [{"role": "user", "content": "\u{FDD0}"}, {"role": "assistant", "content": "b"}]}),
        "the text has the character U+FDD0, which stands for no text",
        "",
    );
    let missing = |settings: &Examples, tokenizer| {
        let error = Encoder::new(settings, tokenizer).unwrap_err();
        (error.to_string(), error.hint().unwrap_or_default())
    };
    let (message, hint) = missing(&templated("chatml"), llama());
    assert_eq!(message, "chat template `chatml`: the tokenizer has no token `<|im_start|>`");
    assert_eq!(hint, "set `template` to tulu, which any tokenizer can write");
    assert_eq!(
        missing(&templated("own"), llama()).0,
        "chat template `own`: none came with the tokenizer `tokenizer.json`"
    );
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("bad.jinja");
    fs::write(&path, "a\n{% if messages %}").unwrap();
    let (message, _) = missing(&templated(path.to_str().unwrap()), llama());
    assert!(
        message.starts_with(&format!("chat template `{}`: unexpected end of input", path.display())),
        "{message}"
    );
    let (message, hint) = missing(&templated("tulo"), llama());
    assert!(message.starts_with("chat template `tulo`: cannot read it as a file: "), "{message}");
    assert_eq!(hint, "set `template` to chatml, tulu, own or the path of a Jinja file");
    // A broken template that came with the tokenizer is in the way of conversations only.
    let broken = encoder(&with_own("{% if %}"), Examples::default());
    assert!(broken.example(&row(json!({"prompt": "a", "completion": "b"}))).is_ok());
    let message = broken.example(&row(chat())).unwrap_err().to_string();
    assert!(
        message.contains("no chat template: the tokenizer's own cannot be used (chat template `own`:"),
        "{message}"
    );
}

#[test]
fn a_template_in_the_directory_goes_before_the_one_in_the_config() {
    let home = tempfile::tempdir().unwrap();
    let own = with_own("from the config");
    fs::write(home.path().join("tokenizer.json"), own.json()).unwrap();
    fs::write(home.path().join("tokenizer_config.json"), own.config().unwrap()).unwrap();
    assert_eq!(Tokenizer::open(home.path()).unwrap().chat_template(), Some("from the config"));
    fs::write(home.path().join("chat_template.jinja"), UNMARKED).unwrap();
    let tokenizer = Arc::new(Tokenizer::open(home.path()).unwrap());
    assert_eq!(encoder(&tokenizer, templated("own")).chat_template().unwrap().source(), UNMARKED);
}

#[test]
fn preferences_differ_behind_their_common_prompt() {
    let pair = |settings: Examples, value: Value| {
        let pair = encoder(&llama(), settings).preference(&row(value)).unwrap();
        pair.map(|example| shown(&llama(), &example))
    };
    let plain = pair(Examples::default(), json!({"prompt": "a", "chosen": "b", "rejected": "cc"}));
    assert_eq!(plain, ["<s>a⟦b</s>⟧", "<s>a⟦cc</s>⟧"]);

    let user = json!({"role": "user", "content": "a"});
    let says = |text: &str| json!({"role": "assistant", "content": text});
    let expected = ["<s><|user|>\na\n<|assistant|>\n⟦b</s>⟧", "<s><|user|>\na\n<|assistant|>\n⟦c</s>⟧"];
    let forms = [
        json!({"prompt": "a", "chosen": "b", "rejected": "c"}),
        json!({"prompt": [user], "chosen": "b", "rejected": "c"}),
        json!({"prompt": "a", "chosen": [says("b")], "rejected": [says("c")]}),
        json!({"prompt": [user], "chosen": [says("b")], "rejected": [says("c")]}),
        json!({"prompt": "a", "chosen": [user, says("b")], "rejected": [user, says("c")]}),
        json!({"chosen": [user, says("b")], "rejected": [user, says("c")], "messages": [user, says("b")]}),
    ];
    for form in forms {
        assert_eq!(pair(templated("tulu"), form.clone()), expected, "{form}");
    }
    let long = pair(
        templated("tulu"),
        json!({"chosen": [user, says("b"), user, says("d")], "rejected": [user, says("b"), user, says("e")]}),
    );
    assert_eq!(
        long[1], "<s><|user|>\na\n<|assistant|>\nb</s>\n<|user|>\na\n<|assistant|>\n⟦e</s>⟧",
        "an answer in common is part of the prompt"
    );

    let refused =
        |value: Value| encoder(&llama(), templated("tulu")).preference(&row(value)).unwrap_err().to_string();
    assert_eq!(
        refused(json!({"prompt": "a", "chosen": "b", "rejected": "b"})),
        "rows.jsonl:7: `chosen` and `rejected` are the same"
    );
    assert_eq!(
        refused(json!({"prompt": "a", "chosen": "b", "rejected": ""})),
        "rows.jsonl:7: the rejected is empty"
    );
    assert_eq!(
        refused(json!({"chosen": "b", "rejected": "c"})),
        "rows.jsonl:7: no field `prompt`; the record has `chosen`, `rejected`"
    );
}

#[test]
fn answers_are_found_under_their_usual_names() {
    let answer = |settings: Examples, value: Value| {
        encoder(&llama(), settings).answer(&row(value)).map_err(|error| error.to_string())
    };
    let usual = |value| answer(Examples::default(), value);
    assert_eq!(usual(json!({"answer": "no", "solution": "1"})).unwrap(), "1");
    assert_eq!(usual(json!({"solution": null, "ground_truth": 2.5})).unwrap(), "2.5");
    assert_eq!(usual(json!({"reward_model": {"ground_truth": "3"}})).unwrap(), "3");
    assert_eq!(
        usual(json!({"b": 1})).unwrap_err(),
        "rows.jsonl:7: no answer: none of the fields `solution`, `ground_truth`, `reward_model.ground_truth`, `answer`; \
         the record has `b`"
    );
    let named = Examples { answer: Some("{a.b}!".into()), ..Examples::default() };
    assert_eq!(answer(named, json!({"a": {"b": "x"}, "solution": "y"})).unwrap(), "x!");
}

fn file(home: &tempfile::TempDir, rows: &[Value]) -> Vec<PathBuf> {
    let path = home.path().join("rows.jsonl");
    fs::write(&path, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    vec![path]
}

#[test]
fn rows_that_are_too_long_are_told_or_counted_and_never_cut() {
    let home = tempfile::tempdir().unwrap();
    // With `<s>` and `</s>`: 5, 6 and 7 tokens; the last has a prompt of 6.
    let rows = [("ab", "c"), ("ab", "cd"), ("abcde", "f")]
        .map(|(prompt, completion)| json!({"prompt": prompt, "completion": completion}));
    let files = file(&home, &rows);
    let pack = |too_long, length| {
        let encoder = encoder(&llama(), Examples { too_long, ..Examples::default() });
        encoder.pack(Rows::open(&files).unwrap(), length)
    };
    let message = |length| {
        let error = pack(TooLong::Error, length).unwrap_err();
        let told = error.to_string();
        assert!(error.hint().unwrap().contains("too_long"));
        told.rsplit('/').next().unwrap().to_owned()
    };
    assert_eq!(pack(TooLong::Error, 7).unwrap().summary().examples, 3);
    assert_eq!(message(6), "rows.jsonl:3: the sequence has 8 tokens, more than the 7 that a window holds");
    assert_eq!(message(5), "rows.jsonl:3: the prompt has 6 tokens and leaves no room for a completion in 6");
    assert_eq!(message(4), "rows.jsonl:2: the sequence has 6 tokens, more than the 5 that a window holds");
    let summary = pack(TooLong::Drop, 5).unwrap().summary();
    assert_eq!((summary.examples, summary.dropped, summary.windows), (2, 1, 2));
    assert_eq!((summary.tokens, summary.completion_tokens, summary.fill), (11, 5, 11.0 / 12.0));
    let error = pack(TooLong::Drop, 3).unwrap_err();
    assert_eq!(error.to_string(), "there is no example: all 3 are longer than a window of 3 predictions");
}

#[test]
fn packing_and_pairing_keep_the_order_and_tell_the_first_error() {
    let home = tempfile::tempdir().unwrap();
    let rows: Vec<Value> = (0..3000)
        .map(|i| json!({"prompt": format!("{i}:"), "completion": i.to_string(), "chosen": "+", "rejected": "-"}))
        .collect();
    let files = file(&home, &rows);
    let encoder = encoder(&llama(), Examples::default());
    let packed = encoder.pack(Rows::open(&files).unwrap(), 40).unwrap();
    assert_eq!(packed.summary().examples, 3000);
    let expected: Vec<Example> =
        rows.iter().map(|value| encoder.example(&row(value.clone())).unwrap()).collect();
    for index in 0..packed.len() {
        let window = packed.window(index);
        let mut start = 0;
        for &sequence in packed.sequences_of(index) {
            let example = &expected[sequence as usize];
            let end = start + example.tokens.len();
            assert_eq!(window.tokens[start..end], example.tokens);
            assert_eq!(window.mask[start..end - 1], example.mask);
            start = end;
        }
    }
    let pairs = encoder.pairs(Rows::open(&files).unwrap(), 40).unwrap();
    assert_eq!((pairs.pairs.len(), pairs.num_dropped), (3000, 0));
    assert_eq!(shown(&llama(), &pairs.pairs[2999][1]), "<s>2999:⟦-</s>⟧");

    let mut wrong = rows;
    wrong[2000] = json!({"prompt": "a"});
    wrong[2001] = json!({});
    let error = encoder.pack(Rows::open(&file(&home, &wrong)).unwrap(), 40).unwrap_err().to_string();
    assert!(error.contains("rows.jsonl:2001: no field `completion`"), "{error}");
}

#[test]
fn rows_of_problems_are_their_documents() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("micro10.jsonl");
    let noise = Noise { corrupted: 0.3, filler: 0.3 };
    let families = Family::MICRO10.into_iter().collect();
    let problems = Problems { families, level: Level::Two, seed: 5, count: 300, noise, split: Split::Train };
    remit_store::atomic::write_json_lines(&path, problems.rows().unwrap()).unwrap();
    let encoder = encoder(&llama(), Examples::default());
    let mut rows = Rows::open(&[path]).unwrap();
    for document in problems.documents().unwrap() {
        let row = rows.next().unwrap().unwrap();
        let (prompt, text) = (document.problem.prompt(), document.text);
        let completion = text.strip_prefix(&prompt).unwrap();
        let example = encoder.example(&row).unwrap();
        assert_eq!(shown(&llama(), &example), format!("<s>{prompt}⟦{completion}</s>⟧"));
        assert_eq!(encoder.answer(&row).unwrap(), document.problem.ground_truth());
    }
    assert!(rows.next().is_none());
}

#[test]
fn settings_are_written_as_people_write_them() {
    let settings: Examples =
        toml::from_str("files = [\"a/*.jsonl\"]\ncompletion = \" {answer}\"\ntoo_long = \"drop\"\n").unwrap();
    assert_eq!(settings.files, [PathBuf::from("a/*.jsonl")]);
    assert_eq!((settings.prompt.as_str(), settings.too_long), ("{prompt}", TooLong::Drop));
    let error = toml::from_str::<Examples>("promt = \"\"").unwrap_err().to_string();
    assert!(error.contains("unknown field `promt`"), "{error}");
}
