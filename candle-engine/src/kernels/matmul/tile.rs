//! The tile loops, in a form that each ISA's module stamps with its own vector functions.
//!
//! A macro, because neither generics nor traits carry `#[target_feature]` yet. The module that invokes it
//! has in scope, each with the same features: `zero`, `load`, `load_stored`, `store`, `fma` and `sum`.

/// Makes `accumulate` and `widen` for vectors of `$lanes` floats.
///
/// `$rows`: rows of W in a tile with 1, 2, 3 and 4 tokens, as many as the registers hold: a tile of r rows
/// and t tokens needs r·t sums, the smaller of r and t operands, and one more.
macro_rules! tiles {
    ($features:literal, lanes = $lanes:literal, rows = [$r1:literal, $r2:literal, $r3:literal, $r4:literal]) => {
        /// sums\[t, r\] += x\[t\] · w\[r\]
        #[target_feature(enable = $features)]
        pub(super) fn accumulate<F: Stored>(x: Rows<f32>, w: Rows<F::Raw>, sums: &mut [f32]) {
            assert_eq!(x.len, w.len, "inputs");
            assert_eq!(sums.len(), x.count * w.count, "sums");
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
        #[inline(never)]
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
                for (i, dots) in dots.iter().enumerate() {
                    let sums = &mut sums[(t + i) * w.count + r..][..R];
                    sums.iter_mut().zip(dots).for_each(|(sum, dot)| *sum += dot);
                }
            }
        }

        /// The dot products of slices of `len` elements, at most [`CHUNK`].
        #[inline]
        #[target_feature(enable = $features)]
        fn chunk<F: Stored, const R: usize, const T: usize>(
            mut x: [&[f32]; T],
            mut w: [&[F::Raw]; R],
            len: usize,
        ) -> [[f32; R]; T] {
            let mut acc = [[zero(); T]; R];
            // Slices of one known length, so that the loop needs no bounds checks.
            let whole = len / $lanes;
            let mut xs: [&[[f32; $lanes]]; T] = [&[]; T];
            let mut ws: [&[[F::Raw; $lanes]]; R] = [&[]; R];
            for (vectors, x) in xs.iter_mut().zip(&mut x) {
                let (all, rest) = x.as_chunks::<$lanes>();
                (*vectors, *x) = (&all[..whole], rest);
            }
            for (vectors, w) in ws.iter_mut().zip(&mut w) {
                let (all, rest) = w.as_chunks::<$lanes>();
                (*vectors, *w) = (&all[..whole], rest);
            }
            for i in 0..whole {
                let mut wv = [zero(); R];
                for r in 0..R {
                    wv[r] = load_stored::<F>(&ws[r][i]);
                }
                for t in 0..T {
                    let xv = load(&xs[t][i]);
                    for r in 0..R {
                        acc[r][t] = fma(xv, wv[r], acc[r][t]);
                    }
                }
            }
            if len % $lanes != 0 {
                // The rest, padded with zeros on both sides.
                for t in 0..T {
                    let mut padded = [0.0; $lanes];
                    padded[..x[t].len()].copy_from_slice(x[t]);
                    let xv = load(&padded);
                    for r in 0..R {
                        let mut padded = [F::ZERO; $lanes];
                        padded[..w[r].len()].copy_from_slice(w[r]);
                        acc[r][t] = fma(xv, load_stored::<F>(&padded), acc[r][t]);
                    }
                }
            }
            let mut dots = [[0.0; R]; T];
            for t in 0..T {
                for r in 0..R {
                    dots[t][r] = sum(acc[r][t]);
                }
            }
            dots
        }

        /// The values of stored elements.
        #[target_feature(enable = $features)]
        pub(super) fn widen<F: Stored>(from: &[F::Raw], to: &mut [f32]) {
            assert_eq!(from.len(), to.len(), "elements");
            let (from, from_rest) = from.as_chunks::<$lanes>();
            let (to, to_rest) = to.as_chunks_mut::<$lanes>();
            to.iter_mut().zip(from).for_each(|(to, from)| store(load_stored::<F>(from), to));
            to_rest.iter_mut().zip(from_rest).for_each(|(to, &from)| *to = F::widen(from));
        }

        /// gate = act(gate) · up
        #[target_feature(enable = $features)]
        pub(super) fn gate(act: Act, gate: &mut [f32], up: &[f32]) {
            act.gate(gate, up);
        }
    };
}
