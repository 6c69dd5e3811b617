//! From a graph to a plan: which op moves into which, which gradients there are, who adds to whose.

use std::collections::BTreeSet;

use super::audit::{self, Audit};
use super::graph::{Graph, Loss, Node, Op, Var};
use super::params::{few_outputs, Params};
use super::plan::{Backward, Plan};
use crate::kernels::train::{Activation, Matrix};
use crate::text::sampler::SplitMix64;
use crate::{Error, Result};

impl Plan {
    pub(super) fn inference(graph: &Graph, loss: Option<Loss>) -> Self {
        Self::new(graph, loss, false, SplitMix64::new(0))
    }

    pub(super) fn training(graph: &Graph, loss: Loss, params: &Params) -> Result<Self> {
        let mut plan = Self::new(graph, Some(loss.clone()), true, SplitMix64::new(params.count() as u64));
        let root = plan.held_by[loss.x.0];
        let count = params.ids().count();
        (plan.kept, plan.written) = (vec![false; count], vec![false; count]);
        plan.param_gradients = vec![None; count];

        // What a parameter to be trained has a part in, then what of that the loss depends on.
        let mut trained = vec![false; plan.nodes.len()];
        for (n, node) in plan.nodes.iter().enumerate() {
            let cut = matches!(node.op, Op::Detach { .. });
            trained[n] = node.op.params().any(|id| params.get(id).trained)
                || !cut && node.op.inputs().any(|x| trained[x.0]);
        }
        plan.backward[root].needed = trained[root];
        let (mut seen, mut reached) = (vec![false; plan.nodes.len()], BTreeSet::new());
        seen[root] = true;
        for n in (0..plan.nodes.len()).rev().filter(|n| trained[*n]) {
            if !plan.backward[n].needed {
                continue;
            }
            let node = &plan.nodes[n];
            for id in node.op.params().filter(|id| params.get(*id).trained) {
                let again = !reached.insert(id);
                plan.kept[id.0] |= again || !matches!(node.op, Op::Linear { .. });
            }
            for (i, x) in node.op.inputs().enumerate().filter(|(_, x)| trained[x.0]) {
                plan.backward[n].add[i] = std::mem::replace(&mut seen[x.0], true);
                plan.backward[x.0].needed = true;
            }
            plan.gradients[n] = Matrix::zeros(node.rows, node.cols);
        }
        if params.ids().all(|id| !params.get(id).trained) {
            return Err(Error::Input("there is no parameter to be trained".into()));
        }
        audit::unreached(graph, params, loss.x, &reached)?;
        plan.slope_in_products();
        plan.audit = Some(Audit::Deny);
        Ok(plan)
    }

    /// Lets the layer behind an activation multiply by its slope, where no other takes part in that gradient.
    fn slope_in_products(&mut self) {
        for n in 0..self.nodes.len() {
            let mut consumers = self.nodes.iter().filter(|node| node.op.inputs().any(|x| x.0 == n));
            let sole = (consumers.next(), consumers.next());
            if let (Some(Node { op: Op::Linear { .. }, .. }), None) = sole {
                let is_root = self.loss.as_ref().is_some_and(|loss| self.held_by[loss.x.0] == n);
                self.backward[n].sloped =
                    !is_root && matches!(self.nodes[n].op, Op::Linear { act: Some(_), .. });
            }
        }
    }

    fn new(graph: &Graph, loss: Option<Loss>, training: bool, rng: SplitMix64) -> Self {
        let (nodes, held_by) = fused(graph, training);
        let matrix = |node: &Node| Matrix::zeros(node.rows, node.cols);
        let none = || Matrix::zeros(0, 0);
        let count = nodes.len();
        let mut values: Vec<Matrix> = nodes
            .iter()
            .map(|node| if matches!(node.op, Op::Input) { none() } else { matrix(node) })
            .collect();
        for node in &nodes {
            for x in node.op.inputs().filter(|x| matches!(nodes[x.0].op, Op::Input)) {
                // Most linear layers read an input as it lies.
                if !matches!(node.op, Op::Linear { .. }) || few_outputs(nodes[x.0].cols, node.cols) {
                    values[x.0] = matrix(&nodes[x.0]);
                }
            }
        }
        if let Some(loss) = &loss {
            if matches!(nodes[held_by[loss.x.0]].op, Op::Input) {
                values[loss.x.0] = matrix(&nodes[loss.x.0]);
            }
        }
        let saved = nodes.iter().map(|node| match node.op {
            Op::Linear { act: Some(act), .. } if act != Activation::Relu => matrix(node),
            Op::Activation { .. } | Op::LayerNorm { .. } => matrix(node),
            Op::Dropout { .. } | Op::BatchNorm { .. } if training => matrix(node),
            _ => none(),
        });
        let scales = nodes.iter().map(|node| match node.op {
            Op::LayerNorm { .. } => vec![0.0; node.rows],
            Op::BatchNorm { .. } => vec![0.0; 3 * node.cols],
            _ => Vec::new(),
        });
        let mut gradients: Vec<Matrix> = (0..count).map(|_| none()).collect();
        if let Some(loss) = &loss {
            let root = held_by[loss.x.0];
            gradients[root] = matrix(&nodes[root]);
        }
        let inputs = nodes.iter().map(|node| match node.op {
            Op::Input => vec![0.0; node.rows * node.cols],
            _ => Vec::new(),
        });
        Self {
            inputs: inputs.collect(),
            ids: graph.ids.iter().map(|ids| vec![0; ids.rows]).collect(),
            values,
            saved: saved.collect(),
            scales: scales.collect(),
            gradients,
            backward: vec![Backward::default(); count],
            nodes,
            ids_nodes: graph.ids.clone(),
            held_by,
            loss,
            training,
            param_gradients: Vec::new(),
            written: Vec::new(),
            kept: Vec::new(),
            passes: 0,
            audit: None,
            rng,
            last_loss: f32::NAN,
        }
    }
}

/// The nodes with each activation moved into the linear layer before it, where nothing else reads that one, and
/// dropout left out of inference; and for each node the one that holds its value.
fn fused(graph: &Graph, training: bool) -> (Vec<Node>, Vec<usize>) {
    let mut nodes = graph.nodes.clone();
    let mut held_by: Vec<usize> = (0..nodes.len()).collect();
    let mut readers = vec![0; nodes.len()];
    nodes.iter().flat_map(|node| node.op.inputs()).for_each(|x| readers[x.0] += 1);
    for n in 0..nodes.len() {
        nodes[n].op.map_inputs(|x| Var(held_by[x.0]));
        let (before, moved) = match nodes[n].op {
            Op::Activation { x, act } => (x, Some(act)),
            Op::Dropout { x, .. } if !training => (x, None),
            _ => continue,
        };
        if let Some(moved) = moved {
            match &mut nodes[before.0].op {
                Op::Linear { act: act @ None, .. } if readers[before.0] == 1 => *act = Some(moved),
                _ => continue,
            }
        }
        held_by[n] = before.0;
    }
    // What others hold computes nothing.
    for n in 0..nodes.len() {
        if held_by[n] != n {
            (nodes[n].rows, nodes[n].cols, nodes[n].op) = (0, 0, Op::Input);
        }
    }
    (nodes, held_by)
}
