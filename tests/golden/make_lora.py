"""Adapters as peft saves them, with what peft computes from them.

Run from any folder: `python tests/golden/make_lora.py`, after `make_transformer.py` and `make_reward.py`, whose checkpoints
are the bases. Each case is the folder that `save_pretrained` writes, without its README, with one file beside it:

expected.safetensors  logits or scores, loss, gradients and ten optimizer steps in f64, stored in f32; weights that peft merged in f32
"""

import json
import pathlib
import shutil

import peft
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

ROOT = pathlib.Path(__file__).parent
VERSIONS = {"peft": peft.__version__, "torch": torch.__version__}
STEPS = 10
RATE = 2e-3
PLUS_RATIO = 4.0
PREFIX = "base_model.model."

CASES = {
    "llama": dict(base="transformer/llama_kv2", r=4, lora_alpha=8, target_modules="all-linear"),
    "llama_tied": dict(
        base="transformer/llama_kv2_tied", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], use_rslora=True
    ),
    # The second key of each pattern would match what the first one does. Peft sorts the keys when it saves them.
    "qwen2": dict(
        base="transformer/qwen2_head_dim",
        r=4,
        lora_alpha=4,
        target_modules=r".*\.(q|v|down)_proj",
        rank_pattern={"layers.1.self_attn.q_proj": 2, "q_proj": 3},
        alpha_pattern={r"layers\.\d+\.self_attn\.v_proj": 1, "v_proj": 16},
    ),
    "qwen2_tied": dict(
        base="transformer/qwen2_tied",
        r=3,
        lora_alpha=6,
        target_modules=["q_proj", "o_proj", "up_proj", "mlp.down_proj"],
        exclude_modules=["o_proj"],
        layers_to_transform=[1],
    ),
    "llama_tables": dict(
        base="transformer/llama_kv2",
        r=2,
        lora_alpha=4,
        target_modules=["q_proj"],
        modules_to_save=["embed_tokens", "lm_head", "norm"],
    ),
    "llama_bf16": dict(base="transformer/llama_bf16", r=4, lora_alpha=8, target_modules="all-linear"),
    "reward": dict(base="reward/llama", r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="SEQ_CLS"),
    "llama_dora": dict(base="transformer/llama_kv2", r=4, lora_alpha=8, target_modules="all-linear", use_dora=True),
    "qwen2_dora": dict(
        base="transformer/qwen2_tied",
        r=3,
        lora_alpha=2,
        target_modules=["q_proj", "v_proj", "o_proj", "down_proj"],
        use_rslora=True,
        use_dora=True,
    ),
    "llama_dora_bf16": dict(
        base="transformer/llama_bf16", r=4, lora_alpha=8, target_modules="all-linear", use_dora=True
    ),
    "qwen3": dict(base="transformer/qwen3", r=4, lora_alpha=8, target_modules="all-linear"),
    # Queries, keys and values are one map, and so are gate and values.
    "phi3": dict(base="transformer/phi3", r=4, lora_alpha=8, target_modules="all-linear"),
    "gemma3": dict(base="transformer/gemma3", r=3, lora_alpha=6, target_modules=["q_proj", "up_proj"], use_rslora=True),
}


def name(parameter):
    """A parameter's name without peft's prefix, as it is in the file."""
    found = parameter.removeprefix(PREFIX)
    for part in (".default", ".modules_to_save"):
        found = found.replace(part, "")
    return found.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


def trained(model):
    return {name(n): p for n, p in model.named_parameters() if p.requires_grad}


def build(case, seed, dtype):
    options = dict(CASES[case])
    base = options.pop("base")
    task = options.setdefault("task_type", "CAUSAL_LM")
    kind = AutoModelForCausalLM if task == "CAUSAL_LM" else AutoModelForSequenceClassification
    model = kind.from_pretrained(ROOT / base, attn_implementation="eager", dtype=dtype).eval()
    model = get_peft_model(model, LoraConfig(**options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for n, p in sorted(trained(model).items()):
            if n.endswith("lora_magnitude_vector"):
                # In f32, as it is saved.
                p.copy_((p * (1 + 0.1 * torch.randn(p.shape, generator=generator))).float())
            elif "lora_" in n:
                p.copy_(0.1 * torch.randn(p.shape, generator=generator))
            else:
                p.add_(0.1 * torch.randn(p.shape, generator=generator).to(p.dtype))
    return model.eval(), base, task


def save(model, base, folder):
    model.peft_config["default"].base_model_name_or_path = f"../../{base}"
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    # A set, whose order differs from process to process.
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        if isinstance(config[key], list):
            config[key].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def rows(seed, vocabulary):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, vocabulary, (n,), generator=generator) for n in (9, 6, 4)]


def loss_of(model, ids, task):
    """The mean negative log-probability of a row's tokens, or minus the score of a row."""
    logits = model(input_ids=ids[None], use_cache=False).logits[0]
    if task == "SEQ_CLS":
        return -logits.sum()
    logps = torch.log_softmax(logits[:-1].double(), dim=-1).gather(-1, ids[1:, None])
    return -logps.mean()


def after_steps(case, seed, optimizer_of, ids, task):
    model, _, _ = build(case, seed, torch.float64)
    optimizer = optimizer_of(model)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, ids, task).backward()
        optimizer.step()
    return {n: p.detach().clone() for n, p in trained(model).items()}


def make(case, seed):
    folder = ROOT / "lora" / case
    shutil.rmtree(folder, ignore_errors=True)
    half = case.endswith("bf16")
    model, base, task = build(case, seed, torch.bfloat16 if half else torch.float32)
    save(model, base, folder)
    expected = {}
    ids = rows(seed, model.config.vocab_size)
    width = max(len(row) for row in ids)
    padded = torch.zeros(len(ids), width, dtype=torch.int64)
    for i, row in enumerate(ids):
        padded[i, : len(row)] = row
    expected["input_ids"] = padded
    expected["lengths"] = torch.tensor([len(row) for row in ids])
    if not half:
        exact, _, _ = build(case, seed, torch.float64)
        found = [exact(input_ids=row[None], use_cache=False).logits[0].detach() for row in ids]
        if task == "SEQ_CLS":
            expected["scores"] = torch.cat(found)
        else:
            expected["logits"] = torch.stack([torch.nn.functional.pad(z, (0, 0, 0, width - len(z))) for z in found])
        loss = loss_of(exact, ids[0], task)
        loss.backward()
        expected["loss"] = loss.detach()[None]
        for n, p in trained(exact).items():
            expected[f"grad.{n}"] = p.grad.clone()
        adamw = lambda model: torch.optim.AdamW(trained(model).values(), lr=RATE, weight_decay=0.0)
        plus = lambda model: create_loraplus_optimizer(
            model, torch.optim.AdamW, lr=RATE, loraplus_lr_ratio=PLUS_RATIO, loraplus_weight_decay=0.0
        )
        for kind, optimizer in (("after", adamw), ("plus", plus)):
            # peft gives embeddings a rate of their own there, which is not followed.
            if kind == "plus" and case == "llama_tables":
                continue
            for n, p in after_steps(case, seed, optimizer, ids[0], task).items():
                expected[f"{kind}.{n}"] = p
    merged = model.merge_and_unload()
    for n, p in merged.named_parameters():
        expected[f"merged.{n}"] = p.detach().clone()
    single = lambda v: v.float() if v.dtype == torch.float64 else v
    save_file({k: single(v).contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    print(case, len(expected))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for i, case in enumerate(CASES):
        make(case, 100 + i)
    (ROOT / "lora" / "versions.json").write_text(json.dumps(VERSIONS, indent=2) + "\n")
