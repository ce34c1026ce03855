"""Requests, log-likelihoods and grades of lm-evaluation-harness's `hellaswag` on 200 rows of our own.

usage: make_lm_eval_hellaswag.py STORIES260K_DIR

Writes tests/golden/lm_eval/data/hellaswag_{val,train}.jsonl, the same rows as the hub publishes them (hub/hellaswag/data) and
tests/golden/lm_eval/expected_hellaswag.json. Nothing is downloaded: the harness's own task file is loaded with the data set replaced.
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
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import hellaswag  # noqa: E402
from lm_eval.tasks._yaml_loader import load_yaml  # noqa: E402

HERE = Path(__file__).parent / "lm_eval"
ROWS = {"val": 200, "train": 30}
FEW_SHOT = 20  # the rows that are asked with two examples as well
NAMES = ["Lily", "Tom", "Zoé", "Ben", "Mia", "Max", "McKay", "Tim"]
PLACES = ["park", "big garden", "kitchen", "old shop", "café"]
THINGS = ["ball", "red car", "warm hat", "little dog", "box of toys", "crème", "日本 map"]
ACTS = ["runs to the {}", "looks at the {} and smiles", "gives the {} to a friend", "puts the {} away", "is sad: the {} is lost",
        "sings a very long song about the {}, and then goes home to sleep in a big bed", "eats", "asks Mom for a {}"]
random.seed(11)


def row(index, split):
    """ActivityNet's rows have two sentences, WikiHow's have marks in brackets and an empty `ctx_b`."""
    name, place = random.choice(NAMES), random.choice(PLACES)
    endings = [a.format(random.choice(THINGS)) + random.choice([".", "", "!"]) for a in random.sample(ACTS, 4)]
    wikihow = index % 2 == 1
    if wikihow:
        a = f"[header] How to play in the {place} [title] Find a {random.choice(THINGS)} . [step] {name} likes it.  It is nice."
        b = ""
        endings = [f"[substeps] {name} {e} [title] Say   hello [step] Be kind. " if i % 2 else f" {e.capitalize()}" for i, e in enumerate(endings)]
    else:
        a = f"{name} is in the {place}. There is a {random.choice(THINGS)}."
        b = random.choice(["he", "she", "the other child McKay", "ÉLODIE", f"then {name}", "a [unclear] man"])
    return {
        "ind": index * 7 + 3, "activity_label": random.choice(["Playing ball", "Family Life", "Making  a cake"]),
        "ctx_a": a, "ctx_b": b, "ctx": f"{a} {b}".strip(), "endings": endings,
        "source_id": f"wikihow~{index}" if wikihow else f"activitynet~v_{index}", "split": split,
        "split_type": random.choice(["indomain", "zeroshot"]), "label": str(random.randrange(4)),
    }


def main():
    features = Features({k: Value("string") for k in ["activity_label", "ctx_a", "ctx_b", "ctx", "source_id", "split", "split_type", "label"]})
    features = Features({"ind": Value("int32"), **features, "endings": Sequence(Value("string"))})
    files = {}
    (HERE / "hub/hellaswag/data").mkdir(parents=True, exist_ok=True)
    for split, published in [("val", "validation"), ("train", "train")]:
        rows = [row(i, split) for i in range(ROWS[split])]
        files[published] = str(HERE / f"data/hellaswag_{split}.jsonl")
        Path(files[published]).write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
        table = Dataset.from_list(rows, features=features).data.table
        pq.write_table(table, HERE / f"hub/hellaswag/data/{published}-00000-of-00001.parquet", compression="snappy")

    tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
    # The folder names no special tokens; the harness asks for one.
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<s>", "</s>", "</s>"
    model = HFLM(pretrained=sys.argv[1], tokenizer=tokenizer, dtype="float32", device="cpu", batch_size=8)
    runs = []
    for shots, limit in [(0, None), (2, FEW_SHOT)]:
        config = load_yaml(Path(hellaswag.__path__[0]) / "hellaswag.yaml")
        config.update(dataset_path="json", dataset_name=None, dataset_kwargs={"data_files": files}, num_fewshot=shots)
        config.pop("tag", None)
        task = ConfigurableTask(config=config)
        task.set_fewshot_seed(seed=1234)
        result = lm_eval.simple_evaluate(model=model, tasks=[task], num_fewshot=shots, limit=limit, log_samples=True, bootstrap_iters=0)
        samples = []
        for s in sorted(result["samples"]["hellaswag"], key=lambda s: s["doc_id"]):
            arguments = list(s["arguments"])
            samples.append({
                "context": arguments[0][0],
                "continuations": [a[1] for a in arguments],
                "loglikelihoods": [round(float(r[0]), 5) for r in s["filtered_resps"]],
                "grades": {k: bool(s[k]) for k in ("acc", "acc_norm")},
            })
        figures = {k: result["results"]["hellaswag"][f"{k},none"] for k in ("acc", "acc_norm")}
        print(shots, figures, sum(s["grades"]["acc"] != s["grades"]["acc_norm"] for s in samples), "rows differ")
        runs.append({"task": "hellaswag", "shots": shots, **figures, "samples": samples})
    versions = {"lm_eval": lm_eval.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    heads = [json.dumps({k: v for k, v in r.items() if k != "samples"}, ensure_ascii=False)[:-1] for r in runs]
    lines = [",\n".join(json.dumps(s, ensure_ascii=False) for s in r["samples"]) for r in runs]
    text = ",\n".join(f'{head}, "samples": [\n{body}\n]}}' for head, body in zip(heads, lines))
    (HERE / "expected_hellaswag.json").write_text(f'{{"versions": {json.dumps(versions)}, "runs": [\n{text}\n]}}\n')


main()
