"""Measure the story-teller: held-out perplexity, whether it knows whom a story is about, and how much of what it
tells it has read word for word.

    python evaluate.py train.txt held_out.txt ../stories

Copying is the share of word 8-grams that occur in the training stories. Stories that the grammar itself tells anew are
the yardstick beside it: they share phrases with the training text without having copied any.

A pronoun is right where those of its sex together are likelier than those of the other; a name that a story has told
before is right where no other name is likelier.
"""

import re
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional as F

import words as W
from model import Llama

STORIES, TOKENS, TEMPERATURE, TOP_P, N = 50, 150, 0.8, 0.95, 8
PROMPTS = ["Once upon a time", "The little robot", "A dragon named", "One rainy day,", "Lily had a red ball."]


def load(folder):
    model = Llama().eval()
    model.load_state_dict({k: v.float() for k, v in load_file(Path(folder) / "model.safetensors").items()})
    return model, Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


@torch.no_grad()
def perplexity(model, tokenizer, stories):
    """Per token, every story by itself: its tokens after `<|endoftext|>`, and the one that ends it."""
    total = count = 0
    for story in stories:
        ids = torch.tensor([tokenizer.encode(story).ids + [0]])
        total += F.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    return float(torch.tensor(total / count).exp()), count


@torch.no_grad()
def references(model, tokenizer, stories):
    """How many pronouns, and names of one token told before, are right, each in %."""
    ids = lambda words: [tokenizer.token_to_id("Ġ" + w) for w in words if tokenizer.token_to_id("Ġ" + w) is not None]
    both = lambda words: ids(words.split() + words.title().split())
    she, he, names = both("she her hers herself"), both("he him his himself"), ids(W.GIRLS + W.BOYS)
    right = {"pronouns": [], "names": []}
    for story in stories:
        tokens = torch.tensor([tokenizer.encode(story).ids])
        p = model(tokens)[0].softmax(-1)
        for i, target in enumerate(tokens[0, 1:].tolist()):
            if target in she or target in he:
                right["pronouns"].append((p[i, she].sum() > p[i, he].sum()).item() == (target in she))
            elif target in names and target in tokens[0, : i + 1]:
                right["names"].append(names[p[i, names].argmax()] == target)
    return {what: 100 * sum(x) / len(x) for what, x in right.items()}


@torch.no_grad()
def sample(model, tokenizer, prompts, tokens, generator, temperature=TEMPERATURE, top_p=TOP_P, stop=True):
    """One continuation for each prompt; all prompts of one call have the same number of tokens."""
    ids = torch.tensor([tokenizer.encode(p).ids for p in prompts])
    for _ in range(tokens):
        p, order = (model(ids)[:, -1] / temperature).softmax(-1).sort(descending=True)
        p[p.cumsum(-1) - p > top_p] = 0
        ids = torch.cat([ids, order.gather(1, torch.multinomial(p, 1, generator=generator))], 1)
    texts = []
    for row in ids[:, 1:].tolist():
        texts.append(tokenizer.decode(row[: row.index(0)] if stop and 0 in row else row))
    return texts


def grams(text, n=N):
    w = re.findall(r"[\w']+", text.lower())
    return [tuple(w[i : i + n]) for i in range(len(w) - n + 1)]


def main(train, held_out, folder):
    torch.manual_seed(1)
    g = torch.Generator().manual_seed(1)
    model, tokenizer = load(folder)
    held_out = Path(held_out).read_text().splitlines()
    ppl, count = perplexity(model, tokenizer, held_out)
    right = references(model, tokenizer, held_out)

    seen = set()
    for line in open(train):
        seen.update(map(hash, grams(line)))
    told = sample(model, tokenizer, [""] * STORIES, TOKENS, g)
    share = lambda texts: 100 * (lambda x: sum(hash(y) in seen for y in x) / len(x))([y for t in texts for y in grams(t)])
    print("| measure | value |\n| --- | --- |")
    print(f"| parameters | {sum(p.numel() for p in model.parameters()):,} |")
    print(f"| held-out perplexity, per token ({len(held_out)} stories, {count:,} tokens) | {ppl:.3f} |")
    print(f"| pronouns of the right sex in them | {right['pronouns']:.1f} % |")
    print(f"| names taken up again that are the right one | {right['names']:.1f} % |")
    print(f"| word {N}-grams of {STORIES} sampled stories that the training text contains | {share(told):.1f} % |")
    print(f"| the same for stories that the grammar tells anew | {share(held_out):.1f} % |")
    for prompt in PROMPTS:
        print(f"\n> {sample(model, tokenizer, [prompt], TOKENS, g)[0]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
