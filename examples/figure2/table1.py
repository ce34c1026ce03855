#!/usr/bin/env python3
"""Table 1 from what table1.sh has trained: loss at the end of training and accuracy on held-out pairs.

usage: table1.py table OUT                       the table, and table1.csv
       table1.py best OUT                        the name of DPO's run on all pairs whose learning rate was selected
       table1.py implicit ROWS DPO SFT OUTPUT    ROWS with DPO's implicit reward, beta 0.1, of each response
"""

import csv
import json
import sys
from math import sqrt
from pathlib import Path

BETA = 0.1
RATES = ("2e-4", "5e-4")


def rows(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def log_ratios(policy, reference):
    """By (row, response): the log-ratio of the response."""
    pairs = zip(rows(policy), rows(reference), strict=True)
    return {(p["row"], p["response"]): p["response_logp"] - r["response_logp"] for p, r in pairs if (p["row"], p["response"]) == (r["row"], r["response"])}


def accuracy(out, name, part):
    """Share of the pairs of a part whose chosen response has the greater reward, and how many pairs there are."""
    path = out / f"{name}-{part}.jsonl"
    if name.startswith("dpo"):
        ratios = log_ratios(path, out / f"sft-{part}.jsonl")
        margins = [ratios[row, 0] - ratios[row, 1] for row, response in ratios if response == 0]
    else:
        margins = [row["rewards"][row["labels"].index("chosen")] - row["rewards"][row["labels"].index("rejected")] for row in rows(path)]
    return sum((m > 0) + 0.5 * (m == 0) for m in margins) / len(margins), len(margins)


def final_loss(out, name):
    """The mean loss of the last ten steps."""
    losses = [row["loss"] for row in rows(out / name / "metrics.jsonl") if "loss" in row]
    return sum(losses[-10:]) / 10


def selected(out, kind, size):
    """The run whose learning rate is best on the pairs that settings are selected on."""
    return max((f"{kind}-{size}-{rate}" for rate in RATES), key=lambda name: accuracy(out, name, "select")[0])


def table(out):
    titles = {"base": "RM-Base", "sft": "RM-SFT", "dpo": "DPO-Implicit"}
    lines = []
    print("| model | pairs | learning rate (selected) | loss at the end | selection pairs | report pairs | ± |\n|---|---|---|---|---|---|---|")
    for kind, title in titles.items():
        for size in ("small", "large"):
            for rate in RATES:
                name = f"{kind}-{size}-{rate}"
                select, (report, n) = accuracy(out, name, "select")[0], accuracy(out, name, "report")
                best = name == selected(out, kind, size)
                lines.append([title, size, rate, int(best), final_loss(out, name), select, report])
                if best:
                    print(f"| {title} | {size} | {rate} | {lines[-1][4]:.4f} | {select:.3f} | {report:.3f} | {sqrt(report * (1 - report) / n):.3f} |")
    with (out / "table1.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["model", "pairs", "learning_rate", "selected", "loss", "select_accuracy", "report_accuracy"], *lines])


def implicit(source, policy, reference, output):
    ratios = log_ratios(policy, reference)
    with open(output, "w", encoding="utf-8", newline="\n") as file:
        for number, row in enumerate(rows(source)):
            row["rewards"] = [BETA * ratios[number, j] for j in range(len(row["responses"]))]
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def main(arguments):
    match arguments:
        case ["table", out]:
            table(Path(out))
        case ["best", out]:
            print(selected(Path(out), "dpo", "large"))
        case ["implicit", source, policy, reference, output]:
            implicit(source, policy, reference, output)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
