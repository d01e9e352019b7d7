//! What can go wrong between a recipe and its graph; the advice is in [`Error::hint`].

use std::path::PathBuf;

/// An error of the flywheel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Of the crates below.
    #[error(transparent)]
    Fault(#[from] remit_store::Error),
    /// Of ordinary text.
    #[error(transparent)]
    RegistryText(#[from] remit_corpus::registry_text::Error),
    /// Of generated problems.
    #[error(transparent)]
    Problems(#[from] remit_micro10::Error),
    /// Of training and scoring.
    #[error(transparent)]
    Train(#[from] remit_train::Error),
    /// Of reinforcement learning.
    #[error(transparent)]
    Rl(#[from] remit_rl::Error),
    /// Of evaluation.
    #[error(transparent)]
    Eval(#[from] remit_eval::Error),
    /// [`remit_eval::dynamics::Error`].
    #[error(transparent)]
    Dynamics(#[from] remit_eval::dynamics::Error),
    /// A setting that is missing or makes no sense.
    #[error("`{key}` {problem}")]
    Setting {
        /// The key with its table.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A stage without its table.
    #[error("the recipe has no table `[{table}]`, which {wanted}")]
    MissingTable {
        /// The table.
        table: &'static str,
        /// Who wants it.
        wanted: &'static str,
    },
    /// A setting that only the flywheel can know.
    #[error("`{key}` is set, but the flywheel fills it in: {how}")]
    Owned {
        /// The key with its table.
        key: String,
        /// From what.
        how: &'static str,
    },
    /// Two arms with one name.
    #[error("two arms are named `{name}`")]
    TwoArms {
        /// The name.
        name: String,
    },
    /// A reference that nobody makes.
    #[error("reference `{reference}` of arm `{arm}` {problem}")]
    Reference {
        /// The arm.
        arm: String,
        /// What was given.
        reference: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A path `@NAME` without such a corpus.
    #[error("`{key}` names `@{name}`, but there is no `[flywheel.data.{name}]`")]
    UnknownData {
        /// Where it is named.
        key: String,
        /// The name.
        name: String,
        /// The corpora that there are.
        known: Vec<String>,
    },
    /// A path that leads to no file.
    #[error("`{key}`: there is no file at `{}`", .path.display())]
    NoFile {
        /// Where it is named.
        key: String,
        /// The path.
        path: PathBuf,
    },
    /// A node's record that cannot be read.
    #[error("`{}` is not what a flywheel leaves there: {problem}", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Fault(error) => return error.hint(),
            Error::RegistryText(error) => return error.hint(),
            Error::Problems(error) => return error.hint(),
            Error::Train(error) => return error.hint(),
            Error::Rl(error) => return error.hint(),
            Error::Eval(error) => return error.hint(),
            Error::Dynamics(error) => return error.hint(),
            Error::Setting { .. } => "`docs/flywheel.md` has every setting of `[flywheel]`".into(),
            Error::MissingTable { .. } => {
                "the tables are those of the single verbs: `recipes/flywheel.toml` has them all".into()
            }
            Error::Owned { .. } => "leave it out".into(),
            Error::TwoArms { name } if name == crate::settings::BASELINE => {
                "plain next-token prediction is always there under this name: give the arm another".into()
            }
            Error::TwoArms { .. } => "give each arm a name of its own".into(),
            Error::Reference { .. } => {
                "write a stage of the iteration before (`rl`, `dpo`, `sft`, `midtrain`), such a stage at a step (`rl@40`), or the path of a checkpoint".into()
            }
            Error::UnknownData { name, known, .. } => {
                let near = known
                    .iter()
                    .map(|other| (strsim::damerau_levenshtein(name, other), other))
                    .filter(|(distance, _)| *distance <= 3)
                    .min();
                match near {
                    Some((_, other)) => format!("did you mean `@{other}`?"),
                    None => "a path that begins with `@` means a corpus that the flywheel generates; write `./@...` for a file of such a name".into(),
                }
            }
            Error::NoFile { .. } => "paths are relative to the current directory".into(),
            Error::Record { .. } => "remove this directory, and the flywheel makes the node again".into(),
        })
    }
}
