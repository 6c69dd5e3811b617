//! The scores themselves, for those who want to see where a query looks.

use super::integers::{per_integers, Integers};
use super::number::Plane;
use super::products::score;
use super::{int8, Heads, KvSlice};
use crate::kernels::lanes::{per_isa, Arith};
use crate::kernels::Isa;
use crate::kv::BLOCK;

/// scale · q · Kᵀ of one query head, before the softmax, over all positions.
///
/// Shapes: `q [t, h, d]`, `keys [g, d, BLOCK]` per block → `out [t, s]`; `s` positions in as many blocks.
///
/// # Panics
///
/// If a shape does not fit.
pub fn scores(heads: Heads, scale: f32, head: usize, q: &[f32], keys: &[KvSlice], out: &mut [f32]) {
    scores_on(Isa::best(), heads, scale, head, q, keys, out);
}

fn scores_on(isa: Isa, heads: Heads, scale: f32, head: usize, q: &[f32], keys: &[KvSlice], out: &mut [f32]) {
    let Heads { heads, kv_heads, head_dim: d } = heads;
    let t = q.len() / (heads * d);
    assert!(q.len() == t * heads * d && head < heads && heads.is_multiple_of(kv_heads), "scores: q");
    assert!(out.len().is_multiple_of(t.max(1)), "scores: out");
    let s = out.len() / t.max(1);
    assert_eq!(keys.len(), s.div_ceil(BLOCK), "scores: blocks of {s} positions");
    let kv_head = head / (heads / kv_heads);
    for (block, keys) in keys.iter().enumerate() {
        for row in 0..t {
            let q = &q[(row * heads + head) * d..][..d];
            let at = row * s + block * BLOCK;
            let (mut scores, keys) = ([[0.0; BLOCK]], (*keys, kv_head));
            let to = &mut scores;
            if let KvSlice::I8(..) = keys.0 {
                per_integers!(isa, integers, (q: &[f32], keys: (KvSlice, usize), to: &mut [[f32; BLOCK]; 1]));
            } else {
                per_isa!(isa, floats, (q: &[f32], keys: (KvSlice, usize), to: &mut [[f32; BLOCK]; 1]));
            }
            let out = &mut out[at..at + BLOCK.min(s - block * BLOCK)];
            for (out, score) in out.iter_mut().zip(scores[0]) {
                *out = score * scale;
            }
        }
    }
}

#[inline(always)]
fn floats<A: Arith>(arith: A, q: &[f32], (keys, head): (KvSlice, usize), scores: &mut [[f32; BLOCK]; 1]) {
    let numbers = head * BLOCK * q.len()..(head + 1) * BLOCK * q.len();
    match keys {
        KvSlice::F32(keys) => score::<1, 2, _, A>(arith, q, 1, 0, &Plane::near(&keys[numbers], None), scores),
        KvSlice::F16(keys) => score::<1, 2, _, A>(arith, q, 1, 0, &Plane::near(&keys[numbers], None), scores),
        KvSlice::I8(..) => unreachable!("keys of floats"),
    }
}

#[inline(always)]
fn integers<L: Integers>(
    level: L,
    q: &[f32],
    (keys, head): (KvSlice, usize),
    scores: &mut [[f32; BLOCK]; 1],
) {
    let KvSlice::I8(keys, scales) = keys else { unreachable!("keys of integers") };
    let numbers = head * BLOCK * q.len()..(head + 1) * BLOCK * q.len();
    let keys = Plane::near(&keys[numbers], Some(&scales.as_chunks().0[head]));
    int8::score::<1, 1, L>(level, &int8::Queries::new(q, q.len()), 0, &keys, scores);
}

#[cfg(test)]
mod tests {
    use super::super::{append_keys, KvSliceMut};
    use super::*;
    use crate::kernels::testing::{assert_close, numbers};

    #[test]
    fn scores_are_the_products_of_queries_and_keys() {
        let heads = Heads { heads: 4, kv_heads: 2, head_dim: 10 };
        let (t, s) = (3, 45);
        let (q, k) = (numbers(1, t * 40), numbers(2, s * 20));
        let mut blocks = [vec![0.0; 20 * BLOCK], vec![0.0; 20 * BLOCK]];
        for (block, k) in blocks.iter_mut().zip(k.chunks(20 * BLOCK)) {
            append_keys(2, 10, k, 0, KvSliceMut::F32(block));
        }
        let keys: Vec<KvSlice> = blocks.iter().map(|block| KvSlice::F32(block)).collect();
        for isa in Isa::available() {
            for head in 0..4 {
                let mut out = vec![f32::NAN; t * s];
                scores_on(isa, heads, 0.3, head, &q, &keys, &mut out);
                let dot = |row: usize, at: usize| -> f32 {
                    let (q, k) = (&q[row * 40 + head * 10..], &k[at * 20 + head / 2 * 10..]);
                    (0..10).map(|i| q[i] * k[i]).sum::<f32>() * 0.3
                };
                let want: Vec<f32> = (0..t * s).map(|i| dot(i / s, i % s)).collect();
                assert_close(&out, &want, 1e-5, format!("{isa} head {head}"));
            }
        }
    }
}
