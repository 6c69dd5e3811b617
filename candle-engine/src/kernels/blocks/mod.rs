//! Matrices in GGUF's block formats, used as they lie in the file.
//!
//! y[t, r] = Σ w[r, i] · x[t, i]
//!
//! Activations are quantized to 8 bits, one scale for every 32; the products within a scale's numbers are
//! summed as integers, exactly, and these sums are added up in the order of the row. So every ISA, every
//! batch and every number of threads gives the same bits. Unlike ggml, which quantizes activations in the
//! 256 of a K-block, all formats do it in 32, which is more accurate and lets them share their kernels.

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod formats;
mod scalar;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use self::activations::Activations;
use self::formats::{Block, Q2K, Q3K, Q4K, Q4_0, Q4_1, Q5K, Q5_0, Q5_1, Q6K, Q8_0};
#[cfg(target_arch = "x86_64")]
use super::isa::Level;
use super::threads::{self, Disjoint};
use super::Isa;
use crate::weights::Format;

/// Rows of a task are a multiple of this, so that only the last task has a ragged tile.
const ROWS: usize = 16;

/// Products of a task: some ten microseconds' worth when the weights come from memory.
const TASK: usize = 1 << 17;

/// Runs an expression with `B` as the block type of a format.
macro_rules! with_block {
    ($format:expr, $B:ident => $run:expr) => {
        with_block!(@ $format, $B => $run;
            Q4_0: Q4_0, Q4_1: Q4_1, Q5_0: Q5_0, Q5_1: Q5_1, Q8_0: Q8_0,
            Q2_K: Q2K, Q3_K: Q3K, Q4_K: Q4K, Q5_K: Q5K, Q6_K: Q6K)
    };
    (@ $format:expr, $B:ident => $run:expr; $($name:ident: $block:ty),*) => {
        match $format {
            $(Format::$name => {
                type $B = $block;
                $run
            })*
            other => panic!("{other} is no block format"),
        }
    };
}

/// Whether a format is one of these.
pub const fn supports(format: Format) -> bool {
    format.block().0 > 1
}

/// Multiplies rows of activations by a matrix in a block format.
///
/// y[t, r] = Σ w[r, i] · x[t, i]
///
/// Shapes: `w` holds `[n, k]` numbers in whole blocks, `x [m, k]`, `y [m, n]`.
///
/// # Panics
///
/// If `format` is no block format, `k` no multiple of its block, or a length does not fit the others.
pub fn matmul(isa: Isa, format: Format, w: &[u8], k: usize, x: &[f32], y: &mut [f32]) {
    with_block!(format, B => run::<B>(isa, w, k, x, y))
}

/// Writes the numbers of a row, or of several that follow each other.
///
/// # Panics
///
/// If `format` is no block format or the lengths do not agree.
pub fn dequantize(format: Format, w: &[u8], out: &mut [f32]) {
    assert!(supports(format), "{format} is no block format");
    assert_eq!(format.bytes(&[out.len()]), Some(w.len()), "bytes of {} numbers in {format}", out.len());
    with_block!(format, B => scalar::dequantize::<B>(w, out))
}

thread_local! {
    /// Kept from call to call: fresh pages cost more than small products.
    static ACTIVATIONS: RefCell<Activations> = RefCell::default();
    static UNPACKED: RefCell<scalar::Unpacked> = RefCell::default();
    #[cfg(target_arch = "x86_64")]
    static PANEL: RefCell<avx2::Panel> = RefCell::default();
}

fn run<B: Block>(isa: Isa, w: &[u8], k: usize, x: &[f32], y: &mut [f32]) {
    if x.is_empty() || y.is_empty() {
        return;
    }
    assert!(k > 0 && k.is_multiple_of(B::LEN), "k = {k} is no multiple of {}'s block", B::FORMAT);
    let row_bytes = k / B::LEN * B::BYTES;
    let (m, n) = (x.len() / k, w.len() / row_bytes);
    assert_eq!((x.len(), w.len(), y.len()), (m * k, n * row_bytes, m * n), "({m}, {k}, {n})");

    ACTIVATIONS.with_borrow_mut(|activations| {
        activations.quantize(x, k, |x, quants, scales, sums| match isa.level() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these levels exist only after their features were detected.
            Level::Avx2 | Level::Avx512 => unsafe { avx2::quantize(x, quants, scales, sums) },
            _ => activations::quantize(x, quants, scales, sums),
        });
        let x = &*activations;
        let rows = (TASK / (k * m)).next_multiple_of(ROWS).max(ROWS);
        let y = Disjoint::new(y);
        threads::parallel(n.div_ceil(rows), |task| {
            let from = task * rows;
            let range = from..n.min(from + rows);
            let out = |row: usize, t: usize, values: &[f32]| {
                // SAFETY: columns of `y` that are this task's rows of `w`, which no other task has; and the
                // kernel's calls follow each other.
                unsafe { y.range(t * n + row, values.len()) }.copy_from_slice(values);
            };
            match isa.level() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: these levels exist only after their features were detected.
                Level::Avx2 | Level::Avx512 => PANEL.with_borrow_mut(|panel| unsafe {
                    avx2::matmul::<B>(w, row_bytes, range, x, panel, out);
                }),
                _ => UNPACKED.with_borrow_mut(|unpacked| {
                    scalar::matmul::<B>(w, row_bytes, range, x, unpacked, |row, t, y| out(row, t, &[y]));
                }),
            }
        });
    });
}
