//! Row-wise kernels on the thread pool: when a region pays, and how rows become tasks.

use super::threads::{parallel, Disjoint};

/// Elements that make one task. At some 4 elements a nanosecond this is about the 10 µs below which opening
/// a region costs more than it saves; smaller problems run on the calling thread.
pub(crate) const TASK: usize = 1 << 15;

/// Runs `f(first row, rows)` on tasks of whole rows of `width` elements, about [`TASK`] elements each.
pub(crate) fn parallel_rows(rows: usize, width: usize, f: impl Fn(usize, usize) + Sync) {
    let per_task = (TASK / width.max(1)).max(1);
    parallel(rows.div_ceil(per_task), |i| f(i * per_task, per_task.min(rows - i * per_task)));
}

/// As [`parallel_rows`], with each task's rows of `out`.
pub(crate) fn parallel_rows_mut<T: Send>(out: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let rows = out.len().checked_div(width).unwrap_or(0);
    assert_eq!(out.len(), rows * width, "whole rows of {width}");
    let out = Disjoint::new(out);
    parallel_rows(rows, width, |first, rows| {
        // SAFETY: the tasks' rows do not overlap.
        f(first, unsafe { out.range(first * width, rows * width) });
    });
}
