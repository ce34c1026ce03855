#!/usr/bin/env python3
"""The gold quality of any answer to a question of the demo, by the rules that made the data.

A reward model only sees pairs; this judge knows the facts, so it tells whether a policy that earns more reward has really
become better. It reads what `setpoint generate` writes (rows of `prompt` and `responses`, texts or messages) for prompts of
the demo, and prints how often each class occurs and the mean quality:

    setpoint generate --model runs/demo/dro-0.5/model --data examples/demo/eval_prompts.jsonl --output samples.jsonl
    python3 examples/demo/gold.py samples.jsonl
"""

import json
import re
import sys
from collections import Counter

import content as c
import grammar as g

_FACTS = g.all_facts()
_BY_QUESTION = {question: fact for fact in _FACTS for question in fact.questions}
_TRUE = {sentence for fact in _FACTS for sentence in (fact.right, fact.detail)}
_COURTESY = set(c.COURTESY_BEFORE) | set(c.COURTESY_AFTER)
_NEUTRAL = _COURTESY | set(c.GUESS) | set(c.CHANGE)


def judge(prompt, response):
    """The class of `response` (see grammar.py; `garbled` for text that the grammar cannot make) and its quality."""
    fact = _BY_QUESTION[prompt]
    vague = {*c.VAGUE, f"There is a lot to say about {fact.subject}."}
    sentences = re.split(r"(?<=[.!?]) ", response.strip())
    courteous = any(s in _COURTESY for s in sentences)
    rude = any(s in c.RUDE for s in sentences)
    body = [s for s in sentences if s not in _NEUTRAL and s not in c.RUDE]
    said = [s for s in body if s in (fact.right, fact.short)]
    rest = [s for s in body if s not in (fact.right, fact.short, fact.detail)]
    detail = fact.detail in body

    if any(s in fact.wrong for s in rest):
        kind = "wrong"
    elif any(s not in vague and s not in _TRUE for s in rest):
        return "garbled", g.QUALITY["wrong"]
    elif rude:
        kind = "rude" if said else "insult"
    elif len(said) > 1 or len(body) != len(set(body)):
        kind = "repeat" if said else "vague"
    elif said and not rest and fact.right in said:
        kind = {(True, True): "best", (True, False): "full", (False, True): "polite", (False, False): "plain"}[detail, courteous]
    elif said and not rest:
        kind = "curt"
    elif all(s in vague for s in rest):
        kind = "vague"
    else:
        kind = "off_topic"
    return kind, g.QUALITY[kind]


def _text(value):
    """The text of a text, a message or the last of a list of messages."""
    if isinstance(value, list):
        value = value[-1]
    return value if isinstance(value, str) else value["content"]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    results = [judge(_text(row["prompt"]), _text(response)) for row in rows for response in row["responses"]]
    for kind, count in Counter(kind for kind, _ in results).most_common():
        print(f"{kind:10} {count / len(results):6.1%}")
    print(f"mean quality {sum(quality for _, quality in results) / len(results):.3f} of {len(results)} answers")


if __name__ == "__main__":
    main()
