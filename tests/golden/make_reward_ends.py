"""A tiny reward model, scored as trl trains it: where a template prints a line break after the stop token, and where pad is EOS."""

import json
import pathlib
import shutil

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Qwen2Config

ROOT = pathlib.Path(__file__).parent / "reward_ends"
TOKENIZER = pathlib.Path(__file__).parents[2] / "examples" / "demo" / "tokenizer"
END, PAD = 3, 4
LINE = "{%- for m in messages %}{{- '<|' + m['role'] + '|>' + m['content'] + '<|end|>' + BREAK }}{%- endfor %}"
PROMPT = "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
CASES = {"line_break": ("'\\n'", PAD), "pad_is_eos": ("''", END), "line_break_pad_is_eos": ("'\\n'", END)}
ROWS = [
    ("Which day comes after Friday?", ["Saturday.", "Do not bother me."]),
    ("How much is two and two?", ["The sum is four.", "Saturday.", "It is four, as everybody knows."]),
]


def conversation(prompt, response):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def scores(model, rows, pad):
    """One batch, padded on the right, as trl's collator pads it; transformers finds the place of the score."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0].tolist()


def at_stop(model, rows):
    """Each row alone up to its last stop token."""
    model.config.pad_token_id, pad = None, model.config.pad_token_id
    found = []
    for row in rows:
        cut = len(row) - row[::-1].index(END)
        with torch.no_grad():
            found.append(model(input_ids=torch.tensor([row[:cut]]), use_cache=False).logits[0, 0].item())
    model.config.pad_token_id = pad
    return found


def main():
    torch.set_num_threads(1)
    shutil.rmtree(ROOT, ignore_errors=True)
    torch.manual_seed(41)
    config = Qwen2Config(
        vocab_size=832, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, num_labels=1, initializer_range=0.5, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=END, pad_token_id=PAD,
    )
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").float().eval()
    model.save_pretrained(ROOT)
    expected = {}
    for name, (line_break, pad) in CASES.items():
        tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
        tokenizer.chat_template = LINE.replace("BREAK", line_break) + PROMPT
        rows = [
            tokenizer.apply_chat_template(conversation(prompt, response), tokenize=True, return_dict=False)
            for prompt, responses in ROWS for response in responses
        ]
        model.config.pad_token_id = pad
        expected[name] = {
            "chat_template": tokenizer.chat_template,
            "pad_token_id": pad,
            "pad_token": tokenizer.convert_ids_to_tokens(pad),
            "trl": scores(model, rows, pad),
            "at_stop": at_stop(model, rows),
        }
    document = {"rows": [{"prompt": p, "responses": r} for p, r in ROWS], "cases": expected}
    (ROOT / "expected.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
