//! Optimizers: how parameters follow their gradients.

use super::params::{ParamId, Params};
use super::schedule::{Plateau, Schedule};
use crate::kernels::train::{Matrix, Rule};

/// The method and its constants, named and defined as in PyTorch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// Stochastic gradient descent.
    Sgd {
        /// Share of the last step that is kept.
        momentum: f32,
        /// What of a gradient the momentum does not take in.
        dampening: f32,
        /// Whether the gradient is taken where the momentum leads.
        nesterov: bool,
    },
    /// Adam; weight decay is added to the gradient.
    ///
    /// Source: Kingma and Ba 2015.
    Adam {
        /// Decay of the two moments.
        betas: [f64; 2],
        /// Added to the root.
        eps: f32,
    },
    /// Adam with weight decay apart from the gradient.
    ///
    /// Source: Loshchilov and Hutter 2019.
    AdamW {
        /// Decay of the two moments.
        betas: [f64; 2],
        /// Added to the root.
        eps: f32,
    },
    /// RMSprop.
    RmsProp {
        /// Decay of the mean square.
        alpha: f64,
        /// Added to the root.
        eps: f32,
        /// Share of the last step that is kept.
        momentum: f32,
    },
}

/// An optimizer with its state.
#[derive(Debug)]
pub struct Optimizer {
    method: Method,
    lr: f64,
    weight_decay: f32,
    /// Weight decays of groups of parameters; the last that fits counts.
    groups: Vec<Group>,
    schedule: Schedule,
    plateau: Plateau,
    pub(super) clip_norm: Option<f32>,
    pub(super) accumulate: usize,
    /// Updates so far.
    steps: u64,
    moments: Vec<[Matrix; 2]>,
    /// How the next update changes each group, and behind them what no group holds.
    rules: Vec<Rule>,
    /// The rule of each parameter.
    rule_of: Vec<usize>,
}

/// Parameters, by their names, whose learning rate or decay differs.
struct Group {
    names: Box<dyn Fn(&str) -> bool + Send + Sync>,
    lr_factor: f64,
    weight_decay: f32,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Group {{ lr_factor: {}, weight_decay: {} }}", self.lr_factor, self.weight_decay)
    }
}

impl Optimizer {
    /// A method with a learning rate, without weight decay.
    pub fn new(method: Method, lr: f64) -> Self {
        Self {
            method,
            lr,
            weight_decay: 0.0,
            groups: Vec::new(),
            schedule: Schedule::Constant,
            plateau: Plateau::default(),
            clip_norm: None,
            accumulate: 1,
            steps: 0,
            moments: Vec::new(),
            rules: Vec::new(),
            rule_of: Vec::new(),
        }
    }

    /// Stochastic gradient descent with momentum.
    pub fn sgd(lr: f64, momentum: f32) -> Self {
        Self::new(Method::Sgd { momentum, dampening: 0.0, nesterov: false }, lr)
    }

    /// Adam with PyTorch's constants: β 0.9 and 0.999, ε 1e-8.
    pub fn adam(lr: f64) -> Self {
        Self::new(Method::Adam { betas: [0.9, 0.999], eps: 1e-8 }, lr)
    }

    /// AdamW with PyTorch's constants: β 0.9 and 0.999, ε 1e-8, weight decay 0.01.
    pub fn adamw(lr: f64) -> Self {
        Self::new(Method::AdamW { betas: [0.9, 0.999], eps: 1e-8 }, lr).weight_decay(0.01)
    }

    /// RMSprop with PyTorch's constants: α 0.99, ε 1e-8.
    pub fn rmsprop(lr: f64) -> Self {
        Self::new(Method::RmsProp { alpha: 0.99, eps: 1e-8, momentum: 0.0 }, lr)
    }

    /// Sets the weight decay of all parameters that no group holds.
    pub fn weight_decay(mut self, weight_decay: f32) -> Self {
        self.weight_decay = weight_decay;
        self
    }

    /// Gives parameters whose names fulfil a condition a weight decay of their own, and a factor on their learning
    /// rate. A later group wins.
    pub fn group(
        mut self,
        names: impl Fn(&str) -> bool + Send + Sync + 'static,
        lr_factor: f64,
        weight_decay: f32,
    ) -> Self {
        self.groups.push(Group { names: Box::new(names), lr_factor, weight_decay });
        self
    }

    /// Sets how the learning rate changes.
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Scales all gradients down together where their norm is larger, as `clip_grad_norm_` does.
    pub fn clip_norm(mut self, norm: f32) -> Self {
        self.clip_norm = Some(norm);
        self
    }

    /// Updates every so many steps, by the mean of their gradients.
    pub fn accumulate(mut self, steps: usize) -> Self {
        self.accumulate = steps.max(1);
        self
    }

    /// The learning rate of the next update.
    pub fn lr(&self) -> f64 {
        self.lr * self.schedule.factor(self.steps) * self.plateau.factor
    }

    /// Updates so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Tells a [`Schedule::Plateau`] a measure that should fall, such as the validation loss.
    pub fn report(&mut self, measure: f64) {
        self.plateau.report(&self.schedule, measure);
    }

    /// Makes ready for a step: allocates the state for a network's parameters, once, and sets the rules.
    pub(super) fn prepare(&mut self, params: &Params) {
        if self.moments.is_empty() {
            self.allocate(params);
        }
        self.rules.clear();
        for group in 0..=self.groups.len() {
            self.rules.push(self.rule_of_group(self.groups.get(group)));
        }
    }

    fn allocate(&mut self, params: &Params) {
        let used = match self.method {
            Method::Sgd { momentum, .. } => [momentum != 0.0, false],
            Method::Adam { .. } | Method::AdamW { .. } => [true, true],
            Method::RmsProp { momentum, .. } => [momentum != 0.0, true],
        };
        self.moments =
            params
                .ids()
                .map(|id| {
                    let param = params.get(id);
                    let (rows, cols) = (param.value.rows(), param.value.cols());
                    used.map(|used| {
                        if used && param.trained {
                            Matrix::zeros(rows, cols)
                        } else {
                            Matrix::zeros(0, 0)
                        }
                    })
                })
                .collect();
        self.rule_of = params
            .names()
            .map(|name| {
                self.groups.iter().rposition(|group| (group.names)(name)).unwrap_or(self.groups.len())
            })
            .collect();
    }

    /// How this step's update changes a parameter.
    pub(super) fn rule(&self, id: ParamId) -> Rule {
        self.rules[self.rule_of[id.0]]
    }

    fn rule_of_group(&self, group: Option<&Group>) -> Rule {
        let (factor, weight_decay) =
            group.map_or((1.0, self.weight_decay), |g| (g.lr_factor, g.weight_decay));
        let lr = self.lr() * factor;
        let t = self.steps as i32 + 1;
        let adam = |betas: [f64; 2], eps, weight_decay, keep: f64| Rule::Adam {
            rate: (lr / (1.0 - betas[0].powi(t))) as f32,
            root: (1.0 / (1.0 - betas[1].powi(t)).sqrt()) as f32,
            beta2: betas[1] as f32,
            grow: betas.map(|beta| (1.0 - beta) as f32),
            eps,
            weight_decay,
            keep: keep as f32,
        };
        match self.method {
            Method::Sgd { momentum, dampening, nesterov } => {
                // The first step takes the gradient in whole.
                let dampening = if self.steps == 0 { 0.0 } else { dampening };
                Rule::Sgd { lr: lr as f32, weight_decay, momentum, dampening, nesterov }
            }
            Method::Adam { betas, eps } => adam(betas, eps, weight_decay, 1.0),
            Method::AdamW { betas, eps } => adam(betas, eps, 0.0, 1.0 - lr * f64::from(weight_decay)),
            Method::RmsProp { alpha, eps, momentum } => Rule::RmsProp {
                lr: lr as f32,
                alpha: alpha as f32,
                grow: (1.0 - alpha) as f32,
                eps,
                weight_decay,
                momentum,
            },
        }
    }

    pub(super) fn moments(&mut self, id: ParamId) -> &mut [Matrix; 2] {
        &mut self.moments[id.0]
    }

    /// An update is complete.
    pub(super) fn advance(&mut self) {
        self.steps += 1;
    }
}
