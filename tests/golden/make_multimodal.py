"""Tiny random checkpoints with an image tower, and what transformers computes from text with them.

Run from any folder: `python tests/golden/make_multimodal.py`. Each case is a folder as `save_pretrained` writes the whole model, with

expected.safetensors  logits and token log-probabilities of text
greedy.json           greedy continuations
text_part.json        the class that transformers has for the text part alone, and the names and shapes of its weights
"""

import json
import pathlib
import shutil

import torch
from make_transformer import MAX_NEW_TOKENS, MIN_GREEDY_GAP, REPETITION_PENALTY, THETA_1E4, expected, forward, greedy
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    Gemma3Config,
    Mistral3Config,
)

ROOT = pathlib.Path(__file__).parent / "multimodal"
LENGTHS = [44, 17, 5]
TEXT = dict(
    vocab_size=96,
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
IMAGES = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4)


def gemma3():
    rope = dict(
        full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
        sliding_attention=dict(rope_type="default", rope_theta=10000.0),
    )
    text = {
        **TEXT,
        "head_dim": 12,
        "query_pre_attn_scalar": 20,
        "sliding_window": 7,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": rope,
    }
    tokens = dict(image_token_index=95, boi_token_index=94, eoi_token_index=93, eos_token_id=[2, 3])
    return Gemma3Config(text_config=text, vision_config=IMAGES, mm_tokens_per_image=4, **tokens)


def mistral3():
    text = {**TEXT, "model_type": "mistral", "sliding_window": None, "head_dim": 12, "rope_parameters": dict(THETA_1E4)}
    images = {**IMAGES, "model_type": "pixtral", "head_dim": 4}
    return Mistral3Config(text_config=text, vision_config=images, image_token_index=95, tie_word_embeddings=False)


def ministral3():
    rope = dict(
        rope_type="yarn",
        rope_theta=10000.0,
        factor=4.0,
        original_max_position_embeddings=16,
        mscale=1.0,
        mscale_all_dim=1.0,
        llama_4_scaling_beta=0.5,
    )
    text = {**TEXT, "model_type": "ministral3", "head_dim": 12, "rope_parameters": rope, "tie_word_embeddings": False}
    images = {**IMAGES, "model_type": "pixtral", "head_dim": 4}
    return Mistral3Config(text_config=text, vision_config=images, image_token_index=95, tie_word_embeddings=False)


def build(config, seed):
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager").float().eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "language_model" in name and name.endswith("norm.weight"):
                parameter.copy_(parameter + 0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def text_part(folder, config):
    """The class of the text part alone, with the weights of the folder: it must compute the same."""
    model = AutoModelForCausalLM.from_config(config.text_config, attn_implementation="eager").eval()
    weights = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for prefix, short in (("language_model.model.", "model."), ("language_model.lm_head.", "lm_head.")):
            if name.startswith(prefix):
                weights[short + name.removeprefix(prefix)] = tensor
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model, {name: list(tensor.shape) for name, tensor in sorted(weights.items())}


def make(name, index, config):
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    for seed in range(1000 * (index + 1), 1000 * (index + 2), 10):
        model = build(config, seed)
        continuations, gap = greedy(model, seed)
        if gap >= MIN_GREEDY_GAP:
            break
    else:
        raise RuntimeError(f"{name}: every seed has a close call in its greedy path")
    tensors = expected(model, list(LENGTHS), seed)
    tensors = {key: tensors[key] for key in ("input_ids", "lengths", "logits", "logps")}
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)

    alone, shapes = text_part(folder, config)
    with torch.no_grad():
        for i, n in enumerate(LENGTHS):
            difference = (forward(alone, tensors["input_ids"][i, :n]) - tensors["logits"][i, :n]).abs().max()
            assert difference < 1e-5, (name, difference)
    part = dict(architectures=[type(alone).__name__], model_type=alone.config.model_type, shapes=shapes)
    (folder / "text_part.json").write_text(json.dumps(part, indent=1) + "\n")
    save_file(tensors, folder / "expected.safetensors", metadata={"seed": str(seed)})
    rows = ",\n  ".join(json.dumps(row) for row in continuations)
    (folder / "greedy.json").write_text(
        f'{{"max_new_tokens": {MAX_NEW_TOKENS}, "repetition_penalty": {REPETITION_PENALTY}, '
        f'"smallest_gap": {gap:.6f}, "rows": [\n  {rows}\n]}}\n'
    )
    print(f"{name}: seed {seed}, smallest greedy gap {gap:.4f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    cases = dict(gemma3=gemma3(), mistral3=mistral3(), ministral3=ministral3())
    for index, (name, config) in enumerate(cases.items()):
        make(name, index, config)
