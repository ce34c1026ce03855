"""The examples of `lm_eval/data` as the hub publishes such data sets: Parquet files in the folders, splits and column types of cais/mmlu,
openai/gsm8k, allenai/ai2_arc, regisss/math_qa (allenai/math_qa) and lighteval/siqa (allenai/social_i_qa).

usage: make_lm_eval_hub.py

Writes tests/golden/lm_eval/hub.
"""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Sequence, Value

HERE = Path(__file__).parent / "lm_eval"
DATA, HUB = HERE / "data", HERE / "hub"
TEXT = Value("string")

FEATURES = {
    "mmlu": Features({"question": TEXT, "subject": TEXT, "choices": Sequence(TEXT), "answer": ClassLabel(names=list("ABCD"))}),
    "gsm8k": Features({"question": TEXT, "answer": TEXT}),
    "arc": Features({"id": TEXT, "question": TEXT, "choices": Sequence({"text": TEXT, "label": TEXT}), "answerKey": TEXT}),
    "mathqa": Features({k: TEXT for k in ["Problem", "Rationale", "options", "correct", "annotated_formula", "linear_formula", "category"]}),
    "siqa": Features({k: TEXT for k in ["context", "question", "answerA", "answerB", "answerC", "label"]}),
}


def rows(name):
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def mmlu(split):
    with open(DATA / f"mmlu/{split}/high_school_biology_{split}.csv", newline="") as file:
        records = list(csv.reader(file))
    return [{"question": r[0], "subject": "high_school_biology", "choices": r[1:5], "answer": "ABCD".index(r[5])} for r in records]


def write(path, kind, rows):
    features = FEATURES[kind]
    full = [{name: row.get(name, "") for name in features} for row in rows]
    table = Dataset.from_list(full, features=features).data.table
    path = HUB / path
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="snappy")


def main():
    shard = "00000-of-00001.parquet"
    write(f"mmlu/all/test-{shard}", "mmlu", mmlu("test"))
    write(f"mmlu/all/dev-{shard}", "mmlu", mmlu("dev"))
    for split in ["test", "train"]:
        write(f"gsm8k/main/{split}-{shard}", "gsm8k", rows(f"gsm8k_{split}.jsonl"))
        write(f"ai2_arc/ARC-Easy/{split}-{shard}", "arc", rows(f"ARC-Easy_{split}.jsonl"))
        write(f"math_qa/data/{split}-{shard}", "mathqa", rows(f"mathqa_{split}.jsonl"))
    write(f"ai2_arc/ARC-Challenge/test-{shard}", "arc", rows("ARC-Challenge_test.jsonl"))
    # As the hub converts a data set that is a script.
    write("social_i_qa/default/validation/0000.parquet", "siqa", rows("socialiqa_dev.jsonl"))
    write("social_i_qa/default/train/0000.parquet", "siqa", rows("socialiqa_train.jsonl"))


main()
