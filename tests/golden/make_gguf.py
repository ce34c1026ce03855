"""GGUF files of the tiny checkpoints and of real tokenizers, as the `gguf` package writes them.

`gguf.json`:
- `files`: for each checkpoint of `transformer/` and each number format, the SHA-256 of the whole file without a tokenizer.
- `q8_0`: rows and the bytes of `gguf.quants.quantize`.
- `tokenizers`: the entries that llama.cpp's converter makes of a tokenizer. Lists are hashed: SHA-256 of the items with a zero byte after
  each. The tokenizers are read from the folder that SETPOINT_TEST_DATA names, else from `../shared/data` beside the project's root.
"""

import hashlib
import json
import os
import pathlib
import tempfile

import gguf
import numpy as np
import torch
from safetensors.torch import load_file

HERE = pathlib.Path(__file__).parent
DATA = pathlib.Path(os.environ.get("SETPOINT_TEST_DATA", HERE.parents[2] / "shared" / "data"))
CASES = ["llama_kv1", "llama_kv2", "llama_kv2_tied", "llama_head_dim", "llama31_rope", "llama_bf16", "llama_f16", "qwen2_tied", "qwen2_head_dim"]
FORMATS = dict(
    f32=(gguf.LlamaFileType.ALL_F32, gguf.GGMLQuantizationType.F32),
    f16=(gguf.LlamaFileType.MOSTLY_F16, gguf.GGMLQuantizationType.F16),
    bf16=(gguf.LlamaFileType.MOSTLY_BF16, gguf.GGMLQuantizationType.BF16),
    q8_0=(gguf.LlamaFileType.MOSTLY_Q8_0, gguf.GGMLQuantizationType.Q8_0),
)
SUFFIXES = [
    "input_layernorm.weight", "post_attention_layernorm.weight",
    *(f"self_attn.{x}_proj.{part}" for x in "qkvo" for part in ("weight", "bias")),
    *(f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")),
]


def permute(weights, heads):
    """llama.cpp's order of the rows of queries and keys."""
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def rope_factors(config):
    rope = config["rope_parameters"]
    n, context = config["head_dim"], rope["original_max_position_embeddings"]
    factors = []
    for i in range(0, n, 2):
        wavelength = 2 * np.pi * rope["rope_theta"] ** (i / n)
        if wavelength < context / rope["high_freq_factor"]:
            factors.append(1.0)
        elif wavelength > context / rope["low_freq_factor"]:
            factors.append(rope["factor"])
        else:
            smooth = (context / wavelength - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def export(folder, path, format, name="tiny", further=None):
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    architecture = config["model_type"]
    file_type, data_type = FORMATS[format]
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    n = config.get("head_dim") or config["hidden_size"] // heads
    w = gguf.GGUFWriter(path, architecture)
    w.add_name(name)
    w.add_file_type(file_type)
    if format == "q8_0":
        w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_block_count(config["num_hidden_layers"])
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_key_length(n)
    w.add_value_length(n)
    w.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    if architecture == "llama":
        w.add_vocab_size(config["vocab_size"])
        w.add_rope_dimension_count(n)
    if further:
        further(w)
    if config["rope_parameters"]["rope_type"] == "llama3":
        w.add_tensor("rope_freqs.weight", rope_factors(config))
    arch = dict(llama=gguf.MODEL_ARCH.LLAMA, qwen2=gguf.MODEL_ARCH.QWEN2)[architecture]
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    order = ["model.embed_tokens.weight"]
    order += [f"model.layers.{i}.{suffix}" for i in range(config["num_hidden_layers"]) for suffix in SUFFIXES]
    order += ["model.norm.weight"] + ([] if config["tie_word_embeddings"] else ["lm_head.weight"])
    for key in order:
        if key not in tensors:
            assert key.endswith("bias"), key
            continue
        values = tensors[key].to(torch.float32).numpy()
        if architecture == "llama" and ".q_proj." in key:
            values = permute(values, heads)
        if architecture == "llama" and ".k_proj." in key:
            values = permute(values, kv)
        values = np.ascontiguousarray(values)
        type = data_type if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        try:
            data = gguf.quants.quantize(values, type)
        except gguf.QuantError:
            type = gguf.GGMLQuantizationType.F16
            data = gguf.quants.quantize(values, type)
        w.add_tensor(names.get_name(key, try_suffixes=(".weight", ".bias")), data, raw_dtype=type)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def hashed(items):
    hash = hashlib.sha256()
    for item in items:
        hash.update(item.encode() + b"\0")
    return hash.hexdigest()


def byte_level(file, size):
    """As `get_vocab_base` of llama.cpp's converter."""
    tokenizer = json.loads(file.read_text())
    vocab = {id: token for token, id in tokenizer["model"]["vocab"].items()}
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    tokens, kinds = [], []
    for id in range(size):
        if id in added:
            tokens.append(added[id]["content"])
            kinds.append(int(gguf.TokenType.CONTROL if added[id]["special"] else gguf.TokenType.USER_DEFINED))
        elif id in vocab:
            tokens.append(vocab[id])
            kinds.append(int(gguf.TokenType.NORMAL))
        else:
            tokens.append(f"[PAD{id}]")
            kinds.append(int(gguf.TokenType.UNUSED))
    vocab = gguf.SpecialVocab(file.parent, load_merges=True)
    return dict(size=size, model="gpt2", tokens=hashed(tokens), kinds=hashed(map(str, kinds)), merges=hashed(vocab.merges), last=tokens[-1])


if __name__ == "__main__":
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            for format in FORMATS:
                path = pathlib.Path(folder) / "file.gguf"
                export(HERE / "transformer" / case, path, format)
                files.setdefault(case, {})[format] = hashlib.sha256(path.read_bytes()).hexdigest()
    # Numbers whose quotients are halves, all zeros, tiny and huge ones, and ordinary ones.
    rows = np.random.default_rng(0).standard_normal((6, 32)).astype(np.float32)
    rows[1] = 0
    rows[2] = np.arange(32) * 0.5 - 8
    rows[2, 0] = 127
    rows[3] *= 1e-30
    rows[4] *= 1e5
    rows[5, 1:] = 1e-12
    blocks = gguf.quants.quantize(rows, gguf.GGMLQuantizationType.Q8_0)
    tokenizers = {}
    for name, pre, size in (("gpt2", "gpt-2", 50260), ("llama3", "llama-bpe", 128256)):
        file = DATA / "tokenizers" / name / "tokenizer.json"
        tokenizers[f"tokenizers/{name}"] = dict(pre=pre, **byte_level(file, size))
    golden = dict(
        versions=dict(gguf="0.19.0", numpy=np.__version__, torch=torch.__version__.split("+")[0]),
        files=files,
        q8_0=[dict(row=[float(x) for x in row], bytes=block.tobytes().hex()) for row, block in zip(rows, blocks)],
        tokenizers=tokenizers,
    )
    (HERE / "gguf.json").write_text(json.dumps(golden, indent=1) + "\n")
