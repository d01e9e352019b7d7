//! `y = x W^T`, with `W` `[out, in]` as checkpoints store it.

use crate::matmul::{Matrix, MatrixMut, Precision, Write, matmul};

/// The widths of a linear map and how many rows it is applied to.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Rows, `N`.
    pub rows: usize,
    /// Columns of `x`.
    pub input: usize,
    /// Columns of `y`.
    pub output: usize,
    /// Arithmetic of the products.
    pub precision: Precision,
}

impl Linear {
    /// `y [N, out] (+)= x [N, in] W^T`. With [`Write::Add`], `y` is the residual stream.
    pub fn forward(self, x: &[f32], w: &[f32], y: &mut [f32], write: Write) {
        let Linear { rows, input, output, precision } = self;
        matmul(
            MatrixMut::new(y, rows, output),
            write,
            Matrix::new(x, rows, input),
            Matrix::new(w, output, input).transposed(),
            precision,
        );
    }

    /// `dx [N, in] = dy W`.
    pub fn backward_input(self, dy: &[f32], w: &[f32], dx: &mut [f32]) {
        let Linear { rows, input, output, precision } = self;
        matmul(
            MatrixMut::new(dx, rows, input),
            Write::Replace,
            Matrix::new(dy, rows, output),
            Matrix::new(w, output, input),
            precision,
        );
    }

    /// `dW [out, in] += dy^T x`.
    pub fn backward_parameters(self, dy: &[f32], x: &[f32], dw: &mut [f32]) {
        let Linear { rows, input, output, precision } = self;
        matmul(
            MatrixMut::new(dw, output, input),
            Write::Add,
            Matrix::new(dy, rows, output).transposed(),
            Matrix::new(x, rows, input),
            precision,
        );
    }
}
