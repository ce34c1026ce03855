"""One step of every pairwise method and of KTO on whole models: loss, gradient norm and metrics as trl computes them.

Policies, references and rows are made as in `make_objectives_model.py`. DPO's family and KTO go through trl's trainers; ORPO and SimPO through the loss
functions of trl's trainers on a padded batch; what trl lacks (cDPO, and the methods it never had) is the formula in torch.
"""

import functools
import json
import tempfile
import types

import torch
import transformers
import trl
from datasets import Dataset
from trl import DPOConfig, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from make_objectives_model import HERE, POLICIES, ROOT, TokenIdsTrainer, dummy_tokenizer, gradients, load, logps, make_rows

BY_DPO_TRAINER = [
    ("ipo", dict(beta=0.5), "ipo"), ("robust", dict(beta=0.3, label_smoothing=0.1), "robust"), ("hinge", dict(beta=0.5), "hinge"),
    ("apo_zero", dict(beta=0.3), "apo_zero"), ("apo_down", dict(beta=0.3), "apo_down"), ("sppo_hard", dict(beta=0.2), "sppo_hard"),
    ("exo_pair", dict(beta=0.3, label_smoothing=0.01), "exo_pair"), ("nca_pair", dict(beta=0.3), "nca_pair"), ("bco_pair", dict(beta=0.3), "bco_pair"),
    ("discopop", dict(beta=0.3, tau=0.5), "discopop"), ("sigmoid_norm", dict(beta=5.0), "sigmoid_norm"),
    ("aot", dict(beta=0.3, label_smoothing=0.1), "aot"), ("aot_unpaired", dict(beta=0.3), "aot_unpaired"),
    ("dpo", dict(beta=0.3, nll_weight=0.5), ["sigmoid", "sft"]),
    ("mix", dict(losses=[dict(method="dpo", weight=0.8, beta=0.3), dict(method="bco_pair", weight=0.2, beta=0.3)], nll_weight=1.0), ["sigmoid", "bco_pair", "sft"]),
]
METRICS = ["rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"]


def training_arguments(folder, rows):
    """A single step over all rows that moves nothing."""
    return dict(
        output_dir=folder, per_device_train_batch_size=rows, gradient_accumulation_steps=1, max_steps=1, use_cpu=True, bf16=False, fp16=False,
        gradient_checkpointing=False, max_length=None, report_to="none", logging_steps=1, save_strategy="no", disable_tqdm=True, seed=0,
        learning_rate=0.0, max_grad_norm=1e9, dataloader_pin_memory=False,
    )


def first_step(trainer):
    trainer.train()
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    return {key: entry[key] for key in ("loss", "grad_norm", *METRICS, "kl") if key in entry}


def by_dpo_trainer(name, rows, settings, loss_type):
    data = Dataset.from_list([
        dict(prompt_ids=row["prompt"], chosen_ids=row["responses"][0], rejected_ids=row["responses"][1]) for row in rows
    ])
    own = dict(settings)
    weights = {"dpo": [1.0, own.pop("nll_weight", 0.0)], "mix": [0.8, 0.2, 1.0]}.get(name)
    if name == "mix":
        own = dict(beta=0.3)
    if "tau" in own:
        own["discopop_tau"] = own.pop("tau")
    with tempfile.TemporaryDirectory() as folder:
        args = DPOConfig(**training_arguments(folder, len(rows)), loss_type=loss_type, **(dict(loss_weights=weights) if weights else {}), **own)
        trainer = TokenIdsTrainer(model=load(policy_folder), ref_model=load(reference_folder), args=args, train_dataset=data, processing_class=dummy_tokenizer())
        return first_step(trainer)


class TokenIdsKto(KTOTrainer):
    def _prepare_dataset(self, dataset, *_):
        return dataset


def by_kto_trainer(rows, labels, **settings):
    completions = [row["responses"][0] for row in rows]
    data = Dataset.from_list([
        # As trl pairs them: with the completion of the row before, the first with that of the last.
        dict(prompt_ids=row["prompt"], completion_ids=completions[i], KL_completion_ids=completions[i - 1], label=labels[i])
        for i, row in enumerate(rows)
    ])
    with tempfile.TemporaryDirectory() as folder:
        args = KTOConfig(**training_arguments(folder, len(rows)), train_sampling_strategy="sequential", **settings)
        trainer = TokenIdsKto(model=load(policy_folder), ref_model=load(reference_folder), args=args, train_dataset=data, processing_class=dummy_tokenizer())
        return first_step(trainer)


def padded(rows, side, index):
    """Token ids, mask and labels of one side, as the collator of ORPO's and CPO's trainers hands them over."""
    full = [row["prompt"] + row["responses"][index] for row in rows]
    width = max(map(len, full))
    pad = lambda value, lists: torch.tensor([x + [value] * (width - len(x)) for x in lists])
    return {
        f"{side}_input_ids": pad(0, full),
        f"{side}_attention_mask": pad(0, [[1] * len(x) for x in full]),
        f"{side}_labels": pad(-100, [[-100] * len(row["prompt"]) + row["responses"][index] for row in rows]),
    }


def by_loss_function(trainer, rows, **attributes):
    """A trainer's own loss on a real model, without the rest of the trainer."""
    model = load(policy_folder)
    accelerator = types.SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=lambda x: x)
    stand_in = types.SimpleNamespace(
        accelerator=accelerator, is_encoder_decoder=False, padding_value=0, pad_token_id=0, aux_loss_enabled=False, concatenated_inputs=trainer.concatenated_inputs,
        get_batch_logps=trainer.get_batch_logps, **attributes,
    )
    for method in ("concatenated_forward", "odds_ratio_loss", "cpo_loss"):
        if hasattr(trainer, method):
            setattr(stand_in, method, functools.partial(getattr(trainer, method), stand_in))
    loss, metrics = trainer.get_batch_loss_metrics(stand_in, model, padded(rows, "chosen", 0) | padded(rows, "rejected", 1))
    loss.backward()
    _, norm = gradients(model)
    names = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "nll_loss", "log_odds_ratio", "log_odds_chosen")
    number = lambda value: float(value.detach()) if torch.is_tensor(value) else float(value)
    return dict(loss=number(loss), grad_norm=norm) | {key: number(metrics[key]) for key in names if key in metrics}


def by_formula(rows, losses, whole_batch=False):
    """The mean of a loss on `(h_w, h_l, logp_w, logp_l)` of each pair or of all at once, every sequence alone and without padding."""
    model, reference = load(policy_folder), load(reference_folder)
    each = []
    for row in rows:
        logp = [logps(model, row["prompt"], response)[1] for response in row["responses"]]
        with torch.no_grad():
            ref = [logps(reference, row["prompt"], response)[1] for response in row["responses"]]
        each.append((logp[0] - ref[0], logp[1] - ref[1], logp[0], logp[1]))
    if whole_batch:
        loss = losses(*map(torch.stack, zip(*each))).mean()
    else:
        loss = torch.stack([losses(*pair) for pair in each]).mean()
    loss.backward()
    return dict(loss=float(loss.detach()), grad_norm=gradients(model)[1])


def by_dro_v(name, rows, rewards, beta):
    """DRO-V with the sequence classifier of `reward/` for a value network, read at the last token of the prompt."""
    policy, reference = load(policy_folder), load(reference_folder)
    value = transformers.AutoModelForSequenceClassification.from_pretrained(HERE / "reward" / name, dtype=torch.float32, attn_implementation="eager").eval()
    losses, values = [], []
    for row, own in zip(rows, rewards):
        hidden = value.model(input_ids=torch.tensor([row["prompt"]]), use_cache=False).last_hidden_state[0, -1]
        v = value.score(hidden)[0]
        values.append(float(v.detach()))
        for response, reward in zip(row["responses"], own):
            logp = logps(policy, row["prompt"], response)[1]
            with torch.no_grad():
                ref = logps(reference, row["prompt"], response)[1]
            losses.append(0.5 * (reward - v - beta * (logp - ref)) ** 2)
    loss = torch.stack(losses).mean()
    loss.backward()
    norms = [gradients(model)[1] for model in (policy, value)]
    return dict(
        rows=rows, rewards=rewards, settings=dict(beta=beta), value=f"reward/{name}", values=values, loss=float(loss.detach()), policy_grad_norm=norms[0],
        grad_norm=(norms[0] ** 2 + norms[1] ** 2) ** 0.5,
    )


def formulas():
    f = torch.nn.functional.logsigmoid
    smoothed = lambda x, e: -(1 - e) * f(x) - e * f(-x)
    return [
        ("dpo", dict(beta=0.3, label_smoothing=0.2), lambda w, l, *_: smoothed(0.3 * (w - l), 0.2)),
        ("cal_dpo", dict(beta=0.3, calibration_weight=1.0), lambda w, l, *_: -f(w - l) + (w - 0.5 / 0.3) ** 2 + (l + 0.5 / 0.3) ** 2),
        ("slic_hf", {"delta": 1.0, "lambda": 0.1}, lambda w, l, logp_w, logp_l: torch.relu(1 - logp_w + logp_l) - 0.1 * logp_w),
        ("dpop", {"beta": 0.3, "lambda": 5.0}, lambda w, l, *_: -f(0.3 * (w - l - 5 * torch.relu(-w)))),
        ("dpo_shift", dict(beta=0.3, shift=0.75), lambda w, l, *_: -f(0.3 * (w - 0.75 * l))),
    ]


def beta_dpo(w, l, *_):
    margins = w - l
    # Nothing is learned through the batch's β.
    beta = torch.clamp(0.3 * (1 + 0.5 * (margins.mean().detach() - 1.0)), min=1e-3)
    return -torch.nn.functional.logsigmoid(beta * margins)


def make(name, case, seed):
    global policy_folder, reference_folder
    policy_folder, reference_folder = HERE / "transformer" / case, ROOT / f"reference_{name}"
    rows = make_rows(seed, [2] * 6)
    cases = [
        dict(method=method, settings=settings, oracle="trl", **by_dpo_trainer(method, rows, settings, loss_type))
        for method, settings, loss_type in BY_DPO_TRAINER
    ]
    cases.append(dict(method="orpo", settings={"lambda": 0.25}, oracle="trl", **by_loss_function(ORPOTrainer, rows, beta=0.25)))
    simpo = dict(alpha=0.0, loss_type="simpo", simpo_gamma=1.0, beta=2.0, label_smoothing=0.0, cpo_alpha=0.0)
    cases.append(dict(method="simpo", settings=dict(beta=2.0, gamma_beta_ratio=0.5), oracle="trl", **by_loss_function(CPOTrainer, rows, **simpo)))
    cases += [dict(method=method, settings=settings, oracle="formula", **by_formula(rows, loss)) for method, settings, loss in formulas()]
    settings = dict(beta=0.3, alpha=0.5, threshold=1.0)
    cases.append(dict(method="beta_dpo", settings=settings, oracle="formula", **by_formula(rows, beta_dpo, whole_batch=True)))

    kto_rows, labels = make_rows(seed + 1, [1] * 7), [True, False, False, True, True, False, True]
    settings = dict(beta=0.3, desirable_weight=1.0, undesirable_weight=1.5)
    kto = dict(rows=kto_rows, labels=labels, settings=settings, **by_kto_trainer(kto_rows, labels, **settings))
    dro_v_rows = make_rows(seed + 2, [2, 1, 3, 2])
    generator = torch.Generator().manual_seed(seed)
    dro_v = by_dro_v(name, dro_v_rows, [torch.randn(len(row["responses"]), generator=generator).tolist() for row in dro_v_rows], 0.3)
    versions = dict(torch=torch.__version__, transformers=transformers.__version__, trl=trl.__version__)
    lines = [
        f'"policy": "transformer/{case}", "reference": "objectives/reference_{name}", "versions": {json.dumps(versions)}', f'"rows": {json.dumps(rows)}',
        f'"kto": {json.dumps(kto)}', f'"dro_v": {json.dumps(dro_v)}', '"cases": [\n' + ",\n".join(json.dumps(x) for x in cases) + "\n]",
    ]
    (ROOT / f"methods_{name}.json").write_text("{" + ",\n".join(lines) + "}\n")
    print(name, {x["method"]: round(x["loss"], 4) for x in cases}, "kto", round(kto["loss"], 4), "kl", kto["kl"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for seed, (name, case) in enumerate(POLICIES.items()):
        make(name, case, 300 + 100 * seed)
