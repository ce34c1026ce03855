"""PPO by trl 1.12.0, the last version that has it, in f64: a rollout's numbers and the losses of its steps, with their gradients.

`pip install --no-deps --target DIR trl==1.12.0`, and then `PYTHONPATH=DIR python make_online_ppo.py`. The trainer runs on a model of two layers;
what it computes is read at the functions that it calls. Its own samples are part of the file: samplers are never compared.
"""

import json
import os
import pathlib
import tempfile

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import numpy as np
import torch
import trl
import trl.experimental.ppo.ppo_trainer as ppo
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl.experimental.ppo import PPOConfig, PPOTrainer

ROOT = pathlib.Path(__file__).parent / "online"
PAD, EOS, VOCABULARY, LENGTH = 1, 2, 24, 8

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


def config(**more):
    return LlamaConfig(vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                       max_position_embeddings=64, pad_token_id=PAD, eos_token_id=EOS, bos_token_id=3, tie_word_embeddings=False,
                       initializer_range=0.3, **more)


def tokenizer():
    vocabulary = {f"t{i}": i for i in range(VOCABULARY)}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="t2", pad_token="t1", unk_token="t0", padding_side="left")


def seeded(kind, seed, **more):
    torch.manual_seed(seed)
    return kind(config(**more)).to(torch.float64)


class Recorder:
    """Reads what the trainer computes at the functions that it calls."""

    def __init__(self):
        self.logps, self.rewards, self.whitened, self.values, self.steps = [], [], [], [], []
        self.wrap("selective_log_softmax", lambda found, *given: self.logps.append((found, given[1])))
        self.wrap("get_reward", lambda found, *given: self.rewards.append(found))
        self.wrap("masked_whiten", lambda found, values, *rest: self.whitened.append((values, found)))
        self.wrap("forward", lambda found, *given: self.values.append(found[1] if isinstance(found, tuple) else None))

    def wrap(self, name, record):
        function = getattr(ppo, name)

        def wrapped(*given, **named):
            found = function(*given, **named)
            record(found, *given)
            return found

        setattr(ppo, name, wrapped)

    def backward(self, trainer):
        run = trainer.accelerator.backward

        def wrapped(loss, **named):
            logps, values = self.logps[-1][0], self.values[-1]
            gradients = torch.autograd.grad(loss, [logps, values], retain_graph=True)
            self.steps.append([tensor.detach().numpy().copy() for tensor in (loss, logps, values, *gradients)])
            return run(loss, **named)

        trainer.accelerator.backward = wrapped


def run(**settings):
    """One rollout and its epochs."""
    original = {name: getattr(ppo, name) for name in ("selective_log_softmax", "get_reward", "masked_whiten", "forward")}
    recorder = Recorder()
    policy, reference = (seeded(LlamaForCausalLM, 0) for _ in range(2))
    # The reference differs, so that there is a KL divergence; padding is never sampled.
    with torch.no_grad():
        for own, drift in zip(reference.parameters(), seeded(LlamaForCausalLM, 5).parameters()):
            own.add_(0.1 * drift)
    for model in (policy, reference):
        head = torch.nn.Linear(16, VOCABULARY, bias=True)
        with torch.no_grad():
            head.weight.copy_(model.lm_head.weight)
            head.bias.zero_()
            head.bias[PAD] = -1e4
            head.bias[EOS] = 1.0
        model.lm_head = head
    reward, value = seeded(LlamaForSequenceClassification, 1, num_labels=1), seeded(LlamaForSequenceClassification, 2, num_labels=1)
    data = Dataset.from_list([{"input_ids": [3, 4 + i, 5 + i % 3] + ([6] if i % 2 else [])} for i in range(8)])
    with tempfile.TemporaryDirectory() as folder:
        arguments = PPOConfig(
            output_dir=folder, per_device_train_batch_size=8, gradient_accumulation_steps=1, num_mini_batches=1, total_episodes=8,
            response_length=LENGTH, temperature=0.7, stop_token="eos", learning_rate=3e-2, bf16=False, gradient_checkpointing=False,
            report_to="none", num_sample_generations=0, use_cpu=True, logging_steps=1, save_strategy="no", lr_scheduler_type="constant",
            seed=0, **settings)
        trainer = PPOTrainer(args=arguments, processing_class=tokenizer(), model=policy, ref_model=reference, reward_model=reward,
                             value_model=value, train_dataset=data)
        recorder.backward(trainer)
        trainer.train()
    for name, function in original.items():
        setattr(ppo, name, function)
    return recorder, trainer.state.log_history[0]


def case(**settings):
    recorder, logged = run(**settings)
    (old, ids), (ref, _) = recorder.logps[0], recorder.logps[1]
    old, ids, ref = old.detach().numpy(), ids.numpy(), ref.detach().numpy()
    context = recorder.rewards[0][0].shape[1] - LENGTH
    values = recorder.rewards[0][0].detach().numpy()[:, context - 1:-1, 0]
    scores = recorder.rewards[1][1].detach().numpy()
    lengths = [int(np.argmax(row == EOS)) + 1 if (row == EOS).any() else LENGTH for row in ids]
    slots = [min(length + 1, LENGTH) for length in lengths]
    # By its name, since the whitening of rewards is the same function.
    whitened = recorder.whitened[-1]
    advantages = whitened[1].numpy()

    def rows(matrix, counts):
        return [row[:count].tolist() for row, count in zip(matrix, counts)]

    steps = []
    for loss, logps, all_values, logp_gradient, value_gradient in recorder.steps:
        # The batch of a step is shuffled: rows are found again by their old log-probabilities' ids.
        order = find_order(recorder, len(steps), ids)
        own, slope = all_values[:, context - 1:-1, 0], value_gradient[:, context - 1:-1, 0]
        back = np.argsort(order)
        steps.append(dict(loss=float(loss), logps=rows(logps[back], lengths), values=rows(own[back], slots),
                          grad_logps=rows(logp_gradient[back], lengths), grad_values=rows(slope[back], slots)))
        assert (np.arange(8) == np.sort(order)).all()
    keys = ("objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward", "objective/scores",
            "policy/clipfrac_avg", "loss/policy_avg", "loss/value_avg", "val/clipfrac_avg")
    return dict(
        settings=settings, tokens=lengths, stopped=[bool((row == EOS).any()) for row in ids], scores=scores.tolist(),
        old=rows(old, lengths), ref=rows(ref, lengths), values=rows(values, slots),
        unwhitened=rows(whitened[0].numpy(), slots), advantages=rows(advantages, lengths), steps=steps,
        metrics={key: logged[key] for key in keys})


def find_order(recorder, step, ids):
    """Returns which row of the rollout each row of a step's batch is."""
    given = recorder.logps[2 + step][1].numpy()
    order = [next(i for i in range(len(ids)) if i not in given_to(given, ids, row) and (ids[i] == given[row]).all()) for row in range(len(ids))]
    return np.array(order)


def given_to(given, ids, row):
    """Returns the rows of the rollout that earlier rows of the batch are, where two responses are equal."""
    taken = []
    for earlier in range(row):
        taken.append(next(i for i in range(len(ids)) if i not in taken and (ids[i] == given[earlier]).all()))
    return taken


def main():
    cases = [
        case(num_ppo_epochs=2, missing_eos_penalty=1.0),
        case(num_ppo_epochs=2, kl_estimator="k3", kl_coef=0.2, gamma=0.9, lam=0.5, cliprange=0.1, cliprange_value=0.05, vf_coef=0.5),
        case(num_ppo_epochs=1, whiten_rewards=True),
    ]
    versions = dict(trl=trl.__version__, torch=torch.__version__.split("+")[0])
    ROOT.mkdir(exist_ok=True)
    text = json.dumps(dict(versions=versions, max_new_tokens=LENGTH, cases=cases), allow_nan=False, separators=(",", ":"))
    (ROOT / "ppo.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
