//! Plain slices in, plain slices out.

pub mod act;
pub mod attention;
pub mod blocks;
pub mod embed;
pub mod grouped;
pub mod isa;
mod lanes;
mod math;
pub mod matmul;
pub mod norm;
mod panel;
mod recycle;
pub mod roofline;
pub mod rope;
mod rows;
#[cfg(test)]
mod testing;
pub mod threads;

pub use act::Act;
pub use isa::Isa;
use lanes::per_isa;
pub use recycle::Recycler;
