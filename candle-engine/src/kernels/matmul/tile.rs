//! The tile loops, in a form that each ISA's module stamps with its own vector functions.
//!
//! A macro, because neither generics nor traits carry `#[target_feature]` yet. The module that invokes it
//! has in scope, each with the same features: `zero`, `load`, `load_stored`, `fma` and `sums`.

/// Makes `accumulate` and `gate` for vectors of `$lanes` floats.
///
/// `$rows`: rows of W in a tile with 1, 2, 3 and 4 tokens, as many as the registers hold: a tile of r rows
/// and t tokens needs r·t sums, the smaller of r and t operands, and one more.
macro_rules! tiles {
    ($features:literal, lanes = $lanes:literal, rows = [$r1:literal, $r2:literal, $r3:literal, $r4:literal]) => {
        /// sums\[t, r\] += x\[t\] · w\[r\]
        #[target_feature(enable = $features)]
        pub(super) fn accumulate<F: Stored>(
            x: Rows<f32>,
            w: Rows<F::Raw>,
            sums: &mut [f32],
            packed: &mut Vec<f32>,
        ) {
            assert_eq!(x.len, w.len, "inputs");
            assert_eq!(sums.len(), x.count * w.count, "sums");
            if x.count >= PACK_TOKENS {
                return accumulate_packed::<F>(x, w, sums, packed);
            }
            if x.count <= 4 {
                // Memory sets the pace: each row is read from its beginning to its end.
                token_tile::<F>(x, w, 0, 0..x.len, sums);
                return;
            }
            // The chunk of W stays in the second-level cache, that of the tokens in the first.
            for start in (0..x.len).step_by(CHUNK) {
                let k = start..x.len.min(start + CHUNK);
                for t in (0..x.count).step_by(4) {
                    token_tile::<F>(x, w, t, k.clone(), sums);
                }
            }
        }

        /// Up to four tokens from `t` on, all rows.
        #[inline]
        #[target_feature(enable = $features)]
        fn token_tile<F: Stored>(x: Rows<f32>, w: Rows<F::Raw>, t: usize, k: Range<usize>, sums: &mut [f32]) {
            match x.count - t {
                0 => {}
                1 => row_tiles::<F, $r1, 1>(x, w, t, k, sums),
                2 => row_tiles::<F, $r2, 2>(x, w, t, k, sums),
                3 => row_tiles::<F, $r3, 3>(x, w, t, k, sums),
                _ => row_tiles::<F, $r4, 4>(x, w, t, k, sums),
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn row_tiles<F: Stored, const R: usize, const T: usize>(
            x: Rows<f32>,
            w: Rows<F::Raw>,
            t: usize,
            k: Range<usize>,
            sums: &mut [f32],
        ) {
            let whole = w.count - w.count % R;
            for r in (0..whole).step_by(R) {
                tile::<F, R, T>(x, w, t, r, k.clone(), sums);
            }
            for r in whole..w.count {
                tile::<F, 1, T>(x, w, t, r, k.clone(), sums);
            }
        }

        /// `R` rows from `r` on and `T` tokens from `t` on, chunk by chunk.
        #[inline]
        #[target_feature(enable = $features)]
        fn tile<F: Stored, const R: usize, const T: usize>(
            x: Rows<f32>,
            w: Rows<F::Raw>,
            t: usize,
            r: usize,
            k: Range<usize>,
            sums: &mut [f32],
        ) {
            for start in k.clone().step_by(CHUNK) {
                let end = k.end.min(start + CHUNK);
                let mut xs: [&[f32]; T] = [&[]; T];
                xs.iter_mut().enumerate().for_each(|(i, s)| *s = &x.row(t + i)[start..end]);
                let mut ws: [&[F::Raw]; R] = [&[]; R];
                ws.iter_mut().enumerate().for_each(|(i, s)| *s = &w.row(r + i)[start..end]);
                let dots = chunk::<F, R, T>(xs, ws, end - start);
                for i in 0..T {
                    let sums = &mut sums[(t + i) * w.count + r..][..R];
                    sums.iter_mut().zip(&dots).for_each(|(sum, dots)| *sum += dots[i]);
                }
            }
        }

        /// The dot products of slices of `len` elements.
        #[inline]
        #[target_feature(enable = $features)]
        fn chunk<F: Stored, const R: usize, const T: usize>(
            x: [&[f32]; T],
            w: [&[F::Raw]; R],
            len: usize,
        ) -> [[f32; T]; R] {
            assert!(x.iter().all(|x| x.len() == len) && w.iter().all(|w| w.len() == len), "lengths");
            let mut acc = [[zero(); T]; R];
            let whole = len - len % $lanes;
            let mut i = 0;
            while i < whole {
                // SAFETY: `$lanes` elements from i on are within slices of `len` ≥ `whole` elements.
                let x_at = |t: usize| load(unsafe { &*x[t].as_ptr().add(i).cast() });
                // SAFETY: as above.
                let w_at = |r: usize| load_stored::<F>(unsafe { &*w[r].as_ptr().add(i).cast() });
                // The fewer operands stay in registers, the others come one by one.
                if R <= T {
                    let mut ws = [zero(); R];
                    for r in 0..R {
                        ws[r] = w_at(r);
                    }
                    for t in 0..T {
                        let x = x_at(t);
                        for r in 0..R {
                            acc[r][t] = fma(x, ws[r], acc[r][t]);
                        }
                    }
                } else {
                    let mut xs = [zero(); T];
                    for t in 0..T {
                        xs[t] = x_at(t);
                    }
                    for r in 0..R {
                        let w = w_at(r);
                        for t in 0..T {
                            acc[r][t] = fma(xs[t], w, acc[r][t]);
                        }
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
                        acc[r][t] = fma(x, load_stored::<F>(&padded), acc[r][t]);
                    }
                }
            }
            let mut dots = [[0.0; T]; R];
            let (quads, rest) = acc.as_flattened().as_chunks();
            let (to_quads, to_rest) = dots.as_flattened_mut().as_chunks_mut();
            to_quads.iter_mut().zip(quads).for_each(|(to, &from)| *to = sums(from));
            to_rest
                .iter_mut()
                .zip(rest)
                .for_each(|(to, &from)| *to = sums([from, zero(), zero(), zero()])[0]);
            dots
        }

        /// gate = act(gate) · up
        #[target_feature(enable = $features)]
        pub(super) fn gate(act: Act, gate: &mut [f32], up: &[f32]) {
            act.gate(gate, up);
        }
    };
}
