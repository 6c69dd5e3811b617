//! Room for results.

/// Numbers of any value, for a kernel that writes each of them. To zero megabytes first, on one thread, would cost more
/// than many an op.
///
/// They are NaN where that is to be noticed: in tests and builds with debug assertions.
pub fn unwritten(len: usize) -> Vec<f32> {
    if cfg!(any(test, debug_assertions, miri, not(any(target_arch = "x86_64", target_arch = "aarch64")))) {
        return vec![f32::NAN; len];
    }
    let mut numbers = Vec::<f32>::with_capacity(len);
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    // SAFETY: there is room for `len`. For all the compiler knows, this empty assembly has written whatever lies there:
    // it is initialized, and every pattern of bits is a number.
    unsafe {
        std::arch::asm!("/* {0} */", in(reg) numbers.as_mut_ptr(), options(nostack, preserves_flags));
        numbers.set_len(len);
    }
    numbers
}
