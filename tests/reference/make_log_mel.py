"""Makes audio/log_mel.safetensors: half a second of sound, and its spectrograms of 80 and 128 bands by transformers.

The sound has a tone that rises through all bands, noise below and above the range that a spectrogram keeps, and ends
in digital silence. Its length is no multiple of a frame's.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import WhisperFeatureExtractor

RATE = 16_000
SAMPLES = 8_077
SILENT = 1_000


def sound() -> torch.Tensor:
    """`[SAMPLES]` i16"""
    generator = torch.Generator().manual_seed(4)
    time = torch.arange(SAMPLES, dtype=torch.float64) / RATE
    tone = 0.5 * torch.sin(torch.pi * 15_000 * time**2)
    noise = torch.randn(SAMPLES, generator=generator, dtype=torch.float64)
    loudness = 10 ** torch.linspace(-1, -5, SAMPLES, dtype=torch.float64)
    samples = tone * (time % 0.1 < 0.06) + noise * loudness
    samples[-SILENT:] = 0
    return (samples.clamp(-1, 1) * 32_767).round().to(torch.int16)


def log_mel(samples: torch.Tensor, n_mels: int) -> torch.Tensor:
    """`[n_mels, frames]`: all of it, neither cut nor padded to a window."""
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    audio = samples.to(torch.float32) / 32_768
    features = extractor(audio.numpy(), sampling_rate=RATE, padding=False, return_tensors="pt", device="cpu")
    return features.input_features[0].contiguous()


if __name__ == "__main__":
    folder = Path(__file__).parent / "audio"
    folder.mkdir(exist_ok=True)
    samples = sound()
    spectrograms = {f"log_mel.{n_mels}": log_mel(samples, n_mels) for n_mels in (80, 128)}
    save_file({"samples": samples, **spectrograms}, folder / "log_mel.safetensors")
