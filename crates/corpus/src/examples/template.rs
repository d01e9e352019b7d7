//! Chat templates: conversations to text, as `transformers` renders them, with the parts that the model writes.
//!
//! Jinja with `trim_blocks`, `lstrip_blocks`, loop controls, Python's methods, printing and `tojson`,
//! `raise_exception` and `strftime_now`. The last is always 26 July 2024, the day that Llama's templates name where
//! they cannot ask: a row must not become another one each day. Where Jinja refuses to compare, slice or convert a
//! value that is not there, it counts as empty or 0 here.
//!
//! What the model writes stands between `{% generation %}` and `{% endgeneration %}`, the end of its turn included. A
//! template without these marks is rendered message by message: where the conversation up to an assistant's message,
//! with the generation prompt, is a beginning of the conversation with that message, what is added is what the model
//! writes, up to and with its last end token. Where it is not, or where more messages change what was there before, the
//! row is an error.

use std::collections::BTreeMap;
use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind};
use regex::Regex;
use remit_fault::fault;

use super::python;
use super::rows::Row;
use crate::error::list;
use crate::{Error, Tokenizer};

const CHATML: &str = include_str!("chatml.jinja");
const TULU: &str = include_str!("tulu.jinja");

/// The name by which the environment knows the one template.
const NAME: &str = "chat";
/// The names of an assistant's reasoning, the first of which goes before the others.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
/// Stand in the rendered text where marks begin and end: code points that Unicode keeps for such uses.
const BEGIN: char = '\u{FDD0}';
/// See [`BEGIN`].
const END: char = '\u{FDD1}';

/// A chat template, ready to render.
#[derive(Debug)]
pub struct ChatTemplate {
    name: String,
    source: String,
    environment: Environment<'static>,
    has_marks: bool,
    /// Texts of special tokens by the names that templates know: `bos_token` and the like.
    tokens: BTreeMap<String, String>,
    /// The template for rows with `tools`, where the tokenizer came with one of its own for them.
    tool_use: Option<Box<ChatTemplate>>,
}

/// Special tokens that templates may ask for, beside those at the beginning and the end of a text.
const OTHER_TOKENS: [&str; 5] = ["unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// What the last message is marked with where its turn is left open, as `transformers` does: templates that look for
/// its text find it changed alike.
const CONTINUED: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// Messages, and what else a template may ask for.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// Objects with a `role`, mostly with `content`.
    pub messages: Vec<Value>,
    /// By the names that templates know: `tools`, and what else the row says.
    pub variables: BTreeMap<String, Value>,
}

/// A conversation as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// What the assistant says in it, in order and apart from each other.
    pub spans: Vec<Span>,
}

/// What the assistant says in a rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where, in bytes.
    pub range: Range<usize>,
    /// Whether the model learns to write it; otherwise it is part of what is given.
    pub counts: bool,
}

impl Conversation {
    /// The messages of a field of a row, with the row's `tools`, its `documents` and whatever its
    /// `chat_template_kwargs` set.
    ///
    /// # Errors
    /// With file and line, when the field is no list of messages.
    pub fn of_row(row: &Row, field: &str) -> Result<Conversation, Error> {
        let messages = messages(row, field).map_err(|error| row.error(error))?;
        Ok(Conversation::with_messages(row, messages))
    }

    /// The same for messages that the row says in another way.
    pub(super) fn with_messages(row: &Row, messages: Vec<Value>) -> Conversation {
        let mut variables = BTreeMap::new();
        for name in ["tools", "documents"] {
            if row.fields.contains_key(name) {
                variables.insert(name.to_owned(), ordered(row, name));
            }
        }
        if row.fields.get("chat_template_kwargs").is_some_and(|value| value.is_object()) {
            let options = ordered(row, "chat_template_kwargs");
            for name in options.try_iter().into_iter().flatten() {
                variables.insert(name.to_string(), options.get_item(&name).unwrap_or_default());
            }
        }
        Conversation { messages, variables }
    }

    /// The first `count` messages.
    fn up_to(&self, count: usize) -> Conversation {
        Conversation { messages: self.messages[..count].to_vec(), variables: self.variables.clone() }
    }
}

impl Rendered {
    /// The text cut at the ends of all spans, each part with whether the model learns to write it.
    pub fn parts(&self) -> Vec<(&str, bool)> {
        let mut parts = Vec::new();
        let mut end = 0;
        for span in &self.spans {
            parts.push((&self.text[end..span.range.start], false));
            parts.push((&self.text[span.range.clone()], span.counts));
            end = span.range.end;
        }
        parts.push((&self.text[end..], false));
        parts.retain(|(part, _)| !part.is_empty());
        parts
    }
}

impl ChatTemplate {
    /// The template that a setting names: `chatml`, `tulu`, `own` (the one that came with the tokenizer), or a file.
    ///
    /// # Errors
    /// When there is none, it is malformed, or it needs tokens that the tokenizer lacks.
    pub fn named(name: &str, tokenizer: &Tokenizer) -> Result<ChatTemplate, Error> {
        match name {
            "chatml" => ChatTemplate::chatml(tokenizer),
            "tulu" => ChatTemplate::new("tulu", TULU, tokenizer),
            "own" => ChatTemplate::own(tokenizer),
            path => {
                let source = std::fs::read_to_string(path).map_err(|cause| {
                    fault!("chat template `{path}`: cannot read it as a file: {cause}")
                        .with_hint("set `template` to chatml, tulu, own or the path of a Jinja file")
                })?;
                ChatTemplate::new(path, &source, tokenizer)
            }
        }
    }

    /// The template that came with the tokenizer; of several the one named `default`, and for rows with `tools` the one
    /// named `tool_use`, as `transformers` chooses.
    ///
    /// # Errors
    /// When none did, or it is malformed.
    pub fn own(tokenizer: &Tokenizer) -> Result<ChatTemplate, Error> {
        let named = |wanted: &str| {
            let mut templates = tokenizer.chat_templates().iter();
            templates.find(|(name, _)| name == wanted).map(|(_, source)| source)
        };
        let Some(source) = named("default") else {
            let path = tokenizer.path().display();
            let names: Vec<&str> = tokenizer.chat_templates().iter().map(|(name, _)| name.as_str()).collect();
            let others = match names[..] {
                [] => "none came".to_owned(),
                _ => format!("none that is named `default` came ({} did)", list(&names)),
            };
            return Err(fault!("chat template `own`: {others} with the tokenizer `{path}`")
                .with_hint("set `template` to tulu, which any tokenizer can write, chatml or a file"));
        };
        let own = ChatTemplate::new("own", source, tokenizer)?;
        let tool_use = named("tool_use").map(|source| ChatTemplate::new("own, tool_use", source, tokenizer));
        Ok(ChatTemplate { tool_use: tool_use.transpose()?.map(Box::new), ..own })
    }

    /// The one that renders a conversation.
    fn serving(&self, conversation: &Conversation) -> &ChatTemplate {
        let has_tools = conversation.variables.get("tools").is_some_and(|tools| !tools.is_none());
        self.tool_use.as_deref().filter(|_| has_tools).unwrap_or(self)
    }

    fn chatml(tokenizer: &Tokenizer) -> Result<ChatTemplate, Error> {
        for token in ["<|im_start|>", "<|im_end|>"] {
            let is_single =
                tokenizer.id(token).is_some_and(|id| tokenizer.encode(token).is_ok_and(|ids| ids == [id]));
            if !is_single {
                return Err(fault!("chat template `chatml`: the tokenizer has no token `{token}`")
                    .with_hint("set `template` to tulu, which any tokenizer can write"));
            }
        }
        ChatTemplate::new("chatml", CHATML, tokenizer)
    }

    /// A template from its source; `name` is what errors call it.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn new(name: &str, source: &str, tokenizer: &Tokenizer) -> Result<ChatTemplate, Error> {
        let token = |id: Option<u32>| id.and_then(|id| tokenizer.token(id));
        let ends = [("bos_token", token(tokenizer.bos())), ("eos_token", token(tokenizer.eos()))];
        let others = OTHER_TOKENS.map(|name| (name, tokenizer.special(name).map(str::to_owned)));
        let tokens = ends.into_iter().chain(others);
        let tokens = tokens.filter_map(|(name, token)| Some((name.to_owned(), token?)));
        ChatTemplate::with_tokens(name, source, tokens.collect())
    }

    /// The same with the texts of special tokens by the names that templates know: `bos_token` and the like.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn with_tokens(
        name: &str,
        source: &str,
        tokens: BTreeMap<String, String>,
    ) -> Result<ChatTemplate, Error> {
        // Jinja makes all line ends of a template line feeds.
        let (marked, has_marks) = mark(&source.replace("\r\n", "\n").replace('\r', "\n"));
        let mut environment = environment();
        environment
            .add_template_owned(NAME, marked)
            .map_err(|error| fault!("chat template `{name}`: {}", told(&error)))?;
        let source = source.to_owned();
        Ok(ChatTemplate { name: name.to_owned(), source, environment, has_marks, tokens, tool_use: None })
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The source, as it is written beside a checkpoint.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation. With `add_generation_prompt` the assistant's next turn is opened. Spans are known
    /// where the template has marks, and all of them count.
    ///
    /// # Errors
    /// When the template refuses the conversation or fails.
    pub fn render(
        &self,
        conversation: &Conversation,
        add_generation_prompt: bool,
    ) -> Result<Rendered, Error> {
        let serving = self.serving(conversation);
        if !std::ptr::eq(self, serving) {
            return serving.render(conversation, add_generation_prompt);
        }
        let Conversation { messages, variables } = conversation;
        if self.has_marks
            && let Some(code) =
                [BEGIN, END].into_iter().find(|&mark| has_character(messages, variables, mark))
        {
            return Err(fault!(
                "the text has the character U+{:X}, which stands for no text",
                u32::from(code)
            ));
        }
        // As in `transformers`, these two are there and none where nothing is said.
        let mut context: BTreeMap<&str, Value> =
            ["tools", "documents"].into_iter().map(|name| (name, Value::from(()))).collect();
        context.extend(self.tokens.iter().map(|(name, token)| (name.as_str(), token.as_str().into())));
        context.extend(variables.iter().map(|(name, value)| (name.as_str(), value.clone())));
        context.insert("messages", Value::from(messages.clone()));
        context.insert("add_generation_prompt", add_generation_prompt.into());
        let template = self.environment.get_template(NAME).expect("the template was added");
        let text = template.render(Value::from(context)).map_err(|error| self.failed(&error))?;
        Ok(split(&text))
    }

    /// What the model is given to go on from: the conversation with the assistant's turn opened, or left open where the
    /// conversation ends in it.
    ///
    /// # Errors
    /// As [`render`](Self::render); a last message without text, or whose text the template changes.
    pub fn prompt(&self, conversation: &Conversation) -> Result<Rendered, Error> {
        match conversation.messages.last() {
            Some(last) if is_assistant(last) => self.open_turn(conversation),
            _ => self.render(conversation, true),
        }
    }

    /// As `transformers` leaves a turn open: its text is marked, and what is rendered ends before the mark.
    fn open_turn(&self, conversation: &Conversation) -> Result<Rendered, Error> {
        let refuse = |why: &str| {
            fault!("the conversation ends in the assistant's turn, which cannot be left open: {why}").with_hint(
                "take the assistant's beginning out of the prompt, or use a template that writes it as it is",
            )
        };
        let mut marked = conversation.clone();
        let last = marked.messages.last_mut().expect("it has just been there");
        let content = last.get_attr("content").unwrap_or_default();
        let Some(text) = content.as_str() else { return Err(refuse("it is no text")) };
        *last = with_content(last, format!("{text}{CONTINUED}"));
        let Rendered { text: rendered, mut spans } = self.render(&marked, false)?;
        let tag = CONTINUED.trim_end();
        let Some(at) = rendered.rfind(tag).filter(|_| rendered.contains(python::strip(text, true, true)))
        else {
            return Err(refuse("the template changes or leaves out its text"));
        };
        // Where the template takes blanks away behind a message, those in front of the mark go as well.
        let kept = if rendered[at..].starts_with(CONTINUED) {
            &rendered[..at]
        } else {
            python::strip(&rendered[..at], false, true)
        };
        spans.retain_mut(|span| {
            span.range.end = span.range.end.min(kept.len());
            span.range.start < span.range.end
        });
        Ok(Rendered { text: kept.to_owned(), spans })
    }

    /// The text of a conversation, with what the assistant says from message `given` on as the spans that count.
    ///
    /// # Errors
    /// As [`render`](Self::render); when there is nothing to count; when a template without marks does not tell.
    pub fn turns(&self, conversation: &Conversation, given: usize) -> Result<Rendered, Error> {
        let messages = &conversation.messages;
        if !messages[given..].iter().any(is_assistant) {
            let mut roles: Vec<String> = messages[given..].iter().map(role).collect();
            roles.sort();
            roles.dedup();
            let roles = list(&roles);
            return Err(fault!("no message of the conversation is the assistant's; the roles are {roles}")
                .with_hint(
                    "training needs a message with the role `assistant`; repair or remove the record",
                ));
        }
        let serving = self.serving(conversation);
        if !std::ptr::eq(self, serving) {
            return serving.turns(conversation, given);
        }
        let mut rendered = self.render(conversation, false)?;
        if !self.has_marks {
            rendered.spans = self.spans_by_prefix(conversation, given, &rendered.text)?;
        } else if messages[..given].iter().any(is_assistant) {
            let num_given = self.render(&conversation.up_to(given), false)?.spans.len();
            rendered.spans.iter_mut().take(num_given).for_each(|span| span.counts = false);
        }
        Ok(rendered)
    }

    /// [`turns`](Self::turns), of which the beginning that `opened` comes to is given, where it is there: a conversation
    /// that ends within the first message that the model writes.
    ///
    /// # Errors
    /// As [`turns`](Self::turns); when it is no beginning.
    pub(super) fn turns_from(
        &self,
        conversation: &Conversation,
        given: usize,
        opened: Option<&Conversation>,
    ) -> Result<Rendered, Error> {
        let mut rendered = self.turns(conversation, given)?;
        if let Some(opened) = opened {
            let before = self.prompt(opened)?.text;
            self.check_prefix(&before, &rendered.text, || {
                "up to where the assistant's turn is left open".into()
            })?;
            rendered.spans.retain(|span| !span.counts || span.range.end > before.len());
            if let Some(first) = rendered.spans.iter_mut().find(|span| span.counts) {
                first.range.start = first.range.start.max(before.len());
            }
        }
        Ok(rendered)
    }

    /// What ends the assistant's turn, if the template tells.
    pub(super) fn turn_end(&self) -> Option<String> {
        const ANSWER: &str = "Yes.";
        let messages = vec![message("user", "Is it?".into()), message("assistant", ANSWER.into())];
        let conversation = Conversation { messages, variables: BTreeMap::new() };
        let rendered = self.turns(&conversation, 1).ok()?;
        let written = &rendered.text[rendered.spans.last()?.range.clone()];
        let (_, end) = written.rsplit_once(ANSWER)?;
        Some(end.trim().to_owned()).filter(|end| !end.is_empty())
    }

    /// What each assistant's message from `given` on adds to the text of those before it.
    fn spans_by_prefix(
        &self,
        conversation: &Conversation,
        given: usize,
        text: &str,
    ) -> Result<Vec<Span>, Error> {
        let mut spans = Vec::new();
        for (i, message) in conversation.messages.iter().enumerate().skip(given) {
            if !is_assistant(message) {
                continue;
            }
            let before = self.render(&conversation.up_to(i), true)?.text;
            let after = self.render(&conversation.up_to(i + 1), false)?.text;
            self.check_prefix(&before, &after, || format!("up to message {} with the generation prompt", i))?;
            self.check_prefix(&after, text, || format!("up to message {}", i + 1))?;
            let mut range = before.len()..after.len();
            // Nothing is ever generated behind the end token.
            if let Some(eos) = self.tokens.get("eos_token")
                && let Some(at) = after[range.clone()].rfind(eos.as_str())
            {
                range.end = range.start + at + eos.len();
            }
            spans.push(Span { range, counts: true });
        }
        Ok(spans)
    }

    fn check_prefix(&self, short: &str, long: &str, what: impl Fn() -> String) -> Result<(), Error> {
        if long.starts_with(short) {
            return Ok(());
        }
        let common = short.chars().zip(long.chars()).take_while(|(a, b)| a == b).count();
        let rest =
            |text: &str| text.chars().skip(common).take(24).collect::<String>().escape_debug().to_string();
        let (template, what, here, there) = (&self.name, what(), rest(short), rest(long));
        Err(fault!(
            "the chat template `{template}` does not say what the model writes: rendered {what}, the text is no \
             beginning of the text with what follows; they part at \"{here}\" and \"{there}\""
        )
        .with_hint(
            "use a template with `{% generation %}` marks around what the model writes, or set `template` to \"tulu\" or \"chatml\"",
        ))
    }

    fn failed(&self, error: &minijinja::Error) -> Error {
        fault!("the chat template `{}` fails: {}", self.name, told(error))
    }
}

/// The messages of a field, as `transformers` hands them to templates: without the fields that are null, and with the
/// reasoning under each name that templates know it by.
pub(super) fn messages(row: &Row, field: &str) -> Result<Vec<Value>, Error> {
    let wrong = |why: String| {
        fault!("`{field}` is no list of messages: {why}")
            .with_hint("a message is an object with `role` and `content`, or with `from` (human, gpt, system or tool) and `value`")
    };
    let mut messages: Vec<Value> = ordered(row, field).try_iter().into_iter().flatten().collect();
    for (i, message) in messages.iter_mut().enumerate() {
        if let Some(renamed) = of_sharegpt(message) {
            *message = renamed.map_err(|from| wrong(format!("message {} is from `{from}`", i + 1)))?;
        }
        if message.kind() != ValueKind::Map {
            return Err(wrong(format!("item {} is {}, not an object", i + 1, message.kind())));
        }
        if message.get_attr("role").ok().and_then(|role| role.as_str().map(drop)).is_none() {
            return Err(wrong(format!("message {} has no `role`", i + 1)));
        }
    }
    Ok(messages.iter().map(normalized).collect())
}

/// A message as ShareGPT has it, with `from` and `value`, under the names that templates know; `None` of any other. An
/// error is who it is from, where that is nobody known.
fn of_sharegpt(message: &Value) -> Option<Result<Value, String>> {
    let get = |name: &str| message.get_attr(name).ok().filter(|value| !value.is_undefined());
    let (None, Some(from), Some(value)) = (get("role"), get("from"), get("value")) else { return None };
    let role = match from.as_str() {
        Some("human" | "user") => "user",
        Some("gpt" | "chatgpt" | "assistant") => "assistant",
        Some("system") => "system",
        Some("tool" | "observation" | "function_response") => "tool",
        _ => return Some(Err(from.to_string())),
    };
    let rest = message
        .try_iter()
        .into_iter()
        .flatten()
        .filter(|name| !matches!(name.as_str(), Some("from" | "value")));
    let rest = rest.map(|name| (name.clone(), message.get_item(&name).unwrap_or_default()));
    let fields =
        [(Value::from("role"), Value::from(role)), (Value::from("content"), value)].into_iter().chain(rest);
    Some(Ok(Value::from_pairs(fields)))
}

fn normalized(message: &Value) -> Value {
    let mut fields: Vec<(Value, Value)> = Vec::new();
    for key in message.try_iter().into_iter().flatten() {
        let value = message.get_item(&key).unwrap_or_default();
        if !value.is_none() {
            fields.push((key, value));
        }
    }
    let get = |name: &str| fields.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value);
    if let Some(reasoning) = REASONING.into_iter().find_map(get).cloned() {
        if get("thinking").is_none() {
            fields.insert(0, ("thinking".into(), reasoning.clone()));
        }
        fields.retain(|(key, _)| key.as_str() != Some("reasoning_content"));
        fields.push(("reasoning_content".into(), reasoning));
    }
    Value::from_pairs(fields)
}

/// A message with another text.
pub(super) fn with_content(message: &Value, content: String) -> Value {
    let fields = message.try_iter().into_iter().flatten().map(|name| {
        let value = if name.as_str() == Some("content") {
            Value::from(content.as_str())
        } else {
            message.get_item(&name).unwrap_or_default()
        };
        (name, value)
    });
    Value::from_pairs(fields)
}

/// A message of text.
pub(super) fn message(role: &str, content: String) -> Value {
    Value::from_pairs([("role", role.to_owned()), ("content", content)])
}

pub(super) fn is_assistant(message: &Value) -> bool {
    role(message) == "assistant"
}

fn role(message: &Value) -> String {
    message.get_attr("role").unwrap_or_default().to_string()
}

/// The value of a field with the order of keys that it was written in.
fn ordered(row: &Row, field: &str) -> Value {
    // Of the other fields, of which some may not have been read, nothing is looked at.
    let json = row.spelling(field);
    json.map(|json| serde_json::from_str(&json).expect("it was read as JSON before")).unwrap_or_default()
}

/// The environment that `transformers` renders in.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the delimiters are the usual ones"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(|state, value, method, args| {
        python::method(value, method, args).unwrap_or_else(|| {
            minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
        })
    });
    environment.add_filter("trim", |value: &Value, chars: Option<String>| {
        let text = python::str(value);
        match chars {
            Some(chars) => text.trim_matches(|c| chars.contains(c)).to_owned(),
            None => python::strip(&text, true, true).to_owned(),
        }
    });
    environment.set_formatter(|out, _, value| Ok(out.write_str(&python::str(value))?));
    environment.add_filter("tojson", python::tojson);
    environment.add_filter("string", |value: &Value| python::str(value));
    // In Python, text and mappings are sequences of a kind too, and so is what is not there.
    let is_sequence = |value: &Value| {
        matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Undefined)
    };
    environment.add_test("sequence", is_sequence);
    environment
        .add_test("iterable", move |value: &Value| is_sequence(value) || value.kind() == ValueKind::Iterable);
    environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: String| {
        python::fixed_day(&format).ok_or_else(|| {
            let message = format!("strftime_now(\"{format}\") asks for more than a date");
            minijinja::Error::new(ErrorKind::InvalidOperation, message)
        })
    });
    environment
}

/// The source with its generation marks rewritten to what prints [`BEGIN`] and [`END`], and whether it has any. The
/// dashes of a mark stay where they are, each on the outer side, and the body stays a scope of its own.
fn mark(source: &str) -> (String, bool) {
    let marks = Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("a good expression");
    let mut has_marks = false;
    let marked = marks.replace_all(source, |found: &regex::Captures| {
        has_marks = true;
        let (before, after) = (&found[1], &found[3]);
        if found.get(2).is_none() {
            format!("{{%{before} with %}}{{{{ '{BEGIN}' }}}}{{% if true {after}%}}")
        } else {
            format!("{{%{before} endif %}}{{{{ '{END}' }}}}{{% endwith {after}%}}")
        }
    });
    (marked.into_owned(), has_marks)
}

/// Takes the marks out of a rendered text.
fn split(marked: &str) -> Rendered {
    let mut rendered = Rendered { text: String::with_capacity(marked.len()), spans: Vec::new() };
    let mut begin = None;
    for c in marked.chars() {
        match c {
            BEGIN => begin = begin.or(Some(rendered.text.len())),
            END => {
                let end = rendered.text.len();
                match (begin.take(), rendered.spans.last_mut()) {
                    (Some(begin), Some(last)) if last.range.end == begin => last.range.end = end,
                    (Some(begin), _) if begin < end => {
                        rendered.spans.push(Span { range: begin..end, counts: true });
                    }
                    _ => {}
                }
            }
            c => rendered.text.push(c),
        }
    }
    rendered
}

fn has_character(messages: &[Value], variables: &BTreeMap<String, Value>, character: char) -> bool {
    let json = serde_json::to_string(&(messages, variables)).expect("it came from JSON");
    json.contains(character)
}

/// What the renderer says, without the name of the template, which it does not know.
fn told(error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{what} (line {line})"),
        None => what,
    }
}
