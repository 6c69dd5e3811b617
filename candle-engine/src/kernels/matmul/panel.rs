//! The loops for many tokens, in a form that each ISA's module stamps with its own vector functions.
//!
//! W's chunk is widened and laid out once in the order in which the tiles read it, and so are the tokens of
//! a tile. That removes the conversion, the loads that cross cache lines and the remainders from the inner
//! loop, and changes nothing in the order of a sum.

/// Makes `accumulate_packed` for vectors of `$lanes` floats and tiles of `$rows` rows by four tokens.
macro_rules! panels {
    ($features:literal, lanes = $lanes:literal, rows = $rows:literal) => {
        /// sums\[t, r\] += x\[t\] · w\[r\]
        #[target_feature(enable = $features)]
        fn accumulate_packed<F: Stored>(
            x: Rows<f32>,
            w: Rows<F::Raw>,
            sums: &mut [f32],
            scratch: &mut Vec<f32>,
        ) {
            let width = CHUNK.min(x.len).next_multiple_of($lanes);
            let rows = w.count.next_multiple_of($rows);
            let (panel, tokens) = aligned(scratch, (rows + 4) * width).split_at_mut(rows * width);
            for start in (0..x.len).step_by(CHUNK) {
                let k = start..x.len.min(start + CHUNK);
                let width = k.len().next_multiple_of($lanes);
                let (panel, tokens) = (&mut panel[..rows * width], &mut tokens[..4 * width]);
                for (r, to) in (0..).step_by($rows).zip(panel.chunks_exact_mut($rows * width)) {
                    pack::<F, $rows>(w, r, k.clone(), to);
                }
                for t in (0..x.count).step_by(4) {
                    pack::<Widened, 4>(x, t, k.clone(), tokens);
                    for (r, panel) in (0..).step_by($rows).zip(panel.chunks_exact($rows * width)) {
                        let dots = panel_tile(tokens, panel);
                        for (t, dots) in (t..x.count).zip(dots) {
                            let sums = &mut sums[t * w.count..][..w.count][r..];
                            sums.iter_mut().zip(dots).for_each(|(sum, dot)| *sum += dot);
                        }
                    }
                }
            }
        }

        /// Lays `G` rows from `first` on out: a vector of the first, a vector of the second, and so on.
        /// Columns up to a whole vector and rows beyond the last are zeros.
        #[inline]
        #[target_feature(enable = $features)]
        fn pack<F: Stored, const G: usize>(
            from: Rows<F::Raw>,
            first: usize,
            k: Range<usize>,
            to: &mut [f32],
        ) {
            let (to, _) = to.as_chunks_mut::<$lanes>();
            for g in 0..G {
                let mut to = to[g..].iter_mut().step_by(G);
                if first + g >= from.count {
                    to.for_each(|to| store(zero(), to));
                    continue;
                }
                let (vectors, rest) = from.row(first + g)[k.clone()].as_chunks::<$lanes>();
                // `to` is the longer one, and second: `zip` leaves its next one for the rest.
                for (from, to) in vectors.iter().zip(&mut to) {
                    store(load_stored::<F>(from), to);
                }
                if let Some(to) = to.next() {
                    let mut padded = [F::ZERO; $lanes];
                    padded[..rest.len()].copy_from_slice(rest);
                    store(load_stored::<F>(&padded), to);
                }
            }
        }

        /// The dot products of four tokens and `$rows` rows, by token.
        #[inline]
        #[target_feature(enable = $features)]
        fn panel_tile(x: &[f32], w: &[f32]) -> [[f32; $rows]; 4] {
            let (x, w) = (x.as_chunks::<$lanes>().0, w.as_chunks::<$lanes>().0);
            let mut acc = [[zero(); $rows]; 4];
            for (x, w) in x.as_chunks::<4>().0.iter().zip(w.as_chunks::<$rows>().0) {
                let mut ws = [zero(); $rows];
                ws.iter_mut().zip(w).for_each(|(to, w)| *to = load(w));
                for (acc, x) in acc.iter_mut().zip(x) {
                    let x = load(x);
                    acc.iter_mut().zip(&ws).for_each(|(acc, &w)| *acc = fma(x, w, *acc));
                }
            }
            let mut dots = [[0.0; $rows]; 4];
            let quads = acc.as_flattened().as_chunks().0;
            let to_quads = dots.as_flattened_mut().as_chunks_mut().0;
            to_quads.iter_mut().zip(quads).for_each(|(to, &from)| *to = sums(from));
            dots
        }
    };
}
