//! Resampling by a polyphase windowed sinc.

use std::f64::consts::PI;

use super::SAMPLE_RATE;
use crate::kernels::fir;

/// Zero crossings of the sinc on each side, at the lower of the two rates.
const CROSSINGS: f64 = 64.0;

/// Kaiser's window for a stop band at −100 dB: β = 0.1102 (100 − 8.7).
const BETA: f64 = 10.06;

/// Where the filter is at half its height, in units of the lower rate's highest frequency: the band between
/// 0.9 and 1 of it is the transition, (100 − 8) / (2.285 · 2π · 2 CROSSINGS) of the lower rate by Kaiser's formula.
const CUTOFF: f64 = 0.95;

/// Most phases that are stored one by one; a ratio with more of them takes a table of this many and
/// interpolates between its neighbours, at −104 dB.
const MOST_PHASES: usize = 640;
const TABLE: usize = 256;

/// Converts a stream of samples to [`SAMPLE_RATE`].
///
/// Flat to 0.45 of the lower rate, at least 100 dB down from 0.5 on, linear in phase, without delay: sample 0 stays
/// at time 0. `n` samples become `ceil(n · 16 000 / rate)`.
///
/// ```
/// let mut resampler = candle_engine::audio::Resampler::new(44_100);
/// let mut out = Vec::new();
/// resampler.push(&[0.25; 22_050], &mut out);
/// resampler.finish(&mut out);
/// assert_eq!(out.len(), 8_000);
/// ```
#[derive(Debug)]
pub struct Resampler {
    /// `None` if the rates are equal.
    filter: Option<Filter>,
    /// Samples that the next output needs, and those after.
    pending: Vec<f32>,
    /// Position of the next output after the first pending sample, in units of a sample / `up`.
    at: usize,
    /// Input seen and output given so far.
    seen: u64,
    given: u64,
}

#[derive(Debug)]
struct Filter {
    /// Output samples per `down` input samples, in lowest terms.
    up: usize,
    down: usize,
    /// Taps on each side of the centre.
    reach: usize,
    bank: fir::Bank,
}

impl Resampler {
    /// From `rate` samples per second.
    ///
    /// # Panics
    ///
    /// If `rate` is 0.
    pub fn new(rate: u32) -> Self {
        let filter = (rate != SAMPLE_RATE).then(|| Filter::new(rate));
        let reach = filter.as_ref().map_or(0, |filter| filter.reach);
        // The silence before the first sample.
        Self { filter, pending: vec![0.0; reach], at: 0, seen: 0, given: 0 }
    }

    /// Takes the next samples; appends to `out` what they complete.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.seen += samples.len() as u64;
        let Some(filter) = &self.filter else { return out.extend_from_slice(samples) };
        self.pending.extend_from_slice(samples);
        let first = out.len();
        self.at = filter.bank.apply(&self.pending, self.at, filter.down, out);
        self.given += (out.len() - first) as u64;
        let done = (self.at / filter.up).min(self.pending.len());
        self.pending.drain(..done);
        self.at -= done * filter.up;
    }

    /// Ends the stream; appends the rest of the output. Afterwards a new stream may begin.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        let Some(filter) = &self.filter else { return };
        let total = (u128::from(self.seen) * filter.up as u128).div_ceil(filter.down as u128) as u64;
        let (silence, reach) = (vec![0.0; filter.bank.width()], filter.reach);
        self.push(&silence, out);
        // What lies after the last sample.
        let surplus = self.given.saturating_sub(total) as usize;
        out.truncate(out.len() - surplus);
        *self = Self { filter: self.filter.take(), pending: vec![0.0; reach], at: 0, seen: 0, given: 0 };
    }
}

impl Filter {
    fn new(rate: u32) -> Self {
        assert!(rate > 0, "a sample rate");
        let divisor = gcd(rate, SAMPLE_RATE);
        let (up, down) = ((SAMPLE_RATE / divisor) as usize, (rate / divisor) as usize);
        // Of the lower rate, in samples of the input.
        let scale = (f64::from(rate) / f64::from(SAMPLE_RATE)).max(1.0);
        let half = CROSSINGS * scale;
        let reach = half.ceil() as usize;
        let phases = if up <= MOST_PHASES { up } else { TABLE };
        let tap = |phase: usize, i: usize| {
            let x = i as f64 - reach as f64 - phase as f64 / phases as f64;
            let window = bessel(BETA * (1.0 - (x / half).powi(2)).max(0.0).sqrt()) / bessel(BETA);
            if x.abs() > half {
                0.0
            } else {
                CUTOFF / scale * sinc(x * CUTOFF / scale) * window
            }
        };
        Self { up, down, reach, bank: fir::Bank::new(up, phases, 2 * reach + 2, tap) }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        gcd(b, a % b)
    }
}

fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-9 {
        1.0
    } else {
        (PI * x).sin() / (PI * x)
    }
}

/// The modified Bessel function I₀, by its series.
fn bessel(x: f64) -> f64 {
    let (mut term, mut sum) = (1.0, 1.0);
    for k in 1..40 {
        term *= (x / (2.0 * f64::from(k))).powi(2);
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hertz: f64, rate: u32, n: usize) -> Vec<f32> {
        (0..n).map(|i| (2.0 * PI * hertz * i as f64 / f64::from(rate)).sin() as f32).collect()
    }

    fn resampled(rate: u32, samples: &[f32]) -> Vec<f32> {
        let (mut resampler, mut out) = (Resampler::new(rate), Vec::new());
        resampler.push(samples, &mut out);
        resampler.finish(&mut out);
        out
    }

    /// The largest number away from the ends, where the tone begins and stops.
    fn peak(x: &[f32]) -> f64 {
        let margin = x.len() / 4;
        x[margin..x.len() - margin].iter().fold(0.0, |peak, x| peak.max(f64::from(x.abs())))
    }

    const RATES: [u32; 12] =
        [8_000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000, 44_056];

    #[test]
    fn what_lies_above_the_band_is_a_hundred_decibels_down() {
        for rate in RATES.into_iter().filter(|&rate| rate > SAMPLE_RATE) {
            for hertz in [8_000.0, 8_010.0, 8_500.0, 9_777.0, 10_950.0] {
                if hertz >= 0.5 * f64::from(rate) {
                    continue;
                }
                let level = peak(&resampled(rate, &tone(hertz, rate, rate as usize / 4)));
                assert!(level < 1e-5, "{hertz} Hz at {rate}: {:.1} dB", 20.0 * level.log10());
            }
        }
    }

    #[test]
    fn what_lies_in_the_band_keeps_height_and_time() {
        for rate in RATES {
            for share in [0.003, 0.1, 0.3, 0.44] {
                let hertz = share * f64::from(rate.min(SAMPLE_RATE));
                let out = resampled(rate, &tone(hertz, rate, rate as usize / 4));
                let want = tone(hertz, SAMPLE_RATE, out.len());
                let wrong: Vec<f32> = out.iter().zip(&want).map(|(a, b)| a - b).collect();
                assert!(peak(&wrong) < 3e-5, "{hertz} Hz at {rate}: {:e}", peak(&wrong));
            }
        }
    }

    #[test]
    fn the_pieces_of_a_stream_do_not_show() {
        for rate in [8_000, 16_000, 44_100, 44_056, 48_000] {
            let samples = tone(440.0, rate, 10_000);
            let whole = resampled(rate, &samples);
            assert_eq!(whole.len(), (10_000 * SAMPLE_RATE as usize).div_ceil(rate as usize));
            let (mut resampler, mut out) = (Resampler::new(rate), Vec::new());
            for size in [1, 0, 7, 1000, 63] {
                // A second stream through the same resampler is as the first.
                out.clear();
                samples.chunks(size.max(1)).for_each(|chunk| resampler.push(chunk, &mut out));
                resampler.finish(&mut out);
                assert_eq!(out, whole, "{rate} by {size}");
            }
        }
    }

    #[test]
    fn the_shortest_streams_and_the_oddest_rates() {
        assert!(resampled(44_100, &[]).is_empty());
        assert_eq!(resampled(48_000, &[0.5]).len(), 1);
        assert_eq!(resampled(100, &[0.5]).len(), 160);
        assert_eq!(resampled(767_999, &[0.1; 767_999]).len(), 16_000);
    }
}
