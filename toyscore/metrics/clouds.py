"""Distances of samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore._extras import missing


def wasserstein2(x: Tensor, y: Tensor) -> float:
    """The Wasserstein-2 distance between two point clouds [N, *event] and [M, *event], by optimal transport (POT).

    Cost grows with N M log N: use a few thousand points. In units of x. Source: peyre2019, Sec. 2.3.

    Where a cloud is only moved, every point travels as far:

    >>> import torch
    >>> from toyscore.metrics import wasserstein2
    >>> x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    >>> round(wasserstein2(x, x + torch.tensor([3.0, 4.0])), 3)
    5.0
    """
    ot = _pot()
    a, b = as_doubles(x, y)
    apart = distances(a, b)
    largest = float(apart.max()) or 1.0
    cost = (apart / largest).square().numpy()  # POT takes what is small beside one for nothing
    whole = math.lcm(len(a), len(b))  # masses are whole numbers: what rounding leaves of them would have to travel, too
    masses = [cloud.new_full((len(cloud),), whole / len(cloud)).numpy() for cloud in (a, b)]
    return largest * math.sqrt(max(0.0, float(ot.emd2(*masses, cost, numItermax=10_000_000))) / whole)


def sliced_wasserstein2(x: Tensor, y: Tensor, *, n_projections: int = 128, generator: Generator | None = None) -> float:
    """The Wasserstein-2 distance of one-dimensional projections, root mean square over random directions.

    Args:
        x, y: [N, *event] and [M, *event].
        n_projections: directions, uniform on the sphere.
        generator: of the directions.
    """
    ops.check_count(n_projections, "n_projections")
    a, b = as_clouds(x, y)
    directions = ops.normal_like(a.new_empty(a.shape[1], n_projections), generator).cpu().double()
    directions = directions / directions.norm(dim=0)
    a, b = a.cpu().double(), b.cpu().double()
    a, b = a - a.mean(0), b - a.mean(0)
    rows = ops.pieces(n_projections, len(a) + len(b))
    return math.sqrt(sum(_on_lines(directions[:, of].mT, a, b) for of in rows) / n_projections)


def _on_lines(directions: Tensor, a: Tensor, b: Tensor) -> float:
    """The squared Wasserstein-2 distance of the projections along each of ``directions`` [L, D], summed.

    On a line the q-quantile of one cloud goes to that of the other. Both are constant between the multiples of 1 / N and 1 / M: here q N M,
    a whole number.
    """
    n, m = len(a), len(b)
    steps = [torch.arange(1, size + 1, device=a.device) for size in (n, m)]
    ends = torch.cat([steps[0] * m, steps[1] * n]).unique()
    along = [torch.from_numpy(np.sort((directions @ cloud.mT).numpy())) for cloud in (a, b)]  # thrice as fast as torch
    gaps = along[0][:, (ends - 1) // m] - along[1][:, (ends - 1) // n]
    return float((gaps.square() @ ends.diff(prepend=ends.new_zeros(1)).double()).sum()) / (n * m)


def mmd2(x: Tensor, y: Tensor, *, bandwidth: float | None = None) -> float:
    r"""Unbiased squared maximum mean discrepancy with a Gaussian kernel. Source: gretton2012, Eq. (3).

    Args:
        x, y: [N, *event] and [M, *event], N, M >= 2.
        bandwidth: the kernel's standard deviation, in units of x; default the median distance between the two clouds'
            pooled points, which takes memory that grows with (N + M)².

    Returns:
        A float; about zero, of either sign, when the laws agree.
    """
    a, b = as_doubles(x, y, 2)
    width = _median_distance(torch.cat([a, b])) if bandwidth is None else bandwidth
    ops.check_positive(width, "bandwidth")
    return unbiased_mmd2(lambda p, q: torch.exp(-ops.squared_distances(p, q) / (2 * width**2)), a, b)


def _median_distance(points: Tensor) -> float:
    squared = ops.squared_distances(points, points)
    return float(squared[torch.ones_like(squared, dtype=torch.bool).triu(1)].median().sqrt())


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances [N, M] between rows [N, D] and [M, D], by differences: accurate at any distance."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


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
        raise missing("Wasserstein distances", "POT", "metrics", "need") from error
    return ot


def as_doubles(x: Tensor, y: Tensor, least: int = 1) -> tuple[Tensor, Tensor]:
    """As ``as_clouds``, on the CPU in float64; an accelerator need not have it."""
    a, b = as_clouds(x, y, least)
    return a.cpu().double(), b.cpu().double()


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
