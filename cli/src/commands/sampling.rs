//! From the command line to the options of a generation.

use candle_engine_models::{GenerateOptions, Model, SamplerOptions};

use crate::args::SampleArgs;
use crate::exit::{Failure, Outcome};

/// The sampler, checked before a model is loaded.
pub fn sampler(args: &SampleArgs) -> Outcome<SamplerOptions> {
    let options = SamplerOptions {
        temperature: args.temp,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        typical_p: args.typical,
        repeat_penalty: args.repeat_penalty,
        repeat_last_n: args.repeat_last_n,
        presence_penalty: args.presence_penalty,
        frequency_penalty: args.frequency_penalty,
        logit_bias: args.logit_bias.clone(),
        seed: u64::try_from(args.seed).unwrap_or_else(|_| some_seed()),
    };
    options.validate().map_err(|e| Failure::usage(e.to_string()))?;
    Ok(options)
}

/// How to generate; `default` is how many tokens where the command line does not say.
pub fn options(
    args: &SampleArgs,
    sampler: SamplerOptions,
    model: &Model,
    default: Option<usize>,
) -> GenerateOptions {
    let max_tokens = match args.predict {
        None => default,
        // -1 is the end of the context.
        Some(n) => usize::try_from(n).ok(),
    };
    let mut options = GenerateOptions { max_tokens, sampler, stop: args.stop.clone(), ..model.options() };
    if args.ignore_eos {
        // Not drawn at all: a text goes on better without the tokens that say it is over.
        let vocab = model.decoder().config().dims.vocab;
        let ends = std::mem::take(&mut options.stop_tokens);
        let ends = ends.into_iter().filter(|&id| (id as usize) < vocab);
        options.sampler.logit_bias.extend(ends.map(|id| (id, f32::NEG_INFINITY)));
    }
    options
}

/// Another one each time: the hasher's keys come from the system's random numbers.
fn some_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Short enough to be typed again.
    RandomState::new().hash_one(0) >> 32
}
