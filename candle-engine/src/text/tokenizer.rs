//! Text to token ids and back.

use std::path::Path;

use crate::weights::gguf::Metadata;
use crate::{Error, Result};

/// A tokenizer.
#[derive(Debug)]
pub struct Tokenizer(tokenizers::Tokenizer);

impl Tokenizer {
    /// Reads `tokenizer.json`.
    pub fn from_file(path: &Path) -> Result<Self> {
        let json = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::from_bytes(&json)
    }

    /// Reads a `tokenizer.json` that is in memory.
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        tokenizers::Tokenizer::from_bytes(json).map(Self).map_err(|e| Error::Tokenizer(e.to_string()))
    }

    /// Reads the vocabulary of a GGUF file.
    pub fn from_gguf(_: &Metadata) -> Result<Self> {
        Err(Error::Tokenizer("GGUF vocabularies are not read yet".into()))
    }

    /// Token ids of a text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self.0.encode(text, add_special).map_err(|e| Error::Tokenizer(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of tokens.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.0.decode(ids, skip_special).map_err(|e| Error::Tokenizer(e.to_string()))
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.0.token_to_id(token)
    }

    /// The token of an id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.0.id_to_token(id)
    }

    /// Tokens in all.
    pub fn vocab_size(&self) -> usize {
        self.0.get_vocab_size(true)
    }

    /// A decoder that is fed token by token.
    pub fn stream(&self) -> DecodeStream<'_> {
        DecodeStream { tokenizer: self, ids: Vec::new(), shown: 0 }
    }
}

/// Decodes token by token, never half a character.
#[derive(Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    shown: usize,
}

impl DecodeStream<'_> {
    /// Adds a token; text that became certain.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids, true)?;
        if text.ends_with('\u{fffd}') || text.len() <= self.shown {
            return Ok(None);
        }
        let new = text[self.shown..].to_owned();
        self.shown = text.len();
        Ok(Some(new))
    }

    /// What was held back.
    pub fn flush(&mut self) -> String {
        let text = self.tokenizer.decode(&self.ids, true).unwrap_or_default();
        text.get(self.shown..).unwrap_or_default().to_owned()
    }
}
