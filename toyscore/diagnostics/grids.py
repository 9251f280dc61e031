"""What the grids of this folder share: nodes, limits, and integrals over a mixture's density."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
_REACH = 9.0  # those around the means of p that cubes cover; beyond is less mass than rounding
_RULE = 10  # Gauss-Legendre nodes along a side of a cube
_MOST_NODES = 1 << 24  # that an integral may take
_RTOL = 1e-12  # of an integral, in each cube


class Cloud(NamedTuple):
    """Weighted points that stand for a law: ``points`` [N, D] and ``masses`` [N], summing to one within ``CLIPPED``."""

    points: Tensor
    masses: Tensor


def nodes(axes: Sequence[Any]) -> Tensor:
    """The points [N, D] of a grid with these axes, the last one fastest."""
    return torch.cartesian_prod(*[torch.as_tensor(axis, device="cpu") for axis in axes]).view(-1, len(axes))


def check_mixture(mixture: object, name: str = "mixture") -> None:
    """Refuse another distribution.

    Raises:
        TypeError: it is no mixture.
    """
    if not isinstance(mixture, GaussianMixture):
        raise TypeError(
            f"{name} is {type(mixture).__name__}: what is computed here is known of Gaussian mixtures alone; pass a GaussianMixture"
        )


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
    return float(torch.linalg.eigvalsh(p.covariances.cpu().double()).clamp(min=0).min()) + sigma**2


def check_proper(p: GaussianMixture, sigma: float) -> float:
    """Its least variance, refused if it is zero."""
    variance = least_variance(p, sigma)
    if variance == 0:
        raise ValueError(f"{p} is degenerate at sigma = {sigma}: the clean density must be proper; pass sigma > 0")
    return variance


def density_axes(p: GaussianMixture, sigma: float, nodes_per_std: float | None) -> list[Any]:
    """Per coordinate, nodes of one spacing over the density at sigma; an odd number. Default 20 nodes to the least deviation, 6 in 2-D."""
    dim = check_flat(p)
    if nodes_per_std is None:
        nodes_per_std = NODES_PER_STD[dim]
    ops.check_positive(nodes_per_std, "nodes_per_std")
    h = math.sqrt(check_proper(p, sigma)) / nodes_per_std
    std = (p.covariances.diagonal(dim1=1, dim2=2) + sigma**2).sqrt()
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
    check_mixture(mixture)
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


def integrals(
    f: Callable[[Tensor], Tensor], p: GaussianMixture, q: GaussianMixture, sigma: float, nodes_per_std: float
) -> tuple[Tensor, Tensor]:
    """Integrals of functions that p drives and q shapes, over all of p's mass, and bounds of their errors: two [M].

    The rule is Gauss's on cubes. They are halved until none is larger than what is seen of any component from there, p's and q's alike:
    its least standard deviation, or a share of the distance to it. Then until each cube agrees with its parts. What they differed by,
    and what rounding may do, add up to the error.

    Args:
        f: points [N, D] -> [2 M, N], the integrands and the rounding of each.
        p, q: in float64, D = 1 or 2.
        nodes_per_std: of the first cubes, to the least standard deviation that is near.

    Raises:
        ValueError: more than ``_MOST_NODES`` nodes are needed.
    """
    dim = p.means.shape[1]
    line, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(_RULE))
    offsets = torch.cartesian_prod(*[line] * dim).view(-1, dim)
    rule = torch.cartesian_prod(*[weights] * dim).view(-1, dim).prod(1)
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5], dtype=torch.float64, device="cpu")] * dim).view(-1, dim)
    components = [*_shapes(p, sigma), *_shapes(q, sigma)]
    used = 0

    def halved(centres: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
        parts = (centres[:, None] + half[:, None, None] * corners).view(-1, dim)
        return parts, (half / 2).repeat_interleave(len(corners))

    def values(centres: Tensor, half: Tensor) -> Tensor:
        nonlocal used
        used += len(centres) * len(rule)
        if used > _MOST_NODES:
            raise ValueError(
                f"the integral over {p} takes more than {_MOST_NODES:,} nodes: components are too narrow for the region they share with "
                "others; raise sigma, or lower nodes_per_std"
            )
        found = []
        for of in ops.pieces(len(centres), 64 * len(rule)):
            points = centres[of, None] + half[of, None, None] * offsets
            integrand = f(points.view(-1, dim)).unflatten(1, (-1, len(rule)))
            found.append((integrand @ rule * half[of] ** dim).T)
        return torch.cat(found)  # [N, 2 M]

    far = _REACH * (p.covariances.diagonal(dim1=1, dim2=2).max() + sigma**2).sqrt()
    low, high = (p.means - far).amin(0), (p.means + far).amax(0)
    centres, half = ((low + high) / 2)[None], ((high - low).max() / 2)[None]
    largest = _RULE / max(nodes_per_std, 2.5)
    first: list[tuple[Tensor, Tensor]] = []
    while len(centres):
        allowed, held = torch.full_like(half, math.inf), torch.zeros_like(half, dtype=torch.bool)
        for k, (mean, least, whiten) in enumerate(components):
            away = ((centres - mean) @ whiten.mT).norm(dim=1) - half * dim**0.5 / least
            allowed = torch.minimum(allowed, largest * least * (away / 4).clamp(min=1))
            if k < len(p.means):
                held |= away < _REACH
        fine = 2 * half <= allowed
        first.append((centres[held & fine], half[held & fine]))
        centres, half = halved(centres[held & ~fine], half[held & ~fine])
        if len(centres) * len(rule) > _MOST_NODES:
            values(centres, half)  # which refuses
    centres, half = (torch.cat(parts) for parts in zip(*first, strict=True))
    coarse = values(centres, half)
    m = coarse.shape[1] // 2
    total, errors = coarse.new_zeros(2 * m), coarse.new_zeros(m)
    while len(centres):
        parts, half_parts = halved(centres, half)
        fine_values = values(parts, half_parts)
        sums = fine_values.unflatten(0, (len(centres), -1)).sum(1)
        gaps = (sums - coarse)[:, :m].abs()
        bound = _RTOL * (total + sums.sum(0))[:m].abs() + sums[:, m:]
        done = (gaps <= bound).all(1) | (half <= 1e-14 * centres.abs().amax(1))
        total += sums[done].sum(0)
        errors += gaps[done].sum(0)
        again = (~done).repeat_interleave(len(corners))
        centres, half, coarse = parts[again], half_parts[again], fine_values[again]
    return total[:m], errors + total[m:]


def _shapes(p: GaussianMixture, sigma: float) -> list[tuple[Tensor, ...]]:
    """Of each component: mean, least standard deviation, and the matrix that whitens it."""
    variances, vectors = torch.linalg.eigh(p.covariances)
    stds = (variances.clamp(min=0) + sigma**2).sqrt()
    return list(zip(p.means, stds[:, 0], vectors.mT / stds[:, :, None], strict=True))


def check_mass(mass: float) -> None:
    """Refuse a grid that holds less, or more, than the whole mass by ``CLIPPED``."""
    if not abs(1 - mass) <= CLIPPED:
        raise ValueError(
            f"the grid holds {mass:.8f} of the mass: at most {CLIPPED:g} may be missing; raise nodes_per_std"
        )
