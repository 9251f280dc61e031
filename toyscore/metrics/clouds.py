"""Distances of samples."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from toyscore import operators as ops


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
