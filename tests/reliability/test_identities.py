"""Theory as equations between numbers: integrals by quadrature, in float64, to relative 1e-8, on mixtures nobody chose."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


def mixture(k, dim, seed):
    """Means of a few units, standard deviations from 0.5 to 1.5 along axes of no importance, unequal weights"""
    generator = seeded(seed)
    means = 2 * torch.randn(k, dim, generator=generator, dtype=F64)
    spread = 0.25 + 2 * torch.rand(k, dim, generator=generator, dtype=F64)
    full = torch.stack([(q * v) @ q.mT for i, v in enumerate(spread) for q in [rotation(dim, seed + i)]])
    return GaussianMixture(means, full, torch.softmax(torch.randn(k, generator=generator, dtype=F64), 0))


def nodes(p, sigma):
    """Points [N, D] and the mass of each under the smoothed density, for the trapezoid rule: three nodes in a deviation, five in a unit"""
    reach = float(p.means.abs().max()) + 9 * math.sqrt(2.25 + sigma**2)
    axis = torch.arange(-reach, reach, min(math.sqrt(0.25 + sigma**2) / 3, 0.2), dtype=F64)
    x = torch.cartesian_prod(*[axis] * p.means.shape[1]).view(-1, p.means.shape[1])
    return x, p.log_prob(x, sigma).exp() * float(axis[1] - axis[0]) ** p.means.shape[1]


def wrong_score(x, sigma):
    """Smooth, of linear growth, without symmetry, and no gradient of anything"""
    shift = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)
    return torch.sin(x.roll(1, 1) + shift) - 0.4 * x * shift + 0.3 * torch.tanh(x.sum(1, keepdim=True))


def relative(found, expected):
    found, expected = (float(torch.as_tensor(value, dtype=F64).detach()) for value in (found, expected))
    return abs(found - expected) / max(1.0, abs(expected))


def worst(*errors):
    """The largest, NaN where one is"""
    return float(torch.tensor(errors, dtype=F64).max())


def worst_of(check, examples=25):
    """The largest error that ``check(k, dim, sigma, seed)`` tells, over mixtures that hypothesis picks"""
    errors = []

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(st.integers(1, 3), st.integers(1, 2), st.floats(0.3, 3.0), st.integers(0, 10_000))
    def run(k, dim, sigma, seed):
        errors.append(check(mixture(k, dim, seed), sigma))
        assert errors[-1] < LIMIT

    run()
    return worst(*errors)


def test_densities_integrate_to_one(measured):
    def check(p, sigma):
        return worst(*(relative(nodes(p, s)[1].sum(), 1) for s in (0.0, sigma)))

    measured.at_most("error of a mixture's integral", worst_of(check), LIMIT)


def test_a_smoothed_data_sets_density_integrates_to_one(measured):
    def check(p, sigma):
        x, _ = nodes(p, sigma)
        cell = float((x[1] - x[0]).abs().sum()) ** x.shape[1]
        return relative(empirical(p.means).log_prob(x, max(sigma, 0.6)).exp().sum() * cell, 1)

    measured.at_most("error of a smoothed data set's integral", worst_of(check), LIMIT)


def test_scores_are_gradients_of_log_densities(measured):
    """Of mixtures and of smoothed data, in one dimension to five"""

    def check(p, sigma):
        errors = []
        for dim in (p.means.shape[1], 5):
            q = mixture(3, dim, seed=int(1000 * sigma))
            x = (3 * torch.randn(9, dim, generator=seeded(), dtype=F64)).requires_grad_()
            for law in (q, empirical(q.means)):
                (gradient,) = torch.autograd.grad(law.log_prob(x, sigma).sum(), x)
                size = gradient.norm(dim=1).clamp(min=1.0)
                errors.append(float(((law.score(x.detach(), sigma) - gradient).norm(dim=1) / size).max()))
        return worst(*errors)

    measured.at_most("relative error of a score against autograd", worst_of(check), LIMIT)


def fisher_and_half_square(p, sigma):
    """E ½‖s - ∇ log q‖² and E ½‖∇ log q‖², by quadrature, with the gradient from autograd; and the nodes"""
    x, mass = nodes(p, sigma)
    x.requires_grad_()
    (truth,) = torch.autograd.grad(p.log_prob(x, sigma).sum(), x)
    x = x.detach()
    half = 0.5 * (wrong_score(x, sigma) - truth).square().sum(1)
    return float(mass @ half), float(mass @ (0.5 * truth.square().sum(1))), x, mass


def test_explicit_and_implicit_objectives_are_the_divergence_and_its_constant(measured):
    """hyvarinen2005, Theorem 1: E[½‖s‖² + div s] = Fisher - E ½‖∇ log q‖²"""

    def check(p, sigma):
        fisher, half, x, mass = fisher_and_half_square(p, sigma)
        explicit = explicit_score_matching(wrong_score, x, sigma, target=p.score)
        implicit = implicit_score_matching(wrong_score, x, sigma)
        return worst(relative(mass @ explicit, fisher), relative(mass @ implicit, fisher - half))

    measured.at_most("error of the explicit and implicit objectives", worst_of(check), LIMIT)


@pytest.mark.parametrize("variance_reduced", [True, False])
def test_sliced_objectives_are_the_divergence_and_its_constant(variance_reduced, measured, monkeypatch):
    """song2019sliced, Sec. 3: orthogonal slices of length √D have the second moments of every law of slices, so the mean is exact"""

    def check(p, sigma):
        fisher, half, x, mass = fisher_and_half_square(p, sigma)
        dim = x.shape[1]
        directions = dim**0.5 * rotation(dim, 3)
        monkeypatch.setattr(ops, "rademacher_like", lambda like, generator: directions[:, None].expand(like.shape))
        found = sliced_score_matching(wrong_score, x, sigma, n_slices=dim, variance_reduced=variance_reduced)
        return relative(mass @ found, fisher - half)

    measured.at_most("error of the sliced objectives", worst_of(check, examples=8), LIMIT)


def test_the_denoising_objective_is_the_divergence_and_its_constant(measured, monkeypatch):
    """vincent2011, Sec. 4: E ½‖σ s(x + σ z) + z‖² = σ² Fisher + D / 2 - σ² E ½‖∇ log q‖², by quadrature over x and z; one dimension"""

    def check(p, sigma):
        p = GaussianMixture(p.means[:, :1], p.covariances[:, 0, 0], p.weights)
        fisher, half, _, _ = fisher_and_half_square(p, sigma)
        x, mass = nodes(p, 0.0)
        z = torch.arange(-9, 9, 0.25, dtype=F64)
        monkeypatch.setattr(ops, "normal_like", lambda like, generator: z.repeat(len(x))[:, None])
        each = denoising_score_matching(wrong_score, x.repeat_interleave(len(z), 0), sigma, generator=seeded())
        weights = torch.outer(mass, torch.exp(-z * z / 2) * 0.25 / math.sqrt(2 * math.pi)).flatten()
        return relative(weights @ each, sigma**2 * (fisher - half) + 0.5)

    measured.at_most("error of the denoising objective", worst_of(check), LIMIT)


def test_the_finite_difference_errs_by_the_square_of_its_step(monkeypatch):
    """Half the step, a quarter of the error; and at 1e-4 nothing is left to see"""
    p, sigma = mixture(2, 2, 5), 0.7
    fisher, half, x, mass = fisher_and_half_square(p, sigma)
    directions = 2**0.5 * rotation(2, 3)
    found = []
    for step in (0.2, 0.1, 1e-4):
        means = []
        for direction in directions:
            monkeypatch.setattr(ops, "rademacher_like", lambda like, generator, d=direction: d.expand(like.shape))
            means.append(float(mass @ finite_difference_score_matching(wrong_score, x, sigma, step=step)))
        found.append(sum(means) / 2 - (fisher - half))
    assert found[0] / found[1] == pytest.approx(4, rel=0.05)
    assert abs(found[2]) < 1e-6
