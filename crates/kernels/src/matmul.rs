//! Matrix products over strided views, cut into tiles by shape alone.

pub(crate) mod bf16;

use crate::simd::Instructions;
use crate::weights::Numbers;
use gemm::Parallelism;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The arithmetic of matrix products. Parameters, gradients, activations and sums are `f32` in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Operands and sums in `f32`.
    #[default]
    F32,
    /// Operands rounded to bfloat16, sums in `f32`.
    Bf16,
}

impl Precision {
    /// Whether it is what holds where nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Precision::default()
    }

    /// As settings have it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Precision, String> {
        let known = [Precision::F32, Precision::Bf16];
        known.into_iter().find(|one| one.name() == name).ok_or_else(|| "`f32` or `bf16`".to_owned())
    }
}

/// A matrix in memory: element `(i, j)` is `data[i * row_stride + j * column_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: Numbers<'a>,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A dense row-major matrix.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Matrix::strided(data, rows, columns, columns)
    }

    /// A row-major matrix whose rows start `row_stride` elements apart.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Matrix::of(Numbers::F32(data), rows, columns, row_stride)
    }

    pub(crate) fn of(data: Numbers<'a>, rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(columns <= row_stride || rows <= 1, "rows overlap: {columns} columns, stride {row_stride}");
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= data.len(),
            "matrix ends beyond its data"
        );
        Matrix { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The same elements with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// `rows` rows from `row` on, of each `columns` elements from `column` on.
    fn part(self, row: usize, rows: usize, column: usize, columns: usize) -> Self {
        Matrix { rows, ..self.below(row).behind(column, columns) }
    }

    /// The rows from `row` on.
    fn below(self, row: usize) -> Self {
        Matrix { data: self.data.from(row * self.row_stride), rows: self.rows - row, ..self }
    }

    /// Of each row `columns` elements from `column` on.
    fn behind(self, column: usize, columns: usize) -> Self {
        Matrix { data: self.data.from(column * self.column_stride), columns, ..self }
    }
}

/// A row-major matrix to write into.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// A dense row-major matrix.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        MatrixMut::strided(data, rows, columns, columns)
    }

    /// A row-major matrix whose rows start `row_stride` elements apart.
    pub fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(columns <= row_stride || rows <= 1, "rows overlap: {columns} columns, stride {row_stride}");
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= data.len(),
            "matrix ends beyond its data"
        );
        MatrixMut { data, rows, columns, row_stride }
    }
}

/// What becomes of the old contents of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// `c = a b`.
    Replace,
    /// `c += a b`.
    Add,
}

/// `c = a b` or `c += a b` on all threads of the current rayon pool.
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul(c: MatrixMut, write: Write, a: Matrix, b: Matrix, precision: Precision) {
    let (m, n, k) = (c.rows, c.columns, a.columns);
    assert_eq!(
        (m, n, k),
        (a.rows, b.columns, b.rows),
        "a [{}, {k}] times b [{}, {}] is not c [{m}, {n}]",
        a.rows,
        b.rows,
        b.columns
    );
    if m == 0 || n == 0 {
        return;
    }
    if precision == Precision::Bf16 {
        return bf16::matmul(c, write, a, b, Instructions::current());
    }
    let (Numbers::F32(a_data), Numbers::F32(b_data)) = (a.data, b.data) else {
        panic!("rounded operands have products of bfloat16 only");
    };
    let (tile_m, tile_n) = tile(m, n);
    let tiles_n = n.div_ceil(tile_n);
    let out = SharedMut(c.data.as_mut_ptr());
    (0..m.div_ceil(tile_m) * tiles_n).into_par_iter().with_max_len(1).for_each(|index| {
        let (i, j) = (index / tiles_n * tile_m, index % tiles_n * tile_n);
        // SAFETY: the constructors checked that every element of the views lies in its slice, the shapes fit, and
        // tiles are disjoint parts of `c`, which this call borrows mutably.
        unsafe {
            product(
                tile_m.min(m - i),
                tile_n.min(n - j),
                k,
                out.at(i * c.row_stride + j),
                c.row_stride,
                write,
                (a_data.as_ptr().add(i * a.row_stride), a.row_stride, a.column_stride),
                (b_data.as_ptr().add(j * b.column_stride), b.row_stride, b.column_stride),
            );
        }
    });
}

/// One product on the calling thread. Operands are `(first element, row stride, column stride)`.
///
/// # Safety
/// All elements reached must be valid, and nobody else may touch those of `c` meanwhile.
#[allow(clippy::too_many_arguments, reason = "the shape and three strided operands")]
pub(crate) unsafe fn product(
    m: usize,
    n: usize,
    k: usize,
    c: *mut f32,
    c_row_stride: usize,
    write: Write,
    a: (*const f32, usize, usize),
    b: (*const f32, usize, usize),
) {
    let stride = |s: usize| s as isize;
    // SAFETY: passed on to the caller.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            1,
            stride(c_row_stride),
            write == Write::Add,
            a.0,
            stride(a.2),
            stride(a.1),
            b.0,
            stride(b.2),
            stride(b.1),
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Rows and columns of a tile: large enough that packing is cheap, small enough to share between a few threads.
fn tile(m: usize, n: usize) -> (usize, usize) {
    let (mut tile_m, mut tile_n) = (512, 256);
    while m.div_ceil(tile_m) * n.div_ceil(tile_n) < 8 && (tile_m > 64 || tile_n > 64) {
        if tile_m >= tile_n { tile_m /= 2 } else { tile_n /= 2 }
    }
    (tile_m, tile_n)
}

/// A pointer that tasks writing to disjoint places may share.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut(pub(crate) *mut f32);
// SAFETY: whoever shares it promises disjoint writes where it is used.
unsafe impl Send for SharedMut {}
// SAFETY: as above.
unsafe impl Sync for SharedMut {}

impl SharedMut {
    /// The address `offset` elements on.
    ///
    /// # Safety
    /// It must lie within the allocation.
    pub(crate) unsafe fn at(&self, offset: usize) -> *mut f32 {
        // SAFETY: passed on to the caller.
        unsafe { self.0.add(offset) }
    }
}
