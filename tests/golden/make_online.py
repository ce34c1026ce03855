"""Online methods in f64: trl 1.16's own losses of GRPO and RLOO on chosen numbers, with their gradients, and advantages in numpy.

The losses are `GRPOTrainer._compute_loss` and `RLOOTrainer._compute_loss`, called without a trainer: a stand-in holds the settings they read,
and gives out log-probabilities that autograd then differentiates by. Advantages are inline in trl's rollouts: here they are its lines in numpy,
compared with the same lines in torch by trl's `nanstd`, and with `masked_whiten` of trl 1.12 (`make_online_ppo.py`).
"""

import json
import pathlib
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import torch
import trl
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.utils import nanstd

ROOT = pathlib.Path(__file__).parent / "online"
torch.set_default_dtype(torch.float64)
MAX_NEW_TOKENS = 8


def exactly(values):
    """Rounds to numbers that f32 holds exactly, so that every dtype starts from the same ones."""
    return np.float32(np.round(np.asarray(values) * 64) / 64).astype(np.float64)


# --- Losses --------------------------------------------------------------------------------------

class Accelerator:
    num_processes = 1

    def gather(self, values):
        return values

    def reduce(self, values, reduction):
        return values


def make_input():
    rng = np.random.default_rng(7)
    tokens = [5, 1, 8, 3, 2, 7, 8, 4]
    mask = np.arange(MAX_NEW_TOKENS)[None] < np.array(tokens)[:, None]
    shape = mask.shape
    old = exactly(-rng.uniform(0.1, 4, shape))
    # Half of the responses have moved as a whole, so that ratios of whole responses are clipped as well.
    steps = rng.normal(0, 0.15, shape) + np.array([0, 0.375, -0.375, 0.05, -0.125, 0, 0.375, -0.375])[:, None]
    logps = np.minimum(exactly(old + steps), -1 / 64)
    ref = np.minimum(exactly(old + rng.normal(0, 0.5, shape)), -1 / 64)
    # A token that is one the policy did not change, and one far outside on each side.
    logps[0, 0] = old[0, 0]
    old[2, 0], logps[2, 0] = -6.0, -1.0
    old[5, 0], logps[5, 0] = -1.0, -6.0
    # Both signs on both sides.
    advantages = exactly(rng.uniform(0.25, 2, 8)) * [1, 1, -1, 0, 1, -1, 1, -1]
    weights = exactly(rng.uniform(0.2, 2, shape))
    return dict(tokens=tokens, mask=mask, logps=logps, old=old, ref=ref, advantages=advantages, weights=weights)


def stand_in(kind, **settings):
    one = SimpleNamespace(
        accelerator=Accelerator(), model=SimpleNamespace(training=True), _metrics=defaultdict(lambda: defaultdict(list)),
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None, _entropy_bonus_enabled=False,
        use_vllm=False, vllm_importance_sampling_correction=True, current_gradient_accumulation_steps=1,
        max_completion_length=MAX_NEW_TOKENS, **{k: v for k, v in settings.items() if k != "args"})
    one.args = SimpleNamespace(steps_per_generation=1, **settings.get("args", {}))
    one.kind = kind
    return one


def run(trainer, one, data, inputs):
    logps = torch.tensor(data["logps"], requires_grad=True)
    one._get_per_token_logps_and_entropies = lambda *a, **k: (logps, torch.zeros_like(logps), None)
    mask = torch.tensor(data["mask"])
    ids = torch.zeros_like(mask, dtype=torch.long)
    inputs = dict(prompt_ids=ids[:, :0], prompt_mask=ids[:, :0], completion_ids=ids, completion_mask=mask.to(torch.float64),
                  num_items_in_batch=mask.sum(), advantages=torch.tensor(data["advantages"]), **inputs)
    loss = trainer._compute_loss(one, torch.nn.Identity(), inputs)
    [gradient] = torch.autograd.grad(loss, logps)
    assert not gradient[~mask].any()
    metrics = {name: float(np.mean(values)) for name, values in one._metrics["train"].items() if name != "entropy"}
    return dict(loss=loss.item(), gradient=gradient[mask].tolist(), metrics=metrics)


def grpo(data, loss="dapo", importance="token", clip=0.2, clip_high=None, beta=0.0, kl_correction=True, ratio_cap=None, weighted=False):
    settings = dict(loss=loss, importance=importance, clip=clip, beta=beta, kl_correction=kl_correction)
    settings |= {k: v for k, v in dict(clip_high=clip_high, ratio_cap=ratio_cap).items() if v is not None}
    one = stand_in(
        "grpo", importance_sampling_level=importance, beta=beta, loss_type=loss, epsilon_low=clip,
        epsilon_high=clip if clip_high is None else clip_high,
        args=dict(use_bias_correction_kl=kl_correction, delta=ratio_cap))
    inputs = dict(old_per_token_logps=torch.tensor(data["old"]), ref_per_token_logps=torch.tensor(data["ref"]))
    if weighted:
        one.use_vllm = True
        inputs["importance_sampling_ratio"] = torch.tensor(data["weights"])
    return dict(settings=settings, weighted=weighted, on_policy=False, **run(GRPOTrainer, one, data, inputs))


def grpo_on_policy(data, **settings):
    """The only pass over a rollout: no old log-probabilities."""
    found = grpo(dict(data, old=data["logps"]), **settings)
    one = stand_in("grpo", importance_sampling_level=settings.get("importance", "token"), beta=settings.get("beta", 0.0),
                   loss_type=settings.get("loss", "dapo"), epsilon_low=0.2, epsilon_high=0.2,
                   args=dict(use_bias_correction_kl=settings.get("kl_correction", True), delta=None))
    without = run(GRPOTrainer, one, data, dict(ref_per_token_logps=torch.tensor(data["ref"])))
    assert without["loss"] == found["loss"] and without["gradient"] == found["gradient"]
    return dict(found, on_policy=True)


def rloo(data, clip=0.2, clip_high=None):
    settings = dict(clip=clip) | ({} if clip_high is None else dict(clip_high=clip_high))
    one = stand_in("rloo", epsilon_low=clip, epsilon_high=clip if clip_high is None else clip_high)
    old = (torch.tensor(data["old"]) * torch.tensor(data["mask"])).sum(1)
    return dict(settings=settings, **run(RLOOTrainer, one, data, dict(old_logps=old)))


def make_losses():
    data = make_input()
    cases = []
    for loss in ("dapo", "grpo", "dr_grpo"):
        for importance in ("token", "sequence"):
            for extra in (dict(), dict(clip=0.1, clip_high=0.28), dict(beta=0.125), dict(beta=0.125, kl_correction=False),
                          dict(clip=0.1, clip_high=0.2, beta=0.1, ratio_cap=2.0)):
                cases.append(grpo(data, loss=loss, importance=importance, **extra))
    for importance in ("token", "sequence"):
        cases.append(grpo(data, loss="cispo", importance=importance, clip_high=1.25))
        cases.append(grpo(data, loss="cispo", importance=importance, clip_high=5.0, beta=0.125))
    cases.append(grpo(data, weighted=True))
    cases.append(grpo(data, loss="dr_grpo", beta=0.125, weighted=True))
    for loss in ("dapo", "grpo", "dr_grpo"):
        cases.append(grpo_on_policy(data, loss=loss))
        cases.append(grpo_on_policy(data, loss=loss, beta=0.125))
        cases.append(grpo_on_policy(data, loss=loss, beta=0.125, kl_correction=False))
    mask = data["mask"]
    flat = {key: data[key][mask].tolist() for key in ("logps", "old", "ref", "weights")}
    return dict(
        versions=dict(trl=trl.__version__, torch=torch.__version__.split("+")[0], numpy=np.__version__),
        max_new_tokens=MAX_NEW_TOKENS, tokens=data["tokens"], advantages=data["advantages"].tolist(), **flat,
        grpo=cases, rloo=[rloo(data), rloo(data, clip=0.1, clip_high=0.28), rloo(data, clip=0.5)])


# --- Advantages ----------------------------------------------------------------------------------

def gae(rewards, values, gamma, lam):
    advantages, last = [0.0] * len(rewards), 0.0
    for t in reversed(range(len(rewards))):
        after = values[t + 1] if t + 1 < len(values) else 0.0
        last = rewards[t] + gamma * after - values[t] + gamma * lam * last
        advantages[t] = last
    return advantages


def whiten(values, shift_mean):
    values = np.asarray(values)
    whitened = (values - values.mean()) / np.sqrt(values.var(ddof=1) + 1e-8)
    return (whitened if shift_mean else whitened + values.mean()).tolist()


def groups(rewards, counts):
    return np.split(np.asarray(rewards, dtype=float), np.cumsum(counts)[:-1])


def group_relative(rewards, counts, scale):
    found = []
    for own in groups(rewards, counts):
        std = dict(group=np.nanstd(own, ddof=1), batch=np.nanstd(rewards, ddof=1)).get(scale)
        found += ((own - np.nanmean(own)) / (1.0 if std is None else std + 1e-4)).tolist()
    return np.nan_to_num(found).tolist()


def leave_one_out(rewards, counts, normalize):
    found = []
    for own in groups(rewards, counts):
        known = ~np.isnan(own)
        with np.errstate(invalid="ignore"):  # a prompt with one reward
            found += (own - (np.nansum(own) - own) / (known.sum() - 1)).tolist()
    found = np.asarray(found)
    if normalize:
        found = (found - np.nanmean(found)) / (np.nanstd(found, ddof=1) + 1e-4)
    return np.nan_to_num(found).tolist()


def in_torch(rewards, n, scale):
    """GRPOTrainer's lines."""
    rewards = torch.tensor(rewards)
    mean = torch.nanmean(rewards.view(-1, n), dim=1).repeat_interleave(n, dim=0)
    std = nanstd(rewards.view(-1, n), dim=1).repeat_interleave(n, dim=0) if scale != "batch" else nanstd(rewards).expand_as(rewards)
    advantages = rewards - mean
    if scale != "none":
        advantages = advantages / (std + 1e-4)
    return torch.nan_to_num(advantages, nan=0.0).numpy()


def rloo_in_torch(rewards, n, normalize):
    """RLOOTrainer's lines."""
    rewards = torch.tensor(rewards)
    grouped = rewards.view(-1, n)
    known = (~torch.isnan(grouped)).sum(dim=1, keepdim=True)
    baselines = (torch.nansum(grouped, dim=1, keepdim=True) - grouped) / (known - 1)
    advantages = rewards - baselines.view(-1)
    if normalize:
        advantages = (advantages - torch.nanmean(advantages)) / (nanstd(advantages) + 1e-4)
    return torch.nan_to_num(advantages, nan=0.0).numpy()


def make_advantages():
    rng = np.random.default_rng(11)
    rewards, values = exactly(rng.normal(0, 1, 9)).tolist(), exactly(rng.normal(0, 1, 9)).tolist()
    estimates = [dict(gamma=g, **{"lambda": l}, advantages=gae(rewards, values, g, l))
                 for g in (0.0, 0.5, 0.99, 1.0) for l in (0.0, 0.5, 0.95, 1.0)]
    n, count = 4, 5
    of_groups = exactly(rng.normal(0, 2, n * count))
    of_groups[[5, 10, 11, 17, 18, 19]] = np.nan  # one, two and three of a prompt without a reward
    of_groups[13] = of_groups[12]
    of_groups = of_groups.tolist()
    counts = [n] * count
    relative, loo = {}, {}
    for scale in ("group", "batch", "none"):
        relative[scale] = group_relative(of_groups, counts, scale)
        assert np.abs(np.array(relative[scale]) - in_torch(of_groups, n, scale)).max() < 1e-12
    for normalize in (False, True):
        loo["normalized" if normalize else "plain"] = leave_one_out(of_groups, counts, normalize)
        assert np.abs(np.array(leave_one_out(of_groups, counts, normalize)) - rloo_in_torch(of_groups, n, normalize)).max() < 1e-12
    none = lambda values: [None if np.isnan(value) else value for value in values]
    return dict(
        versions=dict(trl=trl.__version__, torch=torch.__version__.split("+")[0], numpy=np.__version__),
        rewards=rewards, values=values, gae=estimates,
        whitened=whiten(rewards, True), whitened_with_mean=whiten(rewards, False),
        counts=counts, group_rewards=none(of_groups), group_relative=relative, leave_one_out=loo)


def write(name, data):
    ROOT.mkdir(exist_ok=True)
    (ROOT / name).write_text(json.dumps(data, allow_nan=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    write("policy.json", make_losses())
    write("advantages.json", make_advantages())
