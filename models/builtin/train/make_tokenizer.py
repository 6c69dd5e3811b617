"""Train the byte-level BPE tokenizer of the story-teller and write its two Hugging Face files.

    python make_tokenizer.py train.txt ../stories

One special token, `<|endoftext|>` (id 0), begins a text and ends a story, so that an empty prompt starts a story too.
"""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

END = "<|endoftext|>"
VOCAB = 2560


def main(corpus, out):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train([corpus], trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.post_processor = processors.TemplateProcessing(single=f"{END} $A", pair=f"{END} $A {END} $B", special_tokens=[(END, 0)])
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    t.save(str(out / "tokenizer.json"), pretty=False)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END, "add_bos_token": True,
              "add_eos_token": False, "clean_up_tokenization_spaces": False, "model_max_length": 512,
              "added_tokens_decoder": {"0": {"content": END, "lstrip": False, "normalized": False, "rstrip": False,
                                             "single_word": False, "special": True}}}
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    assert t.get_vocab_size() == VOCAB and t.token_to_id(END) == 0


if __name__ == "__main__":
    main(*sys.argv[1:])
