#!/usr/bin/env python3
"""Reward, gold quality and KL of each round of some runs, on the answers that the policy sampled and was trained on: a table and a picture.

usage: rounds.py OUTPUT.svg NAME=RUN…
"""

import json
import sys
from pathlib import Path

import curves as c

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))
import gold  # noqa: E402

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"]


def rounds(run):
    """The rounds of a run in their order: of a round that was begun twice, the last line counts."""
    numbers = {line["round"]: line for line in c.lines(run / "metrics.jsonl") if "round" in line}
    found, tokens = [], 0
    for index, line in sorted(numbers.items()):
        judged = [gold.judge(row["prompt"][-1]["content"], text) for row in c.lines(run / f"rollouts/round-{index:04}.jsonl") for text in row["responses"]]
        found.append({"round": index, "tokens": tokens, "kl": line["objective/kl"], "reward": line["reward"], "gold": c.mean(q for _, q in judged),
                      "garbled": c.mean(kind == "garbled" for kind, _ in judged), "length": line["completions/mean_length"]})
        tokens += line["rollout/tokens"]
    return found


def main(output, runs):
    found = {name: rounds(Path(run)) for name, run in runs}
    for name, rows in found.items():
        print(f"\n{name}\n\n| round | KL, nats | reward | gold | garbled | tokens of an answer |\n|---|---|---|---|---|---|")
        for row in rows:
            print(f"| {row['round']} | {row['kl']:.2f} | {row['reward']:.2f} | {row['gold']:.2f} | {100 * row['garbled']:.0f} % | {row['length']:.1f} |")
    picture = c.Picture("Rounds of training: reward and gold quality", {name: (name, colour) for name, colour in zip(found, COLOURS)})
    points = lambda across, up, scale=1.0: {name: [[(row[across] * scale, row[up]) for row in rows]] for name, rows in found.items()}
    if any(abs(row["gold"] - row["reward"]) > 1e-6 for rows in found.values() for row in rows):
        picture.panel("The reward that is optimised", "KL from SFT, nats a response", "reward", points("kl", "reward"))
        picture.panel("What the answers are worth", "KL from SFT, nats a response", "gold quality", points("kl", "gold"))
    else:
        picture.panel("Gold quality and distance", "KL from SFT, nats a response", "gold quality", points("kl", "gold"))
        picture.panel("Gold quality and sampled tokens", "thousand tokens sampled by the policy", "gold quality", points("tokens", "gold", 1e-3))
    picture.write(Path(output))


if __name__ == "__main__":
    if len(sys.argv) < 3 or not all("=" in run for run in sys.argv[2:]):
        sys.exit(__doc__)
    main(sys.argv[1], [run.split("=", 1) for run in sys.argv[2:]])
