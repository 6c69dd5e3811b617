//! How much memory is in use and how much is left.

use crate::{Error, Result};

/// Allocations below this are not worth a question to the system.
const SMALL: u64 = 64 << 20;

/// Refuses an allocation that the system cannot serve, before it is tried.
///
/// Errors: `OutOfMemory` naming `what`.
pub fn check(what: &str, bytes: u64) -> Result<()> {
    if bytes < SMALL {
        return Ok(());
    }
    match available() {
        Some(available) if available < bytes => {
            Err(Error::OutOfMemory { what: what.into(), needed: bytes, available })
        }
        _ => Ok(()),
    }
}

/// Bytes that this process may still allocate, by the system's and the container's account; `None` where
/// the system does not tell.
pub fn available() -> Option<u64> {
    let system = kilobytes("/proc/meminfo", "MemAvailable:")?;
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let container = number("/sys/fs/cgroup/memory.max")
        .and_then(|max| Some(max.saturating_sub(number("/sys/fs/cgroup/memory.current")?)));
    Some(container.map_or(system, |c| c.min(system)))
}

/// The most memory that this process ever had resident, in bytes, mapped files included.
pub fn peak_resident() -> Option<u64> {
    kilobytes("/proc/self/status", "VmHWM:")
}

/// Memory of this process that no file backs, in bytes.
pub fn anonymous() -> Option<u64> {
    kilobytes("/proc/self/status", "RssAnon:")
}

fn kilobytes(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let value: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(value * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn the_system_tells() {
        assert!(super::available().unwrap() > 1 << 20);
        assert!(super::peak_resident().unwrap() >= super::anonymous().unwrap());
        assert!(super::check("nothing", 1 << 50).is_err());
    }
}
