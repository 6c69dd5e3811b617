"""llama.cpp through its C API, as llama-bench would drive it: one process, one model, some tests, one JSON object.

usage: peer.py MODEL.gguf THREADS KV_TYPE REPETITIONS TEST…
A test is pp512, tg64, tg64x8 or tg64@d4096, as `candle-engine bench` names them; or `first`.
"""

import json
import re
import sys
import time

import llama_cpp as api

CHUNK = 512
KV_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}


def main():
    path, threads, kv, repetitions = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    silence = api.llama_log_callback(lambda level, text, data: None)
    api.llama_log_set(silence, None)
    before = memory("VmRSS")
    start = time.perf_counter()
    api.llama_backend_init()
    model = api.llama_model_load_from_file(path.encode(), api.llama_model_default_params())
    if not model:
        raise RuntimeError(f"{path}: llama.cpp does not load it")
    peer = Peer(model, threads, KV_TYPES[kv])
    rows = {}
    for test in sys.argv[5:]:
        if test == "first":
            peer.open(CHUNK, 1)
            peer.feed([(0, token, position) for position, token in enumerate(peer.tokens(16))])
            rows[test] = [time.perf_counter() - start]
        else:
            rows[test] = peer.measure(test, repetitions)
    mb = (memory("VmHWM") - before) / 1e6
    system = api.llama_print_system_info().decode()
    print(json.dumps(dict(rates=rows, resident_mb=mb, isa=instruction_set(system), version=api_version())))


class Peer:
    def __init__(self, model, threads, kv):
        self.model, self.threads, self.kv, self.context = model, threads, kv, None
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
        params.type_k = params.type_v = self.kv
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

    def measure(self, test, repetitions):
        """Tokens per second of each repetition, after some tokens that warm up."""
        kind, count, sequences, depth = re.fullmatch(r"(pp|tg)(\d+)(?:x(\d+))?(?:@d(\d+))?", test).groups()
        count, sequences, depth = int(count), int(sequences or 1), int(depth or 0)
        self.open(depth + count, sequences)
        text = self.tokens(depth + count)
        for sequence in range(sequences):
            if depth:
                self.feed([(sequence, text[i], i) for i in range(depth)])
        self.feed([(0, text[i], depth + i) for i in range(min(count, 16))])
        rates = []
        for _ in range(repetitions):
            for sequence in range(sequences):
                api.llama_memory_seq_rm(self.memory, sequence, depth, -1)
            start = time.perf_counter()
            if kind == "pp":
                self.feed([(0, text[i], i) for i in range(depth, depth + count)])
            else:
                for i in range(depth, depth + count):
                    self.feed([(sequence, text[i], i) for sequence in range(sequences)])
            rates.append(count * sequences / (time.perf_counter() - start))
        return rates


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
