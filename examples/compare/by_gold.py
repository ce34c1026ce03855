#!/usr/bin/env python3
"""What each method reaches where the gold judge selects its settings, beside the reward model's selection; the first seed alone.

usage: by_gold.py RUN, the folder of run.sh and afterwards.sh
"""

import json
import sys
from pathlib import Path

import gold_table as g


def main(run):
    tried = {}
    for folder, prefix in ((run / "compare", ""), (run / "level" / "compare", "level-")):
        for trial in json.loads((folder / "compare.json").read_text())["selection"]:
            if trial["figures"] is None:
                continue
            name = prefix + trial["trial"]
            select, _ = g.by_prompt(run / "by-gold" / f"{name}-select.jsonl")
            report, _ = g.by_prompt(run / "by-gold" / f"{name}-report.jsonl")
            tried.setdefault(name.rsplit("-", 2)[0], []).append((g.mean(select), trial["figures"]["reward"], report, trial["settings"]))
    sft, _ = g.by_prompt(run / "gold" / "sft.jsonl")
    print("| method | settings selected by gold | gold | to SFT | selected by reward |\n|---|---|---|---|---|")
    rows = [(name, max(trials, key=lambda t: t[0]), max(trials, key=lambda t: t[1])) for name, trials in tried.items()]
    for name, by_gold, by_reward in sorted(rows, key=lambda row: -g.mean(row[1][2])):
        shift, half = g.interval([a - b for a, b in zip(by_gold[2], sft, strict=True)])
        settings = ", ".join(f"{key.split('.')[1]} {value}" for key, value in by_gold[3].items())
        print(f"| `{name}` | {settings} | {g.mean(by_gold[2]):.2f} | {shift:+.2f} ± {half:.2f} | {g.mean(by_reward[2]):.2f} |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
