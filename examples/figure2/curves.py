#!/usr/bin/env python3
"""Gathers the sweep over beta and log_z0: curves.csv, ends.csv, fits.csv, a table, and with matplotlib figure2.svg.

usage: curves.py RUN, the folder that run.sh wrote.

All chosen and rejected figures are of held-out pairs whose labels are gold, at the end of training but for the curves; levels and gaps are
log-ratios in nats, rewards are beta times as much, as in the paper's figure.
"""

import csv
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))
import gold  # noqa: E402

CURVES = ["step", "eval_loss", "eval_logratios/chosen", "eval_logratios/rejected", "eval_dro/prompt_logratio"]
ENDS = ["method", "beta", "log_z0", "infeasible", "chosen", "rejected", "level", "level_target", "gap", "gap_target", "prompt", "accuracy",
        "train_gap", "win_rate", "reward", "kl", "gold", "gold_greedy", "garbled"]


def rows(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def gold_of(path):
    """Mean gold quality of answers and the share of garbled ones."""
    judged = [gold.judge(gold._text(row["prompt"]), gold._text(response)) for row in rows(path) for response in row["responses"]]
    return mean(quality for _, quality in judged), mean(kind == "garbled" for kind, _ in judged)


def trials(folder):
    """The finished trials of a sweep: name, settings, figures, metrics."""
    for trial in json.loads((folder / "sweep.json").read_text())["trials"]:
        if trial["figures"] is not None:
            path = folder / "trials" / trial["trial"]
            yield trial["trial"], trial["settings"], trial["figures"], rows(path / "metrics.jsonl")


def infeasible(run, beta):
    """The audit's account of the training prompts for a beta: by log_z0, the share that asks for more probability than there is."""
    from math import exp, log
    annotated = rows(run / "rewards.jsonl")
    needed, seen = {}, set()
    for line in rows(run / "sft-logps.jsonl"):
        row = annotated[line["row"]]
        key = (json.dumps(row["prompt"]), row["responses"][line["response"]] if isinstance(row["responses"][0], str) else json.dumps(row["responses"][line["response"]]))
        if key not in seen:
            seen.add(key)
            needed.setdefault(key[0], []).append(line["response_logp"] + row["rewards"][line["response"]] / beta)
    def total(logs):
        top = max(logs)
        return top + log(sum(exp(x - top) for x in logs))
    totals = [total(logs) for logs in needed.values()]
    return lambda log_z0: mean(x > log_z0 for x in totals)


def slope(points):
    """Least squares of y on x, and R squared."""
    x, y = mean(p[0] for p in points), mean(p[1] for p in points)
    xx = sum((p[0] - x) ** 2 for p in points)
    xy = sum((p[0] - x) * (p[1] - y) for p in points)
    yy = sum((p[1] - y) ** 2 for p in points)
    return xy / xx, xy * xy / (xx * yy) if yy else 1.0


def write(path, header, lines):
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *([f"{v:.5g}" if isinstance(v, float) else v for v in line] for line in lines)])
    print(path)


def gather(run):
    pairs = rows(run / "report-pairs.jsonl")
    side = {name: mean(row["rewards"][row["labels"].index(name)] for row in pairs) for name in ("chosen", "rejected")}
    curves, ends = [], []
    # `long`: three of the settings with five times the steps.
    for method, folder in (("dro", "sweep"), ("long", "long"), ("dpo", "dpo")):
        for name, settings, figures, metrics in trials(run / folder):
            beta, log_z0 = settings["align.beta"], settings.get("align.log_z0")
            evals = [row for row in metrics if "eval_loss" in row]
            steps = [row for row in metrics if "logratios/chosen" in row]
            curves += [[method, beta, log_z0, *(row.get(curve) for curve in CURVES)] for row in evals]
            end = {"method": method, "beta": beta, "log_z0": log_z0, **{k: figures[k] for k in ("win_rate", "reward", "kl")}}
            end["chosen"], end["rejected"] = figures["chosen_log_ratio"], figures["rejected_log_ratio"]
            end["accuracy"] = figures["pair_accuracy"]
            end["level"], end["gap"] = (end["chosen"] + end["rejected"]) / 2, end["chosen"] - end["rejected"]
            tail = steps[-10:]  # the training batches of the last half epoch
            end["train_gap"] = mean(row["logratios/chosen"] - row["logratios/rejected"] for row in tail)
            if method != "dpo":
                end["infeasible"] = infeasible(run, beta)(log_z0)
                end["prompt"] = evals[-1]["eval_dro/prompt_logratio"]
                end["level_target"] = (side["chosen"] + side["rejected"]) / 2 / beta - log_z0
                end["gap_target"] = (side["chosen"] - side["rejected"]) / beta
            end["gold"], end["garbled"] = gold_of(run / "gold" / f"{method}-{name}.jsonl")
            end["gold_greedy"], _ = gold_of(run / "gold" / f"{method}-{name}-greedy.jsonl")
            ends.append(end)
    ends.sort(key=lambda end: (end["method"], end["beta"], end["log_z0"] or 0.0))
    return curves, ends


def fits(ends):
    """How the ends of each beta hang on log_z0, over all of it and where at most 5 % of the training prompts are infeasible."""
    for beta in sorted({end["beta"] for end in ends if end["method"] == "dro"}):
        mine = [end for end in ends if end["method"] == "dro" and end["beta"] == beta]
        for which, some in (("all", mine), ("feasible", [end for end in mine if end["infeasible"] <= 0.05])):
            if len(some) < 2:
                continue
            by_log_z0, r2 = slope([(end["log_z0"], end["level"]) for end in some])
            by_log_z, r2_prompt = slope([(end["log_z0"] + end["prompt"], end["level"]) for end in some])
            gaps = [end["gap"] for end in some]
            yield [beta, which, len(some), by_log_z0, r2, by_log_z, r2_prompt, beta * by_log_z0, mean(gaps), min(gaps), max(gaps), some[0]["gap_target"]]


def plot(run, curves, ends):
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "setpoint"})
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7))
    axes = list(axes.flat)
    dro = [end for end in ends if end["method"] == "dro"]
    dpo = [end for end in ends if end["method"] == "dpo"]
    betas = sorted({end["beta"] for end in dro})
    shown = 0.5
    for log_z0 in sorted({end["log_z0"] for end in dro}):
        mine = [row for row in curves if row[0] == "dro" and row[1] == shown and row[2] == log_z0]
        line, = axes[0].plot([row[3] for row in mine], [shown * row[5] for row in mine], label=f"log_z0 {log_z0:g}")
        axes[0].plot([row[3] for row in mine], [shown * row[6] for row in mine], ":", color=line.get_color())
    axes[0].set(title=f"(a) chosen and rejected (dotted) reward, β {shown:g}", xlabel="step", ylabel="β · log-ratio")
    panels = [("(b) chosen reward at the end", "β · log-ratio", lambda e: e["beta"] * e["chosen"]),
              ("(c) gap of the log-ratios at the end", "nats", lambda e: e["gap"]),
              ("(d) gold quality of samples", "gold quality", lambda e: e["gold"])]
    for axis, (title, label, value) in zip(axes[1:], panels):
        for beta in betas:
            mine = [end for end in dro if end["beta"] == beta]
            line, = axis.plot([end["log_z0"] for end in mine], [value(end) for end in mine], "-", label=f"β {beta:g}")
            for end in mine:
                axis.plot(end["log_z0"], value(end), "o", color=line.get_color(), fillstyle="full" if end["infeasible"] <= 0.05 else "none")
        for end in dpo:
            axis.axhline(value(end), linestyle="--", color="tab:blue", label=f"DPO, β {end['beta']:g}")
        axis.set(title=title, xlabel="log_z0", ylabel=label)
    sft = run / "gold" / "sft.jsonl"
    axes[3].axhline(gold_of(sft)[0], linestyle=":", color="grey", label="SFT")
    for axis in axes:
        axis.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(run / "figure2.svg", metadata={"Date": None})
    print(run / "figure2.svg")


def main(run):
    curves, ends = gather(run)
    write(run / "curves.csv", ["method", "beta", "log_z0", *CURVES], curves)
    write(run / "ends.csv", ENDS, [[end.get(name) for name in ENDS] for end in ends])
    write(run / "fits.csv", ["beta", "points", "n", "level_by_log_z0", "r2", "level_by_log_z", "r2_log_z", "reward_by_log_z0", "gap_mean", "gap_min", "gap_max", "gap_target"], list(fits(ends)))
    for end in ends:
        print("  ".join(f"{name} {end[name]:.3g}" if isinstance(end.get(name), float) else f"{name} {end.get(name)}" for name in ENDS))
    for name in ("sft", "sft-greedy"):
        print(name, "gold %.3f, garbled %.3f" % gold_of(run / "gold" / f"{name}.jsonl"))
    try:
        import matplotlib
    except ImportError:
        print("no matplotlib: no plot")
        return
    matplotlib.use("Agg")
    plot(run, curves, ends)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
