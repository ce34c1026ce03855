#!/usr/bin/env python3
"""Gathers what methods.sh measured: a table of all methods.

usage: methods.py RUN…

RUN: folders of methods.sh, one for each seed; values are means over them. A method passes if its gold quality is above that of the SFT model
by three standard errors or more, its KL at most 10 nats, and the length of its answers within 30 % of the SFT model's, with every seed.
Python's standard library is enough.
"""

import json
import sys
from math import sqrt
from pathlib import Path

from curves import deviation, interval, lines, mean, spread

METHODS = {"ppo": "PPO", "rloo": "RLOO", "grpo": "GRPO", "reinforce_pp": "REINFORCE++", "dpo": "DPO", "kto": "KTO", "dro": "DRO",
           "learned_ppo": "PPO, by the reward model"}
HEAD = ["in rounds", "sampled tokens", "gold", "to SFT", "standard errors", "KL, nats", "tokens", "passes"]


def measured(run, method):
    """What was measured of a method with one seed."""
    data = json.loads((run / "methods" / f"{method}.json").read_text())
    gains = [item["value"] - before for item, before in zip(data["items"], data["distributions"]["baseline_reward"], strict=True)]
    sampled = sum(line.get("rollout/tokens", 0) for line in lines(run / "methods" / method / "metrics.jsonl"))
    found = dict(gains=gains, sampled=sampled, gold=data["reward"], sft=data["baseline_reward"], kl=data["kl"]["exact"]["mean"],
                 tokens=data["tokens"], sft_tokens=data["baseline_tokens"])
    error = deviation(gains) / sqrt(len(gains))
    # Without any difference there is no gain either.
    found["errors"] = mean(gains) / error if error > 0 else 0.0
    learned = run / "methods" / f"{method}-reward.json"
    if learned.exists():
        data = json.loads(learned.read_text())
        found |= dict(learned=data["reward"], sft_learned=data["baseline_reward"])
    found["passes"] = found["errors"] >= 3 and found["kl"] <= 10 and abs(found["tokens"] / found["sft_tokens"] - 1) <= 0.3
    return found


def main():
    runs = [Path(run) for run in sys.argv[1:]]
    if not runs:
        raise SystemExit(__doc__)
    there = [method for method in METHODS if all((run / "methods" / f"{method}.json").exists() for run in runs)]
    found = {method: [measured(run, method) for run in runs] for method in there}
    first = next(iter(found.values()))
    rows = [HEAD, ["---"] * len(HEAD), ["SFT", "", spread([one["sft"] for one in first]), "", "", "0", f"{mean(one['sft_tokens'] for one in first):.1f}", ""]]
    for method, seeds in found.items():
        gains = [mean(values) for values in zip(*(one["gains"] for one in seeds), strict=True)]
        of = lambda name, digits=2: spread([one[name] for one in seeds], digits)
        rows.append([METHODS[method], f"{mean(one['sampled'] for one in seeds):,.0f}", of("gold"), "{:+.2f} ± {:.2f}".format(*interval(gains)),
                     f"{min(one['errors'] for one in seeds):.1f} or more", of("kl", 1), f"{mean(one['tokens'] for one in seeds):.1f}",
                     f"{sum(one['passes'] for one in seeds)} of {len(seeds)}"])
    learned = found.get("learned_ppo")
    print("\n".join("| " + " | ".join(row) + " |" for row in rows).replace("-", "−").replace("−−−", "---"))
    if learned:
        before, after = (spread([one[name] for one in learned]) for name in ("sft_learned", "learned"))
        print(f"\nPPO by the reward model: that model's reward goes from {before} to {after}.")


if __name__ == "__main__":
    main()
