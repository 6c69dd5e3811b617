"""Train the story-teller on stories.

    python train.py train.txt held_out.txt ../stories --steps 1600 --state state.pt

The learning rate warms up, stays and decays linearly to zero at the last step. A state is saved every so many steps and
taken up again if present, so `--steps` may still change while the rate has not begun to fall. `--init` begins with the
weights of an earlier model. Matrices are trained by Muon (momentum, orthogonalised by Newton-Schulz iterations),
embeddings and norms by AdamW.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional as F

from model import Llama

WARM_UP, DECAY = 100, 0.6  # steps; share of all steps


def orthogonalise(g, steps=5):
    """The nearest (semi-)orthogonal matrix of `g`, roughly: a quintic Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315  # steep at zero: small singular values reach 1 in few steps
    tall = g.shape[0] > g.shape[1]
    x = g.T if tall else g
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov momentum whose update of a matrix is orthogonalised."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            lr, mu = group["lr"], group["momentum"]
            for p in group["params"]:
                m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                m.mul_(mu).add_(p.grad, alpha=1 - mu)
                update = orthogonalise(p.grad.lerp(m, mu))
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(update, alpha=-lr * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def tokens(tokenizer, path):
    """The stories of a file as one stream, each begun by the end token of the one before."""
    lines = Path(path).read_text().splitlines()
    return np.concatenate([np.array(e.ids, dtype=np.uint16) for e in tokenizer.encode_batch(lines)])


def batches(stream, batch, length, seed):
    """Endless random windows that begin where a story begins, so that positions are those of generation."""
    rng = np.random.default_rng(seed)
    starts = np.flatnonzero(stream[: -length - 1] == 0)
    while True:
        order = rng.permutation(starts)
        for i in range(0, len(order) - batch + 1, batch):
            w = np.stack([stream[s : s + length + 1] for s in order[i : i + batch]]).astype(np.int64)
            yield torch.from_numpy(w[:, :-1]), torch.from_numpy(w[:, 1:])


def loss_of(model, x, y):
    """The loss of every token, computed in bf16."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    return F.cross_entropy(logits.float().flatten(0, 1), y.flatten(), reduction="none").view_as(y)


def reference_words(tokenizer, stream):
    """Which tokens tell who and what a story is about: 2 for pronouns, 1 for whatever is rare."""
    marks = (np.bincount(stream, minlength=tokenizer.get_vocab_size()) < len(stream) / 500).astype(np.uint8)
    for word in "he she him her his hers himself herself".split():
        for form in (word, word.capitalize()):
            marks[tokenizer.encode(" " + form, add_special_tokens=False).ids] = 2
            marks[tokenizer.encode(form, add_special_tokens=False).ids] = 2
    return torch.from_numpy(marks)


def references(x, y, marks):
    """Targets that take up a name, thing or pronoun of the same story. They are a tenth of all tokens and decide
    whether a story stays on its subject, but the plain mean loss hardly feels them."""
    story = (x == 0).cumsum(1)
    before = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    again = (y[:, :, None] == x[:, None, :]) & (story[:, :, None] == story[:, None, :]) & before
    return again.any(2) & (marks[y] == 1) | (marks[y] == 2)


def weights_of(folder, tokenizer):
    """The weights of an earlier model, its embeddings arranged for `tokenizer`: a token that it had not gets the mean
    of the tokens that it was made of."""
    weights = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    earlier = Tokenizer.from_file(str(folder / "tokenizer.json"))
    known, rows = earlier.get_vocab(), weights["model.embed_tokens.weight"]
    parts = lambda t: [known[t]] if t in known else [known[p.value] for p in earlier.model.tokenize(t)]
    names = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    weights["model.embed_tokens.weight"] = torch.stack([rows[parts(t)].mean(0) for t in names])
    return weights


@torch.no_grad()
def evaluate(model, stream, length, windows=96):
    gen = batches(stream, 16, length, seed=0)
    return sum(loss_of(model, *next(gen)).mean().item() for _ in range(windows // 16)) / (windows // 16)


def train(a):
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    tokenizer = Tokenizer.from_file(str(a.model / "tokenizer.json"))
    stream, held_out = tokens(tokenizer, a.train), tokens(tokenizer, a.held_out)
    marks = reference_words(tokenizer, stream)
    model = Llama()
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim == 1 or "embed" in n]
    opts = [Muon(matrices, a.lr), torch.optim.AdamW(others, a.lr / 5, betas=(0.9, 0.95), weight_decay=0.0)]
    bases = [o.param_groups[0]["lr"] for o in opts]
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(stream):,} training tokens", flush=True)

    step, mean = 0, None
    if a.state.exists():
        saved = torch.load(a.state)
        model.load_state_dict(saved["model"])
        for o, s in zip(opts, saved["opts"]):
            o.load_state_dict(s)
        step = saved["step"]
    elif a.init:
        model.load_state_dict(weights_of(a.init, tokenizer))
    losses_of = torch.compile(lambda x, y: loss_of(model, x, y)) if a.compile else lambda x, y: loss_of(model, x, y)
    feed = batches(stream, a.batch, a.length, seed=(a.seed, step))
    began, first = time.process_time(), step
    while step < a.steps:
        # Warm-up, flat, then linear to zero; the focus on references goes the same way.
        scale = min(1, (step + 1) / WARM_UP, (1 - step / a.steps) / DECAY)
        x, y = next(feed)
        losses = losses_of(x, y)
        weights = 1 + a.focus * scale * references(x, y, marks)
        ((losses * weights).sum() / weights.sum()).backward()
        now = losses.detach().mean().item()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for o, base in zip(opts, bases):
            o.param_groups[0]["lr"] = base * scale
            o.step()
            o.zero_grad()
        step += 1
        mean = now if mean is None else 0.97 * mean + 0.03 * now
        if step % 20 == 0:
            rate = (step - first) * x.numel() / (time.process_time() - began)
            print(json.dumps(dict(step=step, loss=round(mean, 4), tokens_per_cpu_second=round(rate))), flush=True)
        if step % a.save_every == 0 or step == a.steps:
            print(f"step {step} held-out loss {evaluate(model, held_out, a.length):.4f}", flush=True)
            temporary = a.state.with_suffix(".tmp")
            torch.save(dict(model=model.state_dict(), opts=[o.state_dict() for o in opts], step=step), temporary)
            temporary.replace(a.state)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("train"), p.add_argument("held_out"), p.add_argument("model", type=Path)
    p.add_argument("--steps", type=int, default=1600)
    p.add_argument("--state", type=Path, default=Path("state.pt"))
    p.add_argument("--init", type=Path, help="folder of an earlier model of the same shape")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--compile", action="store_true", help="a third faster; needs a C++ compiler")
    p.add_argument("--batch", type=int, default=24)
    p.add_argument("--length", type=int, default=256)
    p.add_argument("--lr", type=float, default=0.01, help="of Muon; AdamW's is a fifth")
    p.add_argument("--focus", type=float, default=8, help="extra weight of references at the full learning rate")
    p.add_argument("--save-every", type=int, default=200, help="steps")
    p.add_argument("--seed", type=int, default=1)
    train(p.parse_args())


if __name__ == "__main__":
    main()
