"""Distances of samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from toyscore import operators as ops


def wasserstein2(x: Tensor, y: Tensor) -> float:
    """The Wasserstein-2 distance between two point clouds [N, *event] and [M, *event], by optimal transport (POT).

    Cost grows with N M log N: use a few thousand points. In units of x. Source: peyre2019, Sec. 2.3.
    """
    ot = _pot()
    a, b = as_clouds(x, y)
    cost = ops.squared_distances(a, b).cpu().double().numpy()
    return math.sqrt(max(0.0, float(ot.emd2([], [], cost, numItermax=10_000_000))))


def sliced_wasserstein2(x: Tensor, y: Tensor, *, n_projections: int = 128, generator: Generator | None = None) -> float:
    """The Wasserstein-2 distance of one-dimensional projections, root mean square over random directions.

    Sets of one size are matched by sorting them; others take POT, and several times as long.

    Args:
        x, y: [N, *event] and [M, *event].
        n_projections: directions, uniform on the sphere.
        generator: of the directions.
    """
    ops.check_count(n_projections, "n_projections")
    a, b = as_clouds(x, y)
    directions = ops.normal_like(a.new_empty(a.shape[1], n_projections), generator)
    directions = directions / directions.norm(dim=0)
    if len(a) == len(b):
        along = [(directions.mT @ cloud.mT).sort(dim=1).values for cloud in (a, b)]
        return math.sqrt(float((along[0] - along[1]).double().square().mean()))
    clouds = (cloud.cpu().numpy() for cloud in (a, b))
    return float(_pot().sliced_wasserstein_distance(*clouds, projections=directions.cpu().numpy()))


def mmd2(x: Tensor, y: Tensor, *, bandwidth: float | None = None) -> float:
    r"""Unbiased squared maximum mean discrepancy with a Gaussian kernel. Source: gretton2012, Eq. (3).

    Args:
        x, y: [N, *event] and [M, *event], N, M >= 2.
        bandwidth: the kernel's standard deviation, in units of x; default the median distance between the two clouds'
            pooled points, which takes memory that grows with (N + M)².

    Returns:
        A float; about zero, of either sign, when the laws agree.
    """
    a, b = as_clouds(x, y, 2)
    width = _median_distance(torch.cat([a, b])) if bandwidth is None else bandwidth
    ops.check_positive(width, "bandwidth")
    return unbiased_mmd2(lambda p, q: torch.exp(-ops.squared_distances(p, q) / (2 * width**2)), a, b)


def _median_distance(points: Tensor) -> float:
    squared = ops.squared_distances(points, points)
    return float(squared[torch.ones_like(squared, dtype=torch.bool).triu(1)].median().sqrt())


def paired(a: Tensor, b: Tensor) -> Iterator[slice]:
    """Rows of a [N, D], as few at a time as leave room for some functions of their pairs with those of b [M, D]."""
    return ops.pieces(len(a), 4 * max(b.shape))


def unbiased_mmd2(kernel: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> float:
    """The estimate for clouds a [N, D] and b [M, D]; ``kernel(p, q)`` of some rows of each is [n, m]. Source: gretton2012, Eq. (3).

    Pairs are summed a few rows at a time.
    """
    across = sum(float(kernel(a[rows], b).sum()) for rows in paired(a, b)) / (len(a) * len(b))
    return _within(kernel, a) + _within(kernel, b) - 2 * across  # Eq. (3)


def _within(kernel: Callable[[Tensor, Tensor], Tensor], points: Tensor) -> float:
    """The mean of a symmetric kernel over pairs of distinct points."""
    total = 0.0
    for rows in paired(points, points):
        values = kernel(points[rows], points[rows.start :])  # those before have met these
        own = values[:, : len(values)]
        total += 2 * float(values.sum()) - float(own.sum()) - float(own.diagonal().sum())
    return total / (len(points) * (len(points) - 1))


def _pot() -> Any:
    """POT, which takes seconds to import and is not needed otherwise."""
    try:
        import ot
    except ImportError as error:
        raise ImportError('Wasserstein distances need POT: install it with pip install "toyscore[metrics]"') from error
    return ot


def as_clouds(x: Tensor, y: Tensor, least: int = 1, names: tuple[str, str] = ("x", "y")) -> tuple[Tensor, Tensor]:
    """Two sets of points as [N, D] and [M, D] in float32 at least, refused unless finite, alike, and ``least`` in each."""
    for cloud, name in zip((x, y), names, strict=True):
        ops.check_batch(cloud, name)
        ops.check_finite(cloud, name)
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"{names[0]} has events of shape {list(x.shape[1:])}, {names[1]} of {list(y.shape[1:])}: they must agree; compare like "
            "with like"
        )
    if x.dtype != y.dtype:
        raise TypeError(f"{names[0]} is {x.dtype}, {names[1]} {y.dtype}: they must agree; convert one with .to(...)")
    if min(len(x), len(y)) < least:
        raise ValueError(f"the clouds have {len(x)} and {len(y)} points: {least} are needed in each; draw more")
    wide = torch.promote_types(x.dtype, torch.float32)
    return ops.flatten(x.detach()).to(wide), ops.flatten(y.detach()).to(wide)
