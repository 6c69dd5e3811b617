//! `transcribe`: writes down what is said.

mod explain;
mod options;

use std::path::{Path, PathBuf};

use candle_engine::audio::Audio;
use candle_engine::kernels::threads::set_threads;
use candle_engine_models::vad::{SileroVad, SpeechOptions};
use candle_engine_models::whisper::{
    timestamp, Listener, Segment, SubtitleOptions, Transcript, TranscriptFormat, Turn, Whisper, WindowReport,
};
use candle_engine_models::{Error, LoadOptions};
use serde::Serialize;

use super::load;
use crate::args::Transcribe;
use crate::exit::{Failure, Outcome};
use crate::output::{self, Ui};
use crate::progress::{Progress, Unit};

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: String,
    #[serde(flatten)]
    transcript: &'a Transcript,
    /// How probable the language is; `null` if it was given.
    language_probability: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    windows: Option<&'a [WindowReport]>,
}

pub fn run(args: &Transcribe, ui: &Ui) -> Outcome {
    let options = options::transcribe_options(args)?;
    let subtitles = options::subtitle_options(args)?;
    let speech = options::speech_options(args)?;
    if let Some(threads) = args.place.threads {
        set_threads(threads);
    }
    let model = open(args, ui)?;
    let vad = args.speech.vad_model.as_ref().map(SileroVad::open).transpose()?;
    let vad = vad.as_ref().map(|vad| (vad, &speech));
    let recordings = args.files.iter().map(|file| listen(&model, vad, file));
    let mut transcriptions = model.transcribe_all(recordings, &options)?;
    let mut failed: Option<Failure> = None;
    for file in &args.files {
        let Some(turn) = transcriptions.next() else { break };
        let done = turn.map_err(Failure::from).and_then(|turn| one(args, turn, file, &subtitles, ui));
        match done {
            Ok(()) => {}
            Err(failure) if args.files.len() == 1 => return Err(failure),
            // The others may be better.
            Err(failure) => {
                ui.note(format_args!("{}", failure.message()));
                failed.get_or_insert(failure);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

fn is_stream(file: &Path) -> bool {
    file == Path::new("-")
}

fn name(file: &Path) -> String {
    if is_stream(file) {
        "stdin".to_owned()
    } else {
        file.display().to_string()
    }
}

fn listen<'a>(
    model: &Whisper,
    vad: Option<(&'a SileroVad, &SpeechOptions)>,
    file: &Path,
) -> Result<Listener<'a>, Error> {
    let recording = match is_stream(file) {
        true => model.listen(Audio::from_stream(name(file), std::io::stdin())?).live(),
        false => model.listen(Audio::open(file)?),
    };
    match vad {
        Some((vad, options)) => recording.only_speech(vad, options),
        None => Ok(recording),
    }
}

fn open(args: &Transcribe, ui: &Ui) -> Outcome<Whisper> {
    let quantize = args.place.quantize.clone();
    let options = LoadOptions { quantize, ..load::options(&args.place.device, args.place.kv_type)? };
    let word = load::word(None, &args.model);
    let word = if Path::new(&word).exists() { word } else { Whisper::full_name(&word) };
    let model = Whisper::from_source(&load::locate(&word, ui)?, &options)?;
    ui.detail(format_args!("{}: loaded in {:.0} ms", model.name(), model.load_time().as_secs_f64() * 1e3));
    Ok(model)
}

fn one(args: &Transcribe, mut turn: Turn, file: &Path, subtitles: &SubtitleOptions, ui: &Ui) -> Outcome {
    let name = name(file);
    let probability = turn.language_probabilities().first().map(|language| language.probability);
    if let Some(probability) = probability {
        let language = turn.language();
        ui.detail(format_args!("{name}: language {language}, probability {probability:.2}"));
    }
    let (segments, windows) = hear(args, &name, &mut turn, ui)?;
    let transcript = Transcript::new(segments, turn.language(), turn.heard());
    write(args, file, &transcript, subtitles)?;
    if args.json {
        let windows = args.explain.then_some(&windows[..]);
        output::json(&Report {
            file: name,
            transcript: &transcript,
            language_probability: probability,
            windows,
        })?;
    }
    Ok(())
}

/// Shows segments as they come.
fn hear(
    args: &Transcribe,
    name: &str,
    turn: &mut Turn,
    ui: &Ui,
) -> Outcome<(Vec<Segment>, Vec<WindowReport>)> {
    let total = turn.duration().unwrap_or(0.0);
    let mut progress = (total > 0.0).then(|| Progress::new(ui, name, Unit::Seconds, total as u64));
    let (mut segments, mut windows) = (Vec::new(), Vec::new());
    loop {
        let next = turn.next();
        let reports = turn.take_reports();
        if let Some(progress) = &mut progress {
            if next.is_none() || !reports.is_empty() {
                progress.clear();
            }
        }
        if args.explain && !args.json {
            reports.iter().for_each(|report| output::say(format_args!("{}", explain::line(report, args))));
        }
        windows.extend(reports);
        let Some(segment) = next else { break };
        let segment = segment?;
        if !args.json {
            if let Some(progress) = &mut progress {
                progress.clear();
            }
            let (start, end) = (timestamp(segment.start), timestamp(segment.end));
            output::line(format_args!("[{start} --> {end}] {}", segment.text.trim()))?;
        }
        segments.push(segment);
        if let Some(progress) = &mut progress {
            progress.set(turn.heard() as u64);
        }
    }
    Ok((segments, windows))
}

/// Writes the files that were asked for.
fn write(args: &Transcribe, file: &Path, transcript: &Transcript, subtitles: &SubtitleOptions) -> Outcome {
    let to = &args.files_args;
    if to.output_dir.is_none() && to.output_format.is_none() {
        return Ok(());
    }
    let dir = to.output_dir.clone().unwrap_or_else(|| PathBuf::from("."));
    std::fs::create_dir_all(&dir).map_err(|e| Error::io(&dir, e)).map_err(cannot_write)?;
    let stem = match file.file_stem() {
        Some(stem) if !is_stream(file) => stem.to_os_string(),
        _ => "stdin".into(),
    };
    let formats = to.output_format.as_ref().map_or(&TranscriptFormat::ALL[..], |formats| &formats.0);
    for format in formats {
        let mut name = stem.clone();
        name.push(".");
        name.push(format.extension());
        let path = dir.join(name);
        let text = format.write(transcript, subtitles);
        std::fs::write(&path, text).map_err(|e| Error::io(&path, e)).map_err(cannot_write)?;
    }
    Ok(())
}

fn cannot_write(error: Error) -> Failure {
    Failure::from(error).with_code(crate::exit::GENERAL)
}
