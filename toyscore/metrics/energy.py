"""Whether two clouds come from one law."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.metrics.clouds import as_doubles, distances, unbiased_mmd2


def energy_distance(x: Tensor, y: Tensor) -> float:
    r"""The energy distance :math:`2 E|X - Y| - E|X - X'| - E|Y - Y'|`, unbiased. Source: szekely2013, Sec. 2.

    Zero only for equal laws, and no bandwidth to choose. What clouds of one law give by chance, ``same_law`` tells.

    Args:
        x, y: [N, *event] and [M, *event], N, M >= 2.

    Returns:
        A float in units of x; about zero, of either sign, when the laws agree.

    Raises:
        TypeError, ValueError: not two clouds of like points; fewer than two in one.
    """
    a, b = as_doubles(x, y, 2)
    return unbiased_mmd2(lambda p, q: distances(p, q).neg_(), a, b)  # the same estimate, with the kernel -‖x - y‖


def same_law(x: Tensor, y: Tensor, *, n_permutations: int = 500, generator: Generator | None = None) -> float:
    """The probability that two clouds of one law are as far apart, in energy distance, as these: small where they differ.

    Points are dealt out anew ``n_permutations`` times; the tail beyond is that of the gamma law with their mean, variance and skewness
    (Pearson's type III), so that probabilities far below 1 / n_permutations have a meaning.

    Args:
        x, y: [N, *event] and [M, *event], independent rows; memory grows with (N + M)², so a few thousand.
        generator: of the permutations.

    Raises:
        TypeError, ValueError: not two clouds of like points; fewer than two points in one; fewer than 50 permutations.
    """
    from scipy import stats

    ops.check_count(n_permutations, "n_permutations", 50)
    a, b = as_doubles(x, y, 2)
    n, m = len(a), len(b)
    pooled = torch.cat([a, b])
    apart = distances(pooled, pooled)
    signs = torch.cat([a.new_full((n,), 1 / n), a.new_full((m,), -1 / m)])  # the energy distance is -w^T d w

    orders = [
        torch.randperm(n + m, generator=generator, device=ops.source(generator, signs)) for _ in range(n_permutations)
    ]
    dealt = torch.stack([signs[order.to(signs.device)] for order in orders], 1)
    found = -(signs @ apart @ signs)
    null = -(dealt * (apart @ dealt)).sum(0)
    mean, std = null.mean(), null.std()
    if float(std) == 0:  # all points coincide
        return 1.0
    skew = float(((null - mean) / std).pow(3).mean())
    return float(stats.pearson3.sf(float((found - mean) / std), max(skew, 1e-3)))
