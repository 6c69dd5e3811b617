//! Spectra of overlapping frames on the mel scale, as speech models hear them.
//!
//! A vector register holds one number of several frames, so that the transform is plain arithmetic without a
//! shuffle. A frame's result depends on that frame alone.

use std::f64::consts::TAU;

use super::lanes::{per_isa, Arith};
use super::math::log10;
use super::threads::parallel_chunks;
use super::Isa;

/// Samples in a frame: 25 ms at 16 kHz.
pub const FRAME: usize = 400;

/// Samples from one frame to the next: 10 ms at 16 kHz.
pub const HOP: usize = 160;

/// Frequencies of a frame, 0 and the highest included.
pub const BINS: usize = FRAME / 2 + 1;

/// Half a frame: a transform of that many complex numbers does for a real frame.
const HALF: usize = FRAME / 2;

/// Least energy that is told apart from silence.
const FLOOR: f32 = 1e-10;

/// Frames of one task: some 20 µs.
const TASK: usize = 64;

/// What a transform of frames needs, made once.
#[derive(Debug)]
pub struct MelBank {
    /// Hann's window, halved: the split of the packed transform has a ½ in it.
    window: [f32; FRAME],
    /// e^(−τij / FRAME)
    roots: [C<f32>; FRAME],
    /// For each mel band its first frequency bin and the weights from there on.
    filters: Vec<(usize, Vec<f32>)>,
}

impl MelBank {
    /// A bank of `filters`, each a row of [`BINS`] weights that are zero but for one run.
    ///
    /// # Panics
    ///
    /// If a filter has another length.
    pub fn new<'a>(filters: impl IntoIterator<Item = &'a [f32]>) -> Self {
        let filters = filters.into_iter().map(|row| {
            assert_eq!(row.len(), BINS, "a mel filter's weights");
            let first = row.iter().position(|&w| w != 0.0).unwrap_or(0);
            let end = row.iter().rposition(|&w| w != 0.0).map_or(first, |last| last + 1);
            (first, row[first..end].to_vec())
        });
        let angle = |i: usize| TAU * i as f64 / FRAME as f64;
        Self {
            window: std::array::from_fn(|i| (0.25 - 0.25 * angle(i).cos()) as f32),
            roots: std::array::from_fn(|i| C(angle(i).cos() as f32, -angle(i).sin() as f32)),
            filters: filters.collect(),
        }
    }

    /// Number of mel bands.
    pub fn n_mels(&self) -> usize {
        self.filters.len()
    }
}

/// Computes the decimal logarithm of each band's energy.
///
/// y = log₁₀ max(Σ w · |F(h · x)|², 10⁻¹⁰), with Hann's window h. A NaN among the samples makes its frames silent.
///
/// Shapes: `x [(frames - 1) * HOP + FRAME]` or longer → `out [frames, n_mels]`.
/// Source: openai-whisper, `log_mel_spectrogram`.
pub fn log_mel(bank: &MelBank, x: &[f32], out: &mut [f32]) {
    log_mel_on(Isa::best(), bank, x, out);
}

fn log_mel_on(isa: Isa, bank: &MelBank, x: &[f32], out: &mut [f32]) {
    let n_mels = bank.n_mels();
    let frames = out.len().checked_div(n_mels).unwrap_or(0);
    assert_eq!(out.len(), frames * n_mels, "log_mel: whole frames");
    if frames == 0 {
        return;
    }
    assert!(x.len() >= (frames - 1) * HOP + FRAME, "log_mel: samples of {frames} frames");
    parallel_chunks(out, TASK * n_mels, |task, out| {
        let x = &x[task * TASK * HOP..];
        per_isa!(isa, some_frames, (bank: &MelBank, x: &[f32], out: &mut [f32]));
    });
}

#[inline(always)]
fn some_frames<A: Arith>(arith: A, bank: &MelBank, x: &[f32], out: &mut [f32]) {
    let n_mels = bank.n_mels();
    let (mut a, mut b) = (vec![0.0; FRAME * A::N], vec![0.0; FRAME * A::N]);
    let mut mel = vec![0.0; n_mels * A::N];
    for (group, out) in out.chunks_mut(A::N * n_mels).enumerate() {
        let frames = out.len() / n_mels;
        for lane in 0..A::N {
            // Lanes to spare repeat the last frame.
            let first = (group * A::N + lane.min(frames - 1)) * HOP;
            let windowed = x[first..][..FRAME].iter().zip(&bank.window).map(|(x, h)| x * h);
            for (a, x) in a.chunks_exact_mut(A::N).zip(windowed) {
                a[lane] = x;
            }
        }
        transform(arith, &bank.roots, &mut a, &mut b);
        energies(arith, &bank.roots, &a, &mut b);
        for ((first, weights), mel) in bank.filters.iter().zip(mel.chunks_exact_mut(A::N)) {
            let mut sum = arith.splat(0.0);
            for (&w, energy) in weights.iter().zip(b[first * A::N..].chunks_exact(A::N)) {
                sum = arith.mul_add_v(arith.splat(w), arith.load(energy), sum);
            }
            arith.store(arith.max_v(sum, arith.splat(FLOOR)), mel);
        }
        for energy in &mut mel {
            *energy = log10(arith, *energy);
        }
        for (lane, out) in out.chunks_exact_mut(n_mels).enumerate() {
            for (out, mel) in out.iter_mut().zip(mel.chunks_exact(A::N)) {
                *out = mel[lane];
            }
        }
    }
}

/// A complex number, or a register of real parts and one of imaginary parts.
#[derive(Debug, Clone, Copy)]
struct C<T>(T, T);

/// Arithmetic on registers of complex numbers.
#[derive(Clone, Copy)]
struct Complex<A>(A);

impl<A: Arith> Complex<A> {
    #[inline(always)]
    fn load(self, x: &[f32], i: usize) -> C<A::V> {
        let x = &x[2 * i * A::N..][..2 * A::N];
        C(self.0.load(x), self.0.load(&x[A::N..]))
    }

    #[inline(always)]
    fn store(self, C(re, im): C<A::V>, x: &mut [f32], i: usize) {
        let x = &mut x[2 * i * A::N..][..2 * A::N];
        self.0.store(re, x);
        self.0.store(im, &mut x[A::N..]);
    }

    #[inline(always)]
    fn add(self, a: C<A::V>, b: C<A::V>) -> C<A::V> {
        C(self.0.add_v(a.0, b.0), self.0.add_v(a.1, b.1))
    }

    #[inline(always)]
    fn sub(self, a: C<A::V>, b: C<A::V>) -> C<A::V> {
        self.mul_real_add(-1.0, b, a)
    }

    /// `x · a + b`
    #[inline(always)]
    fn mul_real_add(self, x: f32, a: C<A::V>, b: C<A::V>) -> C<A::V> {
        let x = self.0.splat(x);
        C(self.0.mul_add_v(x, a.0, b.0), self.0.mul_add_v(x, a.1, b.1))
    }

    /// `a · w`
    #[inline(always)]
    fn mul(self, a: C<A::V>, w: C<f32>) -> C<A::V> {
        let (arith, re, im) = (self.0, self.0.splat(w.0), self.0.splat(w.1));
        let minus_im = arith.splat(-w.1);
        C(
            arith.mul_add_v(re, a.0, arith.mul_v(minus_im, a.1)),
            arith.mul_add_v(re, a.1, arith.mul_v(im, a.0)),
        )
    }

    /// `a − i · b` and `a + i · b`
    #[inline(always)]
    fn sub_add_i(self, a: C<A::V>, b: C<A::V>) -> [C<A::V>; 2] {
        let (arith, minus) = (self.0, self.0.splat(-1.0));
        [
            C(arith.add_v(a.0, b.1), arith.mul_add_v(minus, b.0, a.1)),
            C(arith.mul_add_v(minus, b.1, a.0), arith.add_v(a.1, b.0)),
        ]
    }

    #[inline(always)]
    fn dft2(self, [a, b]: [C<A::V>; 2]) -> [C<A::V>; 2] {
        [self.add(a, b), self.sub(a, b)]
    }

    #[inline(always)]
    fn dft4(self, [a, b, c, d]: [C<A::V>; 4]) -> [C<A::V>; 4] {
        let [even, even_minus] = self.dft2([a, c]);
        let [odd, odd_minus] = self.dft2([b, d]);
        let [y0, y2] = self.dft2([even, odd]);
        let [y1, y3] = self.sub_add_i(even_minus, odd_minus);
        [y0, y1, y2, y3]
    }

    #[inline(always)]
    fn dft5(self, [a, b, c, d, e]: [C<A::V>; 5]) -> [C<A::V>; 5] {
        /// cos(τ/5), cos(2τ/5), sin(τ/5), sin(2τ/5)
        const ROOTS: [f32; 4] = [0.309_017, -0.809_017, 0.951_056_5, 0.587_785_25];
        let [c1, c2, s1, s2] = ROOTS;
        let ([be, be_minus], [cd, cd_minus]) = (self.dft2([b, e]), self.dft2([c, d]));
        let even1 = self.mul_real_add(c2, cd, self.mul_real_add(c1, be, a));
        let even2 = self.mul_real_add(c1, cd, self.mul_real_add(c2, be, a));
        let zero = C(self.0.splat(0.0), self.0.splat(0.0));
        let odd1 = self.mul_real_add(s2, cd_minus, self.mul_real_add(s1, be_minus, zero));
        let odd2 = self.mul_real_add(-s1, cd_minus, self.mul_real_add(s2, be_minus, zero));
        let ([y1, y4], [y2, y3]) = (self.sub_add_i(even1, odd1), self.sub_add_i(even2, odd2));
        [self.add(a, self.add(be, cd)), y1, y2, y3, y4]
    }

    /// A pass of Stockham's transform with radix `R` over transforms of `n` numbers, `HALF / n` of them interleaved.
    #[inline(always)]
    fn pass<const R: usize>(
        self,
        n: usize,
        roots: &[C<f32>; FRAME],
        from: &[f32],
        to: &mut [f32],
        dft: impl Fn([C<A::V>; R]) -> [C<A::V>; R],
    ) {
        let (m, stride) = (n / R, HALF / n);
        for p in 0..m {
            for q in 0..stride {
                let y = dft(std::array::from_fn(|k| self.load(from, q + stride * (p + k * m))));
                for (k, y) in y.into_iter().enumerate() {
                    let y = if p * k == 0 { y } else { self.mul(y, roots[p * k * (FRAME / n)]) };
                    self.store(y, to, q + stride * (R * p + k));
                }
            }
        }
    }
}

/// Transforms `HALF` complex numbers per lane in place; `b` is scratch.
///
/// Source: Stockham's autosort form, with 200 = 4 · 2 · 5 · 5.
#[inline(always)]
fn transform<A: Arith>(arith: A, roots: &[C<f32>; FRAME], a: &mut [f32], b: &mut [f32]) {
    let complex = Complex(arith);
    complex.pass(
        200,
        roots,
        a,
        b,
        #[inline(always)]
        |x| complex.dft4(x),
    );
    complex.pass(
        50,
        roots,
        b,
        a,
        #[inline(always)]
        |x| complex.dft2(x),
    );
    complex.pass(
        25,
        roots,
        a,
        b,
        #[inline(always)]
        |x| complex.dft5(x),
    );
    complex.pass(
        5,
        roots,
        b,
        a,
        #[inline(always)]
        |x| complex.dft5(x),
    );
}

/// The energy at each of [`BINS`] frequencies of a real frame, whose even and odd samples `z` holds transformed as
/// real and imaginary parts.
///
/// With e = Z(k) + Z*(h−k) and o = −i · (Z(k) − Z*(h−k)), twice those of the even and of the odd samples, the
/// frame's transform is e + wᵏ·o at k and (e − wᵏ·o)* at h − k.
#[inline(always)]
fn energies<A: Arith>(arith: A, roots: &[C<f32>; FRAME], z: &[f32], out: &mut [f32]) {
    let complex = Complex(arith);
    let minus = arith.splat(-1.0);
    for (k, &root) in roots[..=HALF / 2].iter().enumerate() {
        let C(a, b) = complex.load(z, k);
        let C(c, d) = complex.load(z, (HALF - k) % HALF);
        let even = C(arith.add_v(a, c), arith.mul_add_v(minus, d, b));
        let odd = C(arith.add_v(b, d), arith.mul_add_v(minus, a, c));
        let [low, high] = complex.dft2([even, complex.mul(odd, root)]);
        for (C(re, im), bin) in [(low, k), (high, HALF - k)] {
            let energy = arith.mul_add_v(re, re, arith.mul_v(im, im));
            arith.store(energy, &mut out[bin * A::N..][..A::N]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, numbers};

    /// One filter for each of some bins, so that energies can be seen apart, and a wide one.
    fn bank() -> MelBank {
        let mut rows: Vec<Vec<f32>> =
            (0..BINS).map(|bin| (0..BINS).map(|i| if i == bin { 0.5 } else { 0.0 }).collect()).collect();
        rows.push((0..BINS).map(|i| if (10..40).contains(&i) { i as f32 / 40.0 } else { 0.0 }).collect());
        rows.push(vec![0.0; BINS]);
        MelBank::new(rows.iter().map(|row| row.as_slice()))
    }

    /// By the definitions, in f64.
    fn naive(bank: &MelBank, x: &[f32], frames: usize) -> Vec<f32> {
        let mut out = Vec::new();
        for x in (0..frames).map(|i| &x[i * HOP..][..FRAME]) {
            let energy = |bin: usize| {
                let (mut re, mut im) = (0.0, 0.0);
                for (n, &x) in x.iter().enumerate() {
                    let hann = 0.5 - 0.5 * (TAU * n as f64 / FRAME as f64).cos();
                    let angle = TAU * (bin * n % FRAME) as f64 / FRAME as f64;
                    re += f64::from(x) * hann * angle.cos();
                    im -= f64::from(x) * hann * angle.sin();
                }
                re * re + im * im
            };
            let energies: Vec<f64> = (0..BINS).map(energy).collect();
            for (first, weights) in &bank.filters {
                let sum: f64 = weights.iter().zip(&energies[*first..]).map(|(&w, e)| f64::from(w) * e).sum();
                out.push(sum.max(1e-10).log10() as f32);
            }
        }
        out
    }

    #[test]
    fn every_level_agrees_with_the_definition() {
        let bank = bank();
        let x = numbers(7, 36 * HOP + FRAME);
        for frames in [0, 1, 2, 15, 16, 17, 37] {
            let want = naive(&bank, &x, frames);
            for isa in Isa::available() {
                let mut got = vec![f32::NAN; frames * bank.n_mels()];
                log_mel_on(isa, &bank, &x, &mut got);
                assert_close(&got, &want, 2e-5, format_args!("{isa}, {frames} frames"));
            }
        }
    }

    #[test]
    fn a_frame_does_not_depend_on_its_neighbours() {
        let bank = bank();
        let n_mels = bank.n_mels();
        let x = numbers(8, 199 * HOP + FRAME);
        for isa in Isa::available() {
            let mut all = vec![0.0; 200 * n_mels];
            log_mel_on(isa, &bank, &x, &mut all);
            for frame in [0, 1, 63, 64, 130, 199] {
                let mut one = vec![0.0; n_mels];
                log_mel_on(isa, &bank, &x[frame * HOP..], &mut one);
                assert_eq!(one, all[frame * n_mels..][..n_mels], "{isa}, frame {frame}");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_silent_and_what_is_too_large_stays_finite() {
        let bank = bank();
        for isa in Isa::available() {
            let mut out = vec![0.0; bank.n_mels()];
            log_mel_on(isa, &bank, &[f32::NAN; FRAME], &mut out);
            assert!(out.iter().all(|&y| (y + 10.0).abs() < 1e-5), "{isa}: {out:?}");
            log_mel_on(isa, &bank, &[1e30; FRAME], &mut out);
            assert!(out.iter().all(|y| y.is_finite()), "{isa}: {out:?}");
        }
    }
}
