"""Small states of training, to be saved, killed, damaged and compared."""

import torch

from toyscore.distributions import two_modes
from toyscore.losses import at_random_sigma, denoising_score_matching
from toyscore.models import EMA, MLP
from toyscore.noise import levels
from toyscore.train import fit

SIGMAS = [5.0, 1.0, 0.2]


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
