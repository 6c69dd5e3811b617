"""What is measured, who takes turns with whom, and what it is held against."""

from fnmatch import fnmatch

LLAMA, OURS, CANDLE = "llama.cpp", "candle-engine", "candle"
# The same program at the level of laptops without VNNI.
AVX2 = "candle-engine avx2"

SHORT = {"llama-1b": "1b", "smollm2-135m": "135m"}

# The number formats that only this engine has.
OWN = {"int8", "int4-g64"}


def both(*formats):
    return [(engine, fmt) for fmt in formats for engine in (LLAMA, OURS)]


# Shape, rounds, tests, members. In each round the members take turns, a process each: a drift of the machine's speed
# meets them alike.
GROUPS = [
    ("llama-1b", 5, ["pp512", "tg64"], [*both("q8_0"), (OURS, "int8")]),
    ("llama-1b", 5, ["pp512", "tg64"], [*both("q4_0", "q4_k_m"), (OURS, "int4-g64")]),
    ("llama-1b", 3, ["pp512", "tg64"], both("bf16", "f16")),
    ("llama-1b", 3, ["tg64x8"], [(LLAMA, "q8_0"), (LLAMA, "q4_0"), (LLAMA, "q4_k_m"), (OURS, "int8")]),
    ("llama-1b", 3, ["tg64@d4096"], [*both("q8_0"), (OURS, "int8"), *both("q4_0")]),
    ("llama-1b", 3, ["pp512", "tg64"], [(AVX2, "int8"), (AVX2, "q4_k_m")]),
    ("llama-1b", 1, ["pp512", "tg64"], [(CANDLE, "q8_0"), (CANDLE, "q4_k_m")]),
    ("smollm2-135m", 5, ["pp512", "pp128", "tg64", "first"], [*both("q8_0", "q4_0"), (OURS, "int8"), (OURS, "int4-g64")]),
    ("smollm2-135m", 5, ["pp512", "pp128", "tg64", "first"], both("bf16", "f16", "q4_k_m")),
    ("smollm2-135m", 3, ["pp512", "tg64"], [(AVX2, "int8"), (AVX2, "q4_k_m"), (AVX2, "bf16")]),
    ("smollm2-135m", 1, ["pp512", "tg64"], [(CANDLE, "q8_0"), (CANDLE, "q4_k_m")]),
]

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
    ("llama-1b", "tg64x8", "int8", EIGHT_BITS_OR_FEWER, 2.0, None),
    ("smollm2-135m", "pp512", "int8", ["bf16", "f16", *EIGHT_BITS_OR_FEWER], 3.0, None),
    ("smollm2-135m", "pp128", "int8", ["bf16", "f16", *EIGHT_BITS_OR_FEWER], 3.0, None),
    ("smollm2-135m", "tg64", "int8", ["q8_0"], 1.5, None),
    ("smollm2-135m", "tg64", "int4-g64", ["q4_0"], 1.5, None),
    ("smollm2-135m", "first", "int8", ["q8_0"], 2.0, None),
]
# Megabytes of anonymous memory after loading.
ANONYMOUS = 100


def key(shape, fmt, engine):
    return f"{shape} {fmt} {engine}"


def chosen(patterns):
    """The groups with those tests of which some row fits: all of a group's members are measured then."""
    known = [f"{test}-{fmt}-{SHORT[shape]}" for shape, _, tests, members in GROUPS for test in tests for _, fmt in members]
    for pattern in patterns:
        if not any(fnmatch(row, pattern) for row in known):
            raise ValueError(f"{pattern}: no such row; there are {', '.join(sorted(set(known)))}")
    for shape, rounds, tests, members in GROUPS:
        fits = lambda test: any(fnmatch(f"{test}-{fmt}-{SHORT[shape]}", p) for p in patterns for _, fmt in members)
        tests = [test for test in tests if fits(test)]
        if tests:
            yield shape, rounds, tests, members
