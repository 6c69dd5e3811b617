//! The common driver: cuts outputs into tasks, runs the tiles over them and applies the epilogue.

use std::cell::RefCell;
use std::ops::Range;

use super::epilogue::{add_bias, Epilogue};
use super::many::Laid;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::scalar;
use super::tiles::Tiles;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use super::{Act, Dense, DenseFormat, Disjoint, Isa, Rows, Stored, Term, BF16, F16, F32};
use crate::kernels::isa::Level;
use crate::kernels::threads::{parallel, threads};

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

/// Bytes of a matrix that make a task when memory sets the pace: some ten microseconds of reading.
const TASK_BYTES: usize = 128 << 10;

/// Tokens of which a copy is laid out at once, so that it keeps a bounded size.
const TOKENS: usize = 512;

/// Tokens in place, or laid out.
#[derive(Clone, Copy)]
enum Input<'a> {
    Few(Rows<'a, f32>),
    Many(Laid<'a>),
}

impl Input<'_> {
    fn tokens(&self) -> usize {
        match self {
            Self::Few(x) => x.count,
            Self::Many(x) => x.tiles().tokens(),
        }
    }

    /// Rows of a task, by the problem's shape alone: a multiple of every ISA's tile.
    fn task_rows(&self, w: &Dense) -> usize {
        let rows = match self {
            Self::Few(_) => TASK_BYTES.div_ceil((w.cols * w.format.size()).max(1)),
            // A chunk of 96 rows, widened, is 384 KiB. Fewer where all threads would not end together.
            Self::Many(_) => (w.rows / 16).clamp(32, 96),
        };
        rows.next_multiple_of(8)
    }
}

/// Computes all parts, in one parallel region or, with many tokens, two for each `TOKENS` of them.
pub(super) fn run(isa: Isa, x: &[f32], parts: &[Part]) {
    let Some(first) = parts.iter().find(|part| part.rows() > 0) else {
        return parts.iter().for_each(|part| part.check(x, x.len() / part.term.0.cols.max(1)));
    };
    let (t, cols) = (first.y_len / first.rows(), first.term.0.cols);
    parts.iter().for_each(|part| part.check(x, t));
    if t == 0 {
        return;
    }
    if parts.iter().all(|part| t < part.term.0.format.many()) {
        return region(isa, Input::Few(Rows::new(x, cols, cols, t)), 0, parts);
    }
    let [lanes, most] = shape(isa);
    let mut buffer = LAID.take();
    // Of nearly equal size, so that none is too small to be cut into tiles.
    let turns = t.div_ceil(TOKENS);
    for turn in 0..turns {
        let (start, end) = (turn * t / turns, (turn + 1) * t / turns);
        let x = Rows::new(&x[start * cols..], cols, cols, end - start);
        let x = Laid::new(x, Tiles::new(x.count, most), lanes, &mut buffer);
        region(isa, Input::Many(x), start, parts);
    }
    LAID.set(buffer);
}

/// The floats of a vector and the tokens of a tile.
fn shape(isa: Isa) -> [usize; 2] {
    match isa.level() {
        Level::Scalar => scalar::SHAPE,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::SHAPE,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::SHAPE,
        #[cfg(target_arch = "aarch64")]
        Level::Neon => neon::SHAPE,
    }
}

/// All parts for some tokens, whose outputs begin with token `first`.
fn region(isa: Isa, x: Input, first: usize, parts: &[Part]) {
    let blocks = |part: &Part| part.rows().div_ceil(x.task_rows(&part.term.0));
    parallel(parts.iter().map(blocks).sum(), |mut task| {
        for part in parts {
            let blocks = blocks(part);
            if task < blocks {
                let rows = x.task_rows(&part.term.0);
                return block(isa, x, first, part, task * rows..part.rows().min((task + 1) * rows));
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
    tile: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static LAID: RefCell<Vec<f32>> = RefCell::default();
}

/// One task: some rows of one part, all tokens.
fn block(isa: Isa, x: Input, first: usize, part: &Part, rows: Range<usize>) {
    let w = &part.term;
    // Where this thread's next task begins if the others keep pace.
    let next = w.0.row_start(rows.start + rows.len() * threads());
    let product = Product { isa, x, rows: rows.clone() };
    SCRATCH.with_borrow_mut(|Scratch { sums, up, tile }| {
        match &part.epilogue {
            Epilogue::Gate { up: u, act } => {
                product.compute(w, u.0.row_start(rows.start), sums, tile);
                product.compute(u, next, up, tile);
                gate(isa, *act, sums, up);
            }
            Epilogue::Store | Epilogue::Add => product.compute(w, next, sums, tile),
        }
        for (token, sums) in (first..).zip(sums.chunks_exact(rows.len())) {
            // SAFETY: each task has rows, that is columns of y, of its own.
            let y = unsafe { part.y.range(token * part.rows() + rows.start, rows.len()) };
            match part.epilogue {
                Epilogue::Add => y.iter_mut().zip(sums).for_each(|(y, sum)| *y += *sum),
                Epilogue::Store | Epilogue::Gate { .. } => y.copy_from_slice(sums),
            }
        }
    });
}

/// What a task multiplies.
struct Product<'a> {
    isa: Isa,
    x: Input<'a>,
    rows: Range<usize>,
}

impl Product<'_> {
    /// sums\[t, r\] = x\[t\] · w\[r\] + b\[r\], while what is at `next` is asked for.
    fn compute(&self, (w, bias): &Term, next: *const u8, sums: &mut Vec<f32>, tile: &mut Vec<f32>) {
        sums.resize(self.x.tokens() * self.rows.len(), 0.0);
        match w.format {
            DenseFormat::F32 => self.dots::<F32>(w.part(self.rows.clone()), next, sums, tile),
            DenseFormat::F16 => self.dots::<F16>(w.part(self.rows.clone()), next, sums, tile),
            DenseFormat::BF16 => self.dots::<BF16>(w.part(self.rows.clone()), next, sums, tile),
        }
        if let Some(bias) = bias {
            add_bias(sums, &bias[self.rows.clone()]);
        }
    }

    /// sums\[t, r\] = x\[t\] · w\[r\]
    fn dots<F: Stored>(&self, w: Rows<F::Raw>, next: *const u8, sums: &mut [f32], tile: &mut Vec<f32>) {
        match (self.isa.level(), self.x) {
            (Level::Scalar, Input::Few(x)) => scalar::few::<F>(x, w, sums),
            (Level::Scalar, Input::Many(x)) => scalar::many::<F>(x, w, sums),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this level exists only after its features were detected.
            (Level::Avx2, Input::Few(x)) => unsafe { avx2::few::<F>(x, w, next, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Level::Avx2, Input::Many(x)) => unsafe { avx2::many::<F>(x, w, next, sums, tile) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Level::Avx512, Input::Few(x)) => unsafe { avx512::few::<F>(x, w, next, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Level::Avx512, Input::Many(x)) => unsafe { avx512::many::<F>(x, w, next, sums, tile) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            (Level::Neon, Input::Few(x)) => unsafe { neon::few::<F>(x, w, next, sums) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            (Level::Neon, Input::Many(x)) => unsafe { neon::many::<F>(x, w, next, sums, tile) },
        }
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
