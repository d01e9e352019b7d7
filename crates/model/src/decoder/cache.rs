//! What generation keeps of the positions behind it.

use crate::Architecture;
use crate::architecture::Attention;
use rayon::prelude::*;
use remit_kernels::cached::{self, Sight};

/// One sequence's cache by block: keys and values as [`remit_kernels::cached`] lays them out, or of latent attention, a
/// row a position, the short row that they are made from and the shared key. [`Architecture::cache_width`] numbers a
/// position.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// `[positions, cache_width]` numbers each.
    pub layers: Vec<Vec<f32>>,
}

impl Cache {
    /// An empty cache with room for `positions`.
    pub fn new(architecture: &Architecture, positions: usize) -> Cache {
        let room = match architecture.attention {
            Attention::Grouped { .. } => cached::positions(positions),
            Attention::Latent { .. } => positions,
        };
        let layer = || vec![0.0; room * architecture.cache_width()];
        Cache { layers: (0..architecture.layers).map(|_| layer()).collect() }
    }
}

/// The rows of a pass: the next tokens of many sequences, of each as many as the caller likes.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Token ids, `[N]`.
    pub ids: Vec<u32>,
    /// Whose token it is, as an index of the caches, `[N]`.
    pub sequences: Vec<usize>,
    /// Where it stands in its sequence, `[N]`: behind all positions that were read before, without gaps.
    pub positions: Vec<usize>,
}

impl Rows {
    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.sequences.clear();
        self.positions.clear();
    }

    pub fn push(&mut self, id: u32, sequence: usize, position: usize) {
        self.ids.push(id);
        self.sequences.push(sequence);
        self.positions.push(position);
    }

    /// Calls `keep` with block `layer` of a row's cache, the row and its position, for all rows.
    pub fn join(&self, caches: &mut [Cache], layer: usize, keep: impl Fn(&mut [f32], usize, usize) + Sync) {
        caches.par_iter_mut().enumerate().with_min_len(8).for_each(|(sequence, cache)| {
            for (row, &position) in self.positions.iter().enumerate() {
                if self.sequences[row] == sequence {
                    keep(&mut cache.layers[layer], row, position);
                }
            }
        });
    }

    /// What each row attends to in block `layer`.
    pub fn sights<'a>(&self, caches: &'a [Cache], layer: usize) -> Vec<Sight<'a>> {
        let rows = self.sequences.iter().zip(&self.positions);
        rows.map(|(&sequence, &position)| Sight {
            cache: &caches[sequence].layers[layer],
            seen: position + 1,
        })
        .collect()
    }
}
