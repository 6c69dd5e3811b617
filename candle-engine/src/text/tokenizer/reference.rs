//! Every other kind of tokenizer, through the `tokenizers` crate.

use std::sync::OnceLock;

use serde_json::Value;

use super::decode::Decoding;
use crate::{Error, Result};

/// A tokenizer of that crate.
#[derive(Debug)]
pub(super) struct Reference {
    inner: Box<tokenizers::Tokenizer>,
    /// The same, blind to special tokens.
    plain: OnceLock<Box<tokenizers::Tokenizer>>,
}

fn error(e: tokenizers::Error) -> Error {
    Error::Tokenizer(e.to_string())
}

/// Refuses the parts of which that crate panics if they are damaged.
fn refuse(part: &Value) -> Result<()> {
    match part {
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| match key.as_str() {
            "precompiled_charsmap" => {
                Err(Error::Tokenizer("normalizer `Precompiled` is not supported".into()))
            }
            "stop" if value != 0 => {
                Err(Error::Tokenizer("decoder `Strip` with `stop` is not supported".into()))
            }
            _ => refuse(value),
        }),
        Value::Array(items) => items.iter().try_for_each(refuse),
        _ => Ok(()),
    }
}

/// Tokens that are decoded together with a new one, because a text may depend on its neighbours.
const CONTEXT: usize = 4;
/// Tokens after which a character that is still not complete never will be.
const PATIENCE: usize = 16;

impl Reference {
    /// Reads a file whose small parts are `parts`.
    ///
    /// Errors: `Tokenizer` as that crate says, or naming what makes it panic.
    pub(super) fn read(json: &[u8], parts: &[&Value]) -> Result<Self> {
        parts.iter().try_for_each(|part| refuse(part))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(error)?;
        inner.with_padding(None).with_truncation(None).map_err(error)?;
        Ok(Self { inner: Box::new(inner), plain: OnceLock::new() })
    }

    pub(super) fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, add_special).map_err(error)?.get_ids().to_vec())
    }

    /// As `encode`, with special tokens in the text taken as text.
    pub(super) fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        let plain = self.plain.get_or_init(|| {
            let mut plain = self.inner.clone();
            plain.set_encode_special_tokens(true);
            plain
        });
        Ok(plain.encode_fast(text, false).map_err(error)?.get_ids().to_vec())
    }

    pub(super) fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner.decode(ids, skip_special).map_err(error)
    }

    /// A token of a stream.
    pub(super) fn push(&self, id: u32, skip_special: bool, to: &mut Decoding) -> Result<()> {
        to.window.push(id);
        let text = self.decode(&to.window, skip_special)?;
        if text.ends_with('\u{fffd}') && to.window.len() < PATIENCE {
            return Ok(());
        }
        to.text.push_str(text.get(to.given..).unwrap_or_default());
        to.given = text.len();
        if to.window.len() > 2 * CONTEXT {
            to.window.drain(..to.window.len() - CONTEXT);
            to.given = self.decode(&to.window, skip_special)?.len();
        }
        Ok(())
    }

    /// The end of a stream.
    pub(super) fn finish(&self, skip_special: bool, to: &mut Decoding) {
        let text = self.decode(&std::mem::take(&mut to.window), skip_special).unwrap_or_default();
        to.text.push_str(text.get(to.given..).unwrap_or_default());
        to.given = 0;
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    pub(super) fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.inner.get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    pub(super) fn ids(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }
}
