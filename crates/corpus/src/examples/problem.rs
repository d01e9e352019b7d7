//! What can be wrong with a row.

use crate::error::{BadRecord, list, nearest};

/// What is wrong with one row of examples; [`Error::Row`](crate::Error::Row) says where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowProblem {
    /// The row cannot be read.
    #[error(transparent)]
    Record(#[from] BadRecord),
    /// A `.json` file that holds something else.
    #[error("the file is no JSON array")]
    NotAnArray,
    /// There is nothing to learn.
    #[error("the {part} is empty")]
    Empty {
        /// Which part: `completion`, `chosen`, `rejected` or `prompt`.
        part: &'static str,
    },
    /// Nothing is left to predict.
    #[error("nothing in it is trained on: it comes to {tokens} tokens, of which none is predicted")]
    NothingPredicted {
        /// Tokens of the sequence.
        tokens: usize,
    },
    /// The prompt alone fills the window.
    #[error("the prompt has {tokens} tokens and leaves no room for a completion in {limit}")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that a sequence may have.
        limit: usize,
    },
    /// The sequence is longer than the window.
    #[error("the sequence has {tokens} tokens, more than the {limit} that a window holds")]
    TooLong {
        /// Tokens of the sequence.
        tokens: usize,
        /// Tokens that a sequence may have.
        limit: usize,
    },
    /// A conversation needs a chat template.
    #[error("the row is a conversation, and there is no chat template{}", .own.as_ref().map(|why| format!(": the tokenizer's own cannot be used ({why})")).unwrap_or_default())]
    NoTemplate {
        /// Why the tokenizer's own cannot be used, where it has one.
        own: Option<String>,
    },
    /// Something in a conversation is not a message.
    #[error("{place} is no list of messages: {why}")]
    NotMessages {
        /// Which field.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// No message of a conversation is the model's.
    #[error("no message of the conversation is the assistant's; the roles are {}", list(roles))]
    NoAssistant {
        /// The roles that there are.
        roles: Vec<String>,
    },
    /// The chat template refuses the conversation or fails on it.
    #[error("the chat template `{template}` fails: {message}")]
    Render {
        /// The template.
        template: String,
        /// What it, or the renderer, said.
        message: String,
    },
    /// A template without generation marks changes what came before when a message is added.
    #[error(
        "the chat template `{template}` does not say what the model writes: rendered {what}, the text is no \
         beginning of the text with what follows; they part at \"{here}\" and \"{there}\""
    )]
    NotAPrefix {
        /// The template.
        template: String,
        /// What was rendered, with a message number.
        what: String,
        /// How the shorter goes on where they part.
        here: String,
        /// How the longer does.
        there: String,
    },
    /// The text has a character that marks the model's parts of a rendered conversation.
    #[error("the text has the character U+{code:X}, which stands for no text")]
    ReservedCharacter {
        /// The character.
        code: u32,
    },
    /// Both completions of a preference are the same.
    #[error("`chosen` and `rejected` are the same")]
    NoPreference,
    /// No field has the right answer.
    #[error("no answer: none of the fields {}; the record has {}", list(wanted), list(available))]
    NoAnswer {
        /// The fields looked for.
        wanted: Vec<String>,
        /// The fields that there are.
        available: Vec<String>,
    },
}

impl RowProblem {
    /// What to do about it, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            RowProblem::Record(BadRecord::MissingField { field, available }) => {
                Some(match nearest(field, available) {
                    Some(near) => format!("did you mean `{near}`? Name it in braces, as in \"{{{near}}}\""),
                    None => "put the fields that there are together, as in prompt = \"{question}\\n\", or set `messages` to the one \
                             with the conversation"
                        .into(),
                })
            }
            RowProblem::Record(BadRecord::NotAString { .. }) => {
                Some("name a field of text; a name with dots leads into an object, as in \"{a.b}\"".into())
            }
            RowProblem::Record(_) => Some("repair the record".into()),
            RowProblem::NotAnArray => {
                Some("a `.json` file is one array of objects; name one object a line `.jsonl`".into())
            }
            RowProblem::Empty { .. } => Some("repair or remove the record".into()),
            RowProblem::PromptTooLong { .. } | RowProblem::TooLong { .. } => {
                Some("choose a longer window, or leave such rows out with too_long = \"drop\"".into())
            }
            RowProblem::NoTemplate { .. } => {
                Some("set `template` to \"tulu\", which any tokenizer can write, \"chatml\" or a file".into())
            }
            RowProblem::NotMessages { .. } => {
                Some("a message is an object with `role` and `content`".into())
            }
            RowProblem::NoAssistant { .. } => {
                Some("training needs a message with the role `assistant`; repair or remove the record".into())
            }
            RowProblem::NotAPrefix { .. } => Some(
                "use a template with `{% generation %}` marks around what the model writes, or set `template` to \"tulu\" or \"chatml\""
                    .into(),
            ),
            RowProblem::NoPreference | RowProblem::NothingPredicted { .. } => {
                Some("repair or remove the record".into())
            }
            RowProblem::NoAnswer { .. } => Some("set `answer` to the field with the right answer".into()),
            RowProblem::Render { .. } | RowProblem::ReservedCharacter { .. } => None,
        }
    }
}
