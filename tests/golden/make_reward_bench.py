"""Scores of the `rewardbench` package on random rewards, for `setpoint eval reward-bench`.

usage: make_reward_bench.py

Writes tests/golden/reward_bench.json: rows with their rewards, and the scores of their subsets and sections. The package's functions are taken
from its files, because importing it needs much that they do not.
"""

import ast
import importlib.metadata
import importlib.util
import json
import math
import random
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset

HERE = Path(__file__).parent
PACKAGE = Path(importlib.util.find_spec("rewardbench").origin).parent
random.seed(23)


def take(file, names):
    """The functions and constants of a file, without its imports."""
    tree = ast.parse((PACKAGE / file).read_text())
    wanted = lambda n: getattr(n, "name", None) in names or isinstance(n, ast.Assign) and getattr(n.targets[0], "id", None) in names  # noqa: E731
    tree.body = [node for node in tree.body if wanted(node)]
    scope = {"np": np, "pd": pd, "math": math, "Dataset": Dataset}
    exec(compile(tree, file, "exec"), scope)
    return [scope[name] for name in names]


counts, mapping = take("constants.py", ["EXAMPLE_COUNTS", "SUBSET_MAPPING"])
_, process_single_model, reroll, per_section = take(
    "utils.py", ["sample_stats", "process_single_model", "reroll_and_score_dataset", "calculate_scores_per_section"]
)


def reward():
    # Coarse, so that some are equal.
    return random.randint(-8, 8) / 4


def first_version():
    rows, metrics = [], {}
    for subset in counts:
        own = [[reward(), reward()] for _ in range(random.randint(1, 4))]
        rows += [{"id": str(len(rows) + i), "subset": subset, "correct": 1, "rewards": r} for i, r in enumerate(own)]
        # As run_rm.py has it: chosen > rejected.
        metrics[subset] = sum(chosen > rejected for chosen, rejected in own) / len(own)
    sections = per_section(counts, mapping, metrics)
    return {"version": "v1", "rows": rows, "subsets": metrics, "sections": sections, "score": float(np.mean(list(sections.values())))}


def second_version():
    rows, subsets = [], {}
    for subset in ["Factuality", "Precise IF", "Math", "Safety", "Focus"]:
        own = [[reward() for _ in range(4)] for _ in range(random.randint(2, 5))]
        flat = Dataset.from_dict({"text": ["" for r in own for _ in r], "scores": [x for r in own for x in r], "id": [i for i, r in enumerate(own) for _ in r]})
        results = reroll(flat, [4] * len(own))["results"]
        rows += [{"id": str(i), "subset": subset, "correct": 1, "rewards": r} for i, r in enumerate(own)]
        subsets[subset] = sum(results) / len(results)
    ties = []
    for prompt in range(12):
        if prompt != 3:
            ties.append({"id": f"ref:{prompt}", "scores": [reward() + 1, *[reward() for _ in range(3)]], "num_correct": 1})
        if prompt != 5:
            right = random.randint(1, 5)
            spread = random.choice([0, 0.125, 1])
            scores = [2 + spread * reward() for _ in range(right)] + [reward() for _ in range(random.randint(1, 6))]
            ties.append({"id": f"tied:{prompt}", "scores": scores, "num_correct": right})
    _, subsets["Ties"] = process_single_model(Dataset.from_list(ties))
    rows += [{"id": t["id"], "subset": "Ties", "correct": t["num_correct"], "rewards": t["scores"]} for t in ties]
    subsets = {name: float(score) for name, score in subsets.items()}
    return {"version": "v2", "rows": rows, "subsets": subsets, "sections": {}, "score": float(np.mean(list(subsets.values())))}


def main():
    runs = [first_version(), second_version()]
    heads = [json.dumps({k: v for k, v in run.items() if k != "rows"})[:-1] for run in runs]
    bodies = [",\n".join(json.dumps(row) for row in run["rows"]) for run in runs]
    text = ",\n".join(f'{head}, "rows": [\n{body}\n]}}' for head, body in zip(heads, bodies))
    version = json.dumps({"rewardbench": importlib.metadata.version("rewardbench")})
    (HERE / "reward_bench.json").write_text(f'{{"versions": {version}, "runs": [\n{text}\n]}}\n')


main()
