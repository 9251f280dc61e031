"""Whether chains have mixed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from toyscore import operators as ops


def split_r_hat(chains: Tensor) -> Tensor:
    """Split R-hat: the spread over half-chains against the spread within. Source: vehtari2021, Sec. 2.

    Args:
        chains: [n_steps, n_chains, *event], n_steps >= 4: ``torch.stack(list(chain))``.

    Returns:
        [*event]; 1 when the halves agree, well above 1.01 when chains remember where they started; NaN where no chain
        ever moves.
    """
    halves = _halves(chains)
    n = len(halves)
    within = halves.var(0).mean(0)
    between = halves.mean(0).var(0)
    return (((n - 1) / n * within + between) / within).sqrt()


def effective_sample_size(chains: Tensor) -> Tensor:
    r"""How many independent states the chains are worth, :math:`n m / (1 + 2 \sum_t \rho_t)`. Source: vehtari2021, Sec. 3.2.

    The autocorrelations of the half-chains are combined across chains, and summed in pairs until a pair is no longer
    positive, each pair capped by the one before (geyer1992).

    Args, errors: as ``split_r_hat``.

    Returns:
        [*event], at most n m log10(n m).
    """
    halves = _halves(chains)
    n, m = halves.shape[:2]
    centred = halves - halves.mean(0)
    spectrum = torch.fft.rfft(centred, n=2 * n, dim=0)
    covariances = torch.fft.irfft(spectrum * spectrum.conj(), n=2 * n, dim=0)[:n] / n
    within = (covariances[0] * n / (n - 1)).mean(0)
    total = (n - 1) / n * within + halves.mean(0).var(0)
    rho = 1 - (within - (covariances * n / (n - 1)).mean(1)) / total
    rho[0] = 1
    pairs = rho[: n - n % 2].unflatten(0, (-1, 2)).sum(1)
    alive = torch.cumprod((pairs > 0).to(rho), 0)
    tau = 2 * (torch.cummin(pairs.clamp(min=0), 0).values * alive).sum(0) - 1
    return n * m / tau.clamp(min=1 / math.log10(n * m))


def _halves(chains: Tensor) -> Tensor:
    """[n_steps // 2, 2 n_chains, *event]."""
    ops.check_batch(chains, "chains")
    ops.check_finite(chains, "chains")
    if chains.ndim < 3 or len(chains) < 4:
        raise ValueError(
            f"chains has shape {list(chains.shape)}: it must be [n_steps >= 4, n_chains, *event]; pass "
            "torch.stack(list(chain))"
        )
    half = len(chains) // 2
    return torch.cat([chains[:half], chains[len(chains) - half :]], 1)
