//! candle-nn, as its examples train.

use std::time::Instant;

use candle_core::{backprop::GradStore, Device, Tensor, Var};
use candle_nn::{loss::cross_entropy, AdamW, Linear, Module, Optimizer, ParamsAdamW};

use crate::{begin, time, Method, Result, Work};

/// candle has no momentum: the velocities are kept beside its variables.
struct Momentum(Vec<(Var, Tensor)>);

impl Momentum {
    fn step(&mut self, gradients: &GradStore) -> Result<()> {
        for (var, velocity) in &mut self.0 {
            let Some(gradient) = gradients.get(var) else { continue };
            *velocity = ((&*velocity * 0.9)? + gradient)?;
            var.set(&(var.as_tensor() - (&*velocity * 0.01)?)?)?;
        }
        Ok(())
    }
}

enum Updates {
    AdamW(AdamW),
    Momentum(Momentum),
    None,
}

pub fn run(start: Instant, work: &Work, steps: usize) -> Result<()> {
    let device = Device::Cpu;
    let (mut layers, mut vars) = (Vec::new(), Vec::new());
    for pair in work.widths.windows(2) {
        let w = Var::from_tensor(&Tensor::from_vec(
            begin(pair[0] * pair[1], pair[0]),
            (pair[1], pair[0]),
            &device,
        )?)?;
        let b = Var::from_tensor(&Tensor::from_vec(begin(pair[1], pair[0]), pair[1], &device)?)?;
        layers.push(Linear::new(w.as_tensor().clone(), Some(b.as_tensor().clone())));
        vars.extend([w, b]);
    }
    let adam = |weight_decay| ParamsAdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay };
    let mut updates = match work.method {
        Method::Adam => Updates::AdamW(AdamW::new(vars, adam(0.0))?),
        Method::AdamW => Updates::AdamW(AdamW::new(vars, adam(0.01))?),
        Method::Sgd => {
            let zeros = vars.into_iter().map(|var| Ok((var.clone(), var.zeros_like()?)));
            Updates::Momentum(Momentum(zeros.collect::<Result<_>>()?))
        }
        Method::Forward => Updates::None,
    };
    let (numbers, classes) = (work.x(), work.labels());
    time(start, steps, || {
        let x = Tensor::from_slice(&numbers, (work.batch, work.widths[0]), &device)?;
        let labels = Tensor::from_slice(&classes, work.batch, &device)?;
        let mut h = x;
        for (i, layer) in layers.iter().enumerate() {
            h = layer.forward(&h)?;
            if i + 1 < layers.len() {
                h = h.relu()?;
            }
        }
        let loss = cross_entropy(&h, &labels)?;
        match &mut updates {
            Updates::AdamW(optimizer) => optimizer.backward_step(&loss)?,
            Updates::Momentum(optimizer) => optimizer.step(&loss.backward()?)?,
            Updates::None => {}
        }
        Ok(loss.to_scalar()?)
    })
}
