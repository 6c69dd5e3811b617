"""What the Whisper fixtures are made of: a small vocabulary, and openai-whisper with a window of two seconds."""

import json
import struct
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy
import tiktoken
import torch
import whisper
from gguf import GGMLQuantizationType, quants
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from whisper.tokenizer import LANGUAGES
from whisper.tokenizer import Tokenizer as WhisperTokenizer

# The window: everything that the reference fixes at 30 seconds follows from the positions of the encoder.
POSITIONS = 100
SECONDS = 2
FRAMES = 2 * POSITIONS
CONTEXT = 64  # positions of the decoder

PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TEXT = "the and that the other then there in on of to is it was for, with. he she they not an é ü 你好 「一」 ♪ (a) [b] -- "


def bytes_to_unicode() -> dict[int, str]:
    """GPT-2's alphabet: a printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


@cache
def ranks(merges: int = 56) -> dict[bytes, int]:
    """Bytes, and what byte-pair encoding merges in a short text."""
    byte_order = bytes_to_unicode()
    found = {bytes([b]): i for i, b in enumerate(byte_order)}
    words = [[bytes([b]) for b in f" {word}".encode()] for word in TEXT.split()]
    for _ in range(merges):
        pairs: dict[tuple[bytes, bytes], int] = {}
        for word in words:
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        found[best[0] + best[1]] = len(found)
        for word in words:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = [best[0] + best[1]]
                i += 1
    return found


def specials(languages: int) -> list[str]:
    return [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *[f"<|{code}|>" for code in list(LANGUAGES)[:languages]],
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
        *[f"<|{i * 0.02:.2f}|>" for i in range(POSITIONS + 1)],
    ]


@cache
def encoding(languages: int) -> tiktoken.Encoding:
    table = ranks()
    special = {token: len(table) + i for i, token in enumerate(specials(languages))}
    return tiktoken.Encoding("tiny", pat_str=PATTERN, mergeable_ranks=table, special_tokens=special)


def whisper_tokenizer(languages: int, language: str | None, task: str | None) -> WhisperTokenizer:
    return WhisperTokenizer(
        encoding=encoding(languages), num_languages=languages, language=language or "en", task=task or "transcribe"
    )


def merge_of(token: bytes, table: dict[bytes, int]) -> list[bytes]:
    """The two parts that a token was merged from."""
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        best = min(
            (i for i in range(len(parts) - 1) if parts[i] + parts[i + 1] in table),
            key=lambda i: table[parts[i] + parts[i + 1]],
        )
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts


def write_tokenizer(path: Path, languages: int) -> None:
    """The same vocabulary as transformers stores it."""
    table, alphabet = ranks(), bytes_to_unicode()
    spell = lambda token: "".join(alphabet[b] for b in token)
    merges = [tuple(map(spell, merge_of(token, table))) for token in table if len(token) > 1]
    tokenizer = Tokenizer(models.BPE(vocab={spell(t): i for t, i in table.items()}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    for token in specials(languages):
        added = AddedToken(token, special=not token[2:3].isdigit(), normalized=False)
        (tokenizer.add_special_tokens if added.special else tokenizer.add_tokens)([added])
    start, end = tokenizer.token_to_id("<|startoftranscript|>"), tokenizer.token_to_id("<|endoftext|>")
    plain = tokenizer.token_to_id("<|notimestamps|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftranscript|> <|notimestamps|> $A <|endoftext|>",
        special_tokens=[("<|startoftranscript|>", start), ("<|notimestamps|>", plain), ("<|endoftext|>", end)],
    )
    # As the Hub has it: one line each would take more room than the weights.
    path.write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")


@contextmanager
def two_second_windows(languages: int):
    """openai-whisper with our window and vocabulary. Its own are constants of its modules."""
    transcribe, decoding, timing = (sys.modules[f"whisper.{m}"] for m in ("transcribe", "decoding", "timing"))
    tokenizer = lambda _multilingual, *, num_languages, language=None, task=None: whisper_tokenizer(
        languages, language, task
    )
    patches = [
        (transcribe, "N_FRAMES", FRAMES),
        (transcribe, "N_SAMPLES", SECONDS * 16000),
        (transcribe, "get_tokenizer", tokenizer),
        (decoding, "CHUNK_LENGTH", SECONDS),
        (decoding, "get_tokenizer", tokenizer),
        (whisper.model.Whisper, "is_multilingual", property(lambda _self: True)),
        (whisper.model.Whisper, "num_languages", property(lambda _self: languages)),
        # The compiled version has no fixed order of threads; the same code in Python has.
        (timing, "dtw_cpu", timing.dtw_cpu.py_func),
    ]
    old = [getattr(where, name) for where, name, _ in patches]
    for where, name, value in patches:
        setattr(where, name, value)
    yield
    for (where, name, _), value in zip(patches, old):
        setattr(where, name, value)


# openai-whisper's names by transformers' ones.
RENAMED = [
    ("model.", ""),
    ("encoder.layer_norm", "encoder.ln_post"),
    ("decoder.layer_norm", "decoder.ln"),
    ("embed_tokens", "token_embedding"),
    ("embed_positions.weight", "positional_embedding"),
    ("layers", "blocks"),
    ("self_attn_layer_norm", "attn_ln"),
    ("encoder_attn_layer_norm", "cross_attn_ln"),
    ("final_layer_norm", "mlp_ln"),
    ("self_attn", "attn"),
    ("encoder_attn", "cross_attn"),
    ("q_proj", "query"),
    ("k_proj", "key"),
    ("v_proj", "value"),
    ("out_proj", "out"),
    ("fc1", "mlp.0"),
    ("fc2", "mlp.2"),
]


def openai_name(name: str) -> str:
    for ours, theirs in RENAMED:
        name = name.replace(ours, theirs)
    return name


def openai_model(hf, heads: list[tuple[int, int]]) -> whisper.model.Whisper:
    """The same weights in openai-whisper's model."""
    c = hf.config
    model = whisper.model.Whisper(
        whisper.model.ModelDimensions(
            n_mels=c.num_mel_bins,
            n_audio_ctx=c.max_source_positions,
            n_audio_state=c.d_model,
            n_audio_head=c.encoder_attention_heads,
            n_audio_layer=c.encoder_layers,
            n_vocab=c.vocab_size,
            n_text_ctx=c.max_target_positions,
            n_text_state=c.d_model,
            n_text_head=c.decoder_attention_heads,
            n_text_layer=c.decoder_layers,
        )
    )
    state = {openai_name(name): x.float() for name, x in hf.state_dict().items() if not name.startswith("proj_out")}
    model.load_state_dict(state)
    mask = torch.zeros(c.decoder_layers, c.decoder_attention_heads, dtype=torch.bool)
    for layer, head in heads:
        mask[layer, head] = True
    model.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)
    return model.eval()


def write_ggml(path: Path, hf, languages: int, kind: GGMLQuantizationType) -> None:
    """The same weights as whisper.cpp's converter and its quantizer write them."""
    c, table = hf.config, ranks()
    sizes = [c.vocab_size, c.max_source_positions, c.d_model, c.encoder_attention_heads, c.encoder_layers]
    sizes += [c.max_target_positions, c.d_model, c.decoder_attention_heads, c.decoder_layers, c.num_mel_bins, kind]
    with path.open("wb") as file:
        file.write(struct.pack("<12i", 0x67676D6C, *sizes))
        file.write(struct.pack("<2i", 1, 2) + bytes(8))  # filters, which are not read
        file.write(struct.pack("<i", len(table)))
        for token in table:
            file.write(struct.pack("<i", len(token)) + token)
        for name, x in hf.state_dict().items():
            if name.startswith("proj_out"):
                continue
            name, x = openai_name(name), x.float().numpy()
            if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
                x = x.reshape(-1, 1)
            stored = GGMLQuantizationType.F32
            if x.ndim > 1 and "bias" not in name and "positional" not in name:
                stored = kind if x.ndim == 2 else GGMLQuantizationType.F16
            data = x.astype(numpy.float16) if stored == GGMLQuantizationType.F16 else x
            if stored not in (GGMLQuantizationType.F16, GGMLQuantizationType.F32):
                data = quants.quantize(x, stored)
            file.write(struct.pack("<3i", x.ndim, len(name), stored))
            file.write(struct.pack(f"<{x.ndim}i", *reversed(x.shape)) + name.encode() + data.tobytes())
