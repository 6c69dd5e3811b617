//! Matrices of the tape.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;

use crate::kernels::lanes::Arith;

/// Columns of a panel: two registers of AVX-512, four of AVX2, eight of NEON.
pub(super) const WIDE: usize = 32;

/// Columns of the only panel of a matrix that has no more.
pub(super) const NARROW: usize = 16;

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
pub(super) struct Line([f32; NARROW]);

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
        // A power of two: no division.
        ((col >> width.trailing_zeros()) * self.rows + row) * width + (col & (width - 1))
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
    /// Columns that lie side by side, a power of two.
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
        (col >> self.width.trailing_zeros()) * self.panel + row * self.row + (col & (self.width - 1))
    }
}

/// Columns of a matrix as rows of a panel: `to[col − cols.start, i] = from[first + i, col]`, for as many rows of `from`
/// as the panel is wide. `to` is zero before, and has room for a multiple of eight rows.
#[inline(always)]
pub(super) fn columns_of<A: Arith>(
    arith: A,
    from: &Matrix,
    first: usize,
    cols: Range<usize>,
    width: usize,
    to: &mut [f32],
) {
    let count = width.min(from.rows - first);
    for col in cols.clone().step_by(8) {
        let to = &mut to[(col - cols.start) * width..][..8 * width];
        for i in (0..count).step_by(8) {
            if i + 8 <= count {
                // Eight columns of a panel, of which the last may be padding.
                let from_width = from.width();
                arith.transpose_8x8(&from.data()[from.at(first + i, col)..], from_width, &mut to[i..], width);
            } else {
                for (i, col) in (i..count).flat_map(|i| (col..cols.end.min(col + 8)).map(move |col| (i, col)))
                {
                    to[(col - cols.start) % 8 * width + i] = from.data()[from.at(first + i, col)];
                }
            }
        }
    }
}

/// Lines, of which none may have been written, as numbers that are zero.
#[inline(always)]
pub(super) fn zeros(lines: &mut [MaybeUninit<Line>]) -> &mut [f32] {
    lines.fill(MaybeUninit::new(Line([0.0; NARROW])));
    // SAFETY: all of them are written, and a line is sixteen floats and nothing else.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * NARROW) }
}
