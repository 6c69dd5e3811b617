//! An allocator that keeps large blocks for the next tensor of their size.
//!
//! A layer's activations are allocated and freed by the dozen. To the system's allocator blocks of megabytes are
//! mappings, and every page of a new one is a fault: two fifths of a small model's prefill.
//!
//! Smaller blocks are left to the system's allocator, but not to musl's: it gives pages back with every few blocks, and
//! two threads at work spend more time in faults than in kernels.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::hint;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[cfg(target_env = "musl")]
use dlmalloc::GlobalDlmalloc as System;
#[cfg(not(target_env = "musl"))]
use std::alloc::System;

/// Smaller blocks are the system's: where allocators begin to map.
const LARGE: usize = 128 << 10;

/// Blocks that are kept at most.
const SLOTS: usize = 64;

/// Bytes that are kept at most: the activations of a chunk of a prompt in a model of a billion parameters.
const MOST: usize = 64 << 20;

/// Alignment of large blocks: a cache line.
const ALIGN: usize = 64;

/// How often [`release`] was called.
static RELEASES: AtomicUsize = AtomicUsize::new(0);

/// Says that what runs next needs other blocks: before its next large block, a [`Recycler`] gives back to the system
/// all that it keeps.
pub fn release() {
    RELEASES.fetch_add(1, Ordering::Relaxed);
}

/// The system's allocator, or dlmalloc where that is musl's, but freed blocks of 128 KiB and more, 64 MiB in all, are kept to be used again.
///
/// ```
/// use candle_engine::kernels::Recycler;
///
/// #[global_allocator]
/// static ALLOCATOR: Recycler = Recycler::new();
/// # fn main() {}
/// ```
pub struct Recycler {
    busy: AtomicBool,
    kept: UnsafeCell<Kept>,
}

/// Blocks that are free, oldest first.
struct Kept {
    blocks: [(*mut u8, usize); SLOTS],
    count: usize,
    bytes: usize,
    /// Of [`RELEASES`], those that were followed.
    releases: usize,
}

// SAFETY: `kept` is touched only by the holder of `busy`; what it points to is nobody's.
unsafe impl Sync for Recycler {}
// SAFETY: as above.
unsafe impl Send for Recycler {}

impl Recycler {
    /// Nothing kept.
    pub const fn new() -> Self {
        let kept = Kept { blocks: [(ptr::null_mut(), 0); SLOTS], count: 0, bytes: 0, releases: 0 };
        Self { busy: AtomicBool::new(false), kept: UnsafeCell::new(kept) }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Kept) -> T) -> T {
        while self.busy.swap(true, Ordering::Acquire) {
            hint::spin_loop();
        }
        // SAFETY: `busy` is ours; `f` neither allocates nor panics.
        let result = f(unsafe { &mut *self.kept.get() });
        self.busy.store(false, Ordering::Release);
        result
    }

    /// A block of this layout, if one is kept.
    fn kept(&self, block: Layout) -> Option<*mut u8> {
        self.follow(RELEASES.load(Ordering::Relaxed));
        self.with(|kept| kept.take(block.size()))
    }

    /// Gives all that is kept back, unless that was done at this count of releases.
    fn follow(&self, releases: usize) {
        if self.with(|kept| std::mem::replace(&mut kept.releases, releases) != releases) {
            while let Some((start, size)) = self.with(Kept::oldest) {
                // SAFETY: the block is in no slot any more, and came from the system with this size.
                unsafe { free(start, size) };
            }
            #[cfg(all(target_os = "linux", target_env = "gnu"))]
            // SAFETY: gives pages of free blocks back, which glibc keeps within its heap.
            unsafe {
                libc::malloc_trim(0);
            }
        }
    }
}

/// Gives a large block back to the system.
///
/// # Safety
///
/// It came from there with this size, and nobody uses it.
unsafe fn free(start: *mut u8, size: usize) {
    // SAFETY: a size that a layout has had, and the caller's promise.
    unsafe { System.dealloc(start, Layout::from_size_align_unchecked(size, ALIGN)) };
}

impl Default for Recycler {
    fn default() -> Self {
        Self::new()
    }
}

impl Kept {
    /// Takes out the youngest block of this size: the likeliest to lie in a cache of the CPU.
    fn take(&mut self, size: usize) -> Option<*mut u8> {
        let at = self.blocks[..self.count].iter().rposition(|block| block.1 == size)?;
        let block = self.blocks[at];
        self.remove(at);
        Some(block.0)
    }

    /// Whether one more block of this size may be kept.
    fn fits(&self, size: usize) -> bool {
        self.count < SLOTS && self.bytes + size <= MOST
    }

    fn push(&mut self, block: *mut u8, size: usize) {
        self.blocks[self.count] = (block, size);
        self.count += 1;
        self.bytes += size;
    }

    fn remove(&mut self, at: usize) {
        self.bytes -= self.blocks[at].1;
        self.blocks.copy_within(at + 1..self.count, at);
        self.count -= 1;
    }

    /// Takes out the oldest block.
    fn oldest(&mut self) -> Option<(*mut u8, usize)> {
        let block = *self.blocks[..self.count].first()?;
        self.remove(0);
        Some(block)
    }
}

/// The layout that a large block has at the system, from that which was asked for; `None` for all others.
fn large(layout: Layout) -> Option<Layout> {
    if layout.size() < LARGE || layout.align() > ALIGN {
        return None;
    }
    // Sizes that differ little share blocks; what is added is never touched.
    let step = layout.size().checked_next_power_of_two()? / 16;
    Layout::from_size_align(layout.size().checked_next_multiple_of(step)?, ALIGN).ok()
}

// SAFETY: blocks come from `System` under the layout of `large`, a function of the layout asked for, and go back under
// it; a block that is kept is nobody's until it is taken out, and then it is one caller's.
unsafe impl GlobalAlloc for Recycler {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(block) = large(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        };
        // SAFETY: `LARGE` bytes or more.
        self.kept(block).unwrap_or_else(|| unsafe { System.alloc(block) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(block) = large(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc_zeroed(layout) };
        };
        match self.kept(block) {
            Some(start) => {
                // SAFETY: the block has at least `layout.size()` bytes and is ours.
                unsafe { start.write_bytes(0, layout.size()) };
                start
            }
            // SAFETY: `LARGE` bytes or more.
            None => unsafe { System.alloc_zeroed(block) },
        }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        let Some(block) = large(layout) else {
            // SAFETY: the caller's promise; `alloc` sent such a layout to the system as it is.
            return unsafe { System.dealloc(start, layout) };
        };
        loop {
            let out = self.with(|kept| {
                if kept.fits(block.size()) {
                    kept.push(start, block.size());
                    return None;
                }
                Some(if block.size() <= MOST { kept.oldest() } else { None })
            });
            let (start, size, again) = match out {
                None => return,
                Some(Some((oldest, size))) => (oldest, size, true),
                Some(None) => (start, block.size(), false),
            };
            // SAFETY: the block came from the system with this size, and is in no slot any more.
            unsafe { free(start, size) };
            if !again {
                return;
            }
        }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size, rounded up to the alignment, is one that a layout may have.
        let wanted = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (large(layout), large(wanted)) {
            (Some(old), Some(new)) if old == new => start,
            // SAFETY: the block has the layout `old` at the system, or that asked for. What grows in place, or is
            // remapped, is worth more than a block that is kept.
            (Some(old), Some(new)) => unsafe { System.realloc(start, old, new.size()) },
            // SAFETY: the caller's promise.
            (None, None) => unsafe { System.realloc(start, layout, new_size) },
            _ => {
                // SAFETY: the caller's promises, and that both blocks have as many bytes as are copied.
                unsafe {
                    let moved = self.alloc(wanted);
                    if !moved.is_null() {
                        moved.copy_from_nonoverlapping(start, layout.size().min(new_size));
                        self.dealloc(start, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn a_freed_block_is_used_again_and_zeroed_if_that_is_asked() {
        let a = Recycler::new();
        // SAFETY: every block is used within its size and freed once, under its layout.
        unsafe {
            let one = a.alloc(layout(1 << 20));
            one.write_bytes(7, 1 << 20);
            a.dealloc(one, layout(1 << 20));
            let two = a.alloc_zeroed(layout((1 << 20) - 8));
            assert_eq!(two, one, "sizes that differ little share a block");
            assert!((0..(1 << 20) - 8).all(|i| *two.add(i) == 0));
            let three = a.alloc(layout(1 << 20));
            assert_ne!(three, two, "a block in use is nobody else's");
            a.dealloc(two, layout((1 << 20) - 8));
            a.dealloc(three, layout(1 << 20));
            assert_eq!(a.with(|kept| (kept.count, kept.bytes)), (2, 2 << 20));
        }
    }

    #[test]
    fn no_more_is_kept_than_may_be_and_the_youngest_stay() {
        let a = Recycler::new();
        // SAFETY: as above.
        unsafe {
            for size in [MOST / 2, MOST / 4, MOST / 2, MOST + 1, LARGE - 1] {
                let block = a.alloc(layout(size));
                block.write_bytes(1, 16);
                let blocks: Vec<_> = (0..2).map(|_| a.alloc(layout(size))).collect();
                blocks.into_iter().for_each(|block| a.dealloc(block, layout(size)));
                a.dealloc(block, layout(size));
                let (bytes, most) = a.with(|kept| (kept.bytes, kept.bytes <= MOST && kept.count <= SLOTS));
                assert!(most, "{bytes} bytes are kept");
            }
            a.with(|kept| assert_eq!((kept.count, kept.bytes), (2, MOST)));
        }
    }

    #[test]
    fn what_is_kept_goes_when_it_is_released() {
        let a = Recycler::new();
        // SAFETY: as above.
        unsafe {
            let kept = || a.with(|kept| (kept.count, kept.bytes));
            let block = a.alloc(layout(1 << 20));
            a.dealloc(block, layout(1 << 20));
            assert_eq!(kept(), (1, 1 << 20));
            a.follow(1);
            assert_eq!(kept(), (0, 0));
        }
    }

    #[test]
    fn a_block_that_grows_or_shrinks_keeps_its_bytes() {
        let a = Recycler::new();
        // SAFETY: as above.
        unsafe {
            let (mut size, mut block) = (1000, a.alloc(layout(1000)));
            (0..size).for_each(|i| *block.add(i) = i as u8);
            for new in [LARGE - 1, LARGE, LARGE + 1, 3 << 20, 200 << 20, 1 << 20, 500, 1000] {
                block = a.realloc(block, layout(size), new);
                let same = (0..size.min(new).min(500)).all(|i| *block.add(i) == i as u8);
                assert!(same, "{size} to {new}");
                size = new;
            }
            a.dealloc(block, layout(size));
        }
    }

    #[test]
    fn a_size_that_no_block_can_have_is_refused() {
        let most = Layout::from_size_align(isize::MAX as usize - 7, 8).unwrap();
        // SAFETY: nothing is allocated. The compiler may otherwise leave the allocation out, and call it a success.
        let block = std::hint::black_box(unsafe { Recycler::new().alloc(most) });
        assert!(block.is_null());
    }
}
