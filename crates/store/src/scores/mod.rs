//! The score store: a frozen reference's log-probability of every token of a corpus, computed once.
//!
//! A store holds `[num_windows, length]` scores, row-major, for exactly one token store, window layout and reference
//! ([`ScoreKey`]). Independent processes may each compute a [`Shard`], a contiguous range of windows, into one
//! directory; whichever is last makes the manifest that declares the whole complete.
//!
//! ```text
//! manifest.json                      key, shape, dtype, hash of each shard; there only when all shards are complete
//! shard-0001-of-0002/shard.json      key, shape, dtype; the hash of `scores.bin` once that is complete
//! shard-0001-of-0002/scores.bin      [windows of the shard, length], little-endian
//! shard-0001-of-0002/journal         lines of "so many windows are on the device"; removed when complete
//! ```
//!
//! Written by [`ScoreWriter`], read by [`ScoreStore`].
//!
//! # What float16 costs
//!
//! Stored as float16, rounded to nearest, a score `s` with `2^k <= |s| < 2^(k+1)` moves by at most `2^(k-11)`
//! (float16 has 11 significant bits, so neighbours lie `2^(k-10)` apart; below `2^-14` they lie `2^-24` apart and the
//! error is at most `2^-25`). Let `e_t` be the errors of a window's scores, `E` the largest of `|e_t|`, and the weight
//!
//! ```text
//! w_t = clip(2 sigmoid((delta_t - mu) / temperature), 1 - epsilon_low, 1 + epsilon_high)
//! delta_t = score_t - learner_t,   mu = mean of delta over the window's unmasked tokens
//! ```
//!
//! The mean moves by the mean of the errors, so `delta_t - mu` moves by `|e_t - mean(e)| <= |e_t| + mean(|e|) <= 2E`.
//! The slope of `2 sigmoid(x / temperature)` is nowhere above `1 / (2 temperature)` (at `x = 0`), and clipping
//! lengthens no distance. Hence
//!
//! ```text
//! |error of w_t| <= (|e_t| + mean(|e|)) / (2 temperature) <= E / temperature
//! ```
//!
//! and the second bound is reached as nearly as one likes: one token rounded by `+E` in a long window whose others are
//! rounded by `-E`. For temperature 1:
//!
//! | largest score of the window | largest error of a score, `E`, and of a weight |
//! |---|---|
//! | below 1 | 2^-12 = 0.00024 |
//! | below 2 | 2^-11 = 0.00049 |
//! | below 4 | 2^-10 = 0.00098 |
//! | below 8 | 2^-9 = 0.0020 |
//! | below 16 | 2^-8 = 0.0039 |
//! | below 32 | 2^-7 = 0.0078 |
//! | below 64 | 2^-6 = 0.016 |
//!
//! A uniform guess among 50 000 tokens scores -10.8, so 0.0039 is what a reference of any use can cause, 2% of the
//! paper's clipping range of 0.2; and since the first bound has the *mean* error in it and most tokens score between
//! -2 and 0, a weight is typically off by less than 0.0005. The errors have no direction, so they cancel over tokens.
//!
//! For other settings: without centring the bound is `E / (2 temperature)`; for another map whose slope within the
//! clipping range is at most `L`, it is `2 L E / temperature`; scaled by the window's standard deviation `s` (taken of
//! the stored scores, which moves it by at most `E`), a standardised `z` moves by at most `(2 + |z|) E / s`, so `2E`
//! above becomes that.
//!
//! Scores beyond +-65504, the largest float16, are stored as +-65504, never as an infinity: the token is impossible
//! either way.

mod encode;
mod layout;
mod merge;
mod store;
mod writer;

pub use layout::{ScoreDtype, ScoreKey, Shard, UnfinishedShard};
pub use merge::{Merge, merge};
pub use store::ScoreStore;
pub use writer::ScoreWriter;

#[cfg(test)]
mod tests;
