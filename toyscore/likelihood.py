r"""The density that a score implies, by following the probability flow.

Along the flow from t_min to 1 the log density changes by the divergence of the drift (chen2018), so

.. math:: \log p_{t_{min}}(x) = \log p_1(x(1)) + D \log \frac{\alpha_1}{\alpha_{t_{min}}}
          - \int \sigma^2\, \mathrm{tr} \frac{\partial\, \mathrm{score}}{\partial y}(y, \sigma)\, d \log \sigma,

with y = x / alpha: the integral is the same for every process, which enters by its two ends alone. Three things are exact: the flow to the
tolerance asked for, the trace (or an unbiased estimate of it), and the law at t = 1 if it is given. If it is not, the process's Gaussian
stands in for it, and the error is :math:`\log N(x(1)) - \log p_1(x(1))`, no more and no less.

It is the density *at t_min*, of data with a little noise, and the density of the *score's flow*, which is the model's likelihood only as
far as the score is a gradient of one. Images need dequantisation: a density over whole numbers has no upper bound.

References: song2021, chen2018, grathwohl2019.
"""

from __future__ import annotations

import math
from typing import Protocol

from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.operators import Score
from toyscore.sde import SDE, check_process, integrate, noise_level
from toyscore.sde.identity import gaussian_log_prob
from toyscore.sde.solver import check_tolerances


class Prior(Protocol):
    """The law at t = 1: ``log_prob(x)`` -> [B]."""

    def log_prob(self, x: Tensor, /) -> Tensor: ...


def log_likelihood(
    sde: SDE,
    score: Score,
    x: Tensor,
    *,
    prior: Prior | None = None,
    t_min: float = 1e-5,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    exact_trace: bool = True,
    generator: Generator | None = None,
) -> Tensor:
    """The log density at t_min, by the probability flow. Source: song2021, Eq. (39).

    VP keeps N(0, 1), so that its own prior is exact, and log p(1) is -(1 + log 2 pi) / 2:

    >>> import torch
    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.likelihood import log_likelihood
    >>> from toyscore.sde import VP
    >>> p, x = GaussianMixture([[0.0]]), torch.tensor([[1.0]])
    >>> found = log_likelihood(VP(), p.score, x)
    >>> round(found.item(), 3), round(p.log_prob(x).item(), 3)
    (-1.419, -1.419)

    Args:
        sde: the process; it matters by its ends and its prior alone.
        score: any score function.
        x: [B, *event], at t_min; on VP, that is alpha times data.
        prior: the law at t = 1, anything with ``log_prob``; None is the SDE's Gaussian, whose mismatch with p_1 then stays.
        t_min: where the flow begins, in (0, 1).
        rtol, atol: of the flow and of the integral, of every number; not both below the rounding of x's dtype.
        exact_trace: D directions per call of the score, minutes where D is thousands; otherwise Hutchinson's estimate with random
            signs, drawn once per row, unbiased.
        generator: of the signs.

    Returns:
        [B], in nats.

    Raises:
        ImportError: torchdiffeq is not installed.
        TypeError, ValueError: a bad x, t_min or tolerance; a prior without log_prob.
        DivergenceError: the flow cannot be followed.
    """
    check_process(sde)
    ops.check_score(score)
    ops.check_batch(x)
    ops.check_finite(x)
    if not isinstance(t_min, int | float) or not 0 < t_min < 1:
        raise ValueError(f"t_min = {t_min!r}: it must lie between 0 and 1, where there is noise; pass e.g. 1e-5")
    if prior is not None and not hasattr(prior, "log_prob"):
        raise TypeError(
            f"prior is {type(prior).__name__}: it must have log_prob(x); pass e.g. law_at(sde, mixture, 1.0)"
        )
    (alpha, _), (alpha_1, _) = sde.marginal(t_min), sde.marginal(1.0)
    signs = None if exact_trace else ops.rademacher_like(x, generator)[None]

    def rate(y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        if signs is None:
            return ops.jacobian_trace(score, y, sigma)
        s, forms = ops.quadratic_form(score, y, sigma, signs)  # Eq. (40)
        return s, forms[0]

    sigmas = [noise_level(sde, t_min), noise_level(sde, 1.0)]
    check_tolerances(rtol, atol, x / alpha)
    _, (y, divergence) = integrate(rate, x / alpha, sigmas, rtol=rtol, atol=atol)
    end = alpha_1 * y
    at_one = gaussian_log_prob(end, sde.prior_std) if prior is None else prior.log_prob(end)
    if at_one.shape != x.shape[:1]:
        raise ValueError(
            f"prior.log_prob returned shape {list(at_one.shape)} for {len(x)} rows: it must be [{len(x)}]; sum over the event"
        )
    return at_one + x[0].numel() * math.log(alpha_1 / alpha) + divergence  # Eq. (39)


def bits_per_dimension(log_prob: Tensor, dim: int, n_levels: int) -> Tensor:
    r"""Bits per number of an image of whole numbers 0 to q - 1, from the log density of :math:`(k + u) / q` on [0, 1]: like log_prob.

    :math:`(\log q - \frac{1}{D} \log p) / \log 2`; with u uniform its mean is at least the bits of the discrete image. Source: theis2016,
    Sec. 3.1. Without dequantisation it is no bound at all, and falls below zero.

    Args:
        log_prob: [B], in nats. dim: D. n_levels: q.
    """
    ops.check_count(dim, "dim")
    ops.check_count(n_levels, "n_levels", 2)
    return (math.log(n_levels) - log_prob / dim) / math.log(2)
