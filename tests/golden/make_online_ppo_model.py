"""PPO by trl 1.12.0 as a whole: a policy, a reference and a value network before training, a rollout, and both models after four optimizer steps.

`pip install --no-deps --target DIR trl==1.12.0`, and then `PYTHONPATH=DIR python make_online_ppo_model.py`. The trainer runs in f64 on models of
two layers; files hold f32. Its own samples are part of the file: samplers are never compared. The seed is the first with which the policy does not
sample the padding token, at which trl would cut the response.
"""

import copy
import itertools
import json
import os
import pathlib
import shutil
import tempfile

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
import trl
import trl.experimental.ppo.ppo_trainer as ppo
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl.experimental.ppo import PPOConfig, PPOTrainer

ROOT = pathlib.Path(__file__).parent / "online"
PAD, EOS, VOCABULARY, LENGTH, ROWS = 1, 2, 24, 6, 6
# AdamW divides a gradient by its own size: with an ε far above the rounding of f32, a gradient near 0 is not all rounding.
TRAINING = dict(num_ppo_epochs=4, missing_eos_penalty=1.0, kl_coef=0.2, lam=0.9, vf_coef=0.5, learning_rate=1e-3, adam_epsilon=1e-4)

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


def seeded(kind, seed, **more):
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                         max_position_embeddings=64, pad_token_id=PAD, eos_token_id=EOS, bos_token_id=3, tie_word_embeddings=False,
                         initializer_range=0.3, **more)
    return kind(config).to(torch.float32).to(torch.float64)


def tokenizer():
    vocabulary = {f"t{i}": i for i in range(VOCABULARY)}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="t2", pad_token="t1", unk_token="t0", padding_side="left")


def save(model, name):
    folder = ROOT / "ppo_model" / name
    copy.deepcopy(model).to(torch.float32).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def run(seed):
    """One rollout and its epochs."""
    policy, reference = seeded(LlamaForCausalLM, 0), seeded(LlamaForCausalLM, 0)
    with torch.no_grad():
        for own, drift in zip(reference.parameters(), seeded(LlamaForCausalLM, 5).parameters()):
            own.add_(0.1 * drift)
    reference = reference.to(torch.float32).to(torch.float64)
    reward = seeded(LlamaForSequenceClassification, 1, num_labels=1)
    value = seeded(LlamaForSequenceClassification, 2, num_labels=1)
    before = {name: copy.deepcopy(model) for name, model in dict(policy=policy, reference=reference, value=value).items()}
    found = dict(losses=[], logps=[], rewards=[], ids=None)
    original = {name: getattr(ppo, name) for name in ("batch_generation", "selective_log_softmax", "get_reward")}

    def wrap(name, record):
        def wrapped(*given, **named):
            result = original[name](*given, **named)
            record(result)
            return result
        setattr(ppo, name, wrapped)

    def generated(result):
        found["ids"] = result[0].clone() if found["ids"] is None else found["ids"]

    wrap("batch_generation", generated)
    wrap("selective_log_softmax", lambda result: found["logps"].append(result.detach().clone()))
    wrap("get_reward", lambda result: found["rewards"].append(tuple(part.detach().clone() for part in result[:2])))
    data = Dataset.from_list([{"input_ids": [3, 4 + i, 5 + i % 3] + ([6] if i % 2 else [])} for i in range(ROWS)])
    with tempfile.TemporaryDirectory() as folder:
        arguments = PPOConfig(
            output_dir=folder, per_device_train_batch_size=ROWS, gradient_accumulation_steps=1, num_mini_batches=1, total_episodes=ROWS,
            response_length=LENGTH, temperature=1.0, stop_token="eos", bf16=False, gradient_checkpointing=False, report_to="none",
            num_sample_generations=0, use_cpu=True, logging_steps=1, save_strategy="no", lr_scheduler_type="constant", seed=seed, **TRAINING)
        trainer = PPOTrainer(args=arguments, processing_class=tokenizer(), model=policy, ref_model=reference, reward_model=reward,
                             value_model=value, train_dataset=data)
        backward = trainer.accelerator.backward
        trainer.accelerator.backward = lambda loss, **named: (found["losses"].append(float(loss)), backward(loss, **named))[1]
        trainer.train()
    for name, function in original.items():
        setattr(ppo, name, function)
    return before, dict(policy=policy, value=value), found, trainer.state.log_history[0]


def cut(ids):
    """Returns the response's tokens: up to its stop token."""
    return ids[:ids.index(EOS) + 1] if EOS in ids else ids


def main():
    for seed in itertools.count():
        before, after, found, logged = run(seed)
        ids = found["ids"].tolist()
        context = len(ids[0]) - LENGTH
        responses = [cut(row[context:]) for row in ids]
        stopped = [EOS in response for response in responses]
        # Both kinds of ends, and a slot behind the end.
        if not any(PAD in response for response in responses) and 0 < sum(stopped) < ROWS and any(len(r) < LENGTH for r in responses):
            break
    shutil.rmtree(ROOT / "ppo_model", ignore_errors=True)
    for name, model in before.items():
        save(model, name)
    for name, model in after.items():
        save(model, f"{name}_after")
    lengths = [len(response) for response in responses]

    def rows(matrix, counts):
        return [row[:count].tolist() for row, count in zip(matrix, counts)]

    values = found["rewards"][0][0][:, context - 1:-1, 0]
    keys = ("objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward", "objective/scores",
            "loss/policy_avg", "loss/value_avg", "policy/clipfrac_avg", "val/clipfrac_avg")
    document = dict(
        versions=dict(trl=trl.__version__, torch=torch.__version__.split("+")[0]), seed=seed, settings=TRAINING, max_new_tokens=LENGTH,
        prompts=[[token for token in row[:context] if token != PAD] for row in ids], responses=responses, stopped=stopped,
        scores=found["rewards"][1][1].tolist(), old=rows(found["logps"][0], lengths), ref=rows(found["logps"][1], lengths),
        values=rows(values, [min(length + 1, LENGTH) for length in lengths]), losses=found["losses"],
        metrics={key: logged[key] for key in keys})
    (ROOT / "ppo_model" / "rollout.json").write_text(json.dumps(document, allow_nan=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
