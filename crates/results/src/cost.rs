//! What something took, counted so that arms compare at equal tokens and at equal compute.

use serde::{Deserialize, Serialize};
use std::iter::Sum;
use std::ops::{Add, AddAssign};

/// What something took. Passes are counted in predictions, padding included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Predictions learnt from: those that count in a loss.
    pub tokens: u64,
    /// Forward passes of the learner, generation included.
    pub forward: u64,
    /// Its backward passes.
    pub backward: u64,
    /// Forward passes of a reference.
    pub reference: u64,
    /// Tokens generated, which are among the forward passes.
    pub generated: u64,
    /// Floating-point operations.
    pub flops: f64,
    /// Seconds of the work that counts: steps that a kill undid are left out.
    pub seconds: f64,
}

impl Cost {
    /// The mean of a sum over so many.
    pub fn over(self, count: usize) -> Cost {
        let share = |whole: u64| (whole as f64 / count as f64).round() as u64;
        Cost {
            tokens: share(self.tokens),
            forward: share(self.forward),
            backward: share(self.backward),
            reference: share(self.reference),
            generated: share(self.generated),
            flops: self.flops / count as f64,
            seconds: self.seconds / count as f64,
        }
    }
}

impl Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost {
            tokens: self.tokens + other.tokens,
            forward: self.forward + other.forward,
            backward: self.backward + other.backward,
            reference: self.reference + other.reference,
            generated: self.generated + other.generated,
            flops: self.flops + other.flops,
            seconds: self.seconds + other.seconds,
        }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        *self = *self + other;
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(costs: I) -> Cost {
        costs.fold(Cost::default(), Add::add)
    }
}
