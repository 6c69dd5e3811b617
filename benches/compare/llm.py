#!/usr/bin/env python3
"""Side by side with llama.cpp and candle-transformers: the same random weights, threads and tokens, in one run.

    benches/compare/llm.py --cache /tmp/compare                            # everything: some twenty minutes
    benches/compare/llm.py --cache /tmp/compare --rows 'pp512-int8-1b,tg64*-135m'
    benches/compare/llm.py --cache /tmp/compare --dry-run                  # what is there, and what would be done

The first run builds llama-cpp-python from PyPI for this machine (GGML_NATIVE; twenty minutes on two cores) into a virtual
environment of its own, and writes the models; both stay in the cache. The compiler is that of CC and CXX: where the CPU
has AMX, what GCC 12 makes of llama.cpp crashes, and clang 14 needs `CFLAGS="$F" CXXFLAGS="$F"`, F being `-D__AMX_TILE__
-D__AMX_INT8__`, to use it at all. Before a file is measured, both engines must agree on what it computes. Every figure
is from a process of its own, the engines in turn, warmed up, and what counts is the median over the rounds. Each figure
is kept as it comes: a run that was interrupted goes on where it was. At another commit of this repository all is
measured again.

A row is a test, a format and a shape: pp512 is a prompt of 512, tg64 64 tokens one by one, x8 of eight sequences
together, @d4096 after 4096 tokens, first the seconds from loading to the first token of a prompt of 16. llama.cpp's
memory is without Python's own; its anonymous memory is that after loading, ours that after a first token too.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import venv
from pathlib import Path

from report import Report
from rows import AVX2, CANDLE, LLAMA, OURS, OWN, chosen, key

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CMAKE_ARGS = (
    "-DGGML_NATIVE=ON -DGGML_LLAMAFILE=ON -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF "
    "-DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_CURL=OFF -DCMAKE_BUILD_TYPE=Release"
)
PROMPT = [(i * 7919) % 40000 + 3 for i in range(16)]
# How far apart two engines' log-probabilities may be: each quantizes activations in its own way. Another model's would
# be nats apart.
APART = 0.3


def main():
    args = arguments()
    bench = Bench(args)
    for group in args.groups:
        try:
            bench.group(*group)
        except Failed as error:
            # The others are worth measuring; the next run tries this one again.
            bench.failed.append(str(error))
            bench.say(f"error: {error}")
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    heading = f"{cpu}, {args.threads} threads, KV cache {args.kv_type}; tokens/s, first in seconds; in parentheses the share of the peak"
    text = "\n".join(Report(bench.results).lines(heading)) + "\n"
    (args.cache / "results.md").write_text(text)
    print(text, end="")
    if bench.failed:
        sys.exit("\n".join(["", *bench.failed]))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for the environment, models and results")
    parser.add_argument("--rows", default="*", help="TEST-FORMAT-SHAPE with wildcards, some separated by commas; whoever "
                        "takes turns with them is measured too")
    parser.add_argument("--rounds", type=int, help="at most so many [default: 5, of what takes long 3]")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kv-type", choices=["f32", "f16", "int8"], default="f16",
                        help="of the cache; int8 is llama.cpp's q8_0")
    parser.add_argument("--bin", type=Path, help="folder of built programs [default: build them]")
    parser.add_argument("--results", type=Path, help="where the figures are kept [default: in the cache]")
    parser.add_argument("--keep", action="store_true", help="keep figures of other commits too")
    parser.add_argument("--fresh", action="store_true", help="forget all figures")
    parser.add_argument("--dry-run", action="store_true", help="say what would be installed, built, written and measured")
    args = parser.parse_args()
    try:
        args.groups = list(chosen(args.rows.split(",")))
    except ValueError as error:
        parser.error(str(error))
    return args


class Failed(Exception):
    """Something could not be measured."""


class Bench:
    def __init__(self, args):
        self.args, self.dry, self.failed = args, args.dry_run, []
        args.cache.mkdir(parents=True, exist_ok=True)
        self.file = args.results or args.cache / "results.json"
        self.python = self.environment()
        self.bin = args.bin or self.build()
        git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
        self.commit = git.stdout.strip()
        self.results = self.earlier()

    def environment(self):
        """Python with llama.cpp built for this machine."""
        python = self.args.cache / "venv" / "bin" / "python"
        probe = [python, "-c", "import llama_cpp, gguf, numpy"]
        if python.exists() and subprocess.run(probe, capture_output=True).returncode == 0:
            return python
        self.say("building llama-cpp-python for this machine: this takes a while")
        if self.dry:
            return python
        venv.create(self.args.cache / "venv", with_pip=True)
        run([python, "-m", "pip", "install", "-q", "cmake", "ninja", "numpy", "gguf"])
        path = f"{python.parent.resolve()}{os.pathsep}{os.environ['PATH']}"
        environ = dict(os.environ, CMAKE_ARGS=CMAKE_ARGS, PATH=path)
        run([python, "-m", "pip", "install", "-q", "--no-cache-dir", "--no-binary", "llama-cpp-python", "llama-cpp-python"],
            env=environ)
        run(probe)
        return python

    def build(self):
        command = ["cargo", "build", "--release", "-p", "candle-engine-cli", "-p", "candle-engine-benches", "--bins"]
        self.say(shlex.join(command))
        if not self.dry:
            run(command, cwd=ROOT)
        return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"

    def earlier(self):
        """The figures that there are, unless of another commit: the peers' too, for who is compared takes turns."""
        results = {"commit": self.commit, "rows": {}, "checks": {}}
        if self.file.exists() and not self.args.fresh:
            results |= json.loads(self.file.read_text())
        if results["commit"] != self.commit and not self.args.keep:
            self.say(f"{self.file}: the figures are of {results['commit']}, this is {self.commit}: all is measured again")
            results |= {"commit": self.commit, "rows": {}}
        return results

    def group(self, shape, rounds, tests, members):
        for fmt in dict.fromkeys(fmt for engine, fmt in members if engine == LLAMA):
            self.check(shape, fmt)
        for round in range(min(rounds, self.args.rounds or rounds)):
            for engine, fmt in members:
                row = self.results["rows"].get(key(shape, fmt, engine), {})
                wanted = [test for test in tests if len(row.get(test, [])) <= round]
                if wanted:
                    self.measure(shape, fmt, engine, wanted, round)

    def check(self, shape, fmt):
        """Both engines say much the same of the token after a prompt."""
        name = f"{shape} {fmt}"
        if name in self.results["checks"]:
            return
        path = self.path(LLAMA, shape, fmt)
        self.say(f"{name}: do both compute the same?")
        if self.dry:
            return
        tokens = ",".join(map(str, PROMPT))
        theirs = dict(self.json([self.python, HERE / "peer.py", "check", path, self.args.threads, tokens]))
        score = [self.bin / "candle-engine", "score", "-m", path, "--tokens", tokens, "--top", 100, "--json"]
        ours = {token["id"]: token["logprob"] for token in self.json(score)["next"]}
        apart = max(abs(logprob - theirs[id]) for id, logprob in ours.items())
        if apart > APART:
            raise Failed(f"{path}: the engines' log-probabilities are {apart:.3f} apart, expected at most {APART}")
        self.results["checks"][name] = apart
        self.save()

    def measure(self, shape, fmt, engine, tests, round):
        path = self.path(engine, shape, fmt)
        self.say(f"{shape} {fmt}, round {round + 1}: {engine} {' '.join(tests)}")
        if self.dry:
            return
        how = {LLAMA: self.llama, CANDLE: self.candle, OURS: self.ours, AVX2: self.ours}[engine]
        warm(path)
        figures = how(fmt, path, tests, {"CANDLE_ENGINE_ISA": "avx2"} if engine == AVX2 else {})
        facts = dict(isa=figures.pop("isa"), commit=figures.pop("commit"))
        row = self.results["rows"].setdefault(key(shape, fmt, engine), facts)
        for name, value in figures.items():
            row.setdefault(name, []).append(value)
        self.save()

    def path(self, engine, shape, fmt):
        """The model's place; it is written if it is not there."""
        models = self.args.cache / "models" / shape
        if fmt in OWN:
            source, path = self.path(CANDLE, shape, "bf16"), models / fmt
            command = [self.bin / "candle-engine", "quantize", source, "-o", path, "--format", fmt, "--quiet"]
        else:
            folder = engine != LLAMA and fmt in ("bf16", "f16")
            path = models / fmt / ("safetensors" if folder else "model.gguf")
            command = [self.python, HERE / "models.py", models.parent, shape, fmt]
        if not path.exists():
            self.say(shlex.join(map(str, command)))
            if not self.dry:
                run(command)
        return path

    def llama(self, fmt, path, tests, environ):
        kv = {"int8": "q8_0"}.get(self.args.kv_type, self.args.kv_type)
        # What is measured from the start of the process comes first.
        tests = sorted(tests, key=lambda test: test != "first")
        found = self.json([self.python, HERE / "peer.py", "bench", path, self.args.threads, kv, *tests])
        memory = dict(resident=found["resident_mb"], anonymous=found["anonymous_mb"])
        return found["rates"] | memory | dict(isa=found["isa"], commit="llama-cpp-python " + found["version"])

    def candle(self, fmt, path, tests, environ):
        place = path.parent if path.suffix == ".gguf" else path
        found = self.json([self.bin / "compare", "--one", "candle", fmt, place])
        figures = {"pp512": found["prefill_tokens_per_s"], "tg64": found["decode_tokens_per_s"]}
        figures = {test: rate for test, rate in figures.items() if test in tests}
        return dict(figures, resident=found["peak_rss_mb"], isa="its own", commit="candle " + candle_version())

    def ours(self, fmt, path, tests, environ):
        program, figures = self.bin / "candle-engine", dict(commit=self.commit, isa="")
        place = ["-m", path, "-t", self.args.threads, "--kv-type", self.args.kv_type]
        if "first" in tests:
            tokens = ",".join(map(str, PROMPT))
            found = self.json([program, "run", *place, "--tokens", tokens, "-n", 1, "--temp", 0, "--json"], environ)
            figures["first"] = found["first_token_ms"] / 1e3
        split = lambda test: (test.split("@d") + ["0"])[:2]
        for depth in sorted({split(test)[1] for test in tests if test != "first"}, key=int):
            wanted = [split(test)[0] for test in tests if test != "first" and split(test)[1] == depth]
            prompts = [test[2:] for test in wanted if test.startswith("pp")] or ["0"]
            decodes = [test[2:].split("x") for test in wanted if test.startswith("tg")]
            lengths = {decode[0] for decode in decodes} or {"0"}
            batches = {(decode + ["1"])[1] for decode in decodes} or {"1"}
            command = [program, "bench", *place, "-p", ",".join(prompts), "-n", ",".join(lengths)]
            for row in self.json([*command, "-b", ",".join(sorted(batches)), "-c", depth, "-r", 1, "--json"], environ):
                figures[row["test"]] = row["tokens_per_s"]
                figures[row["test"] + " percent"] = row["percent_of_peak"]
                figures["isa"] = row["isa"]
                if depth == "0":
                    figures |= dict(resident=row["peak_rss_bytes"] / 1e6, anonymous=row["anonymous_bytes"] / 1e6)
        return figures

    def json(self, command, environ={}):
        names = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS", "CANDLE_ENGINE_THREADS", "OMP_NUM_THREADS"]
        threads = {name: str(self.args.threads) for name in names}
        return json.loads(run(command, env=os.environ | threads | environ))

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def save(self):
        part = self.file.with_name(self.file.name + ".part")
        part.write_text(json.dumps(self.results, indent=1))
        part.replace(self.file)


def warm(path):
    """Reads a model, which a system that takes unused pages back may have dropped since its last row."""
    for file in path.iterdir() if path.is_dir() else [path]:
        with open(file, "rb") as bytes:
            while bytes.read(1 << 24):
                pass


def candle_version():
    lock = (ROOT / "Cargo.lock").read_text()
    return lock.split('name = "candle-core"\nversion = "')[1].split('"')[0]


def run(command, **options):
    command = [str(word) for word in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        raise Failed(f"{shlex.join(command)}: failed with status {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
