//! Every kernel against the plain formula in `f64`: values directly, derivatives by central differences of that
//! formula. Shapes are odd on purpose: nothing divides a block, a lane or a tile.

use proptest::prelude::*;
use remit_batch::Rule;
use remit_kernels::attention::Attention;
use remit_kernels::cached::{Sight, positions};
use remit_kernels::head::{self, Head, Scratch};
use remit_kernels::latent::Latent;
use remit_kernels::linear::Linear;
use remit_kernels::matmul::Write;
use remit_kernels::norm::Groups;
use remit_kernels::rope::{Heads, Pairing};
use remit_kernels::{Precision, embedding, norm, rope, swiglu};

/// Deterministic numbers in [-1, 1).
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

/// `got` equals `want` to `tolerance` of the largest entry.
fn check(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let largest = want.iter().fold(1e-30f64, |a, b| a.max(b.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            (f64::from(*g) - w).abs() <= tolerance * largest,
            "{what}[{i}]: {g} instead of {w} (largest {largest})"
        );
    }
}

/// The derivative of `sum(upstream * f(x))` by central differences in `f64`.
fn difference(f: impl Fn(&[f64]) -> Vec<f64>, x: &[f32], upstream: &[f32]) -> Vec<f64> {
    let mut x = wide(x);
    let loss = |y: Vec<f64>| -> f64 { y.iter().zip(upstream).map(|(y, u)| y * f64::from(*u)).sum() };
    let h = 1e-5;
    (0..x.len())
        .map(|i| {
            let kept = x[i];
            x[i] = kept + h;
            let above = loss(f(&x));
            x[i] = kept - h;
            let below = loss(f(&x));
            x[i] = kept;
            (above - below) / (2.0 * h)
        })
        .collect()
}

fn plain_matmul(a: &[f64], b: &[f64], m: usize, k: usize, n: usize, b_transposed: bool) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            c[i * n + j] =
                (0..k).map(|x| a[i * k + x] * if b_transposed { b[j * k + x] } else { b[x * n + j] }).sum();
        }
    }
    c
}

#[test]
fn linear() {
    for (rows, input, output) in [(1, 1, 1), (7, 5, 3), (130, 33, 70), (3, 17, 600)] {
        let layer = Linear::new(rows, input, output, Precision::F32);
        let (x, w, dy) = (noise(rows * input, 1), noise(output * input, 2), noise(rows * output, 3));
        let mut y = vec![1.0; rows * output];
        layer.forward(&x, &w, &mut y, Write::Replace);
        let plain = plain_matmul(&wide(&x), &wide(&w), rows, input, output, true);
        check("y", &y, &plain, 1e-6);
        layer.forward(&x, &w, &mut y, Write::Add);
        check("y twice", &y, &plain.iter().map(|v| 2.0 * v).collect::<Vec<_>>(), 1e-6);
        let mut dx = vec![9.0; rows * input];
        layer.backward_input(&dy, &w, &mut dx);
        check("dx", &dx, &plain_matmul(&wide(&dy), &wide(&w), rows, output, input, false), 1e-6);
        let mut dw = vec![0.5; output * input];
        layer.backward_parameters(&dy, &x, &mut dw);
        let dy_t: Vec<f64> =
            (0..output * rows).map(|i| f64::from(dy[i % rows * output + i / rows])).collect();
        let want: Vec<f64> =
            plain_matmul(&dy_t, &wide(&x), output, rows, input, false).iter().map(|v| v + 0.5).collect();
        check("dw", &dw, &want, 1e-6);
    }
}

fn plain_norm(x: &[f64], gain: &[f64]) -> Vec<f64> {
    x.chunks(gain.len())
        .flat_map(|row| {
            let inverse = 1.0 / (row.iter().map(|v| v * v).sum::<f64>() / gain.len() as f64 + 1e-5).sqrt();
            row.iter().zip(gain).map(move |(v, g)| v * inverse * g)
        })
        .collect()
}

#[test]
fn rms_norm() {
    for (rows, width) in [(1, 3), (5, 33), (300, 8)] {
        let (x, gain, dy) = (noise(rows * width, 1), noise(width, 2), noise(rows * width, 3));
        let (mut y, mut inverse) = (vec![0.0; x.len()], vec![0.0; rows]);
        norm::forward(&x, &gain, 1e-5, &mut y, &mut inverse);
        check("y", &y, &plain_norm(&wide(&x), &wide(&gain)), 1e-6);
        let mut y2 = vec![0.0; x.len()];
        norm::again(&x, &gain, &inverse, &mut y2);
        assert_eq!(y, y2);
        let (mut dx, mut d_gain) = (vec![0.25; x.len()], vec![0.5; width]);
        norm::backward(&x, &gain, &inverse, &dy, &mut dx, &mut d_gain);
        let add = |v: Vec<f64>, c: f64| v.into_iter().map(|v| v + c).collect::<Vec<_>>();
        check("dx", &dx, &add(difference(|x| plain_norm(x, &wide(&gain)), &x, &dy), 0.25), 1e-5);
        check("d_gain", &d_gain, &add(difference(|g| plain_norm(&wide(&x), g), &gain, &dy), 0.5), 1e-5);
    }
}

/// What a strided map must do: the dense one on the columns it owns, and nothing to the others.
#[test]
fn linear_on_parts_of_wider_rows() {
    let (rows, input, output, input_stride, output_stride) = (7, 5, 3, 9, 4);
    let dense = Linear::new(rows, input, output, Precision::F32);
    let strided = Linear { input_stride, output_stride, ..dense };
    let cut = |wide: &[f32], stride: usize, width: usize| -> Vec<f32> {
        wide.chunks(stride).flat_map(|row| row[1..1 + width].to_vec()).collect()
    };
    let (x, dy, w) =
        (noise(rows * input_stride, 1), noise(rows * output_stride, 2), noise(output * input, 3));
    let (x_cut, dy_cut) = (cut(&x, input_stride, input), cut(&dy, output_stride, output));
    let (mut y, mut y_cut) = (vec![5.0; dy.len()], vec![0.0; dy_cut.len()]);
    strided.forward(&x[1..], &w, &mut y[1..], Write::Replace);
    dense.forward(&x_cut, &w, &mut y_cut, Write::Replace);
    assert_eq!(cut(&y, output_stride, output), y_cut);
    assert!(y.chunks(output_stride).all(|row| row[0] == 5.0));
    let (mut dx, mut dx_cut) = (vec![5.0; x.len()], vec![0.0; x_cut.len()]);
    strided.backward_input(&dy[1..], &w, &mut dx[1..]);
    dense.backward_input(&dy_cut, &w, &mut dx_cut);
    assert_eq!(cut(&dx, input_stride, input), dx_cut);
    assert!(dx.chunks(input_stride).all(|row| row[0] == 5.0 && row[6..] == [5.0; 3]));
    let [mut dw, mut dw_cut] = [(); 2].map(|()| vec![0.0; w.len()]);
    strided.backward_parameters(&dy[1..], &x[1..], &mut dw);
    dense.backward_parameters(&dy_cut, &x_cut, &mut dw_cut);
    assert_eq!(dw, dw_cut);
}

/// `groups` of each row normalised, the rest as it is.
fn plain_groups(x: &[f64], groups: Groups, gain: &[f64]) -> Vec<f64> {
    x.chunks(groups.stride)
        .flat_map(|row| {
            let (before, rest) = row.split_at(groups.first);
            let (inside, behind) = rest.split_at(groups.count * gain.len());
            [before, &plain_norm(inside, gain), behind].concat()
        })
        .collect()
}

/// The whole of a projection as one group, heads as one group each, a latent in front of other columns.
#[test]
fn norms_of_groups_of_columns() {
    for (rows, stride, first, count, width) in [(5, 40, 0, 1, 33), (300, 17, 3, 4, 3), (7, 70, 1, 2, 34)] {
        let groups = Groups { stride, first, count };
        let (x, gain, dy) = (noise(rows * stride, 1), noise(width, 2), noise(rows * stride, 3));
        let (mut y, mut kept, mut inverse) =
            (x.clone(), vec![0.0; rows * count * width], vec![0.0; rows * count]);
        norm::forward_groups(&mut y, groups, &gain, 1e-5, &mut kept, &mut inverse);
        check("y", &y, &plain_groups(&wide(&x), groups, &wide(&gain)), 1e-6);
        let (mut d, mut d_gain) = (dy.clone(), vec![0.5; width]);
        norm::backward_groups(&mut d, groups, &gain, &kept, &inverse, &mut d_gain);
        check("dx", &d, &difference(|x| plain_groups(x, groups, &wide(&gain)), &x, &dy), 1e-5);
        let want = difference(|g| plain_groups(&wide(&x), groups, g), &gain, &dy);
        check("d_gain", &d_gain, &want.iter().map(|v| v + 0.5).collect::<Vec<_>>(), 1e-5);
    }
}

/// Pairs turned by `position * frequency`, the rest as it is.
fn plain_rope(x: &[f64], heads: Heads, frequencies: &[f32], pairing: Pairing, length: usize) -> Vec<f64> {
    let (mut y, half) = (x.to_vec(), frequencies.len());
    for (n, row) in y.chunks_mut(heads.stride).enumerate() {
        for head in 0..heads.count {
            let start = heads.first + head * heads.apart;
            for (i, frequency) in frequencies.iter().enumerate() {
                let (a, b) = match pairing {
                    Pairing::Halves => (start + i, start + i + half),
                    Pairing::Neighbours => (start + 2 * i, start + 2 * i + 1),
                };
                let (sin, cos) = ((2 + n % length) as f64 * f64::from(*frequency)).sin_cos();
                (row[a], row[b]) = (row[a] * cos - row[b] * sin, row[b] * cos + row[a] * sin);
            }
        }
    }
    y
}

#[test]
fn rope_is_a_rotation_and_its_inverse() {
    let frequencies = [1.0, 0.3, 0.01];
    // Heads side by side with two columns behind them; heads of which only the end is turned.
    for heads in [
        Heads { stride: 14, first: 0, count: 2, apart: 6 },
        Heads { stride: 23, first: 4, count: 2, apart: 10 },
    ] {
        for pairing in [Pairing::Halves, Pairing::Neighbours] {
            let table = rope::Table::new(&frequencies, 9, pairing);
            let (x, dy) = (noise(10 * heads.stride, 1), noise(10 * heads.stride, 2));
            let plain = |x: &[f64]| plain_rope(x, heads, &frequencies, pairing, 5);
            let positions: Vec<usize> = (0..10).map(|row| 2 + row % 5).collect();
            let positions = rope::Positions::Rows(&positions);
            let mut y = x.clone();
            rope::rotate(&mut y, &table, heads, positions, rope::Turn::Forward);
            check("rotated", &y, &plain(&wide(&x)), 1e-6);
            rope::rotate(&mut y, &table, heads, positions, rope::Turn::Back);
            check("turned back", &y, &wide(&x), 1e-6);
            let mut d = dy.clone();
            rope::rotate(&mut d, &table, heads, positions, rope::Turn::Back);
            check("dx", &d, &difference(plain, &x, &dy), 1e-5);
        }
    }
}

#[test]
fn swiglu_halves_in_the_right_order() {
    let (rows, width) = (3, 37);
    let (x, dy) =
        (noise(rows * 2 * width, 1).iter().map(|v| v * 6.0).collect::<Vec<_>>(), noise(rows * width, 2));
    let plain = |x: &[f64]| -> Vec<f64> {
        x.chunks(2 * width)
            .flat_map(|row| (0..width).map(move |i| row[i] / (1.0 + (-row[i]).exp()) * row[width + i]))
            .collect()
    };
    let mut y = vec![0.0; rows * width];
    swiglu::forward(&x, width, &mut y);
    check("y", &y, &plain(&wide(&x)), 1e-6);
    let mut dx = x.clone();
    swiglu::backward(&mut dx, width, &dy);
    check("dx", &dx, &difference(plain, &x, &dy), 1e-5);
}

#[test]
fn embedding_adds_up_repeated_ids() {
    let (table, ids) = (noise(5 * 3, 1), [4, 0, 4]);
    let mut x = vec![0.0; 9];
    embedding::forward(&ids, &table, 3, &mut x);
    assert_eq!(x, [&table[12..15], &table[0..3], &table[12..15]].concat());
    let mut d = vec![0.0; 15];
    embedding::backward(&ids, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], 3, &mut d);
    assert_eq!(d, [4.0, 5.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 8.0, 10.0, 12.0]);
}

/// Softmax over all allowed keys, the plain way.
fn plain_attention(a: &Attention, qkv: &[f64], starts: Option<&[u32]>) -> Vec<f64> {
    let stride = a.columns();
    let mut out = vec![0.0; a.windows * a.length * a.heads * a.v_width];
    for w in 0..a.windows {
        for h in 0..a.heads {
            let kv = h * a.kv_heads / a.heads;
            for t in 0..a.length {
                let row = w * a.length + t;
                let from = starts.map_or(0, |s| s[row] as usize);
                let q = &qkv[row * stride + h * a.qk_width..][..a.qk_width];
                let scores: Vec<f64> = (from..=t)
                    .map(|key| {
                        let k =
                            &qkv[(w * a.length + key) * stride + (a.heads + kv) * a.qk_width..][..a.qk_width];
                        f64::from(a.scale) * q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>()
                    })
                    .collect();
                let max = scores.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                for (key, score) in (from..=t).zip(&scores) {
                    let p = (score - max).exp() / sum;
                    let column = (a.heads + a.kv_heads) * a.qk_width + kv * a.v_width;
                    let v = &qkv[(w * a.length + key) * stride + column..][..a.v_width];
                    for (o, v) in out[(row * a.heads + h) * a.v_width..][..a.v_width].iter_mut().zip(v) {
                        *o += p * v;
                    }
                }
            }
        }
    }
    out
}

fn document_starts(windows: usize, length: usize, boundaries: &[usize]) -> Vec<u32> {
    (0..windows * length)
        .map(|i| {
            boundaries
                .iter()
                .copied()
                .filter(|&b| b + i / length <= i % length)
                .max()
                .map_or(0, |b| b + i / length) as u32
        })
        .collect()
}

#[test]
fn attention_forward_and_backward() {
    // (W, T, H, K, E, Ev, documents)
    for (windows, length, heads, kv_heads, qk_width, v_width, boundaries) in [
        (2, 1, 2, 1, 4, 4, None),
        (1, 5, 1, 1, 3, 3, None),
        (2, 9, 4, 2, 4, 4, Some(vec![3, 7])),
        (1, 9, 3, 3, 4, 2, None),
        (2, 7, 5, 1, 6, 3, Some(vec![2, 5])),
        (2, 70, 2, 1, 3, 5, Some(vec![1, 2, 40, 66])),
    ] {
        let a = Attention {
            windows,
            length,
            heads,
            kv_heads,
            qk_width,
            v_width,
            scale: 0.6,
            precision: Precision::F32,
        };
        let starts = boundaries.map(|b: Vec<usize>| document_starts(windows, length, &b));
        let starts = starts.as_deref();
        let n = windows * length;
        let (qkv, dy) = (noise(n * a.columns(), 1), noise(n * heads * v_width, 2));
        let (mut y, mut lse) = (vec![0.0; dy.len()], vec![0.0; n * heads]);
        a.forward(&qkv, starts, &mut y, &mut lse);
        check("output", &y, &plain_attention(&a, &wide(&qkv), starts), 2e-6);
        let mut d = vec![7.0; qkv.len()];
        a.backward(&qkv, starts, &y, &lse, &dy, &mut d);
        check("d_qkv", &d, &difference(|x| plain_attention(&a, x, starts), &qkv, &dy), 2e-5);
    }
}

#[test]
fn attention_of_long_windows_agrees_with_the_plain_formula() {
    let a = Attention {
        windows: 1,
        length: 601,
        heads: 2,
        kv_heads: 1,
        qk_width: 8,
        v_width: 8,
        scale: 0.35,
        precision: Precision::F32,
    };
    let starts = document_starts(1, 601, &[100, 130, 513]);
    for starts in [None, Some(&starts[..])] {
        let qkv = noise(601 * a.columns(), 1);
        let (mut y, mut lse) = (vec![0.0; 601 * 16], vec![0.0; 601 * 2]);
        a.forward(&qkv, starts, &mut y, &mut lse);
        check("output", &y, &plain_attention(&a, &wide(&qkv), starts), 2e-6);
    }
}

#[test]
fn attention_never_looks_ahead_or_into_another_document() {
    let a = Attention {
        windows: 1,
        length: 12,
        heads: 2,
        kv_heads: 1,
        qk_width: 4,
        v_width: 4,
        scale: 0.5,
        precision: Precision::F32,
    };
    let starts: Vec<u32> = (0..12).map(|t| if t < 5 { 0 } else { 5 }).collect();
    let run = |qkv: &[f32]| {
        let (mut y, mut lse) = (vec![0.0; 12 * 8], vec![0.0; 24]);
        a.forward(qkv, Some(&starts), &mut y, &mut lse);
        y
    };
    let qkv = noise(12 * a.columns(), 1);
    let before = run(&qkv);
    for changed in 0..12 {
        let mut other = qkv.clone();
        other[changed * a.columns()..(changed + 1) * a.columns()].iter_mut().for_each(|v| *v += 1.0);
        let after = run(&other);
        for t in 0..12 {
            let sees = changed <= t && (changed < 5) == (t < 5);
            assert_eq!(
                before[t * 8..t * 8 + 8] != after[t * 8..t * 8 + 8],
                sees,
                "query {t}, changed {changed}"
            );
        }
    }
}

#[test]
fn cached_attention_equals_the_last_row() {
    let a = Attention {
        windows: 1,
        length: 9,
        heads: 4,
        kv_heads: 2,
        qk_width: 4,
        v_width: 6,
        scale: 0.5,
        precision: Precision::F32,
    };
    let qkv = noise(9 * a.columns(), 1);
    let (mut y, mut lse) = (vec![0.0; 9 * 24], vec![0.0; 36]);
    a.forward(&qkv, None, &mut y, &mut lse);
    let mut cache = vec![0.0; positions(9) * 20];
    for (position, row) in qkv.chunks(a.columns()).enumerate() {
        a.keep(&mut cache, position, &row[16..]);
    }
    let sights = [4, 9].map(|seen| Sight { cache: &cache, seen });
    let queries: Vec<f32> = [3, 8].iter().flat_map(|row| qkv[row * 36..][..36].to_vec()).collect();
    let mut got = vec![0.0; 2 * 24];
    a.attend(&queries, 36, &sights, &mut got);
    check("fourth and last row", &got, &wide(&[&y[3 * 24..4 * 24], &y[8 * 24..]].concat()), 1e-6);
}

const LATENT: Latent = Latent { heads: 3, rank: 5, own: 4, turned: 2, value: 3 };

/// The matrix that attention reads, from queries `[N, H*(A+P)]`, latents `[N, R+P]` and `u`.
fn plain_expand(queries: &[f64], latent: &[f64], u: &[f64]) -> Vec<f64> {
    let Latent { heads, rank, own, turned, value } = LATENT;
    latent
        .chunks(rank + turned)
        .zip(queries.chunks(heads * (own + turned)))
        .flat_map(|(row, queries)| {
            let (c, shared) = row.split_at(rank);
            let kv = plain_matmul(c, u, 1, rank, heads * (own + value), true);
            let heads = || kv.chunks(own + value);
            let keys = heads().flat_map(|kv| [&kv[..own], shared].concat()).collect::<Vec<_>>();
            let values = heads().flat_map(|kv| kv[own..].to_vec()).collect::<Vec<_>>();
            [queries, &keys, &values].concat()
        })
        .collect()
}

#[test]
fn latent_keys_and_values_forward_and_backward() {
    let Latent { heads, rank, turned, .. } = LATENT;
    let (n, stride, queries) = (40, rank + turned, heads * LATENT.qk_width());
    let (latent, u, q) = (noise(n * stride, 1), noise(LATENT.expanded() * rank, 2), vec![0.0; n * queries]);
    let product = Linear { input_stride: stride, ..Linear::new(n, rank, LATENT.expanded(), Precision::F32) };
    let (mut kv, mut qkv) = (vec![0.0; n * LATENT.expanded()], vec![0.0; n * LATENT.columns()]);
    product.forward(&latent, &u, &mut kv, Write::Replace);
    LATENT.expand(&kv, &latent, stride, &mut qkv);
    check("qkv", &qkv, &plain_expand(&wide(&q), &wide(&latent), &wide(&u)), 1e-6);
    let d_qkv = noise(qkv.len(), 3);
    let (mut d_kv, mut d_latent) = (vec![9.0; kv.len()], vec![9.0; latent.len()]);
    LATENT.expand_backward(&d_qkv, &mut d_kv, &mut d_latent, stride);
    product.backward_input(&d_kv, &u, &mut d_latent);
    let want = difference(|latent| plain_expand(&wide(&q), latent, &wide(&u)), &latent, &d_qkv);
    check("d_latent", &d_latent, &want, 1e-5);
}

/// Queries brought to the latent's side see what expanded keys and values show them.
#[test]
fn cached_latent_attention_equals_the_expanded_form() {
    let Latent { heads, rank, turned, value, .. } = LATENT;
    let (n, fed, queries) = (9, 3, heads * LATENT.qk_width());
    let (latent, u, q) =
        (noise(n * (rank + turned), 1), noise(LATENT.expanded() * rank, 2), noise(n * queries, 3));
    let a = Attention {
        windows: 1,
        length: n,
        heads,
        kv_heads: heads,
        qk_width: LATENT.qk_width(),
        v_width: value,
        scale: 0.5,
        precision: Precision::F32,
    };
    let want = plain_attention(&a, &plain_expand(&wide(&q), &wide(&latent), &wide(&u)), None);
    let mut output = vec![0.0; fed * heads * value];
    // Rows of queries may be wider than the queries.
    let rows: Vec<f32> =
        q[(n - fed) * queries..].chunks(queries).flat_map(|q| [q, &[7.0; 2]].concat()).collect();
    let sights: Vec<_> = (n - fed..n).map(|row| Sight { cache: &latent, seen: row + 1 }).collect();
    LATENT.attend(&rows, queries + 2, &u, &sights, 0.5, &mut output);
    check("last rows", &output, &want[(n - fed) * heads * value..], 2e-6);
}

/// `loss = sum_n a_n logp_n + b_n lse_n`, whose derivatives are `a` and `b`.
struct Fixed<'a>(&'a [f32], &'a [f32]);

impl Rule for Fixed<'_> {
    fn differentiate(
        &mut self,
        first: usize,
        log_probs: &[f32],
        _: &[f32],
        d_log_probs: &mut [f32],
        d_lse: &mut [f32],
    ) {
        d_log_probs.copy_from_slice(&self.0[first..first + log_probs.len()]);
        d_lse.copy_from_slice(&self.1[first..first + log_probs.len()]);
    }
}

/// Log-probability and lse of every row, interleaved.
fn plain_head(hidden: &[f64], w: &[f64], targets: &[u32], width: usize) -> Vec<f64> {
    let vocab = w.len() / width;
    plain_matmul(hidden, w, targets.len(), width, vocab, true)
        .chunks(vocab)
        .zip(targets)
        .flat_map(|(z, &target)| {
            let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
            [z[target as usize] - lse, lse]
        })
        .collect()
}

#[test]
fn head_log_probs_and_gradients() {
    for (windows, length, width, vocab) in [(1, 1, 3, 5), (3, 4, 7, 37), (2, 5, 4, 101)] {
        let n = windows * length;
        let head = Head { width, vocab, precision: Precision::F32 };
        let (hidden, w) = (noise(n * width, 1), noise(vocab * width, 2));
        let targets: Vec<u32> = (0..n).map(|i| (i * 7919 % vocab) as u32).collect();
        let (a, b) = (noise(n, 3), noise(n, 4));
        let mut scratch = Scratch::default();
        let rows = head.log_probs(&hidden, (&w).into(), &targets, &mut scratch);
        let plain = plain_head(&wide(&hidden), &wide(&w), &targets, width);
        check("log_probs", &rows.log_probs, &plain.iter().step_by(2).copied().collect::<Vec<_>>(), 1e-6);
        check("lse", &rows.lse, &plain.iter().skip(1).step_by(2).copied().collect::<Vec<_>>(), 1e-6);
        let upstream: Vec<f32> = a.iter().zip(&b).flat_map(|(a, b)| [*a, *b]).collect();
        let d_hidden = difference(|h| plain_head(h, &wide(&w), &targets, width), &hidden, &upstream);
        let d_w = difference(|w| plain_head(&wide(&hidden), w, &targets, width), &w, &upstream);

        let (mut dh, mut dw) = (vec![5.0; hidden.len()], vec![0.0; w.len()]);
        let gradients = head::Gradients { hidden: &mut dh, parameters: &mut dw };
        let again = head.train(&hidden, &w, &targets, length, &mut Fixed(&a, &b), gradients, &mut scratch);
        assert_eq!(again, rows);
        check("train d_hidden", &dh, &d_hidden, 2e-5);
        check("train d_w", &dw, &d_w, 2e-5);

        let (mut dh, mut dw) = (vec![5.0; hidden.len()], vec![0.0; w.len()]);
        let derivatives = head::differentiate_whole(&mut Fixed(&a, &b), &rows);
        let gradients = head::Gradients { hidden: &mut dh, parameters: &mut dw };
        head.backward(&hidden, &w, &targets, &rows, &derivatives, gradients, &mut scratch);
        check("backward d_hidden", &dh, &d_hidden, 2e-5);
        check("backward d_w", &dw, &d_w, 2e-5);
    }
}

#[test]
fn a_large_head_works_in_several_chunks() {
    // 70,000 rows of vocabulary hold 64 rows of logits at a time, so 150 rows need three chunks.
    let (n, width, vocab) = (150, 3, 70_000);
    let head = Head { width, vocab, precision: Precision::F32 };
    let (hidden, w) = (noise(n * width, 1), noise(vocab * width, 2));
    let targets: Vec<u32> = (0..n).map(|i| (i * 7919 % vocab) as u32).collect();
    let rows = head.log_probs(&hidden, (&w).into(), &targets, &mut Scratch::default());
    let plain = plain_head(&wide(&hidden), &wide(&w), &targets, width);
    check("log_probs", &rows.log_probs, &plain.iter().step_by(2).copied().collect::<Vec<_>>(), 1e-6);
    let (a, b) = (noise(n, 3), vec![0.0; n]);
    let run = |length: usize| {
        let (mut dh, mut dw) = (vec![0.0; hidden.len()], vec![0.0; w.len()]);
        let gradients = head::Gradients { hidden: &mut dh, parameters: &mut dw };
        head.train(&hidden, &w, &targets, length, &mut Fixed(&a, &b), gradients, &mut Scratch::default());
        (dh, dw)
    };
    let (whole, parts) = (run(150), run(50));
    check("d_hidden", &parts.0, &wide(&whole.0), 1e-6);
    check("d_w", &parts.1, &wide(&whole.1), 1e-6);
}

#[test]
fn one_thread_or_three_give_the_same_bits() {
    let run = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool of threads").install(
            || {
                let a = Attention {
                    windows: 3,
                    length: 130,
                    heads: 4,
                    kv_heads: 2,
                    qk_width: 16,
                    v_width: 16,
                    scale: 0.25,
                    precision: Precision::F32,
                };
                let n = 390;
                let (qkv, dy) = (noise(n * a.columns(), 1), noise(n * 64, 2));
                let (mut y, mut lse, mut d) = (vec![0.0; n * 64], vec![0.0; n * 4], vec![0.0; qkv.len()]);
                a.forward(&qkv, None, &mut y, &mut lse);
                a.backward(&qkv, None, &y, &lse, &dy, &mut d);
                let head = Head { width: 64, vocab: 1003, precision: Precision::F32 };
                let w = noise(1003 * 64, 5);
                let targets: Vec<u32> = (0..n).map(|i| (i * 31 % 1003) as u32).collect();
                let (mut dh, mut dw) = (vec![0.0; n * 64], vec![0.0; w.len()]);
                let gradients = head::Gradients { hidden: &mut dh, parameters: &mut dw };
                let rows = head.train(
                    &y,
                    &w,
                    &targets,
                    130,
                    &mut Fixed(&noise(n, 6), &noise(n, 7)),
                    gradients,
                    &mut Scratch::default(),
                );
                let (mut normed, mut inverse) = (vec![0.0; n * 64], vec![0.0; n]);
                let gain = noise(64, 8);
                norm::forward(&dh, &gain, 1e-5, &mut normed, &mut inverse);
                let (mut dx, mut d_gain) = (vec![0.0; n * 64], vec![0.0; 64]);
                norm::backward(&dh, &gain, &inverse, &y, &mut dx, &mut d_gain);
                [y, lse, d, dh, dw, rows.log_probs, normed, dx, d_gain]
                    .map(|v| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
            },
        )
    };
    assert_eq!(run(1), run(3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn attention_of_any_shape(windows in 1usize..3, length in 1usize..90, kv_heads in 1usize..3, group in 1usize..4,
                              qk_width in 1usize..9, v_width in 1usize..9, boundary in 1usize..60, seed in 1u64..1000) {
        let a = Attention { windows, length, heads: kv_heads * group, kv_heads, qk_width, v_width, scale: 0.4, precision: Precision::F32 };
        let starts = document_starts(windows, length, &[boundary]);
        let qkv = noise(windows * length * a.columns(), seed);
        let (mut y, mut lse) = (vec![0.0; windows * length * a.heads * v_width], vec![0.0; windows * length * a.heads]);
        a.forward(&qkv, Some(&starts), &mut y, &mut lse);
        check("output", &y, &plain_attention(&a, &wide(&qkv), Some(&starts)), 5e-6);
    }
}

/// More rows than are made at a time, of models of two widths: each row meets its own logits of both.
#[test]
fn rows_of_two_models_meet() {
    const ROWS: usize = 67;
    const VOCAB: usize = 70_000;
    let head = |width| Head { width, vocab: VOCAB, precision: Precision::F32 };
    let (own, other) = (head(3), head(5));
    let inputs = |head: Head, seed| (noise(ROWS * head.width, seed), noise(VOCAB * head.width, seed + 1));
    let ((hidden, w), (other_hidden, other_w)) = (inputs(own, 1), inputs(other, 3));
    let columns = [0, 1, VOCAB - 1];
    let rows = own.compare(
        &hidden,
        (&w).into(),
        (&other, &other_hidden, (&other_w).into()),
        |row, own, other| (row, columns.map(|v| own[v]), columns.map(|v| other[v])),
        &mut Scratch::default(),
        &mut Scratch::default(),
    );
    assert_eq!(rows.len(), ROWS);
    let logits = |hidden: &[f32], w: &[f32], width: usize, row: usize| {
        columns.map(|v| {
            let pairs = hidden[row * width..][..width].iter().zip(&w[v * width..][..width]);
            pairs.map(|(h, w)| f64::from(*h) * f64::from(*w)).sum::<f64>()
        })
    };
    for (index, (row, found, others)) in rows.into_iter().enumerate() {
        assert_eq!(row, index);
        check("own", &found, &logits(&hidden, &w, 3, row), 1e-5);
        check("other", &others, &logits(&other_hidden, &other_w, 5, row), 1e-5);
    }
}
