//! Rows to what post-training learns from: token sequences with a mask of what the model is to write.
//!
//! [`Rows`] reads the files, an [`Encoder`] makes each row an [`Example`], two of them (a preference), or a prompt to
//! complete, and [`Packed`] fits examples into windows.
//!
//! **Boundaries.** A prompt and its completion, and the turns of a conversation, have the ids of the whole text. Only where
//! a token would reach across the boundary between what is given and what is written are the two encoded apart: generation
//! begins behind the ids of the prompt by itself, and never meets such a token. See [`Tokenizer::encode_parts`].
//!
//! **Plain text** (a prompt and a completion) begins with what the tokenizer's post-processor puts in front of a text,
//! or what `bos` says ([`Tokenizer::prefix`]), and ends with the end token, which counts in the loss. A text that spells
//! either out itself gets no second one.
//!
//! **Conversations** (`messages`, or a prompt or completion that is a list of messages) go through a [`ChatTemplate`],
//! which alone decides: nothing is added to what it renders.

mod pack;
mod parquet;
mod python;
mod rows;
mod template;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;
use remit_fault::fault;
use serde::{Deserialize, Serialize};

use crate::error::{BadRecord, list};
use crate::read::jsonl::kind;
use crate::read::template::Template;
use crate::{Bos, Error, Tokenizer};

pub use pack::{PackSummary, Packed};
pub use rows::{Counted, Place, Row, Rows};
pub use template::{ChatTemplate, Conversation, Rendered, Span};

/// Rows encoded at once: enough to share among all cores.
const CHUNK_ROWS: usize = 1024;

/// Where rows have the right answer when nothing is said: as TRL, open-instruct, verl and GSM8K name it.
const USUAL_ANSWERS: [&str; 4] = ["solution", "ground_truth", "reward_model.ground_truth", "answer"];

/// Where rows of ShareGPT have their messages, which are looked for there where rows have none under the usual name.
const SHAREGPT: &str = "conversations";
/// What conversations have beside their messages.
const USUAL_COLUMNS: [&str; 3] = ["tools", "documents", "chat_template_kwargs"];

/// How files become examples.
///
/// `prompt`, `completion`, `chosen` and `rejected` are templates: `{field}` and `{a.b}` stand for the text of fields,
/// as in `"Question: {question}\nAnswer:"`, and a name without braces is that field. Where one is a single field and
/// the field holds a list of messages, the row is a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Examples {
    /// Files, directories or patterns with `*`: `.jsonl`, `.json` (one array), `.parquet`.
    pub files: Vec<PathBuf>,
    /// What the model is given.
    pub prompt: String,
    /// What it is to write.
    pub completion: String,
    /// The completion to prefer, or the whole conversation with it.
    pub chosen: String,
    /// The completion to avoid, or the whole conversation with it.
    pub rejected: String,
    /// The field with a whole conversation. A row that has it is one, unless `prompt` is set.
    pub messages: String,
    /// The right answer of a prompt. Unless set, the first of `solution`, `ground_truth`,
    /// `reward_model.ground_truth` and `answer` that the row has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// `chatml`, `tulu`, `own` (the one that comes with the tokenizer) or the path of a Jinja file. With one, plain
    /// prompts and completions become messages of a user and an assistant. Unless set, they stay as they are, and
    /// conversations use the tokenizer's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// What plain prompts begin with: `own`, what the tokenizer's post-processor puts in front of a text; `none`; or a
    /// token. Of conversations the template alone says what they begin with.
    pub bos: Bos,
    /// What happens to a row that is longer than a window.
    pub too_long: TooLong,
}

/// What happens to a row that is longer than a window. None is ever cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TooLong {
    /// It is an error.
    #[default]
    Error,
    /// It is left out and counted.
    Drop,
}

impl Default for Examples {
    fn default() -> Examples {
        Examples {
            files: Vec::new(),
            prompt: "{prompt}".into(),
            completion: "{completion}".into(),
            chosen: "{chosen}".into(),
            rejected: "{rejected}".into(),
            messages: "messages".into(),
            answer: None,
            template: None,
            bos: Bos::default(),
            too_long: TooLong::default(),
        }
    }
}

/// One sequence to learn from: `n` tokens and so `n - 1` predictions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// `[n]`: token ids.
    pub tokens: Vec<u32>,
    /// `[n - 1]`: true where a prediction counts, by prediction as in [`remit_batch::Window`]: `mask[t]` is about
    /// token `t + 1`.
    pub mask: Vec<bool>,
}

impl Example {
    /// Tokens in front of the first that counts: the prompt.
    pub fn num_prompt_tokens(&self) -> usize {
        1 + self.mask.iter().position(|&counts| counts).unwrap_or(self.mask.len())
    }

    /// Predictions that count.
    pub fn num_completion_tokens(&self) -> usize {
        self.mask.iter().filter(|&&counts| counts).count()
    }
}

/// Preferences, in the order of their rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// Chosen and rejected.
    pub pairs: Vec<[Example; 2]>,
    /// Rows left out because one of the two is too long.
    pub num_dropped: u64,
}

/// Makes rows examples.
#[derive(Debug)]
pub struct Encoder {
    tokenizer: Arc<Tokenizer>,
    /// What plain prompts begin with.
    prefix: Vec<u32>,
    prompt: Template,
    completion: Template,
    chosen: Template,
    rejected: Template,
    messages: String,
    answer: Option<Template>,
    /// `prompt` was set, so it goes before `messages`.
    prompt_is_set: bool,
    template: Option<ChatTemplate>,
    /// `template` was set, so plain text goes through it as well.
    template_is_set: bool,
    /// Why the tokenizer's own template cannot be used, which matters once a conversation comes.
    own_problem: Option<String>,
    too_long: TooLong,
}

/// One side of a row: a prompt or a completion.
enum Side {
    Text(String),
    Messages(Vec<minijinja::Value>),
}

/// A row on its way to an example.
enum Draft {
    Plain {
        prompt: String,
        completion: String,
    },
    /// The model writes what the assistant says, from message `given` on.
    Chat {
        conversation: Conversation,
        given: usize,
        /// What is given of the first message that it writes, and what stands before: a conversation that ends within it.
        opened: Option<Conversation>,
    },
}

impl Encoder {
    /// An encoder for rows as `settings` describe them.
    ///
    /// # Errors
    /// When a template in `settings` cannot be parsed, when the chat template is missing or malformed, or when it
    /// needs tokens that the tokenizer lacks.
    pub fn new(settings: &Examples, tokenizer: Arc<Tokenizer>) -> Result<Encoder, Error> {
        // Named one by one so that a new setting is not forgotten.
        let Examples { files: _, prompt, completion, chosen, rejected, messages, answer, .. } = settings;
        let Examples { template, bos, too_long, .. } = settings;
        let (mut own_problem, mut chat) = (None, None);
        match template {
            Some(name) => chat = Some(ChatTemplate::named(name, &tokenizer)?),
            None if tokenizer.chat_template().is_some() => match ChatTemplate::own(&tokenizer) {
                Ok(own) => chat = Some(own),
                Err(error) => own_problem = Some(error.to_string()),
            },
            None => {}
        }
        Ok(Encoder {
            prefix: tokenizer.prefix(bos)?,
            tokenizer,
            prompt: Template::parse_as("prompt", prompt)?,
            completion: Template::parse_as("completion", completion)?,
            chosen: Template::parse_as("chosen", chosen)?,
            rejected: Template::parse_as("rejected", rejected)?,
            messages: messages.clone(),
            answer: answer.as_ref().map(|answer| Template::parse_as("answer", answer)).transpose()?,
            prompt_is_set: *prompt != Examples::default().prompt,
            template: chat,
            template_is_set: template.is_some(),
            own_problem,
            too_long: *too_long,
        })
    }

    /// The fields of a row that are looked at. The first part of a name with dots may be the field.
    pub fn fields(&self) -> BTreeSet<String> {
        let templates =
            [&self.prompt, &self.completion, &self.chosen, &self.rejected].into_iter().chain(&self.answer);
        let names = templates.flat_map(Template::fields).chain(USUAL_ANSWERS).chain([self.messages.as_str()]);
        let names: BTreeSet<&str> = names.chain(USUAL_COLUMNS).chain([SHAREGPT]).collect();
        names
            .iter()
            .flat_map(|name| [*name, name.split('.').next().unwrap_or(name)])
            .map(str::to_owned)
            .collect()
    }

    /// What a row teaches: its completion, or all that the assistant says in its conversation.
    ///
    /// # Errors
    /// With file and line, when fields are missing, nothing is to be learnt or the chat template refuses the row.
    pub fn example(&self, row: &Row) -> Result<Example, Error> {
        let draft = match self.whole_conversation(row)? {
            Some(conversation) => Draft::Chat { conversation, given: 0, opened: None },
            None => self.draft(row, &self.completion, "completion")?,
        };
        self.encode(row, &draft)
    }

    /// The chosen and the rejected sequence of a row. Of conversations, what the two have in common in front counts
    /// as the prompt.
    ///
    /// # Errors
    /// As [`example`](Self::example), and when both are the same.
    pub fn preference(&self, row: &Row) -> Result<[Example; 2], Error> {
        let mut drafts =
            [self.draft(row, &self.chosen, "chosen")?, self.draft(row, &self.rejected, "rejected")?];
        if let [
            Draft::Chat { conversation: a, given: of_a, opened: None },
            Draft::Chat { conversation: b, given: of_b, opened: None },
        ] = &mut drafts
        {
            let common = a.messages.iter().zip(&b.messages).take_while(|(a, b)| a == b).count();
            // Each keeps a message to learn from, even where one conversation is the beginning of the other.
            (*of_a, *of_b) = (common.min(a.messages.len() - 1), common.min(b.messages.len() - 1));
        }
        let pair = [self.encode(row, &drafts[0])?, self.encode(row, &drafts[1])?];
        if pair[0] == pair[1] {
            return Err(row.error(fault!("`chosen` and `rejected` are the same").with_hint(REPAIR_OR_REMOVE)));
        }
        Ok(pair)
    }

    /// What the model is given to complete: the prompt, or the conversation up to where the assistant answers last.
    ///
    /// # Errors
    /// As [`example`](Self::example).
    pub fn prompt(&self, row: &Row) -> Result<Vec<u32>, Error> {
        let side = match self.whole_conversation(row)? {
            Some(Conversation { mut messages, .. }) => {
                while messages.last().is_some_and(template::is_assistant) {
                    messages.pop();
                }
                Side::Messages(messages)
            }
            None => self.side(row, &self.prompt)?,
        };
        let messages = match side {
            Side::Text(text) if text.is_empty() => {
                return Err(row.error(empty("prompt")));
            }
            Side::Text(text) if !self.template_is_set => {
                return self.tokenizer.encode_document(&self.prefix, &text);
            }
            Side::Text(text) => vec![template::message("user", text)],
            Side::Messages(messages) if messages.is_empty() => {
                return Err(row.error(empty("prompt")));
            }
            Side::Messages(messages) => messages,
        };
        let conversation = Conversation::with_messages(row, messages);
        let rendered = self.chat(row)?.prompt(&conversation).map_err(|error| row.error(error))?;
        Ok(self.encode_parts(&rendered)?.0)
    }

    /// The right answer of a row, for a verifier.
    ///
    /// # Errors
    /// With file and line, when there is none or it is neither text nor a number.
    pub fn answer(&self, row: &Row) -> Result<String, Error> {
        if let Some(template) = &self.answer {
            return fill(row, template);
        }
        usual_answer(row)
    }

    /// All rows as examples in windows of `length` predictions.
    ///
    /// # Errors
    /// Those of the rows and of [`example`](Self::example); when a row is longer than a window and too long rows are
    /// not dropped; when there is none.
    pub fn pack(&self, rows: Rows, length: usize) -> Result<Packed, Error> {
        let mut packed = Packed::begin(length, self.pad())?;
        let encode = |row: &Row| {
            let example = self.example(row)?;
            Ok(self.fits(row, &example, length)?.then_some(example))
        };
        let num_dropped = encode_all(rows.only(self.fields()), encode, |example| packed.push(&example))?;
        packed.finish(num_dropped)
    }

    /// All rows as preferences, none of their sequences longer than a window of `length` predictions.
    ///
    /// # Errors
    /// As [`pack`](Self::pack).
    pub fn pairs(&self, rows: Rows, length: usize) -> Result<Pairs, Error> {
        let mut pairs = Vec::new();
        let encode = |row: &Row| {
            let pair = self.preference(row)?;
            let fits = self.fits(row, &pair[0], length)? && self.fits(row, &pair[1], length)?;
            Ok(fits.then_some(pair))
        };
        let num_dropped = encode_all(rows.only(self.fields()), encode, |pair| pairs.push(pair))?;
        if pairs.is_empty() {
            return Err(pack::no_examples(num_dropped, length));
        }
        Ok(Pairs { pairs, num_dropped })
    }

    /// The tokens that end what the model writes: the end token, and what ends a turn in the chat template.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn stop_tokens(&self) -> Result<Vec<u32>, Error> {
        let mut stops: Vec<u32> = self.tokenizer.eos().into_iter().collect();
        if let Some(turn_end) = self.template.as_ref().and_then(ChatTemplate::turn_end) {
            let ids = self.tokenizer.encode_behind(&turn_end)?;
            stops.extend(ids.first().filter(|id| ids.len() == 1 && !stops.contains(id)));
        }
        Ok(stops)
    }

    /// What windows are filled up with: the end token, or 0.
    pub fn pad(&self) -> u32 {
        self.tokenizer.eos().unwrap_or(0)
    }

    /// The chat template, if there is one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// What plain prompts begin with.
    pub fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The conversation of a row that is one as a whole.
    fn whole_conversation(&self, row: &Row) -> Result<Option<Conversation>, Error> {
        let is_list = |field: &&str| row.get(field).is_some_and(|value| value.is_array());
        let other = Some(SHAREGPT).filter(|_| self.messages == Examples::default().messages);
        match [Some(self.messages.as_str()), other].into_iter().flatten().find(is_list) {
            Some(field) if !self.prompt_is_set => Conversation::of_row(row, field).map(Some),
            _ => Ok(None),
        }
    }

    /// The prompt of a row with a completion: one of `completion`, `chosen` and `rejected`, as `part` says.
    fn draft(&self, row: &Row, completion: &Template, part: &'static str) -> Result<Draft, Error> {
        let completion = self.side(row, completion)?;
        if matches!(&completion, Side::Text(text) if text.is_empty())
            || matches!(&completion, Side::Messages(messages) if messages.is_empty())
        {
            return Err(row.error(empty(part)));
        }
        let chat = |messages, given| {
            let conversation = Conversation::with_messages(row, messages);
            Ok(Draft::Chat { conversation, given, opened: None })
        };
        let prompt = match self.side(row, &self.prompt) {
            // A conversation that the assistant does not begin has its prompt in itself.
            Err(error) => match completion {
                Side::Messages(messages) if !template::is_assistant(&messages[0]) => {
                    return chat(messages, 0);
                }
                _ => return Err(error),
            },
            Ok(prompt) => prompt,
        };
        match (prompt, completion) {
            (Side::Text(prompt), Side::Text(completion)) if !self.template_is_set => {
                Ok(Draft::Plain { prompt, completion })
            }
            (Side::Text(prompt), Side::Text(completion)) => {
                chat(vec![template::message("user", prompt), template::message("assistant", completion)], 1)
            }
            (Side::Text(prompt), Side::Messages(mut messages)) if template::is_assistant(&messages[0]) => {
                messages.insert(0, template::message("user", prompt));
                chat(messages, 1)
            }
            (Side::Text(_), Side::Messages(messages)) => chat(messages, 0),
            (Side::Messages(prompt), completion) => {
                let messages = match completion {
                    Side::Text(completion) => vec![template::message("assistant", completion)],
                    Side::Messages(messages) => messages,
                };
                let given = prompt.len();
                // An assistant's turn that the prompt leaves open goes on in the completion.
                let both_are_assistants = prompt.last().is_some_and(template::is_assistant)
                    && template::is_assistant(&messages[0])
                    && !messages.starts_with(&prompt);
                if both_are_assistants {
                    return self.continued(row, prompt, messages);
                }
                if messages.len() > given && messages.starts_with(&prompt) {
                    chat(messages, given)
                } else {
                    chat([prompt, messages].concat(), given)
                }
            }
        }
    }

    /// A prompt whose last turn the first message of the completion goes on with.
    fn continued(
        &self,
        row: &Row,
        mut prompt: Vec<minijinja::Value>,
        completion: Vec<minijinja::Value>,
    ) -> Result<Draft, Error> {
        let text = |message: &minijinja::Value| {
            let content = message.get_attr("content").unwrap_or_default();
            content.as_str().map(str::to_owned).ok_or_else(|| {
                row.error(
                    fault!("the prompt ends in the assistant's turn, and one of its two parts is no text")
                        .with_hint(REPAIR_OR_REMOVE),
                )
            })
        };
        let opened = Conversation::with_messages(row, prompt.clone());
        let last = prompt.pop().expect("a prompt that ends in a turn");
        let given = prompt.len();
        let whole = text(&last)? + &text(&completion[0])?;
        prompt.push(template::with_content(&last, whole));
        prompt.extend(completion.into_iter().skip(1));
        let conversation = Conversation::with_messages(row, prompt);
        Ok(Draft::Chat { conversation, given, opened: Some(opened) })
    }

    /// The text of a template, or the messages where it is one field that holds a list.
    fn side(&self, row: &Row, template: &Template) -> Result<Side, Error> {
        if let Some(field) = template.single_field()
            && row.get(field).is_some_and(|value| value.is_array())
        {
            let messages = template::messages(row, field).map_err(|error| row.error(error))?;
            return Ok(Side::Messages(messages));
        }
        Ok(Side::Text(fill(row, template)?))
    }

    fn encode(&self, row: &Row, draft: &Draft) -> Result<Example, Error> {
        let (tokens, is_written) = match draft {
            Draft::Plain { prompt, completion } => {
                let (mut tokens, ends) =
                    self.tokenizer.encode_document_parts(&self.prefix, &[prompt, completion])?;
                let num_given = ends[0];
                if let Some(eos) = self.tokenizer.eos().filter(|eos| tokens.last() != Some(eos)) {
                    tokens.push(eos);
                }
                let is_written = (0..tokens.len()).map(|i| i >= num_given).collect();
                (tokens, is_written)
            }
            Draft::Chat { conversation, given, opened } => {
                let turns = self.chat(row)?.turns_from(conversation, *given, opened.as_ref());
                self.encode_parts(&turns.map_err(|error| row.error(error))?)?
            }
        };
        // Nothing predicts the first token.
        let mask: Vec<bool> = is_written.into_iter().skip(1).collect();
        if !mask.contains(&true) {
            let tokens = tokens.len();
            let error = fault!(
                "nothing in it is trained on: it comes to {tokens} tokens, of which none is predicted"
            );
            return Err(row.error(error.with_hint(REPAIR_OR_REMOVE)));
        }
        Ok(Example { tokens, mask })
    }

    /// The ids of a rendered conversation, and which of them the model writes.
    fn encode_parts(&self, rendered: &Rendered) -> Result<(Vec<u32>, Vec<bool>), Error> {
        let parts = rendered.parts();
        let texts: Vec<&str> = parts.iter().map(|(text, _)| *text).collect();
        let (tokens, ends) = self.tokenizer.encode_parts(&texts)?;
        let mut is_written = Vec::with_capacity(tokens.len());
        for ((_, written), end) in parts.iter().zip(ends) {
            is_written.resize(end, *written);
        }
        Ok((tokens, is_written))
    }

    fn chat(&self, row: &Row) -> Result<&ChatTemplate, Error> {
        self.template.as_ref().ok_or_else(|| {
            let own = match &self.own_problem {
                Some(why) => format!(": the tokenizer's own cannot be used ({why})"),
                None => String::new(),
            };
            let error = fault!("the row is a conversation, and there is no chat template{own}");
            row.error(
                error.with_hint(
                    "set `template` to \"tulu\", which any tokenizer can write, \"chatml\" or a file",
                ),
            )
        })
    }

    /// Whether an example fits a window of `length` predictions; an error where too long ones are not dropped.
    fn fits(&self, row: &Row, example: &Example, length: usize) -> Result<bool, Error> {
        let (tokens, limit) = (example.tokens.len(), length + 1);
        if tokens <= limit {
            return Ok(true);
        }
        let num_prompt = example.num_prompt_tokens();
        let error = match self.too_long {
            TooLong::Drop => return Ok(false),
            TooLong::Error if num_prompt >= limit => {
                fault!("the prompt has {num_prompt} tokens and leaves no room for a completion in {limit}")
            }
            TooLong::Error => {
                fault!("the sequence has {tokens} tokens, more than the {limit} that a window holds")
            }
        };
        Err(row.error(
            error.with_hint("choose a longer window, or leave such rows out with too_long = \"drop\""),
        ))
    }
}

/// Encodes all rows, on all cores, and takes the results in their order; the number of rows that gave none.
fn encode_all<T: Send>(
    mut rows: Rows,
    encode: impl Fn(&Row) -> Result<Option<T>, Error> + Sync,
    mut take: impl FnMut(T),
) -> Result<u64, Error> {
    let mut num_dropped = 0;
    loop {
        let chunk: Vec<Row> = rows.by_ref().take(CHUNK_ROWS).collect::<Result<_, _>>()?;
        if chunk.is_empty() {
            return Ok(num_dropped);
        }
        // All results before any error, so that it is always the first one that is told.
        let encoded: Vec<Result<Option<T>, Error>> = chunk.par_iter().map(&encode).collect();
        for example in encoded {
            match example? {
                Some(example) => take(example),
                None => num_dropped += 1,
            }
        }
    }
}

fn fill(row: &Row, template: &Template) -> Result<String, Error> {
    template.fill(|field| text_of(row, field))
}

/// The right answer of a row that says it where rows usually do.
///
/// # Errors
/// With file and line, when there is none or it is neither text nor a number.
pub fn usual_answer(row: &Row) -> Result<String, Error> {
    match USUAL_ANSWERS.into_iter().find(|field| row.get(field).is_some_and(|value| !value.is_null())) {
        Some(field) => Ok(text_of(row, field)?.into_owned()),
        None => {
            let (wanted, available) = (list(&USUAL_ANSWERS), list(&row.names()));
            let error = fault!("no answer: none of the fields {wanted}; the record has {available}");
            Err(row.error(error.with_hint("set `answer` to the field with the right answer")))
        }
    }
}

/// The text of a field; a number is spelt as in the file.
///
/// # Errors
/// With file and line, when there is no such field or it is neither text nor a number.
pub fn text_of<'a>(row: &'a Row, field: &str) -> Result<Cow<'a, str>, Error> {
    use serde_json::Value;
    match row.get(field) {
        Some(Value::String(text)) => Ok(Cow::Borrowed(text)),
        Some(Value::Number(number)) => {
            Ok(Cow::Owned(row.spelling(field).unwrap_or_else(|| number.to_string())))
        }
        Some(other) => {
            Err(row.error(BadRecord::NotAString { field: field.to_owned(), found: kind(other) }.in_row()))
        }
        None => {
            let (field, available) = (field.to_owned(), row.names());
            Err(row.error(BadRecord::MissingField { field, available }.in_row()))
        }
    }
}

/// What to do about a row that teaches nothing.
const REPAIR_OR_REMOVE: &str = "repair or remove the record";

/// There is nothing to learn: `part` is `completion`, `chosen`, `rejected` or `prompt`.
fn empty(part: &str) -> Error {
    fault!("the {part} is empty").with_hint(REPAIR_OR_REMOVE)
}
