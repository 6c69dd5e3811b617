//! Rotary position embedding: frequencies from a configuration, tables for the positions at hand.

use candle_engine::ops::{RopeStyle, RopeTable};
use candle_engine::{Error, Result};

use crate::hf_config::HfConfig;

/// How queries and keys are rotated.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Numbers of a head that are rotated.
    pub dim: usize,
    /// Base of the wavelengths.
    pub theta: f64,
    /// How the frequencies are stretched for long contexts.
    pub scaling: Scaling,
    /// Which numbers of a head form a pair.
    pub style: RopeStyle,
}

/// How a model was stretched to contexts longer than those of its training.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// All positions divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a smooth passage between.
    Llama3 {
        /// Divides the low frequencies.
        factor: f64,
        /// Wavelengths above `original_context` over this are low.
        low_freq_factor: f64,
        /// Wavelengths below `original_context` over this are high.
        high_freq_factor: f64,
        /// Context of the first training, in positions.
        original_context: f64,
    },
    /// YaRN. Source: <https://arxiv.org/abs/2309.00071>, section 3.
    Yarn(Yarn),
    /// One divisor per frequency (GGUF's `rope_freqs.weight`), `[dim / 2]`.
    Divisors(Vec<f32>),
}

/// Parameters of YaRN.
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    /// Divides the low frequencies.
    pub factor: f64,
    /// Context of the first training, in positions.
    pub original_context: f64,
    /// Rotations over the original context above which a frequency is kept.
    pub beta_fast: f64,
    /// Rotations below which it is divided in full.
    pub beta_slow: f64,
    /// Multiplies cosine and sine.
    pub attention_factor: f64,
    /// Whether the bounds of the ramp are rounded outwards.
    pub truncate: bool,
}

impl RopeConfig {
    /// Reads either dialect: `rope_theta` + `rope_scaling`, or `rope_parameters`.
    ///
    /// Errors: `Config` naming the key, also for a `rope_type` that is not known.
    pub fn from_hf(config: &HfConfig, dim: usize, default_theta: f64) -> Result<Self> {
        let theta = config.number("rope_theta")?;
        let new = config.object("rope_parameters")?;
        let old = config.object("rope_scaling")?;
        let (at, scaling) = match (&old, &new) {
            (Some(old), _) => ("rope_scaling.", Some(old)),
            (None, Some(new)) => ("rope_parameters.", Some(new)),
            (None, None) => ("", None),
        };
        let context = config.size_or("max_position_embeddings", None)?;
        let mut rope = Self {
            dim,
            theta: theta.unwrap_or(default_theta),
            scaling: Scaling::None,
            style: RopeStyle::Half,
        };
        if let Some(scaling) = scaling {
            if let Some(theta) = scaling.number("rope_theta")? {
                rope.theta = theta;
            }
            rope.scaling = Scaling::from_hf(scaling, at, context)?;
            scaling.finish(at)?;
        }
        Ok(rope)
    }

    /// Refuses what cannot be a rotary embedding.
    pub fn validate(&self) -> Result<()> {
        if !(self.theta.is_finite() && self.theta > 0.0) {
            return Err(Error::config("rope_theta", format!("expected more than 0, got {}", self.theta)));
        }
        let factor = match &self.scaling {
            Scaling::Linear { factor } | Scaling::Llama3 { factor, .. } => *factor,
            Scaling::Yarn(yarn) => yarn.factor,
            Scaling::Divisors(d) if d.len() != self.dim / 2 => {
                let what = format!("expected {} numbers, got {}", self.dim / 2, d.len());
                return Err(Error::Tensor { name: "rope_freqs.weight".into(), what });
            }
            Scaling::None | Scaling::Divisors(_) => 1.0,
        };
        if !(factor.is_finite() && factor > 0.0) {
            return Err(Error::config("rope_scaling.factor", format!("expected more than 0, got {factor}")));
        }
        Ok(())
    }

    /// The angle that each pair turns per position, `[dim / 2]`, and what cosine and sine are multiplied by.
    ///
    /// Computed in f32, as the reference does: the fixtures' tolerances leave no room for a better rounding.
    pub fn frequencies(&self) -> (Vec<f32>, f32) {
        let (dim, theta) = (self.dim, self.theta as f32);
        let base: Vec<f32> = (0..dim / 2).map(|i| 1.0 / theta.powf(2.0 * i as f32 / dim as f32)).collect();
        match &self.scaling {
            Scaling::None => (base, 1.0),
            Scaling::Linear { factor } => (base.iter().map(|f| f / *factor as f32).collect(), 1.0),
            Scaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context } => {
                let stretch = |f: f32| {
                    let wavelength = 2.0 * std::f64::consts::PI / f64::from(f);
                    if wavelength < original_context / high {
                        f
                    } else if wavelength > original_context / low {
                        (f64::from(f) / factor) as f32
                    } else {
                        let smooth = (original_context / wavelength - low) / (high - low);
                        (f64::from(f) * ((1.0 - smooth) / factor + smooth)) as f32
                    }
                };
                (base.into_iter().map(stretch).collect(), 1.0)
            }
            Scaling::Yarn(yarn) => (yarn.stretch(&base, self.theta, dim), yarn.attention_factor as f32),
            Scaling::Divisors(divisors) => (base.iter().zip(divisors).map(|(f, d)| f / d).collect(), 1.0),
        }
    }

    /// The table for these positions.
    pub fn table(&self, positions: &[usize]) -> RopeTable {
        let (frequencies, factor) = self.frequencies();
        RopeTable::new(&frequencies, factor, positions, self.style)
    }
}

impl Scaling {
    fn from_hf(c: &HfConfig, at: &str, context: Option<usize>) -> Result<Self> {
        let kind = c.string("rope_type")?.or(c.string("type")?).unwrap_or("default").to_owned();
        let number =
            |key: &str| c.number(key)?.ok_or_else(|| Error::config(format!("{at}{key}"), "is missing"));
        let original = || match c.number("original_max_position_embeddings")? {
            Some(n) => Ok(n),
            None => context
                .map(|n| n as f64)
                .ok_or_else(|| Error::config(format!("{at}original_max_position_embeddings"), "is missing")),
        };
        Ok(match kind.as_str() {
            "default" => Self::None,
            "linear" => Self::Linear { factor: number("factor")? },
            // Grows only beyond the trained context, and the engine ends there.
            "dynamic" => {
                c.number("factor")?;
                c.number("original_max_position_embeddings")?;
                Self::None
            }
            "llama3" => Self::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_context: original()?,
            },
            "yarn" => {
                let factor = number("factor")?;
                let mscale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
                // All are read, though a given attention factor outranks the others.
                let scales = (c.number("mscale")?, c.number("mscale_all_dim")?);
                let attention_factor = match (c.number("attention_factor")?, scales) {
                    (Some(given), _) => given,
                    (None, (Some(m), Some(all))) if m != 0.0 && all != 0.0 => mscale(m) / mscale(all),
                    (None, _) => mscale(1.0),
                };
                Self::Yarn(Yarn {
                    factor,
                    original_context: original()?,
                    beta_fast: c.number("beta_fast")?.unwrap_or(32.0),
                    beta_slow: c.number("beta_slow")?.unwrap_or(1.0),
                    attention_factor,
                    truncate: c.flag("truncate", true)?,
                })
            }
            other => {
                let what =
                    format!("`{other}` is not known: expected default, linear, dynamic, llama3 or yarn");
                return Err(Error::config(format!("{at}rope_type"), what));
            }
        })
    }
}

impl Yarn {
    fn stretch(&self, base: &[f32], theta: f64, dim: usize) -> Vec<f32> {
        let turns = |n: f64| {
            dim as f64 * (self.original_context / (n * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (turns(self.beta_fast), turns(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
        if low == high {
            high += 0.001; // keeps the ramp finite
        }
        base.iter()
            .enumerate()
            .map(|(i, &f)| {
                let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0) as f32;
                f / self.factor as f32 * divided + f * (1.0 - divided)
            })
            .collect()
    }
}
