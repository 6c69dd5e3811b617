//! The product with few tokens and the inner loop of both, in a form that each ISA's module stamps with its
//! own vector functions.
//!
//! A macro, because neither generics nor traits carry `#[target_feature]` yet. The module that invokes it
//! has in scope, each with the same features: `zero`, `load`, `load_stored`, `fma`, and `add_sums` with the
//! number of its vectors, `GROUP`.

/// Makes `few`, `dots`, `add_all` and `gate` for vectors of `$lanes` floats.
///
/// `$rows`: rows of W in a tile with one token and with two or three, as many as the registers hold: a tile
/// of r rows and t tokens needs r·t sums, t operands, and one more.
macro_rules! tiles {
    ($features:literal, lanes = $lanes:literal, rows = [$r1:literal, $r3:literal]) => {
        /// sums\[t, r\] = x\[t\] · w\[r\] for so few tokens that memory sets the pace.
        ///
        /// Reads a tile's rows in place, from their beginning to their end, while the next tile's are asked
        /// for; `next` is where the calling thread goes on, for all that is known. All tokens are taken
        /// before the next tile, so that from the second pass on the rows are in a near cache.
        #[target_feature(enable = $features)]
        pub(super) fn few<F: Stored>(x: Rows<f32>, w: Rows<F::Raw>, next: *const u8, sums: &mut [f32]) {
            assert_eq!(x.len, w.len, "inputs");
            assert_eq!(sums.len(), x.count * w.count, "sums");
            if x.count == 1 {
                row_tiles::<F, $r1, true>(x, w, next, sums);
            } else {
                row_tiles::<F, $r3, false>(x, w, next, sums);
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn row_tiles<F: Stored, const R: usize, const ONE: bool>(
            x: Rows<f32>,
            w: Rows<F::Raw>,
            next: *const u8,
            sums: &mut [f32],
        ) {
            let whole = w.count - w.count % R;
            // The rows of one tile may be too few bytes to be asked for in time.
            let further = AHEAD.saturating_sub(R * w.len * size_of::<F::Raw>());
            for r in (0..whole).step_by(R) {
                let next = if r + R < w.count { w.row(r + R).as_ptr().cast() } else { next };
                token_tiles::<F, R, ONE>(x, w, r, next.wrapping_add(further), sums);
            }
            for r in whole..w.count {
                token_tiles::<F, 1, ONE>(x, w, r, next, sums);
            }
        }

        /// `R` rows from `r` on, all tokens.
        #[inline]
        #[target_feature(enable = $features)]
        fn token_tiles<F: Stored, const R: usize, const ONE: bool>(
            x: Rows<f32>,
            w: Rows<F::Raw>,
            r: usize,
            next: *const u8,
            sums: &mut [f32],
        ) {
            if ONE {
                return tile::<F, R, 1>(x, w, [0, r], next, 1, sums);
            }
            let passes = Tiles::new(x.count, 3);
            let share = R * w.len * size_of::<F::Raw>() / passes.count();
            for pass in 0..passes.count() {
                let (tokens, next) = (passes.get(pass), next.wrapping_add(pass * share));
                match tokens.len() {
                    3 => tile::<F, R, 3>(x, w, [tokens.start, r], next, passes.count(), sums),
                    _ => tile::<F, R, 2>(x, w, [tokens.start, r], next, passes.count(), sums),
                }
            }
        }

        /// `T` tokens and `R` rows from `[t, r]` on, chunk by chunk; asks for a share of `R` rows at `next`.
        #[inline]
        #[target_feature(enable = $features)]
        fn tile<F: Stored, const R: usize, const T: usize>(
            x: Rows<f32>,
            w: Rows<F::Raw>,
            [t, r]: [usize; 2],
            mut next: *const u8,
            passes: usize,
            sums: &mut [f32],
        ) {
            let pace = R * $lanes * size_of::<F::Raw>() / passes;
            let mut totals = [[0.0; R]; T];
            for start in (0..x.len).step_by(CHUNK) {
                let k = start..x.len.min(start + CHUNK);
                let dots = dots::<F, R, T>(x.pick(t, k.clone()), w.pick(r, k.clone()), next, pace);
                add_all(dots, &mut totals);
                next = next.wrapping_add(k.len() / $lanes * pace);
            }
            for (i, totals) in totals.iter().enumerate() {
                sums[(t + i) * w.count + r..][..R].copy_from_slice(totals);
            }
        }

        /// The dot products of slices of equal length, one in each vector's lanes.
        ///
        /// Asks meanwhile for what is at `next`, going on by `pace` bytes with each vector.
        #[inline]
        #[target_feature(enable = $features)]
        fn dots<F: Stored, const R: usize, const T: usize>(
            x: [&[f32]; T],
            w: [&[F::Raw]; R],
            mut next: *const u8,
            pace: usize,
        ) -> [[Vector; R]; T] {
            let len = x[0].len();
            assert!(x.iter().all(|x| x.len() == len) && w.iter().all(|w| w.len() == len), "lengths");
            let mut acc = [[zero(); R]; T];
            let whole = len - len % $lanes;
            let mut i = 0;
            while i < whole {
                for line in 0..(R * $lanes * size_of::<F::Raw>()).div_ceil(LINE) {
                    prefetch_far(next.wrapping_add(line * LINE));
                }
                next = next.wrapping_add(pace);
                let mut xs = [zero(); T];
                for t in 0..T {
                    // SAFETY: `$lanes` elements from i on are within slices of `len` ≥ `whole` elements.
                    xs[t] = load(unsafe { &*x[t].as_ptr().add(i).cast() });
                }
                for r in 0..R {
                    // SAFETY: as above.
                    let w = load_stored::<F>(unsafe { &*w[r].as_ptr().add(i).cast() });
                    for t in 0..T {
                        acc[t][r] = fma(xs[t], w, acc[t][r]);
                    }
                }
                i += $lanes;
            }
            if whole < len {
                // The rest, padded with zeros on both sides.
                for t in 0..T {
                    let mut padded = [0.0; $lanes];
                    padded[..len - whole].copy_from_slice(&x[t][whole..]);
                    let x = load(&padded);
                    for r in 0..R {
                        let mut padded = [F::ZERO; $lanes];
                        padded[..len - whole].copy_from_slice(&w[r][whole..]);
                        acc[t][r] = fma(x, load_stored::<F>(&padded), acc[t][r]);
                    }
                }
            }
            acc
        }

        /// Adds each vector's sum to its total.
        #[inline]
        #[target_feature(enable = $features)]
        fn add_all<const R: usize, const T: usize>(dots: [[Vector; R]; T], totals: &mut [[f32; R]; T]) {
            for first in (0..R * T).step_by(GROUP) {
                let (mut group, mut to) = ([zero(); GROUP], [0.0; GROUP]);
                for i in first..(R * T).min(first + GROUP) {
                    group[i - first] = dots[i / R][i % R];
                    to[i - first] = totals[i / R][i % R];
                }
                add_sums(group, &mut to);
                for i in first..(R * T).min(first + GROUP) {
                    totals[i / R][i % R] = to[i - first];
                }
            }
        }

        /// gate = act(gate) · up
        #[target_feature(enable = $features)]
        pub(super) fn gate(act: Act, gate: &mut [f32], up: &[f32]) {
            act.gate(gate, up);
        }
    };
}
