"""Write the trained state as a Hugging Face folder: f16 weights and configurations.

    python export.py state.pt ../../speech
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from evaluate import spectrograms, spoken
from make_tokenizer import END, LANGUAGE, NO_TIMESTAMPS, PREVIOUS, START, TRANSCRIBE, TRANSLATE
from model import model as new_model
from sound import BANDS, FRAME, FRAMES, HOP, RATE, WINDOW_SECONDS

VOICE = "en+linda"  # held out


def alignment_heads(model, tokenizer):
    """The decoder's head `[layer, head]` whose attention goes forward with the words best; others only blur it."""
    scores = {}
    for text, samples, start, end in spoken(VOICE, 20, FRAMES):
        words = tokenizer.encode(" " + text).ids
        head = [tokenizer.token_to_id(t) for t in (START, LANGUAGE, TRANSCRIBE, NO_TIMESTAMPS)]
        out = model(input_features=spectrograms([samples], FRAMES), decoder_input_ids=torch.tensor([head + words]), output_attentions=True)
        for layer, attention in enumerate(out.cross_attentions):
            for h, rows in enumerate(attention[0, :, len(head) - 1 : -1]):
                # Where each word is looked for, against the speech divided evenly.
                seconds = (rows * torch.arange(rows.shape[1]) * 2 * HOP / RATE).sum(-1) / rows.sum(-1)
                even = start + (end - start) * (torch.arange(len(words)) + 0.5) / len(words)
                scores.setdefault((layer, h), []).append((seconds - even).abs().mean().item())
    ranked = sorted(scores, key=lambda head: np.mean(scores[head]))
    print({str(h): round(float(np.mean(scores[h])), 3) for h in ranked})
    return [list(ranked[0])]


@torch.no_grad()
def main(state, out):
    out = Path(out)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    id = tokenizer.token_to_id
    trained = {k[len("whisper.") :]: v for k, v in torch.load(state)["model"].items() if k.startswith("whisper.")}
    weights = {k: v.half().contiguous() for k, v in trained.items() if k != "proj_out.weight"}  # tied
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})

    model = new_model(tokenizer).eval()
    model.set_attn_implementation("eager")
    model.load_state_dict({k: v.float() for k, v in weights.items()} | {"proj_out.weight": weights["model.decoder.embed_tokens.weight"].float()})
    config = model.config.to_diff_dict() | {"architectures": ["WhisperForConditionalGeneration"], "torch_dtype": "float16"}
    for key in ("transformers_version", "_attn_implementation_autoset", "dtype"):
        config.pop(key, None)
    generation = {
        "bos_token_id": id(END), "eos_token_id": id(END), "pad_token_id": id(END), "decoder_start_token_id": id(START),
        "is_multilingual": True, "lang_to_id": {LANGUAGE: id(LANGUAGE)},
        "task_to_id": {"transcribe": id(TRANSCRIBE), "translate": id(TRANSLATE)}, "no_timestamps_token_id": id(NO_TIMESTAMPS),
        "prev_sot_token_id": id(PREVIOUS), "max_initial_timestamp_index": 50, "suppress_tokens": [], "begin_suppress_tokens": [id(END)],
        "max_length": model.config.max_target_positions, "return_timestamps": False, "condition_on_prev_tokens": False,
        "alignment_heads": alignment_heads(model, tokenizer),
    }
    processor = {
        "feature_extractor_type": "WhisperFeatureExtractor", "processor_class": "WhisperProcessor", "feature_size": BANDS,
        "sampling_rate": RATE, "hop_length": HOP, "n_fft": FRAME, "chunk_length": WINDOW_SECONDS, "n_samples": WINDOW_SECONDS * RATE,
        "nb_max_frames": FRAMES, "padding_side": "right", "padding_value": 0.0, "return_attention_mask": False,
    }
    named = [(id(t), t) for t in tokenizer.get_vocab() if t.startswith("<|")]
    added = {str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": i < id("<|0.00|>")}
             for i, t in sorted(named)}
    words = {
        "tokenizer_class": "WhisperTokenizer", "bos_token": END, "eos_token": END, "unk_token": END, "pad_token": END,
        "clean_up_tokenization_spaces": False, "model_max_length": model.config.max_target_positions, "added_tokens_decoder": added,
    }
    files = {"config": config, "generation_config": generation, "preprocessor_config": processor, "tokenizer_config": words}
    for name, content in files.items():
        (out / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
