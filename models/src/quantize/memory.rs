//! A model that is quantized while it is loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use candle_engine::weights::{Stored, Weights};
use candle_engine::{memory, Error, Result};
use candle_engine_quantization::compressed_tensors::Activations;
use candle_engine_quantization::write::Planned;

use super::folder::default_calibration;
use super::job::{Job, Kind};
use super::recipe::{Plan, Recipe};
use super::smooth::Calibration;
use crate::decoder::{DecoderConfig, TensorNames};

/// A checkpoint some of whose matrices were replaced by quantized ones in memory.
struct Converted {
    source: Arc<dyn Weights>,
    replaced: BTreeSet<String>,
    tensors: BTreeMap<String, Stored>,
}

/// A checkpoint that was quantized in memory.
pub(crate) struct InMemory {
    pub weights: Arc<dyn Weights>,
    /// The head got weights of its own.
    pub untied: bool,
    pub activations: Activations,
}

/// Quantizes a checkpoint in memory.
///
/// Errors: `OutOfMemory`; `Tensor` for a matrix that cannot be converted.
pub(crate) fn in_memory(
    recipe: &Recipe,
    source: Arc<dyn Weights>,
    names: &TensorNames,
    config: &DecoderConfig,
) -> Result<InMemory> {
    let plan = Plan::new(recipe, &*source, names, config)?;
    let calibration = default_calibration(recipe, None, &*source, names, config)?;
    convert(&plan, calibration.as_ref(), source, names)
}

/// Does in memory what is planned.
///
/// Errors: as [`in_memory`].
pub(crate) fn convert(
    plan: &Plan,
    calibration: Option<&Calibration>,
    source: Arc<dyn Weights>,
    names: &TensorNames,
) -> Result<InMemory> {
    let (mut replaced, mut tensors) = (BTreeSet::new(), BTreeMap::new());
    for step in &plan.steps {
        let job = Job::new(step, calibration);
        if matches!(job.kind, Kind::Copy) {
            if step.name != step.source.name {
                let copy = Stored { name: step.name.clone(), ..step.source.clone() };
                tensors.insert(step.name.clone(), copy);
            }
            continue;
        }
        let planned = job.planned()?;
        let sizes = planned.iter().filter_map(|part| part.format.bytes(&part.shape));
        memory::check("the quantized weights", sizes.sum::<usize>() as u64)?;
        let mut bytes: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        job.run(&mut |name, mut part| {
            bytes.entry(name.into()).or_default().append(&mut part);
            Ok(())
        })?;
        for Planned { name, format, shape } in planned {
            let bytes = bytes.remove(&name).unwrap_or_default().into();
            tensors.insert(name.clone(), Stored { name, bytes, shape, format });
        }
        if !plan.untied || step.name != names.head {
            replaced.insert(step.source.name.clone());
        }
    }
    let precise = plan.steps.iter().filter(|step| step.precise).map(|step| step.name.clone());
    Ok(InMemory {
        activations: Activations::precise_for(precise),
        untied: plan.untied,
        weights: Arc::new(Converted { source, replaced, tensors }),
    })
}

impl Weights for Converted {
    fn get(&self, name: &str) -> Result<Stored> {
        match self.tensors.get(name) {
            Some(stored) => Ok(stored.clone()),
            None if self.replaced.contains(name) => Err(Error::MissingTensor { name: name.into() }),
            None => self.source.get(name),
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name) || !self.replaced.contains(name) && self.source.contains(name)
    }

    fn names(&self) -> Vec<String> {
        let kept = self.source.names().into_iter().filter(|name| !self.replaced.contains(name));
        let mut names: Vec<String> = kept.chain(self.tensors.keys().cloned()).collect();
        names.sort();
        names.dedup();
        names
    }
}
