//! Tokenizers from GGUF metadata.
//!
//! Source: the keys `tokenizer.ggml.*` of ggml's `docs/gguf.md`; which pre-tokenizer a name in
//! `tokenizer.ggml.pre` stands for is settled by llama.cpp's converter, their patterns by the models' own
//! `tokenizer.json` files.

use super::added::{Added, AddedToken};
use super::bpe::{Bpe, Merges, Options, Unk};
use super::decode::{Decoder, Rule};
use super::merges::MergeTable;
use super::normalize::{Form, Normalizer};
use super::parts::Frame;
use super::pattern::{Pattern, GPT2, LLAMA3, QWEN2, QWEN35};
use super::split::{Behavior, Splitter};
use super::vocab::{Repeats, Vocab};
use super::{Kind, Pipeline, Tokenizer};
use crate::weights::gguf::Metadata;
use crate::{Error, Result};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const UNK: &str = "tokenizer.ggml.unknown_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";

/// Values of `token_type`.
mod token_type {
    pub const NORMAL: i64 = 1;
    pub const UNKNOWN: i64 = 2;
    pub const CONTROL: i64 = 3;
    pub const USER_DEFINED: i64 = 4;
    pub const UNUSED: i64 = 5;
}

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file describes: kind `llama` (SentencePiece's byte-pair encoding with
    /// byte fallback) or `gpt2` (byte-level, with one of the known pre-tokenizers).
    ///
    /// Errors: `Config` naming the key that is missing, wrong, or of a kind that is not known.
    pub fn from_gguf(meta: &Metadata) -> Result<Self> {
        let model = meta.str(MODEL).ok_or_else(|| Error::config(MODEL, "is missing"))?;
        match model {
            "llama" => sentencepiece(meta),
            "gpt2" => byte_level(meta),
            kind => Err(Error::config(MODEL, format!("expected llama or gpt2, got {kind:?}"))),
        }
    }
}

/// What both kinds have.
struct Common {
    vocab: Vocab,
    types: Vec<i64>,
    added: Vec<AddedToken>,
}

impl Common {
    fn read(meta: &Metadata) -> Result<Self> {
        let tokens =
            meta.strings(TOKENS).ok_or_else(|| Error::config(TOKENS, "expected a list of strings"))?;
        let count = tokens.len();
        let types = match meta.get(TYPES) {
            None => vec![token_type::NORMAL; count],
            Some(_) => meta.ints(TYPES).ok_or_else(|| Error::config(TYPES, "expected a list of integers"))?,
        };
        same_length(TYPES, types.len(), count)?;
        let entries = tokens.iter().enumerate().map(|(id, token)| (*token, id as u32));
        let vocab = Vocab::new(entries, Repeats::Allowed)?;
        let added = tokens
            .iter()
            .zip(&types)
            .filter(|(_, kind)| {
                matches!(**kind, token_type::UNKNOWN | token_type::CONTROL | token_type::USER_DEFINED)
            })
            .map(|(token, kind)| AddedToken {
                content: (*token).to_owned(),
                special: *kind != token_type::USER_DEFINED,
                ..AddedToken::default()
            })
            .collect();
        Ok(Self { vocab, types, added })
    }

    fn finish(self, meta: &Metadata, model: Model) -> Result<Tokenizer> {
        let count = self.types.len();
        let (bos, eos) = (special(meta, BOS, count)?, special(meta, EOS, count)?);
        let mut frame = Frame::default();
        if meta.bool(ADD_BOS).unwrap_or(model.adds_bos) {
            let id = bos.ok_or_else(|| Error::config(BOS, format!("is missing, but `{ADD_BOS}` is true")));
            // By default only if there is one.
            match id {
                Ok(id) => frame.before.push(id),
                Err(e) if meta.bool(ADD_BOS).is_some() => return Err(e),
                Err(_) => {}
            }
        }
        if meta.bool(ADD_EOS).unwrap_or(false) {
            frame
                .after
                .push(eos.ok_or_else(|| Error::config(EOS, format!("is missing, but `{ADD_EOS}` is true")))?);
        }
        let Model { merges, options, normalizer, splitters, decoder, .. } = model;
        let added = Added::new(self.added, &self.vocab, &normalizer);
        let model = Bpe::new(self.vocab, merges, options);
        let pipeline = Pipeline { added, normalizer, splitters, model, frame, decoder };
        Ok(Tokenizer { kind: Kind::Bpe(Box::new(pipeline)), bos, eos })
    }
}

/// What the kinds differ in.
struct Model {
    merges: Merges,
    options: Options,
    normalizer: Vec<Normalizer>,
    splitters: Vec<Splitter>,
    decoder: Decoder,
    adds_bos: bool,
}

fn sentencepiece(meta: &Metadata) -> Result<Tokenizer> {
    let common = Common::read(meta)?;
    let scores = meta.f32s(SCORES).ok_or_else(|| Error::config(SCORES, "expected a list of floats"))?;
    same_length(SCORES, scores.len(), common.types.len())?;
    let is_text = |kind| matches!(kind, token_type::NORMAL | token_type::USER_DEFINED | token_type::UNUSED);
    let scores =
        scores.into_iter().zip(&common.types).map(|(score, kind)| is_text(*kind).then_some(score)).collect();
    let unk = special(meta, UNK, common.types.len())?;
    let prefix = meta.bool(SPACE_PREFIX).unwrap_or(true);
    let mut normalizer = Vec::new();
    if prefix {
        normalizer.push(Normalizer::Prepend("▁".into()));
    }
    normalizer.push(Normalizer::Replace(Pattern::Text(" ".into()), "▁".into()));
    let model = Model {
        merges: Merges::Scored(scores),
        options: Options {
            byte_fallback: true,
            fuse_unk: true,
            unk: Some(unk.map_or_else(|| Unk::Missing("<unk>".into()), Unk::Id)),
            ..Options::default()
        },
        normalizer,
        splitters: Vec::new(),
        decoder: Decoder {
            rule: Rule::Text,
            replace: vec![("▁".into(), " ".into())],
            byte_fallback: true,
            strip: prefix.then_some((' ', 1)),
        },
        adds_bos: true,
    };
    common.finish(meta, model)
}

fn byte_level(meta: &Metadata) -> Result<Tokenizer> {
    let common = Common::read(meta)?;
    let merges = meta.strings(MERGES).ok_or_else(|| Error::config(MERGES, "expected a list of strings"))?;
    let mut pairs = Vec::with_capacity(merges.len());
    for merge in merges {
        // Nothing in this alphabet is a space.
        pairs.push(
            merge
                .split_once(' ')
                .ok_or_else(|| Error::config(MERGES, format!("expected two tokens, got {merge:?}")))?,
        );
    }
    let merges = Merges::Ranked(MergeTable::new(&common.vocab, pairs.into_iter(), String::new())?);
    let Pre { splitters, normalizer, ignore_merges, adds_bos } = Pre::named(meta.str(PRE))?;
    let decoder = Decoder { rule: Rule::ByteLevel, ..Decoder::default() };
    let options = Options { ignore_merges, ..Options::default() };
    common.finish(meta, Model { merges, options, normalizer, splitters, decoder, adds_bos })
}

/// A pre-tokenizer that files name instead of spelling out.
struct Pre {
    splitters: Vec<Splitter>,
    normalizer: Vec<Normalizer>,
    ignore_merges: bool,
    adds_bos: bool,
}

impl Pre {
    fn named(name: Option<&str>) -> Result<Self> {
        let by = |source| -> Result<Splitter> {
            Ok(Splitter::Pattern {
                pattern: Pattern::regex(source)?,
                behavior: Behavior::Isolated,
                invert: false,
            })
        };
        let bytes = |pattern| Splitter::ByteLevel { prefix_space: false, pattern };
        let nfc = || vec![Normalizer::Form(Form::Nfc)];
        let plain =
            |splitters| Self { splitters, normalizer: Vec::new(), ignore_merges: false, adds_bos: false };
        let name =
            name.ok_or_else(|| Error::config(PRE, "is missing: the file was made by an outdated converter"))?;
        Ok(match name {
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral" | "lfm2" => {
                Self { ignore_merges: true, adds_bos: true, ..plain(vec![by(LLAMA3)?, bytes(None)]) }
            }
            "dbrx" | "smaug-bpe" => plain(vec![by(LLAMA3)?, bytes(None)]),
            "qwen2" | "deepseek-r1-qwen" | "megrez" => {
                Self { normalizer: nfc(), ..plain(vec![by(QWEN2)?, bytes(None)]) }
            }
            "qwen35" => plain(vec![by(QWEN35)?, bytes(None)]),
            "stablelm2" => plain(vec![by(QWEN2)?, bytes(None)]),
            "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" | "mellum" => {
                plain(vec![bytes(Some(Pattern::regex(GPT2)?))])
            }
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => {
                plain(vec![Splitter::Digits { individual: true }, bytes(Some(Pattern::regex(GPT2)?))])
            }
            other => return Err(Error::config(PRE, format!("pre-tokenizer {other:?} is not known"))),
        })
    }
}

fn same_length(key: &str, got: usize, tokens: usize) -> Result<()> {
    if got == tokens {
        return Ok(());
    }
    Err(Error::config(key, format!("has {got} entries for {tokens} tokens")))
}

/// A token id under a key.
fn special(meta: &Metadata, key: &str, tokens: usize) -> Result<Option<u32>> {
    let Some(value) = meta.get(key) else { return Ok(None) };
    match meta.u64(key).filter(|id| *id < tokens as u64) {
        Some(id) => Ok(Some(id as u32)),
        None => Err(Error::config(key, format!("expected an id below {tokens}, got {value:?}"))),
    }
}
