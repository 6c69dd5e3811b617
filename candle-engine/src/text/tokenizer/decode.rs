//! From tokens back to text, all at once or one token at a time.

use super::byte_level;

/// What stands for text that is not.
const REPLACEMENT: &str = "\u{fffd}";

/// How tokens become text.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    pub rule: Rule,
    /// In each token, texts and what they become.
    pub replace: Vec<(String, String)>,
    /// Tokens `<0x00>` … `<0xFF>` are bytes.
    pub byte_fallback: bool,
    /// A character that goes at the start of the whole text, and how often.
    pub strip: Option<(char, usize)>,
}

/// What a token is made of.
#[derive(Debug, Default)]
pub(super) enum Rule {
    /// Words, to be joined by spaces: what a tokenizer without a decoder means.
    #[default]
    Words,
    /// Characters of GPT-2's alphabet.
    ByteLevel,
    /// Text.
    Text,
    /// Text with a character for the space; in the first token it is dropped, if asked.
    Metaspace { replacement: char, drop_first: bool },
}

/// A text in the making.
#[derive(Debug, Default)]
pub(in crate::text) struct Decoding {
    /// Text that is finished.
    pub text: String,
    /// Bytes that may yet become text.
    bytes: Vec<u8>,
    tokens: usize,
    stripped: usize,
    /// The start of the text is behind us.
    started: bool,
    /// For decoders that need the neighbours: the last tokens, and how much of their text was given out.
    pub window: Vec<u32>,
    pub given: usize,
}

impl Decoding {
    /// The continuation of a text: nothing is stripped from its start.
    pub(in crate::text) fn continued() -> Self {
        Self { tokens: 1, started: true, ..Self::default() }
    }

    /// Takes the text that is finished so far.
    pub(in crate::text) fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }
}

impl Decoder {
    /// Adds a token. `eager` gives characters out as soon as their bytes are there; else a run of byte tokens
    /// is text only if all of it is.
    pub(super) fn push(&self, token: &str, eager: bool, to: &mut Decoding) {
        let first = to.tokens == 0;
        to.tokens += 1;
        match &self.rule {
            Rule::ByteLevel => {
                byte_level::read(token, &mut to.bytes);
                self.settle(to, false);
            }
            Rule::Words if first => self.add(token, to),
            Rule::Words => {
                self.add(" ", to);
                self.add(token, to);
            }
            Rule::Metaspace { replacement, drop_first } => {
                let keep = |c: &char| !(first && *drop_first && c == replacement);
                let text: String =
                    token.chars().filter(keep).map(|c| if c == *replacement { ' ' } else { c }).collect();
                self.add(&text, to);
            }
            Rule::Text => {
                let mut text = std::borrow::Cow::Borrowed(token);
                for (from, into) in &self.replace {
                    if text.contains(from.as_str()) {
                        text = text.replace(from.as_str(), into).into();
                    }
                }
                match byte(&text).filter(|_| self.byte_fallback) {
                    Some(byte) => {
                        to.bytes.push(byte);
                        if eager {
                            self.settle(to, false);
                        }
                    }
                    None => {
                        self.end_run(to);
                        self.add(&text, to);
                    }
                }
            }
        }
    }

    /// Ends the text: what is left over will never be a character.
    pub(super) fn finish(&self, to: &mut Decoding) {
        match self.rule {
            Rule::ByteLevel => self.settle(to, true),
            _ => self.end_run(to),
        }
    }

    /// Ends a run of byte tokens.
    fn end_run(&self, to: &mut Decoding) {
        let bytes = std::mem::take(&mut to.bytes);
        match std::str::from_utf8(&bytes) {
            Ok(text) => self.add(text, to),
            // Each byte counts, also in the middle of a character.
            Err(_) => bytes.iter().for_each(|_| self.add(REPLACEMENT, to)),
        }
    }

    /// Moves bytes that are characters, or never will be, over to the text.
    fn settle(&self, to: &mut Decoding, last: bool) {
        let bytes = std::mem::take(&mut to.bytes);
        let mut rest = &bytes[..];
        loop {
            let (valid, bad) = match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.add(text, to);
                    return;
                }
                Err(e) => (e.valid_up_to(), e.error_len()),
            };
            self.add(std::str::from_utf8(&rest[..valid]).unwrap_or_default(), to);
            rest = &rest[valid..];
            match bad {
                Some(len) => {
                    self.add(REPLACEMENT, to);
                    rest = &rest[len..];
                }
                None if last => {
                    self.add(REPLACEMENT, to);
                    return;
                }
                None => break,
            }
        }
        to.bytes = rest.to_vec();
    }

    fn add(&self, text: &str, to: &mut Decoding) {
        let mut text = text;
        if let Some((c, most)) = self.strip.filter(|_| !to.started) {
            while let Some(rest) = text.strip_prefix(c).filter(|_| to.stripped < most) {
                to.stripped += 1;
                text = rest;
            }
            to.started = to.stripped == most || !text.is_empty();
        }
        to.text.push_str(text);
    }
}

/// The byte that a token like `<0x1F>` stands for.
fn byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}
