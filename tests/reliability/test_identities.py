"""Theory as equations between numbers: integrals by quadrature, in float64, to relative 1e-8, on mixtures nobody chose."""

import math

import pytest
import torch

from helpers import F64, rotation, seeded
from toyscore import operators as ops
from toyscore.distributions import GaussianMixture, empirical
from toyscore.losses import (
    denoising_score_matching,
    explicit_score_matching,
    finite_difference_score_matching,
    implicit_score_matching,
    sliced_score_matching,
)

LIMIT = 1e-8
# components, dimensions, sigma, seed
CASES = [(1, 1, 0.3, 1), (2, 1, 1.0, 2), (3, 1, 2.9, 3), (1, 2, 0.7, 4), (2, 2, 0.3, 5), (3, 2, 1.4, 6), (3, 2, 3.0, 7)]


@pytest.fixture(params=CASES, ids=str)
def case(request):
    k, dim, sigma, seed = request.param
    return mixture(k, dim, seed), sigma


def mixture(k, dim, seed):
    """Means of a few units, standard deviations from 0.5 to 1.5 along axes of no importance, unequal weights."""
    generator = seeded(seed)
    means = 2 * torch.randn(k, dim, generator=generator, dtype=F64)
    spread = 0.25 + 2 * torch.rand(k, dim, generator=generator, dtype=F64)
    full = torch.stack([(q * v) @ q.mT for i, v in enumerate(spread) for q in [rotation(dim, seed + i)]])
    return GaussianMixture(means, full, torch.softmax(torch.randn(k, generator=generator, dtype=F64), 0))


def nodes(p, sigma):
    """Points [N, D] and the volume of a cell, for the trapezoid rule: three nodes in a standard deviation, five in a unit."""
    reach = float(p.means.abs().max()) + 9 * math.sqrt(2.25 + sigma**2)
    axis = torch.arange(-reach, reach, min(math.sqrt(0.25 + sigma**2) / 3, 0.2), dtype=F64)
    x = torch.cartesian_prod(*[axis] * p.means.shape[1]).view(-1, p.means.shape[1])
    return x, float(axis[1] - axis[0]) ** x.shape[1]


def wrong_score(x, sigma):
    """Smooth, of linear growth, without symmetry, and no gradient of anything."""
    shift = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)
    return torch.sin(x.roll(1, 1) + shift) - 0.4 * x * shift + 0.3 * torch.tanh(x.sum(1, keepdim=True))


def relative(found, expected):
    found, expected = (float(torch.as_tensor(value, dtype=F64).detach()) for value in (found, expected))
    return abs(found - expected) / max(1.0, abs(expected))


def test_densities_integrate_to_one(case):
    """Of mixtures, smoothed or not, and of a smoothed data set."""
    p, sigma = case
    for density, s in ((p, 0.0), (p, sigma), (empirical(p.means), max(sigma, 0.6))):
        x, cell = nodes(p, s)
        assert relative(density.log_prob(x, s).exp().sum() * cell, 1) < LIMIT


def test_scores_are_gradients_of_log_densities(case):
    """Of mixtures and of smoothed data, in one dimension, two and five."""
    p, sigma = case
    for dim in (p.means.shape[1], 5):
        q = mixture(3, dim, seed=int(1000 * sigma))
        x = (3 * torch.randn(9, dim, generator=seeded(), dtype=F64)).requires_grad_()
        for density in (q, empirical(q.means)):
            (gradient,) = torch.autograd.grad(density.log_prob(x, sigma).sum(), x)
            size = gradient.norm(dim=1).clamp(min=1.0)
            assert float(((density.score(x.detach(), sigma) - gradient).norm(dim=1) / size).max()) < LIMIT


def fisher_and_constant(p, sigma):
    """E ½‖s - ∇ log q‖² and E ½‖∇ log q‖², by quadrature, with the gradient from autograd; the nodes and their masses."""
    x, cell = nodes(p, sigma)
    x.requires_grad_()
    log_prob = p.log_prob(x, sigma)
    (truth,) = torch.autograd.grad(log_prob.sum(), x)
    x, mass = x.detach(), log_prob.detach().exp() * cell
    half = 0.5 * (wrong_score(x, sigma) - truth).square().sum(1)
    return float(mass @ half), float(mass @ (0.5 * truth.square().sum(1))), x, mass


def test_objectives_are_the_divergence_and_its_constant(case, monkeypatch):
    """hyvarinen2005, Theorem 1: E[½‖s‖² + div s] = Fisher - E ½‖∇ log q‖²; song2019sliced, Sec. 3: orthogonal slices of length √D have
    the second moments of every distribution of slices, so the mean is exact."""
    p, sigma = case
    fisher, half, x, mass = fisher_and_constant(p, sigma)
    explicit = explicit_score_matching(wrong_score, x, sigma, target=p.score)
    assert relative(mass @ explicit, fisher) < LIMIT
    assert relative(mass @ implicit_score_matching(wrong_score, x, sigma), fisher - half) < LIMIT
    dim = x.shape[1]
    directions = dim**0.5 * rotation(dim, 3)
    monkeypatch.setattr(ops, "rademacher_like", lambda like, generator: directions[:, None].expand(like.shape))
    for reduced in (True, False):
        sliced = sliced_score_matching(wrong_score, x, sigma, n_slices=dim, variance_reduced=reduced)
        assert relative(mass @ sliced, fisher - half) < LIMIT


@pytest.mark.parametrize("case", [(1, 1, 0.3, 1), (3, 1, 2.9, 3), (2, 1, 1.0, 2)], indirect=True)
def test_the_denoising_objective_is_the_divergence_and_its_constant(case, monkeypatch):
    """vincent2011, Sec. 4: E ½‖σ s(x + σ z) + z‖² = σ² Fisher + D / 2 - σ² E ½‖∇ log q‖², by quadrature over x and z."""
    p, sigma = case
    fisher, half, _, _ = fisher_and_constant(p, sigma)
    x, cell = nodes(p, 0.0)
    z = torch.arange(-9, 9, 0.25, dtype=F64)
    monkeypatch.setattr(ops, "normal_like", lambda like, generator: z.repeat(len(x))[:, None])
    each = denoising_score_matching(wrong_score, x.repeat_interleave(len(z), 0), sigma, generator=seeded())
    weights = torch.outer(p.log_prob(x).exp() * cell, torch.exp(-z * z / 2) * 0.25 / math.sqrt(2 * math.pi)).flatten()
    assert relative(weights @ each, sigma**2 * (fisher - half) + 0.5) < LIMIT


def test_the_finite_difference_errs_by_the_square_of_its_step(monkeypatch):
    """Half the step, a quarter of the error; and at 1e-4 nothing is left to see."""
    p, sigma = mixture(2, 2, 5), 0.7
    fisher, half, x, mass = fisher_and_constant(p, sigma)
    errors = []
    for step in (0.2, 0.1, 1e-4):
        means = []
        for direction in 2**0.5 * rotation(2, 3):
            monkeypatch.setattr(ops, "rademacher_like", lambda like, generator, d=direction: d.expand(like.shape))
            means.append(float(mass @ finite_difference_score_matching(wrong_score, x, sigma, step=step)))
        errors.append(sum(means) / 2 - (fisher - half))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
    assert abs(errors[2]) < 1e-6
