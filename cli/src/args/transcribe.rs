//! The command line of `transcribe`: the Whisper program's own names, with `_` or `-`.

use std::path::PathBuf;

use candle_engine_models::quantize::Recipe;
use candle_engine_models::whisper::{Task, TranscriptFormat};
use clap::{Args, ValueHint};

use super::{positive, KvFormat, ModelArgs};

const HELP: &str = "\
Each segment is printed as soon as it is certain. With -f or -o files are written too, named after the recording. \
`-` is stdin: a file, or raw samples of 16 bits at 16 kHz, heard as they come.

Names may be written with `_` for `-`, switches with True or False behind them, and None stands for no value, as the \
Whisper program has it.

What repeats itself or is unlikely is decoded again, at a temperature higher by --temperature-increment-on-fallback \
each time; --explain says per window why. --batch decodes windows together, of one recording or of several, that do not \
know of each other: faster, and a loop ends with its window.

--json prints one object per recording: text, language, duration, segments (start, end, text, tokens, temperature, \
avg_logprob, compression_ratio, no_speech_prob and, with --word-timestamps, words), with --explain windows.";

/// Write down what is said in recordings
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Transcribe {
    /// Recordings; `-` is stdin
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Language, by code or English name [default: found out]
    #[arg(short, long, value_name = "LANGUAGE", value_parser = none::<String>)]
    pub language: Option<Maybe<String>>,
    /// transcribe, or translate into English
    #[arg(long, value_name = "TASK", default_value = "transcribe", value_parser = task)]
    pub task: Task,
    /// Print one JSON object per recording
    #[arg(long)]
    pub json: bool,
    /// Say of each window which rule accepted it, or had it decoded again
    #[arg(long)]
    pub explain: bool,
    #[command(flatten)]
    pub files_args: FileArgs,
    #[command(flatten)]
    pub decoding: DecodingArgs,
    #[command(flatten)]
    pub context: ContextArgs,
    #[command(flatten)]
    pub words: WordArgs,
    #[command(flatten)]
    pub speech: SpeechArgs,
    #[command(flatten)]
    pub place: HereArgs,
}

// What is written.
#[derive(Debug, Args)]
#[command(next_help_heading = "Files")]
pub struct FileArgs {
    /// Folder to write to; it is made if it is not there [default: the current one]
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output_dir: Option<PathBuf>,
    /// txt, vtt, srt, tsv, json, or all
    #[arg(short = 'f', long, value_name = "FORMAT", value_parser = formats)]
    pub output_format: Option<Formats>,
    /// Characters in a line of subtitles; wants --word-timestamps
    #[arg(long, value_name = "N", value_parser = none::<usize>)]
    pub max_line_width: Option<Maybe<usize>>,
    /// Lines in a subtitle; wants --max-line-width
    #[arg(long, value_name = "N", value_parser = none::<usize>)]
    pub max_line_count: Option<Maybe<usize>>,
    /// Words in a line of subtitles; --max-line-width outranks it
    #[arg(long, value_name = "N", value_parser = none::<usize>)]
    pub max_words_per_line: Option<Maybe<usize>>,
    /// Underline each word of the subtitles as it is said
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true",
          num_args = 0..=1, require_equals = true, value_parser = truth)]
    pub highlight_words: bool,
}

// How windows are decoded.
#[derive(Debug, Args)]
#[command(next_help_heading = "Decoding")]
pub struct DecodingArgs {
    /// Temperature that is tried first; 0 takes the likeliest
    #[arg(long, alias = "temp", default_value_t = 0.0, allow_negative_numbers = true, value_name = "X")]
    pub temperature: f32,
    /// Added for each retry, up to 1; None is no retry
    #[arg(long, default_value = "0.2", value_name = "X", value_parser = none::<f32>)]
    pub temperature_increment_on_fallback: Maybe<f32>,
    /// Texts that are drawn at a temperature above 0
    #[arg(long, default_value = "5", value_name = "N", value_parser = none::<usize>)]
    pub best_of: Maybe<usize>,
    /// Beams at temperature 0; None or 1 takes the likeliest token
    #[arg(long, default_value = "5", value_name = "N", value_parser = none::<usize>)]
    pub beam_size: Maybe<usize>,
    /// How many times --beam-size texts have to end before the search does
    #[arg(long, value_name = "X", value_parser = none::<f32>)]
    pub patience: Option<Maybe<f32>>,
    /// Exponent of the length by which log-probabilities are divided, 0 to 1 [default: the length itself]
    #[arg(long, value_name = "X", value_parser = none::<f32>)]
    pub length_penalty: Option<Maybe<f32>>,
    /// Token ids that never come; -1 stands for symbols that are not said
    #[arg(long, default_value = "-1", allow_hyphen_values = true, value_name = "IDS")]
    pub suppress_tokens: String,
    /// Decode again what zlib makes smaller than by this factor
    #[arg(long, default_value = "2.4", value_name = "X", value_parser = none::<f64>)]
    pub compression_ratio_threshold: Maybe<f64>,
    /// Decode again what has a lower mean log-probability
    #[arg(long, default_value = "-1", allow_hyphen_values = true, value_name = "X", value_parser = none::<f64>)]
    pub logprob_threshold: Maybe<f64>,
    /// Skip windows that are silent with a higher probability, unless the text is likely
    #[arg(long, default_value = "0.6", value_name = "X", value_parser = none::<f64>)]
    pub no_speech_threshold: Maybe<f64>,
    /// Text alone
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true",
          num_args = 0..=1, require_equals = true, value_parser = truth)]
    pub without_timestamps: bool,
    /// Windows that are decoded together, of one recording or of several
    #[arg(short, long, default_value_t = 1, value_name = "N", value_parser = positive)]
    pub batch: usize,
    /// Seed of what is drawn
    #[arg(short, long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
}

// What the model is told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Context")]
pub struct ContextArgs {
    /// Text that may have stood before: names, spelling, style
    #[arg(long, alias = "prompt", value_name = "TEXT", allow_hyphen_values = true)]
    pub initial_prompt: Option<String>,
    /// Put the initial prompt before every window
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true",
          num_args = 0..=1, require_equals = true, value_parser = truth)]
    pub carry_initial_prompt: bool,
    /// Words that are likely to be said
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub hotwords: Option<String>,
    /// The first words of every window
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prefix: Option<String>,
    /// Let each window know what was said before it
    #[arg(long, value_name = "BOOL", default_value = "true", default_missing_value = "true",
          num_args = 0..=1, require_equals = true, value_parser = truth)]
    pub condition_on_previous_text: bool,
    /// Seconds at which parts begin and end: START,END,START,…
    #[arg(long, default_value = "0", value_name = "SECONDS")]
    pub clip_timestamps: String,
}

// Times of words.
#[derive(Debug, Args)]
#[command(next_help_heading = "Words")]
pub struct WordArgs {
    /// Find out when each word is said
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true",
          num_args = 0..=1, require_equals = true, value_parser = truth)]
    pub word_timestamps: bool,
    /// Punctuation that goes with the next word
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prepend_punctuations: Option<String>,
    /// Punctuation that goes with the word before
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub append_punctuations: Option<String>,
    /// Skip silences of more seconds where words look invented; wants --word-timestamps
    #[arg(long, value_name = "SECONDS", value_parser = none::<f64>)]
    pub hallucination_silence_threshold: Option<Maybe<f64>>,
}

// What is speech.
#[derive(Debug, Args)]
#[command(next_help_heading = "Speech")]
pub struct SpeechArgs {
    /// Leave out what is quiet, or with --vad-model what is no speech
    #[arg(long, alias = "vad", value_name = "BOOL", default_value = "false", default_missing_value = "true",
          num_args = 0..=1, require_equals = true, value_parser = truth)]
    pub vad_filter: bool,
    /// Silero's network: safetensors, or whisper.cpp's ggml-silero-*.bin; wants --vad-filter
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub vad_model: Option<PathBuf>,
    /// How loud speech is, 0 to 1 of the 80 dB below the loudest; with --vad-model how probable
    #[arg(long, default_value_t = 0.5, value_name = "X")]
    pub vad_threshold: f32,
    /// Longer speech is cut where it pauses, in seconds; wants --vad-model [default: never]
    #[arg(long, value_name = "SECONDS")]
    pub vad_max_speech_duration_s: Option<f64>,
    /// Shorter silences are part of speech, in milliseconds
    #[arg(long, default_value_t = 2000, value_name = "MS")]
    pub vad_min_silence_duration_ms: u32,
    /// Shorter sounds are none, in milliseconds
    #[arg(long, default_value_t = 250, value_name = "MS")]
    pub vad_min_speech_duration_ms: u32,
    /// Kept before and after speech, in milliseconds
    #[arg(long, default_value_t = 400, value_name = "MS")]
    pub vad_speech_pad_ms: u32,
}

// Where the model runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Place")]
pub struct HereArgs {
    /// cpu, cuda, cuda:N, metal, or auto: a GPU if this build and this machine have one
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// Threads [default: as many as this process may use]
    #[arg(short, long, value_name = "N", value_parser = positive)]
    pub threads: Option<usize>,
    /// Number format of keys and values on the CPU: f32, f16 or int8 [default: f32 for f32 weights, else f16]
    #[arg(long, alias = "cache-type", value_name = "TYPE")]
    pub kv_type: Option<KvFormat>,
    /// Quantize the weights while loading: int8, int8-g128, …; see `quantize --help`
    #[arg(long, value_name = "FORMAT")]
    pub quantize: Option<Recipe>,
}

/// Switches that the Whisper program gives a value to.
const SWITCHES: &[&str] = &[
    "carry-initial-prompt",
    "condition-on-previous-text",
    "highlight-words",
    "vad",
    "vad-filter",
    "without-timestamps",
    "word-timestamps",
];

/// Joins switches with the truth that follows them: `--word_timestamps True` is `--word_timestamps=True`.
pub(super) fn join_truths(args: impl Iterator<Item = std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let mut joined: Vec<std::ffi::OsString> = Vec::new();
    for arg in args {
        let switch =
            joined.last().and_then(|last| last.to_str()?.strip_prefix("--")).map(|s| s.replace('_', "-"));
        let is_switch = switch.is_some_and(|switch| SWITCHES.contains(&switch.as_str()));
        let is_truth = arg.to_str().is_some_and(|word| matches!(word, "True" | "False" | "true" | "false"));
        match joined.last_mut().filter(|_| is_switch && is_truth) {
            Some(last) => {
                last.push("=");
                last.push(arg);
            }
            None => joined.push(arg),
        }
    }
    joined
}

/// A value, or `None` as Python spells it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Maybe<T>(pub Option<T>);

fn none<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<Maybe<T>, String> {
    match text {
        "None" | "none" => Ok(Maybe(None)),
        _ => text.parse::<T>().map(|value| Maybe(Some(value))).map_err(|e| e.to_string()),
    }
}

/// The value that is meant, if one is.
pub fn value<T: Clone>(maybe: &Option<Maybe<T>>) -> Option<T> {
    maybe.as_ref().and_then(|maybe| maybe.0.clone())
}

fn truth(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" | "" => Ok(false),
        _ => Err("expected True or False".into()),
    }
}

fn task(text: &str) -> Result<Task, String> {
    match text {
        "transcribe" => Ok(Task::Transcribe),
        "translate" => Ok(Task::Translate),
        _ => Err("expected transcribe or translate".into()),
    }
}

/// Kinds of files to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Formats(pub Vec<TranscriptFormat>);

fn formats(text: &str) -> Result<Formats, String> {
    match text {
        "all" => Ok(Formats(TranscriptFormat::ALL.to_vec())),
        _ => text.split(',').map(str::parse).collect::<Result<_, _>>().map(Formats),
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(line: &str) -> Result<Transcribe, clap::Error> {
        let args = ["candle-engine"].into_iter().chain(line.split(' ')).map(Into::into);
        let matches = Cli::clap().try_get_matches_from(join_truths(args))?;
        match Cli::from_arg_matches(&matches)?.command {
            Command::Transcribe(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_whisper_programs_own_spelling() {
        let args = parse(
            "transcribe --model tiny --word_timestamps True --condition_on_previous_text False \
             --beam_size None --output_format srt,vtt --logprob_threshold -0.5 --suppress_tokens -1,5 a.wav b.wav \
             --vad_filter True --vad_model v.bin --vad_max_speech_duration_s 9.5",
        )
        .unwrap();
        assert!(args.words.word_timestamps && !args.context.condition_on_previous_text);
        assert_eq!((args.decoding.beam_size, args.files.len()), (Maybe(None), 2));
        assert_eq!(args.decoding.logprob_threshold, Maybe(Some(-0.5)));
        assert_eq!(args.speech.vad_model, Some(PathBuf::from("v.bin")));
        assert_eq!(args.speech.vad_max_speech_duration_s, Some(9.5));
        let formats = vec![TranscriptFormat::Srt, TranscriptFormat::Vtt];
        assert_eq!(args.files_args.output_format, Some(Formats(formats)));
    }

    #[test]
    fn switches_need_no_value() {
        let args = parse("transcribe --word-timestamps a.wav --vad").unwrap();
        assert!(
            args.words.word_timestamps && args.speech.vad_filter && args.context.condition_on_previous_text
        );
        assert_eq!(args.files, [PathBuf::from("a.wav")]);
        assert!(parse("transcribe").is_err() && parse("transcribe a.wav --task sing").is_err());
        assert!(parse("transcribe a.wav -f mp4").unwrap_err().to_string().contains("mp4"));
    }
}
