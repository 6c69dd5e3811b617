//! The numbers of a cache, and a head's keys or values of one block as the products read them.

use half::f16;

use crate::kernels::lanes::Arith;
use crate::kernels::prefetch::prefetch_far;
use crate::kv::BLOCK;

/// A float of the cache.
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

/// Keys or values of one block, of some heads.
#[derive(Clone, Copy)]
pub(super) struct Side<'a, N> {
    /// `[heads, size]`
    pub numbers: &'a [N],
    /// Numbers of a head.
    pub size: usize,
    /// What a position's numbers are to be multiplied by, if they are integers: `[heads]`.
    pub scales: Option<&'a [[f32; BLOCK]]>,
    /// Where numbers and scales begin that are read soon: they are fetched meanwhile.
    pub ahead: (*const N, *const [f32; BLOCK]),
}

impl<'a, N> Side<'a, N> {
    #[inline(always)]
    pub fn plane(&self, head: usize) -> Plane<'a, N> {
        Plane {
            numbers: &self.numbers[head * self.size..][..self.size],
            scales: self.scales.map(|scales| &scales[head]),
            ahead: (self.ahead.0.wrapping_add(head * self.size), self.ahead.1.wrapping_add(head)),
        }
    }
}

/// A head's keys or values of one block.
#[derive(Clone, Copy)]
pub(super) struct Plane<'a, N> {
    pub numbers: &'a [N],
    pub scales: Option<&'a [f32; BLOCK]>,
    ahead: (*const N, *const [f32; BLOCK]),
}

impl<'a, N> Plane<'a, N> {
    /// Numbers that lie in a cache of the CPU: nothing needs to be fetched.
    pub fn near(numbers: &'a [N], scales: Option<&'a [f32; BLOCK]>) -> Self {
        Self {
            numbers,
            scales,
            ahead: (numbers.as_ptr(), scales.map_or(std::ptr::null(), std::ptr::from_ref)),
        }
    }

    /// Starts to read the line that holds the number at `at` of those ahead.
    #[inline(always)]
    pub fn fetch(&self, at: usize) {
        prefetch_far(self.ahead.0.wrapping_add(at).cast());
    }

    /// Starts to read the scales of those ahead.
    #[inline(always)]
    pub fn fetch_scales(&self) {
        let scales: *const f32 = self.ahead.1.cast();
        prefetch_far(scales.cast());
        prefetch_far(scales.wrapping_add(BLOCK / 2).cast());
    }
}

impl<N: Number> Plane<'_, N> {
    /// All numbers as floats.
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
