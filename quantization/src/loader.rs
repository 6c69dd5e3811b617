//! From names in a checkpoint to what a model computes with.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_engine::kernels;
use candle_engine::ops::{self, Act, Exec, GroupedMatrix};
use candle_engine::weights::{Format, Linear, Stored, Weights};
use candle_engine::{Context, Error, Result};

use crate::compressed_tensors::{self, Activations};
use crate::dense::{Activated, Gated, MappedGated, MappedLinear, TensorLinear};
use crate::gguf_blocks::BlockLinear;
use crate::grouped::{self, GroupedGated, GroupedLinear};
use crate::observe::{Observed, Observer};

/// Loads a model's parts from a checkpoint, for one way of running its ops.
#[derive(Clone)]
pub struct Loader {
    weights: Arc<dyn Weights>,
    exec: Exec,
    activations: Activations,
    observer: Option<Observer>,
}

/// Rows of a matrix by index: mapped on the CPU, a tensor elsewhere.
#[derive(Debug)]
pub enum Embedding {
    /// Rows are widened as they are read.
    Mapped(Stored),
    /// The same, of integers with scales.
    Integers(GroupedMatrix),
    /// `[vocab, hidden]` in the activations' dtype.
    Tensor(Tensor),
}

impl Loader {
    /// A loader over a checkpoint.
    pub fn new(weights: Arc<dyn Weights>, exec: Exec) -> Self {
        Self { weights, exec, activations: Activations::default(), observer: None }
    }

    /// The same, with activations as precise as is said.
    pub fn activations(self, activations: Activations) -> Self {
        Self { activations, ..self }
    }

    /// The same, but what goes into the matrices is taken down.
    pub fn observed(self, observer: Option<Observer>) -> Self {
        Self { observer, ..self }
    }

    /// How ops run.
    pub fn exec(&self) -> &Exec {
        &self.exec
    }

    /// The vector `name`, `[n]`, in f32 on the device.
    ///
    /// Errors: `MissingTensor`, `ShapeMismatch`, `Tensor` for a format that no kernel reads.
    pub fn vector(&self, name: &str, n: usize) -> Result<Tensor> {
        let stored = self.weights.get(name)?.expect(&[n])?;
        upload(&stored, self.exec.device(), DType::F32)
    }

    /// The matrix `name.weight`, `[out, in]`, floats, blocks or integers with scales, and with `bias` the vector
    /// `name.bias`, `[out]`.
    ///
    /// Errors: as [`Self::vector`].
    pub fn linear(&self, name: &str, out: usize, inner: usize, bias: bool) -> Result<Box<dyn Linear>> {
        let linear = match self.grouped(name, out, inner, bias)? {
            Some(linear) => linear,
            None => self.plain(name, out, inner, bias)?,
        };
        Ok(match &self.observer {
            Some(observer) => Box::new(Observed::new(linear, &[name], observer)),
            None => linear,
        })
    }

    fn grouped(&self, name: &str, out: usize, inner: usize, bias: bool) -> Result<Option<Box<dyn Linear>>> {
        let Some(weight) = self.integers(name, out, inner)? else { return Ok(None) };
        let bias = if bias { Some(self.vector(&format!("{name}.bias"), out)?) } else { None };
        if self.exec.is_fused() {
            return Ok(Some(Box::new(GroupedLinear::new(weight, bias))));
        }
        let dtype = self.exec.dtype();
        let bias = bias.map(|b| b.to_dtype(dtype)).transpose()?;
        let uploaded = grouped::upload(&weight, name, self.exec.device(), dtype)?;
        Ok(Some(Box::new(TensorLinear::new(uploaded, bias, weight.format()))))
    }

    /// The matrix, if it is stored as integers with scales.
    fn integers(&self, name: &str, out: usize, inner: usize) -> Result<Option<GroupedMatrix>> {
        let Some(parts) = compressed_tensors::matrix(&*self.weights, name)? else { return Ok(None) };
        let (got_out, got_inner) = parts.shape();
        if (got_out, got_inner) != (out, inner) {
            let (name, expected) = (format!("{name}.weight"), vec![out, inner]);
            return Err(Error::ShapeMismatch { name, expected, got: vec![got_out, got_inner] });
        }
        let matrix = parts.join()?;
        let precise = self.activations.is_precise(name, matrix.bits().per_weight());
        Ok(Some(matrix.precise(precise)))
    }

    fn plain(&self, name: &str, out: usize, inner: usize, bias: bool) -> Result<Box<dyn Linear>> {
        let (weight, bias) = self.parts(name, out, inner, bias)?;
        self.multiplier(weight, bias)
    }

    /// Floats or blocks, in place or uploaded.
    fn multiplier(&self, weight: Stored, bias: Option<Tensor>) -> Result<Box<dyn Linear>> {
        if self.exec.is_fused() {
            return Ok(Box::new(MappedLinear::new(weight, bias)));
        }
        let dtype = self.exec.dtype();
        let bias = bias.map(|b| b.to_dtype(dtype)).transpose()?;
        if !weight.format.is_dense() && !self.exec.device().is_cpu() {
            return Ok(Box::new(BlockLinear::new(&weight, bias, self.exec.device())?));
        }
        let uploaded = upload(&weight, self.exec.device(), dtype)?;
        Ok(Box::new(TensorLinear::new(uploaded, bias, weight.format)))
    }

    /// act(x · Wᵀ + b) of the matrix `name.weight`, `[out, in]`, and with `bias` the vector `name.bias`.
    ///
    /// Errors: as [`Self::vector`].
    pub fn activated(
        &self,
        act: Act,
        name: &str,
        out: usize,
        inner: usize,
        bias: bool,
    ) -> Result<Box<dyn Linear>> {
        let linear = self.linear(name, out, inner, bias)?;
        Ok(Box::new(Activated::new(act, linear, self.exec.clone())))
    }

    /// act(x · Wᵀ + b) of the weights `name.weight`, `[out, channels, width]`, of a convolution, with `name.bias`; `x`
    /// holds each place's neighbours as [`ops::unfold`] lays them out, `[.., channels · width]`.
    ///
    /// Errors: as [`Self::vector`].
    pub fn convolution(
        &self,
        act: Act,
        name: &str,
        out: usize,
        channels: usize,
        width: usize,
    ) -> Result<Box<dyn Linear>> {
        let stored = self.weights.get(&format!("{name}.weight"))?.expect(&[out, channels, width])?;
        let weight = Stored { shape: vec![out, channels * width], ..stored };
        supported(&weight)?;
        let bias = Some(self.vector(&format!("{name}.bias"), out)?);
        Ok(Box::new(Activated::new(act, self.multiplier(weight, bias)?, self.exec.clone())))
    }

    /// act(gate(x)) · up(x) of two matrices `[out, in]`.
    ///
    /// Errors: as [`Self::vector`].
    pub fn gated(
        &self,
        act: Act,
        gate: &str,
        up: &str,
        out: usize,
        inner: usize,
        bias: bool,
    ) -> Result<Box<dyn Linear>> {
        if self.observer.is_none() && self.exec.is_fused() {
            if let Some(gated) = self.gated_in_one_pass(act, [gate, up], (out, inner), bias)? {
                return Ok(gated);
            }
        }
        let (gate, up) = (self.linear(gate, out, inner, bias)?, self.linear(up, out, inner, bias)?);
        Ok(Box::new(Gated::new(act, gate, up, self.exec.clone())))
    }

    /// The matrix `name.weight`, `[vocab, hidden]`, floats, blocks or integers with scales, as a table of rows.
    ///
    /// Errors: as [`Self::vector`].
    pub fn embedding(&self, name: &str, vocab: usize, hidden: usize) -> Result<Embedding> {
        let (device, dtype) = (self.exec.device(), self.exec.dtype());
        if let Some(matrix) = self.integers(name, vocab, hidden)? {
            if self.exec.is_fused() {
                return Ok(Embedding::Integers(matrix));
            }
            return Ok(Embedding::Tensor(grouped::upload(&matrix, name, device, dtype)?));
        }
        let stored = self.weights.get(&format!("{name}.weight"))?.expect(&[vocab, hidden])?;
        supported(&stored)?;
        if self.exec.is_fused() {
            return Ok(Embedding::Mapped(stored));
        }
        Ok(Embedding::Tensor(upload(&stored, device, dtype)?))
    }

    fn parts(&self, name: &str, out: usize, inner: usize, bias: bool) -> Result<(Stored, Option<Tensor>)> {
        let weight = self.weights.get(&format!("{name}.weight"))?.expect(&[out, inner])?;
        supported(&weight)?;
        let bias = if bias { Some(self.vector(&format!("{name}.bias"), out)?) } else { None };
        Ok((weight, bias))
    }

    /// Both matrices over one reading of the activations, if they are stored alike.
    fn gated_in_one_pass(
        &self,
        act: Act,
        names: [&str; 2],
        (out, inner): (usize, usize),
        bias: bool,
    ) -> Result<Option<Box<dyn Linear>>> {
        let [gate, up] = names.map(|name| self.weights.get(&format!("{name}.weight")).map(|w| w.format));
        let alike = match (gate, up) {
            (Ok(gate), Ok(up)) if gate.is_dense() => up.is_dense(),
            (Ok(gate), Ok(up)) => ops::reads(gate) && gate == up && !bias,
            _ => false,
        };
        if alike {
            let [gate, up] = names.map(|name| -> Result<MappedLinear> {
                let (weight, bias) = self.parts(name, out, inner, bias)?;
                Ok(MappedLinear::new(weight, bias))
            });
            return Ok(Some(Box::new(MappedGated::new(act, gate?, up?))));
        }
        if bias {
            return Ok(None);
        }
        let [gate, up] = names.map(|name| self.integers(name, out, inner));
        Ok(match (gate?, up?) {
            (Some(gate), Some(up)) if gate.is_like(&up) => Some(Box::new(GroupedGated::new(act, gate, up))),
            _ => None,
        })
    }
}

impl Embedding {
    /// `ids [t] → [t, hidden]`
    pub fn forward(&self, ids: &[u32]) -> Result<Tensor> {
        match self {
            Self::Mapped(stored) => ops::embed(stored, ids),
            Self::Integers(matrix) => ops::embed_grouped(matrix, ids),
            Self::Tensor(table) => {
                let ids = Tensor::from_slice(ids, ids.len(), table.device())?;
                Ok(table.index_select(&ids, 0)?)
            }
        }
    }
}

fn supported(stored: &Stored) -> Result<()> {
    if ops::reads(stored.format) {
        return Ok(());
    }
    let what = format!("{} is not supported for a weight", stored.format);
    Err(Error::Tensor { name: stored.name.clone(), what })
}

/// A copy of a stored tensor on a device; on another device than the CPU its pages are released.
fn upload(stored: &Stored, device: &Device, dtype: DType) -> Result<Tensor> {
    supported(stored)?;
    let place = || format!("tensor `{}`", stored.name);
    let plain =
        |dtype| Tensor::from_raw_buffer(&stored.bytes, dtype, &stored.shape, &Device::Cpu).at(place());
    let tensor = match stored.format {
        Format::F32 => plain(DType::F32)?,
        Format::F16 => plain(DType::F16)?,
        Format::BF16 => plain(DType::BF16)?,
        blocks => {
            let mut numbers = vec![0.0; stored.shape.iter().product()];
            kernels::blocks::dequantize(blocks, &stored.bytes, &mut numbers);
            Tensor::from_vec(numbers, &stored.shape[..], &Device::Cpu).at(place())?
        }
    };
    let tensor = if device.is_cpu() { tensor } else { tensor.to_device(device).at(place())? };
    if !device.is_cpu() {
        stored.bytes.release();
    }
    tensor.to_dtype(dtype).at(place())
}
