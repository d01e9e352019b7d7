//! `y = x W^T` for generation: the bits of a row of `y` depend on that row of `x` alone, not on the rows beside it, and
//! every number of rows is fast, from one to hundreds.
//!
//! Each result is one chain of fused multiply-adds over the columns of `x`, in their order, so neither the shape of the
//! tiles nor the vector width can change it. Lanes of a vector are rows of `x`, which is small and is brought into that
//! order first; `W` is read as it lies, once for each block of rows. [`mix`] is the product without the transposition,
//! for the small matrices of attention.

pub(crate) mod bf16;

use crate::Precision;
use crate::matmul::{SharedMut, Write};
use crate::simd::Instructions;
use crate::weights::Numbers;
use rayon::prelude::*;
use std::cell::Cell;

/// Outputs a task.
const OUTPUTS: usize = 32;
/// Columns that [`arrange`] brings into place at a time.
const COLUMNS: usize = 16;
/// Multiplications below which it does not pay to share them between threads.
const SHARED_MIN: usize = 1 << 16;

/// Where the operands of a product lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Rows, `N`.
    pub rows: usize,
    /// Columns of `x`.
    pub input: usize,
    /// Columns of `y`.
    pub output: usize,
    /// Elements from one row of `x` to the next.
    pub input_stride: usize,
    /// Elements from one row of `y` to the next.
    pub output_stride: usize,
}

/// `y [N, out] (+)= x [N, in] W^T` with `w` `[out, in]`.
///
/// # Panics
/// When the shapes do not fit.
pub(crate) fn product(shape: Shape, x: &[f32], w: &[f32], y: &mut [f32], write: Write) {
    multiply(shape, x, w, y, write, SHARED_MIN);
}

/// [`product`], or with operands rounded to bfloat16.
pub(crate) fn product_of(
    precision: Precision,
    shape: Shape,
    x: &[f32],
    w: Numbers,
    y: &mut [f32],
    write: Write,
) {
    match (precision, w) {
        (Precision::F32, Numbers::F32(w)) => product(shape, x, w, y, write),
        (Precision::F32, Numbers::Bf16(_)) => panic!("rounded parameters have products of bfloat16 only"),
        (Precision::Bf16, w) => bf16::product(shape, x, w, y, write),
    }
}

/// [`product`] on the calling thread.
pub(crate) fn product_here(shape: Shape, x: &[f32], w: &[f32], y: &mut [f32], write: Write) {
    multiply(shape, x, w, y, write, usize::MAX);
}

/// Tasks have at least so many multiplications.
fn multiply(shape: Shape, x: &[f32], w: &[f32], y: &mut [f32], write: Write, task_min: usize) {
    let Shape { rows, input, output, input_stride, output_stride } = shape;
    if rows == 0 || output == 0 {
        return;
    }
    assert!(input <= input_stride && (rows - 1) * input_stride + input <= x.len(), "x is [N, in]");
    assert!(output <= output_stride && (rows - 1) * output_stride + output <= y.len(), "y is [N, out]");
    assert_eq!(w.len(), output * input, "W is [out, in]");
    let mut lanes = LANES.take();
    let kind = Kind::detect();
    // A number brought into place takes about as long as twenty multiplications.
    let parts_min = task_min.div_ceil(20 * COLUMNS * rows.min(kind.lanes() * kind.vectors_max()));
    arrange(shape, x, kind, parts_min, &mut lanes);
    let out = SharedMut(y.as_mut_ptr());
    let panel = |first: usize, outputs: usize| {
        let w = &w[first * input..][..outputs * input];
        // SAFETY: `first` is a column of the first row.
        let y = SharedMut(unsafe { out.at(first) });
        let panel = Panel { shape, lanes: &lanes, outputs, w, y, write };
        // SAFETY: the machine has the instructions of `kind`; the columns of `y` are this panel's alone, and lie within
        // it, as was checked above.
        unsafe { run(&panel, kind) };
    };
    let tasks_min = task_min.div_ceil(OUTPUTS * input.max(1) * rows.div_ceil(kind.lanes()));
    let tasks = output.div_ceil(OUTPUTS);
    if tasks <= tasks_min {
        panel(0, output);
    } else {
        let task = |task: usize| panel(task * OUTPUTS, OUTPUTS.min(output - task * OUTPUTS));
        (0..tasks).into_par_iter().with_min_len(tasks_min).for_each(task);
    }
    LANES.set(lanes);
}

thread_local! {
    /// What [`arrange`] wrote last, to be written over. Taken while in use, since a waiting thread may be given
    /// another product.
    static LANES: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// The instructions to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Plain,
}

impl Kind {
    fn detect() -> Kind {
        match Instructions::current() {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 | Instructions::Avx512Bf16 => Kind::Avx512,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => Kind::Avx2,
            _ => Kind::Plain,
        }
    }

    /// Numbers in a vector.
    fn lanes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => 16,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 8,
            Kind::Plain => 4,
        }
    }

    /// Vectors that a block of rows takes at most.
    fn vectors_max(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => 4,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 2,
            Kind::Plain => 2,
        }
    }

    /// Blocks of rows: `(first, rows, vectors)`.
    fn blocks(self, rows: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let most = self.lanes() * self.vectors_max();
        (0..rows).step_by(most).map(move |first| {
            let count = most.min(rows - first);
            (first, count, count.div_ceil(self.lanes()))
        })
    }
}

/// Brings rows of `x` side by side, as lanes: block after block, `[in, vectors * lanes]` each, rows that are missing
/// being zero. Tasks take at least `parts_min` times [`COLUMNS`].
fn arrange(shape: Shape, x: &[f32], kind: Kind, parts_min: usize, lanes: &mut Vec<f32>) {
    let Shape { rows, input, input_stride, .. } = shape;
    lanes.clear();
    lanes.resize(rows.div_ceil(kind.lanes()) * kind.lanes() * input, 0.0);
    let mut rest = &mut lanes[..];
    for (first, count, vectors) in kind.blocks(rows) {
        let width = vectors * kind.lanes();
        let (block, behind) = rest.split_at_mut(input * width);
        rest = behind;
        // A few columns at a time, so that what is written stays in the nearest cache.
        block.par_chunks_mut(COLUMNS * width).enumerate().with_min_len(parts_min).for_each(
            |(part, block)| {
                for row in first..first + count {
                    let x = &x[row * input_stride + part * COLUMNS..];
                    for (column, &value) in block.chunks_mut(width).zip(x) {
                        column[row - first] = value;
                    }
                }
            },
        );
    }
}

/// Some outputs of all rows.
struct Panel<'a> {
    shape: Shape,
    /// As [`arrange`] wrote it.
    lanes: &'a [f32],
    outputs: usize,
    /// `[outputs, in]`.
    w: &'a [f32],
    /// The first of these outputs in the first row.
    y: SharedMut,
    write: Write,
}

impl Job for Panel<'_> {
    #[inline(always)]
    unsafe fn run<T: Vector>(&self, kind: Kind) {
        let mut at = 0;
        for (first, count, vectors) in kind.blocks(self.shape.rows) {
            let size = self.shape.input * vectors * T::LANES;
            let block = Block { first, count, lanes: &self.lanes[at..at + size] };
            at += size;
            // SAFETY: passed on to the caller. Tiles take as many accumulators as there are registers for.
            unsafe {
                match vectors {
                    1 => self.tiles::<T, 1, 8>(block),
                    2 => self.tiles::<T, 2, 4>(block),
                    3 => self.tiles::<T, 3, 4>(block),
                    _ => self.tiles::<T, 4, 4>(block),
                }
            }
        }
    }
}

impl Panel<'_> {
    /// Every output of a block of rows, `O` of `V` vectors at a time.
    #[inline(always)]
    unsafe fn tiles<T: Vector, const V: usize, const O: usize>(&self, block: Block) {
        let input = self.shape.input;
        let (outputs, stride) = (self.outputs, V * T::LANES);
        let (x, mut output) = (block.lanes.as_ptr(), 0);
        // SAFETY: passed on to the caller; rows of `w` from `output` on are there.
        unsafe {
            while output + O <= outputs {
                let sums = sums::<T, V, O>(input, (x, stride), (self.w.as_ptr().add(output * input), input));
                self.store(&sums, output, block);
                output += O;
            }
            while output < outputs {
                let sums = sums::<T, V, 1>(input, (x, stride), (self.w.as_ptr().add(output * input), input));
                self.store(&sums, output, block);
                output += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn store<T: Vector, const V: usize, const O: usize>(
        &self,
        sums: &[[T; V]; O],
        output: usize,
        block: Block,
    ) {
        // SAFETY: vectors are as many numbers as they have lanes; rows of `y` and outputs lie within it.
        unsafe {
            for row in 0..block.count {
                let y = self.y.at((block.first + row) * self.shape.output_stride + output);
                for (o, sums) in sums.iter().enumerate() {
                    let sum = *sums.as_ptr().cast::<f32>().add(row);
                    let y = y.add(o);
                    *y = if self.write == Write::Add { *y + sum } else { sum };
                }
            }
        }
    }
}

/// Rows that are worked on at once.
#[derive(Clone, Copy)]
struct Block<'a> {
    first: usize,
    count: usize,
    /// `[in, vectors * lanes]`.
    lanes: &'a [f32],
}

/// `y [N, columns] = w [N, in] x [in, columns]` on the calling thread; rows of the three are `w_stride`, `x_stride` and
/// `y_stride` apart. Each result is one chain of fused multiply-adds, as in [`product`].
///
/// # Panics
/// When the shapes do not fit.
pub(crate) fn mix(
    (rows, input, columns): (usize, usize, usize),
    (w, w_stride): (&[f32], usize),
    (x, x_stride): (&[f32], usize),
    (y, y_stride): (&mut [f32], usize),
) {
    let holds = |length: usize, rows: usize, columns: usize, stride: usize| {
        rows == 0
            || columns == 0
            || (columns <= stride || rows == 1) && (rows - 1) * stride + columns <= length
    };
    assert!(holds(w.len(), rows, input, w_stride), "w is [N, in]");
    assert!(holds(x.len(), input, columns, x_stride), "x is [in, columns]");
    assert!(holds(y.len(), rows, columns, y_stride), "y is [N, columns]");
    let mix = Mix {
        rows,
        input,
        columns,
        w: (w.as_ptr(), w_stride),
        x: (x.as_ptr(), x_stride),
        y: (y.as_mut_ptr(), y_stride),
    };
    // SAFETY: the machine has these instructions, and all elements lie in the slices, as has just been checked.
    unsafe { run(&mix, Kind::detect()) }
}

/// The operands of [`mix`], each with the distance of its rows.
struct Mix {
    rows: usize,
    input: usize,
    columns: usize,
    w: (*const f32, usize),
    x: (*const f32, usize),
    y: (*mut f32, usize),
}

impl Job for Mix {
    #[inline(always)]
    unsafe fn run<T: Vector>(&self, _: Kind) {
        let mut column = 0;
        // SAFETY: passed on to the caller; columns and rows stay below their numbers.
        unsafe {
            while column + 4 * T::LANES <= self.columns {
                self.rows::<T, 4>(column);
                column += 4 * T::LANES;
            }
            while column + T::LANES <= self.columns {
                self.rows::<T, 1>(column);
                column += T::LANES;
            }
            while column < self.columns {
                self.rows::<f32, 1>(column);
                column += 1;
            }
        }
    }
}

impl Mix {
    /// `V` vectors of columns of every row.
    #[inline(always)]
    unsafe fn rows<T: Vector, const V: usize>(&self, column: usize) {
        let mut row = 0;
        // SAFETY: passed on to the caller.
        unsafe {
            while row + 2 <= self.rows {
                self.tile::<T, V, 2>(row, column);
                row += 2;
            }
            if row < self.rows {
                self.tile::<T, V, 1>(row, column);
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<T: Vector, const V: usize, const O: usize>(&self, row: usize, column: usize) {
        // SAFETY: passed on to the caller.
        unsafe {
            let (w, w_stride) = self.w;
            let (x, x_stride) = self.x;
            let sums =
                sums::<T, V, O>(self.input, (x.add(column), x_stride), (w.add(row * w_stride), w_stride));
            for (o, sums) in sums.iter().enumerate() {
                let y = self.y.0.add((row + o) * self.y.1 + column);
                for (v, sum) in sums.iter().enumerate() {
                    y.add(v * T::LANES).cast::<T>().write_unaligned(*sum);
                }
            }
        }
    }
}

/// Inner products of `O` rows of `w` with `V` vectors of columns of `x`, `in` long; each operand is its first element and
/// the distance of its rows.
///
/// # Safety
/// All of that must be there, and the machine have the instructions of `T`.
#[inline(always)]
unsafe fn sums<T: Vector, const V: usize, const O: usize>(
    input: usize,
    (x, x_stride): (*const f32, usize),
    (w, w_stride): (*const f32, usize),
) -> [[T; V]; O] {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut sums = [[T::zero(); V]; O];
        for i in 0..input {
            let mut vectors = [T::zero(); V];
            for (v, vector) in vectors.iter_mut().enumerate() {
                *vector = T::load(x.add(i * x_stride + v * T::LANES));
            }
            for (o, sums) in sums.iter_mut().enumerate() {
                let factor = T::splat(*w.add(o * w_stride + i));
                for (sum, vector) in sums.iter_mut().zip(vectors) {
                    *sum = T::fused(vector, factor, *sum);
                }
            }
        }
        sums
    }
}

/// What is compiled for each kind of vectors.
trait Job {
    /// # Safety
    /// The machine must have `T`, and the operands be what their owner says.
    unsafe fn run<T: Vector>(&self, kind: Kind);
}

/// Does `job` with the vectors of `kind`.
///
/// # Safety
/// As [`Job::run`].
unsafe fn run<J: Job>(job: &J, kind: Kind) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn avx512<J: Job>(job: &J) {
        // SAFETY: passed on to the caller.
        unsafe { job.run::<std::arch::x86_64::__m512>(Kind::Avx512) }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<J: Job>(job: &J) {
        // SAFETY: passed on to the caller.
        unsafe { job.run::<std::arch::x86_64::__m256>(Kind::Avx2) }
    }
    // SAFETY: passed on to the caller.
    unsafe {
        match kind {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => avx512(job),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => avx2(job),
            Kind::Plain => job.run::<[f32; 4]>(kind),
        }
    }
}

/// A vector register. Its functions need the machine to have it.
trait Vector: Copy {
    const LANES: usize;
    unsafe fn zero() -> Self;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// `a * b + c`, rounded once.
    unsafe fn fused(a: Self, b: Self, c: Self) -> Self;
}

impl Vector for f32 {
    const LANES: usize = 1;
    #[inline(always)]
    unsafe fn zero() -> Self {
        0.0
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        value
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { *from }
    }
    #[inline(always)]
    unsafe fn fused(a: Self, b: Self, c: Self) -> Self {
        a.mul_add(b, c)
    }
}

impl Vector for [f32; 4] {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; 4]
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { from.cast::<Self>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn fused(a: Self, b: Self, c: Self) -> Self {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! x86_vector {
    ($vector:ident, $lanes:literal, $zero:ident, $splat:ident, $load:ident, $fused:ident) => {
        impl Vector for std::arch::x86_64::$vector {
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: passed on to the caller, here and below.
                unsafe { std::arch::x86_64::$zero() }
            }
            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                // SAFETY: see above.
                unsafe { std::arch::x86_64::$splat(value) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: see above.
                unsafe { std::arch::x86_64::$load(from) }
            }
            #[inline(always)]
            unsafe fn fused(a: Self, b: Self, c: Self) -> Self {
                // SAFETY: see above.
                unsafe { std::arch::x86_64::$fused(a, b, c) }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
x86_vector!(__m256, 8, _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_fmadd_ps);
#[cfg(target_arch = "x86_64")]
x86_vector!(__m512, 16, _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_fmadd_ps);

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * step).sin()).collect()
    }

    /// The chain that every result is.
    fn chain(x: &[f32], w: &[f32]) -> f32 {
        x.iter().zip(w).fold(0.0, |sum, (x, w)| x.mul_add(*w, sum))
    }

    #[test]
    fn every_result_is_one_chain_of_fused_multiply_adds() {
        for (rows, input, output) in
            [(1, 1, 1), (1, 70, 45), (3, 7, 33), (16, 9, 8), (17, 40, 70), (150, 33, 37)]
        {
            let shape = Shape { rows, input, output, input_stride: input + 2, output_stride: output + 3 };
            let (x, w) = (noise(rows * (input + 2), 0.7), noise(output * input, 0.3));
            let old = noise(rows * (output + 3), 0.11);
            for write in [Write::Replace, Write::Add] {
                let mut y = old.clone();
                product(shape, &x, &w, &mut y, write);
                for (n, (row, old)) in y.chunks(output + 3).zip(old.chunks(output + 3)).enumerate() {
                    for o in 0..output {
                        let sum = chain(&x[n * (input + 2)..][..input], &w[o * input..][..input]);
                        assert_eq!(row[o], if write == Write::Add { old[o] + sum } else { sum });
                    }
                    assert_eq!(row[output..], old[output..], "what lies between rows is left alone");
                }
            }
        }
    }

    #[test]
    fn mixing_is_the_same_chain() {
        for (rows, input, columns) in [(1, 1, 1), (3, 5, 70), (4, 130, 91), (2, 0, 3)] {
            let (w, x) = (noise(rows * (input + 1), 0.7), noise(input * (columns + 2), 0.3));
            let mut y = vec![9.0; rows * (columns + 3)];
            mix((rows, input, columns), (&w, input + 1), (&x, columns + 2), (&mut y, columns + 3));
            for (row, y) in y.chunks(columns + 3).enumerate() {
                for column in 0..columns {
                    let of_x: Vec<f32> = (0..input).map(|i| x[i * (columns + 2) + column]).collect();
                    assert_eq!(y[column], chain(&w[row * (input + 1)..][..input], &of_x));
                }
                assert_eq!(y[columns..], [9.0; 3]);
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let (rows, input, output) = (37, 29, 31);
        let shape = Shape { rows, input, output, input_stride: input, output_stride: output };
        let (x, w) = (noise(rows * input, 0.7), noise(output * input, 0.3));
        let with = |kind: Kind| {
            let (mut lanes, mut y) = (Vec::new(), vec![0.0; rows * output]);
            arrange(shape, &x, kind, usize::MAX, &mut lanes);
            let y_at = SharedMut(y.as_mut_ptr());
            let panel =
                Panel { shape, lanes: &lanes, outputs: output, w: &w, y: y_at, write: Write::Replace };
            // SAFETY: `y` is large enough and nobody else's; the callers below see to the instructions.
            unsafe { run(&panel, kind) };
            y
        };
        let plain = with(Kind::Plain);
        #[cfg(target_arch = "x86_64")]
        if Kind::detect() != Kind::Plain {
            assert_eq!(with(Kind::detect()), plain);
            assert_eq!(with(Kind::Avx2), plain, "whatever has AVX-512 has AVX2 as well");
        }
    }
}
