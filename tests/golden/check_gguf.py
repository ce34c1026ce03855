"""Checks GGUF files that `setpoint export gguf` wrote, with the `gguf` package and transformers: `check_gguf.py MODEL FILE [FILE ...]`.

Prints the keys, the largest difference of logits from those of the folder MODEL, and for how many texts the ids differ.
"""

import json
import os
import pathlib
import sys

import gguf
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = pathlib.Path(__file__).parent
DATA = pathlib.Path(os.environ.get("SETPOINT_TEST_DATA", HERE.parents[2] / "shared" / "data"))


def texts(count):
    rows = json.loads((DATA / "sft" / "alpaca_en_demo.json").read_text())
    found = [text for row in rows for text in (row["instruction"], row["input"], row["output"]) if text]
    return found[:count]


if __name__ == "__main__":
    folder, files = pathlib.Path(sys.argv[1]), [pathlib.Path(file) for file in sys.argv[2:]]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    vocabulary = model.config.vocab_size
    ids = torch.randint(3, vocabulary, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(ids).logits
    for file in files:
        reader = gguf.GGUFReader(file)
        for key, field in reader.fields.items():
            value = field.contents()
            print(" ", key, "=", f"{len(value)} items" if isinstance(value, list) else repr(value)[:70])
        kinds = {}
        for tensor in reader.tensors:
            kinds[tensor.tensor_type.name] = kinds.get(tensor.tensor_type.name, 0) + 1
        loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
        with torch.no_grad():
            difference = (loaded(ids).logits - expected).abs().max().item()
        print(f"{file.name}: tensors {kinds}; largest difference of logits {difference:.3g} of {expected.abs().max().item():.3g}")
        try:
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        except Exception as error:
            print("  transformers makes no tokenizer of it:", repr(error)[:200])
            continue
        own = Tokenizer.from_file(str(folder / "tokenizer.json"))
        own.no_truncation()
        differ = [t for t in texts(1000) if tokenizer.encode(t, add_special_tokens=False) != own.encode(t, add_special_tokens=False).ids]
        print(f"  ids differ for {len(differ)} of {len(texts(1000))} texts", [text[:60] for text in differ[:1]])
