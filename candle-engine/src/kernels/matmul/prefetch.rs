//! Asking for memory before it is needed: a miss costs as much as a thousand multiplications.

/// Bytes that memory delivers together.
pub(super) const LINE: usize = 64;

macro_rules! prefetch {
    ($(#[$doc:meta])* $name:ident, $x86:ident, $arm:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub(in crate::kernels) fn $name(at: *const u8) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a hint, of no effect where there is nothing to read.
            unsafe {
                std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::$x86 }>(at.cast());
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            unsafe {
                std::arch::asm!(concat!("prfm ", $arm, ", [{at}]"), at = in(reg) at,
                                options(nostack, preserves_flags, readonly));
            }
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            let _ = at;
        }
    };
}

prefetch! {
    /// Asks for the cache line at an address, which need not be one that may be read.
    prefetch, _MM_HINT_T0, "pldl1keep"
}

prefetch! {
    /// The same, but leaves the first-level cache to what is in use.
    prefetch_far, _MM_HINT_T1, "pldl2keep"
}
