//! `y = x W^T`, with `W` `[out, in]` as checkpoints store it.

use crate::matmul::{Matrix, MatrixMut, Precision, Write, matmul};
use crate::rows;
use crate::weights::Weights;

/// The widths of a linear map, how many rows it is applied to, and how far apart they lie.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Rows, `N`.
    pub rows: usize,
    /// Columns of `x`.
    pub input: usize,
    /// Columns of `y`.
    pub output: usize,
    /// Elements from one row of `x` to the next; more than `input` where `x` is a part of wider rows.
    pub input_stride: usize,
    /// Elements from one row of `y` to the next.
    pub output_stride: usize,
    /// Arithmetic of the products.
    pub precision: Precision,
    /// Whether the bits of a row of `y` must not depend on the rows beside it. Made for few rows; forward only.
    pub alone: bool,
}

impl Linear {
    /// A map between dense matrices.
    pub fn new(rows: usize, input: usize, output: usize, precision: Precision) -> Linear {
        Linear { rows, input, output, input_stride: input, output_stride: output, precision, alone: false }
    }

    /// `y [N, out] (+)= x [N, in] W^T`. With [`Write::Add`], `y` is the residual stream.
    pub fn forward<'w>(self, x: &[f32], w: impl Into<Weights<'w>>, y: &mut [f32], write: Write) {
        let Linear { rows, input, output, input_stride, output_stride, precision, alone } = self;
        let w = w.into();
        assert_eq!(w.len(), output * input, "W is [out, in]");
        for (first, output, w) in w.parts(input) {
            let y = &mut y[first..];
            if alone {
                let shape = rows::Shape { rows, input, output, input_stride, output_stride };
                rows::product_of(precision, shape, x, w, y, write);
                continue;
            }
            matmul(
                MatrixMut::strided(y, rows, output, output_stride),
                write,
                self.x(x),
                Matrix::of(w, output, input, input).transposed(),
                precision,
            );
        }
    }

    /// `dx [N, in] = dy W`.
    pub fn backward_input(self, dy: &[f32], w: &[f32], dx: &mut [f32]) {
        let Linear { rows, input, output, input_stride, .. } = self;
        matmul(
            MatrixMut::strided(dx, rows, input, input_stride),
            Write::Replace,
            self.y(dy),
            Matrix::new(w, output, input),
            self.precision,
        );
    }

    /// `dW [out, in] += dy^T x`.
    pub fn backward_parameters(self, dy: &[f32], x: &[f32], dw: &mut [f32]) {
        matmul(
            MatrixMut::new(dw, self.output, self.input),
            Write::Add,
            self.y(dy).transposed(),
            self.x(x),
            self.precision,
        );
    }

    fn x(self, x: &[f32]) -> Matrix<'_> {
        Matrix::strided(x, self.rows, self.input, self.input_stride)
    }

    fn y(self, y: &[f32]) -> Matrix<'_> {
        Matrix::strided(y, self.rows, self.output, self.output_stride)
    }
}
