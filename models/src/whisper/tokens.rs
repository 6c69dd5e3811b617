//! Whisper's vocabulary: the tokens that have a meaning of their own, and words.

use candle_engine::text::Tokenizer;
use candle_engine::{Error, Result};

use super::alignment_heads::MULTILINGUAL_VOCAB;
use super::languages::{language_code, LANGUAGES};

/// What is asked of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Task {
    /// Write down what is said.
    #[default]
    Transcribe,
    /// Write it down in English.
    Translate,
}

/// A tokenizer, and the tokens that control the model.
#[derive(Debug)]
pub struct Tokens {
    tokenizer: Tokenizer,
    /// Ends a text; all tokens below are text.
    pub eot: u32,
    /// Begins a transcript.
    pub sot: u32,
    /// Asks for English.
    pub translate: u32,
    /// Asks for what is said.
    pub transcribe: u32,
    /// Never said, like the two above.
    pub sot_lm: Option<u32>,
    /// Begins the text of earlier windows.
    pub sot_prev: u32,
    /// Its probability after [`Self::sot`] is that of silence.
    pub no_speech: Option<u32>,
    /// Asks for text without times.
    pub no_timestamps: u32,
    /// The time 0; each token after it is one position of the encoder later.
    pub timestamp_begin: u32,
    /// Codes and tokens of the languages; none for a model of English alone.
    pub languages: Vec<(&'static str, u32)>,
    /// The tokens of a space.
    pub blank: Vec<u32>,
    /// Symbols that are written, not said: suppressed by default.
    pub non_speech: Vec<u32>,
}

impl Tokens {
    /// Finds the tokens in a tokenizer. `multilingual` is what the checkpoint says of itself.
    ///
    /// Errors: `Tokenizer` naming a token that is missing.
    pub fn new(tokenizer: Tokenizer, vocab: usize, multilingual: Option<bool>) -> Result<Self> {
        let id = |token: &str| tokenizer.id(token).filter(|&id| (id as usize) < vocab);
        let must = |token: &str| {
            id(token).ok_or_else(|| Error::Tokenizer(format!("it has no token {token}: expected Whisper's")))
        };
        let language = |code: &str| id(&format!("<|{code}|>"));
        let multilingual = multilingual.unwrap_or(vocab >= MULTILINGUAL_VOCAB);
        let known = LANGUAGES.iter().filter_map(|(code, _)| Some((*code, language(code)?)));
        let no_timestamps = must("<|notimestamps|>")?;
        let mut tokens = Self {
            eot: must("<|endoftext|>")?,
            sot: must("<|startoftranscript|>")?,
            translate: must("<|translate|>")?,
            transcribe: must("<|transcribe|>")?,
            sot_lm: id("<|startoflm|>"),
            sot_prev: must("<|startofprev|>")?,
            // As older conversions call it.
            no_speech: id("<|nospeech|>").or_else(|| id("<|nocaptions|>")),
            no_timestamps,
            // Older conversions leave the timestamps out of the vocabulary, but not out of the model.
            timestamp_begin: no_timestamps + 1,
            languages: if multilingual { known.collect() } else { Vec::new() },
            blank: Vec::new(),
            non_speech: Vec::new(),
            tokenizer,
        };
        tokens.blank = tokens.encode(" ")?;
        tokens.non_speech = tokens.find_non_speech()?;
        Ok(tokens)
    }

    /// Whether it knows more languages than English.
    pub fn is_multilingual(&self) -> bool {
        !self.languages.is_empty()
    }

    /// Whether a token is a time.
    pub fn is_timestamp(&self, id: u32) -> bool {
        id >= self.timestamp_begin
    }

    /// The tokens of a text in which no special token has power.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode_plain(text)
    }

    /// The text of those tokens that are text.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let text: Vec<u32> = ids.iter().copied().filter(|&id| id < self.eot).collect();
        self.tokenizer.decode(&text, false)
    }

    /// The text of all tokens, those without a text as they are called; half characters are U+FFFD.
    pub fn spell(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids, false)
    }

    /// What begins a transcript: `language` is a code of [`Self::languages`], and of no account to a model of English
    /// alone.
    ///
    /// Errors: `Input` for a language that the model does not know.
    pub fn start(&self, language: &str, task: Task) -> Result<Vec<u32>> {
        if !self.is_multilingual() {
            return Ok(vec![self.sot]);
        }
        let task = match task {
            Task::Transcribe => self.transcribe,
            Task::Translate => self.translate,
        };
        Ok(vec![self.sot, self.language(language)?, task])
    }

    /// The token of a language.
    ///
    /// Errors: `Input` for one that the model does not know.
    pub fn language(&self, code: &str) -> Result<u32> {
        let found = self.languages.iter().find(|(known, _)| *known == code);
        let unknown = || Error::Input(format!("language `{code}`: the model does not know it"));
        found.map(|(_, id)| *id).ok_or_else(unknown)
    }

    /// The code of a language given by code or name, if the model knows it.
    ///
    /// Errors: `Input` for any other word.
    pub fn language_code(&self, word: &str) -> Result<&'static str> {
        let unknown = || Error::Input(format!("language `{word}`: expected a code or an English name"));
        let code = language_code(word).ok_or_else(unknown)?;
        if self.is_multilingual() {
            self.language(code)?;
        } else if code != "en" {
            return Err(Error::Input(format!("language `{word}`: the model knows English alone")));
        }
        Ok(code)
    }

    /// Source: `Tokenizer.non_speech_tokens` of openai-whisper.
    fn find_non_speech(&self) -> Result<Vec<u32>> {
        const SYMBOLS: &str =
            "\" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 << >> <<< >>> -- --- -( -[ (' \
                               (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪";
        /// Of these the first token alone is suppressed: they share it with nothing that is said.
        const MUSIC: &str = "♩ ♪ ♫ ♬ ♭ ♮ ♯";
        // Within words hyphen and apostrophe are said, at their beginning they are not.
        let mut found = Vec::new();
        for mark in [" -", " '"] {
            found.extend(self.encode(mark)?.first());
        }
        for (symbol, music) in SYMBOLS
            .split(' ')
            .map(|s| (s, false))
            .chain(MUSIC.split(' ').map(|s| (s, true)))
            .filter(|(symbol, _)| !symbol.is_empty())
        {
            for spelling in [symbol.to_owned(), format!(" {symbol}")] {
                let ids = self.encode(&spelling)?;
                if ids.len() == 1 || music {
                    found.extend(ids.first());
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}
