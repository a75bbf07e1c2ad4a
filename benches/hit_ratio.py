"""Draws benches/hit_ratio.png from what `larder replay --compare --json` prints.

    larder replay TRACE --compare --json --sizes 1GiB,2GiB,5GiB,10GiB,20GiB,30GiB,40GiB,60GiB,80GiB,100GiB,120GiB,160GiB > hit_ratio.json
    python3 -m venv venv && venv/bin/pip install matplotlib
    venv/bin/python benches/hit_ratio.py hit_ratio.json benches/hit_ratio.png
"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# What the command calls a policy, what the plot calls it, and its line.
LINES = [
    ("farthest", "knows the future", dict(color="0.6", linestyle="--")),
    ("ssd", "Larder's SSD tier", dict(color="tab:red", linewidth=2.4, marker="o")),
    ("ram", "Larder's RAM tier (S3-FIFO, small queue 0.25)", dict(color="tab:orange", linewidth=1.6)),
    ("lru", "LRU", dict(color="tab:blue")),
    ("fifo", "FIFO", dict(color="tab:cyan")),
    ("s3fifo", "S3-FIFO (small queue 0.1)", dict(color="tab:green")),
    ("sieve", "SIEVE", dict(color="tab:purple")),
    ("lfu", "W-TinyLFU", dict(color="tab:brown")),
]


def main(source, target):
    with open(source, encoding="utf-8") as file:
        compared = json.load(file)
    sizes = [size["size"] / 2**30 for size in compared["sizes"]]
    figure, axes = plt.subplots(figsize=(9, 6), dpi=110)
    ceiling = 100 * (1 - compared["firstBytes"] / compared["bytes"])
    axes.axhline(ceiling, color="0.8", linewidth=1)
    axes.text(sizes[0], ceiling + 0.3, f"{ceiling:.1f} %: all but first requests", color="0.4")
    for policy, label, line in LINES:
        ratios = [
            100 * next(standing["byteHitRatio"] for standing in size["policies"] if standing["policy"] == policy)
            for size in compared["sizes"]
        ]
        axes.plot(sizes, ratios, label=label, **line)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.set_xlabel("size in GiB, one tier")
    axes.set_ylabel("byte hit ratio in %")
    axes.set_title(f"{compared['requests']:,} requests for {compared['bytes'] / 1e9:,.0f} GB of video")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
