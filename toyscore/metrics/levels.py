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

    One is what a zero score leaves; :func:`linear_losses` is the best linear guess. It is twice the denoising loss over D.
    Source: song2019, Eq. (5).

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
    ops.check_finite(x)
    found = [
        2 / x[0].numel() * denoising_score_matching(score, x, sigma, generator=generator)
        for sigma in check_sigmas(sigmas, dtype=x.dtype).to(x.device)
    ]
    rows = torch.stack(found)
    if rows.shape[1] == 1:
        return rows[:, 0], torch.full_like(rows[:, 0], torch.inf)
    return rows.mean(1), rows.std(1) / rows.shape[1] ** 0.5


def linear_losses(covariance: Tensor, sigmas: Tensor | Sequence[float]) -> Tensor:
    r"""What the best linear guess leaves of the noise, :math:`\frac1D \sum_i \lambda_i / (\lambda_i + \sigma^2)`: [L].

    It is the score of a Gaussian with the data's mean and covariance, :math:`\lambda_i` being the eigenvalues.

    Args:
        covariance: [D, D] of the data.
        sigmas: [L], strictly decreasing, in units of x.

    Raises:
        TypeError, ValueError: covariance is no floating-point tensor [D, D], or not finite; sigmas not decreasing.
    """
    ops.check_batch(covariance, "covariance")
    ops.check_finite(covariance, "covariance")
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"covariance has shape {list(covariance.shape)}: it must be [D, D]; pass torch.cov(x.mT)")
    values = torch.linalg.eigvalsh(covariance.cpu()).clamp(min=0).to(covariance.device)
    variances = check_sigmas(sigmas, dtype=covariance.dtype).to(covariance.device).square()
    return (values / (values + variances[:, None])).mean(1)
