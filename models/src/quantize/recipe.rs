//! What becomes of each tensor of a model.

use candle_engine::weights::{Stored, Weights};
use candle_engine::{Error, Result};
use candle_engine_quantization::{Rows, Target};

use crate::decoder::{DecoderConfig, TensorNames};

/// How a model is quantized. Vectors (norms, biases) and routers always stay as they are.
///
/// ```
/// use candle_engine_models::quantize::Recipe;
///
/// let recipe = Recipe::new("int4-g64".parse().unwrap());
/// assert_eq!(recipe.head.unwrap().to_string(), "int8");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// What the matrices of the layers become.
    pub target: Target,
    /// What the head becomes; `None` keeps it.
    pub head: Option<Target>,
    /// What the embedding becomes; `None` keeps it. It is only looked up, never multiplied, so what it costs is space.
    pub embedding: Option<Target>,
    /// Names of tensors that stay as they are, with `*` for any part and `?` for any character.
    pub keep: Vec<String>,
}

impl Recipe {
    /// The default for a format: of 4 bits, the head takes 8, for its errors go straight into the logits.
    pub fn new(target: Target) -> Self {
        let head = match target {
            Target::Int4 { .. } => Target::INT8,
            Target::Q4_0 => Target::Q8_0,
            other => other,
        };
        let embedding = if target.is_grouped() { None } else { Some(head) };
        Self { target, head: Some(head), embedding, keep: Vec::new() }
    }

    fn keeps(&self, name: &str) -> bool {
        let base = name.strip_suffix(".weight").unwrap_or(name);
        self.keep.iter().any(|pattern| matches(pattern, name) || matches(pattern, base))
    }
}

/// A tensor of the model, and what becomes of it.
#[derive(Debug, Clone)]
pub struct Step {
    /// The tensor as it is.
    pub source: Stored,
    /// Its new name, without `.weight` if it is converted.
    pub name: String,
    /// What it becomes; `None` is a copy.
    pub target: Option<Target>,
    /// The layer it belongs to.
    pub layer: Option<usize>,
}

/// All tensors, and whether the head gets weights of its own.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In the order of their names.
    pub steps: Vec<Step>,
    /// The head was the embedding, and no longer is.
    pub untied: bool,
    /// The head is the embedding.
    pub tied: bool,
}

impl Plan {
    /// Plans a model.
    ///
    /// Errors: `Tensor` for a matrix that cannot be converted, such as one that is quantized already; `Input` for an
    /// embedding of small integers.
    pub fn new(
        recipe: &Recipe,
        weights: &dyn Weights,
        names: &TensorNames,
        config: &DecoderConfig,
    ) -> Result<Self> {
        if let Some(target) = recipe.embedding.filter(|target| target.is_grouped()) {
            let what =
                format!("the embedding is only looked up: it can be kept or become floats, not {target}");
            return Err(Error::Input(what));
        }
        let (mut steps, mut untied) = (Vec::new(), false);
        for name in weights.names() {
            let source = weights.get(&name)?;
            let base = name.strip_suffix(".weight").filter(|_| source.shape.len() == 2);
            let rest = name.strip_prefix(names.layers);
            let layer = rest.and_then(|rest| rest.split('.').next()?.parse().ok());
            let role = match base {
                Some(base) if base == names.embedding => recipe.embedding,
                Some(base) if base == names.head => recipe.head,
                Some(base) if layer.is_some() && !is_router(base) => Some(recipe.target),
                _ => None,
            };
            if base == Some(names.embedding) && config.tied_head && !recipe.keeps(names.head) {
                // The embedding is not given to the head's format, nor the head to the embedding's.
                if let Some(target) = recipe.head.filter(|_| recipe.head != recipe.embedding) {
                    steps.push(convert(source.clone(), names.head, target, None)?);
                    untied = true;
                }
            }
            steps.push(match (base, role) {
                (Some(base), Some(target)) if !recipe.keeps(&name) => convert(source, base, target, layer)?,
                _ => Step { source, name, target: None, layer },
            });
        }
        Ok(Self { steps, untied, tied: config.tied_head && !untied })
    }

    /// The matrices that are converted, and to what.
    pub fn converted(&self) -> Vec<(String, Target)> {
        self.steps.iter().filter_map(|step| Some((step.name.clone(), step.target?))).collect()
    }

    /// The matrices that multiply and stay floats, among them a head that is still the embedding.
    pub fn kept(&self, names: &TensorNames) -> Vec<String> {
        let is_float = |step: &&Step| step.target.is_none_or(|target| !target.is_grouped());
        let matrices = self.steps.iter().filter(|step| step.source.shape.len() == 2).filter(is_float);
        let bases = matrices.map(|step| step.name.strip_suffix(".weight").unwrap_or(&step.name));
        let mut kept: Vec<String> =
            bases.filter(|&base| base != names.embedding).map(str::to_owned).collect();
        if self.tied {
            kept.push(names.head.into());
        }
        kept
    }
}

fn convert(source: Stored, name: &str, target: Target, layer: Option<usize>) -> Result<Step> {
    let width = Rows::new(&source)
        .map_err(|_| {
            let what = format!("{} is no float format: was the model quantized before?", source.format);
            Error::Tensor { name: source.name.clone(), what }
        })?
        .shape()
        .1;
    Ok(Step { source, name: name.into(), target: Some(target.for_width(width)), layer })
}

/// Which expert takes a token is decided by small differences.
fn is_router(base: &str) -> bool {
    [".gate", ".router", ".gate_inp", ".ffn_gate_inp"].iter().any(|end| base.ends_with(end))
}

/// Whether a pattern with `*` and `?` matches a whole text.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) && pattern[p] != '*' {
            (p, t) = (p + 1, t + 1);
        } else if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if let Some((at, from)) = star {
            // The last star takes one character more.
            star = Some((at, from + 1));
            (p, t) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text) in
            [("*", ""), ("a*c", "abbc"), ("*.1?.*_proj", "m.l.12.x.q_proj"), ("a?c", "a*c")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*c", "abcd"), ("", "a"), ("?", ""), ("*.1.*", "m.10.x")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
