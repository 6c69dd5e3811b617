#!/usr/bin/env python3
"""Whisper, side by side with faster-whisper, whisper.cpp, openai-whisper, transformers and candle-transformers: one run,
the same tensors.

    benches/compare/speech.py --cache /tmp/compare            # all: a quarter of an hour, after the first
    benches/compare/speech.py --cache /tmp/compare --shapes whisper-tiny --engines faster-whisper-int8

The first run installs the peers from PyPI into a virtual environment, whisper.cpp compiled for this machine (where it
has AMX as llm.py says), and writes models of random weights in the shapes of tiny and base; all stay in the cache. Each
figure is from a process of its own, bound to as many CPUs as it has threads; the engines take turns, and what counts is
the median over the rounds. `program` transcribes a minute of audio: for ours and whisper.cpp's the whole process, for
those that live in Python what comes after the libraries have been imported.
"""

import argparse
import json
import os
import statistics
import subprocess
import time
import venv
import wave
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CANDLE = "candle-transformers"
PEERS = ["faster-whisper-int8", "faster-whisper-float32", "whisper.cpp-f16", "whisper.cpp-q8_0", "transformers", "openai-whisper", CANDLE]
FLOATS = ["faster-whisper-float32", "whisper.cpp-f16", "transformers", "openai-whisper", CANDLE]
OURS = {"candle-engine int8": "int8", "candle-engine bf16": "bf16", "candle-engine f16": "."}  # folders of the shape's
TESTS = ["mel", "encode", "decode", "decode beam5", "decode x8", "program"]
PACKAGES = ["torch", "transformers", "faster-whisper", "openai-whisper", "gguf", "safetensors"]
SECONDS = 60
# As in speech_peer.py: one greedy try of every window, without timestamps.
PLAIN = ["--language", "en", "--beam_size", "None", "--best_of", "None", "--temperature_increment_on_fallback", "None",
         "--compression_ratio_threshold", "None", "--logprob_threshold", "None", "--no_speech_threshold", "None",
         "--without_timestamps", "true", "--condition_on_previous_text", "false", "--suppress_tokens", ""]
MOST_MEMORY = {"whisper-tiny": 90, "whisper-base": 130}  # MB


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for the environment and the models")
    parser.add_argument("--shapes", default="whisper-tiny,whisper-base")
    parser.add_argument("--engines", default=",".join(PEERS), help="the peers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", type=Path, help="one that has the peers [default: install them]")
    parser.add_argument("--bin", type=Path, help="folder of built programs [default: build them]")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    python = args.python or environment(args.cache)
    program = args.bin or build()
    peers = [engine for engine in args.engines.split(",") if engine]
    for shape in args.shapes.split(","):
        folder = args.cache / shape
        make = f"from pathlib import Path; from speech_models import make; make({shape!r}, Path({str(args.cache)!r}))"
        run([python, "-c", make], cwd=HERE)
        audio = sound(args.cache / f"{SECONDS}.wav")
        for kind in OURS.values():
            if not (folder / kind).exists():
                run([program / "candle-engine", "quantize", folder, "-o", folder / kind, "--format", kind])
        results = {}
        for _ in range(args.rounds):
            for engine, kind in OURS.items():
                results.setdefault(engine, []).append(ours(program, folder / kind, audio, args.threads))
            for engine in peers:
                results.setdefault(engine, []).append(peer(python, program, engine, folder, audio, args.threads))
        print("\n".join([*table(shape, results), "", *bars(shape, results), ""]), flush=True)


def build():
    run(["cargo", "build", "--release", "-p", "candle-engine-cli", "-p", "candle-engine-benches", "--bins"], cwd=ROOT)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


def environment(cache):
    python = cache / "whisper-venv" / "bin" / "python"
    probe = [python, "-c", "import torch, transformers, faster_whisper, whisper, gguf, pywhispercpp"]
    if not python.exists() or subprocess.run(probe, capture_output=True, env=environ(python, 1)).returncode:
        venv.create(cache / "whisper-venv", with_pip=True)
        run([python, "-m", "pip", "install", "-q", *PACKAGES])
        # The wheel is for any machine.
        native = dict(os.environ, CMAKE_ARGS="-DGGML_NATIVE=ON", NO_REPAIR="1")
        run([python, "-m", "pip", "install", "-q", "--no-binary", "pywhispercpp", "pywhispercpp"], env=native)
    return python


def environ(python, threads):
    # pywhispercpp's libraries lie beside it.
    packages = next((python.parent.parent / "lib").glob("python3*/site-packages"), "")
    return dict(os.environ, OMP_NUM_THREADS=str(threads), LD_LIBRARY_PATH=str(packages), HF_HUB_OFFLINE="1")


def sound(path):
    """A minute that is not silent."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        numbers, x = bytearray(), 1
        for i in range(SECONDS * 16000):
            x = (1103515245 * x + 12345) % 2**31
            numbers += ((x >> 16) % 8000 - 4000).to_bytes(2, "little", signed=True)
        file.writeframes(bytes(numbers))
    return path


def ours(program, folder, audio, threads):
    engine = program / "candle-engine"
    common = ["-m", folder, "-t", threads]
    out, _, _ = measure([engine, "bench", *common, "-n", 100, "--batch", "1,8", "--json"], threads)
    rows = json.loads(out)
    found = {row["test"]: row["ms"] for row in rows}
    _, found["program"], found["memory"] = measure([engine, "transcribe", audio, *common, *PLAIN, "--json"], threads)
    found["isa"] = rows[0]["isa"]
    return found


def peer(python, program, engine, folder, audio, threads):
    if engine == CANDLE:
        counts = dict.fromkeys(["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"], str(threads))
        out, _, _ = measure([program / "compare", "--one", "candle-whisper", "f32", folder], threads, dict(os.environ, **counts))
        return json.loads(out)
    script = HERE / "speech_peer.py"
    out, _, _ = measure([python, script, engine, folder, threads, "rows"], threads, environ(python, threads))
    found = json.loads(out.splitlines()[-1])["rows"]
    if engine not in ("transformers", "openai-whisper"):
        out, whole, found["memory"] = measure([python, script, engine, folder, threads, "program", audio], threads, environ(python, threads))
        found["program"] = 1e3 * json.loads(out.splitlines()[-1])["seconds"]
    return found


def measure(command, threads, env=None):
    """What it prints, its milliseconds from start to exit, the most that was resident in MB."""
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    began = time.perf_counter()
    child = subprocess.Popen([str(part) for part in command], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                             preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    out = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(map(str, command))}: exit status {os.waitstatus_to_exitcode(status)}")
    return out, 1e3 * (time.perf_counter() - began), used.ru_maxrss * 1024 / 1e6


def median(results, engine, test):
    values = [row[test] for row in results.get(engine, []) if test in row]
    return statistics.median(values) if values else None


def table(shape, results):
    yield f"| {shape} | " + " | ".join(TESTS) + " | memory MB |"
    yield "|---|" + "--:|" * (len(TESTS) + 1)
    for engine in results:
        cells = [median(results, engine, test) for test in [*TESTS, "memory"]]
        yield f"| {engine} | " + " | ".join("" if x is None else f"{x:.0f}" if x >= 100 else f"{x:.3g}" for x in cells) + " |"


def bars(shape, results):
    def best(test, engines):
        found = [(ms, engine) for engine in engines if (ms := median(results, engine, test))]
        return min(found, default=None)

    mine = lambda test, kind="int8": median(results, f"candle-engine {kind}", test)
    peers = [engine for engine in results if engine not in OURS]
    yield "| | bar | measured | |"
    yield "|---|---|---|---|"

    def row(what, bar, least, value, unit=" ×"):
        return f"| {what} | {bar} | {value:.2f}{unit} | {'met' if (value >= least if least > 0 else value <= -least) else 'missed'} |"

    for what, test, kind, engines, times in [
        ("encoder, int8", "encode", "int8", peers, 2),
        ("encoder, bf16", "encode", "bf16", [e for e in peers if e in FLOATS], 1.3),
        ("decode, int8", "decode", "int8", [e for e in peers if e == "faster-whisper-int8"], 1.6),
        ("a minute, start to exit", "program", "int8", peers, 2),
    ]:
        if found := best(test, engines):
            yield row(what, f"at least {times} × {found[1]}", times, found[0] / mine(test, kind))
    yield row("beam 5", "at most 1.6 × a greedy step", -1.6, mine("decode beam5") / mine("decode"))
    yield row("8 windows", "at least 3 × the tokens/s of one", 3, 8 * mine("decode") / mine("decode x8"))
    yield row("spectrogram", "at most 5 ms", -5, mine("mel"), " ms")
    most = MOST_MEMORY[shape]
    yield row("memory", f"at most {most} MB", -most, mine("memory"), " MB")


def run(command, **options):
    subprocess.run([str(part) for part in command], check=True, **options)


if __name__ == "__main__":
    main()
