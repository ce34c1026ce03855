#!/usr/bin/env python3
"""The demo's world with more of everything: what the Figure 2, Table 1 and method comparison recipes train and measure on.

usage: make_data.py FOLDER

Written by the demo's grammar (examples/demo), so its gold judge knows every answer; another seed and another split than the demo's.
150 of the 157 facts have one wording held out: 50 of these prompts to choose settings on, 100 that only results are read from.
"""

import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))
import grammar  # noqa: E402
import make_data as demo  # noqa: E402

SEED = 20260202
HELD_OUT = 150
BASE_ROWS = 8000
SFT_ROWS = 6000
PREFERENCE_PROMPTS = 2000
SMALL = 1000  # pairs of the small setting: a sixth, as 10,000 of 61,135 in the paper
RESPONSE_PROMPTS = 640


def documents(train, rng):
    """Plain true text without a chat: a question or statement, and what follows from it."""
    while True:
        sentences = []
        for fact, question in rng.sample(train, 3):
            sentences += rng.choice([[question, fact.right], [question, fact.right, fact.detail], [fact.right, fact.detail], [question, fact.short]])
        yield {"prompt": sentences[0], "completion": " " + " ".join(sentences[1:])}


def four(prompts, rng, facts):
    """Rows of four answers, one of each band of quality, in random order."""
    for fact, question in prompts:
        answers = demo.four_answers(fact, rng, facts)
        rng.shuffle(answers)
        yield {"prompt": demo.user(question), "responses": [demo.assistant(text) for _, text in answers]}


def build():
    """All files as {name: rows}."""
    facts = grammar.all_facts()
    demo.EVAL_PROMPTS = HELD_OUT
    train, held_out = demo.split(facts, random.Random(f"{SEED}/split"))
    random.Random(f"{SEED}/parts").shuffle(held_out)
    parts = {"select": held_out[:HELD_OUT // 3], "report": held_out[HELD_OUT // 3:]}

    rng = random.Random(f"{SEED}/base")
    source = documents(train, rng)
    files = {"base.jsonl": [next(source) for _ in range(BASE_ROWS)]}

    rng = random.Random(f"{SEED}/sft")
    source, sft = demo.rounds(train, rng), []
    while len(sft) < SFT_ROWS:
        fact, question = next(source)
        text = grammar.answer(rng.choices(list(demo.SFT_MIX), list(demo.SFT_MIX.values()))[0], fact, rng, facts)
        if text is not None:
            sft.append({"messages": demo.user(question) + demo.assistant(text)})
    files["sft.jsonl"] = sft

    rng = random.Random(f"{SEED}/preferences")
    source = demo.rounds(train, rng)
    large = list(demo.preference_rows([next(source) for _ in range(PREFERENCE_PROMPTS)], rng, facts, quality=False))
    files["preferences.jsonl"] = large
    files["preferences-small.jsonl"] = random.Random(f"{SEED}/small").sample(large, SMALL)

    rng = random.Random(f"{SEED}/responses")
    source = demo.rounds(train, rng)
    files["responses.jsonl"] = list(four([next(source) for _ in range(RESPONSE_PROMPTS)], rng, facts))

    for name, prompts in parts.items():
        rng = random.Random(f"{SEED}/{name}")
        files[f"{name}-prompts.jsonl"] = [{"prompt": demo.user(q), "topic": f.topic, "reference": f.right} for f, q in prompts]
        files[f"{name}-preferences.jsonl"] = list(demo.preference_rows(prompts, rng, facts, quality=True))

    trained_on = {question for _, question in train}
    assert trained_on.isdisjoint(question for _, question in held_out)
    return files


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in build().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
        print(f"{folder / name}: {len(rows)} rows")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
