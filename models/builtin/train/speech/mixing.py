"""What the model hears in training: clips laid into windows, in rooms, with noise, through other microphones and throats; and what
it is to write.

All happens to energies of mel bands, where sounds that do not belong together add up.
"""

import random
from pathlib import Path

import numpy as np

from make_tokenizer import END, LANGUAGE, NO_SPEECH, NO_TIMESTAMPS, PREVIOUS, START, STEP, TRANSCRIBE
from sound import BANDS, FRAMES, HOP, RATE, normalized

FRAMES_PER_STEP = round(STEP * RATE / HOP)
IGNORED = -100
PROMPT = 60  # tokens


class Clips:
    """All clips that are there by now."""

    def __init__(self, folder):
        self.folder, self.seen, self.clips = Path(folder), set(), []
        self.look()

    def look(self):
        for path in sorted(self.folder.glob("??-???.npz")):
            if path not in self.seen:
                self.seen.add(path)
                with np.load(path) as shard:
                    ends = np.cumsum(shard["lengths"])[:-1]
                    self.clips += zip(shard["texts"].tolist(), np.split(shard["energy"], ends))

    def any(self, rng, frames=FRAMES):
        """One of no more than so many frames."""
        while True:
            text, clip = self.clips[rng.randrange(len(self.clips))]
            if len(clip) <= frames:
                return text, clip


def smooth_bands(rng, size):
    """A smooth random curve over the bands, in decades."""
    x = np.linspace(0, np.pi, BANDS)
    return sum(rng.normal(0, size / (k + 1)) * np.cos(k * x + rng.uniform(0, np.pi)) for k in range(4))


def noise(rng, frames):
    """Energies of a steady or swelling noise of random colour, of mean 1."""
    grain = rng.uniform(1.5, 6)
    y = rng.gamma(grain, 1 / grain, (frames, BANDS))
    y *= 10 ** smooth_bands(rng, 0.8)
    if rng.random() < 0.3:
        swell = np.interp(np.arange(frames), np.sort(rng.uniform(0, frames, 8)), rng.normal(0, 0.7, 8))
        y *= 10 ** swell[:, None]
    if rng.random() < 0.1:
        for at in rng.integers(0, frames, 6):
            y[at : at + rng.integers(1, 12)] *= 10 ** rng.uniform(0, 2)
    return y / y.mean()


def other_throat(rng, energy):
    """The bands stretched or squeezed, and another pace."""
    frames = round(len(energy) / rng.uniform(0.9, 1.12))
    bands = np.clip(np.arange(BANDS) * rng.uniform(0.92, 1.08) + rng.normal(0, 0.5), 0, BANDS - 1)
    low = np.minimum(bands.astype(int), BANDS - 2)
    share = (bands - low)[None].astype(np.float32)
    energy = energy[np.linspace(0, len(energy) - 1, frames).round().astype(int)]
    return energy[:, low] * (1 - share) + energy[:, low + 1] * share


def lay(rng, chance, clips, frames):
    """A window's energies, and its sentences: text, first frame, last frame (none if cut off)."""
    energy, spoken, at = np.zeros((frames, BANDS), np.float32), [], 0
    count = chance.choices([0, 1, 2, 3], [8, 57, 27, 8])[0]
    tone = smooth_bands(rng, 0.3) + rng.uniform(-2, 1)
    for i in range(count):
        text, clip = clips.any(chance, frames)
        clip = other_throat(rng, clip.astype(np.float32)) + tone
        if i == 0:
            room = frames - len(clip)
            if room < 0:
                continue
            at = min(room, int(chance.choice([0, chance.expovariate(1 / 30), chance.uniform(0, 300)])))
        else:
            at += int(chance.uniform(12, 120))
        if at > frames - 20:
            break
        end = at + len(clip)
        energy[at:end] += 10 ** clip[: frames - at]
        spoken.append((text, at, end if end <= frames else None))
        if end > frames:
            break
        at = end
    loud = energy.mean() if spoken else 10 ** rng.uniform(-9, 0)
    if rng.random() < 0.75:
        energy += noise(rng, frames) * loud * 10 ** rng.uniform(-4.5, -0.7)
    return energy, spoken


def ended(rng, mel, spoken):
    """The recording over some time after the speech: what follows is 0, as the window of a decoding loop is filled."""
    if rng.random() < 0.6 and all(end is not None for _, _, end in spoken):
        mel[rng.integers(max([end for _, _, end in spoken], default=0), len(mel) + 1) :] = 0
    return mel


def masked(rng, mel):
    """Some bands and some moments missing."""
    for size, axis, count in [(9, 1, rng.integers(0, 3)), (14, 0, rng.integers(0, 3))]:
        for _ in range(count):
            width = rng.integers(1, size)
            at = rng.integers(0, mel.shape[axis] - width)
            mel[(slice(None), slice(at, at + width)) if axis else slice(at, at + width)] = mel.mean()
    return mel


class Writer:
    """What is written: the tokens of a window."""

    def __init__(self, tokenizer):
        self.tokenizer, self.id = tokenizer, tokenizer.token_to_id
        self.first_time = self.id("<|0.00|>")
        self.words = {}

    def text(self, text):
        if text not in self.words:
            self.words[text] = self.tokenizer.encode(" " + text).ids
        return self.words[text]

    def time(self, frame):
        return self.first_time + min(frame, FRAMES) // FRAMES_PER_STEP

    def prompt(self, chance, clips):
        """What is said to have been heard before: often nothing."""
        if chance.random() < 0.6:
            return []
        timed, at, tokens = chance.random() < 0.7, 0, []
        for _ in range(chance.randint(1, 5)):
            text, clip = clips.any(chance)
            words = self.text(text)
            tokens += [self.time(at), *words, self.time(at + len(clip))] if timed else words
            at = (at + len(clip) + chance.randint(10, 200)) % (FRAMES - len(clip))
        return [self.id(PREVIOUS)] + tokens[-chance.randint(3, PROMPT) :]

    def write(self, chance, spoken, prompt):
        """Decoder inputs, targets, and the words by themselves."""
        whole = all(end is not None for _, _, end in spoken)
        body, jittered, words = [], [], []
        if whole and chance.random() < 0.3:
            body = [self.id(NO_TIMESTAMPS)] + [t for text, _, _ in spoken for t in self.text(text)]
            jittered = body
        else:
            for i, (text, start, end) in enumerate(spoken):
                first = self.time(start)
                body.append(first)
                # Decoding rules may force an earlier start than is true.
                early = i == 0 and chance.random() < 0.3
                jittered.append(self.first_time + min(chance.randint(0, 50), first - self.first_time) if early else first)
                if end is not None:
                    body += [*self.text(text), self.time(end)]
                    jittered += [*self.text(text), self.time(end)]
            if not spoken:
                body = jittered = [self.first_time]
        for text, _, end in spoken:
            words += self.text(text) if end is not None else []
        head = [self.id(START), self.id(LANGUAGE), self.id(TRANSCRIBE)]
        says = [self.id(LANGUAGE if spoken else NO_SPEECH), self.id(TRANSCRIBE)]
        inputs = prompt + head + jittered
        targets = [IGNORED] * len(prompt) + says + body + [self.id(END)]
        return inputs, targets, words


def batches(clips, tokenizer, size, frames, seed):
    """Endless batches: spectrograms `[size, BANDS, frames]`, inputs, targets, and the words of each window."""
    rng, chance, writer = np.random.default_rng(seed), random.Random(str(seed)), Writer(tokenizer)
    while True:
        windows = [lay(rng, chance, clips, frames) for _ in range(size)]
        mels = [masked(rng, ended(rng, normalized(energy), spoken)).T for energy, spoken in windows]
        mels = np.stack(mels).astype(np.float32)
        rows = [writer.write(chance, spoken, writer.prompt(chance, clips)) for _, spoken in windows]
        longest = max(len(inputs) for inputs, _, _ in rows)
        fill = lambda row, with_: row + [with_] * (longest - len(row))
        inputs = np.array([fill(inputs, writer.id(END)) for inputs, _, _ in rows])
        targets = np.array([fill(targets, IGNORED) for _, targets, _ in rows])
        yield mels, inputs, targets, [words for _, _, words in rows]
