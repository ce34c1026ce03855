"""GGUF files of the tiny checkpoints and of real tokenizers, as the `gguf` package writes them.

`gguf.json`:
- `files`: for each checkpoint of `transformer/` and each number format, the SHA-256 of the whole file without a tokenizer.
- `q8_0`: rows and the bytes of `gguf.quants.quantize`.
- `tokenizers`: the entries that llama.cpp's converter makes of a tokenizer. Lists are hashed: SHA-256 of the items with a zero byte after
  each. The tokenizers are read from the folder that SETPOINT_TEST_DATA names, else from `../shared/data` beside the project's root.

`make_gguf.py --for-llama-cpp DIR` writes the files of the checkpoints in f32, with the keys of a dummy tokenizer, for `check_llama_cpp.mjs`.
"""

import hashlib
import json
import os
import pathlib
import sys
import tempfile

import gguf
import numpy as np
import torch
from safetensors.torch import load_file

HERE = pathlib.Path(__file__).parent
DATA = pathlib.Path(os.environ.get("SETPOINT_TEST_DATA", HERE.parents[2] / "shared" / "data"))
CASES = [
    "llama_kv1", "llama_kv2", "llama_kv2_tied", "llama_head_dim", "llama31_rope", "llama_bf16", "llama_f16", "qwen2_tied",
    "mistral_head_dim", "mistral_window", "qwen3", "qwen3_tied", "olmo2", "olmo2_bf16", "smollm3_pattern", "granite", "granite_tied", "phi3",
    "phi3_longrope", "gemma2_published", "gemma3_published", "ministral3", "ministral3_bf16",
]
# llama.cpp's name of a family's architecture where it is another one.
ARCHITECTURES = dict(mistral="llama", ministral3="mistral3", gemma3_text="gemma3")
# The architectures of which llama.cpp turns neighbouring numbers of a head, and whose files state some more sizes.
TURNS_NEIGHBOURS = ["llama", "mistral3", "smollm3", "granite"]
STATES_SIZES = [*TURNS_NEIGHBOURS, "phi3"]
FORMATS = dict(
    f32=(gguf.LlamaFileType.ALL_F32, gguf.GGMLQuantizationType.F32),
    f16=(gguf.LlamaFileType.MOSTLY_F16, gguf.GGMLQuantizationType.F16),
    bf16=(gguf.LlamaFileType.MOSTLY_BF16, gguf.GGMLQuantizationType.BF16),
    q8_0=(gguf.LlamaFileType.MOSTLY_Q8_0, gguf.GGMLQuantizationType.Q8_0),
)
SUFFIXES = [
    *(f"{x}_layernorm.weight" for x in ("input", "post_attention", "pre_feedforward", "post_feedforward")),
    *(f"self_attn.{x}_norm.weight" for x in "qk"),
    *(f"self_attn.{x}_proj.{part}" for x in ("qkv", "q", "k", "v", "o") for part in ("weight", "bias")),
    *(f"mlp.{x}_proj.{part}" for x in ("gate_up", "gate", "up", "down") for part in ("weight", "bias")),
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


def add_keys(w, config, architecture):
    """The keys that describe a model, as the converter of llama.cpp names them."""
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    n = config.get("head_dim") or config["hidden_size"] // heads
    rope = config["rope_parameters"]
    rope = rope.get("full_attention", rope)
    w.add_block_count(config["num_hidden_layers"])
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_key_length(n)
    w.add_value_length(n)
    w.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "longrope":
        original = rope["original_max_position_embeddings"]
        scale = config["max_position_embeddings"] / original
        w.add_rope_scaling_orig_ctx_len(original)
        w.add_rope_scaling_attn_factors(np.sqrt(1 + np.log(scale) / np.log(original)))
    if architecture == "mistral3":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(rope["factor"])
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        w.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast", 32.0))
        w.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow", 1.0))
        w.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
        w.add_attn_temperature_scale(rope["llama_4_scaling_beta"])
    if architecture in STATES_SIZES:
        w.add_vocab_size(config["vocab_size"])
        w.add_rope_dimension_count(int(n * rope.get("partial_rotary_factor", 1.0)))
    if architecture in ("gemma2", "gemma3"):
        w.add_sliding_window(config["sliding_window"])
    if architecture == "phi3":
        # None, and so the default of older versions of llama.cpp does not apply.
        w.add_sliding_window(0)
    if architecture == "gemma2":
        w.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        w.add_final_logit_softcapping(config["final_logit_softcapping"])
    if architecture == "granite":
        w.add_attention_scale(config["attention_multiplier"])
        w.add_embedding_scale(config["embedding_multiplier"])
        w.add_residual_scale(config["residual_multiplier"])
        w.add_logit_scale(config["logits_scaling"])


def export(folder, path, format, name="tiny", further=None):
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    architecture = ARCHITECTURES.get(config["model_type"], config["model_type"])
    file_type, data_type = FORMATS[format]
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    w = gguf.GGUFWriter(path, architecture)
    w.add_name(name)
    w.add_file_type(file_type)
    if format == "q8_0":
        w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_keys(w, config, architecture)
    if further:
        further(w)
    rope = config["rope_parameters"]
    if rope.get("rope_type") == "llama3":
        w.add_tensor("rope_freqs.weight", rope_factors(config))
    if rope.get("rope_type") == "longrope":
        for kind in ("long", "short"):
            w.add_tensor(f"rope_factors_{kind}.weight", np.array(rope[f"{kind}_factor"], dtype=np.float32))
    arch = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    order = ["model.embed_tokens.weight"]
    order += [f"model.layers.{i}.{suffix}" for i in range(config["num_hidden_layers"]) for suffix in SUFFIXES]
    order += ["model.norm.weight"] + ([] if config["tie_word_embeddings"] else ["lm_head.weight"])
    assert set(order) >= set(tensors)
    for key in order:
        if key not in tensors:
            continue
        values = tensors[key].to(torch.float32).numpy()
        if architecture in TURNS_NEIGHBOURS and ".q_proj." in key:
            values = permute(values, heads)
        if architecture in TURNS_NEIGHBOURS and ".k_proj." in key:
            values = permute(values, kv)
        if architecture in ("gemma2", "gemma3") and key.endswith("norm.weight"):
            values = values + np.float32(1)
        values = np.ascontiguousarray(values)
        type = data_type if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        try:
            data = gguf.quants.quantize(values, type)
        except gguf.QuantError:
            type = gguf.GGMLQuantizationType.F16
            data = gguf.quants.quantize(values, type)
        ours = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert ours, key
        w.add_tensor(ours, data, raw_dtype=type)
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


def dummy_vocabulary(size):
    """Keys of a tokenizer without which llama.cpp loads no file. The checks give it ids, not text."""

    def add(w):
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("gpt-2")
        # Printable characters, and a merge, which there has to be.
        w.add_token_list(["<unk>", "<s>", "</s>"] + [chr(ord("!") + i) for i in range(size - 4)] + ["ab"])
        w.add_token_types(3 * [gguf.TokenType.CONTROL] + (size - 3) * [gguf.TokenType.NORMAL])
        w.add_token_merges(["a b"])
        w.add_bos_token_id(1)
        # A greedy path does not stop.
        w.add_eos_token_id(0)

    return add


def make_longrope(folder):
    """A model like `phi3_longrope` whose original context is the smallest that llama.cpp has."""
    from make_transformer import build, greedy, longrope, phi3

    positions = dict(original_max_position_embeddings=256, max_position_embeddings=1024)
    config = phi3(hidden_size=64, initializer_range=0.12, tie_word_embeddings=True, rope_parameters=longrope(), **positions)
    model = build(config, 90000)
    rows, _ = greedy(model, 90000)
    model.save_pretrained(folder)
    (folder / "greedy.json").write_text(json.dumps(dict(max_new_tokens=len(rows[0]["greedy"]), rows=rows)))


def write_for_llama_cpp(root):
    """Writes every case to ROOT/CASE.gguf, for `check_llama_cpp.mjs`."""
    root.mkdir(parents=True, exist_ok=True)
    make_longrope(root / "phi3_longrope")
    for case in CASES:
        folder = root / case if (root / case).is_dir() else HERE / "transformer" / case
        size = json.loads((folder / "config.json").read_text())["vocab_size"]
        export(folder, root / f"{case}.gguf", "f32", further=dummy_vocabulary(size))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--for-llama-cpp"]:
        write_for_llama_cpp(pathlib.Path(sys.argv[2]))
        sys.exit()
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
