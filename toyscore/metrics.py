r"""How far off: scores from the truth, samples from a law, chains from having mixed.

*Scores.* The Fisher divergence :math:`\frac12 E_q \|s - s^*\|^2` is what every objective minimises; seen region by region it
shows where a low total hides a wrong field. *Samples.* Weights of the modes, Wasserstein-2 (exact and sliced, through POT),
and the maximum mean discrepancy. *Chains.* Split R-hat and the effective sample size of vehtari2021: near one, and near the
number of states, when independent chains agree and forget their past.

Everything returns Python floats or tensors on the input's device. POT is imported where it is used: it takes seconds.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.distributions import GaussianMixture
from toyscore.losses import explicit_score_matching
from toyscore.operators import Score, Sigma


class Scored(ops.Distribution, Protocol):
    """A distribution with a known score."""

    def score(self, x: Tensor, sigma: Sigma, /) -> Tensor: ...


def fisher_divergence(score: Score, distribution: Scored, x: Tensor, sigma: Sigma = 0.0) -> float:
    """The Fisher divergence ½E‖s - s*‖² over the points x. Source: song2019, Sec. 2.1.

    Args:
        score: called as ``score(x, sigma)``.
        distribution: has the true ``score(x, sigma)``.
        x: [B, *event], drawn from q_sigma for the divergence proper, or from wherever the error matters.
        sigma: float | 0-d | [B], in units of x.

    Returns:
        A float, in units of 1/x squared.

    Raises:
        TypeError, ValueError: x or sigma is not what it must be.
    """
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
        ValueError: regions is not [B] or has a negative label.
    """
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
    truth = ops.evaluate(distribution.score, x, sigma)
    return (2 * _squared_errors(score, lambda *_: truth, x, sigma)).sqrt() / ops.dot(truth, truth).sqrt()


@torch.no_grad()
def _squared_errors(score: Score, target: Score, x: Tensor, sigma: Sigma) -> Tensor:
    """½‖s - s*‖² at each x: [B]."""
    return explicit_score_matching(score, x, sigma, target=target)


def mode_weights(x: Tensor, mixture: GaussianMixture) -> Tensor:
    """The share of the points x [B, *event] in each mode, by the mixture's responsibilities: [K], summing to one."""
    return mixture.responsibilities(x).mean(0)


def mode_weight_errors(x: Tensor, mixture: GaussianMixture) -> Tensor:
    """Standard errors [K] of ``mode_weights``, the rows of x being independent; NaN for a single row."""
    return mixture.responsibilities(x).std(0) / math.sqrt(len(x))


def wasserstein2(x: Tensor, y: Tensor) -> float:
    """The Wasserstein-2 distance between two point clouds [N, *event] and [M, *event], by optimal transport (POT).

    Cost grows with N M log N: use a few thousand points. In units of x. Source: peyre2019, Sec. 2.3.
    """
    ot = _pot()
    a, b = _clouds(x, y)
    cost = ops.squared_distances(a, b).cpu().double().numpy()
    return math.sqrt(max(0.0, float(ot.emd2([], [], cost, numItermax=10_000_000))))


def sliced_wasserstein2(x: Tensor, y: Tensor, *, n_projections: int = 128, generator: Generator | None = None) -> float:
    """The Wasserstein-2 distance of one-dimensional projections, root mean square over random directions (POT).

    Args:
        x, y: [N, *event] and [M, *event].
        n_projections: directions, uniform on the sphere.
        generator: of the directions.
    """
    ot = _pot()
    ops.check_count(n_projections, "n_projections")
    a, b = _clouds(x, y)
    directions = ops.normal_like(a.new_empty(a.shape[1], n_projections), generator)
    directions = (directions / directions.norm(dim=0)).cpu().numpy()
    return float(ot.sliced_wasserstein_distance(a.cpu().numpy(), b.cpu().numpy(), projections=directions))


def mmd2(x: Tensor, y: Tensor, *, bandwidth: float | None = None) -> float:
    r"""Unbiased squared maximum mean discrepancy with a Gaussian kernel. Source: gretton2012, Eq. (3).

    Args:
        x, y: [N, *event] and [M, *event], N, M >= 2.
        bandwidth: the kernel's standard deviation, in units of x; default the median distance between the two clouds'
            pooled points.

    Returns:
        A float; about zero, of either sign, when the laws agree.
    """
    a, b = _clouds(x, y)
    if min(len(a), len(b)) < 2:
        raise ValueError(
            f"the clouds have {len(a)} and {len(b)} points: an unbiased estimate needs two in each; draw more"
        )
    pooled = torch.cat([a, b])
    squared = ops.squared_distances(pooled, pooled)
    if bandwidth is None:
        above = torch.ones_like(squared, dtype=torch.bool).triu(1)
        bandwidth = float(squared[above].median().sqrt())
    ops.check_positive(bandwidth, "bandwidth")
    kernel = torch.exp(-squared / (2 * bandwidth**2))
    n, m = len(a), len(b)
    within_a = (kernel[:n, :n].sum() - n) / (n * (n - 1))
    within_b = (kernel[n:, n:].sum() - m) / (m * (m - 1))
    return float(within_a + within_b - 2 * kernel[:n, n:].mean())  # Eq. (3)


def split_r_hat(chains: Tensor) -> Tensor:
    """Split R-hat: the spread over half-chains against the spread within. Source: vehtari2021, Sec. 2.

    Args:
        chains: [n_steps, n_chains, *event], n_steps >= 4: ``torch.stack(list(chain))``.

    Returns:
        [*event]; 1 when the halves agree, well above 1.01 when chains remember where they started; NaN where no chain
        ever moves.
    """
    halves = _halves(chains)
    n = len(halves)
    within = halves.var(0).mean(0)
    between = halves.mean(0).var(0)
    return (((n - 1) / n * within + between) / within).sqrt()


def effective_sample_size(chains: Tensor) -> Tensor:
    r"""How many independent states the chains are worth, :math:`n m / (1 + 2 \sum_t \rho_t)`. Source: vehtari2021, Sec. 3.2.

    The autocorrelations of the half-chains are combined across chains, and summed in pairs until a pair is no longer
    positive, each pair capped by the one before (geyer1992).

    Args, errors: as ``split_r_hat``.

    Returns:
        [*event], at most n m log10(n m).
    """
    halves = _halves(chains)
    n, m = halves.shape[:2]
    centred = halves - halves.mean(0)
    spectrum = torch.fft.rfft(centred, n=2 * n, dim=0)
    covariances = torch.fft.irfft(spectrum * spectrum.conj(), n=2 * n, dim=0)[:n] / n
    within = (covariances[0] * n / (n - 1)).mean(0)
    total = (n - 1) / n * within + halves.mean(0).var(0)
    rho = 1 - (within - (covariances * n / (n - 1)).mean(1)) / total
    rho[0] = 1
    pairs = rho[: n - n % 2].unflatten(0, (-1, 2)).sum(1)
    alive = torch.cumprod((pairs > 0).to(rho), 0)
    tau = 2 * (torch.cummin(pairs.clamp(min=0), 0).values * alive).sum(0) - 1
    return n * m / tau.clamp(min=1 / math.log10(n * m))


def _halves(chains: Tensor) -> Tensor:
    """[n_steps // 2, 2 n_chains, *event]."""
    ops.check_batch(chains, "chains")
    ops.check_finite(chains, "chains")
    if chains.ndim < 3 or len(chains) < 4:
        raise ValueError(
            f"chains has shape {list(chains.shape)}: it must be [n_steps >= 4, n_chains, *event]; pass "
            "torch.stack(list(chain))"
        )
    half = len(chains) // 2
    return torch.cat([chains[:half], chains[len(chains) - half :]], 1)


def _pot() -> Any:
    """POT, which takes seconds to import and is not needed otherwise."""
    try:
        import ot
    except ImportError as error:
        raise ImportError('Wasserstein distances need POT: install it with pip install "toyscore[metrics]"') from error
    return ot


def _clouds(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    for cloud, name in ((x, "x"), (y, "y")):
        ops.check_batch(cloud, name)
        ops.check_finite(cloud, name)
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"x has events of shape {list(x.shape[1:])}, y of {list(y.shape[1:])}: they must agree; compare like "
            "with like"
        )
    if x.dtype != y.dtype:
        raise TypeError(f"x is {x.dtype}, y {y.dtype}: they must agree; convert one with .to(...)")
    wide = torch.promote_types(x.dtype, torch.float32)
    return ops.flatten(x.detach()).to(wide), ops.flatten(y.detach()).to(wide)
