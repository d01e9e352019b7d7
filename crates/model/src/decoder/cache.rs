//! What generation keeps of the positions behind it.

use crate::Architecture;

/// One sequence's rows by block, a row a position: keys and values, or of latent attention the short row that they are
/// made from and the shared key. [`Architecture::cache_width`] numbers each.
#[derive(Debug)]
pub(crate) struct Cache {
    /// `[positions, cache_width]` each.
    pub rows: Vec<Vec<f32>>,
    /// Positions so far.
    pub positions: usize,
}

impl Cache {
    /// An empty cache with room for `positions`.
    pub fn new(architecture: &Architecture, positions: usize) -> Cache {
        let room = positions * architecture.cache_width();
        Cache { rows: (0..architecture.layers).map(|_| Vec::with_capacity(room)).collect(), positions: 0 }
    }
}
