//! A network's parameters by name: what is trained, saved and loaded.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;

use super::Init;
use crate::kernels::train::Matrix;
use crate::text::sampler::SplitMix64;
use crate::{Error, Result};

/// A parameter of [`Params`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub(super) usize);

/// Named parameters, and state that is saved with them.
#[derive(Debug, Clone)]
pub struct Params {
    list: Vec<Param>,
    rng: SplitMix64,
}

/// One parameter.
#[derive(Debug, Clone)]
pub(super) struct Param {
    pub name: String,
    /// As in a checkpoint: `[out, in]`, `[entries, n]` or `[n]`.
    shape: Vec<usize>,
    pub layout: Layout,
    /// A layer's weights `[in, out]` (`[out, in]` where [`few_outputs`]), a table `[entries, n]`, or `[1, n]`.
    pub value: Matrix,
    pub trained: bool,
}

/// How a parameter lies in memory, against the checkpoint's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Most layers' weights, inputs first.
    Transposed,
    /// As in the checkpoint.
    Rows,
}

impl Params {
    /// No parameters yet; the seed decides what those to come begin with.
    pub fn new(seed: u64) -> Self {
        Self { list: Vec::new(), rng: SplitMix64::new(seed) }
    }

    /// Adds a layer's weights `[out, in]`.
    pub(super) fn add_weights(
        &mut self,
        name: String,
        out: usize,
        inputs: usize,
        init: Init,
    ) -> Result<ParamId> {
        let numbers = init.numbers(out * inputs, inputs, out, &mut self.rng);
        let layout = if few_outputs(inputs, out) { Layout::Rows } else { Layout::Transposed };
        self.add(name, vec![out, inputs], layout, numbers)
    }

    /// Adds a table `[entries, n]`.
    pub(super) fn add_table(
        &mut self,
        name: String,
        entries: usize,
        n: usize,
        init: Init,
    ) -> Result<ParamId> {
        let numbers = init.numbers(entries * n, n, entries, &mut self.rng);
        self.add(name, vec![entries, n], Layout::Rows, numbers)
    }

    /// Adds a vector `[n]` that belongs to a layer with so many inputs.
    pub(super) fn add_vector(
        &mut self,
        name: String,
        n: usize,
        inputs: usize,
        init: Init,
    ) -> Result<ParamId> {
        let numbers = init.numbers(n, inputs, n, &mut self.rng);
        self.add(name, vec![n], Layout::Rows, numbers)
    }

    fn add(&mut self, name: String, shape: Vec<usize>, layout: Layout, numbers: Vec<f32>) -> Result<ParamId> {
        if self.list.iter().any(|param| param.name == name) {
            return Err(Error::Input(format!(
                "a second parameter `{name}`: layers of one network have names of their own"
            )));
        }
        if shape.contains(&0) {
            return Err(Error::Input(format!("parameter `{name}`: a shape of {shape:?} holds nothing")));
        }
        let (rows, cols) = matrix_shape(&shape, layout);
        let value = Matrix::zeros(rows, cols);
        self.list.push(Param { name, shape, layout, value, trained: true });
        let id = ParamId(self.list.len() - 1);
        self.set_rows(id, &numbers);
        Ok(id)
    }

    /// Excludes parameters from training: those whose names fulfil a condition.
    pub fn freeze(&mut self, names: impl Fn(&str) -> bool) {
        for param in self.list.iter_mut().filter(|param| names(&param.name)) {
            param.trained = false;
        }
    }

    /// Their names, in the order in which layers were made.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|param| param.name.as_str())
    }

    /// The number of numbers in all of them.
    pub fn count(&self) -> usize {
        self.list.iter().map(|param| param.shape.iter().product::<usize>()).sum()
    }

    /// A parameter's numbers, row by row as in a checkpoint (`[out, in]` for a layer's weights).
    pub fn rows(&self, id: ParamId) -> Vec<f32> {
        let param = &self.list[id.0];
        let rows = param.value.to_rows();
        match param.layout {
            Layout::Rows => rows,
            Layout::Transposed => transposed(&rows, param.value.rows(), param.value.cols()),
        }
    }

    /// Replaces a parameter's numbers.
    fn set_rows(&mut self, id: ParamId, x: &[f32]) {
        let param = &mut self.list[id.0];
        match param.layout {
            Layout::Rows => param.value.set_rows(x),
            Layout::Transposed => {
                param.value.set_rows(&transposed(x, param.value.cols(), param.value.rows()))
            }
        }
    }

    /// Replaces a parameter's numbers, row by row as in a checkpoint.
    ///
    /// Errors: `MissingTensor`, and `ShapeMismatch` if they are not as many.
    pub fn set(&mut self, name: &str, rows: &[f32]) -> Result<()> {
        let found = self.list.iter().position(|param| param.name == name);
        let id = ParamId(found.ok_or_else(|| Error::MissingTensor { name: name.into() })?);
        let shape = &self.list[id.0].shape;
        if rows.len() != shape.iter().product::<usize>() {
            return Err(Error::ShapeMismatch {
                name: name.into(),
                expected: shape.clone(),
                got: vec![rows.len()],
            });
        }
        self.set_rows(id, rows);
        Ok(())
    }

    /// All parameters as f32 tensors on the CPU, by name.
    ///
    /// Errors: `Candle`.
    pub fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        let tensor = |(i, param): (usize, &Param)| {
            let tensor = Tensor::from_vec(self.rows(ParamId(i)), param.shape.clone(), &Device::Cpu)?;
            Ok((param.name.clone(), tensor))
        };
        self.list.iter().enumerate().map(tensor).collect()
    }

    /// All parameters as candle's variables, to go on with them in candle.
    ///
    /// Errors: `Candle`.
    pub fn var_map(&self) -> Result<VarMap> {
        let map = VarMap::new();
        let mut variables = map.data().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (name, tensor) in self.tensors()? {
            variables.insert(name, candle_core::Var::from_tensor(&tensor)?);
        }
        drop(variables);
        Ok(map)
    }

    /// Takes every parameter from tensors of the same names, in any float type.
    ///
    /// Errors: `MissingTensor`, `ShapeMismatch`, `Candle`; nothing is changed then.
    pub fn load(&mut self, get: impl Fn(&str) -> Option<Tensor>) -> Result<()> {
        let mut all = Vec::with_capacity(self.list.len());
        for param in &self.list {
            let tensor = get(&param.name).ok_or_else(|| Error::MissingTensor { name: param.name.clone() })?;
            if tensor.dims() != param.shape {
                return Err(Error::ShapeMismatch {
                    name: param.name.clone(),
                    expected: param.shape.clone(),
                    got: tensor.dims().to_vec(),
                });
            }
            all.push(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?);
        }
        for (i, rows) in all.iter().enumerate() {
            self.set_rows(ParamId(i), rows);
        }
        Ok(())
    }

    pub(super) fn get(&self, id: ParamId) -> &Param {
        &self.list[id.0]
    }

    pub(super) fn get_mut(&mut self, id: ParamId) -> &mut Param {
        &mut self.list[id.0]
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ParamId> {
        (0..self.list.len()).map(ParamId)
    }
}

/// Whether a layer's weights lie with outputs first: as columns of a panel, few outputs would be padding for the most
/// part.
pub(super) fn few_outputs(inputs: usize, outputs: usize) -> bool {
    outputs <= 4 && inputs >= 16
}

/// Rows and columns in memory.
fn matrix_shape(shape: &[usize], layout: Layout) -> (usize, usize) {
    match (shape, layout) {
        (&[out, inputs], Layout::Transposed) => (inputs, out),
        (&[rows, cols], _) => (rows, cols),
        (shape, _) => (1, shape.iter().product()),
    }
}

/// `[rows, cols]` to `[cols, rows]`.
fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|col| (0..rows).map(move |row| x[row * cols + col])).collect()
}
