//! What becomes of each tensor of a model.

use std::fmt;
use std::str::FromStr;

use candle_engine::weights::{Stored, Weights};
use candle_engine::{Error, Result};
use candle_engine_quantization::compressed_tensors::{suffix, Converted};
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
    /// Names of matrices of integers whose activations take 16 bits.
    pub precise: Vec<String>,
}

/// Ends the name of a format of integers with activations of 16 bits.
const PRECISE: &str = "-a16";
const ALL: &str = "*";

impl Recipe {
    /// The default for a format: of 4 bits, the head takes 8, for its errors go straight into the logits.
    pub fn new(target: Target) -> Self {
        let head = match target {
            Target::Int4 { .. } => Target::INT8,
            Target::Q4_0 => Target::Q8_0,
            other => other,
        };
        let embedding = if target.is_grouped() { None } else { Some(head) };
        Self { target, head: Some(head), embedding, keep: Vec::new(), precise: Vec::new() }
    }

    /// The formats of layers, head and embedding.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        [Some(self.target), self.head, self.embedding].into_iter().flatten()
    }

    pub(super) fn keeps(&self, name: &str) -> bool {
        self.keep.iter().any(|pattern| means(pattern, name))
    }
}

/// A [`Target`], whose activations take 16 bits if `-a16` ends it.
impl FromStr for Recipe {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let word = word.to_ascii_lowercase();
        let Some(format) = word.strip_suffix(PRECISE) else { return word.parse().map(Self::new) };
        match format.parse()? {
            target if Target::is_grouped(target) => {
                Ok(Self { precise: vec![ALL.into()], ..Self::new(target) })
            }
            other => {
                Err(format!("no format `{word}`: only int8 and int4 end in {PRECISE}, {other} does not"))
            }
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precise = self.precise.iter().any(|pattern| pattern == ALL);
        write!(f, "{}{}", self.target, if precise { PRECISE } else { "" })
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
    /// Whether its activations take 16 bits.
    pub precise: bool,
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
    /// A head that is the embedding becomes a matrix of its own unless both become the same floats or blocks: other
    /// programs tie no integers.
    ///
    /// Errors: `Tensor` for a matrix that cannot be converted, and if the model is quantized already; `Input` for a
    /// pattern that nothing fits.
    pub fn new(
        recipe: &Recipe,
        weights: &dyn Weights,
        names: &TensorNames,
        config: &DecoderConfig,
    ) -> Result<Self> {
        Self::of(recipe, weights, names, &[names.layers], config.tied_head)
    }

    /// Plans a model whose layers' names begin with one of `layers`, and whose head is the embedding if `tied`.
    ///
    /// Errors: as [`Self::new`].
    pub(crate) fn of(
        recipe: &Recipe,
        weights: &dyn Weights,
        names: &TensorNames,
        layers: &[&str],
        tied: bool,
    ) -> Result<Self> {
        let all = weights.names();
        if let Some(name) = all.iter().find(|name| name.ends_with(suffix::SCALE)) {
            let what = "the model is quantized already: begin with the one that it was made of".into();
            return Err(Error::Tensor { name: name.clone(), what });
        }
        let is_there =
            |pattern: &String| all.iter().any(|name| means(pattern, name)) || means(pattern, names.head);
        if let Some(pattern) = recipe.keep.iter().find(|pattern| !is_there(pattern)) {
            return Err(Error::Input(format!("no tensor is called `{pattern}`: {}", example(&all))));
        }
        let head = recipe.head.filter(|_| !recipe.keeps(names.head));
        let embedding = recipe.embedding.filter(|_| !recipe.keeps(names.embedding));
        let unties = head != embedding || embedding.is_some_and(Target::is_grouped);
        let (mut steps, mut untied) = (Vec::new(), false);
        for name in all {
            let source = weights.get(&name)?;
            let base = name.strip_suffix(".weight").filter(|_| source.shape.len() == 2);
            let rest = layers.iter().find_map(|layers| name.strip_prefix(layers));
            let layer = rest.and_then(|rest| rest.split('.').next()?.parse().ok());
            let role = match base {
                Some(base) if base == names.embedding => embedding,
                Some(base) if base == names.head => head,
                Some(base) if layer.is_some() && !is_router(base) => Some(recipe.target),
                _ => None,
            };
            if base == Some(names.embedding) && tied && unties {
                let copy = || Ok(Step::copy(source.clone(), format!("{}.weight", names.head), None));
                steps.push(
                    head.map_or_else(copy, |target| Step::convert(source.clone(), names.head, target, None))?,
                );
                untied = true;
            }
            steps.push(match (base, role) {
                (Some(base), Some(target)) if !recipe.keeps(&name) => {
                    Step::convert(source, base, target, layer)?
                }
                _ => Step::copy(source, name, layer),
            });
        }
        for pattern in &recipe.precise {
            let integers = steps.iter_mut().filter(|step| step.target.is_some_and(Target::is_grouped));
            let mut meant = integers.filter(|step| means(pattern, &step.name)).peekable();
            if meant.peek().is_none() {
                let what =
                    format!("no matrix of integers is called `{pattern}`: {}", example(&weights.names()));
                return Err(Error::Input(what));
            }
            meant.for_each(|step| step.precise = true);
        }
        Ok(Self { steps, untied, tied: tied && !untied })
    }

    /// The matrices that are converted, and to what.
    pub fn converted(&self, names: &TensorNames) -> Vec<Converted> {
        let converted = |step: &Step| {
            let (name, table) = (step.name.clone(), step.name == names.embedding);
            Some(Converted { name, target: step.target?, precise: step.precise, table })
        };
        self.steps.iter().filter_map(converted).collect()
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

impl Step {
    fn copy(source: Stored, name: String, layer: Option<usize>) -> Self {
        Self { source, name, target: None, precise: false, layer }
    }

    fn convert(source: Stored, name: &str, target: Target, layer: Option<usize>) -> Result<Self> {
        let width = Rows::new(&source)?.shape().1;
        let target = Some(target.for_width(width));
        Ok(Self { source, name: name.into(), target, precise: false, layer })
    }
}

/// Which expert takes a token is decided by small differences.
fn is_router(base: &str) -> bool {
    [".gate", ".router", ".gate_inp", ".ffn_gate_inp"].iter().any(|end| base.ends_with(end))
}

/// Says how tensors are called.
fn example(names: &[String]) -> String {
    let name = names.iter().find(|name| name.ends_with("proj.weight")).or(names.first());
    format!("names are like `{}`", name.map_or("", String::as_str))
}

/// Whether a pattern means a tensor, with `.weight` or without.
pub(super) fn means(pattern: &str, name: &str) -> bool {
    matches(pattern, name) || name.strip_suffix(".weight").is_some_and(|base| matches(pattern, base))
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
    fn words_and_back() {
        for word in ["int8", "int8-a16", "int4-g32-asym-a16", "q4_0"] {
            assert_eq!(word.parse::<Recipe>().unwrap().to_string(), word);
        }
        for word in ["int8-a17", "q8_0-a16", "-a16", "int8-a16-a16"] {
            assert!(word.parse::<Recipe>().unwrap_err().contains("no format `"), "{word}");
        }
    }

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
