"""llama.cpp through its C API, as llama-bench would drive it: one process, one model, some tests, one JSON object.

usage: peer.py bench MODEL.gguf THREADS KV_TYPE TEST…
       peer.py check MODEL.gguf THREADS ID,ID…
A test is pp512, tg64, tg64x8 or tg64@d4096, as `candle-engine bench` names them; or `first`. A past that was computed
once is kept beside the model. `check` prints the log-probabilities of all tokens after some.
"""

import ctypes
import json
import re
import sys
import time
from pathlib import Path

import llama_cpp as api

CHUNK = 512
KV_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}


def main():
    what, path, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    silence = api.llama_log_callback(lambda level, text, data: None)
    api.llama_log_set(silence, None)
    resident, anonymous = memory("VmRSS"), memory("RssAnon")
    start = time.perf_counter()
    api.llama_backend_init()
    model = api.llama_model_load_from_file(path.encode(), api.llama_model_default_params())
    if not model:
        raise RuntimeError(f"{path}: llama.cpp does not load it")
    anonymous = memory("RssAnon") - anonymous
    if what == "check":
        peer = Peer(path, model, threads, "f32")
        print(json.dumps(peer.logprobs([int(id) for id in sys.argv[4].split(",")])))
        return
    peer = Peer(path, model, threads, sys.argv[4])
    rows = {}
    for test in sys.argv[5:]:
        if test == "first":
            peer.open(CHUNK, 1)
            peer.feed([(0, token, position) for position, token in enumerate(peer.tokens(16))])
            rows[test] = time.perf_counter() - start
        else:
            rows[test] = peer.measure(test)
    megabytes = dict(resident_mb=(memory("VmHWM") - resident) / 1e6, anonymous_mb=anonymous / 1e6)
    system = api.llama_print_system_info().decode()
    print(json.dumps(dict(rates=rows, isa=instruction_set(system), version=api_version(), **megabytes)))


class Peer:
    def __init__(self, path, model, threads, kv):
        self.path, self.model, self.threads, self.kv, self.context = path, model, threads, kv, None
        self.vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))

    def open(self, positions, sequences):
        if self.context:
            api.llama_free(self.context)
        params = api.llama_context_default_params()
        # A multiple of what llama.cpp pads a cache to.
        params.n_ctx = -(-positions // 256) * 256 * sequences
        params.n_batch = params.n_ubatch = CHUNK
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = self.threads
        params.type_k = params.type_v = KV_TYPES[self.kv]
        params.no_perf = True
        self.context = api.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError("llama.cpp makes no context")
        self.memory = api.llama_get_memory(self.context)
        self.batch = api.llama_batch_init(CHUNK, 0, sequences)

    def tokens(self, count):
        return [(i * 7919) % min(self.vocab, 40000) + 3 for i in range(count)]

    def feed(self, entries):
        """Decodes (sequence, token, position) in chunks; logits after each sequence's last token."""
        for at in range(0, len(entries), CHUNK):
            chunk = entries[at : at + CHUNK]
            last = {sequence: i for i, (sequence, _, _) in enumerate(chunk)}
            self.batch.n_tokens = len(chunk)
            for i, (sequence, token, position) in enumerate(chunk):
                self.batch.token[i], self.batch.pos[i] = token, position
                self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
                self.batch.logits[i] = last[sequence] == i
            if api.llama_decode(self.context, self.batch) != 0:
                raise RuntimeError("llama_decode failed")
        api.llama_synchronize(self.context)

    def logprobs(self, tokens):
        """(token, log-probability) of all tokens after these."""
        import numpy as np

        self.open(CHUNK, 1)
        self.feed([(0, token, position) for position, token in enumerate(tokens)])
        logits = np.ctypeslib.as_array(api.llama_get_logits_ith(self.context, -1), (self.vocab,)).astype(np.float64)
        logits -= logits.max()
        return list(enumerate((logits - np.log(np.exp(logits).sum())).tolist()))

    def past(self, sequence, tokens):
        """Fills a sequence, from the file of an earlier process if there is one."""
        file = Path(f"{self.path}.{self.kv}.{len(tokens)}.past")
        ids, count = (api.llama_token * len(tokens))(*tokens), ctypes.c_size_t()
        if file.exists():
            name = str(file).encode()
            if not api.llama_state_seq_load_file(self.context, name, sequence, ids, len(tokens), ctypes.byref(count)):
                raise RuntimeError(f"{file}: llama.cpp does not read it again")
            return
        self.feed([(sequence, token, position) for position, token in enumerate(tokens)])
        part = file.with_name(file.name + ".part")
        if not api.llama_state_seq_save_file(self.context, str(part).encode(), sequence, ids, len(tokens)):
            raise RuntimeError(f"{part}: llama.cpp does not write it")
        part.rename(file)

    def measure(self, test):
        """Tokens per second, after some tokens that warm up."""
        kind, count, sequences, depth = re.fullmatch(r"(pp|tg)(\d+)(?:x(\d+))?(?:@d(\d+))?", test).groups()
        count, sequences, depth = int(count), int(sequences or 1), int(depth or 0)
        self.open(depth + count, sequences)
        text = self.tokens(depth + count)
        for sequence in range(sequences):
            if depth:
                self.past(sequence, text[:depth])
        self.feed([(0, text[i], i) for i in range(depth, depth + min(count, 16))])
        for sequence in range(sequences):
            api.llama_memory_seq_rm(self.memory, sequence, depth, -1)
        start = time.perf_counter()
        if kind == "pp":
            self.feed([(0, text[i], i) for i in range(depth, depth + count)])
        else:
            for i in range(depth, depth + count):
                self.feed([(sequence, text[i], i) for sequence in range(sequences)])
        return count * sequences / (time.perf_counter() - start)


def api_version():
    from importlib.metadata import version

    return version("llama-cpp-python")


def memory(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key)) * 1024


def instruction_set(system):
    """What llama.cpp says that it was built for, the widest of it."""
    parts = re.findall(r"(\w+) = 1", system)
    wanted = ["AVX512_BF16", "AVX512_VNNI", "AVX512", "AVX_VNNI", "AVX2", "MATMUL_INT8", "DOTPROD", "NEON"]
    return "+".join(part for part in wanted if part in parts) or "plain"


if __name__ == "__main__":
    main()
