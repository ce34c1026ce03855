"""Requests, log-likelihoods and grades of lm-evaluation-harness on a few examples of our own, for `setpoint eval tasks`.

usage: make_lm_eval.py STORIES260K_DIR

Writes tests/golden/lm_eval/data (the examples, in the published formats) and tests/golden/lm_eval/expected.json. Nothing is downloaded: the
harness's own task files are loaded with the data set replaced by these examples.
"""

import csv
import json
import os
import random
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import lm_eval  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from lm_eval.tasks._yaml_loader import load_yaml  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

HERE = Path(__file__).parent / "lm_eval"
DATA = HERE / "data"
NAMES = ["Lily", "Tom", "Sue", "Ben", "Mia", "Max", "Anna", "Tim"]
THINGS = ["ball", "red car", "big tree", "little dog", "bird", "box of toys", "warm hat", "old boat"]
random.seed(7)


def pick(n):
    return random.sample(THINGS, n)


def arc(n):
    rows = []
    for i in range(n):
        name, options = random.choice(NAMES), pick(4 if i % 3 else 3)
        labels = list("ABCD" if i % 2 else "1234")[: len(options)]
        rows.append({
            "id": str(i),
            "question": f"{name} went to the park and saw a thing. What did {name} see there?",
            "choices": {"text": [f"a {o}" + ("." if i % 2 else "") for o in options], "label": labels},
            "answerKey": labels[i % len(options)],
        })
    return rows


def mathqa(n):
    rows = []
    for i in range(n):
        a, b = random.randint(2, 40), random.randint(2, 9)
        values = [a * b, a + b, a * b + 1, f"{a} / {b}", "none of these"]
        options = " , ".join(f"{letter} ) {v}" for letter, v in zip("abcde", values))
        rows.append({"Problem": f"tom has {a} boxes with {b} balls each . how many balls has he ?", "options": options, "correct": "abcde"[i % 5]})
    return rows


def social(n):
    rows = []
    for i in range(n):
        name = random.choice(NAMES)
        a, b, c = pick(3)
        rows.append({
            "context": f"{name} was sad and wanted to play with a {a}.",
            "question": f"What will {name} want to do next?",
            "answerA": f"find the {a}", "answerB": f"give away a {b}", "answerC": f"go home with a {c} and sleep",
            "label": str(i % 3 + 1),
        })
    return rows


def gsm8k(n):
    rows = []
    for _ in range(n):
        a, b = random.randint(1000, 1400), random.randint(2, 9)
        name = random.choice(NAMES)
        rows.append({
            "question": f"{name} has {a} apples and gets {b} more. How many apples does {name} have?",
            "answer": f"{name} has {a} + {b} = <<{a}+{b}={a + b}>>{a + b} apples.\n#### {a + b:,}",
        })
    return rows


def mmlu(n, long=False):
    rows = []
    for i in range(n):
        o = pick(4)
        # Texts longer than the model: they are cut on the left.
        tail = " The sun was warm and the birds were happy." * (40 if long and i == 1 else 0)
        rows.append({"question": f" Which of these can a child, or \"kid\", eat?{tail} ", "choices": o, "answer": i % 4, "subject": "high_school_biology"})
    return rows


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as out:
        csv.writer(out).writerows([r["question"], *r["choices"], "ABCD"[r["answer"]]] for r in rows)


def main():
    tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
    # The folder names no special tokens; the harness asks for one.
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<s>", "</s>", "</s>"
    model = HFLM(pretrained=sys.argv[1], tokenizer=tokenizer, dtype="float32", device="cpu", batch_size=2)
    tasks = Path(lm_eval.__file__).parent / "tasks"
    # (our name, harness's file, files by split, few-shot counts)
    jobs = [
        ("arc_easy", "arc/arc_easy.yaml", {"test": ("ARC-Easy_test", arc(6)), "train": ("ARC-Easy_train", arc(40))}, [0, 2]),
        ("arc_challenge", "arc/arc_challenge.yaml", {"test": ("ARC-Challenge_test", arc(4))}, [0]),
        ("mathqa", "mathqa/mathqa.yaml", {"test": ("mathqa_test", mathqa(5)), "train": ("mathqa_train", mathqa(9))}, [0, 2]),
        ("social_iqa", "siqa/siqa.yaml", {"validation": ("socialiqa_dev", social(5)), "train": ("socialiqa_train", social(30))}, [0, 2]),
        ("mmlu", "mmlu/default/mmlu_high_school_biology.yaml", {"test": ("test", mmlu(4, True)), "dev": ("dev", mmlu(5))}, [0, 2]),
        ("gsm8k", "gsm8k/gsm8k.yaml", {"test": ("gsm8k_test", gsm8k(3)), "train": ("gsm8k_train", gsm8k(30))}, [2]),
        ("gsm8k_cot", "gsm8k/gsm8k-cot-zeroshot.yaml", {"test": ("gsm8k_test", None), "train": ("gsm8k_train", None)}, [0]),
    ]
    expected, written = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, file, splits, counts in jobs:
            files = {}
            for split, (stem, rows) in splits.items():
                rows = rows or written[stem]
                written[stem] = rows
                files[split] = str(Path(scratch) / f"{name}_{split}.jsonl")
                lines(Path(files[split]), rows)
                if name == "mmlu":
                    table(DATA / "mmlu" / split / f"high_school_biology_{split}.csv", rows)
                else:
                    lines(DATA / f"{stem}.jsonl", rows)
            for shots in counts:
                config = load_yaml(tasks / file)
                config.update(dataset_path="json", dataset_name=None, dataset_kwargs={"data_files": files}, num_fewshot=shots, task=name)
                config["training_split"] = "train" if "train" in files else None
                config["validation_split"] = "validation" if "validation" in files else None
                if "generation_kwargs" in config:
                    config["generation_kwargs"]["max_gen_toks"] = 24
                for key in ("tag", "group", "task_alias"):
                    config.pop(key, None)
                task = ConfigurableTask(config=config)
                task.set_fewshot_seed(seed=1234)
                result = lm_eval.simple_evaluate(model=model, tasks=[task], num_fewshot=shots, log_samples=True, bootstrap_iters=0)
                samples = []
                seen = {}
                for s in result["samples"][name]:
                    key = s["doc_id"]
                    if key in seen:  # one row for each filter
                        seen[key]["grades"][s["filter"]] = bool(s["exact_match"])
                        continue
                    arguments = list(s["arguments"])
                    row = {"context": arguments[0][0]}
                    if "acc" in s:
                        row["continuations"] = [a[1] for a in arguments]
                        row["loglikelihoods"] = [float(r[0]) for r in s["filtered_resps"]]
                        row["grades"] = {k: bool(s[k]) for k in ("acc", "acc_norm") if k in s}
                    else:
                        row["answer"] = s["resps"][0][0]
                        row["grades"] = {s["filter"]: bool(s["exact_match"])}
                    seen[key] = row
                    samples.append(row)
                expected.append({"task": name, "shots": shots, "samples": samples})
    versions = {"lm_eval": lm_eval.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    (HERE / "expected.json").write_text(json.dumps({"versions": versions, "runs": expected}, indent=1) + "\n")


main()
