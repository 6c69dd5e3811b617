//! Asking for memory before it is needed: a miss costs as much as a thousand multiplications.

/// Bytes that memory delivers together.
pub(super) const LINE: usize = 64;

/// Bytes from what is read of a [`Stream`] to what is asked for: what memory delivers to a thread in some ten times its
/// latency. Zen 4 wants 16 KiB at least, and Zen 5 does not mind.
pub(super) const AHEAD: usize = 32 << 10;

macro_rules! prefetch {
    ($(#[$doc:meta])* $name:ident, $x86:ident, $arm:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub(super) fn $name(at: *const u8) {
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

/// Bytes that are read once, about in their order, and asked for well before: into the second-level cache, since the
/// first holds too little of them. The default is one of nothing.
#[derive(Default)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // as the kernels of quantized formats
pub(super) struct Stream {
    /// What is asked for next.
    next: usize,
    end: usize,
    /// How far it may be asked for.
    due: usize,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
impl Stream {
    /// For some bytes, of which nothing has been read.
    pub fn new(bytes: &[u8]) -> Self {
        let mut stream = Self::later(bytes);
        stream.read(AHEAD);
        stream
    }

    /// For bytes that come after others: of them is asked for what is said to be read of those.
    pub fn later(bytes: &[u8]) -> Self {
        let start = bytes.as_ptr().addr();
        Self { next: start, end: start + bytes.len(), due: start }
    }

    /// So many more are read now.
    #[inline(always)]
    pub fn read(&mut self, bytes: usize) {
        self.due += bytes;
        let due = self.due.min(self.end);
        while self.next < due {
            prefetch_far(std::ptr::without_provenance(self.next));
            self.next += LINE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_asked_for_so_far_ahead_and_to_its_end() {
        let bytes = vec![0u8; 3 * AHEAD];
        let start = bytes.as_ptr().addr();
        let mut stream = Stream::new(&bytes);
        assert_eq!(stream.next, start + AHEAD);
        stream.read(100);
        assert_eq!(stream.next, start + AHEAD + 2 * LINE, "lines are whole");
        stream.read(28);
        assert_eq!(stream.next, start + AHEAD + 2 * LINE, "and asked for once");
        stream.read(9 * AHEAD);
        assert_eq!(stream.next, start + 3 * AHEAD);
        let mut later = Stream::later(&bytes[..LINE]);
        assert_eq!(later.next, start);
        later.read(1);
        assert_eq!(later.next, start + LINE);
        Stream::default().read(AHEAD);
    }
}
