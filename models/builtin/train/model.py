"""The story-teller: a Llama in plain PyTorch, with the parameter names of a Hugging Face checkpoint."""

import torch
from torch import nn
from torch.nn import functional as F

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 2560, "hidden_size": 192, "intermediate_size": 512,
    "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32, "hidden_act": "silu",
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None, "attention_bias": False,
    "mlp_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": True, "initializer_range": 0.02, "bos_token_id": 0,
    "eos_token_id": 0, "use_cache": True, "torch_dtype": "float16",
}


class RMSNorm(nn.Module):
    def __init__(self, n, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(n)), eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rope(x, cos, sin):
    """Rotate pairs (i, i + d/2): `x [b, h, t, d]`."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        n, self.h, self.g, self.d = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        self.q_proj = nn.Linear(n, self.h * self.d, bias=False)
        self.k_proj = nn.Linear(n, self.g * self.d, bias=False)
        self.v_proj = nn.Linear(n, self.g * self.d, bias=False)
        self.o_proj = nn.Linear(self.h * self.d, n, bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        heads = lambda y, h: y.view(b, t, h, self.d).transpose(1, 2)
        q = rope(heads(self.q_proj(x), self.h), cos, sin)
        k = rope(heads(self.k_proj(x), self.g), cos, sin)
        v = heads(self.v_proj(x), self.g)
        k, v = (y.repeat_interleave(self.h // self.g, 1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        n, m = c["hidden_size"], c["intermediate_size"]
        self.gate_proj, self.up_proj = nn.Linear(n, m, bias=False), nn.Linear(n, m, bias=False)
        self.down_proj = nn.Linear(m, n, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        norm = lambda: RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.input_layernorm, self.self_attn, self.post_attention_layernorm, self.mlp = norm(), Attention(c), norm(), MLP(c)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])


class Llama(nn.Module):
    def __init__(self, config=CONFIG):
        super().__init__()
        self.config, self.model = config, Decoder(config)
        d, t = config["head_dim"], config["max_position_embeddings"]
        inverse = config["rope_theta"] ** (-torch.arange(0, d, 2) / d)
        angles = torch.outer(torch.arange(t), inverse)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        # The matrices that write into the residual stream start small, the more layers the smaller.
        std = config["initializer_range"]
        for name, p in self.named_parameters():
            if p.ndim == 2:
                out = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=std / (2 * len(self.model.layers)) ** 0.5 if out else std)

    def forward(self, ids):
        """`ids [b, t]` → logits `[b, t, vocab]`."""
        t = ids.shape[1]
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = layer(x, self.cos[:t], self.sin[:t])
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)
