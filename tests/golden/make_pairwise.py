"""Pairwise and row-wise objectives in f64: closed forms in numpy, with their gradients with respect to the sequence log-probs.

Each is held here against autograd: of trl's own code, called on the same numbers, where trl has the objective; else of the formula in torch.
"""

import inspect
import json
import pathlib
import types
from collections import defaultdict

import numpy as np
import torch
import trl
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.experimental.orpo import orpo_trainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

ROOT = pathlib.Path(__file__).parent / "objectives"
torch.set_default_dtype(torch.float64)  # trl's `torch.tensor(label_smoothing)` is f32 otherwise


# --- Numbers -------------------------------------------------------------------------------------

def exactly(values):
    """What f32 holds exactly, so that every dtype starts from the same numbers."""
    return np.float32(np.round(np.asarray(values) * 64) / 64).astype(np.float64)


def make_input():
    rng = np.random.default_rng(41)
    n = 12
    data = {key: exactly(-rng.uniform(5, 60, n)) for key in ("logps_w", "logps_l", "ref_logps_w", "ref_logps_l")}
    # Far out on both sides, the policy at the reference, a chosen response below it, and one that is next to certain.
    data["logps_w"][0], data["logps_l"][0] = -1.0, -9000.0
    data["logps_w"][1], data["logps_l"][1] = -9000.0, -1.0
    for side in "wl":
        data[f"logps_{side}"][2] = data[f"ref_logps_{side}"][2]
    data["logps_w"][3] = data["ref_logps_w"][3] - 4.0
    data["logps_w"][4] = np.float64(np.float32(-1e-7))
    data["logps_l"][5] = np.float64(np.float32(-1e-7))
    data["tokens_w"] = rng.integers(1, 40, n).astype(np.float64)
    data["tokens_l"] = rng.integers(1, 40, n).astype(np.float64)
    data["tokens_w"][4] = data["tokens_l"][5] = data["tokens_w"][6] = 1.0
    for model in ("a", "b"):
        for side in "wl":
            data[f"rewards_{model}_{side}"] = exactly(rng.normal(0, 3, n))
    data["quantiles"] = exactly(rng.uniform(0, 1, 2 * n))
    data["values"] = exactly(rng.normal(0, 1, 2 * n))
    data["mismatched"] = exactly(rng.normal(1.5, 3, 2 * n))
    return data


def ls(x):
    return -np.logaddexp(0.0, -x)


def s(x):
    return np.exp(ls(x))


# --- The objectives: losses, and their derivatives by h_w and h_l (or by the log-probs) ------------

class Sides:
    """What an objective may look at."""

    def __init__(self, data):
        self.__dict__.update({key: value for key, value in data.items()})
        self.h_w, self.h_l = self.logps_w - self.ref_logps_w, self.logps_l - self.ref_logps_l
        self.m_w, self.m_l = self.logps_w / self.tokens_w, self.logps_l / self.tokens_l


def dpo(d, beta, label_smoothing):
    x, e = beta * (d.h_w - d.h_l), label_smoothing
    slope = beta * (-(1 - e) * s(-x) + e * s(x))
    return -(1 - e) * ls(x) - e * ls(-x), slope, -slope


def robust(d, beta, label_smoothing):
    x, e = beta * (d.h_w - d.h_l), label_smoothing
    slope = beta * (-(1 - e) * s(-x) - e * s(x)) / (1 - 2 * e)
    return (-(1 - e) * ls(x) + e * ls(-x)) / (1 - 2 * e), slope, -slope


def hinge(d, beta):
    missing = 1 - beta * (d.h_w - d.h_l)
    slope = np.where(missing > 0, -beta, 0.0)
    return np.maximum(missing, 0), slope, -slope


def ipo(d, beta, normalize):
    n_w, n_l = (d.tokens_w, d.tokens_l) if normalize == "tokens" else (1.0, 1.0)
    e = d.h_w / n_w - d.h_l / n_l - 1 / (2 * beta)
    return e**2, 2 * e / n_w, -2 * e / n_l


def exo_pair(d, beta, label_smoothing):
    x, e = beta * (d.h_w - d.h_l), label_smoothing
    right, wrong = ls(x) - np.log1p(-e), ls(-x) - np.log(e)
    slope = beta * s(x) * s(-x) * (right - wrong)
    return s(x) * right + s(-x) * wrong, slope, -slope


def nca_pair(d, beta):
    w, l = beta * d.h_w, beta * d.h_l
    losses = -ls(w) - 0.5 * ls(-w) - 0.5 * ls(-l)
    return losses, beta * (-s(-w) + 0.5 * s(w)), beta * 0.5 * s(l)


def bco_pair(d, beta):
    w, l = beta * d.h_w, beta * d.h_l
    return -ls(w) - ls(-l), -beta * s(-w), beta * s(l)


def sppo_hard(d, beta):
    w, l = d.h_w - 0.5 / beta, d.h_l + 0.5 / beta
    return w**2 + l**2, 2 * w, 2 * l


def apo_zero(d, beta):
    w, l = beta * d.h_w, beta * d.h_l
    return s(-w) + s(l), -beta * s(w) * s(-w), beta * s(l) * s(-l)


def apo_down(d, beta):
    w, x = beta * d.h_w, beta * (d.h_w - d.h_l)
    push = beta * s(x) * s(-x)
    return s(w) + s(-x), beta * s(w) * s(-w) - push, push


def discopop(d, beta, tau):
    x = beta * (d.h_w - d.h_l)
    # s·exp(−x) as one exponential: the product is 0·∞ far out.
    blended = np.exp(ls(x / tau) - x)
    losses = -s(-x / tau) * ls(x) + blended
    turn = s(x / tau) * s(-x / tau) / tau
    slope = beta * (turn * ls(x) - s(-x / tau) * s(-x) + blended * (s(-x / tau) / tau - 1))
    return losses, slope, -slope


def sigmoid_norm(d, beta):
    x = beta * (d.h_w / d.tokens_w - d.h_l / d.tokens_l)
    return -ls(x), -beta * s(-x) / d.tokens_w, beta * s(-x) / d.tokens_l


def by_rank(values, others):
    """For each value the other of the same rank."""
    matched = np.empty_like(others)
    matched[np.argsort(values, kind="stable")] = np.sort(others)
    return matched


def aot(d, beta, label_smoothing):
    margins, e = d.logps_w - d.logps_l, label_smoothing
    x = beta * (margins - by_rank(margins, d.ref_logps_w - d.ref_logps_l))
    slope = beta * (-(1 - e) * s(-x) + e * s(x))
    return -(1 - e) * ls(x) - e * ls(-x), slope, -slope


def aot_unpaired(d, beta, label_smoothing):
    e = label_smoothing
    w, l = beta * (d.h_w - by_rank(d.h_w, d.h_l)), beta * (by_rank(d.h_l, d.h_w) - d.h_l)
    loss = lambda x: -(1 - e) * ls(x) - e * ls(-x)
    slope = lambda x: beta * (-(1 - e) * s(-x) + e * s(x))
    return 0.5 * (loss(w) + loss(l)), slope(w), -slope(l)


def simpo(d, beta, gamma_beta_ratio):
    x = beta * (d.m_w - d.m_l) - beta * gamma_beta_ratio
    return -ls(x), -beta * s(-x) / d.tokens_w, beta * s(-x) / d.tokens_l


def orpo(d, **settings):
    """The term without the NLL, which is linear in another log-prob."""
    lam = settings["lambda"]
    odds = lambda m: m - np.where(m > -np.log(2), np.log(-np.expm1(m)), np.log1p(-np.exp(np.minimum(m, -1e-300))))
    turn = lambda m: 1 / -np.expm1(m)
    x = odds(d.m_w) - odds(d.m_l)
    return -lam * ls(x), -lam * s(-x) * turn(d.m_w) / d.tokens_w, lam * s(-x) * turn(d.m_l) / d.tokens_l


def cal_dpo(d, beta, calibration_weight):
    x, w, l = d.h_w - d.h_l, d.h_w - 0.5 / beta, d.h_l + 0.5 / beta
    losses = -ls(x) + calibration_weight * (w**2 + l**2)
    return losses, -s(-x) + 2 * calibration_weight * w, s(-x) + 2 * calibration_weight * l


def slic_hf(d, delta, **settings):
    lam, missing = settings["lambda"], delta - d.logps_w + d.logps_l
    active = np.where(missing > 0, 1.0, 0.0)
    return np.maximum(missing, 0) - lam * d.logps_w, -active - lam, active


def rpo(d, beta, pessimism, models):
    e = [d.__dict__[f"rewards_{m}_w"] - d.__dict__[f"rewards_{m}_l"] - beta * (d.h_w - d.h_l) for m in models]
    e = np.array(e)
    e = np.take_along_axis(e, np.argmin(e**2, axis=0)[None], 0)[0]
    slope = -2 * beta * e
    return e**2 + 0.5 * pessimism * (-d.h_w - d.h_l), slope - 0.5 * pessimism, -slope - 0.5 * pessimism


def dpop(d, beta, **settings):
    lam = settings["lambda"]
    x = beta * (d.h_w - d.h_l - lam * np.maximum(0, -d.h_w))
    return -ls(x), -beta * s(-x) * (1 + lam * (d.h_w < 0)), beta * s(-x)


def dpo_shift(d, beta, shift):
    x = beta * (d.h_w - shift * d.h_l)
    return -ls(x), -beta * s(-x), beta * shift * s(-x)


def beta_dpo(d, beta, alpha, threshold):
    margins = d.h_w - d.h_l
    beta = max(beta * (1 + alpha * (np.mean(margins) - threshold)), 1e-3)
    slope = -beta * s(-beta * margins)
    return -ls(beta * margins), slope, -slope


def nemotron(d, beta, reward_scale):
    return beta * (d.h_w - d.h_l), reward_scale * (d.rewards_a_w - d.rewards_a_l)


def rpo_sq(d, beta, reward_scale):
    x, g = nemotron(d, beta, reward_scale)
    return (x - g) ** 2, 2 * beta * (x - g), -2 * beta * (x - g)


def bernoulli_kl(p, q):
    return s(p) * (ls(p) - ls(q)) + s(-p) * (ls(-p) - ls(-q))


def rpo_bwd_kl(d, beta, reward_scale):
    x, g = nemotron(d, beta, reward_scale)
    # σ(x) − σ(g), without cancellation far out.
    slope = beta * np.where(x + g > 0, s(-g) - s(-x), s(x) - s(g))
    return bernoulli_kl(g, x), slope, -slope


def rpo_fwd_kl(d, beta, reward_scale):
    x, g = nemotron(d, beta, reward_scale)
    slope = beta * s(x) * s(-x) * (x - g)
    return bernoulli_kl(x, g), slope, -slope


PAIRWISE = [
    (dpo, dict(beta=0.1, label_smoothing=0.0)), (dpo, dict(beta=0.25, label_smoothing=0.2)),
    (robust, dict(beta=0.01, label_smoothing=0.1)), (robust, dict(beta=0.25, label_smoothing=0.4)), (robust, dict(beta=0.1, label_smoothing=0.0)),
    (hinge, dict(beta=0.1)), (hinge, dict(beta=0.5)),
    (ipo, dict(beta=0.1, normalize="tokens")), (ipo, dict(beta=0.5, normalize="tokens")), (ipo, dict(beta=0.1, normalize="none")),
    (exo_pair, dict(beta=0.1, label_smoothing=0.001)), (exo_pair, dict(beta=0.5, label_smoothing=0.2)),
    (nca_pair, dict(beta=0.01)), (nca_pair, dict(beta=0.3)),
    (bco_pair, dict(beta=0.01)), (bco_pair, dict(beta=0.3)),
    (sppo_hard, dict(beta=0.001)), (sppo_hard, dict(beta=0.25)),
    (apo_zero, dict(beta=0.1)), (apo_zero, dict(beta=0.5)),
    (apo_down, dict(beta=0.1)), (apo_down, dict(beta=0.5)),
    (discopop, dict(beta=0.05, tau=0.05)), (discopop, dict(beta=0.1, tau=1.0)),
    (sigmoid_norm, dict(beta=5.0)), (sigmoid_norm, dict(beta=0.5)),
    (aot, dict(beta=0.1, label_smoothing=0.0)), (aot, dict(beta=0.25, label_smoothing=0.1)),
    (aot_unpaired, dict(beta=0.1, label_smoothing=0.0)), (aot_unpaired, dict(beta=0.25, label_smoothing=0.1)),
    (simpo, dict(beta=2.0, gamma_beta_ratio=0.5)), (simpo, dict(beta=10.0, gamma_beta_ratio=0.3)),
    (orpo, {"lambda": 0.1}), (orpo, {"lambda": 1.0}),
    (cal_dpo, dict(beta=0.1, calibration_weight=1.0)), (cal_dpo, dict(beta=0.002, calibration_weight=0.5)),
    (slic_hf, {"delta": 1.0, "lambda": 0.1}), (slic_hf, {"delta": 20.0, "lambda": 0.0}),
    (rpo, dict(beta=0.1, pessimism=0.0, models=["a"])), (rpo, dict(beta=0.25, pessimism=0.5, models=["a", "b"])),
    (dpop, {"beta": 0.3, "lambda": 50.0}), (dpop, {"beta": 0.1, "lambda": 5.0}),
    (dpo_shift, dict(beta=0.01, shift=0.95)), (dpo_shift, dict(beta=0.25, shift=0.55)),
    (beta_dpo, dict(beta=0.1, alpha=0.6, threshold=0.0)), (beta_dpo, dict(beta=0.25, alpha=0.05, threshold=-2.0)), (beta_dpo, dict(beta=0.1, alpha=0.6, threshold=900.0)),
    (rpo_sq, dict(beta=0.2, reward_scale=1.0)), (rpo_bwd_kl, dict(beta=0.2, reward_scale=1.0)), (rpo_bwd_kl, dict(beta=0.1, reward_scale=2.0)),
    (rpo_fwd_kl, dict(beta=0.2, reward_scale=1.0)), (rpo_fwd_kl, dict(beta=0.1, reward_scale=2.0)),
]


# --- Rows: the chosen responses, then the rejected ones ------------------------------------------

def kto(d, beta, desirable_weight, undesirable_weight):
    h = np.concatenate([d.h_w, d.h_l])
    z = max(0.0, float(np.mean(d.mismatched)))
    sign = np.repeat([-1.0, 1.0], len(d.h_w))
    weight = np.repeat([desirable_weight, undesirable_weight], len(d.h_w))
    x = beta * sign * (h - z)
    return weight * s(x), weight * s(x) * s(-x) * beta * sign


def log_z(beta):
    return np.log(beta) + 1 / beta + np.log1p(-np.exp(-1 / beta))


def qrpo(d, beta):
    e = d.quantiles - beta * (np.concatenate([d.h_w, d.h_l]) + log_z(beta))
    return e**2, -2 * beta * e


def dro_v(d, beta):
    e = np.concatenate([d.rewards_a_w, d.rewards_a_l]) - d.values - beta * np.concatenate([d.h_w, d.h_l])
    return 0.5 * e**2, -beta * e


ROWS = [
    (kto, dict(beta=0.1, desirable_weight=1.0, undesirable_weight=1.0)), (kto, dict(beta=0.5, desirable_weight=1.33, undesirable_weight=0.7)),
    (qrpo, dict(beta=0.003)), (qrpo, dict(beta=0.5)),
    (dro_v, dict(beta=1.0)), (dro_v, dict(beta=0.25)),
]


# --- trl's own code on the same numbers ----------------------------------------------------------

def stub(**attributes):
    """Stands in for a trainer: what its loss looks at, and nothing else."""
    accelerator = types.SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)
    base = dict(
        model=types.SimpleNamespace(training=True), accelerator=accelerator, aux_loss_enabled=False, precompute_ref_logps=True,
        _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1,
    )
    return types.SimpleNamespace(**(base | attributes))


def tokens_as_model(logps, tokens):
    """A model's output whose token log-probs add up to `logps`, the first token taking all, and the mask that goes with it."""
    rows, width = len(logps), int(tokens.max())
    mask = torch.zeros(rows, width + 1, dtype=torch.long)
    for row, count in enumerate(tokens):
        mask[row, 1:1 + int(count)] = 1
    rest = torch.zeros(rows, width - 1)
    log_probs = torch.cat([logps[:, None], rest], 1)
    zeros = torch.zeros(rows, width)
    output = types.SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
    return output, mask


def trl_dpo(name):
    def run(w, l, d, beta=None, label_smoothing=0.0, tau=0.05, **_):
        output, mask = tokens_as_model(torch.cat([w, l]), np.concatenate([d.tokens_w, d.tokens_l]))
        trainer = stub(
            ld_alpha=None, f_divergence_type="reverse_kl", loss_types=[name], loss_weights=[1.0], beta=beta, label_smoothing=label_smoothing,
            args=types.SimpleNamespace(discopop_tau=tau), use_weighting=False,
        )
        inputs = dict(
            input_ids=torch.zeros_like(mask), attention_mask=torch.ones_like(mask), completion_mask=mask,
            ref_chosen_logps=torch.tensor(d.ref_logps_w), ref_rejected_logps=torch.tensor(d.ref_logps_l),
        )
        return DPOTrainer._compute_loss(trainer, lambda **_: output, inputs, False)
    return run


def trl_simpo(w, l, d, beta, gamma_beta_ratio):
    trainer = stub(alpha=0.0, loss_type="simpo", simpo_gamma=beta * gamma_beta_ratio, beta=beta, label_smoothing=0.0)
    return CPOTrainer.cpo_loss(trainer, w / torch.tensor(d.tokens_w), l / torch.tensor(d.tokens_l))[0].mean()


def trl_orpo(w, l, d, **settings):
    # Its own lines, but in f64.
    source = inspect.cleandoc(inspect.getsource(ORPOTrainer.odds_ratio_loss)).replace(".float()", ".double()")
    scope = dict(vars(orpo_trainer))
    exec(source, scope)
    trainer = stub(beta=settings["lambda"])
    return -scope["odds_ratio_loss"](trainer, w / torch.tensor(d.tokens_w), l / torch.tensor(d.tokens_l))[0].mean()


def trl_kto(w, l, d, beta, desirable_weight, undesirable_weight):
    n = len(d.h_w)
    output, mask = tokens_as_model(torch.cat([w, l]), np.concatenate([d.tokens_w, d.tokens_l]))
    # `mismatched` are log-ratios; any split into policy and reference will do.
    kl_logps = torch.tensor(d.mismatched)
    trainer = stub(
        _compute_kl_logps=lambda *_: kl_logps, calculate_KL=True, loss_type="kto", beta=beta,
        desirable_weight=desirable_weight, undesirable_weight=undesirable_weight,
    )
    inputs = dict(
        input_ids=torch.zeros_like(mask), attention_mask=torch.ones_like(mask), completion_mask=mask,
        label=torch.tensor([True] * n + [False] * n), ref_KL_logps=torch.zeros(2 * n),
        ref_logps=torch.tensor(np.concatenate([d.ref_logps_w, d.ref_logps_l])),
    )
    return KTOTrainer._compute_loss(trainer, lambda **_: output, inputs, False)


TRL = {name: trl_dpo(name) for name in (
    "robust", "hinge", "ipo", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "discopop", "sigmoid_norm", "aot", "aot_unpaired",
)} | {"dpo": trl_dpo("sigmoid"), "simpo": trl_simpo, "orpo": trl_orpo, "kto": trl_kto}


def has_trl(name, settings):
    """trl 1.x has no label smoothing in `sigmoid`, and normalises IPO by tokens."""
    return name in TRL and not (name == "dpo" and settings["label_smoothing"]) and settings.get("normalize") != "none"


# --- The formula in torch, where trl has none ----------------------------------------------------

def formula(name, w, l, d, settings):
    f = torch.nn.functional.logsigmoid
    t = lambda x: torch.tensor(x)
    h_w, h_l = w - t(d.ref_logps_w), l - t(d.ref_logps_l)
    beta, both = settings.get("beta"), torch.cat([h_w, h_l])
    if name == "dpo":
        x, e = beta * (h_w - h_l), settings["label_smoothing"]
        return -(1 - e) * f(x) - e * f(-x)
    if name == "ipo":
        return (h_w - h_l - 1 / (2 * beta)) ** 2
    if name == "cal_dpo":
        return -f(h_w - h_l) + settings["calibration_weight"] * ((h_w - 0.5 / beta) ** 2 + (h_l + 0.5 / beta) ** 2)
    if name == "slic_hf":
        return torch.relu(settings["delta"] - w + l) - settings["lambda"] * w
    if name == "rpo":
        e = [(t(d.__dict__[f"rewards_{m}_w"] - d.__dict__[f"rewards_{m}_l"]) - beta * (h_w - h_l)) ** 2 for m in settings["models"]]
        return torch.stack(e).amin(0) + settings["pessimism"] * 0.5 * (-h_w - h_l)
    if name == "dpop":
        return -f(beta * (h_w - h_l - settings["lambda"] * torch.relu(-h_w)))
    if name == "dpo_shift":
        return -f(beta * (h_w - settings["shift"] * h_l))
    if name == "beta_dpo":
        # Nothing is learned through the batch's β.
        mean = (h_w - h_l).mean().detach()
        return -f(torch.clamp(beta * (1 + settings["alpha"] * (mean - settings["threshold"])), min=1e-3) * (h_w - h_l))
    if name == "qrpo":
        return (t(d.quantiles) - beta * (both + np.log(beta) + np.log(np.expm1(1 / beta)))) ** 2
    if name == "dro_v":
        return 0.5 * (t(np.concatenate([d.rewards_a_w, d.rewards_a_l])) - t(d.values) - beta * both) ** 2
    x, g = beta * (h_w - h_l), settings["reward_scale"] * t(d.rewards_a_w - d.rewards_a_l)
    if name == "rpo_sq":
        return (x - g) ** 2
    p, q = (g, x) if name == "rpo_bwd_kl" else (x, g)
    return torch.sigmoid(p) * (f(p) - f(q)) + torch.sigmoid(-p) * (f(-p) - f(-q))


def autograd(name, d, settings):
    w, l = (torch.tensor(x, requires_grad=True) for x in (d.logps_w, d.logps_l))
    if has_trl(name, settings):
        loss = TRL[name](w, l, d, **settings)
    else:
        loss = formula(name, w, l, d, settings).mean()
    loss.backward()
    return loss.item(), w.grad.numpy(), l.grad.numpy()


def finite(name, gradient):
    """torch's product of 0 and ∞ in DiscoPOP's second line is the one place where its gradient is no number."""
    assert name == "discopop" or np.isfinite(gradient).all(), name
    return np.isfinite(gradient)


def make():
    data = make_input()
    d = Sides(data)
    n = len(d.h_w)
    cases = []
    for objective, settings in PAIRWISE + ROWS:
        name = objective.__name__
        losses, *slopes = objective(d, **settings)
        if len(slopes) == 1:
            slopes = [slopes[0][:n], slopes[0][n:]]
        w, l = (slope * np.ones(n) / len(losses) for slope in slopes)
        case = dict(
            name=name, settings=settings, loss=float(losses.mean()), losses=losses.tolist(), grad_w=w.tolist(), grad_l=l.tolist(),
        )
        loss, grad_w, grad_l = autograd(name, d, settings)
        if name == "discopop" and not np.isfinite(loss):
            # exp(−x) of the pair that is far the wrong way round: without it trl's lines are finite.
            rest = Sides({key: value if len(value) != n else np.delete(value, 1) for key, value in data.items()})
            loss, grad_w, grad_l = autograd(name, rest, settings)
            np.testing.assert_allclose(np.delete(losses, 1).mean(), loss, rtol=1e-12)
            scale = (n - 1) / n
            np.testing.assert_allclose(np.delete(w, 1), grad_w * scale, rtol=1e-9, atol=1e-16)
            np.testing.assert_allclose(np.delete(l, 1), grad_l * scale, rtol=1e-9, atol=1e-16)
        else:
            np.testing.assert_allclose(losses.mean(), loss, rtol=1e-12)
            for own, theirs in ((w, grad_w), (l, grad_l)):
                keep = finite(name, theirs)
                np.testing.assert_allclose(own[keep], theirs[keep], rtol=1e-8, atol=1e-15)
            if has_trl(name, settings):
                case["trl"] = dict(loss=loss, grad_w=grad_w.tolist(), grad_l=grad_l.tolist())
        cases.append(case)
    versions = dict(numpy=np.__version__, torch=torch.__version__, trl=trl.__version__)
    record = dict(versions=versions, input={key: value.tolist() for key, value in data.items()}, cases=cases)
    lines = [f'"{key}": {json.dumps(record[key])}' for key in ("versions",)]
    lines.append('"input": {\n' + ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in record["input"].items()) + "\n}")
    lines.append('"cases": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]")
    (ROOT / "pairwise.json").write_text("{" + ",\n".join(lines) + "}\n")
    by_trl = sum("trl" in case for case in cases)
    print(f"{len(cases)} cases, {by_trl} of them also by trl {trl.__version__}")


if __name__ == "__main__":
    make()
