//! Why a window's text is in the transcript, or is not.

use candle_engine_models::whisper::{timestamp, Attempt, Outcome, Verdict, WindowReport};

use crate::args::Transcribe;

/// A window in one line.
pub fn line(report: &WindowReport, args: &Transcribe) -> String {
    let (start, end) = (timestamp(report.start), timestamp(report.start + report.duration));
    let attempts: Vec<String> = report.attempts.iter().map(|attempt| judged(attempt, args)).collect();
    let tried_all = report.attempts.last().is_some_and(|last| last.verdict != Verdict::Accepted);
    let outcome = match (report.outcome, report.segments) {
        (Outcome::Kept, _) if tried_all && report.attempts.len() > 1 => {
            "kept for want of a better one".to_owned()
        }
        (Outcome::Kept, 1) => "kept, 1 segment".into(),
        (Outcome::Kept, n) => format!("kept, {n} segments"),
        (Outcome::NoSpeech, _) => "left out: nobody speaks".into(),
        (Outcome::SkippedSilence, _) => {
            "heard again from its first words: they look invented after a silence".into()
        }
        (Outcome::Hallucination, n) => format!("{n} segments kept, words between silences left out"),
    };
    format!("{start} --> {end}: {}: {outcome}", attempts.join("; "))
}

fn judged(attempt: &Attempt, args: &Transcribe) -> String {
    let thresholds = &args.decoding;
    let limit = |threshold: Option<f64>| threshold.map_or_else(String::new, |x| x.to_string());
    let why = match attempt.verdict {
        Verdict::Accepted => format!(
            "accepted (compression ratio {:.2}, mean log-probability {:.2}, no speech {:.2})",
            attempt.compression_ratio, attempt.avg_logprob, attempt.no_speech_prob
        ),
        Verdict::Repetitive => format!(
            "repeats itself (compression ratio {:.2} > {})",
            attempt.compression_ratio,
            limit(thresholds.compression_ratio_threshold.0)
        ),
        Verdict::Unlikely => format!(
            "unlikely (mean log-probability {:.2} < {})",
            attempt.avg_logprob,
            limit(thresholds.logprob_threshold.0)
        ),
        Verdict::Silent => format!(
            "silent (no speech {:.2} > {}, mean log-probability {:.2})",
            attempt.no_speech_prob,
            limit(thresholds.no_speech_threshold.0),
            attempt.avg_logprob
        ),
    };
    format!("temperature {:.1} {why}", attempt.temperature)
}
