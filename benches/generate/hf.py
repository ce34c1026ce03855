"""transformers' generate on given prompts: prints one JSON line with the seconds, the peak memory and the new tokens of each row.

usage: hf.py MODEL PROMPTS MAX_NEW_TOKENS BATCH
"""

import json
import resource
import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(model, prompts, max_new_tokens, batch):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left", pad_token="<unk>")
    with open(prompts) as file:
        texts = [json.loads(line)["prompt"] for line in file]
    model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    stops = model.generation_config.eos_token_id
    stops = stops if isinstance(stops, list) else [stops]
    # Neighbours in length share a batch, so that little is filled up.
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row].split()))
    batches = [order[i:i + int(batch)] for i in range(0, len(order), int(batch))]
    encode = lambda rows: tokenizer([texts[row] for row in rows], return_tensors="pt", padding=True, return_token_type_ids=False)
    generate = lambda inputs, count: model.generate(**inputs, do_sample=False, max_new_tokens=count, pad_token_id=tokenizer.pad_token_id)
    answers = [None] * len(texts)
    with torch.inference_mode():
        generate(encode(order[:2]), 2)
        start = time.perf_counter()
        for rows in batches:
            inputs = encode(rows)
            found = generate(inputs, int(max_new_tokens))[:, inputs["input_ids"].shape[1]:].tolist()
            for row, ids in zip(rows, found):
                end = next((i for i, id in enumerate(ids) if id in stops), len(ids) - 1)
                answers[row] = ids[:end + 1]
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak, "answers": answers, "stops": stops}))


if __name__ == "__main__":
    main(*sys.argv[1:])
