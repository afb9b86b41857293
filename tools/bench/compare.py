#!/usr/bin/env python3
"""Runs weft-bench and its Go twin in turn and prints one table of medians, ratios and bars.

Per workload the two programs alternate, and the one that goes first alternates too, so that a
machine that drifts hits both. Calibration rows (what a context switch, a locked exchange, a futex
round trip and a page fault take) stand in between: nothing is asserted on absolute times. Exit
status: 0 all bars met, 1 a bar missed or a measurement failed, 2 usage.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from xml.sax.saxutils import escape

# Bars: the largest ratio weft / Go at procs 1 and 2.
RATIO = {
    "Yield": (0.20, 0.25),
    "Spawn": (0.22, 0.40),
    "SpawnJoin": (0.25, 0.30),
    "PingPong": (0.25, 0.40),
    "Stream0": (0.30, 0.50),
    "Stream128": (0.50, 0.60),
    "MPMC": (0.60, 0.70),
    "Select4": (0.40, 0.45),
    "SelectTimeout": (0.35, 0.35),
    "Skynet": (0.22, 0.22),
    "Ring": (0.25, 0.35),
    "Sieve": (0.30, 0.40),
    "Mutex1": (0.60, 0.60),
    "Mutex8": (1.00, 0.90),
    "RwRead": (0.60, 0.60),
    "CondPingPong": (0.35, 0.35),
    "ForkJoin": (0.30, 0.30),
    "OnceFast": (1.00, 1.00),
    "ContextCancel": (0.40, 0.50),
    "ErrGroup": (0.35, 0.35),
    "Semaphore8": (0.50, 0.50),
    "Sleepers": (0.33, 0.40),
    "StartPark": (1.10, 1.10),
    "TimerStop": (0.50, 0.50),
    "Fib": (0.20, 0.20),
    "Block50us": (None, 1.00),
    "Block200us": (None, 1.00),
    "Block900us": (None, 1.00),
}
# These may cost this much over weft's own ping-pong: with a timer pending, and in a scope that could be cancelled.
TO_PLAIN = {"PingPongTimer": 1.10, "ScopePingPong": 1.05}
# A parked goroutine may weigh this much: VmRSS + VmPTE with the default stack class.
PARKED_BAR = 5000

# Bars for weft alone, whatever Go does: the largest figure in this unit. One row each.
HOGS = {"ns/op": 1e6, "p99-ns": 4e6, "first-ns": 25e6}
LIMITS = {
    "Parked": {"bytes/G": PARKED_BAR},
    "ParkedCopyable": {"bytes/G": 900},
    "ParkedHibernated": {"bytes/G": 1300},
    "SleepersPeakCopyable": {"peak-bytes": 0.9e9},
    "SleepersPeakHibernated": {"peak-bytes": 1.2e9},
    "RandomWake": {"ns/op": 200},
    "RandomWakeCopyable": {"ns/op": 100},
    "RandomRing": {"ns/op": 200},
    "RandomRingCopyable": {"ns/op": 100},
    "Syscall": {"over-ns/op": 10},
    "BlockBeside": {"ns/op": 1300, "call-ns": 5e6},
    **{f"Hogs{kind}{k}": HOGS for kind in ("Loop", "Strlen", "Malloc", "Regex") for k in (1, 8)},
    "StopWorld": {"ns/op": 0.3e6, "p99-ns": 3e6},
    "FreezeWorld": {"ns/op": 0.3e6, "p99-ns": 3e6},
}
# What a row is called beside its workload, where there are several.
PART = {"ns/op": "p50", "p99-ns": "p99", "first-ns": "first", "call-ns": "call"}
PART_OF = {("BlockBeside", "ns/op"): "wall"}
CALIBRATE_EVERY = 5  # workloads
CALIBRATIONS = {
    "CalibSwitch": "context switch pair",
    "CalibXchg": "locked exchange",
    "CalibFutex": "futex pair",
    "CalibFault": "page fault",
    "CalibColdRead": "cold read",
}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        fail(message)


def fail(message):
    print(f"compare.sh: {message}", file=sys.stderr)
    sys.exit(2)


def parse_args():
    p = Parser(prog="compare.sh", description=__doc__.split("\n")[0])
    p.add_argument("--run", default="", metavar="REGEX", help="compare the workloads that match")
    p.add_argument("--count", type=int, default=5, metavar="K", help="rounds; default 5")
    p.add_argument("--procs", default="1,2", metavar="LIST", help="processors; default 1,2")
    p.add_argument("--benchtime", default="300ms", metavar="TIME",
                   help="least time of one measurement; default 300ms")
    p.add_argument("--seed", type=int, default=1, metavar="N", help="of the random numbers")
    p.add_argument("--svg", metavar="FILE", help="plot the ratios")
    p.add_argument("--json", metavar="FILE", help="write every measurement")
    p.add_argument("--from", dest="source", metavar="FILE",
                   help="measure nothing: table and plot of what --json wrote")
    p.add_argument("--weft", default="", help=argparse.SUPPRESS)
    p.add_argument("--go", default="", help=argparse.SUPPRESS)
    p.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    args = p.parse_args()
    try:
        re.compile(args.run)
    except re.error as e:
        fail(f"--run: {e}")
    if args.count < 1:
        fail(f"--count: {args.count} is not positive")
    if args.seed < 0:
        fail(f"--seed: {args.seed} is negative")
    if not re.fullmatch(r"[0-9.]+(ns|us|ms|s|m)", args.benchtime):
        fail(f"--benchtime: {args.benchtime!r} is no duration such as 300ms or 1s")
    try:
        args.procs = [int(p) for p in args.procs.split(",")]
    except ValueError:
        fail(f"--procs: {args.procs!r} is no list of numbers")
    if not all(1 <= p <= 1024 for p in args.procs):
        fail("--procs: from 1 to 1024")
    return args


def open_for_writing(path, flag):
    try:
        return open(path, "w", encoding="utf-8") if path else None
    except OSError as e:
        fail(f"{flag}: {path}: {e.strerror}")


class Progress:
    """One line on a terminal that says what is being measured."""

    def __init__(self):
        self.on = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def show(self, text):
        if self.on:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()


def measure(program, args):
    """Runs a benchmark program; its rows as {name: {unit: value}}, and its header lines."""
    done = subprocess.run([program, *args], stdout=subprocess.PIPE, text=True, check=False)
    rows, header = {}, {}
    for line in done.stdout.splitlines():
        if line.startswith("Benchmark"):
            name, _, *figures = line.split()
            name = name.removeprefix("Benchmark").partition("-")[0]
            rows[name] = {unit: float(v) for v, unit in zip(figures[::2], figures[1::2])}
        elif ": " in line:
            key, _, value = line.partition(": ")
            header[key] = value
    return rows, header


def units_of(name):
    """The figures of a workload that count."""
    return list(LIMITS.get(name, {"ns/op": None}))


def amount(value, unit):
    """Three or four digits and a unit that fits."""
    if unit == "bytes/G":
        return f"{value:.0f} B"
    for scale, name in ((1e9, "s"), (1e6, "ms"), (1e4, "us")):
        if value >= scale:
            value, unit = value / (1e3 if name == "us" else scale), name
            break
    else:
        unit = "ns"
    return f"{value:.{1 if value < 1000 else 0}f} {unit}"


class Row:
    """What was measured for one workload at one number of procs."""

    def __init__(self, name, procs, unit, weft, go, plain=()):
        self.name, self.procs, self.unit, self.weft, self.go = name, procs, unit, weft, go
        self.plain = plain  # of TO_PLAIN: weft's PingPong in the same rounds

    def label(self):
        part = PART_OF.get((self.name, self.unit), PART.get(self.unit))
        return f"{self.name} {part}" if len(LIMITS.get(self.name, ())) > 1 else self.name

    def failed(self):
        return not self.weft or not self.go

    def medians(self):
        return statistics.median(self.weft), statistics.median(self.go)

    def ratio(self):
        weft, go = self.medians()
        return weft / go

    def verdict(self):
        """(text of the bar, met: True, False or None where there is none)."""
        if self.failed():
            return "measurement failed", False
        if self.name in LIMITS:
            limit = LIMITS[self.name][self.unit]
            return amount(limit, self.unit), self.medians()[0] <= limit
        if self.name in TO_PLAIN:
            bar, to_plain = TO_PLAIN[self.name], self.medians()[0] / statistics.median(self.plain)
            return f"{bar:.2f} to PingPong (is {to_plain:.2f})", to_plain <= bar
        if self.name not in RATIO or self.procs not in (1, 2):
            return "", None
        bar = RATIO[self.name][self.procs - 1]
        return (f"{bar:.2f}", self.ratio() <= bar) if bar else ("", None)

    def bar_ratio(self):
        """The bar as a ratio to Go, for the plot."""
        if self.name in LIMITS:
            return LIMITS[self.name][self.unit] / self.medians()[1]
        if self.name in RATIO and self.procs in (1, 2):
            return RATIO[self.name][self.procs - 1]
        return None


def print_head(procs):
    print(f"\n{'procs ' + str(procs):<16}{'weft':>12}{'Go':>12}{'ratio':>8}  bar")


def print_row(row):
    text, met = row.verdict()
    state = {True: "met", False: "MISSED", None: ""}[met]
    if row.failed():
        print(f"{row.label():<16}{'-':>12}{'-':>12}{'-':>8}  {text}", flush=True)
        return
    weft, go = row.medians()
    print(f"{row.label():<16}{amount(weft, row.unit):>12}{amount(go, row.unit):>12}{row.ratio():>8.2f}"
          f"  {text} {state}".rstrip(), flush=True)


def print_calibration(rows):
    figures = ", ".join(f"{label} {amount(rows[name]['ns/op'], 'ns/op')}"
                        for name, label in CALIBRATIONS.items() if name in rows)
    print(f"  calibration: {figures}", flush=True)


def print_table(rows, calibrations):
    """The table of a finished run; calibrations: (procs, number of rows before it, figures)."""
    for procs in dict.fromkeys(r.procs for r in rows):
        print_head(procs)
        mine = [r for r in rows if r.procs == procs]
        for i in range(len(mine) + 1):
            for at_procs, before, figures in calibrations:
                if at_procs == procs and before == i:
                    print_calibration(figures)
            if i < len(mine):
                print_row(mine[i])


def summary(rows):
    """Prints the one-line verdict and returns the exit status."""
    met, missed = 0, []
    for row in rows:
        _, good = row.verdict()
        if good:
            met += 1
        elif good is False:
            missed.append(row.label() if row.procs == 1 else f"{row.label()}-{row.procs}")
    text = f"{met} of {met + len(missed)} bars met"
    print("\n" + (f"{text}; missed: {', '.join(missed)}" if missed else text))
    return 1 if missed else 0


def compare(args):
    listing = subprocess.run([args.weft, "--list"], stdout=subprocess.PIPE, text=True, check=True)
    names = [n for n in listing.stdout.split() if re.search(args.run, n)]
    if not names:
        fail(f"--run: no workload matches {args.run!r}")
    progress = Progress()
    common = ["--benchtime", args.benchtime, "--seed", str(args.seed)]
    calibration_args = ["--calibrate", "--benchtime", "50ms"]
    go_version = subprocess.run([args.go, "--version"], stdout=subprocess.PIPE, text=True,
                                check=True).stdout.strip()
    _, header = measure(args.weft, calibration_args + ["--run", "Xchg"])
    machine = f"{header.get('cpu', 'unknown CPU')}, {os.cpu_count()} CPUs"
    print(f"{machine}, {go_version}, median of {args.count}, "
          f"--benchtime {args.benchtime} --seed {args.seed}")

    rows, calibrations = [], []

    def calibrate(procs, before):
        progress.show("calibration")
        figures, _ = measure(args.weft, calibration_args)
        progress.show("")
        calibrations.append((procs, before, figures))
        print_calibration(figures)

    for procs in args.procs:
        print_head(procs)
        for at, name in enumerate(names):
            if at % CALIBRATE_EVERY == 0:
                calibrate(procs, sum(r.procs == procs for r in rows))
            units = units_of(name)
            figures = {unit: {"weft": [], "go": [], "plain": []} for unit in units}
            sides = [("weft", args.weft, name), ("go", args.go, name)]
            if name in TO_PLAIN:
                sides.append(("plain", args.weft, "PingPong"))
            complete = True
            for k in range(args.count):
                for side, program, workload in sides if k % 2 == 0 else reversed(sides):
                    progress.show(f"procs {procs}  {name}  round {k + 1} of {args.count}  {side}")
                    got, _ = measure(program,
                                     ["--run", f"^{workload}$", "--procs", str(procs)] + common)
                    progress.show("")
                    for unit in units:
                        if workload in got:
                            figures[unit][side].append(got[workload][unit])
                        else:
                            complete = False
            for unit in units:
                # A median of what happened to work would hide what did not.
                rows.append(Row(name, procs, unit, **(figures[unit] if complete else {"weft": [], "go": []})))
                print_row(rows[-1])
        calibrate(procs, sum(r.procs == procs for r in rows))
    return {"machine": machine, "go": go_version, "count": args.count}, rows, calibrations


# --- plot ---

INK, FAINT, GRID = "#1f2328", "#59636e", "#d1d9e0"
FILL = ("#0969da", "#80ccff", "#54aeff", "#b6e3ff")
LEFT, WIDTH, TOP, BAR, GAP = 130, 560, 78, 11, 9


def svg(about, rows):
    """Horizontal bars: weft's figure over Go's, one per number of procs, a tick at each target."""
    # What has a limit of its own may be far from Go on either side: it would hide all others.
    rows = [r for r in rows if not r.failed() and (r.name not in LIMITS or r.name == "Parked")]
    procs = list(dict.fromkeys(r.procs for r in rows))
    names = list(dict.fromkeys(r.label() for r in rows))
    top_ratio = max([1.2] + [r.ratio() + 0.15 for r in rows] +
                    [(r.bar_ratio() or 0) + 0.05 for r in rows])
    group = BAR * len(procs) + GAP
    height = TOP + group * len(names) + 40

    def x(ratio):
        return LEFT + ratio / top_ratio * WIDTH

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 30}" height="{height}" '
           f'viewBox="0 0 {LEFT + WIDTH + 30} {height}" font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="#ffffff"/>',
           f'<text x="16" y="24" font-size="15" font-weight="bold" fill="{INK}">'
           'weft to Go: time per operation (Parked: bytes); Go is 1, shorter is less</text>',
           f'<text x="16" y="42" fill="{FAINT}">{escape(about["machine"])}, {escape(about["go"])}, '
           f'median of {about["count"]} alternating runs</text>']
    for i, p in enumerate(procs):
        out.append(f'<rect x="{16 + i * 80}" y="52" width="11" height="11" '
                   f'fill="{FILL[i % len(FILL)]}"/>'
                   f'<text x="{32 + i * 80}" y="62" fill="{INK}">procs {p}</text>')
    out.append(f'<path d="M{22 + len(procs) * 80} 51v13" stroke="{INK}" stroke-width="2"/>'
               f'<text x="{32 + len(procs) * 80}" y="62" fill="{INK}">bar to reach</text>')
    bottom = TOP + group * len(names)
    step = 0.2 if top_ratio <= 2.4 else 0.5
    for k in range(int(top_ratio / step) + 1):
        strong = abs(k * step - 1) < 1e-9
        out.append(f'<path d="M{x(k * step):.1f} {TOP - 4}V{bottom}" '
                   f'stroke="{INK if strong else GRID}" stroke-width="{1.5 if strong else 1}"/>'
                   f'<text x="{x(k * step):.1f}" y="{bottom + 16}" text-anchor="middle" '
                   f'fill="{FAINT}">{k * step:.1f}</text>')
    for at, name in enumerate(names):
        y = TOP + at * group
        mine = {r.procs: r for r in rows if r.label() == name}
        out.append(f'<text x="{LEFT - 8}" y="{y + BAR * len(procs) / 2 + 4:.1f}" text-anchor="end" '
                   f'fill="{INK}">{escape(name)}</text>')
        for i, p in enumerate(procs):
            if p not in mine:
                continue
            row, top = mine[p], y + i * BAR
            out.append(f'<rect x="{LEFT}" y="{top}" width="{max(x(row.ratio()) - LEFT, 1):.1f}" '
                       f'height="{BAR - 1}" fill="{FILL[i % len(FILL)]}"/>')
            bar, text_x = row.bar_ratio(), x(row.ratio())
            if bar is not None:
                out.append(f'<path d="M{x(bar):.1f} {top - 0.5}v{BAR}" stroke="{INK}" '
                           f'stroke-width="2"/>')
                if 0 <= x(bar) - text_x < 32:
                    text_x = x(bar)
            out.append(f'<text x="{text_x + 4:.1f}" y="{top + BAR - 2}" font-size="10" '
                       f'fill="{INK}" stroke="#ffffff" stroke-width="3" paint-order="stroke">'
                       f'{row.ratio():.2f}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def load(path):
    try:
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
        rows = [Row(r["name"], r["procs"], r["unit"], r["weft"], r["go"], r["plain"]) for r in data["rows"]]
        return data["about"], rows, data["calibrations"]
    except OSError as e:
        fail(f"--from: {path}: {e.strerror}")
    except (ValueError, KeyError, TypeError):
        fail(f"--from: {path} is not what --json writes")


def main():
    args = parse_args()
    if args.check:
        return 0
    svg_file = open_for_writing(args.svg, "--svg")
    json_file = open_for_writing(args.json, "--json")
    if args.source:
        about, rows, calibrations = load(args.source)
        rows = [r for r in rows if re.search(args.run, r.name) and r.procs in args.procs]
        print(f"{about['machine']}, {about['go']}, median of {about['count']}")
        print_table(rows, calibrations if not args.run else [])
    else:
        about, rows, calibrations = compare(args)
    if json_file:
        with json_file:
            json.dump({"about": about, "calibrations": calibrations,
                       "rows": [{"name": r.name, "procs": r.procs, "unit": r.unit, "weft": r.weft,
                                 "go": r.go, "plain": r.plain} for r in rows]}, json_file, indent=1)
            json_file.write("\n")
    if svg_file:
        with svg_file:
            svg_file.write(svg(about, rows))
    return summary(rows)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
