#!/usr/bin/env python3
"""Gathers what run.sh measured: curves.csv, two tables, and the pictures gold.svg and learned.svg.

usage: curves.py RUN… [--output FOLDER]

RUN: folders of run.sh, one for each seed; values are means over them. FOLDER: the first RUN by default. Python's standard library is enough.
"""

import argparse
import csv
import json
from math import sqrt
from pathlib import Path

# Folder in RUN: name, colour.
GOLD = {
    "offline-dro": ("DRO on a file", "#cc79a7"),
    "once-dro": ("DRO, one round", "#e69f00"),
    "dro": ("DRO in rounds", "#0072b2"),
    "grpo": ("GRPO", "#d55e00"),
}
LEARNED = {
    "learned-grpo": ("GRPO, learning rate 1e-3", "#d55e00"),
    "learned-dro": ("DRO in rounds", "#0072b2"),
}
INK, FAINT = "#24292f", "#c9ced4"
COLUMNS = ["seed", "run", "step", "tokens", "kl", "gold", "reward", "length", "cut"]


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def deviation(values):
    return sqrt(sum((v - mean(values)) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0


def interval(differences):
    """The mean and half the width of its 95 % interval."""
    return mean(differences), 1.96 * deviation(differences) / sqrt(len(differences))


def sampled_tokens(run):
    """Tokens that the policy had sampled before each step: a function of the step."""
    rounds = [(line["step"], line["rollout/tokens"]) for line in lines(run / "metrics.jsonl") if "round" in line]
    return lambda step: sum(tokens for begin, tokens in rounds if begin < step)


def measured(run, name):
    """The models of a run in the order of their steps, that which training started from first."""
    tokens = sampled_tokens(run / name)
    found = []
    for path in sorted((run / "eval").glob(f"{name}-[0-9]*.json")):
        step = int(path.stem.rsplit("-", 1)[1])
        data = json.loads(path.read_text())
        if not found:
            found.append({"step": 0, "tokens": 0, "kl": 0.0, "gold": data["baseline_reward"], "length": data["baseline_tokens"], "cut": 0.0,
                          "prompts": data["distributions"]["baseline_reward"]})
        model = {"step": step, "tokens": tokens(step), "kl": data["kl"]["exact"]["mean"], "gold": data["reward"], "length": data["tokens"],
                 "cut": data["truncated"], "prompts": [item["value"] for item in data["items"]]}
        judged = run / "eval" / "reward" / path.name
        if judged.exists():
            data = json.loads(judged.read_text())
            found[0]["reward"], model["reward"] = data["baseline_reward"], data["reward"]
        found.append(model)
    return found


def averaged(seeds):
    """The models of each step, averaged over the seeds."""
    numbers = [key for key in ("step", "tokens", "kl", "gold", "reward", "length", "cut") if key in seeds[0][-1]]
    return [{key: mean(model[key] for model in models) for key in numbers} for models in zip(*seeds, strict=True)]


def spread(values, digits=2):
    return f"{mean(values):.{digits}f} ± {deviation(values):.{digits}f}" if len(values) > 1 else f"{mean(values):.{digits}f}"


def by_prompt(seeds, at):
    """Each held-out prompt's gold quality, averaged over the seeds."""
    return [mean(values) for values in zip(*(models[at]["prompts"] for models in seeds), strict=True)]


def table(kinds, found, against):
    """The models at the end. ± of a value: deviation over the seeds; of a difference: 95 % over prompts."""
    learned = "reward" in next(iter(found.values()))[0][-1]
    head = ["", "sampled tokens", *(["learned reward"] if learned else []), "gold", "to SFT", f"{kinds[against][0]} less it", "KL, nats", "tokens", "cut"]
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    first = next(iter(found.values()))
    start = [spread([models[0][key] for models in first]) for key in (["reward"] if learned else []) + ["gold"]]
    out.append("| SFT | | " + " | ".join(start) + f" | | | 0 | {mean(models[0]['length'] for models in first):.1f} | |")
    best = by_prompt(found[against], -1)
    for name, seeds in found.items():
        ends = [models[-1] for models in seeds]
        mine, sft = by_prompt(seeds, -1), by_prompt(seeds, 0)
        to_sft = "{:+.2f} ± {:.2f}".format(*interval([a - b for a, b in zip(mine, sft, strict=True)]))
        less = "" if name == against else "{:+.2f} ± {:.2f}".format(*interval([a - b for a, b in zip(best, mine, strict=True)]))
        rewards = [spread([end["reward"] for end in ends])] if learned else []
        cells = [kinds[name][0], f"{mean(end['tokens'] for end in ends):,.0f}", *rewards, spread([end["gold"] for end in ends]), to_sft, less,
                 spread([end["kl"] for end in ends], 1), f"{mean(end['length'] for end in ends):.1f}", f"{100 * mean(end['cut'] for end in ends):.0f} %"]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out).replace("-", "−").replace("|−−−", "|---")


def warnings(run, name):
    """The warnings of a run, as it gave them."""
    return [line["message"] for line in lines(run / name / "history.jsonl") if line["event"] == "warned"]


class Picture:
    """Panels next to each other, each with its own axes."""

    WIDTH, HEIGHT, LEFT, TOP, GAP = 340, 270, 56, 64, 70

    def __init__(self, title, kinds):
        self.title, self.kinds, self.parts, self.panels = title, kinds, [], 0

    def panel(self, title, across, up, curves):
        """Draws a panel. `curves`: for each kind, the points of each seed and of their mean."""
        left = self.LEFT + self.panels * (self.WIDTH + self.GAP)
        self.panels += 1
        points = [point for seeds in curves.values() for seed in seeds for point in seed]
        (x0, x1, by_x), (y0, y1, by_y) = axis(p[0] for p in points), axis(p[1] for p in points)
        x = lambda value: left + self.WIDTH * (value - x0) / (x1 - x0)
        y = lambda value: self.TOP + self.HEIGHT * (y1 - value) / (y1 - y0)
        add = self.parts.append
        add(f'<text x="{left}" y="{self.TOP - 12}" font-weight="600">{title}</text>')
        for value in ticks(y0, y1, by_y):
            add(f'<line x1="{left}" x2="{left + self.WIDTH}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="{FAINT}" stroke-width="0.6"/>')
            add(f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end" font-size="12">{number(value)}</text>')
        for value in ticks(x0, x1, by_x):
            add(f'<text x="{x(value):.1f}" y="{self.TOP + self.HEIGHT + 18}" text-anchor="middle" font-size="12">{number(value)}</text>')
        add(f'<text x="{left + self.WIDTH / 2}" y="{self.TOP + self.HEIGHT + 38}" text-anchor="middle" font-size="13">{across}</text>')
        add(f'<text transform="translate({left - 40} {self.TOP + self.HEIGHT / 2}) rotate(-90)" text-anchor="middle" font-size="13">{up}</text>')
        for kind, seeds in curves.items():
            colour = self.kinds[kind][1]
            *each, whole = seeds
            for seed in each if len(each) > 1 else []:
                add(f'<polyline points="{path(seed, x, y)}" fill="none" stroke="{colour}" stroke-width="0.8" stroke-opacity="0.4"/>')
            add(f'<polyline points="{path(whole, x, y)}" fill="none" stroke="{colour}" stroke-width="2"/>')
            for across_at, up_at in whole[1:]:
                add(f'<circle cx="{x(across_at):.1f}" cy="{y(up_at):.1f}" r="3" fill="{colour}"/>')

    def write(self, file):
        width = self.LEFT + self.panels * (self.WIDTH + self.GAP) - self.GAP + 20
        height = self.TOP + self.HEIGHT + 52
        legend, at = [], self.LEFT
        for name, colour in self.kinds.values():
            legend.append(f'<circle cx="{at + 6}" cy="18" r="5" fill="{colour}"/><text x="{at + 16}" y="23" font-size="13">{name}</text>')
            at += 40 + 7 * len(name)
        head = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
                f'font-family="system-ui, sans-serif" font-size="15" fill="{INK}" role="img">',
                f"<title>{self.title}</title>", f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
        file.write_text("\n".join([*head, *legend, *self.parts, "</svg>"]) + "\n", encoding="utf-8")
        print(file)


def axis(values):
    """Ends of an axis and the distance of its marks."""
    values = list(values)
    low, high = min(values), max(values)
    space = max(high - low, 1e-9)
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if space / s <= 7)
    return step * (low // step), step * -(-high // step), step


def ticks(low, high, step):
    return [low + i * step for i in range(round((high - low) / step) + 1)]


def number(value):
    return f"{value:.1f}".removesuffix(".0").replace("-", "−")


def path(points, x, y):
    return " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)


def curves(found, across, up, scale=1.0):
    """The points of each seed and of their mean, for a picture."""
    points = lambda models: [(model[across] * scale, model[up]) for model in models]
    return {name: [*map(points, seeds), points(averaged(seeds))] for name, seeds in found.items()}


def gather(runs, kinds):
    """The models of each kind of run that is there, for each seed."""
    there = [name for name in kinds if all((run / name / "model").exists() for run in runs)]
    return {name: [measured(run, name) for run in runs] for name in there}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    arguments.add_argument("--output", type=Path, metavar="FOLDER")
    given = arguments.parse_args()
    output = given.output or given.runs[0]
    gold, learned = gather(given.runs, GOLD), gather(given.runs, LEARNED)
    with (output / "curves.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for name, seeds in {**gold, **learned}.items():
            for seed, models in enumerate(seeds):
                values = [[model.get(key, "") for key in COLUMNS[2:]] for model in models]
                rows.writerows([seed, name, *(f"{v:.5g}" if isinstance(v, float) else v for v in row)] for row in values)
    print(output / "curves.csv")

    picture = Picture("Gold quality of held-out answers, trained by the gold judge", {name: GOLD[name] for name in gold})
    picture.panel("Gold quality and distance", "KL from SFT, nats a response", "gold quality", curves(gold, "kl", "gold"))
    picture.panel("Gold quality and sampled tokens", "thousand tokens sampled by the policy", "gold quality", curves(gold, "tokens", "gold", 1e-3))
    picture.write(output / "gold.svg")
    print(f"\n{table(GOLD, gold, 'dro')}\n")

    picture = Picture("Learned reward and gold quality of held-out answers, trained by the learned reward", {name: LEARNED[name] for name in learned})
    picture.panel("The reward that is optimised", "KL from SFT, nats a response", "reward of the reward model", curves(learned, "kl", "reward"))
    picture.panel("What the answers are worth", "KL from SFT, nats a response", "gold quality", curves(learned, "kl", "gold"))
    picture.write(output / "learned.svg")
    print(f"\n{table(LEARNED, learned, 'learned-dro')}\n")
    for name in learned:
        for seed, run in enumerate(given.runs):
            for message in warnings(run, name):
                print(f"{LEARNED[name][0]}, seed {seed}: {message}")


if __name__ == "__main__":
    main()
