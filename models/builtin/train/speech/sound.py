"""Speech from text, and its spectrogram."""

import io
import subprocess
import wave

import numpy as np
from transformers.audio_utils import mel_filter_bank

RATE, FRAME, HOP, BANDS = 16_000, 400, 160, 80
WINDOW_SECONDS = 6
FRAMES = WINDOW_SECONDS * RATE // HOP

FILTERS = mel_filter_bank(FRAME // 2 + 1, BANDS, 0, RATE / 2, RATE, "slaney", "slaney").astype(np.float32)
HANN = np.hanning(FRAME + 1)[:-1].astype(np.float32)


def speak(text, voice, speed=160, pitch=50):
    """Samples in -1..1, without the silence around them. `speed` in words per minute, `pitch` from 0 to 99."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    with wave.open(io.BytesIO(subprocess.run(command, capture_output=True, check=True).stdout)) as wav:
        samples = np.frombuffer(wav.readframes(1 << 30), np.int16) / np.float32(32768)
        samples = resample(samples, wav.getframerate())
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    return samples[loud[0] : loud[-1] + 1].astype(np.float32)


def resample(samples, rate):
    """To 16 kHz, by cutting the spectrum off."""
    n = round(len(samples) * RATE / rate)
    spectrum = np.fft.rfft(np.pad(samples, (0, -len(samples) % 2)))
    return np.fft.irfft(spectrum[: n // 2 + 1], n) * (n / len(samples))


def energies(samples):
    """`[frames, BANDS]`, as Whisper's, before the logarithm."""
    frames = len(samples) // HOP
    padded = np.pad(samples, FRAME // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP][:frames]
    return (np.abs(np.fft.rfft(windows * HANN)) ** 2).astype(np.float32) @ FILTERS


def normalized(energy):
    """The spectrogram that the model sees."""
    y = np.log10(np.maximum(energy, 1e-10))
    return (np.maximum(y, y.max() - 8) + 4) / 4


def reverberate(samples, rng, seconds):
    """In a room whose sound dies away by 60 dB in so many seconds."""
    n = int(seconds * RATE)
    room = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    room *= 0.3 / np.sqrt((room**2).sum())
    room[0] = 1
    size = 1 << (len(samples) + n).bit_length()
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(room, size), size)[: len(samples) + n // 2]
