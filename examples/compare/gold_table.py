#!/usr/bin/env python3
"""The gold judge beside what `setpoint compare` measured.

usage: gold_table.py trials RUN     the trials of the report, a line each
       gold_table.py table RUN      a table, and gold.csv

± is the deviation over the seeds; intervals are 95 % over prompts (normal), each prompt's gold quality averaged over samples and seeds first.
"""

import csv
import json
import sys
from math import sqrt
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))
import gold  # noqa: E402


def by_prompt(path):
    """Mean gold quality of the answers to each prompt, and the share of all answers that are garbled."""
    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    judged = [[gold.judge(gold._text(row["prompt"]), gold._text(response)) for response in row["responses"]] for row in rows]
    answers = [kind for row in judged for kind, _ in row]
    return [sum(q for _, q in row) / len(row) for row in judged], answers.count("garbled") / len(answers)


def mean(values):
    return sum(values) / len(values)


def deviation(values):
    return sqrt(sum((v - mean(values)) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0


def interval(differences):
    return mean(differences), 1.96 * deviation(differences) / sqrt(len(differences))


def averaged(columns):
    """Prompt by prompt, the mean over the seeds."""
    return [mean(values) for values in zip(*columns, strict=True)]


def table(run):
    data = json.loads((run / "compare" / "compare.json").read_text())
    sft, sft_garbled = by_prompt(run / "gold" / "sft.jsonl")
    greedy_sft, _ = by_prompt(run / "gold" / "sft-greedy.jsonl")
    methods = {}
    for trial in data["report"]:
        if trial["figures"] is not None:
            methods.setdefault(trial["trial"].rsplit("-", 2)[0], []).append(trial["trial"])
    found = {}
    for name, names in methods.items():
        sampled = [by_prompt(run / "gold" / f"{trial}.jsonl") for trial in names]
        greedy = [by_prompt(run / "gold" / f"{trial}-greedy.jsonl")[0] for trial in names]
        found[name] = {"seeds": [mean(p) for p, _ in sampled], "garbled": mean([g for _, g in sampled]),
                       "prompts": averaged([p for p, _ in sampled]), "greedy_seeds": [mean(g) for g in greedy], "greedy": averaged(greedy)}
    reports = {method["method"]: method for method in data["methods"]}
    print("| method | settings | reward | win rate | KL | pair accuracy | chosen | rejected | gold, sampled | to SFT | DRO less it | garbled | gold, greedy | to SFT |")
    print("|" + "---|" * 14)
    print(f"| SFT | | {reports[next(iter(methods))]['figures']['baseline_reward']['mean']:.2f} | | | | | | {mean(sft):.2f} | | | {sft_garbled:.0%} | {mean(greedy_sft):.2f} | |")
    lines = []
    order = sorted(found, key=lambda name: -mean(found[name]["seeds"]))
    for name in order:
        mine, report = found[name], reports[name]
        figure = {key: (value["mean"], value["deviation"] or 0.0) for key, value in report["figures"].items()}
        shift, half = interval([a - b for a, b in zip(mine["prompts"], sft, strict=True)])
        greedy, greedy_half = interval([a - b for a, b in zip(mine["greedy"], greedy_sft, strict=True)])
        other, other_half = interval([a - b for a, b in zip(found["dro"]["prompts"], mine["prompts"], strict=True)])
        settings = ", ".join(f"{key.split('.')[1].replace('learning_rate', 'lr')} {value:.3g}" if isinstance(value, float) else f"{key.split('.')[1]} {value}" for key, value in report["settings"].items())
        spread = lambda key, digits=2: f"{figure[key][0]:.{digits}f} ± {figure[key][1]:.{digits}f}"  # noqa: E731
        against = "" if name == "dro" else f"{other:+.2f} ± {other_half:.2f}"
        print(f"| `{name}` | {settings} | {spread('reward')} | {figure['win_rate'][0]:.3f} | {spread('kl', 1)} | {spread('pair_accuracy', 3)} | {figure['chosen_log_ratio'][0]:+.2f} | "
              f"{figure['rejected_log_ratio'][0]:+.2f} | {mean(mine['seeds']):.2f} ± {deviation(mine['seeds']):.2f} | {shift:+.2f} ± {half:.2f} | {against} | {mine['garbled']:.0%} | "
              f"{mean(mine['greedy_seeds']):.2f} ± {deviation(mine['greedy_seeds']):.2f} | {greedy:+.2f} ± {greedy_half:.2f} |")
        lines.append([name, settings, *(f"{value:.5g}" for key in ("reward", "win_rate", "kl", "pair_accuracy", "chosen_log_ratio", "rejected_log_ratio", "tokens", "seconds") for value in figure[key]),
                      *(f"{v:.5g}" for v in (mean(mine["seeds"]), deviation(mine["seeds"]), shift, half, other, other_half, mine["garbled"], mean(mine["greedy_seeds"]), deviation(mine["greedy_seeds"]), greedy, greedy_half))])
    figures = [f"{key}{end}" for key in ("reward", "win_rate", "kl", "pair_accuracy", "chosen", "rejected", "tokens", "seconds") for end in ("", "_deviation")]
    header = ["method", "settings", *figures, "gold", "gold_deviation", "gold_to_sft", "half_width", "dro_less_it", "dro_half_width", "garbled", "greedy", "greedy_deviation", "greedy_to_sft", "greedy_half_width"]
    with (run / "gold.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *lines])


def main(arguments):
    match arguments:
        case ["trials", run]:
            for trial in json.loads((Path(run) / "compare" / "compare.json").read_text())["report"]:
                if trial["figures"] is not None:
                    print(trial["trial"])
        case ["table", run]:
            table(Path(run))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
