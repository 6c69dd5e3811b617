//! One tensor on its way into a file.

use std::sync::Arc;

use candle_engine::weights::{Format, Stored};
use candle_engine::Result;
use candle_engine_quantization::write::Planned;
use candle_engine_quantization::{convert, encode, planned, Deviation, Encoding, Rows, Target};

use super::recipe::Step;
use super::smooth::Calibration;

/// Bytes that are copied at once; some dozens of pieces wait for the disk.
const PIECE: usize = 1 << 18;

/// A tensor of the source, and what is written of it.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub source: Stored,
    /// In the file; without `.weight` for a matrix that is converted.
    pub name: String,
    pub kind: Kind,
    pub layer: Option<usize>,
    /// Factors of the inputs and of the outputs.
    pub inputs: Option<Arc<[f32]>>,
    pub outputs: Option<Arc<[f32]>>,
    /// Which stored row each row is.
    pub order: Option<Vec<usize>>,
}

/// How a tensor is written.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// As it is.
    Copy,
    /// A matrix in another format.
    Matrix(Encoding),
    /// A vector of floats.
    Vector(Target),
}

impl Job {
    /// A step of a plan under its own name.
    pub fn new(step: &Step, calibration: Option<&Calibration>) -> Self {
        let end = [".weight", ".bias"].into_iter().find(|end| step.name.ends_with(end)).unwrap_or("");
        let base = step.name.strip_suffix(end).unwrap_or(&step.name);
        let inputs = calibration.and_then(|c| c.inputs(base)).filter(|_| end != ".bias");
        let outputs = calibration.and_then(|c| c.outputs(base));
        let scaled = inputs.is_some() || outputs.is_some();
        let format = step.source.format;
        let importance = calibration.and_then(|c| c.importance(base));
        let (name, kind) = match step.target {
            Some(target) => (step.name.clone(), Kind::Matrix(Encoding::new(target, format, importance))),
            None if scaled && step.source.shape.len() == 2 => {
                (base.to_owned(), Kind::Matrix(Encoding::new(same(format), format, None)))
            }
            None if scaled => (step.name.clone(), Kind::Vector(same(format))),
            None => (step.name.clone(), Kind::Copy),
        };
        Self { source: step.source.clone(), name, kind, layer: step.layer, inputs, outputs, order: None }
    }

    /// The tensors in the file.
    pub fn planned(&self) -> Result<Vec<Planned>> {
        let one =
            |format| vec![Planned { name: self.name.clone(), format, shape: self.source.shape.clone() }];
        Ok(match &self.kind {
            Kind::Copy => one(self.source.format),
            Kind::Vector(target) => one(target.format()),
            Kind::Matrix(encoding) => planned(&self.name, encoding, Rows::new(&self.source)?.shape()),
        })
    }

    /// What the numbers are afterwards.
    pub fn format(&self) -> Format {
        match &self.kind {
            Kind::Copy => self.source.format,
            Kind::Vector(target) => target.format(),
            Kind::Matrix(encoding) => encoding.target.format(),
        }
    }

    /// Converts it; `append` takes bytes for the tensor of a name.
    pub fn run(&self, append: &mut dyn FnMut(&str, Vec<u8>) -> Result<()>) -> Result<Deviation> {
        match &self.kind {
            Kind::Copy => {
                let bytes = &self.source.bytes;
                for from in (0..bytes.len()).step_by(PIECE) {
                    let piece = bytes.slice(from..(from + PIECE).min(bytes.len()));
                    append(&self.name, piece.to_vec())?;
                    piece.release();
                }
                Ok(Deviation::default())
            }
            Kind::Vector(target) => {
                // A vector is a column: its factors and its order are those of outputs.
                let column =
                    Stored { shape: vec![self.source.shape.iter().product(), 1], ..self.source.clone() };
                let rows = self.rows(&column)?;
                let encoding = Encoding::new(*target, self.source.format, None);
                encode(&rows, &encoding, &mut |part| append(&self.name, part.quants))
            }
            Kind::Matrix(encoding) => convert(&self.rows(&self.source)?, &self.name, encoding, append),
        }
    }

    fn rows<'a>(&'a self, stored: &'a Stored) -> Result<Rows<'a>> {
        let inputs = self.inputs.as_deref().filter(|_| matches!(self.kind, Kind::Matrix(_)));
        let rows = Rows::new(stored)?.scaled(inputs, self.outputs.as_deref());
        Ok(match &self.order {
            Some(order) => rows.ordered(order),
            None => rows,
        })
    }
}

/// The float format of a tensor that is written again.
pub(super) fn same(format: Format) -> Target {
    match format {
        Format::F16 => Target::F16,
        Format::BF16 => Target::BF16,
        _ => Target::F32,
    }
}
