"""Splits a JSON array of rows into train.json and eval.json (the last tenth).

usage: python3 examples/polite/split.py ROWS.json FOLDER
"""

import json
import pathlib
import sys

rows = json.loads(pathlib.Path(sys.argv[1]).read_text())
folder = pathlib.Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
cut = len(rows) - len(rows) // 10
for name, part in [("train.json", rows[:cut]), ("eval.json", rows[cut:])]:
    (folder / name).write_text(json.dumps(part))
