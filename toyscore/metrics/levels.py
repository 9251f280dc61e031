"""How well a score denoises, level by level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.losses import denoising_score_matching
from toyscore.noise import check_sigmas
from toyscore.operators import Score


@torch.no_grad()
def denoising_losses(
    score: Score, x: Tensor, sigmas: Tensor | Sequence[float], *, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    r"""The share of the noise that a score leaves unexplained, :math:`E\|\sigma s(x + \sigma z) + z\|^2 / D`, and its standard error.

    One is what a zero score leaves; :math:`v / (\sigma^2 + v)` the best linear guess, v being the variance per number. It is twice the
    denoising loss over D. Source: song2019, Eq. (5).

    Args:
        score: called as ``score(x, sigma)`` with sigma a 0-d tensor.
        x: [B, *event], clean; noised afresh at each level.
        sigmas: [L], strictly decreasing, in units of x.
        generator: of the noise.

    Returns:
        Two [L].

    Raises:
        TypeError, ValueError: x or sigmas is not what it must be.
    """
    ops.check_batch(x)
    found = [
        2 / x[0].numel() * denoising_score_matching(score, x, sigma, generator=generator)
        for sigma in check_sigmas(sigmas, dtype=x.dtype).to(x.device)
    ]
    rows = torch.stack(found)
    return rows.mean(1), rows.std(1) / rows.shape[1] ** 0.5
