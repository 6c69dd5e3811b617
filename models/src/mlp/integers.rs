//! A network whose matrices are small integers: the engine's products, with norms and activations between them.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_engine::ops::Exec;
use candle_engine::train::{Embedding, Graph, Params};
use candle_engine::weights::{Linear, SafeTensors, Weights};
use candle_engine::Result;
use candle_engine_quantization::compressed_tensors::{check, Activations};
use candle_engine_quantization::{tensors, Loader};
use serde_json::Value;

use super::encode::Encoded;
use super::model::tensor;
use super::network::{check_size, layer_name, Architecture, Layer};
use super::run::BATCH;
use super::schema::Schema;

/// A network whose matrices are small integers.
#[derive(Debug)]
pub(super) struct Integers {
    parameters: usize,
    dense: Option<Box<dyn Linear>>,
    embeddings: Vec<(Embedding, Box<dyn Linear>)>,
    linears: Vec<Box<dyn Linear>>,
    /// Behind the linear layers but the last.
    norms: Vec<Layer>,
    /// Tables and norms, which are floats.
    params: Params,
    architecture: Architecture,
}

impl Integers {
    pub fn new(
        stored: SafeTensors,
        quantization: &Value,
        schema: &Schema,
        architecture: &Architecture,
    ) -> Result<Self> {
        check(quantization)?;
        let widths = [&architecture.hidden_sizes[..], &[schema.outputs()]].concat();
        check_size(schema, &widths)?;
        let stored: Arc<dyn Weights> = Arc::new(stored);
        let loader = Loader::new(stored.clone(), Exec::new(Device::Cpu, DType::F32))
            .activations(Activations::read(quantization));
        let mut params = Params::new(0);
        let dense = match schema.dense() {
            0 => None,
            n => Some(loader.linear(&layer_name(0), widths[0], n, true)?),
        };
        let mut embeddings = Vec::new();
        for (i, (entries, width)) in schema.embeddings().into_iter().enumerate() {
            let table = Embedding::new(&mut params, &format!("embeddings.{i}"), entries, width)?;
            let name = format!("{}.{i}", layer_name(0));
            embeddings.push((table, loader.linear(&name, widths[0], width, dense.is_none() && i == 0)?));
        }
        let (mut norms, mut linears) = (Vec::new(), Vec::new());
        for (i, pair) in widths.windows(2).enumerate() {
            norms.push(Layer::new(&mut params, architecture.norm, i, pair[0])?);
            linears.push(loader.linear(&layer_name(i + 1), pair[1], pair[0], true)?);
        }
        params.load(|name| tensor(&*stored, name))?;
        let parameters = tensors(&*stored).iter().map(|t| t.shape.iter().product::<usize>()).sum();
        let architecture = architecture.clone();
        Ok(Self { parameters, dense, embeddings, linears, norms, params, architecture })
    }

    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// The outputs for some rows, `[rows, outputs]`.
    pub fn outputs(&self, data: &Encoded, rows: &[usize]) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for rows in rows.chunks(BATCH) {
            let mut x = self.first(data, rows)?;
            for (norm, linear) in self.norms.iter().zip(&self.linears) {
                let width = linear.shape().1;
                let x_between = self.between(norm, &x, rows.len(), width)?;
                x = product(&**linear, x_between, rows.len())?;
            }
            all.append(&mut x);
        }
        Ok(all)
    }

    /// The first layer: the sum of its parts.
    fn first(&self, data: &Encoded, rows: &[usize]) -> Result<Vec<f32>> {
        let mut sum: Option<Vec<f32>> = None;
        if let Some(linear) = &self.dense {
            let width = linear.shape().1;
            let x = rows.iter().flat_map(|row| &data.dense[row * width..][..width]).copied().collect();
            sum = Some(product(&**linear, x, rows.len())?);
        }
        for ((table, linear), entries) in self.embeddings.iter().zip(&data.entries) {
            let mut graph = Graph::new();
            let ids = graph.ids("category", rows.len());
            let row = table.forward(&mut graph, ids);
            let mut plan = graph.inference(None);
            plan.ids_mut(ids).iter_mut().zip(rows).for_each(|(id, row)| *id = entries[*row]);
            plan.run(&self.params)?;
            let y = product(&**linear, plan.rows(row)?, rows.len())?;
            sum = Some(match sum {
                Some(sum) => sum.iter().zip(y).map(|(a, b)| a + b).collect(),
                None => y,
            });
        }
        Ok(sum.unwrap_or_default())
    }

    /// Norm and activation.
    fn between(&self, norm: &Layer, x: &[f32], rows: usize, width: usize) -> Result<Vec<f32>> {
        let mut graph = Graph::new();
        let input = graph.input("x", rows, width);
        let y = norm.record(&mut graph, input)?;
        let y = graph.activation(y, self.architecture.hidden_act.into());
        let mut plan = graph.inference(None);
        plan.input_mut(input).copy_from_slice(x);
        plan.run(&self.params)?;
        plan.rows(y)
    }
}

fn product(linear: &dyn Linear, x: Vec<f32>, rows: usize) -> Result<Vec<f32>> {
    let x = Tensor::from_vec(x, (rows, linear.shape().1), &Device::Cpu)?;
    Ok(linear.forward(&x)?.flatten_all()?.to_vec1()?)
}
