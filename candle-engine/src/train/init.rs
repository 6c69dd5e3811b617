//! How parameters begin, by PyTorch's formulas (with random numbers of our own).

use crate::text::sampler::SplitMix64;

/// What a parameter holds before the first step.
///
/// `fan_in` and `fan_out` are a matrix's inputs and outputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// The same number everywhere.
    Constant(f32),
    /// Uniform in ± the bound.
    Uniform(f32),
    /// Normal with this standard deviation.
    Normal(f32),
    /// Uniform in ± gain · √(3 / fan_in).
    ///
    /// Source: He et al. 2015. The gain for ReLU is √2; PyTorch's own layers take √(1/3).
    KaimingUniform {
        /// What the activation is made up for by.
        gain: f32,
    },
    /// Normal with standard deviation gain / √fan_in.
    KaimingNormal {
        /// What the activation is made up for by.
        gain: f32,
    },
    /// Uniform in ± gain · √(6 / (fan_in + fan_out)).
    ///
    /// Source: Glorot and Bengio 2010.
    XavierUniform {
        /// What the activation is made up for by.
        gain: f32,
    },
    /// Normal with standard deviation gain · √(2 / (fan_in + fan_out)).
    XavierNormal {
        /// What the activation is made up for by.
        gain: f32,
    },
}

impl Init {
    /// `n` numbers for a parameter with these fans.
    pub(super) fn numbers(self, n: usize, fan_in: usize, fan_out: usize, rng: &mut SplitMix64) -> Vec<f32> {
        let (fan_in, both) = (fan_in as f32, (fan_in + fan_out) as f32);
        match self {
            Self::Constant(x) => vec![x; n],
            Self::Uniform(bound) => (0..n).map(|_| bound * uniform(rng)).collect(),
            Self::Normal(deviation) => (0..n).map(|_| deviation * normal(rng)).collect(),
            Self::KaimingUniform { gain } => {
                Self::Uniform(gain * (3.0 / fan_in).sqrt()).numbers(n, 1, 1, rng)
            }
            Self::KaimingNormal { gain } => Self::Normal(gain / fan_in.sqrt()).numbers(n, 1, 1, rng),
            Self::XavierUniform { gain } => Self::Uniform(gain * (6.0 / both).sqrt()).numbers(n, 1, 1, rng),
            Self::XavierNormal { gain } => Self::Normal(gain * (2.0 / both).sqrt()).numbers(n, 1, 1, rng),
        }
    }
}

/// Uniform in −1..1.
fn uniform(rng: &mut SplitMix64) -> f32 {
    (rng.next_f64() * 2.0 - 1.0) as f32
}

/// The standard normal distribution, by Box and Muller's transform.
fn normal(rng: &mut SplitMix64) -> f32 {
    let (a, b) = (1.0 - rng.next_f64(), rng.next_f64());
    ((-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
}
