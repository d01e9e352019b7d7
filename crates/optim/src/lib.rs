//! Gradient to new parameters, on flat `f32` slices; what a layer or a token is stays outside.
//!
//! In the order of a step:
//! - [`clip`]: the global norm of all gradients and the factor that bounds it;
//! - [`schedule`]: the share of the peak learning rate at each step;
//! - [`groups`]: which parameters decay;
//! - [`adamw`]: the update.
//!
//! Results do not depend on the number of threads or on the vector width of the machine: work is cut into fixed chunks
//! whose results are combined in order, and sums and products are never fused, so that every instruction set rounds
//! alike.

pub mod adamw;
pub mod clip;
pub mod groups;
pub mod schedule;
mod simd;

pub use adamw::{AdamW, Slices, Update};
pub use clip::{clip_factor, global_norm};
pub use groups::WeightDecayRule;
pub use remit_fault::Error;
pub use schedule::Schedule;

/// Elements that one thread takes at a time: large against the cost of handing them out, small against the caches'
/// second level. Sums depend on it, so it is one constant.
const CHUNK: usize = 1 << 16;

/// A setting of the table `section` that is not what is `expected`.
fn out_of_range(section: &str, key: &str, value: f64, expected: &str) -> Error {
    remit_fault::fault!("{section} setting `{key}` is {value}, but must be {expected}")
}
