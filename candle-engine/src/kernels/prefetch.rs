//! Asking for memory before it is needed: a miss costs as much as a thousand multiplications.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::cpu::is_zen5;

/// Bytes that memory delivers together.
pub(super) const LINE: usize = 64;

/// Bytes from what is read of a [`Stream`] to what is asked for: what memory delivers to a thread in some ten times its
/// latency. Zen 4 wants 16 KiB at least, and Zen 5 does not mind.
pub(super) const AHEAD: usize = 32 << 10;

/// Bytes of a [`Stream`] that are asked for at once.
const FIRST: usize = 4 << 10;

macro_rules! prefetch {
    ($(#[$doc:meta])* $name:ident, $x86:literal, $arm:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub(super) fn $name(at: *const u8) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a hint, of no effect where there is nothing to read. In assembler, so that the compiler leaves it
            // among the loads where it stands: in one heap, many wait for each other.
            unsafe {
                std::arch::asm!(concat!($x86, " [{at}]"), at = in(reg) at, options(nostack, preserves_flags));
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
    prefetch, "prefetcht0", "pldl1keep"
}

prefetch! {
    /// The same, but leaves the first-level cache to what is in use.
    prefetch_far, "prefetcht1", "pldl2keep"
}

/// Asks for a line, into the first-level cache or beyond.
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // as the kernels of quantized formats
fn ask(line: *const u8, near: bool) {
    if near {
        prefetch(line);
    } else {
        prefetch_far(line);
    }
}

/// Bytes that are read once and asked for in their order well before: into the second-level cache, since the first of most
/// CPUs holds too little of them. The default is one of nothing.
#[derive(Default)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // as the kernels of quantized formats
pub(super) struct Stream {
    /// What is asked for next.
    next: usize,
    end: usize,
    /// How far it may be asked for.
    due: usize,
    /// How much further ahead that will be.
    lag: usize,
    /// Whether it comes into the first-level cache.
    near: bool,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
impl Stream {
    /// For some bytes, of which nothing has been read; so many are rows that take turns, whose ends are reached long
    /// after their starts: no fewer are asked for ahead.
    pub fn new(bytes: &[u8], in_turn: usize) -> Self {
        let near = is_zen5();
        let mut stream = Self { near, ..Self::later(bytes) };
        stream.read(FIRST);
        stream.lag = if near { 2 * NEAR } else { AHEAD }.max(in_turn) - FIRST;
        stream
    }

    /// For bytes that come after others: of them is asked for what is said to be read of those.
    pub fn later(bytes: &[u8]) -> Self {
        let start = bytes.as_ptr().addr();
        Self { next: start, end: start + bytes.len(), due: start, lag: 0, near: false }
    }

    /// So many more are read now.
    #[inline(always)]
    pub fn read(&mut self, bytes: usize) {
        // At first twice as much, so that what has come is multiplied meanwhile.
        let more = self.lag.min(bytes);
        self.lag -= more;
        self.due += bytes + more;
        let due = self.due.min(self.end);
        while self.next < due {
            let line = std::ptr::without_provenance(self.next);
            ask(line, self.near);
            self.next += LINE;
        }
    }

    /// As [`Self::read`] of so many lines, with fewer instructions.
    #[inline(always)]
    pub fn read_lines<const N: usize>(&mut self) {
        if self.lag > 0 || self.due + N * LINE > self.end {
            return self.read(N * LINE);
        }
        self.due += N * LINE;
        for i in 0..N {
            let line = std::ptr::without_provenance(self.next + i * LINE);
            ask(line, self.near);
        }
        self.next += N * LINE;
    }
}

/// Bytes from what is read in memory's order to what is asked for, into the first-level cache.
const NEAR: usize = 8 << 10;

/// What is asked for while a thread reads rows, or pieces of rows, one after another.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // as the kernels of quantized formats
pub(super) struct Ahead {
    /// Bytes from what is read to what is asked for, which is the same of another row.
    bytes: usize,
    /// Whether it comes into the first-level cache.
    near: bool,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
impl Ahead {
    /// For pieces of so many bytes, of rows of so many.
    pub fn new(piece: usize, row: usize) -> Self {
        let near = is_zen5();
        let bytes = if near { NEAR } else { AHEAD };
        Self { bytes: bytes.div_ceil(piece) * row, near }
    }

    /// So many lines from `at` on are read now.
    #[inline(always)]
    pub fn read(self, at: *const u8, lines: usize) {
        for i in 0..lines {
            let line = at.wrapping_add(self.bytes + i * LINE);
            ask(line, self.near);
        }
    }
}

/// What was read after something the last time, by some threads at once.
///
/// A model's matrices are read in the same order for each token. While a thread waits for the others, or for what one
/// of them computes between two matrices, memory would be idle.
#[derive(Clone, Copy, Default)]
pub(super) struct Next {
    start: usize,
    /// Bytes that each thread reads first, the first thread at the start.
    share: usize,
}

/// Bytes that a thread asks for: they wait in its second-level cache.
const WAITING: usize = 256 << 10;

/// For what is read, by its address, and what was read after it. Another's entry costs some idle thread a vain request.
static NEXT: [[AtomicUsize; 3]; 1024] = [const { [const { AtomicUsize::new(0) }; 3] }; 1024];

impl Next {
    /// Notes that threads read these bytes now, of which each takes so many first; returns what came after them.
    pub fn after(bytes: &[u8], share: usize) -> Self {
        thread_local! {
            static LAST: Cell<usize> = const { Cell::new(0) };
        }
        let this = bytes.as_ptr().addr();
        let entry =
            |at: usize| &NEXT[(at.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as usize) >> 16) % NEXT.len()];
        let last = LAST.replace(this);
        for (to, value) in entry(last).iter().zip([last, this, share]) {
            to.store(value, Relaxed);
        }
        let [of, start, share] = entry(this).each_ref().map(|from| from.load(Relaxed));
        if of == this {
            Self { start, share }
        } else {
            Self::default()
        }
    }

    /// Asks for what a thread reads first, until it is told to stop.
    pub fn ask(self, thread: usize, stop: impl Fn() -> bool) {
        let start = self.start + thread * self.share;
        for at in (start..start + self.share.min(WAITING)).step_by(LINE) {
            if stop() {
                return;
            }
            prefetch_far(std::ptr::without_provenance(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_asked_for_so_far_ahead_and_to_its_end() {
        let bytes = vec![0u8; 5 * AHEAD];
        let start = bytes.as_ptr().addr();
        let mut stream = Stream::new(&bytes[..3 * AHEAD], LINE);
        let ahead = stream.lag + FIRST;
        assert_eq!(stream.next, start + FIRST);
        stream.read(100);
        assert_eq!(stream.next, start + FIRST + 4 * LINE, "lines are whole, twice as many as are read");
        stream.read(28);
        assert_eq!(stream.next, start + FIRST + 4 * LINE, "and asked for once");
        stream.read(ahead - FIRST - 128);
        assert_eq!(stream.next, start + 2 * ahead - FIRST, "then as many");
        stream.read(2 * LINE);
        assert_eq!(stream.next, start + 2 * ahead - FIRST + 2 * LINE);
        stream.read_lines::<3>();
        assert_eq!(stream.next, start + 2 * ahead - FIRST + 5 * LINE);
        stream.read(9 * AHEAD);
        stream.read_lines::<3>();
        assert_eq!(stream.next, start + 3 * AHEAD);
        let mut in_turn = Stream::new(&bytes, 2 * AHEAD);
        in_turn.read_lines::<{ (2 * AHEAD - FIRST) / LINE }>();
        assert_eq!(in_turn.next, start + 2 * (2 * AHEAD - FIRST) + FIRST, "of all rows that take turns");
        in_turn.read(2 * LINE);
        assert_eq!(in_turn.next, start + 2 * (2 * AHEAD - FIRST) + FIRST + 2 * LINE);
        let mut later = Stream::later(&bytes[..LINE]);
        assert_eq!(later.next, start);
        later.read(1);
        assert_eq!(later.next, start + LINE);
        Stream::default().read(AHEAD);
    }

    #[test]
    fn another_row_is_as_far_ahead_as_lines_are() {
        let whole = Ahead::new(1024, 1024);
        let pieces = Ahead::new(1024, 7000);
        assert!(whole.bytes >= NEAR && whole.bytes.is_multiple_of(1024));
        assert_eq!(pieces.bytes, whole.bytes / 1024 * 7000, "as many rows");
        assert_eq!(Ahead::new(3 * AHEAD, 3 * AHEAD).bytes, 3 * AHEAD, "the next one");
        whole.read(std::ptr::null(), 3);
    }

    #[test]
    fn what_comes_next_is_what_came_next() {
        let [a, b, c] = [0, 1, 2].map(|i| vec![i; 100]);
        let after = |bytes: &Vec<u8>, share| Next::after(bytes, share);
        assert_eq!((after(&a, 10).share, after(&b, 20).share), (0, 0), "never read before");
        let next = after(&a, 10);
        assert_eq!((next.start, next.share), (b.as_ptr().addr(), 20));
        after(&c, 30);
        assert_eq!(after(&a, 10).start, c.as_ptr().addr(), "the last time");
        let asked = Cell::new(0);
        next.ask(1, || asked.replace(asked.get() + 1) == 7);
        assert_eq!(asked.get(), 1, "one line");
        Next { share: 100 * LINE, ..next }.ask(0, || asked.replace(asked.get() + 1) == 7);
        assert_eq!(asked.get(), 8, "until told to stop");
        Next::default().ask(3, || unreachable!("nothing to ask for"));
    }
}
