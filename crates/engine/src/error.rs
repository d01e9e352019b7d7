//! What can go wrong in an engine.

/// An error of an engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of the crates below.
    #[error(transparent)]
    Fault(#[from] remit_store::Error),
    /// Of the PyTorch worker.
    #[error(transparent)]
    Torch(#[from] crate::torch::Error),
    /// A number of the settings outside its range.
    #[error("`engine.{key}` = {value} is out of range: {expected}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: f64,
        /// What is allowed.
        expected: &'static str,
    },
    /// A comparison of engines that came to no figure.
    #[error("while engines were compared {problem}")]
    Check {
        /// What happened.
        problem: &'static str,
    },
    /// State beside a checkpoint that does not fit the model.
    #[error("`{}` is not what a run leaves there: {problem}", .path.display())]
    State {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Fault(error) => error.hint(),
            Error::Torch(error) => error.hint(),
            Error::Setting { .. } | Error::Check { .. } => None,
            Error::State { .. } => Some("start from another checkpoint".into()),
        }
    }
}

/// Why a step was not taken. The caller knows the step's number and what its batch was made of.
#[derive(Debug)]
pub enum Refusal {
    /// A log-probability of this window, by its [`index`](remit_batch::Window::index), is not finite.
    Loss(u64),
    /// The gradient is not finite.
    Gradient,
    /// The engine failed.
    Engine(Error),
}

impl<E: Into<Error>> From<E> for Refusal {
    fn from(error: E) -> Refusal {
        Refusal::Engine(error.into())
    }
}
