use half::f16;

use super::*;
use crate::kernels::testing::numbers;
use crate::kernels::threads::set_threads;
use crate::kv::KvType;

/// A sequence's queries, keys and values `[s, …]`, and its cache.
struct Sequence {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    blocks: Blocks,
}

enum Blocks {
    F32(Vec<[Vec<f32>; 2]>),
    F16(Vec<[Vec<f16>; 2]>),
    I8(Vec<[(Vec<i8>, Vec<f32>); 2]>),
}

/// How far a result may be from that of exact arithmetic: over int8 numbers queries and weights have 16 bits.
fn tolerance(kind: KvType) -> f32 {
    match kind {
        KvType::F32 | KvType::F16 => 1e-5,
        KvType::I8 => 2e-4,
    }
}

const KINDS: [KvType; 3] = [KvType::F32, KvType::F16, KvType::I8];

/// What the format makes of a head's numbers of one position.
fn rounded(kind: KvType, x: &[f32]) -> Vec<f32> {
    let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let round = |&x: &f32| match kind {
        KvType::F32 => x,
        KvType::F16 => f16::from_f32(x).to_f32(),
        KvType::I8 => (x * (127.0 / largest)).round_ties_even() * (largest / 127.0),
    };
    x.iter().map(round).collect()
}

impl Sequence {
    /// Rows are appended in runs of uneven length, as chunks of a prompt would be.
    fn new(seed: u64, s: usize, heads: Heads, kind: KvType) -> Self {
        let Heads { heads: h, kv_heads: g, head_dim: d } = heads;
        let q = numbers(seed, s * h * d).into_iter().map(|x| 3.0 * x).collect();
        let exact = |seed| numbers(seed, s * g * d);
        let (k, v) = (exact(seed + 1), exact(seed + 2));
        let (n, plane) = (s.div_ceil(BLOCK), g * d * BLOCK);
        // What was never written must not be read.
        let mut blocks = match kind {
            KvType::F32 => Blocks::F32(vec![[vec![f32::NAN; plane], vec![f32::NAN; plane]]; n]),
            KvType::F16 => Blocks::F16(vec![[vec![f16::NAN; plane], vec![f16::NAN; plane]]; n]),
            KvType::I8 => {
                let side = (vec![-99; plane], vec![f32::NAN; g * BLOCK]);
                Blocks::I8(vec![[side.clone(), side]; n])
            }
        };
        let mut at = 0;
        while at < s {
            let run = (1 + at % 7).min(s - at).min(BLOCK - at % BLOCK);
            let rows = at * g * d..(at + run) * g * d;
            let (keys, values) = match &mut blocks {
                Blocks::F32(blocks) => {
                    let [keys, values] = &mut blocks[at / BLOCK];
                    (KvSliceMut::F32(keys), KvSliceMut::F32(values))
                }
                Blocks::F16(blocks) => {
                    let [keys, values] = &mut blocks[at / BLOCK];
                    (KvSliceMut::F16(keys), KvSliceMut::F16(values))
                }
                Blocks::I8(blocks) => {
                    let [(keys, k_scales), (values, v_scales)] = &mut blocks[at / BLOCK];
                    (KvSliceMut::I8(keys, k_scales), KvSliceMut::I8(values, v_scales))
                }
            };
            append_keys(g, d, &k[rows.clone()], at % BLOCK, keys);
            append_values(g, d, &v[rows], at % BLOCK, values);
            at += run;
        }
        let stored = |x: Vec<f32>| x.chunks(d).flat_map(|x| rounded(kind, x)).collect();
        Self { q, k: stored(k), v: stored(v), blocks }
    }

    fn kv(&self, start: usize, len: usize) -> SequenceKv<'_> {
        let slices = |side: usize| match &self.blocks {
            Blocks::F32(blocks) => blocks.iter().map(|b| KvSlice::F32(&b[side])).collect(),
            Blocks::F16(blocks) => blocks.iter().map(|b| KvSlice::F16(&b[side])).collect(),
            Blocks::I8(blocks) => blocks.iter().map(|b| KvSlice::I8(&b[side].0, &b[side].1)).collect(),
        };
        SequenceKv { keys: slices(0), values: slices(1), start, len }
    }
}

/// The definition, in f64.
fn naive(spec: &AttentionSpec, seq: &Sequence, start: usize, len: usize) -> Vec<f32> {
    let Heads { heads: h, kv_heads: g, head_dim: d } = spec.heads;
    let mut out = Vec::new();
    for p in start..start + len {
        for head in 0..h {
            let q = &seq.q[(p * h + head) * d..][..d];
            let kv = head / (h / g);
            let sees = |j: usize| (!spec.causal || j <= p) && spec.window.is_none_or(|window| j + window > p);
            let seen: Vec<usize> = (0..start + len).filter(|&j| sees(j)).collect();
            let score = |&j: &usize| {
                let k = &seq.k[(j * g + kv) * d..][..d];
                let dot: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                let score = dot * f64::from(spec.scale);
                spec.softcap.map_or(score, |c| f64::from(c) * (score / f64::from(c)).tanh())
            };
            let scores: Vec<f64> = seen.iter().map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            for i in 0..d {
                let weighted =
                    |(&j, s): (&usize, &f64)| (s - max).exp() * f64::from(seq.v[(j * g + kv) * d + i]);
                let sum: f64 = seen.iter().zip(&scores).map(weighted).sum();
                out.push((sum / total) as f32);
            }
        }
    }
    out
}

fn specs(heads: Heads) -> Vec<AttentionSpec> {
    let plain = AttentionSpec { heads, scale: 0.5, window: None, softcap: None, causal: true };
    vec![
        plain,
        AttentionSpec { window: Some(1), ..plain },
        AttentionSpec { window: Some(37), ..plain },
        AttentionSpec { softcap: Some(2.5), ..plain },
        AttentionSpec { causal: false, ..plain },
        AttentionSpec { causal: false, window: Some(40), softcap: Some(20.0), ..plain },
    ]
}

const HEADS: [Heads; 6] = [
    Heads { heads: 1, kv_heads: 1, head_dim: 8 },
    Heads { heads: 4, kv_heads: 2, head_dim: 16 },
    Heads { heads: 6, kv_heads: 2, head_dim: 20 },
    Heads { heads: 8, kv_heads: 2, head_dim: 64 },
    Heads { heads: 7, kv_heads: 1, head_dim: 33 },
    Heads { heads: 2, kv_heads: 2, head_dim: 80 },
];

#[test]
fn a_ragged_batch_is_what_the_definition_gives() {
    for isa in Isa::available() {
        for heads in HEADS {
            for kind in KINDS {
                let lengths = [(0, 1), (0, 70), (31, 2), (64, 33), (99, 1)];
                let seqs: Vec<_> =
                    lengths.iter().map(|&(a, n)| Sequence::new(a as u64, a + n, heads, kind)).collect();
                let row = heads.heads * heads.head_dim;
                let q: Vec<f32> = seqs
                    .iter()
                    .zip(lengths)
                    .flat_map(|(s, (a, n))| s.q[a * row..(a + n) * row].to_vec())
                    .collect();
                let kvs: Vec<_> = seqs.iter().zip(lengths).map(|(s, (a, n))| s.kv(a, n)).collect();
                for spec in specs(heads) {
                    let mut out = vec![f32::NAN; q.len()];
                    attention_on(isa, &spec, &q, &kvs, &mut out);
                    let want = seqs.iter().zip(lengths).flat_map(|(s, (a, n))| naive(&spec, s, a, n));
                    for (i, (got, want)) in out.iter().zip(want).enumerate() {
                        assert!(
                            (got - want).abs() < tolerance(kind),
                            "{isa} {spec:?} {kind:?} at {i}: {got}, not {want}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_whatever_comes_with_it() {
    let s = 150;
    for isa in Isa::available() {
        for heads in HEADS {
            let row = heads.heads * heads.head_dim;
            for kind in KINDS {
                let a = Sequence::new(1, s, heads, kind);
                let b = Sequence::new(2, 40, heads, kind);
                for spec in specs(heads).into_iter().filter(|spec| spec.causal) {
                    let mut whole = vec![0.0; a.q.len()];
                    set_threads(1);
                    attention_on(isa, &spec, &a.q, &[a.kv(0, s)], &mut whole);
                    for chunk in [1, 5, 32, 49] {
                        set_threads(chunk);
                        for start in (0..s).step_by(chunk) {
                            let len = chunk.min(s - start);
                            let rows = start * row..(start + len) * row;
                            // In a batch, with another sequence before it.
                            let q = [&b.q[3 * row..], &a.q[rows.clone()]].concat();
                            let mut out = vec![0.0; q.len()];
                            attention_on(isa, &spec, &q, &[b.kv(3, 37), a.kv(start, len)], &mut out);
                            assert!(
                                out[37 * row..]
                                    .iter()
                                    .zip(&whole[rows])
                                    .all(|(x, y)| x.to_bits() == y.to_bits()),
                                "{isa} {spec:?} {kind:?}: {start}+{len}"
                            );
                        }
                    }
                }
            }
        }
    }
    set_threads(2);
}

#[test]
fn caches_of_a_batch_may_have_formats_of_their_own() {
    let heads = HEADS[1];
    let (spec, row) = (specs(heads)[0], heads.heads * heads.head_dim);
    let seqs = KINDS.map(|kind| Sequence::new(7, 70, heads, kind));
    let step = |seqs: &[Sequence]| {
        let q: Vec<f32> = seqs.iter().flat_map(|seq| seq.q[69 * row..].to_vec()).collect();
        let kvs: Vec<_> = seqs.iter().map(|seq| seq.kv(69, 1)).collect();
        let mut out = vec![0.0; q.len()];
        attention(&spec, &q, &kvs, &mut out);
        out
    };
    let alone: Vec<f32> = seqs.iter().flat_map(|seq| step(std::slice::from_ref(seq))).collect();
    assert_eq!(step(&seqs), alone);
}

#[test]
fn a_freed_block_behind_the_window_is_not_touched() {
    let heads = HEADS[1];
    let seq = Sequence::new(3, 100, heads, KvType::F32);
    let spec = AttentionSpec { window: Some(36), ..specs(heads)[0] };
    let row = heads.heads * heads.head_dim;
    let q = &seq.q[99 * row..];
    let (mut want, mut got) = (vec![0.0; row], vec![0.0; row]);
    attention(&spec, q, &[seq.kv(99, 1)], &mut want);
    let mut kv = seq.kv(99, 1);
    for block in 0..2 {
        kv.keys[block] = KvSlice::F32(&[]);
        kv.values[block] = KvSlice::F32(&[]);
    }
    attention(&spec, q, &[kv], &mut got);
    assert_eq!(want, got);
}

#[test]
fn a_nan_reaches_only_those_who_see_it() {
    let heads = HEADS[3];
    let mut seq = Sequence::new(4, 64, heads, KvType::F32);
    let row = heads.heads * heads.head_dim;
    if let Blocks::F32(blocks) = &mut seq.blocks {
        append_values(2, 64, &[f32::NAN; 128], 40 - BLOCK, KvSliceMut::F32(&mut blocks[1][1]));
    }
    let mut out = vec![0.0; seq.q.len()];
    attention(&specs(heads)[0], &seq.q, &[seq.kv(0, 64)], &mut out);
    for (i, x) in out.iter().enumerate() {
        assert_eq!(x.is_nan(), i / row >= 40, "position {}", i / row);
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let heads = Heads { heads: 1, kv_heads: 1, head_dim: 16 };
    let mut seq = Sequence::new(5, 40, heads, KvType::F32);
    seq.q.iter_mut().for_each(|q| *q *= 1e18);
    let mut out = vec![0.0; seq.q.len()];
    attention(&specs(heads)[0], &seq.q, &[seq.kv(0, 40)], &mut out);
    assert!(out.iter().all(|x| x.abs() <= 1.0));
}

#[test]
fn an_empty_batch_is_nothing() {
    attention(&specs(HEADS[0])[0], &[], &[], &mut []);
    let seq = Sequence::new(6, 1, HEADS[0], KvType::F32);
    attention(&specs(HEADS[0])[0], &[], &[seq.kv(1, 0)], &mut []);
}

#[test]
fn a_long_past_is_what_the_definition_gives_whether_it_is_split_or_not() {
    let heads = HEADS[1];
    let row = heads.heads * heads.head_dim;
    // Three spans: a step takes each as a task of its own, a chunk all of them in one.
    let (start, len) = (2 * SPAN * BLOCK - 7, 40);
    for isa in Isa::available() {
        for kind in KINDS {
            let seq = Sequence::new(7, start + len, heads, kind);
            for spec in specs(heads).into_iter().filter(|spec| spec.causal) {
                let spec = AttentionSpec { window: spec.window.map(|w| w * 30), ..spec };
                let want = naive(&spec, &seq, start, len);
                let mut chunk = vec![0.0; len * row];
                attention_on(isa, &spec, &seq.q[start * row..], &[seq.kv(start, len)], &mut chunk);
                for (got, want) in chunk.iter().zip(&want) {
                    assert!(
                        (got - want).abs() < tolerance(kind),
                        "{isa} {spec:?} {kind:?}: {got}, not {want}"
                    );
                }
                for at in [0, 7, 39] {
                    let rows = (start + at) * row..(start + at + 1) * row;
                    let mut step = vec![0.0; row];
                    attention_on(isa, &spec, &seq.q[rows], &[seq.kv(start + at, 1)], &mut step);
                    let same = step.iter().zip(&chunk[at * row..]).all(|(x, y)| x.to_bits() == y.to_bits());
                    assert!(same, "{isa} {spec:?} {kind:?}: {at}");
                }
            }
        }
    }
}

/// Relative errors of a format against exact keys and values: what was measured, and a quarter more.
#[test]
fn what_a_format_loses_is_known() {
    let heads = Heads { heads: 8, kv_heads: 2, head_dim: 64 };
    let spec = AttentionSpec { heads, scale: 0.125, window: None, softcap: None, causal: true };
    let s = 200;
    let run = |kind, outlier: f32| {
        // Keys of real models have channels that are larger than all others.
        let mut exact = Sequence::new(8, s, heads, KvType::F32);
        exact.k.iter_mut().skip(5).step_by(64).for_each(|k| *k *= outlier);
        let mut blocks = Sequence::new(8, s, heads, kind).blocks;
        for at in 0..s {
            let keys = &exact.k[at * 128..][..128];
            append_keys(
                2,
                64,
                keys,
                at % BLOCK,
                match &mut blocks {
                    Blocks::F32(blocks) => KvSliceMut::F32(&mut blocks[at / BLOCK][0]),
                    Blocks::F16(blocks) => KvSliceMut::F16(&mut blocks[at / BLOCK][0]),
                    Blocks::I8(blocks) => {
                        let (numbers, scales) = &mut blocks[at / BLOCK][0];
                        KvSliceMut::I8(numbers, scales)
                    }
                },
            );
        }
        let want = naive(&spec, &exact, 0, s);
        let stored = Sequence { blocks, ..exact };
        let mut got = vec![0.0; want.len()];
        attention(&spec, &stored.q, &[stored.kv(0, s)], &mut got);
        let error: f64 = got.iter().zip(&want).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        (error / want.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()).sqrt()
    };
    for (kind, outlier, bound) in [
        (KvType::F32, 1.0, 2.9e-7),
        (KvType::F16, 1.0, 3.0e-4),
        (KvType::F16, 20.0, 8.4e-4),
        (KvType::I8, 1.0, 6.3e-3),
        (KvType::I8, 20.0, 5.7e-2),
    ] {
        let error = run(kind, outlier);
        assert!(error < bound, "{kind:?}, a channel {outlier} times as large: {error:.2e}");
    }
}

#[test]
fn a_number_that_is_not_finite_stays_in_its_head_and_position() {
    let (mut numbers, mut scales) = (vec![0; 2 * 8 * BLOCK], vec![0.0; 2 * BLOCK]);
    let mut row = [1.0; 16];
    row[3] = f32::NAN;
    append_keys(2, 8, &row, 4, KvSliceMut::I8(&mut numbers, &mut scales));
    assert!(scales[4].is_nan() && scales[BLOCK + 4] == 1.0 / 127.0);
    append_keys(2, 8, &[0.0; 16], 5, KvSliceMut::I8(&mut numbers, &mut scales));
    assert_eq!((scales[5], numbers[5]), (0.0, 0), "zeros have no largest number to divide by");
}
