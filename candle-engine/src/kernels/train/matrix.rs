//! Matrices of the tape.

use std::fmt;

use crate::kernels::rows::TASK;
use crate::kernels::threads::parallel_chunks;

/// Columns of a panel: two registers of AVX-512, four of AVX2, eight of NEON.
const WIDE: usize = 32;

/// Columns of the only panel of a matrix that has no more.
const NARROW: usize = 16;

/// A matrix `[rows, cols]` in panels of columns: `[panels][rows, width]`.
///
/// The width is 32, or 16 where the matrix has no more columns. The last panel is filled up with zeros.
#[derive(Clone, Default)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    lines: Vec<Line>,
}

/// A cache line: a panel's row is one or two of them.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; NARROW]);

impl Matrix {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        let count = cols.div_ceil(width(cols)) * rows * width(cols) / NARROW;
        Self { rows, cols, lines: vec![Line([0.0; NARROW]); count] }
    }

    /// A matrix of numbers that lie row by row.
    ///
    /// # Panics
    ///
    /// If they are not `rows · cols`.
    pub fn from_rows(rows: usize, cols: usize, x: &[f32]) -> Self {
        let mut matrix = Self::zeros(rows, cols);
        matrix.set_rows(x);
        matrix
    }

    /// Replaces all numbers by some that lie row by row.
    ///
    /// # Panics
    ///
    /// If they are not `rows · cols`.
    pub fn set_rows(&mut self, x: &[f32]) {
        assert_eq!(x.len(), self.rows * self.cols, "matrix: {} rows of {}", self.rows, self.cols);
        let (width, rows, cols) = (self.width(), self.rows, self.cols);
        for (p, panel) in self.data_mut().chunks_exact_mut((rows * width).max(1)).enumerate() {
            let count = width.min(cols - p * width);
            for (row, to) in panel.chunks_exact_mut(width).enumerate() {
                to[..count].copy_from_slice(&x[row * cols + p * width..][..count]);
            }
        }
    }

    /// Takes the numbers of a matrix of the same shape.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn copy_from(&mut self, from: &Self) {
        assert_eq!((self.rows, self.cols), (from.rows, from.cols), "two matrices of one shape");
        self.lines.copy_from_slice(&from.lines);
    }

    /// All numbers, row by row.
    pub fn to_rows(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.rows * self.cols);
        for row in 0..self.rows {
            out.extend((0..self.cols).map(|col| self.data()[self.at(row, col)]));
        }
        out
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, without the padding.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Columns of a panel.
    pub fn width(&self) -> usize {
        width(self.cols)
    }

    /// Number of panels.
    pub fn panels(&self) -> usize {
        self.cols.div_ceil(self.width())
    }

    /// Where a number lies in [`Self::data`].
    #[inline(always)]
    pub fn at(&self, row: usize, col: usize) -> usize {
        let width = self.width();
        (col / width * self.rows + row) * width + col % width
    }

    /// The panels, one after the other.
    pub fn data(&self) -> &[f32] {
        // SAFETY: a line is sixteen floats and nothing else.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * NARROW) }
    }

    /// The panels, one after the other. Padding must stay zero.
    pub fn data_mut(&mut self) -> &mut [f32] {
        // SAFETY: a line is sixteen floats and nothing else.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * NARROW) }
    }

    /// Its numbers as an operand.
    pub fn view(&self) -> View<'_> {
        let width = self.width();
        View {
            data: self.data(),
            rows: self.rows,
            cols: self.cols,
            width,
            row: width,
            panel: width * self.rows,
        }
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Matrix [{}, {}]", self.rows, self.cols)
    }
}

/// Columns of a panel of a matrix with so many columns.
fn width(cols: usize) -> usize {
    if cols <= NARROW {
        NARROW
    } else {
        WIDE
    }
}

/// An operand that is read number by number: a matrix in panels, or one that lies row by row.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Columns that lie side by side.
    pub(super) width: usize,
    /// From a row to the next.
    pub(super) row: usize,
    /// From a panel to the next.
    pub(super) panel: usize,
}

impl<'a> View<'a> {
    /// A matrix that lies row by row.
    ///
    /// # Panics
    ///
    /// If `x` does not have `rows · cols` numbers.
    pub fn rows(rows: usize, cols: usize, x: &'a [f32]) -> Self {
        assert_eq!(x.len(), rows * cols, "matrix: {rows} rows of {cols}");
        // Panels of 32 columns that happen to lie side by side: tiles never cross one.
        Self { data: x, rows, cols, width: WIDE, row: cols, panel: WIDE }
    }

    /// Where a number lies.
    #[inline(always)]
    pub(super) fn at(&self, row: usize, col: usize) -> usize {
        col / self.width * self.panel + row * self.row + col % self.width
    }
}

/// to = fromᵀ
///
/// # Panics
///
/// If the shapes do not fit.
pub fn transpose(from: &Matrix, to: &mut Matrix) {
    assert_eq!((from.rows, from.cols), (to.cols, to.rows), "transpose: shapes");
    let (width, to_width, rows, cols) = (from.width(), to.width(), from.rows, from.cols);
    let (x, size) = (from.data(), (cols * to_width).max(1));
    let panel = |panel: usize, to: &mut [f32]| {
        let first = panel * to_width;
        let count = to_width.min(rows - first);
        for (col, to) in to.chunks_exact_mut(to_width).enumerate() {
            // A column of `from`, down a panel.
            let column = &x[(col / width * rows + first) * width + col % width..];
            for (to, x) in to[..count].iter_mut().zip(column.iter().step_by(width)) {
                *to = *x;
            }
        }
    };
    if rows * cols < TASK {
        to.data_mut().chunks_exact_mut(size).enumerate().for_each(|(i, to)| panel(i, to));
    } else {
        parallel_chunks(to.data_mut(), size, panel);
    }
}
