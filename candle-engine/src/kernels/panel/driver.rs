//! Quantizes the activations, cuts rows into tasks and runs a level's kernels over them.

use std::cell::RefCell;
use std::ops::Range;

use crate::kernels::act::{act_mul_on, Act};
use crate::kernels::aligned::Aligned;
use crate::kernels::isa::{Dot, Registers};
use crate::kernels::lanes::{per_isa, Arith, LANES};
use crate::kernels::prefetch::{prefetch_far, Stream};
use crate::kernels::threads::{parallel, parallel_ranges, threads, Disjoint, Stretch};
use crate::kernels::Isa;

use super::tile::{Shape, TILE};
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, vnni};
use super::{Panel, Quantization, Tile, Tokens, OCTET, SIXTEEN};

/// A quantized matrix.
pub trait Source: Sync {
    /// Bits of a quant that has no sign; 8 if it has one.
    const BITS: u32;

    /// Rows.
    fn rows(&self) -> usize;

    /// The bytes of some rows' quants.
    fn bytes(&self, rows: Range<usize>) -> &[u8];

    /// What it wants of the activations.
    fn quantization(&self) -> Quantization;

    /// The level at which so many tokens are multiplied.
    fn level(&self, isa: Isa, tokens: usize) -> Isa;

    /// Unpacks rows from `from` on until the panel is full, `less` taken from each quant; past the last row anything.
    fn pack(&self, isa: Isa, from: usize, less: i8, panel: &mut Panel);

    /// How [`Self::direct`] takes so many tokens, if it is faster than a panel.
    fn few(&self, _: Isa, tokens: usize) -> Option<Few> {
        (tokens == 1).then_some(Few::Alone)
    }

    /// Calls `out(row, t, y)` for runs of the rows `range` and each token, without a panel. Quants of 8 bits have 128
    /// added where the level is AVX-512-VNNI, and tokens are alone.
    fn direct(&self, isa: Isa, range: Range<usize>, x: &[Tile], out: impl FnMut(usize, usize, &[f32]));
}

/// How tokens lie that are multiplied without a panel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Few {
    /// Each in a tile of its own.
    Alone,
    /// In one tile, in turn.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    InTurn,
}

/// Products with one token that are worth a region: some three microseconds' worth when the weights come from memory.
const TASK: usize = 1 << 16;

/// About how many numbers of a row are multiplied by all tiles before the next ones: so much of a panel stays in a
/// first-level cache, beside a tile.
const CHUNK: usize = 512;

/// Bytes of the activations that stay in a second-level cache, or near: where there are more, panels take turns with
/// what is there.
const TOKEN_BYTES: usize = 1 << 20;

/// Bytes of the panels that do so: half of a second-level cache, which is larger where there are matrix registers.
fn panel_bytes(isa: Isa) -> usize {
    #[cfg(target_arch = "x86_64")]
    if isa.registers() == Registers::Amx {
        return 1 << 20;
    }
    let _ = isa;
    512 << 10
}

/// Rows of activations whose sums become outputs together, while they are in a first-level cache; a multiple of parts.
const TOGETHER: usize = 16;

/// Tokens from the one whose outputs are written to the one whose are asked for. Not many: rows of outputs are often a
/// power of two apart, so that their lines compete for a few sets of a cache.
const LATER: usize = 4;

#[derive(Default)]
struct Scratch {
    panels: Vec<Panel>,
    sums: Aligned<f32>,
}

thread_local! {
    /// Kept from call to call: fresh pages cost more than small products.
    static TOKENS: RefCell<Tokens> = RefCell::default();
    static SCRATCH: RefCell<[Scratch; 2]> = RefCell::default();
}

/// Runs `f`, in which products by the numbers at `x`, which do not change meanwhile, quantize them once if they do it alike
/// and follow each other on this thread.
pub fn sharing<R>(x: Range<*const f32>, f: impl FnOnce() -> R) -> R {
    struct Before(Option<Range<usize>>);
    impl Drop for Before {
        fn drop(&mut self) {
            TOKENS.with_borrow_mut(|tokens| tokens.share(self.0.take()));
        }
    }
    let place = x.start.addr()..x.end.addr();
    let _before = Before(TOKENS.with_borrow_mut(|tokens| tokens.share(Some(place))));
    f()
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
    assert_eq!(gate.quantization(), up.quantization(), "gate and up");
    assert_eq!(gate.rows(), up.rows(), "gate and up");
    run(isa, gate, Some((up, act)), x, y);
}

fn run<S: Source>(isa: Isa, w: &S, up: Option<(&S, Act)>, x: &[f32], y: &mut [f32]) {
    let q = w.quantization();
    let (m, n) = (x.len() / q.k, w.rows());
    assert_eq!((x.len(), y.len()), (m * q.k, m * n), "{m} tokens, a matrix of {n} rows of {}", q.k);
    if y.is_empty() {
        return;
    }
    // Where quants are to have no sign those of 8 bits get 128 added.
    let unsigned = if S::BITS == 8 { i8::MIN } else { 0 };
    let without = |less: i8| Quantization { offset: q.offset - i32::from(less), ..q };
    TOKENS.with_borrow_mut(|tokens| {
        let count = m * q.parts();
        let isa = w.level(isa, count);
        // The specification has no panels.
        let few = if isa.dot() == Dot::Scalar { Some(Few::Alone) } else { w.few(isa, count) };
        if let Some(few) = few {
            let q = match (isa.dot(), few) {
                #[cfg(target_arch = "x86_64")]
                (Dot::Avx512Vnni, Few::Alone) => without(unsigned),
                _ => q,
            };
            tokens.quantize(isa, x, &q, Shape::in_turn(if few == Few::Alone { 1 } else { count }));
            return one_by_one(isa, w, up, tokens.tiles(), m, y);
        }
        match isa.dot() {
            Dot::Scalar => unreachable!("handled above"),
            #[cfg(target_arch = "x86_64")]
            Dot::Avx2 => {
                tokens.quantize(
                    isa,
                    x,
                    &q,
                    Shape { parts: avx2::parts(S::BITS, &q), ..Shape::in_turn(TILE) },
                );
                many(
                    isa,
                    w,
                    up,
                    &q,
                    0,
                    tokens,
                    y,
                    || (),
                    |panel, tile, periods, y| {
                        // SAFETY: this level exists only after its features were detected.
                        unsafe { avx2::multiply(panel, &q, tile, periods, y) }
                    },
                );
            }
            #[cfg(target_arch = "x86_64")]
            Dot::AvxVnni => {
                let q = without(unsigned);
                tokens.quantize(isa, x, &q, Shape::in_turn(TILE));
                many(
                    isa,
                    w,
                    up,
                    &q,
                    unsigned,
                    tokens,
                    y,
                    || (),
                    |panel, tile, periods, y| {
                        // SAFETY: as above.
                        unsafe { vnni::avx::multiply(panel, &q, S::BITS, tile, periods, y) }
                    },
                );
            }
            #[cfg(target_arch = "x86_64")]
            Dot::Avx512Vnni => {
                // One place for both: what they share is large, for each source.
                let tiles = isa.registers() == Registers::Amx && amx::takes(&q);
                let less = if tiles { q.offset as i8 } else { unsigned };
                let q = without(less);
                let shape = if tiles { amx::shape(&q) } else { Shape::in_turn(TILE) };
                tokens.quantize(isa, x, &q, shape);
                let begin = || tiles.then(|| amx::tiles(&q));
                many(isa, w, up, &q, less, tokens, y, begin, |panel, tile, periods, y| {
                    // SAFETY: as above.
                    unsafe {
                        if tiles {
                            amx::multiply(panel, &q, tile, periods, y);
                        } else {
                            vnni::avx512::multiply(panel, &q, S::BITS, tile, periods, y);
                        }
                    }
                });
            }
        }
    });
}

/// A token, or few: memory sets the pace, and rows are multiplied as they are unpacked.
fn one_by_one<S: Source>(isa: Isa, w: &S, up: Option<(&S, Act)>, x: &[Tile], m: usize, y: &mut [f32]) {
    let (n, parts) = (w.rows(), x.iter().map(|x| x.len).sum::<usize>() / m);
    // A token's first part, and what the second adds to it.
    let store = |part: usize, to: &mut [f32], v: &[f32]| match part % parts {
        0 => to.copy_from_slice(v),
        _ => to.iter_mut().zip(v).for_each(|(to, v)| *to += v),
    };
    let y = Disjoint::new(y);
    let task = TASK / (w.quantization().k * m);
    parallel_ranges(Stretch { bytes: w.bytes(0..n), rows: n, grain: SIXTEEN, task }, |range| {
        // SAFETY: columns of `y` that are this task's rows of `w`, which no other task has; and the uses of the
        // slices follow each other.
        let columns = |row: usize, t: usize, len: usize| unsafe { y.range(t * n + row, len) };
        w.direct(isa, range.clone(), x, |row, i, v| store(i, columns(row, i / parts, v.len()), v));
        if let Some((up, act)) = up {
            SCRATCH.with_borrow_mut(|[Scratch { sums, .. }, _]| {
                sums.resize(m * range.len());
                up.direct(isa, range.clone(), x, |row, i, v| {
                    let at = i / parts * range.len() + row - range.start;
                    store(i, &mut sums[at..][..v.len()], v);
                });
                for (t, up) in sums.chunks_exact(range.len()).enumerate().take(m) {
                    act_mul_on(isa, act, columns(range.start, t, range.len()), up);
                }
            });
        }
    });
}

/// Many tokens: arithmetic sets the pace, and rows are laid out first.
#[allow(clippy::too_many_arguments)] // what levels differ in
fn many<S: Source, G, const ROWS: usize>(
    isa: Isa,
    w: &S,
    up: Option<(&S, Act)>,
    q: &Quantization,
    less: i8,
    x: &Tokens,
    y: &mut [f32],
    begin: impl Fn() -> G + Sync,
    multiply: impl Fn(&Panel, &Tile, Range<usize>, &mut [[f32; ROWS]]) + Sync,
) {
    // Rows of activations: one for each token, or two.
    let (m, n) = (x.len(), w.rows());
    let chunk = q.periods().div_ceil((q.k / CHUNK).max(1)).next_multiple_of(q.group / q.period);
    let together = if m * q.k < TOKEN_BYTES { 1 } else { (panel_bytes(isa) / (ROWS * q.k)).clamp(1, 4) };
    // The sums of some panels' rows. Meanwhile what is packed next is asked for.
    let products = |w: &S, rows: &Range<usize>, next: &[u8], scratch: &mut Scratch| {
        let Scratch { panels, sums } = scratch;
        let count = rows.len().div_ceil(ROWS);
        panels.resize_with(count.max(panels.len()), Panel::default);
        for (panel, from) in panels.iter_mut().zip(rows.clone().step_by(ROWS)) {
            panel.resize(ROWS / OCTET, x.parts(), q);
            w.pack(isa, from, less, panel);
            #[cfg(target_arch = "x86_64")]
            if isa.registers() == Registers::Amx && amx::takes(q) {
                // SAFETY: this level exists only after its features were detected.
                unsafe { amx::finish(q, panel) };
            }
        }
        sums.resize(count * m * ROWS);
        let share = next.len() / (count * x.tiles().len() * q.periods().div_ceil(chunk)) + 1;
        let mut next = Stream::later(next);
        for first in (0..q.periods()).step_by(chunk) {
            let end = q.periods().min(first + chunk);
            let sums = sums.as_chunks_mut().0.chunks_exact_mut(m);
            for (panel, sums) in panels.iter().zip(sums) {
                let mut first_row = 0;
                for tile in x.tiles() {
                    next.read(share);
                    multiply(panel, tile, first..end, &mut sums[first_row..first_row + tile.len]);
                    first_row += tile.len;
                }
            }
        }
    };
    let y = Disjoint::new(y);
    parallel(n.div_ceil(ROWS * together), |task| {
        let _guard = begin();
        let rows_of = |task: usize| n.min(task * ROWS * together)..n.min((task + 1) * ROWS * together);
        let rows = rows_of(task);
        // Of the task that this thread takes next if the others keep pace.
        let next = w.bytes(rows_of(task + threads()));
        SCRATCH.with_borrow_mut(|[scratch, up_scratch]| {
            let up = if let Some((up, act)) = up {
                products(w, &rows, up.bytes(rows.clone()), scratch);
                products(up, &rows, next, up_scratch);
                Some((up_scratch.sums.as_chunks_mut::<ROWS>().0, act))
            } else {
                products(w, &rows, next, scratch);
                None
            };
            write(isa, q, &rows, scratch.sums.as_chunks_mut::<ROWS>().0, up, m, n, &y);
        });
    });
}

/// Outputs `y [m, n]` of some rows from their sums, and those of the other matrix: of each token all at once, since memory
/// likes runs.
#[allow(clippy::too_many_arguments)] // not inlined: each source and level would get its own
#[inline(never)]
fn write<const ROWS: usize>(
    isa: Isa,
    q: &Quantization,
    rows: &Range<usize>,
    sums: &mut [[f32; ROWS]],
    mut up: Option<(&mut [[f32; ROWS]], Act)>,
    m: usize,
    n: usize,
    y: &Disjoint<f32>,
) {
    for first in (0..m).step_by(TOGETHER) {
        let len = TOGETHER.min(m - first);
        for start in (first..sums.len()).step_by(m) {
            let gates = whole(&mut sums[start..start + len], q);
            if let Some((ups, act)) = &mut up {
                let ups = whole(&mut ups[start..start + len], q);
                act_mul_on(isa, *act, gates.as_flattened_mut(), ups.as_flattened());
            }
        }
        for i in 0..len / q.parts() {
            // SAFETY: columns of `y` that are this task's rows of the matrix, which no other task has.
            let to = unsafe { y.range((first / q.parts() + i) * n + rows.start, rows.len()) };
            let later = to.as_ptr().wrapping_add(LATER * n);
            (0..to.len()).step_by(LANES).for_each(|at| prefetch_far(later.wrapping_add(at).cast()));
            let sums = sums[first + i..].as_flattened();
            let (width, stride) = (ROWS, m * ROWS);
            per_isa!(isa, copy, (sums: &[f32], width: usize, stride: usize, to: &mut [f32]));
        }
    }
}

/// Copies `width` numbers of each panel, `stride` apart, as registers: a store waits for its line, and as many lines come
/// at a time as there are stores.
#[inline(always)]
fn copy(_: impl Arith, sums: &[f32], width: usize, stride: usize, to: &mut [f32]) {
    for part in (0..width).step_by(LANES) {
        let places = (part..to.len()).step_by(width);
        for (at, sums) in places.zip(sums.chunks(stride)) {
            match (to[at..].first_chunk_mut::<LANES>(), sums[part..].first_chunk()) {
                (Some(to), Some(sums)) => *to = *sums,
                _ => to[at..].iter_mut().zip(&sums[part..]).for_each(|(to, sum)| *to = *sum),
            }
        }
    }
}

/// Sums of tokens from those of their parts, if they have any.
fn whole<'a, const ROWS: usize>(sums: &'a mut [[f32; ROWS]], q: &Quantization) -> &'a mut [[f32; ROWS]] {
    if q.precise {
        join(sums)
    } else {
        sums
    }
}

/// Adds the two parts of each token up.
fn join<const ROWS: usize>(sums: &mut [[f32; ROWS]]) -> &mut [[f32; ROWS]] {
    let tokens = sums.len() / 2;
    for i in 0..tokens {
        sums[i] = std::array::from_fn(|r| sums[2 * i][r] + sums[2 * i + 1][r]);
    }
    &mut sums[..tokens]
}
