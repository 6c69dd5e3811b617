"""Random-weight models of real shapes, as a folder (config.json, model.safetensors) and as GGUF files.

The same numbers in every format: normally distributed with deviation 0.02, norms around one, from a seed that is
the tensor's name. No tokenizer: what is measured takes token ids.
"""

import ctypes
import json
import struct
import zlib
from pathlib import Path

import numpy as np

SHAPES = {
    "smollm2-135m": dict(hidden=576, ffn=1536, layers=30, heads=9, kv_heads=3, vocab=49152, theta=100000.0, context=8192),
    "llama-1b": dict(hidden=2048, ffn=8192, layers=16, heads=32, kv_heads=8, vocab=128256, theta=500000.0, context=131072),
}

DEVIATION = 0.02
NORM_EPS = 1e-5

# llama.cpp's numbers for `llama_model_quantize`; the mixture of types within a file is its own.
FILE_TYPES = {"f16": 1, "q4_0": 2, "q8_0": 7, "q4_k_m": 15}

GGUF_PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def tensors(s):
    """Names and shapes, in the order of the file."""
    h, f = s["hidden"], s["ffn"]
    kv = h // s["heads"] * s["kv_heads"]
    yield "model.embed_tokens.weight", (s["vocab"], h)
    for i in range(s["layers"]):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (h,)
        for part, out in (("q", h), ("k", kv), ("v", kv)):
            yield f"{layer}self_attn.{part}_proj.weight", (out, h)
        yield layer + "self_attn.o_proj.weight", (h, h)
        yield layer + "post_attention_layernorm.weight", (h,)
        yield layer + "mlp.gate_proj.weight", (f, h)
        yield layer + "mlp.up_proj.weight", (f, h)
        yield layer + "mlp.down_proj.weight", (h, f)
    yield "model.norm.weight", (h,)


def draw(name, shape):
    """The tensor's numbers as bits of bf16, rounded to nearest even."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, dtype=np.float32)
    x *= DEVIATION
    if len(shape) == 1:
        x += 1
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widen(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def write_folder(to, s, dtype):
    """config.json and model.safetensors, `dtype` being bf16 or f16."""
    to.mkdir(parents=True, exist_ok=True)
    config = dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=s["hidden"], intermediate_size=s["ffn"],
        num_hidden_layers=s["layers"], num_attention_heads=s["heads"], num_key_value_heads=s["kv_heads"],
        vocab_size=s["vocab"], max_position_embeddings=s["context"], rope_theta=s["theta"], rms_norm_eps=NORM_EPS,
        hidden_act="silu", tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        torch_dtype={"bf16": "bfloat16", "f16": "float16"}[dtype],
    )
    (to / "config.json").write_text(json.dumps(config, indent=1))
    header, at = {}, 0
    for name, shape in tensors(s):
        end = at + 2 * int(np.prod(shape))
        header[name] = dict(dtype=dtype.upper(), shape=list(shape), data_offsets=[at, end])
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(to / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors(s):
            bits = draw(name, shape)
            file.write(bits if dtype == "bf16" else widen(bits).astype(np.float16))


def write_gguf(to, s):
    """A GGUF file of bf16 matrices, with the rows of queries and keys in llama.cpp's order."""
    import gguf

    head = s["hidden"] // s["heads"]
    writer = gguf.GGUFWriter(to, "llama")
    writer.add_context_length(s["context"])
    writer.add_embedding_length(s["hidden"])
    writer.add_block_count(s["layers"])
    writer.add_feed_forward_length(s["ffn"])
    writer.add_head_count(s["heads"])
    writer.add_head_count_kv(s["kv_heads"])
    writer.add_layer_norm_rms_eps(NORM_EPS)
    writer.add_rope_freq_base(s["theta"])
    writer.add_rope_dimension_count(head)
    writer.add_vocab_size(s["vocab"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_tokenizer_model("no_vocab")
    for name, shape in tensors(s):
        bits, to_name = draw(name, shape), gguf_name(name)
        if len(shape) == 1:
            writer.add_tensor(to_name, widen(bits))
            continue
        if to_name.endswith(("attn_q.weight", "attn_k.weight")):
            # The halves of a head that a rotation pairs become neighbours.
            bits = bits.reshape(shape[0] // head, 2, head // 2, shape[1]).swapaxes(1, 2).reshape(shape)
        data = np.ascontiguousarray(bits).view(np.uint8)
        writer.add_tensor(to_name, data, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name):
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    part, suffix = rest.rsplit(".", 1)
    return f"blk.{layer}.{GGUF_PARTS[part]}.{suffix}"


def finished(path, write):
    """Writes a file beside its place and moves it there, so that what lies there is whole."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"writing {path}", flush=True)
        part = path.with_name(path.name + ".part")
        write(part)
        part.rename(path)
    return path


def gguf_file(cache, shape, fmt):
    """`cache/shape/fmt/model.gguf`, made by llama.cpp's own quantizer where it is not bf16."""
    path = cache / shape / fmt / "model.gguf"
    if fmt == "bf16":
        return finished(path, lambda to: write_gguf(to, SHAPES[shape]))
    source = gguf_file(cache, shape, "bf16")

    def quantize(to):
        import llama_cpp

        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = FILE_TYPES[fmt]
        status = llama_cpp.llama_model_quantize(str(source).encode(), str(to).encode(), ctypes.byref(params))
        if status != 0:
            raise RuntimeError(f"{source}: llama.cpp does not quantize it to {fmt} (status {status})")

    return finished(path, quantize)


def folder(cache, shape, fmt):
    """`cache/shape/fmt`, a folder of safetensors in bf16 or f16."""
    path = cache / shape / fmt / "safetensors"
    if not (path / "model.safetensors").exists():
        print(f"writing {path}", flush=True)
        part = path.with_name("safetensors.part")
        write_folder(part, SHAPES[shape], fmt)
        part.rename(path)
    return path


if __name__ == "__main__":
    import sys

    if len(sys.argv) < 4:
        sys.exit("usage: models.py CACHE SHAPE FORMAT…")
    for wanted in sys.argv[3:]:
        print(gguf_file(Path(sys.argv[1]), sys.argv[2], wanted))
        if wanted in ("bf16", "f16"):
            print(folder(Path(sys.argv[1]), sys.argv[2], wanted))
