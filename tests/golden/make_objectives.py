"""Closed forms of the objectives in f64 (numpy), checked here against torch's autograd."""

import json
import pathlib

import numpy as np
import torch

ROOT = pathlib.Path(__file__).parent / "objectives"


# --- DRO -----------------------------------------------------------------------------------------

def dro(data, beta, log_z0, prompt_term="full", error="mse", aggregate="per_prompt"):
    counts = np.array(data["counts"])
    prompt_of = np.repeat(np.arange(len(counts)), counts)
    logps, ref_logps, rewards = (np.array(data[key]) for key in ("logps", "ref_logps", "rewards"))
    d_x = np.array(data["prompt_logps"]) - np.array(data["ref_prompt_logps"])
    if prompt_term == "full":
        term = d_x
    elif prompt_term == "off":
        term = np.zeros_like(d_x)
    else:
        term = np.clip(d_x, -prompt_term["clip"], prompt_term["clip"])
    log_z = (log_z0 + term)[prompt_of]
    log_ratios = logps - ref_logps
    e = rewards - beta * (log_ratios + log_z)
    if error == "mse":
        errors, slope = e**2, 2 * e
    elif error == "mae":
        errors, slope = np.abs(e), np.sign(e)
    else:
        delta = error["huber"]
        inside = np.abs(e) <= delta
        errors = np.where(inside, e**2, delta * (2 * np.abs(e) - delta))
        slope = np.where(inside, 2 * e, 2 * delta * np.sign(e))
    if aggregate == "per_prompt":
        weights = 1 / (counts[prompt_of] * len(counts))
    else:
        weights = np.full(len(e), 1 / len(e))
    return dict(
        loss=float(np.sum(weights * errors)),
        prompt_log_ratios=d_x.tolist(),
        log_z=log_z.tolist(),
        log_ratios=log_ratios.tolist(),
        targets=(rewards / beta - log_z).tolist(),
        residuals=e.tolist(),
        errors=errors.tolist(),
        grad_logps=(-beta * weights * slope).tolist(),
    )


def dro_by_autograd(data, beta, log_z0, prompt_term="full", error="mse", aggregate="per_prompt"):
    """The same from Algorithm 1's own loop: one prompt after the other."""
    logps = torch.tensor(data["logps"], dtype=torch.float64, requires_grad=True)
    prompt_logps = torch.tensor(data["prompt_logps"], dtype=torch.float64, requires_grad=True)
    losses, start = [], 0
    for prompt, n in enumerate(data["counts"]):
        d_x = (prompt_logps[prompt] - data["ref_prompt_logps"][prompt]).detach()
        if prompt_term == "off":
            d_x = torch.zeros_like(d_x)
        elif prompt_term != "full":
            d_x = d_x.clamp(-prompt_term["clip"], prompt_term["clip"])
        own = []
        for j in range(start, start + n):
            e = data["rewards"][j] - beta * (logps[j] - data["ref_logps"][j] + log_z0 + d_x)
            if error == "mse":
                own.append(e**2)
            elif error == "mae":
                own.append(e.abs())
            else:
                own.append(2 * torch.nn.functional.huber_loss(e, torch.zeros_like(e), delta=error["huber"]))
        losses.append(own)
        start += n
    if aggregate == "per_prompt":
        loss = torch.stack([torch.stack(own).mean() for own in losses]).mean()
    else:
        loss = torch.stack([x for own in losses for x in own]).mean()
    loss.backward()
    assert prompt_logps.grad is None, "no gradient may reach the prompt's log-probs"
    return loss.item(), logps.grad.numpy()


def dro_input(seed, counts, reward_mean, reward_deviation, spread):
    rng = np.random.default_rng(seed)
    n, p = sum(counts), len(counts)
    ref_logps = -rng.uniform(5, 120, n)
    ref_prompt_logps = -rng.uniform(20, 400, p)
    return dict(
        counts=list(counts),
        rewards=rng.normal(reward_mean, reward_deviation, n).tolist(),
        logps=(ref_logps + rng.normal(0, spread, n)).tolist(),
        ref_logps=ref_logps.tolist(),
        prompt_logps=(ref_prompt_logps + rng.normal(0, spread, p)).tolist(),
        ref_prompt_logps=ref_prompt_logps.tolist(),
    )


DRO_INPUTS = [
    dro_input(1, [2, 1, 3, 2, 5, 1], 5.0, 3.0, 6.0),
    dro_input(2, [2] * 8, 0.0, 1.0, 2.0),
    dro_input(3, [1], -2.0, 1.0, 10.0),
]
DRO_OPTIONS = [
    dict(beta=0.1, log_z0=50.0),
    dict(beta=0.1, log_z0=0.0),
    dict(beta=0.5, log_z0=-3.5),
    dict(beta=0.02, log_z0=500.0),
    dict(beta=0.1, log_z0=50.0, prompt_term="off"),
    dict(beta=0.1, log_z0=50.0, prompt_term={"clip": 3.0}),
    dict(beta=0.1, log_z0=50.0, prompt_term={"clip": 0.0}),
    dict(beta=0.1, log_z0=50.0, error={"huber": 1.0}),
    dict(beta=0.3, log_z0=10.0, error={"huber": 0.25}, prompt_term={"clip": 5.0}),
    dict(beta=0.1, log_z0=50.0, error="mae"),
    dict(beta=0.1, log_z0=50.0, aggregate="per_response"),
    dict(beta=0.2, log_z0=20.0, error="mae", aggregate="per_response", prompt_term="off"),
]


def make_dro():
    cases = []
    for i, data in enumerate(DRO_INPUTS):
        for options in DRO_OPTIONS:
            full = {"prompt_term": "full", "error": "mse", "aggregate": "per_prompt", **options}
            result = dro(data, **full)
            loss, grad = dro_by_autograd(data, **full)
            np.testing.assert_allclose(result["loss"], loss, rtol=1e-12)
            np.testing.assert_allclose(result["grad_logps"], grad, rtol=1e-9, atol=1e-14)
            cases.append({"input": i, "options": full, **result})
    write("dro.json", dict(inputs=DRO_INPUTS, cases=cases))
    return len(cases)


# --- DRO's further settings ----------------------------------------------------------------------

FURTHER_DEFAULTS = dict(
    log_z0=0.0, levels=None, prompt_term="off", aggregate="per_prompt", level_weight=1.0, nll_weight=0.0, length_normalize=False,
)


def dro_further(data, beta, log_z0, levels, prompt_term, aggregate, level_weight, nll_weight, length_normalize):
    counts = np.array(data["counts"])
    p, prompt_of = len(counts), np.repeat(np.arange(len(counts)), counts)
    logps, ref_logps, rewards, tokens = (np.array(data[key]) for key in ("logps", "ref_logps", "rewards", "tokens"))
    n = len(logps)
    d_x = np.array(data["prompt_logps"]) - np.array(data["ref_prompt_logps"])
    level = np.full(p, log_z0) if levels is None else np.array(levels)
    if prompt_term != "off":
        level = level + d_x
    divisor = tokens if length_normalize else np.ones(n)
    log_z = level[prompt_of]
    e = rewards - beta * ((logps - ref_logps) / divisor + log_z)
    mean = np.array([e[prompt_of == x].mean() for x in range(p)])[prompt_of]
    # With a weight of 1 the split is DRO's error on average over a prompt's responses, and DRO's error is what is logged.
    errors = e**2 if level_weight == 1.0 else (e - mean) ** 2 + level_weight * mean**2
    weights = 1 / (counts[prompt_of] * p) if aggregate == "per_prompt" else np.full(n, 1 / n)
    # dL/de_j: the mean of a prompt's distances from their mean is 0, so nothing else is left of the first term.
    slope = weights * (2 * (e - mean) + 2 * level_weight * mean)
    grad = -beta * slope / divisor
    grad_prompt = np.zeros(p)
    if prompt_term == "learned":
        grad_prompt = np.array([-beta * slope[prompt_of == x].sum() for x in range(p)])
    best = np.array([start + np.argmax(rewards[start : start + k]) for start, k in zip(np.cumsum(counts) - counts, counts)])
    nll = -logps[best].sum() / tokens[best].sum()
    grad[best] -= nll_weight * beta**2 / tokens[best].sum()
    return dict(
        loss=float(np.sum(weights * errors) + nll_weight * beta**2 * nll),
        residuals=e.tolist(),
        errors=errors.tolist(),
        targets=((rewards / beta - log_z) * divisor).tolist(),
        nll=float(nll),
        grad_logps=grad.tolist(),
        grad_prompt_logps=grad_prompt.tolist(),
    )


def dro_further_by_autograd(
    data, beta, log_z0, levels, prompt_term, aggregate, level_weight, nll_weight, length_normalize
):
    logps = torch.tensor(data["logps"], dtype=torch.float64, requires_grad=True)
    prompt_logps = torch.tensor(data["prompt_logps"], dtype=torch.float64, requires_grad=True)
    losses, likelihood, tokens, start = [], 0.0, 0, 0
    for x, n in enumerate(data["counts"]):
        d_x = prompt_logps[x] - data["ref_prompt_logps"][x]
        if prompt_term == "full":
            d_x = d_x.detach()
        elif prompt_term == "off":
            d_x = 0.0
        level = log_z0 if levels is None else levels[x]
        own = []
        for j in range(start, start + n):
            h = logps[j] - data["ref_logps"][j]
            if length_normalize:
                h = h / data["tokens"][j]
            own.append(data["rewards"][j] - beta * (h + level + d_x))
        own = torch.stack(own)
        losses.append((own - own.mean()) ** 2 + level_weight * own.mean() ** 2)
        best = max(range(start, start + n), key=lambda j: data["rewards"][j])
        likelihood, tokens = likelihood + logps[best], tokens + data["tokens"][best]
        start += n
    loss = torch.stack([x.mean() for x in losses]).mean() if aggregate == "per_prompt" else torch.cat(losses).mean()
    loss = loss - nll_weight * beta**2 * likelihood / tokens
    loss.backward()
    grad_prompt = np.zeros(len(losses)) if prompt_logps.grad is None else prompt_logps.grad.numpy()
    return loss.item(), logps.grad.numpy(), grad_prompt


FURTHER_OPTIONS = [
    dict(beta=0.1, log_z0=50.0, level_weight=0.0),
    dict(beta=0.3, log_z0=4.0, level_weight=0.25),
    dict(beta=0.3, log_z0=4.0, level_weight=3.0, aggregate="per_response", prompt_term="full"),
    dict(beta=0.3, log_z0=4.0, nll_weight=16.0),
    dict(beta=0.3, log_z0=4.0, nll_weight=0.5, level_weight=0.5, aggregate="per_response"),
    dict(beta=0.5, log_z0=0.2, length_normalize=True),
    dict(beta=0.5, log_z0=0.2, length_normalize=True, level_weight=0.5),
    dict(beta=0.3, log_z0=4.0, prompt_term="learned"),
    dict(beta=0.3, log_z0=4.0, prompt_term="learned", level_weight=0.25, aggregate="per_response"),
]


def make_dro_further():
    inputs, cases = [], []
    for seed, counts in ((31, [2, 1, 3, 2, 5, 1]), (32, [2] * 8)):
        data = dro_input(seed, counts, 1.0, 2.0, 4.0)
        rng = np.random.default_rng(seed + 100)
        data["tokens"] = rng.integers(1, 40, sum(counts)).tolist()
        levels = rng.normal(3.0, 2.0, len(counts)).tolist()
        for options in [*FURTHER_OPTIONS, dict(beta=0.3, levels=levels), dict(beta=0.3, levels=levels, level_weight=0.5)]:
            full = {**FURTHER_DEFAULTS, **options}
            result = dro_further(data, **full)
            loss, grad, grad_prompt = dro_further_by_autograd(data, **full)
            np.testing.assert_allclose(result["loss"], loss, rtol=1e-12)
            np.testing.assert_allclose(result["grad_logps"], grad, rtol=1e-9, atol=1e-14)
            np.testing.assert_allclose(result["grad_prompt_logps"], grad_prompt, rtol=1e-9, atol=1e-14)
            cases.append({"input": len(inputs), "options": full, **result})
        inputs.append(data)
    write("dro_further.json", dict(inputs=inputs, cases=cases, log_z=make_log_z()))
    return len(cases)


def make_log_z():
    """log Z(x) from samples of the reference; the sum of two groups of terms, each by logaddexp."""
    rng = np.random.default_rng(41)
    cases = []
    for beta in (0.25, 1.0):
        for k, inside in ((8, 0), (16, 5), (12, 12)):
            ref_logps, rewards = -rng.uniform(0.5, 30, 3), rng.normal(0, 2, 3)
            samples = rng.normal(0, 1, k)
            in_data = (np.arange(k) < inside).tolist()
            terms = np.concatenate([ref_logps + rewards / beta, samples[inside:] / beta - np.log(k)])
            weights = np.exp((samples - samples.max()) / beta)
            cases.append(dict(
                beta=beta, ref_logps=ref_logps.tolist(), rewards=rewards.tolist(), samples=samples.tolist(), in_data=in_data,
                log_z=float(np.logaddexp.reduce(terms)), effective_samples=float(weights.sum() ** 2 / (weights**2).sum()),
            ))
    return cases


# --- What DRO computes from the rewards before training ------------------------------------------

def quantile(rewards):
    """The share of all rewards that are not greater, in (0, 1]."""
    r = np.array(rewards)
    return np.mean(r[None, :] <= r[:, None], axis=1)


def make_rewards():
    rng = np.random.default_rng(11)
    counts = [2, 1, 3, 2, 4]
    rewards = rng.normal(2.0, 4.0, sum(counts))
    rewards[7] = rewards[3]  # a tie
    prompt_of = np.repeat(np.arange(len(counts)), counts)
    means = np.array([rewards[prompt_of == p].mean() for p in range(len(counts))])
    transforms = {
        "none": rewards,
        "center": rewards - rewards.mean(),
        "zscore": (rewards - rewards.mean()) / rewards.std(ddof=0),
        "center_per_prompt": rewards - means[prompt_of],
        "quantile": quantile(rewards),
        "clip": np.clip(rewards, -1.5, 3.0),
    }
    chosen = np.array([prompt_of[j] != prompt_of[j - 1] if j else True for j in range(len(rewards))])
    beta, ref_logps = 0.25, -rng.uniform(3, 40, len(rewards))
    log_mass = [float(np.logaddexp.reduce((ref_logps + rewards / beta)[prompt_of == p])) for p in range(len(counts))]
    record = dict(
        counts=counts,
        rewards=rewards.tolist(),
        clip=[-1.5, 3.0],
        transforms={key: value.tolist() for key, value in transforms.items()},
        audit=dict(
            about="log_mass = ln sum over a prompt's responses of pi_ref*exp(r/beta); feasible where log_mass <= log_z0",
            beta=beta,
            ref_logps=ref_logps.tolist(),
            log_mass=log_mass,
            smallest_feasible_log_z0=max(log_mass),
            feasible_at_12=[mass <= 12.0 for mass in log_mass],
        ),
        log_z0_auto=dict(
            about="log_z0 = mean(chosen rewards)/beta - shift, so that the chosen targets r/beta - log_z0 have mean `shift`",
            chosen=chosen.tolist(),
            beta=beta,
            log_z0={str(shift): float(rewards[chosen].mean() / beta - shift) for shift in (0.0, 2.5, -1.0)},
        ),
    )
    write("rewards.json", record)


# --- DPO -----------------------------------------------------------------------------------------

def log_sigmoid(x):
    return -np.logaddexp(0.0, -x)


def sigmoid(x):
    return np.exp(log_sigmoid(x))


def make_dpo():
    rng = np.random.default_rng(21)
    n = 9
    data = {
        key: (-rng.uniform(5, 150, n)).tolist()
        for key in ("chosen_logps", "rejected_logps", "ref_chosen_logps", "ref_rejected_logps")
    }
    # Far out on both sides: log(sigmoid(x)) would be -inf.
    data["chosen_logps"][0], data["rejected_logps"][0] = -1.0, -9000.0
    data["chosen_logps"][1], data["rejected_logps"][1] = -9000.0, -1.0
    # The policy is the reference.
    for side in ("chosen", "rejected"):
        data[f"{side}_logps"][2] = data[f"ref_{side}_logps"][2]
    w, l, rw, rl = (np.array(value) for value in data.values())
    cases = []
    for beta in (0.1, 0.5):
        for smoothing in (0.0, 0.1, 0.3):
            margin = beta * ((w - rw) - (l - rl))
            losses = -(1 - smoothing) * log_sigmoid(margin) - smoothing * log_sigmoid(-margin)
            slope = (-(1 - smoothing) * sigmoid(-margin) + smoothing * sigmoid(margin)) * beta / n

            policy = [torch.tensor(x, requires_grad=True) for x in (w, l)]
            t = beta * ((policy[0] - torch.tensor(rw)) - (policy[1] - torch.tensor(rl)))
            ls = torch.nn.functional.logsigmoid
            loss = (-(1 - smoothing) * ls(t) - smoothing * ls(-t)).mean()
            loss.backward()
            np.testing.assert_allclose(losses.mean(), loss.item(), rtol=1e-12)
            np.testing.assert_allclose(slope, policy[0].grad.numpy(), rtol=1e-9, atol=1e-300)
            np.testing.assert_allclose(-slope, policy[1].grad.numpy(), rtol=1e-9, atol=1e-300)
            cases.append(dict(
                beta=beta, label_smoothing=smoothing, loss=float(losses.mean()), losses=losses.tolist(),
                grad_chosen_logps=slope.tolist(), grad_rejected_logps=(-slope).tolist(),
                rewards_chosen=(beta * (w - rw)).tolist(), rewards_rejected=(beta * (l - rl)).tolist(),
            ))
    write("dpo.json", dict(input=data, cases=cases))
    return len(cases)


def write(name, record):
    """One line per list or small object: short enough, and a diff stays readable."""
    record = dict(versions=dict(numpy=np.__version__, torch=torch.__version__), **record)
    body = ",\n".join(
        f'"{key}": [\n' + ",\n".join(json.dumps(row) for row in value) + "\n]"
        if isinstance(value, list) and value and isinstance(value[0], dict)
        else f'"{key}": {json.dumps(value)}'
        for key, value in record.items()
    )
    (ROOT / name).write_text("{" + body + "}\n")


if __name__ == "__main__":
    ROOT.mkdir(exist_ok=True)
    print(f"{make_dro()} DRO cases, {make_dro_further()} of its further settings, {make_dpo()} DPO cases")
    make_rewards()
