"""Scores against the truth, and the weights of modes."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from toyscore import operators as ops
from toyscore.distributions import GaussianMixture
from toyscore.losses import explicit_score_matching
from toyscore.operators import Score, Sigma


class Scored(ops.Distribution, Protocol):
    """A distribution with a known score."""

    def score(self, x: Tensor, sigma: Sigma, /) -> Tensor: ...


def fisher_divergence(score: Score, distribution: Scored, x: Tensor, sigma: Sigma = 0.0) -> float:
    """The Fisher divergence ½E‖s - s*‖² over the points x. Source: song2019, Sec. 2.1.

    It is zero for the exact score. That of N(0, 1) at x = 3 is -3, so a score of zero has 3²/2:

    >>> import torch
    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.metrics import fisher_divergence
    >>> p, x = GaussianMixture([[0.0]]), torch.tensor([[3.0]])
    >>> fisher_divergence(p.score, p, x)
    0.0
    >>> round(fisher_divergence(lambda x, sigma: 0 * x, p, x), 3)
    4.5

    Args:
        score: called as ``score(x, sigma)``.
        distribution: has the true ``score(x, sigma)``.
        x: [B, *event], drawn from q_sigma for the divergence proper, or from wherever the error matters.
        sigma: float | 0-d | [B], in units of x.

    Returns:
        A float, in units of 1/x squared.

    Raises:
        TypeError, ValueError: x or sigma is not what it must be; a distribution without a score.
    """
    _check_scored(distribution)
    return float(_squared_errors(score, distribution.score, x, sigma).mean())


def fisher_divergence_by_region(
    score: Score, distribution: Scored, x: Tensor, regions: Tensor, sigma: Sigma = 0.0
) -> Tensor:
    """The Fisher divergence over the points of each region.

    Args:
        score, distribution, x, sigma: as ``fisher_divergence``.
        regions: [B] integers from 0, the region of each point.

    Returns:
        [R], one more than the largest label; NaN where a region has no point.

    Raises:
        TypeError, ValueError: as ``fisher_divergence``; regions is not [B] or has a negative label.
    """
    _check_scored(distribution)
    ops.check_batch(x)
    if not isinstance(regions, Tensor) or regions.dtype not in (torch.int64, torch.int32, torch.uint8, torch.int16):
        kind = regions.dtype if isinstance(regions, Tensor) else type(regions).__name__
        raise TypeError(f"regions is {kind}: it must be a tensor of integers from 0; pass e.g. (x[:, 0] > 0).long()")
    if regions.shape != x.shape[:1] or bool((regions < 0).any()):
        raise ValueError(
            f"regions is {regions.dtype} of shape {list(regions.shape)}: it must be [{len(x)}] integers from 0; pass "
            "e.g. (x[:, 0] > 0).long()"
        )
    errors, regions = _squared_errors(score, distribution.score, x, sigma), regions.long()
    counts = torch.bincount(regions)
    return torch.zeros_like(counts, dtype=errors.dtype).index_add_(0, regions, errors) / counts


@torch.no_grad()
def relative_errors(score: Score, distribution: Scored, x: Tensor, sigma: Sigma = 0.0) -> Tensor:
    """‖s - s*‖ / ‖s*‖ at each x: [B], not finite where s* is zero. Args and errors as ``fisher_divergence``."""
    _check_scored(distribution)
    truth = ops.evaluate(distribution.score, x, sigma)
    return (2 * _squared_errors(score, lambda *_: truth, x, sigma)).sqrt() / ops.dot(truth, truth).sqrt()


@torch.no_grad()
def _squared_errors(score: Score, target: Score, x: Tensor, sigma: Sigma) -> Tensor:
    """½‖s - s*‖² at each x: [B]."""
    ops.check_batch(x)
    ops.check_finite(x)
    return explicit_score_matching(score, x, sigma, target=target)


def _check_scored(distribution: object) -> None:
    if not hasattr(distribution, "score"):
        raise TypeError(
            f"distribution is {type(distribution).__name__}: it must have score(x, sigma); pass the distribution, e.g. a mixture, not its "
            "score"
        )


def mode_weights(x: Tensor, mixture: GaussianMixture) -> Tensor:
    """The share of the points x [B, *event] in each mode, by the mixture's responsibilities: [K], summing to one.

    Three points near one mode, one near the other:

    >>> import torch
    >>> from toyscore.distributions import two_modes
    >>> from toyscore.metrics import mode_weights
    >>> x = torch.tensor([[5.0, 5.0], [4.0, 5.0], [5.0, 6.0], [-5.0, -5.0]])
    >>> [round(w, 3) for w in mode_weights(x, two_modes()).tolist()]
    [0.75, 0.25]

    Raises:
        TypeError, ValueError: x is not what it must be; mixture has no responsibilities.
    """
    return _responsibilities(x, mixture).mean(0)


def mode_weight_errors(x: Tensor, mixture: GaussianMixture) -> Tensor:
    """Standard errors [K] of ``mode_weights``, the rows of x being independent; NaN for a single row."""
    shares = _responsibilities(x, mixture)
    return shares.std(0) / math.sqrt(len(x)) if len(x) > 1 else torch.full_like(shares[0], torch.nan)


def _responsibilities(x: Tensor, mixture: GaussianMixture) -> Tensor:
    ops.check_batch(x)
    ops.check_finite(x)
    if not hasattr(mixture, "responsibilities"):
        raise TypeError(
            f"mixture is {type(mixture).__name__}: it must have responsibilities(x), the share of each mode in each point; pass a "
            "GaussianMixture"
        )
    return mixture.responsibilities(x)
