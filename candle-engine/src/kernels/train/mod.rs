//! Training: products, gradients and optimizer updates on matrices in panels.
//!
//! A matrix of the tape lies in panels of a few registers' width (see [`Matrix`]), so that every product reads
//! memory in its order and an optimizer's update runs over whole tiles. Padding holds zeros in parameters and in
//! gradients, so that nothing comes of what values hold there; the kernels keep it so.
//!
//! Each number is computed by one task, in an order that follows from the shapes alone: results depend on neither
//! threads nor timing.

mod elements;
mod gradient;
mod loss;
mod matrix;
mod product;
mod rows;
#[cfg(test)]
mod tests;
mod tile;
mod update;

pub use elements::{activate, add, gate, relu, scale, sum_of_squares, Activation};
pub use gradient::{bias_gradient, weight_gradient, Gradient};
pub use loss::{pointwise, softmax_cross_entropy, CrossEntropy, Pointwise};
pub use matrix::{Matrix, View};
pub use product::{product, product_transposed, Epilogue};
pub use rows::{
    batch_norm, batch_norm_gradient, batch_norm_inference, gather, layer_norm, layer_norm_gradient,
    norm_parameter_gradient, scatter, softmax, softmax_gradient,
};
pub use update::{update, Rule};
