//! Why a step was not taken.

use crate::Error;

/// Why a step was not taken. The caller knows the step's number and what its batch was made of.
#[derive(Debug)]
pub enum Refusal {
    /// A log-probability of this window, by its [`index`](remit_batch::Window::index), is not finite.
    Loss(u64),
    /// The gradient is not finite.
    Gradient,
    /// Something else.
    Other(Error),
}

impl Refusal {
    /// The error of a step, given what its caller calls a loss and a gradient that are not finite.
    pub fn into_error<E: From<Error>>(self, loss: impl FnOnce(u64) -> E, gradient: impl FnOnce() -> E) -> E {
        match self {
            Refusal::Loss(window) => loss(window),
            Refusal::Gradient => gradient(),
            Refusal::Other(error) => error.into(),
        }
    }
}

impl From<remit_engine::Refusal> for Refusal {
    fn from(refusal: remit_engine::Refusal) -> Refusal {
        match refusal {
            remit_engine::Refusal::Loss(window) => Refusal::Loss(window),
            remit_engine::Refusal::Gradient => Refusal::Gradient,
            remit_engine::Refusal::Engine(error) => Refusal::Other(error.into()),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Other(error)
    }
}

impl From<remit_engine::Error> for Refusal {
    fn from(error: remit_engine::Error) -> Refusal {
        Refusal::Other(error.into())
    }
}

impl From<remit_objective::Error> for Refusal {
    fn from(error: remit_objective::Error) -> Refusal {
        Refusal::Other(error.into())
    }
}
