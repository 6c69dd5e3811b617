//! The levels whose one instruction multiplies four unsigned quants by four signed activations and adds the
//! products up: unpacked quants are unsigned, 8-bit ones with their sign flipped.

use std::arch::x86_64::*;
use std::hint::black_box;
use std::ops::Range;

use super::tile::{Outlier, TILE};
use super::x86::{field_of_eight, field_of_sixteen};
use super::{Line, Panel, Quantization, Tile, OCTET, QUAD};
use crate::kernels::prefetch::{prefetch, LINE};

/// Quads of every period: 16 numbers.
const FOUR: usize = 4;

/// Bytes from the quads that are multiplied to those that are asked for, into the first-level cache.
const SOON: usize = 768;

/// Tokens of twelve whose activations are broadcast to a register for both of a panel's; of the others each instruction
/// broadcasts its own. That is an instruction less to decode and a load more: of what a core decodes in a cycle another
/// thread of it takes half, and if all twelve were such there would be more loads than it has time for.
const SHARED: usize = 4;

/// Adds the products of two registers of quants and the activations of token `T` at `x`, of the first `SHARED` by way of a
/// register.
///
/// # Safety
///
/// The activations can be read.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn dots_512<const T: usize, const SHARED: usize>(
    sums: [__m512i; 2],
    w: [__m512i; 2],
    x: *const i32,
) -> [__m512i; 2] {
    if T < SHARED {
        // SAFETY: the caller's promise.
        let x = _mm512_set1_epi32(unsafe { *x.add(T) });
        return [_mm512_dpbusd_epi32(sums[0], w[0], x), _mm512_dpbusd_epi32(sums[1], w[1], x)];
    }
    let [mut a, mut b] = sums;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "vpdpbusd {a}, {v}, dword ptr [{x} + {at}]{{1to16}}",
            "vpdpbusd {b}, {w}, dword ptr [{x} + {at}]{{1to16}}",
            a = inout(zmm_reg) a, b = inout(zmm_reg) b, v = in(zmm_reg) w[0], w = in(zmm_reg) w[1], x = in(reg) x,
            at = const 4 * T, options(pure, readonly, nostack, preserves_flags)
        );
    }
    [a, b]
}

/// The same of registers of half the size, always by way of a register.
///
/// # Safety
///
/// As there.
#[target_feature(enable = "avxvnni,avx2,fma,f16c")]
#[inline]
unsafe fn dots_256<const T: usize, const SHARED: usize>(
    sums: [__m256i; 2],
    w: [__m256i; 2],
    x: *const i32,
) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    let x = _mm256_set1_epi32(unsafe { *x.add(T) });
    [_mm256_dpbusd_avx_epi32(sums[0], w[0], x), _mm256_dpbusd_avx_epi32(sums[1], w[1], x)]
}

/// Makes a module with `multiply`; `$lanes` rows a register, `$tokens` tokens at a time, of formats with sub-scales
/// `$fewer`.
macro_rules! level {
    ($name:ident, $features:literal, lanes = $lanes:literal, tokens = [$($tokens:literal),*], fewer = $fewer:literal,
     $zero:ident, $set:ident, $dots:ident, $convert:ident, $load:ident, $zero_ps:ident, $load_ps:ident,
     $store_ps:ident, $set_ps:ident, $mul:ident, $fma:ident, $mul_integers:ident, $add_integers:ident,
     $dot_words:ident, $register:ident, $cast:ident, $field:ident) => {
        #[doc = concat!("`", $features, "`")]
        #[allow(clippy::out_of_bounds_indexing)] // of tokens past the last, which `each` leaves out
        pub mod $name {
            use super::*;

            /// Rows of a panel: two registers.
            pub const ROWS: usize = 2 * $lanes;

            /// Tokens at a time where periods have sub-scales: each has two more registers, of totals.
            const FEWER: usize = $fewer;

            /// Adds the products of a panel's rows and a tile's tokens to `y`, whose numbers count from the second
            /// period on.
            #[target_feature(enable = $features)]
            pub fn multiply(
                panel: &Panel,
                q: &Quantization,
                bits: u32,
                tile: &Tile,
                periods: Range<usize>,
                y: &mut [[f32; ROWS]],
            ) {
                assert!(panel.octets == ROWS / OCTET && y.len() == tile.len && tile.len <= TILE, "a tile");
                if q.has_sub_scales() {
                    let some = match (q.period / (FOUR * QUAD), bits) {
                        (1, _) => some_of_groups::<1, false>,
                        (2, ..=4) => some_of_groups::<2, true>,
                        (2, _) => some_of_groups::<2, false>,
                        _ => unreachable!("periods of 16 or 32"),
                    };
                    for (first, y) in (0..).step_by(FEWER).zip(y.chunks_mut(FEWER)) {
                        if let Ok(y) = y.try_into() {
                            some(panel, q, tile, first, periods.clone(), y);
                        } else {
                            // As fast as fewer tokens, whose sums would wait for each other.
                            let mut all = [[0.0; ROWS]; FEWER];
                            all[..y.len()].copy_from_slice(y);
                            some(panel, q, tile, first, periods.clone(), &mut all);
                            y.copy_from_slice(&all[..y.len()]);
                        }
                    }
                    return;
                }
                let mut t = 0;
                while t < tile.len {
                    let left = tile.len - t;
                    $(
                        if left >= $tokens {
                            some::<$tokens>(panel, q, tile, t, periods.clone(), &mut y[t..t + $tokens]);
                            t += $tokens;
                            continue;
                        }
                    )*
                }
            }

            /// `T` tokens from `first` on; groups are single periods.
            #[target_feature(enable = $features)]
            fn some<const T: usize>(
                panel: &Panel,
                q: &Quantization,
                tile: &Tile,
                first: usize,
                periods: Range<usize>,
                y: &mut [[f32; ROWS]],
            ) {
                assert!(first + T <= TILE, "tokens of a tile");
                let y: &mut [[f32; ROWS]; T] = y.try_into().expect("numbers of so many tokens");
                let (lines, _) = panel.lines.as_chunks::<{ ROWS / 16 }>();
                let (scales, _) = panel.scales.as_chunks::<{ ROWS / OCTET }>();
                let (mins, _) = panel.mins.as_chunks::<{ ROWS / OCTET }>();
                let (quads, _) = tile.quads.as_chunks::<TILE>();
                let (starts, _) = tile.starts.as_chunks::<TILE>();
                let (x_scales, _) = tile.scales.as_chunks::<TILE>();
                let (x_sums, _) = tile.sums.as_chunks::<TILE>();
                let mut outliers = tile.outliers_from(periods.start * q.period).peekable();
                let lines = lines.chunks(q.period / QUAD);
                let each = lines.zip(quads.chunks(q.period / QUAD)).enumerate();
                for (i, (lines, quads)) in each.take(periods.end).skip(periods.start) {
                    let mut acc = [[$zero(); 2]; T];
                    each!(t < T, {
                        acc[t] = [$set(starts[i][first + t]); 2];
                    });
                    let ((lines, rest), (quads, _)) = (lines.as_chunks::<FOUR>(), quads.as_chunks::<FOUR>());
                    assert!(rest.is_empty(), "whole fours of quads");
                    for (lines, quads) in lines.iter().zip(quads) {
                        let ahead = quads.as_ptr().cast::<u8>().wrapping_add(SOON);
                        (0..size_of_val(quads)).step_by(LINE).for_each(|at| prefetch(ahead.wrapping_add(at)));
                        for (line, x) in lines.iter().zip(quads) {
                            // SAFETY: two registers of quants, and so many tokens of a tile, by the assertion.
                            unsafe {
                                let (w, x) = (two(line), x.as_ptr().add(first));
                                each!(t < T, { acc[t] = $dots::<t, SHARED>(acc[t], w, x) });
                            }
                        }
                    }
                    // SAFETY: two registers of numbers.
                    let scales = unsafe { two(scales[i].as_flattened()) }.map(|v| $cast(v));
                    // The sums stay in memory: in registers from period to period they would drive out those of
                    // the integers.
                    let y = black_box(&mut *y);
                    each!(t < T, {
                        let x_scale = $set_ps(x_scales[i][first + t]);
                        for h in 0..2 {
                            let y = &mut y[t][h * $lanes..][..$lanes];
                            // SAFETY: a register of the row's numbers.
                            unsafe {
                                let before = if i == 0 { $zero_ps() } else { $load_ps(y.as_ptr()) };
                                $store_ps(y.as_mut_ptr(), $fma($convert(acc[t][h]), $mul(scales[h], x_scale), before));
                            }
                        }
                    });
                    if q.has_min {
                        let mins = mins[i].as_flattened().as_chunks::<$lanes>().0;
                        for (y, &x_sum) in y.iter_mut().zip(&x_sums[i][first..]) {
                            for (y, min) in y.as_chunks_mut::<$lanes>().0.iter_mut().zip(mins) {
                                // SAFETY: a register of the row's numbers each.
                                unsafe {
                                    let sum = $fma($set_ps(x_sum), $load_ps(min.as_ptr()), $load_ps(y.as_ptr()));
                                    $store_ps(y.as_mut_ptr(), sum);
                                }
                            }
                        }
                    }
                    while let Some(outlier) = outliers.next_if(|o| o.input < (i + 1) * q.period) {
                        if (first..first + T).contains(&outlier.token) {
                            add_outlier(panel, q, outlier, &mut y[outlier.token - first]);
                        }
                    }
                }
            }

            /// `FEWER` tokens from `first` on, periods of `4 * FOURS` quads; of each group its periods' sums are scaled and added
            /// up as integers: where sums of sixteen products fit 16 bits, `WORDS`, by one instruction.
            #[target_feature(enable = $features)]
            fn some_of_groups<const FOURS: usize, const WORDS: bool>(
                panel: &Panel,
                q: &Quantization,
                tile: &Tile,
                first: usize,
                periods: Range<usize>,
                y: &mut [[f32; ROWS]; FEWER],
            ) {
                assert!(first + FEWER <= TILE, "tokens of a tile");
                assert!(!WORDS || q.offset == 0 && q.has_min, "sums of 16 bits, and sub-scales without a sign");
                let lines: &[[[[Line; ROWS / 16]; FOUR]; FOURS]] = panel.lines.as_chunks().0.as_chunks().0.as_chunks().0;
                let quads: &[[[[i32; TILE]; FOUR]; FOURS]] = tile.quads.as_chunks().0.as_chunks().0.as_chunks().0;
                let (sub_scales, _) = panel.sub_scales.as_chunks::<{ ROWS / OCTET }>();
                let (starts, _) = tile.starts.as_chunks::<TILE>();
                let mut outliers = tile.outliers_from(periods.start * q.period).peekable();
                let in_group = q.group / q.period;
                for g in periods.start / in_group..periods.end / in_group {
                    let of_group = g * in_group..(g + 1) * in_group;
                    let numbers = lines[of_group.clone()].iter().zip(&quads[of_group.clone()]);
                    let scaled = sub_scales[of_group.clone()].iter().zip(&starts[of_group]);
                    let mut totals = [[$zero(); 2]; FEWER];
                    for ((lines, quads), (sub_scales, starts)) in numbers.zip(scaled) {
                        // SAFETY: two registers of integers.
                        let sub_scales = unsafe { two(sub_scales.as_flattened()) };
                        let mut acc = [[$zero(); 2]; FEWER];
                        if !WORDS && q.offset != 0 {
                            each!(t < FEWER, {
                                acc[t] = [$set(starts[first + t]); 2];
                            });
                        }
                        for (lines, quads) in lines.iter().zip(quads) {
                            for (line, x) in lines.iter().zip(quads) {
                                // To scale sums takes so long that there is time for all loads.
                                // SAFETY: two registers of quants, and so many tokens of a tile, by the assertion.
                                unsafe {
                                    let (w, x) = (two(line), x.as_ptr().add(first));
                                    each!(t < FEWER, { acc[t] = $dots::<t, 0>(acc[t], w, x) });
                                }
                            }
                            if WORDS {
                                each!(t < FEWER, {
                                    for h in 0..2 {
                                        totals[t][h] = $dot_words(totals[t][h], acc[t][h], sub_scales[h]);
                                    }
                                    acc[t] = [$zero(); 2];
                                });
                            }
                        }
                        if !WORDS {
                            each!(t < FEWER, {
                                for h in 0..2 {
                                    let scaled = $mul_integers(acc[t][h], sub_scales[h]);
                                    totals[t][h] = $add_integers(totals[t][h], scaled);
                                }
                            });
                        }
                    }
                    add_group(panel, q, tile, g, first, &totals, y);
                    while let Some(outlier) = outliers.next_if(|o| o.input < (g + 1) * q.group) {
                        if (first..first + FEWER).contains(&outlier.token) {
                            add_outlier(panel, q, outlier, &mut y[outlier.token - first]);
                        }
                    }
                }
            }

            /// Adds what a group's totals come to, of tokens from `first` on, to `y`, whose numbers count from the second group
            /// on.
            #[target_feature(enable = $features)]
            #[inline(never)] // for every kind of group one
            fn add_group(
                panel: &Panel,
                q: &Quantization,
                tile: &Tile,
                group: usize,
                first: usize,
                totals: &[[$register; 2]; FEWER],
                y: &mut [[f32; ROWS]; FEWER],
            ) {
                let x_scales: &[f32; TILE] = &tile.scales.as_chunks().0[group];
                let x_scales: &[f32; FEWER] = x_scales[first..].first_chunk().expect("tokens of a tile");
                let of_group = |v: &[[f32; OCTET]]| {
                    let v: &[[f32; OCTET]; ROWS / OCTET] = &v.as_chunks().0[group];
                    // SAFETY: two registers of numbers.
                    unsafe { two(v) }.map(|v| $cast(v))
                };
                let scales = of_group(&panel.scales);
                let (mut mins, mut dots) = ([$zero_ps(); 2], [[$zero(); 2]; FEWER]);
                if q.has_min {
                    mins = of_group(&panel.mins);
                    let in_group = q.group / q.period;
                    let pairs = group * in_group / 2..(group + 1) * in_group / 2;
                    let sub_mins: &[[[i32; OCTET]; ROWS / OCTET]] = &panel.sub_mins.as_chunks().0[pairs.clone()];
                    let x_pairs: &[[i32; TILE]] = &tile.pairs.as_chunks().0[pairs];
                    for (sub_mins, x) in sub_mins.iter().zip(x_pairs) {
                        let x: &[i32; FEWER] = x[first..].first_chunk().expect("tokens of a tile");
                        // SAFETY: two registers of integers.
                        let sub_mins = unsafe { two(sub_mins) };
                        each!(t < FEWER, {
                            for h in 0..2 {
                                dots[t][h] = $dot_words(dots[t][h], sub_mins[h], $set(x[t]));
                            }
                        });
                    }
                }
                each!(t < FEWER, {
                    let x_scale = $set_ps(x_scales[t]);
                    for (h, y) in y[t].as_chunks_mut::<$lanes>().0.iter_mut().enumerate() {
                        let scale = $mul(scales[h], x_scale);
                        // SAFETY: a register of the row's numbers.
                        unsafe {
                            let before = if group == 0 { $zero_ps() } else { $load_ps(y.as_ptr()) };
                            let mut sum = $fma($convert(totals[t][h]), scale, before);
                            if q.has_min {
                                sum = $fma($convert(dots[t][h]), $mul(mins[h], x_scale), sum);
                            }
                            $store_ps(y.as_mut_ptr(), sum);
                        }
                    }
                });
            }

            /// Two registers of what follows each other in memory.
            ///
            /// # Safety
            ///
            /// So much is there.
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn two<V>(v: &[V]) -> [$register; 2] {
                debug_assert_eq!(size_of_val(v), 2 * size_of::<$register>(), "two registers");
                let at: *const $register = v.as_ptr().cast();
                // SAFETY: the caller's promise.
                unsafe { [$load(at), $load(at.add(1))] }
            }

            /// Adds the products of an activation that was left out to its token's numbers.
            #[target_feature(enable = $features)]
            fn add_outlier(panel: &Panel, q: &Quantization, outlier: &Outlier, y: &mut [f32; ROWS]) {
                let (input, group, period) = (outlier.input, outlier.input / q.group, outlier.input / q.period);
                let lines: &[Line; ROWS / 16] = &panel.lines.as_chunks().0[input / QUAD];
                let of = |v: &[[f32; OCTET]], h: usize| {
                    let v: &[[f32; OCTET]; ROWS / OCTET] = &v.as_chunks().0[group];
                    // SAFETY: two registers of numbers.
                    unsafe { $load_ps(v.as_flattened().as_ptr().add(h * $lanes)) }
                };
                let integers = |v: &[[i32; OCTET]], at: usize, h: usize| {
                    let v: &[[i32; OCTET]; ROWS / OCTET] = &v.as_chunks().0[at];
                    // SAFETY: two registers of integers.
                    unsafe { $load(v.as_flattened().as_ptr().add(h * $lanes).cast()) }
                };
                for h in 0..2 {
                    // SAFETY: lines follow each other, and these hold two registers.
                    let quads = unsafe { $load(lines.as_ptr().cast::<u8>().add(h * QUAD * $lanes).cast()) };
                    let quants = $field(quads, 8 * (input % QUAD), 255);
                    let quants = $convert($add_integers(quants, $set(-q.offset)));
                    let (mut scale, mut min) = (of(&panel.scales, h), $zero_ps());
                    if q.has_min {
                        min = of(&panel.mins, h);
                    }
                    if q.has_sub_scales() {
                        scale = $mul(scale, $convert(integers(&panel.sub_scales, period, h)));
                        if q.has_min {
                            let pair = integers(&panel.sub_mins, period / 2, h);
                            min = $mul(min, $convert($field(pair, 16 * (period % 2), 0xffff)));
                        }
                    }
                    let y = &mut y.as_chunks_mut::<$lanes>().0[h];
                    let weights = $fma(scale, quants, min);
                    // SAFETY: a register of numbers.
                    unsafe { $store_ps(y.as_mut_ptr(), $fma($set_ps(outlier.value), weights, $load_ps(y.as_ptr()))) };
                }
            }
        }
    };
}

level!(
    avx512,
    "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c",
    lanes = 16,
    tokens = [12, 8, 4, 2, 1],
    fewer = 6,
    _mm512_setzero_si512,
    _mm512_set1_epi32,
    dots_512,
    _mm512_cvtepi32_ps,
    _mm512_loadu_si512,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_mul_ps,
    _mm512_fmadd_ps,
    _mm512_mullo_epi32,
    _mm512_add_epi32,
    _mm512_dpwssd_epi32,
    __m512i,
    _mm512_castsi512_ps,
    field_of_sixteen
);

level!(
    avx,
    "avxvnni,avx2,fma,f16c",
    lanes = 8,
    tokens = [6, 4, 2, 1],
    fewer = 3,
    _mm256_setzero_si256,
    _mm256_set1_epi32,
    dots_256,
    _mm256_cvtepi32_ps,
    _mm256_loadu_si256,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_mul_ps,
    _mm256_fmadd_ps,
    _mm256_mullo_epi32,
    _mm256_add_epi32,
    _mm256_dpwssd_avx_epi32,
    __m256i,
    _mm256_castsi256_ps,
    field_of_eight
);
