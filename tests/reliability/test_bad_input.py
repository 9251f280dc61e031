"""Bad input, one table: each case raises at the call, naming the value, the rule and the remedy."""

import re
from functools import partial

import numpy as np
import pytest
import torch

from helpers import F64, seeded
from reliability.calls import CALLS, F32, World, leaves, run
from reliability.substitutes import LEGITIMATE, SPREADS, WORDS, legitimate, spreads, substitutes
from toyscore import data, metrics, plotting, widgets
from toyscore import operators as ops
from toyscore.distributions import TOYS, GaussianMixture, empirical, two_modes
from toyscore.losses import (
    at_random_sigma,
    denoising_score_matching,
    explicit_score_matching,
    finite_difference_score_matching,
    implicit_score_matching,
    perturbed,
    sliced_score_matching,
)
from toyscore.metrics import (
    effective_sample_size,
    fisher_divergence,
    fisher_divergence_by_region,
    mmd2,
    relative_errors,
    sliced_wasserstein2,
    split_r_hat,
    wasserstein2,
)
from toyscore.models import EMA, MLP, NCSN, CompactNCSN, ContinuousNCSN
from toyscore.noise import geometric, levels, linear_betas, log_normal, log_uniform
from toyscore.samplers import annealed_langevin, between, inpaint, langevin, langevin_step, metropolis_langevin, tweedie
from toyscore.train import fit

NAN = float("nan")
X = torch.zeros(3, 2)
P = two_modes()
EYE = torch.eye(2)
SHEAR = torch.tensor([[[1.0, 0.5], [0.2, 1.0]]])
INDEFINITE = torch.tensor([[[1.0, 2.0], [2.0, 1.0]]])
CLOUD = empirical(torch.zeros(4, 2))
MEANS = torch.zeros(3, 2)
AX = plotting.canvas()[1]
IMAGES = np.zeros((3, 1, 8, 8), np.uint8)
PICTURES = torch.zeros(3, 1, 8, 8)
LEVELS = [1.0, 0.1]


def train(**options):
    return fit(
        **{"model": MLP(width=4), "data": P, "loss": implicit_score_matching, "n_steps": 2, "batch_size": 4, **options}
    )


class Arrays:
    """A distribution that draws by NumPy"""

    def sample(self, n, *, generator=None):
        return np.zeros((n, 2), np.float32)


def state(**changes):
    kept = next(train()).state()
    return {**kept, **changes}


def anneal(sigmas, **options):
    return annealed_langevin(P.score, X, sigmas, **{"step_size": 0.1, "n_steps_each": 2, **options})


def fill(**options):
    given = {"known": torch.zeros(2), "mask": torch.tensor([True, False]), "step_size": 0.1, "n_steps_each": 2}
    return inpaint(P.score, X, [2.0, 1.0], **{**given, **options})


# id: (call, exception, words of the message: the value, the rule, the remedy)
CASES = {
    "x not a tensor": (lambda: P.score([[1.0, 2.0]]), TypeError, "x is list: must be a floating-point tensor; convert"),
    "x of integers": (
        lambda: P.score(torch.zeros(3, 2, dtype=torch.long)),
        TypeError,
        "x is torch.int64 floating-point convert",
    ),
    "x without a batch": (lambda: P.score(torch.zeros(2)), ValueError, "x has shape [2] must be [B, *event] x[None]"),
    "x empty": (lambda: P.score(torch.zeros(0, 2)), ValueError, "x has shape [0, 2] batch is empty; pass at least one"),
    "x of another event": (
        lambda: P.score(torch.zeros(3, 5)),
        ValueError,
        "x has shape [3, 5], 5 numbers D = 2; pass [B, 2]",
    ),
    "x of another dtype": (
        lambda: P.score(X.double()),
        TypeError,
        "x is torch.float64, the mixture torch.float32 agree; convert",
    ),
    "log_prob of another event": (lambda: P.log_prob(torch.zeros(3, 1)), ValueError, "[3, 1] D = 2"),
    "sigma negative": (lambda: P.score(X, -1.0), ValueError, "sigma = -1.0: must be finite and not negative; pass 0"),
    "sigma NaN": (lambda: P.score(X, NAN), ValueError, "sigma = nan: must be finite and not negative; look"),
    "sigma infinite": (lambda: P.score(X, float("inf")), ValueError, "sigma = inf: must be finite"),
    "sigma a string": (lambda: P.score(X, "0.5"), TypeError, "sigma is str: must be a float or a tensor; pass"),
    "0-d sigma negative": (lambda: P.score(X, torch.tensor(-2.0)), ValueError, "sigma = -2.0: not negative"),
    "a row of sigma negative": (
        lambda: P.score(X, torch.tensor([1.0, -3.0, 1.0])),
        ValueError,
        "sigma = -3.0: not negative",
    ),
    "a row of sigma NaN": (lambda: P.score(X, torch.tensor([1.0, NAN, 1.0])), ValueError, "sigma = nan"),
    "sigma of another batch": (
        lambda: P.score(X, torch.ones(4)),
        ValueError,
        "sigma has shape [4] float, 0-d or [3]; pass one",
    ),
    "sigma of events": (lambda: P.score(X, torch.ones(3, 2)), ValueError, "sigma has shape [3, 2] float, 0-d or [3]"),
    "perturb by a negative": (lambda: P.perturb(-1.0), ValueError, "sigma = -1.0 not negative"),
    "means not [K, D]": (
        lambda: GaussianMixture(torch.zeros(3)),
        ValueError,
        "means has shape [3] must be [K, D]; pass one row",
    ),
    "means empty": (lambda: GaussianMixture(torch.zeros(0, 2)), ValueError, "means has shape [0, 2] K, D >= 1"),
    "means NaN": (
        lambda: GaussianMixture([[NAN, 0.0]]),
        ValueError,
        "means has 1 values that are NaN row 0 finite; drop",
    ),
    "means of integers": (
        lambda: GaussianMixture(torch.zeros(1, 2, dtype=torch.int)),
        TypeError,
        "means is torch.int32 floating .to(",
    ),
    "means ragged": (lambda: GaussianMixture([[1.0], [1.0, 2.0]]), TypeError, "means is list pass a torch tensor"),
    "weights of another length": (
        lambda: GaussianMixture(MEANS, weights=[0.5, 0.5]),
        ValueError,
        "weights has shape [2]: 3 components need [3]",
    ),
    "weights negative": (
        lambda: GaussianMixture(MEANS, weights=[1.5, -0.5, 0.0]),
        ValueError,
        "weights[1] = -0.5 must not be negative",
    ),
    "weights NaN": (
        lambda: GaussianMixture(MEANS, weights=[NAN, 0.5, 0.5]),
        ValueError,
        "weights[0] = nan must not be negative or NaN",
    ),
    "weights not summing to one": (
        lambda: GaussianMixture(MEANS, weights=[1.0, 2.0, 3.0]),
        ValueError,
        "weights sum to 6: must sum to 1; pass weights / weights.sum()",
    ),
    "weights of another dtype": (
        lambda: GaussianMixture(MEANS, weights=torch.ones(3, dtype=F64) / 3),
        TypeError,
        "weights is torch.float64: must be torch.float32; convert",
    ),
    "variance negative": (
        lambda: GaussianMixture(MEANS, -1.0),
        ValueError,
        "variance -1: must not be negative; pass squares",
    ),
    "covariance NaN": (lambda: GaussianMixture(MEANS, NAN), ValueError, "covariances NaN finite; repair"),
    "covariance not symmetric": (
        lambda: GaussianMixture(MEANS, SHEAR),
        ValueError,
        "covariances[0] differs from its transpose by 0.3: symmetric; pass (C + C.mT) / 2",
    ),
    "covariance indefinite": (
        lambda: GaussianMixture(MEANS, INDEFINITE),
        ValueError,
        "covariances[0] has the eigenvalue -1: positive semi-definite; check",
    ),
    "covariance of another shape": (
        lambda: GaussianMixture(MEANS, EYE),
        ValueError,
        "covariances has shape [2, 2]: K = 3, D = 2 matrix[None]",
    ),
    "covariance of another dtype": (
        lambda: GaussianMixture(MEANS, EYE.double()[None]),
        TypeError,
        "covariances is torch.float64: must be torch.float32",
    ),
    "degenerate without noise": (
        lambda: GaussianMixture(MEANS, 0.0).score(X),
        ValueError,
        "covariances[0] is degenerate sigma = 0: pass sigma > 0",
    ),
    "one row without noise": (
        lambda: GaussianMixture(MEANS, 0.0).score(X, torch.tensor([1.0, 0.0, 1.0])),
        ValueError,
        "degenerate sigma = 0",
    ),
    "no samples": (lambda: P.sample(0), ValueError, "n = 0: must be at least 1; pass"),
    "half a sample": (lambda: P.sample(1.5), TypeError, "n = 1.5: must be an integer; pass"),
    "no toy samples": (lambda: TOYS["moons"]().sample(0), ValueError, "n = 0: at least 1"),
    "marginal of nothing": (
        lambda: P.marginal([]),
        ValueError,
        "dims = []: must name different coordinates from 0 to 1; pass",
    ),
    "marginal out of range": (lambda: P.marginal([2]), ValueError, "dims = [2]: from 0 to 1"),
    "marginal twice": (lambda: P.marginal([0, 0]), ValueError, "dims = [0, 0]: different"),
    "condition on everything": (
        lambda: P.condition([0, 1], [0.0, 0.0]),
        ValueError,
        "dims = [0, 1] every coordinate use log_prob",
    ),
    "condition on too many values": (
        lambda: P.condition([0], [0.0, 1.0]),
        ValueError,
        "values has shape [2]: needs [1]; pass one value",
    ),
    "condition on NaN": (lambda: P.condition([0], [NAN]), ValueError, "values NaN"),
    "no points": (lambda: empirical(torch.zeros(0, 2)), ValueError, "points has shape [0, 2] empty"),
    "points NaN": (lambda: empirical(torch.tensor([[0.0], [NAN]])), ValueError, "points 1 values NaN row 1"),
    "points without noise": (lambda: CLOUD.score(X, 0.0), ValueError, "sigma = 0: positive pass sigma > 0"),
    "points of another event": (
        lambda: CLOUD.score(torch.zeros(3, 5), 1.0),
        ValueError,
        "[3, 5], 5 numbers the data set has D = 2",
    ),
    "points of another dtype": (
        lambda: CLOUD.score(X.double(), 1.0),
        TypeError,
        "x is torch.float64, the data set torch.float32",
    ),
    "no point samples": (lambda: CLOUD.sample(0), ValueError, "n = 0"),
    "levels increasing": (
        lambda: levels([0.1, 0.5]),
        ValueError,
        "sigmas must decrease: sigmas[1] = 0.5 > sigmas[0] = 0.1",
    ),
    "levels repeated": (lambda: levels([0.5, 0.5]), ValueError, "sigmas must decrease: sigmas[1] = 0.5 = sigmas[0]"),
    "a level of zero": (lambda: levels([1.0, 0.0]), ValueError, "sigmas[1] = 0: finite and positive; leave it out"),
    "a level NaN": (lambda: levels([NAN]), ValueError, "sigmas[0] = nan: finite and positive"),
    "levels empty": (lambda: levels([]), ValueError, "sigmas has shape [0] [L] geometric"),
    "no level drawn": (lambda: levels([1.0])(0), ValueError, "n = 0"),
    "geometric upwards": (lambda: geometric(0.1, 1.0, 5), ValueError, "sigma_min = 1.0, sigma_max = 0.1: swap"),
    "geometric to zero": (lambda: geometric(1.0, 0.0, 5), ValueError, "sigma_min = 0.0, finite, 0 < sigma_min pass"),
    "geometric without levels": (lambda: geometric(1.0, 0.1, 0), ValueError, "n_levels = 0: at least 1"),
    "geometric with one level": (
        lambda: geometric(1.0, 0.1, 1),
        ValueError,
        "n_levels = 1 sigma_max = 1.0 pass n_levels >= 2",
    ),
    "betas downwards": (lambda: linear_betas(0.02, 1e-4), ValueError, "beta_min = 0.02, beta_max = 0.0001: DDPM uses"),
    "betas of one step": (lambda: linear_betas(n_steps=1), ValueError, "n_steps = 1: at least 2"),
    "log-uniform downwards": (lambda: log_uniform(1.0, 0.1), ValueError, "sigma_min = 1.0, sigma_max = 0.1: swap"),
    "log-uniform nothing drawn": (lambda: log_uniform(0.1, 1.0)(0), ValueError, "n = 0"),
    "loss on an empty batch": (lambda: implicit_score_matching(P.score, torch.zeros(0, 2)), ValueError, "[0, 2] empty"),
    "loss with negative sigma": (
        lambda: explicit_score_matching(P.score, X, -1.0, target=P.score),
        ValueError,
        "sigma = -1.0",
    ),
    "loss of a score of another shape": (
        lambda: explicit_score_matching(lambda x, s: x[:, :1], X, target=P.score),
        ValueError,
        "the score returned shape [3, 1] for x of shape [3, 2] check",
    ),
    "no slices": (lambda: sliced_score_matching(P.score, X, n_slices=0), ValueError, "n_slices = 0: at least 1"),
    "unknown slices": (
        lambda: sliced_score_matching(P.score, X, slices="cubes"),
        ValueError,
        "slices = 'cubes' rademacher pass one",
    ),
    "a step of zero": (
        lambda: finite_difference_score_matching(P.score, X, step=0.0),
        ValueError,
        "step = 0.0: positive",
    ),
    "denoising without noise": (
        lambda: denoising_score_matching(P.score, X, 0.0),
        ValueError,
        "sigma = 0: positive; pass sigma > 0",
    ),
    "conditional loss on nothing": (
        lambda: at_random_sigma(denoising_score_matching, levels([1.0]))(P.score, torch.zeros(0, 2)),
        ValueError,
        "empty",
    ),
    "levels for a law of levels": (
        lambda: at_random_sigma(denoising_score_matching, torch.tensor(LEVELS)),
        TypeError,
        "draw is Tensor: draw(n, generator=g); pass levels(sigmas)",
    ),
    "conditional on no loss": (
        lambda: at_random_sigma("denoising", levels(LEVELS)),
        TypeError,
        "loss is str: callable; pass",
    ),
    "a loss of noised data, given clean ones": (
        lambda: at_random_sigma(partial(sliced_score_matching, n_slices=2), levels(LEVELS)),
        ValueError,
        "loss = sliced_score_matching: clean x pass perturbed(loss)",
    ),
    "noise added twice": (
        lambda: perturbed(denoising_score_matching),
        ValueError,
        "loss = denoising_score_matching: x from q_sigma pass it as it is",
    ),
    "no loss perturbed": (lambda: perturbed(None), TypeError, "loss is NoneType: callable; pass"),
    "divergence from a score": (
        lambda: fisher_divergence(P.score, P.score, X),
        TypeError,
        "distribution is method: score(x, sigma); pass the distribution",
    ),
    "divergence by region from a score": (
        lambda: fisher_divergence_by_region(P.score, P.score, X, torch.zeros(3, dtype=torch.long)),
        TypeError,
        "distribution is method: pass the distribution",
    ),
    "relative errors from a score": (
        lambda: relative_errors(P.score, P.score, X),
        TypeError,
        "distribution is method: pass the distribution",
    ),
    "chain of no steps": (
        lambda: langevin(P.score, X, step_size=0.1, n_steps=0),
        ValueError,
        "n_steps = 0: at least 1; pass",
    ),
    "chain with negative step": (
        lambda: langevin(P.score, X, step_size=-0.1, n_steps=5),
        ValueError,
        "step_size = -0.1: positive; pass",
    ),
    "chain with NaN step": (
        lambda: langevin(P.score, X, step_size=NAN, n_steps=5),
        ValueError,
        "step_size = nan: positive",
    ),
    "chain from NaN": (
        lambda: langevin(P.score, X * NAN, step_size=0.1, n_steps=5),
        ValueError,
        "x has 6 values NaN row 0; drop",
    ),
    "chain of no chains": (lambda: langevin(P.score, X[:0], step_size=0.1, n_steps=5), ValueError, "empty"),
    "chain at negative sigma": (
        lambda: langevin(P.score, X, step_size=0.1, n_steps=5, sigma=-1.0),
        ValueError,
        "sigma = -1.0",
    ),
    "metropolis of no steps": (
        lambda: metropolis_langevin(P.log_prob, P.score, X, step_size=0.1, n_steps=0),
        ValueError,
        "n_steps = 0",
    ),
    "annealed upwards": (
        lambda: anneal([0.4, 0.5]),
        ValueError,
        "sigmas must decrease: sigmas[1] = 0.5 > sigmas[0] = 0.4",
    ),
    "annealed without steps": (lambda: anneal([1.0, 0.5], n_steps_each=0), ValueError, "n_steps_each = 0"),
    "annealed clamp reversed": (
        lambda: anneal([1.0, 0.5], clamp=(1.0, 0.0)),
        ValueError,
        "clamp = (1.0, 0.0): low < high; pass",
    ),
    "network of width zero": (lambda: MLP(width=0), ValueError, "width = 0: at least 1"),
    "network with a level of zero": (lambda: MLP(sigmas=[1.0, 0.0]), ValueError, "sigmas = [1.0, 0.0]: positive; pass"),
    "network with no variance": (lambda: MLP(data_variance=0.0), ValueError, "data_variance = 0.0: positive"),
    "network on another event": (
        lambda: MLP()(torch.zeros(3, 5)),
        ValueError,
        "x has shape [3, 5] the network has D = 2; pass [B, 2]",
    ),
    "network on another dtype": (
        lambda: MLP()(X.double()),
        TypeError,
        "x is torch.float64, the network torch.float32 agree; convert",
    ),
    "conditional network without sigma": (
        lambda: MLP(sigmas=[1.0, 0.1])(X),
        ValueError,
        "sigma = 0: positive; pass sigma > 0",
    ),
    "fit without steps": (lambda: train(n_steps=0), ValueError, "n_steps = 0"),
    "fit without a rate": (lambda: train(lr=0.0), ValueError, "lr = 0.0: positive"),
    "fit with unequal shards": (
        lambda: train(n_shards=3),
        ValueError,
        "batch_size = 4 n_shards = 3: pass batch_size=6",
    ),
    "fit to a tensor": (lambda: train(data=X), TypeError, "data is Tensor: sample wrap empirical"),
    "fit nothing": (lambda: train(model=torch.nn.Identity()), ValueError, "no trainable parameter pass a network"),
    "fit a reduced loss": (
        lambda: next(train(loss=lambda *a, **k: implicit_score_matching(*a).mean())),
        ValueError,
        "loss returned shape [] for 4 examples: [4]; do not reduce",
    ),
    "fit to arrays": (
        lambda: next(train(data=Arrays())),
        TypeError,
        "data.sample returned ndarray: tensor convert it with torch.as_tensor",
    ),
    "fit no loss": (lambda: train(loss=1.0), TypeError, "loss is float: callable loss(model, x, generator=g); pass"),
    "fit a loss without its level": (
        lambda: train(loss=denoising_score_matching),
        TypeError,
        "missing a required argument: 'sigma' pass at_random_sigma(loss, levels(sigmas))",
    ),
    "fit a loss that takes no generator": (
        lambda: train(loss=lambda model, x: x),
        TypeError,
        "loss(model, x, generator=g): unexpected keyword argument 'generator'",
    ),
    "resume with another recipe": (
        lambda: train(seed=1, state=state()),
        ValueError,
        "seed = 1 state was made with seed = 0 pass the same",
    ),
    "resume another network": (
        lambda: train(model=MLP(width=5), state=state()),
        ValueError,
        "layers.0.weight is torch.float32, shape [4, 2] in the state, [5, 2] in the model: another network; build",
    ),
    "a mixture for a score": (
        lambda: langevin(P, X, step_size=0.1, n_steps=2),
        TypeError,
        "score is GaussianMixture: callable pass mixture.score",
    ),
    "a mixture for a score in a loss": (
        lambda: implicit_score_matching(P, X),
        TypeError,
        "score is GaussianMixture: callable",
    ),
    "a number for a generator": (
        lambda: P.sample(3, generator=0),
        TypeError,
        "generator is int: torch.Generator or None; pass",
    ),
    "a generator in a loss": (
        lambda: denoising_score_matching(P.score, X, 1.0, generator=7),
        TypeError,
        "generator is int",
    ),
    "a string for a step": (
        lambda: langevin(P.score, X, step_size="0.1", n_steps=2),
        TypeError,
        "step_size is str: number; pass",
    ),
    "a negative step by itself": (lambda: langevin_step(X, X, -0.1), ValueError, "step_size = -0.1: positive"),
    "a number for a clamp": (lambda: anneal([1.0, 0.5], clamp=1.0), ValueError, "clamp = 1.0: (low, high) pass"),
    "levels that vanish in float32": (lambda: anneal([1.0, 1e-60]), ValueError, "sigmas[1] = 0: positive; leave"),
    "levels of words": (lambda: levels("abc"), TypeError, "sigmas is str: numbers; pass"),
    "perturb by many": (lambda: P.perturb(torch.ones(2)), ValueError, "sigma has shape [2]"),
    "marginal of a number": (lambda: P.marginal(0), ValueError, "dims = 0: must name"),
    "marginal of a truth": (lambda: P.marginal([True]), ValueError, "dims = must name"),
    "sigma beyond float32": (lambda: P.score(X, 1e30), ValueError, "sigma = 1e+30: square must be finite pass"),
    "sigma lost in float32": (lambda: CLOUD.score(X, 1e-24), ValueError, "sigma square 0.0 torch.float32: normal pass"),
    "a weight of another shape": (
        lambda: denoising_score_matching(P.score, X, torch.ones(3), weight=lambda s: s[:, None]),
        ValueError,
        "weight(sigma) has shape [3, 3]: number or [3]; do not",
    ),
    "tweedie at another batch's sigma": (
        lambda: tweedie(P.score, X[:1], torch.ones(5)),
        ValueError,
        "sigma has shape [5] [1]",
    ),
    "a chain whose score grows": (
        lambda: next(langevin(lambda x, s: x[None], X, step_size=0.1, n_steps=2)),
        ValueError,
        "the score returned shape [1, 3, 2] [3, 2] check",
    ),
    "a reduced log density": (
        lambda: next(metropolis_langevin(lambda x, s: P.log_prob(x, s).sum(), P.score, X, step_size=0.1, n_steps=2)),
        ValueError,
        "log_prob returned shape []: [3]; do not reduce",
    ),
    "a seed that is no integer": (lambda: train(seed=0.5), TypeError, "seed = 0.5: integer; pass"),
    "a function for a model": (lambda: train(model=P.score), TypeError, "model is method: torch.nn.Module; pass"),
    "a loss that is a number": (
        lambda: next(train(loss=lambda *a, **k: 1.0)),
        ValueError,
        "loss returned float for 4 examples",
    ),
    "a detached loss": (
        lambda: next(train(loss=lambda *a, **k: implicit_score_matching(*a).detach())),
        ValueError,
        "does not depend on the model's parameters: do not detach",
    ),
    "a state that is none": (
        lambda: train(state={}),
        ValueError,
        "the state lacks model, optimizer, recipe, step: pass",
    ),
    "resume with another rate": (lambda: train(lr=0.5, state=state()), ValueError, "lr = 0.5 lr = 0.01 pass the same"),
    "clouds of different dtypes": (
        lambda: wasserstein2(X, X.double()),
        TypeError,
        "x is torch.float32, y torch.float64: convert",
    ),
    "regions of truths": (
        lambda: fisher_divergence_by_region(P.score, P, X, X[:, 0] > 0),
        TypeError,
        "regions is torch.bool: integers pass",
    ),
    "chains with NaN": (lambda: split_r_hat(torch.full((8, 2, 1), NAN)), ValueError, "chains has 16 values NaN"),
    "a row of sigma zero in a network": (
        lambda: MLP(sigmas=[1.0, 0.1])(X, torch.tensor([1.0, 0.0, 1.0])),
        ValueError,
        "sigma = 0: positive; pass sigma > 0",
    ),
    "resume in another dtype": (
        lambda: train(model=MLP(width=4).double(), state=state()),
        ValueError,
        "torch.float32, in the state, torch.float64, in the model: build the same",
    ),
    "rows of sigma beyond float32": (
        lambda: P.score(X, torch.full((3,), 1e20)),
        ValueError,
        "sigma = square must be finite pass",
    ),
    "a clamp of words": (
        lambda: anneal([1.0, 0.5], clamp=("a", "b")),
        ValueError,
        "clamp = ('a', 'b'): (low, high) pass",
    ),
    "divergence on nothing": (lambda: fisher_divergence(P.score, P, X[:0]), ValueError, "empty"),
    "regions of another length": (
        lambda: fisher_divergence_by_region(P.score, P, X, torch.zeros(2).long()),
        ValueError,
        "regions of shape [2]: [3] integers; pass",
    ),
    "clouds of different events": (
        lambda: wasserstein2(X, torch.zeros(3, 5)),
        ValueError,
        "events of shape [2] of [5] compare",
    ),
    "clouds with NaN": (lambda: sliced_wasserstein2(X, X * NAN), ValueError, "y has 6 values NaN"),
    "no projections": (lambda: sliced_wasserstein2(X, X, n_projections=0), ValueError, "n_projections = 0"),
    "a cloud of one": (lambda: mmd2(X, X[:1]), ValueError, "3 and 1 points: 2 are needed in each; draw more"),
    "identical clouds": (lambda: mmd2(X, X), ValueError, "bandwidth = 0.0: positive; pass"),
    "chains without steps": (
        lambda: split_r_hat(torch.zeros(3, 2, 2)),
        ValueError,
        "chains has shape [3, 2, 2] n_steps >= 4 torch.stack",
    ),
    "a role that is none": (
        lambda: plotting.samples(AX, X, role="truht"),
        ValueError,
        "role = 'truht': the roles are truth, did you mean 'truth'?",
    ),
    "a score for a log density": (
        lambda: plotting.density(AX, P.score, n=4),
        ValueError,
        "log_prob returned shape [16, 2] for 16 points: [B]; pass e.g. mixture.log_prob",
    ),
    "points of space in the plane": (
        lambda: plotting.samples(AX, torch.zeros(4, 3)),
        ValueError,
        "x has shape [4, 3]: [B, 2], pass",
    ),
    "a flat trajectory": (
        lambda: plotting.chains(AX, X),
        ValueError,
        "states has shape [3, 2]: [T, B, 2]; pass torch.stack(list(chain))",
    ),
    "no arrows": (lambda: plotting.vector_field(AX, P.score, n=0), ValueError, "n = 0: at least 1; pass"),
    "a box of nothing": (lambda: plotting.score_map(AX, P.score, box=0.0), ValueError, "box = 0.0: positive; pass"),
    "curves of unequal length": (
        lambda: plotting.curves(AX, torch.arange(3.0), {"plain": torch.ones(2, 4)}),
        ValueError,
        "the values of plain have shape [2, 4]: [n_seeds, 3]; stack",
    ),
    "no frame in between": (
        lambda: next(plotting.animate(AX.figure, print, [1], every=0)),
        ValueError,
        "every = 0: at least 1; pass",
    ),
    "a gif by another name": (
        lambda: plotting.save_gif([], "chains.mp4"),
        ValueError,
        "path ends in '.mp4': .gif; rename chains.mp4",
    ),
    "a gif of nothing": (
        lambda: plotting.save_gif([], "x.gif"),
        ValueError,
        "no frame: consumed already; pass them anew",
    ),
    "a gif too fast": (lambda: plotting.save_gif([], "x.gif", fps=200), ValueError, "fps = 200: 50 frames; pass"),
    "a gif of one colour": (
        lambda: plotting.save_gif([], "x.gif", n_colours=1),
        ValueError,
        "n_colours = 1: 2 to 256; pass",
    ),
    "a picture of an unknown kind": (
        lambda: plotting.save(AX.figure, "x.bmp"),
        ValueError,
        "path ends in '.bmp': .png, .svg or .pdf; rename x.bmp",
    ),
    "a panel without controls": (
        lambda: widgets.panel(AX.figure, print),
        ValueError,
        "a panel without controls: pass e.g. sigma=Slider",
    ),
    "a number for a control": (
        lambda: widgets.panel(AX.figure, print, sigma=1.0),
        TypeError,
        "sigma is float: a control is a Slider, Choice, Toggle or Seed; pass one",
    ),
    "a slider between its steps": (
        lambda: widgets.Slider(0.0, 1.0, 0.25, step=0.1),
        ValueError,
        "a slider at 0.25 steps of 0.1 from 0.0: nearest is 0.2; pass",
    ),
    "a step with a score of one row": (
        lambda: langevin_step(X, X[:1], 0.1),
        ValueError,
        "grad has shape [1, 2], x [3, 2]: like x; pass",
    ),
    "images of no channel": (lambda: NCSN(0, 8, 4, LEVELS), ValueError, "channels = 0: at least 1; pass"),
    "an image network of one unit": (lambda: NCSN(1, 8, 1, LEVELS), ValueError, "width = 1: at least 2; pass"),
    "images too small for a network": (lambda: NCSN(1, 6, 4, LEVELS), ValueError, "image_size = 6: at least 8; pass"),
    "images of an odd size": (lambda: NCSN(1, 9, 4, LEVELS), ValueError, "image_size = 9: even halves; pad or crop"),
    "a size that is a fraction": (lambda: NCSN(1, 8.5, 4, LEVELS), TypeError, "image_size = 8.5: integer; pass"),
    "levels of a network upside down": (lambda: NCSN(1, 8, 4, [0.1, 1.0]), ValueError, "sigmas must decrease: sort"),
    "no variance of the data": (
        lambda: ContinuousNCSN(1, 8, 4, LEVELS, data_variance=0.0),
        ValueError,
        "data_variance = 0.0: finite and positive; pass",
    ),
    "no range of a continuous network": (
        lambda: ContinuousNCSN(1, 8, 4, [0.0, 1.0]),
        ValueError,
        "sigmas = [0.0, 1.0]: pass",
    ),
    "pictures of another size": (
        lambda: CompactNCSN(1, 9, 4, sigmas=LEVELS)(PICTURES, 1.0),
        ValueError,
        "x has shape [3, 1, 8, 8]: [B, 1, 9, 9]; reshape",
    ),
    "pictures of another dtype": (
        lambda: NCSN(1, 8, 4, LEVELS)(PICTURES.double(), 1.0),
        TypeError,
        "x is torch.float64, the network torch.float32: agree; convert",
    ),
    "a network without noise": (lambda: NCSN(1, 8, 4, LEVELS)(PICTURES, 0.0), ValueError, "sigma = 0: positive; pass"),
    "a continuous network without noise": (
        lambda: ContinuousNCSN(1, 8, 4, LEVELS)(PICTURES, 0.0),
        ValueError,
        "sigma = 0: positive; pass",
    ),
    "levels of another batch": (
        lambda: NCSN(1, 8, 4, LEVELS)(PICTURES, torch.ones(2)),
        ValueError,
        "sigma has shape [2]: float, 0-d or [3]; pass",
    ),
    "an average of nothing": (lambda: EMA(P.score), TypeError, "model is method: torch.nn.Module; pass"),
    "an average that never moves": (lambda: EMA(MLP(width=4), 1.0), ValueError, "decay = 1.0: [0, 1); pass"),
    "a clip of nothing": (lambda: train(clip=0.0), ValueError, "clip = 0.0: finite and positive; pass"),
    "half precision that needs scaling": (
        lambda: train(autocast=torch.float16),
        ValueError,
        "autocast = torch.float16: torch.bfloat16 or None; scaled",
    ),
    "another clip on resume": (
        lambda: train(clip=1.0, state=state()),
        ValueError,
        "clip = 1.0, clip = None: same recipe; pass the same",
    ),
    "bytes that are floats": (
        lambda: data.Images(np.zeros((3, 1, 8, 8))),
        TypeError,
        "values is float64 of shape [3, 1, 8, 8]: uint8 array [N, C, H, W]; data.images",
    ),
    "bytes without channels": (
        lambda: data.Images(IMAGES[:, 0]),
        TypeError,
        "values is uint8 [3, 8, 8]: [N, C, H, W];",
    ),
    "a set of nothing": (lambda: data.Images(IMAGES[:0]), ValueError, "values has shape [0, 1, 8, 8]: no image; pass"),
    "a level beyond the last": (
        lambda: data.Images(IMAGES + 20, n_levels=17),
        ValueError,
        "values reach 20: n_levels = 17 0 to 16; pass",
    ),
    "more levels than bits": (
        lambda: data.Images(IMAGES, n_levels=300),
        ValueError,
        "n_levels = 300: 8 bits, 256; requantise",
    ),
    "labels for some images": (
        lambda: data.Images(IMAGES, np.zeros(2, int)),
        ValueError,
        "labels has 2 3 images: one each; drop",
    ),
    "labels asked of a set without": (
        lambda: data.Images(IMAGES).sample_labelled(2),
        ValueError,
        "no labels: use sample, or pass labels",
    ),
    "no images asked for": (lambda: data.Images(IMAGES).sample(0), ValueError, "n = 0: at least 1; pass"),
    "crops of nothing": (lambda: data.Crops([]), ValueError, "photos is empty: pass at least one"),
    "crops larger than the photograph": (
        lambda: data.Crops([IMAGES[0]], 9),
        ValueError,
        "photos[0] has shape [1, 8, 8]: crop of side 9; lower size",
    ),
    "crops of floats": (
        lambda: data.Crops([IMAGES[0] * 1.0], 4),
        TypeError,
        "photos[0] is float64 uint8 [C, H, W]; convert",
    ),
    "grey levels for images": (
        lambda: data.images(PICTURES + 200),
        ValueError,
        "x has values from 200 to 200: [0, 1]; divide by 255",
    ),
    "images on another interval": (
        lambda: data.images(PICTURES - 1),
        ValueError,
        "x has values from -1 to -1: [0, 1]; map [-1, 1] there by (x + 1) / 2",
    ),
    "images without channels": (
        lambda: data.images(PICTURES[:, 0]),
        ValueError,
        "x has shape [3, 8, 8]: [N, C, H, W]; x[:, None]",
    ),
    "another part of a set": (lambda: data.digits("test"), ValueError, 'part = \'test\': "train", "held-out" or "all"'),
    "a mosaic of four channels": (
        lambda: plotting.mosaic(torch.zeros(3, 4, 8, 8)),
        ValueError,
        "x has shape [3, 4, 8, 8]: [N, 1 or 3, H, W]; reshape",
    ),
    "a mosaic in another file": (
        lambda: plotting.save_mosaic(IMAGES[0, 0], "x.gif", ""),
        ValueError,
        "path ends in '.gif': .png; rename x.gif",
    ),
    "a classifier of unlabelled images": (
        lambda: metrics.fit_classifier(data.Images(IMAGES)),
        ValueError,
        "no labels: use sample, or pass labels",
    ),
    "a log-normal without width": (
        lambda: log_normal(0.1, 1.0, log_std=0.0),
        ValueError,
        "log_std = 0.0: positive; pass",
    ),
    "a log-normal nowhere": (lambda: log_normal(0.1, 1.0, log_mean=NAN), ValueError, "log_mean = nan: finite; pass"),
    "a log-normal without range": (
        lambda: log_normal(1.0, 1.0),
        ValueError,
        "sigma_min = 1.0, sigma_max = 1.0: finite, pass sigma_max=10",
    ),
    "chains without chains": (
        lambda: effective_sample_size(torch.zeros(30, 2)),
        ValueError,
        "chains has shape [30, 2]",
    ),
    "known of another shape": (
        lambda: fill(known=torch.zeros(3)),
        ValueError,
        "known has shape [3] [3, 2] or of an event; reshape",
    ),
    "known of another dtype": (
        lambda: fill(known=torch.zeros(2).double()),
        TypeError,
        "known is torch.float64 torch.float32; convert",
    ),
    "known a list": (lambda: fill(known=[0.0, 1.0]), TypeError, "known is list tensor of torch.float32"),
    "a mask of numbers": (lambda: fill(mask=torch.ones(2)), TypeError, "mask is torch.float32 torch.bool; convert"),
    "a mask of another shape": (
        lambda: fill(mask=torch.ones(2, 2, dtype=torch.bool)),
        ValueError,
        "mask has shape [2, 2] [3, 2] or of an event",
    ),
    "known NaN where it counts": (
        lambda: fill(known=torch.tensor([NAN, 0.0])),
        ValueError,
        "known is not finite mask; change",
    ),
    "inpainting upwards": (
        lambda: inpaint(P.score, X, LEVELS[::-1], known=X, mask=X > 0, step_size=0.1, n_steps_each=1),
        ValueError,
        "sigmas must decrease",
    ),
    "inpainting without steps": (lambda: fill(n_steps_each=0), ValueError, "n_steps_each = 0 at least 1"),
    "inpainting backwards": (lambda: fill(step_size=-1.0), ValueError, "step_size = -1"),
    "a path of one": (lambda: between(1), ValueError, "n = 1 at least 2"),
    "rows that make no paths": (
        lambda: between(2)(X, None),
        ValueError,
        "x has 3 rows n = 2 multiple; pass 2 rows per path",
    ),
    "a history of nothing": (
        lambda: plotting.history(AX, torch.zeros(0), torch.zeros(0)),
        ValueError,
        "steps has shape [0], values [0] [T] both; flatten",
    ),
    "a history of other steps": (
        lambda: plotting.history(AX, torch.zeros(3), torch.zeros(4)),
        ValueError,
        "steps has shape [3], values [4] [T] both",
    ),
    "a history smoothed over nothing": (
        lambda: plotting.history(AX, torch.ones(3), torch.ones(3), smooth=0),
        ValueError,
        "smooth = 0 at least 1",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_named(case, measured):
    call, exception, words = CASES[case]
    with pytest.raises(exception) as caught:
        call()
    message = str(caught.value)
    position = 0
    for word in words.split():  # each word, in this order
        found = message.find(word.rstrip(":;,") if message.find(word, position) < 0 else word, position)
        assert found >= 0, f"{word!r} is missing from {message!r}"
        position = found
    if "state" not in case and "resume" not in case:
        assert re.search(r"[;,:] ", message), message
    measured.count("bad inputs, each named")


def test_good_input_still_passes():
    """The table's defaults are good: only what each case changes is bad."""
    assert len(list(train())) == 2
    assert len(list(train(state=state()))) == 1
    assert len(list(anneal([1.0, 0.5]))) == 4
    assert P.sample(2, generator=seeded()).shape == (2, 2)
    ops.check_sigma(torch.tensor([0.0, 1.0, 2.0]), X)


def named(error, key, value):
    """Whether a message says what is wrong: the parameter, or the number, dtype or shape that was given; in some words."""
    message = str(error)
    told = [key]
    if isinstance(value, int | float):
        told.append(f"{value}")
    if isinstance(value, torch.Tensor):
        told += [str(value.dtype), str(list(value.shape))]
    found = any(re.search(rf"(?<![\w.]){re.escape(words)}(?!\w)", message) for words in told)
    return found and len(message.split()) >= 4


@pytest.mark.parametrize("name", CALLS)
def test_whatever_is_put_in_place_of_a_number_or_a_tensor_is_named_or_legitimate(name, measured):
    for key, kind, value, make in substitutes(name):
        case, expected = f"{name}({key} = {kind})", legitimate(name, key, kind)
        error, result = None, None
        try:
            result = run(name, World(F32), make() | {key: value})
        except (TypeError, ValueError) as caught:
            error = caught
        if error is not None:
            assert not isinstance(error, np.linalg.LinAlgError), case
            assert expected is None, f"{case}: {error}"
            # Python's own words will do where the type is wrong at first sight
            assert kind in WORDS or kind == "a list" or named(error, key, value), f"{case}: {error}"
            said = (
                "bad inputs, each named"
                if named(error, key, value)
                else "values of another type, refused in Python's words"
            )
            measured.count(said)
            continue
        numbers = [leaf for leaf in leaves(result) if isinstance(leaf, float | torch.Tensor)]
        finite = all(bool(torch.isfinite(torch.as_tensor(leaf)).all()) for leaf in numbers)
        if spreads(name, key, kind) is not None:
            assert not finite, f"{case} comes back as something finite"
        else:
            assert expected is not None, f"{case} is taken"
            assert finite, f"{case} comes back as something that is not finite"


def test_every_exception_is_one():
    """No rule is left over from what is checked by now."""
    cases = [(name, key, kind) for name in CALLS for key, kind, *_ in substitutes(name)]
    assert {legitimate(*case) for case in cases} - {None} == set(range(len(LEGITIMATE)))
    assert {spreads(*case) for case in cases} - {None} == set(range(len(SPREADS)))
