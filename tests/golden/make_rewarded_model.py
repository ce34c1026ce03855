"""One step of the methods that train on rewards, on whole models: RPO with its forms, Nemotron's losses and QRPO as their papers write them, in torch.

Policies, references and rows are made as in `make_objectives_model.py`; each sequence alone and without padding.
"""

import json
import math

import torch
import transformers

from make_objectives_model import HERE, POLICIES, ROOT, gradients, load, logps, make_rows


def rpo(beta, reward_models, pessimism=0.0):
    """Fisch et al. 2024: the squared distance of the implicit reward difference to an explicit one, the least over a set of reward models; the pessimistic
    form adds γ times the KL from the reference, of which a pair is a sample of two: ½ Σ_y log(π_ref(y|x) / π(y|x))."""

    def loss(logp, ref, rewards):
        implicit = beta * torch.log(torch.exp(logp[0] - logp[1]) * torch.exp(ref[1] - ref[0]))
        distances = torch.stack([(rewards[m][0] - rewards[m][1] - implicit) ** 2 for m in range(reward_models)])
        return distances.min() + pessimism * 0.5 * sum(r - p for p, r in zip(logp, ref))

    return loss


def bernoulli(p, q):
    """KL between two Bernoulli distributions by their chances."""
    return p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))


def nemotron(distance):
    """Adler et al. 2024, Eq. 1: a distance of the implicit reward difference to η times the explicit one."""

    def method(beta, reward_scale):
        def loss(logp, ref, rewards):
            implicit = beta * (logp[0] - ref[0]) - beta * (logp[1] - ref[1])
            explicit = torch.tensor(reward_scale * (rewards[0][0] - rewards[0][1]))
            return distance(implicit, explicit)

        return loss

    return method


rpo_sq = nemotron(lambda a, b: (a - b) ** 2)
rpo_bwd_kl = nemotron(lambda a, b: bernoulli(torch.sigmoid(b), torch.sigmoid(a)))
rpo_fwd_kl = nemotron(lambda a, b: bernoulli(torch.sigmoid(a), torch.sigmoid(b)))

# Settings as in a config file, and the loss.
CASES = [
    ("rpo", dict(beta=0.3), rpo(0.3, 1)),
    ("rpo", dict(beta=0.3, ensemble=["second.jsonl"]), rpo(0.3, 2)),
    ("rpo", dict(beta=0.3, pessimism=0.2), rpo(0.3, 1, 0.2)),
    ("rpo", dict(beta=0.1, pessimism=0.5, ensemble=["second.jsonl"]), rpo(0.1, 2, 0.5)),
    ("rpo_sq", dict(beta=0.3, reward_scale=1.5), rpo_sq(0.3, 1.5)),
    ("rpo_bwd_kl", dict(beta=0.3, reward_scale=1.5), rpo_bwd_kl(0.3, 1.5)),
    ("rpo_fwd_kl", dict(beta=0.3, reward_scale=1.5), rpo_fwd_kl(0.3, 1.5)),
]


def scored(model, reference, row):
    """Log-probs of a row's responses, in f64 from here on: a formula is not to add the rounding of its own shape."""
    logp = [logps(model, row["prompt"], response)[1].double() for response in row["responses"]]
    with torch.no_grad():
        ref = [logps(reference, row["prompt"], response)[1].double() for response in row["responses"]]
    return logp, ref


def step(model, losses):
    loss = torch.stack(losses).mean()
    loss.backward()
    return dict(loss=float(loss.detach()), grad_norm=gradients(model)[1])


def pairwise(policy_folder, reference, rows, rewards, beta, loss):
    model = load(policy_folder)
    values = [scored(model, reference, row) for row in rows]
    h = [[float((p - r).detach()) for p, r in zip(*value)] for value in values]
    mean = lambda numbers: sum(numbers) / len(numbers)
    metrics = {
        "rewards/chosen": mean([beta * w for w, _ in h]),
        "rewards/rejected": mean([beta * l for _, l in h]),
        "rewards/accuracies": mean([float(w > l) for w, l in h]),
        "logps/chosen": mean([float(logp[0].detach()) for logp, _ in values]),
        "logps/rejected": mean([float(logp[1].detach()) for logp, _ in values]),
    }
    return step(model, [loss(*value, own) for value, own in zip(values, rewards)]) | metrics


def qrpo(policy_folder, reference, rows, rewards, beta):
    """Matrenok et al. 2025: the reward is its quantile among the samples of the reference, the partition function that of a uniform reward."""
    model = load(policy_folder)
    log_z = math.log(beta * (math.exp(1 / beta) - 1))
    losses, quantiles = [], []
    for row, own in zip(rows, rewards):
        quantiles.append([sum(other <= reward for other in own) / len(own) for reward in own])
        for logp, ref, quantile in zip(*scored(model, reference, row), quantiles[-1]):
            losses.append((quantile - beta * log_z - beta * (logp - ref)) ** 2)
    return dict(settings=dict(beta=beta), rows=rows, rewards=rewards, quantiles=quantiles, **step(model, losses))


def make(name, case, seed):
    policy, reference = HERE / "transformer" / case, load(ROOT / f"reference_{name}")
    generator = torch.Generator().manual_seed(seed)
    normal = lambda n: (2 * torch.randn(n, generator=generator)).tolist()
    rows = make_rows(seed, [2] * 6)
    # By reward model, the first the data's own: some pairs are in another order than they are labelled.
    rewards = [[normal(2), normal(2)] for _ in rows]
    cases = [dict(method=m, settings=s, **pairwise(policy, reference, rows, rewards, s["beta"], loss)) for m, s, loss in CASES]
    least = [pairwise(policy, reference, rows, [[own[m]] for own in rewards], 0.3, rpo(0.3, 1))["loss"] for m in (0, 1)]
    assert cases[1]["loss"] < min(least), "each reward model is the nearer one somewhere"
    qrpo_rows = make_rows(seed + 1, [3, 2, 4, 2])
    by_qrpo = qrpo(policy, reference, qrpo_rows, [normal(len(row["responses"])) for row in qrpo_rows], 0.3)
    versions = dict(torch=torch.__version__, transformers=transformers.__version__)
    lines = [
        f'"policy": "transformer/{case}", "reference": "objectives/reference_{name}", "versions": {json.dumps(versions)}', f'"rows": {json.dumps(rows)}',
        f'"rewards": {json.dumps(rewards)}', f'"qrpo": {json.dumps(by_qrpo)}', '"cases": [\n' + ",\n".join(json.dumps(x) for x in cases) + "\n]",
    ]
    (ROOT / f"rewarded_{name}.json").write_text("{" + ",\n".join(lines) + "}\n")
    print(name, [(x["method"], round(x["loss"], 4), round(x["grad_norm"], 4)) for x in cases], "qrpo", by_qrpo["loss"], by_qrpo["grad_norm"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for seed, (name, case) in enumerate(POLICIES.items()):
        make(name, case, 700 + 100 * seed)
