"""Draws benches/overload.png from what the bench `control` prints.

    cargo run --release -p benches --bin control -- --json > control.json
    python3 -m venv venv && venv/bin/pip install matplotlib
    venv/bin/python benches/overload.py control.json benches/overload.png
"""

import json
import re
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FIGURE = re.compile(r"([\d.]+) × capacity: (\w+), (answered 503, of 10,000|99 % of all answers, from due)")
# The most urgent first.
PRIORITIES = ["playback", "resume", "catalogue", "search", "recommendations", "activity"]


def main(source, target):
    with open(source, encoding="utf-8") as file:
        figures = json.load(file)["figures"]
    shares, slowest = {}, {}
    for figure in figures:
        if found := FIGURE.fullmatch(figure["name"]):
            step, priority, what = found.groups()
            if what.startswith("answered"):
                shares.setdefault(priority, []).append((float(step), 100 - figure["value"] / 100))
            else:
                slowest.setdefault(priority, []).append((float(step), figure["value"]))
    plot, (above, below) = plt.subplots(2, sharex=True, figsize=(8, 7), dpi=110)
    for priority in PRIORITIES:
        width = 2.6 if priority == "playback" else 1.4
        above.plot(*zip(*shares[priority]), label=priority, linewidth=width, marker="o", markersize=4)
        below.plot(*zip(*slowest[priority]), label=priority, linewidth=width, marker="o", markersize=4)
    above.set_ylabel("answered well, %")
    above.legend(loc="center right")
    above.set_title("What control answers while more and more is asked for")
    below.set_ylabel("99 % of all answers within, ms")
    below.set_yscale("log")
    below.set_xlabel("asked for, times what control can do")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    plot.tight_layout()
    plot.savefig(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
