"""Train the listener on speech that is there or still being made.

    python train.py speech ../../speech --state state.pt

The learning rate warms up, stays and falls linearly to zero at the last step. A state is saved every so many steps and taken up
again if present, so `--steps` may still change while the rate has not begun to fall. Matrices are trained by Muon, all else by
AdamW. Beside the decoder, a head that is thrown away afterwards makes the encoder spell the words in order (CTC): that is learnt
first, and the decoder's attention finds its way by it. Most of that can be learnt from short windows (`--seconds`).
"""

import argparse
import json
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F

from mixing import Clips, IGNORED, batches
from model import model as new_model, set_window
from sentences import words as all_words
from sound import HOP, RATE, WINDOW_SECONDS

WARM_UP, DECAY, LOOK = 100, 0.5, 50  # steps; share of all steps; steps
CTC = 0.5


class Trainee(nn.Module):
    """The model and the head that spells."""

    def __init__(self, tokenizer):
        super().__init__()
        self.whisper = new_model(tokenizer)
        said = sorted({t for word in all_words() for t in tokenizer.encode(" " + word).ids})
        self.letters = {t: i + 1 for i, t in enumerate(said)}  # 0 is the blank
        self.speller = nn.Linear(self.whisper.config.d_model, len(said) + 1)

    def forward(self, mels, inputs, targets, words):
        """The decoder's and the speller's loss, the share of right tokens."""
        with torch.autocast("cpu", torch.bfloat16):
            out = self.whisper(input_features=mels, decoder_input_ids=inputs, use_cache=False)
            spelt = self.speller(out.encoder_last_hidden_state)
        logits, seen = out.logits.float().flatten(0, 1), targets.flatten()
        loss = F.cross_entropy(logits, seen, ignore_index=IGNORED)
        counted = seen != IGNORED
        right = (logits.argmax(-1) == seen)[counted].float().mean()
        lengths = torch.tensor([len(w) for w in words])
        frames = torch.full_like(lengths, spelt.shape[1])
        spelt = spelt.float().log_softmax(-1).transpose(0, 1)
        letters = torch.tensor([self.letters[t] for w in words for t in w])
        ctc = F.ctc_loss(spelt, letters, frames, lengths, zero_infinity=True)
        return loss, ctc, right


def train(a):
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    tokenizer = Tokenizer.from_file(str(a.model / "tokenizer.json"))
    trainee, clips = Trainee(tokenizer), Clips(a.speech)
    parameters = [(p, p.ndim == 2 and "layers" in n) for n, p in trainee.named_parameters() if p.requires_grad]
    matrices, others = [p for p, matrix in parameters if matrix], [p for p, matrix in parameters if not matrix]
    opts = [torch.optim.Muon(matrices, a.lr, weight_decay=0.01), torch.optim.AdamW(others, a.lr / 5, betas=(0.9, 0.98), weight_decay=0.01)]
    bases = [o.param_groups[0]["lr"] for o in opts]
    print(f"{sum(p.numel() for p in trainee.whisper.parameters()):,} parameters, {len(clips.clips):,} clips", flush=True)

    step, means = 0, None
    if a.state.exists():
        saved = torch.load(a.state)
        trainee.load_state_dict(saved["model"])
        for o, s in zip(opts, saved["opts"]):
            o.load_state_dict(s)
        step = saved["step"]
    frames = round(a.seconds * RATE / HOP)
    set_window(trainee.whisper, frames)
    feed = batches(clips, tokenizer, a.batch, frames, seed=(a.seed, step))
    began, first = time.process_time(), step
    while step < min(a.steps, a.stop or a.steps):
        scale = min(1, (step + 1) / WARM_UP, (1 - step / a.steps) / DECAY)
        mels, inputs, targets, words = next(feed)
        loss, ctc, right = trainee(*map(torch.from_numpy, (mels, inputs, targets)), words)
        (loss + CTC * ctc).backward()
        now = torch.stack([loss, ctc, right]).detach()
        nn.utils.clip_grad_norm_(others, 1.0)
        for o, base in zip(opts, bases):
            o.param_groups[0]["lr"] = base * scale
            o.step()
            o.zero_grad()
        step += 1
        means = now if means is None else means.lerp(now, 0.04)
        if step % 20 == 0:
            seconds = (time.process_time() - began) / (step - first)
            loss, ctc, right = (round(x, 4) for x in means.tolist())
            print(json.dumps(dict(step=step, loss=loss, ctc=ctc, right=right, cpu_seconds=round(seconds, 2))), flush=True)
        if step % LOOK == 0:
            clips.look()
        if step % a.save_every == 0 or step in (a.stop, a.steps):
            temporary = a.state.with_suffix(".tmp")
            torch.save(dict(model=trainee.state_dict(), opts=[o.state_dict() for o in opts], step=step), temporary)
            temporary.replace(a.state)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("speech", type=Path), p.add_argument("model", type=Path)
    p.add_argument("--steps", type=int, default=7600)
    p.add_argument("--stop", type=int, help="step to stop at, to go on with other windows")
    p.add_argument("--state", type=Path, default=Path("state.pt"))
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--seconds", type=float, default=WINDOW_SECONDS, help="of a window; short ones are cheap to begin with")
    p.add_argument("--lr", type=float, default=0.01, help="of Muon; AdamW's is a fifth")
    p.add_argument("--save-every", type=int, default=100, help="steps")
    p.add_argument("--seed", type=int, default=1)
    train(p.parse_args())


if __name__ == "__main__":
    main()
