//! Plain slices in, plain slices out.

pub mod act;
mod aligned;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
// Quantized formats have fast kernels on x86-64; elsewhere their specification runs, and the rest waits.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports, unused_variables, unreachable_code))]
pub mod blocks;
mod cpu;
pub mod embed;
pub mod fir;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports, unused_variables, unreachable_code))]
pub mod grouped;
pub mod isa;
mod lanes;
pub mod log_mel;
mod math;
pub mod matmul;
pub mod norm;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports, unused_variables, unreachable_code))]
mod panel;
mod prefetch;
pub mod recycle;
pub mod roofline;
pub mod rope;
mod rows;
#[cfg(test)]
mod testing;
pub mod threads;
pub mod train;
pub mod unfold;
mod unwritten;

pub use act::Act;
pub use isa::Isa;
use lanes::per_isa;
pub use panel::sharing;
pub use recycle::Recycler;
pub use unwritten::unwritten;
