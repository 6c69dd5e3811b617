"""Measure the listener on voices that it never heard: word error rate, clean and in noise, speech found in silence, times.

    python evaluate.py ../../speech

`--state state.pt` measures a training run instead of the model that was exported. Every voice says its own new sentences; they go
through the spectrogram as recordings do, not through the mixing of the training. Greedy, with timestamps.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from make_tokenizer import END, LANGUAGE, NO_SPEECH, START, STEP, TRANSCRIBE
from model import model as new_model, set_window
from sentences import sentence
from sound import BANDS, HOP, RATE, WINDOW_SECONDS, energies, normalized, reverberate, speak
from voices import HELD_OUT

LEAST_GAP, MOST_GAP = 0.1, 1.0  # seconds around the speech


def spoken(voice, count, frames):
    """Sentences of one voice: text, samples, start and end in seconds; recordings of no more than so many frames."""
    rng = random.Random(f"held out {voice}")
    clips = []
    while len(clips) < count:
        text = " ".join(sentence(rng))
        samples = speak(text, voice, speed=rng.randint(130, 200), pitch=rng.randint(30, 70))
        gap = lambda: np.zeros(int(rng.uniform(LEAST_GAP, MOST_GAP) * RATE), np.float32)
        before, after = gap(), gap()
        recording = np.concatenate([before, samples, after])
        if len(recording) > frames * HOP:
            continue
        start = len(before)
        clips.append((text, recording, start / RATE, (start + len(samples)) / RATE))
    return clips


def noisy(samples, rng, decibels):
    """In a small room, with white noise so far below the speech."""
    wet = reverberate(samples, rng, 0.3)[: len(samples)]
    speech = wet[np.abs(samples) > 0.01]
    return wet + rng.standard_normal(len(wet)) * np.sqrt((speech**2).mean()) * 10 ** (-decibels / 20)


def spectrograms(recordings, frames):
    """`[recordings, BANDS, frames]`; after a recording's end zeros, as in the decoding loop."""
    mels = torch.zeros(len(recordings), BANDS, frames)
    for mel, samples in zip(mels, recordings):
        found = normalized(energies(samples.astype(np.float32)))
        mel[:, : len(found)] = torch.from_numpy(found.T)
    return mels


@torch.no_grad()
def transcribe(model, tokenizer, recordings):
    """Greedy tokens of each recording, and how sure the model is that nobody speaks."""
    id = tokenizer.token_to_id
    mels = spectrograms(recordings, 2 * model.config.max_source_positions)
    encoded = model.model.encoder(mels).last_hidden_state
    head = [id(START), id(LANGUAGE), id(TRANSCRIBE)]
    tokens = torch.tensor([head] * len(recordings))
    while tokens.shape[1] < 64 and not (tokens == id(END)).any(1).all():
        hidden = model.model.decoder(input_ids=tokens, encoder_hidden_states=encoded, use_cache=False).last_hidden_state
        logits = model.proj_out(hidden)
        if tokens.shape[1] == len(head):
            silent = logits[:, 0].softmax(-1)[:, id(NO_SPEECH)]
        chosen = logits[:, -1]
        if tokens.shape[1] == len(head):
            chosen[:, : id("<|0.00|>")] = -torch.inf
        tokens = torch.cat([tokens, chosen.argmax(-1)[:, None]], 1)
    rows = [row[len(head) :] for row in tokens.tolist()]
    return [row[: row.index(id(END))] if id(END) in row else row for row in rows], silent.tolist()


def word_errors(want, got):
    """Words to insert, leave out or replace."""
    row = list(range(len(got) + 1))
    for i, w in enumerate(want, 1):
        last, row[0] = row[0], i
        for j, g in enumerate(got, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (w != g))
    return row[-1]


def rate(counts):
    return 100 * sum(e for e, _ in counts) / sum(n for _, n in counts)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("--state", type=Path)
    p.add_argument("--count", type=int, default=50, help="sentences per voice")
    p.add_argument("--seconds", type=float, default=WINDOW_SECONDS)
    p.add_argument("--examples", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(a.model / "tokenizer.json"))
    model = new_model(tokenizer).eval()
    if a.state:
        saved = torch.load(a.state, map_location="cpu")
        print(f"after {saved['step']} steps")
        weights = {k[len("whisper.") :]: v for k, v in saved["model"].items() if k.startswith("whisper.")}
    else:
        weights = {k: v.float() for k, v in load_file(a.model / "model.safetensors").items()}
        weights["proj_out.weight"] = weights["model.decoder.embed_tokens.weight"]
    model.load_state_dict(weights)
    frames = round(a.seconds * RATE / HOP)
    set_window(model, frames)

    rng = np.random.default_rng(0)
    first_time = tokenizer.token_to_id("<|0.00|>")
    conditions = {"clean": lambda x: x, "20 dB": lambda x: noisy(x, rng, 20), "10 dB": lambda x: noisy(x, rng, 10)}
    totals, starts, ends, speech = {c: [] for c in conditions}, [], [], []
    print("| voice | " + " | ".join(conditions) + " |\n| --- |" + " --: |" * len(conditions))
    for voice in HELD_OUT:
        clips, row = spoken(voice, a.count, frames), []
        for name, change in conditions.items():
            heard, silent = transcribe(model, tokenizer, [change(samples) for _, samples, _, _ in clips])
            counts = []
            for (text, _, start, end), tokens in zip(clips, heard):
                words = tokenizer.decode([t for t in tokens if t < first_time]).split()
                counts.append((word_errors(text.split(), words), len(text.split())))
                times = [(t - first_time) * STEP for t in tokens if t >= first_time]
                if name == "clean" and len(times) > 1:
                    starts.append(abs(times[0] - start)), ends.append(abs(times[-1] - end))
                if a.examples and name == "clean" and counts[-1][0]:
                    print(f"   {text} -> {' '.join(words)} {times}")
            row.append(rate(counts))
            totals[name] += counts
            speech += [p < 0.6 for p in silent]
        print(f"| {voice} | " + " | ".join(f"{r:.1f}" for r in row) + " |", flush=True)
    print("| all | " + " | ".join(f"{rate(c):.1f}" for c in totals.values()) + " |")
    quiet = [np.zeros(frames * HOP)] + [rng.standard_normal(frames * HOP) * 10 ** -e for e in np.linspace(0.5, 5, 30)]
    heard, silent = transcribe(model, tokenizer, quiet)
    invented = sum(any(t < first_time for t in tokens) and p <= 0.6 for tokens, p in zip(heard, silent))
    print(f"\nspeech taken for speech: {100 * np.mean(speech):.1f} %; words heard in {invented} of {len(quiet)} recordings of noise")
    print(f"times, clean: starts within {np.median(starts):.2f} s, ends within {np.median(ends):.2f} s (medians)")


if __name__ == "__main__":
    main()
