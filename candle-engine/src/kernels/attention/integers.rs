//! A level's products of the numbers of an int8 cache: 8 bits by 16, summed exactly.

use crate::kernels::lanes::{Arith, Plain};

/// A level's arithmetic on integers, beside that on floats. Holding a value proves that the CPU has its features.
pub(super) trait Integers: Copy {
    /// Its arithmetic on floats.
    type A: Arith;
    /// Pairs of 16-bit numbers, as many as `A` has numbers in a register.
    type Pairs: Copy;
    /// As many 32-bit sums.
    type Sums: Copy;
    /// Its arithmetic on floats.
    fn arith(self) -> Self::A;
    /// Sums of nothing.
    fn zero(self) -> Self::Sums;
    /// The first pairs of `x`, in which the numbers of a pair are neighbours.
    fn load(self, x: &[i8]) -> Self::Pairs;
    /// All pairs `pair`.
    fn splat(self, pair: [i16; 2]) -> Self::Pairs;
    /// `sums + a[0] · b[0] + a[1] · b[1]` of each pair.
    fn dot(self, sums: Self::Sums, a: Self::Pairs, b: Self::Pairs) -> Self::Sums;
    /// `a + b`
    fn add(self, a: Self::Sums, b: Self::Sums) -> Self::Sums;
    /// The sums as floats, rounded to nearest even.
    fn to_floats(self, sums: Self::Sums) -> <Self::A as Arith>::V;
    /// Writes the nearest integers, of halves the even ones, to the first of `to`; of a NaN anything.
    fn store_rounded(self, x: <Self::A as Arith>::V, to: &mut [i16]);
}

impl Integers for Plain {
    type A = Self;
    type Pairs = [[i16; 2]; 8];
    type Sums = [i32; 8];

    #[inline(always)]
    fn arith(self) -> Self {
        self
    }

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        [0; 8]
    }

    #[inline(always)]
    fn load(self, x: &[i8]) -> Self::Pairs {
        let (pairs, _) = x.as_chunks::<2>();
        std::array::from_fn(|l| pairs[l].map(i16::from))
    }

    #[inline(always)]
    fn splat(self, pair: [i16; 2]) -> Self::Pairs {
        [pair; 8]
    }

    #[inline(always)]
    fn dot(self, sums: Self::Sums, a: Self::Pairs, b: Self::Pairs) -> Self::Sums {
        let product = |l: usize, i: usize| i32::from(a[l][i]) * i32::from(b[l][i]);
        std::array::from_fn(|l| sums[l] + product(l, 0) + product(l, 1))
    }

    #[inline(always)]
    fn add(self, a: Self::Sums, b: Self::Sums) -> Self::Sums {
        std::array::from_fn(|l| a[l] + b[l])
    }

    #[inline(always)]
    fn to_floats(self, sums: Self::Sums) -> [f32; 8] {
        sums.map(|sum| sum as f32)
    }

    #[inline(always)]
    fn store_rounded(self, x: [f32; 8], to: &mut [i16]) {
        to[..8].copy_from_slice(&x.map(|x| x.round_ties_even() as i16));
    }
}

/// A level of x86-64 above scalar: its register, and the intrinsics on it.
#[cfg(target_arch = "x86_64")]
macro_rules! x86 {
    ($name:ident, $features:literal, $arith:ident, $v:ident, $n:literal, $zero:ident, $load:ident, $widen:ident,
     $splat:ident, $dot:expr, $add:ident, $to_float:ident, $store_rounded:ident) => {
        #[doc = concat!("`", $features, "`")]
        #[derive(Clone, Copy)]
        pub(super) struct $name(crate::kernels::lanes::$arith);

        impl $name {
            /// # Safety
            ///
            #[doc = concat!("The CPU has `", $features, "`.")]
            #[inline(always)]
            pub(super) unsafe fn new() -> Self {
                // SAFETY: the features of floats are among them.
                Self(unsafe { crate::kernels::lanes::$arith::new() })
            }
        }

        impl Integers for $name {
            type A = crate::kernels::lanes::$arith;
            type Pairs = std::arch::x86_64::$v;
            type Sums = std::arch::x86_64::$v;

            #[inline(always)]
            fn arith(self) -> Self::A {
                self.0
            }

            #[inline(always)]
            fn zero(self) -> Self::Sums {
                // SAFETY: the value of `self` proves the features.
                unsafe { std::arch::x86_64::$zero() }
            }

            #[inline(always)]
            fn load(self, x: &[i8]) -> Self::Pairs {
                use std::arch::x86_64::*;
                // SAFETY: so many numbers are there; the value of `self` proves the features.
                unsafe { $widen($load(x[..2 * $n].as_ptr().cast())) }
            }

            #[inline(always)]
            fn splat(self, [a, b]: [i16; 2]) -> Self::Pairs {
                let pair = u32::from(a.cast_unsigned()) | u32::from(b.cast_unsigned()) << 16;
                // SAFETY: the value of `self` proves the features.
                unsafe { std::arch::x86_64::$splat(pair.cast_signed()) }
            }

            #[inline(always)]
            fn dot(self, sums: Self::Sums, a: Self::Pairs, b: Self::Pairs) -> Self::Sums {
                // SAFETY: the value of `self` proves the features.
                unsafe { $dot(sums, a, b) }
            }

            #[inline(always)]
            fn add(self, a: Self::Sums, b: Self::Sums) -> Self::Sums {
                // SAFETY: the value of `self` proves the features.
                unsafe { std::arch::x86_64::$add(a, b) }
            }

            #[inline(always)]
            fn to_floats(self, sums: Self::Sums) -> <Self::A as Arith>::V {
                // SAFETY: the value of `self` proves the features.
                unsafe { std::arch::x86_64::$to_float(sums) }
            }

            #[inline(always)]
            fn store_rounded(self, x: <Self::A as Arith>::V, to: &mut [i16]) {
                // SAFETY: there is room for so many numbers; the value of `self` proves the features.
                unsafe { $store_rounded(x, to[..$n].as_mut_ptr().cast()) }
            }
        }
    };
}

/// # Safety
///
/// The CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn dot_256(
    sums: std::arch::x86_64::__m256i,
    a: std::arch::x86_64::__m256i,
    b: std::arch::x86_64::__m256i,
) -> std::arch::x86_64::__m256i {
    use std::arch::x86_64::*;
    // SAFETY: the caller has the features.
    unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(a, b)) }
}

/// # Safety
///
/// The CPU has AVX2, and eight numbers may be written.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn store_rounded_256(x: std::arch::x86_64::__m256, to: *mut std::arch::x86_64::__m128i) {
    use std::arch::x86_64::*;
    // SAFETY: the caller has the features and the room.
    unsafe {
        let x = _mm256_cvtps_epi32(x);
        let x = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
        _mm_storeu_si128(to, x);
    }
}

/// # Safety
///
/// The CPU has AVX-512F, and sixteen numbers may be written.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn store_rounded_512(x: std::arch::x86_64::__m512, to: *mut std::arch::x86_64::__m256i) {
    use std::arch::x86_64::*;
    // SAFETY: the caller has the features and the room.
    unsafe { _mm256_storeu_si256(to, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x))) }
}

#[cfg(target_arch = "x86_64")]
x86!(
    Avx2,
    "avx2,fma,f16c",
    Avx2,
    __m256i,
    8,
    _mm256_setzero_si256,
    _mm_loadu_si128,
    _mm256_cvtepi8_epi16,
    _mm256_set1_epi32,
    dot_256,
    _mm256_add_epi32,
    _mm256_cvtepi32_ps,
    store_rounded_256
);
#[cfg(target_arch = "x86_64")]
x86!(
    Avx512Vnni,
    "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c",
    Avx512,
    __m512i,
    16,
    _mm512_setzero_si512,
    _mm256_loadu_si256,
    _mm512_cvtepi8_epi16,
    _mm512_set1_epi32,
    crate::kernels::panel::add_words,
    _mm512_add_epi32,
    _mm512_cvtepi32_ps,
    store_rounded_512
);

#[cfg(target_arch = "aarch64")]
impl Integers for crate::kernels::lanes::Neon {
    type A = Self;
    type Pairs = std::arch::aarch64::int16x8_t;
    type Sums = std::arch::aarch64::int32x4_t;

    #[inline(always)]
    fn arith(self) -> Self {
        self
    }

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        // SAFETY: NEON is part of the baseline.
        unsafe { std::arch::aarch64::vdupq_n_s32(0) }
    }

    #[inline(always)]
    fn load(self, x: &[i8]) -> Self::Pairs {
        use std::arch::aarch64::*;
        // SAFETY: eight numbers are there; NEON is part of the baseline.
        unsafe { vmovl_s8(vld1_s8(x[..8].as_ptr())) }
    }

    #[inline(always)]
    fn splat(self, [a, b]: [i16; 2]) -> Self::Pairs {
        use std::arch::aarch64::*;
        let pair = u32::from(a.cast_unsigned()) | u32::from(b.cast_unsigned()) << 16;
        // SAFETY: NEON is part of the baseline.
        unsafe { vreinterpretq_s16_u32(vdupq_n_u32(pair)) }
    }

    #[inline(always)]
    fn dot(self, sums: Self::Sums, a: Self::Pairs, b: Self::Pairs) -> Self::Sums {
        use std::arch::aarch64::*;
        // SAFETY: NEON is part of the baseline.
        unsafe {
            let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
            vaddq_s32(sums, vpaddq_s32(low, vmull_high_s16(a, b)))
        }
    }

    #[inline(always)]
    fn add(self, a: Self::Sums, b: Self::Sums) -> Self::Sums {
        // SAFETY: NEON is part of the baseline.
        unsafe { std::arch::aarch64::vaddq_s32(a, b) }
    }

    #[inline(always)]
    fn to_floats(self, sums: Self::Sums) -> <Self::A as Arith>::V {
        // SAFETY: NEON is part of the baseline.
        unsafe { std::arch::aarch64::vcvtq_f32_s32(sums) }
    }

    #[inline(always)]
    fn store_rounded(self, x: <Self::A as Arith>::V, to: &mut [i16]) {
        use std::arch::aarch64::*;
        // SAFETY: there is room for four numbers; NEON is part of the baseline.
        unsafe { vst1_s16(to[..4].as_mut_ptr(), vqmovn_s32(vcvtnq_s32_f32(x))) }
    }
}

/// Runs `$kernel(level, args…)` compiled for the [`Integers`] of `$isa`; as `per_isa` does for floats.
macro_rules! per_integers {
    ($isa:expr, $kernel:path, ($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2($($arg: $type),*) $(-> $result)? {
            // SAFETY: this function runs only where its features are.
            $kernel(unsafe { $crate::kernels::attention::integers::Avx2::new() }, $($arg),*)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn avx512vnni($($arg: $type),*) $(-> $result)? {
            // SAFETY: this function runs only where its features are.
            $kernel(unsafe { $crate::kernels::attention::integers::Avx512Vnni::new() }, $($arg),*)
        }
        match $crate::kernels::Isa::dot($isa) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these levels exist only after their features were detected.
            $crate::kernels::isa::Dot::Avx2 | $crate::kernels::isa::Dot::AvxVnni => unsafe { avx2($($arg),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            $crate::kernels::isa::Dot::Avx512Vnni => unsafe { avx512vnni($($arg),*) },
            #[cfg(target_arch = "aarch64")]
            _ if $crate::kernels::Isa::level($isa) == $crate::kernels::isa::Level::Neon => {
                $kernel($crate::kernels::lanes::Neon, $($arg),*)
            }
            $crate::kernels::isa::Dot::Scalar => $kernel($crate::kernels::lanes::Plain, $($arg),*),
        }
    }};
}
pub(super) use per_integers;
