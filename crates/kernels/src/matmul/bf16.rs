//! Products of operands rounded to bfloat16, with sums in `f32`.
//!
//! Both operands are rounded and laid out in panels first: for every two neighbouring `k` a panel has the pairs of its
//! rows (of `a`) or columns (of `b`) side by side, which is what `vdpbf16ps` takes. Then tiles of the result are made,
//! cut by shape alone.
//!
//! Each result is one chain of fused multiply-adds over [`DEPTH`] `k`, in their order but for the second of a pair, which
//! comes first; then the next chain is added. So its bits depend on its row and its column alone, and are the same with
//! all instructions, unless a number is too small to be normal: `vdpbf16ps` takes it for zero.

mod pack;
mod sums;

use super::{Matrix, MatrixMut, SharedMut, Write};
use crate::simd::Instructions;
use pack::pack;
use rayon::prelude::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};
use std::cell::Cell;
#[cfg(target_arch = "x86_64")]
use sums::Dot;
use sums::Sums;

/// Numbers a chain has: a panel of `b` this deep stays in the nearest cache.
const DEPTH: usize = 512;
/// Rows and columns of a tile at most; multiples of every panel's width.
const TILE: (usize, usize) = (240, 256);
/// Panels that a task lays out: their rows take whole cache lines where columns are contiguous.
const GROUP: usize = 8;
/// Pairs of an operand that are laid out at a time.
const PACKED: usize = 2 << 20;

/// `c = a b` or `c += a b`, whose shapes fit, with `instructions`, which the machine has.
pub(super) fn matmul(c: MatrixMut, write: Write, a: Matrix, b: Matrix, instructions: Instructions) {
    let (m, n, k) = (c.rows, c.columns, a.columns);
    if k == 0 {
        if write == Write::Replace {
            c.data.chunks_mut(c.row_stride).take(m).for_each(|row| row[..n].fill(0.0));
        }
        return;
    }
    let panels = Panels::of(instructions);
    let deep = k.min(8 * DEPTH);
    let most = |width: usize| (PACKED / deep.div_ceil(2)).max(width).next_multiple_of(width);
    let (wide, tall) = (most(TILE.1), most(TILE.0));
    let mut packed = PACKED_OPERANDS.take();
    let out = SharedMut(c.data.as_mut_ptr());
    for first in (0..k).step_by(deep) {
        let depth = deep.min(k - first);
        let write = if first == 0 { write } else { Write::Add };
        for j in (0..n).step_by(wide) {
            let columns = wide.min(n - j);
            panels.lay_out(b.transposed().part(j, columns, first, depth), panels.columns, &mut packed.b);
            for i in (0..m).step_by(tall) {
                let rows = tall.min(m - i);
                panels.lay_out(a.part(i, rows, first, depth), panels.rows, &mut packed.a);
                // SAFETY: rows and columns from `(i, j)` on lie in `c`, which is borrowed mutably.
                let out = SharedMut(unsafe { out.at(i * c.row_stride + j) });
                panels.multiply(&packed, (rows, columns, depth), (out, c.row_stride), write);
            }
        }
    }
    PACKED_OPERANDS.set(packed);
}

/// The operands of a product in panels.
#[derive(Default)]
struct Packed {
    a: Vec<u32>,
    b: Vec<u32>,
}

thread_local! {
    /// What the last product laid out, to be written over. Taken while in use, since a waiting thread may be given
    /// another product.
    static PACKED_OPERANDS: Cell<Packed> = const { Cell::new(Packed { a: Vec::new(), b: Vec::new() }) };
}

/// How wide panels are.
#[derive(Clone, Copy)]
pub(crate) struct Panels {
    pub instructions: Instructions,
    /// Rows of a panel of `a`.
    pub rows: usize,
    /// Columns of a panel of `b`.
    pub columns: usize,
}

impl Panels {
    /// As many sums as registers hold beside what is multiplied.
    pub fn of(instructions: Instructions) -> Panels {
        let (rows, columns) = match instructions {
            Instructions::Avx512Bf16 | Instructions::Avx512 => (12, 32),
            Instructions::Avx2 => (4, 16),
            Instructions::Plain => (4, 8),
        };
        Panels { instructions, rows, columns }
    }

    /// The rows of `x` in panels of `width` on the calling thread, `[panel, pair, width]`.
    pub fn lay_out_here(&self, x: Matrix, width: usize, packed: &mut [u32]) {
        let room = x.rows.next_multiple_of(width) * x.columns.div_ceil(2);
        assert!(room <= packed.len(), "room for whole panels");
        // SAFETY: there is room, as was just checked, and the machine has the instructions.
        unsafe { pack(self.instructions, x, width, packed.as_mut_ptr()) };
    }

    /// The rows of `x` in panels of `width`, `[k / DEPTH, panel, pair, width]`.
    fn lay_out(&self, x: Matrix, width: usize, packed: &mut Vec<u32>) {
        let (count, pairs) = (x.rows.div_ceil(width), pairs(x.columns));
        packed.resize(packed.len().max(count * width * pairs), 0);
        let packed = SharedU32(packed.as_mut_ptr());
        (0..count.div_ceil(GROUP)).into_par_iter().for_each(|group| {
            let first_panel = group * GROUP;
            let rows = (GROUP * width).min(x.rows - first_panel * width);
            let mut at = 0;
            for first in (0..x.columns).step_by(DEPTH) {
                let depth = DEPTH.min(x.columns - first);
                // SAFETY: it lies in what was made room for above, and is this group's alone.
                unsafe {
                    let out = packed.at(at + first_panel * width * depth.div_ceil(2));
                    pack(self.instructions, x.part(first_panel * width, rows, first, depth), width, out);
                }
                at += count * width * depth.div_ceil(2);
            }
        });
    }

    /// `c`, of `(m, n, k)`, from panels.
    fn multiply(
        &self,
        packed: &Packed,
        (m, n, k): (usize, usize, usize),
        (c, row_stride): (SharedMut, usize),
        write: Write,
    ) {
        let (tile_m, tile_n) = self.tile(m, n);
        let tiles_n = n.div_ceil(tile_n);
        (0..m.div_ceil(tile_m) * tiles_n).into_par_iter().with_max_len(1).for_each(|index| {
            let (i, j) = (index / tiles_n * tile_m, index % tiles_n * tile_n);
            let (rows, columns) = (tile_m.min(m - i), tile_n.min(n - j));
            let (mut a_at, mut b_at) = (0, 0);
            let mut write = write;
            for first in (0..k).step_by(DEPTH) {
                let pairs = DEPTH.min(k - first).div_ceil(2);
                let tile = Tile {
                    rows,
                    columns,
                    pairs,
                    a: (packed.a[a_at + i * pairs..].as_ptr(), self.rows * pairs),
                    b: (packed.b[b_at + j * pairs..].as_ptr(), self.columns * pairs),
                    // SAFETY: tiles lie in `c`.
                    c: (unsafe { c.at(i * row_stride + j) }, row_stride),
                    write,
                };
                // SAFETY: the machine has the instructions; panels are there in full; tiles are disjoint.
                unsafe { tile.make(self.instructions) };
                a_at += m.next_multiple_of(self.rows) * pairs;
                b_at += n.next_multiple_of(self.columns) * pairs;
                write = Write::Add;
            }
        });
    }

    /// Rows and columns of a tile: whole panels, and enough tiles for a few threads.
    fn tile(&self, m: usize, n: usize) -> (usize, usize) {
        let (mut tile_m, mut tile_n) = TILE;
        while m.div_ceil(tile_m) * n.div_ceil(tile_n) < 8 && (tile_m > 60 || tile_n > 64) {
            if tile_m >= tile_n { tile_m /= 2 } else { tile_n /= 2 }
        }
        (tile_m.next_multiple_of(self.rows), tile_n.next_multiple_of(self.columns))
    }
}

/// Pairs that panels take for `k` numbers.
fn pairs(k: usize) -> usize {
    (k / DEPTH) * (DEPTH / 2) + (k % DEPTH).div_ceil(2)
}

/// A pointer that tasks writing to disjoint places may share.
#[derive(Clone, Copy)]
struct SharedU32(*mut u32);
// SAFETY: whoever shares it promises disjoint writes where it is used.
unsafe impl Send for SharedU32 {}
// SAFETY: as above.
unsafe impl Sync for SharedU32 {}

impl SharedU32 {
    /// The address `offset` elements on, which must lie within the allocation.
    unsafe fn at(&self, offset: usize) -> *mut u32 {
        // SAFETY: passed on to the caller.
        unsafe { self.0.add(offset) }
    }
}

/// A part of a result and its operands' panels.
pub(crate) struct Tile {
    pub rows: usize,
    pub columns: usize,
    pub pairs: usize,
    /// The first panel, and how far on the next one is.
    pub a: (*const u32, usize),
    /// Likewise.
    pub b: (*const u32, usize),
    /// The first element, and how far on the next row is.
    pub c: (*mut f32, usize),
    pub write: Write,
}

impl Tile {
    /// # Safety
    /// The machine has the instructions, the panels are there in full, and nobody else touches the part of `c`.
    pub unsafe fn make(&self, instructions: Instructions) {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn avx512_bf16(tile: &Tile) {
            // SAFETY: passed on to the caller, here and below.
            unsafe { tile.panels::<Dot, 12>() }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f")]
        unsafe fn avx512(tile: &Tile) {
            // SAFETY: see above.
            unsafe { tile.panels::<__m512, 12>() }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2(tile: &Tile) {
            // SAFETY: see above.
            unsafe { tile.panels::<__m256, 4>() }
        }
        // SAFETY: see above.
        unsafe {
            match instructions {
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx512Bf16 => avx512_bf16(self),
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx512 => avx512(self),
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx2 => avx2(self),
                _ => self.panels::<[f32; 4], 4>(),
            }
        }
    }

    /// All of it, a panel of each operand at a time, the panel of `b` staying in cache.
    #[inline(always)]
    unsafe fn panels<T: Sums, const R: usize>(&self) {
        for j in (0..self.columns).step_by(2 * T::LANES) {
            for i in (0..self.rows).step_by(R) {
                // SAFETY: passed on to the caller.
                unsafe {
                    let a = self.a.0.add(i / R * self.a.1);
                    let b = self.b.0.add(j / (2 * T::LANES) * self.b.1);
                    let sums = sums::<T, R>(self.pairs, a, b);
                    self.store(&sums, i, j);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn store<T: Sums, const R: usize>(&self, sums: &[[T; 2]; R], i: usize, j: usize) {
        let columns = (self.columns - j).min(2 * T::LANES);
        let rows = (self.rows - i).min(R);
        for (row, sums) in sums.iter().enumerate() {
            if row >= rows {
                break;
            }
            // SAFETY: these are elements of the tile.
            unsafe {
                let c = self.c.0.add((i + row) * self.c.1 + j);
                if columns == 2 * T::LANES {
                    for (half, sum) in sums.iter().enumerate() {
                        let c = c.add(half * T::LANES);
                        let sum = if self.write == Write::Add { sum.plus(c) } else { *sum };
                        sum.store(c);
                    }
                } else {
                    let mut all = [0.0; 32];
                    sums[0].store(all.as_mut_ptr());
                    sums[1].store(all.as_mut_ptr().add(T::LANES));
                    for (column, sum) in all.iter().enumerate().take(columns) {
                        let c = c.add(column);
                        *c = if self.write == Write::Add { *c + sum } else { *sum };
                    }
                }
            }
        }
    }
}

/// The sums of `R` rows and two vectors of columns.
///
/// # Safety
/// Panels of `pairs` pairs are there, and the machine has the instructions of `T`.
#[inline(always)]
unsafe fn sums<T: Sums, const R: usize>(pairs: usize, mut a: *const u32, mut b: *const u32) -> [[T; 2]; R] {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut sums = [[T::zero(); 2]; R];
        for _ in 0..pairs {
            let columns = [T::load(b), T::load(b.add(T::LANES))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = T::splat(*a.add(row));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = sum.dot(factor, column);
                }
            }
            a = a.add(R);
            b = b.add(2 * T::LANES);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::round;

    fn noise(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * step).sin()).collect()
    }

    fn widened(x: f32) -> f32 {
        f32::from_bits(round(x) << 16)
    }

    /// The sum that every result is.
    fn chains(pairs: impl Iterator<Item = (f32, f32)>) -> f32 {
        let pairs: Vec<(f32, f32)> = pairs.map(|(a, b)| (widened(a), widened(b))).collect();
        let fused = |sum: f32, (a, b): &(f32, f32)| a.mul_add(*b, sum);
        let chain =
            |part: &[(f32, f32)]| part.chunks(2).fold(0.0, |sum, pair| pair.iter().rev().fold(sum, fused));
        pairs.chunks(DEPTH).map(chain).reduce(|sum, part| part + sum).unwrap_or(0.0)
    }

    fn operands(m: usize, n: usize, k: usize) -> (Vec<f32>, Vec<f32>) {
        (noise(m * k, 0.7), noise(k * n, 0.3))
    }

    #[test]
    fn every_result_is_the_same_chain_with_every_instruction_set() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 0), (13, 33, 7), (70, 45, 40), (25, 300, 1200), (250, 17, 33)] {
            let (a, b) = operands(m, n, k);
            let old = noise(m * (n + 3), 0.11);
            for layout in 0..4 {
                // Rows contiguous or columns contiguous, of each operand.
                let turned = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                    (0..rows * columns).map(|i| x[i % rows * columns + i / rows]).collect()
                };
                let (a_turned, b_turned) = (turned(&a, m, k), turned(&b, k, n));
                let a_view = if layout & 1 == 0 {
                    Matrix::new(&a, m, k)
                } else {
                    Matrix::new(&a_turned, k, m).transposed()
                };
                let b_view = if layout & 2 == 0 {
                    Matrix::new(&b, k, n)
                } else {
                    Matrix::new(&b_turned, n, k).transposed()
                };
                for write in [Write::Replace, Write::Add] {
                    for instructions in Instructions::all() {
                        let mut c = old.clone();
                        matmul(MatrixMut::strided(&mut c, m, n, n + 3), write, a_view, b_view, instructions);
                        for (i, (row, old)) in c.chunks(n + 3).zip(old.chunks(n + 3)).enumerate() {
                            for j in 0..n {
                                let pairs = (0..k).map(|p| (a[i * k + p], b[p * n + j]));
                                let expected = match write {
                                    Write::Replace => chains(pairs),
                                    // The first chain joins what was there.
                                    Write::Add => {
                                        let all: Vec<(f32, f32)> = pairs.collect();
                                        all.chunks(DEPTH)
                                            .fold(old[j], |sum, part| chains(part.iter().copied()) + sum)
                                    }
                                };
                                assert_eq!(
                                    row[j], expected,
                                    "{instructions:?} {m} {n} {k} at {i} {j}, layout {layout}"
                                );
                            }
                            assert_eq!(row[n..], old[n..], "what lies between rows is left alone");
                        }
                    }
                }
            }
        }
    }
}
