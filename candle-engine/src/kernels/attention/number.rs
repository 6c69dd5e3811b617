//! The numbers of a cache, and a head's keys or values of one block as the products read them.

use half::f16;

use crate::kernels::lanes::Arith;
use crate::kv::BLOCK;

/// A number of the cache.
pub(super) trait Number: Copy {
    const ZERO: Self;
    /// The first numbers of `x`, as floats.
    fn load<A: Arith>(arith: A, x: &[Self]) -> A::V;
}

impl Number for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn load<A: Arith>(arith: A, x: &[Self]) -> A::V {
        arith.load(x)
    }
}

impl Number for f16 {
    const ZERO: Self = Self::ZERO;

    #[inline(always)]
    fn load<A: Arith>(arith: A, x: &[Self]) -> A::V {
        arith.load_f16(x)
    }
}

impl Number for i8 {
    const ZERO: Self = 0;

    #[inline(always)]
    fn load<A: Arith>(arith: A, x: &[Self]) -> A::V {
        arith.load_i8(x)
    }
}

/// A head's keys `[d, BLOCK]` or values `[BLOCK, d]`.
#[derive(Clone, Copy)]
pub(super) struct Plane<'a, N> {
    pub numbers: &'a [N],
    /// What a position's numbers are to be multiplied by.
    pub scales: Option<&'a [f32; BLOCK]>,
    /// What is read next, as long as `numbers`: it is fetched meanwhile.
    pub ahead: &'a [N],
}

impl<'a, N: Number> Plane<'a, N> {
    /// Numbers that lie in a cache of the CPU: nothing needs to be fetched.
    pub fn near(numbers: &'a [N], scales: Option<&'a [f32; BLOCK]>) -> Self {
        Self { numbers, scales, ahead: numbers }
    }

    /// Starts to read from what comes next the line that holds the number at `at`.
    #[inline(always)]
    pub fn fetch(&self, at: usize) {
        let line = self.ahead.as_ptr().wrapping_add(at);
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
            // SAFETY: a prefetch of any address is allowed; SSE is part of the baseline.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }

    /// All numbers as floats; the scales stay apart.
    #[inline(always)]
    pub fn widen<A: Arith>(&self, arith: A, out: &mut [f32]) {
        for at in (0..out.len()).step_by(BLOCK) {
            self.fetch(at);
            for at in (at..at + BLOCK).step_by(A::N) {
                arith.store(N::load(arith, &self.numbers[at..]), &mut out[at..]);
            }
        }
    }
}
