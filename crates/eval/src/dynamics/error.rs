//! Why a run cannot be measured against a reference, with the facts; the advice is in [`Error::hint`].

use std::path::PathBuf;

/// An error of the dynamics.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Of tasks.
    #[error(transparent)]
    Eval(#[from] crate::Error),
    /// Of the crates below.
    #[error(transparent)]
    Fault(#[from] remit_store::Error),
    /// Of the engine.
    #[error(transparent)]
    Engine(#[from] remit_engine::Error),
    /// Of files of results, and of a run.
    #[error(transparent)]
    Results(#[from] remit_results::Error),
    /// A setting that makes no sense.
    #[error("`dynamics.{key}` {problem}")]
    Setting {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A path without a model.
    #[error("`{}` is neither a checkpoint nor a run with one", path.display())]
    NoCheckpoint {
        /// The path as given.
        path: PathBuf,
    },
    /// A run or checkpoint that is named twice.
    #[error("`{}` is named twice", path.display())]
    Twice {
        /// Its path.
        path: PathBuf,
    },
    /// A run whose start is gone.
    #[error("run `{}` began from `{}`, where there is no checkpoint", run.display(), from.display())]
    NoStart {
        /// The run.
        run: PathBuf,
        /// Where it began.
        from: PathBuf,
    },
    /// No file to write is given, and none follows from the run.
    #[error("no file for the results is given")]
    NoOut,
    /// Vocabularies that cannot be compared.
    #[error(
        "the reference `{}` has {reference_vocab} tokens, `{}` has {learner_vocab}",
        reference.display(),
        learner.display()
    )]
    Vocabulary {
        /// The reference's checkpoint.
        reference: PathBuf,
        /// Rows of its head.
        reference_vocab: usize,
        /// The learner's checkpoint.
        learner: PathBuf,
        /// Rows of its head.
        learner_vocab: usize,
    },
    /// Something whose tokens mean something else than the reference's.
    #[error(
        "{what} `{}` has another tokenizer than the reference `{}`: {hash:.12} instead of {reference_hash:.12}",
        path.display(),
        reference.display()
    )]
    Tokenizer {
        /// `checkpoint` or `store`.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Its tokenizer.
        hash: String,
        /// The reference's checkpoint.
        reference: PathBuf,
        /// The reference's tokenizer.
        reference_hash: String,
    },
    /// A store with tokens that the models do not have.
    #[error("store `{}` has {store_vocab} tokens, the models have {model_vocab}", store.display())]
    StoreVocabulary {
        /// The store.
        store: PathBuf,
        /// Its vocabulary.
        store_vocab: u32,
        /// That of the models.
        model_vocab: usize,
    },
    /// A window that is longer than a model allows.
    #[error("windows of {window} predictions are longer than the {max_length} positions of `{}`", model.display())]
    WindowTooLong {
        /// Predictions a window.
        window: usize,
        /// The model's limit.
        max_length: usize,
        /// The model.
        model: PathBuf,
    },
    /// A store that is too short.
    #[error("store `{}` has {found} windows of {window} predictions, {wanted} are asked for", store.display())]
    FewWindows {
        /// The store.
        store: PathBuf,
        /// Windows it has.
        found: u64,
        /// Predictions a window.
        window: usize,
        /// Windows that are asked for.
        wanted: u64,
    },
    /// Logits that are not finite.
    #[error("the logits of `{}` or of the reference are not finite on store `{store}`", checkpoint.display())]
    NotFinite {
        /// The learner's checkpoint.
        checkpoint: PathBuf,
        /// The store's name.
        store: String,
    },
}

impl Error {
    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Error::Eval(error) => return error.hint(),
            Error::Fault(error) => return error.hint(),
            Error::Engine(error) => return error.hint(),
            Error::Results(error) => return error.hint(),
            Error::Setting { key: "eval.model" | "eval.out" | "eval.overwrite", .. } => {
                "leave it out: the models are `runs`, and all results go to one file".to_owned()
            }
            Error::Setting { key: "window", .. } => return None,
            Error::Setting { .. } => {
                "say what is measured: `remit dynamics RUN --reference DIR --store NAME=STORE`".to_owned()
            }
            Error::NoCheckpoint { .. } => {
                "give a directory with `config.json`, or a run directory whose run has saved a checkpoint".to_owned()
            }
            Error::Twice { .. } => "name each once".to_owned(),
            Error::NoStart { .. } => {
                "paths are relative to the current directory; leave the start out with `--dynamics.start=false`"
                    .to_owned()
            }
            Error::NoOut => "give one with `--out FILE`: it follows only from a single run directory".to_owned(),
            Error::Vocabulary { .. } | Error::Tokenizer { what: "checkpoint", .. } => {
                "distributions can be compared only where both models have the same tokenizer".to_owned()
            }
            Error::Tokenizer { .. } | Error::StoreVocabulary { .. } => {
                "prepare the text again with the tokenizer of the models".to_owned()
            }
            Error::WindowTooLong { .. } => "lower `window`".to_owned(),
            Error::FewWindows { found: 0, .. } => "give a longer store, or lower `window`".to_owned(),
            Error::FewWindows { found, .. } => {
                format!("lower `windows` to {found}, or set it to 0 for all that each store has")
            }
            Error::NotFinite { .. } => "the run has diverged, or the checkpoint is damaged".to_owned(),
        };
        Some(text)
    }
}
