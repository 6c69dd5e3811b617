"""A peer of the Whisper comparison: one process, one model, one JSON object.

usage: speech_peer.py ENGINE FOLDER THREADS rows
       speech_peer.py ENGINE FOLDER THREADS program AUDIO
Engines: faster-whisper-int8, faster-whisper-float32, whisper.cpp-f16, whisper.cpp-q8_0, transformers, openai-whisper.
`rows` gives milliseconds of a spectrogram of 30 s (mel), of the encoder (encode), and of a greedy or beam-search step with
its part of the prompt (decode, decode beam5). `program` transcribes a file without timestamps, without fallback, 224 tokens a
window at most; its `seconds` begin when the libraries have been imported.
"""

import json
import resource
import statistics
import sys
import time
import wave
from pathlib import Path

import numpy as np

STEPS, REPETITIONS, RATE = 100, 5, 16000
START, ENGLISH, TRANSCRIBE, NO_TIMES, END = 50258, 50259, 50359, 50363, 50257
PROMPT = [START, ENGLISH, TRANSCRIBE, NO_TIMES]
MOST = 224  # tokens of a window


def main():
    engine, folder, threads, what = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    kind, _, variant = engine.rpartition("-") if engine[-4:] in ("int8", "at32", "-f16", "q8_0") else (engine, "", "")
    peer = {"faster-whisper": FasterWhisper, "whisper.cpp": WhisperCpp, "transformers": Transformers, "openai-whisper": OpenAi}[kind]
    began = time.perf_counter()
    peer = peer(folder, threads, variant)
    if what == "program":
        print(json.dumps(dict(text=peer.transcribe(sys.argv[5]), seconds=time.perf_counter() - began)))
        return
    audio = (np.random.default_rng(0).standard_normal(30 * RATE) * 0.1).astype(np.float32)
    rows = {"mel": median(lambda: peer.mel(audio))}
    rows["encode"] = median(peer.encode)
    for test, beams in (("decode", 1), ("decode beam5", 5)):
        if beams == 1 or peer.beams:
            rows[test] = median(lambda: peer.decode(beams)) / STEPS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(dict(rows=rows, peak_rss_bytes=peak, version=peer.version)))


def median(run):
    run()
    times = []
    for _ in range(REPETITIONS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


class FasterWhisper:
    beams = True

    def __init__(self, folder, threads, variant):
        import ctranslate2
        import faster_whisper

        self.ct, self.version = ctranslate2, f"{faster_whisper.__version__}, CTranslate2 {ctranslate2.__version__}"
        self.model = faster_whisper.WhisperModel(str(folder / f"ct2-{variant}"), device="cpu", cpu_threads=threads, compute_type=variant)

    def mel(self, audio):
        # The extractor pads by 30 s, so that a file's last window is whole.
        self.features = self.model.feature_extractor(audio, padding=0)[:, :3000]

    def encode(self):
        self.heard = self.model.encode(self.features)

    def decode(self, beams):
        found = self.model.model.generate(self.heard, [PROMPT], max_length=2 * STEPS, beam_size=beams,
                                          suppress_blank=False, suppress_tokens=[END])
        assert len(found[0].sequences_ids[0]) == STEPS

    def transcribe(self, path):
        segments, _ = self.model.transcribe(path, language="en", beam_size=1, temperature=0, without_timestamps=True, max_new_tokens=MOST,
                                            compression_ratio_threshold=None, log_prob_threshold=None, no_speech_threshold=None,
                                            condition_on_previous_text=False, suppress_tokens=[])
        return "".join(segment.text for segment in segments)


class WhisperCpp:
    beams = False

    def __init__(self, folder, threads, variant):
        import importlib.metadata

        import _pywhispercpp as api

        self.api, self.threads = api, threads
        self.version = importlib.metadata.version("pywhispercpp")
        self.context = api.whisper_init_from_file_with_params(str(folder / f"ggml-{variant}.bin"), api.whisper_context_default_params())

    def mel(self, audio):
        self.api.whisper_pcm_to_mel(self.context, audio, len(audio), self.threads)

    def encode(self):
        self.api.whisper_encode(self.context, 0, self.threads)

    def decode(self, beams):
        # The package takes one token at a time.
        for past in range(STEPS):
            self.api.whisper_decode(self.context, PROMPT[min(past, 2)], 1, past, self.threads)

    def transcribe(self, path):
        api = self.api
        params = api.whisper_full_default_params(api.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY)
        params.n_threads, params.language, params.no_timestamps, params.no_context = self.threads, "en", True, True
        params.temperature_inc, params.max_tokens, params.print_progress, params.print_realtime = 0, MOST, False, False
        params.greedy = {"best_of": 1}
        audio = samples(path)
        api.whisper_full(self.context, params, audio, len(audio))
        texts = [api.whisper_full_get_segment_text(self.context, i) for i in range(api.whisper_full_n_segments(self.context))]
        return b"".join(texts).decode(errors="replace")


class Transformers:
    beams = False

    def __init__(self, folder, threads, variant):
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch, self.version = torch, f"{transformers.__version__}, torch {torch.__version__}"
        self.model = transformers.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.extract = transformers.WhisperFeatureExtractor.from_pretrained(folder)

    def mel(self, audio):
        self.features = self.extract(audio, sampling_rate=RATE, return_tensors="pt").input_features

    def encode(self):
        with self.torch.inference_mode():
            self.heard = self.model.model.encoder(self.features)

    def decode(self, beams):
        ids, past = self.torch.tensor([PROMPT]), None
        with self.torch.inference_mode():
            for _ in range(STEPS):
                out = self.model(encoder_outputs=self.heard, decoder_input_ids=ids, past_key_values=past, use_cache=True)
                ids, past = out.logits[:, -1:].argmax(-1), out.past_key_values


class OpenAi:
    beams = True

    def __init__(self, folder, threads, variant):
        import torch
        import whisper
        from safetensors.torch import load_file

        from speech_models import SHAPES, VOCAB, openai_name

        torch.set_num_threads(threads)
        self.whisper, self.torch, self.version = whisper, torch, whisper.__version__
        shape = SHAPES[folder.name]
        width, heads, layers = shape["d_model"], shape["heads"], shape["layers"]
        self.model = whisper.model.Whisper(whisper.model.ModelDimensions(80, 1500, width, heads, layers, VOCAB, 448, width, heads, layers))
        state = {openai_name(name): x.float() for name, x in load_file(folder / "model.safetensors").items() if not name.startswith("proj")}
        self.model.load_state_dict(state)
        self.model.eval()

    def mel(self, audio):
        self.features = self.whisper.log_mel_spectrogram(audio)

    def encode(self):
        with self.torch.inference_mode():
            self.heard = self.model.encoder(self.features[None])

    def decode(self, beams):
        options = self.whisper.DecodingOptions(language="en", fp16=False, without_timestamps=True, sample_len=STEPS,
                                               beam_size=beams if beams > 1 else None, suppress_blank=False, suppress_tokens=[END])
        self.model.decode(self.heard, options)


def samples(path):
    with wave.open(path) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


if __name__ == "__main__":
    main()
