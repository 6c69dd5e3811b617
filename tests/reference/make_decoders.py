"""Makes decoders/<case>/: a tiny seeded random model in Hugging Face layout and what PyTorch says of it.

Every answer is computed from the files as written: the folder is read back by transformers, in the
config dialect that the case is about, before anything is recorded.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from torch_reference import greedy, is_telling, logits_of, random_prompt, randomize, trace

ROOT = Path(__file__).parent / "decoders"
MIN_MARGIN = 0.02
MIN_MARGIN_TO_ROUND = 0.12  # of a case whose weights are stored again in 16 bits
EOS = 2


def default_rope(theta: float = 10000.0) -> dict:
    return {"rope_type": "default", "rope_theta": theta}


def yarn_rope(**keys) -> dict:
    return {
        "rope_type": "yarn",
        "rope_theta": 1000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 256,
        **keys,
    }


# Heads of 10 and rows of 40 and 52: no dimension fills whole vector registers.
SMALL = {
    "vocab_size": 101,
    "hidden_size": 40,
    "intermediate_size": 52,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rope_parameters": default_rope(),
    "bos_token_id": 1,
    "eos_token_id": EOS,
    "pad_token_id": None,
}
LLAMA3 = SMALL | {
    "vocab_size": 113,
    "hidden_size": 54,
    "intermediate_size": 72,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        # Heads of 18: the wavelengths begin 6, 27, 116, which are kept, blended, scaled.
        "original_max_position_embeddings": 64,
    },
}
TINYLLAMA = SMALL | {"hidden_size": 48, "num_attention_heads": 8, "num_key_value_heads": 1, "num_hidden_layers": 3}
SMOLLM2 = SMALL | {
    "hidden_size": 48,
    "intermediate_size": 68,
    "num_attention_heads": 6,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
    "rope_parameters": default_rope(100000.0),
}
SMOLLM3 = SMALL | {"num_hidden_layers": 3, "no_rope_layers": [1, 0, 1], "tie_word_embeddings": True}
MISTRAL = SMALL | {"rms_norm_eps": 1e-5}
QWEN2 = SMALL | {"vocab_size": 131, "intermediate_size": 60, "tie_word_embeddings": True}
QWEN2 |= {"rope_parameters": default_rope(1000000.0)}
QWEN3 = QWEN2 | {"head_dim": 12}


@dataclass
class Case:
    name: str
    family: str  # transformers' class prefix
    config: dict
    old_dialect: bool = False  # as transformers 4 wrote it: rope_theta, rope_scaling, torch_dtype
    rope_type_key: str = "rope_type"  # the old dialect also says "type"
    extra_keys: dict = field(default_factory=dict)  # written into config.json as they are
    dtype: torch.dtype = torch.float32
    weights_of: str | None = None  # another case, whose weights this one stores again
    max_shard_size: str = "1GB"
    windowed: bool = False
    seed: int = 0


CASES = [
    Case("llama2", "Llama", SMALL | {"hidden_size": 48, "num_key_value_heads": 4}, old_dialect=True),
    Case("llama3", "Llama", LLAMA3),
    Case("llama3-f16", "Llama", LLAMA3, dtype=torch.float16, weights_of="llama3", old_dialect=True),
    Case("llama3-bf16", "Llama", LLAMA3, dtype=torch.bfloat16, weights_of="llama3"),
    Case("llama3-sharded", "Llama", LLAMA3, dtype=torch.bfloat16, weights_of="llama3", max_shard_size="32KB"),
    Case(
        "llama-linear-rope",
        "Llama",
        SMALL | {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}},
        old_dialect=True,
        rope_type_key="type",
    ),
    Case("llama-yarn", "Llama", SMALL | {
        "max_position_embeddings": 1024,
        "rope_parameters": yarn_rope(beta_fast=16.0, beta_slow=2.0, attention_factor=1.25, truncate=False),
    }),
    Case("llama-biases", "Llama", SMALL | {"attention_bias": True, "mlp_bias": True}),
    Case("llama-head-dim", "Llama", SMALL | {"head_dim": 12}),
    Case("smollm2", "Llama", SMOLLM2, old_dialect=True),
    Case("tinyllama", "Llama", TINYLLAMA, old_dialect=True),
    Case("smollm3", "SmolLM3", SMOLLM3),
    Case("mistral", "Mistral", MISTRAL | {"head_dim": 20, "sliding_window": None}),
    Case("mistral-window", "Mistral", MISTRAL | {"sliding_window": 7}, old_dialect=True, windowed=True),
    Case("qwen2", "Qwen2", QWEN2),
    Case("qwen2-bf16", "Qwen2", QWEN2, dtype=torch.bfloat16, weights_of="qwen2"),
    Case("qwen2-f16", "Qwen2", QWEN2, dtype=torch.float16, weights_of="qwen2"),
    Case("qwen2-window", "Qwen2", QWEN2 | {
        "num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1,
    }, windowed=True),
    Case(
        "qwen2-yarn",
        "Qwen2",
        QWEN2 | {"tie_word_embeddings": False, "max_position_embeddings": 1024, "rope_parameters": yarn_rope()},
        old_dialect=True,
        rope_type_key="type",
        # As Qwen2.5 is published: a window is named, and not used.
        extra_keys={"sliding_window": 5, "use_sliding_window": False, "max_window_layers": 1},
    ),
    Case("qwen3", "Qwen3", QWEN3),
    Case("qwen3-bf16", "Qwen3", QWEN3, dtype=torch.bfloat16, weights_of="qwen3"),
    Case("qwen3-f16", "Qwen3", QWEN3, dtype=torch.float16, weights_of="qwen3"),
    Case("qwen3-biases", "Qwen3", QWEN3 | {"tie_word_embeddings": False, "attention_bias": True}, old_dialect=True),
]


def build(case: Case, seed: int):
    """The case's random model, and its config."""
    config = getattr(transformers, f"{case.family}Config")(**case.config)
    model = getattr(transformers, f"{case.family}ForCausalLM")(config)
    randomize(model, seed)
    return model.to(case.dtype)


def to_old_dialect(config: dict, rope_type_key: str) -> dict:
    """Says the same as transformers 4 said it."""
    config = dict(config)
    rope = dict(config.pop("rope_parameters"))
    config["rope_theta"] = rope.pop("rope_theta")
    rope_type = rope.pop("rope_type")
    config["rope_scaling"] = None if rope_type == "default" else {rope_type_key: rope_type, **rope}
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    if config.get("head_dim") == config["hidden_size"] // config["num_attention_heads"]:
        del config["head_dim"]
    return config


def write_model(case: Case, model, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size=case.max_shard_size)
    (folder / "generation_config.json").unlink()
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if case.old_dialect:
        config = to_old_dialect(config, case.rope_type_key)
    config |= case.extra_keys
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def read_model(folder: Path, dtype: torch.dtype):
    # Only eager attention builds the window mask exactly as the papers state it.
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


def check_window(model, prompt: torch.Tensor, logits: torch.Tensor) -> None:
    """The window must cut this prompt: without it, the last logits are others."""
    model.config.sliding_window = 1000
    assert (logits_of(model, prompt)[-1] - logits[-1]).abs().max() > 0.1


def make(case: Case) -> None:
    folder = ROOT / case.name
    weights = next(c for c in CASES if c.name == (case.weights_of or case.name))
    is_stored_again = any(c.weights_of == case.name for c in CASES)
    min_margin = MIN_MARGIN_TO_ROUND if is_stored_again else MIN_MARGIN
    for seed in range(weights.seed, 1000):
        write_model(case, build(case, seed), folder)
        model = read_model(folder, torch.float32)
        prompt = random_prompt(model.config.vocab_size, seed)
        answer = greedy(model, prompt)
        if is_telling(answer, EOS, min_margin):
            break
        assert case.weights_of is None, f"{case.name}: {case.weights_of}'s seed gives no clear answer"
    else:
        raise AssertionError(f"{case.name}: no seed gives a clear answer")
    case.seed = seed

    expected = trace(model, prompt) | {"greedy": answer.ids}
    if case.dtype != torch.float32:
        expected["logits_native"] = logits_of(read_model(folder, case.dtype), prompt)
    if case.windowed:
        check_window(model, prompt, expected["logits"])
    save_file({name: tensor.contiguous() for name, tensor in expected.items()}, folder / "expected.safetensors")
    print(f"{case.name}: seed {seed}, margin {answer.margin:.3f}, logits std {expected['logits'].std():.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for case in CASES:
        make(case)
