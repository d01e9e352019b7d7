//! Attention of rows of many sequences, each against the cache of its own: what generation does.
//!
//! A row's result depends on its query and its own sequence's cache alone, bit for bit.
//!
//! The cache of one sequence and block holds, for each key/value head, its keys in groups of [`GROUP`] positions with the
//! positions as columns, `[positions / GROUP, E, GROUP]`, so that scores of neighbouring positions are made side by
//! side; then for each head its values, `[positions, Ev]`.

use crate::attention::Attention;
use crate::rows::mix;
use crate::softmax::probabilities;
use rayon::prelude::*;

/// Positions whose keys lie side by side.
pub const GROUP: usize = 64;

/// What a row attends to: the cache of its sequence up to its own position, which is the last of `seen`.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// Made for [`positions`] positions.
    pub cache: &'a [f32],
    /// Positions that it sees.
    pub seen: usize,
}

/// The positions that a cache for `count` positions must have room for: whole groups.
pub fn positions(count: usize) -> usize {
    count.next_multiple_of(GROUP)
}

impl Attention {
    /// Numbers a position of the cache.
    fn kept(&self) -> usize {
        self.kv_heads * (self.qk_width + self.v_width)
    }

    /// Puts keys and values of a position, side by side in `row [K*E + K*Ev]`, into a cache.
    pub fn keep(&self, cache: &mut [f32], position: usize, row: &[f32]) {
        let Attention { kv_heads, qk_width, v_width, .. } = *self;
        let room = cache.len() / self.kept();
        let (keys, values) = row.split_at(kv_heads * qk_width);
        let (cached_keys, cached_values) = cache.split_at_mut(room * kv_heads * qk_width);
        let (group, column) = (position / GROUP, position % GROUP);
        for (cached, key) in cached_keys.chunks_mut(room * qk_width).zip(keys.chunks(qk_width)) {
            let cached = &mut cached[group * qk_width * GROUP..][..qk_width * GROUP];
            for (cached, value) in cached.chunks_mut(GROUP).zip(key) {
                cached[column] = *value;
            }
        }
        for (cached, value) in cached_values.chunks_mut(room * v_width).zip(values.chunks(v_width)) {
            cached[position * v_width..][..v_width].copy_from_slice(value);
        }
    }

    /// `output [N, H*Ev]` of rows whose `H*E` query columns stand at the start of rows of `stride`.
    pub fn attend(&self, queries: &[f32], stride: usize, sights: &[Sight], output: &mut [f32]) {
        let Attention { heads, kv_heads, qk_width, v_width, .. } = *self;
        let shared = heads / kv_heads;
        assert_eq!(output.len(), sights.len() * heads * v_width, "output is [N, H*Ev]");
        output.par_chunks_mut(shared * v_width).enumerate().for_each_init(
            Vec::new,
            |scores, (task, output)| {
                let (row, kv_head) = (task / kv_heads, task % kv_heads);
                let query = &queries[row * stride + kv_head * shared * qk_width..][..shared * qk_width];
                self.attend_head(query, sights[row], kv_head, scores, output);
            },
        );
    }

    /// The query heads of one row that share a key/value head.
    fn attend_head(
        &self,
        query: &[f32],
        sight: Sight,
        kv_head: usize,
        scores: &mut Vec<f32>,
        output: &mut [f32],
    ) {
        let Attention { kv_heads, qk_width, v_width, scale, .. } = *self;
        let Sight { cache, seen } = sight;
        let (room, columns, shared) = (cache.len() / self.kept(), positions(seen), query.len() / qk_width);
        scores.resize(shared * columns, 0.0);
        let keys = &cache[kv_head * room * qk_width..][..columns * qk_width];
        for (group, keys) in keys.chunks(qk_width * GROUP).enumerate() {
            let scores = &mut scores[group * GROUP..];
            mix((shared, qk_width, GROUP), (query, qk_width), (keys, GROUP), (scores, columns));
        }
        scores.chunks_mut(columns).for_each(|row| probabilities(&mut row[..seen], scale));
        let values = &cache[room * (kv_heads * qk_width + kv_head * v_width)..];
        mix((shared, seen, v_width), (scores, columns), (values, v_width), (output, v_width));
    }
}
