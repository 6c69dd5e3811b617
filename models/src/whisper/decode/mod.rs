//! From what was heard to the tokens of one window: rules, search, and retries.
//!
//! Source: `decoding.py` of openai-whisper, revision 20250625.

mod attempt;
mod inference;
mod language;
mod rules;
mod search;
#[cfg(test)]
mod tests;
mod window;

pub use self::attempt::{Attempt, Thresholds, Verdict};
pub use self::language::LanguageProbability;
pub use self::window::{Context, DecodeOptions, Decoded};

use self::rules::Rules;

pub(super) use self::attempt::decode_with_fallback;
pub(super) use self::inference::{Inference, ModelInference};
pub(super) use self::language::detect;
pub(super) use self::window::{Frame, Prompt};
