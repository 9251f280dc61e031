r"""How a network is told the noise level: as features of log sigma, or as the index of a level.

Features are continuous: the position u of :math:`\log \sigma` in the range of the levels, scaled to [-1, 1] (less where they
span under a factor e), with :math:`\sin, \cos` of its first multiples. An index is what NCSN of 2019 was made for; it knows
its levels and nothing between them, so a sigma that is not one of them is refused, not rounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from toyscore import operators as ops
from toyscore.operators import Sigma, looks

_NEAR = 0.01  # of a level: what rounding, and no other ladder, may do to it


def log_range(sigmas: Tensor | Sequence[float]) -> Tensor:
    """The least and the largest log sigma of ``sigmas`` [L], in any order: [2].

    Raises:
        ValueError: no levels, or one that is not finite and positive.
    """
    values = torch.as_tensor(sigmas).flatten().tolist()
    if not values or not all(math.isfinite(v) and v > 0 for v in values):
        raise ValueError(f"sigmas = {values}: levels must be finite and positive; pass e.g. geometric(10.0, 0.1, 10)")
    return torch.tensor([math.log(min(values)), math.log(max(values))])


def sigma_features(sigma: Sigma, like: Tensor, ends: Tensor, n_frequencies: int) -> tuple[Tensor, Tensor]:
    """Sigma as a column [B, 1] for ``like`` [B, *event], and its features [B, 1 + 2 n_frequencies] given the log ``ends`` [2].

    Raises:
        ValueError: sigma not positive, or neither a number, 0-d nor [B].
    """
    if looks(sigma):
        ops.check_sigma(sigma, like, positive=True)
    std = torch.as_tensor(sigma, dtype=like.dtype, device=like.device).reshape(-1, 1).expand(len(like), 1)
    low, high = ends
    u = (2 * std.log() - (low + high)) / (high - low).clamp(min=1.0)
    phases = u * (math.pi / 2 * torch.arange(1, n_frequencies + 1, dtype=like.dtype, device=like.device))
    return std, torch.cat([u, phases.sin(), phases.cos()], 1)


def level_index(sigma: Sigma, like: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """The index of each row's level in ``sigmas`` [L], and the distance to it relative to it: two [B].

    Where looking is free (a number, or a tensor on the CPU) a sigma more than a hundredth from every level is refused. On
    an accelerator that would stall the queue at each call: the distance is there for the caller to use.

    Raises:
        ValueError: sigma not positive or not shaped as it must be; a sigma that is none of the levels.
    """
    if looks(sigma):
        ops.check_sigma(sigma, like, positive=True)
    std = torch.as_tensor(sigma, dtype=sigmas.dtype, device=sigmas.device).reshape(-1, 1)
    gap, index = (std / sigmas - 1).abs().min(1)
    if looks(sigma) and bool((gap > _NEAR).any()):
        row = int(gap.argmax())
        raise ValueError(
            f"sigma = {float(std[row]):.6g} is none of the network's {len(sigmas)} levels, {float(sigmas[0]):.6g} to "
            f"{float(sigmas[-1]):.6g} (the nearest is {float(sigmas[index[row]]):.6g}): a network indexed by level knows only "
            "these; pass one of its .sigmas, or use ContinuousNCSN"
        )
    return index.expand(len(like)), gap.expand(len(like))


def unknown(gap: Tensor) -> Tensor:
    """Which rows of ``level_index`` are none of the levels: [B]."""
    return ~(gap <= _NEAR)  # NaN is unknown, too
