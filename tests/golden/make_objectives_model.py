"""DRO in plain torch and DPO as trl trains it, on two checkpoints of `transformer/`.

The reference is the policy's checkpoint with noise added to every parameter: another random model
altogether would be hundreds of nats away, where every sigmoid is 0 or 1.
"""

import json
import pathlib
import shutil
import tempfile

import torch
import transformers
import trl
from datasets import Dataset
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

HERE = pathlib.Path(__file__).parent
ROOT = HERE / "objectives"
VOCAB, STOP = 96, 2
POLICIES = {"llama": "llama_kv2", "qwen2": "qwen2_tied"}
GRADS = [
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.k_proj.bias",
    "model.layers.1.mlp.down_proj.weight",
    "model.norm.weight",
]
DRO_OPTIONS = [
    dict(beta=0.1, log_z0=50.0, prompt_term="full", aggregate="per_prompt"),
    dict(beta=0.3, log_z0=4.0, prompt_term="off", aggregate="per_prompt"),
    dict(beta=0.3, log_z0=4.0, prompt_term={"clip": 0.5}, aggregate="per_response"),
]


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def make_reference(name, case, seed):
    model = load(HERE / "transformer" / case)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    folder = ROOT / f"reference_{name}"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    return load(folder)


def make_rows(seed, counts):
    """Prompts that share their first token; responses that end with the stop token."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(low, high):
        n = int(torch.randint(low, high + 1, (1,), generator=generator))
        return torch.randint(3, VOCAB, (n,), generator=generator).tolist()

    return [{"prompt": [1, *tokens(2, 9)], "responses": [[*tokens(0, 8), STOP] for _ in range(n)]} for n in counts]


def logps(model, prompt, response):
    """(log-prob of the prompt after its first token, log-prob of the response), f32, unpadded."""
    ids = torch.tensor(prompt + response)
    logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    picked = torch.log_softmax(logits.float(), -1).gather(-1, ids[1:, None])[:, 0]
    cut = len(prompt) - 1
    return picked[:cut].sum(), picked[cut:].sum()


def gradients(model):
    parameters = dict(model.named_parameters())
    norm = torch.sqrt(sum(p.grad.double().square().sum() for p in parameters.values()))
    return {name: parameters[name].grad.clone() for name in GRADS if name in parameters}, float(norm)


def dro(policy, reference, rows, rewards, beta, log_z0, prompt_term, aggregate):
    policy.zero_grad()
    losses, record = [], {key: [] for key in ("prompt_logps", "ref_prompt_logps", "logps", "ref_logps", "residuals")}
    rewards = iter(rewards)
    for row in rows:
        own = []
        for response in row["responses"]:
            prompt_logp, logp = logps(policy, row["prompt"], response)
            with torch.no_grad():
                ref_prompt_logp, ref_logp = logps(reference, row["prompt"], response)
            d_x = (prompt_logp - ref_prompt_logp).detach()
            if prompt_term == "off":
                d_x = torch.zeros_like(d_x)
            elif prompt_term != "full":
                d_x = d_x.clamp(-prompt_term["clip"], prompt_term["clip"])
            e = next(rewards) - beta * (logp - ref_logp + log_z0 + d_x)
            own.append(e**2)
            for key, value in (("logps", logp), ("ref_logps", ref_logp), ("residuals", e)):
                record[key].append(float(value.detach()))
        record["prompt_logps"].append(float(prompt_logp.detach()))
        record["ref_prompt_logps"].append(float(ref_prompt_logp))
        losses.append(torch.stack(own))
    loss = torch.stack([x.mean() for x in losses]).mean() if aggregate == "per_prompt" else torch.cat(losses).mean()
    loss.backward()
    record["prompt_log_ratios"] = [a - b for a, b in zip(record["prompt_logps"], record["ref_prompt_logps"])]
    return float(loss.detach()), record


def make_dro(name, policy, reference, seed):
    rows = make_rows(seed, [2, 1, 3, 2])
    generator = torch.Generator().manual_seed(seed + 1)
    rewards = (4 * torch.randn(8, generator=generator)).tolist()
    results, tensors = [], {}
    for i, options in enumerate(DRO_OPTIONS):
        loss, record = dro(policy, reference, rows, rewards, **options)
        grads, norm = gradients(policy)
        results.append(dict(options=options, loss=loss, grad_norm=norm, residuals=record.pop("residuals")))
        tensors |= {f"dro.{i}.grad.{key}": value for key, value in grads.items() if i == 0 or "norm" in key}
    return dict(rows=rows, rewards=rewards, **record, cases=results), tensors


FURTHER_OPTIONS = [
    dict(beta=0.3, log_z0=4.0, level_weight=0.25),
    dict(beta=0.3, log_z0=4.0, nll_weight=16.0),
    dict(beta=0.5, log_z0=0.2, length_normalize=True),
    dict(beta=0.3, log_z0=4.0, prompt_term="learned"),
    dict(beta=0.3, log_z0=4.0, prompt_term="learned", level_weight=0.5, nll_weight=2.0),
]


def dro_further(policy, reference, rows, rewards, beta, log_z0, prompt_term="off", level_weight=1.0, nll_weight=0.0, length_normalize=False):
    policy.zero_grad()
    losses, likelihood, tokens, start = [], 0.0, 0, 0
    for row in rows:
        own, found = rewards[start : start + len(row["responses"])], []
        start += len(own)
        best = max(range(len(own)), key=lambda j: own[j])
        for j, response in enumerate(row["responses"]):
            prompt_logp, logp = logps(policy, row["prompt"], response)
            with torch.no_grad():
                ref_prompt_logp, ref_logp = logps(reference, row["prompt"], response)
            h = (logp - ref_logp) / (len(response) if length_normalize else 1)
            d_x = prompt_logp - ref_prompt_logp if prompt_term == "learned" else 0.0
            found.append(own[j] - beta * (h + log_z0 + d_x))
            if j == best:
                likelihood, tokens = likelihood + logp, tokens + len(response)
        found = torch.stack(found)
        losses.append(((found - found.mean()) ** 2).mean() + level_weight * found.mean() ** 2)
    loss = torch.stack(losses).mean() - nll_weight * beta**2 * likelihood / tokens
    loss.backward()
    return float(loss.detach()), float(-likelihood.detach() / tokens)


def make_further(name, case, seed):
    """DRO's further settings, on the checkpoints that the other goldens use."""
    policy, reference = load(HERE / "transformer" / case), load(ROOT / f"reference_{name}")
    rows = make_rows(seed, [2, 1, 3, 2])
    generator = torch.Generator().manual_seed(seed + 1)
    rewards = (4 * torch.randn(8, generator=generator)).tolist()
    cases = []
    for options in FURTHER_OPTIONS:
        loss, nll = dro_further(policy, reference, rows, rewards, **options)
        cases.append(dict(options=options, loss=loss, nll_loss=nll, grad_norm=gradients(policy)[1]))
    record = dict(
        policy=f"transformer/{case}", reference=f"objectives/reference_{name}",
        versions=dict(torch=torch.__version__, transformers=transformers.__version__), rows=rows, rewards=rewards, cases=cases,
    )
    body = ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in record.items())
    (ROOT / f"further_{name}.json").write_text(f"{{{body}}}\n")
    print(name, "further", [case["loss"] for case in cases])


def dummy_tokenizer():
    """trl asks for one, though the data below are token ids already."""
    vocabulary = {f"t{i}": i for i in range(VOCAB)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="t2", pad_token="t0")


class TokenIdsTrainer(DPOTrainer):
    """trl's trainer on rows that are token ids already."""

    def _prepare_dataset(self, dataset, *_):
        return dataset


def make_dpo(policy, reference, seed):
    """Four steps of trl's own trainer over the whole set: loss, metrics and gradient norm of each."""
    rows = make_rows(seed, [2] * 6)
    data = Dataset.from_list([
        dict(prompt_ids=row["prompt"], chosen_ids=row["responses"][0], rejected_ids=row["responses"][1]) for row in rows
    ])
    hyper = dict(beta=0.3, learning_rate=2e-3, max_grad_norm=1.0, weight_decay=0.0, warmup_steps=1, lr_scheduler_type="cosine")
    with tempfile.TemporaryDirectory() as folder:
        args = DPOConfig(
            output_dir=folder, per_device_train_batch_size=len(rows), gradient_accumulation_steps=1, max_steps=4,
            use_cpu=True, bf16=False, fp16=False, gradient_checkpointing=False, max_length=None, report_to="none",
            logging_steps=1, save_strategy="no", disable_tqdm=True, loss_type="sigmoid", seed=0, optim="adamw_torch",
            dataloader_pin_memory=False, **hyper,
        )
        trainer = TokenIdsTrainer(
            model=policy, ref_model=reference, args=args, train_dataset=data, processing_class=dummy_tokenizer()
        )
        trainer.train()
        log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(log) == 4
    unwanted = {"epoch", "step", "logits/chosen", "logits/rejected", "mean_token_accuracy"}
    steps = [{key: value for key, value in entry.items() if key not in unwanted} for entry in log]
    after = {key: value.detach().clone() for key, value in policy.named_parameters() if key in GRADS[1:4:2]}
    return dict(rows=rows, **hyper, steps=steps), after


def check_dpo(policy, reference, record):
    """trl's first step from the log-probs above, and the gradients that trl does not show."""
    policy.zero_grad()
    losses, numbers = [], {key: [] for key in ("chosen_logps", "rejected_logps", "ref_chosen_logps", "ref_rejected_logps")}
    for row in record["rows"]:
        h = []
        for side, response in zip(("chosen", "rejected"), row["responses"]):
            logp = logps(policy, row["prompt"], response)[1]
            with torch.no_grad():
                ref_logp = logps(reference, row["prompt"], response)[1]
            numbers[f"{side}_logps"].append(float(logp.detach()))
            numbers[f"ref_{side}_logps"].append(float(ref_logp))
            h.append(logp - ref_logp)
        losses.append(-torch.nn.functional.logsigmoid(record["beta"] * (h[0] - h[1])))
    loss = torch.stack(losses).mean()
    loss.backward()
    grads, norm = gradients(policy)
    first = record["steps"][0]
    assert abs(float(loss.detach()) - first["loss"]) < 1e-5, (float(loss), first)
    assert abs(norm - first["grad_norm"]) < 1e-4 * norm, (norm, first)
    record.update(numbers, loss=float(loss.detach()), grad_norm=norm)
    return grads


def make(name, case, seed):
    reference = make_reference(name, case, seed)
    policy = load(HERE / "transformer" / case)
    record, tensors = make_dro(name, policy, reference, seed + 10)
    dpo, after = make_dpo(load(HERE / "transformer" / case), load(ROOT / f"reference_{name}"), seed + 20)
    grads = check_dpo(policy, reference, dpo)
    tensors |= {f"dpo.grad.{key}": value for key, value in grads.items()}
    tensors |= {f"dpo.after.{key}": value for key, value in after.items()}
    save_file(tensors, ROOT / f"model_{name}.safetensors")
    versions = dict(torch=torch.__version__, transformers=transformers.__version__, trl=trl.__version__)
    body = ",\n".join(
        f'"{part}": {{\n' + ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in values.items()) + "\n}"
        for part, values in (("dro", record), ("dpo", dpo))
    )
    (ROOT / f"model_{name}.json").write_text(f'{{"policy": "transformer/{case}", "reference": "objectives/reference_{name}", "versions": {json.dumps(versions)},\n{body}}}\n')
    print(name, "DRO", [case["loss"] for case in record["cases"]], "DPO", [step["loss"] for step in dpo["steps"]])


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed, (name, case) in enumerate(POLICIES.items()):
        make(name, case, 100 * (seed + 1))
        make_further(name, case, 100 * (seed + 1) + 30)
