//! What happens to a block of sums on its way to the output.

use super::{Act, Term};

/// The last step of a product.
pub(super) enum Epilogue<'a> {
    /// y = sum
    Store,
    /// y = y + sum
    Add,
    /// y = act(sum) · (sum of `up`)
    Gate {
        /// The matrix beside the gate.
        up: Term<'a>,
        /// The gate's activation.
        act: Act,
    },
}

/// Adds the bias to each token's sums.
pub(super) fn add_bias(sums: &mut [f32], bias: &[f32]) {
    for sums in sums.chunks_exact_mut(bias.len()) {
        sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
    }
}
