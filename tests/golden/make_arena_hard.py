"""Scores of arena-hard-auto on drawn judgments, for crates/setpoint-eval/tests/it/arena_hard.rs.

usage: make_arena_hard.py REPOSITORY

REPOSITORY is a clone of github.com/lmarena/arena-hard-auto at 196f6b8, whose functions are called. Writes tests/golden/arena_hard.json: the styles of
answers and the labels of judgments, the scores that these make, Markdown elements of texts, and labels in texts.
"""

import ast
import json
import os
import random
import re
import sys
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).parent
REPOSITORY = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(REPOSITORY))
random.seed(29)
torch.manual_seed(0)
torch.set_num_threads(1)


def take(file, names):
    """The functions of a file whose imports need much that they do not."""
    tree = ast.parse((REPOSITORY / file).read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", None) in names]
    scope = {"re": re}
    exec(compile(tree, file, "exec"), scope)
    return [scope[name] for name in names]


import show_result  # noqa: E402
from utils import math_utils  # noqa: E402
from utils.judge_utils import JUDGE_SETTINGS  # noqa: E402

(get_score,) = take("gen_judgment.py", ["get_score"])
count_markdown_elements, remove_pattern = take("utils/add_markdown_info.py", ["count_markdown_elements", "remove_pattern"])

CATEGORY = "hard_prompt"
BASELINE = JUDGE_SETTINGS[CATEGORY]["baseline"]
MODELS = {"org/strong": 1.0, "long": 0.0, "weak": -1.5}
LABELS = ["A>>B", "A>B", "A=B", "B>A", "B>>A"]
PATTERNS = [r"\[\[([AB<>=]+)\]\]", r"\[([AB<>=]+)\]"]


def markdown(text):
    return count_markdown_elements(remove_pattern(text, re.compile("```([^`]*)```")), suffix="")


def style(model):
    spread = lambda most: random.randint(0, most)  # noqa: E731
    return {
        "token_len": random.randint(50, 1600 if model == "long" else 900),
        "header_count": {f"h{level}": spread(3) for level in range(1, 7)},
        "list_count": {"ordered": spread(6), "unordered": spread(12 if model == "long" else 5)},
        "bold_count": {"**": spread(9), "__": spread(1)},
    }


def label(strength, flip):
    # The judge likes the strong and the long, with noise.
    leaning = strength + random.gauss(0.0, 1.6)
    index = 0 if leaning < -2 else 1 if leaning < -0.4 else 2 if leaning < 0.4 else 3 if leaning < 2 else 4
    return LABELS[4 - index if flip else index]


uids = [f"q{i}" for i in range(70)]
styles = {model: {uid: style(model) for uid in uids} for model in [*MODELS, BASELINE]}
judgments = []
for model, strength in MODELS.items():
    for uid in uids:
        longer = (styles[model][uid]["token_len"] - styles[BASELINE][uid]["token_len"]) / 600
        games = [label(strength + longer, False), label(strength + longer, True)]
        if random.random() < 0.04:
            games[random.randint(0, 1)] = None
        judgments.append({"uid": uid, "model": model, "games": games})

with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    data = Path("data/arena-hard-v2.0")
    for model in styles:
        file = data / "model_answer" / f"{model.split('/')[-1]}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps({"uid": uid, "model": model, "metadata": styles[model][uid]}) + "\n" for uid in uids))
    for model in MODELS:
        file = data / "model_judgment/judge" / f"{model.split('/')[-1]}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [j for j in judgments if j["model"] == model]
        file.write_text("".join(json.dumps({"uid": j["uid"], "model": model, "category": CATEGORY, "games": [{"score": s} for s in j["games"]]}) + "\n" for j in rows))
    battles = show_result.load_judgments(["judge"], "arena-hard-v2.0")

    captured = {}

    def capture(features, outcomes, loss_type, **_):
        """What the leaderboard fits to its resamples, fitted to the sample: as far as its optimizer goes, and the maximum itself."""
        coefs, _ = math_utils.fit_pairwise_model(features, outcomes, loss_type)
        captured["published"] = coefs.double()
        x, y = features.double(), outcomes.double()
        exact = torch.zeros(x.shape[1], dtype=torch.float64)
        for _ in range(50):
            p = torch.sigmoid(x @ exact)
            # The strengths of the model and the baseline are known up to a constant.
            exact -= torch.linalg.pinv(x.T @ (x * (p * (1 - p))[:, None])) @ (x.T @ (p - y))
        captured["exact"] = exact
        return coefs[None].repeat(2, 1), None

    show_result.bootstrap_pairwise_model = capture
    show_result.print_leaderboard_with_style_features(battles.copy(), "arena-hard-v2.0", CATEGORY, ["markdown", "length"])

names = sorted({model.split("/")[-1] for model in MODELS} | {BASELINE})
winrates = {
    kind: dict(zip(names, math_utils.to_winrate_probabilities(captured[kind][None, :-4], names, BASELINE)[0].tolist()))
    for kind in ("published", "exact")
}
means = battles.assign(scores=battles["scores"].astype(float)).groupby("model")["scores"].mean()

TEXTS = [
    "# One\n## Two\n\n###### Six\n#NotOne\n- a\n * b\n+ c\n1. d\n 22. e\n**bold** __bold__ **no\nbold** ****",
    "```python\n# comment\n- x\n**y**\n```\n# real\n- x\n",
    "``` ``` ```a``` a a\n\n\n-\tx\n2.\u00a0y\n# \n#\u3000z",
    "",
    "text ```unclosed\n# heading",
]
JUDGED = [
    "My final verdict is: [[A>B]]", "[[A>>B]] or [[B>A]]", "[b>>a]", "[[a=b]] [A>B]", "none", "[[ A>B ]]", "[[A>>>B]]", "[[]] [A<B]", "[[B<<A]].", "[[A=B]]\n[[B=A]]",
]
golden = {
    "category": CATEGORY,
    "baseline": BASELINE,
    "styles": styles,
    "judgments": judgments,
    "means": {model: float(means[model]) for model in MODELS},
    "battles": len(battles),
    "winrates": winrates,
    "weights": captured["exact"][-4:].tolist(),
    "markdown": [{"text": text, "counts": markdown(text)} for text in TEXTS],
    "labels": [{"text": text, "score": get_score(text, PATTERNS)} for text in JUDGED],
}
(HERE / "arena_hard.json").write_text(json.dumps(golden, ensure_ascii=False) + "\n", "utf-8")
print({k: golden[k] for k in ("means", "battles", "winrates", "weights", "labels")})
