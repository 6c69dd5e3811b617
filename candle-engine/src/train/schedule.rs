//! How the learning rate changes from step to step.

/// A factor on the learning rate, by the number of steps taken so far. As PyTorch's schedulers of these names, one
/// call a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// 1
    Constant,
    /// × gamma every `every` steps.
    Step {
        /// Steps between two changes.
        every: u64,
        /// The factor of a change.
        gamma: f64,
    },
    /// From 1 down to `floor` along half a cosine, then `floor`.
    Cosine {
        /// Steps until the floor.
        steps: u64,
        /// The last factor.
        floor: f64,
    },
    /// Up to 1 in equal parts, step `n` of `steps` taking (n + 1) / steps; then another schedule from its beginning.
    WarmUp {
        /// Steps until 1.
        steps: u64,
        /// What follows.
        then: Box<Schedule>,
    },
    /// × factor whenever what is [reported](super::Optimizer::report) has not fallen for more than `patience`
    /// reports.
    Plateau {
        /// The factor of a change.
        factor: f64,
        /// Reports without improvement that are put up with.
        patience: u64,
        /// An improvement is a fall by more than this share.
        threshold: f64,
    },
}

impl Schedule {
    /// The factor after so many steps; a plateau's is kept by its [`Plateau`].
    pub(super) fn factor(&self, step: u64) -> f64 {
        match self {
            Self::Constant | Self::Plateau { .. } => 1.0,
            Self::Step { every, gamma } => gamma.powf((step / (*every).max(1)) as f64),
            Self::Cosine { steps, floor } => {
                let done = (step as f64 / (*steps).max(1) as f64).min(1.0);
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
            Self::WarmUp { steps, .. } if step < *steps => (step + 1) as f64 / *steps as f64,
            Self::WarmUp { steps, then } => then.factor(step - steps),
        }
    }

    /// The plateau in it, if there is one.
    pub(super) fn plateau(&self) -> Option<(f64, u64, f64)> {
        match self {
            Self::Plateau { factor, patience, threshold } => Some((*factor, *patience, *threshold)),
            Self::WarmUp { then, .. } => then.plateau(),
            _ => None,
        }
    }
}

/// What a plateau's schedule remembers.
#[derive(Debug, Clone)]
pub(super) struct Plateau {
    best: f64,
    waited: u64,
    pub factor: f64,
}

impl Default for Plateau {
    fn default() -> Self {
        Self { best: f64::INFINITY, waited: 0, factor: 1.0 }
    }
}

impl Plateau {
    /// Takes in a measure that should fall.
    pub fn report(&mut self, schedule: &Schedule, measure: f64) {
        let Some((factor, patience, threshold)) = schedule.plateau() else { return };
        if measure < self.best * (1.0 - threshold) {
            (self.best, self.waited) = (measure, 0);
        } else {
            self.waited += 1;
        }
        if self.waited > patience {
            self.factor *= factor;
            self.waited = 0;
        }
    }
}
