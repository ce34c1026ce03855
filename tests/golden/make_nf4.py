"""NF4 codes, scales and dequantised numbers of bitsandbytes' CPU library, and tiny checkpoints that it quantised.

Needs `pip install --no-deps bitsandbytes==0.50.2` and accelerate. Floats are stored as their bits.

- `nf4/codec.safetensors`: for each case `X.input`, `X.codes`, `X.absmax`, for double quantisation `X.absmax8`, `X.absmax2`, `X.offset`, and
  `X.dequantized` and `X.dequantized_double` in the input's format. `map` is the dynamic map.
- `nf4/<family>_<kind>/`: a checkpoint as transformers saves it (`nf4` with double quantisation, `single` without, `int8`), with
  `expected.safetensors`: `input_ids`, `logits` in f32 arithmetic on the dequantised weights, and for 4 bits `logits_bf16`, computed by
  `Linear4bit` in bf16, with `X.input` and `X.output` of its maps in the second layer for the first row.
"""

import pathlib
import shutil
import tempfile

import bitsandbytes
import bitsandbytes.functional as F
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

ROOT = pathlib.Path(__file__).parent / "nf4"
DTYPES = dict(f32=torch.float32, bf16=torch.bfloat16, f16=torch.float16)


def inputs():
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=generator)
    for name, dtype in DTYPES.items():
        yield f"{name}_whole", (normal(24, 96) * 0.05).to(dtype)
        # Blocks cross rows, and the last one is short; the number of codes is odd.
        yield f"{name}_short", (normal(7, 33) * 3).to(dtype)
    values = F.get_4bit_type("nf4", device="cpu")
    middles = (values[:-1] + values[1:]) / 2
    ties = torch.ones(3, 64)
    for row, side in enumerate((middles, torch.nextafter(middles, torch.tensor(2.0)), torch.nextafter(middles, torch.tensor(-2.0)))):
        ties[row, 1:16] = side
        ties[row, 16:32] = values
    yield "ties", ties
    zeros = normal(4, 80)
    zeros[1:] = 0
    yield "zeros", zeros
    yield "all_zero", torch.zeros(2, 64)
    yield "tiny", normal(5, 50) * torch.logspace(-44, -36, 50)
    yield "huge", normal(2, 64) * 1e37
    # Scales of many sizes, in more than one block of 256 of them.
    yield "scales", normal(300, 64) * torch.logspace(-6, 2, 300)[torch.randperm(300, generator=generator)][:, None]
    # All scales are equal: their distances from the mean are zero.
    yield "equal_scales", torch.ones(5, 64)
    yield "one", torch.tensor([[-0.3]])


def codec():
    tensors = {"map": F.create_dynamic_map()}
    for name, x in inputs():
        codes, single = F.quantize_4bit(x, blocksize=64, quant_type="nf4")
        _, double = F.quantize_4bit(x, blocksize=64, quant_type="nf4", compress_statistics=True)
        tensors |= {
            f"{name}.input": x,
            f"{name}.codes": codes.flatten(),
            f"{name}.absmax": single.absmax,
            f"{name}.absmax8": double.absmax,
            f"{name}.absmax2": double.state2.absmax,
            f"{name}.offset": double.offset.reshape(1),
            f"{name}.dequantized": F.dequantize_4bit(codes, single),
            f"{name}.dequantized_double": F.dequantize_4bit(codes, double),
        }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, ROOT / "codec.safetensors")


def checkpoints():
    sizes = dict(vocab_size=96, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                 max_position_embeddings=64, initializer_range=0.3, bos_token_id=1, eos_token_id=2)
    kinds = dict(
        nf4=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16),
        single=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16),
        int8=BitsAndBytesConfig(load_in_8bit=True),
    )
    ids = torch.randint(3, 96, (2, 11), generator=torch.Generator().manual_seed(3))
    for family, model in (
        ("llama", lambda: LlamaForCausalLM(LlamaConfig(**sizes))),
        ("qwen2", lambda: Qwen2ForCausalLM(Qwen2Config(**sizes, tie_word_embeddings=True))),
    ):
        torch.manual_seed(7)
        model = model().bfloat16()
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                torch.nn.init.normal_(parameter, std=0.5)
        for kind, config in kinds.items():
            folder = ROOT / f"{family}_{kind}"
            with tempfile.TemporaryDirectory() as dense:
                model.save_pretrained(dense)
                quantized = AutoModelForCausalLM.from_pretrained(dense, quantization_config=config, device_map="cpu", dtype=torch.bfloat16)
            quantized.save_pretrained(folder)
            load = lambda: AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", dtype=torch.bfloat16).eval()
            with torch.no_grad():
                expected = {"input_ids": ids, "logits": load().dequantize().float()(ids).logits}
                if kind != "int8":
                    expected |= linear4bit(load(), ids)
            save_file({name: tensor.contiguous() for name, tensor in expected.items()}, folder / "expected.safetensors")


def linear4bit(model, ids):
    """What bitsandbytes computes in bf16 from the codes: logits, and the inputs and outputs of the maps of one layer."""
    found, layer = {}, model.model.layers[1]
    for name, module in layer.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            def keep(_, inputs, output, name=name):
                found[f"{name}.input"], found[f"{name}.output"] = inputs[0][0].float(), output[0].float()

            module.register_forward_hook(keep)
    return {"logits_bf16": model(ids).logits.float()} | found


if __name__ == "__main__":
    torch.set_num_threads(1)
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir()
    codec()
    checkpoints()
