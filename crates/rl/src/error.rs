//! What can go wrong between prompts and a policy.

use remit_corpus::examples::Place;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Of verifiers.
    #[error(transparent)]
    Judge(#[from] remit_judge::Error),
    /// Of training.
    #[error(transparent)]
    Train(#[from] remit_train::Error),
    /// Of the engine.
    #[error(transparent)]
    Engine(#[from] remit_engine::Error),
    /// Of the crates below.
    #[error(transparent)]
    Fault(#[from] remit_store::Error),
    /// No row to ask.
    #[error("there is no prompt{}", if *.dropped == 0 { String::new() } else { format!(": all {dropped} are too long") })]
    NoPrompts {
        /// Rows left out.
        dropped: u64,
    },
    /// A verifier that nobody has heard of.
    #[error("{}there is no verifier `{name}`", .place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default())]
    UnknownVerifier {
        /// The row that names it, or else the settings do.
        place: Option<Box<Place>>,
        /// Its name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// A row that does not say how it is judged.
    #[error("{place}: the row names no verifier")]
    NoVerifier {
        /// The row.
        place: Box<Place>,
    },
    /// A prompt that leaves no room for its completion.
    #[error(
        "{place}: the prompt has {tokens} tokens, and with {longest} for a completion the model has room for {room}"
    )]
    PromptTooLong {
        /// The row.
        place: Box<Place>,
        /// Tokens of the prompt.
        tokens: usize,
        /// `grpo.max_completion_length`.
        longest: usize,
        /// Tokens of a prompt at most.
        room: usize,
    },
    /// Sampler and trainer do not agree about the same parameters.
    #[error(
        "step {step}: trainer and sampler disagree about a sampled token by {gap:.2e} nats, {tolerance:.2e} are allowed"
    )]
    Disagreement {
        /// The step.
        step: u64,
        /// The largest difference.
        gap: f64,
        /// `log_prob_tolerance`.
        tolerance: f64,
    },
    /// A loss or gradient that is not finite. The parameters are as they were before the update.
    #[error("step {step}: the {what} is not finite; nothing was updated")]
    NotFinite {
        /// The step.
        step: u64,
        /// "loss" or "gradient".
        what: &'static str,
    },
    /// Nothing to learn from for too long.
    #[error(
        "step {step}: all groups of the last {idle} steps have equal rewards, so there was nothing to learn; the mean reward is {reward:.3}"
    )]
    Stuck {
        /// The step.
        step: u64,
        /// Steps in a row.
        idle: u64,
        /// Mean reward of the last.
        reward: f64,
    },
}

impl Error {
    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Judge(error) => return error.hint(),
            Error::Train(error) => return error.hint(),
            Error::Engine(error) => return error.hint(),
            Error::Fault(error) => return error.hint(),
            Error::NoPrompts { dropped: 0 } => "name files with rows in `rl.prompts.files`".into(),
            Error::NoPrompts { .. } => "lower `rl.grpo.max_completion_length`, or take shorter prompts".into(),
            Error::UnknownVerifier { name, known, .. } => {
                let near = known
                    .iter()
                    .map(|other| (strsim::damerau_levenshtein(name, other), other))
                    .filter(|(distance, _)| *distance <= 3)
                    .min();
                let known = known.join(", ");
                match near {
                    Some((_, other)) => format!("did you mean `{other}`? There are {known}"),
                    None => format!(
                        "there are {known}; define others in `[rl.verifiers.NAME]`, or set `rl.verifier` for all rows"
                    ),
                }
            }
            Error::NoVerifier { .. } => {
                "set `rl.verifier` for all rows, or name one in the row's `verifier`, `dataset` or `data_source`".into()
            }
            Error::PromptTooLong { .. } => {
                "lower `rl.grpo.max_completion_length`, or set `rl.prompts.too_long = \"drop\"` to leave such rows out".into()
            }
            Error::Disagreement { .. } => {
                "both compute the same thing in float32, so one of them is at fault: please report it with the model's `config.json`. `rl.log_prob_tolerance` says how much is allowed".into()
            }
            Error::NotFinite { .. } => {
                "a lower learning rate helps when training diverges; the same command again goes on from the last checkpoint".into()
            }
            Error::Stuck { reward, .. } if *reward <= 0.0 => {
                "no completion is ever right. Look at `transcripts/` for what the verifier refuses; fine-tune the policy further, take easier prompts or sample more completions a prompt. `rl.patience` says when to stop".into()
            }
            Error::Stuck { .. } => {
                "the policy always does the same with each prompt: take harder prompts, or sample at a higher temperature. `rl.patience` says when to stop".into()
            }
        })
    }
}
