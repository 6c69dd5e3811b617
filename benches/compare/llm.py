#!/usr/bin/env python3
"""Side by side with llama.cpp and candle-transformers: the same random weights, threads and tokens, in one run.

    benches/compare/llm.py --cache /tmp/compare --model smollm2-135m --formats q8_0,int8

The first run builds llama-cpp-python from PyPI for this machine (GGML_NATIVE) into a virtual environment of its own,
and writes the models; both stay in the cache. Every figure comes from processes of their own, the engines in turn,
warmed up, and is the median over the rounds; `@d4096`, whose past takes long to fill, has all its repetitions in one
process. llama.cpp's resident memory is without Python's own. A full run takes an hour: `--keep` adds to an earlier one.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

SHAPES = ["smollm2-135m", "llama-1b"]
FORMATS = ["bf16", "f16", "q8_0", "q4_0", "q4_k_m", "int8", "int4-g64"]
ENGINES = ["llama.cpp", "candle", "candle-engine"]
TESTS = ["pp512", "pp128", "tg64", "tg64x8", "tg64@d4096", "first"]
# Formats that only this engine has.
OWN = {"int8", "int4-g64"}
CMAKE_ARGS = (
    "-DGGML_NATIVE=ON -DGGML_LLAMAFILE=ON -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF "
    "-DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_CURL=OFF -DCMAKE_BUILD_TYPE=Release"
)

EIGHT_BITS_OR_FEWER = ["q8_0", "q4_0", "q4_k_m"]
# Shape, test, our format, the peer's formats (the best of them counts), how many times its figure, percent of the
# machine's peak.
BARS = [
    ("llama-1b", "pp512", "int8", EIGHT_BITS_OR_FEWER, 3.8, 65),
    ("llama-1b", "pp512", "bf16", ["bf16"], 1.9, 75),
    ("llama-1b", "pp512", "f16", ["f16"], 1.9, 75),
    ("llama-1b", "pp512", "int4-g64", ["q4_k_m", "q4_0"], 3.0, None),
    ("llama-1b", "pp512", "q4_k_m", ["q4_k_m"], 3.0, None),
    ("llama-1b", "tg64", "int8", ["q8_0"], 1.3, 90),
    ("llama-1b", "tg64", "q4_k_m", ["q4_k_m"], 1.35, 80),
    ("llama-1b", "tg64", "q4_0", ["q4_0"], 1.35, 80),
    ("llama-1b", "tg64", "int4-g64", ["q4_0", "q4_k_m"], 1.35, 80),
    ("llama-1b", "tg64", "bf16", [], None, 90),
    ("llama-1b", "tg64@d4096", "int8", ["q8_0"], 1.5, None),
    ("llama-1b", "tg64@d4096", "q8_0", ["q8_0"], 1.5, None),
    ("llama-1b", "tg64@d4096", "q4_0", ["q4_0"], 1.5, None),
    ("llama-1b", "tg64@d4096", "q4_k_m", ["q4_k_m"], 1.5, None),
    ("llama-1b", "tg64x8", "int8", EIGHT_BITS_OR_FEWER, 2.0, None),
    ("smollm2-135m", "pp512", "int8", ["bf16", "f16", *EIGHT_BITS_OR_FEWER], 3.0, None),
    ("smollm2-135m", "pp128", "int8", ["bf16", "f16", *EIGHT_BITS_OR_FEWER], 3.0, None),
    ("smollm2-135m", "tg64", "int8", ["q8_0"], 1.5, None),
    ("smollm2-135m", "tg64", "int4-g64", ["q4_0"], 1.5, None),
    ("smollm2-135m", "first", "int8", ["q8_0"], 2.0, None),
]


def main():
    args = arguments()
    bench = Bench(args)
    for shape in args.model:
        for fmt in args.formats:
            bench.compare(shape, fmt)
    bench.print()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    some = lambda known: lambda text: [check(word, known) for word in text.split(",")]
    parser.add_argument("--cache", type=Path, required=True, help="folder for the environment, models and results")
    parser.add_argument("--model", type=some(SHAPES), default=SHAPES, help=", ".join(SHAPES))
    parser.add_argument("--formats", type=some(FORMATS), default=FORMATS, help=", ".join(FORMATS))
    parser.add_argument("--engines", type=some(ENGINES), default=ENGINES, help=", ".join(ENGINES))
    parser.add_argument("--tests", type=some(TESTS), default=TESTS, help=", ".join(TESTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kv-type", choices=["f32", "f16", "int8"], default="f16",
                        help="of the cache; int8 is llama.cpp's q8_0")
    parser.add_argument("--bin", type=Path, help="folder of built programs [default: build them]")
    parser.add_argument("--results", type=Path, help="where the figures are kept [default: in the cache]")
    parser.add_argument("--keep", action="store_true", help="add to what is there; --rounds 0 only prints it")
    return parser.parse_args()


def check(word, known):
    if word not in known:
        raise argparse.ArgumentTypeError(f"{word}: expected some of {', '.join(known)}")
    return word


class Bench:
    def __init__(self, args):
        self.args, self.results = args, {}
        args.cache.mkdir(parents=True, exist_ok=True)
        self.file = args.results or args.cache / "results.json"
        if args.keep and self.file.exists():
            self.results = json.loads(self.file.read_text())
        self.python = environment(args.cache)
        self.bin = args.bin or build()
        git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
        self.commit = git.stdout.strip()

    def compare(self, shape, fmt):
        engines = [e for e in self.args.engines if not (fmt in OWN and e != "candle-engine")]
        paths = {engine: self.path(engine, shape, fmt) for engine in engines if self.args.rounds}
        shallow = [test for test in self.args.tests if "@" not in test]
        deep = [test for test in self.args.tests if "@" in test]
        for round in range(self.args.rounds if shallow else 0):
            for engine in engines:
                self.measure(shape, fmt, engine, paths[engine], shallow, 1, f"round {round + 1}")
        for engine in engines:
            if deep and engine != "candle" and self.args.rounds:
                self.measure(shape, fmt, engine, paths[engine], deep, self.args.rounds, "with a past")

    def path(self, engine, shape, fmt):
        """The model's place; it is written if it is not there."""
        cache = self.args.cache / "models"
        if fmt in OWN:
            to = cache / shape / fmt
            if not to.exists():
                source = self.models(shape, "bf16", "safetensors")
                run([self.bin / "candle-engine", "quantize", source, "-o", to, "--format", fmt])
            return to
        if engine == "llama.cpp" or fmt not in ("bf16", "f16"):
            return self.models(shape, fmt, "model.gguf")
        return self.models(shape, fmt, "safetensors")

    def models(self, shape, fmt, file):
        path = self.args.cache / "models" / shape / fmt / file
        if not path.exists():
            run([self.python, HERE / "models.py", self.args.cache / "models", shape, fmt])
        return path

    def measure(self, shape, fmt, engine, path, tests, repetitions, what):
        print(f"{shape} {fmt} {what}: {engine}", file=sys.stderr, flush=True)
        run_engine = {"llama.cpp": self.llama, "candle": self.candle, "candle-engine": self.ours}[engine]
        figures = run_engine(fmt, path, tests, repetitions)
        row = self.results.setdefault(key(shape, fmt, engine), dict(isa=figures.pop("isa"), commit=figures.pop("commit")))
        for name, values in figures.items():
            row.setdefault(name, []).extend(values)
        self.save()

    def llama(self, fmt, path, tests, repetitions):
        kv = {"int8": "q8_0"}.get(self.args.kv_type, self.args.kv_type)
        # What is measured from the start of the process comes first.
        tests = sorted(tests, key=lambda test: test != "first")
        found = self.json([self.python, HERE / "peer.py", path, self.args.threads, kv, repetitions, *tests])
        figures = dict(found["rates"], isa=found["isa"], commit="llama-cpp-python " + found["version"])
        if any("@" not in test for test in tests):
            figures["resident"] = [found["resident_mb"]]
        return figures

    def candle(self, fmt, path, tests, repetitions):
        place = path.parent if path.suffix == ".gguf" else path
        found = self.json([self.bin / "compare", "--one", "candle", fmt, place])
        figures = {"pp512": [found["prefill_tokens_per_s"]], "tg64": [found["decode_tokens_per_s"]]}
        figures = {test: rates for test, rates in figures.items() if test in tests}
        return dict(figures, resident=[found["peak_rss_mb"]], isa="its own", commit="candle " + candle_version())

    def ours(self, fmt, path, tests, repetitions):
        program, figures = self.bin / "candle-engine", dict(commit=self.commit, isa="")
        place = ["-m", path, "-t", self.args.threads, "--kv-type", self.args.kv_type]
        if "first" in tests:
            tokens = ",".join(str((i * 7919) % 40000 + 3) for i in range(16))
            found = self.json([program, "run", *place, "--tokens", tokens, "-n", 1, "--temp", 0, "--json"])
            figures["first"] = [found["first_token_ms"] / 1e3]
        split = lambda test: (test.split("@d") + ["0"])[:2]
        for depth in sorted({split(test)[1] for test in tests if test != "first"}, key=int):
            wanted = [split(test)[0] for test in tests if test != "first" and split(test)[1] == depth]
            prompts = [test[2:] for test in wanted if test.startswith("pp")] or ["0"]
            decodes = [test[2:].split("x") for test in wanted if test.startswith("tg")]
            lengths = {decode[0] for decode in decodes} or {"0"}
            batches = {(decode + ["1"])[1] for decode in decodes} or {"1"}
            command = [program, "bench", *place, "-p", ",".join(prompts), "-n", ",".join(lengths)]
            command += ["-b", ",".join(sorted(batches)), "-c", depth, "-r", repetitions, "--json"]
            for row in self.json(command):
                # One repetition or the median of many.
                figures[row["test"]] = [row["tokens_per_s"]]
                figures[row["test"] + " percent"] = [row["percent_of_peak"]]
                figures["isa"] = row["isa"]
                if depth == "0":
                    figures["resident"] = [row["peak_rss_bytes"] / 1e6]
        return figures

    def json(self, command):
        threads = str(self.args.threads)
        names = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS", "CANDLE_ENGINE_THREADS", "OMP_NUM_THREADS"]
        environ = dict(os.environ, **{name: threads for name in names})
        return json.loads(run(command, env=environ))

    def save(self):
        self.file.write_text(json.dumps(self.results, indent=1))

    def print(self):
        cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
        args = self.args
        print(f"{cpu}, {args.threads} threads, KV cache {args.kv_type}, medians of {self.rounds()}; tokens/s; "
              "first: seconds from loading to the first token of a prompt of 16, no tokenizer\n")
        tests = [test for test in TESTS if test in args.tests]
        for shape in args.model:
            print(f"| {shape} | engine | ISA | commit | {' | '.join(tests)} | resident MB |")
            print("|---|---|---|---|" + "--:|" * (len(tests) + 1))
            for fmt in args.formats:
                for engine in args.engines:
                    row = self.results.get(key(shape, fmt, engine))
                    if row:
                        cells = [self.cell(shape, fmt, engine, name) for name in [*tests, "resident"]]
                        print(f"| {fmt} | {engine} | {row['isa']} | {row['commit']} | {' | '.join(cells)} |")
            print()
        self.print_bars()

    def cell(self, shape, fmt, engine, test):
        value, percent = self.median(shape, fmt, engine, test), self.median(shape, fmt, engine, test + " percent")
        if value is None:
            return ""
        digits = 3 if test == "first" else 0 if test == "resident" or value >= 100 else 1
        return f"{value:.{digits}f}" + (f" ({percent:.0f} %)" if percent else "")

    def median(self, shape, fmt, engine, test):
        values = [v for v in self.results.get(key(shape, fmt, engine), {}).get(test, []) if v is not None]
        return statistics.median(values) if values else None

    def rounds(self):
        """How many figures the fewest medians are of."""
        counts = [len(values) for row in self.results.values() for name, values in row.items() if name == "pp512"]
        return min(counts, default=0)

    def print_bars(self):
        lines = []
        for shape, test, fmt, peers, times, percent in BARS:
            ours = self.median(shape, fmt, "candle-engine", test)
            found = [(self.median(shape, peer, "llama.cpp", test), peer) for peer in peers]
            found = [(value, peer) for value, peer in found if value]
            if ours is None or shape not in self.args.model:
                continue
            bar, measured = [], []
            if times and found:
                best = min(found) if test == "first" else max(found)
                ratio = best[0] / ours if test == "first" else ours / best[0]
                bar.append(f"{times} × llama.cpp {best[1]}")
                measured.append((f"{ratio:.2f} ×", ratio >= times))
            if percent:
                share = self.median(shape, fmt, "candle-engine", test + " percent") or 0
                bar.append(f"{percent} % of peak")
                measured.append((f"{share:.0f} %", share >= percent))
            if measured:
                lines.append((shape, test, fmt, bar, measured))
        one, eight = (self.median("llama-1b", "int8", "candle-engine", test) for test in ("tg64", "tg64x8"))
        if one and eight:
            lines.append(("llama-1b", "tg64x8", "int8", ["3 × a single decode"], [(f"{eight / one:.2f} ×", eight >= 3 * one)]))
        if lines:
            print("| shape | test | format | bar | measured | |\n|---|---|---|---|---|---|")
        for shape, test, fmt, bar, measured in lines:
            met = "met" if all(ok for _, ok in measured) else "missed"
            print(f"| {shape} | {test} | {fmt} | {', '.join(bar)} | {', '.join(text for text, _ in measured)} | {met} |")


def key(shape, fmt, engine):
    return f"{shape} {fmt} {engine}"


def candle_version():
    lock = (ROOT / "Cargo.lock").read_text()
    return lock.split('name = "candle-core"\nversion = "')[1].split('"')[0]


def environment(cache):
    """Python with llama.cpp built for this machine."""
    python = cache / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(cache / "venv", with_pip=True)
    probe = subprocess.run([python, "-c", "import llama_cpp, gguf, numpy"], capture_output=True)
    if probe.returncode != 0:
        print("building llama-cpp-python for this machine", file=sys.stderr, flush=True)
        run([python, "-m", "pip", "install", "-q", "cmake", "ninja", "numpy", "gguf"])
        path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
        environ = dict(os.environ, CMAKE_ARGS=CMAKE_ARGS, PATH=path)
        source = ["--no-cache-dir", "--no-binary", "llama-cpp-python", "llama-cpp-python"]
        run([python, "-m", "pip", "install", "-q", *source], env=environ)
    return python


def build():
    packages = ["-p", "candle-engine-cli", "-p", "candle-engine-benches"]
    run(["cargo", "build", "--release", *packages, "--bins"], cwd=ROOT)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


def run(command, **options):
    command = [str(word) for word in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}: failed with status {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
