"""11: the variance of a diffusion at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeAlias

from checks import judge

Variance: TypeAlias = Callable[[float, float, float, float], float]
CASES = {  # the data's variance and the time; then the ends of sigma, or of beta
    "VE": ((2.5, 0.3, 0.5, 8.0), (0.4, 0.8, 0.2, 5.0), (0.0, 1.0, 0.3, 3.0)),
    "VP": ((2.5, 0.3, 0.5, 8.0), (0.4, 0.6, 0.1, 5.0), (0.0, 1.0, 0.2, 3.0)),
}


def variances(ve: Callable[..., object], vp: Callable[..., object]) -> None:
    """Judge ``ve(v, t, sigma_min, sigma_max)`` and ``vp(v, t, beta_min, beta_max)`` -> float, to 1e-9; VP once VE is right."""
    if _judge("VE", ve, _ve, _known_ve()):
        _judge("VP", vp, _vp, _known_vp())


def _judge(name: str, answer: Callable[..., object], truth: Variance, known: Iterable[tuple[str, Variance]]) -> bool:
    given = []
    for case in CASES[name]:
        value = judge.call(answer, *case, hint="all four are numbers, and so is what comes back.")
        if value is None or not judge.shaped(value, (), hint="one number, the variance at time t."):
            return False
        given.append(value)

    def of(function: Variance) -> list[float]:
        return [function(*case) for case in CASES[name]]

    return judge.compare(
        given,
        of(truth),
        tolerance=1e-9,
        right=f"{name} within 1e-9 for three variances and times, one of them a point's.",
        known={f"{name}: {hint}": of(wrong) for hint, wrong in known},
        otherwise=f"{name}: try t = 0, where the variance must be v, then v = 0, a point",
        place=lambda k: "for v = {:g}, t = {:g}".format(*CASES[name][k][:2]),
    )


def _sigma(t: float, low: float, high: float) -> float:
    return low * (high / low) ** t


def _ve(v: float, t: float, low: float, high: float) -> float:
    return v + _sigma(t, low, high) ** 2 - low**2


def _known_ve() -> Iterable[tuple[str, Variance]]:
    def rate(t: float, low: float, high: float) -> float:
        return 2 * math.log(high / low) * _sigma(t, low, high) ** 2

    yield (
        "subtract sigma_min²: the data are clean here, and g² integrated from 0 to t is sigma(t)² - sigma(0)²",
        lambda v, t, *ends: v + _sigma(t, *ends) ** 2,
    )
    yield "this is the data's variance: VE moves nothing, and its noise adds up", lambda v, t, *ends: v
    yield (
        "this is the noise's variance alone: the data's own is still there, since VE shrinks nothing",
        lambda v, t, *ends: _ve(0, t, *ends),
    )
    yield (
        "this is sigma(t)², the noise of a process that begins at sigma_min: add the data's variance, subtract sigma_min²",
        lambda v, t, *ends: _sigma(t, *ends) ** 2,
    )
    yield "this is the standard deviation: leave out the root", lambda v, t, *ends: math.sqrt(_ve(v, t, *ends))
    yield (
        "variances add, standard deviations do not: square sigma",
        lambda v, t, *ends: v + _sigma(t, *ends),
    )
    yield (
        "variances add, standard deviations do not: sigma(t)² - sigma_min², not sigma(t) - sigma_min",
        lambda v, t, *ends: v + _sigma(t, *ends) - ends[0],
    )
    yield (
        "square each sigma before subtracting: sigma(t)² - sigma_min², not (sigma(t) - sigma_min)²",
        lambda v, t, *ends: v + (_sigma(t, *ends) - ends[0]) ** 2,
    )
    yield (
        "g² grows with time: integrate it, do not take its last value times t",
        lambda v, t, *ends: v + t * rate(t, *ends),
    )
    yield (
        "a factor 2 is lost: the derivative of sigma² is 2 log(sigma_max/sigma_min) sigma²",
        lambda v, t, *ends: v + (_ve(v, t, *ends) - v) / 2,
    )
    yield (
        "there is a factor 2 too many: g² is the derivative of sigma² itself",
        lambda v, t, *ends: 2 * _ve(v, t, *ends) - v,
    )
    yield (
        "sigma grows geometrically, not linearly: sigma_min (sigma_max/sigma_min)^t",
        lambda v, t, low, high: v + (low + t * (high - low)) ** 2 - low**2,
    )


def _integral(t: float, low: float, high: float) -> float:
    """Of beta from 0 to t."""
    return t * (low + t / 2 * (high - low))


def _vp(v: float, t: float, low: float, high: float) -> float:
    return 1 + (v - 1) * math.exp(-_integral(t, low, high))


def _known_vp() -> Iterable[tuple[str, Variance]]:
    def relaxed(exponent: Callable[..., float], rest: float = 1.0) -> Variance:
        return lambda v, t, *ends: rest + (v - rest) * math.exp(-exponent(t, *ends))

    def kept(t: float, *ends: float) -> float:
        """alpha_t²."""
        return math.exp(-_integral(t, *ends))

    yield (
        "this is the data's variance: only a variance of 1 is preserved, any other is drawn to 1",
        lambda v, t, *ends: v,
    )
    yield "this is the standard deviation: leave out the root", lambda v, t, *ends: math.sqrt(_vp(v, t, *ends))
    yield (
        "the noise is missing: v shrinks by exp(-B), and 1 - exp(-B) is added",
        lambda v, t, *ends: v * kept(t, *ends),
    )
    yield (
        "this is the noise's variance, that of a point: add what is left of the data's, v exp(-B)",
        lambda v, t, *ends: 1 - kept(t, *ends),
    )
    yield "the data shrink, too: v times exp(-B)", lambda v, t, *ends: v + 1 - kept(t, *ends)
    yield (
        "the two shares are swapped: at t = 0 all is data, and exp(-B) is 1",
        lambda v, t, *ends: kept(t, *ends) + v * (1 - kept(t, *ends)),
    )
    yield (
        "the factor of x is exp(-B/2), and a variance is multiplied by its square",
        lambda v, t, *ends: v * math.sqrt(kept(t, *ends)) + 1 - kept(t, *ends),
    )
    yield (
        "the exponent of the noise is halved: v shrinks by exp(-B), and what is added is 1 - exp(-B), not 1 - exp(-B/2)",
        lambda v, t, *ends: v * kept(t, *ends) + 1 - math.sqrt(kept(t, *ends)),
    )
    yield (
        "a factor 2 is lost: 2 f = -beta, so the distance from 1 shrinks by exp(-B), not exp(-B/2)",
        relaxed(lambda *a: _integral(*a) / 2),
    )
    yield (
        "there is a factor 2 too many: f = -beta/2, so 2 f = -beta, and the distance from 1 shrinks by exp(-B)",
        relaxed(lambda *a: 2 * _integral(*a)),
    )
    yield (
        "the variance rests at 1, where 2 f v + g² = 0: a drift multiplies x by 1 + f dt and so the variance by 1 + 2 f dt",
        relaxed(lambda *a: _integral(*a) / 2, 2.0),
    )
    yield (
        "beta grows with time: integrate it, beta(t) times t is too much",
        relaxed(lambda t, low, high: t * (low + t * (high - low))),
    )
    yield (
        "the integral of beta to t is not t times its mean over [0, 1]: it grows with t²",
        relaxed(lambda t, low, high: t * (low + high) / 2),
    )
    yield "beta does not stay at beta_min: it grows with time", relaxed(lambda t, low, high: t * low)
    yield "check the sign: the distance from 1 shrinks", relaxed(lambda *a: -_integral(*a))
    yield (
        "this is sub-VP, whose g² is less: VP's noise has the variance 1 - exp(-B), not its square",
        lambda v, t, *ends: v * kept(t, *ends) + (1 - kept(t, *ends)) ** 2,
    )
