"""What the fixture scripts share: seeded weights, the recorded forward pass, greedy decoding."""

from dataclasses import dataclass

import torch

PROMPT_LEN = 24
GREEDY_LEN = 16


@dataclass
class Greedy:
    ids: torch.Tensor
    margin: float  # smallest lead of the chosen token over the second in any step


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Fills every parameter from one seed. Nothing stays at its neutral value: a norm of ones or
    a bias of zeros would hide that an engine never reads it."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if name.endswith("norm.weight"):
                parameter.copy_(1.0 + 0.3 * noise)
            elif name.endswith(".bias"):
                parameter.copy_(0.3 * noise)
            elif "embed_tokens" in name or "lm_head" in name:
                parameter.copy_(0.25 * noise)
            else:
                parameter.copy_(noise / parameter.shape[1] ** 0.5)


def random_prompt(vocab_size: int, seed: int) -> torch.Tensor:
    """Token ids past the first four, which the tokenizers of these models keep for specials."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, vocab_size, (PROMPT_LEN,), generator=generator)


@torch.no_grad()
def logits_of(model, ids: torch.Tensor) -> torch.Tensor:
    return model(ids[None], use_cache=False).logits[0].float()


@torch.no_grad()
def trace(model, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """One forward pass: `hidden.0` is the embedding, `hidden.i` what layer i-1 gives (the last one
    before the final norm), then `norm` and `logits`."""
    seen: dict[str, torch.Tensor] = {}

    def record(name):
        def hook(_module, _inputs, output):
            seen[name] = (output[0] if isinstance(output, tuple) else output)[0].clone()

        return hook

    body = model.model
    modules = [body.embed_tokens, *body.layers]
    hooks = [m.register_forward_hook(record(f"hidden.{i}")) for i, m in enumerate(modules)]
    hooks.append(body.norm.register_forward_hook(record("norm")))
    seen["logits"] = logits_of(model, ids)
    for hook in hooks:
        hook.remove()
    return {"input_ids": ids, **seen}


def greedy(model, prompt: torch.Tensor) -> Greedy:
    """Continues `prompt` by the likeliest token, from the whole sequence each time: no cache whose
    window or eviction could colour the answer."""
    ids, margin = prompt, float("inf")
    for _ in range(GREEDY_LEN):
        best = logits_of(model, ids)[-1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids = torch.cat([ids, best.indices[:1]])
    return Greedy(ids[len(prompt) :], margin)


def is_telling(answer: Greedy, eos: int, margin: float) -> bool:
    """Whether rounding cannot change the answer, it is no loop of one or two tokens, and an engine
    that stops at `eos` still gives all of it."""
    return answer.margin > margin and len(set(answer.ids.tolist())) >= 4 and eos not in answer.ids
