"""Requests, log-likelihoods and grades of lm-evaluation-harness's `winogrande`, `truthfulqa_mc1` and `truthfulqa_mc2` on rows of our own.

usage: make_lm_eval_winogrande_truthfulqa.py STORIES260K_DIR

Writes tests/golden/lm_eval/data/winogrande_{val,train}.jsonl and truthfulqa_val.jsonl, the same rows as the hub publishes them
(hub/winogrande/winogrande_xl and hub/truthful_qa/multiple_choice) and tests/golden/lm_eval/expected_winogrande_truthfulqa.json. Nothing is
downloaded: the harness's own task files are loaded with the data set replaced.
"""

import json
import os
import random
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import lm_eval  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from datasets import Dataset, Features, Sequence, Value  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.evaluator import evaluate  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks._yaml_loader import load_yaml  # noqa: E402

HERE = Path(__file__).parent / "lm_eval"
FEW_SHOT = 20  # the rows that are asked with two examples as well
NAMES = ["Lily", "Tom", "Zoé", "Ben", "Mia", "Max", "McKay", "Tim"]
THINGS = ["ball", "red car", "warm hat", "little dog", "box of toys", "crème", "日本 map"]
random.seed(19)

SENTENCES = [
    "{a} gave {b} the {t} because _ had two of them.",
    "{a} liked to play with the {t} more than {b}, so _  was sad at bedtime.",
    "The {t} of {a} was bigger than the one of {b} since _'s mom is kind. ",
    "_ wanted to go home early, but {a} and {b} had lost the {t}_box.",
    "At the park {a} saw {b} with a {t}, and then it was _ .",
    "{a} said: \"{b}, look at my {t}!\" And\n_ looked, smiled and said: \"It is nice.\"",
]
QUESTIONS = ["What happens if you eat a {t}?", " Where did {a} find the {t}? ", "Is the {t} of {a} alive?", "Who is {a}?\nAnd why?"]
ANSWERS = ["The {t} is at home.", "{a} is a girl", "Yes, the {t} is alive and it can sing.", "I have no comment.", "No", "Nothing happens, the {t} is only a thing.",
           "You get very, very big", "{a} ran away with the {t}. It was a long day, and all the friends were in the garden."]


def fill(text):
    a, b = random.sample(NAMES, 2)
    return text.format(a=a, b=b, t=random.choice(THINGS)), a, b


def winogrande(_):
    sentence, a, b = fill(random.choice(SENTENCES))
    options = [a, b] if random.random() < 0.7 else [f"the {x}" for x in random.sample(THINGS, 2)]
    return {"sentence": sentence, "option1": options[0], "option2": options[1], "answer": random.choice("12")}


def targets(count, right):
    return {"choices": [fill(answer)[0] for answer in random.sample(ANSWERS, count)], "labels": [1] * right + [0] * (count - right)}


def truthfulqa(_):
    count = random.randint(2, 8)
    return {
        "question": fill(random.choice(QUESTIONS))[0],
        "mc1_targets": targets(random.randint(2, 6), 1), "mc2_targets": targets(count, random.randint(1, count)),
    }


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main():
    text = Value("string")
    choices = {"choices": Sequence(text), "labels": Sequence(Value("int32"))}
    kinds = {
        "winogrande": (winogrande, "winogrande/winogrande_xl", Features({k: text for k in ["sentence", "option1", "option2", "answer"]})),
        "truthfulqa": (truthfulqa, "truthful_qa/multiple_choice", Features({"question": text, "mc1_targets": choices, "mc2_targets": choices})),
    }
    files = {}
    for name, split, published, count in [
        ("winogrande", "val", "validation", 200), ("winogrande", "train", "train", 30), ("truthfulqa", "val", "validation", 200),
    ]:
        make, folder, features = kinds[name]
        rows = [make(i) for i in range(count)]
        path = HERE / f"data/{name}_{split}.jsonl"
        path.write_text(lines(rows))
        files.setdefault(name, {})[published] = str(path)
        (HERE / "hub" / folder).mkdir(parents=True, exist_ok=True)
        table = Dataset.from_list(rows, features=features).data.table
        pq.write_table(table, HERE / "hub" / folder / f"{published}-00000-of-00001.parquet", compression="snappy")

    tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
    # The folder names no special tokens; the harness asks for one.
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<s>", "</s>", "</s>"
    model = HFLM(pretrained=sys.argv[1], tokenizer=tokenizer, dtype="float32", device="cpu", batch_size=8)
    tasks, runs = Path(lm_eval.__file__).parent / "tasks", []
    for name, file, data in [
        ("winogrande", "winogrande/default.yaml", "winogrande"),
        ("truthfulqa_mc1", "truthfulqa/truthfulqa_mc1.yaml", "truthfulqa"),
        ("truthfulqa_mc2", "truthfulqa/truthfulqa_mc2.yaml", "truthfulqa"),
    ]:
        for shots, limit in [(0, None), (2, FEW_SHOT)]:
            config = load_yaml(tasks / file)
            config.update(dataset_path="json", dataset_name=None, dataset_kwargs={"data_files": files[data]}, num_fewshot=shots)
            for key in ("tag", "include"):
                config.pop(key, None)
            task = ConfigurableTask(config=config)
            task.set_fewshot_seed(seed=1234)
            # Without `simple_evaluate`, which reads all task files each time.
            result = evaluate(lm=model, task_dict={name: task}, limit=limit, log_samples=True, bootstrap_iters=1)
            samples = []
            for s in sorted(result["samples"][name], key=lambda s: s["doc_id"]):
                arguments = list(s["arguments"])
                contexts = [a[0] for a in arguments]
                # WinoGrande's options are in the contexts.
                place = {"contexts": contexts} if name == "winogrande" else {"context": contexts[0]}
                assert name == "winogrande" or len(set(contexts)) == 1
                grade = round(float(s["acc"]), 6) if name == "truthfulqa_mc2" else bool(s["acc"])
                samples.append({
                    **place, "continuations": [a[1] for a in arguments],
                    "loglikelihoods": [round(float(r[0]), 5) for r in s["filtered_resps"]], "grades": {"acc": grade},
                })
            figures = {k: float(result["results"][name][f"{k},none"]) for k in ("acc", "acc_stderr")}
            print(name, shots, figures)
            runs.append({"task": name, "shots": shots, **figures, "samples": samples})
    versions = {"lm_eval": lm_eval.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    heads = [json.dumps({k: v for k, v in r.items() if k != "samples"}, ensure_ascii=False)[:-1] for r in runs]
    bodies = [",\n".join(json.dumps(s, ensure_ascii=False) for s in r["samples"]) for r in runs]
    body = ",\n".join(f'{head}, "samples": [\n{rows}\n]}}' for head, rows in zip(heads, bodies))
    (HERE / "expected_winogrande_truthfulqa.json").write_text(f'{{"versions": {json.dumps(versions)}, "runs": [\n{body}\n]}}\n')


main()
