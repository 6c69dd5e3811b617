//! The backward pass of each node.

use std::mem::take;

use super::graph::Op;
use super::optimizer::Optimizer;
use super::params::{Layout, ParamId, Params};
use super::plan::{Backward, Plan};
use crate::kernels::train::{self as kernels, Activation, Epilogue, Gradient, Matrix};

impl Plan {
    /// From the gradient of a node's output: those of its inputs, then those of its parameters, which are updated at
    /// once unless they are to be kept.
    pub(super) fn node_backward(
        &mut self,
        n: usize,
        params: &mut Params,
        optimizer: &mut Optimizer,
        keep: bool,
    ) {
        let mut dy = take(&mut self.gradients[n]);
        let Backward { add, sloped, .. } = self.backward[n];
        match self.nodes[n].op {
            Op::Input | Op::Detach { .. } => {}
            Op::Linear { x, weight, bias, act } => {
                match act {
                    Some(Activation::Relu) if !sloped => kernels::gate(&mut dy, &self.values[n]),
                    Some(_) if !sloped => kernels::scale(&mut dy, &self.saved[n]),
                    _ => {}
                }
                if self.backward[x.0].needed {
                    self.input_gradient(x.0, weight, &dy, add[0], params);
                }
                self.linear_gradients(x.0, weight, bias, &dy, params, optimizer, keep);
            }
            Op::Activation { x, .. } | Op::Dropout { x, .. } => {
                // The gradient itself is not needed any more, but is kept for the audit where it is not moved.
                let mut dx = take(&mut self.gradients[x.0]);
                if add[0] {
                    kernels::scale(&mut dy, &self.saved[n]);
                    kernels::add(&mut dx, &dy);
                } else {
                    dx.copy_from(&dy);
                    kernels::scale(&mut dx, &self.saved[n]);
                }
                self.gradients[x.0] = dx;
            }
            Op::LayerNorm { x, ref norm } => {
                let (weight, bias) = (norm.weight, norm.bias);
                if self.backward[x.0].needed {
                    let mut dx = take(&mut self.gradients[x.0]);
                    let w = &params.get(weight).value;
                    kernels::layer_norm_gradient(&dy, w, &self.saved[n], &self.scales[n], add[0], &mut dx);
                    self.gradients[x.0] = dx;
                }
                self.norm_gradients(n, weight, bias, &dy);
            }
            Op::BatchNorm { x, ref norm, .. } => {
                let (weight, bias) = (norm.weight, norm.bias);
                if self.backward[x.0].needed {
                    let mut dx = take(&mut self.gradients[x.0]);
                    let w = &params.get(weight).value;
                    kernels::batch_norm_gradient(&dy, w, &self.saved[n], &self.scales[n], add[0], &mut dx);
                    self.gradients[x.0] = dx;
                }
                self.norm_gradients(n, weight, bias, &dy);
            }
            Op::Embedding { ids, table } => {
                if let Some(mut gradient) = self.open(table) {
                    kernels::scatter(&dy, &self.ids[ids.0], &mut gradient);
                    self.param_gradients[table.0] = Some(gradient);
                }
            }
            Op::Add { x, y } => {
                for (x, add) in [x, y].into_iter().zip(add) {
                    if self.backward[x.0].needed {
                        let dx = &mut self.gradients[x.0];
                        if add {
                            kernels::add(dx, &dy);
                        } else {
                            dx.copy_from(&dy);
                        }
                    }
                }
            }
            Op::Softmax { x } => {
                let dx = &mut self.gradients[x.0];
                kernels::softmax_gradient(&dy, &self.values[n], add[0], dx);
            }
        }
        self.gradients[n] = dy;
    }

    /// The gradient of a linear layer's input.
    fn input_gradient(&mut self, x: usize, weight: ParamId, dy: &Matrix, add: bool, params: &Params) {
        let mut dx = take(&mut self.gradients[x]);
        let epilogue = match self.nodes[x].op {
            _ if add => Epilogue::Add,
            Op::Linear { act: Some(Activation::Relu), .. } if self.backward[x].sloped => {
                Epilogue::Gate(&self.values[x])
            }
            Op::Linear { act: Some(_), .. } if self.backward[x].sloped => Epilogue::Scale(&self.saved[x]),
            _ => Epilogue::None,
        };
        let weight = params.get(weight);
        let product = match weight.layout {
            Layout::Transposed => kernels::product_transposed,
            Layout::Rows => kernels::product,
        };
        product(dy.view(), &weight.value, epilogue, &mut dx);
        self.gradients[x] = dx;
    }

    /// The gradients of a linear layer's parameters, or at once their updates.
    #[allow(clippy::too_many_arguments)]
    fn linear_gradients(
        &mut self,
        x: usize,
        weight: ParamId,
        bias: Option<ParamId>,
        dy: &Matrix,
        params: &mut Params,
        optimizer: &mut Optimizer,
        keep: bool,
    ) {
        for id in [Some(weight), bias].into_iter().flatten() {
            if !params.get(id).trained {
                continue;
            }
            let mut kept = if keep || self.kept[id.0] { self.param_gradients[id.0].take() } else { None };
            let layout = params.get(id).layout;
            let gradient = match &mut kept {
                Some(gradient) if self.written[id.0] => Gradient::Add(gradient),
                Some(gradient) => Gradient::Store(gradient),
                None => {
                    let param = params.get_mut(id);
                    let rule = optimizer.rule(id);
                    Gradient::Update { rule, w: &mut param.value, moments: optimizer.moments(id) }
                }
            };
            match (id == weight, layout) {
                (true, Layout::Transposed) => {
                    kernels::weight_gradient(self.view(super::Var(x)), dy, gradient)
                }
                (true, Layout::Rows) => kernels::weight_gradient(dy.view(), &self.values[x], gradient),
                (false, _) => kernels::bias_gradient(dy, gradient),
            }
            if kept.is_some() {
                self.param_gradients[id.0] = kept;
                self.written[id.0] = true;
            }
        }
    }

    /// The gradients of a norm's weight and bias, which are kept.
    fn norm_gradients(&mut self, n: usize, weight: ParamId, bias: ParamId, dy: &Matrix) {
        for (id, is_weight) in [(weight, true), (bias, false)] {
            if let Some(mut gradient) = self.open(id) {
                kernels::norm_parameter_gradient(dy, is_weight.then_some(&self.saved[n]), &mut gradient);
                self.param_gradients[id.0] = Some(gradient);
            }
        }
    }

    /// Takes a kept gradient that is to be added to: zero if it holds nothing of the current update yet.
    fn open(&mut self, id: ParamId) -> Option<Matrix> {
        let mut gradient = self.param_gradients[id.0].take()?;
        if !std::mem::replace(&mut self.written[id.0], true) {
            gradient.data_mut().fill(0.0);
        }
        Some(gradient)
    }
}
