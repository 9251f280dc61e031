"""Whether chains have mixed."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from toyscore import operators as ops

_LEAST_R_HAT = 0.9  # below it the axes are wrong, or halves have five states at most: R-hat² is at least (n - 1) / n
_FEW = 50  # states, fewer than which beside more chains look like axes in the other order


def split_r_hat(chains: Tensor) -> Tensor:
    """Split R-hat: the spread over half-chains against the spread within. Source: vehtari2021, Sec. 3.1.

    It compares means: chains of one mean and different widths pass. ``rank_normalized_r_hat`` sees those, too.

    Args:
        chains: [n_steps, n_chains, *event], n_steps >= 4: ``torch.stack(list(chain))``. Other libraries keep [n_chains, n_steps]:
            pass ``draws.transpose(0, 1)``.

    Returns:
        [*event]; 1 when the halves agree, well above 1.01 when chains remember where they started. Where no chain ever moves: NaN if
        all are at one place, else infinity.

    Warns:
        UserWarning: a value below 0.9, or fewer than 50 states of more chains: the axes are probably in another order.

    Raises:
        TypeError, ValueError: chains is no such tensor, or not finite.
    """
    halves = _halves(chains)
    return _checked(_r_hat(halves), chains)


def rank_normalized_r_hat(chains: Tensor) -> Tensor:
    r"""Rank-normalised split R-hat, of the states and of the folded states; the larger. Source: vehtari2021, Sec. 4.1.

    States are replaced by the normal scores of their ranks r among all S, :math:`\Phi^{-1}((r - 3/8) / (S + 1/4))`, so that it is also
    right where variances are infinite. Folded states are :math:`|x - \mathrm{median}|`: chains of different widths differ in them.

    Args, warns, errors: as ``split_r_hat``.

    Returns:
        [*event]; chains have mixed below 1.01, by that paper's rule. Where no chain ever moves, as ``split_r_hat``.
    """
    halves = _halves(chains)
    median = halves.new_tensor(np.median(halves.numpy(), axis=(0, 1)))
    folded = (halves - median).abs()  # of two values only the fold is constant, and its R-hat NaN
    return _checked(torch.fmax(_r_hat(_normal_scores(halves)), _r_hat(_normal_scores(folded))), chains)


def effective_sample_size(chains: Tensor) -> Tensor:
    r"""How many independent states the chains are worth, :math:`n m / (1 + 2 \sum_t \rho_t)`. Source: vehtari2021, Sec. 3.2.

    The autocorrelations of the half-chains are combined across chains, and summed in pairs until a pair is no longer
    positive, each pair capped by the one before (geyer1992).

    Args, errors: as ``split_r_hat``.

    Returns:
        [*event], at most n m log10(n m). Where no chain ever moves: NaN if all are at one place, else one state per chain, about.

    Warns:
        UserWarning: fewer than 50 states of more chains: the axes are probably in another order.
    """
    halves = _halves(chains)
    n, m = halves.shape[:2]
    means, deviations = _centred(halves)
    spectrum = torch.fft.rfft(deviations, n=2 * n, dim=0)
    covariances = torch.fft.irfft(spectrum * spectrum.conj(), n=2 * n, dim=0)[:n] / n
    within = (covariances[0] * n / (n - 1)).mean(0)
    total = (n - 1) / n * within + means.var(0)
    rho = 1 - (within - (covariances * n / (n - 1)).mean(1)) / total
    rho[0] = torch.where(total > 0, 1.0, torch.nan)
    pairs = rho[: n - n % 2].unflatten(0, (-1, 2)).sum(1)
    alive = torch.cumprod((pairs > 0).to(rho), 0)
    tau = 2 * (torch.cummin(pairs.clamp(min=0), 0).values * alive).sum(0) - 1
    return _like(n * m / tau.clamp(min=1 / math.log10(n * m)), chains)


def _r_hat(halves: Tensor) -> Tensor:
    n = len(halves)
    means, deviations = _centred(halves)
    within = deviations.square().sum(0).mean(0) / (n - 1)
    between = means.var(0)
    return (((n - 1) / n * within + between) / within).sqrt()


def _centred(halves: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of each half-chain, from the first state of all, and what its states differ from it: exactly nothing where none moves."""
    moved = halves - halves[:1]
    drift = moved.mean(0)
    return halves[0] - halves[0, 0] + drift, moved - drift


def _normal_scores(halves: Tensor) -> Tensor:
    from scipy import stats

    flat = halves.flatten(0, 1)
    ranks = torch.from_numpy(stats.rankdata(flat.numpy(), axis=0))
    return torch.special.ndtri((ranks - 0.375) / (len(flat) + 0.25)).unflatten(0, halves.shape[:2])  # Sec. 4.1


def _halves(chains: Tensor) -> Tensor:
    """[n_steps // 2, 2 n_chains, *event] on the CPU in float64."""
    ops.check_batch(chains, "chains")
    ops.check_finite(chains, "chains")
    if chains.ndim < 3 or len(chains) < 4:
        raise ValueError(
            f"chains has shape {list(chains.shape)}: it must be [n_steps >= 4, n_chains, *event]; pass "
            "torch.stack(list(chain))"
        )
    if len(chains) < min(_FEW, chains.shape[1]):
        _warn_of_axes(chains, f"{len(chains)} states of {chains.shape[1]} chains")
    chains = chains.detach().cpu().double()
    half = len(chains) // 2
    return torch.cat([chains[:half], chains[len(chains) - half :]], 1)


def _checked(r_hat: Tensor, chains: Tensor) -> Tensor:
    if bool((r_hat < _LEAST_R_HAT).any()) and len(chains) >= chains.shape[1]:  # else it has been said
        _warn_of_axes(chains, f"R-hat is {float(r_hat[r_hat < _LEAST_R_HAT].min()):.3g}")
    return _like(r_hat, chains)


def _warn_of_axes(chains: Tensor, found: str) -> None:
    warnings.warn(
        f"{found}: chains has shape {list(chains.shape)} and is read as [n_steps, n_chains, *event]; if it is [n_chains, n_steps, "
        "*event], pass chains.transpose(0, 1), else draw more states",
        UserWarning,
        stacklevel=4,
    )


def _like(found: Tensor, chains: Tensor) -> Tensor:
    return found.to(torch.promote_types(chains.dtype, torch.float32)).to(chains.device)
