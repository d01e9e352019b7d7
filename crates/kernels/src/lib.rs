//! The fused operations of a decoder on the CPU, each with its hand-written backward.
//!
//! Everything is a row-major `f32` slice and a shape (matrices of parameters may be bfloat16: [`Weights`]); nothing here allocates what a training step could reuse, and
//! nothing here knows what a layer or an objective is. Threads come from rayon's current pool. Work is always cut
//! by shape, never by the number of threads, and every sum has one order: one thread or many give the same bits.
//!
//! Shape letters used throughout:
//! `W` windows, `T` positions a window, `N = W * T` rows, `D` model width, `H` query heads, `K` key/value heads,
//! `E` width of a head, `F` width of the MLP, `V` vocabulary.
//!
//! | module | forward | source |
//! |---|---|---|
//! | [`linear`] | `y = x W^T` | |
//! | [`embedding`] | rows of a table | |
//! | [`norm`] | RMSNorm | arXiv 1910.07467 |
//! | [`rope`] | rotary positions, pairs half a head apart or side by side | arXiv 2104.09864 |
//! | [`attention`] | causal grouped-query attention within documents | arXiv 2205.14135, 2305.13245 |
//! | [`cached`] | attention of rows of many sequences, each against its own cache | |
//! | [`latent`] | keys and values of multi-head latent attention, and its short form behind a cache | arXiv 2405.04434 |
//! | [`swiglu`] | `silu(gate) * up` | arXiv 2002.05202 |
//! | [`softmax`] | its parts, for sampling | |
//! | [`head`] | log-probabilities of the targets, and the way back from their derivative | |

pub mod attention;
pub mod cached;
pub mod embedding;
pub mod head;
pub mod latent;
pub mod linear;
pub mod matmul;
pub mod norm;
pub mod rope;
mod rows;
mod simd;
pub mod softmax;
pub mod stream;
pub mod swiglu;
pub mod weights;

pub use matmul::Precision;
pub use simd::Instructions;
pub use weights::Weights;
