//! burn with its flex backend.

use std::time::Instant;

use burn::backend::{Autodiff, Flex};
use burn::module::{Module, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, GradientsParams, Optimizer, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};

use crate::{begin, time, Method, Result, Work};

#[derive(Module, Debug)]
struct Net<B: Backend> {
    layers: Vec<Linear<B>>,
}

impl<B: Backend> Net<B> {
    fn new(work: &Work, device: &B::Device) -> Self {
        let layer = |pair: &[usize]| {
            let mut layer = LinearConfig::new(pair[0], pair[1]).init(device);
            // burn keeps weights with inputs first.
            let w = TensorData::new(begin(pair[0] * pair[1], pair[0]), [pair[1], pair[0]]);
            let w = Tensor::<B, 2>::from_data(w, device).transpose();
            // A copy that lies as burn's own would.
            let w = Tensor::from_data(w.into_data(), device);
            let b = Tensor::from_data(TensorData::new(begin(pair[1], pair[0]), [pair[1]]), device);
            layer.weight = Param::from_tensor(w);
            layer.bias = Some(Param::from_tensor(b));
            layer
        };
        Self { layers: work.widths.windows(2).map(layer).collect() }
    }

    fn loss(&self, work: &Work, numbers: &[f32], classes: &[i64], device: &B::Device) -> Tensor<B, 1> {
        let x = TensorData::new(numbers.to_vec(), [work.batch, work.widths[0]]);
        let mut h = Tensor::<B, 2>::from_data(x, device);
        let labels = Tensor::<B, 1, Int>::from_data(TensorData::new(classes.to_vec(), [work.batch]), device);
        for (i, layer) in self.layers.iter().enumerate() {
            h = layer.forward(h);
            if i + 1 < self.layers.len() {
                h = relu(h);
            }
        }
        CrossEntropyLossConfig::new().init(device).forward(h, labels)
    }
}

fn train<B: AutodiffBackend>(
    start: Instant,
    work: &Work,
    steps: usize,
    mut optimizer: impl Optimizer<Net<B>, B>,
    lr: f64,
) -> Result<()> {
    let device = Default::default();
    let (numbers, classes) = (work.x(), work.labels());
    let mut net = Some(Net::<B>::new(work, &device));
    time(start, steps, || {
        let current = net.take().ok_or("a network")?;
        let loss = current.loss(work, &numbers, &classes, &device);
        let gradients = GradientsParams::from_grads(loss.backward(), &current);
        net = Some(optimizer.step(lr, current, gradients));
        Ok(loss.into_data().to_vec::<f32>().map_err(|error| format!("{error:?}"))?[0])
    })
}

pub fn run(start: Instant, work: &Work, steps: usize) -> Result<()> {
    type B = Autodiff<Flex>;
    match work.method {
        Method::Adam => train::<B>(start, work, steps, AdamConfig::new().with_epsilon(1e-8).init(), 1e-3),
        Method::AdamW => {
            let optimizer = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.01).init();
            train::<B>(start, work, steps, optimizer, 1e-3)
        }
        Method::Sgd => {
            let momentum = MomentumConfig { momentum: 0.9, dampening: 0.0, nesterov: false };
            train::<B>(start, work, steps, SgdConfig::new().with_momentum(Some(momentum)).init(), 0.01)
        }
        Method::Forward => {
            let device = Default::default();
            let (numbers, classes) = (work.x(), work.labels());
            let net = Net::<Flex>::new(work, &device);
            time(start, steps, || {
                let loss = net.loss(work, &numbers, &classes, &device);
                Ok(loss.into_data().to_vec::<f32>().map_err(|error| format!("{error:?}"))?[0])
            })
        }
    }
}
