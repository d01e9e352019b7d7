//! Products of operands rounded to bfloat16, with sums in `f32`.
//!
//! Both operands are rounded and laid out in panels first: for every two neighbouring `k` a panel has the pairs of its
//! rows (of `a`) or columns (of `b`) side by side, which is what `vdpbf16ps` takes. Then tiles of the result are made,
//! cut by shape alone.
//!
//! Each result is one chain of fused multiply-adds over [`DEPTH`] `k`, in their order but for the second of a pair, which
//! comes first; then the next chain is added. So its bits depend on its row and its column alone, and are the same with
//! all instructions, unless a number is too small to be normal: `vdpbf16ps` takes it for zero.

use super::{Matrix, MatrixMut, SharedMut, Write};
use crate::simd::Instructions;
use rayon::prelude::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::cell::Cell;

/// Numbers a chain has: a panel of `b` this deep stays in the nearest cache.
const DEPTH: usize = 512;
/// Rows and columns of a tile at most; multiples of every panel's width.
const TILE: (usize, usize) = (240, 256);
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
        let pairs = x.columns.div_ceil(2);
        assert!(x.rows.div_ceil(width) * width * pairs <= packed.len(), "room for whole panels");
        for (panel, out) in packed.chunks_mut((width * pairs).max(1)).take(x.rows.div_ceil(width)).enumerate()
        {
            let part = Matrix { rows: width.min(x.rows - panel * width), ..x.below(panel * width) };
            // SAFETY: there is room, as was just checked, and the machine has the instructions.
            unsafe { pack(self.instructions, part, width, out.as_mut_ptr()) };
        }
    }

    /// The rows of `x` in panels of `width`, `[k / DEPTH, panel, pair, width]`.
    fn lay_out(&self, x: Matrix, width: usize, packed: &mut Vec<u32>) {
        let (count, pairs) = (x.rows.div_ceil(width), pairs(x.columns));
        packed.resize(packed.len().max(count * width * pairs), 0);
        let packed = SharedU32(packed.as_mut_ptr());
        // About as much work as makes it worth another thread.
        let fewest = (16_384 / (width * pairs)).max(1);
        (0..count).into_par_iter().with_min_len(fewest).for_each(|panel| {
            let part = Matrix { rows: width.min(x.rows - panel * width), ..x.below(panel * width) };
            let mut at = 0;
            for first in (0..x.columns).step_by(DEPTH) {
                let depth = DEPTH.min(x.columns - first);
                // SAFETY: it lies in what was made room for above, and is this panel's alone.
                unsafe {
                    let out = packed.at(at + panel * width * depth.div_ceil(2));
                    pack(self.instructions, part.behind(first, depth), width, out);
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

/// The nearest bfloat16, of two the even one, as `vcvtneps2bf16` makes it: what is too small for a normal number is zero.
#[inline(always)]
pub(crate) fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16;
    let quiet = (bits >> 16) | 0x40;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        quiet
    } else if magnitude < 0x0080_0000 {
        (bits >> 16) & 0x8000
    } else {
        rounded
    }
}

/// One panel of the rows of `x`, `[pair, width]`: pairs of neighbouring columns, zero where there is no row or column.
///
/// # Safety
/// There is room at `out`, and the machine has the instructions.
unsafe fn pack(instructions: Instructions, x: Matrix, width: usize, out: *mut u32) {
    #[cfg(target_arch = "x86_64")]
    if instructions == Instructions::Avx512Bf16 && (x.column_stride == 1 || x.row_stride == 1) {
        // SAFETY: passed on to the caller; the constructors of `x` checked that its elements are there.
        return unsafe { pack_avx512_bf16(x, width, out) };
    }
    let _ = instructions;
    let at = |row: usize, column: usize| {
        if row < x.rows && column < x.columns {
            round(x.data[row * x.row_stride + column * x.column_stride])
        } else {
            0
        }
    };
    for pair in 0..x.columns.div_ceil(2) {
        for row in 0..width {
            // SAFETY: passed on to the caller.
            unsafe { *out.add(pair * width + row) = at(row, 2 * pair) | (at(row, 2 * pair + 1) << 16) };
        }
    }
}

/// As many lanes as `count` has, at most 16.
#[cfg(target_arch = "x86_64")]
fn lanes(count: usize) -> __mmask16 {
    if count >= 16 { 0xffff } else { (1 << count) - 1 }
}

/// [`pack`] of rows or columns that are contiguous.
///
/// # Safety
/// As [`pack`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pack_avx512_bf16(x: Matrix, width: usize, out: *mut u32) {
    let pairs = x.columns.div_ceil(2);
    let data = x.data.as_ptr();
    for first in (0..width).step_by(16) {
        let (kept, live) = (lanes(width - first), x.rows.saturating_sub(first).min(16));
        if x.column_stride == 1 {
            for pair in (0..pairs).step_by(16) {
                let columns = x.columns - 2 * pair;
                let masks = [lanes(columns), lanes(columns.saturating_sub(16))];
                let mut rows = [_mm512_setzero_si512(); 16];
                for (row, to) in rows.iter_mut().enumerate().take(live) {
                    // SAFETY: masked lanes are not read; the others are elements of `x`.
                    unsafe {
                        let from = data.wrapping_add((first + row) * x.row_stride + 2 * pair);
                        let low = _mm512_maskz_loadu_ps(masks[0], from);
                        let high = _mm512_maskz_loadu_ps(masks[1], from.wrapping_add(16));
                        *to = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                    }
                }
                transpose(&mut rows);
                for (index, row) in rows.iter().enumerate().take(pairs - pair) {
                    // SAFETY: passed on to the caller; masked lanes are not written.
                    unsafe {
                        let to = out.add((pair + index) * width + first);
                        _mm512_mask_storeu_epi32(to.cast(), kept, *row);
                    }
                }
            }
        } else {
            let rows = lanes(live);
            for pair in 0..pairs {
                // SAFETY: as above.
                unsafe {
                    let from = data.wrapping_add(first + 2 * pair * x.column_stride);
                    let low = _mm512_maskz_loadu_ps(rows, from);
                    let there = if 2 * pair + 1 < x.columns { rows } else { 0 };
                    let high = _mm512_maskz_loadu_ps(there, from.wrapping_add(x.column_stride));
                    let [low, high] = [low, high].map(|half| {
                        let half = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(half));
                        _mm512_cvtepu16_epi32(half)
                    });
                    let both = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
                    _mm512_mask_storeu_epi32(out.add(pair * width + first).cast(), kept, both);
                }
            }
        }
    }
}

/// Exchanges rows and columns of 16 by 16 words.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn transpose(x: &mut [__m512i; 16]) {
    let mut y = [_mm512_setzero_si512(); 16];
    for i in 0..8 {
        y[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        y[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
    for i in 0..4 {
        for half in 0..2 {
            x[4 * i + 2 * half] = _mm512_unpacklo_epi64(y[4 * i + half], y[4 * i + half + 2]);
            x[4 * i + 2 * half + 1] = _mm512_unpackhi_epi64(y[4 * i + half], y[4 * i + half + 2]);
        }
    }
    // Now x[4 i + c] has in its quarter q the words of rows 4 i .. 4 i + 4 in column 4 q + c.
    for i in 0..2 {
        for c in 0..4 {
            let (upper, lower) = (x[8 * i + c], x[8 * i + 4 + c]);
            y[8 * i + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(upper, lower);
            y[8 * i + 4 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(upper, lower);
        }
    }
    for c in 0..4 {
        x[c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(y[c], y[8 + c]);
        x[8 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(y[c], y[8 + c]);
        x[4 + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(y[4 + c], y[12 + c]);
        x[12 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(y[4 + c], y[12 + c]);
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

/// A register of sums. Its functions need the machine to have it.
trait Sums: Copy {
    const LANES: usize;
    /// As many pairs.
    type Pairs: Copy;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const u32) -> Self::Pairs;
    unsafe fn splat(pair: u32) -> Self::Pairs;
    /// The products of the pairs are added one by one, the upper numbers' first, as `vdpbf16ps` does.
    unsafe fn dot(self, a: Self::Pairs, b: Self::Pairs) -> Self;
    unsafe fn plus(self, c: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
}

/// Sums that `vdpbf16ps` makes.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Dot(__m512);

#[cfg(target_arch = "x86_64")]
impl Sums for Dot {
    const LANES: usize = 16;
    type Pairs = __m512bh;
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: passed on to the caller, here and below.
        unsafe { Dot(_mm512_setzero_ps()) }
    }
    #[inline(always)]
    unsafe fn load(from: *const u32) -> __m512bh {
        // SAFETY: see above.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast())) }
    }
    #[inline(always)]
    unsafe fn splat(pair: u32) -> __m512bh {
        // SAFETY: see above.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair as i32)) }
    }
    #[inline(always)]
    unsafe fn dot(self, a: __m512bh, b: __m512bh) -> Self {
        // SAFETY: see above.
        unsafe { Dot(_mm512_dpbf16_ps(self.0, a, b)) }
    }
    #[inline(always)]
    unsafe fn plus(self, c: *const f32) -> Self {
        // SAFETY: see above.
        unsafe { Dot(_mm512_add_ps(self.0, _mm512_loadu_ps(c))) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! widened_sums {
    ($vector:ident, $lanes:literal, $zero:ident, $load:ident, $splat:ident, $shift:ident, $and:ident, $cast:ident,
     $fused:ident, $add:ident, $load_ps:ident, $store:ident) => {
        impl Sums for $vector {
            const LANES: usize = $lanes;
            /// The lower numbers and the upper ones.
            type Pairs = [$vector; 2];
            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: passed on to the caller, here and below.
                unsafe { $zero() }
            }
            #[inline(always)]
            unsafe fn load(from: *const u32) -> [Self; 2] {
                // SAFETY: see above.
                unsafe {
                    let pairs = $load(from.cast());
                    [$cast($shift::<16>(pairs)), $cast($and(pairs, $splat(0xffff_0000u32 as i32)))]
                }
            }
            #[inline(always)]
            unsafe fn splat(pair: u32) -> [Self; 2] {
                // SAFETY: see above.
                unsafe {
                    let pairs = $splat(pair as i32);
                    [$cast($shift::<16>(pairs)), $cast($and(pairs, $splat(0xffff_0000u32 as i32)))]
                }
            }
            #[inline(always)]
            unsafe fn dot(self, a: [Self; 2], b: [Self; 2]) -> Self {
                // SAFETY: see above.
                unsafe { $fused(a[0], b[0], $fused(a[1], b[1], self)) }
            }
            #[inline(always)]
            unsafe fn plus(self, c: *const f32) -> Self {
                // SAFETY: see above.
                unsafe { $add(self, $load_ps(c)) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: see above.
                unsafe { $store(to, self) }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
widened_sums!(
    __m256,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_si256,
    _mm256_set1_epi32,
    _mm256_slli_epi32,
    _mm256_and_si256,
    _mm256_castsi256_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps
);
#[cfg(target_arch = "x86_64")]
widened_sums!(
    __m512,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_si512,
    _mm512_set1_epi32,
    _mm512_slli_epi32,
    _mm512_and_si512,
    _mm512_castsi512_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps
);

impl Sums for [f32; 4] {
    const LANES: usize = 4;
    type Pairs = [u32; 4];
    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const u32) -> [u32; 4] {
        // SAFETY: passed on to the caller, here and below.
        unsafe { from.cast::<[u32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat(pair: u32) -> [u32; 4] {
        [pair; 4]
    }
    #[inline(always)]
    unsafe fn dot(self, a: [u32; 4], b: [u32; 4]) -> Self {
        let halves = |pair: u32| [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)];
        std::array::from_fn(|i| {
            let (a, b) = (halves(a[i]), halves(b[i]));
            a[0].mul_add(b[0], a[1].mul_add(b[1], self[i]))
        })
    }
    #[inline(always)]
    unsafe fn plus(self, c: *const f32) -> Self {
        // SAFETY: see above.
        unsafe { std::array::from_fn(|i| self[i] + *c.add(i)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn numbers_are_rounded_to_the_nearest_even() {
        for (x, expected) in [
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 3.0 / 256.0, 1.0 + 1.0 / 64.0),
            (-1.0 - 1.0001 / 256.0, -1.0 - 1.0 / 128.0),
            (f32::MAX, f32::INFINITY),
            (f32::MIN_POSITIVE / 2.0, 0.0),
        ] {
            assert_eq!(widened(x), expected, "{x}");
        }
        assert!(widened(f32::NAN).is_nan() && widened(f32::from_bits(0x7f80_0001)).is_nan());
    }
}
