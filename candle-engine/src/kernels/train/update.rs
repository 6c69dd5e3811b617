//! One step of an optimizer over a parameter.

use super::matrix::Matrix;
use crate::kernels::lanes::{per_isa, Arith};
use crate::kernels::Isa;

/// How a parameter follows its gradient in one step, as PyTorch's optimizers of the same names do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Stochastic gradient descent.
    ///
    /// g += weight_decay · w; m = momentum · m + (1 − dampening) · g; w −= lr · m, with Nesterov's look ahead
    /// w −= lr · (g + momentum · m). Without momentum m is g.
    Sgd {
        /// Learning rate.
        lr: f32,
        /// Decay added to the gradient.
        weight_decay: f32,
        /// Share of the last step that is kept.
        momentum: f32,
        /// What of the gradient the momentum does not take in: 0 in an optimizer's first step.
        dampening: f32,
        /// Whether the gradient is taken where the momentum leads.
        nesterov: bool,
    },
    /// Adam and AdamW.
    ///
    /// g += weight_decay · w; w *= keep; m += (1 − β₁)(g − m); v = β₂ v + (1 − β₂) g²;
    /// w −= rate · m / (√v · root + ε)
    Adam {
        /// Learning rate over 1 − β₁ᵗ.
        rate: f32,
        /// 1 / √(1 − β₂ᵗ)
        root: f32,
        /// What the second moment keeps.
        beta2: f32,
        /// What the two moments take in: 1 − β, exact where β is near 1.
        grow: [f32; 2],
        /// Added to the root.
        eps: f32,
        /// Decay added to the gradient: Adam's.
        weight_decay: f32,
        /// What is kept of the weight: 1 − lr · weight_decay in AdamW, else 1.
        keep: f32,
    },
    /// RMSprop.
    ///
    /// g += weight_decay · w; v = α v + (1 − α) g²; m = momentum · m + g / (√v + ε); w −= lr · m
    RmsProp {
        /// Learning rate.
        lr: f32,
        /// What the mean square keeps.
        alpha: f32,
        /// What it takes in, 1 − α.
        grow: f32,
        /// Added to the root.
        eps: f32,
        /// Decay added to the gradient.
        weight_decay: f32,
        /// Share of the last step that is kept.
        momentum: f32,
    },
}

impl Rule {
    /// Which of the two moments it uses.
    pub fn moments(&self) -> [bool; 2] {
        match *self {
            Self::Sgd { momentum, .. } => [momentum != 0.0, false],
            Self::Adam { .. } => [true, true],
            Self::RmsProp { momentum, .. } => [momentum != 0.0, true],
        }
    }
}

/// Updates a parameter by its gradient, scaled by `scale` first.
///
/// # Panics
///
/// If a shape does not fit.
pub fn update(rule: &Rule, scale: f32, gradient: &mut Matrix, w: &mut Matrix, moments: &mut [Matrix; 2]) {
    #[inline(always)]
    fn kernel<A: Arith>(
        arith: A,
        rule: &Rule,
        scale: f32,
        gradient: &mut [f32],
        w: &mut [f32],
        moments: [&mut [f32]; 2],
    ) {
        if scale != 1.0 {
            gradient.iter_mut().for_each(|g| *g *= scale);
        }
        let [m, v] = moments;
        apply(arith, rule, w, gradient, m, v);
    }
    let len = w.data().len();
    for (moment, used) in moments.iter().zip(rule.moments()) {
        assert!(!used || moment.data().len() == len, "update: a parameter and its moments");
    }
    assert_eq!(gradient.data().len(), len, "update: a parameter and its gradient");
    let (gradient, w) = (gradient.data_mut(), w.data_mut());
    let moments = moments.each_mut().map(Matrix::data_mut);
    per_isa!(Isa::best(), kernel, (rule: &Rule, scale: f32, gradient: &mut [f32], w: &mut [f32], moments: [&mut [f32]; 2]));
}

/// Applies a rule to a piece of a parameter; `m` and `v` are as long as `w` where the rule uses them.
#[inline(always)]
pub(super) fn apply<A: Arith>(arith: A, rule: &Rule, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let n = w.len();
    let g = &g[..n];
    match *rule {
        Rule::Sgd { lr, weight_decay, momentum, dampening, nesterov } => {
            let grow = 1.0 - dampening;
            if momentum == 0.0 {
                for i in 0..n {
                    w[i] = arith.mul_add(-lr, arith.mul_add(weight_decay, w[i], g[i]), w[i]);
                }
            } else {
                let m = &mut m[..n];
                for i in 0..n {
                    let g = arith.mul_add(weight_decay, w[i], g[i]);
                    m[i] = arith.mul_add(momentum, m[i], grow * g);
                    let step = if nesterov { arith.mul_add(momentum, m[i], g) } else { m[i] };
                    w[i] = arith.mul_add(-lr, step, w[i]);
                }
            }
        }
        Rule::Adam { rate, root, beta2, grow: [grow1, grow2], eps, weight_decay, keep } => {
            let (m, v) = (&mut m[..n], &mut v[..n]);
            for i in 0..n {
                let g = arith.mul_add(weight_decay, w[i], g[i]);
                m[i] = arith.mul_add(grow1, g - m[i], m[i]);
                v[i] = arith.mul_add(beta2, v[i], grow2 * g * g);
                let step = m[i] / arith.mul_add(v[i].sqrt(), root, eps);
                w[i] = arith.mul_add(-rate, step, w[i] * keep);
            }
        }
        Rule::RmsProp { lr, alpha, grow, eps, weight_decay, momentum } => {
            let v = &mut v[..n];
            for i in 0..n {
                let g = arith.mul_add(weight_decay, w[i], g[i]);
                v[i] = arith.mul_add(alpha, v[i], grow * g * g);
                let step = g / (v[i].sqrt() + eps);
                if momentum == 0.0 {
                    w[i] = arith.mul_add(-lr, step, w[i]);
                } else {
                    m[i] = arith.mul_add(momentum, m[i], step);
                    w[i] = arith.mul_add(-lr, m[i], w[i]);
                }
            }
        }
    }
}
