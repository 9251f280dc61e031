r"""Every objective is the Fisher divergence, plus a constant that the network cannot change.

With :math:`F = \frac12 E_q \|s - s^*\|^2` and :math:`S = \frac12 E_q \|s^*\|^2`, both at one noise level:

===================  =============================
objective            constant
===================  =============================
explicit             0
implicit, sliced     :math:`-S` (integration by parts: :math:`E[s \cdot s^*] = -E[\mathrm{tr}\, \partial s]`)
finite difference    :math:`-S`, and a bias of order h²
denoising, w = 1     :math:`D / 2\sigma^2 - S` (what noise is left once the best guess is made)
===================  =============================

so that ``value = F + constant`` for *any* differentiable s. :func:`objective_identities` evaluates both sides, on the truth's
side by quadrature where D allows it, and what is left over is a test of a loss that needs no trained network. A new objective
can be put beside the known ones. How noisy each is, as an estimator, is the other half: the same constant, very different variances.

References: hyvarinen2005, vincent2011, song2019sliced, pang2020.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.diagnostics.grids import NODES_PER_STD, quadrature
from toyscore.distributions import GaussianMixture
from toyscore.losses import (
    Loss,
    denoising_score_matching,
    explicit_score_matching,
    finite_difference_score_matching,
    implicit_score_matching,
    perturbed,
    sliced_score_matching,
)
from toyscore.operators import Score, Sigma

_ROWS = 1 << 16  # points of a grid that a score sees at once


class Fisher(NamedTuple):
    """At one level: ``divergence``, F; ``half_square``, S; and their ``errors``, standard or of the grid."""

    divergence: float
    half_square: float
    errors: tuple[float, float]


class Objective(NamedTuple):
    """A loss of clean x, and its constant: ``noises`` times :math:`D / 2\\sigma^2` plus ``half_squares`` times S."""

    loss: Loss
    noises: float
    half_squares: float


@dataclass(frozen=True)
class Identity:
    """An objective against the truth.

    Attributes:
        value: its mean over n draws.
        error: standard error of the value.
        fisher: the Fisher divergence.
        constant: what lies between the two.
        residual: value - fisher - constant: zero but for ``residual_error``, the standard errors of all three together.
        variance: of the estimator, for one example.
    """

    value: float
    error: float
    fisher: float
    constant: float
    residual: float
    residual_error: float
    variance: float


@torch.no_grad()
def exact_fisher(
    score: Score, mixture: GaussianMixture, *, sigma: float, n: int = 20_000, generator: Generator | None = None
) -> Fisher:
    """The Fisher divergence of a score, and half the mean square of the exact one. Source: hyvarinen2005, Sec. 2.

    Args:
        score: called as ``score(x, sigma)`` in the mixture's dtype and on its device.
        mixture: of any D; by quadrature in one and two dimensions, else by n samples.
        sigma: the noise level, in units of x.
        n: samples, used above two dimensions.
        generator: of the samples.

    Raises:
        ValueError: a degenerate mixture at sigma = 0; fewer than two samples; as ``quadrature``.
    """
    ops.check_count(n, "n", 2)
    means, covariance = _truth(score, mixture, sigma, n, generator)
    errors = covariance.diagonal().sqrt()
    return Fisher(float(means[0]), float(means[1]), (float(errors[0]), float(errors[1])))


def _truth(
    score: Score, mixture: GaussianMixture, sigma: float, n: int, generator: Generator | None
) -> tuple[Tensor, Tensor]:
    """F and S, [2], and the covariance of their errors, [2, 2]."""
    if mixture.means.shape[1] > 2:
        values = _squares(score, mixture, sigma, mixture.perturb(sigma).sample(n, generator=generator))
        return values.mean(1), torch.cov(values) / n
    nodes_per_std = NODES_PER_STD[mixture.means.shape[1]]
    fine, rough = (quadrature(mixture, sigma, nodes_per_std=nodes_per_std / factor) for factor in (1, 2))
    found, coarse = (_squares(score, mixture, sigma, cloud.points) @ cloud.masses for cloud in (fine, rough))
    return found, torch.diag((found - coarse) ** 2)


def _squares(score: Score, mixture: GaussianMixture, sigma: float, points: Tensor) -> Tensor:
    """At each point, half the squares of the score's error and of the exact score, [2, N]."""
    pieces = []
    for x in points.to(mixture.means).split(_ROWS):
        exact = mixture.score(x, sigma)
        difference = ops.evaluate(score, x, sigma) - exact
        pieces.append(torch.stack([ops.dot(difference, difference), ops.dot(exact, exact)]).cpu().double() / 2)
    return torch.cat(pieces, 1)


def _unit_denoising(score: Score, x: Tensor, sigma: Sigma, *, generator: Generator | None = None) -> Tensor:
    """The denoising objective with weight one, comparable with the others."""
    return denoising_score_matching(score, x, sigma, weight=lambda _: 1.0, generator=generator)


def library_objectives(mixture: GaussianMixture) -> dict[str, Objective]:
    """The library's objectives by name, each with weight one."""
    return {
        "explicit": Objective(perturbed(partial(explicit_score_matching, target=mixture.score)), 0, 0),
        "implicit": Objective(perturbed(implicit_score_matching), 0, -1),
        "sliced": Objective(perturbed(sliced_score_matching), 0, -1),
        "finite_difference": Objective(perturbed(finite_difference_score_matching), 0, -1),
        "denoising": Objective(_unit_denoising, 1, -1),
    }


@torch.no_grad()
def objective_identities(
    score: Score,
    mixture: GaussianMixture,
    *,
    sigma: float,
    n: int = 20_000,
    objectives: Mapping[str, Objective] | None = None,
    generator: Generator | None = None,
) -> dict[str, Identity]:
    """Each objective's value, and what is left of it when the truth is taken away. Source: hyvarinen2005, Theorem 1; vincent2011, Sec. 4.

    Args:
        score: called as ``score(x, sigma)`` in the mixture's dtype and on its device; any, trained or not, differentiable in x.
        mixture: of any D.
        sigma: positive, in units of x.
        n: examples.
        objectives: name -> Objective; default the library's.
        generator: of examples, noise and projections.

    Returns:
        Name -> Identity, in the order given.

    Raises:
        ValueError: fewer than two examples, sigma not positive; a loss that is not [n].
    """
    ops.check_score(score)
    ops.check_positive(sigma, "sigma")
    ops.check_count(n, "n", 2)
    dim = mixture.means.shape[1]
    truth, covariance = _truth(score, mixture, sigma, n, generator)
    fisher, half_square = truth.tolist()
    noise = dim / (2 * sigma**2)
    found = {}
    for name, (loss, noises, half_squares) in (
        library_objectives(mixture) if objectives is None else objectives
    ).items():
        values = loss(score, mixture.sample(n, generator=generator), sigma, generator=generator)
        if values.shape != (n,):
            raise ValueError(
                f"{name} returned shape {list(values.shape)} for {n} examples: it must be per example, [{n}]; do not reduce it"
            )
        values = values.cpu().double()
        value, variance = float(values.mean()), float(values.var())
        error = math.sqrt(variance / n)
        constant = noises * noise + half_squares * half_square
        takes = torch.tensor([1.0, half_squares], dtype=torch.float64, device="cpu")
        doubt = math.sqrt(error**2 + float(takes @ covariance @ takes))
        found[name] = Identity(value, error, fisher, constant, value - fisher - constant, doubt, variance)
    return found


def gradient_variance(
    model: torch.nn.Module,
    loss: Loss,
    distribution: ops.Distribution,
    *,
    sigma: float,
    batch_size: int = 128,
    n_batches: int = 50,
    generator: Generator | None = None,
) -> tuple[float, float]:
    """How noisy an objective's gradient is: all objectives share its mean, and training feels the rest.

    Args:
        model: a network, called as a score; its ``.grad`` is left as it is.
        loss: of clean x, e.g. ``library_objectives(p)["sliced"].loss``.
        distribution: anything with ``sample``.
        sigma: the noise level, in units of x.
        batch_size, n_batches: the variance is that between the means of so many batches.
        generator: of examples, noise and projections.

    Returns:
        The squared norm of the mean gradient (less what noise adds to it), and the variance of one example's gradient, summed over the
        parameters.

    Raises:
        ValueError: fewer than two batches, an empty batch.
    """
    ops.check_count(batch_size, "batch_size")
    ops.check_count(n_batches, "n_batches", 2)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no trainable parameter: a gradient needs one; pass a network")
    rows = []
    for _ in range(n_batches):
        x = distribution.sample(batch_size, generator=generator)
        with torch.enable_grad():
            value = loss(model, x, sigma, generator=generator).mean()
            gradient = torch.autograd.grad(
                value, parameters, materialize_grads=True
            )  # zero where a parameter is not used
        rows.append(torch.cat([g.flatten() for g in gradient]).cpu().double())
    gradients = torch.stack(rows)
    between = float(gradients.var(0).sum())
    return float(gradients.mean(0).square().sum()) - between / n_batches, between * batch_size
