"""Data of known intrinsic dimension in R^D, in general position: no coordinate axis is special."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.distributions.mixture import GaussianMixture
from toyscore.distributions.toys import SampledToy, _uniform


def tilted_line(dim: int = 10) -> GaussianMixture:
    """A standard normal along the direction (1, 2, ..., D) of R^D, float32: dimension one. It has a density, and a score, for sigma >
    0 alone.

    Raises:
        ValueError: D below two.
    """
    ops.check_count(dim, "dim", 2)
    direction = torch.arange(1.0, dim + 1)
    direction = direction / direction.norm()
    return GaussianMixture(torch.zeros(1, dim), torch.outer(direction, direction)[None])


def tilted_circle(dim: int = 10, radius: float = 1.0) -> SampledToy:
    """The uniform law on a circle in a plane of R^D that leans on all axes alike, float32: dimension one, curved.

    Raises:
        ValueError: D below three, a radius that is not positive.
    """
    ops.check_count(dim, "dim", 3)
    ops.check_positive(radius, "radius")

    def draw(n: int, generator: Generator | None) -> Tensor:
        angle = 2 * math.pi * _uniform(n, generator)
        turns = torch.arange(dim, device=angle.device) * (2 * math.pi / dim)
        return radius * math.sqrt(2 / dim) * torch.cos(angle[:, None] - turns)

    return SampledToy("tilted_circle", draw)
