//! One test: warmed up, repeated, timed.

use std::time::{Duration, Instant};

use candle_engine::kv::{Batch, KvCache};
use candle_engine::memory;
use candle_engine::session::{LanguageModel, PREFILL_CHUNK};
use candle_engine_models::decoder::DecoderConfig;
use candle_engine_models::{LoadOptions, Model, Result, Source};

use crate::exit::{Failure, Outcome};
use crate::output::Ui;
use crate::progress::{Progress, Unit};

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    /// Tokens in the cache beforehand.
    pub depth: usize,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A prompt of so many tokens.
    Prefill(usize),
    /// So many tokens, one by one, of each of `batch` sequences.
    Decode { tokens: usize, batch: usize },
}

/// A model that was opened for one number of threads.
pub struct Opened {
    pub model: Model,
    pub load: Duration,
    pub first_token: Duration,
    /// Bytes of memory that is no file's, after the first token.
    pub anonymous: Option<u64>,
}

impl Opened {
    pub fn new(source: &Source, options: &LoadOptions) -> Outcome<Self> {
        let start = Instant::now();
        let model = Model::from_source(source, options)?;
        let load = start.elapsed();
        model.session().feed(&[0])?;
        let first_token = start.elapsed();
        Ok(Self { load, first_token, anonymous: memory::anonymous(), model })
    }

    /// Seconds of each repetition, sorted.
    pub fn measure(&self, test: &Test, name: &str, repetitions: usize, ui: &Ui) -> Outcome<Vec<f64>> {
        let (tokens, sequences) = (test.kind.tokens(), test.kind.sequences());
        let (dims, context) = (&self.model.decoder().config().dims, self.model.decoder().context());
        if test.depth + tokens > context {
            return Err(Failure::input(format!("{test}: the context holds {context} tokens")));
        }
        let mut progress = Progress::new(ui, format!("{name} {test}"), Unit::Steps, repetitions as u64 + 1);
        let text = tokens_of(test.depth + tokens, dims.vocab);
        let (before, text) = text.split_at(test.depth);
        // A past of its own for each: one that is shared would be found in a cache of the CPU.
        let mut caches: Vec<_> = (0..sequences).map(|_| self.model.decoder().new_cache()).collect();
        for cache in &mut caches {
            self.prefill(before, cache)?;
        }
        let mut times = Vec::with_capacity(repetitions);
        // The first one only warms up.
        for i in 0..=repetitions {
            progress.set(i as u64);
            caches.iter_mut().for_each(|cache| cache.truncate(test.depth));
            let start = Instant::now();
            match test.kind {
                Kind::Prefill(_) => self.prefill(text, &mut caches[0])?,
                Kind::Decode { .. } => self.decode(text, &mut caches)?,
            }
            if i > 0 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    }

    fn prefill(&self, text: &[u32], cache: &mut KvCache) -> Result<()> {
        for chunk in text.chunks(PREFILL_CHUNK) {
            self.model
                .decoder()
                .forward(&mut Batch::single(chunk, cache)?)?
                .flatten_all()?
                .to_vec1::<f32>()?;
        }
        Ok(())
    }

    fn decode(&self, text: &[u32], caches: &mut [KvCache]) -> Result<()> {
        for id in text {
            let mut batch = Batch::default();
            for cache in &mut *caches {
                batch.push(&[*id], cache, false)?;
            }
            self.model.decoder().forward(&mut batch)?.flatten_all()?.to_vec1::<f32>()?;
        }
        Ok(())
    }

    /// Bytes that the test reads at least: the weights once per pass, keys and values once per token decoded.
    pub fn bytes(&self, test: &Test) -> f64 {
        let weights = self.model.bytes_per_pass() as f64;
        match test.kind {
            Kind::Prefill(n) => weights * n.div_ceil(PREFILL_CHUNK) as f64,
            Kind::Decode { tokens, batch } => {
                let config = self.model.decoder().config();
                let cache = self.model.decoder().new_cache();
                let per_layer = cache.layout().bytes_per_position() / config.dims.layers;
                let seen = |position: usize| -> usize {
                    config.layers.iter().map(|layer| layer.window.map_or(position, |w| w.min(position))).sum()
                };
                let positions: usize = (1..=tokens).map(|i| seen(test.depth + i)).sum();
                weights * tokens as f64 + (batch * positions * per_layer) as f64
            }
        }
    }
}

/// Multiplications and additions of the matrices on the way of so many tokens; the head is for the last of each
/// chunk alone.
pub fn operations(config: &DecoderConfig, tokens: usize) -> f64 {
    let d = &config.dims;
    let attention = 2 * d.hidden * d.head_dim * (d.heads + d.kv_heads);
    let layers = d.layers * (attention + 3 * d.hidden * d.ffn) * tokens;
    2.0 * (layers + d.hidden * d.vocab * tokens.div_ceil(PREFILL_CHUNK)) as f64
}

impl Kind {
    fn sequences(self) -> usize {
        match self {
            Self::Prefill(_) => 1,
            Self::Decode { batch, .. } => batch,
        }
    }

    /// Tokens of one sequence.
    fn tokens(self) -> usize {
        match self {
            Self::Prefill(tokens) | Self::Decode { tokens, .. } => tokens,
        }
    }
}

impl Test {
    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.kind.tokens() * self.kind.sequences()
    }
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Kind::Prefill(n) => write!(f, "pp{n}")?,
            Kind::Decode { tokens, .. } => write!(f, "tg{tokens}")?,
        }
        if self.kind.sequences() > 1 {
            write!(f, "x{}", self.kind.sequences())?;
        }
        if self.depth > 0 {
            write!(f, "@d{}", self.depth)?;
        }
        Ok(())
    }
}

/// Tokens without a pattern, the same each time.
fn tokens_of(n: usize, vocab: usize) -> Vec<u32> {
    // Source: Knuth, TAOCP vol. 2, 3.3.4, the multiplier of MMIX.
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab as u64) as u32
    };
    std::iter::repeat_with(next).take(n).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_named_as_in_llama_bench() {
        let decode = |batch| Kind::Decode { tokens: 64, batch };
        assert_eq!(Test { depth: 0, kind: Kind::Prefill(512) }.to_string(), "pp512");
        assert_eq!(Test { depth: 4096, kind: decode(1) }.to_string(), "tg64@d4096");
        assert_eq!(Test { depth: 0, kind: decode(8) }.to_string(), "tg64x8");
        assert_eq!(Test { depth: 0, kind: decode(8) }.tokens(), 512);
        assert!(tokens_of(100, 7).iter().all(|&id| id < 7));
    }
}
