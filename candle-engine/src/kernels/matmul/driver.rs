//! The common driver: cuts outputs into tasks, runs the tiles over them and gates them.

use std::cell::RefCell;
use std::ops::Range;

use super::many::Laid;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::scalar;
use super::tiles::Tiles;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512, pairs};
use super::{Act, Dense, DenseFormat, Disjoint, Isa, Rows, Stored, Term, BF16, F16, F32};
use crate::kernels::aligned::Aligned;
use crate::kernels::isa::Level;
#[cfg(target_arch = "x86_64")]
use crate::kernels::isa::Pairs;
use crate::kernels::threads::{parallel, parallel_ranges, threads, Stretch};

/// What gates a product: y = act(sum) · (sum of `up`).
pub(super) struct Gate<'a> {
    /// The matrix beside the gate.
    pub(super) up: Term<'a>,
    /// The gate's activation.
    pub(super) act: Act,
}

/// Bytes of a matrix that make a task when memory sets the pace: some ten microseconds of reading.
const TASK_BYTES: usize = 128 << 10;

/// A multiple of the rows of every ISA's tile.
const TILE_ROWS: usize = 8;

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
        rows.next_multiple_of(TILE_ROWS)
    }
}

/// y = x · Wᵀ + b, perhaps gated, in one parallel region or, with many tokens, two for each `TOKENS`.
pub(super) fn run(isa: Isa, x: &[f32], w: Term, gate: Option<Gate>, y: &mut [f32]) {
    let (rows, cols) = (w.0.rows, w.0.cols);
    let t = y.len().checked_div(rows).unwrap_or(x.len() / cols.max(1));
    let terms = || std::iter::once(&w).chain(gate.as_ref().map(|gate| &gate.up));
    for (w, bias) in terms() {
        assert_eq!(x.len(), t * w.cols, "x of {t} tokens and a matrix of {} inputs", w.cols);
        assert_eq!(y.len(), t * w.rows, "y of {t} tokens and a matrix of {} outputs", w.rows);
        if let Some(bias) = bias {
            assert_eq!(bias.len(), w.rows, "bias of a matrix of {} outputs", w.rows);
        }
    }
    if y.is_empty() {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if isa.pairs() == Pairs::Avx512Bf16 && cols > 0 {
        let bf16 = terms().filter(|(w, _)| w.format == DenseFormat::BF16).count();
        if bf16 == terms().count() {
            return pairs::run(isa, Rows::new(x, cols, cols, t), &w, gate.as_ref(), &Disjoint::new(y));
        }
        if let (1, Some(Gate { up, act })) = (bf16, &gate) {
            // Inputs are rounded for one of them alone.
            let mut ups = vec![0.0; y.len()];
            run(isa, x, w, None, y);
            run(isa, x, *up, None, &mut ups);
            return self::gate(isa, *act, y, &ups);
        }
    }
    let few = terms().all(|(w, _)| t < w.format.many());
    let y = Disjoint::new(y);
    let product = Product { isa, w, gate, y };
    if few {
        return product.region(Input::Few(Rows::new(x, cols, cols, t)), 0);
    }
    let [lanes, most] = shape(isa);
    let mut buffer = LAID.take();
    // Of nearly equal size, so that none is too small to be cut into tiles.
    let turns = t.div_ceil(TOKENS);
    for turn in 0..turns {
        let (start, end) = (turn * t / turns, (turn + 1) * t / turns);
        let x = Rows::new(&x[start * cols..], cols, cols, end - start);
        let x = Laid::new(x, Tiles::new(x.count, most), lanes, &mut buffer);
        product.region(Input::Many(x), start);
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

/// Buffers of a thread, kept for its next task.
#[derive(Default)]
struct Scratch {
    sums: Vec<f32>,
    up: Vec<f32>,
    tile: Aligned<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static LAID: RefCell<Aligned<f32>> = RefCell::default();
}

/// What is computed.
struct Product<'a> {
    isa: Isa,
    w: Term<'a>,
    gate: Option<Gate<'a>>,
    y: Disjoint<'a, f32>,
}

impl Product<'_> {
    /// Some tokens, whose outputs begin with token `first`.
    fn region(&self, x: Input, first: usize) {
        let (rows, step) = (self.w.0.rows, x.task_rows(&self.w.0));
        match x {
            Input::Few(_) => parallel_ranges(
                Stretch { bytes: self.w.0.bytes, rows, grain: TILE_ROWS, task: step },
                |range| {
                    for start in range.clone().step_by(step) {
                        self.block(x, first, start..range.end.min(start + step), start + step);
                    }
                },
            ),
            Input::Many(_) => parallel(rows.div_ceil(step), |task| {
                let block = task * step..rows.min((task + 1) * step);
                // This thread's next block, if the others keep pace.
                let next = block.start + block.len() * threads();
                self.block(x, first, block, next);
            }),
        }
    }

    /// Some rows, all tokens; `next` is the row to go on with.
    fn block(&self, x: Input, first: usize, rows: Range<usize>, next: usize) {
        let next = self.w.0.row_start(next);
        SCRATCH.with_borrow_mut(|Scratch { sums, up, tile }| {
            match &self.gate {
                Some(Gate { up: u, act }) => {
                    self.compute(x, &self.w, rows.clone(), u.0.row_start(rows.start), sums, tile);
                    self.compute(x, u, rows.clone(), next, up, tile);
                    gate(self.isa, *act, sums, up);
                }
                None => self.compute(x, &self.w, rows.clone(), next, sums, tile),
            }
            for (token, sums) in (first..).zip(sums.chunks_exact(rows.len())) {
                // SAFETY: each task has rows, that is columns of y, of its own.
                let y = unsafe { self.y.range(token * self.w.0.rows + rows.start, rows.len()) };
                y.copy_from_slice(sums);
            }
        });
    }

    /// sums\[t, r\] = x\[t\] · w\[r\] + b\[r\], while what is at `next` is asked for.
    fn compute(
        &self,
        x: Input,
        (w, bias): &Term,
        rows: Range<usize>,
        next: *const u8,
        sums: &mut Vec<f32>,
        tile: &mut Aligned<f32>,
    ) {
        sums.resize(x.tokens() * rows.len(), 0.0);
        match w.format {
            DenseFormat::F32 => self.dots::<F32>(x, w.part(rows.clone()), next, sums, tile),
            DenseFormat::F16 => self.dots::<F16>(x, w.part(rows.clone()), next, sums, tile),
            DenseFormat::BF16 => self.dots::<BF16>(x, w.part(rows.clone()), next, sums, tile),
        }
        if let Some(bias) = bias {
            for sums in sums.chunks_exact_mut(rows.len()) {
                sums.iter_mut().zip(&bias[rows.clone()]).for_each(|(sum, bias)| *sum += bias);
            }
        }
    }

    /// sums\[t, r\] = x\[t\] · w\[r\]
    fn dots<F: Stored>(
        &self,
        x: Input,
        w: Rows<F::Raw>,
        next: *const u8,
        sums: &mut [f32],
        tile: &mut Aligned<f32>,
    ) {
        match (self.isa.level(), x) {
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
pub(super) fn gate(isa: Isa, act: Act, gate: &mut [f32], up: &[f32]) {
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
