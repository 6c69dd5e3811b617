"""Train the byte-level BPE tokenizer of the listener, with Whisper's special tokens.

    python make_tokenizer.py ../../speech
"""

import random
import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from sentences import sentence, words
from sound import WINDOW_SECONDS

END, START = "<|endoftext|>", "<|startoftranscript|>"
LANGUAGE, TRANSLATE, TRANSCRIBE = "<|en|>", "<|translate|>", "<|transcribe|>"
PREVIOUS, NO_SPEECH, NO_TIMESTAMPS = "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"
# In Whisper's order: timestamps come last.
SPECIAL = [END, START, LANGUAGE, TRANSLATE, TRANSCRIBE, "<|startoflm|>", PREVIOUS, NO_SPEECH, NO_TIMESTAMPS]
STEP = 0.02  # seconds, two frames
TIMESTAMPS = [f"<|{i * STEP:.2f}|>" for i in range(round(WINDOW_SECONDS / STEP) + 1)]


def main(out):
    rng = random.Random(0)
    # As Whisper's: a word begins with its space. Often enough for every word to become one token.
    corpus = ["".join(" " + word for word in sentence(rng)) for _ in range(40_000)]
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=2000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in SPECIAL])
    t.add_tokens([AddedToken(x, special=False, normalized=False) for x in TIMESTAMPS])
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    t.save(str(out / "tokenizer.json"), pretty=False)
    assert all(len(t.encode(" " + word).ids) == 1 for word in words() if "'" not in word)
    print(f"{t.get_vocab_size()} tokens, {len(words())} words")


if __name__ == "__main__":
    main(*sys.argv[1:])
