//! What a network does with a batch, recorded.

use super::layers::{self, Norm};
use super::params::{ParamId, Params};
use super::plan::Plan;
use crate::kernels::train::{Activation, CrossEntropy, Pointwise};
use crate::{Error, Result};

/// A matrix `[rows, cols]` of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Var(pub(super) usize);

/// Numbers of classes or of a table's rows, `[rows]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids(pub(super) usize);

/// What is to become small.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    pub(super) x: Var,
    pub(super) kind: LossKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum LossKind {
    CrossEntropy { labels: Ids, how: CrossEntropy },
    Pointwise { targets: Var, how: Pointwise },
}

/// A recorded network.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) ids: Vec<IdsNode>,
}

/// A value of the graph and how it comes about.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The layer's name, or what it does.
    pub label: String,
    pub rows: usize,
    pub cols: usize,
    pub op: Op,
}

/// Numbers that the caller gives.
#[derive(Debug, Clone)]
pub(super) struct IdsNode {
    pub label: String,
    pub rows: usize,
    /// They are below this.
    pub limit: u32,
}

#[derive(Debug, Clone)]
pub(super) enum Op {
    Input,
    Linear { x: Var, weight: ParamId, bias: Option<ParamId>, act: Option<Activation> },
    Activation { x: Var, act: Activation },
    Dropout { x: Var, p: f32 },
    LayerNorm { x: Var, norm: Norm },
    BatchNorm { x: Var, norm: Norm, running: [ParamId; 2], momentum: f32 },
    Embedding { ids: Ids, table: ParamId },
    Add { x: Var, y: Var },
    Softmax { x: Var },
    Detach { x: Var },
}

impl Op {
    /// The values that it reads.
    pub fn inputs(&self) -> impl Iterator<Item = Var> {
        let (x, y) = match *self {
            Self::Input | Self::Embedding { .. } => (None, None),
            Self::Add { x, y } => (Some(x), Some(y)),
            Self::Linear { x, .. }
            | Self::Activation { x, .. }
            | Self::Dropout { x, .. }
            | Self::LayerNorm { x, .. }
            | Self::BatchNorm { x, .. }
            | Self::Softmax { x }
            | Self::Detach { x } => (Some(x), None),
        };
        x.into_iter().chain(y)
    }

    /// Replaces the values that it reads.
    pub fn map_inputs(&mut self, f: impl Fn(Var) -> Var) {
        match self {
            Self::Input | Self::Embedding { .. } => {}
            Self::Add { x, y } => (*x, *y) = (f(*x), f(*y)),
            Self::Linear { x, .. }
            | Self::Activation { x, .. }
            | Self::Dropout { x, .. }
            | Self::LayerNorm { x, .. }
            | Self::BatchNorm { x, .. }
            | Self::Softmax { x }
            | Self::Detach { x } => *x = f(*x),
        }
    }

    /// The parameters that it is trained by.
    pub fn params(&self) -> impl Iterator<Item = ParamId> {
        let (a, b) = match *self {
            Self::Linear { weight, bias, .. } => (Some(weight), bias),
            Self::LayerNorm { ref norm, .. } | Self::BatchNorm { ref norm, .. } => {
                (Some(norm.weight), Some(norm.bias))
            }
            Self::Embedding { table, .. } => (Some(table), None),
            _ => (None, None),
        };
        a.into_iter().chain(b)
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Numbers that the caller gives, row by row: [`Plan::input_mut`].
    pub fn input(&mut self, name: &str, rows: usize, cols: usize) -> Var {
        self.push(name.into(), rows, cols, Op::Input)
    }

    /// Numbers of classes or of a table's rows that the caller gives: [`Plan::ids_mut`].
    pub fn ids(&mut self, name: &str, rows: usize) -> Ids {
        self.ids.push(IdsNode { label: name.into(), rows, limit: u32::MAX });
        Ids(self.ids.len() - 1)
    }

    /// Rows and columns of a value.
    pub fn shape(&self, x: Var) -> (usize, usize) {
        let node = &self.nodes[x.0];
        (node.rows, node.cols)
    }

    /// An activation of every number.
    pub fn activation(&mut self, x: Var, act: Activation) -> Var {
        let name = format!("{act:?}").to_lowercase();
        self.like(x, &name, Op::Activation { x, act })
    }

    /// Sets each number to zero with probability `p` in training, and scales the others by 1 / (1 − p).
    ///
    /// Errors: `Input` if `p` is not in `0..1`.
    pub fn dropout(&mut self, x: Var, p: f32) -> Result<Var> {
        if !(0.0..1.0).contains(&p) {
            return Err(Error::Input(format!(
                "dropout: expected a probability of 0 or more, below 1, got {p}"
            )));
        }
        Ok(self.like(x, "dropout", Op::Dropout { x, p }))
    }

    /// Softmax of each row. A loss takes logits: [`Self::cross_entropy`] has a softmax of its own.
    pub fn softmax(&mut self, x: Var) -> Var {
        self.like(x, "softmax", Op::Softmax { x })
    }

    /// x + y
    ///
    /// Errors: `Input` if the shapes differ.
    pub fn add(&mut self, x: Var, y: Var) -> Result<Var> {
        let (a, b) = (self.shape(x), self.shape(y));
        if a != b {
            let (from, to) = (&self.nodes[x.0].label, &self.nodes[y.0].label);
            return Err(Error::Input(format!("add of `{from}` {a:?} and `{to}` {b:?}: expected one shape")));
        }
        Ok(self.like(x, "add", Op::Add { x, y }))
    }

    /// The same numbers, which nothing before them learns from.
    pub fn detach(&mut self, x: Var) -> Var {
        self.like(x, "detach", Op::Detach { x })
    }

    /// The cross-entropy of softmax(logits) against labels.
    ///
    /// Errors: `Input` if the labels are not as many as the rows, or the weights not as many as the classes.
    pub fn cross_entropy(&mut self, logits: Var, labels: Ids, how: CrossEntropy) -> Result<Loss> {
        let (rows, classes) = self.shape(logits);
        let given = &mut self.ids[labels.0];
        if given.rows != rows {
            return Err(Error::Input(format!("cross_entropy: expected {rows} labels, got {}", given.rows)));
        }
        if !how.weights.is_empty() && how.weights.len() != classes {
            let got = how.weights.len();
            return Err(Error::Input(format!(
                "cross_entropy: expected a weight for each of {classes} classes, got {got}"
            )));
        }
        given.limit = given.limit.min(classes as u32);
        Ok(Loss { x: logits, kind: LossKind::CrossEntropy { labels, how } })
    }

    /// A loss of numbers against an input of the same shape.
    ///
    /// Errors: `Input` if the shapes differ, or the targets are computed.
    pub fn pointwise(&mut self, x: Var, targets: Var, how: Pointwise) -> Result<Loss> {
        let (a, b) = (self.shape(x), self.shape(targets));
        if a != b {
            return Err(Error::Input(format!("loss: expected targets {a:?}, got {b:?}")));
        }
        if !matches!(self.nodes[targets.0].op, Op::Input) {
            let label = &self.nodes[targets.0].label;
            return Err(Error::Input(format!("loss: expected an input for targets, got `{label}`")));
        }
        Ok(Loss { x, kind: LossKind::Pointwise { targets, how } })
    }

    /// A plan that trains.
    ///
    /// Errors: `Input` if no parameter is to be trained, and for each parameter to be trained that the loss cannot
    /// reach, with what cuts it off (see [`super::Audit`]).
    pub fn training(&self, loss: Loss, params: &Params) -> Result<Plan> {
        Plan::training(self, loss, params)
    }

    /// A plan that only computes: without dropout, and batch norms by their running averages.
    pub fn inference(&self, loss: Option<Loss>) -> Plan {
        Plan::inference(self, loss)
    }

    pub(super) fn linear(&mut self, layer: &layers::Linear, x: Var) -> Result<Var> {
        self.expect(&layer.name, x, layer.inputs)?;
        let op = Op::Linear { x, weight: layer.weight, bias: layer.bias, act: None };
        Ok(self.push(layer.name.clone(), self.shape(x).0, layer.outputs, op))
    }

    pub(super) fn layer_norm(&mut self, layer: &layers::LayerNorm, x: Var) -> Result<Var> {
        self.expect(&layer.0.name, x, layer.0.width)?;
        Ok(self.like(x, &layer.0.name, Op::LayerNorm { x, norm: layer.0.clone() }))
    }

    pub(super) fn batch_norm(&mut self, layer: &layers::BatchNorm, x: Var) -> Result<Var> {
        let layers::BatchNorm { norm, running, momentum } = layer.clone();
        self.expect(&norm.name, x, norm.width)?;
        let name = norm.name.clone();
        Ok(self.like(x, &name, Op::BatchNorm { x, norm, running, momentum }))
    }

    pub(super) fn embedding(&mut self, layer: &layers::Embedding, ids: Ids) -> Var {
        let given = &mut self.ids[ids.0];
        given.limit = given.limit.min(layer.entries as u32);
        let rows = given.rows;
        self.push(layer.name.clone(), rows, layer.width, Op::Embedding { ids, table: layer.table })
    }

    /// A node of `x`'s shape.
    fn like(&mut self, x: Var, label: &str, op: Op) -> Var {
        let (rows, cols) = self.shape(x);
        self.push(label.into(), rows, cols, op)
    }

    fn push(&mut self, label: String, rows: usize, cols: usize, op: Op) -> Var {
        self.nodes.push(Node { label, rows, cols, op });
        Var(self.nodes.len() - 1)
    }

    fn expect(&self, layer: &str, x: Var, inputs: usize) -> Result<()> {
        let node = &self.nodes[x.0];
        if node.cols == inputs {
            return Ok(());
        }
        Err(Error::Input(format!(
            "layer `{layer}`: expected {inputs} inputs, got {} from `{}`",
            node.cols, node.label
        )))
    }
}
