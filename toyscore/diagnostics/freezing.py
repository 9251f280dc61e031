r"""Where the weights of modes freeze on the way down a ladder, and why annealing with exact scores misses them.

At level i a chain forgets at the rate :math:`\lambda_i`, the spectral gap, for the time :math:`t_i`, steps times step size. While
:math:`\lambda_i t_i > 1` mass follows the equilibrium of the level; once it is well below, no mass moves, and what the modes hold then
they keep. The *equilibrium weight* is the share that :math:`q_{\sigma_i}` gives to each mode of the clean mixture, by its
responsibilities: modes smeared over each other trade mass, so that it comes near the true weights only as sigma falls, and by then the
chain may be frozen.

One number per level tells the whole story. Write the law as :math:`q_i (1 + c_i \varphi_i)`, with :math:`\varphi_i` the slow
eigenfunction of level i; then

.. math:: c_{i+1} = e^{-\lambda_{i+1} t_{i+1}}\, E_{q_i}[(1 + c_i \varphi_i)\, \varphi_{i+1}],

which is what :func:`freeze_out` calls *predicted*. It knows of no step size but through the time; what the law of the discretised chain
(``propagate``) differs from it is the bias of finite steps.

References: song2019, bovier2005.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toyscore import operators as ops
from toyscore.diagnostics.grids import Cloud, least_variance, quadrature
from toyscore.diagnostics.propagation import Law, Stage, propagate, turning_width
from toyscore.diagnostics.spectrum import SlowModes, slow_modes
from toyscore.distributions import GaussianMixture


@dataclass(frozen=True)
class FreezeOut:
    """A ladder, level by level.

    Attributes:
        sigmas: [L].
        gap_times: [L], spectral gap times the time spent.
        equilibrium: [L, K], the shares that the modes hold in equilibrium at the level.
        predicted: [L, K], their shares at its end, by the slow modes in continuous time.
        weights: [L, K], their shares at its end, by the law of the discretised chain.
        errors: [L], the total variation by which a coarser grid changes that law.
        frozen: the first level, from 0, from which on gap times time stays below one; None if it does not at the last.
    """

    sigmas: Tensor
    gap_times: Tensor
    equilibrium: Tensor
    predicted: Tensor
    weights: Tensor
    errors: Tensor
    frozen: int | None

    @property
    def final(self) -> Tensor:
        """The shares that the chain ends with, [K]."""
        return self.weights[-1]


def freeze_out(
    mixture: GaussianMixture,
    start: Cloud,
    schedule: Sequence[Stage],
    *,
    n_modes: int | None = None,
    nodes_per_std: float | None = None,
) -> FreezeOut:
    """Follow the weights of the modes down a ladder, in theory and by the law of the chain. Source: song2019, Algorithm 1.

    Args:
        mixture: K >= 2, D = 1 or 2; ``reduce`` it where its components share a covariance.
        start: the law of the first state, [N, D].
        schedule: one stage per level, e.g. ``annealed_stages(...)``.
        n_modes: slow modes to follow; default K - 1, enough where a level is long beside what happens within a mode.
        nodes_per_std: of the law's grid, as ``propagate``.

    Raises:
        ValueError: K = 1; as ``propagate`` and ``slow_modes``.
    """
    p = mixture.to("cpu", torch.float64)
    n_components = len(p.means)
    if n_components < 2:
        raise ValueError(
            f"{mixture} has K = {n_components}: with one mode nothing can freeze; pass a mixture of two or more"
        )
    n_modes = n_components - 1 if n_modes is None else n_modes
    ops.check_count(n_modes, "n_modes")
    turning_width(p)  # refuses what has no responsibilities, before anything long
    laws = last_laws(p, start, schedule, nodes_per_std=nodes_per_std)
    gap_times, equilibrium, predicted = [], [], []
    points, masses = (part.cpu().double() for part in start)
    for stage in schedule:
        modes = slow_modes(p, sigma=stage.sigma, n_modes=n_modes)
        time = stage.step_size * stage.n_steps
        read = _reader(modes)
        amounts = torch.exp(-modes.rates * time) * (read(points) @ masses)
        points, density = quadrature(p, stage.sigma, nodes_per_std=_nodes_per_std(p, stage.sigma))
        masses = density * (1 + amounts @ read(points))
        shares = p.responsibilities(points)
        gap_times.append(float(modes.rates[0]) * time)
        equilibrium.append(density @ shares)
        predicted.append(masses @ shares)
    below = [value < 1 for value in gap_times]
    sigmas, times, errors = (
        torch.tensor(values, dtype=torch.float64, device="cpu")
        for values in ([stage.sigma for stage in schedule], gap_times, [law.error for law in laws])
    )
    return FreezeOut(
        sigmas,
        times,
        torch.stack(equilibrium),
        torch.stack(predicted),
        torch.stack([law.mode_weights(p) for law in laws]),
        errors,
        next((i for i in range(len(below)) if all(below[i:])), None),
    )


def last_laws(mixture: GaussianMixture, start: Cloud, schedule: Sequence[Stage], **options: Any) -> list[Law]:
    """The law at the end of each stage; args, options and errors as ``propagate``."""
    ends = set(np.cumsum([stage.n_steps for stage in schedule]).tolist())
    return [law for law in propagate(mixture, start, schedule, **options) if law.step in ends]


def _nodes_per_std(p: GaussianMixture, sigma: float) -> float:
    """Enough to resolve both the density at sigma and the clean responsibilities."""
    return max(4.0, least_variance(p, sigma) ** 0.5 / (1.5 * turning_width(p)))


def _reader(modes: SlowModes) -> Callable[[Tensor], Tensor]:
    """The eigenfunctions at any points [N, D]: [k, N], linear between nodes and constant off the grid, as they nearly are."""
    from scipy import interpolate

    axes = [axis.numpy() for axis in modes.axes]
    read = interpolate.RegularGridInterpolator(axes, np.moveaxis(modes.functions.numpy(), 0, -1))
    low, high = (torch.stack([axis[end] for axis in modes.axes]) for end in (0, -1))

    def at(points: Tensor) -> Tensor:
        return torch.from_numpy(read(torch.clamp(points, low, high).numpy())).T

    return at
