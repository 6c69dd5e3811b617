//! The levels whose one instruction multiplies four unsigned quants by four signed activations and adds the
//! products up: unpacked quants are unsigned, 8-bit ones with their sign flipped.

use std::arch::x86_64::*;
use std::hint::black_box;
use std::ops::Range;

use super::tile::TILE;
use super::{Panel, Quantization, Tile, OCTET, QUAD};

/// Quads of every period: 16 numbers.
const FOUR: usize = 4;

/// Runs `$body` with each `$t` below `$n`, at most [`TILE`], written out: in a loop, sums would lie in memory.
macro_rules! each {
    ($t:ident < $n:ident, $body:block) => {
        each!($t < $n, $body, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
    };
    ($t:ident < $n:ident, $body:block, $($i:literal),*) => {
        $(
            if $i < $n {
                let $t = $i;
                $body
            }
        )*
    };
}

/// Makes a module with `multiply`; `$lanes` rows a register, `$tokens` tokens at most at a time.
macro_rules! level {
    ($name:ident, $features:literal, lanes = $lanes:literal, tokens = [$($tokens:literal),*],
     $zero:ident, $set:ident, $dot:ident, $convert:ident, $load:ident, $zero_ps:ident, $load_ps:ident,
     $store_ps:ident, $set_ps:ident, $mul:ident, $fma:ident) => {
        #[doc = concat!("`", $features, "`")]
        pub mod $name {
            use super::*;

            /// Rows of a panel: two registers.
            pub const ROWS: usize = 2 * $lanes;

            /// Adds the products of a panel's rows and a tile's tokens to `y`, whose numbers count from the second
            /// period on.
            #[target_feature(enable = $features)]
            pub fn multiply(
                panel: &Panel,
                q: &Quantization,
                tile: &Tile,
                periods: Range<usize>,
                y: &mut [[f32; ROWS]],
            ) {
                assert!(panel.octets == ROWS / OCTET && y.len() == tile.len && tile.len <= TILE, "a tile");
                let mut t = 0;
                while t < tile.len {
                    let left = tile.len - t;
                    $(
                        if left >= $tokens {
                            if q.has_min {
                                some::<$tokens, true>(panel, q, tile, t, periods.clone(), &mut y[t..t + $tokens]);
                            } else {
                                some::<$tokens, false>(panel, q, tile, t, periods.clone(), &mut y[t..t + $tokens]);
                            }
                            t += $tokens;
                            continue;
                        }
                    )*
                }
            }

            /// `T` tokens from `first` on.
            #[target_feature(enable = $features)]
            fn some<const T: usize, const MIN: bool>(
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
                let skipped = tile.outliers.partition_point(|o| o.input < periods.start * q.period);
                let mut outliers = tile.outliers[skipped..].iter().peekable();
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
                        for (line, x) in lines.iter().zip(quads) {
                            // SAFETY: lines follow each other, and these hold two registers.
                            let w = unsafe {
                                let at: *const u8 = line.as_ptr().cast();
                                [$load(at.cast()), $load(at.add(QUAD * $lanes).cast())]
                            };
                            each!(t < T, {
                                let x = $set(x[first + t]);
                                acc[t][0] = $dot(acc[t][0], w[0], x);
                                acc[t][1] = $dot(acc[t][1], w[1], x);
                            });
                        }
                    }
                    // SAFETY: two registers of numbers each.
                    let (scales, mins) = unsafe {
                        let scales = scales[i].as_flattened().as_ptr();
                        let mins = if MIN { mins[i].as_flattened().as_ptr() } else { scales };
                        ([$load_ps(scales), $load_ps(scales.add($lanes))], [$load_ps(mins), $load_ps(mins.add($lanes))])
                    };
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
                                let mut sum = $fma($convert(acc[t][h]), $mul(scales[h], x_scale), before);
                                if MIN {
                                    sum = $fma($set_ps(x_sums[i][first + t]), mins[h], sum);
                                }
                                $store_ps(y.as_mut_ptr(), sum);
                            }
                        }
                    });
                    while let Some(outlier) = outliers.next_if(|o| o.input < (i + 1) * q.period) {
                        if (first..first + T).contains(&outlier.token) {
                            let y = &mut y[outlier.token - first];
                            for (r, y) in y.iter_mut().enumerate() {
                                let w = panel.weight(r, outlier.input, q, false);
                                *y = outlier.value.mul_add(w, *y);
                            }
                        }
                    }
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
    _mm512_setzero_si512,
    _mm512_set1_epi32,
    _mm512_dpbusd_epi32,
    _mm512_cvtepi32_ps,
    _mm512_loadu_si512,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_mul_ps,
    _mm512_fmadd_ps
);

level!(
    avx,
    "avxvnni,avx2,fma,f16c",
    lanes = 8,
    tokens = [6, 4, 2, 1],
    _mm256_setzero_si256,
    _mm256_set1_epi32,
    _mm256_dpbusd_avx_epi32,
    _mm256_cvtepi32_ps,
    _mm256_loadu_si256,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_mul_ps,
    _mm256_fmadd_ps
);
