"""How far torch's bf16 is from its f32, in log-probabilities of tokens: the measure for bf16 elsewhere."""

import json
import pathlib

import torch
from transformers import AutoModelForCausalLM

from make_transformer import forward, token_logps

HERE = pathlib.Path(__file__).parent
MODELS = ["llama_bf16", "olmo2_bf16"]


def texts():
    """Eight texts of 5 to 33 tokens in which a token follows from the one before it."""
    rows = []
    for row in range(8):
        ids = [3 * row + 1]
        while len(ids) < 5 + 4 * row:
            ids.append((ids[-1] * 7 + 11 + row % 2) % 96)
        rows.append(ids)
    return rows


def logps(name, dtype):
    model = AutoModelForCausalLM.from_pretrained(HERE / "transformer" / name, dtype=dtype, attn_implementation="eager").eval()
    with torch.no_grad():
        return torch.cat([token_logps(forward(model, row).float(), row) for row in map(torch.tensor, texts())])


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    found = {"texts": texts(), "models": {}}
    for name in MODELS:
        apart = (logps(name, torch.bfloat16) - logps(name, torch.float32)).abs().double()
        found["models"][name] = dict(largest=round(apart.max().item(), 6), mean=round(apart.mean().item(), 6))
    (HERE / "half_precision.json").write_text(json.dumps(found) + "\n")
