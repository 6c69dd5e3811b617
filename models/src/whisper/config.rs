//! A Whisper model in numbers.

use candle_engine::{Error, Result};
use candle_engine_quantization::compressed_tensors;

use crate::blocks::Act;
use crate::hf_config::HfConfig;

/// Sizes of one of the two stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackDims {
    /// Number of layers.
    pub layers: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Positions: frames of the encoder's output, tokens of the decoder.
    pub positions: usize,
}

/// Everything that may differ between Whisper models.
#[derive(Debug, Clone, PartialEq)]
pub struct WhisperConfig {
    /// Width of the residual streams.
    pub hidden: usize,
    /// Bins of the log-mel spectrogram: 80, or 128 from large-v3 on.
    pub mels: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Activation of the feed-forward layers; that of the convolutions is GELU.
    pub act: Act,
    /// The stack that hears.
    pub encoder: StackDims,
    /// The stack that writes.
    pub decoder: StackDims,
}

/// Log-mel frames for each position of the encoder: its second convolution has this stride.
pub const FRAMES_PER_POSITION: usize = 2;
/// Added to the variance by every norm; torch's default, which the checkpoints do not state.
pub const NORM_EPS: f32 = 1e-5;

/// Bounds far above every published model: what lies beyond is a broken file, not a large model.
const MOST: usize = 1 << 20;
const MOST_LAYERS: usize = 1024;

/// Keys of `config.json` that are about training or decoding defaults.
const NOT_MATHS: &[&str] = &[
    "apply_spec_augment",
    "classifier_proj_size",
    "forced_decoder_ids",
    "init_std",
    "is_encoder_decoder",
    "mask_feature_length",
    "mask_feature_min_masks",
    "mask_feature_prob",
    "mask_time_length",
    "mask_time_min_masks",
    "mask_time_prob",
    "max_length",
    "median_filter_width",
    "num_hidden_layers",
    "decoder_layerdrop",
    "encoder_layerdrop",
    "tie_word_embeddings",
];

impl WhisperConfig {
    /// Reads a `config.json`.
    ///
    /// Errors: `Config` naming a key that is missing, wrong, or not understood.
    pub fn from_hf(c: &HfConfig) -> Result<Self> {
        match c.string("model_type")? {
            Some("whisper") => {}
            Some(other) => {
                return Err(Error::config("model_type", format!("expected whisper, got `{other}`")))
            }
            None => return Err(Error::config("model_type", "expected whisper, it is missing")),
        }
        NOT_MATHS.iter().for_each(|key| _ = c.get(key));
        if let Some(quantization) = c.get("quantization_config") {
            compressed_tensors::check(quantization)?;
        }
        if c.flag("scale_embedding", false)? {
            return Err(Error::config("scale_embedding", "expected false, got true"));
        }
        let act = match c.string("activation_function")?.unwrap_or("gelu") {
            "gelu" => Act::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Act::GeluTanh,
            "relu" => Act::Relu,
            "silu" | "swish" => Act::Silu,
            other => {
                let what = format!("expected gelu, gelu_new, relu or silu, got `{other}`");
                return Err(Error::config("activation_function", what));
            }
        };
        let stack = |name: &str, positions: &str| -> Result<StackDims> {
            Ok(StackDims {
                layers: c.size(&format!("{name}_layers"))?,
                heads: c.size(&format!("{name}_attention_heads"))?,
                ffn: c.size(&format!("{name}_ffn_dim"))?,
                positions: c.size(positions)?,
            })
        };
        let config = Self {
            hidden: c.size("d_model")?,
            mels: c.size("num_mel_bins")?,
            vocab: c.size("vocab_size")?,
            act,
            encoder: stack("encoder", "max_source_positions")?,
            decoder: stack("decoder", "max_target_positions")?,
        };
        c.finish("")?;
        config.validate()?;
        Ok(config)
    }

    /// Refuses sizes that contradict one another.
    ///
    /// Errors: `Config` naming the key.
    pub fn validate(&self) -> Result<()> {
        let (e, d) = (&self.encoder, &self.decoder);
        for (key, n, most) in [
            ("d_model", self.hidden, MOST),
            ("num_mel_bins", self.mels, MOST),
            ("vocab_size", self.vocab, 1 << 24),
            ("encoder_layers", e.layers, MOST_LAYERS),
            ("decoder_layers", d.layers, MOST_LAYERS),
            ("encoder_attention_heads", e.heads, MOST),
            ("decoder_attention_heads", d.heads, MOST),
            ("encoder_ffn_dim", e.ffn, MOST),
            ("decoder_ffn_dim", d.ffn, MOST),
            ("max_source_positions", e.positions, MOST),
            ("max_target_positions", d.positions, MOST),
        ] {
            if n == 0 || n > most {
                return Err(Error::config(key, format!("expected 1 to {most}, got {n}")));
            }
        }
        for (key, heads) in [("encoder_attention_heads", e.heads), ("decoder_attention_heads", d.heads)] {
            if !self.hidden.is_multiple_of(heads) {
                let what = format!("{heads} heads do not divide a width of {}", self.hidden);
                return Err(Error::config(key, what));
            }
        }
        Ok(())
    }

    /// Log-mel frames that the encoder takes at once: 3000, 30 seconds, in all published models.
    pub fn frames(&self) -> usize {
        FRAMES_PER_POSITION * self.encoder.positions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: &str = r#"{"model_type":"whisper","d_model":384,"encoder_layers":4,"decoder_layers":4,
        "encoder_attention_heads":6,"decoder_attention_heads":6,"encoder_ffn_dim":1536,"decoder_ffn_dim":1536,
        "num_mel_bins":80,"vocab_size":51865,"max_source_positions":1500,"max_target_positions":448,
        "activation_function":"gelu","scale_embedding":false}"#;

    fn read(text: &str) -> Result<WhisperConfig> {
        WhisperConfig::from_hf(&HfConfig::from_bytes("config.json", text.as_bytes())?)
    }

    #[test]
    fn a_published_configuration() {
        let config = read(TINY).unwrap();
        assert_eq!((config.frames(), config.decoder.positions, config.act), (3000, 448, Act::Gelu));
    }

    #[test]
    fn errors_name_the_key() {
        for (from, to, key) in [
            ("\"whisper\"", "\"llama\"", "model_type"),
            ("384", "383", "encoder_attention_heads"),
            ("\"num_mel_bins\":80", "\"num_mel_bins\":0", "num_mel_bins"),
            ("\"scale_embedding\":false", "\"scale_embedding\":true", "scale_embedding"),
            ("\"gelu\"", "\"mish\"", "activation_function"),
            ("\"d_model\"", "\"alibi\":true,\"d_model\"", "alibi"),
        ] {
            let error = read(&TINY.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
    }
}
