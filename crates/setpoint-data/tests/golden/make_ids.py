"""Token ids of the first rows of data sets, as transformers renders and tokenises them: their number and a hash.

The data sets and tokenizers are not part of the project: they are read from the folder that SETPOINT_TEST_DATA names, else from
`../shared/data` beside the project's root. Needs transformers==5.23.0 and jinja2==3.1.6; writes ids.json beside this file.
"""

import hashlib
import json
import os
import pathlib
import struct

from transformers import PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent
DATA = pathlib.Path(os.environ.get("SETPOINT_TEST_DATA", HERE.parents[4] / "shared" / "data"))
ROWS = 150
ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


def dpo(row):
    turns = row["conversations"] + [row["chosen"]]
    return [{"role": ROLES[t["from"]], "content": t["value"]} for t in turns]


def kto(row):
    return row["messages"]


def alpaca(row):
    user = row["instruction"] + ("\n" + row["input"] if row["input"] else "")
    return [{"role": "user", "content": user}, {"role": "assistant", "content": row["output"]}]


def load(name, **special):
    return PreTrainedTokenizerFast(tokenizer_file=str(DATA / "tokenizers" / name / "tokenizer.json"), **special)


llama3 = load("llama3", bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
llama3.chat_template = (DATA / "chat_templates" / "llama3.jinja").read_text()
tinyllama = load("tinyllama", bos_token="<s>", eos_token="</s>")
tinyllama.chat_template = json.loads((DATA / "tokenizers/tinyllama/tokenizer_config.json").read_text())["chat_template"]

CASES = [
    ("llama3", llama3, "preference/dpo_en_demo.json", dpo),
    ("llama3", llama3, "preference/kto_en_demo.json", kto),
    ("tinyllama", tinyllama, "sft/alpaca_en_demo.json", alpaca),
    ("tinyllama", tinyllama, "preference/kto_en_demo.json", kto),
]

out = []
for name, tokenizer, path, convert in CASES:
    rows = [convert(row) for row in json.loads((DATA / path).read_text())[:ROWS]]
    ids = [i for row in rows for i in tokenizer.apply_chat_template(row, tokenize=True)["input_ids"]]
    digest = hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest()
    out.append({"tokenizer": name, "data": path, "rows": len(rows), "tokens": len(ids), "sha256": digest})
(HERE / "ids.json").write_text("[\n" + ",\n".join(map(json.dumps, out)) + "\n]\n")
