//! `avx2,fma,f16c`: products added in twos, of bytes as 16 bits where quants have fewer than eight, else of 16 bits as
//! 32. Sums of 16 bits go on for as long as they cannot overflow, then are multiplied by the period's integer, or by one,
//! and added up as 32 bits.

use std::arch::x86_64::*;
use std::hint::black_box;
use std::ops::Range;

use super::tile::{Parts, TILE};
use super::{Line, Panel, Quantization, Tile, OCTET, QUAD, UNIT};

/// Rows of a register.
const LANES: usize = 8;
/// Rows of a panel: two registers.
pub const ROWS: usize = 2 * LANES;

/// Two registers of a line.
type Two = [__m256i; 2];

/// What [`multiply`] takes of a format whose quants have so many bits.
pub fn parts(bits: u32, q: &Quantization) -> Parts {
    if bits == 8 {
        return Parts::Words;
    }
    // A lane of 16 bits adds two products of each quad, of at most so much and 127 each; what a sum is before its last
    // addition does not matter.
    let most = q.offset.max((1 << bits) - 1 - q.offset);
    let quads = i32::from(i16::MAX) / (2 * 127 * most);
    Parts::Pairs(1 << quads.ilog2())
}

/// Adds the products of a panel's rows and a tile's tokens to `y`, whose numbers count from the second period on.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn multiply(panel: &Panel, q: &Quantization, tile: &Tile, periods: Range<usize>, y: &mut [[f32; ROWS]]) {
    assert!(panel.octets == ROWS / OCTET && panel.parts == tile.parts(), "a panel for the tile");
    assert!(y.len() == tile.len && tile.len <= TILE, "a tile");
    let mut t = 0;
    while t < tile.len {
        let (y, periods) = (&mut y[t..], periods.clone());
        t += match tile.len - t {
            6.. => some::<6>(panel, q, tile, t, periods, y),
            2.. => some::<2>(panel, q, tile, t, periods, y),
            _ => some::<1>(panel, q, tile, t, periods, y),
        };
    }
}

/// `T` tokens from `first` on; returns how many.
#[target_feature(enable = "avx2,fma,f16c")]
fn some<const T: usize>(
    panel: &Panel,
    q: &Quantization,
    tile: &Tile,
    first: usize,
    periods: Range<usize>,
    y: &mut [[f32; ROWS]],
) -> usize {
    assert!(first + T <= TILE, "tokens of a tile");
    let y: &mut [[f32; ROWS]; T] = y.first_chunk_mut().expect("numbers of so many tokens");
    let mut outliers = tile.outliers_from(periods.start * q.period).peekable();
    if periods.start == 0 {
        *y = [[0.0; ROWS]; T];
    }
    let in_group = q.group / q.period;
    for g in periods.start / in_group..periods.end / in_group {
        let sums = match tile.parts() {
            Parts::Pairs(steps) => pairs_of_group(panel, q, tile, steps, first, g),
            Parts::Words | Parts::Quads => words_of_group(panel, q, tile, first, g),
        };
        add_group(panel, q, tile, g, first, &sums, y);
        while let Some(outlier) = outliers.next_if(|o| o.input < (g + 1) * q.group) {
            if (first..first + T).contains(&outlier.token) {
                for (r, y) in y[outlier.token - first].iter_mut().enumerate() {
                    *y = outlier.value.mul_add(panel.weight(r, outlier.input, q), *y);
                }
            }
        }
    }
    T
}

/// Products of bytes without a sign and bytes with one, added up as 16 bits for `steps` quads.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn pairs_of_group<const T: usize>(
    panel: &Panel,
    q: &Quantization,
    tile: &Tile,
    steps: usize,
    first: usize,
    g: usize,
) -> [Two; T] {
    let (lines, quads) = (&panel.lines, tile.quads.as_chunks::<TILE>().0);
    let (in_group, in_period) = (q.group / q.period, q.period / QUAD);
    let mut starts = tile.starts.as_chunks::<TILE>().0.iter();
    if q.offset != 0 {
        starts = tile.starts.as_chunks::<TILE>().0[g * in_group * in_period.div_ceil(steps)..].iter();
    }
    let mut factors = [_mm256_set1_epi16(1); 2];
    // In memory: in registers they would drive out the sums of 16 bits.
    let mut totals = [[_mm256_setzero_si256(); 2]; T];
    for i in g * in_group..(g + 1) * in_group {
        if q.has_sub_scales() {
            factors = words(panel, i);
        }
        let (mut at, end) = (i * in_period, quads.len().min((i + 1) * in_period));
        while at < end {
            let to = end.min(at + steps);
            let mut sums = [[_mm256_setzero_si256(); 2]; T];
            if q.offset != 0 {
                let starts = starts.next().expect("a start of each sum");
                each!(t < T, {
                    sums[t] = [_mm256_set1_epi32(starts[first + t]); 2];
                });
            }
            for (line, x) in lines[at..to].iter().zip(&quads[at..to]) {
                let w = load(line);
                each!(t < T, {
                    let x = _mm256_set1_epi32(x[first + t]);
                    let products = [_mm256_maddubs_epi16(w[0], x), _mm256_maddubs_epi16(w[1], x)];
                    sums[t][0] = _mm256_add_epi16(sums[t][0], products[0]);
                    sums[t][1] = _mm256_add_epi16(sums[t][1], products[1]);
                });
            }
            at = to;
            if in_group == 1 && steps >= in_period {
                each!(t < T, {
                    totals[t] = [
                        _mm256_madd_epi16(sums[t][0], factors[0]),
                        _mm256_madd_epi16(sums[t][1], factors[1]),
                    ];
                });
                return totals;
            }
            let totals = black_box(&mut totals);
            each!(t < T, {
                for h in 0..2 {
                    totals[t][h] = _mm256_add_epi32(totals[t][h], _mm256_madd_epi16(sums[t][h], factors[h]));
                }
            });
        }
    }
    totals
}

/// Products of 16 bits.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn words_of_group<const T: usize>(
    panel: &Panel,
    q: &Quantization,
    tile: &Tile,
    first: usize,
    g: usize,
) -> [Two; T] {
    let (words, in_group) = (tile.quads.as_chunks::<TILE>().0, q.group / 2);
    let at = g * in_group..words.len().min((g + 1) * in_group);
    let mut sums = [[_mm256_setzero_si256(); 2]; T];
    for (line, x) in panel.lines[at.clone()].iter().zip(&words[at]) {
        let w = load(line);
        each!(t < T, {
            let x = _mm256_set1_epi32(x[first + t]);
            let products = [_mm256_madd_epi16(w[0], x), _mm256_madd_epi16(w[1], x)];
            sums[t][0] = _mm256_add_epi32(sums[t][0], products[0]);
            sums[t][1] = _mm256_add_epi32(sums[t][1], products[1]);
        });
    }
    sums
}

/// Adds a group's sums, of tokens from `first` on, to `y`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn add_group<const T: usize>(
    panel: &Panel,
    q: &Quantization,
    tile: &Tile,
    g: usize,
    first: usize,
    sums: &[Two; T],
    y: &mut [[f32; ROWS]; T],
) {
    let x_scales = &tile.scales.as_chunks::<TILE>().0[g];
    let scales = floats(&panel.scales, g);
    // As totals.
    let y = black_box(y);
    each!(t < T, {
        let x_scale = _mm256_set1_ps(x_scales[first + t]);
        let y = y[t].as_chunks_mut::<LANES>().0;
        for h in 0..2 {
            add(&mut y[h], _mm256_cvtepi32_ps(sums[t][h]), _mm256_mul_ps(scales[h], x_scale));
        }
    });
    if !q.has_min {
        return;
    }
    let mins = floats(&panel.mins, g);
    if !q.has_sub_scales() {
        let x_sums = &tile.sums.as_chunks::<TILE>().0[g];
        for (y, &x_sum) in y.iter_mut().zip(&x_sums[first..]) {
            for (y, min) in y.as_chunks_mut::<LANES>().0.iter_mut().zip(mins) {
                add(y, _mm256_set1_ps(x_sum), min);
            }
        }
        return;
    }
    let in_group = q.group / q.period / 2;
    let sub_mins = &panel.sub_mins.as_chunks::<{ ROWS / OCTET }>().0[g * in_group..][..in_group];
    let x_pairs = &tile.pairs.as_chunks::<TILE>().0[g * in_group..][..in_group];
    let mut dots = [[_mm256_setzero_si256(); 2]; T];
    for (sub_mins, x) in sub_mins.iter().zip(x_pairs) {
        let sub_mins = [load_integers(&sub_mins[0]), load_integers(&sub_mins[1])];
        each!(t < T, {
            let x = _mm256_set1_epi32(x[first + t]);
            for h in 0..2 {
                dots[t][h] = _mm256_add_epi32(dots[t][h], _mm256_madd_epi16(sub_mins[h], x));
            }
        });
    }
    each!(t < T, {
        let x_scale = _mm256_set1_ps(x_scales[first + t]);
        let y = y[t].as_chunks_mut::<LANES>().0;
        for h in 0..2 {
            add(&mut y[h], _mm256_cvtepi32_ps(dots[t][h]), _mm256_mul_ps(mins[h], x_scale));
        }
    });
}

/// `y + a · b`, fused.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn add(y: &mut [f32; LANES], a: __m256, b: __m256) {
    // SAFETY: a register of numbers.
    unsafe { _mm256_storeu_ps(y.as_mut_ptr(), _mm256_fmadd_ps(a, b, _mm256_loadu_ps(y.as_ptr()))) };
}

/// The panel's numbers of a group.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn floats(of_groups: &[[f32; OCTET]], g: usize) -> [__m256; 2] {
    let [low, high] = &of_groups.as_chunks::<{ ROWS / OCTET }>().0[g];
    // SAFETY: a register each.
    unsafe { [_mm256_loadu_ps(low.as_ptr()), _mm256_loadu_ps(high.as_ptr())] }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn load_integers(v: &[i32; OCTET]) -> __m256i {
    // SAFETY: a register of integers.
    unsafe { _mm256_loadu_si256(v.as_ptr().cast()) }
}

/// The sub-scales of a period, each twice as 16 bits.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn words(panel: &Panel, period: usize) -> Two {
    let of_period = &panel.sub_scales.as_chunks::<{ ROWS / OCTET }>().0[period];
    let mut words = [_mm256_setzero_si256(); 2];
    for h in 0..2 {
        let v = load_integers(&of_period[h]);
        words[h] = _mm256_blend_epi16::<0xaa>(v, _mm256_slli_epi32::<16>(v));
    }
    words
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn load(line: &Line) -> Two {
    let [low, high] = &line.0;
    // SAFETY: a register each.
    unsafe { [_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast())] }
}

/// Sets the quants of numbers `UNIT · unit..UNIT · (unit + 1)` of the rows of octet `h`: a quad of each row, then the
/// next.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub fn set_quants(panel: &mut Panel, h: usize, unit: usize, quads: [__m256i; UNIT / QUAD]) {
    let (across, of_quad) = (panel.octets / 2, panel.parts.of_quad());
    let lines = &mut panel.lines[unit * quads.len() * of_quad * across..][..quads.len() * of_quad * across];
    let mut at = h / 2;
    for quad in quads {
        // Of words the first and the third, then the others.
        let words = [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(quad)), _mm256_srai_epi16::<8>(quad)];
        let parts = if of_quad == 1 { [quad; 2] } else { words };
        for v in parts.iter().take(of_quad) {
            // SAFETY: half a line has room for a register; any alignment will do.
            unsafe { _mm256_storeu_si256(lines[at].0[h % 2].as_mut_ptr().cast(), *v) };
            at += across;
        }
    }
}

/// Products of 32 quants and activations, added in twos.
///
/// No sum saturates: activations lie in −127..=127, so that two products with quants of 8 bits with a sign
/// make at most 2 · 128 · 127 = 32 512, and those of fewer bits without a sign less.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub fn pairs<const BITS: u32>(w: __m256i, a: __m256i) -> __m256i {
    if BITS == 8 {
        _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w))
    } else {
        _mm256_maddubs_epi16(w, a)
    }
}
