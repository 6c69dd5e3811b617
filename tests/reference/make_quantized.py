"""Makes quantized/<case>/: a tiny Llama whose matrices compressed-tensors has quantized and stored, and its answer.

The logits are computed in f32 from the weights that compressed-tensors reads back from the file; an engine that
quantizes activations as well needs a tolerance for that.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from compressed_tensors.compressors.base import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from make_decoders import SMALL
from torch_reference import logits_of, random_prompt, randomize

ROOT = Path(__file__).parent / "quantized"
CONFIG = SMALL | {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "tie_word_embeddings": True,
}
TOKEN = QuantizationArgs(num_bits=8, symmetric=True, strategy="token", dynamic=True)


@dataclass
class Case:
    name: str
    format: str
    weights: dict
    activations: QuantizationArgs | None = None
    dtype: torch.dtype = torch.bfloat16


CASES = [
    Case("int8-channel", "int-quantized", {"num_bits": 8, "strategy": "channel"}, TOKEN),
    Case("int8-g32", "naive-quantized", {"num_bits": 8, "strategy": "group", "group_size": 32}, dtype=torch.float16),
    Case("int8-packed", "pack-quantized", {"num_bits": 8, "strategy": "tensor"}),
    Case("int4-g32", "pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 32}),
    Case(
        "int4-g32-asym",
        "pack-quantized",
        {"num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": False},
        dtype=torch.float16,
    ),
]


def scales_of(weight: torch.Tensor, args: QuantizationArgs):
    """Scales and zero points, as the library derives them from minima and maxima."""
    rows = {"tensor": 1, "channel": weight.shape[0], "group": weight.shape[0]}[args.strategy]
    groups = weight.shape[1] // args.group_size if args.strategy == "group" else 1
    parts = weight.reshape(rows, groups, -1)
    scale, zero = calculate_qparams(parts.amin(-1), parts.amax(-1), args)
    return (scale.flatten(), zero.flatten()) if rows == 1 else (scale, zero)


def make(case: Case, seed: int) -> None:
    model = LlamaForCausalLM(LlamaConfig(**CONFIG, attn_implementation="eager")).eval()
    randomize(model, seed)
    model = model.to(case.dtype)
    args = QuantizationArgs(type="int", **({"symmetric": True} | case.weights))
    scheme = QuantizationScheme(targets=["Linear"], weights=args, input_activations=case.activations)
    compressor = BaseCompressor.get_value_from_registry(case.format)
    tensors, restored = {}, {}
    for name, weight in model.state_dict().items():
        base = name.removesuffix(".weight")
        if "_proj" not in name:
            if base != "lm_head":
                tensors[name] = weight.contiguous()
            restored[name] = weight
            continue
        scale, zero = scales_of(weight, args)
        parts = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero}
        tensors |= {f"{base}.{part}": x.contiguous() for part, x in compressor.compress(parts, scheme).items()}
    folder = ROOT / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    quantization = QuantizationConfig(
        config_groups={"group_0": scheme},
        format=case.format,
        quantization_status="compressed",
        ignore=["lm_head"],
    )
    config = model.config.to_dict() | {
        "architectures": ["LlamaForCausalLM"],
        "quantization_config": json.loads(quantization.model_dump_json()),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n")

    stored = load_file(folder / "model.safetensors")
    for base in {name.rsplit(".", 1)[0] for name in stored if "_proj" in name}:
        parts = {name.removeprefix(base + "."): x for name, x in stored.items() if name.startswith(base + ".")}
        parts = {name: x.float() if name == "weight_scale" else x for name, x in parts.items()}
        restored[f"{base}.weight"] = compressor.decompress(parts, scheme)["weight"]
    # Built again: in 16 bits the rotary frequencies were rounded too.
    model = LlamaForCausalLM(LlamaConfig(**CONFIG, attn_implementation="eager")).eval()
    model.load_state_dict({name: x.float() for name, x in restored.items()})
    prompt = random_prompt(CONFIG["vocab_size"], seed)
    save_file({"input_ids": prompt, "logits": logits_of(model, prompt)}, folder / "expected.safetensors")


if __name__ == "__main__":
    for seed, case in enumerate(CASES):
        make(case, seed)
