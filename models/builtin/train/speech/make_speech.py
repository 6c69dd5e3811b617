"""Speak sentences and store their spectrograms, a shard of some hundred at a time.

    python make_speech.py speech --count 10000 --seed 1

A shard `NNN.npz` holds `energy [frames, 80]` f16 (decimal logarithms, not normalized, clip after clip), the clips' `lengths` and
their `texts`. Sentences too long for the model's window are left out. Made in order, so a training run may begin with the first.
"""

import argparse
import random
from pathlib import Path

import numpy as np

from sentences import sentence
from sound import FRAMES, energies, reverberate, speak
from voices import voice

SHARD = 500


def clip(rng, noise):
    """A sentence and the logarithms of its energies, as said by a random voice at a random pace and pitch."""
    while True:
        text = " ".join(sentence(rng))
        samples = speak(text, voice(rng), speed=rng.randint(110, 230), pitch=rng.randint(15, 85))
        if rng.random() < 0.25:
            samples = reverberate(samples, noise, rng.uniform(0.1, 0.6))
        energy = energies(samples)
        if len(energy) <= FRAMES - 30:
            return text, np.log10(np.maximum(energy, 1e-10)).astype(np.float16)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=Path)
    p.add_argument("--count", type=int, default=10_000)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    for shard in range(a.count // SHARD):
        path = a.out / f"{a.seed:02}-{shard:03}.npz"
        if path.exists():
            continue
        rng, noise = random.Random(f"{a.seed} {shard}"), np.random.default_rng((a.seed, shard))
        texts, clips = zip(*(clip(rng, noise) for _ in range(SHARD)))
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, energy=np.concatenate(clips), lengths=[len(c) for c in clips], texts=texts)
        temporary.replace(path)


if __name__ == "__main__":
    main()
