"""What lm-evaluation-harness's filters of `mmlu_flan_cot_zeroshot` find in answers of our own, and its grades of them.

usage: make_lm_eval_filters.py

Writes tests/golden/lm_eval/filters.json. Patterns and settings are read from the harness's own task file.
"""

import json
import random
from pathlib import Path

import lm_eval
from lm_eval.api.metrics import exact_match_fn
from lm_eval.api.registry import get_filter
from lm_eval.tasks._yaml_loader import load_yaml

HERE = Path(__file__).parent / "lm_eval"
TEMPLATE = Path(lm_eval.__file__).parent / "tasks/mmlu/flan_cot_zeroshot/_mmlu_flan_cot_zeroshot_template_yaml"

CHOICES = [
    ["a red ball", "red", "3.5 cm", "the U.S."],
    ["Guilty", "Guilty of Romance", "not guilty", "none of these"],
    ["2 + 2", "2 + 22", "x^2 | y", "$4.00"],
    ["yes", "no", "yes", "Yes!"],
    ["-", "blue", "green", "grey"],
    ["ÉCOLE", "straße", "Ὀδυσσεύς", "İstanbul"],
    [" padded ", "(both) ", "A", "b"],
    ["12", "1", "2", "122"],
    ["one", "two", "three"],
    ["a )", "b", "c", "d", "none of the above"],
    ["“quoted” – text", "tab\tbed", "a\nb", "a.b"],
]
FRAGMENTS = [
    "The answer is", "the answer is (B).", "The answer is (C)", "The answer is B, I think.", "answer is D", "The answer: (A).",
    "The final answer: (D). Done", "The answer is ( B ).", "The answer is \n(A).", "So, (A) is wrong", "(Z)", "((C))", "(B", "answer: C",
    "It is:  B", "Answer:\nD.", ":A:B", ": E", "Choice: a", ":", "!", "42", "Therefore", "and", "\n", "or", "12", "122", "1 2", "I would say",
]


def answers(choices, rng):
    words = [c for c in choices] + [c.upper() for c in choices] + [c.strip().lower() + "." for c in choices] + [f"*{c}*" for c in choices]
    found = ["", " ", *FRAGMENTS]
    found += [rng.choice([" ", ", ", "\n", ""]).join(rng.choices(words + FRAGMENTS, k=rng.randint(1, 4))) for _ in range(40)]
    found += [rng.choice([" ", ", ", ""]).join(rng.choices(words, k=rng.randint(1, 3))) for _ in range(15)]
    return found


def main():
    config = load_yaml(TEMPLATE)
    rng = random.Random(11)
    filters = {}
    for entry in config["filter_list"]:
        arguments = dict(entry["filter"][0])
        filters[entry["name"]] = get_filter(arguments.pop("function"))(**arguments)
    metric = config["metric_list"][0]
    cases = []
    for choices in CHOICES:
        for answer in answers(choices, rng):
            doc = {"choices": choices}
            case = {"choices": choices, "answer": answer}
            for name, found in filters.items():
                text = list(found.apply([[answer]], [doc]))[0][0]
                right = [
                    i
                    for i in range(len(choices))
                    if exact_match_fn(
                        predictions=[text],
                        references=[f"({'ABCDE'[i]})"],
                        ignore_case=metric["ignore_case"],
                        ignore_punctuation=metric["ignore_punctuation"],
                    )["exact_match"]
                ]
                case[name] = {"found": text, "right": right}
            cases.append(case)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    versions = json.dumps({"lm_eval": lm_eval.__version__})
    (HERE / "filters.json").write_text(f'{{"versions": {versions}, "cases": [\n{lines}\n]}}\n')


main()
