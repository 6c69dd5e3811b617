//! `avx2,fma,f16c`: products of 16 bits, added in twos.

use std::arch::x86_64::*;
use std::hint::black_box;
use std::ops::Range;

use super::tile::TILE;
use super::{Panel, Quantization, Tile, OCTET, QUAD};

/// Rows of a register.
const LANES: usize = 8;
/// Rows of a panel: two registers.
pub const ROWS: usize = 2 * LANES;

/// Adds the products of a panel's rows, whose quants have `BITS` bits, and a tile's tokens to `y`, whose
/// numbers count from the second period on.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn multiply<const BITS: u32>(
    panel: &Panel,
    q: &Quantization,
    tile: &Tile,
    periods: Range<usize>,
    y: &mut [[f32; ROWS]],
) {
    assert!(panel.octets == ROWS / OCTET && y.len() == tile.len && tile.len <= TILE, "a tile");
    let mut t = 0;
    while t < tile.len {
        if tile.len - t >= 4 {
            some::<BITS, 4>(panel, q, tile, t, periods.clone(), &mut y[t..t + 4]);
            t += 4;
        } else {
            some::<BITS, 1>(panel, q, tile, t, periods.clone(), &mut y[t..t + 1]);
            t += 1;
        }
    }
}

/// `T` tokens from `first` on.
#[target_feature(enable = "avx2,fma,f16c")]
fn some<const BITS: u32, const T: usize>(
    panel: &Panel,
    q: &Quantization,
    tile: &Tile,
    first: usize,
    periods: Range<usize>,
    y: &mut [[f32; ROWS]],
) {
    assert!(first + T <= TILE && y.len() == T, "tokens of a tile");
    // Pairs of products that fit 16 bits when added up: 2 · (2^BITS − 1) · 127 each.
    let steps = match BITS {
        8 => 1,
        6 => 2,
        5 => 4,
        _ => 8,
    }
    .min(q.period / QUAD);
    let (scales, _) = panel.scales.as_chunks::<{ ROWS / OCTET }>();
    let (mins, _) = panel.mins.as_chunks::<{ ROWS / OCTET }>();
    let (quads, _) = tile.quads.as_chunks::<TILE>();
    let (starts, _) = tile.starts.as_chunks::<TILE>();
    let (x_scales, _) = tile.scales.as_chunks::<TILE>();
    let (sub_scales, _) = panel.sub_scales.as_chunks::<{ ROWS / OCTET }>();
    let (sub_mins, _) = panel.sub_mins.as_chunks::<{ ROWS / OCTET }>();
    let (x_sums, _) = tile.sums.as_chunks::<TILE>();
    let (x_pairs, _) = tile.pairs.as_chunks::<TILE>();
    let mut outliers = tile.outliers_from(periods.start * q.period).peekable();
    let lines = panel.lines.chunks(q.period / QUAD);
    let each = lines.zip(quads.chunks(q.period / QUAD)).enumerate();
    let (sub, in_group) = (q.has_sub_scales(), q.group / q.period);
    // Of a group so far.
    let mut totals = [[_mm256_setzero_si256(); 2]; T];
    for (i, (lines, quads)) in each.take(periods.end).skip(periods.start) {
        let mut acc = [[_mm256_setzero_si256(); 2]; T];
        for t in 0..T {
            acc[t] = [_mm256_set1_epi32(starts[i][first + t]); 2];
        }
        for (lines, quads) in lines.chunks(steps).zip(quads.chunks(steps)) {
            let mut sums = [[_mm256_setzero_si256(); 2]; T];
            for (line, x) in lines.iter().zip(quads) {
                // SAFETY: the line holds two registers.
                let w = unsafe {
                    [
                        _mm256_loadu_si256(line.0[0].as_ptr().cast()),
                        _mm256_loadu_si256(line.0[1].as_ptr().cast()),
                    ]
                };
                for t in 0..T {
                    let x = _mm256_set1_epi32(x[first + t]);
                    for h in 0..2 {
                        sums[t][h] = _mm256_add_epi16(sums[t][h], pairs::<BITS>(w[h], x));
                    }
                }
            }
            for t in 0..T {
                for h in 0..2 {
                    let sums = _mm256_madd_epi16(sums[t][h], _mm256_set1_epi16(1));
                    acc[t][h] = _mm256_add_epi32(acc[t][h], sums);
                }
            }
        }
        let mut i = i;
        if sub {
            // As the sums below.
            let totals = black_box(&mut totals);
            for t in 0..T {
                for h in 0..2 {
                    // SAFETY: a register of integers.
                    let sub_scales = unsafe { _mm256_loadu_si256(sub_scales[i][h].as_ptr().cast()) };
                    let sum = _mm256_mullo_epi32(acc[t][h], sub_scales);
                    let before = if i % in_group == 0 { _mm256_setzero_si256() } else { totals[t][h] };
                    totals[t][h] = _mm256_add_epi32(before, sum);
                }
            }
            if i % in_group + 1 < in_group {
                continue;
            }
            i /= in_group;
            acc = *totals;
        }
        // The sums stay in memory: in registers from period to period they would drive out those of the integers.
        let y = black_box(&mut *y);
        for t in 0..T {
            let x_scale = _mm256_set1_ps(x_scales[i][first + t]);
            for h in 0..2 {
                let y = &mut y[t][h * LANES..][..LANES];
                // SAFETY: a register of the row's numbers each.
                unsafe {
                    let scale = _mm256_mul_ps(_mm256_loadu_ps(scales[i][h].as_ptr()), x_scale);
                    let mut sum = if i == 0 { _mm256_setzero_ps() } else { _mm256_loadu_ps(y.as_ptr()) };
                    sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[t][h]), scale, sum);
                    if q.has_min {
                        let min = _mm256_loadu_ps(mins[i][h].as_ptr());
                        sum = if sub {
                            let mut dot = _mm256_setzero_si256();
                            for pair in i * in_group / 2..(i + 1) * in_group / 2 {
                                let sub_mins = _mm256_loadu_si256(sub_mins[pair][h].as_ptr().cast());
                                let x = _mm256_set1_epi32(x_pairs[pair][first + t]);
                                dot = _mm256_add_epi32(dot, _mm256_madd_epi16(sub_mins, x));
                            }
                            _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(min, x_scale), sum)
                        } else {
                            _mm256_fmadd_ps(_mm256_set1_ps(x_sums[i][first + t]), min, sum)
                        };
                    }
                    _mm256_storeu_ps(y.as_mut_ptr(), sum);
                }
            }
        }
        while let Some(outlier) = outliers.next_if(|o| o.input < (i + 1) * q.group) {
            if (first..first + T).contains(&outlier.token) {
                for (r, y) in y[outlier.token - first].iter_mut().enumerate() {
                    *y = outlier.value.mul_add(panel.weight(r, outlier.input, q, BITS == 8), *y);
                }
            }
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
