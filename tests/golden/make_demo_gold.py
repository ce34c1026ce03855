"""Writes demo_gold.json: answers to the demo's held-out questions with the class and quality that examples/demo/gold.py gives them.

usage: python3 tests/golden/make_demo_gold.py          (standard library only; the same bytes on every run)
"""

import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).parent
DEMO = HERE.parent.parent / "examples" / "demo"
sys.path.insert(0, str(DEMO))

import gold  # noqa: E402
import grammar  # noqa: E402


def main():
    rng = random.Random(0)
    facts = grammar.all_facts()
    by_question = {question: fact for fact in facts for question in fact.questions}
    questions = [json.loads(line)["prompt"][-1]["content"] for line in (DEMO / "eval_prompts.jsonl").read_text().splitlines()]
    cases = []
    for i, question in enumerate(questions[:24]):
        fact = by_question[question]
        kinds = list(grammar.QUALITY)
        answers = [grammar.answer(kinds[(i + j) % len(kinds)], fact, rng, facts) for j in range(4)]
        # What only a model says: cut, doubled, out of order, empty, with other spaces.
        whole = grammar.answer("best", fact, rng, facts)
        answers += [whole[: rng.randrange(len(whole))], whole + " " + fact.detail, fact.detail + " " + fact.short, "", f"  {fact.right}\n"]
        cases += [(question, answer, *gold.judge(question, answer)) for answer in answers if answer is not None]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (HERE / "demo_gold.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
