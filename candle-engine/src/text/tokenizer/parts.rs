//! The small parts of `tokenizer.json`: what comes before the model, and what comes after.

use serde::Deserialize;
use serde_json::Value;

use super::decode::{Decoder, Rule};
use super::normalize::{Form, Normalizer};
use super::pattern::{Pattern, GPT2};
use super::split::{Behavior, Prepend, Splitter};
use crate::{Error, Result};

/// `null`, or an object, or one of a kind that is not known here.
fn part<'a, T: Deserialize<'a>>(name: &str, value: &'a Value) -> Result<Option<T>> {
    Option::deserialize(value).map_err(|e| Error::Tokenizer(format!("`{name}`: {e}")))
}

/// A text or an expression to look for.
#[derive(Deserialize)]
enum PatternJson {
    String(String),
    Regex(String),
}

impl PatternJson {
    fn build(self) -> Result<Pattern> {
        match self {
            Self::String(text) => Ok(Pattern::Text(text)),
            Self::Regex(source) => Pattern::regex(&source),
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum NormalizerJson {
    Sequence {
        normalizers: Vec<NormalizerJson>,
    },
    #[serde(rename = "NFC")]
    Nfc,
    #[serde(rename = "NFD")]
    Nfd,
    #[serde(rename = "NFKC")]
    Nfkc,
    #[serde(rename = "NFKD")]
    Nfkd,
    Lowercase,
    Strip {
        strip_left: bool,
        strip_right: bool,
    },
    Prepend {
        prepend: String,
    },
    Replace {
        pattern: PatternJson,
        content: String,
    },
    ByteLevel,
}

impl NormalizerJson {
    fn flatten(self, steps: &mut Vec<Normalizer>) -> Result<()> {
        steps.push(match self {
            Self::Sequence { normalizers } => {
                return normalizers.into_iter().try_for_each(|n| n.flatten(steps));
            }
            Self::Nfc => Normalizer::Form(Form::Nfc),
            Self::Nfd => Normalizer::Form(Form::Nfd),
            Self::Nfkc => Normalizer::Form(Form::Nfkc),
            Self::Nfkd => Normalizer::Form(Form::Nfkd),
            Self::Lowercase => Normalizer::Lowercase,
            Self::Strip { strip_left, strip_right } => {
                Normalizer::Strip { left: strip_left, right: strip_right }
            }
            Self::Prepend { prepend } => Normalizer::Prepend(prepend),
            Self::Replace { pattern, content } => Normalizer::Replace(pattern.build()?, content),
            Self::ByteLevel => Normalizer::ByteLevel,
        });
        Ok(())
    }
}

/// The normalizer's steps.
pub(super) fn normalizer(value: &Value) -> Result<Vec<Normalizer>> {
    let mut steps = Vec::new();
    if let Some(normalizer) = part::<NormalizerJson>("normalizer", value)? {
        normalizer.flatten(&mut steps)?;
    }
    Ok(steps)
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum SplitterJson {
    Sequence {
        pretokenizers: Vec<SplitterJson>,
    },
    Split {
        pattern: PatternJson,
        behavior: Behavior,
        #[serde(default)]
        invert: bool,
    },
    Digits {
        individual_digits: bool,
    },
    WhitespaceSplit,
    ByteLevel {
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Metaspace {
        replacement: char,
        add_prefix_space: Option<bool>,
        prepend_scheme: Option<Prepend>,
        #[serde(default = "yes")]
        split: bool,
    },
}

fn yes() -> bool {
    true
}

impl SplitterJson {
    fn flatten(self, steps: &mut Vec<Splitter>) -> Result<()> {
        steps.push(match self {
            Self::Sequence { pretokenizers } => {
                return pretokenizers.into_iter().try_for_each(|p| p.flatten(steps));
            }
            Self::Split { pattern, behavior, invert } => {
                Splitter::Pattern { pattern: pattern.build()?, behavior, invert }
            }
            Self::Digits { individual_digits } => Splitter::Digits { individual: individual_digits },
            Self::WhitespaceSplit => Splitter::Whitespace,
            Self::ByteLevel { add_prefix_space, use_regex } => {
                let pattern = if use_regex { Some(Pattern::regex(GPT2)?) } else { None };
                Splitter::ByteLevel { prefix_space: add_prefix_space, pattern }
            }
            Self::Metaspace { replacement, add_prefix_space, prepend_scheme, split } => {
                let prepend = prepend(add_prefix_space, prepend_scheme)?;
                Splitter::Metaspace { replacement, prepend, split }
            }
        });
        Ok(())
    }
}

/// Older files say whether, newer ones say where.
fn prepend(add_prefix_space: Option<bool>, scheme: Option<Prepend>) -> Result<Prepend> {
    match (add_prefix_space, scheme.unwrap_or(Prepend::Always)) {
        (Some(false), Prepend::First | Prepend::Always) if scheme.is_some() => Err(Error::Tokenizer(
            "Metaspace: `add_prefix_space` is false but `prepend_scheme` is not \"never\"".into(),
        )),
        (Some(false), _) => Ok(Prepend::Never),
        (_, scheme) => Ok(scheme),
    }
}

/// The pre-tokenizer's steps.
pub(super) fn splitters(value: &Value) -> Result<Vec<Splitter>> {
    let mut steps = Vec::new();
    if let Some(splitter) = part::<SplitterJson>("pre_tokenizer", value)? {
        splitter.flatten(&mut steps)?;
    }
    Ok(steps)
}

/// The ids that go around a text.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub before: Vec<u32>,
    pub after: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum ProcessorJson {
    Sequence {
        processors: Vec<ProcessorJson>,
    },
    /// Only moves offsets.
    ByteLevel,
    TemplateProcessing {
        single: Vec<PieceJson>,
        special_tokens: std::collections::HashMap<String, SpecialJson>,
    },
    BertProcessing {
        sep: (String, u32),
        cls: (String, u32),
    },
    RobertaProcessing {
        sep: (String, u32),
        cls: (String, u32),
    },
}

#[derive(Deserialize)]
enum PieceJson {
    Sequence { id: String },
    SpecialToken { id: String },
}

#[derive(Deserialize)]
struct SpecialJson {
    ids: Vec<u32>,
}

impl ProcessorJson {
    fn wrap(self, frame: &mut Frame) -> Result<()> {
        let (mut before, after) = match self {
            Self::Sequence { processors } => return processors.into_iter().try_for_each(|p| p.wrap(frame)),
            Self::ByteLevel => return Ok(()),
            Self::BertProcessing { sep, cls } | Self::RobertaProcessing { sep, cls } => {
                (vec![cls.1], vec![sep.1])
            }
            Self::TemplateProcessing { single, special_tokens } => {
                let (mut before, mut after, mut texts) = (Vec::new(), Vec::new(), 0);
                for piece in single {
                    match piece {
                        PieceJson::Sequence { id } if id == "A" => texts += 1,
                        PieceJson::Sequence { id } => {
                            return Err(Error::Tokenizer(format!("template: expected sequence A, got {id}")));
                        }
                        PieceJson::SpecialToken { id } => {
                            let special = special_tokens.get(&id).ok_or_else(|| {
                                Error::Tokenizer(format!("template: `special_tokens` lacks {id:?}"))
                            })?;
                            let side = if texts == 0 { &mut before } else { &mut after };
                            side.extend_from_slice(&special.ids);
                        }
                    }
                }
                if texts != 1 {
                    return Err(Error::Tokenizer(format!(
                        "template: expected sequence A once, got it {texts} times"
                    )));
                }
                (before, after)
            }
        };
        before.append(&mut frame.before);
        frame.before = before;
        frame.after.extend(after);
        Ok(())
    }
}

/// What the post-processor puts around a text.
pub(super) fn frame(value: &Value) -> Result<Frame> {
    let mut frame = Frame::default();
    if let Some(processor) = part::<ProcessorJson>("post_processor", value)? {
        processor.wrap(&mut frame)?;
    }
    Ok(frame)
}

impl Frame {
    /// Errors: `Tokenizer` if an id is not below `ids`.
    pub(super) fn check(&self, ids: usize) -> Result<()> {
        match self.before.iter().chain(&self.after).find(|id| **id as usize >= ids) {
            Some(id) => Err(Error::Tokenizer(format!("template: id {id} in a vocabulary of {ids} ids"))),
            None => Ok(()),
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum DecoderJson {
    Sequence { decoders: Vec<DecoderJson> },
    ByteLevel,
    Metaspace { replacement: char, add_prefix_space: Option<bool>, prepend_scheme: Option<Prepend> },
    Replace { pattern: PatternJson, content: String },
    ByteFallback,
    Fuse,
    Strip { content: char, start: usize, stop: usize },
}

impl DecoderJson {
    fn flatten(self, steps: &mut Vec<DecoderJson>) {
        match self {
            Self::Sequence { decoders } => decoders.into_iter().for_each(|d| d.flatten(steps)),
            step => steps.push(step),
        }
    }
}

/// The decoder, unless its steps come in an order that cannot run token by token.
pub(super) fn decoder(value: &Value) -> Result<Decoder> {
    let mut decoder = Decoder::default();
    let mut steps = Vec::new();
    let Some(json) = part::<DecoderJson>("decoder", value)? else { return Ok(decoder) };
    json.flatten(&mut steps);
    if steps.is_empty() {
        decoder.rule = Rule::Text;
    }
    let mut fused = false;
    for (i, step) in steps.into_iter().enumerate() {
        let alone = i == 0;
        match (step, &decoder.rule) {
            (DecoderJson::ByteLevel, _) if alone => decoder.rule = Rule::ByteLevel,
            (DecoderJson::Metaspace { replacement, add_prefix_space, prepend_scheme }, _) if alone => {
                let drop_first = prepend(add_prefix_space, prepend_scheme)? != Prepend::Never;
                decoder.rule = Rule::Metaspace { replacement, drop_first };
            }
            (DecoderJson::Replace { pattern: PatternJson::String(from), content }, rule)
                if !decoder.byte_fallback
                    && !fused
                    && (alone || matches!(rule, Rule::Text))
                    && !from.is_empty() =>
            {
                decoder.rule = Rule::Text;
                decoder.replace.push((from, content));
            }
            (DecoderJson::ByteFallback, rule) if !fused && (alone || matches!(rule, Rule::Text)) => {
                decoder.rule = Rule::Text;
                decoder.byte_fallback = true;
            }
            (DecoderJson::Fuse, rule) => {
                if matches!(rule, Rule::Words) {
                    decoder.rule = Rule::Text;
                }
                fused = true;
            }
            (DecoderJson::Strip { content, start, stop: 0 }, _) if fused && decoder.strip.is_none() => {
                decoder.strip = Some((content, start));
            }
            _ => return Err(Error::Tokenizer("`decoder`: expected steps that work token by token".into())),
        }
    }
    Ok(decoder)
}
