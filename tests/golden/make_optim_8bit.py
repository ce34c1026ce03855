"""bitsandbytes' AdamW8bit on a small problem with given gradients, its codes and its values.

The kernels are those that bitsandbytes has for every device, written in torch: its compiled one for CPUs looks codes up in a coarse table and
misses the nearest value in one case of twenty, unlike the one for CUDA.
"""

import ctypes
import json
import pathlib

import torch
from safetensors.torch import save_file

# Without its library, bitsandbytes takes the kernels in torch on the CPU, too.
load = ctypes.cdll.LoadLibrary


def refuse(name, *rest):
    if "bitsandbytes" in str(name):
        raise OSError("left out on purpose")
    return load(name, *rest)


ctypes.cdll.LoadLibrary = refuse
import bitsandbytes as bnb  # noqa: E402
from bitsandbytes import functional  # noqa: E402

ROOT = pathlib.Path(__file__).parent / "optim"
STEPS = 10
LR, BETAS, EPS, DECAY = 2e-2, (0.9, 0.995), 1e-8, 0.1


def main():
    generator = torch.Generator().manual_seed(3)
    scales = torch.tensor([0.1, 3.0, 1.0, 0.2, 0.5, 10.0, 0.3, 0.2, 0.6, 1.0])
    # 72 · 64 = 18 blocks of 256; the vector has fewer than 4096 numbers.
    given = {
        "matrix": torch.randn(STEPS, 72, 64, generator=generator) * scales[:, None, None],
        "vector": torch.randn(STEPS, 5, generator=generator) * scales[:, None],
    }
    # Numbers of different size in one block, and a block of zeros.
    given["matrix"] *= torch.exp(0.5 * torch.randn(72, 64, generator=generator))
    given["matrix"][:, :4] = 0.0
    start = {"matrix": torch.randn(72, 64, generator=generator), "vector": torch.randn(5, generator=generator)}
    parameters = {key: torch.nn.Parameter(value.clone()) for key, value in start.items()}
    optimizer = bnb.optim.AdamW8bit(
        [
            dict(params=[parameters["matrix"]], weight_decay=DECAY),
            dict(params=[parameters["vector"]], weight_decay=0.0),
        ],
        lr=LR, betas=BETAS, eps=EPS,
    )
    after = {key: [] for key in parameters}
    for step in range(STEPS):
        for key, parameter in parameters.items():
            parameter.grad = given[key][step].clone()
        optimizer.step()
        for key, parameter in parameters.items():
            after[key].append(parameter.detach().clone())
    state = optimizer.state[parameters["matrix"]]
    assert state["state1"].dtype == torch.uint8 and optimizer.state[parameters["vector"]]["state1"].dtype == torch.float32
    # `state2` is the second moment: its values are not negative.
    tensors = {
        "codes.signed": functional.create_dynamic_map(signed=True),
        "codes.unsigned": functional.create_dynamic_map(signed=False),
        "matrix.exp_avg": state["state1"].clone(), "matrix.exp_avg.scales": state["absmax1"].clone(),
        "matrix.exp_avg_sq": state["state2"].clone(), "matrix.exp_avg_sq.scales": state["absmax2"].clone(),
    }
    for key in parameters:
        tensors[f"{key}.init"] = start[key]
        tensors[f"{key}.grad"] = given[key]
        tensors[f"{key}.after"] = torch.stack(after[key])
    save_file(tensors, ROOT / "adamw_8bit.safetensors")
    record = dict(lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, bitsandbytes=bnb.__version__, torch=torch.__version__)
    (ROOT / "adamw_8bit.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
