//! Text to tokens and back.
//!
//! Byte-pair encoding, in both its forms (byte-level, and SentencePiece with byte fallback), is read by a
//! reader of our own: a vocabulary of 49 000 tokens has to be ready in a few milliseconds, and the `tokenizers`
//! crate takes a hundred. Whatever this reader does not know goes through that crate. The ids are the same.

mod added;
mod bpe;
mod byte_level;
mod decode;
mod gguf;
mod hash;
mod json;
mod merges;
mod normalize;
mod parts;
mod pattern;
mod ranks;
mod reference;
mod split;
mod vocab;

use std::path::Path;

use self::added::{Added, Part};
use self::bpe::{Bpe, Scratch};
use self::decode::Decoder;
pub(in crate::text) use self::decode::Decoding;
use self::normalize::{normalize, Normalizer};
use self::parts::Frame;
pub use self::pattern::{LLAMA3, QWEN2};
use self::reference::Reference;
use self::split::{Pieces, Splitter};
use super::stream::DecodeStream;
use crate::weights::MappedBytes;
use crate::{Context, Error, Result};

/// A vocabulary and the rules to write any text in it.
///
/// Truncation and padding that a `tokenizer.json` asks for, and dropout, are not done: how long a text may be
/// is for the caller to say.
#[derive(Debug)]
pub struct Tokenizer {
    kind: Kind,
    bos: Option<u32>,
    eos: Option<u32>,
}

#[derive(Debug)]
enum Kind {
    Bpe(Box<Pipeline>),
    Other(Reference),
}

/// The steps of a byte-pair tokenizer.
#[derive(Debug)]
struct Pipeline {
    added: Added,
    normalizer: Vec<Normalizer>,
    splitters: Vec<Splitter>,
    model: Bpe,
    frame: Frame,
    decoder: Decoder,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// Errors: `Io` if the file cannot be read; `Tokenizer`, naming the file, as `from_bytes` does.
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::from_bytes(&MappedBytes::open(path)?).at(path.display())
    }

    /// Reads what a `tokenizer.json` contains.
    ///
    /// Errors: `Tokenizer` with the line, token or part that is wrong.
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        let file = json::File::read(json)?;
        let parts = [&file.normalizer, &file.pre_tokenizer, &file.decoder];
        let other = || Reference::read(json, &parts).map(|reference| Self::new(Kind::Other(reference)));
        let frame = parts::frame(&file.post_processor)?;
        if !file.model.is_bpe() {
            return other();
        }
        let model = file.model.into_bpe()?;
        let steps = parts::normalizer(&file.normalizer).and_then(|normalizer| {
            Ok((normalizer, parts::splitters(&file.pre_tokenizer)?, parts::decoder(&file.decoder)?))
        });
        let (normalizer, splitters, decoder) = match steps {
            Ok(steps) => steps,
            // Of an unknown part that crate may know more; of a wrong one our message is the better one.
            Err(e) => return other().map_err(|_| e),
        };
        let added = Added::new(file.added_tokens, &model.vocab, &normalizer);
        frame.check(added.ids().max(model.vocab.ids()))?;
        Ok(Self::new(Kind::Bpe(Box::new(Pipeline { added, normalizer, splitters, model, frame, decoder }))))
    }

    fn new(kind: Kind) -> Self {
        Self { kind, bos: None, eos: None }
    }

    /// The tokens of a text. Special tokens that are written in it are recognized; with `add_special`, those
    /// that belong around every text are added.
    ///
    /// Errors: `Tokenizer` if a character needs an unknown token that there is not.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        match &self.kind {
            Kind::Other(reference) => reference.encode(text, add_special),
            Kind::Bpe(pipeline) if add_special => {
                let mut ids = pipeline.frame.before.clone();
                pipeline.encode(text, true, &mut ids)?;
                ids.extend_from_slice(&pipeline.frame.after);
                Ok(ids)
            }
            Kind::Bpe(pipeline) => {
                let mut ids = Vec::new();
                pipeline.encode(text, true, &mut ids)?;
                Ok(ids)
            }
        }
    }

    /// The tokens of a text that is only text: a special token written in it has no power.
    ///
    /// Errors: as `encode`.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        match &self.kind {
            Kind::Other(reference) => reference.encode_plain(text),
            Kind::Bpe(pipeline) => {
                let mut ids = Vec::new();
                pipeline.encode(text, false, &mut ids)?;
                Ok(ids)
            }
        }
    }

    /// The text of tokens; ids that there are not are left out.
    ///
    /// Errors: `Tokenizer` if the decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        match &self.kind {
            Kind::Other(reference) => reference.decode(ids, skip_special),
            Kind::Bpe(pipeline) => {
                let mut text = Decoding::default();
                for id in ids {
                    pipeline.push(*id, skip_special, false, &mut text);
                }
                pipeline.decoder.finish(&mut text);
                Ok(text.take())
            }
        }
    }

    /// Decodes token by token, as a model says them.
    pub fn stream(&self) -> DecodeStream<'_> {
        DecodeStream::new(self)
    }

    /// The id of a token, written as in the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        match &self.kind {
            Kind::Other(reference) => reference.id(token),
            Kind::Bpe(pipeline) => pipeline.added.id(token).or_else(|| pipeline.model.vocab.id(token)),
        }
    }

    /// The token with an id, written as in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        match &self.kind {
            Kind::Other(reference) => reference.token(id),
            Kind::Bpe(pipeline) => pipeline.token(id).map(str::to_owned),
        }
    }

    /// Whether a token controls the model rather than being something it says.
    pub fn is_special(&self, id: u32) -> bool {
        match &self.kind {
            Kind::Other(reference) => reference.is_special(id),
            Kind::Bpe(pipeline) => pipeline.added.is_special(id),
        }
    }

    /// One more than the highest id: the rows that an embedding needs at least.
    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Other(reference) => reference.ids(),
            Kind::Bpe(pipeline) => pipeline.added.ids().max(pipeline.model.vocab.ids()),
        }
    }

    /// The token that begins a text, where the source says which: GGUF does, `tokenizer.json` does not.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, where the source says which.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// A token of a text in the making; for the stream.
    pub(super) fn push(&self, id: u32, skip_special: bool, to: &mut Decoding) -> Result<()> {
        match &self.kind {
            Kind::Bpe(pipeline) => pipeline.push(id, skip_special, true, to),
            Kind::Other(reference) => return reference.push(id, skip_special, to),
        }
        Ok(())
    }

    /// The end of a text in the making.
    pub(super) fn finish(&self, skip_special: bool, to: &mut Decoding) {
        match &self.kind {
            Kind::Bpe(pipeline) => pipeline.decoder.finish(to),
            Kind::Other(reference) => reference.finish(skip_special, to),
        }
    }
}

impl Pipeline {
    /// Appends the ids of a text.
    fn encode(&self, text: &str, specials: bool, ids: &mut Vec<u32>) -> Result<()> {
        if u32::try_from(text.len()).is_err() {
            return Err(Error::Input(format!("the text has {} bytes, expected less than 2^32", text.len())));
        }
        let mut scratch = Scratch::default();
        let mut done = Ok(());
        self.added.cut(text, false, specials, |part| match part {
            Part::Token(id) => ids.push(id),
            Part::Text(start, end) => {
                let normal = normalize(&self.normalizer, &text[start..end]);
                self.added.cut(&normal, true, specials, |part| match part {
                    Part::Token(id) => ids.push(id),
                    Part::Text(from, to) if done.is_ok() => {
                        let at_start = start == 0 && from == 0;
                        done = self.encode_stretch(&normal[from..to], at_start, &mut scratch, ids);
                    }
                    Part::Text(..) => {}
                });
            }
        });
        done
    }

    /// Appends the ids of a normalized text without added tokens.
    fn encode_stretch(
        &self,
        text: &str,
        at_start: bool,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let mut pieces = Pieces::new(text.to_owned(), at_start);
        for step in &self.splitters {
            pieces.apply(step);
        }
        for piece in pieces.iter() {
            self.model.encode(piece, scratch, ids)?;
        }
        Ok(())
    }

    fn token(&self, id: u32) -> Option<&str> {
        self.added.content(id).or_else(|| self.model.vocab.token(id))
    }

    fn push(&self, id: u32, skip_special: bool, eager: bool, to: &mut Decoding) {
        if skip_special && self.added.is_special(id) {
            return;
        }
        if let Some(token) = self.added.text(id).or_else(|| self.model.vocab.token(id)) {
            self.decoder.push(token, eager, to);
        }
    }
}
