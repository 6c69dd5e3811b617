//! The one thread pool of the CPU kernels.
//!
//! A region splits its work into tasks that depend on the problem's shape alone; the calling thread and the
//! workers take them from one counter. So a result never depends on the number of threads.
//!
//! Opening a region is a store, joining it one compare-and-swap, and nothing is allocated. A worker that
//! wakes too late finds no seat left and nobody waits for it. Between regions a worker spins for a moment,
//! because the next op of a decoder layer follows within microseconds, and then sleeps.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::hint;
use std::ops::Range;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::prefetch::Next;

/// How long an idle worker, or a caller whose last tasks run elsewhere, spins before it sleeps.
///
/// The gaps between a layer's ops are a few microseconds; waking a sleeper costs some fifty.
const SPIN: Duration = Duration::from_micros(50);

/// Most threads that a region may use; the seat count must fit its bits of the state.
const MAX_THREADS: usize = 1024;

/// Runs `f(0)`, …, `f(tasks - 1)`, each once and in any order, on the calling thread and the pool.
///
/// Returns when all have ended. With one task, from within a task, or while another thread's region has
/// the pool, the tasks run on the calling thread alone, in order. `tasks` must follow from the problem's
/// shape, never from [`threads`]; work of less than some ten microseconds should be one task.
///
/// # Panics
///
/// If a task panics, with its payload, after every task that had begun has ended; the others are skipped.
pub fn parallel(tasks: usize, f: impl Fn(usize) + Sync) {
    let threads = threads().min(tasks);
    if threads <= 1 || IN_REGION.get() {
        return (0..tasks).for_each(f);
    }
    POOL.run(threads, tasks, Next::default(), &f);
}

/// Runs `f` on consecutive chunks of `size` elements (the last may be shorter), with the chunk's index.
///
/// A region like that of [`parallel`], one chunk a task.
pub fn parallel_chunks<T: Send>(data: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    assert!(size > 0, "a chunk has at least one element");
    let len = data.len();
    let data = Disjoint::new(data);
    parallel(len.div_ceil(size), |i| {
        // SAFETY: the tasks' ranges do not overlap, and each index is one task.
        let chunk = unsafe { data.range(i * size, size.min(len - i * size)) };
        f(i, chunk);
    });
}

/// Rows that are read from memory, each once: what [`parallel_ranges`] cuts.
#[derive(Clone, Copy)]
pub(crate) struct Stretch<'a> {
    /// All of them, of equal length.
    pub bytes: &'a [u8],
    /// How many there are.
    pub rows: usize,
    /// Rows that stay together: a range starts at a multiple.
    pub grain: usize,
    /// About how many are worth a task; it may be none.
    pub task: usize,
}

impl Stretch<'_> {
    /// Rows of the next range of each thread. Of what is left each takes an equal part, three quarters in all, then of
    /// the rest, and so on; little is shared out at once.
    fn share(&self, left: usize, threads: usize) -> usize {
        let all = left.div_ceil(threads);
        let part = if all <= 2 * self.task { all } else { 3 * left / (4 * threads) };
        part.max(self.task / 2).max(1).next_multiple_of(self.grain)
    }
}

/// Runs `f` on ranges that make up all rows: long ones first, then shorter ones, so that a thread reads memory in long
/// stretches and none waits long for another. Who has nothing left to do asks for what was read next the last time.
///
/// A region like that of [`parallel`]. The ranges depend on the number of threads: what `f` computes of a row must
/// not depend on its range.
pub(crate) fn parallel_ranges(stretch: Stretch, f: impl Fn(Range<usize>) + Sync) {
    let (rows, threads) = (stretch.rows, threads());
    let share = |left| stretch.share(left, threads);
    if threads == 1 || rows <= stretch.task.max(stretch.grain) || IN_REGION.get() {
        return f(0..rows);
    }
    let next = if threads > cores() {
        // Who waits leaves its core to the others.
        Next::default()
    } else {
        Next::after(stretch.bytes, share(rows) * (stretch.bytes.len() / rows))
    };
    let (mut left, mut rounds) = (rows, 0);
    while left > 0 {
        left = left.saturating_sub(threads * share(left));
        rounds += 1;
    }
    POOL.run(threads, rounds * threads, next, &|i| {
        let (mut start, mut size) = (0, share(rows));
        for _ in 0..i / threads {
            start += threads * size;
            size = share(rows - start);
        }
        start += i % threads * size;
        if start < rows {
            f(start..rows.min(start + size));
        }
    });
}

/// Sets the number of threads that a region may use, the caller's among them; at least 1, at most 1024.
pub fn set_threads(threads: usize) {
    THREADS.store(threads.clamp(1, MAX_THREADS), Ordering::Relaxed);
}

/// The number of threads that a region may use: what [`set_threads`] said, else what the process may use
/// (its affinity mask and its cgroup's quota).
pub fn threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => cores().min(MAX_THREADS),
        threads => threads,
    }
}

/// CPUs that the process may use, rounded down: the affinity mask and the cgroup quota, v1 or v2.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
}

/// What [`set_threads`] said, or 0.
static THREADS: AtomicUsize = AtomicUsize::new(0);

static POOL: Pool = Pool {
    busy: AtomicBool::new(false),
    state: State(AtomicU32::new(0)),
    next: Line(AtomicUsize::new(0)),
    job: Slot(UnsafeCell::new(None)),
    panic: Mutex::new(None),
    workers: AtomicUsize::new(0),
    sleepers: AtomicUsize::new(0),
    sleep: Mutex::new(()),
    opened: Condvar::new(),
    ended: Condvar::new(),
};

thread_local! {
    /// Whether this thread is running a region's task.
    static IN_REGION: Cell<bool> = const { Cell::new(false) };
}

struct Pool {
    /// Whether some thread's region has the pool. Its holder alone opens regions and starts workers.
    busy: AtomicBool,
    state: State,
    /// The next task to be taken.
    next: Line<AtomicUsize>,
    job: Slot,
    /// The first panic of the region.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Workers that were started; they never end.
    workers: AtomicUsize,
    /// Workers asleep or about to be; written under `sleep`.
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    /// A region has opened.
    opened: Condvar,
    /// The last worker has left a closed region whose caller sleeps.
    ended: Condvar,
}

/// A cache line of its own, away from what the workers spin on.
#[repr(align(128))]
struct Line<T>(T);

/// The region's function, number of tasks, and what is asked for when all are taken; the lifetime of the first is the
/// region's.
type Job = (*const (dyn Fn(usize) + Sync), usize, Next);

struct Slot(UnsafeCell<Option<Job>>);

// SAFETY: written by the holder of `busy` while no seat is open and nobody is seated, read by the seated;
// `State` orders the two. The function behind the pointer is `Sync`.
unsafe impl Sync for Slot {}

/// Seats left in the open region (high half), workers seated (low half), and whether the caller sleeps.
#[repr(align(128))]
struct State(AtomicU32);

const SEAT: u32 = 1 << 16;
const CALLER_SLEEPS: u32 = 1 << 15;
const SEATED: u32 = CALLER_SLEEPS - 1;

impl State {
    /// Opens a region with this many seats for workers.
    fn open(&self, seats: usize) {
        // Sequentially consistent, as is `sleepers`: either a worker on its way to sleep sees the seats, or
        // the caller sees the sleeper.
        self.0.store(seats as u32 * SEAT, Ordering::SeqCst);
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= SEAT
    }

    /// Takes a seat of the open region. What was written before it opened is then visible.
    fn join(&self) -> bool {
        let mut state = self.0.load(Ordering::Relaxed);
        while state >= SEAT {
            match self.0.compare_exchange_weak(state, state - SEAT + 1, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// Leaves the region; whether the caller must be woken.
    fn leave(&self) -> bool {
        let before = self.0.fetch_sub(1, Ordering::Release);
        before & CALLER_SLEEPS != 0 && before & SEATED == 1
    }

    /// Takes the seats that are left away.
    fn close(&self) {
        self.0.fetch_and(SEAT - 1, Ordering::Relaxed);
    }

    /// Whether everyone has left; what they wrote is then visible.
    fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) & SEATED == 0
    }
}

impl Pool {
    /// Opens a region for `threads` threads, the calling one among them, and runs it to its end.
    fn run(&'static self, threads: usize, tasks: usize, next: Next, f: &(dyn Fn(usize) + Sync)) {
        if self.busy.swap(true, Ordering::Acquire) {
            return (0..tasks).for_each(f);
        }
        self.start_workers(threads - 1);
        // SAFETY: lifetime only. The pointer is read by seated workers, and `run` does not return, nor
        // unwind, before the region is closed and all have left.
        let f: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(f) };
        // SAFETY: this thread holds `busy`, no seat is open and nobody is seated: the last region's end.
        unsafe { *self.job.0.get() = Some((f, tasks, next)) };
        self.next.0.store(0, Ordering::Relaxed);
        self.state.open(threads - 1);
        self.wake(threads - 1);

        self.work(f, tasks);
        self.state.close();
        next.ask(0, || self.state.is_empty());
        self.wait();

        let panic = lock(&self.panic).take();
        self.busy.store(false, Ordering::Release);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Takes tasks until none is left. A panic is kept for the caller and ends the region early.
    fn work(&self, f: &(dyn Fn(usize) + Sync), tasks: usize) {
        IN_REGION.set(true);
        let run = || loop {
            let task = self.next.0.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                break;
            }
            f(task);
        };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
            self.next.0.store(tasks, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(payload);
        }
        IN_REGION.set(false);
    }

    /// Waits until all workers have left the closed region.
    fn wait(&self) {
        if spin_until(|| self.state.is_empty()) {
            return;
        }
        let mut guard = lock(&self.sleep);
        self.state.0.fetch_or(CALLER_SLEEPS, Ordering::Relaxed);
        while !self.state.is_empty() {
            guard = self.ended.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.state.0.store(0, Ordering::Relaxed);
    }

    /// Wakes sleepers for the seats that the workers awake cannot fill.
    fn wake(&self, seats: usize) {
        let sleepers = self.sleepers.load(Ordering::SeqCst);
        let awake = self.workers.load(Ordering::Relaxed) - sleepers;
        if awake >= seats {
            return;
        }
        // A worker between its last look at the state and its sleep holds the lock.
        drop(lock(&self.sleep));
        if seats - awake >= sleepers {
            self.opened.notify_all();
        } else {
            (awake..seats).for_each(|_| self.opened.notify_one());
        }
    }

    /// Sees to it that there are so many workers. If the system refuses one, the others do its work.
    fn start_workers(&'static self, wanted: usize) {
        let mut workers = self.workers.load(Ordering::Relaxed);
        while workers < wanted {
            let worker = std::thread::Builder::new().name(format!("kernels-{workers}"));
            workers += 1;
            if worker.spawn(move || self.worker(workers)).is_err() {
                break;
            }
            self.workers.store(workers, Ordering::Relaxed);
        }
    }

    /// The life of worker `number`, of which the first is 1.
    fn worker(&self, number: usize) {
        loop {
            if !spin_until(|| self.state.is_open()) {
                let mut guard = lock(&self.sleep);
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                while !self.state.is_open() {
                    guard = self.opened.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
            if self.state.join() {
                // SAFETY: seated, so the slot was written before the region opened and stays as it is, and
                // the function is alive, until this thread leaves.
                let job = unsafe { *self.job.0.get() };
                if let Some((f, tasks, _)) = job {
                    // SAFETY: as above.
                    self.work(unsafe { &*f }, tasks);
                }
                if self.state.leave() {
                    drop(lock(&self.sleep));
                    self.ended.notify_all();
                }
                if let Some((_, _, next)) = job {
                    next.ask(number, || self.state.is_open());
                }
            }
        }
    }
}

/// Spins for a while, unless there are more threads than cores; whether the condition was met.
fn spin_until(condition: impl Fn() -> bool) -> bool {
    if condition() {
        return true;
    }
    if threads() > cores() {
        return false;
    }
    let start = Instant::now();
    loop {
        // Looking at the clock costs as much as some ten looks at the condition.
        for _ in 0..16 {
            if condition() {
                return true;
            }
            hint::spin_loop();
        }
        if start.elapsed() > SPIN {
            return false;
        }
    }
}

/// No lock of the pool is held while a task runs, so a poisoned one guards nothing broken.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mutable slice whose parts go to different tasks.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: it hands out `&mut [T]` only, on the promise that no two overlap.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: as a `&mut [T]`.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Takes the slice for as long as its parts are in use.
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: std::marker::PhantomData }
    }

    /// `len` elements from `start` on; panics if they leave the slice.
    ///
    /// # Safety
    ///
    /// While the result is in use no other range that overlaps it is.
    #[allow(clippy::mut_from_ref)] // that is what it is for
    pub(crate) unsafe fn range(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "{start}+{len} leaves 0..{}", self.len);
        // SAFETY: within the slice by the assertion; unshared by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each_task_runs_once(tasks: usize) {
        let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        parallel(tasks, |i| {
            counts[i].fetch_add(1, Ordering::Relaxed);
        });
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn every_task_runs_once_whatever_the_threads() {
        for threads in [1, 2, 3, 8, 40] {
            set_threads(threads);
            for tasks in [0, 1, 2, 3, 7, 100, 1000] {
                for _ in 0..20 {
                    each_task_runs_once(tasks);
                }
            }
        }
        set_threads(2);
    }

    #[test]
    fn ranges_make_up_the_whole_whatever_the_threads() {
        for threads in [1, 2, 3, 8, 40] {
            set_threads(threads);
            for items in [0, 1, 15, 16, 17, 100, 576, 128_256] {
                let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                let stretch = Stretch { bytes: &vec![0; 3 * items], rows: items, grain: 16, task: 48 };
                parallel_ranges(stretch, |range| {
                    assert!(
                        range.start % 16 == 0 && (range.end % 16 == 0 || range.end == items),
                        "{range:?}"
                    );
                    counts[range].iter().for_each(|count| _ = count.fetch_add(1, Ordering::Relaxed));
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} {items}");
            }
        }
        set_threads(2);
    }

    #[test]
    fn each_thread_has_about_as_much() {
        for (rows, task) in [(192, 113), (576, 113), (1536, 113), (576, 42), (128_256, 32)] {
            let stretch = Stretch { bytes: &[], rows, grain: 16, task };
            let (mut left, mut most) = (rows, 0);
            while left > 0 {
                let share = stretch.share(left, 2);
                most += share.min(left);
                left = left.saturating_sub(2 * share);
            }
            assert!(most <= rows / 2 + 16, "{most} of {rows}");
        }
    }

    #[test]
    fn regions_survive_sleep_and_callers_on_many_threads() {
        std::thread::scope(|scope| {
            for caller in 0..4 {
                scope.spawn(move || {
                    for round in 0..200 {
                        each_task_runs_once(5);
                        if round % 50 == caller {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn a_nested_region_runs_inline() {
        let total = AtomicUsize::new(0);
        parallel(4, |_| {
            let outer = std::thread::current().id();
            parallel(4, |_| {
                assert_eq!(std::thread::current().id(), outer);
                total.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(total.load(Ordering::Relaxed), 16);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        for round in 0..50 {
            let result = catch_unwind(|| {
                parallel(64, |i| {
                    if i == round {
                        // `resume_unwind` leaves the test's output free of fifty messages.
                        resume_unwind(Box::new(i));
                    }
                })
            });
            assert_eq!(*result.unwrap_err().downcast::<usize>().unwrap(), round);
            each_task_runs_once(64);
        }
    }

    #[test]
    fn a_long_task_of_a_worker_is_waited_for() {
        let done = AtomicUsize::new(0);
        parallel(2, |_| {
            std::thread::sleep(Duration::from_millis(5));
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn chunks_cover_the_slice() {
        let mut data = vec![0; 1003];
        parallel_chunks(&mut data, 10, |i, chunk| chunk.iter_mut().for_each(|v| *v += i + 1));
        assert!(data.iter().enumerate().all(|(i, &v)| v == i / 10 + 1));
        parallel_chunks(&mut [0u8; 0], 3, |_, _| panic!("nothing to do"));
    }
}
