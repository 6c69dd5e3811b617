//! Integers of 4 bits in groups of a row's inputs, symmetric or with a zero point. The scale of a group is not simply
//! its largest number by 7: of a few candidates it is the one whose squared error is least.

use candle_engine::kernels::matmul::DenseFormat;

use crate::encode::{inverse, max_abs, push_scale, round, stored, Part};

/// What is stored is the number and this.
pub(crate) const OFFSET: f32 = 8.0;
const MOST: f32 = 15.0;

/// Divisors of a group's largest magnitude. Above 7 it may be clipped, and the many small numbers have finer steps.
const DIVISORS: [f32; 8] = [6.6, 7.0, 7.4, 7.8, 8.2, 8.7, 9.3, 10.0];

/// Shares of a group's range that are kept where there is a zero point.
const SHARES: [f32; 8] = [1.03, 1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.75];

/// Appends one row; `importance [in]` weighs the errors.
pub(crate) fn encode(
    row: &[f32],
    importance: &[f32],
    group: usize,
    zero_point: bool,
    scales: DenseFormat,
    part: &mut Part,
) {
    for (w, h) in row.chunks_exact(group).zip(importance.chunks_exact(group)) {
        let (scale, zero) =
            if zero_point { search_range(w, h, scales) } else { (search(w, h, scales), OFFSET) };
        push_scale(scale, scales, &mut part.scales);
        if zero_point {
            part.zeros.push(zero as u8);
        }
        let inverse = inverse(scale);
        for pair in w.as_chunks::<2>().0 {
            let [low, high] = pair.map(|w| {
                let (q, number) = round(w * inverse, -zero, MOST - zero);
                part.error += f64::from(w - q * scale).powi(2);
                (number + zero as i32) as u8
            });
            part.quants.push(low | high << 4);
        }
    }
}

/// The scale that minimises Σ h · (w − scale · q)², -8 ≤ q ≤ 7, among those that `format` can store.
pub(crate) fn search(w: &[f32], h: &[f32], format: DenseFormat) -> f32 {
    let most = max_abs(w);
    let mut best = Candidate::NONE;
    for divisor in DIVISORS {
        best = best.or(w, h, stored(most / divisor, format), OFFSET);
    }
    // For the integers that the best one chose, least squares gives a scale that is better still.
    for _ in 0..2 {
        best = best.or(w, h, stored(fit(w, h, best.scale), format), OFFSET);
    }
    best.scale
}

/// Scale and zero point that minimise Σ h · (w − scale · (q − zero))², 0 ≤ q ≤ 15.
fn search_range(w: &[f32], h: &[f32], format: DenseFormat) -> (f32, f32) {
    let (low, high) = w.iter().fold((0f32, 0f32), |(low, high), &w| (low.min(w), high.max(w)));
    let mut best = Candidate::NONE;
    for share in SHARES {
        let scale = stored(share * (high - low) / MOST, format);
        let zero = round(-share * low * inverse(scale), 0.0, MOST).0;
        best = best.or(w, h, scale, zero);
    }
    (best.scale, best.zero)
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    error: f32,
    scale: f32,
    zero: f32,
}

/// Sums side by side: what lets the compiler use vectors.
const LANES: usize = 8;

impl Candidate {
    const NONE: Self = Self { error: f32::INFINITY, scale: 0.0, zero: OFFSET };

    /// This one, or another if its error is less.
    fn or(self, w: &[f32], h: &[f32], scale: f32, zero: f32) -> Self {
        if scale <= 0.0 || !scale.is_finite() {
            return self;
        }
        let inverse = inverse(scale);
        let mut error = [0f32; LANES];
        for (w, h) in w.as_chunks::<LANES>().0.iter().zip(h.as_chunks::<LANES>().0) {
            for i in 0..LANES {
                let q = round(w[i] * inverse, -zero, MOST - zero).0;
                let miss = w[i] - q * scale;
                error[i] += h[i] * miss * miss;
            }
        }
        match error.iter().sum::<f32>() {
            error if error < self.error => Self { error, scale, zero },
            _ => self,
        }
    }
}

/// The scale that fits best to the integers that this one chooses: Σ h·w·q / Σ h·q².
fn fit(w: &[f32], h: &[f32], scale: f32) -> f32 {
    let inverse = inverse(scale);
    let (mut cross, mut square) = ([0f32; LANES], [0f32; LANES]);
    for (w, h) in w.as_chunks::<LANES>().0.iter().zip(h.as_chunks::<LANES>().0) {
        for i in 0..LANES {
            let q = round(w[i] * inverse, -OFFSET, MOST - OFFSET).0;
            cross[i] += h[i] * w[i] * q;
            square[i] += h[i] * q * q;
        }
    }
    cross.iter().sum::<f32>() / square.iter().sum::<f32>()
}
