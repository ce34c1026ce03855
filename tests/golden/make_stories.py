"""Token log-probabilities of a real pretrained model, stories260K, over texts of several lengths.

The model is read from the folder that SETPOINT_TEST_DATA names, else from `../shared/data` beside the project's root.
"""

import json
import os
import pathlib

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from make_transformer import forward, token_logps

HERE = pathlib.Path(__file__).parent
DATA = pathlib.Path(os.environ.get("SETPOINT_TEST_DATA", HERE.parents[2] / "shared" / "data"))
TEXTS = [
    "Once",
    "Once upon a time, there was a little girl named Lily.",
    "Tom saw a big dog. He was scared and ran to his mom. \"Mom, there is a dog!\" he said.",
    "Zq! 9\u00e9 \u4e16",
    "One day, a bird and a cat were friends. They liked to play in the sun. The cat said, \"Let's go to the park.\" " * 4,
]

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    folder = DATA / "model" / "stories260K"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    rows = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            row = torch.tensor(ids)
            logps = token_logps(forward(model, row), row)
        rows.append(dict(text=text, ids=ids, logps=[round(x, 7) for x in logps.double().tolist()], sum=float(logps.double().sum())))
    (HERE / "stories260k.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
