//! The layers, recorded for a batch of any size.

use candle_engine::train::{
    Activation, BatchNorm, Embedding, Graph, Ids, Init, LayerNorm, Linear, Params, Var,
};
use candle_engine::{memory, Error, Result};
use serde::{Deserialize, Serialize};

use super::schema::Schema;

/// What lies between inputs and outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// Widths of the hidden layers.
    pub hidden_sizes: Vec<usize>,
    /// The function behind each of them.
    pub hidden_act: Act,
    /// What normalizes them, before the function.
    pub norm: Option<Norm>,
    /// Share of their outputs that training sets to zero.
    pub dropout: f32,
}

impl Default for Architecture {
    fn default() -> Self {
        Self { hidden_sizes: vec![64], hidden_act: Act::Relu, norm: None, dropout: 0.0 }
    }
}

/// An activation by its name in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Act {
    Relu,
    Gelu,
    Silu,
    Tanh,
    Sigmoid,
}

/// A norm by its name in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Norm {
    LayerNorm,
    BatchNorm,
}

impl From<Act> for Activation {
    fn from(act: Act) -> Self {
        match act {
            Act::Relu => Self::Relu,
            Act::Gelu => Self::Gelu,
            Act::Silu => Self::Silu,
            Act::Tanh => Self::Tanh,
            Act::Sigmoid => Self::Sigmoid,
        }
    }
}

impl Architecture {
    /// Takes a list of widths in which the first and the last may be left out, together.
    ///
    /// Errors: `Input` saying what the data needs.
    pub fn set_layers(&mut self, layers: &[usize], schema: &Schema) -> Result<()> {
        let (inputs, outputs) = (schema.width(), schema.outputs());
        let list = layers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let wrong = |what: &str| {
            let hidden = "the hidden layers alone, or all from the first to the last";
            Error::Input(format!("layers {list}: {what}; the data needs {inputs},…,{outputs}: name {hidden}"))
        };
        if layers.contains(&0) {
            return Err(wrong("a layer of width 0 holds nothing"));
        }
        let first = layers.first().is_some_and(|n| *n == inputs);
        let last = layers.last().is_some_and(|n| *n == outputs);
        self.hidden_sizes = match (layers.len(), first, last) {
            (2.., true, true) => layers[1..layers.len() - 1].to_vec(),
            (2.., true, false) => {
                return Err(wrong("begins with the inputs but does not end with the outputs"));
            }
            (2.., false, true) => {
                return Err(wrong("ends with the outputs but does not begin with the inputs"));
            }
            _ => layers.to_vec(),
        };
        Ok(())
    }

    /// Widths from the inputs to the outputs: `784-128-10`.
    pub fn widths(&self, schema: &Schema) -> String {
        let widths = [&[schema.width()], &self.hidden_sizes[..], &[schema.outputs()]].concat();
        widths.iter().map(ToString::to_string).collect::<Vec<_>>().join("-")
    }
}

/// The layers of a network.
#[derive(Debug, Clone)]
pub(super) struct Network {
    dense: Option<(Linear, usize)>,
    embeddings: Vec<(Embedding, Linear)>,
    /// Behind each hidden layer.
    norms: Vec<Layer>,
    /// From the second layer on.
    linears: Vec<Linear>,
    act: Act,
    dropout: f32,
}

/// The norm behind a hidden layer.
#[derive(Debug, Clone)]
pub(super) enum Layer {
    None,
    LayerNorm(LayerNorm),
    BatchNorm(BatchNorm),
}

impl Layer {
    /// The norm behind hidden layer `i`.
    pub fn new(params: &mut Params, norm: Option<Norm>, i: usize, width: usize) -> Result<Self> {
        let name = format!("norms.{i}");
        Ok(match norm {
            None => Self::None,
            Some(Norm::LayerNorm) => Self::LayerNorm(LayerNorm::new(params, &name, width)?),
            Some(Norm::BatchNorm) => Self::BatchNorm(BatchNorm::new(params, &name, width)?),
        })
    }

    pub fn record(&self, graph: &mut Graph, x: Var) -> Result<Var> {
        match self {
            Self::None => Ok(x),
            Self::LayerNorm(norm) => norm.forward(graph, x),
            Self::BatchNorm(norm) => norm.forward(graph, x),
        }
    }
}

/// Where a recorded network takes its inputs and leaves its outputs.
#[derive(Debug)]
pub(super) struct Recorded {
    pub dense: Option<Var>,
    pub entries: Vec<Ids>,
    pub output: Var,
}

/// The name of a layer's parameters.
pub(super) fn layer_name(i: usize) -> String {
    format!("layers.{i}")
}

impl Network {
    /// Adds the layers' parameters.
    ///
    /// Errors: `OutOfMemory`.
    pub fn new(params: &mut Params, schema: &Schema, architecture: &Architecture) -> Result<Self> {
        let Architecture { hidden_sizes, hidden_act, norm, dropout } = architecture;
        let widths = [&hidden_sizes[..], &[schema.outputs()]].concat();
        check_size(schema, &widths)?;
        let first = layer_name(0);
        let dense = match schema.dense() {
            0 => None,
            n => Some((Linear::new(params, &first, n, widths[0])?, n)),
        };
        // W·[x, e₁, e₂, …] + b is the sum of products with parts of W: each embedding has a part of its own.
        let mut embeddings = Vec::new();
        for (i, (entries, width)) in schema.embeddings().into_iter().enumerate() {
            let bias = dense.is_none() && i == 0;
            let table = Embedding::new(params, &format!("embeddings.{i}"), entries, width)?;
            let init = Init::Uniform(1.0 / (schema.width() as f32).sqrt());
            let part = Linear::with_init(params, &format!("{first}.{i}"), width, widths[0], init, bias)?;
            embeddings.push((table, part));
        }
        let (mut norms, mut linears) = (Vec::new(), Vec::new());
        for (i, pair) in widths.windows(2).enumerate() {
            norms.push(Layer::new(params, *norm, i, pair[0])?);
            linears.push(Linear::new(params, &layer_name(i + 1), pair[0], pair[1])?);
        }
        Ok(Self { dense, embeddings, norms, linears, act: *hidden_act, dropout: *dropout })
    }

    /// Records it for a batch of so many rows.
    pub fn record(&self, graph: &mut Graph, rows: usize) -> Result<Recorded> {
        let mut sum = None;
        let dense = match &self.dense {
            Some((linear, width)) => {
                let x = graph.input("inputs", rows, *width);
                sum = Some(linear.forward(graph, x)?);
                Some(x)
            }
            None => None,
        };
        let mut entries = Vec::new();
        for (table, part) in &self.embeddings {
            let ids = graph.ids("category", rows);
            let row = table.forward(graph, ids);
            let y = part.forward(graph, row)?;
            sum = Some(match sum {
                Some(sum) => graph.add(sum, y)?,
                None => y,
            });
            entries.push(ids);
        }
        let mut x = sum.ok_or_else(|| Error::Input("a network without inputs".into()))?;
        for (norm, linear) in self.norms.iter().zip(&self.linears) {
            x = norm.record(graph, x)?;
            x = graph.activation(x, self.act.into());
            if self.dropout > 0.0 {
                x = graph.dropout(x, self.dropout)?;
            }
            x = linear.forward(graph, x)?;
        }
        Ok(Recorded { dense, entries, output: x })
    }
}

/// Refuses a network that cannot be allocated; widths may come from a file.
pub(super) fn check_size(schema: &Schema, widths: &[usize]) -> Result<()> {
    let mut parameters = (schema.width() as u64).saturating_mul(widths[0] as u64);
    for pair in widths.windows(2) {
        parameters = parameters.saturating_add((pair[0] as u64).saturating_mul(pair[1] as u64));
    }
    for (entries, width) in schema.embeddings() {
        parameters = parameters.saturating_add((entries as u64).saturating_mul(width as u64));
    }
    // Each in rows and in panels while it is made.
    memory::check("the network", parameters.saturating_mul(8))
}
