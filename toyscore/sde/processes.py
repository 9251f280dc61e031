"""The three processes: their marginals, drifts, diffusions, priors, and the time at which each has a given noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Protocol, TypeAlias, TypeVar

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.noise import check_range

Time: TypeAlias = float | Tensor
T = TypeVar("T", float, Tensor, float | Tensor)
LATEST = 1.5  # beyond it a time is taken for a step's number; DDPM's first level lies at 1.003


class SDE(Protocol):
    """A linear diffusion dx = f(t) x dt + g(t) dw whose noise level grows with t; times, float | 0-d | [B], give alike."""

    @property
    def prior_std(self) -> float: ...

    def marginal(self, t: T, /) -> tuple[T, T]: ...

    def drift(self, x: Tensor, t: Time, /) -> Tensor: ...

    def diffusion(self, t: T, /) -> T: ...

    def time(self, sigma: T, /) -> T: ...

    def prior_sample(self, shape: tuple[int, ...], *, generator: Generator | None = None) -> Tensor: ...


@dataclass(frozen=True)
class VE:
    r"""Variance exploding, the limit of NCSN: :math:`\alpha_t = 1`, :math:`s_t = \sigma_{min} (\sigma_{max} / \sigma_{min})^t`.
    Source: song2021, Eq. (9).

    The marginal does **not** subtract sigma_min²: the process begins at :math:`q_{\sigma_{min}}`, the data with the least noise, as the
    ladder of NCSN ends there. (Begun at clean data its variance would be :math:`s_t^2 - \sigma_{min}^2`.)

    >>> from toyscore.sde import VE
    >>> alpha, std = VE(0.01, 100.0).marginal(0.5)
    >>> alpha, round(std, 3)  # halfway from 0.01 to 100 in the logarithm
    (1.0, 1.0)

    Args:
        sigma_min, sigma_max: in units of x.

    Raises:
        ValueError: not 0 < sigma_min < sigma_max, or not finite.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        check_range(self.sigma_min, self.sigma_max)

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    @property
    def prior_std(self) -> float:
        """sigma_max."""
        return self.sigma_max

    def marginal(self, t: T) -> tuple[T, T]:
        """(alpha_t, s_t). Source: song2021, Eq. (31)."""
        check_time(t)
        return t * 0 + 1.0, self.sigma_min * _exp(self._log_ratio * t)

    def drift(self, x: Tensor, t: Time) -> Tensor:
        """f(t) x: zero."""
        ops.check_batch(x)
        check_time(t, x)
        return torch.zeros_like(x)

    def diffusion(self, t: T) -> T:
        """g(t). Source: song2021, Eq. (30)."""
        return math.sqrt(2 * self._log_ratio) * self.marginal(t)[1]  # Eq. (30)

    def time(self, sigma: T) -> T:
        """The time at which the noise level is sigma.

        Raises:
            ValueError: sigma below sigma_min, where the process begins.
        """
        least = _least(sigma)
        if not least >= self.sigma_min * (1 - 1e-6):
            lower = f", or VE(sigma_min={least})" if least > 0 else ""
            raise ValueError(
                f"sigma = {least:.6g} is below sigma_min = {self.sigma_min:g}, where the process begins; pass at least that{lower}"
            )
        t = _log(sigma / self.sigma_min) / self._log_ratio
        return t.clamp(min=0.0) if isinstance(t, Tensor) else max(t, 0.0)

    def prior_sample(self, shape: tuple[int, ...], *, generator: Generator | None = None) -> Tensor:
        """N(0, sigma_max² I), ``shape`` [B, *event], in the default dtype, on the generator's device."""
        return _prior(shape, self.prior_std, generator)


@dataclass(frozen=True)
class VP:
    r"""Variance preserving, the limit of DDPM: :math:`\alpha_t^2 + s_t^2 = 1`, :math:`\beta(t)` linear. Source: song2021, Eq. (11).

    >>> from toyscore.sde import VP
    >>> alpha, std = VP().marginal(0.5)
    >>> round(alpha, 3), round(alpha**2 + std**2, 3)  # a variance of 1 stays 1
    (0.281, 1.0)

    Args:
        beta_min, beta_max: beta(0) and beta(1), N times the betas of a DDPM of N steps.

    Raises:
        ValueError: not 0 < beta_min < beta_max, or not finite.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        check_range(self.beta_min, self.beta_max, ("beta_min", "beta_max"))

    @property
    def prior_std(self) -> float:
        """One: the stationary law, which p_1 has all but reached."""
        return 1.0

    def marginal(self, t: T) -> tuple[T, T]:
        """(alpha_t, s_t). Source: song2021, Eq. (33)."""
        integral = _integral(self, t)
        return _exp(-0.5 * integral), _sqrt(-_expm1(-integral))  # Eq. (33)

    def drift(self, x: Tensor, t: Time) -> Tensor:
        """f(t) x = -½ beta(t) x."""
        return _decay(self, x, t)

    def diffusion(self, t: T) -> T:
        """g(t) = sqrt(beta(t)). Source: song2021, Eq. (32)."""
        return _sqrt(_beta(self, t))

    def time(self, sigma: T) -> T:
        """The time at which the noise level s_t / alpha_t is sigma, where exp(int beta) = 1 + sigma²."""
        _least(sigma)
        return _when(self, _log1p(sigma * sigma))

    def prior_sample(self, shape: tuple[int, ...], *, generator: Generator | None = None) -> Tensor:
        """N(0, I), ``shape`` [B, *event], in the default dtype, on the generator's device."""
        return _prior(shape, self.prior_std, generator)


@dataclass(frozen=True)
class SubVP:
    r"""VP with less noise at every time: :math:`s_t = 1 - \alpha_t^2`, of which VP's :math:`s_t` is the root. Source: song2021, Eq. (12).

    Args, errors: as :class:`VP`.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        check_range(self.beta_min, self.beta_max, ("beta_min", "beta_max"))

    @property
    def prior_std(self) -> float:
        """One."""
        return 1.0

    def marginal(self, t: T) -> tuple[T, T]:
        """(alpha_t, s_t). Source: song2021, Eq. (29)."""
        integral = _integral(self, t)
        return _exp(-0.5 * integral), -_expm1(-integral)

    def drift(self, x: Tensor, t: Time) -> Tensor:
        """f(t) x = -½ beta(t) x."""
        return _decay(self, x, t)

    def diffusion(self, t: T) -> T:
        """g(t) = sqrt(beta(t) (1 - exp(-2 int beta))). Source: song2021, Eq. (12)."""
        return _sqrt(_beta(self, t) * -_expm1(-2 * _integral(self, t)))  # Eq. (12)

    def time(self, sigma: T) -> T:
        """The time at which the noise level (1 - alpha_t²) / alpha_t = 2 sinh(½ int beta) is sigma."""
        _least(sigma)
        return _when(self, 2 * _asinh(sigma / 2))

    def prior_sample(self, shape: tuple[int, ...], *, generator: Generator | None = None) -> Tensor:
        """N(0, I), ``shape`` [B, *event], in the default dtype, on the generator's device."""
        return _prior(shape, self.prior_std, generator)


def check_time(t: Time, x: Tensor | None = None) -> None:
    """Refuse a time that is not a finite number of at least 0 and at most ``LATEST``. Values on an accelerator are not looked at.

    Raises:
        TypeError: neither a number nor a floating-point tensor.
        ValueError: out of range, or a tensor of more than one axis or of none; neither one time nor one per row of x, where it is given.
    """
    if isinstance(t, Tensor):
        if not t.is_floating_point():
            raise TypeError(
                f"t is {t.dtype}: times are floating-point numbers from 0 to 1; divide a step by their number"
            )
        if t.ndim > 1:
            raise ValueError(f"t has shape {list(t.shape)}: it must be a float, 0-d or [B]; pass one time per row")
        if t.numel() == 0:
            raise ValueError(f"t has shape {list(t.shape)}: there is no time in it; pass one time per row")
        if x is not None and t.numel() > 1 and t.shape != x.shape[:1]:
            raise ValueError(
                f"t has shape {list(t.shape)}: with x of shape {list(x.shape)} it must be a float, 0-d or [{len(x)}]"
            )
        if not ops.looks(t):
            return
        low, high = (float(v) for v in torch.aminmax(t.detach()))
    elif isinstance(t, Real) and not isinstance(t, bool):
        low = high = float(t)
    else:
        raise TypeError(f"t is {type(t).__name__}: it must be a float or a tensor; pass e.g. t=0.5")
    if not (low >= 0 and high <= LATEST):
        raise ValueError(f"t = {out_of_range(low if not low >= 0 else high)}")


def out_of_range(t: float) -> str:
    """What is wrong with a time that is not within [0, ``LATEST``], and what helps."""
    if not math.isfinite(t):
        remedy = "look at where it comes from"
    elif t < 0:
        remedy = "pass 0 for the data"
    else:
        remedy = f"pass at most {LATEST}" if t < 2 else "divide steps by their number"
    return f"{t:g}: times run from 0 (data) to 1 (noise), or a little more; {remedy}"


def check_process(sde: object) -> None:
    """Refuse what is not a process: an instance of VE, VP, SubVP, or anything with their methods.

    Raises:
        TypeError: a class instead of an instance, or methods are missing.
    """
    missing = [name for name in ("marginal", "drift", "diffusion", "time", "prior_sample") if not hasattr(sde, name)]
    if isinstance(sde, type) or missing:
        found = (
            f"the class {sde.__name__}"
            if isinstance(sde, type)
            else f"{type(sde).__name__}, without {', '.join(missing)}"
        )
        raise TypeError(f"sde is {found}: it must be a process; pass e.g. VP()")


class _Linear(Protocol):
    @property
    def beta_min(self) -> float: ...

    @property
    def beta_max(self) -> float: ...


def _beta(sde: _Linear, t: T) -> T:
    check_time(t)
    return sde.beta_min + t * (sde.beta_max - sde.beta_min)


def _integral(sde: _Linear, t: T) -> T:
    """Of beta from 0 to t."""
    check_time(t)
    return t * (sde.beta_min + 0.5 * t * (sde.beta_max - sde.beta_min))


def _when(sde: _Linear, integral: T) -> T:
    """The time at which the integral of beta is what is given, without cancellation."""
    return 2 * integral / (sde.beta_min + _sqrt(sde.beta_min**2 + 2 * (sde.beta_max - sde.beta_min) * integral))


def _decay(sde: _Linear, x: Tensor, t: Time) -> Tensor:
    ops.check_batch(x)
    check_time(t, x)
    return -0.5 * ops.expand(_beta(sde, t), x) * x


def _prior(shape: tuple[int, ...], std: float, generator: Generator | None) -> Tensor:
    like = torch.empty(shape, device=ops.source(generator, torch.empty(())))
    return std * ops.normal_like(like, generator)


def _least(sigma: Time) -> float:
    """The least sigma, refused unless finite and not negative; infinity where values are not looked at."""
    if isinstance(sigma, bool) or not isinstance(sigma, Real | Tensor):
        raise TypeError(f"sigma is {type(sigma).__name__}: it must be a float or a tensor; pass e.g. sigma=0.5")
    if isinstance(sigma, Tensor) and sigma.numel() == 0:
        raise ValueError(f"sigma has shape {list(sigma.shape)}: there is no noise level in it; pass at least one")
    if isinstance(sigma, Tensor) and not ops.looks(sigma):
        return math.inf
    value = torch.as_tensor(sigma).detach()
    least, largest = float(value.min()), float(value.max())
    if not (least >= 0 and math.isfinite(largest)):
        raise ValueError(
            f"sigma = {least if not least >= 0 else largest}: a noise level must be finite and not negative; look at where it comes from"
        )
    return least


def _exp(v: T) -> T:
    return v.exp() if isinstance(v, Tensor) else math.exp(v)


def _expm1(v: T) -> T:
    return v.expm1() if isinstance(v, Tensor) else math.expm1(v)


def _log(v: T) -> T:
    return v.log() if isinstance(v, Tensor) else math.log(v)


def _log1p(v: T) -> T:
    return v.log1p() if isinstance(v, Tensor) else math.log1p(v)


def _sqrt(v: T) -> T:
    return v.sqrt() if isinstance(v, Tensor) else math.sqrt(v)


def _asinh(v: T) -> T:
    return v.asinh() if isinstance(v, Tensor) else math.asinh(v)
