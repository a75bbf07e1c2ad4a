"""Draws benches/serve_hot.png from what the bench `serve_hot` found: `make bench-peers` does both.

    venv/bin/python benches/serve_hot.py serve_hot.json benches/serve_hot.png

A point is the CPU time that Larder takes for the same as a peer, divided by the peer's: the median of the rounds, with a line from the least to the most.
"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {
    "nginx": "tab:green",
    "varnish": "tab:blue",
    "trafficserver": "tab:purple",
    "caddy": "tab:cyan",
    "haproxy": "tab:orange",
    "h2o": "tab:brown",
}


def main(source, target):
    with open(source, encoding="utf-8") as file:
        found = json.load(file)
    lines = []
    for case in found["cases"]:
        ratios = {server["name"]: server["larderRatio"] for server in case["servers"] if server["larderRatio"]}
        if ratios:
            cipher = "" if case["cipher"] == "own" else ", AES-128"
            lines.append((f"{case['path']}, {case['size']}{cipher}", ratios))
    if not lines:
        print("no case with a peer, no plot")
        return
    figure, axes = plt.subplots(figsize=(9, 1.5 + 0.5 * len(lines)), dpi=110)
    axes.axvline(1, color="0.5", linewidth=1)
    named = set()
    for at, (_, ratios) in enumerate(lines):
        for place, (name, ratio) in enumerate(ratios.items()):
            # Peers of a case stand one below the other.
            y = at + 0.7 * ((place + 0.5) / len(ratios) - 0.5)
            around = [[ratio["median"] - ratio["min"]], [ratio["max"] - ratio["median"]]]
            label = None if name in named else name
            axes.errorbar(ratio["median"], y, xerr=around, color=COLOURS.get(name, "0.3"), marker="o", markersize=4, capsize=2, label=label)
            named.add(name)
    axes.set_yticks(range(len(lines)), [label for label, _ in lines])
    axes.invert_yaxis()
    axes.set_xscale("log", base=2)
    axes.set_xlabel("CPU time of Larder : of the peer, below 1 Larder takes less")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_title(f"Warm hits on one core, {found['rounds']} rounds a pair")
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    figure.tight_layout()
    figure.savefig(target)
    print(f"drawn: {target}")


if __name__ == "__main__":
    main(*sys.argv[1:])
