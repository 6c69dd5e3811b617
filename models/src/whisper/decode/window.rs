//! Windows decoded together, once each.

use candle_core::Tensor;
use candle_engine::kernels::threads::parallel_chunks;
use candle_engine::text::sampler::log_softmax;
use candle_engine::{Error, Result};

use super::super::compression::compression_ratio;
use super::super::recording::FRAMES_PER_SECOND;
use super::super::{Task, Tokens, Whisper};
use super::rules::TimestampRules;
use super::search::{Next, Search};
use super::{Inference, ModelInference, Rules};

/// How a window is decoded. The defaults are the reference's.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodeOptions {
    /// Draws tokens; 0 takes the likeliest, or searches.
    pub temperature: f32,
    /// Texts that are drawn at a temperature above 0, of which the likeliest counts.
    pub best_of: usize,
    /// Beams at temperature 0; `None` takes the likeliest token.
    pub beam_size: Option<usize>,
    /// How many times `beam_size` texts have to end before the search does.
    pub patience: f32,
    /// Exponent α of the length that log-probabilities are divided by; `None` divides by the length itself.
    pub length_penalty: Option<f32>,
    /// The most tokens; `None` is half the context.
    pub sample_len: Option<usize>,
    /// Tokens that never come.
    pub suppress: Vec<u32>,
    /// Keeps spaces and the end from coming first.
    pub suppress_blank: bool,
    /// Text alone.
    pub without_timestamps: bool,
    /// The latest beginning, in seconds.
    pub max_initial_timestamp: Option<f32>,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            best_of: 1,
            beam_size: None,
            patience: 1.0,
            length_penalty: None,
            sample_len: None,
            suppress: Vec::new(),
            suppress_blank: true,
            without_timestamps: false,
            max_initial_timestamp: Some(1.0),
        }
    }
}

/// What a window was decoded to.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// Text and times.
    pub tokens: Vec<u32>,
    /// The text, without spaces around it.
    pub text: String,
    /// Mean log-probability of the tokens, the end among them.
    pub avg_logprob: f64,
    /// Probability of silence; NaN if the model has no token for it.
    pub no_speech_prob: f64,
    /// The temperature it was decoded at.
    pub temperature: f32,
    /// Bytes of the text per byte that zlib needs for it: a text that repeats itself has a high one.
    pub compression_ratio: f64,
}

/// What a window is decoded after: earlier text, the beginning of the transcript, and the first words of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::whisper) struct Prompt {
    pub tokens: Vec<u32>,
    /// Where the transcript begins.
    pub start: usize,
    /// The window, among those that were heard.
    pub window: usize,
    /// Where this window's random numbers start: not its place among others, which may be there or not.
    pub seed: u64,
}

/// What windows are decoded in: the language, and text before and at the beginning.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// A code that the model knows; of no account to a model of English alone.
    pub language: &'a str,
    /// What is asked for.
    pub task: Task,
    /// Tokens that were said before.
    pub previous: &'a [u32],
    /// The first words; they are not part of what is decoded.
    pub prefix: &'a [u32],
}

impl Prompt {
    /// Puts it together; of earlier text the last tokens that fit into half the context less one.
    ///
    /// Errors: `Input` for a language that the model does not know.
    pub fn new(frame: &Frame, context: &Context, options: &DecodeOptions) -> Result<Self> {
        let Context { language, task, previous, prefix } = *context;
        let half = frame.context / 2;
        let mut tokens = Vec::new();
        if !previous.is_empty() {
            tokens.push(frame.tokens.sot_prev);
            tokens.extend_from_slice(&previous[previous.len().saturating_sub(half.saturating_sub(1))..]);
        }
        let start = tokens.len();
        tokens.extend(frame.tokens.start(language, task)?);
        if options.without_timestamps {
            tokens.push(frame.tokens.no_timestamps);
        }
        // What is to be said and the first words of it share one half.
        let room = options.sample_len.map_or(0, |len| half.saturating_sub(len));
        let cut = if room > 0 { prefix.len().saturating_sub(room) } else { 0 };
        tokens.extend_from_slice(&prefix[cut..]);
        Ok(Self { tokens, start, ..Self::default() })
    }
}

/// What decoding has to know of the model.
pub(in crate::whisper) struct Frame<'a> {
    pub tokens: &'a Tokens,
    /// Positions of the decoder.
    pub context: usize,
    /// Seconds from one time to the next.
    pub precision: f64,
}

impl<'a> Frame<'a> {
    /// That of a model.
    ///
    /// Errors: what reading its tokenizer met.
    pub fn of(model: &'a Whisper) -> Result<Self> {
        let config = model.config();
        let window = config.frames() as f64 / FRAMES_PER_SECOND as f64;
        Ok(Self {
            tokens: model.tokens()?,
            context: config.decoder.positions,
            precision: window / config.encoder.positions as f64,
        })
    }
}

impl Whisper {
    /// Decodes windows together, once each: no retries, no cutting into segments.
    ///
    /// Shapes: `windows`, each `[frames, mels]`.
    /// Errors: `Input` for a language that the model does not know; `ContextFull` for words that fill the context.
    pub fn decode(
        &self,
        windows: &[Tensor],
        context: &Context,
        options: &DecodeOptions,
    ) -> Result<Vec<Decoded>> {
        let frame = Frame::of(self)?;
        let prompt = Prompt::new(&frame, context, options)?;
        let prompts: Vec<Prompt> =
            (0..windows.len()).map(|window| Prompt { window, ..prompt.clone() }).collect();
        let memories = self.hear(windows)?;
        decode(&mut ModelInference::new(self, memories.iter().collect()), &frame, &prompts, options)
    }
}

/// Decodes windows, each after its prompt.
///
/// Errors: `Input` for an option out of range or a prompt that fills the context; the model's own.
pub(in crate::whisper) fn decode(
    model: &mut dyn Inference,
    frame: &Frame,
    prompts: &[Prompt],
    options: &DecodeOptions,
) -> Result<Vec<Decoded>> {
    let rules = rules(frame, options);
    let sample_len = options.sample_len.unwrap_or(frame.context / 2);
    if let Some(prompt) = prompts.iter().find(|prompt| prompt.tokens.len() >= frame.context) {
        return Err(Error::ContextFull { tokens: prompt.tokens.len(), context: frame.context });
    }
    let begun = model.begin(prompts)?;
    let mut no_speech = Vec::with_capacity(prompts.len());
    let mut windows = Vec::with_capacity(prompts.len());
    for (i, (begun, prompt)) in begun.into_iter().zip(prompts).enumerate() {
        no_speech.push(match frame.tokens.no_speech {
            Some(id) => log_softmax(&begun.at_start)?[id as usize].exp(),
            None => f64::NAN,
        });
        let search = search(options, prompt.seed)?;
        let room = sample_len.min(frame.context + 1 - prompt.tokens.len());
        windows.push(Window { search, room, first: i, logits: vec![begun.last] });
    }

    loop {
        // The rows of all windows that go on, end to end.
        let mut rows: Vec<Next> = Vec::new();
        let mut counts = Vec::with_capacity(windows.len());
        let mut steps: Vec<_> = windows.iter_mut().map(|window| (window, Ok(Vec::new()))).collect();
        parallel_chunks(&mut steps, 1, |_, step| step[0].1 = step[0].0.step(&rules));
        for (window, next) in steps {
            let next = next?;
            counts.push(next.len());
            let first = rows.len();
            rows.extend(next.into_iter().map(|(row, token)| (window.first + row, token)));
            window.first = first;
        }
        if rows.is_empty() {
            break;
        }
        let mut logits = model.step(&rows)?.into_iter();
        for (window, count) in windows.iter_mut().zip(counts) {
            window.logits = logits.by_ref().take(count).collect();
        }
    }

    let mut decoded = Vec::with_capacity(windows.len());
    for (window, no_speech_prob) in windows.into_iter().zip(no_speech) {
        let best = window.search.best(options.length_penalty);
        let text = frame.tokens.decode(&best.said)?.trim().to_owned();
        decoded.push(Decoded {
            avg_logprob: best.sum / (best.said.len() + 1) as f64,
            compression_ratio: compression_ratio(&text),
            tokens: best.said,
            text,
            no_speech_prob,
            temperature: options.temperature,
        });
    }
    Ok(decoded)
}

/// One window's search, and its rows in the last step.
struct Window {
    search: Search,
    /// Tokens that may still come.
    room: usize,
    /// The first of its rows.
    first: usize,
    logits: Vec<Vec<f32>>,
}

impl Window {
    fn step(&mut self, rules: &Rules) -> Result<Vec<Next>> {
        let logits = std::mem::take(&mut self.logits);
        if logits.is_empty() || self.room == 0 {
            return Ok(Vec::new());
        }
        let next = self.search.step(rules, logits)?;
        self.room -= 1;
        // What was chosen last is not fed: nobody asks what would come after it.
        Ok(if self.room == 0 { Vec::new() } else { next })
    }
}

fn rules(frame: &Frame, options: &DecodeOptions) -> Rules {
    let timestamps = (!options.without_timestamps).then(|| TimestampRules {
        no_timestamps: frame.tokens.no_timestamps,
        begin: frame.tokens.timestamp_begin,
        // Of 0 the reference makes no limit.
        most_initial: options
            .max_initial_timestamp
            .filter(|&seconds| seconds > 0.0)
            .map(|seconds| (f64::from(seconds) / frame.precision).round_ties_even() as u32),
    });
    Rules::new(frame.tokens, &options.suppress, options.suppress_blank, timestamps)
}

fn search(options: &DecodeOptions, seed: u64) -> Result<Search> {
    match options.beam_size {
        Some(size) if options.temperature == 0.0 => Ok(Search::beams(size, options.patience)),
        _ => Search::draw(options.temperature, options.best_of, seed),
    }
}
