"""04: a trace by random directions, and how sure one may be of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from checks import judge

_DIM, _N = 6, 400


def _unit(draw: np.random.Generator, n: int) -> np.ndarray:
    """Directions of length one, uniform: [n, D]."""
    v = draw.normal(size=(n, _DIM))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def estimate_and_interval(estimate: Callable[..., object], interval: Callable[..., object]) -> None:
    """Judge ``estimate(J, v) -> [n]``, unbiased for tr J with unit directions v, and ``interval(estimates) -> (low, high)``, at 95%.

    The estimates are compared direction by direction, the interval with mean ± 1.96 standard errors to two per cent of its half width;
    that it holds the exact trace 95 times of 100 is then seen on fresh directions.
    """
    draw = np.random.default_rng(4)
    matrix = draw.normal(size=(_DIM, _DIM)) - 3 * np.eye(_DIM)
    v = _unit(draw, _N)
    forms = ((v @ matrix) * v).sum(1)
    right = _DIM * forms
    given = judge.call(
        estimate,
        matrix.copy(),
        v.copy(),
        hint="J is [D, D] and v is [n, D]: (v @ J) * v is [n, D]; sum over its axis 1.",
    )
    if given is None or not judge.shaped(
        given, (_N,), hint="one estimate per direction, [n]; do not average them yet."
    ):
        return
    stretched = np.sqrt(_DIM) * v
    known = {
        "the estimates: directions of length one make the mean tr J / D, since E[v v^T] = I / D; stretch them to length sqrt(D)": forms,
        "the estimates: length sqrt(D), not D: a quadratic form takes the square of a factor": _DIM * right,
        "the estimates: a factor sqrt(D) on v is a factor D on v^T J v; here is only sqrt(D)": np.sqrt(_DIM) * forms,
        "the estimates: divided by D where they should be multiplied": forms / _DIM,
        "the estimates: that is v . v, or the like, without J": _DIM * (v * v).sum(1),
        "the estimates: that adds up J v; take its product with v again": (stretched @ matrix.T).sum(1),
        "the estimates: check the sign": -right,
        "the estimates: that is the exact trace, from all of J; estimate it from the directions": np.full(
            _N, np.trace(matrix)
        ),
        "the estimates: the sum of J's entries is no trace; v belongs on both sides": np.full(_N, matrix.sum()),
        "the estimates: zero so far; v^T J v is ((v @ J) * v).sum(1)": np.zeros(_N),
    }
    if not np.nan_to_num(np.abs(given - right), nan=np.inf).max() <= 1e-9:
        judge.compare(
            given,
            right,
            tolerance=1e-9,
            right="",
            known=known,
            otherwise="the estimates: v^T J v for each row of v, times a factor that makes their mean the trace",
            place=lambda k: f"for direction {k}",
        )
        return
    given = judge.call(interval, right.copy(), hint="the estimates are [n]; return two numbers, low and high.")
    if given is None or not judge.shaped(given, (2,), hint="the estimates are right; return two numbers, (low, high)."):
        return
    mean, std = right.mean(), right.std(ddof=1)
    standard = std / np.sqrt(_N)
    two, one = 1.96, 1.6449
    halves = {
        "that is as wide as the estimates are spread: of their *mean* the standard error is std / sqrt(n)": two * std,
        "std / n is too narrow: variances fall with n, deviations with sqrt(n)": two * std / _N,
        "one standard error holds 68 of 100; 95 need 1.96, to *each* side": standard,
        "1.645 leaves 5 of 100 out on *one* side: two sides need 1.96": one * standard,
        "that is 99 of 100: 95 need 1.96": 2.576 * standard,
        "the variance over n is not the standard error yet: take the root": two * std**2 / _N,
        "1.96 belongs outside the root": np.sqrt(two) * standard,
    }
    low, high = given
    middle, half = (low + high) / 2, (high - low) / 2
    if not np.isfinite(given).all():
        hint = "the interval is not finite: numbers as they are, no root of a negative"
    elif low > high:
        hint = "low comes first, then high"
    elif abs(half - two * standard) <= 0.02 * two * standard and abs(middle - mean) <= 0.02 * standard:
        return _coverage(interval, matrix, np.array([low, high]))
    elif abs(middle) <= 1e-9 and half > 0:
        hint = "the interval is around the mean of the estimates, not around zero"
    elif np.allclose(given, np.quantile(right, (0.025, 0.975)), atol=0.1 * standard):
        hint = "that holds 95 of 100 single estimates: of their *mean* the standard error is std / sqrt(n)"
    elif abs(low - mean) <= 1e-9 or abs(high - mean) <= 1e-9:
        hint = "that goes to one side of the mean: take the same to the other"
    elif high > mean + 50 * standard or low < mean - 50 * standard:
        hint = "a bound on one side is not an interval: 1.96 standard errors below the mean and above it"
    elif abs(middle - mean) > 0.02 * standard:
        hint = "the interval's middle is the mean of the estimates"
    else:
        hint = next(
            (text for text, wrong in halves.items() if abs(half - wrong) <= 0.03 * wrong), "mean ± 1.96 * std / sqrt(n)"
        )
    print(
        f"Not yet: the estimates are right, but the interval is [{low:.4g}, {high:.4g}], around {middle:.4g} by {half:.3g}.\nHint: {hint}."
    )


def _coverage(interval: Callable[..., object], matrix: np.ndarray, first: np.ndarray) -> None:
    """Say how often the interval holds the trace; it was right once, so it may be called again."""
    draw, held = np.random.default_rng(5), 0
    for _ in range(1000):
        v = _unit(draw, _N)
        low, high = np.asarray(interval(_DIM * ((v @ matrix) * v).sum(1)), dtype=float)
        held += bool(low <= np.trace(matrix) <= high)
    print(
        f"Correct: the trace is {np.trace(matrix):.2f}, the interval [{first[0]:.2f}, {first[1]:.2f}]; of 1000 such intervals from fresh "
        f"directions {held} hold the trace."
    )
