//! What CPUs of the same level differ in, as measured.

use std::sync::OnceLock;

/// Whether Intel made this CPU.
#[cfg(target_arch = "x86_64")]
pub fn is_intel() -> bool {
    vendor() == *b"GenuineIntel"
}

/// Whether this is a Zen 5, AMD's family 26. From memory its cores read fastest where lines are asked for into the
/// first-level cache, which holds 48 KB, and where loads are of 256 bits.
pub fn is_zen5() -> bool {
    /// Asking a CPU takes a microsecond or more, on a virtual machine.
    static IS_ZEN5: OnceLock<bool> = OnceLock::new();
    *IS_ZEN5.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        return vendor() == *b"AuthenticAMD" && family() == 26;
        #[cfg(not(target_arch = "x86_64"))]
        false
    })
}

#[cfg(target_arch = "x86_64")]
fn vendor() -> [u8; 12] {
    let id = std::arch::x86_64::__cpuid(0);
    let mut vendor = [0; 12];
    vendor.copy_from_slice([id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).as_flattened());
    vendor
}

/// The base family, and the extended one, which is there where the base is 15.
#[cfg(target_arch = "x86_64")]
fn family() -> u32 {
    let signature = std::arch::x86_64::__cpuid(1).eax;
    let base = (signature >> 8) & 15;
    base + if base == 15 { (signature >> 20) & 255 } else { 0 }
}
