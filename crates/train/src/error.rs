//! What can go wrong between settings and a trained model.

use remit_engine::Available;
use remit_engine::memory::in_words;
use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of the crates below.
    #[error(transparent)]
    Fault(#[from] remit_store::Error),
    /// Of the engine.
    #[error(transparent)]
    Engine(#[from] remit_engine::Error),
    /// A setting that is missing or makes no sense.
    #[error("`{stage}.{key}` {problem}")]
    Setting {
        /// The recipe's table.
        stage: &'static str,
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A window that the model does not allow.
    #[error("windows of {window} predictions are longer than the {max_length} positions that `{}` allows (`max_position_embeddings`)", .model.display())]
    WindowTooLong {
        /// `data.window`.
        window: usize,
        /// The model's limit.
        max_length: usize,
        /// The checkpoint, or `[model]`.
        model: PathBuf,
    },
    /// A token store has ids that the model has no embedding for.
    #[error("token store `{}` has a vocabulary of {store_vocab}, the model `{}` one of {model_vocab}", .store.display(), .model.display())]
    Vocabulary {
        /// The token store.
        store: PathBuf,
        /// Its vocabulary.
        store_vocab: u32,
        /// The checkpoint.
        model: PathBuf,
        /// Its vocabulary.
        model_vocab: usize,
    },
    /// A checkpoint was made with another tokenizer than the token store.
    #[error("the {role} `{}` has another tokenizer than `{}`: {model_hash:.12} instead of {store_hash:.12}", .model.display(), .store.display())]
    Tokenizer {
        /// "learner" or "reference".
        role: &'static str,
        /// The checkpoint.
        model: PathBuf,
        /// Its tokenizer.
        model_hash: String,
        /// The token store.
        store: PathBuf,
        /// Its tokenizer.
        store_hash: String,
    },
    /// A checkpoint that cannot encode rows.
    #[error("`{}` has no `tokenizer.json`", .checkpoint.display())]
    NoTokenizer {
        /// The checkpoint.
        checkpoint: PathBuf,
    },
    /// A token store without a window.
    #[error("token store `{}` has no window: it holds {tokens} tokens", .store.display())]
    NoWindows {
        /// The token store.
        store: PathBuf,
        /// Its size.
        tokens: u64,
    },
    /// A run directory without a checkpoint where one is to start from.
    #[error("`{}` is neither a checkpoint nor a run with one", .path.display())]
    NoCheckpoint {
        /// What was given.
        path: PathBuf,
    },
    /// `moments = "keep"` with a checkpoint that has none.
    #[error("`{}` holds no optimiser state to keep", .checkpoint.display())]
    NoMoments {
        /// The checkpoint.
        checkpoint: PathBuf,
    },
    /// A run directory that was begun with other settings.
    #[error("run `{}` was begun with other settings: {}", .run.display(), .differences.join(", "))]
    OtherSettings {
        /// The run directory.
        run: PathBuf,
        /// `key: old -> new`.
        differences: Vec<String>,
    },
    /// State beside a checkpoint that cannot be read.
    #[error("`{}` is not what a run leaves there: {problem}", .path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A loss that is not finite. The parameters are as they were before the step.
    #[error(
        "step {step}: the loss of window {window} (source `{source_name}`) is not finite; nothing was updated"
    )]
    LossNotFinite {
        /// The step, counted from 1.
        step: u64,
        /// The window's index in the token store's layout.
        window: u64,
        /// The source it comes from.
        source_name: String,
    },
    /// A reference's log-probability that is not finite.
    #[error("the reference's log-probabilities of window {window} are not finite")]
    ReferenceNotFinite {
        /// The window's index in the token store's layout.
        window: u64,
    },
    /// A model's log-probability of a given sequence that is not finite.
    #[error("the {role}'s log-probabilities of sequence {index} are not finite")]
    SequenceNotFinite {
        /// "learner" or "reference".
        role: &'static str,
        /// The sequence's place.
        index: usize,
    },
    /// A gradient that is not finite. The parameters are as they were before the step.
    #[error("step {step}: the gradient of windows {windows:?} is not finite; nothing was updated")]
    GradientNotFinite {
        /// The step, counted from 1.
        step: u64,
        /// The windows of the step.
        windows: Vec<u64>,
    },
    /// The learner has lost its mind on held-out text.
    #[error("step {step}: the loss of held-out `{store}` is not finite")]
    HeldOutNotFinite {
        /// The step after which it was evaluated.
        step: u64,
        /// The held-out store.
        store: String,
    },
    /// Two models that are to be compared do not fit.
    #[error("the learner has a vocabulary of {learner}, the reference one of {reference}")]
    VocabulariesDiffer {
        /// The learner's.
        learner: usize,
        /// The reference's.
        reference: usize,
    },
    /// Preferences have a token that the model has no embedding for.
    #[error("the tokenizer of `{}` makes token {token}, and the model has a vocabulary of {vocabulary}", .model.display())]
    TokenOutside {
        /// The checkpoint.
        model: PathBuf,
        /// The token.
        token: u32,
        /// The model's vocabulary.
        vocabulary: usize,
    },
    /// A model's log-probability of a pair that is not finite.
    #[error("the {role}'s log-probabilities of pair {pair} are not finite")]
    PairNotFinite {
        /// "reference".
        role: &'static str,
        /// The pair, counted from 1 without those that are left out.
        pair: u64,
    },
    /// Something about a step over pairs that is not finite. The parameters are as they were before the step.
    #[error("step {step}: the {what} is not finite; nothing was updated")]
    StepNotFinite {
        /// The step, counted from 1.
        step: u64,
        /// What it is.
        what: String,
    },
    /// A cache of log-probabilities that cannot be used.
    #[error("`{}` does not hold the log-probabilities of these pairs: {problem}", .path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A run that was begun with other data under the same names.
    #[error("run `{}` was begun with other data: {}", .run.display(), .differences.join(", "))]
    OtherInputs {
        /// The run directory.
        run: PathBuf,
        /// `name: old hash -> new hash`.
        differences: Vec<String>,
    },
    /// A rule of the run's health that is broken and is to stop it.
    #[error("step {step}: the run is stopped: {breach}")]
    Unhealthy {
        /// The step at which the rule was first broken.
        step: u64,
        /// Rule, value and limit.
        breach: Box<crate::health::Breach>,
    },
    /// A run that needs more memory than there is.
    #[error("the run needs {} of memory, and {} has {} available", in_words(*needed), available.bound, in_words(available.bytes))]
    TooMuchMemory {
        /// The setting of how much is in a forward pass.
        key: &'static str,
        /// Bytes.
        needed: u64,
        /// What there is.
        available: Available,
        /// The largest value of the setting that fits, if there is one.
        fitting: Option<usize>,
        /// Bytes with that value, or with 1.
        least: u64,
    },
    /// A sequence without a prediction.
    #[error("sequence {index} has {length} tokens, and a prediction takes two")]
    TooShort {
        /// Its place.
        index: usize,
        /// Its tokens.
        length: usize,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Fault(error) => return error.hint(),
            Error::Engine(error) => return error.hint(),
            Error::Setting { .. } => "`--dry-run` shows all settings as they are resolved".into(),
            Error::WindowTooLong { max_length, .. } => format!("set `window` to {max_length} or less"),
            Error::Vocabulary { .. } => "prepare the corpus with the model's own tokenizer".into(),
            Error::Tokenizer { role: "reference", .. } => {
                "log-probabilities can be compared token by token only where both models have the same tokenizer; prepare the corpus with it".into()
            }
            Error::Tokenizer { .. } => "prepare the corpus again with the model's `tokenizer.json`".into(),
            Error::NoTokenizer { .. } => "put the tokenizer's files beside `config.json`".into(),
            Error::NoWindows { .. } => "a source needs at least two tokens".into(),
            Error::NoCheckpoint { .. } => "give a directory with `config.json`, or a run directory whose run has saved a checkpoint".into(),
            Error::NoMoments { .. } => "set `moments = \"reset\"` to begin with fresh ones".into(),
            Error::OtherSettings { .. } => "use another run directory, or put the settings back to go on".into(),
            Error::State { .. } => "start from another checkpoint".into(),
            Error::LossNotFinite { .. }
            | Error::GradientNotFinite { .. }
            | Error::StepNotFinite { .. }
            | Error::HeldOutNotFinite { .. } => {
                "a lower learning rate, longer warm-up or a smaller `clip_norm` helps when training diverges; the same command again goes on from the last checkpoint".into()
            }
            Error::ReferenceNotFinite { .. }
            | Error::SequenceNotFinite { .. }
            | Error::PairNotFinite { .. } => {
                "its parameters are damaged, or its training has diverged: use another checkpoint".into()
            }
            Error::VocabulariesDiffer { .. } => "both models must share one tokenizer".into(),
            Error::TokenOutside { .. } => "use the tokenizer that the model was trained with".into(),
            Error::Cache { .. } => "remove the file, and they are computed again".into(),
            Error::OtherInputs { .. } => {
                "a file or a checkpoint has changed where it lies: put it back, or use another run directory".into()
            }
            Error::Unhealthy { breach, .. } => format!(
                "{}; to go on from here all the same, set `health.{}.action` to \"warn\" and give the same command again",
                breach.rule.meaning(),
                breach.rule.name()
            ),
            Error::TooMuchMemory { key, fitting: Some(size), least, .. } => {
                format!("`{key} = {size}` needs {}; the result is the same to rounding", in_words(*least))
            }
            Error::TooMuchMemory { key, least, .. } => format!(
                "even `{key} = 1` needs {}: choose shorter windows, `recompute = true` or a smaller model, or end other programs",
                in_words(*least)
            ),
            Error::TooShort { .. } => return None,
        })
    }
}
