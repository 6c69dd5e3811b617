//! From the command line to what the library is asked for.

use candle_engine_models::vad::SpeechOptions;
use candle_engine_models::whisper::{
    DecodeOptions, Punctuation, SpeechGate, SubtitleOptions, Thresholds, TranscribeOptions,
};

use crate::args::{value, Transcribe};
use crate::exit::{Failure, Outcome};

pub fn transcribe_options(args: &Transcribe) -> Outcome<TranscribeOptions> {
    let (d, c, w) = (&args.decoding, &args.context, &args.words);
    let defaults = Punctuation::default();
    let options = TranscribeOptions {
        task: args.task,
        language: value(&args.language),
        decode: DecodeOptions {
            best_of: d.best_of.0.unwrap_or(1),
            // One beam is the likeliest token.
            beam_size: d.beam_size.0.filter(|&size| size != 1),
            patience: value(&d.patience).unwrap_or(1.0),
            length_penalty: value(&d.length_penalty),
            without_timestamps: d.without_timestamps,
            ..DecodeOptions::default()
        },
        temperatures: temperatures(d.temperature, d.temperature_increment_on_fallback.0)?,
        thresholds: Thresholds {
            compression_ratio: d.compression_ratio_threshold.0,
            logprob: d.logprob_threshold.0,
            no_speech: d.no_speech_threshold.0,
        },
        suppress_tokens: numbers("--suppress-tokens", &d.suppress_tokens)?,
        condition_on_previous_text: c.condition_on_previous_text,
        initial_prompt: c.initial_prompt.clone().filter(|text| text != "None"),
        carry_initial_prompt: c.carry_initial_prompt,
        hotwords: c.hotwords.clone(),
        prefix: c.prefix.clone(),
        clips: numbers("--clip-timestamps", &c.clip_timestamps)?,
        word_timestamps: w.word_timestamps,
        punctuation: Punctuation {
            prepended: w.prepend_punctuations.clone().unwrap_or(defaults.prepended),
            appended: w.append_punctuations.clone().unwrap_or(defaults.appended),
        },
        hallucination_silence_threshold: value(&w.hallucination_silence_threshold),
        speech_gate: (args.speech.vad_filter && args.speech.vad_model.is_none()).then(|| speech_gate(args)),
        batch: d.batch,
        seed: d.seed,
    };
    options.validate().map_err(|e| Failure::usage(e.to_string()))?;
    Ok(options)
}

fn seconds(ms: u32) -> f64 {
    f64::from(ms) / 1000.0
}

fn speech_gate(args: &Transcribe) -> SpeechGate {
    SpeechGate {
        threshold: args.speech.vad_threshold,
        min_speech: seconds(args.speech.vad_min_speech_duration_ms),
        min_silence: seconds(args.speech.vad_min_silence_duration_ms),
        pad: seconds(args.speech.vad_speech_pad_ms),
    }
}

/// What a network is asked for, if there is to be one.
pub fn speech_options(args: &Transcribe) -> Outcome<SpeechOptions> {
    let speech = &args.speech;
    if speech.vad_model.is_some() && !speech.vad_filter {
        return Err(Failure::usage("--vad-model wants --vad-filter"));
    }
    if speech.vad_model.is_none() && speech.vad_max_speech_duration_s.is_some() {
        return Err(Failure::usage("--vad-max-speech-duration-s wants --vad-model"));
    }
    let options = SpeechOptions {
        threshold: speech.vad_threshold,
        neg_threshold: None,
        min_speech: seconds(speech.vad_min_speech_duration_ms),
        max_speech: speech.vad_max_speech_duration_s.unwrap_or(f64::INFINITY),
        min_silence: seconds(speech.vad_min_silence_duration_ms),
        pad: seconds(speech.vad_speech_pad_ms),
    };
    options.validate().map_err(|e| Failure::usage(e.to_string()))?;
    Ok(options)
}

pub fn subtitle_options(args: &Transcribe) -> Outcome<SubtitleOptions> {
    let files = &args.files_args;
    let options = SubtitleOptions {
        max_line_width: value(&files.max_line_width),
        max_line_count: value(&files.max_line_count),
        max_words_per_line: value(&files.max_words_per_line),
        highlight_words: files.highlight_words,
    };
    if options != SubtitleOptions::default() && !args.words.word_timestamps {
        let what = "--max-line-width, --max-line-count, --max-words-per-line and --highlight-words";
        return Err(Failure::usage(format!("{what} want --word-timestamps")));
    }
    Ok(options)
}

/// From the first temperature up to 1.
fn temperatures(first: f32, increment: Option<f32>) -> Outcome<Vec<f32>> {
    let Some(increment) = increment else { return Ok(vec![first]) };
    if !increment.is_finite() || increment <= 0.0 {
        let what = format!("--temperature-increment-on-fallback: expected more than 0, got {increment}");
        return Err(Failure::usage(what));
    }
    // A first one above 1 is tried all the same.
    let more = (1..=1000).map(|i| first + i as f32 * increment).take_while(|&t| t <= 1.0 + 1e-5);
    Ok(std::iter::once(first).chain(more).collect())
}

fn numbers<T: std::str::FromStr>(option: &str, text: &str) -> Outcome<Vec<T>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let wrong = |part: &str| Failure::usage(format!("{option}: expected numbers with commas, got `{part}`"));
    parts.map(|part| part.parse().map_err(|_| wrong(part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temperatures_go_up_to_one() {
        let rounded = |first, increment| -> Vec<i32> {
            let all = temperatures(first, increment).unwrap();
            all.iter().map(|t| (t * 100.0).round() as i32).collect()
        };
        assert_eq!(rounded(0.0, Some(0.2)), [0, 20, 40, 60, 80, 100]);
        assert_eq!(rounded(0.5, Some(0.3)), [50, 80]);
        assert_eq!(rounded(0.5, None), [50]);
        assert_eq!(rounded(1.5, Some(0.2)), [150]);
        assert!(temperatures(0.0, Some(0.0)).is_err());
    }

    #[test]
    fn lists_of_numbers() {
        assert_eq!(numbers::<i64>("x", "-1, 5").unwrap(), [-1, 5]);
        assert_eq!(numbers::<f64>("x", "").unwrap(), [0.0; 0]);
        assert!(numbers::<f64>("x", "1,a").unwrap_err().message().contains("`a`"));
    }
}
