"""Makes vad/: a tiny seeded network of the kind that Silero's VAD is, in the three containers that users have, what
PyTorch says of a sound window by window, and where faster-whisper sees speech in made-up probabilities.
"""

import json
import struct
from pathlib import Path

import torch
from faster_whisper import vad
from safetensors.torch import save_file
from torch import nn

ROOT = Path(__file__).parent / "vad"
WINDOW, CONTEXT = 512, 64
SAMPLES = 30 * WINDOW - 200
# No dimension fills whole vector registers, no two are the same.
BINS, CHANNELS, HIDDEN = 9, (14, 10, 7, 13), 11
CASES = 48


class Stft(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("forward_basis_buffer", torch.zeros(2 * BINS, 1, 256))

    def forward(self, x):
        x = nn.functional.pad(x[:, None], (0, 64), mode="reflect")
        x = nn.functional.conv1d(x, self.forward_basis_buffer, stride=128)
        return (x[:, :BINS] ** 2 + x[:, BINS:] ** 2).sqrt()


class Block(nn.Module):
    def __init__(self, channels, out, stride):
        super().__init__()
        self.reparam_conv = nn.Conv1d(channels, out, 3, stride=stride, padding=1)

    def forward(self, x):
        return self.reparam_conv(x).relu()


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTMCell(CHANNELS[-1], HIDDEN)
        self.decoder = nn.Sequential(nn.Dropout(), nn.ReLU(), nn.Conv1d(HIDDEN, 1, 1), nn.Sigmoid())

    def forward(self, x, state):
        state = self.rnn(x, state)
        return self.decoder(state[0][..., None]).mean(), state


class Silero(nn.Module):
    def __init__(self):
        super().__init__()
        self.stft = Stft()
        channels = zip((BINS, *CHANNELS), CHANNELS, (1, 2, 2, 1))
        self.encoder = nn.Sequential(*(Block(*sizes) for sizes in channels))
        self.decoder = Decoder()

    def forward(self, samples):
        """`[n]` → probabilities `[windows]`; each window sees the end of the one before."""
        samples = nn.functional.pad(samples, (CONTEXT, -len(samples) % WINDOW))
        state, found = None, []
        for at in range(0, len(samples) - CONTEXT, WINDOW):
            x = self.encoder(self.stft(samples[None, at : at + CONTEXT + WINDOW]))
            p, state = self.decoder(x[..., 0], state)
            found.append(p)
        return torch.stack(found)


def model() -> Silero:
    net = Silero().eval()
    generator = torch.Generator().manual_seed(7)
    for name, x in net.state_dict().items():
        noise = torch.randn(x.shape, generator=generator)
        if "bias" in name:
            x.copy_(0.3 * noise)
        elif "stft" in name:
            x.copy_(0.2 * noise)
        else:
            x.copy_(noise * (6 / x[0].numel()) ** 0.5)
        if name == "decoder.decoder.2.weight":
            x.mul_(4)
        if x.ndim == 3:
            x.copy_(x.half())  # as whisper.cpp's files store them
    return net


def sound() -> torch.Tensor:
    """`[SAMPLES]` i16: noise that comes and goes, and silence."""
    generator = torch.Generator().manual_seed(9)
    time = torch.arange(SAMPLES) / 16_000
    loudness = (torch.sin(time * 23) * torch.sin(time * 131)).clamp(min=0).double()
    noise = torch.randn(SAMPLES, generator=generator, dtype=torch.float64)
    return (0.3 * loudness * noise).clamp(-1, 1).mul(32_767).round().to(torch.int16)


def other_names(name: str) -> str:
    """Those of the file for 16 kHz alone."""
    if name.startswith("encoder."):
        _, i, _, kind = name.split(".")
        return f"conv{int(i) + 1}.{kind}"
    for theirs, ours in (
        ("stft.forward_basis_buffer", "stft_conv.weight"),
        ("decoder.rnn.", "lstm_cell."),
        ("decoder.decoder.2.", "final_conv."),
    ):
        name = name.replace(theirs, ours)
    return name


def write_ggml(path: Path, net: Silero) -> None:
    """As whisper.cpp's converter writes it."""
    sizes = [WINDOW, CONTEXT, len(CHANNELS)]
    for channels, out in zip((BINS, *CHANNELS), CHANNELS):
        sizes += [channels, out, 3]
    sizes += [CHANNELS[-1], HIDDEN, HIDDEN, 1]
    kind = b"silero-16k"
    with path.open("wb") as file:
        file.write(struct.pack("<2i", 0x67676D6C, len(kind)) + kind + struct.pack("<3i", 5, 1, 2))
        file.write(struct.pack(f"<{len(sizes)}i", *sizes))
        tensors = sorted(net.state_dict().items(), key=lambda item: item[0].startswith("stft"))
        for name, x in tensors:
            name = f"_model.{name}"
            half = x.ndim == 3
            # But for the basis, dimensions of 1 are left out, even the only one.
            x = x if "stft" in name else x.squeeze()
            data = (x.half() if half else x).numpy()
            file.write(struct.pack("<3i", data.ndim, len(name), int(half)))
            file.write(struct.pack(f"<{data.ndim}i", *reversed(data.shape)) + name.encode() + data.tobytes())


def timestamps() -> list[dict]:
    """Random probabilities, random options, and where faster-whisper sees speech."""
    generator = torch.Generator().manual_seed(10)
    draw = lambda *choices: choices[int(torch.randint(len(choices), (), generator=generator))]
    cases = []
    for _ in range(CASES):
        windows = draw(1, 20, 150, 150, 300)
        # Runs of speech and of silence, with some doubt in them.
        probabilities = []
        while len(probabilities) < windows:
            level, length = draw(0.1, 0.42, 0.9), draw(1, 3, 8, 20, 70)
            noise = 0.1 * torch.rand(length, generator=generator) - 0.05
            probabilities += [round(float(level + x), 2) for x in noise]
        probabilities = probabilities[:windows]
        options = {
            "threshold": draw(0.3, 0.5, 0.5, 0.9),
            "min_speech_duration_ms": draw(0, 100, 250, 1000),
            "max_speech_duration_s": draw(None, None, 0.3, 1.0, 3.0),
            "min_silence_duration_ms": draw(0, 100, 500, 2000),
            "speech_pad_ms": draw(0, 30, 30, 400),
        }
        samples = WINDOW * windows - draw(1, 100, 511)
        given = {name: x for name, x in options.items() if x is not None}
        vad.get_vad_model = lambda: lambda _audio: probabilities
        speech = vad.get_speech_timestamps(torch.zeros(samples).numpy(), vad.VadOptions(**given))
        cases.append(
            {
                **options,
                "probabilities": probabilities,
                "samples": samples,
                "speech": [[s["start"], s["end"]] for s in speech],
            }
        )
    return cases


if __name__ == "__main__":
    ROOT.mkdir(exist_ok=True)
    net = model()
    state = {name: x.contiguous() for name, x in net.state_dict().items()}
    # The published model holds one for 8 kHz as well.
    whole = {f"_model.{name}": x for name, x in state.items()}
    whole["_model_8k.stft.forward_basis_buffer"] = torch.ones(6, 1, 128)
    save_file(whole, ROOT / "silero.safetensors")
    save_file({other_names(name): x for name, x in state.items()}, ROOT / "silero_16k.safetensors")
    write_ggml(ROOT / "ggml-silero.bin", net)
    samples = sound()
    with torch.no_grad():
        probabilities = net(samples.float() / 32_768)
    assert probabilities.min() < 0.1 and probabilities.max() > 0.7, probabilities
    save_file({"samples": samples, "probabilities": probabilities}, ROOT / "expected.safetensors")
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in timestamps())
    (ROOT / "timestamps.json").write_text(f"[\n{lines}\n]\n")
