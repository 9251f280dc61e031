"""Where a sampler stops on its way from noise to data: decreasing times, [N + 1] for N steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from toyscore import operators as ops
from toyscore.noise import check_sigmas, geometric, karras
from toyscore.sde.identity import noise_level
from toyscore.sde.processes import LATEST, SDE, out_of_range


def uniform_times(n_steps: int, *, t_min: float = 1e-3, t_max: float = 1.0) -> Tensor:
    """Equal steps of t: [n_steps + 1], from t_max down to t_min.

    Raises:
        TypeError, ValueError: fewer than one step; not 0 <= t_min < t_max.
    """
    _check_ends(n_steps, t_min, t_max)
    return torch.linspace(t_max, t_min, n_steps + 1)


def geometric_times(sde: SDE, n_steps: int, *, t_min: float = 1e-3, t_max: float = 1.0) -> Tensor:
    """Equal ratios of the noise level: [n_steps + 1], from t_max down to t_min. On VE they are uniform.

    Raises:
        TypeError, ValueError: fewer than one step; not 0 < t_min < t_max.
    """
    ends = _ends(sde, n_steps, t_min, t_max)
    return _pinned(level_times(sde, geometric(*ends, n_steps + 1)), t_max, t_min)


def karras_times(sde: SDE, n_steps: int, *, t_min: float = 1e-3, t_max: float = 1.0, rho: float = 7.0) -> Tensor:
    """Equal steps of sigma^(1/rho): [n_steps + 1], from t_max down to t_min. Source: karras2022, Eq. (5).

    Raises:
        TypeError, ValueError: fewer than one step; not 0 < t_min < t_max; rho not positive.
    """
    ends = _ends(sde, n_steps, t_min, t_max)
    return _pinned(level_times(sde, karras(*ends, n_steps + 1, rho=rho)), t_max, t_min)


def level_times(sde: SDE, sigmas: Tensor | Sequence[float]) -> Tensor:
    """The times at which a process has the given noise levels, [L], decreasing as they do.

    ``level_times(VE(), sigmas)`` is NCSN's ladder, ``level_times(VP(), ddpm_levels(betas))`` a DDPM.

    Raises:
        TypeError, ValueError: as ``check_sigmas``; levels that the process does not have.
    """
    return sde.time(check_sigmas(sigmas))


def check_times(times: Tensor | Sequence[float], *, ascending: bool | None = None) -> list[float]:
    """The times as numbers, refused unless there are two or more within [0, 1.5], and they strictly ascend or descend.

    Args:
        ascending: the way they must go; None allows either.

    Raises:
        TypeError: neither a tensor nor numbers.
        ValueError: too few, out of range, NaN, or out of order; names the first offender.
    """
    try:
        given = torch.as_tensor(times, device="cpu")
        times = times.detach().cpu() if isinstance(times, Tensor) else times
        values = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"times is {type(times).__name__}: it must be a tensor or a list of numbers; pass e.g. uniform_times(100)"
        ) from error
    if given.dtype == torch.bool:
        raise TypeError("times are booleans: they must be numbers; pass e.g. uniform_times(100)")
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(
            f"times has shape {list(values.shape)}: it must be [N + 1] for N >= 1 steps; pass e.g. uniform_times(100)"
        )
    numbers: list[float] = values.tolist()
    for i, t in enumerate(numbers):
        if not 0 <= t <= LATEST:
            raise ValueError(f"times[{i}] = {out_of_range(t)}")
    sign = math.copysign(1.0, numbers[1] - numbers[0])
    for i in range(1, len(numbers)):
        if not sign * (numbers[i] - numbers[i - 1]) > 0:
            raise ValueError(
                f"times must go one way: times[{i}] = {numbers[i]:g} after times[{i - 1}] = {numbers[i - 1]:g}; sort them and drop "
                "repetitions"
            )
    if ascending is not None and ascending != (sign > 0):
        way = "ascend, from data to noise" if ascending else "descend, from noise to data"
        raise ValueError(f"times go from {numbers[0]:g} to {numbers[-1]:g}: they must {way}; turn them round")
    return numbers


def _check_ends(n_steps: int, t_min: float, t_max: float) -> None:
    ops.check_count(n_steps, "n_steps")
    for value, name in ((t_min, "t_min"), (t_max, "t_max")):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} is {type(value).__name__}: it must be a number; pass a float")
    if not 0 <= t_min < t_max <= LATEST:
        low = t_min if 0 <= t_min < 1 else 1e-3
        high = t_max if low < t_max <= LATEST else 1.0
        remedy = "swap them" if 0 <= t_max < t_min <= LATEST else f"pass e.g. t_min={low}, t_max={high}"
        raise ValueError(f"t_min = {t_min}, t_max = {t_max}: they must be 0 <= t_min < t_max <= {LATEST}; {remedy}")


def _ends(sde: SDE, n_steps: int, t_min: float, t_max: float) -> tuple[float, float]:
    """The noise levels at the ends."""
    _check_ends(n_steps, t_min, t_max)
    high, low = noise_level(sde, float(t_max)), noise_level(sde, float(t_min))
    if low == 0:
        raise ValueError(f"t_min = {t_min} has no noise: ratios of levels need some; pass t_min > 0, e.g. 1e-3")
    return high, low


def _pinned(times: Tensor, first: float, last: float) -> Tensor:
    """The ends as they were asked for, not as rounding left them."""
    return torch.cat([times.new_tensor([first]), times[1:-1], times.new_tensor([last])])
