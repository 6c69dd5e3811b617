"""Write the trained state as a Hugging Face folder: f16 weights, configuration, generation defaults and a fixture.

    python export.py state.pt ../stories
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from model import CONFIG, Llama

PROMPT = "Once upon a time"
GENERATION = {"bos_token_id": 0, "eos_token_id": 0, "do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 256}


@torch.no_grad()
def greedy(model, ids, count):
    """The most likely `count` tokens after `ids`, with the logits that chose them."""
    ids, chosen = list(ids), []
    for _ in range(count):
        logits = model(torch.tensor([ids]))[0, -1]
        chosen.append(logits)
        ids.append(int(logits.argmax()))
    return ids[-count:], chosen


def main(state, out):
    out = Path(out)
    weights = {k: v.half().contiguous() for k, v in torch.load(state)["model"].items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (out / "generation_config.json").write_text(json.dumps(GENERATION, indent=2) + "\n")

    # What an engine must reproduce: f16 weights, computed in f32.
    model = Llama().eval()
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    prompt = tokenizer.encode(PROMPT).ids
    tokens, logits = greedy(model, prompt, 32)
    top = logits[0].topk(8)
    margin = min(float(v.topk(2).values.diff().abs()) for v in logits)
    fixture = {
        "prompt": PROMPT, "prompt_ids": prompt, "greedy_ids": tokens, "greedy_text": tokenizer.decode(tokens),
        "next": [{"id": int(i), "logit": round(float(v), 5)} for v, i in zip(top.values, top.indices)],
        "smallest_margin": round(margin, 4),
    }
    (out / "expected.json").write_text(json.dumps(fixture, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
