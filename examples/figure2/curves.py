#!/usr/bin/env python3
"""Gathers the metrics of a sweep over beta and log_z0: curves.csv, ends.csv and, with matplotlib, figure2.png.

usage: curves.py RUN, the folder that run.sh wrote.
"""

import csv
import json
import sys
from pathlib import Path

CURVES = ["rewards/chosen", "rewards/rejected", "logratios/chosen", "logratios/rejected", "loss"]


def trials(sweep):
    """The finished trials, each with its settings, its figures and a row a step."""
    for trial in json.loads((sweep / "sweep.json").read_text())["trials"]:
        if trial["figures"] is None:
            continue
        lines = (sweep / "trials" / trial["trial"] / "metrics.jsonl").read_text().splitlines()
        steps = [row for row in map(json.loads, lines) if "rewards/chosen" in row]
        settings = (trial["settings"]["align.beta"], trial["settings"].get("align.log_z0"))
        yield settings, trial["figures"], steps


def write(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    print(path)


def last(steps, name):
    """The mean of the last quarter of the steps: one batch is noisy."""
    tail = [row[name] for row in steps[-max(1, len(steps) // 4):]]
    return sum(tail) / len(tail)


def main(run):
    dro = sorted(trials(run / "sweep"), key=lambda trial: trial[0])
    dpo = list(trials(run / "dpo"))
    labelled = [("dro", trial) for trial in dro] + [("dpo", trial) for trial in dpo]
    write(run / "curves.csv", ["method", "beta", "log_z0", "step", *CURVES],
          [[name, *settings, row["step"], *(row.get(curve) for curve in CURVES)]
           for name, (settings, _, steps) in labelled for row in steps])
    ends = []
    for name, (settings, figures, steps) in labelled:
        chosen, rejected = last(steps, "rewards/chosen"), last(steps, "rewards/rejected")
        ends.append([name, *settings, chosen, rejected, chosen - rejected, figures["reward"], figures["win_rate"], figures["kl"]])
    write(run / "ends.csv", ["method", "beta", "log_z0", "chosen", "rejected", "gap", "reward", "win_rate", "kl"], ends)
    try:
        import matplotlib
    except ImportError:
        print("no matplotlib: no plot")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(20, 4.5))
    betas = sorted({settings[0] for settings, _, _ in dro})
    middle = betas[len(betas) // 2]
    for (beta, log_z0), _, steps in dro:
        if beta == middle:
            line, = axes[0].plot([row["step"] for row in steps], [row["rewards/chosen"] for row in steps], label=f"log_z0 {log_z0:g}")
            axes[0].plot([row["step"] for row in steps], [row["rewards/rejected"] for row in steps], ":", color=line.get_color())
    axes[0].set(title=f"(a) chosen and rejected (dotted) reward, beta {middle:g}", xlabel="step")
    titles = {"chosen": "(b) chosen reward at the end", "gap": "(c) reward gap at the end", "reward": "(d) reward of samples"}
    column = {"chosen": 3, "gap": 5, "reward": 6}
    for axis, (name, title) in zip(axes[1:], titles.items()):
        for beta in betas:
            mine = [row for row in ends if row[0] == "dro" and row[1] == beta]
            axis.plot([row[2] for row in mine], [row[column[name]] for row in mine], "o-", label=f"beta {beta:g}")
        for row in ends:
            if row[0] == "dpo":
                axis.axhline(row[column[name]], linestyle="--", label="DPO")
        axis.set(title=title, xlabel="log_z0")
    for axis in axes:
        axis.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(run / "figure2.png", dpi=120)
    print(run / "figure2.png")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
