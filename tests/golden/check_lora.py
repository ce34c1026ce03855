"""Checks a PEFT folder that a run left against peft: `check_lora.py ADAPTER ROWS LOGPS`.

ROWS has `prompt` and `responses` as texts; LOGPS is what `setpoint logps --model ADAPTER --data ROWS --output LOGPS
--set model.template=plain --set data.text_prompts=plain` wrote. Prints the largest difference of a response's log-probability from that of
`PeftModel`, in nats, and from that of the model that peft merges.
"""

import json
import pathlib
import sys

import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer


def read(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def logp(model, ids, prompt):
    """The log-probability of what comes behind the prompt."""
    with torch.no_grad():
        logps = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)
    return sum(logps[i - 1, ids[i]].item() for i in range(prompt, len(ids)))


if __name__ == "__main__":
    folder, rows, lines = sys.argv[1], read(sys.argv[2]), read(sys.argv[3])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    texts = []
    for line in lines:
        row = rows[line["row"]]
        ids = tokenizer.encode(row["prompt"] + row["responses"][line["response"]])
        ids += [tokenizer.eos_token_id] * (line["prompt_tokens"] + line["response_tokens"] - len(ids))
        texts.append((ids, line["prompt_tokens"], line["response_logp"]))
    for name in ("adapter", "merged"):
        if name == "merged":
            model = model.merge_and_unload()
        expected = [logp(model, ids, prompt) for ids, prompt, _ in texts]
        difference = max(abs(own - theirs) for (*_, own), theirs in zip(texts, expected))
        print(f"{name}: largest difference {difference:.2e} nats of {max(map(abs, expected)):.1f}, {len(texts)} responses")
