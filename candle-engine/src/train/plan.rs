//! A graph made ready: every buffer allocated, every choice made.

use std::mem::take;

use super::audit::{self, Audit};
use super::graph::{Ids, IdsNode, Loss, Node, Op, Var};
use super::optimizer::Optimizer;
use super::params::{ParamId, Params};
use crate::kernels::train::{self as kernels, Matrix};
use crate::text::sampler::SplitMix64;
use crate::{Error, Result};

/// A recorded network with the buffers to run it.
///
/// Steps allocate nothing, but for the first.
#[derive(Debug)]
pub struct Plan {
    pub(super) nodes: Vec<Node>,
    pub(super) ids_nodes: Vec<IdsNode>,
    /// For each value of the graph, the node that holds it; an activation moves into the linear layer before it.
    pub(super) held_by: Vec<usize>,
    pub(super) loss: Option<Loss>,
    pub(super) training: bool,

    /// What inputs hold, row by row; empty for other nodes.
    pub(super) inputs: Vec<Vec<f32>>,
    pub(super) ids: Vec<Vec<u32>>,
    /// Results; those of inputs only where an op other than a linear layer reads them.
    pub(super) values: Vec<Matrix>,
    /// What the backward pass needs of the forward pass: slopes, dropout's factors, normalized numbers.
    pub(super) saved: Vec<Matrix>,
    /// 1 / deviation of a layer norm's rows, and statistics of a batch norm's columns.
    pub(super) scales: Vec<Vec<f32>>,
    /// Gradients, of the nodes that have one: before the activation within a node.
    pub(super) gradients: Vec<Matrix>,
    /// How each node takes part in the backward pass.
    pub(super) backward: Vec<Backward>,

    /// Gradients of parameters, where they are kept.
    pub(super) param_gradients: Vec<Option<Matrix>>,
    /// Whether a parameter's gradient holds something of the current update.
    pub(super) written: Vec<bool>,
    /// Whether a parameter's gradient is kept until the update: several nodes, or another than a linear layer, make it.
    pub(super) kept: Vec<bool>,
    /// Backward passes since the last update.
    pub(super) passes: usize,
    /// What is to be done about parameters without gradient, until it has been done.
    pub(super) audit: Option<Audit>,
    pub(super) rng: SplitMix64,
    pub(super) last_loss: f32,
}

/// How a node takes part in the backward pass.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Backward {
    /// Whether it has a gradient.
    pub needed: bool,
    /// Whether the gradient of its first and second input is added to what another node left there.
    pub add: [bool; 2],
    /// Whether its gradient comes with the activation's slope.
    pub sloped: bool,
}

impl Plan {
    /// Sets what happens when a parameter gets nothing but zeros in the first backward pass.
    pub fn audit(&mut self, audit: Audit) {
        self.audit = self.audit.and(Some(audit));
    }

    /// An input's numbers, row by row, to be written.
    ///
    /// # Panics
    ///
    /// If the value is computed.
    pub fn input_mut(&mut self, x: Var) -> &mut [f32] {
        assert!(matches!(self.nodes[x.0].op, Op::Input), "`{}` is computed", self.nodes[x.0].label);
        &mut self.inputs[x.0]
    }

    /// Numbers of classes or rows, to be written.
    pub fn ids_mut(&mut self, ids: Ids) -> &mut [u32] {
        &mut self.ids[ids.0]
    }

    /// A computed value, row by row.
    ///
    /// Errors: `Input` if the plan does not keep it: it is an input, or a layer's output before the activation that
    /// follows.
    pub fn rows(&self, x: Var) -> Result<Vec<f32>> {
        let holder = self.held_by[x.0];
        let within = x.0 == holder && matches!(self.nodes[holder].op, Op::Linear { act: Some(_), .. });
        if within || matches!(self.nodes[holder].op, Op::Input) {
            return Err(Error::Input(format!("the value of `{}` is not kept", self.nodes[x.0].label)));
        }
        Ok(self.values[holder].to_rows())
    }

    /// The last loss.
    pub fn loss(&self) -> f32 {
        self.last_loss
    }

    /// Computes all values, and the loss if there is one (else 0).
    ///
    /// Errors: `Input` if a number of a class or row is out of range.
    pub fn run(&mut self, params: &Params) -> Result<f32> {
        self.check_ids()?;
        for n in 0..self.nodes.len() {
            self.forward(n, params);
        }
        self.last_loss = self.losses();
        Ok(self.last_loss)
    }

    /// One step: forward, backward, and the optimizer's update. Returns the loss.
    ///
    /// Errors: `Input` if a number of a class or row is out of range; if the loss is not finite, naming where that
    /// began; and in the first step if a parameter got no gradient (see [`Audit`]). No parameter has changed then.
    ///
    /// # Panics
    ///
    /// If the plan was made by [`Graph::inference`](super::Graph::inference).
    pub fn step(&mut self, params: &mut Params, optimizer: &mut Optimizer) -> Result<f32> {
        assert!(self.training, "a plan for inference does not train");
        optimizer.prepare(params);
        let loss = self.run(params)?;
        if !loss.is_finite() {
            return Err(self.not_finite(params, optimizer.steps() + 1));
        }
        self.move_averages(params);
        let audit = self.audit.take();
        let keep = audit.is_some() || optimizer.clip_norm.is_some() || optimizer.accumulate > 1;
        self.allocate_gradients(params, keep);
        for n in (0..self.nodes.len()).rev() {
            if self.backward[n].needed {
                self.node_backward(n, params, optimizer, keep);
            }
        }
        if audit == Some(Audit::Deny) {
            if let Err(error) = audit::zeros(self, params) {
                self.audit = audit;
                self.written.fill(false);
                return Err(error);
            }
        }
        self.passes += 1;
        if self.passes >= optimizer.accumulate {
            self.update(params, optimizer);
        }
        if audit.is_some() && optimizer.clip_norm.is_none() && optimizer.accumulate == 1 {
            self.param_gradients.fill(None);
        }
        Ok(loss)
    }

    /// Where the gradients of parameters are kept that are not used up at once.
    fn allocate_gradients(&mut self, params: &Params, keep: bool) {
        for id in params.ids() {
            let param = params.get(id);
            if param.trained && (keep || self.kept[id.0]) && self.param_gradients[id.0].is_none() {
                self.param_gradients[id.0] = Some(Matrix::zeros(param.value.rows(), param.value.cols()));
            }
        }
    }

    /// Updates the parameters whose gradients were kept.
    fn update(&mut self, params: &mut Params, optimizer: &mut Optimizer) {
        let mut scale = 1.0 / self.passes as f32;
        if let Some(limit) = optimizer.clip_norm {
            let gradients = self.param_gradients.iter().zip(&self.written);
            let squares: f64 = gradients
                .filter_map(|(gradient, written)| gradient.as_ref().filter(|_| *written))
                .map(kernels::sum_of_squares)
                .sum();
            let norm = squares.sqrt() as f32 * scale;
            scale *= (limit / (norm + 1e-6)).min(1.0);
        }
        for i in 0..self.written.len() {
            if !take(&mut self.written[i]) {
                continue;
            }
            let (id, gradient) = (ParamId(i), self.param_gradients[i].as_mut());
            let param = params.get_mut(id);
            let rule = optimizer.rule(id);
            if let Some(gradient) = gradient {
                kernels::update(&rule, scale, gradient, &mut param.value, optimizer.moments(id));
            }
        }
        self.passes = 0;
        optimizer.advance();
    }

    /// Takes the batch's statistics into the running averages of batch norms.
    fn move_averages(&self, params: &mut Params) {
        for (node, stats) in self.nodes.iter().zip(&self.scales) {
            let Op::BatchNorm { running, momentum, .. } = node.op else { continue };
            for (id, new) in running.into_iter().zip(stats.chunks_exact(node.cols).skip(1)) {
                let old = params.get_mut(id).value.data_mut().iter_mut();
                old.zip(new).for_each(|(old, new)| *old += momentum * (new - *old));
            }
        }
    }

    fn check_ids(&self) -> Result<()> {
        for (ids, node) in self.ids.iter().zip(&self.ids_nodes) {
            // All are looked at, without a branch: a loop of vector code.
            if ids.iter().fold(false, |bad, id| bad | (*id >= node.limit)) {
                let row = ids.iter().position(|id| *id >= node.limit).unwrap_or(0);
                let (label, limit, got) = (&node.label, node.limit, ids[row]);
                return Err(Error::Input(format!(
                    "`{label}`, row {row}: expected a number below {limit}, got {got}"
                )));
            }
        }
        Ok(())
    }

    /// What is not finite first: an input, a parameter or a layer's output.
    fn not_finite(&self, params: &Params, step: u64) -> Error {
        let bad = |x: &[f32]| x.iter().any(|x| !x.is_finite());
        let first = self.nodes.iter().enumerate().find_map(|(n, node)| {
            let param = node.op.params().map(|id| params.get(id)).find(|param| bad(param.value.data()));
            match param {
                Some(param) => Some(format!("parameter `{}`", param.name)),
                None if bad(&self.inputs[n]) => Some(format!("input `{}`", node.label)),
                None => bad(&self.values[n].to_rows()).then(|| format!("the output of `{}`", node.label)),
            }
        });
        let first = first.unwrap_or_else(|| "the loss itself".into());
        Error::Input(format!(
            "step {step}: the loss is {}; the first that is not finite is {first}",
            self.last_loss
        ))
    }
}
