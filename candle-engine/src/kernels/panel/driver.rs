//! Quantizes the activations, cuts rows into tasks and runs a level's kernels over them.

use std::cell::RefCell;
use std::ops::Range;

use crate::kernels::act::{act_mul_on, Act};
use crate::kernels::isa::Dot;
use crate::kernels::threads::{parallel, Disjoint};
use crate::kernels::Isa;

use super::tile::TILE;
#[cfg(target_arch = "x86_64")]
use super::{avx2, vnni};
use super::{Panel, Quantization, Tile, Tokens, OCTET, SIXTEEN};

/// A quantized matrix.
pub trait Source: Sync {
    /// Bits of a quant that has no sign; 8 if it has one.
    const BITS: u32;

    /// Rows.
    fn rows(&self) -> usize;

    /// What it wants of the activations. `flipped`: its quants of 8 bits are taken as unsigned, 128 added.
    fn quantization(&self, flipped: bool) -> Quantization;

    /// Unpacks rows from `from` on until the panel is full; past the last row anything. Quants of 8 bits have 128
    /// added unless the level is AVX2.
    fn pack(&self, isa: Isa, from: usize, panel: &mut Panel);

    /// Calls `out(row, t, y)` for runs of the rows `range` and each token, without a panel. Quants of 8 bits have 128
    /// added where the level is AVX-512-VNNI.
    fn direct(&self, isa: Isa, range: Range<usize>, x: &[Tile], out: impl FnMut(usize, usize, &[f32]));
}

/// Products of a task: some ten microseconds' worth when the weights come from memory.
const TASK: usize = 1 << 18;

/// Numbers of a row that are multiplied before the next tile's turn: so much of a panel stays in a first-level
/// cache, beside what it meets.
const CHUNK: usize = 512;

/// Bytes of the panels that take turns with a tile: a good part of a second-level cache.
const PANEL_BYTES: usize = 256 << 10;

#[derive(Default)]
struct Scratch {
    panels: Vec<Panel>,
    sums: Vec<f32>,
    up: Vec<f32>,
}

thread_local! {
    /// Kept from call to call: fresh pages cost more than small products.
    static TOKENS: RefCell<Tokens> = RefCell::default();
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// `y[t, r] = Σ w[r, i] · x[t, i]`
///
/// Shapes: `x [m, k]`, `y [m, rows]`.
///
/// # Panics
///
/// If the lengths do not agree.
pub fn matmul<S: Source>(isa: Isa, w: &S, x: &[f32], y: &mut [f32]) {
    run(isa, w, None, x, y);
}

/// `y[t, r] = act(Σ gate[r, i] · x[t, i]) · Σ up[r, i] · x[t, i]`
///
/// Shapes: `x [m, k]`, `y [m, rows]`.
///
/// # Panics
///
/// If the lengths do not agree, or the matrices want different activations.
pub fn matmul_gated<S: Source>(isa: Isa, gate: &S, up: &S, act: Act, x: &[f32], y: &mut [f32]) {
    assert_eq!(gate.quantization(true), up.quantization(true), "gate and up");
    assert_eq!(gate.rows(), up.rows(), "gate and up");
    run(isa, gate, Some((up, act)), x, y);
}

fn run<S: Source>(isa: Isa, w: &S, up: Option<(&S, Act)>, x: &[f32], y: &mut [f32]) {
    let k = w.quantization(false).k;
    let (m, n) = (x.len() / k, w.rows());
    assert_eq!((x.len(), y.len()), (m * k, m * n), "{m} tokens, a matrix of {n} rows of {k}");
    if y.is_empty() {
        return;
    }
    TOKENS.with_borrow_mut(|tokens| {
        if m * w.quantization(false).parts() == 1 || isa.dot() == Dot::Scalar {
            let flipped = match isa.dot() {
                #[cfg(target_arch = "x86_64")]
                Dot::Avx512Vnni => true,
                _ => false,
            };
            tokens.quantize(isa, x, &w.quantization(flipped), 1);
            return one_by_one(isa, w, up, tokens.tiles(), m, y);
        }
        let quantize = |tokens: &mut Tokens, flipped| {
            let q = w.quantization(flipped);
            tokens.quantize(isa, x, &q, TILE);
            q
        };
        match isa.dot() {
            Dot::Scalar => unreachable!("handled above"),
            #[cfg(target_arch = "x86_64")]
            Dot::Avx2 => {
                let q = quantize(tokens, false);
                many(isa, w, up, &q, tokens, y, |panel, tile, periods, y| {
                    // SAFETY: this level exists only after its features were detected.
                    unsafe {
                        match S::BITS {
                            8 => avx2::multiply::<8>(panel, &q, tile, periods, y),
                            6 => avx2::multiply::<6>(panel, &q, tile, periods, y),
                            5 => avx2::multiply::<5>(panel, &q, tile, periods, y),
                            _ => avx2::multiply::<4>(panel, &q, tile, periods, y),
                        }
                    }
                });
            }
            #[cfg(target_arch = "x86_64")]
            Dot::AvxVnni => {
                let q = quantize(tokens, true);
                many(isa, w, up, &q, tokens, y, |panel, tile, periods, y| {
                    // SAFETY: as above.
                    unsafe { vnni::avx::multiply(panel, &q, tile, periods, y) }
                });
            }
            #[cfg(target_arch = "x86_64")]
            Dot::Avx512Vnni => {
                let q = quantize(tokens, true);
                many(isa, w, up, &q, tokens, y, |panel, tile, periods, y| {
                    // SAFETY: as above.
                    unsafe { vnni::avx512::multiply(panel, &q, tile, periods, y) }
                });
            }
        }
    });
}

/// One token: memory sets the pace, and rows are multiplied as they are unpacked.
fn one_by_one<S: Source>(isa: Isa, w: &S, up: Option<(&S, Act)>, x: &[Tile], m: usize, y: &mut [f32]) {
    let (n, parts) = (w.rows(), x.len() / m);
    // A token's first part, and what the second adds to it.
    let store = |part: usize, to: &mut [f32], v: &[f32]| match part % parts {
        0 => to.copy_from_slice(v),
        _ => to.iter_mut().zip(v).for_each(|(to, v)| *to += v),
    };
    let rows = (TASK / (w.quantization(false).k * m)).next_multiple_of(SIXTEEN).max(SIXTEEN);
    let y = Disjoint::new(y);
    parallel(n.div_ceil(rows), |task| {
        let range = task * rows..n.min((task + 1) * rows);
        // SAFETY: columns of `y` that are this task's rows of `w`, which no other task has; and the uses of the
        // slices follow each other.
        let columns = |row: usize, t: usize, len: usize| unsafe { y.range(t * n + row, len) };
        w.direct(isa, range.clone(), x, |row, i, v| store(i, columns(row, i / parts, v.len()), v));
        if let Some((up, act)) = up {
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.up.resize(m * range.len(), 0.0);
                up.direct(isa, range.clone(), x, |row, i, v| {
                    let at = i / parts * range.len() + row - range.start;
                    store(i, &mut scratch.up[at..][..v.len()], v);
                });
                for (t, up) in scratch.up.chunks_exact(range.len()).enumerate().take(m) {
                    act_mul_on(isa, act, columns(range.start, t, range.len()), up);
                }
            });
        }
    });
}

/// Many tokens: arithmetic sets the pace, and rows are laid out first.
fn many<S: Source, const ROWS: usize>(
    isa: Isa,
    w: &S,
    up: Option<(&S, Act)>,
    q: &Quantization,
    x: &Tokens,
    y: &mut [f32],
    multiply: impl Fn(&Panel, &Tile, Range<usize>, &mut [[f32; ROWS]]) + Sync,
) {
    let (parts, n) = (x.len(), w.rows());
    let m = parts / q.parts();
    let together = (PANEL_BYTES / (ROWS * q.k)).clamp(1, 4);
    let chunk = (CHUNK / q.period).max(1);
    let rows = (TASK / (q.k * parts)).next_multiple_of(ROWS).max(ROWS * together);
    // The sums of some panels' rows and all tokens.
    let products = |w: &S, range: Range<usize>, panels: &mut Vec<Panel>, sums: &mut Vec<f32>| {
        let count = range.len().div_ceil(ROWS);
        panels.resize_with(count.max(panels.len()), Panel::default);
        for (panel, from) in panels.iter_mut().zip(range.step_by(ROWS)) {
            panel.resize(ROWS / OCTET, q);
            w.pack(isa, from, panel);
        }
        sums.clear();
        sums.resize(count * parts * ROWS, 0.0);
        for first in (0..q.periods()).step_by(chunk) {
            let mut token = 0;
            for tile in x.tiles() {
                for (panel, sums) in panels.iter().zip(sums.as_chunks_mut().0.chunks_exact_mut(parts)) {
                    let sums = &mut sums[token..token + tile.len];
                    multiply(panel, tile, first..q.periods().min(first + chunk), sums);
                }
                token += tile.len;
            }
        }
        if q.precise {
            join::<ROWS>(sums);
        }
    };
    let y = Disjoint::new(y);
    parallel(n.div_ceil(rows), |task| {
        SCRATCH.with_borrow_mut(|Scratch { panels, sums, up: up_sums }| {
            let end = n.min((task + 1) * rows);
            for from in (task * rows..end).step_by(ROWS * together) {
                let range = from..end.min(from + ROWS * together);
                products(w, range.clone(), panels, sums);
                if let Some((up, act)) = up {
                    products(up, range.clone(), panels, up_sums);
                    act_mul_on(isa, act, sums, up_sums);
                }
                for t in 0..m {
                    // SAFETY: columns of `y` that are this task's rows of `w`, which no other task has.
                    let y = unsafe { y.range(t * n + from, range.len()) };
                    for (y, sums) in y.chunks_mut(ROWS).zip(sums.chunks_exact(m * ROWS)) {
                        y.copy_from_slice(&sums[t * ROWS..][..y.len()]);
                    }
                }
            }
        });
    });
}

/// Adds the two parts of each token up: `[panels][2 · m][ROWS]` becomes `[panels][m][ROWS]`.
fn join<const ROWS: usize>(sums: &mut Vec<f32>) {
    let (rows, _) = sums.as_chunks_mut::<ROWS>();
    for i in 0..rows.len() / 2 {
        rows[i] = std::array::from_fn(|r| rows[2 * i][r] + rows[2 * i + 1][r]);
    }
    sums.truncate(sums.len() / 2);
}
