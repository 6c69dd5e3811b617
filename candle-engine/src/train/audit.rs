//! The gradient audit: parameters that learn nothing are named, with what cuts them off.

use std::collections::BTreeSet;

use super::graph::{Graph, Node, Op, Var};
use super::params::{ParamId, Params};
use super::plan::Plan;
use crate::kernels::train::Matrix;
use crate::{Error, Result};

/// What happens when a parameter gets no gradient.
///
/// A plan finds what the loss cannot reach when it is made, and what it reaches with nothing but zeros after the
/// first backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Audit {
    /// It is an error, with each parameter and the op that cut it off.
    #[default]
    Deny,
    /// Nothing: such parameters keep what they hold.
    Allow,
}

/// Parameters to be trained that `reached` does not hold, each with the reason.
pub(super) fn unreached(
    graph: &Graph,
    params: &Params,
    loss: Var,
    reached: &BTreeSet<ParamId>,
) -> Result<()> {
    let mut lines = Vec::new();
    for id in params.ids().filter(|id| params.get(*id).trained && !reached.contains(id)) {
        let used: Vec<Var> = (0..graph.nodes.len())
            .filter(|n| graph.nodes[*n].op.params().any(|p| p == id))
            .map(Var)
            .collect();
        let why = match used.iter().find_map(|node| detached(graph, *node, loss)) {
            _ if used.is_empty() => "no layer of the graph uses it".to_owned(),
            Some(cut) => format!("`{}` cuts it off", graph.nodes[cut.0].label),
            None => format!("the loss does not depend on `{}`", graph.nodes[used[0].0].label),
        };
        lines.push(format!("`{}` ({why})", params.get(id).name));
    }
    report(&lines)
}

/// The detach between a node and the loss, if there is one.
fn detached(graph: &Graph, node: Var, loss: Var) -> Option<Var> {
    let mut needed = vec![false; graph.nodes.len()];
    needed[loss.0] = true;
    for (n, Node { op, .. }) in graph.nodes.iter().enumerate().rev() {
        if needed[n] {
            op.inputs().for_each(|x| needed[x.0] = true);
        }
    }
    let mut after = vec![false; graph.nodes.len()];
    after[node.0] = true;
    for (n, Node { op, .. }) in graph.nodes.iter().enumerate().skip(node.0 + 1) {
        after[n] = op.inputs().any(|x| after[x.0]);
        if after[n] && needed[n] && matches!(op, Op::Detach { .. }) {
            return Some(Var(n));
        }
    }
    None
}

/// Parameters whose gradient is zero everywhere, after a backward pass that kept all gradients.
pub(super) fn zeros(plan: &Plan, params: &Params) -> Result<()> {
    let mut lines = Vec::new();
    for (n, node) in plan.nodes.iter().enumerate() {
        for id in node.op.params().filter(|id| params.get(*id).trained) {
            let is_zero = |x: &Matrix| x.data().iter().all(|x| *x == 0.0);
            if !plan.param_gradients[id.0].as_ref().is_some_and(is_zero) {
                continue;
            }
            // It vanished before the first node on the way from the loss whose own gradient is nothing.
            let (mut at, mut behind) = (n, None);
            while is_zero(&plan.gradients[at]) {
                let next = (at + 1..plan.nodes.len()).find(|c| plan.nodes[*c].op.inputs().any(|x| x.0 == at));
                let Some(next) = next else { break };
                (at, behind) = (next, Some(at));
            }
            let why = match behind.map(|behind| &plan.nodes[behind]) {
                None => "its layer's input is zero".to_owned(),
                Some(Node { label, op: Op::Linear { act: Some(act), .. }, .. }) => {
                    let act = format!("{act:?}").to_lowercase();
                    format!("it vanishes between `{}` and the {act} of `{label}`", plan.nodes[at].label)
                }
                Some(Node { label, .. }) => {
                    format!("it vanishes between `{}` and `{label}`", plan.nodes[at].label)
                }
            };
            lines.push(format!("`{}` ({why})", params.get(id).name));
        }
    }
    report(&lines)
}

fn report(lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    Err(Error::Input(format!(
        "these parameters get no gradient: {}; freeze them or set `Audit::Allow` if that is meant",
        lines.join(", ")
    )))
}
