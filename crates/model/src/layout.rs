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

/// The ranges of one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub attention_norm: Range<usize>,
    /// `[H*E + 2*K*E, D]`.
    pub qkv: Range<usize>,
    /// `[D, H*E]`.
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

/// Builds a [`Layout`] in order.
#[derive(Default)]
pub(crate) struct LayoutBuilder {
    layout: Layout,
}

impl LayoutBuilder {
    fn push(&mut self, name: impl Into<String>, shape: Vec<usize>) -> Range<usize> {
        let start = self.layout.len();
        let range = start..start + shape.iter().product::<usize>();
        self.layout.entries.push(Entry { name: name.into(), shape, range: range.clone() });
        range
    }

    fn block(&mut self) -> &mut Block {
        self.layout.blocks.last_mut().expect("`begin_block` comes first")
    }

    pub fn embedding(&mut self, name: &str, vocab: usize, width: usize) {
        self.layout.embedding = self.push(name, vec![vocab, width]);
        self.layout.head = self.layout.embedding.clone();
    }

    pub fn begin_block(&mut self) {
        self.layout.blocks.push(Block::default());
    }

    pub fn attention_norm(&mut self, name: String, width: usize) {
        self.block().attention_norm = self.push(name, vec![width]);
    }

    pub fn qkv(&mut self, names: [String; 3], rows: [usize; 3], width: usize) {
        let ranges: Vec<_> =
            names.into_iter().zip(rows).map(|(name, rows)| self.push(name, vec![rows, width])).collect();
        self.block().qkv = ranges[0].start..ranges[2].end;
    }

    pub fn attention_output(&mut self, name: String, width: usize, input: usize) {
        self.block().attention_output = self.push(name, vec![width, input]);
    }

    pub fn mlp_norm(&mut self, name: String, width: usize) {
        self.block().mlp_norm = self.push(name, vec![width]);
    }

    pub fn gate_up(&mut self, names: [String; 2], rows: usize, width: usize) {
        let ranges = names.map(|name| self.push(name, vec![rows, width]));
        self.block().gate_up = ranges[0].start..ranges[1].end;
    }

    pub fn down(&mut self, name: String, width: usize, input: usize) {
        self.block().down = self.push(name, vec![width, input]);
    }

    pub fn final_norm(&mut self, name: &str, width: usize) {
        self.layout.final_norm = self.push(name, vec![width]);
    }

    pub fn head(&mut self, name: &str, vocab: usize, width: usize) {
        self.layout.head = self.push(name, vec![vocab, width]);
    }

    pub fn finish(self) -> Layout {
        self.layout
    }
}
