"""torch's AdamW and transformers' learning-rate schedules on a small problem with given gradients."""

import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

ROOT = pathlib.Path(__file__).parent / "optim"
STEPS = 10
SCHEDULES = {
    "cosine": get_cosine_schedule_with_warmup,
    "linear": get_linear_schedule_with_warmup,
    "constant": lambda optimizer, warmup, total: get_constant_schedule_with_warmup(optimizer, warmup),
}
# (schedule, warm-up steps, total steps, learning rate)
TABLES = [(name, warmup, total, lr) for name in SCHEDULES for warmup, total, lr in
          [(3, 10, 5e-2), (0, 10, 1e-3), (7, 61, 5e-7), (10, 10, 2e-5), (0, 1, 1e-4)]]

# The matrix decays, the vector does not. Gradients differ in scale from step to step, so that the
# clipping at 1.0 acts in some steps and not in others.
RUNS = {
    "adamw_cosine_clip": dict(schedule="cosine", warmup=3, lr=5e-2, decay=0.1, betas=(0.9, 0.999), clip=1.0),
    "adamw_linear": dict(schedule="linear", warmup=0, lr=2e-2, decay=0.0, betas=(0.9, 0.95), clip=None),
}


def learning_rates(name, warmup, total, lr):
    """The rate that each optimizer step uses: `scheduler.step()` comes after `optimizer.step()`."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = SCHEDULES[name](optimizer, warmup, total)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def run(name, seed, schedule, warmup, lr, decay, betas, clip):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.tensor([0.1, 3.0, 1.0, 0.02, 1e-4, 10.0, 0.3, 0.2, 1e-6, 1.0])
    given = {
        "matrix": torch.randn(STEPS, 4, 3, generator=generator) * scales[:, None, None],
        "vector": torch.randn(STEPS, 5, generator=generator) * scales[:, None],
    }
    start = {"matrix": torch.randn(4, 3, generator=generator), "vector": torch.randn(5, generator=generator)}
    parameters = {key: torch.nn.Parameter(value.clone()) for key, value in start.items()}
    optimizer = torch.optim.AdamW(
        [
            dict(params=[parameters["matrix"]], weight_decay=decay),
            dict(params=[parameters["vector"]], weight_decay=0.0),
        ],
        lr=lr, betas=betas, eps=1e-8, foreach=False, fused=False,
    )
    scheduler = SCHEDULES[schedule](optimizer, warmup, STEPS)
    after = {key: [] for key in parameters}
    norms, rates = [], []
    for step in range(STEPS):
        for key, parameter in parameters.items():
            parameter.grad = given[key][step].clone()
        norms.append(torch.nn.utils.clip_grad_norm_(list(parameters.values()), clip or float("inf"), foreach=False))
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
        for key, parameter in parameters.items():
            after[key].append(parameter.detach().clone())
    assert clip is None or 0 < sum(float(n) > clip for n in norms) < STEPS

    tensors = {"grad_norm": torch.stack(norms)}
    for key in parameters:
        tensors[f"{key}.init"] = start[key]
        tensors[f"{key}.grad"] = given[key]
        tensors[f"{key}.after"] = torch.stack(after[key])
    save_file(tensors, ROOT / f"{name}.safetensors")
    record = dict(
        schedule=schedule, warmup_steps=warmup, total_steps=STEPS, learning_rate=lr, betas=betas, eps=1e-8,
        weight_decay={"matrix": decay, "vector": 0.0}, max_grad_norm=clip, lr=rates,
    )
    (ROOT / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    ROOT.mkdir(exist_ok=True)
    for seed, (name, options) in enumerate(RUNS.items()):
        run(name, seed, **options)
    lines = [
        json.dumps(dict(schedule=name, warmup_steps=warmup, total_steps=total, learning_rate=lr,
                        lr=learning_rates(name, warmup, total, lr)))
        for name, warmup, total, lr in TABLES
    ]
    (ROOT / "schedules.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
