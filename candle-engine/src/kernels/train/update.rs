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

/// Applies a rule to a piece of a parameter, whole registers of it; `m` and `v` are as long as `w` where the rule uses
/// them, else empty.
#[inline(always)]
pub(super) fn apply<A: Arith>(arith: A, rule: &Rule, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let all = |x: f32| arith.splat(x);
    let fma = |a, b, c| arith.mul_add_v(a, b, c);
    let wg = w.chunks_exact_mut(A::N).zip(g.chunks_exact(A::N));
    let (mut m, v) = (m.chunks_exact_mut(A::N), v.chunks_exact_mut(A::N));
    match *rule {
        Rule::Sgd { lr, weight_decay, momentum, dampening, nesterov } => {
            let (down, decay, momentum) = (all(-lr), all(weight_decay), all(momentum));
            let grow = all(1.0 - dampening);
            // A loop for each kind: a tile's update is short, and in the way of the next tile's sums.
            if m.len() == 0 {
                for (w, g) in wg {
                    let old = arith.load(w);
                    let g = fma(decay, old, arith.load(g));
                    arith.store(fma(down, g, old), w);
                }
            } else if nesterov {
                for ((w, g), m) in wg.zip(m) {
                    let old = arith.load(w);
                    let g = fma(decay, old, arith.load(g));
                    let moment = fma(momentum, arith.load(m), arith.mul_v(grow, g));
                    arith.store(moment, m);
                    arith.store(fma(down, fma(momentum, moment, g), old), w);
                }
            } else {
                for ((w, g), m) in wg.zip(m) {
                    let old = arith.load(w);
                    let g = fma(decay, old, arith.load(g));
                    let moment = fma(momentum, arith.load(m), arith.mul_v(grow, g));
                    arith.store(moment, m);
                    arith.store(fma(down, moment, old), w);
                }
            }
        }
        Rule::Adam { rate, root, beta2, grow: [grow1, grow2], eps, weight_decay, keep } => {
            let (down, root, eps, keep) = (all(-rate), all(root), all(eps), all(keep));
            let (beta2, decay, minus) = (all(beta2), all(weight_decay), all(-1.0));
            let (grow1, grow2) = (all(grow1), all(grow2));
            for (((w, g), m), v) in wg.zip(m).zip(v) {
                let (old, first) = (arith.load(w), arith.load(m));
                let g = fma(decay, old, arith.load(g));
                let first = fma(grow1, fma(minus, first, g), first);
                let second = fma(beta2, arith.load(v), arith.mul_v(arith.mul_v(grow2, g), g));
                let step = arith.div_v(first, fma(arith.sqrt_v(second), root, eps));
                arith.store(first, m);
                arith.store(second, v);
                arith.store(fma(down, step, arith.mul_v(old, keep)), w);
            }
        }
        Rule::RmsProp { lr, alpha, grow, eps, weight_decay, momentum } => {
            let (down, decay, momentum) = (all(-lr), all(weight_decay), all(momentum));
            let (alpha, grow, eps) = (all(alpha), all(grow), all(eps));
            for ((w, g), v) in wg.zip(v) {
                let old = arith.load(w);
                let g = fma(decay, old, arith.load(g));
                let second = fma(alpha, arith.load(v), arith.mul_v(arith.mul_v(grow, g), g));
                arith.store(second, v);
                let mut step = arith.div_v(g, arith.add_v(arith.sqrt_v(second), eps));
                if let Some(m) = m.next() {
                    step = fma(momentum, arith.load(m), step);
                    arith.store(step, m);
                }
                arith.store(fma(down, step, old), w);
            }
        }
    }
}
