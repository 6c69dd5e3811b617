//! What is done to a text before it is cut.

use std::borrow::Cow;

use unicode_normalization_alignments::UnicodeNormalization;

use super::byte_level;
use super::pattern::Pattern;

/// A step of normalization.
#[derive(Debug)]
pub(super) enum Normalizer {
    /// One of Unicode's normal forms.
    Form(Form),
    /// Lower case.
    Lowercase,
    /// White space at the ends goes.
    Strip { left: bool, right: bool },
    /// Something comes before a text that is not empty.
    Prepend(String),
    /// Every match becomes something else.
    Replace(Pattern, String),
    /// Bytes become characters of GPT-2's alphabet.
    ByteLevel,
}

/// Unicode's normal forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
}

impl Normalizer {
    fn apply<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        match self {
            Self::Form(_) if text.is_ascii() => text,
            Self::Form(Form::Nfc) => text.nfc().map(|(c, _)| c).collect::<String>().into(),
            Self::Form(Form::Nfd) => text.nfd().map(|(c, _)| c).collect::<String>().into(),
            Self::Form(Form::Nfkc) => text.nfkc().map(|(c, _)| c).collect::<String>().into(),
            Self::Form(Form::Nfkd) => text.nfkd().map(|(c, _)| c).collect::<String>().into(),
            // Character by character: the standard library's whole-string version knows the final sigma.
            Self::Lowercase => text.chars().flat_map(char::to_lowercase).collect::<String>().into(),
            Self::Strip { left, right } => {
                let start = if *left { text.len() - text.trim_start().len() } else { 0 };
                let end = if *right { text.trim_end().len().max(start) } else { text.len() };
                text[start..end].to_owned().into()
            }
            Self::Prepend(_) if text.is_empty() => text,
            Self::Prepend(prefix) => format!("{prefix}{text}").into(),
            Self::Replace(pattern, with) => {
                let mut out = String::with_capacity(text.len());
                pattern.cut(&text, |start, end, is_match| {
                    out.push_str(if is_match { with } else { &text[start..end] });
                });
                out.into()
            }
            Self::ByteLevel => {
                let mut out = String::with_capacity(text.len() * 2);
                byte_level::write(&text, &mut out);
                out.into()
            }
        }
    }
}

/// Applies all steps in turn.
pub(super) fn normalize<'a>(steps: &[Normalizer], text: &'a str) -> Cow<'a, str> {
    steps.iter().fold(Cow::Borrowed(text), |text, step| step.apply(text))
}
