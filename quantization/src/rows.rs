//! Rows of a stored matrix as f32, whatever it is stored in.

use candle_engine::kernels::blocks;
use candle_engine::kernels::embed::gather;
use candle_engine::kernels::matmul::{Dense, DenseFormat};
use candle_engine::kernels::threads::parallel_chunks;
use candle_engine::weights::{Format, Stored};
use candle_engine::{Error, Result};

/// A matrix, read row by row, with factors for its inputs and outputs.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    stored: &'a Stored,
    dense: Option<Dense<'a>>,
    shape: (usize, usize),
    /// What the inputs are multiplied by, `[in]`.
    inputs: Option<&'a [f32]>,
    /// What the outputs are multiplied by, `[out]`.
    outputs: Option<&'a [f32]>,
    /// Which stored row each row is, `[out]`.
    order: Option<&'a [usize]>,
}

impl<'a> Rows<'a> {
    /// A view of a matrix in a float or block format.
    ///
    /// Errors: `Tensor` for any other format, or if this is no matrix.
    pub fn new(stored: &'a Stored) -> Result<Self> {
        let err = |what: String| Error::Tensor { name: stored.name.clone(), what };
        let (rows, cols) = match stored.shape[..] {
            [rows, cols] if rows > 0 && cols > 0 => (rows, cols),
            _ => return Err(err(format!("expected a matrix, got shape {:?}", stored.shape))),
        };
        let dense = match stored.format {
            Format::F32 => Some(DenseFormat::F32),
            Format::F16 => Some(DenseFormat::F16),
            Format::BF16 => Some(DenseFormat::BF16),
            format if blocks::supports(format) => None,
            other => return Err(err(format!("{other} cannot be converted"))),
        };
        let dense = dense.map(|format| Dense::new(&stored.bytes, format, rows, cols));
        Ok(Self { stored, dense, shape: (rows, cols), inputs: None, outputs: None, order: None })
    }

    /// The same with factors; a vector of another length than the matrix is a mistake of the caller.
    pub fn scaled(mut self, inputs: Option<&'a [f32]>, outputs: Option<&'a [f32]>) -> Self {
        assert!(inputs.is_none_or(|s| s.len() == self.shape.1), "a factor for each input");
        assert!(outputs.is_none_or(|s| s.len() == self.shape.0), "a factor for each output");
        (self.inputs, self.outputs) = (inputs, outputs);
        self
    }

    /// The same in another order: row `i` is the stored row `order[i]`.
    pub fn ordered(mut self, order: &'a [usize]) -> Self {
        assert_eq!(order.len(), self.shape.0, "a place for each output");
        self.order = Some(order);
        self
    }

    /// The largest magnitude of each input's column, `[in]`.
    pub fn column_maxima(&self) -> Vec<f32> {
        const TASKS: usize = 16;
        let (out, inner) = self.shape;
        let mut parts = vec![vec![0f32; inner]; TASKS.min(out)];
        let tasks = parts.len();
        parallel_chunks(&mut parts, 1, |task, most| {
            let mut row = vec![0.0; inner];
            for i in (task..out).step_by(tasks) {
                self.read(i, &mut row);
                most[0].iter_mut().zip(&row).for_each(|(most, w)| *most = most.max(w.abs()));
            }
        });
        self.release(0, out);
        let mut parts = parts.into_iter();
        let first = parts.next().unwrap_or_default();
        parts.fold(first, |mut most, part| {
            most.iter_mut().zip(part).for_each(|(most, x)| *most = most.max(x));
            most
        })
    }

    /// The tensor's name.
    pub fn name(&self) -> &'a str {
        &self.stored.name
    }

    /// `(out, in)`
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// Reads row `i`, `[in]`.
    pub fn read(&self, i: usize, out: &mut [f32]) {
        let i = self.order.map_or(i, |order| order[i]);
        match &self.dense {
            Some(dense) => gather(dense, &[i as u32], out),
            None => {
                let size = self.stored.bytes.len() / self.shape.0;
                blocks::dequantize(self.stored.format, &self.stored.bytes[i * size..][..size], out);
            }
        }
        if let Some(inputs) = self.inputs {
            out.iter_mut().zip(inputs).for_each(|(w, s)| *w *= s);
        }
        if let Some(outputs) = self.outputs {
            out.iter_mut().for_each(|w| *w *= outputs[i]);
        }
    }

    /// Tells the system that these rows are not needed any more.
    pub fn release(&self, from: usize, rows: usize) {
        if let Ok(part) = self.stored.rows(from, rows) {
            part.bytes.release();
        }
    }
}
