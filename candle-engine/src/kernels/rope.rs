//! Rotary position embedding.

use super::lanes::{per_isa, Arith};
use super::rows::parallel_rows_mut;
use super::Isa;

/// Which numbers of a head form a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// `i` and `i + rot_dim / 2`: checkpoints in the Hugging Face layout, GPT-NeoX.
    Half,
    /// `2i` and `2i + 1`: the paper's, GGUF files of the `llama` architecture.
    Interleaved,
}

/// The rotation of every position: cosines and sines `[positions, rot_dim / 2]`.
#[derive(Debug, Clone, Copy)]
pub struct RopeTable<'a> {
    /// Pairing.
    pub style: RopeStyle,
    /// Numbers of a head that are rotated, from its first; even.
    pub rot_dim: usize,
    /// Cosines.
    pub cos: &'a [f32],
    /// Sines.
    pub sin: &'a [f32],
}

/// Rotates queries or keys in place.
///
/// (a, b) → (a · cos − b · sin, b · cos + a · sin) for each pair of a head; the rest of the head stays.
///
/// Shapes: `x [t, heads, d]`, `positions [t]`.
///
/// # Panics
///
/// If a shape does not fit, or a position lies beyond the table.
/// Source: Su et al. 2021, eq. 34.
pub fn rotate(x: &mut [f32], heads: usize, d: usize, table: &RopeTable, positions: &[usize]) {
    rotate_on(Isa::best(), x, heads, d, table, positions);
}

fn rotate_on(isa: Isa, x: &mut [f32], heads: usize, d: usize, table: &RopeTable, positions: &[usize]) {
    let RopeTable { rot_dim, cos, sin, .. } = *table;
    assert_eq!(x.len(), positions.len() * heads * d, "rotate: x and positions");
    assert!(rot_dim % 2 == 0 && rot_dim <= d, "rotate: rot_dim {rot_dim} of {d}");
    assert_eq!(cos.len(), sin.len(), "rotate: cos and sin");
    if x.is_empty() || rot_dim == 0 {
        return;
    }
    let row = heads * d;
    parallel_rows_mut(x, row, |first, x| {
        let positions = &positions[first..first + x.len() / row];
        per_isa!(isa, rotate_rows, (x: &mut [f32], d: usize, table: &RopeTable, positions: &[usize]));
    });
}

#[inline(always)]
fn rotate_rows(arith: impl Arith, x: &mut [f32], d: usize, table: &RopeTable, positions: &[usize]) {
    let half = table.rot_dim / 2;
    for (x, &position) in x.chunks_exact_mut(x.len() / positions.len()).zip(positions) {
        let cos = &table.cos[position * half..][..half];
        let sin = &table.sin[position * half..][..half];
        for head in x.chunks_exact_mut(d) {
            let head = &mut head[..table.rot_dim];
            match table.style {
                RopeStyle::Half => {
                    let (a, b) = head.split_at_mut(half);
                    for (((a, b), &cos), &sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                        (*a, *b) = rotated(arith, *a, *b, cos, sin);
                    }
                }
                RopeStyle::Interleaved => {
                    for ((pair, &cos), &sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                        *pair = rotated(arith, pair[0], pair[1], cos, sin).into();
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn rotated(arith: impl Arith, a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (arith.mul_add(a, cos, -b * sin), arith.mul_add(b, cos, a * sin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, numbers, OFFSETS};

    #[test]
    fn every_level_agrees_with_the_definition() {
        for isa in Isa::available() {
            for (d, rot_dim) in (2..70).step_by(2).map(|d| (d, d)).chain([(7, 0), (9, 4), (64, 16), (80, 32)])
            {
                for style in [RopeStyle::Half, RopeStyle::Interleaved] {
                    for offset in OFFSETS {
                        let (heads, half, positions) = (3, rot_dim / 2, [4usize, 0, 9]);
                        let (cos, sin) = (numbers(1, 10 * half), numbers(2, 10 * half));
                        let mut x = numbers(3, positions.len() * heads * d + offset);
                        let x = &mut x[offset..];
                        let mut want = x.to_vec();
                        for (row, head) in want.chunks_exact_mut(d).enumerate() {
                            for i in 0..half {
                                let (a, b) = match style {
                                    RopeStyle::Half => (i, i + half),
                                    RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                                };
                                let at = positions[row / heads] * half + i;
                                let pair = (head[a], head[b]);
                                head[a] = pair.0 * cos[at] - pair.1 * sin[at];
                                head[b] = pair.1 * cos[at] + pair.0 * sin[at];
                            }
                        }
                        let table = RopeTable { style, rot_dim, cos: &cos, sin: &sin };
                        rotate_on(isa, x, heads, d, &table, &positions);
                        assert_close(x, &want, 2e-7, format!("{isa} {style:?} {rot_dim} of {d}"));
                    }
                }
            }
        }
    }
}
