"""Speak the sample recording, in a voice that the listener never heard.

    python make_sample.py ../../../../examples/audio/sample.wav
"""

import sys
import wave
from pathlib import Path

import numpy as np

from sound import RATE, speak

VOICE = "en-us+adam"
SENTENCES = ["turn on the kitchen light", "set a timer for twenty five minutes", "three seven one nine"]
PAUSE = 1.0  # seconds


def main(out):
    rng = np.random.default_rng(1)
    pause = np.zeros(int(PAUSE * RATE))
    pieces = [pause]
    for text in SENTENCES:
        pieces += [speak(text, VOICE, speed=150), pause]
    samples = np.concatenate(pieces)
    samples = 0.7 * samples + rng.standard_normal(len(samples)) * 3e-4  # no recording is quite silent
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with wave.open(out, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(RATE)
        wav.writeframes((samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
    print(f"{len(samples) / RATE:.1f} s: {', '.join(SENTENCES)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
