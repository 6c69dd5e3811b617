//! Row by row and column by column: norms, softmax, embedding.
//!
//! A small share of a network's work: plain loops, whose sums run in the order of rows or columns.

use super::matrix::Matrix;

/// Layer norm of each row: y = (x − mean) / √(var + eps) · w + b.
///
/// Shapes: `x [rows, n]`, `w`, `b [1, n]` → `y`, `normal [rows, n]`, the latter before weight and bias;
/// `scales [rows]` are 1 / √(var + eps), kept for [`layer_norm_gradient`].
pub fn layer_norm(
    x: &Matrix,
    w: &Matrix,
    b: &Matrix,
    eps: f32,
    y: &mut Matrix,
    normal: &mut Matrix,
    scales: &mut [f32],
) {
    let n = x.cols();
    for (row, scale) in scales.iter_mut().enumerate().take(x.rows()) {
        let mean = (0..n).map(|c| x.data()[x.at(row, c)]).sum::<f32>() / n as f32;
        let var = (0..n).map(|c| (x.data()[x.at(row, c)] - mean).powi(2)).sum::<f32>() / n as f32;
        *scale = 1.0 / (var + eps).sqrt();
        for c in 0..n {
            let at = x.at(row, c);
            let value = (x.data()[at] - mean) * *scale;
            normal.data_mut()[at] = value;
            y.data_mut()[at] = value * w.data()[c] + b.data()[c];
        }
    }
}

/// The gradient of [`layer_norm`]'s input; those of its weight and bias are [`norm_parameter_gradient`]'s.
pub fn layer_norm_gradient(
    dy: &Matrix,
    w: &Matrix,
    normal: &Matrix,
    scales: &[f32],
    add: bool,
    dx: &mut Matrix,
) {
    let n = dy.cols();
    for (row, scale) in scales.iter().enumerate().take(dy.rows()) {
        let (mut mean, mut along) = (0.0, 0.0);
        for c in 0..n {
            let at = dy.at(row, c);
            let d = dy.data()[at] * w.data()[c];
            mean += d;
            along += d * normal.data()[at];
        }
        (mean, along) = (mean / n as f32, along / n as f32);
        for c in 0..n {
            let at = dy.at(row, c);
            let d = (dy.data()[at] * w.data()[c] - mean - normal.data()[at] * along) * scale;
            put(dx, at, d, add);
        }
    }
}

/// Batch norm of each column, by the batch's own mean and variance.
///
/// Shapes as [`layer_norm`]'s, but `stats [3, n]` goes by columns: 1 / √(var + eps), the mean, and the variance that
/// running averages take in (the unbiased one).
pub fn batch_norm(
    x: &Matrix,
    w: &Matrix,
    b: &Matrix,
    eps: f32,
    y: &mut Matrix,
    normal: &mut Matrix,
    stats: &mut [f32],
) {
    let (rows, n) = (x.rows(), x.cols());
    let count = rows as f32;
    for c in 0..n {
        let mean = (0..rows).map(|row| x.data()[x.at(row, c)]).sum::<f32>() / count;
        let squares = (0..rows).map(|row| (x.data()[x.at(row, c)] - mean).powi(2)).sum::<f32>();
        let scale = 1.0 / (squares / count + eps).sqrt();
        (stats[c], stats[n + c], stats[2 * n + c]) = (scale, mean, squares / (count - 1.0).max(1.0));
        for row in 0..rows {
            let at = x.at(row, c);
            let value = (x.data()[at] - mean) * scale;
            normal.data_mut()[at] = value;
            y.data_mut()[at] = value * w.data()[c] + b.data()[c];
        }
    }
}

/// Batch norm by the running statistics.
pub fn batch_norm_inference(
    x: &Matrix,
    w: &Matrix,
    b: &Matrix,
    eps: f32,
    running: [&Matrix; 2],
    y: &mut Matrix,
) {
    for c in 0..x.cols() {
        let scale = w.data()[c] / (running[1].data()[c] + eps).sqrt();
        for row in 0..x.rows() {
            let at = x.at(row, c);
            y.data_mut()[at] = (x.data()[at] - running[0].data()[c]) * scale + b.data()[c];
        }
    }
}

/// The gradient of [`batch_norm`]'s input.
pub fn batch_norm_gradient(
    dy: &Matrix,
    w: &Matrix,
    normal: &Matrix,
    scales: &[f32],
    add: bool,
    dx: &mut Matrix,
) {
    let rows = dy.rows();
    for (c, scale) in scales.iter().enumerate().take(dy.cols()) {
        let (mut mean, mut along) = (0.0, 0.0);
        for row in 0..rows {
            let at = dy.at(row, c);
            mean += dy.data()[at];
            along += dy.data()[at] * normal.data()[at];
        }
        (mean, along) = (mean / rows as f32, along / rows as f32);
        for row in 0..rows {
            let at = dy.at(row, c);
            let d = (dy.data()[at] - mean - normal.data()[at] * along) * scale * w.data()[c];
            put(dx, at, d, add);
        }
    }
}

/// Adds the sum of each column to `sums [1, n]`: the gradient of a norm's bias or, times `normal`, of its weight.
pub fn norm_parameter_gradient(dy: &Matrix, normal: Option<&Matrix>, sums: &mut Matrix) {
    for c in 0..dy.cols() {
        let along = |at: usize| dy.data()[at] * normal.map_or(1.0, |normal| normal.data()[at]);
        sums.data_mut()[c] += (0..dy.rows()).map(|row| along(dy.at(row, c))).sum::<f32>();
    }
}

/// Softmax of each row.
pub fn softmax(x: &Matrix, y: &mut Matrix) {
    let n = x.cols();
    for row in 0..x.rows() {
        let largest = (0..n).map(|c| x.data()[x.at(row, c)]).fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for c in 0..n {
            let at = x.at(row, c);
            let e = (x.data()[at] - largest).exp();
            y.data_mut()[at] = e;
            sum += e;
        }
        for c in 0..n {
            let at = x.at(row, c);
            y.data_mut()[at] /= sum;
        }
    }
}

/// The gradient of a softmax's input, from its output `y` and that one's gradient.
pub fn softmax_gradient(dy: &Matrix, y: &Matrix, add: bool, dx: &mut Matrix) {
    for row in 0..y.rows() {
        let along: f32 = (0..y.cols()).map(|c| y.at(row, c)).map(|at| dy.data()[at] * y.data()[at]).sum();
        for c in 0..y.cols() {
            let at = y.at(row, c);
            put(dx, at, y.data()[at] * (dy.data()[at] - along), add);
        }
    }
}

/// Rows of a table `[entries, n]` by their numbers.
///
/// # Panics
///
/// If a number is beyond the table.
pub fn gather(table: &Matrix, ids: &[u32], y: &mut Matrix) {
    for (row, &id) in ids.iter().enumerate() {
        for c in 0..table.cols() {
            let at = y.at(row, c);
            y.data_mut()[at] = table.data()[table.at(id as usize, c)];
        }
    }
}

/// Adds the rows of dy to those of the table's gradient that they came from.
///
/// # Panics
///
/// If a number is beyond the table.
pub fn scatter(dy: &Matrix, ids: &[u32], gradient: &mut Matrix) {
    for (row, &id) in ids.iter().enumerate() {
        for c in 0..dy.cols() {
            let at = gradient.at(id as usize, c);
            gradient.data_mut()[at] += dy.data()[dy.at(row, c)];
        }
    }
}

#[inline(always)]
fn put(to: &mut Matrix, at: usize, x: f32, add: bool) {
    let to = &mut to.data_mut()[at];
    *to = if add { *to + x } else { x };
}
