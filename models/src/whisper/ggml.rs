//! whisper.cpp's checkpoints, under the names of the Hub's.

use std::path::Path;

use candle_engine::text::Tokenizer;
use candle_engine::weights::ggml::Sizes;
use candle_engine::weights::{Ggml, Stored, Weights};
use candle_engine::{Context, Error, Result};
use candle_engine_quantization::compressed_tensors::Activations;

use super::languages::LANGUAGES;
use super::open::Parts;
use super::prefixed::prefixed;
use super::{StackDims, WhisperConfig};
use crate::blocks::Act;

/// Parts of names: the Hub's, and openai-whisper's, which whisper.cpp kept. The first that fits counts.
const NAMES: &[(&str, &str)] = &[
    ("encoder.layer_norm.", "encoder.ln_post."),
    ("decoder.layer_norm.", "decoder.ln."),
    ("encoder.embed_positions.weight", "encoder.positional_embedding"),
    ("decoder.embed_positions.weight", "decoder.positional_embedding"),
    ("decoder.embed_tokens.weight", "decoder.token_embedding.weight"),
    (".self_attn_layer_norm.", ".attn_ln."),
    (".encoder_attn_layer_norm.", ".cross_attn_ln."),
    (".final_layer_norm.", ".mlp_ln."),
    (".encoder_attn.", ".cross_attn."),
    (".self_attn.", ".attn."),
    (".layers.", ".blocks."),
    (".q_proj.", ".query."),
    (".k_proj.", ".key."),
    (".v_proj.", ".value."),
    (".out_proj.", ".out."),
    (".fc1.", ".mlp.0."),
    (".fc2.", ".mlp.2."),
];

/// A checkpoint whose tensors go by other names.
struct Renamed(Ggml);

impl Renamed {
    fn theirs(name: &str) -> String {
        NAMES.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replacen(ours, theirs, 1))
    }

    fn ours(name: &str) -> String {
        NAMES.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replacen(theirs, ours, 1))
    }
}

impl Weights for Renamed {
    fn get(&self, name: &str) -> Result<Stored> {
        let stored = self.0.get(&Self::theirs(name)).map_err(|e| match e {
            Error::MissingTensor { .. } => Error::MissingTensor { name: name.into() },
            other => other,
        })?;
        // Biases of convolutions are stored as columns.
        let shape = match stored.shape[..] {
            [n, 1] if name.ends_with(".bias") => vec![n],
            _ => stored.shape,
        };
        Ok(Stored { name: name.into(), shape, ..stored })
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains(&Self::theirs(name))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.names().iter().map(|name| Self::ours(name)).collect();
        names.sort();
        names
    }
}

/// Reads a file.
///
/// Errors: `Io` and `Malformed` naming it; `Config` naming a size.
pub(super) fn open(path: &Path) -> Result<Parts> {
    let ggml = Ggml::open(path)?;
    let config = config(ggml.sizes()).at(path.display())?;
    let languages = languages(&ggml, &config);
    let tokenizer = tokenizer(&ggml, &config, languages);
    Ok(Parts {
        multilingual: Some(config.vocab >= super::alignment_heads::MULTILINGUAL_VOCAB || languages > 99),
        config,
        tokenizer,
        alignment_heads: None,
        takes_previous_text: true,
        activations: Activations::default(),
        weights: prefixed(Renamed(ggml)),
    })
}

fn config(sizes: Sizes) -> Result<WhisperConfig> {
    if sizes.n_audio_state != sizes.n_text_state {
        let what = format!("encoder {}, decoder {}", sizes.n_audio_state, sizes.n_text_state);
        return Err(Error::config("n_text_state", what));
    }
    let hidden = sizes.n_audio_state;
    let stack = |layers, heads, positions| StackDims { layers, heads, ffn: 4 * hidden, positions };
    let config = WhisperConfig {
        hidden,
        mels: sizes.n_mels,
        vocab: sizes.n_vocab,
        act: Act::Gelu,
        encoder: stack(sizes.n_audio_layer, sizes.n_audio_head, sizes.n_audio_ctx),
        decoder: stack(sizes.n_text_layer, sizes.n_text_head, sizes.n_text_ctx),
    };
    config.validate()?;
    Ok(config)
}

const END: &str = "<|endoftext|>";
/// Tokens after the languages, up to the times.
const CONTROLS: [&str; 6] = [
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
];

/// Tokens that are text: some files list the one that ends it as well.
fn text(ggml: &Ggml) -> &[Vec<u8>] {
    let all = ggml.vocabulary();
    let end = all.iter().position(|token| token == END.as_bytes()).unwrap_or(all.len());
    &all[..end]
}

/// What is left for languages between text and times: one time for each position of the encoder, and the end.
fn languages(ggml: &Ggml, config: &WhisperConfig) -> usize {
    let others = text(ggml).len() + 2 + CONTROLS.len() + config.encoder.positions + 1;
    config.vocab.saturating_sub(others).min(LANGUAGES.len())
}

/// The vocabulary of the file, and the tokens that follow from the model's sizes.
fn tokenizer(ggml: &Ggml, config: &WhisperConfig, languages: usize) -> Result<Tokenizer> {
    let mut special = vec![END.to_owned(), "<|startoftranscript|>".to_owned()];
    special.extend(LANGUAGES[..languages].iter().map(|(code, _)| format!("<|{code}|>")));
    special.extend(CONTROLS.map(str::to_owned));
    let text = text(ggml);
    if text.len() + special.len() > config.vocab {
        let what = format!("{} tokens are text, too many for {} in all", text.len(), config.vocab);
        return Err(Error::Tokenizer(what));
    }
    Tokenizer::from_ranks(text, &special)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_there_and_back() {
        for (ours, theirs) in [
            ("encoder.conv1.weight", "encoder.conv1.weight"),
            ("encoder.layers.3.self_attn.q_proj.bias", "encoder.blocks.3.attn.query.bias"),
            ("decoder.layers.0.encoder_attn.out_proj.weight", "decoder.blocks.0.cross_attn.out.weight"),
            ("decoder.layers.0.encoder_attn_layer_norm.bias", "decoder.blocks.0.cross_attn_ln.bias"),
            ("decoder.layers.11.fc2.weight", "decoder.blocks.11.mlp.2.weight"),
            ("decoder.layers.1.final_layer_norm.weight", "decoder.blocks.1.mlp_ln.weight"),
            ("decoder.layer_norm.weight", "decoder.ln.weight"),
            ("encoder.layer_norm.bias", "encoder.ln_post.bias"),
            ("decoder.embed_positions.weight", "decoder.positional_embedding"),
        ] {
            assert_eq!(Renamed::theirs(ours), theirs);
            assert_eq!(Renamed::ours(theirs), ours);
        }
    }
}
