#!/usr/bin/env python3
"""Writes the demo's data files beside this script. Pure standard library, same bytes on every run.

    python3 make_data.py            # write the files
    python3 make_data.py --check    # exit 1 if a file on disk differs from what would be written

What the files are is in README.md; the facts are in content.py, the grammar and the gold quality in grammar.py.
"""

import argparse
import json
import random
import sys
from pathlib import Path

import content
import grammar

HERE = Path(__file__).resolve().parent
SEED = 20260101

EVAL_PROMPTS = 60
SFT_ROWS = 3600
PREFERENCE_PROMPTS = 700
PAIRS_PER_PROMPT = 3
RESPONSE_PROMPTS = 320

# A base model of mixed manners: mostly fair, some good, some bad.
SFT_MIX = {
    "best": 13, "full": 13, "polite": 14, "plain": 19, "curt": 14, "repeat": 6,
    "vague": 6, "rude": 5, "insult": 4, "off_topic": 2, "wrong": 3,
}

# One class from each line makes the four answers of a prompt.
TIERS = [
    ["best", "best", "full"],
    ["polite", "plain", "full"],
    ["curt", "repeat", "vague", "rude"],
    ["wrong", "wrong", "off_topic", "off_topic", "insult"],
]


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


def split(facts, rng):
    """Holds out one wording of `EVAL_PROMPTS` facts, spread over the topics. Returns (training, held out) prompts."""
    by_topic = {}
    for fact in facts:
        by_topic.setdefault(fact.topic, []).append(fact)
    for group in by_topic.values():
        rng.shuffle(group)
    held = {}
    while len(held) < EVAL_PROMPTS:
        for group in by_topic.values():
            if group and len(held) < EVAL_PROMPTS:
                fact = group.pop()
                held[fact.key] = rng.choice(fact.questions)
    train = [(f, q) for f in facts for q in f.questions if held.get(f.key) != q]
    return train, [(f, held[f.key]) for f in facts if f.key in held]


def rounds(train, rng):
    """Endless prompts that visit every fact once before any fact twice, each time in another wording."""
    wordings = {}
    for fact, question in train:
        wordings.setdefault(fact.key, (fact, []))[1].append(question)
    for _, questions in wordings.values():
        rng.shuffle(questions)
    turn = 0
    while True:
        keys = list(wordings)
        rng.shuffle(keys)
        for key in keys:
            fact, questions = wordings[key]
            yield fact, questions[turn % len(questions)]
        turn += 1


def four_answers(fact, rng, facts):
    """Four different answers of different quality: [(class, text)]."""
    while True:
        answers = []
        for tier in TIERS:
            kind = rng.choice(tier)
            text = grammar.answer(kind, fact, rng, facts)
            if text is None:
                kind = "insult"
                text = grammar.answer(kind, fact, rng, facts)
            answers.append((kind, text))
        distinct_texts = len({text for _, text in answers}) == len(answers)
        distinct_quality = len({grammar.QUALITY[kind] for kind, _ in answers}) == len(answers)
        if distinct_texts and distinct_quality:
            return answers


def pairs(fact, rng, facts):
    """`PAIRS_PER_PROMPT` pairs of the four answers; the better one is chosen."""
    answers = four_answers(fact, rng, facts)
    every = [(a, b) for a in answers for b in answers if grammar.QUALITY[a[0]] > grammar.QUALITY[b[0]]]
    return rng.sample(every, PAIRS_PER_PROMPT)


def preference_rows(prompts, rng, facts, quality):
    for fact, question in prompts:
        for (good, chosen), (bad, rejected) in pairs(fact, rng, facts):
            row = {"prompt": user(question), "chosen": assistant(chosen), "rejected": assistant(rejected)}
            if quality:
                row |= {"chosen_quality": grammar.QUALITY[good], "rejected_quality": grammar.QUALITY[bad]}
            yield row


def gold(facts, held_out):
    """What the demo's gold judge knows, for `setpoint demo`: the same as gold.py reads from content.py and grammar.py."""
    return {
        "quality": {**grammar.QUALITY, "garbled": grammar.QUALITY["wrong"]},
        "courtesies": content.COURTESY_BEFORE + content.COURTESY_AFTER,
        "remarks": content.GUESS + content.CHANGE,
        "insults": content.RUDE,
        "evasions": content.VAGUE,
        "true": sorted({sentence for fact in facts for sentence in (fact.right, fact.detail)}),
        "facts": {
            question: {
                "right": fact.right, "short": fact.short, "detail": fact.detail, "wrong": fact.wrong,
                "evasion": f"There is a lot to say about {fact.subject}.",
            }
            for fact, question in held_out
        },
    }


def build():
    """All files as {relative path: rows}."""
    facts = grammar.all_facts()
    train, held_out = split(facts, random.Random(f"{SEED}/split"))

    rng = random.Random(f"{SEED}/sft")
    source = rounds(train, rng)
    sft = []
    while len(sft) < SFT_ROWS:
        fact, question = next(source)
        kind = rng.choices(list(SFT_MIX), list(SFT_MIX.values()))[0]
        text = grammar.answer(kind, fact, rng, facts)
        if text is not None:
            sft.append({"messages": user(question) + assistant(text)})

    rng = random.Random(f"{SEED}/preferences")
    source = rounds(train, rng)
    preferences = list(preference_rows([next(source) for _ in range(PREFERENCE_PROMPTS)], rng, facts, quality=False))

    rng = random.Random(f"{SEED}/responses")
    source = rounds(train, rng)
    responses = []
    for _ in range(RESPONSE_PROMPTS):
        fact, question = next(source)
        answers = four_answers(fact, rng, facts)
        rng.shuffle(answers)
        responses.append({"prompt": user(question), "responses": [assistant(text) for _, text in answers]})

    rng = random.Random(f"{SEED}/eval")
    eval_prompts = [{"prompt": user(q), "topic": f.topic, "reference": f.right} for f, q in held_out]
    eval_preferences = list(preference_rows(held_out, rng, facts, quality=True))

    trained_on = {r["messages"][0]["content"] for r in sft}
    trained_on |= {r["prompt"][0]["content"] for r in preferences + responses}
    assert trained_on.isdisjoint(r["prompt"][0]["content"] for r in eval_prompts)

    return {
        "pretrain/sft.jsonl": sft,
        "preferences.jsonl": preferences,
        "responses.jsonl": responses,
        "eval_prompts.jsonl": eval_prompts,
        "eval_preferences.jsonl": eval_preferences,
        "gold.json": [gold(facts, held_out)],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the files on disk and write nothing")
    check = parser.parse_args().check
    stale = []
    for name, rows in build().items():
        path = HERE / name
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            print(f"{name}: {len(rows)} rows, {len(text.encode()) / 1024:.0f} KiB")
    if stale:
        sys.exit(f"differs from what make_data.py writes: {', '.join(stale)}")


if __name__ == "__main__":
    main()
