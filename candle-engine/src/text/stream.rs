//! Text while it is being said: token by token, never half a character.

use super::tokenizer::{Decoding, Tokenizer};
use crate::Result;

/// Decodes one token after the other.
///
/// What it gives out adds up to what `Tokenizer::decode` makes of all the tokens. (Byte tokens that never make
/// a character are the exception: `decode` may take back characters for their sake, a stream cannot.) A token
/// costs the same however long the text is.
#[derive(Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    text: Decoding,
    skip_special: bool,
}

impl<'a> DecodeStream<'a> {
    /// A stream at the start of a text that leaves special tokens out.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, text: Decoding::default(), skip_special: true }
    }

    /// Writes special tokens too.
    pub fn with_special(self) -> Self {
        Self { skip_special: false, ..self }
    }

    /// Goes on from a text that is already there, such as a prompt to be completed: a space before the first
    /// word is kept. To be called before the first token.
    pub fn continued(self) -> Self {
        Self { text: Decoding::continued(), ..self }
    }

    /// Takes a token; gives the text that is now complete, if any.
    ///
    /// Errors: `Tokenizer` if the decoder fails.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        self.tokenizer.push(id, self.skip_special, &mut self.text)?;
        Ok(Some(self.text.take()).filter(|text| !text.is_empty()))
    }

    /// Ends the text; gives what was held back for the rest of a character that did not come, as U+FFFD.
    pub fn flush(&mut self) -> String {
        self.tokenizer.finish(self.skip_special, &mut self.text);
        self.text.take()
    }
}
