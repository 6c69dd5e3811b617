//! One name for every tensor, whether its file puts `model.` before it or not.

use std::sync::Arc;

use candle_engine::weights::{Stored, Weights};
use candle_engine::{Error, Result};

/// What the Hub's names of both stacks begin with.
pub(super) const PREFIX: &str = "model.";
const STACKS: [&str; 2] = ["encoder.", "decoder."];

/// A checkpoint that leaves the prefix out.
struct Prefixed<W>(W);

/// A checkpoint under the Hub's names.
pub(crate) fn prefixed(weights: impl Weights + 'static) -> Arc<dyn Weights> {
    match weights.contains("encoder.conv1.weight") {
        true => Arc::new(Prefixed(weights)),
        false => Arc::new(weights),
    }
}

fn theirs(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

fn ours(name: String) -> String {
    match STACKS.iter().any(|stack| name.starts_with(stack)) {
        true => format!("{PREFIX}{name}"),
        false => name,
    }
}

impl<W: Weights> Weights for Prefixed<W> {
    fn get(&self, name: &str) -> Result<Stored> {
        let stored = self.0.get(theirs(name)).map_err(|e| match e {
            Error::MissingTensor { .. } => Error::MissingTensor { name: name.into() },
            other => other,
        })?;
        Ok(Stored { name: name.into(), ..stored })
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains(theirs(name))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.names().into_iter().map(ours).collect();
        names.sort();
        names
    }
}
