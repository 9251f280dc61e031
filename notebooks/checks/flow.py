"""13: the log density of a Gaussian through the probability flow, and what the prior does to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import numpy as np

from checks import judge

MEAN, VARIANCE = 1.5, 0.36  # of the data, before any noise
TIMES = np.linspace(0.0, 1.0, 2001)
X = np.array([-0.5, 1.0, 2.5])
_HALF_LOG_TWO_PI = 0.5 * np.log(2 * np.pi)


def cases() -> list[tuple[SimpleNamespace, SimpleNamespace]]:
    """VE, VP and sub-VP, all cut short, so that their priors are visibly wrong: each with its exact law of Gaussian data."""
    low, high, least, most = 0.5, 4.0, 0.1, 4.0

    def beta(t: float) -> float:
        return least + t * (most - least)

    def integral(t: float) -> float:
        return least * t + 0.5 * (most - least) * t**2

    def pair(
        f: Callable[[float], float],
        g: Callable[[float], float],
        marginal: Callable[[float], tuple[float, float]],
        prior_std: float,
    ) -> tuple[SimpleNamespace, SimpleNamespace]:
        def variance(t: float) -> float:
            alpha, std = marginal(t)
            return alpha**2 * VARIANCE + std**2

        def off(x: np.ndarray, t: float) -> np.ndarray:
            return x - marginal(t)[0] * MEAN

        law = SimpleNamespace(
            score=lambda x, t: -off(x, t) / variance(t),
            slope=lambda x, t: -1 / variance(t) + 0 * x,
            log_prob=lambda x, t: _log_normal(off(x, t), variance(t) ** 0.5),
        )
        return SimpleNamespace(f=f, g=g, prior_std=prior_std), law

    rate = np.log(high / low)
    ve = pair(
        lambda t: 0.0,
        lambda t: np.sqrt(2 * rate) * low * np.exp(rate * t),
        lambda t: (1.0, low * np.exp(rate * t)),
        high,
    )
    vp = pair(
        lambda t: -beta(t) / 2,
        lambda t: np.sqrt(beta(t)),
        lambda t: (np.exp(-integral(t) / 2), np.sqrt(-np.expm1(-integral(t)))),
        1.0,
    )
    sub_vp = pair(
        lambda t: -beta(t) / 2,
        lambda t: np.sqrt(beta(t) * -np.expm1(-2 * integral(t))),
        lambda t: (np.exp(-integral(t) / 2), -np.expm1(-integral(t))),
        1.0,
    )
    return [ve, vp, sub_vp]


def likelihood(answer: Callable[..., object]) -> None:
    """Judge ``answer(x, times, process, law) -> (log_density [B], share [B])`` on three processes, to 0.01 of it.

    The truth follows no path: on Gaussian data the flow keeps (x - mean) / std, so that where it ends is known.
    """
    hint = "process has f(t), g(t), prior_std; law has score(x, t), slope(x, t), log_prob(x, t); return two arrays [B]."
    given, ends = [], []
    for process, law in cases():
        pair = judge.call(answer, X.copy(), TIMES.copy(), process, _at_the_end(law), hint=hint)
        if pair is None or not judge.shaped(pair, (2, len(X)), hint="return the log density and the share, [B] each."):
            return
        given.append(pair)
        first, last = law.slope(X, TIMES[0]), law.slope(X, TIMES[-1])  # -1 / variance
        kept = -law.score(X, TIMES[0]) / np.sqrt(-first)  # (x - mean) / std
        middle = law.score(0 * X, TIMES[-1]) / -last
        ends.append(middle + kept / np.sqrt(-last))
    share = np.array(
        [_log_normal(e, c.prior_std) - law.log_prob(e, TIMES[-1]) for (c, law), e in zip(cases(), ends, strict=True)]
    )
    clean = np.array([law.log_prob(X, TIMES[0]) for _, law in cases()])
    density, told = np.array([pair[0] for pair in given]), np.array([pair[1] for pair in given])

    def place(k: int) -> str:
        return f"for the {what} on {('VE', 'VP', 'sub-VP')[k // len(X)]} at x = {X[k % len(X)]:g}"

    what, tolerance = "log density", 0.01
    if not (np.abs(density - clean - share) <= tolerance * np.maximum(1, np.abs(clean + share))).all():
        judge.compare(
            density,
            clean + share,
            tolerance=tolerance,
            right="",
            known=_wrong_densities(clean),
            otherwise="first let x move along `times`, and return log N(x_1; 0, prior_std²) alone, with its normaliser; then add the "
            "integral of the divergence",
            place=place,
        )
        return
    what = "share"
    ends = [end for end, *_ in _walks()]  # by steps, as the reader's are
    at_one = np.array([law.log_prob(e, TIMES[-1]) for (_, law), e in zip(cases(), ends, strict=True)])
    judge.compare(
        told,
        share,
        tolerance=tolerance,
        right=f"within 1 % on VE, VP and sub-VP; the prior's share is up to {np.abs(share).max():.2f} nats.",
        known={
            "the density is right; its error is not yet told: the share is log N(x_1; 0, prior_std²) - log p_1(x_1)": 0
            * share,
            "check the sign of the share: what was used less what is true, log N - log p_1": -share,
            "the share is taken where the flow ends, at x_1, not at x": [
                _log_normal(X, c.prior_std) - law.log_prob(X, TIMES[-1]) for c, law in cases()
            ],
            "that is a ratio of densities: the share is the difference of their logarithms": np.exp(share),
            "that is the prior's log density alone: take log p_1(x_1) from it": share + at_one,
            "that is log p_1 alone: take it from the prior's log density": at_one,
        },
        otherwise="the density is right; the share is log N(x_1; 0, prior_std²) - log p_1(x_1), with p_1 = law at times[-1]",
        place=place,
    )


def _at_the_end(law: SimpleNamespace) -> SimpleNamespace:
    """A law whose log density is told at the last time alone: elsewhere it is to be found, not looked up."""

    def log_prob(x: np.ndarray, t: float) -> np.ndarray:
        if t < TIMES[-1]:
            raise LookupError(
                f"law.log_prob is known at times[-1] alone, not at t = {t:g}: let the flow find the density, from the process's Gaussian "
                "at the end; the exact log p_1(x_1), at times[-1], is for the share"
            )
        return np.asarray(law.log_prob(x, t))

    return SimpleNamespace(score=law.score, slope=law.slope, log_prob=log_prob)


def _wrong_densities(clean: np.ndarray) -> dict[str, object]:
    """What each usual mistake gives, by the same steps: hint -> [3, B]."""
    stds = [c.prior_std for c, _ in cases()]

    def of(function: Callable[..., np.ndarray]) -> list[np.ndarray]:
        return [function(std, *run) for std, run in zip(stds, _walks(), strict=True)]

    return {
        "that is the exact log density: p_1 stands at the end of the flow; put the process's Gaussian N(0, prior_std²) there": clean,
        "check the sign of the divergence: along the flow log p falls by it, so log p_0 = log N(x_1) + its integral": of(
            lambda std, end, f, g: _log_normal(end, std) - f - g
        ),
        "the half is missing: g² belongs to the reverse SDE; the flow has g²/2, in the drift and in its divergence": [
            _log_normal(end, std) + f + g for std, (end, f, g) in zip(stds, _walks(half=1.0), strict=True)
        ],
        "the half is in the drift but not in its divergence: that is f - g²/2 times the slope of the score": of(
            lambda std, end, f, g: _log_normal(end, std) + f + 2 * g
        ),
        "g is not squared: the drift of the flow is f x - g²/2 score": [
            _log_normal(end, std) + f + g for std, (end, f, g) in zip(stds, _walks(power=1), strict=True)
        ],
        "that is the prior at x, where the flow begins: let x move along `times` first, then add the integral of the divergence": of(
            lambda std, end, f, g: _log_normal(X, std)
        ),
        "that is the prior at x_1 alone: add the integral of the divergence along the way": of(
            lambda std, end, f, g: _log_normal(end, std)
        ),
        "the prior is missing: the integral of the divergence is only what changes on the way": of(
            lambda std, end, f, g: f + g
        ),
        "the prior is N(0, prior_std²), not N(0, 1): on VE that is the difference": of(
            lambda std, end, f, g: _log_normal(end, 1.0) + f + g
        ),
        "prior_std is a standard deviation: square it in the exponent": of(
            lambda std, end, f, g: _log_normal(end, std**0.5) + f + g
        ),
        "the prior lacks its normaliser - log prior_std": of(
            lambda std, end, f, g: _log_normal(end, std) + np.log(std) + f + g
        ),
        "the prior lacks its normaliser - ½ log(2 pi)": of(
            lambda std, end, f, g: _log_normal(end, std) + _HALF_LOG_TWO_PI + f + g
        ),
        "the prior is taken at x_1, where the flow ends, not at x: let x move along": of(
            lambda std, end, f, g: _log_normal(X, std) + f + g
        ),
        "f is missing from the divergence: the derivative of f x is f, and its integral is D log alpha": of(
            lambda std, end, f, g: _log_normal(end, std) + g
        ),
        "the slope of the score is missing from the divergence: it is f - g²/2 slope": of(
            lambda std, end, f, g: _log_normal(end, std) + f
        ),
    }


@cache
def _walks(half: float = 0.5, power: int = 2) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each process: where Euler's steps end, and the integrals of the two parts of the divergence, of f and of g² slope / 2."""
    return [_walk(process, law, half, power) for process, law in cases()]


def _walk(
    process: SimpleNamespace, law: SimpleNamespace, half: float, power: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, by_f, by_g = X.copy(), 0 * X, 0 * X
    for t, dt in zip(TIMES[:-1], np.diff(TIMES), strict=True):
        f, g = process.f(t), half * process.g(t) ** power
        by_f, by_g = by_f + dt * f, by_g - dt * g * law.slope(x, t)
        x = x + dt * (f * x - g * law.score(x, t))
    return x, by_f, by_g


def _log_normal(x: np.ndarray, std: float) -> np.ndarray:
    return -((x / std) ** 2) / 2 - np.log(std) - _HALF_LOG_TWO_PI
