//! Intel's matrix registers: eight tiles of at most sixteen rows of 64 bytes.
//!
//! The compiler knows nothing of them: no code but the blocks of assembly here names one, so what a tile holds stays
//! from block to block.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::marker::PhantomData;
use std::sync::LazyLock;

/// Bytes of a tile's row.
pub const ROW: usize = 64;

/// Rows of a tile.
pub const ROWS: usize = 16;

/// Whether this CPU multiplies tiles of bytes and of bf16, and the system lets this process do it. Asks the system for
/// that, once.
pub fn is_supported() -> bool {
    static SUPPORTED: LazyLock<bool> = LazyLock::new(|| has_tiles() && permitted());
    *SUPPORTED
}

fn has_tiles() -> bool {
    /// amx-bf16, amx-tile, amx-int8
    const FEATURES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    /// The tiles and their configuration are saved when threads take turns.
    const STATE: u64 = 3 << 17;
    const OSXSAVE: u32 = 1 << 27;
    #[target_feature(enable = "xsave")]
    fn saved() -> u64 {
        // SAFETY: called only where OSXSAVE tells that the instruction is there.
        unsafe { _xgetbv(0) }
    }
    __cpuid(0).eax >= 7
        && __cpuid_count(7, 0).edx & FEATURES == FEATURES
        && __cpuid(1).ecx & OSXSAVE != 0
        // SAFETY: as above.
        && unsafe { saved() } & STATE == STATE
}

/// Linux saves the tiles of a process once it has asked for them.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: a request that changes nothing but what the process may do.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The shape of one tile.
#[derive(Clone, Copy)]
pub struct Shape {
    /// At most [`ROWS`].
    pub rows: usize,
    /// At most [`ROW`].
    pub row_bytes: usize,
}

impl Shape {
    /// As large as a tile can be.
    pub const WHOLE: Self = Self { rows: ROWS, row_bytes: ROW };
}

/// The thread's tiles, in use until this is dropped.
pub struct Tiles(PhantomData<*const ()>);

impl Tiles {
    /// Shapes the tiles; all are zero.
    ///
    /// # Safety
    ///
    /// [`is_supported`], and no other `Tiles` of this thread is in use.
    pub unsafe fn new(shapes: [Shape; 8]) -> Self {
        let mut config =
            Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (i, shape) in shapes.into_iter().enumerate() {
            assert!(shape.rows <= ROWS && shape.row_bytes <= ROW, "a tile");
            (config.rows[i], config.row_bytes[i]) = (shape.rows as u8, shape.row_bytes as u16);
        }
        // SAFETY: the instruction is there, and reads a valid configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, preserves_flags, readonly)) };
        Self(PhantomData)
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: there are tiles, which nobody uses any more.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// Sets tile `T` to zero.
///
/// # Safety
///
/// [`Tiles`] are in use.
#[inline(always)]
pub unsafe fn zero<const T: u8>() {
    // SAFETY: by the contract.
    unsafe { asm!("tilezero tmm{t}", t = const T, options(nostack, preserves_flags, nomem)) };
}

/// Reads tile `T`, its rows `stride` bytes apart.
///
/// # Safety
///
/// [`Tiles`] are in use, and all of the tile's rows can be read.
#[inline(always)]
pub unsafe fn load<const T: u8>(from: *const u8, stride: usize) {
    // SAFETY: by the contract.
    unsafe {
        asm!("tileloadd tmm{t}, [{from} + {stride}*1]", t = const T, from = in(reg) from, stride = in(reg) stride,
             options(nostack, preserves_flags, readonly));
    }
}

/// Writes tile `T`, its rows `stride` bytes apart.
///
/// # Safety
///
/// [`Tiles`] are in use, and all of the tile's rows can be written.
#[inline(always)]
pub unsafe fn store<const T: u8>(to: *mut u8, stride: usize) {
    // SAFETY: by the contract.
    unsafe {
        asm!("tilestored [{to} + {stride}*1], tmm{t}", t = const T, to = in(reg) to, stride = in(reg) stride,
             options(nostack, preserves_flags));
    }
}

/// `C[m, n] += Σ A[m, 4k + i] · B[k, 4n + i]` of bytes with a sign; 32-bit sums.
///
/// # Safety
///
/// [`Tiles`] are in use, of shapes that agree.
#[inline(always)]
pub unsafe fn dot_bytes<const C: u8, const A: u8, const B: u8>() {
    // SAFETY: by the contract.
    unsafe {
        asm!("tdpbssd tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
             options(nostack, preserves_flags, nomem));
    }
}

/// As [`dot_bytes`], but the bytes of A without a sign.
///
/// # Safety
///
/// [`Tiles`] are in use, of shapes that agree.
#[inline(always)]
pub unsafe fn dot_low_bytes<const C: u8, const A: u8, const B: u8>() {
    // SAFETY: by the contract.
    unsafe {
        asm!("tdpbusd tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
             options(nostack, preserves_flags, nomem));
    }
}

/// As [`dot_bytes`], but the bytes of B without a sign.
///
/// # Safety
///
/// [`Tiles`] are in use, of shapes that agree.
#[inline(always)]
pub unsafe fn dot_by_low_bytes<const C: u8, const A: u8, const B: u8>() {
    // SAFETY: by the contract.
    unsafe {
        asm!("tdpbsud tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
             options(nostack, preserves_flags, nomem));
    }
}

/// `C[m, n] += Σ A[m, 2k] · B[k, 2n] + Σ A[m, 2k + 1] · B[k, 2n + 1]` of bf16: two f32 sums from zero, each product
/// fused, that are added to each other and then to C.
///
/// # Safety
///
/// [`Tiles`] are in use, of shapes that agree.
#[inline(always)]
pub unsafe fn dot_pairs<const C: u8, const A: u8, const B: u8>() {
    // SAFETY: by the contract.
    unsafe {
        asm!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
             options(nostack, preserves_flags, nomem));
    }
}
