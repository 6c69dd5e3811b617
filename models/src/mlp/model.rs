//! A network with what its inputs and outputs mean: made, saved, loaded, run.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use candle_engine::train::Params;
use candle_engine::weights::{Format, SafeTensors, Weights};
use candle_engine::{Error, Result};
use candle_engine_quantization::write::{safetensors, Planned, Staged, Writer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::encode::Encoded;
use super::integers::Integers;
use super::network::{Architecture, Network};
use super::report::{likeliest, log_softmax, Report};
use super::run;
use super::schema::{Kind, Schema, Target};
use super::table::Table;

/// The `model_type` of its `config.json`.
pub const MODEL_TYPE: &str = "mlp";

/// A feed-forward network for the rows of tables.
#[derive(Debug)]
pub struct Mlp {
    /// What its inputs and outputs mean.
    pub schema: Schema,
    /// What lies between.
    pub architecture: Architecture,
    weights: Numbers,
}

#[derive(Debug)]
enum Numbers {
    Float(Params, Network),
    Integers(Integers),
}

/// `config.json`
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    model_type: String,
    #[serde(flatten)]
    pub architecture: Architecture,
    #[serde(flatten)]
    pub schema: Schema,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization_config: Option<Value>,
}

/// What a network says of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Prediction {
    /// The likeliest label, by its number, and the probability of each.
    Label(usize, Vec<f64>),
    /// In the target's units.
    Number(f64),
}

impl Mlp {
    /// A network that knows nothing yet; the seed decides what it begins with.
    ///
    /// Errors: `OutOfMemory`.
    pub fn new(schema: Schema, architecture: Architecture, seed: u64) -> Result<Self> {
        let mut params = Params::new(seed);
        let network = Network::new(&mut params, &schema, &architecture)?;
        Ok(Self { schema, architecture, weights: Numbers::Float(params, network) })
    }

    /// Whether a folder holds such a network.
    pub fn is_in(dir: &Path) -> bool {
        let config = std::fs::read(dir.join("config.json")).ok();
        let config: Option<Value> = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        config.is_some_and(|config| config["model_type"] == MODEL_TYPE)
    }

    /// Loads a folder that [`Self::save`] wrote, or what was quantized of it.
    ///
    /// Errors: `Io`, `Malformed`, `MissingTensor` and `ShapeMismatch` naming file, key or tensor.
    pub fn load(dir: &Path) -> Result<Self> {
        let Config { architecture, schema, quantization_config, .. } = Config::open(dir)?;
        let stored = SafeTensors::open(dir)?;
        if let Some(quantization) = quantization_config {
            let integers = Integers::new(stored, &quantization, &schema, &architecture)?;
            return Ok(Self { schema, architecture, weights: Numbers::Integers(integers) });
        }
        let mut mlp = Self::new(schema, architecture, 0)?;
        mlp.float()?.0.load(|name| tensor(&stored, name))?;
        Ok(mlp)
    }

    /// Makes a folder of `config.json` and `model.safetensors`, which appears when both are complete.
    ///
    /// Errors: `Input` if something is there already, and as [`Self::write`].
    pub fn save(&mut self, dir: &Path) -> Result<()> {
        let staged = Staged::folder(dir)?;
        self.write(staged.path())?;
        staged.commit()
    }

    /// Writes `config.json` and `model.safetensors` to a folder that is there.
    ///
    /// Errors: `Input` if the network was quantized; `Io` naming the file.
    pub fn write(&mut self, dir: &Path) -> Result<()> {
        let config = Config {
            model_type: MODEL_TYPE.into(),
            architecture: self.architecture.clone(),
            schema: self.schema.clone(),
            quantization_config: None,
        };
        let params = self.float()?.0;
        let names: Vec<String> = params.names().map(str::to_owned).collect();
        let tensors: HashMap<String, Tensor> = params.tensors()?;
        let planned = |name: &String| {
            let shape = tensors.get(name).map(|tensor| tensor.dims().to_vec()).unwrap_or_default();
            Planned { name: name.clone(), format: Format::F32, shape }
        };
        let layout = safetensors(&names.iter().map(planned).collect::<Vec<_>>())?;
        let mut writer = Writer::create(&dir.join("model.safetensors"), layout)?;
        for (name, tensor) in &tensors {
            let numbers = tensor.flatten_all()?.to_vec1::<f32>()?;
            writer.append(name, numbers.iter().flat_map(|x| x.to_le_bytes()).collect())?;
        }
        writer.finish()?;
        config.write(dir)
    }

    /// The number of parameters.
    pub fn parameters(&self) -> usize {
        match &self.weights {
            Numbers::Float(params, _) => params.count(),
            Numbers::Integers(integers) => integers.parameters(),
        }
    }

    /// All parameters as tensors by name, to go on with them in candle; [`Params::var_map`] makes variables of them.
    ///
    /// Errors: `Input` if the network was quantized.
    pub fn params(&mut self) -> Result<&mut Params> {
        Ok(self.float()?.0)
    }

    /// What it says of each row of a table, whose columns are found by their names.
    ///
    /// Errors: `Input` naming column and row of what it cannot read.
    pub fn predict(&self, table: &Table) -> Result<Vec<Prediction>> {
        let data = Encoded::new(&self.schema, table, false)?;
        let outputs = self.outputs(&data)?;
        Ok(match &self.schema.target {
            Target::Classes { labels, .. } => {
                let label = |logits: &[f32]| {
                    let probabilities = log_softmax(logits).into_iter().map(f64::exp).collect();
                    Prediction::Label(likeliest(logits), probabilities)
                };
                outputs.chunks_exact(labels.len()).map(label).collect()
            }
            Target::Number { mean, std, .. } => {
                let number = |x: &f32| Prediction::Number(f64::from(*x) * f64::from(*std) + f64::from(*mean));
                outputs.iter().map(number).collect()
            }
        })
    }

    /// How good it is on a table that holds the target too.
    ///
    /// Errors: as [`Self::predict`], and for a label that it does not know.
    pub fn evaluate(&self, table: &Table) -> Result<Report> {
        let data = Encoded::new(&self.schema, table, true)?;
        let rows: Vec<usize> = (0..data.rows).collect();
        Ok(Report::new(&self.schema, &self.outputs(&data)?, &data, &rows))
    }

    /// How good it is on the rows for validation, or on those that it learned from if there are none.
    ///
    /// Errors: as [`Self::predict`].
    pub fn validate(&self, data: &super::Data) -> Result<Report> {
        let rows = if data.validation.is_empty() { &data.train } else { &data.validation };
        match &self.weights {
            Numbers::Float(params, network) => Report::of(network, params, data, rows),
            Numbers::Integers(integers) => {
                let outputs = integers.outputs(&data.rows, rows)?;
                Ok(Report::new(&self.schema, &outputs, &data.rows, rows))
            }
        }
    }

    /// The bare outputs, `[rows, outputs]`: logits, or numbers in units of the target's deviation.
    ///
    /// Errors: `Candle`.
    pub fn outputs(&self, data: &Encoded) -> Result<Vec<f32>> {
        let rows: Vec<usize> = (0..data.rows).collect();
        match &self.weights {
            Numbers::Float(params, network) => run::outputs(network, params, data, &rows),
            Numbers::Integers(integers) => integers.outputs(data, &rows),
        }
    }

    pub(super) fn float(&mut self) -> Result<(&mut Params, &Network)> {
        match &mut self.weights {
            Numbers::Float(params, network) => Ok((params, network)),
            Numbers::Integers(_) => Err(Error::Input("a quantized network only predicts".into())),
        }
    }
}

impl Config {
    /// Errors: `Io` and `Malformed` naming the file.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let config: Self =
            serde_json::from_slice(&bytes).map_err(|e| Error::malformed(&path, e.to_string()))?;
        let wrong = |what: String| Err(Error::malformed(&path, what));
        if config.model_type != MODEL_TYPE {
            return wrong(format!("expected model_type `{MODEL_TYPE}`, got `{}`", config.model_type));
        }
        let is_scale = |std: f32| std.is_finite() && std > 0.0;
        for input in &config.schema.inputs {
            if matches!(input.kind, Kind::Number { std, .. } if !is_scale(std)) {
                return wrong(format!("input `{}`: expected a std above 0", input.name));
            }
        }
        match &config.schema.target {
            Target::Number { std, .. } if !is_scale(*std) => wrong("target: expected a std above 0".into()),
            Target::Classes { labels, .. } if labels.is_empty() => wrong("target: no labels".into()),
            _ if config.schema.inputs.is_empty() => wrong("no inputs".into()),
            _ => Ok(config),
        }
    }

    /// Errors: `Io` naming the file.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join("config.json");
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::malformed(&path, e.to_string()))?;
        std::fs::write(&path, text + "\n").map_err(|e| Error::io(&path, e))
    }
}

/// A tensor of floats; `None` if it is missing or holds something else.
pub(super) fn tensor(stored: &dyn Weights, name: &str) -> Option<Tensor> {
    let stored = stored.get(name).ok().filter(|stored| stored.format == Format::F32)?;
    Tensor::from_raw_buffer(&stored.bytes, candle_core::DType::F32, &stored.shape, &candle_core::Device::Cpu)
        .ok()
}
