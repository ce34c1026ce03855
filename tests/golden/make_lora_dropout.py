"""What peft computes from adapters in training, with the masks of Setpoint in the place of `nn.Dropout`.

Run from any folder: `python tests/golden/make_lora_dropout.py`, after `make_lora.py`, whose adapters these are. The masks are made here
a second time, from their description in docs/ADAPTERS.md and in the code, in plain Python.

lora_dropout/CASE.safetensors  a row, its logits, the loss and all gradients in f64, stored in f32
"""

import json
import pathlib

import peft
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from make_lora import PREFIX, ROOT, loss_of, rows, trained

RATE = 0.3
SEED, STEP = 7, 5
CASES = ["llama", "llama_dora", "qwen2_dora"]

WORD = (1 << 64) - 1
HALF = (1 << 32) - 1


def extend(key, number):
    """The output of SplitMix64 in the state `key ^ number`."""
    z = ((key ^ number) + 0x9E3779B97F4A7C15) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def fnv(text):
    key = 0xCBF29CE484222325
    for byte in text.encode():
        key = ((key ^ byte) * 0x100000001B3) & WORD
    return key


def keeps(key, column):
    z = (column * 0x9E3779B9 + (key & HALF)) & HALF
    z = ((z ^ (z >> 16)) * 0x7FEB352D & HALF) ^ (key >> 32)
    z = (z ^ (z >> 15)) * 0x846CA68B & HALF
    return z ^ (z >> 16) >= round(RATE * 2**32)


class Masked(torch.nn.Module):
    """Dropout of one row of tokens in the linear map at `path`."""

    def __init__(self, path, ids):
        super().__init__()
        key, self.rows = extend(extend(0, SEED), STEP), []
        for token in ids.tolist():
            key = extend(key, token)
            self.rows.append(extend(key, fnv(path)))

    def forward(self, x):
        mask = [[keeps(row, column) for column in range(x.shape[-1])] for row in self.rows]
        return x * torch.tensor(mask, dtype=x.dtype) / (1 - RATE)


def make(case, seed):
    folder = ROOT / "lora" / case
    base = (folder / json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]).resolve()
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager", dtype=torch.float64)
    model = PeftModel.from_pretrained(model, folder, is_trainable=True).double().train()
    ids = rows(seed, model.config.vocab_size)[0]
    masked = 0
    for path, module in model.named_modules():
        if hasattr(module, "lora_dropout") and len(module.lora_dropout):
            module.lora_dropout["default"] = Masked(path.removeprefix(PREFIX), ids)
            masked += 1
    assert masked, case
    logits = model(input_ids=ids[None], use_cache=False).logits[0].detach()
    loss = loss_of(model, ids, "CAUSAL_LM")
    loss.backward()
    expected = {"input_ids": ids, "logits": logits.float(), "loss": loss.detach()[None].float()}
    for n, p in trained(model).items():
        expected[f"grad.{n}"] = p.grad.float()
    out = ROOT / "lora_dropout"
    out.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in expected.items()}, out / f"{case}.safetensors")
    print(case, masked, loss.item())


if __name__ == "__main__":
    torch.set_num_threads(1)
    for i, case in enumerate(CASES):
        make(case, 200 + i)
    versions = {"peft": peft.__version__, "torch": torch.__version__}
    (ROOT / "lora_dropout" / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")
