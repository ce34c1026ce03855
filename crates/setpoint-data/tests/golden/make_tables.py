"""The same rows as JSON lines and as tables that pandas writes, lists as JSON in their cells.

Needs pandas==3.1.1 and the program zstd (1.5.4); writes tables/ beside this file.
"""

import json
import pathlib
import subprocess

import pandas

HERE = pathlib.Path(__file__).parent / "tables"

# Texts that need quotes, that look like numbers or JSON and are none, and messages.
ASK = [{"role": "system", "content": "Be brief, \"please\"."}, {"role": "user", "content": "Größe?\nIn m."}]
SCORED = [
    {"prompt": "Add 1, 2.", "responses": ["3", "It is \"3\"."], "rewards": [1.5, -2], "topic": "sums"},
    {"prompt": "007", "responses": ["A spy,\nBond.", "[7]"], "rewards": [0, 0.25], "topic": "['films']"},
    {"prompt": ASK, "responses": ["1,80", "2"], "rewards": [1e-3, 4], "topic": "true"},
]
PAIRS = [
    {"prompt": "[1, 2] backwards", "chosen": "[2, 1]", "rejected": "\"12\"", "score_chosen": 4, "score_rejected": 0.5},
    {"prompt": "2+2=", "chosen": "4", "rejected": "five,\r\nperhaps", "score_chosen": -1, "score_rejected": -2.5},
    {
        "prompt": ASK,
        "chosen": [{"role": "assistant", "content": "1,80"}],
        "rejected": [{"role": "assistant", "content": "Tab\there"}],
        "score_chosen": 3,
        "score_rejected": 2,
    },
]


def cell(value):
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


HERE.mkdir(exist_ok=True)
for name, rows in [("scored", SCORED), ("pairs", PAIRS)]:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (HERE / f"{name}.jsonl").write_text(lines)
    table = pandas.DataFrame([{key: cell(value) for key, value in row.items()} for row in rows])
    # With the index, a column without a name.
    table.to_csv(HERE / f"{name}.csv")
    table.to_csv(HERE / f"{name}.tsv", sep="\t", index=False)
    table.to_csv(HERE / f"{name}.csv.gz", index=False, lineterminator="\r\n", encoding="utf-8-sig")
    for file in [f"{name}.csv", f"{name}.jsonl"]:
        subprocess.run(["zstd", "--quiet", "--force", "-19", HERE / file], check=True)
