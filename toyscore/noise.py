r"""Noise levels, and laws to draw them from.

Noise levels are a strictly decreasing tensor ``sigmas`` :math:`\sigma_1 > \dots > \sigma_L > 0` of standard deviations,
never a class. The first makes the perturbed density nearly one mode, so that a chain can cross it; the last is small beside
what must be resolved; between them a constant ratio (song2019, Sec. 4) keeps neighbours overlapping alike at each level.

Training draws a level per example. A law is a function ``draw(n, *, generator=None) -> [n]``: uniform over given levels
(:func:`levels`) or continuous (:func:`log_uniform`, the limit of many geometric levels; :func:`log_normal`, which spends its time
where there is something to learn).

DDPM's variances beta are the same thing in other coordinates: with :math:`\bar\alpha_i = \prod_{j \le i} (1 - \beta_j)`
its level is :math:`\sigma_i = \sqrt{(1 - \bar\alpha_i) / \bar\alpha_i}`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Protocol

import torch
from torch import Generator, Tensor

from toyscore import operators as ops


class Draw(Protocol):
    """A law of sigma: ``draw(n, *, generator=None) -> [n]``."""

    def __call__(self, n: int, *, generator: Generator | None = None) -> Tensor: ...


def check_sigmas(sigmas: Tensor | Sequence[float], *, dtype: torch.dtype | None = None) -> Tensor:
    """The levels as a tensor [L], refused unless positive, finite and strictly decreasing.

    Raises:
        ValueError: not one axis, empty, not positive, or not decreasing; names the first offender.
    """
    try:
        sigmas = torch.as_tensor(sigmas, dtype=dtype).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"sigmas is {type(sigmas).__name__}: it must be a tensor or a list of numbers; pass e.g. geometric(10.0, 0.1, 10)"
        ) from error
    sigmas = sigmas if sigmas.is_floating_point() else sigmas.to(torch.get_default_dtype())
    if sigmas.ndim != 1 or len(sigmas) == 0:
        raise ValueError(
            f"sigmas has shape {list(sigmas.shape)}: it must be [L] with L >= 1; pass e.g. geometric(10.0, 0.1, 10)"
        )
    for i, sigma in enumerate(sigmas.tolist()):
        if not (sigma > 0 and math.isfinite(sigma)):
            remedy = "leave it out" if len(sigmas) > 1 else "pass e.g. geometric(10.0, 0.1, 10)"
            raise ValueError(f"sigmas[{i}] = {sigma:.6g}: a noise level must be finite and positive; {remedy}")
    for i, (before, after) in enumerate(zip(sigmas.tolist(), sigmas[1:].tolist(), strict=False)):
        if after >= before:
            relation = ">" if after > before else "="
            raise ValueError(
                f"sigmas must decrease: sigmas[{i + 1}] = {after:.6g} {relation} sigmas[{i}] = {before:.6g}; sort "
                "them from large to small and drop repetitions"
            )
    return sigmas


def geometric(sigma_max: float, sigma_min: float, n_levels: int) -> Tensor:
    """Levels with a constant ratio, strictly decreasing: [L] in the default dtype, both ends exact. Source: song2019, Sec. 4.

    >>> from toyscore.noise import geometric
    >>> [round(sigma, 3) for sigma in geometric(10, 0.1, 3).tolist()]
    [10.0, 1.0, 0.1]

    Raises:
        ValueError: fewer than one level; ends not positive, not in order or beyond the dtype; so many levels that two round to one.
    """
    ops.check_count(n_levels, "n_levels")
    if n_levels == 1 and sigma_max == sigma_min:
        ops.check_positive(sigma_max, "sigma_max")
        return torch.tensor([float(sigma_max)])
    check_range(sigma_min, sigma_max)
    if n_levels == 1:
        raise ValueError(
            f"n_levels = 1 cannot reach from sigma_max = {sigma_max} to sigma_min = {sigma_min}; pass n_levels >= 2, or equal ends"
        )
    ratio = sigma_min / sigma_max
    return _ladder([sigma_max, *(sigma_max * ratio ** (i / (n_levels - 1)) for i in range(1, n_levels - 1)), sigma_min])


def karras(sigma_max: float, sigma_min: float, n_levels: int, *, rho: float = 7.0) -> Tensor:
    """Levels at equal steps of sigma^(1/rho), strictly decreasing: [L] in the default dtype, both ends exact. Source: karras2022, Eq. (5).

    Equal steps of sigma for rho = 1, equal ratios as rho grows without bound; between them, more levels where sigma is small.

    >>> from toyscore.noise import karras
    >>> sigmas = karras(9.0, 1.0, 3, rho=2.0)
    >>> [round(sigma, 3) for sigma in sigmas.tolist()]  # the squares of 3, 2, 1
    [9.0, 4.0, 1.0]

    Raises:
        ValueError: as ``geometric``, with at least two levels; rho not positive, or so small that a power overflows.
    """
    ops.check_count(n_levels, "n_levels", 2)
    check_range(sigma_min, sigma_max)
    ops.check_positive(rho, "rho")
    try:
        high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    except OverflowError:
        high = 0.0
    if high == 0:
        raise ValueError(
            f"rho = {rho}: sigma_max^(1/rho) is beyond what a float holds; pass a larger one, e.g. rho=7.0"
        )
    inner = [(high + i / (n_levels - 1) * (low - high)) ** rho for i in range(1, n_levels - 1)]  # Eq. (5)
    return _ladder([sigma_max, *inner, sigma_min])


def ddpm_levels(betas: Tensor | Sequence[float]) -> Tensor:
    r"""The noise levels of a DDPM, :math:`\sigma_i = \sqrt{(1 - \bar\alpha_i) / \bar\alpha_i}`: [N], decreasing, in the dtype of
    ``betas``, at least float32. Source: ho2020, Eq. (4).

    Of betas 0.5 and 0.6, alpha bar is 0.5 and 0.5 · 0.4 = 0.2, and sigma² is 0.5 / 0.5 and 0.8 / 0.2:

    >>> import torch
    >>> from toyscore.noise import ddpm_levels
    >>> sigmas = ddpm_levels(torch.tensor([0.5, 0.6]))
    >>> [round(sigma, 3) for sigma in sigmas.tolist()]
    [2.0, 1.0]

    Args:
        betas: [N] within (0, 1), in the order of the forward process. A last 1, as in schedules of zero terminal SNR, leaves no signal and
            has no finite level: pass ``betas[:-1]``.

    Raises:
        ValueError: not [N] with N >= 1; not within (0, 1), or a level beyond the dtype: names the first offender.
    """
    betas = torch.as_tensor(betas)
    if betas.ndim != 1 or len(betas) == 0:
        raise ValueError(f"betas has shape {list(betas.shape)}: it must be [N] with N >= 1; pass e.g. linear_betas()")
    exact = betas.detach().cpu().double()
    bad = ~((exact > 0) & (exact < 1))
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        if exact[i] == 1 and i:
            raise ValueError(f"betas[{i}] = 1: no signal is left, and the level is infinite; pass betas[:{i}]")
        remedy = "leave it out" if exact[i] == 0 and len(betas) > 1 else "pass e.g. linear_betas()"
        raise ValueError(f"betas[{i}] = {float(exact[i]):.6g}: a variance must lie within (0, 1); {remedy}")
    logs = torch.log1p(-exact).cumsum(0)  # of alpha bar
    dtype = torch.promote_types(betas.dtype, torch.float32)
    levels = torch.expm1(-logs).sqrt().to(betas.device, dtype)  # Eq. (4)
    beyond = ~(levels.isfinite().cpu())
    if bool(beyond.any()):
        i = int(beyond.nonzero()[0])
        raise ValueError(
            f"betas[{i}] = {float(exact[i]):.6g}: so little signal is left that the level is infinite in {dtype}; pass betas[:{i}]"
        )
    return levels.flip(0)


def annealed_steps(sigmas: Tensor | Sequence[float], step_size: float) -> list[float]:
    r"""The step size of each level, :math:`\alpha_i = \epsilon \sigma_i^2 / \sigma_L^2`, in units of x squared. Source: song2019,
    Algorithm 1.

    Raises:
        ValueError: as ``check_sigmas``; a step size that is not positive.
    """
    ops.check_positive(step_size, "step_size")
    levels = check_sigmas(sigmas).tolist()
    return [step_size * (sigma / levels[-1]) ** 2 for sigma in levels]  # Algorithm 1, line 3


def linear_betas(beta_min: float = 1e-4, beta_max: float = 0.02, n_steps: int = 1000) -> Tensor:
    """DDPM's variances, equally spaced and increasing: [N] in the default dtype. Source: ho2020, Sec. 4.

    Raises:
        ValueError: fewer than two steps, or not 0 < beta_min < beta_max < 1.
    """
    ops.check_count(n_steps, "n_steps", 2)
    if not 0 < beta_min < beta_max < 1:
        raise ValueError(
            f"beta_min = {beta_min}, beta_max = {beta_max}: they must satisfy 0 < beta_min < beta_max < 1; DDPM uses "
            "1e-4 and 0.02"
        )
    return torch.linspace(beta_min, beta_max, n_steps)


def levels(sigmas: Tensor | Sequence[float]) -> Draw:
    """The law of song2019, Eq. (6): each of the given levels [L] with probability 1/L. Errors as ``check_sigmas``."""
    sigmas = check_sigmas(sigmas)

    def draw(n: int, *, generator: Generator | None = None) -> Tensor:
        ops.check_count(n, "n")
        device = ops.source(generator, sigmas)
        return sigmas.to(device)[torch.randint(len(sigmas), (n,), generator=generator, device=device)]

    return draw


def log_uniform(sigma_min: float, sigma_max: float) -> Draw:
    """The law whose log is uniform on [log sigma_min, log sigma_max].

    Raises:
        ValueError: not 0 < sigma_min < sigma_max, or not finite.
    """
    check_range(sigma_min, sigma_max)
    span = math.log(sigma_max / sigma_min)

    def draw(n: int, *, generator: Generator | None = None) -> Tensor:
        ops.check_count(n, "n")
        like = torch.empty((), device=ops.source(generator, torch.empty(())))
        return (sigma_min * (span * ops.uniform((n,), like, generator)).exp()).clamp(sigma_min, sigma_max)

    return draw


def log_normal(sigma_min: float, sigma_max: float, *, log_mean: float = -1.2, log_std: float = 1.2) -> Draw:
    """The law whose log is normal, moved to the ends where it is beyond them. Source: karras2022, Sec. 5.

    A network is idle where noise drowns the data, and can gain nothing where noise is too small to see. The defaults put most
    draws between 0.09 and 1, for data of a standard deviation of about 0.5.

    Args:
        sigma_min, sigma_max: the ends, in units of x.
        log_mean, log_std: of the natural logarithm of sigma.

    Raises:
        ValueError: not 0 < sigma_min < sigma_max, or not finite; log_mean not finite; log_std not positive.
    """
    ops.check_positive(log_std, "log_std")
    if not math.isfinite(log_mean):
        raise ValueError(f"log_mean = {log_mean}: it must be finite; pass the logarithm of the sigma that matters most")
    check_range(sigma_min, sigma_max)

    def draw(n: int, *, generator: Generator | None = None) -> Tensor:
        ops.check_count(n, "n")
        like = torch.empty(n, device=ops.source(generator, torch.empty(())))
        return (log_mean + log_std * ops.normal_like(like, generator)).exp().clamp(sigma_min, sigma_max)

    return draw


def check_range(low: float, high: float, names: tuple[str, str] = ("sigma_min", "sigma_max")) -> None:
    """Refuse ends that are not finite numbers with 0 < low < high.

    Raises:
        TypeError: no number. ValueError: another order, or an end that is not finite or not positive.
    """
    for end, name in zip((low, high), names, strict=True):
        if isinstance(end, bool) or not isinstance(end, Real):
            raise TypeError(f"{name} is {type(end).__name__}: it must be a number; pass a float")
    if 0 < low < high < math.inf:
        return
    if 0 < high < low < math.inf:
        remedy = "swap them"
    elif 0 < low < math.inf:
        remedy = f"pass e.g. {names[1]}={10 * low:g}"
    elif 0 < high < math.inf:
        remedy = f"pass e.g. {names[0]}={high / 10:g}"
    else:
        remedy = f"pass e.g. {names[0]}=0.1, {names[1]}=10"
    raise ValueError(
        f"{names[0]} = {low}, {names[1]} = {high}: they must be finite, and 0 < {names[0]} < {names[1]}; {remedy}"
    )


def _ladder(sigmas: list[float]) -> Tensor:
    """Levels as a tensor of the default dtype, refused where rounding makes them none."""
    found = torch.tensor(sigmas)
    if not bool((found.isfinite() & (found > 0)).all()):
        raise ValueError(
            f"sigma_max = {sigmas[0]}, sigma_min = {sigmas[-1]}: {found.dtype} does not hold all levels; pass ends nearer to 1"
        )
    if not bool((found.diff() < 0).all()):
        raise ValueError(
            f"n_levels = {len(sigmas)}: from sigma_max = {sigmas[0]} to sigma_min = {sigmas[-1]} two levels round to one in {found.dtype}; "
            "pass fewer, or ends that are further apart"
        )
    return found
