"""08: the codimension of data, from the norms of its scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from checks import judge

SIGMAS = (0.1, 0.02, 0.5)


def codimension(answer: Callable[..., object]) -> None:
    """Judge ``answer(scores, sigma)``, the mean of the squared norm of sigma times the score, to 1e-9, at three noise levels.

    The scores [N, 7] are those of a plane in general position: codimension 5. The truth is added up number by number.
    """
    given, truth = [], []
    for sigma in SIGMAS:
        scores = _scores(sigma)
        value = judge.call(answer, scores.copy(), sigma, hint="scores is [N, D], sigma a number; return one number")
        if value is None or not judge.shaped(value, (), hint="one number: sum over coordinates, mean over examples."):
            return
        given.append(float(value))
        truth.append(sum(float(sigma * v) ** 2 for row in scores for v in row) / len(scores))
    listed = ", ".join(f"{value:.2f}" for value in truth)
    judge.compare(
        given,
        truth,
        tolerance=1e-9,
        right=f"{listed} at the noise levels {', '.join(map(str, SIGMAS))}; the data is a plane in 7 dimensions, codimension 5.",
        known={hint: [wrong(_scores(sigma), sigma) for sigma in SIGMAS] for hint, wrong in KNOWN.items()},
        otherwise="first multiply the scores by sigma, then the squared norm of each row, then the mean over the rows",
        place=lambda k: f"at sigma = {SIGMAS[k]}",
    )


def _scores(sigma: float) -> np.ndarray:
    """Exact scores at noisy points of a wide plane in R^7, [400, 7]."""
    rng = np.random.default_rng(round(1000 * sigma))
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0]
    widths = np.array([9.0, 4.0, 0, 0, 0, 0, 0]) + sigma**2
    return (-rng.normal(size=(400, 7)) / np.sqrt(widths)) @ axes.T


def _squares(scores: np.ndarray) -> np.ndarray:
    return (scores**2).sum(1)


KNOWN: dict[str, Callable[[np.ndarray, float], float]] = {
    "this is the mean of the norm: take the mean of its square": lambda s, h: h * np.sqrt(_squares(s)).mean(),
    "square the norms first, then take the mean": lambda s, h: (h * np.sqrt(_squares(s)).mean()) ** 2,
    "this is the root: leave it out, the codimension is the mean square itself": lambda s, h: (
        h * _squares(s).mean() ** 0.5
    ),
    "this is the mean over coordinates too: sum the squares over them (axis=1), then take the mean over examples": (
        lambda s, h: h**2 * (s**2).mean()
    ),
    "sigma is to be squared as well: the square of sigma times the score": lambda s, h: h * _squares(s).mean(),
    "multiply the scores by sigma: the squared norm grows like 1 / sigma^2": lambda s, h: _squares(s).mean(),
    "sigma^2 multiplies the squared norm, not the norm": lambda s, h: h**4 * _squares(s).mean(),
    "this is D minus it, the dimension: the codimension is the mean square itself": (
        lambda s, h: s.shape[1] - h**2 * _squares(s).mean()
    ),
    "this is the sum over examples: take the mean over them": lambda s, h: h**2 * _squares(s).sum(),
    "square first, then average: the scores themselves average out": lambda s, h: h**2 * (s.mean(0) ** 2).sum(),
    "multiply by sigma squared, do not divide by it": lambda s, h: _squares(s).mean() / h**2,
}
