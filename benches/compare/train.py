#!/usr/bin/env python3
"""Training steps of small networks, side by side with PyTorch, JAX, candle-nn and burn: one run, the same numbers.

    benches/compare/train.py --cache /tmp/compare              # all: some ten minutes, after the first
    benches/compare/train.py --cache /tmp/compare --works w1,w2 --threads 2

The first run installs torch and jax from PyPI into a virtual environment of its own, and builds burn and candle-nn; both
stay in the cache. Every engine begins with the same weights and must end with the same loss. Each figure is from a
process of its own that is bound to as many CPUs as it has threads; the engines take turns, and what counts is the
median over the rounds. JAX compiles the whole loop and reads losses at its end; the others read each step's.
"""

import argparse
import json
import os
import statistics
import subprocess
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Steps of a round: half a second or so of the slower engines.
STEPS = {"w1": 2000, "w2": 500, "w3": 100, "w4": 200, "w4b1": 2000}
# What an engine makes more of in the same time.
QUICK = {"w1": 50000, "w2": 4000, "w3": 400, "w4": 1000, "w4b1": 20000}
FLOPS = {  # multiplications and additions of a step
    "w1": 2 * 64 * (2 * 2 * 32 + 3 * 32 * 32 + 3 * 32 * 2),
    "w2": 2 * 64 * (2 * 784 * 128 + 3 * 128 * 10),
    "w3": 2 * 128 * (2 * 784 * 512 + 3 * 512 * 256 + 3 * 256 * 10),
    "w4": 2 * 128 * (784 * 512 + 512 * 256 + 256 * 10),
}
OURS = "candle-engine"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for the environment and the peers' build")
    parser.add_argument("--works", default="w1,w2,w3,w4,w4b1")
    parser.add_argument("--engines", default="torch,jax,candle,burn", help="the peers")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", type=Path, help="one that has torch and jax [default: install them]")
    parser.add_argument("--bin", type=Path, help="folder of built programs [default: build them]")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    peers = args.engines.split(",")
    commands = programs(args, peers)
    results = {}
    for work in args.works.split(","):
        same_loss(work, commands, args.threads)
        for _ in range(args.rounds):
            for engine, command in commands.items():
                row = measure(command(work, STEPS[work] if engine != OURS else QUICK[work]), args.threads)
                results.setdefault((work, engine), []).append(row)
    print("\n".join(table(args, list(commands), results)))


def programs(args, peers):
    """For each engine what runs a work for some steps."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    if not args.bin:
        run(["cargo", "build", "--release", "-p", "candle-engine-benches", "--bin", "train_steps"], cwd=ROOT)
    ours = (args.bin or target / "release") / "train_steps"
    commands = {OURS: lambda work, steps: [ours, work, "--threads", str(args.threads), "--steps", str(steps)]}
    if {"torch", "jax"} & set(peers):
        python = args.python or environment(args.cache)
        script = HERE / "train_peer.py"
        for engine in [engine for engine in peers if engine in ("torch", "jax")]:
            commands[engine] = lambda work, steps, e=engine: [python, script, e, work, str(args.threads), str(steps)]
    if {"candle", "burn"} & set(peers):
        folder = args.cache / "train_peers"
        run(["cargo", "build", "--release", "--manifest-path", HERE / "train_peers" / "Cargo.toml", "--target-dir", folder])
        for engine in [engine for engine in peers if engine in ("candle", "burn")]:
            commands[engine] = lambda work, steps, e=engine: [folder / "release" / "train-peers", e, work, str(steps)]
    return commands


def environment(cache):
    python = cache / "train-venv" / "bin" / "python"
    probe = [python, "-c", "import torch, jax, numpy"]
    if not python.exists() or subprocess.run(probe, capture_output=True).returncode:
        venv.create(cache / "train-venv", with_pip=True)
        run([python, "-m", "pip", "install", "-q", "torch", "jax", "numpy"])
    return python


def same_loss(work, commands, threads):
    """Every engine's loss after some hundred steps agrees with ours."""
    losses = {engine: measure(command(work, 202), threads)["loss"] for engine, command in commands.items()}
    for engine, loss in losses.items():
        # A step more or less is between them.
        if abs(loss - losses[OURS]) > 0.02 * max(abs(losses[OURS]), 0.05):
            raise SystemExit(f"{work}: the losses differ: {losses}")


def measure(command, threads):
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    environ = dict(os.environ, OMP_NUM_THREADS=str(threads), RAYON_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    done = subprocess.run([str(part) for part in command], env=environ, capture_output=True, text=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def table(args, engines, results):
    works = args.works.split(",")
    median = lambda work, engine, what: statistics.median(row[what] for row in results[work, engine])
    yield f"{args.threads} thread{'s' if args.threads > 1 else ''}, medians of {args.rounds}; start to the first step in ms, peak memory in MB"
    yield ""
    yield "| | " + " | ".join(f"{work}, us a step | start | memory" for work in works) + " |"
    yield "|---|" + "--:|--:|--:|" * len(works)
    for engine in engines:
        cells = []
        for work in works:
            us = median(work, engine, "us_per_step")
            cells += [f"{us:.1f}" if us < 100 else f"{us:.0f}", f"{median(work, engine, 'first_step_ms'):.1f}",
                      f"{median(work, engine, 'peak_rss_bytes') / 1e6:.1f}"]
        yield f"| {engine} | " + " | ".join(cells) + " |"
    for work in works:
        ours = median(work, OURS, "us_per_step")
        peers = {engine: median(work, engine, "us_per_step") for engine in engines if engine != OURS}
        if not peers:
            continue
        best = min(peers, key=peers.get)
        rate = f", {FLOPS[work] / ours / 1e3:.0f} GFLOP/s" if work in FLOPS else ""
        torch = f", {peers['torch'] / ours:.1f} x torch" if "torch" in peers else ""
        yield f"\n{work}: {peers[best] / ours:.2f} x the best peer ({best}){torch}{rate}"


def run(command, **options):
    subprocess.run([str(part) for part in command], check=True, **options)


if __name__ == "__main__":
    main()
