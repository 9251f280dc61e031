"""What the grids of this folder share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from toyscore.distributions import GaussianMixture

CLIPPED = 1e-6  # mass that may lie off a grid
MEMORY = 1 << 31  # bytes that a matrix or a network may take


def nodes(axes: Sequence[Any]) -> Tensor:
    """The points [N, D] of a grid with these axes, the last one fastest."""
    return torch.cartesian_prod(*[torch.as_tensor(axis) for axis in axes]).view(-1, len(axes))


def check_flat(mixture: GaussianMixture) -> int:
    """D, refused above two."""
    dim = mixture.means.shape[1]
    if dim > 2:
        raise ValueError(f"D = {dim}: a grid is for one or two dimensions; pass reduce(mixture), or a marginal")
    return dim
