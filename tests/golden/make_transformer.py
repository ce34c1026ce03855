"""Tiny random checkpoints of each family, with what transformers computes from them.

Run from any folder: `python tests/golden/make_transformer.py`. Each case is a Hugging Face
folder as `save_pretrained` writes it, with three files beside it:

config_v4.json        the same config with the keys of transformers 4
expected.safetensors  logits, token log-probabilities and gradients
greedy.json           greedy continuations
"""

import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    Ministral3Config,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

ROOT = pathlib.Path(__file__).parent / "transformer"
VOCAB = 96
MAX_NEW_TOKENS = 20
REPETITION_PENALTY = 1.3
# The smallest gap between the best and the second best logit along every greedy path: wide enough
# that rounding in another implementation cannot flip a choice.
MIN_GREEDY_GAP = 5e-3

BASE = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    initializer_range=0.3,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=None,
)
THETA_1E4 = dict(rope_type="default", rope_theta=10000.0)
LLAMA3_ROPE = dict(
    rope_type="llama3",
    rope_theta=500.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)


def llama(**changes):
    return LlamaConfig(**{**BASE, "rope_parameters": dict(THETA_1E4), **changes})


def qwen2(**changes):
    rope = dict(rope_type="default", rope_theta=1000000.0)
    return Qwen2Config(**{**BASE, "rms_norm_eps": 1e-6, "rope_parameters": rope, **changes})


def mistral(**changes):
    return MistralConfig(**{**BASE, "rope_parameters": dict(THETA_1E4), **changes})


def qwen3(**changes):
    rope = dict(rope_type="default", rope_theta=1000000.0)
    return Qwen3Config(**{**BASE, "rms_norm_eps": 1e-6, "head_dim": 12, "rope_parameters": rope, **changes})


def olmo2(**changes):
    return Olmo2Config(**{**BASE, "rope_parameters": dict(THETA_1E4), **changes})


def smollm3(**changes):
    rope = dict(rope_type="default", rope_theta=2000000.0)
    return SmolLM3Config(**{**BASE, "tie_word_embeddings": True, "rope_parameters": rope, **changes})


def granite(**changes):
    return GraniteConfig(
        **{
            **BASE,
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.11,
            "residual_multiplier": 0.22,
            "logits_scaling": 3.0,
            "rope_parameters": dict(THETA_1E4),
            **changes,
        }
    )


def phi3(**changes):
    return Phi3Config(**{**BASE, "rope_parameters": dict(THETA_1E4), **changes})


def longrope():
    """Phi-4-mini's: three quarters of a head turn, so 6 pairs of a head of 16."""
    return dict(
        rope_type="longrope",
        rope_theta=10000.0,
        partial_rotary_factor=0.75,
        short_factor=[1.0, 1.1, 1.25, 1.5, 1.8, 2.5],
        long_factor=[1.0, 1.3, 2.0, 4.0, 9.0, 20.0],
    )


def yarn():
    return dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64)


def ministral3(**changes):
    """YaRN, and queries that have another factor after each 16 positions. 0.1 is published, and hides little."""
    rope = yarn() | dict(original_max_position_embeddings=16, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.5)
    return Ministral3Config(**{**BASE, "head_dim": 12, "rope_parameters": rope, **changes})


def gemma2(**changes):
    return Gemma2Config(
        **{
            **BASE,
            "head_dim": 12,
            "query_pre_attn_scalar": 20,
            "sliding_window": 7,
            "attn_logit_softcapping": 4.0,
            "final_logit_softcapping": 6.0,
            "tie_word_embeddings": True,
            "rope_parameters": dict(THETA_1E4),
            **changes,
        }
    )


def gemma3(**changes):
    rope = dict(
        full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
        sliding_attention=dict(rope_type="default", rope_theta=10000.0),
    )
    return Gemma3TextConfig(
        **{
            **BASE,
            "head_dim": 12,
            "query_pre_attn_scalar": 20,
            "sliding_window": 7,
            "layer_types": ["sliding_attention", "full_attention"],
            "tie_word_embeddings": True,
            "rope_parameters": rope,
            **changes,
        }
    )


CASES = {
    "llama_kv1": dict(config=llama(num_key_value_heads=1)),
    "llama_kv1_tied": dict(config=llama(num_key_value_heads=1, tie_word_embeddings=True)),
    "llama_kv2": dict(config=llama(num_key_value_heads=2)),
    "llama_kv2_tied": dict(config=llama(num_key_value_heads=2, tie_word_embeddings=True)),
    "llama_kv4": dict(config=llama(num_key_value_heads=4)),
    "llama_kv4_tied": dict(config=llama(num_key_value_heads=4, tie_word_embeddings=True)),
    "llama_head_dim": dict(config=llama(head_dim=12, tie_word_embeddings=True)),
    # head_dim 16 and theta 500 put frequencies into each of the three bands of the scaling: kept
    # (wavelength < 32/4), interpolated, and divided by the factor (wavelength > 32/1).
    "llama31_rope": dict(
        config=llama(head_dim=16, tie_word_embeddings=True, rope_parameters=dict(LLAMA3_ROPE)),
        lengths=[44, 40, 9],
    ),
    "qwen2_tied": dict(config=qwen2(tie_word_embeddings=True)),
    "qwen2_head_dim": dict(config=qwen2(num_key_value_heads=1, head_dim=12)),
    # EuroLLM: untied, twice as many query heads as KV heads, theta 1e4, pad = unk.
    "eurollm": dict(config=llama(num_key_value_heads=2, hidden_size=40, head_dim=10, pad_token_id=0)),
    "llama_sharded": dict(config=llama(), max_shard_size="32KB"),
    "llama_bf16": dict(config=llama(), dtype=torch.bfloat16),
    "llama_f16": dict(config=llama(tie_word_embeddings=True), dtype=torch.float16),
    # Mistral 7B v0.3: no window. A window as long as the longest text hides nothing.
    "mistral_head_dim": dict(config=mistral(sliding_window=None, head_dim=12)),
    "mistral_window": dict(config=mistral(sliding_window=256, num_key_value_heads=1)),
    "qwen3": dict(config=qwen3()),
    "qwen3_tied": dict(config=qwen3(num_key_value_heads=1, head_dim=8, tie_word_embeddings=True)),
    # A quarter of the frequencies keeps its value, some are interpolated, the rest is divided.
    "qwen3_yarn": dict(config=qwen3(head_dim=16, rope_parameters=yarn()), lengths=[90, 40, 9]),
    "olmo2": dict(config=olmo2()),
    "olmo2_bias": dict(config=olmo2(num_key_value_heads=4, attention_bias=True, tie_word_embeddings=True)),
    "olmo2_bf16": dict(config=olmo2(), dtype=torch.bfloat16),
    "smollm3": dict(config=smollm3(no_rope_layers=[1, 0])),
    "granite": dict(config=granite()),
    "granite_tied": dict(config=granite(attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    "phi3": dict(config=phi3()),
    # Texts within the original context: the short factors, and the factor of cosines and sines that follows from the whole.
    "phi3_longrope": dict(
        config=phi3(
            hidden_size=64,
            # The factor of cosines and sines makes scores large, and large ones make logits depend on the last bits.
            initializer_range=0.12,
            original_max_position_embeddings=32,
            tie_word_embeddings=True,
            rope_parameters=longrope(),
        )
    ),
    # A window that hides something, in every layer.
    "mistral_short_window": dict(config=mistral(sliding_window=7), lengths=[44, 17, 5]),
    "llama_dynamic": dict(config=llama(rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, factor=4.0))),
    "gemma2": dict(config=gemma2(), lengths=[44, 17, 5]),
    "gemma2_uncapped": dict(
        config=gemma2(attn_logit_softcapping=None, final_logit_softcapping=None, attention_bias=True)
    ),
    "gemma3": dict(config=gemma3(), lengths=[44, 17, 5]),
    "gemma3_untied": dict(config=gemma3(num_key_value_heads=1, tie_word_embeddings=False)),
    "qwen3_window": dict(
        config=qwen3(use_sliding_window=True, sliding_window=7, max_window_layers=1, attention_bias=True),
        lengths=[44, 17, 5],
    ),
    # The arrangements of the published models, which are those that llama.cpp computes: every fourth layer without positions; scores
    # scaled for the width of a head; five layers with a window to one without.
    "smollm3_pattern": dict(config=smollm3(num_hidden_layers=4, initializer_range=0.2)),
    "gemma2_published": dict(config=gemma2(query_pre_attn_scalar=12), lengths=[44, 17, 5]),
    "gemma3_published": dict(
        config=gemma3(query_pre_attn_scalar=12, layer_types=None, num_hidden_layers=6, intermediate_size=16),
        lengths=[44, 17, 5],
    ),
    # Growing queries make scores large, and large ones make logits depend on the last bits.
    "ministral3": dict(config=ministral3(initializer_range=0.2), lengths=[90, 40, 9]),
    "ministral3_tied": dict(
        config=ministral3(num_key_value_heads=1, head_dim=16, sliding_window=20, tie_word_embeddings=True),
        lengths=[60, 33, 5],
    ),
    "ministral3_bf16": dict(config=ministral3(), dtype=torch.bfloat16, lengths=[44, 17, 5]),
    # Texts beyond the original context, and at its end: the length of a text decides on the factors of all its tokens.
    "phi3_longrope_switch": dict(
        config=phi3(
            hidden_size=64,
            initializer_range=0.12,
            original_max_position_embeddings=20,
            tie_word_embeddings=True,
            rope_parameters=longrope(),
        ),
        lengths=[44, 21, 20, 9],
    ),
}


def build(config, seed, dtype=torch.float32):
    """A model whose norms and biases are random too: at 1 and 0 they would hide mistakes."""
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                # Around 1, or around 0 where the model adds the 1 itself.
                parameter.copy_(parameter + 0.3 * torch.randn(parameter.shape, generator=generator))
            elif name.endswith(".bias"):
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
            # What the file will hold, so that the expected values come from the same numbers.
            parameter.copy_(parameter.to(dtype).float())
    return model


def forward(model, row):
    return model(input_ids=row[None], use_cache=False).logits[0]


def token_logps(logits, row):
    logps = torch.log_softmax(logits[:-1].float(), dim=-1)
    return logps.gather(-1, row[1:, None])[:, 0]


def expected(model, lengths, seed):
    """Every row is computed alone and without padding, so no mask can be at fault."""
    generator = torch.Generator().manual_seed(seed + 2)
    width = max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.int64)
    logits = torch.zeros(len(lengths), width, VOCAB)
    logps = torch.zeros(len(lengths), width - 1)
    for i, n in enumerate(lengths):
        row = torch.randint(3, VOCAB, (n,), generator=generator)
        row[0] = 1
        ids[i, :n] = row
        with torch.no_grad():
            logits[i, :n] = forward(model, row)
            logps[i, : n - 1] = token_logps(logits[i, :n], row)
    tensors = {
        "input_ids": ids,
        "lengths": torch.tensor(lengths),
        "logits": logits,
        "logps": logps,
    }
    model.zero_grad()
    row = ids[0, : lengths[0]]
    token_logps(forward(model, row), row).sum().backward()
    wanted = [
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.self_attn.k_proj.bias",
        "model.layers.1.mlp.down_proj.weight",
        "model.layers.0.input_layernorm.weight",
        "model.norm.weight",
        "lm_head.weight",
        "model.layers.0.self_attn.q_norm.weight",
        "model.layers.1.self_attn.k_norm.weight",
        "model.layers.0.self_attn.qkv_proj.weight",
        "model.layers.1.mlp.gate_up_proj.weight",
        "model.layers.0.pre_feedforward_layernorm.weight",
        "model.layers.1.post_feedforward_layernorm.weight",
    ]
    parameters = dict(model.named_parameters())
    for name in wanted:
        if name in parameters:
            tensors[f"grad.{name}"] = parameters[name].grad.clone()
    squares = sum(p.grad.double().square().sum() for p in parameters.values() if p.grad is not None)
    tensors["grad_norm"] = squares.sqrt().float().reshape(1)
    return tensors


def penalised(logits, seen, penalty):
    """The repetition penalty of CTRL as transformers applies it: to prompt and continuation."""
    index = torch.tensor(sorted(seen))
    score = logits[index]
    logits = logits.clone()
    logits[index] = torch.where(score < 0, score * penalty, score / penalty)
    return logits


def smallest_gap(model, prompt, tokens, penalty):
    """The narrowest choice on the path, which also re-derives every token without a cache."""
    row = list(prompt)
    gap = float("inf")
    for token in tokens:
        logits = penalised(forward(model, torch.tensor(row))[-1], set(row), penalty)
        best = torch.topk(logits, 2)
        assert best.indices[0] == token, "generate() and the plain forward pass disagree"
        gap = min(gap, float(best.values[0] - best.values[1]))
        row.append(token)
    return gap


@torch.no_grad()
def greedy(model, seed):
    generator = torch.Generator().manual_seed(seed + 3)
    rows, narrowest = [], float("inf")
    for n in (1, 4, 11):
        prompt = [1] + torch.randint(3, VOCAB, (n - 1,), generator=generator).tolist()
        row = {"prompt": prompt}
        for key, penalty in (("greedy", 1.0), ("greedy_repetition_penalty", REPETITION_PENALTY)):
            out = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, n, dtype=torch.int64),
                do_sample=False,
                max_new_tokens=MAX_NEW_TOKENS,
                repetition_penalty=penalty,
                eos_token_id=None,
                pad_token_id=0,
            )
            row[key] = out[0, n:].tolist()
            narrowest = min(narrowest, smallest_gap(model, prompt, row[key], penalty))
        # A stop token that does occur: the continuation up to and including its first place.
        stop = row["greedy_repetition_penalty"][7]
        cut = row["greedy_repetition_penalty"].index(stop) + 1
        row["stop_token"] = stop
        row["greedy_repetition_penalty_until_stop"] = row["greedy_repetition_penalty"][:cut]
        rows.append(row)
    return rows, narrowest


def config_v4(folder):
    """The same config in the spelling of transformers 4, checked to mean the same."""
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    config["rope_theta"] = rope.pop("rope_theta")
    if rope.pop("partial_rotary_factor", 1.0) != 1.0:
        config["partial_rotary_factor"] = 0.75
    if config["model_type"] == "phi3":
        rope.pop("original_max_position_embeddings", None)
    config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    config["torch_dtype"] = config.pop("dtype")
    layers = config.pop("layer_types", None)  # came later; older files have use_sliding_window alone
    if config["model_type"] == "gemma3_text":
        config["sliding_window_pattern"] = len(layers)
    config["transformers_version"] = "4.46.3"
    (folder / "config_v4.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    new = AutoConfig.from_pretrained(folder).to_dict()
    old = AutoConfig.from_pretrained(folder / "config_v4.json").to_dict()
    ignored = {"transformers_version", "_name_or_path", "partial_rotary_factor"}
    ignored |= {"sliding_window_pattern", "_sliding_window_pattern", "rope_local_base_freq"}
    for key in (new.keys() | old.keys()) - ignored:
        assert new.get(key) == old.get(key), (folder.name, key, new.get(key), old.get(key))


def scaling_matters(model, tensors):
    """Guards the case itself: without the scaling the logits must be visibly different."""
    config = LlamaConfig(**{**model.config.to_dict(), "rope_parameters": dict(rope_type="default", rope_theta=500.0)})
    plain = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        difference = (forward(plain, tensors["input_ids"][0]) - tensors["logits"][0]).abs().max()
    assert difference > 0.5, difference


def queries_grow(model, tensors):
    """Guards the case itself: without the factors the first 16 tokens are the same, and later ones visibly different."""
    rope = {**model.config.rope_parameters, "llama_4_scaling_beta": 0.0}
    config = Ministral3Config(**{**model.config.to_dict(), "rope_parameters": rope})
    plain = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        difference = (forward(plain, tensors["input_ids"][0]) - tensors["logits"][0]).abs().amax(dim=-1)
    assert difference[:16].max() == 0 and difference[16:].max() > 0.1, difference


def long_texts_differ(model, tensors):
    """Guards the case itself: with the short factors in place of the long ones, texts of up to 20 tokens are the same, and longer ones visibly
    different from their first rotated token on. transformers reads its cache again where a greedy path crosses."""
    rope = {**model.config.rope_parameters, "long_factor": model.config.rope_parameters["short_factor"]}
    config = Phi3Config(**{**model.config.to_dict(), "rope_parameters": rope})
    plain = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    plain.load_state_dict(model.state_dict())
    for i, n in enumerate(tensors["lengths"].tolist()):
        with torch.no_grad():
            difference = (forward(plain, tensors["input_ids"][i, :n]) - tensors["logits"][i, :n]).abs().amax(dim=-1)
        assert difference.max() == 0 if n <= 20 else difference[1:20].min() > 1e-3, (n, difference)


def window_hides(model, tensors):
    """What the reader relies on: a window of n tokens hides nothing of a text of n, and something of a longer one."""
    row = tensors["input_ids"][0]

    def differs(window):
        config = MistralConfig(**{**model.config.to_dict(), "sliding_window": window})
        other = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            return not torch.equal(forward(other, row), tensors["logits"][0])

    assert not differs(len(row)) and differs(len(row) - 1)


def make(name, index, config, lengths=(24, 17, 5), dtype=torch.float32, max_shard_size="5GB"):
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    for seed in range(1000 * (index + 1), 1000 * (index + 2), 10):
        model = build(config, seed, dtype)
        continuations, gap = greedy(model, seed)
        if gap >= MIN_GREEDY_GAP:
            break
    else:
        raise RuntimeError(f"{name}: every seed has a close call in its greedy path")
    tensors = expected(model, list(lengths), seed)
    if name == "llama31_rope":
        scaling_matters(model, tensors)
    if name == "ministral3":
        queries_grow(model, tensors)
    if name == "phi3_longrope_switch":
        long_texts_differ(model, tensors)
    if name == "mistral_window":
        window_hides(model, tensors)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    config_v4(folder)

    # What lies in the folder, read back, gives the very same logits.
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for i, n in enumerate(lengths):
            assert torch.equal(forward(again, tensors["input_ids"][i, :n]), tensors["logits"][i, :n]), name
    shards = len(list(folder.glob("*.safetensors")))
    assert shards >= 3 if name == "llama_sharded" else shards == 1, shards

    save_file(tensors, folder / "expected.safetensors", metadata={"seed": str(seed)})
    rows = ",\n  ".join(json.dumps(row) for row in continuations)
    (folder / "greedy.json").write_text(
        f'{{"max_new_tokens": {MAX_NEW_TOKENS}, "repetition_penalty": {REPETITION_PENALTY}, '
        f'"smallest_gap": {gap:.6f}, "rows": [\n  {rows}\n]}}\n'
    )
    print(f"{name}: seed {seed}, {shards} shard(s), smallest greedy gap {gap:.4f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for index, (name, case) in enumerate(CASES.items()):
        make(name, index, **case)
