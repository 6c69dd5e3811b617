//! The command line.

pub mod train;
mod transcribe;

use std::path::PathBuf;

use candle_engine_models::quantize::{Recipe, Target, ALPHA};
use clap::builder::FalseyValueParser;
use clap::{
    Arg, ArgAction, Args, Command as Clap, CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint,
};

pub use self::transcribe::{value, Transcribe};

/// What the names of environment variables begin with.
pub const ENV_PREFIX: &str = "CANDLE_ENGINE_";

const EXIT_CODES: &str = "\
Every option can be set in the environment too: --top-k as CANDLE_ENGINE_TOP_K.

Exit codes: 0 success, 1 general, 2 usage, 3 the model cannot be loaded, 4 bad input, 5 network or authorization, \
6 would not fit in memory, 130 interrupted.";

/// Runs language models from safetensors and GGUF files, in place, on the CPU or a GPU.
#[derive(Debug, Parser)]
#[command(name = "candle-engine", version, after_help = EXIT_CODES, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Say only what was asked for
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more: timings, the seed; stronger than --quiet
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

impl Cli {
    /// Reads the command line and the environment; ends the program on wrong usage, `--help` and `--version`.
    pub fn from_process() -> Self {
        let matches = Self::clap().get_matches_from(transcribe::join_truths(std::env::args_os()));
        Self::from_arg_matches(&matches).unwrap_or_else(|e| e.exit())
    }

    /// The parser, in which every option has its environment variable.
    pub fn clap() -> Clap {
        let command =
            Self::command().mut_args(with_env).mut_subcommands(|command| command.mut_args(with_env));
        command.mut_subcommand("transcribe", |command| command.mut_args(with_underscores))
    }
}

/// Binds an option to `CANDLE_ENGINE_` and its name. Positional words and lists of texts have none.
fn with_env(arg: Arg) -> Arg {
    // The model has rules of its own: see `words::default_model`.
    const WITHOUT: &[&str] =
        &["help", "version", "model", "stop", "logit-bias", "keep", "precise", "ignore", "categorical"];
    let Some(long) = arg.get_long().filter(|long| !WITHOUT.contains(long)) else { return arg };
    let name = format!("{ENV_PREFIX}{}", long.replace('-', "_").to_uppercase());
    let flag = matches!(arg.get_action(), ArgAction::SetTrue);
    let arg = arg.env(name).hide_env(true);
    if flag {
        arg.value_parser(FalseyValueParser::new())
    } else {
        arg
    }
}

/// Lets an option be written with `_` too.
fn with_underscores(arg: Arg) -> Arg {
    match arg.get_long().filter(|long| long.contains('-')).map(|long| long.replace('-', "_")) {
        Some(long) => arg.alias(long),
        None => arg,
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Run),
    Chat(Chat),
    Score(Score),
    Perplexity(Perplexity),
    Transcribe(Box<Transcribe>),
    Show(Show),
    Quantize(Quantize),
    Train(Box<train::Train>),
    Predict(train::Predict),
    #[cfg(feature = "hub")]
    Pull(Pull),
    #[cfg(feature = "hub")]
    #[command(visible_alias = "list")]
    Ls(Ls),
    #[cfg(feature = "hub")]
    Rm(Rm),
    Bench(Bench),
    Devices(Devices),
    Completions(Completions),
}

// Which model.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// A folder, a .gguf or .safetensors file, a name on the Hub (org/name, org/name@revision, org/name:Q4_K_M), or
    /// `builtin` [default: the value of CANDLE_ENGINE_MODEL, else builtin]
    #[arg(short, long, value_name = "MODEL", value_hint = ValueHint::AnyPath)]
    pub model: Option<String>,
}

// Where a model runs, and how much of it.
#[derive(Debug, Clone, Args)]
pub struct PlaceArgs {
    /// cpu, cuda, cuda:N, metal, or auto: a GPU if this build and this machine have one
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// Threads [default: as many as this process may use]
    #[arg(short, long, value_name = "N", value_parser = positive)]
    pub threads: Option<usize>,
    /// Context in tokens; 0 is the model's own, which is the most
    #[arg(short, long, default_value_t = 0, value_name = "N")]
    pub ctx_size: usize,
    /// Number format of the KV cache on the CPU: f32, f16, or int8 with a scale for each head and position [default:
    /// f32 for f32 weights, else f16]
    #[arg(long, alias = "cache-type", value_name = "TYPE")]
    pub kv_type: Option<KvFormat>,
    /// Quantize the weights while loading: int8, int8-a16, int8-g128, int4-g64, q8_0, …; see `quantize --help`
    #[arg(long, value_name = "FORMAT")]
    pub quantize: Option<Recipe>,
}

/// Number formats of the KV cache.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum KvFormat {
    F32,
    F16,
    Int8,
}

// How tokens are drawn.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SampleArgs {
    /// Most tokens to generate; -1 goes on to the end of the context [default: 256 to complete a text, -1 to answer]
    #[arg(short = 'n', long, alias = "n-predict", allow_negative_numbers = true, value_name = "N",
          value_parser = clap::value_parser!(i64).range(-1..))]
    pub predict: Option<i64>,
    /// Seed: the same one gives the same tokens; -1 is another one each time
    #[arg(short, long, default_value_t = -1, allow_negative_numbers = true, value_name = "N",
          value_parser = clap::value_parser!(i64).range(-1..))]
    pub seed: i64,
    /// Temperature; 0 takes the likeliest token
    #[arg(
        long,
        alias = "temperature",
        default_value_t = 0.8,
        allow_negative_numbers = true,
        value_name = "X"
    )]
    pub temp: f32,
    /// Draw from the K likeliest; 0 is off
    #[arg(long, default_value_t = 40, value_name = "K")]
    pub top_k: usize,
    /// Draw from the likeliest that make up this probability; 1 is off
    #[arg(long, default_value_t = 0.95, allow_negative_numbers = true, value_name = "P")]
    pub top_p: f32,
    /// Leave out what is less likely than this share of the likeliest; 0 is off
    #[arg(long, default_value_t = 0.05, allow_negative_numbers = true, value_name = "P")]
    pub min_p: f32,
    /// Draw from the tokens of most typical surprise that make up this probability; 1 is off
    #[arg(long, alias = "typical-p", default_value_t = 1.0, allow_negative_numbers = true, value_name = "P")]
    pub typical: f32,
    /// Divides the logits of recent tokens; 1 is off
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true, value_name = "X")]
    pub repeat_penalty: f32,
    /// How many tokens are recent
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub repeat_last_n: usize,
    /// Subtracted from the logits of recent tokens; 0 is off
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, value_name = "X")]
    pub presence_penalty: f32,
    /// Subtracted from a recent token's logit as often as it occurred; 0 is off
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, value_name = "X")]
    pub frequency_penalty: f32,
    /// Added to a token's logit: ID=BIAS, ID+BIAS or ID-BIAS; may be repeated
    #[arg(short = 'l', long, value_name = "ID=BIAS", value_parser = bias)]
    pub logit_bias: Vec<(u32, f32)>,
    /// Text that ends the generation and is not part of it; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Go on where the model would end
    #[arg(long)]
    pub ignore_eos: bool,
}

const RUN_HELP: &str = "\
Words: a single word that is a path, a file or org/name is the model, anything else is a prompt for the built-in \
model; of two words the first is the model. -m and -p say it outright.

The prompt is -p or the word, then a blank line and the text of -f if both are given (`-f -` is stdin); a line end \
that ends the file is not part of it. Without either it is read from stdin, unless that is a terminal: there an instruct model opens a chat, and any other model \
begins a text of its own.

A model with a chat template answers the prompt as a user's message; --raw, and a model without one, continue the \
text. stdout has what the model wrote and nothing else; on a terminal the text that is continued is shown before it.

--json prints one object at the end: text, tokens (the ids, with the one that ended it), prompt_tokens, load_ms, \
first_token_ms (since the program began), prefill_tokens_per_s, decode_tokens_per_s, peak_rss_bytes, and \
finish_reason: stop, length, context_full or interrupted.";

/// Complete a text; instruct models answer it
#[derive(Debug, Args)]
#[command(after_help = RUN_HELP)]
pub struct Run {
    /// Model, or the prompt if it is no model's name: see below
    #[arg(value_name = "MODEL", value_hint = ValueHint::AnyPath)]
    pub first: Option<String>,
    /// Prompt
    #[arg(value_name = "PROMPT")]
    pub second: Option<String>,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Prompt
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// Prompt from a file; `-` is stdin
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Prompt as token ids, taken as they are; without a tokenizer the answer is token ids too
    #[arg(long, value_name = "IDS", value_delimiter = ',', conflicts_with_all = ["prompt", "file"])]
    pub tokens: Option<Vec<u32>>,
    /// System message, for models with a chat template
    #[arg(long, alias = "system-prompt", value_name = "TEXT")]
    pub system: Option<String>,
    /// Continue the text as it stands, without the chat template
    #[arg(long)]
    pub raw: bool,
    /// Chat template (Jinja) in place of the model's own
    #[arg(long, value_name = "FILE")]
    pub chat_template_file: Option<PathBuf>,
    /// Print one JSON object at the end
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub sample: SampleArgs,
}

/// Hold a conversation
#[derive(Debug, Args)]
pub struct Chat {
    /// Model
    #[arg(value_name = "MODEL", conflicts_with = "model", value_hint = ValueHint::AnyPath)]
    pub word: Option<String>,
    #[command(flatten)]
    pub model: ModelArgs,
    /// System message
    #[arg(long, alias = "system-prompt", value_name = "TEXT")]
    pub system: Option<String>,
    /// Chat template (Jinja) in place of the model's own
    #[arg(long, value_name = "FILE")]
    pub chat_template_file: Option<PathBuf>,
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub sample: SampleArgs,
}

/// Log-probabilities of the tokens of a text
#[derive(Debug, Args)]
pub struct Score {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Text to score, with the tokens that the model wants at its start; `-` is stdin
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, required_unless_present = "tokens")]
    pub text: Option<String>,
    /// Token ids to score, taken as they are
    #[arg(long, value_name = "IDS", value_delimiter = ',', conflicts_with = "text")]
    pub tokens: Option<Vec<u32>>,
    /// How many of the likeliest next tokens to list
    #[arg(long, default_value_t = 10, value_name = "K")]
    pub top: usize,
    /// Print one JSON object: tokens, logprobs (natural logarithms; null for the first), next (id, logprob, token)
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

const PERPLEXITY_HELP: &str = "\
The text becomes tokens once, and windows of --window tokens begin --stride tokens apart. In each window only the \
tokens that no earlier one has scored are scored; so all but those of the first window have at least window - stride \
tokens before them. The very first token of the text has no score.";

/// Perplexity of a model on a text
#[derive(Debug, Args)]
#[command(after_help = PERPLEXITY_HELP)]
pub struct Perplexity {
    /// Text to measure on; `-` is stdin
    pub file: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Tokens in a window [default: 512, or the context if that is smaller]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub window: Option<usize>,
    /// Tokens between the starts of two windows [default: half a window]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub stride: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// What a model is: architecture, sizes, formats, context, template, licence
#[derive(Debug, Args)]
pub struct Show {
    /// Model
    #[arg(value_name = "MODEL", conflicts_with = "model", value_hint = ValueHint::AnyPath)]
    pub word: Option<String>,
    #[command(flatten)]
    pub model: ModelArgs,
    /// List every tensor
    #[arg(long)]
    pub tensors: bool,
    /// Read every number; NaN or infinity anywhere is exit code 3
    #[arg(long)]
    pub check: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

const QUANTIZE_HELP: &str = "\
Formats: int8 (a scale for each row), int8-g32 to int8-g256 and int4-g32, int4-g64, int4-g128 (a scale for each group of \
inputs; -asym adds zero points) are written to a folder in the layout of compressed-tensors, f32, f16 and bf16 to a \
folder or a .gguf file, q8_0 and q4_0 to a .gguf file; other types of GGUF are read and not written. A GGUF file becomes \
another one. Where groups do not divide a row they are made smaller, or the row takes 8 bits.

Activations are quantized too when the model runs: to 8 bits, or to 16 in the matrices that --precise names, and in all \
after a format of integers that ends in -a16; these multiply twice.

Norms, biases and routers stay as they are. The embedding is only looked up and stays as it is too, but in GGUF; the \
head takes 8 bits where the layers take 4. A head that was the embedding becomes a matrix of its own. --head and --embed \
choose for these two; an embedding of int4 is read here, but not by transformers.

With --calibrate a text shows which inputs are large: these are made smaller, and the weights that meet them larger \
(SmoothQuant), and of 4 bits the errors that matter are kept small.

The destination appears only when it is complete. error is the root mean square of what was changed, relative to what \
was there. --eval gives perplexity before and after, and the mean divergence of the predictions in nats per token.

A network that `train` made becomes int8 or int4; its --eval takes a table, and gives its accuracy before and after.";

/// Convert a model to smaller numbers
#[derive(Debug, Args)]
#[command(after_help = QUANTIZE_HELP)]
pub struct Quantize {
    /// Model: a folder, a .safetensors or .gguf file, a name on the Hub, or `builtin`
    #[arg(value_name = "MODEL", conflicts_with = "model", value_hint = ValueHint::AnyPath)]
    pub word: Option<String>,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Where to: a folder, or a .gguf file; nothing may be there yet
    #[arg(short, long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub output: PathBuf,
    /// What the matrices become [default: int8, of a .gguf file q8_0]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Recipe>,
    /// What the head becomes, or `keep` [default: int8 for int4, q8_0 for q4_0, else the format]
    #[arg(long, value_name = "FORMAT", value_parser = choice)]
    pub head: Option<Choice>,
    /// What the embedding becomes, or `keep` [default: keep in a folder of integers, else as the head]
    #[arg(long, value_name = "FORMAT", value_parser = choice)]
    pub embed: Option<Choice>,
    /// Tensors that stay as they are, with `*` and `?`; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub keep: Vec<String>,
    /// Matrices of integers whose activations take 16 bits, with `*` and `?`; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub precise: Vec<String>,
    /// Text that shows the activations' ranges
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub calibrate: Option<PathBuf>,
    /// How much of their range moves into the weights, 0 to 1
    #[arg(long, value_name = "ALPHA", default_value_t = ALPHA, value_parser = share, requires = "calibrate")]
    pub smooth: f32,
    /// Text to measure the model on, before and after
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub eval: Option<PathBuf>,
    /// Threads [default: as many as this process may use]
    #[arg(short, long, value_name = "N", value_parser = positive)]
    pub threads: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// A format, or none.
#[derive(Debug, Clone, Copy)]
pub struct Choice(pub Option<Target>);

fn choice(text: &str) -> Result<Choice, String> {
    match text {
        "keep" => Ok(Choice(None)),
        _ => text.parse().map(Some).map(Choice),
    }
}

fn share(text: &str) -> Result<f32, String> {
    let wrong = || format!("expected 0 to 1, got {text}");
    text.parse().ok().filter(|x| (0.0..=1.0).contains(x)).ok_or_else(wrong)
}

/// Fetch models from the Hub into the cache that Hub tools share
#[cfg(feature = "hub")]
#[derive(Debug, Args)]
pub struct Pull {
    /// org/name, org/name@revision or org/name:QUANT
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<String>,
    /// Print one JSON array
    #[arg(long)]
    pub json: bool,
}

/// List the models in the Hub's cache
#[cfg(feature = "hub")]
#[derive(Debug, Args)]
pub struct Ls {
    /// Print one JSON array
    #[arg(long)]
    pub json: bool,
}

/// Remove models from the Hub's cache
#[cfg(feature = "hub")]
#[derive(Debug, Args)]
pub struct Rm {
    /// org/name, or org/name@revision
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<String>,
}

const BENCH_HELP: &str = "\
ppN prefills a prompt of N random tokens, tgN decodes N tokens one by one; xN: of N sequences at a time; @dN: after N \
tokens in the cache. Each is run once to warm up and then --repetitions times; what counts is the median, ± the \
standard deviation. A batch counts the tokens of all its sequences.

gb_per_s is the bytes of all matrices that one pass reads, and of the keys and values that a decode reads, times \
passes per second; a pass takes up to 512 tokens of a prompt. percent_of_peak compares a decode's with reading memory, \
and a prefill's operations (matrices only) with multiplying in registers: f32 for float weights, 8-bit integers for \
all others; both peaks are measured with the same threads, after the tests. load_ms is the time to open the model, \
first_token_ms that from there to the logits after a first token, anonymous_bytes the memory then that is no file's.";

/// Measure prefill and decode
#[derive(Debug, Args)]
#[command(after_help = BENCH_HELP)]
pub struct Bench {
    #[command(flatten)]
    pub model: ModelArgs,
    /// A known shape with random weights instead: llama-1b, smollm2-135m, qwen2.5-0.5b, whisper-tiny, whisper-base,
    /// whisper-small; written to the folder for
    /// temporary files, and removed
    #[arg(long, value_name = "SHAPE", conflicts_with = "model")]
    pub random: Option<String>,
    /// Lengths of prompts, one test each; 0 is none
    #[arg(short = 'p', long, value_delimiter = ',', default_value = "512", value_name = "N")]
    pub n_prompt: Vec<usize>,
    /// Tokens to decode, one test each; 0 is none
    #[arg(short = 'n', long, value_delimiter = ',', default_value = "64", value_name = "N")]
    pub n_gen: Vec<usize>,
    /// Tokens in the cache beforehand, one series each
    #[arg(
        short = 'c',
        long,
        visible_short_alias = 'd',
        value_delimiter = ',',
        default_value = "0",
        value_name = "N"
    )]
    pub n_depth: Vec<usize>,
    /// Sequences that are decoded together, one series each
    #[arg(short, long, value_delimiter = ',', default_value = "1", value_name = "N", value_parser = positive)]
    pub batch: Vec<usize>,
    /// Numbers of threads, one series each [default: as many as this process may use]
    #[arg(short, long, value_delimiter = ',', value_name = "N", value_parser = positive)]
    pub threads: Vec<usize>,
    /// Repetitions of each test
    #[arg(short, long, default_value_t = 5, value_name = "N", value_parser = positive)]
    pub repetitions: usize,
    /// cpu, cuda, cuda:N, metal, or auto
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// Number format of the KV cache on the CPU: f32, f16, or int8 with a scale for each head and position [default:
    /// f32 for f32 weights, else f16]
    #[arg(long, alias = "cache-type", value_name = "TYPE")]
    pub kv_type: Option<KvFormat>,
    /// Quantize the model first: it is written to the folder for temporary files, and mapped from there
    #[arg(long, value_name = "FORMAT")]
    pub quantize: Option<Recipe>,
    /// Print one JSON array of rows
    #[arg(long)]
    pub json: bool,
}

/// List the devices that this build and this machine have
#[derive(Debug, Args)]
pub struct Devices {
    /// Print one JSON array
    #[arg(long)]
    pub json: bool,
}

/// Print a shell's completions
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number, 1 or more".into()),
        Ok(n) => Ok(n),
    }
}

/// `15043+1`, `15043-inf` as llama.cpp spells it, or `15043=-1`.
fn bias(text: &str) -> Result<(u32, f32), String> {
    let wrong = || "expected ID=BIAS, ID+BIAS or ID-BIAS".to_owned();
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (id, value) = text.split_at(at);
    let value = value.strip_prefix('=').unwrap_or(value);
    Ok((id.parse().map_err(|_| wrong())?, value.parse().map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::clap().debug_assert();
    }

    #[test]
    fn every_option_has_its_variable() {
        for command in Cli::clap().get_subcommands() {
            for arg in command.get_arguments().filter(|a| a.get_id() == "top_k" || a.get_id() == "json") {
                let name = format!("{ENV_PREFIX}{}", arg.get_id().as_str().to_uppercase());
                assert_eq!(arg.get_env().and_then(|e| e.to_str()), Some(name.as_str()));
            }
        }
    }

    #[test]
    fn biases_in_every_spelling() {
        assert_eq!(bias("12=-1.5"), Ok((12, -1.5)));
        assert_eq!(bias("12+1"), Ok((12, 1.0)));
        assert_eq!(bias("12-inf"), Ok((12, f32::NEG_INFINITY)));
        assert!(bias("12").is_err() && bias("x=1").is_err() && bias("-1=1").is_err());
    }
}
