//! Dynamic time warping: the cheapest way through a matrix of costs.

/// The path from the first row and column to the last, as `(row, column)`, each step one down, one right, or both.
///
/// Shapes: `costs [rows, columns]`.
/// Source: `dtw_cpu` of openai-whisper.
pub(super) fn dtw(costs: &[f64], columns: usize) -> Vec<(usize, usize)> {
    let rows = costs.len().checked_div(columns).unwrap_or(0);
    let width = columns + 1;
    // Sums are kept in single precision, as the reference does: where paths tie, rounding decides.
    let mut sums = vec![f32::INFINITY; (rows + 1) * width];
    let mut steps = vec![Step::Both; (rows + 1) * width];
    sums[0] = 0.0;
    for j in 1..=columns {
        for i in 1..=rows {
            let at = |i: usize, j: usize| sums[i * width + j];
            let (both, down, right) = (at(i - 1, j - 1), at(i - 1, j), at(i, j - 1));
            let (least, step) = match () {
                () if both < down && both < right => (both, Step::Both),
                () if down < both && down < right => (down, Step::Down),
                () => (right, Step::Right),
            };
            sums[i * width + j] = (costs[(i - 1) * columns + j - 1] + f64::from(least)) as f32;
            steps[i * width + j] = step;
        }
    }
    let (mut i, mut j) = (rows, columns);
    let mut path = Vec::with_capacity(rows + columns);
    while i > 0 && j > 0 {
        path.push((i - 1, j - 1));
        match steps[i * width + j] {
            Step::Both => (i, j) = (i - 1, j - 1),
            Step::Down => i -= 1,
            Step::Right => j -= 1,
        }
    }
    path.reverse();
    path
}

/// How a path came to a place.
#[derive(Debug, Clone, Copy)]
enum Step {
    Both,
    Down,
    Right,
}

/// The median of each number and its neighbours, `WIDTH` in all, mirrored at the ends; rows too short for that stay.
pub(super) fn median_filter(row: &mut [f32]) {
    const SIDE: usize = 3;
    const WIDTH: usize = 2 * SIDE + 1;
    if row.len() <= SIDE {
        return;
    }
    let last = row.len() - 1;
    let mirrored = |i: isize| {
        let i = i.unsigned_abs();
        if i > last {
            2 * last - i
        } else {
            i
        }
    };
    let filtered: Vec<f32> = (0..row.len())
        .map(|i| {
            let mut near: [f32; WIDTH] =
                std::array::from_fn(|k| row[mirrored(i as isize + k as isize - SIDE as isize)]);
            near.sort_by(f32::total_cmp);
            near[SIDE]
        })
        .collect();
    row.copy_from_slice(&filtered);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_follows_the_cheap_places() {
        #[rustfmt::skip]
        let costs = [
            0.0, 0.0, 9.0, 9.0, 9.0,
            9.0, 9.0, 0.0, 9.0, 9.0,
            9.0, 9.0, 9.0, 0.0, 0.0,
        ];
        assert_eq!(dtw(&costs, 5), [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4)]);
        assert_eq!(dtw(&[1.0], 1), [(0, 0)]);
        assert_eq!(dtw(&[], 0), []);
    }

    /// Against all paths, tried one by one.
    #[test]
    fn no_path_is_cheaper() {
        fn cheapest(costs: &[f64], columns: usize, i: usize, j: usize) -> f64 {
            let before = match (i, j) {
                (0, 0) => 0.0,
                (0, _) => cheapest(costs, columns, 0, j - 1),
                (_, 0) => cheapest(costs, columns, i - 1, 0),
                _ => [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
                    .map(|(i, j)| cheapest(costs, columns, i, j))
                    .into_iter()
                    .fold(f64::INFINITY, f64::min),
            };
            before + costs[i * columns + j]
        }
        let mut state = 1u64;
        for (rows, columns) in [(1, 4), (4, 1), (3, 5), (5, 5)] {
            let mut next = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f64 / (1u64 << 24) as f64
            };
            let costs: Vec<f64> = (0..rows * columns).map(|_| next()).collect();
            let path = dtw(&costs, columns);
            let sum: f64 = path.iter().map(|(i, j)| costs[i * columns + j]).sum();
            assert!((sum - cheapest(&costs, columns, rows - 1, columns - 1)).abs() < 1e-5);
            assert_eq!((path[0], path[path.len() - 1]), ((0, 0), (rows - 1, columns - 1)));
        }
    }

    #[test]
    fn medians_are_mirrored_at_the_ends() {
        let mut row = [5.0, 1.0, 9.0, 2.0, 8.0];
        median_filter(&mut row);
        // 2 9 1 5 1 9 2, 9 1 5 1 9 2 8, 1 5 1 9 2 8 2, 5 1 9 2 8 2 9, 1 9 2 8 2 9 1
        assert_eq!(row, [2.0, 5.0, 2.0, 5.0, 2.0]);
        let mut short = [3.0, 1.0, 2.0];
        median_filter(&mut short);
        assert_eq!(short, [3.0, 1.0, 2.0]);
    }
}
