//! Where each parameter lies in the flat buffer, and what files call it.

use std::ops::Range;

/// One named parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in Hugging Face layout.
    pub name: String,
    /// Its shape there.
    pub shape: Vec<usize>,
    /// Its place in the flat buffer.
    pub range: Range<usize>,
}

/// The ranges of one block; empty where a family has no such parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    /// All of them.
    pub all: Range<usize>,
    pub attention_norm: Range<usize>,
    /// `[H*E + 2*K*E, D]`; of latent attention the rows that [`crate::Architecture::latent_width`] describes.
    pub qkv: Range<usize>,
    /// Gain of the queries' norm, or of the row they are made from.
    pub query_norm: Range<usize>,
    /// Gain of the keys' norm, or of the row that keys and values are made from.
    pub key_norm: Range<usize>,
    /// Latent attention: `[H*(A+P), rank]`.
    pub query_up: Range<usize>,
    /// Latent attention: `[H*(A+B), R]`.
    pub kv_up: Range<usize>,
    /// `[D, H*Ev]`.
    pub attention_output: Range<usize>,
    pub mlp_norm: Range<usize>,
    /// `[2F, D]`, gate first.
    pub gate_up: Range<usize>,
    /// `[D, F]`.
    pub down: Range<usize>,
}

/// The parameters of a model: names for files, ranges for arithmetic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    entries: Vec<Entry>,
    pub(crate) embedding: Range<usize>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) final_norm: Range<usize>,
    /// The embedding's range when the two are tied.
    pub(crate) head: Range<usize>,
}

impl Layout {
    /// Every parameter, in the order of the flat buffer.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Numbers of parameters by part.
    pub fn part_sizes(&self) -> PartSizes {
        let mut sizes = PartSizes::default();
        for entry in &self.entries {
            let part = match &entry.name {
                _ if entry.range == self.embedding => &mut sizes.embedding,
                _ if entry.range == self.head => &mut sizes.head,
                name if name.contains(".self_attn.") => &mut sizes.attention,
                name if name.contains(".mlp.") => &mut sizes.mlp,
                _ => &mut sizes.norms,
            };
            *part += entry.range.len();
        }
        sizes
    }

    /// The entries within a range of the flat buffer that begins and ends with whole ones.
    pub(crate) fn entries_within(&self, range: &Range<usize>) -> &[Entry] {
        let first = self.entries.partition_point(|entry| entry.range.start < range.start);
        let last = self.entries.partition_point(|entry| entry.range.start < range.end);
        &self.entries[first..last]
    }

    /// Number of parameters: the length of the flat buffer.
    pub fn len(&self) -> usize {
        self.entries.last().map_or(0, |entry| entry.range.end)
    }

    /// Whether there is no parameter.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The range of the embedding table.
    pub fn embedding(&self) -> Range<usize> {
        self.embedding.clone()
    }

    /// The range of the head's matrix: the embedding's when the two are tied.
    pub fn head(&self) -> Range<usize> {
        self.head.clone()
    }
}

/// Numbers of parameters by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartSizes {
    /// The embedding table.
    pub embedding: usize,
    /// Attention, its own norms included.
    pub attention: usize,
    /// The MLPs.
    pub mlp: usize,
    /// The norms around attention and MLP, and the last one.
    pub norms: usize,
    /// The head; 0 when it is the embedding table.
    pub head: usize,
}

impl PartSizes {
    /// All of them.
    pub fn total(&self) -> usize {
        let PartSizes { embedding, attention, mlp, norms, head } = *self;
        embedding + attention + mlp + norms + head
    }
}

/// Builds a [`Layout`] in order. Groups of parameters that one product or pass takes together are pushed in one call.
#[derive(Default)]
pub(crate) struct LayoutBuilder {
    layout: Layout,
}

impl LayoutBuilder {
    /// Embedding, blocks as `block` builds each, final norm, and the head where it is not tied: how every family here
    /// is laid out.
    pub fn decoder(
        vocab: usize,
        width: usize,
        layers: usize,
        tied: bool,
        block: impl Fn(&mut BlockBuilder),
    ) -> Layout {
        let mut build = LayoutBuilder::default();
        build.layout.embedding = build.push("model.embed_tokens.weight".into(), &[vocab, width]);
        for layer in 0..layers {
            let start = build.layout.len();
            let mut one = BlockBuilder {
                prefix: format!("model.layers.{layer}."),
                ranges: Block::default(),
                build: &mut build,
            };
            block(&mut one);
            let mut ranges = one.ranges;
            ranges.all = start..build.layout.len();
            build.layout.blocks.push(ranges);
        }
        build.layout.final_norm = build.push("model.norm.weight".into(), &[width]);
        build.layout.head = match tied {
            true => build.layout.embedding.clone(),
            false => build.push("lm_head.weight".into(), &[vocab, width]),
        };
        build.layout
    }

    fn push(&mut self, name: String, shape: &[usize]) -> Range<usize> {
        let start = self.layout.len();
        let range = start..start + shape.iter().product::<usize>();
        self.layout.entries.push(Entry { name, shape: shape.to_vec(), range: range.clone() });
        range
    }
}

/// Adds the parameters of one block. Names are given without what is common to the block, `model.layers.<i>.` in front
/// and `.weight` behind.
pub(crate) struct BlockBuilder<'a> {
    prefix: String,
    /// What has been added so far.
    pub ranges: Block,
    build: &'a mut LayoutBuilder,
}

impl BlockBuilder<'_> {
    /// The gain of a norm.
    pub fn gain(&mut self, name: &str, width: usize) -> Range<usize> {
        self.build.push(format!("{}{name}.weight", self.prefix), &[width])
    }

    /// Matrices `(name, rows)` of `columns` columns, one below the other.
    pub fn matrices<const N: usize>(&mut self, parts: [(&str, usize); N], columns: usize) -> Range<usize> {
        let ranges = parts
            .map(|(name, rows)| self.build.push(format!("{}{name}.weight", self.prefix), &[rows, columns]));
        ranges[0].start..ranges[N - 1].end
    }
}
