//! Windows of one recording or of several, decoded in one batch.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use candle_core::Tensor;
use candle_engine::{Error, Result};

use super::super::decode::{decode_with_fallback, Attempt, Decoded, Frame, ModelInference, Prompt};
use super::super::segment::{Segment, Span};
use super::super::{Memory, Recording, Whisper};
use super::{TranscribeOptions, Transcription};

/// A window that waits to be decoded: which transcription it is of, its place there, and what is heard in it.
type Window = (usize, Span, Tensor);

/// Transcriptions of several recordings, one after another, whose windows are decoded together: what each would be by
/// itself, sooner.
pub struct Transcriptions<'a> {
    model: &'a Whisper,
    options: TranscribeOptions,
    recordings: Box<dyn Iterator<Item = Result<Box<dyn Recording + 'a>>> + 'a>,
    /// Those that have begun before their turn, or could not.
    waiting: VecDeque<Result<Transcription<'a>>>,
}

/// One of several transcriptions, whose segments are handed out now.
pub struct Turn<'t, 'a> {
    transcription: Transcription<'a>,
    others: &'t mut Transcriptions<'a>,
}

impl Whisper {
    /// Transcribes recordings in their order. A batch that one does not fill is filled up with windows of those after
    /// it, which are opened only then.
    ///
    /// Errors: `Input` naming an option. What is wrong with a recording is told when its turn comes.
    pub fn transcribe_all<'a, R: Recording + 'a>(
        &'a self,
        recordings: impl IntoIterator<Item = Result<R>, IntoIter: 'a>,
        options: &TranscribeOptions,
    ) -> Result<Transcriptions<'a>> {
        options.validate()?;
        let boxed = |recording: Result<R>| recording.map(|r| -> Box<dyn Recording + 'a> { Box::new(r) });
        Ok(Transcriptions {
            model: self,
            options: options.clone(),
            recordings: Box::new(recordings.into_iter().map(boxed)),
            waiting: VecDeque::new(),
        })
    }
}

impl<'a> Transcriptions<'a> {
    /// The next recording's turn; `None` after the last. What the one before had not handed out yet is lost.
    ///
    /// Errors: what is wrong with this recording; the others are none the worse for it.
    #[allow(clippy::should_implement_trait)] // what it gives borrows from it
    pub fn next(&mut self) -> Option<Result<Turn<'_, 'a>>> {
        let transcription = self.waiting.pop_front().or_else(|| self.begin())?;
        Some(transcription.map(|transcription| Turn { transcription, others: self }))
    }

    fn begin(&mut self) -> Option<Result<Transcription<'a>>> {
        let recording = self.recordings.next()?;
        Some(recording.and_then(|recording| self.model.begin(recording, &self.options)))
    }

    /// Adds windows of recordings whose turn is yet to come, until the batch is full.
    fn fill(&mut self, windows: &mut Vec<Window>) {
        let mut place = 0;
        for i in 0.. {
            if windows.len() >= self.options.batch {
                break;
            }
            if i == self.waiting.len() {
                let Some(next) = self.begin() else { break };
                self.waiting.push_back(next);
            }
            if let Ok(transcription) = &mut self.waiting[i] {
                place += 1;
                let found = transcription.cut_out(self.options.batch - windows.len());
                windows.extend(found.into_iter().map(|(span, heard)| (place, span, heard)));
            }
        }
    }
}

impl Iterator for Turn<'_, '_> {
    type Item = Result<Segment>;

    fn next(&mut self) -> Option<Self::Item> {
        self.transcription.next_with(Some(self.others))
    }
}

impl<'a> Deref for Turn<'_, 'a> {
    type Target = Transcription<'a>;

    fn deref(&self) -> &Self::Target {
        &self.transcription
    }
}

impl DerefMut for Turn<'_, '_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.transcription
    }
}

impl<'a> Transcription<'a> {
    /// The next segment. Where windows have to be decoded for it, those of others join them.
    pub(super) fn next_with(
        &mut self,
        mut others: Option<&mut Transcriptions<'a>>,
    ) -> Option<Result<Segment>> {
        loop {
            let ready = self.take_ready();
            if ready.is_some() || self.ended {
                return ready;
            }
            let windows = self.cut_out(self.options.batch).into_iter();
            let mut windows: Vec<Window> = windows.map(|(span, heard)| (0, span, heard)).collect();
            if windows.is_empty() {
                continue;
            }
            let mut all = vec![&mut *self];
            if let Some(others) = others.as_deref_mut() {
                others.fill(&mut windows);
                all.extend(others.waiting.iter_mut().flatten());
            }
            decode(&mut all, windows);
        }
    }
}

/// Decodes windows of several transcriptions, and gives each what was found in its own.
fn decode(all: &mut [&mut Transcription], windows: Vec<Window>) {
    let places: Vec<(usize, Span)> = windows.iter().map(|&(place, span, _)| (place, span)).collect();
    match hear_and_decode(all, windows) {
        Ok(found) => {
            for ((place, span), (memory, decoded, attempts)) in places.into_iter().zip(found) {
                if let Err(error) = all[place].take(span, &memory, &decoded, attempts) {
                    all[place].fail(error);
                }
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            places.iter().for_each(|&(place, _)| all[place].fail(Error::Shared(error.clone())));
        }
    }
}

fn hear_and_decode(
    all: &[&mut Transcription],
    windows: Vec<Window>,
) -> Result<Vec<(Memory, Decoded, Vec<Attempt>)>> {
    // All have one model, and the same options.
    let Transcription { model, options, decode, .. } = &*all[0];
    let frame = Frame::of(model)?;
    let prompts = windows.iter().enumerate();
    let prompts: Vec<Prompt> = prompts
        .map(|(index, (place, span, _))| all[*place].prompt(&frame, span, index))
        .collect::<Result<_>>()?;
    let heard: Vec<Tensor> = windows.into_iter().map(|(.., heard)| heard).collect();
    let memories = model.hear(&heard)?;
    let mut inference = ModelInference::new(model, memories.iter().collect());
    let (temperatures, thresholds) = (&options.temperatures, &options.thresholds);
    let decoded = decode_with_fallback(&mut inference, &frame, &prompts, decode, temperatures, thresholds)?;
    let found = memories.into_iter().zip(decoded);
    Ok(found.map(|(memory, (decoded, attempts))| (memory, decoded, attempts)).collect())
}
