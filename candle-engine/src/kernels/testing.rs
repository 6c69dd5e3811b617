//! What the kernels' tests share.

use std::ops::Range;

/// Numbers in −1..1 that look random.
pub(crate) fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Lengths up to twice the widest vector plus one.
pub(crate) const LENGTHS: Range<usize> = 0..2 * super::lanes::LANES + 2;

/// Offsets from alignment, in elements.
pub(crate) const OFFSETS: [usize; 3] = [0, 1, 3];

/// Numbers among which every extreme is.
pub(crate) fn extremes(seed: u64, n: usize) -> Vec<f32> {
    const EXTREMES: [f32; 12] =
        [0.0, -0.0, f32::MIN_POSITIVE, -1e-45, 1e-45, 1e30, -1e30, 88.0, -88.0, -104.5, 1.0, -0.75];
    let scale = [1.0, 10.0, 1e-20][seed as usize % 3];
    let random = numbers(seed, n).into_iter().enumerate();
    random.map(|(i, x)| if i % 3 == 1 { EXTREMES[(i + seed as usize) % 12] } else { x * scale }).collect()
}

/// Asserts that two results agree within `tolerance`, relative to the larger of 1 and the second.
pub(crate) fn assert_close(got: &[f32], want: &[f32], tolerance: f32, what: impl std::fmt::Display) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let close = (got - want).abs() <= tolerance * want.abs().max(1.0);
        assert!(close || got == want || got.is_nan() && want.is_nan(), "{what}: {got}, not {want}, at {i}");
    }
}
