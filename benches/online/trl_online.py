"""trl's GRPOTrainer or PPOTrainer on given prompts: prints one JSON line with the seconds of each round after the first, the tokens of a
round's prompts and those of a response.

usage: trl_online.py grpo MODEL PROMPTS ROUNDS RESPONSES SAMPLES TOKENS
       trl_online.py ppo MODEL PROMPTS ROUNDS RESPONSES SAMPLES TOKENS TRL_1_12

PPO needs the folder of an unpacked trl 1.12.0, the last version that has it. RESPONSES: of a round. The reward of GRPO is the number of
characters, less; that of PPO is the reward model in MODEL-reward.
"""

import json
import os
import sys
import tempfile
import time

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback


class Clock(TrainerCallback):
    """The time at which each round ended."""

    def __init__(self, event):
        self.ends = []
        setattr(self, event, lambda *args, **kwargs: self.ends.append(time.perf_counter()))


def short(completions, **_):
    return [-0.01 * len(text) for text in completions]


def grpo(model, tokenizer, prompts, output, rounds, responses, samples, tokens):
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(
        per_device_train_batch_size=responses,
        gradient_accumulation_steps=1,
        num_generations=samples,
        max_completion_length=tokens,
        temperature=1.0,
        beta=0.0,
        max_steps=rounds,
        shuffle_dataset=False,
        **output,
    )
    clock = Clock("on_step_end")
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        reward_funcs=short,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    return trainer, clock


def ppo(model, tokenizer, prompts, output, rounds, responses, samples, tokens):
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    assert samples == 1, "trl's PPO has one response to a prompt"
    load = lambda kind, folder, **more: kind.from_pretrained(folder, dtype=torch.float32, **more)
    scorer = lambda: load(AutoModelForSequenceClassification, f"{model}-reward", num_labels=1)
    config = PPOConfig(
        per_device_train_batch_size=responses,
        gradient_accumulation_steps=1,
        num_mini_batches=1,
        local_rollout_forward_batch_size=responses,
        num_ppo_epochs=4,
        total_episodes=rounds * responses,
        response_length=tokens,
        temperature=1.0,
        stop_token="eos",
        num_sample_generations=0,
        **output,
    )
    clock = Clock("on_log")
    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=load(AutoModelForCausalLM, model),
        ref_model=load(AutoModelForCausalLM, model),
        reward_model=scorer(),
        value_model=scorer(),
        train_dataset=Dataset.from_list([{"input_ids": tokenizer(prompt)["input_ids"]} for prompt in prompts]),
        callbacks=[clock],
    )
    return trainer, clock


def main(method, model, prompts, rounds, responses, samples, tokens):
    torch.manual_seed(0)
    with open(prompts) as file:
        texts = [json.loads(line)["prompt"] for line in file]
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    tokenizer.pad_token = tokenizer.unk_token
    with tempfile.TemporaryDirectory() as folder:
        output = dict(output_dir=folder, learning_rate=1e-6, bf16=False, gradient_checkpointing=False, logging_steps=1,
                      save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True, seed=0)
        make = dict(grpo=grpo, ppo=ppo)[method]
        # The first round has the warm-up in it.
        trainer, clock = make(model, tokenizer, texts, output, int(rounds) + 1, int(responses), int(samples), int(tokens))
        trainer.train()
        ends = clock.ends[: int(rounds) + 1]
        lengths = [line["completions/mean_length"] for line in trainer.state.log_history if "completions/mean_length" in line]
        # PPO does not tell how long responses are: those that have no stop token have all that they may.
        tokens = {"prompts": sum(len(tokenizer(text)["input_ids"]) for text in texts), "response": lengths[-1] if lengths else None}
        print(json.dumps({"seconds": [after - before for before, after in zip(ends, ends[1:])], "tokens": tokens}))


if __name__ == "__main__":
    if sys.argv[1] == "ppo":
        os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
        sys.path.insert(0, sys.argv.pop())
    main(*sys.argv[1:])
