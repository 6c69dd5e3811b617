//! What goes into the matrices of a model while it runs: the ground of calibration.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use candle_engine::weights::{Format, Linear};
use candle_engine::Result;

/// What was seen of one matrix's inputs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// The largest magnitude of each input, `[in]`.
    pub most: Vec<f32>,
    /// The sum of squares of each input, `[in]`.
    pub energy: Vec<f64>,
    /// Tokens.
    pub tokens: usize,
}

/// Collects what a model's matrices are given; shared by all of them.
#[derive(Debug, Clone, Default)]
pub struct Observer(Arc<Mutex<BTreeMap<String, Seen>>>);

impl Observer {
    /// What was seen so far, by the matrices' names.
    pub fn seen(&self) -> BTreeMap<String, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn see(&self, names: &[String], x: &Tensor) -> Result<()> {
        let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_to(x.rank().saturating_sub(2))?;
        let rows: Vec<Vec<f32>> = x.to_vec2()?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            let seen = all.entry(name.clone()).or_default();
            for row in &rows {
                seen.most.resize(row.len(), 0.0);
                seen.energy.resize(row.len(), 0.0);
                for ((most, energy), x) in seen.most.iter_mut().zip(&mut seen.energy).zip(row) {
                    *most = most.max(x.abs());
                    *energy += f64::from(x * x);
                }
            }
            seen.tokens += rows.len();
        }
        Ok(())
    }
}

/// A matrix, or several with the same input, that is watched.
#[derive(Debug)]
pub(crate) struct Observed {
    inner: Box<dyn Linear>,
    names: Vec<String>,
    observer: Observer,
}

impl Observed {
    pub(crate) fn new(inner: Box<dyn Linear>, names: &[&str], observer: &Observer) -> Self {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Self { inner, names, observer: observer.clone() }
    }
}

impl Linear for Observed {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.observer.see(&self.names, x)?;
        self.inner.forward(x)
    }

    fn shape(&self) -> (usize, usize) {
        self.inner.shape()
    }

    fn format(&self) -> Format {
        self.inner.format()
    }
}
