//! The common driver: cuts outputs into tasks, runs the tiles over them and applies the epilogue.

use std::cell::RefCell;
use std::ops::Range;

use super::epilogue::{add_bias, Epilogue};
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::scalar;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use super::{Act, Dense, DenseFormat, Disjoint, Isa, Rows, Stored, Term, BF16, F16, F32};
use crate::kernels::isa::Level;
use crate::kernels::threads::parallel;

/// One matrix, its output, and what lies between.
pub(super) struct Part<'a> {
    term: Term<'a>,
    epilogue: Epilogue<'a>,
    y: Disjoint<'a, f32>,
    y_len: usize,
}

impl<'a> Part<'a> {
    pub(super) fn new(term: Term<'a>, epilogue: Epilogue<'a>, y: &'a mut [f32]) -> Self {
        let y_len = y.len();
        Self { term, epilogue, y: Disjoint::new(y), y_len }
    }

    fn rows(&self) -> usize {
        self.term.0.rows
    }

    /// Panics unless the part's lengths agree with the input of `t` tokens.
    fn check(&self, x: &[f32], t: usize) {
        let check = |(w, bias): &Term| {
            assert_eq!(x.len(), t * w.cols, "x of {t} tokens and a matrix of {} inputs", w.cols);
            assert_eq!(self.y_len, t * w.rows, "y of {t} tokens and a matrix of {} outputs", w.rows);
            if let Some(bias) = bias {
                assert_eq!(bias.len(), w.rows, "bias of a matrix of {} outputs", w.rows);
            }
        };
        check(&self.term);
        if let Epilogue::Gate { up, .. } = &self.epilogue {
            check(up);
        }
    }
}

/// Tokens that are multiplied together; more are taken in turns, so that the sums keep a bounded size.
const TOKENS: usize = 512;

/// Rows of a task when arithmetic sets the pace: a multiple of every ISA's tile, and a chunk of them, as
/// f32, is 384 KiB.
const ROWS: usize = 96;

/// Bytes of a matrix that make a task when memory sets the pace: some ten microseconds of reading.
const TASK_BYTES: usize = 128 << 10;

/// Rows of a task, by the problem's shape alone.
fn task_rows(t: usize, w: &Dense) -> usize {
    if t > 4 {
        return ROWS;
    }
    let row_bytes = (w.cols * w.format.size()).max(1);
    TASK_BYTES.div_ceil(row_bytes).next_multiple_of(8)
}

/// Computes all parts in one parallel region.
pub(super) fn run(isa: Isa, x: &[f32], parts: &[Part]) {
    let Some(first) = parts.iter().find(|part| part.rows() > 0) else {
        return parts.iter().for_each(|part| part.check(x, x.len() / part.term.0.cols.max(1)));
    };
    let t = first.y_len / first.rows();
    parts.iter().for_each(|part| part.check(x, t));
    if t == 0 {
        return;
    }
    let blocks = |part: &Part| part.rows().div_ceil(task_rows(t, &part.term.0));
    parallel(parts.iter().map(blocks).sum(), |mut task| {
        for part in parts {
            let blocks = blocks(part);
            if task < blocks {
                let rows = task_rows(t, &part.term.0);
                let start = task * rows;
                return block(isa, x, t, part, start..part.rows().min(start + rows));
            }
            task -= blocks;
        }
    });
}

/// Buffers of a thread, kept for its next task.
#[derive(Default)]
struct Scratch {
    sums: Vec<f32>,
    up: Vec<f32>,
    packed: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// One task: some rows of one part, all tokens.
fn block(isa: Isa, x: &[f32], t: usize, part: &Part, rows: Range<usize>) {
    SCRATCH.with_borrow_mut(|scratch| {
        for start in (0..t).step_by(TOKENS) {
            let tokens = start..t.min(start + TOKENS);
            let x = &x[start * part.term.0.cols..tokens.end * part.term.0.cols];
            products(isa, x, tokens.len(), &part.term, rows.clone(), &mut scratch.sums, &mut scratch.packed);
            if let Epilogue::Gate { up, act } = &part.epilogue {
                products(isa, x, tokens.len(), up, rows.clone(), &mut scratch.up, &mut scratch.packed);
                gate(isa, *act, &mut scratch.sums, &scratch.up);
            }
            for (token, sums) in tokens.zip(scratch.sums.chunks_exact(rows.len())) {
                // SAFETY: each task has rows, that is columns of y, of its own.
                let y = unsafe { part.y.range(token * part.rows() + rows.start, rows.len()) };
                match part.epilogue {
                    Epilogue::Add => y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum),
                    Epilogue::Store | Epilogue::Gate { .. } => y.copy_from_slice(sums),
                }
            }
        }
    });
}

/// sums\[t, r\] = x\[t\] · w\[r\] + b\[r\] for some rows.
fn products(
    isa: Isa,
    x: &[f32],
    t: usize,
    (w, bias): &Term,
    rows: Range<usize>,
    sums: &mut Vec<f32>,
    packed: &mut Vec<f32>,
) {
    sums.clear();
    sums.resize(t * rows.len(), 0.0);
    let x = Rows::new(x, w.cols, w.cols, t);
    match w.format {
        DenseFormat::F32 => accumulate::<F32>(isa, x, w.part(rows.clone()), sums, packed),
        DenseFormat::F16 => accumulate::<F16>(isa, x, w.part(rows.clone()), sums, packed),
        DenseFormat::BF16 => accumulate::<BF16>(isa, x, w.part(rows.clone()), sums, packed),
    }
    if let Some(bias) = bias {
        add_bias(sums, &bias[rows]);
    }
}

/// sums\[t, r\] += x\[t\] · w\[r\]
fn accumulate<F: Stored>(isa: Isa, x: Rows<f32>, w: Rows<F::Raw>, sums: &mut [f32], packed: &mut Vec<f32>) {
    match isa.level() {
        Level::Scalar => scalar::accumulate::<F>(x, w, sums),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this level exists only after its features were detected.
        Level::Avx2 => unsafe { avx2::accumulate::<F>(x, w, sums, packed) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx512 => unsafe { avx512::accumulate::<F>(x, w, sums, packed) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Level::Neon => unsafe { neon::accumulate::<F>(x, w, sums, packed) },
    }
}

/// gate = act(gate) · up
fn gate(isa: Isa, act: Act, gate: &mut [f32], up: &[f32]) {
    match isa.level() {
        Level::Scalar => act.gate(gate, up),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this level exists only after its features were detected.
        Level::Avx2 => unsafe { avx2::gate(act, gate, up) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx512 => unsafe { avx512::gate(act, gate, up) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Level::Neon => unsafe { neon::gate(act, gate, up) },
    }
}
