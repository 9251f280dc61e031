"""What the grids of this folder share: nodes, limits, and integrals over a mixture's density."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from toyscore import operators as ops
from toyscore.distributions import GaussianMixture

CLIPPED = 1e-6  # mass that may lie off a grid
MEMORY = 1 << 31  # bytes that a matrix or a network may take
NODES_PER_STD = {1: 20.0, 2: 6.0}  # by dimension, to the least standard deviation of a density
_WIDTH = 6.5  # standard deviations around every mean that a grid covers


class Cloud(NamedTuple):
    """Weighted points that stand for a law: ``points`` [N, D] and ``masses`` [N], summing to one within ``CLIPPED``."""

    points: Tensor
    masses: Tensor


def nodes(axes: Sequence[Any]) -> Tensor:
    """The points [N, D] of a grid with these axes, the last one fastest."""
    return torch.cartesian_prod(*[torch.as_tensor(axis) for axis in axes]).view(-1, len(axes))


def check_flat(mixture: GaussianMixture) -> int:
    """D, refused above two."""
    dim = mixture.means.shape[1]
    if dim > 2:
        raise ValueError(f"D = {dim}: a grid is for one or two dimensions; pass reduce(mixture), or a marginal")
    return dim


def least_variance(p: GaussianMixture, sigma: float) -> float:
    """Of the components' principal axes at sigma."""
    if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 <= sigma < 1e150:
        raise ValueError(f"sigma = {sigma!r}: it must be a float, finite and not negative; pass e.g. sigma=0.5")
    return float(torch.linalg.eigvalsh(p.covariances.double()).clamp(min=0).min()) + sigma**2


def density_axes(p: GaussianMixture, sigma: float, nodes_per_std: float | None) -> list[Any]:
    """Per coordinate, nodes of one spacing over the density at sigma; an odd number. Default 20 nodes to the least deviation, 6 in 2-D."""
    dim = check_flat(p)
    if nodes_per_std is None:
        nodes_per_std = NODES_PER_STD[dim]
    ops.check_positive(nodes_per_std, "nodes_per_std")
    h = math.sqrt(least_variance(p, sigma)) / nodes_per_std
    std = (p.covariances.diagonal(dim1=1, dim2=2) + sigma**2).sqrt()
    if h == 0:
        raise ValueError(f"{p} is degenerate at sigma = {sigma}: the clean density must be proper; pass sigma > 0")
    axes = []
    for low, high in zip(
        (p.means - _WIDTH * std).amin(0).tolist(), (p.means + _WIDTH * std).amax(0).tolist(), strict=True
    ):
        half = math.ceil((high - low) / h / 2)
        axes.append((low + high) / 2 + h * np.arange(-half, half + 1))
    return axes


def quadrature(mixture: GaussianMixture, sigma: float = 0.0, *, nodes_per_std: float | None = None) -> Cloud:
    """The density q_sigma as a cloud: ``masses @ f(points)`` is E f, by the trapezoidal rule, which for smooth f errs exponentially little.

    Args:
        mixture: D = 1 or 2.
        sigma: the noise level, in units of x.
        nodes_per_std: to the least standard deviation; default 20 in one dimension, 6 in two. Responsibilities turn within
            variance / distance of the means, so far modes need more.

    Raises:
        ValueError: D above two, a degenerate density, more than ``CLIPPED`` of the mass off the grid, or a grid above ``MEMORY`` bytes.
    """
    p = mixture.to("cpu", torch.float64)
    axes = density_axes(p, sigma, nodes_per_std)
    needed = 64 * math.prod(map(len, axes))
    if needed > MEMORY:
        raise ValueError(
            f"a grid of {' x '.join(str(len(a)) for a in axes)} nodes takes {needed:,} bytes: at most {MEMORY:,} may; lower nodes_per_std"
        )
    points = nodes(axes)
    masses = p.log_prob(points, sigma).exp() * math.prod(axis[1] - axis[0] for axis in axes)
    check_mass(float(masses.sum()))
    return Cloud(points, masses)


def check_mass(mass: float) -> None:
    """Refuse a grid that holds less, or more, than the whole mass by ``CLIPPED``."""
    if not abs(1 - mass) <= CLIPPED:
        raise ValueError(
            f"the grid holds {mass:.8f} of the mass: at most {CLIPPED:g} may be missing; raise nodes_per_std"
        )
