#!/usr/bin/env python3
"""Trains the demo's byte-level BPE tokenizer on the data that make_data.py wrote. Needs `pip install tokenizers==0.23.3`.

The result has 256 bytes, 5 special tokens and merges up to VOCAB_SIZE, so that most words of the data are one token while
any other text still encodes.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).resolve().parent
VOCAB_SIZE = 832
BEGIN, USER, ASSISTANT, END, PAD = SPECIAL = ["<|begin|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"]

# Only the two roles that the model is trained on. The prompt ends with the header of the answer, so `<|end|>` is the last
# token of a response and nothing follows it.
CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] not in ['user', 'assistant'] %}
        {{- raise_exception('the demo template knows the roles user and assistant, not ' + message['role']) }}
    {%- endif %}
    {{- '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
{%- endif %}
"""


def texts():
    for name in ("pretrain/sft.jsonl", "preferences.jsonl", "responses.jsonl"):
        for line in (HERE / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            lists = [row.get("messages", []), row.get("prompt", []), row.get("chosen", []), row.get("rejected", [])]
            for messages in lists + row.get("responses", []):
                for message in messages:
                    yield message["content"]


def main():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Each text once: the pieces of frequent answers should not crowd out the rare words.
    tokenizer.train_from_iterator(sorted(set(texts())), trainer)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE, tokenizer.get_vocab_size()

    out = HERE / "tokenizer"
    out.mkdir(exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": [USER, ASSISTANT],
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 256,
        "chat_template": CHAT_TEMPLATE,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
