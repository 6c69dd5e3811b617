"""Makes whisper/<case>/: a tiny seeded Whisper in Hugging Face layout, and what transformers and openai-whisper say.

transformers gives hidden states and logits, openai-whisper (over the same weights, with a window of two seconds)
decodings, languages, transcripts and word times.
"""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from gguf import GGMLQuantizationType
from safetensors.torch import save_file
from transformers import WhisperConfig, WhisperForConditionalGeneration
from whisper.decoding import DecodingOptions, GreedyDecoder

from torch_reference import randomize
from whisper_tiny import (
    CONTEXT,
    FRAMES,
    POSITIONS,
    encoding,
    openai_model,
    two_second_windows,
    write_ggml,
    whisper_tokenizer,
    write_tokenizer,
)

ROOT = Path(__file__).parent / "whisper"
CONTENT = 3 * FRAMES + 130  # frames of the recording that is transcribed: three windows and a part
MIN_MARGIN = 2e-3


@dataclass
class Case:
    name: str
    config: dict
    languages: int
    dtype: torch.dtype
    heads: list[tuple[int, int]]  # layer and head of the cross-attention that words are aligned by
    ggml: list[GGMLQuantizationType]  # formats of files as whisper.cpp has them
    seed: int = 0


CASES = [
    # Heads of 10 and rows of 40 and 120: no dimension fills whole vector registers.
    Case(
        "multilingual-80",
        {"d_model": 40, "encoder_layers": 2, "decoder_layers": 2, "num_mel_bins": 80, "heads": 4, "ffn": 160},
        99,
        torch.float32,
        [(0, 3), (1, 0), (1, 2)],
        [],
    ),
    # As large-v3-turbo: more bins, one more language, a decoder that is less deep than the encoder.
    Case(
        "turbo-128",
        {"d_model": 64, "encoder_layers": 3, "decoder_layers": 1, "num_mel_bins": 128, "heads": 2, "ffn": 256},
        100,
        torch.float16,
        [(0, 1)],
        [GGMLQuantizationType.F16, GGMLQuantizationType.Q5_0],
    ),
]


def build(case: Case, seed: int) -> WhisperForConditionalGeneration:
    tokens = encoding(case.languages)
    token = tokens.encode_single_token
    c = case.config
    config = WhisperConfig(
        vocab_size=tokens.n_vocab,
        num_mel_bins=c["num_mel_bins"],
        d_model=c["d_model"],
        encoder_layers=c["encoder_layers"],
        decoder_layers=c["decoder_layers"],
        encoder_attention_heads=c["heads"],
        decoder_attention_heads=c["heads"],
        encoder_ffn_dim=c["ffn"],
        decoder_ffn_dim=c["ffn"],
        max_source_positions=POSITIONS,
        max_target_positions=CONTEXT,
        bos_token_id=token("<|endoftext|>"),
        eos_token_id=token("<|endoftext|>"),
        pad_token_id=token("<|endoftext|>"),
        decoder_start_token_id=token("<|startoftranscript|>"),
        suppress_tokens=None,
        begin_suppress_tokens=None,
        attn_implementation="eager",
    )
    model = WhisperForConditionalGeneration(config).eval()
    randomize(model, seed)
    with torch.no_grad():
        embedding = model.model.decoder.embed_tokens.weight
        embedding.mul_(1.4)
        # What was heard is text and, as they count together, less strongly timestamps; but no names of languages.
        embedding[token("<|startoftranscript|>") : token("<|0.00|>")].mul_(0.3)
        embedding[token("<|0.00|>") :].mul_(0.95)
        embedding[token("<|endoftext|>")].mul_(1.4)
        model.model.decoder.embed_positions.weight.mul_(10.0)
        # Else each token, being its own embedding, would be followed by itself.
        norm = model.model.decoder.layer_norm.weight
        norm.copy_(1.5 * torch.randn(norm.shape, generator=torch.Generator().manual_seed(seed)))
        for layer in model.model.decoder.layers:
            # What is heard has to matter.
            layer.encoder_attn.out_proj.weight.mul_(2.0)
            layer.encoder_attn.q_proj.weight.mul_(2.0)
    model = model.to(case.dtype)
    # As decoded from the file: in f32.
    return model.float() if case.dtype == torch.float32 else model


def generation_config(case: Case) -> dict:
    tokens = encoding(case.languages)
    token = tokens.encode_single_token
    t = whisper_tokenizer(case.languages, None, None)
    return {
        "alignment_heads": [list(pair) for pair in case.heads],
        "begin_suppress_tokens": [*tokens.encode(" "), t.eot],
        "decoder_start_token_id": t.sot,
        "eos_token_id": t.eot,
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": token(f"<|{code}|>") for code in sorted(t.all_language_codes)},
        "max_initial_timestamp_index": 50,
        "no_timestamps_token_id": t.no_timestamps,
        "prev_sot_token_id": t.sot_prev,
        "suppress_tokens": [],
        "task_to_id": {"transcribe": t.transcribe, "translate": t.translate},
    }


def smooth_noise(generator: torch.Generator, bins: int, frames: int) -> torch.Tensor:
    """Something like a spectrogram: neighbouring frames are alike. Exact in 16 bits."""
    coarse = torch.randn(1, bins, frames // 8 + 2, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=frames, mode="linear")[0]
    return (fine + 0.2 * torch.randn(bins, frames, generator=generator)).clamp(-1.5, 2.0).half().float()


@torch.no_grad()
def trace(model, mel: torch.Tensor, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """`encoder.0` is what the convolutions and positions give, `encoder.i` what layer i-1 gives, `encoder` the
    output after the last norm; `decoder.i` likewise."""
    seen = {}

    def record(name, of_input=False):
        def hook(_module, inputs, output):
            x = inputs[0] if of_input else output
            seen[name] = (x[0] if isinstance(x, tuple) else x)[0].clone()

        return hook

    encoder, decoder = model.model.encoder, model.model.decoder
    hooks = []
    for name, stack in [("encoder", encoder), ("decoder", decoder)]:
        hooks.append(stack.layers[0].register_forward_hook(record(f"{name}.0", of_input=True)))
        hooks += [layer.register_forward_hook(record(f"{name}.{i + 1}")) for i, layer in enumerate(stack.layers)]
    hooks.append(encoder.layer_norm.register_forward_hook(record("encoder")))
    seen["logits"] = model(input_features=mel[None], decoder_input_ids=tokens[None], use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    return seen


def decode(model, mel: torch.Tensor, **options) -> dict:
    result = model.decode(mel, DecodingOptions(fp16=False, **options))
    return {
        "options": options,
        "language": result.language,
        "tokens": result.tokens,
        "text": result.text,
        "avg_logprob": result.avg_logprob,
        "no_speech_prob": result.no_speech_prob,
        "compression_ratio": result.compression_ratio,
    }


DECODINGS = [
    {"language": "en"},
    {"language": "de", "task": "translate"},
    {"language": "en", "beam_size": 5},
    {"language": "en", "beam_size": 3, "patience": 2.0, "length_penalty": 0.6},
    {"language": "en", "without_timestamps": True},
    {"language": "en", "without_timestamps": True, "beam_size": 2, "suppress_tokens": "", "suppress_blank": False},
    {"language": "ja", "prompt": "the other, then", "prefix": "on the"},
    {"language": None, "max_initial_timestamp": None, "sample_len": 9},
]
ALWAYS = {"temperature": 0.0, "compression_ratio_threshold": None, "logprob_threshold": None}
TRANSCRIPTS = [
    {"language": "en", "no_speech_threshold": None},
    {"language": None, "no_speech_threshold": None, "word_timestamps": True},
    {"language": "en", "no_speech_threshold": None, "condition_on_previous_text": False, "word_timestamps": True},
    {"language": "ja", "no_speech_threshold": None, "word_timestamps": True, "clip_timestamps": "0.5,1.3,2.5"},
    {"language": "en", "no_speech_threshold": None, "initial_prompt": "the other, then", "beam_size": 3},
    {"language": "en", "no_speech_threshold": None, "initial_prompt": "the other", "carry_initial_prompt": True},
    {
        "language": "en",
        "no_speech_threshold": None,
        "word_timestamps": True,
        "hallucination_silence_threshold": 0.2,
    },
    {
        "language": "fr",
        "task": "translate",
        "no_speech_threshold": None,
        "word_timestamps": True,
        "hallucination_silence_threshold": 0.6,
        "condition_on_previous_text": False,
    },
]


def transcribe(model, mel: torch.Tensor, **options) -> dict:
    module = sys.modules["whisper.transcribe"]
    # The recording is its spectrogram here: what the reference computes first is not what this is about.
    module.log_mel_spectrogram = lambda audio, _bins, padding: torch.cat(
        [audio, torch.full((audio.shape[0], padding // 160), -0.5)], dim=1
    )
    result = module.transcribe(model, mel, verbose=None, fp16=False, **ALWAYS, **options)
    return {"options": ALWAYS | options, **result}


def smallest_margin(model, mel: torch.Tensor) -> float:
    """The least lead of a chosen token over the next in greedy decoding, rules applied."""
    margins, update = [], GreedyDecoder.update

    def watched(self, tokens, logits, sum_logprobs):
        best = logits.topk(2).values[0]
        margins.append((best[0] - best[1]).item())
        return update(self, tokens, logits, sum_logprobs)

    GreedyDecoder.update = watched
    for start in range(0, CONTENT - FRAMES, FRAMES):
        decode(model, mel[:, start : start + FRAMES], language="en")
    GreedyDecoder.update = update
    return min(margins)


def is_telling(model, mel: torch.Tensor, tokenizer) -> bool:
    """Whether rounding cannot change the answer, and windows end in pairs of timestamps, in one, and with text."""
    if smallest_margin(model, mel) < MIN_MARGIN:
        return False
    result = transcribe(model, mel, language="en", no_speech_threshold=None)
    lengths = [len([t for t in segment["tokens"] if t < tokenizer.eot]) for segment in result["segments"]]
    windows = [[s for s in result["segments"] if s["seek"] == seek] for seek in {s["seek"] for s in result["segments"]}]
    pairs = any(len(window) > 1 for window in windows)
    return len(lengths) >= 6 and pairs and sum(length >= 3 for length in lengths) >= 3 and len(windows) > 4


def make(case: Case) -> None:
    folder = ROOT / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    bins = case.config["num_mel_bins"]
    tokenizer = whisper_tokenizer(case.languages, None, None)
    with two_second_windows(case.languages):
        for seed in range(case.seed, case.seed + 2000):
            hf = build(case, seed)
            generator = torch.Generator().manual_seed(seed)
            mel = smooth_noise(generator, bins, CONTENT)
            theirs = openai_model(hf, case.heads)
            if is_telling(theirs, mel, tokenizer):
                break
        else:
            raise AssertionError(f"{case.name}: no seed gives a clear answer")
        hf.save_pretrained(folder)
        (folder / "generation_config.json").write_text(json.dumps(generation_config(case)) + "\n")
        write_tokenizer(folder / "tokenizer.json", case.languages)
        for kind in case.ggml:
            write_ggml(folder / f"ggml-{kind.name.lower()}.bin", hf, case.languages, kind)
        hf = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        hf = hf.eval()

        window = mel[:, :FRAMES]
        tokens = torch.cat([
            torch.tensor(tokenizer.sot_sequence),
            torch.randint(0, hf.config.vocab_size, (17,), generator=generator),
        ])
        expected = {"tokens": tokens, "mel": mel.half()} | trace(hf, window, tokens)
        with torch.no_grad():
            difference = theirs(window[None], tokens[None])[0] - expected["logits"]
        assert difference.abs().max() < 1e-4, "the two references disagree"
        save_file({name: x.contiguous() for name, x in expected.items()}, folder / "expected.safetensors")

        _, probabilities = theirs.detect_language(window[None])
        answers = {
            "languages": dict(sorted(probabilities[0].items())),
            "non_speech_tokens": tokenizer.non_speech_tokens,
            "decodings": [decode(theirs, window, **options) for options in DECODINGS],
            "transcripts": [transcribe(theirs, mel, **options) for options in TRANSCRIPTS],
        }
        (folder / "expected.json").write_text(json.dumps(answers, ensure_ascii=False, indent=None) + "\n")
    texts = [t["text"][:70] for t in answers["transcripts"][:2]]
    print(f"{case.name}: seed {seed}, logits std {expected['logits'].std():.2f}, {texts}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for case in CASES:
        make(case)
