"""The figures as Markdown."""

import statistics

from rows import ANONYMOUS, BARS, GROUPS, LLAMA, OURS, key

TESTS = ["pp512", "pp128", "tg64", "tg64x8", "tg64@d4096", "first"]
# Megabytes: the most that was resident, mapped files included, and what was anonymous after loading.
MEMORY = ["resident", "anonymous"]


class Report:
    def __init__(self, results):
        self.rows, self.checks = results["rows"], results["checks"]

    def lines(self, heading):
        yield heading
        yield ""
        for shape in dict.fromkeys(group[0] for group in GROUPS):
            yield from self.table(shape)
        yield from self.bars()
        yield ""
        yield from self.same()

    def table(self, shape):
        members = [m for group in GROUPS if group[0] == shape for m in group[3]]
        members = [(engine, fmt) for engine, fmt in dict.fromkeys(members) if key(shape, fmt, engine) in self.rows]
        if not members:
            return
        order = list(dict.fromkeys(fmt for _, fmt in members))
        members.sort(key=lambda member: order.index(member[1]))
        tests = [t for t in TESTS if any(t in self.rows[key(shape, fmt, engine)] for engine, fmt in members)]
        yield f"| {shape} | engine | ISA | commit | {' | '.join(tests)} | resident MB | anonymous MB |"
        yield "|---|---|---|---|" + "--:|" * (len(tests) + 2)
        for engine, fmt in members:
            row = self.rows[key(shape, fmt, engine)]
            cells = [self.cell(shape, fmt, engine, name) for name in [*tests, *MEMORY]]
            yield f"| {fmt} | {engine} | {row['isa']} | {row['commit']} | {' | '.join(cells)} |"
        yield ""

    def cell(self, shape, fmt, engine, test):
        value, percent = self.median(shape, fmt, engine, test), self.median(shape, fmt, engine, test + " percent")
        if value is None:
            return ""
        digits = 3 if test == "first" else 0 if test in MEMORY or value >= 100 else 1
        return f"{value:.{digits}f}" + (f" ({percent:.0f} %)" if percent else "")

    def median(self, shape, fmt, engine, test):
        values = [v for v in self.rows.get(key(shape, fmt, engine), {}).get(test, []) if v is not None]
        return statistics.median(values) if values else None

    def bars(self):
        lines = [line for bar in BARS if (line := self.bar(*bar))]
        one, eight = (self.median("llama-1b", "int8", OURS, test) for test in ("tg64", "tg64x8"))
        if one and eight:
            measured = [(f"{eight / one:.2f} ×", eight >= 3 * one)]
            lines.append(("llama-1b", "tg64x8", "int8", ["3 × a single decode"], measured))
        for name, row in self.rows.items():
            shape, fmt, engine = name.split(" ", 2)
            if engine == OURS and row.get("anonymous"):
                most = max(row["anonymous"])
                lines.append((shape, "load", fmt, [f"at most {ANONYMOUS} MB anonymous"], [(f"{most:.0f} MB", most <= ANONYMOUS)]))
        if lines:
            yield "| shape | test | format | bar | measured | |"
            yield "|---|---|---|---|---|---|"
        for shape, test, fmt, bar, measured in lines:
            met = "met" if all(ok for _, ok in measured) else "missed"
            yield f"| {shape} | {test} | {fmt} | {', '.join(bar)} | {', '.join(text for text, _ in measured)} | {met} |"

    def bar(self, shape, test, fmt, peers, times, percent):
        ours = self.median(shape, fmt, OURS, test)
        if ours is None:
            return None
        found = [(self.median(shape, peer, LLAMA, test), peer) for peer in peers]
        found = [(value, peer) for value, peer in found if value]
        bar, measured = [], []
        if times and found:
            best = min(found) if test == "first" else max(found)
            ratio = best[0] / ours if test == "first" else ours / best[0]
            bar.append(f"{times} × llama.cpp {best[1]}")
            measured.append((f"{ratio:.2f} ×", ratio >= times))
        if percent:
            share = self.median(shape, fmt, OURS, test + " percent") or 0
            bar.append(f"{percent} % of peak")
            measured.append((f"{share:.0f} %", share >= percent))
        return (shape, test, fmt, bar, measured) if measured else None

    def same(self):
        if self.checks:
            worst = max(self.checks.items(), key=lambda check: check[1])
            yield (f"Both engines compute the same models: of the 100 likeliest tokens after 16, log-probabilities are "
                   f"{worst[1]:.3f} apart at most ({worst[0]}), over {len(self.checks)} files.")
