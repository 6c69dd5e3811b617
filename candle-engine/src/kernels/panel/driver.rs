//! Cuts rows into tasks, packs their panels and runs the tiles over them.

use std::cell::RefCell;

use crate::kernels::isa::Dot;
use crate::kernels::threads::{parallel, Disjoint};
use crate::kernels::Isa;

#[cfg(target_arch = "x86_64")]
use super::{avx2, vnni};
use super::{Panel, Quantization, Tile, Tokens, OCTET};

/// A matrix whose rows can be unpacked.
pub trait Source: Sync {
    /// Bits of a quant that has no sign; 8 if it has one.
    const BITS: u32;

    /// Rows.
    fn rows(&self) -> usize;

    /// Unpacks eight rows into octet `h` of the panel, quants of 8 bits as [`has_sign`] says.
    fn pack(&self, isa: Isa, rows: [usize; OCTET], h: usize, panel: &mut Panel);
}

/// Whether the level's panels hold quants of 8 bits with their sign; others have it flipped, that is, 128 added.
pub fn has_sign(isa: Isa) -> bool {
    match isa.dot() {
        #[cfg(target_arch = "x86_64")]
        Dot::Avx2 => true,
        _ => false,
    }
}

/// Products of a task: some ten microseconds' worth when the weights come from memory.
const TASK: usize = 1 << 17;

thread_local! {
    static PANEL: RefCell<Panel> = RefCell::default();
    static SUMS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// `y[t, r] = Σ w[r, i] · x[t, i]`, `y [m, rows]`.
///
/// # Panics
///
/// If the lengths do not agree, or the level has no such kernel.
pub fn matmul<S: Source>(isa: Isa, w: &S, q: &Quantization, x: &Tokens, y: &mut [f32]) {
    match isa.dot() {
        Dot::Scalar => unreachable!("the specification has no panels"),
        #[cfg(target_arch = "x86_64")]
        Dot::Avx2 => run(isa, w, q, x, y, |panel, tile, y| {
            // SAFETY: this level exists only after its features were detected.
            unsafe {
                match S::BITS {
                    8 => avx2::multiply::<8>(panel, q, tile, y),
                    6 => avx2::multiply::<6>(panel, q, tile, y),
                    5 => avx2::multiply::<5>(panel, q, tile, y),
                    _ => avx2::multiply::<4>(panel, q, tile, y),
                }
            }
        }),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Dot::AvxVnni => run(isa, w, q, x, y, |p, tile, y| unsafe { vnni::avx::multiply(p, q, tile, y) }),
        #[cfg(target_arch = "x86_64")]
        Dot::Avx512Vnni => {
            // SAFETY: as above.
            run(isa, w, q, x, y, |p, tile, y| unsafe { vnni::avx512::multiply(p, q, tile, y) })
        }
    }
}

fn run<S: Source, const ROWS: usize>(
    isa: Isa,
    w: &S,
    q: &Quantization,
    x: &Tokens,
    y: &mut [f32],
    multiply: impl Fn(&Panel, &Tile, &mut [[f32; ROWS]]) + Sync,
) {
    let (m, n) = (x.len(), w.rows());
    assert_eq!(y.len(), m * n, "y of {m} tokens and {n} rows");
    let rows = (TASK / (q.k * m.max(1))).next_multiple_of(ROWS).max(ROWS);
    let y = Disjoint::new(y);
    parallel(n.div_ceil(rows), |task| {
        PANEL.with_borrow_mut(|panel| {
            SUMS.with_borrow_mut(|sums| {
                for from in (task * rows..n.min((task + 1) * rows)).step_by(ROWS) {
                    panel.resize(ROWS / OCTET, q);
                    for h in 0..ROWS / OCTET {
                        // Past the last row the last is computed again, and thrown away.
                        let octet = std::array::from_fn(|r| (from + h * OCTET + r).min(n - 1));
                        w.pack(isa, octet, h, panel);
                    }
                    sums.clear();
                    sums.resize(m * ROWS, 0.0);
                    let mut left = sums.as_chunks_mut::<ROWS>().0;
                    for tile in x.tiles() {
                        let (sums, rest) = left.split_at_mut(tile.len);
                        multiply(panel, tile, sums);
                        left = rest;
                    }
                    let kept = ROWS.min(n - from);
                    for (t, sums) in sums.as_chunks::<ROWS>().0.iter().enumerate() {
                        // SAFETY: columns of `y` that are this task's rows of `w`, which no other task has.
                        unsafe { y.range(t * n + from, kept) }.copy_from_slice(&sums[..kept]);
                    }
                }
            });
        });
    });
}
