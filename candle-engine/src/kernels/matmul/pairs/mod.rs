//! Products with bf16 matrices where the CPU multiplies pairs of bf16: inputs are rounded to it, nearest even, as
//! PyTorch's are in models of that type.
//!
//! Lanes are rows of W; a pair of a token's inputs is broadcast to all of them. So a sum goes from its row's first pair
//! to the last in one lane, and depends on its row and its token alone:
//!
//! sum = x₀ · w₀ + (x₁ · w₁ + sum), each addition fused; what is smaller than 2⁻¹²⁶ is zero, before and after.
//!
//! Matrix registers add the products of 32 numbers up before the sum takes them, first and second ones apart:
//!
//! sum = sum + ((x₃₀ · w₃₀ + … (x₂ · w₂ + x₀ · w₀)) + (x₃₁ · w₃₁ + … (x₃ · w₃ + x₁ · w₁)))
//!
//! Rows become lanes by a transpose: once for all tiles, into a panel, where there are many tokens; in
//! registers where there are few and memory sets the pace. Matrix registers take few tokens' rows as they lie.

mod amx;
mod avx512;
mod few;
mod laid;
mod many;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use self::laid::Laid;
use super::driver::{gate as apply, Gate};
use super::{Disjoint, Isa, Rows, Term};
use crate::kernels::aligned::Aligned;
use crate::kernels::isa::Registers;

/// Numbers of a register.
const LANES: usize = 16;

/// Pairs of a register, which are transposed together.
const BLOCK: usize = LANES;

/// Tokens of a tile at most: with two registers of a panel's rows they make 24 sums.
const TILE: usize = 12;

/// Tokens of which a copy is laid out at once, so that it keeps a bounded size.
const TOKENS: usize = 512;

/// Rows of a panel: two registers.
const ROWS: usize = 2 * LANES;

/// A pair of each of a panel's rows.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; ROWS]);

/// A token's sums of a panel's rows.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Sums([f32; ROWS]);

/// What is computed of some tokens.
struct Product<'a> {
    isa: Isa,
    /// Whether matrix registers multiply.
    registers: bool,
    x: Laid<'a>,
    /// The first token's place among all.
    first: usize,
    w: &'a Term<'a>,
    gate: Option<&'a Gate<'a>>,
    y: &'a Disjoint<'a, f32>,
}

/// y = x · Wᵀ + b, perhaps gated, of matrices in bf16 whose lengths agree.
pub(super) fn run(isa: Isa, x: Rows<f32>, w: &Term, gate: Option<&Gate>, y: &Disjoint<f32>) {
    thread_local! {
        /// Kept from call to call: fresh pages cost more than small products.
        static LAID: RefCell<Aligned<u32>> = RefCell::default();
    }
    let mut buffer = LAID.take();
    let turns = x.count.div_ceil(TOKENS);
    let registers = isa.registers() == Registers::Amx;
    let step = x.count.div_ceil(turns).next_multiple_of(if registers { amx::TOKENS } else { TILE });
    for first in (0..x.count).step_by(step) {
        let x = Rows::new(&x.data[first * x.stride..], x.stride, x.len, step.min(x.count - first));
        let many = x.count > TILE;
        let x = Laid::new(x, registers && many, &mut buffer);
        let product = Product { isa, registers, x, first, w, gate, y };
        if many {
            product.many();
        } else {
            product.few();
        }
    }
    LAID.set(buffer);
}
