"""Tiny checkpoints in other forms than safetensors of bf16 or f32, and the logits of the same weights.

- `weights/bin/`, `weights/sharded/`: `pytorch_model.bin`, one file and two shards with their index, as `torch.save` writes them. The head is
  tied and stored under both names; one matrix is stored as a view with strides.
- `weights/fp8_block/`: `float8_e4m3fn` with a scale for each block of 32 by 32, as DeepSeek's and Qwen's checkpoints have. Matrices do not
  divide into whole blocks.
- `weights/fp8_channel/`, `weights/fp8_tensor/`: the same with a scale for each row, and one for each matrix, as llm-compressor writes them.
- `weights/*/expected.safetensors`: `input_ids` and `logits`, computed by transformers in f32 from weights that torch converted.
- `weights/hostile/`: files that must be refused: `call.bin` calls `os.system`, `bomb.bin` unpacks to a pickle of 8 MiB.
"""

import io
import json
import os
import pathlib
import shutil
import zipfile

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

ROOT = pathlib.Path(__file__).parent / "weights"
SIZES = dict(vocab_size=64, hidden_size=48, intermediate_size=80, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, initializer_range=0.3, bos_token_id=1, eos_token_id=2)
IDS = torch.randint(3, 64, (2, 9), generator=torch.Generator().manual_seed(3))


def expect(model, folder):
    # A new model, whose rotary frequencies were never bf16.
    model_f32 = type(model)(model.config).float().eval()
    model_f32.load_state_dict(model.float().state_dict())
    with torch.no_grad():
        logits = model_f32(IDS).logits
    save_file({"input_ids": IDS, "logits": logits.contiguous()}, folder / "expected.safetensors")


def config(model, folder, **more):
    folder.mkdir(parents=True)
    settings = model.config.to_dict() | dict(architectures=[type(model).__name__], dtype="bfloat16") | more
    (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def pickled():
    torch.manual_seed(5)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)).bfloat16()
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    state = dict(model.state_dict())
    # A view: the numbers of the transposed matrix, read with swapped strides.
    name = "model.layers.0.mlp.down_proj.weight"
    state[name] = state[name].t().contiguous().t()
    assert not state[name].is_contiguous() and "lm_head.weight" in state
    config(model, ROOT / "bin")
    torch.save(state, ROOT / "bin/pytorch_model.bin")
    config(model, ROOT / "sharded")
    names, files = sorted(state), {}
    for i, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :])):
        file = f"pytorch_model-{i + 1:05}-of-00002.bin"
        torch.save({name: state[name].clone() for name in part}, ROOT / "sharded" / file)
        files |= {name: file for name in part}
    index = {"metadata": {"total_size": sum(t.numel() * 2 for t in state.values())}, "weight_map": files}
    (ROOT / "sharded/pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")
    for folder in ("bin", "sharded"):
        expect(model, ROOT / folder)


def scaled(matrix, block, dtype):
    """Codes, scales, and the numbers that they stand for."""
    rows, width = matrix.shape
    down, across = block or (rows, width)
    grid = (-(-rows // down), -(-width // across))
    scales = torch.empty(grid, dtype=dtype)
    for i in range(grid[0]):
        for j in range(grid[1]):
            part = matrix[i * down : (i + 1) * down, j * across : (j + 1) * across]
            scales[i, j] = (part.float().abs().max() / 448).to(dtype)
    each = scales.float().repeat_interleave(down, 0)[:rows].repeat_interleave(across, 1)[:, :width]
    codes = (matrix.float() / each).clamp(-448, 448).to(torch.float8_e4m3fn)
    return codes, scales, (codes.float() * each).bfloat16()


def floats():
    groups = lambda strategy: dict(
        quant_method="compressed-tensors", format="float-quantized", ignore=["lm_head"],
        config_groups={"group_0": {"targets": ["Linear"], "weights": dict(num_bits=8, type="float", strategy=strategy, symmetric=True, dynamic=False)}},
    )
    kinds = {
        "fp8_block": ((32, 32), torch.bfloat16, "weight_scale_inv",
                      dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[32, 32])),
        "fp8_channel": ("row", torch.float32, "weight_scale", groups("channel")),
        "fp8_tensor": (None, torch.bfloat16, "weight_scale", groups("tensor")),
    }
    for kind, (block, dtype, ending, settings) in kinds.items():
        torch.manual_seed(9)
        model = LlamaForCausalLM(LlamaConfig(**SIZES)).bfloat16()
        folder = ROOT / kind
        config(model, folder, quantization_config=settings)
        state, dense = {}, {}
        for name, tensor in model.state_dict().items():
            if name.endswith("_proj.weight"):
                size = (1, tensor.shape[1]) if block == "row" else block
                codes, scales, dense[name] = scaled(tensor, size, dtype)
                state[name] = codes
                state[name.replace("weight", ending)] = scales.reshape(1) if kind == "fp8_tensor" else scales
                if kind == "fp8_tensor":
                    state[name.replace("weight", "input_scale")] = torch.ones(1, dtype=dtype)
            else:
                state[name] = dense[name] = tensor
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors", metadata={"format": "pt"})
        model.load_state_dict(dense)
        expect(model, folder)


class Call:
    def __reduce__(self):
        return os.system, ("touch called-by-a-pickle",)


def hostile():
    folder = ROOT / "hostile"
    folder.mkdir()
    torch.save({"model.norm.weight": Call()}, folder / "call.bin")
    with zipfile.ZipFile(folder / "bomb.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"N" * (8 << 20) + b".")
        archive.writestr("archive/version", b"3\n")
    old = io.BytesIO()
    torch.save({"a": torch.ones(2)}, old, _use_new_zipfile_serialization=False)
    (folder / "old.bin").write_bytes(old.getvalue())


if __name__ == "__main__":
    torch.set_num_threads(1)
    shutil.rmtree(ROOT, ignore_errors=True)
    pickled()
    floats()
    hostile()
