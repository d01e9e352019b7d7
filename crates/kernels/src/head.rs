//! The language-model head: from hidden rows to the log-probabilities of their targets, and back from the
//! derivative of a loss with respect to those log-probabilities. `[N, V]` logits never exist at once.
//!
//! With `z = h W^T` and `lse = log sum_v exp(z_v)`, the log-probability of target `y` is `z_y - lse`. A loss that
//! depends on the logits through each row's log-probability and `lse` only (which is every objective of this
//! program but distillation) has
//!
//! `dL/dz_v = dL/dlogp * (1[v = y] - p_v) + dL/dlse * p_v`,  `p_v = exp(z_v - lse)`.
//!
//! [`Head::train`] makes the logits of whole windows once, asks for the derivatives while they are still in cache,
//! and turns them into gradients: three products. It serves rules whose derivative for a window depends on that
//! window alone. Rules that must see the whole batch first use [`Head::log_probs`], then [`Head::backward`]: the
//! logits are made twice, four products.

use crate::linear::Linear;
use crate::matmul::{Matrix, MatrixMut, Precision, Write, matmul};
use crate::simd::{self, simd_fn};
use crate::weights::Weights;
use rayon::prelude::*;
use remit_batch::Rule;

/// Bytes of logits that are made at a time, where windows allow: they should stay in the last-level cache.
const CACHED: usize = 16 << 20;
/// Rows below which a product would spend its time packing the vocabulary.
const SMALLEST: usize = 64;
/// Bytes of logits beyond which even a single window is too large to be kept whole.
const LARGEST: usize = 512 << 20;

/// Shapes of the head.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Model width, `D`.
    pub width: usize,
    /// Rows of `W`, `V`.
    pub vocab: usize,
    /// Arithmetic of the products.
    pub precision: Precision,
}

/// What one row of the head yields, `[N]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Log-probability of the target.
    pub log_probs: Vec<f32>,
    /// Logarithm of the softmax denominator.
    pub lse: Vec<f32>,
}

/// The derivative of the loss with respect to what [`Rows`] holds, `[N]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Derivatives {
    /// With respect to the log-probability.
    pub log_probs: Vec<f32>,
    /// With respect to `lse`; zero without z-loss.
    pub lse: Vec<f32>,
}

/// Buffers that one head call leaves to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    logits: Vec<f32>,
}

/// Everything a training call writes.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// `[N, D]`, every entry written.
    pub hidden: &'a mut [f32],
    /// `[V, D]`, added to.
    pub parameters: &'a mut [f32],
}

impl Head {
    /// Log-probabilities of `targets [N]` given `hidden [N, D]` and `w [V, D]`.
    pub fn log_probs(&self, hidden: &[f32], w: Weights, targets: &[u32], scratch: &mut Scratch) -> Rows {
        let mut rows = Rows { log_probs: vec![0.0; targets.len()], lse: vec![0.0; targets.len()] };
        for (first, count) in self.chunks(targets.len(), 1) {
            let range = first..first + count;
            let logits = self.logits(&hidden[first * self.width..], w, count, scratch);
            let (log_probs, lse) = (&mut rows.log_probs[range.clone()], &mut rows.lse[range.clone()]);
            log_softmax(logits, &targets[range], log_probs, lse, self.vocab);
        }
        rows
    }

    /// Log-probabilities and the gradients of the loss that `rule` differentiates, whole windows of `length` rows at
    /// a time.
    #[allow(clippy::too_many_arguments, reason = "inputs, rule, results")]
    pub fn train(
        &self,
        hidden: &[f32],
        w: &[f32],
        targets: &[u32],
        length: usize,
        rule: &mut dyn Rule,
        gradients: Gradients,
        scratch: &mut Scratch,
    ) -> Rows {
        let Gradients { hidden: d_hidden, parameters: d_w } = gradients;
        if length * self.vocab * size_of::<f32>() > LARGEST {
            let rows = self.log_probs(hidden, w.into(), targets, scratch);
            let derivatives = differentiate_whole(rule, &rows);
            self.backward(
                hidden,
                w,
                targets,
                &rows,
                &derivatives,
                Gradients { hidden: d_hidden, parameters: d_w },
                scratch,
            );
            return rows;
        }
        let mut rows = Rows { log_probs: vec![0.0; targets.len()], lse: vec![0.0; targets.len()] };
        let mut derivatives =
            Derivatives { log_probs: vec![0.0; targets.len()], lse: vec![0.0; targets.len()] };
        for (first, count) in self.chunks(targets.len(), length) {
            let range = first..first + count;
            let hidden = &hidden[first * self.width..][..count * self.width];
            let logits = self.logits(hidden, w.into(), count, scratch);
            let (log_probs, lse) = (&mut rows.log_probs[range.clone()], &mut rows.lse[range.clone()]);
            log_softmax(logits, &targets[range.clone()], log_probs, lse, self.vocab);
            let (d_log_probs, d_lse) =
                (&mut derivatives.log_probs[range.clone()], &mut derivatives.lse[range.clone()]);
            rule.differentiate(first, log_probs, lse, d_log_probs, d_lse);
            let d_hidden = &mut d_hidden[first * self.width..][..count * self.width];
            self.chunk_backward(
                hidden,
                w,
                &targets[range],
                lse,
                d_log_probs,
                d_lse,
                Gradients { hidden: d_hidden, parameters: d_w },
                logits,
            );
        }
        rows
    }

    /// The gradients of a loss that compares whole rows of logits with those of another model, `teacher` with the same
    /// vocabulary. `rule(row, student, teacher, gradient)` writes `d(loss)/d(student logits)`, `[V]` each, from many
    /// threads; what it returns comes back in the order of the rows.
    ///
    /// Logits of both exist for as many rows as fit in cache: five products.
    #[allow(clippy::too_many_arguments, reason = "two models, rule, results")]
    pub fn distill<S: Send>(
        &self,
        hidden: &[f32],
        w: &[f32],
        (teacher, teacher_hidden, teacher_w): (&Head, &[f32], Weights),
        rule: impl Fn(usize, &[f32], &[f32], &mut [f32]) -> S + Sync,
        gradients: Gradients,
        scratch: &mut Scratch,
        teacher_scratch: &mut Scratch,
    ) -> Vec<S> {
        let Head { width, vocab, precision } = *self;
        assert_eq!(vocab, teacher.vocab, "one vocabulary");
        let num_rows = hidden.len() / width;
        let mut results = Vec::with_capacity(num_rows);
        let mut d_logits = Vec::new();
        for (first, rows) in self.chunks(num_rows, 1) {
            let hidden = &hidden[first * width..][..rows * width];
            let student = &*self.logits(hidden, w.into(), rows, scratch);
            let teacher =
                &*teacher.logits(&teacher_hidden[first * teacher.width..], teacher_w, rows, teacher_scratch);
            d_logits.resize(rows * vocab, 0.0);
            let each =
                d_logits.par_chunks_mut(vocab).zip(student.par_chunks(vocab)).zip(teacher.par_chunks(vocab));
            results.par_extend(each.enumerate().map(|(index, ((gradient, student), teacher))| {
                rule(first + index, student, teacher, gradient)
            }));
            let d_hidden = &mut gradients.hidden[first * width..][..rows * width];
            let gradients = Gradients { hidden: d_hidden, parameters: &mut *gradients.parameters };
            products_backward(&d_logits, rows, hidden, w, (width, vocab, precision), gradients);
        }
        results
    }

    /// What `measure(row, own, other)` makes of each row's logits and those of another model with the same vocabulary,
    /// `[V]` each. It is called from many threads; what it returns comes back in the order of the rows.
    ///
    /// Logits of both exist for as many rows as fit in cache.
    ///
    /// # Panics
    /// When the vocabularies differ in size.
    pub fn compare<S: Send>(
        &self,
        hidden: &[f32],
        w: Weights,
        (other, other_hidden, other_w): (&Head, &[f32], Weights),
        measure: impl Fn(usize, &[f32], &[f32]) -> S + Sync,
        scratch: &mut Scratch,
        other_scratch: &mut Scratch,
    ) -> Vec<S> {
        let Head { width, vocab, .. } = *self;
        assert_eq!(vocab, other.vocab, "one vocabulary");
        let num_rows = hidden.len() / width;
        let mut results = Vec::with_capacity(num_rows);
        for (first, rows) in self.chunks(num_rows, 1) {
            let own = &*self.logits(&hidden[first * width..][..rows * width], w, rows, scratch);
            let others = &other_hidden[first * other.width..][..rows * other.width];
            let others = &*other.logits(others, other_w, rows, other_scratch);
            let each = own.par_chunks(vocab).zip(others.par_chunks(vocab)).enumerate();
            results.par_extend(each.map(|(index, (own, other))| measure(first + index, own, other)));
        }
        results
    }

    /// The gradients that belong to `derivatives`, from logits made once more.
    #[allow(clippy::too_many_arguments, reason = "inputs, what forward gave, derivatives, results")]
    pub fn backward(
        &self,
        hidden: &[f32],
        w: &[f32],
        targets: &[u32],
        rows: &Rows,
        derivatives: &Derivatives,
        gradients: Gradients,
        scratch: &mut Scratch,
    ) {
        let Gradients { hidden: d_hidden, parameters: d_w } = gradients;
        for (first, count) in self.chunks(targets.len(), 1) {
            let range = first..first + count;
            let hidden = &hidden[first * self.width..][..count * self.width];
            let logits = self.logits(hidden, w.into(), count, scratch);
            let d_hidden = &mut d_hidden[first * self.width..][..count * self.width];
            self.chunk_backward(
                hidden,
                w,
                &targets[range.clone()],
                &rows.lse[range.clone()],
                &derivatives.log_probs[range.clone()],
                &derivatives.lse[range],
                Gradients { hidden: d_hidden, parameters: d_w },
                logits,
            );
        }
    }

    /// All logits `[N, V]`, the bits of a row independent of the rows beside it: for generation.
    pub fn logits_alone(&self, hidden: &[f32], w: Weights, logits: &mut [f32]) {
        let Head { width, vocab, precision } = *self;
        let rows = hidden.len() / width;
        let product = Linear { alone: true, ..Linear::new(rows, width, vocab, precision) };
        product.forward(hidden, w, logits, Write::Replace);
    }

    /// Ranges `(first row, rows)` that cover `rows` rows in multiples of `grain`, as many as [`CACHED`] holds.
    fn chunks(&self, rows: usize, grain: usize) -> impl Iterator<Item = (usize, usize)> {
        let fitting = (CACHED / size_of::<f32>() / self.vocab).max(SMALLEST);
        let count = (fitting / grain).max(1) * grain;
        (0..rows).step_by(count).map(move |first| (first, count.min(rows - first)))
    }

    fn logits<'a>(&self, hidden: &[f32], w: Weights, rows: usize, scratch: &'a mut Scratch) -> &'a mut [f32] {
        let size = rows * self.vocab;
        if scratch.logits.len() < size {
            scratch.logits.resize(size, 0.0);
        }
        let logits = &mut scratch.logits[..size];
        let product = Linear::new(rows, self.width, self.vocab, self.precision);
        product.forward(&hidden[..rows * self.width], w, logits, Write::Replace);
        logits
    }

    #[allow(clippy::too_many_arguments, reason = "one chunk of everything that backward takes")]
    fn chunk_backward(
        &self,
        hidden: &[f32],
        w: &[f32],
        targets: &[u32],
        lse: &[f32],
        d_log_probs: &[f32],
        d_lse: &[f32],
        gradients: Gradients,
        logits: &mut [f32],
    ) {
        let Head { width, vocab, precision } = *self;
        let rows = targets.len();
        logits.par_chunks_mut(vocab).enumerate().for_each(|(i, row)| {
            let (d_log_prob, d_lse) = (d_log_probs[i], d_lse[i]);
            softmax_scaled(row, lse[i], d_lse - d_log_prob);
            row[targets[i] as usize] += d_log_prob;
        });
        products_backward(logits, rows, hidden, w, (width, vocab, precision), gradients);
    }
}

/// From the derivative of the logits, `[rows, V]`, to that of the hidden rows and the parameters.
fn products_backward(
    d_logits: &[f32],
    rows: usize,
    hidden: &[f32],
    w: &[f32],
    (width, vocab, precision): (usize, usize, Precision),
    gradients: Gradients,
) {
    let d_logits = Matrix::new(d_logits, rows, vocab);
    matmul(
        MatrixMut::new(gradients.parameters, vocab, width),
        Write::Add,
        d_logits.transposed(),
        Matrix::new(hidden, rows, width),
        precision,
    );
    matmul(
        MatrixMut::new(gradients.hidden, rows, width),
        Write::Replace,
        d_logits,
        Matrix::new(w, vocab, width),
        precision,
    );
}

/// Asks `rule` for all rows at once.
pub fn differentiate_whole(rule: &mut dyn Rule, rows: &Rows) -> Derivatives {
    let zeros = || vec![0.0; rows.lse.len()];
    let mut derivatives = Derivatives { log_probs: zeros(), lse: zeros() };
    rule.differentiate(0, &rows.log_probs, &rows.lse, &mut derivatives.log_probs, &mut derivatives.lse);
    derivatives
}

fn log_softmax(logits: &[f32], targets: &[u32], log_probs: &mut [f32], lse: &mut [f32], vocab: usize) {
    logits.par_chunks(vocab).zip(targets).zip(log_probs).zip(lse).for_each(
        |(((row, &target), log_prob), lse)| {
            let max = simd::max(row);
            *lse = max + simd::sum_exp(row, max).ln();
            *log_prob = row[target as usize] - *lse;
        },
    );
}

simd_fn!(
    /// `z = factor * exp(z - lse)` in place.
    softmax_scaled(z: &mut [f32], lse: f32, factor: f32) {
        for value in z {
            *value = factor * simd::exp(*value - lse);
        }
    }
);
