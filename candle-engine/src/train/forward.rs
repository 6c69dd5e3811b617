//! The forward pass of each node, and the loss.

use std::mem::take;

use super::graph::{LossKind, Op, Var};
use super::params::{Layout, ParamId, Params};
use super::plan::Plan;
use crate::kernels::train::{self as kernels, Activation, Epilogue, View};

impl Plan {
    /// A value as an operand.
    pub(super) fn view(&self, x: Var) -> View<'_> {
        let node = &self.nodes[x.0];
        match node.op {
            Op::Input => View::rows(node.rows, node.cols, &self.inputs[x.0]),
            _ => self.values[x.0].view(),
        }
    }

    /// Computes a node.
    pub(super) fn forward(&mut self, n: usize, params: &Params) {
        let (mut out, mut saved) = (take(&mut self.values[n]), take(&mut self.saved[n]));
        let mut scales = take(&mut self.scales[n]);
        let value = |id: ParamId| &params.get(id).value;
        match self.nodes[n].op {
            Op::Input => {
                if out.rows() > 0 {
                    out.set_rows(&self.inputs[n]);
                }
            }
            Op::Linear { x, weight, bias, act } => {
                let epilogue = match (bias, act) {
                    (Some(bias), Some(Activation::Relu)) => Epilogue::BiasRelu(value(bias).data()),
                    (Some(bias), _) => Epilogue::Bias(value(bias).data()),
                    (None, _) => Epilogue::None,
                };
                let product = match params.get(weight).layout {
                    Layout::Transposed => kernels::product,
                    Layout::Rows => kernels::product_transposed,
                };
                product(self.view(x), value(weight), epilogue, &mut out);
                match act {
                    Some(Activation::Relu) if bias.is_none() => kernels::relu(&mut out),
                    Some(Activation::Relu) | None => {}
                    Some(act) => kernels::activate(act, &mut out, &mut saved),
                }
            }
            Op::Activation { x, act } => {
                out.copy_from(&self.values[x.0]);
                kernels::activate(act, &mut out, &mut saved);
            }
            Op::Dropout { x, p } => {
                out.copy_from(&self.values[x.0]);
                if self.training {
                    let rng = &mut self.rng;
                    saved.data_mut().fill_with(|| {
                        if rng.next_f64() < f64::from(p) {
                            0.0
                        } else {
                            1.0 / (1.0 - p)
                        }
                    });
                    kernels::scale(&mut out, &saved);
                }
            }
            Op::LayerNorm { x, ref norm } => {
                let (w, b) = (value(norm.weight), value(norm.bias));
                kernels::layer_norm(&self.values[x.0], w, b, norm.eps, &mut out, &mut saved, &mut scales);
            }
            Op::BatchNorm { x, ref norm, running, .. } => {
                let (x, w, b) = (&self.values[x.0], value(norm.weight), value(norm.bias));
                if self.training {
                    kernels::batch_norm(x, w, b, norm.eps, &mut out, &mut saved, &mut scales);
                } else {
                    kernels::batch_norm_inference(x, w, b, norm.eps, running.map(value), &mut out);
                }
            }
            Op::Embedding { ids, table } => kernels::gather(value(table), &self.ids[ids.0], &mut out),
            Op::Add { x, y } => {
                out.copy_from(&self.values[x.0]);
                kernels::add(&mut out, &self.values[y.0]);
            }
            Op::Softmax { x } => kernels::softmax(&self.values[x.0], &mut out),
            Op::Detach { x } => out.copy_from(&self.values[x.0]),
        }
        (self.values[n], self.saved[n], self.scales[n]) = (out, saved, scales);
    }

    /// The loss of the values, and its gradient.
    pub(super) fn losses(&mut self) -> f32 {
        let Some(loss) = &self.loss else { return 0.0 };
        let root = self.held_by[loss.x.0];
        let (x, gradient) = (&self.values[root], &mut self.gradients[root]);
        match &loss.kind {
            LossKind::CrossEntropy { labels, how } => {
                kernels::softmax_cross_entropy(how, x, &self.ids[labels.0], gradient)
            }
            LossKind::Pointwise { targets, how } => {
                kernels::pointwise(*how, x, &self.inputs[targets.0], gradient)
            }
        }
    }
}
