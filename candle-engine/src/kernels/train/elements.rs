//! Element by element: activations with their slopes, dropout, sums.

use super::matrix::Matrix;
use crate::kernels::lanes::{per_isa, Arith, Plain};
use crate::kernels::math::{exp, normal_cdf, sigmoid, tanh};
use crate::kernels::Isa;

/// An activation that can be trained through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0); the slope at 0 is 0
    Relu,
    /// x · Φ(x), Φ the normal distribution
    Gelu,
    /// x · σ(x), σ the logistic function
    Silu,
    /// tanh x
    Tanh,
    /// σ(x) = 1 / (1 + e⁻ˣ)
    Sigmoid,
}

impl Activation {
    /// The function and its slope at a point. In `Plain` arithmetic: the same on every level.
    #[inline(always)]
    fn apply(self, x: f32) -> (f32, f32) {
        /// 1 / √(2π)
        const DENSITY: f32 = 0.398_942_3;
        match self {
            Self::Relu => (if x < 0.0 { 0.0 } else { x }, if x > 0.0 { 1.0 } else { 0.0 }),
            Self::Gelu => {
                let below = normal_cdf(Plain, x);
                (x * below, below + x * DENSITY * exp(Plain, -0.5 * x * x))
            }
            Self::Silu => {
                let s = sigmoid(Plain, x);
                (x * s, s * (1.0 + x * (1.0 - s)))
            }
            Self::Tanh => {
                let y = tanh(Plain, x);
                (y, 1.0 - y * y)
            }
            Self::Sigmoid => {
                let y = sigmoid(Plain, x);
                (y, y * (1.0 - y))
            }
        }
    }
}

/// Applies an activation in place and keeps its slope, which has the same shape.
///
/// # Panics
///
/// If the shapes differ.
pub fn activate(act: Activation, x: &mut Matrix, slope: &mut Matrix) {
    #[inline(always)]
    fn each(x: &mut [f32], slope: &mut [f32], f: impl Fn(f32) -> (f32, f32)) {
        x.iter_mut().zip(slope).for_each(|(x, slope)| (*x, *slope) = f(*x));
    }
    #[inline(always)]
    fn kernel(_: impl Arith, act: Activation, x: &mut [f32], slope: &mut [f32]) {
        // One loop for each function: the choice is made once.
        match act {
            Activation::Relu => each(x, slope, |x| Activation::Relu.apply(x)),
            Activation::Gelu => each(x, slope, |x| Activation::Gelu.apply(x)),
            Activation::Silu => each(x, slope, |x| Activation::Silu.apply(x)),
            Activation::Tanh => each(x, slope, |x| Activation::Tanh.apply(x)),
            Activation::Sigmoid => each(x, slope, |x| Activation::Sigmoid.apply(x)),
        }
    }
    same_shape(x, slope);
    // The padding takes the function's value at 0: values may have any, only gradients must not.
    let (x, slope) = (x.data_mut(), slope.data_mut());
    per_isa!(Isa::best(), kernel, (act: Activation, x: &mut [f32], slope: &mut [f32]));
}

/// Sets what is negative to zero; what is no number stays so.
pub fn relu(x: &mut Matrix) {
    for x in x.data_mut() {
        *x = if *x < 0.0 { 0.0 } else { *x };
    }
}

/// x = x · y
///
/// # Panics
///
/// If the shapes differ.
pub fn scale(x: &mut Matrix, y: &Matrix) {
    same_shape(x, y);
    binary(x.data_mut(), y.data(), Binary::Mul);
}

/// x = x where y is positive, else 0: the gradient of a ReLU that gave y.
///
/// # Panics
///
/// If the shapes differ.
pub fn gate(x: &mut Matrix, y: &Matrix) {
    same_shape(x, y);
    binary(x.data_mut(), y.data(), Binary::Gate);
}

/// x = x + y
///
/// # Panics
///
/// If the shapes differ.
pub fn add(x: &mut Matrix, y: &Matrix) {
    same_shape(x, y);
    binary(x.data_mut(), y.data(), Binary::Add);
}

/// Σ x²; the padding is zero.
pub fn sum_of_squares(x: &Matrix) -> f64 {
    // In parts, so that the sum is exact enough and the loop is vector code.
    x.data().chunks(1024).map(|x| f64::from(x.iter().map(|x| x * x).sum::<f32>())).sum()
}

#[derive(Clone, Copy)]
enum Binary {
    Mul,
    Gate,
    Add,
}

fn binary(x: &mut [f32], y: &[f32], op: Binary) {
    #[inline(always)]
    fn each(x: &mut [f32], y: &[f32], f: impl Fn(f32, f32) -> f32) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x = f(*x, *y));
    }
    #[inline(always)]
    fn kernel(_: impl Arith, x: &mut [f32], y: &[f32], op: Binary) {
        match op {
            Binary::Mul => each(x, y, |x, y| x * y),
            Binary::Gate => each(x, y, |x, y| if y > 0.0 { x } else { 0.0 }),
            Binary::Add => each(x, y, |x, y| x + y),
        }
    }
    per_isa!(Isa::best(), kernel, (x: &mut [f32], y: &[f32], op: Binary));
}

fn same_shape(x: &Matrix, y: &Matrix) {
    assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()), "two matrices of one shape");
}
