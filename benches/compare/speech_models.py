"""Random-weight Whisper models of real shapes, as every engine reads them: the Hub's folder, CTranslate2's, ggml files.

The same numbers everywhere, rounded to f16 first: normally distributed with deviation 0.02, norms around one. The
vocabulary is the multilingual one that the openai-whisper package brings.
"""

import json
import struct
from pathlib import Path

import numpy as np
import torch
import whisper
from gguf import GGMLQuantizationType, quants
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter
from whisper.tokenizer import get_tokenizer

SHAPES = {
    "whisper-tiny": dict(d_model=384, layers=4, heads=6),
    "whisper-base": dict(d_model=512, layers=6, heads=8),
}
VOCAB, LANGUAGES = 51865, 99
GGML = {"f16": GGMLQuantizationType.F16, "q8_0": GGMLQuantizationType.Q8_0}
ASSETS = Path(whisper.__file__).parent / "assets"

# What the parts of a tensor's name are called by the Whisper program, and by whisper.cpp after it.
RENAMED = [
    ("model.", ""),
    ("encoder.embed_positions.weight", "encoder.positional_embedding"),
    ("decoder.embed_positions.weight", "decoder.positional_embedding"),
    ("embed_tokens", "token_embedding"),
    ("layers.", "blocks."),
    ("encoder.layer_norm", "encoder.ln_post"),
    ("decoder.layer_norm", "decoder.ln"),
    ("encoder_attn_layer_norm", "cross_attn_ln"),
    ("self_attn_layer_norm", "attn_ln"),
    ("final_layer_norm", "mlp_ln"),
    ("encoder_attn", "cross_attn"),
    ("self_attn", "attn"),
    ("q_proj", "query"),
    ("k_proj", "key"),
    ("v_proj", "value"),
    ("out_proj", "out"),
    ("fc1", "mlp.0"),
    ("fc2", "mlp.2"),
]


def make(shape, cache):
    """The folder `cache/shape`: itself one of the Hub's, with `ct2-int8`, `ct2-f32`, `ggml-f16.bin`, `ggml-q8_0.bin` in it."""
    folder = cache / shape
    done = folder / "done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = words(folder)
        model = draw(SHAPES[shape], tokenizer)
        model.half().save_pretrained(folder)
        settings(folder, tokenizer)
        model.float()
        for name, kind in GGML.items():
            write_ggml(folder / f"ggml-{name}.bin", model, kind)
        from ctranslate2.converters import TransformersConverter

        for name in ("int8", "float32"):
            out = folder / f"ct2-{name}"
            TransformersConverter(str(folder), copy_files=["tokenizer.json"]).convert(str(out), quantization=name, force=True)
        done.touch()
    return folder


def words(folder):
    table = get_tokenizer(True, num_languages=LANGUAGES)
    special = sorted(table.special_tokens, key=table.special_tokens.get)
    made = TikTokenConverter(str(ASSETS / "multilingual.tiktoken"), extra_special_tokens=special).converted()
    made.save(str(folder / "tokenizer.json"))
    assert all(made.token_to_id(token) == id for token, id in table.special_tokens.items())
    ends = dict.fromkeys(["bos_token", "eos_token", "unk_token", "pad_token"], "<|endoftext|>")
    WhisperTokenizerFast(tokenizer_object=made, **ends).save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))
    return made


def draw(shape, tokenizer):
    end, start = map(tokenizer.token_to_id, ("<|endoftext|>", "<|startoftranscript|>"))
    stacks = {f"{side}_{what}": value
              for side in ("encoder", "decoder")
              for what, value in dict(layers=shape["layers"], attention_heads=shape["heads"], ffn_dim=4 * shape["d_model"]).items()}
    config = WhisperConfig(vocab_size=VOCAB, d_model=shape["d_model"], bos_token_id=end, eos_token_id=end, pad_token_id=end,
                           decoder_start_token_id=start, **stacks)
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, x in model.named_parameters():
            if name != "model.encoder.embed_positions.weight":
                x.normal_(1 if "norm.weight" in name else 0, 0.02)
            x.copy_(x.half())
    return model


def settings(folder, tokenizer):
    id = tokenizer.token_to_id
    codes = list(whisper.tokenizer.LANGUAGES)[:LANGUAGES]
    generation = {
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": id(f"<|{code}|>") for code in codes},
        "task_to_id": {task: id(f"<|{task}|>") for task in ("transcribe", "translate")},
        "no_timestamps_token_id": id("<|notimestamps|>"),
        "decoder_start_token_id": id("<|startoftranscript|>"),
        "eos_token_id": id("<|endoftext|>"),
        "suppress_tokens": [],
        "begin_suppress_tokens": [id("<|endoftext|>")],
        "alignment_heads": [[0, 0]],
        "max_length": 448,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2))
    processor = dict(feature_extractor_type="WhisperFeatureExtractor", processor_class="WhisperProcessor", feature_size=80,
                     sampling_rate=16000, hop_length=160, n_fft=400, chunk_length=30, n_samples=480000, nb_max_frames=3000)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2))


def openai_name(name):
    for theirs, ours in RENAMED:
        name = name.replace(theirs, ours)
    return name


def write_ggml(path, model, kind):
    c, table = model.config, get_tokenizer(True, num_languages=LANGUAGES).encoding
    ranks = [table.decode_single_token_bytes(i) for i in range(50257)]
    sizes = [c.vocab_size, c.max_source_positions, c.d_model, c.encoder_attention_heads, c.encoder_layers]
    sizes += [c.max_target_positions, c.d_model, c.decoder_attention_heads, c.decoder_layers, c.num_mel_bins, file_type(kind)]
    filters = np.load(ASSETS / "mel_filters.npz")[f"mel_{c.num_mel_bins}"].astype(np.float32)
    with path.open("wb") as file:
        file.write(struct.pack("<12i", 0x67676D6C, *sizes))
        file.write(struct.pack("<2i", *filters.shape) + filters.tobytes())
        file.write(struct.pack("<i", len(ranks)))
        for token in ranks:
            file.write(struct.pack("<i", len(token)) + token)
        for name, x in model.state_dict().items():
            if name.startswith("proj_out"):
                continue
            name, x = openai_name(name), x.float().numpy()
            if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
                x = x.reshape(-1, 1)
            stored = GGMLQuantizationType.F32
            if x.ndim > 1 and "bias" not in name and "positional" not in name:
                stored = kind if x.ndim == 2 else GGMLQuantizationType.F16
            data = x.astype(np.float16) if stored == GGMLQuantizationType.F16 else x
            if stored not in (GGMLQuantizationType.F16, GGMLQuantizationType.F32):
                data = quants.quantize(x, stored)
            file.write(struct.pack("<3i", x.ndim, len(name), stored))
            file.write(struct.pack(f"<{x.ndim}i", *reversed(x.shape)) + name.encode() + data.tobytes())


def file_type(kind):
    """ggml's number of a file whose matrices are of this kind."""
    return {GGMLQuantizationType.F16: 1, GGMLQuantizationType.Q8_0: 7}[kind]
