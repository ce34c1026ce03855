"""Tiny reward models (`*ForSequenceClassification` with one label) and Bradley–Terry losses."""

import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification

from make_transformer import VOCAB, gemma3, llama, qwen2

ROOT = pathlib.Path(__file__).parent / "reward"
PAD = 2
CASES = {
    "llama": (llama(num_labels=1, num_key_value_heads=1), 31),
    "qwen2": (qwen2(num_labels=1, tie_word_embeddings=True), 32),
    # The class has another name than that of the language model.
    "gemma3": (gemma3(num_labels=1), 33),
}
# Pairs (chosen, rejected) are rows (0, 1), (2, 3), …
LENGTHS = [12, 7, 3, 15, 1, 9, 20, 20]
MARGINS = [0.5, 0.0, 2.0, -1.0]
CENTER = 0.01
GRADS = [
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.v_proj.weight",
    "model.layers.1.mlp.up_proj.weight",
    "model.norm.weight",
    "score.weight",
]


def build(config, seed):
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").float().eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                # Around 1, or around 0 where the model adds the 1 itself.
                parameter.copy_(parameter + 0.3 * torch.randn(parameter.shape, generator=generator))
            elif name.endswith(".bias"):
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model


def rewards_of(model, rows):
    """Each row alone and unpadded: the last token's score, whatever that token is."""
    model.config.pad_token_id = None
    return torch.cat([model(input_ids=row[None], use_cache=False).logits[:, 0] for row in rows])


def bradley_terry(rewards, margins, center):
    chosen, rejected = rewards[0::2], rewards[1::2]
    losses = -torch.nn.functional.logsigmoid(chosen - rejected - torch.tensor(margins))
    return losses, losses.mean() + center * (chosen + rejected).square().mean()


def make(name, config, seed):
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    model = build(config, seed)
    generator = torch.Generator().manual_seed(seed + 2)
    rows = [torch.randint(3, VOCAB, (n,), generator=generator) for n in LENGTHS]
    # Rows that end with the padding token, which is also the stop token: a pooling that looks for
    # the last token that is no padding picks another one.
    for i in (0, 3, 4, 6):
        rows[i][-1] = PAD
    rows[6][-2] = PAD
    ids = torch.full((len(rows), max(LENGTHS)), PAD)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row

    tensors = {"input_ids": ids, "lengths": torch.tensor(LENGTHS)}
    record = {}
    for key, margins, center in (("plain", [0.0] * 4, 0.0), ("margin_center", MARGINS, CENTER)):
        model.zero_grad()
        rewards = rewards_of(model, rows)
        losses, loss = bradley_terry(rewards, margins, center)
        loss.backward()
        parameters = dict(model.named_parameters())
        norm = torch.sqrt(sum(p.grad.double().square().sum() for p in parameters.values()))
        record[key] = dict(
            margins=margins, center=center, loss=float(loss.detach()), losses=losses.tolist(), grad_norm=float(norm)
        )
        if key == "margin_center":
            tensors |= {f"grad.{name}": parameters[name].grad.clone() for name in GRADS}
    tensors["rewards"] = rewards.detach()

    model.config.pad_token_id = PAD
    model.save_pretrained(folder)
    again = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        assert torch.equal(rewards_of(again.eval(), rows), tensors["rewards"])
    save_file(tensors, folder / "expected.safetensors")
    (folder / "bradley_terry.json").write_text(json.dumps(record, indent=1) + "\n")
    print(name, tensors["rewards"].tolist(), {key: (value["loss"], value["grad_norm"]) for key, value in record.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, (config, seed) in CASES.items():
        make(name, config, seed)
