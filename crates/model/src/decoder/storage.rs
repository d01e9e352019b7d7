//! Where a decoder's parameters lie: in a flat buffer of its own, or in the files they came from.

use crate::Layout;
use crate::layout::Entry;
use rayon::prelude::*;
use remit_kernels::weights::round_to;
use remit_kernels::{Weights, embedding};
use remit_store::tensors::TensorDirectory;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

/// Where parameters lie. A pass asks for them a block at a time, and gets the same numbers from every storage.
pub trait Storage: std::fmt::Debug + Sync {
    /// Rows `ids` of the embedding table to `x [N, D]`.
    fn embed(&self, layout: &Layout, ids: &[u32], width: usize, x: &mut [f32]);

    /// The parameters of a block; `buffer` may serve to hold them.
    fn block<'a>(&'a self, layout: &'a Layout, layer: usize, buffer: &'a mut Vec<f32>) -> Part<'a>;

    /// The gain of the last norm.
    fn final_norm(&self, layout: &Layout) -> &[f32];

    /// The head's matrix, `[V, D]`.
    fn head<'a>(&'a self, layout: &'a Layout) -> Weights<'a>;

    /// All of them, where they lie in one buffer of `f32`.
    fn values(&self) -> Option<&[f32]> {
        None
    }
}

/// The parameters of a block.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    exact: Exact<'a>,
    rounded: Option<Rounded<'a>>,
}

/// Parameters as `f32`.
#[derive(Clone, Copy, Debug)]
enum Exact<'a> {
    /// A part of the flat buffer, and where it begins there.
    Values(&'a [f32], usize),
    /// Some ranges of it, by where each begins.
    Ranges(&'a BTreeMap<usize, Vec<f32>>),
}

/// Matrices rounded to bfloat16.
#[derive(Clone, Copy, Debug)]
enum Rounded<'a> {
    /// All of the flat buffer.
    Values(&'a [u16]),
    /// As files have them.
    Files(&'a TensorDirectory, &'a Layout),
}

impl<'a> Part<'a> {
    fn values(values: &'a [f32], start: usize) -> Part<'a> {
        Part { exact: Exact::Values(values, start), rounded: None }
    }

    /// The parameters at `range` of the flat buffer.
    pub(crate) fn get(&self, range: &Range<usize>) -> &'a [f32] {
        match self.exact {
            Exact::Values(values, start) => &values[range.start - start..range.end - start],
            Exact::Ranges(_) if range.is_empty() => &[],
            Exact::Ranges(ranges) => &ranges[&range.start][..range.len()],
        }
    }

    /// The matrix at `range` of the flat buffer, as products read it.
    pub(crate) fn weights(&self, range: &Range<usize>) -> Weights<'a> {
        match self.rounded {
            None => Weights::F32(self.get(range)),
            Some(rounded) => rounded.weights(range),
        }
    }
}

impl<'a> Rounded<'a> {
    fn weights(self, range: &Range<usize>) -> Weights<'a> {
        match self {
            Rounded::Values(values) => Weights::rounded(&values[range.clone()]),
            Rounded::Files(files, layout) => {
                let mut parts: [&[u16]; 3] = [&[]; 3];
                for (part, entry) in parts.iter_mut().zip(layout.entries_within(range)) {
                    *part = bits(files, entry).expect("checked when it was opened");
                }
                Weights::Bf16(parts)
            }
        }
    }
}

/// The bits of a tensor as they lie in the file, where they are bfloat16 there.
fn bits<'a>(files: &'a TensorDirectory, entry: &Entry) -> Option<&'a [u16]> {
    files.bf16_bits(&entry.name).expect("checked when it was opened")
}

impl Storage for Vec<f32> {
    fn embed(&self, layout: &Layout, ids: &[u32], width: usize, x: &mut [f32]) {
        embedding::forward(ids, &self[layout.embedding.clone()], width, x);
    }

    fn block<'a>(&'a self, _: &'a Layout, _: usize, _: &'a mut Vec<f32>) -> Part<'a> {
        Part::values(self, 0)
    }

    fn final_norm(&self, layout: &Layout) -> &[f32] {
        &self[layout.final_norm.clone()]
    }

    fn head<'a>(&'a self, layout: &'a Layout) -> Weights<'a> {
        Weights::F32(&self[layout.head.clone()])
    }

    fn values(&self) -> Option<&[f32]> {
        Some(self)
    }
}

/// Parameters with a copy of their matrices rounded to bfloat16, made once for many passes.
#[derive(Debug)]
pub(crate) struct WithRounded<'a> {
    values: &'a [f32],
    rounded: Vec<u16>,
}

impl<'a> WithRounded<'a> {
    pub fn new(values: &'a [f32]) -> WithRounded<'a> {
        let mut rounded = vec![0; values.len()];
        round_to(values, &mut rounded);
        WithRounded { values, rounded }
    }
}

impl Storage for WithRounded<'_> {
    fn embed(&self, layout: &Layout, ids: &[u32], width: usize, x: &mut [f32]) {
        embedding::forward(ids, &self.values[layout.embedding.clone()], width, x);
    }

    fn block<'a>(&'a self, _: &'a Layout, _: usize, _: &'a mut Vec<f32>) -> Part<'a> {
        Part { exact: Exact::Values(self.values, 0), rounded: Some(Rounded::Values(&self.rounded)) }
    }

    fn final_norm(&self, layout: &Layout) -> &[f32] {
        &self.values[layout.final_norm.clone()]
    }

    fn head<'a>(&'a self, layout: &'a Layout) -> Weights<'a> {
        Rounded::Values(&self.rounded).weights(&layout.head)
    }
}

/// The parameters of a decoder that is only read.
#[derive(Debug)]
pub enum FrozenParameters {
    /// In memory.
    Owned(Vec<f32>),
    /// In memory-mapped files.
    Mapped(MappedParameters),
    /// With matrices of bfloat16.
    Rounded(RoundedParameters),
}

impl Storage for FrozenParameters {
    fn embed(&self, layout: &Layout, ids: &[u32], width: usize, x: &mut [f32]) {
        match self {
            FrozenParameters::Owned(values) => values.embed(layout, ids, width, x),
            FrozenParameters::Mapped(files) => files.embed(layout, ids, width, x),
            FrozenParameters::Rounded(parameters) => parameters.embed(layout, ids, width, x),
        }
    }

    fn block<'a>(&'a self, layout: &'a Layout, layer: usize, buffer: &'a mut Vec<f32>) -> Part<'a> {
        match self {
            FrozenParameters::Owned(values) => values.block(layout, layer, buffer),
            FrozenParameters::Mapped(files) => files.block(layout, layer, buffer),
            FrozenParameters::Rounded(parameters) => parameters.block(layout, layer, buffer),
        }
    }

    fn final_norm(&self, layout: &Layout) -> &[f32] {
        match self {
            FrozenParameters::Owned(values) => values.final_norm(layout),
            FrozenParameters::Mapped(files) => files.final_norm(layout),
            FrozenParameters::Rounded(parameters) => parameters.final_norm(layout),
        }
    }

    fn head<'a>(&'a self, layout: &'a Layout) -> Weights<'a> {
        match self {
            FrozenParameters::Owned(values) => values.head(layout),
            FrozenParameters::Mapped(files) => files.head(layout),
            FrozenParameters::Rounded(parameters) => parameters.head(layout),
        }
    }

    fn values(&self) -> Option<&[f32]> {
        match self {
            FrozenParameters::Owned(values) => Some(values),
            _ => None,
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
        embed(&self.files, layout, ids, width, x);
    }

    fn block<'a>(&'a self, layout: &'a Layout, layer: usize, buffer: &'a mut Vec<f32>) -> Part<'a> {
        let range = &layout.blocks[layer].all;
        if buffer.len() < range.len() {
            buffer.resize(range.len(), 0.0);
        }
        read_entries(&self.files, layout.entries_within(range), &mut buffer[..range.len()]);
        Part::values(&buffer[..range.len()], range.start)
    }

    fn final_norm(&self, layout: &Layout) -> &[f32] {
        self.final_norm.get_or_init(|| self.read(layout, &layout.final_norm))
    }

    fn head<'a>(&'a self, layout: &'a Layout) -> Weights<'a> {
        Weights::F32(self.head.get_or_init(|| self.read(layout, &layout.head)))
    }
}

/// Parameters whose matrices products take as bfloat16: where files have them so, they are used as they lie there;
/// otherwise they are rounded once. Gains are `f32`, and so are rows of the embedding.
#[derive(Debug)]
pub struct RoundedParameters {
    files: TensorDirectory,
    /// Ranges of the flat buffer that are no operands of matrix products, by where each begins.
    exact: BTreeMap<usize, Vec<f32>>,
    /// The flat buffer, in which matrices are there; `None` where the files have them.
    rounded: Option<Vec<u16>>,
}

impl RoundedParameters {
    /// `files` hold every entry of the layout in its shape, in an element type that can be read.
    pub(crate) fn new(files: TensorDirectory, layout: &Layout) -> RoundedParameters {
        let blocks = layout.blocks.iter().flat_map(|block| {
            [&block.attention_norm, &block.query_norm, &block.key_norm, &block.kv_up, &block.mlp_norm]
        });
        let exact = blocks.chain([&layout.final_norm]).filter(|range| !range.is_empty()).map(|range| {
            let mut values = vec![0.0; range.len()];
            read_entries(&files, layout.entries_within(range), &mut values);
            (range.start, values)
        });
        let exact = exact.collect();
        let is_product = |entry: &&Entry| {
            entry.shape.len() > 1 && (entry.range != layout.embedding || entry.range == layout.head)
        };
        let matrices: Vec<&Entry> = layout.entries().iter().filter(is_product).collect();
        let as_they_lie = matrices.iter().all(|entry| bits(&files, entry).is_some());
        let rounded = (!as_they_lie).then(|| {
            let mut rounded = vec![0; layout.len()];
            let mut buffer = Vec::new();
            for entry in matrices {
                buffer.resize(entry.range.len().max(buffer.len()), 0.0);
                let values = &mut buffer[..entry.range.len()];
                read_entries(&files, std::slice::from_ref(entry), values);
                round_to(values, &mut rounded[entry.range.clone()]);
            }
            rounded
        });
        RoundedParameters { files, exact, rounded }
    }

    /// Bytes that they take at most beyond the mapped files.
    pub(crate) fn bytes_max(layout: &Layout) -> u64 {
        (layout.len() * size_of::<u16>()) as u64
    }

    fn rounded<'a>(&'a self, layout: &'a Layout) -> Rounded<'a> {
        match &self.rounded {
            Some(values) => Rounded::Values(values),
            None => Rounded::Files(&self.files, layout),
        }
    }
}

impl Storage for RoundedParameters {
    fn embed(&self, layout: &Layout, ids: &[u32], width: usize, x: &mut [f32]) {
        embed(&self.files, layout, ids, width, x);
    }

    fn block<'a>(&'a self, layout: &'a Layout, _: usize, _: &'a mut Vec<f32>) -> Part<'a> {
        Part { exact: Exact::Ranges(&self.exact), rounded: Some(self.rounded(layout)) }
    }

    fn final_norm(&self, layout: &Layout) -> &[f32] {
        &self.exact[&layout.final_norm.start]
    }

    fn head<'a>(&'a self, layout: &'a Layout) -> Weights<'a> {
        self.rounded(layout).weights(&layout.head)
    }
}

/// Rows of the embedding table in files.
fn embed(files: &TensorDirectory, layout: &Layout, ids: &[u32], width: usize, x: &mut [f32]) {
    let table = &layout.entries_within(&layout.embedding)[0].name;
    for (row, &id) in x.chunks_mut(width).zip(ids) {
        files.read_f32_part(table, id as usize * width, row).expect("checked when it was opened");
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
