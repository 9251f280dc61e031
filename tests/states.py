"""Small states of training, to be saved, killed, damaged and compared."""

import hashlib

import torch

from toyscore.distributions import two_modes
from toyscore.losses import at_random_sigma, denoising_score_matching
from toyscore.models import EMA, MLP
from toyscore.noise import levels
from toyscore.train import fit

SIGMAS = [5.0, 1.0, 0.2]
SEALED = ["tensors.safetensors", "checkpoint.json"]  # the files of a checkpoint whose sums it keeps


def network(seed=0):
    torch.manual_seed(seed)
    return EMA(MLP(width=4, sigmas=SIGMAS), 0.9)


def steps(model, n_steps=12, state=None, n_shards=1):
    objective = at_random_sigma(denoising_score_matching, levels(SIGMAS))
    return fit(model, two_modes(), objective, n_steps=n_steps, batch_size=8, state=state, n_shards=n_shards)


def state_at(step):
    return next(s for s in steps(network()) if s.step == step).state()


def same(a, b):
    pairs = [(a["model"], b["model"]), *zip(a["optimizer"], b["optimizer"], strict=True)]
    return a["step"] == b["step"] and all(
        x.keys() == y.keys() and all(x[k].dtype == y[k].dtype and torch.equal(x[k], y[k]) for k in x) for x, y in pairs
    )


def seal(place):
    """Sums of a checkpoint that agree with what is there, as who changed it on purpose would leave them."""
    sums = {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in SEALED}
    (place / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))


def with_config(about, group, **values):
    """What checkpoint.json holds, with other values in a group of the stored configuration."""
    config = about["about"]["config"]
    return about | {"about": about["about"] | {"config": config | {group: config[group] | values}}}
