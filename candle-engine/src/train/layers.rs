//! Layers with parameters.

use super::graph::{Graph, Ids, Var};
use super::params::{ParamId, Params};
use super::Init;
use crate::Result;

/// y = x · Wᵀ + b
#[derive(Debug, Clone)]
pub struct Linear {
    pub(super) name: String,
    pub(super) weight: ParamId,
    pub(super) bias: Option<ParamId>,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl Linear {
    /// `{name}.weight [outputs, inputs]` and `{name}.bias [outputs]`, both uniform in ± 1 / √inputs as PyTorch's.
    ///
    /// Errors: `Input` if the name is taken or a number is 0.
    pub fn new(params: &mut Params, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        Self::with_init(
            params,
            name,
            inputs,
            outputs,
            Init::KaimingUniform { gain: (1.0f32 / 3.0).sqrt() },
            true,
        )
    }

    /// As [`Self::new`], with weights that begin otherwise, or without a bias.
    ///
    /// Errors: `Input` if the name is taken or a number is 0.
    pub fn with_init(
        params: &mut Params,
        name: &str,
        inputs: usize,
        outputs: usize,
        init: Init,
        bias: bool,
    ) -> Result<Self> {
        let weight = params.add_weights(format!("{name}.weight"), outputs, inputs, init)?;
        let init = Init::Uniform(1.0 / (inputs as f32).sqrt());
        let bias =
            bias.then(|| params.add_vector(format!("{name}.bias"), outputs, inputs, init)).transpose()?;
        Ok(Self { name: name.into(), weight, bias, inputs, outputs })
    }

    /// `[rows, inputs]` → `[rows, outputs]`
    ///
    /// Errors: `Input` naming the layer if `x` has another width.
    pub fn forward(&self, graph: &mut Graph, x: Var) -> Result<Var> {
        graph.linear(self, x)
    }
}

/// Rows of a table.
#[derive(Debug, Clone)]
pub struct Embedding {
    pub(super) name: String,
    pub(super) table: ParamId,
    pub(super) entries: usize,
    pub(super) width: usize,
}

impl Embedding {
    /// `{name}.weight [entries, width]`, standard normal as PyTorch's.
    ///
    /// Errors: `Input` if the name is taken or a number is 0.
    pub fn new(params: &mut Params, name: &str, entries: usize, width: usize) -> Result<Self> {
        let table = params.add_table(format!("{name}.weight"), entries, width, Init::Normal(1.0))?;
        Ok(Self { name: name.into(), table, entries, width })
    }

    /// `[rows]` → `[rows, width]`
    pub fn forward(&self, graph: &mut Graph, ids: Ids) -> Var {
        graph.embedding(self, ids)
    }
}

/// Normalizes each row: (x − mean) / √(var + eps) · w + b.
#[derive(Debug, Clone)]
pub struct LayerNorm(pub(super) Norm);

/// Normalizes each column: by the batch's mean and variance in training, by their running averages afterwards.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    pub(super) norm: Norm,
    /// Mean and variance.
    pub(super) running: [ParamId; 2],
    pub(super) momentum: f32,
}

/// What norms share.
#[derive(Debug, Clone)]
pub(super) struct Norm {
    pub name: String,
    pub weight: ParamId,
    pub bias: ParamId,
    pub width: usize,
    pub eps: f32,
}

impl Norm {
    fn new(params: &mut Params, name: &str, width: usize) -> Result<Self> {
        let weight = params.add_vector(format!("{name}.weight"), width, width, Init::Constant(1.0))?;
        let bias = params.add_vector(format!("{name}.bias"), width, width, Init::Constant(0.0))?;
        Ok(Self { name: name.into(), weight, bias, width, eps: 1e-5 })
    }
}

impl LayerNorm {
    /// `{name}.weight [width]` of ones and `{name}.bias [width]` of zeros; eps is 1e-5.
    ///
    /// Errors: `Input` if the name is taken or the width is 0.
    pub fn new(params: &mut Params, name: &str, width: usize) -> Result<Self> {
        Norm::new(params, name, width).map(Self)
    }

    /// `[rows, width]` → `[rows, width]`
    ///
    /// Errors: `Input` naming the layer if `x` has another width.
    pub fn forward(&self, graph: &mut Graph, x: Var) -> Result<Var> {
        graph.layer_norm(self, x)
    }
}

impl BatchNorm {
    /// `{name}.weight`, `{name}.bias`, `{name}.running_mean` and `{name}.running_var`, each `[width]`; eps is 1e-5,
    /// and a step moves the running averages by a tenth, as PyTorch's.
    ///
    /// Errors: `Input` if the name is taken or the width is 0.
    pub fn new(params: &mut Params, name: &str, width: usize) -> Result<Self> {
        let norm = Norm::new(params, name, width)?;
        let mean = params.add_vector(format!("{name}.running_mean"), width, width, Init::Constant(0.0))?;
        let var = params.add_vector(format!("{name}.running_var"), width, width, Init::Constant(1.0))?;
        let running = [mean, var];
        params.freeze(|param| param.starts_with(name) && param[name.len()..].starts_with(".running_"));
        Ok(Self { norm, running, momentum: 0.1 })
    }

    /// `[rows, width]` → `[rows, width]`
    ///
    /// Errors: `Input` naming the layer if `x` has another width.
    pub fn forward(&self, graph: &mut Graph, x: Var) -> Result<Var> {
        graph.batch_norm(self, x)
    }
}
