"""Makes gguf/<case>.gguf and <case>.expected.safetensors: tiny models in GGUF, with a tiny vocabulary.

Names, metadata and the order of q and k rows are those that llama.cpp's converter writes. Logits are
computed in f32 from the weights as the file holds them, that is after dequantization.
"""

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type, TokenType
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import make_decoders
from k_quants import BLOCK_LAYOUTS, random_blocks
from make_decoders import EOS, MIN_MARGIN, MIN_MARGIN_TO_ROUND, SMALL
from torch_reference import greedy, is_telling, logits_of, random_prompt, randomize

ROOT = Path(__file__).parent / "gguf"
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
BODY_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}

BLOCKS_OF_32 = SMALL | {"hidden_size": 64, "intermediate_size": 96}
BLOCKS_OF_256 = SMALL | {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}


@dataclass
class Case:
    name: str
    model: str | dict  # a case of make_decoders, or the config of a llama
    type: Type
    types: tuple[tuple[str, Type], ...] = ()  # matrices of another type, by a part of their name
    tokenizer: str = "llama"
    pre: str | None = None


CASES = [
    Case("llama3-f32", "llama3", Type.F32, tokenizer="gpt2", pre="llama-bpe"),
    Case("llama3-f16", "llama3", Type.F16, tokenizer="gpt2", pre="llama-bpe"),
    Case("llama3-bf16", "llama3", Type.BF16, tokenizer="gpt2", pre="llama-bpe"),
    Case("llama-linear-rope-f16", "llama-linear-rope", Type.F16),
    Case("mistral-f16", "mistral", Type.F16),
    Case("qwen2-f32", "qwen2", Type.F32, tokenizer="gpt2", pre="qwen2"),
    Case("qwen2-yarn-f16", "qwen2-yarn", Type.F16, tokenizer="gpt2", pre="qwen2"),
    Case("qwen3-f32", "qwen3", Type.F32, tokenizer="gpt2", pre="qwen2"),
    Case("llama-q8_0", BLOCKS_OF_32, Type.Q8_0),
    Case("llama-q4_0", BLOCKS_OF_32, Type.Q4_0),
    Case("llama-q4_1", BLOCKS_OF_32, Type.Q4_1),
    Case("llama-q5_0", BLOCKS_OF_32, Type.Q5_0),
    Case("llama-q5_1", BLOCKS_OF_32, Type.Q5_1),
    Case("llama-q2_k-q3_k", BLOCKS_OF_256, Type.Q2_K, types=(("self_attn", Type.Q3_K),)),
    Case(
        "llama-q4_k-q5_k-q6_k",
        BLOCKS_OF_256,
        Type.Q4_K,
        types=(("q_proj", Type.Q5_K), ("o_proj", Type.Q5_K), ("v_proj", Type.Q6_K), ("down_proj", Type.Q6_K)),
    ),
]


def head_dim(model) -> int:
    return model.model.layers[0].self_attn.head_dim


def gguf_name(name: str) -> str:
    base, kind = name.rsplit(".", 1)
    if base in BODY_NAMES:
        return f"{BODY_NAMES[base]}.{kind}"
    _model, _layers, index, part = base.split(".", 3)
    return f"blk.{index}.{LAYER_NAMES[part]}.{kind}"


def to_adjacent_pairs(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's "llama" rotates neighbouring rows of a head, where Hugging Face rotates row i with
    row i + d/2, so q and k are stored in another order of rows."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def to_split_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def encode(weight: np.ndarray, kind: Type, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A matrix as the file stores it, and what that says in f32."""
    if kind in BLOCK_LAYOUTS:
        stored = random_blocks(weight.shape, kind, weight.std(), rng)
    else:
        stored = gguf.quants.quantize(weight, kind)
    return stored, gguf.quants.dequantize(stored, kind)


def encode_model(case: Case, model, seed: int) -> list[tuple[str, np.ndarray, Type]]:
    """The file's tensors; leaves in `model` the weights that they say."""
    config, rng, tensors = model.config, np.random.default_rng(seed), []
    for name, parameter in model.named_parameters():
        weight = parameter.detach().numpy()
        if weight.ndim == 1:
            tensors.append((gguf_name(name), weight, Type.F32))
            continue
        kind = next((kind for part, kind in case.types if part in name), case.type)
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        reorder = heads is not None and ARCHITECTURES[config.model_type] == "llama"
        stored, value = encode(to_adjacent_pairs(weight, heads) if reorder else weight, kind, rng)
        tensors.append((gguf_name(name), stored, kind))
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(to_split_halves(value, heads) if reorder else value))
    return tensors


def add_rope(writer: gguf.GGUFWriter, model) -> None:
    rope = model.config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(head_dim(model))
    if rope["rope_type"] == "llama3":
        # The scaling is folded into one divisor per frequency.
        inv_freq = model.model.rotary_emb.inv_freq
        plain = 1.0 / rope["rope_theta"] ** (torch.arange(0, 2 * len(inv_freq), 2) / (2 * len(inv_freq)))
        writer.add_tensor("rope_freqs.weight", (plain / inv_freq).numpy().astype(np.float32))
    elif rope["rope_type"] != "default":
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def add_config(writer: gguf.GGUFWriter, model) -> None:
    config = model.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if head_dim(model) * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(head_dim(model))
        writer.add_value_length(head_dim(model))
    add_rope(writer, model)


def add_tokenizer(writer: gguf.GGUFWriter, case: Case, size: int) -> None:
    """Just enough to read and write ASCII: one token per character, then pairs until `size`."""
    is_spm = case.tokenizer == "llama"
    specials = ["<unk>", "<s>", "</s>", "<0x0A>"] if is_spm else ["<pad>", "<bos>", "<eos>", "Ċ"]
    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    space = "▁" if is_spm else "Ġ"
    pairs = [space + letter for letter in "taoiswcbphfmdrelngu"] + ["he", "in", "er", "an", "re", "on"]
    tokens = [*specials, space, *letters, *pairs][:size]
    kinds = [TokenType.UNKNOWN if is_spm else TokenType.CONTROL, TokenType.CONTROL, TokenType.CONTROL]
    kinds += [TokenType.BYTE if is_spm else TokenType.NORMAL] + [TokenType.NORMAL] * (size - 4)
    writer.add_tokenizer_model(case.tokenizer)
    if is_spm:
        writer.add_token_scores([-float(max(0, i - 4)) for i in range(size)])
        writer.add_unk_token_id(0)
    else:
        writer.add_tokenizer_pre(case.pre)
        writer.add_token_merges([" ".join(pair) for pair in pairs if pair in tokens])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(EOS)


def write(case: Case, model, tensors) -> None:
    writer = gguf.GGUFWriter(ROOT / f"{case.name}.gguf", ARCHITECTURES[model.config.model_type])
    writer.add_name(case.name)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_config(writer, model)
    add_tokenizer(writer, case, model.config.vocab_size)
    for name, data, kind in tensors:
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def record(case: Case, model, prompt: torch.Tensor, tensors, min_margin: float) -> bool:
    """Writes the case if its answer is clear."""
    answer = greedy(model, prompt)
    if not is_telling(answer, EOS, min_margin):
        return False
    write(case, model, tensors)
    expected = {"input_ids": prompt, "logits": logits_of(model, prompt), "greedy": answer.ids}
    save_file(expected, ROOT / f"{case.name}.expected.safetensors")
    print(f"{case.name}: margin {answer.margin:.3f}, logits std {expected['logits'].std():.2f}")
    return True


def make_again(case: Case) -> None:
    """The same weights as the decoder case has, and so the same prompt and answer."""
    folder = make_decoders.ROOT / case.model
    model = make_decoders.read_model(folder, torch.float32)
    tensors = encode_model(case, model, seed=0)
    known = load_file(folder / "expected.safetensors")
    assert record(case, model, known["input_ids"], tensors, MIN_MARGIN), case.name
    assert torch.equal(greedy(model, known["input_ids"]).ids, known["greedy"]), case.name


def make_random(case: Case) -> None:
    for seed in range(1000):
        model = LlamaForCausalLM(LlamaConfig(**case.model, attn_implementation="eager")).eval()
        randomize(model, seed)
        tensors = encode_model(case, model, seed)
        # Engines may quantize the activations too: leave them room.
        if record(case, model, random_prompt(model.config.vocab_size, seed), tensors, MIN_MARGIN_TO_ROUND):
            return
    raise AssertionError(f"{case.name}: no seed gives a clear answer")


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    ROOT.mkdir(exist_ok=True)
    for case in CASES:
        make_again(case) if isinstance(case.model, str) else make_random(case)
