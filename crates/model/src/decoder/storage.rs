//! Where a decoder's parameters lie: in a flat buffer of its own, or in the files they came from.

use crate::Layout;
use crate::layout::Entry;
use rayon::prelude::*;
use remit_kernels::embedding;
use remit_store::tensors::TensorDirectory;
use std::ops::Range;
use std::sync::OnceLock;

/// Where parameters lie. A pass asks for them a block at a time, and gets the same numbers from every storage.
pub trait Storage: std::fmt::Debug + Sync {
    /// Rows `ids` of the embedding table to `x [N, D]`.
    fn embed(&self, layout: &Layout, ids: &[u32], width: usize, x: &mut [f32]);

    /// The parameters of a block; `buffer` may serve to hold them.
    fn block<'a>(&'a self, layout: &Layout, layer: usize, buffer: &'a mut Vec<f32>) -> Part<'a>;

    /// The gain of the last norm.
    fn final_norm(&self, layout: &Layout) -> &[f32];

    /// The head's matrix, `[V, D]`.
    fn head(&self, layout: &Layout) -> &[f32];
}

/// A part of the flat buffer.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    values: &'a [f32],
    /// Where it begins in the flat buffer.
    start: usize,
}

impl<'a> Part<'a> {
    /// The parameters at `range` of the flat buffer.
    pub(crate) fn get(&self, range: &Range<usize>) -> &'a [f32] {
        &self.values[range.start - self.start..range.end - self.start]
    }
}

impl Storage for Vec<f32> {
    fn embed(&self, layout: &Layout, ids: &[u32], width: usize, x: &mut [f32]) {
        embedding::forward(ids, &self[layout.embedding.clone()], width, x);
    }

    fn block<'a>(&'a self, _: &Layout, _: usize, _: &'a mut Vec<f32>) -> Part<'a> {
        Part { values: self, start: 0 }
    }

    fn final_norm(&self, layout: &Layout) -> &[f32] {
        &self[layout.final_norm.clone()]
    }

    fn head(&self, layout: &Layout) -> &[f32] {
        &self[layout.head.clone()]
    }
}

/// The parameters of a decoder that is only read.
#[derive(Debug)]
pub enum FrozenParameters {
    /// In memory.
    Owned(Vec<f32>),
    /// In memory-mapped files.
    Mapped(MappedParameters),
}

impl Storage for FrozenParameters {
    fn embed(&self, layout: &Layout, ids: &[u32], width: usize, x: &mut [f32]) {
        match self {
            FrozenParameters::Owned(values) => values.embed(layout, ids, width, x),
            FrozenParameters::Mapped(files) => files.embed(layout, ids, width, x),
        }
    }

    fn block<'a>(&'a self, layout: &Layout, layer: usize, buffer: &'a mut Vec<f32>) -> Part<'a> {
        match self {
            FrozenParameters::Owned(values) => values.block(layout, layer, buffer),
            FrozenParameters::Mapped(files) => files.block(layout, layer, buffer),
        }
    }

    fn final_norm(&self, layout: &Layout) -> &[f32] {
        match self {
            FrozenParameters::Owned(values) => values.final_norm(layout),
            FrozenParameters::Mapped(files) => files.final_norm(layout),
        }
    }

    fn head(&self, layout: &Layout) -> &[f32] {
        match self {
            FrozenParameters::Owned(values) => values.head(layout),
            FrozenParameters::Mapped(files) => files.head(layout),
        }
    }
}

/// Parameters in memory-mapped files: each block is made `f32` when a pass comes to it and forgotten behind it, the
/// head's matrix when it is first asked for.
#[derive(Debug)]
pub struct MappedParameters {
    files: TensorDirectory,
    final_norm: OnceLock<Vec<f32>>,
    head: OnceLock<Vec<f32>>,
}

impl MappedParameters {
    /// `files` hold every entry of the layout in its shape, in an element type that can be read.
    pub(crate) fn new(files: TensorDirectory) -> MappedParameters {
        MappedParameters { files, final_norm: OnceLock::new(), head: OnceLock::new() }
    }

    /// The range, converted.
    fn read(&self, layout: &Layout, range: &Range<usize>) -> Vec<f32> {
        let mut values = vec![0.0; range.len()];
        read_entries(&self.files, layout.entries_within(range), &mut values);
        values
    }
}

impl Storage for MappedParameters {
    fn embed(&self, layout: &Layout, ids: &[u32], width: usize, x: &mut [f32]) {
        let table = &layout.entries_within(&layout.embedding)[0].name;
        for (row, &id) in x.chunks_mut(width).zip(ids) {
            self.files.read_f32_part(table, id as usize * width, row).expect("checked when it was opened");
        }
    }

    fn block<'a>(&'a self, layout: &Layout, layer: usize, buffer: &'a mut Vec<f32>) -> Part<'a> {
        let range = &layout.blocks[layer].all;
        if buffer.len() < range.len() {
            buffer.resize(range.len(), 0.0);
        }
        read_entries(&self.files, layout.entries_within(range), &mut buffer[..range.len()]);
        Part { values: &buffer[..range.len()], start: range.start }
    }

    fn final_norm(&self, layout: &Layout) -> &[f32] {
        self.final_norm.get_or_init(|| self.read(layout, &layout.final_norm))
    }

    fn head(&self, layout: &Layout) -> &[f32] {
        self.head.get_or_init(|| self.read(layout, &layout.head))
    }
}

/// Elements converted by one task.
const GRAIN: usize = 1 << 18;

/// Converts neighbouring entries into `values`, which holds just them.
///
/// # Panics
/// Where a file lacks an entry or has it in an element type that cannot be read: both are checked on opening.
pub(crate) fn read_entries(files: &TensorDirectory, entries: &[Entry], values: &mut [f32]) {
    let mut rest = values;
    let mut tasks = Vec::new();
    for entry in entries {
        let (values, behind) = rest.split_at_mut(entry.range.len());
        rest = behind;
        let chunks = values.chunks_mut(GRAIN).enumerate();
        tasks.extend(chunks.map(|(index, chunk)| (&entry.name, index * GRAIN, chunk)));
    }
    tasks.into_par_iter().for_each(|(name, first, chunk)| {
        files.read_f32_part(name, first, chunk).expect("checked when it was opened");
    });
}
