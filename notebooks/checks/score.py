"""01: the score of a mixture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from checks import judge


def mixture_score(answer: Callable[..., object]) -> None:
    """Judge ``answer(x, means, variances, weights) -> [B, 2]``, the score of a mixture of round Gaussians, to 1e-6.

    The truth is a difference quotient of the log density, not a formula; the points near the modes come first, one is far away.
    """
    means = np.array([[2.0, 1.0], [-1.0, 2.0], [0.5, -2.0]])
    variances, weights = np.array([1.0, 0.5, 2.0]), np.array([0.5, 0.3, 0.2])
    x = np.array([[0.3, -0.4], [2.0, 1.5], [-1.5, 1.0], [80.0, -60.0]])

    def log_density(points: np.ndarray) -> np.ndarray:
        squares = ((points[:, None] - means) ** 2).sum(2)
        logs = np.log(weights) - np.log(2 * np.pi * variances) - squares / (2 * variances)
        return np.logaddexp.reduce(logs, 1)

    h = 1e-5
    truth = np.stack([(log_density(x + h * e) - log_density(x - h * e)) / (2 * h) for e in np.eye(2)], 1)
    copies = (a.copy() for a in (x, means, variances, weights))
    given = judge.call(answer, *copies, hint="x is [B, 2], means [K, 2], the others [K].")
    if given is None or not judge.shaped(given, x.shape, hint="one arrow per point, [B, 2]; sum over K."):
        return
    off = np.abs(given - truth).max(1)
    if (off < 1e-6).all():
        print(f"Correct: within 1e-6 at all {len(x)} points, also where every density is zero to machine precision.")
        return
    near = slice(0, 3)
    differences = means - x[near, None]
    pulls = differences / variances[:, None]
    heights = np.exp(-(differences**2).sum(2) / (2 * variances)) / (2 * np.pi * variances)

    def mean(shares: np.ndarray, of: np.ndarray = pulls) -> np.ndarray:
        return (shares[..., None] * of).sum(1) / shares.sum(1)[:, None]

    known = {
        "it is the arrow towards higher density: check the sign, (mean - x), not (x - mean)": -truth[near],
        "this is the plain sum of the components' scores: weigh each by its responsibility, the share of the density it "
        "contributes at x": pulls.sum(1),
        "the components are weighed by the mixture weights alone: at x they count by weight times density at x": (
            weights[:, None] * pulls
        ).sum(1),
        "the responsibilities leave out the mixture weights": mean(heights),
        "the responsibilities leave out the normaliser 1 / (2 pi variance), which differs between components": mean(
            weights * heights * variances
        ),
        "each pull (mean - x) is to be divided by its variance": mean(weights * heights, differences),
        "divide by the density: the score is the gradient of its logarithm": (
            (weights * heights)[..., None] * pulls
        ).sum(1),
        "all zeros so far: start from (mean - x) / variance of one component": np.zeros_like(truth[near]),
        "only the far point is wrong: there every density underflows to 0 and 0/0 follows; work with logarithms and subtract "
        "the largest before exp": truth[near],
    }
    hint = next((text for text, wrong in known.items() if np.allclose(given[near], wrong, atol=1e-6)), None)
    if hint is None and (off < 1e-3).all():
        hint = "nearly: within a thousandth everywhere; compute in float64, and without a difference quotient"
    worst = int(np.nan_to_num(off, nan=np.inf).argmax())
    print(
        f"Not yet: at x = {x[worst].tolist()} it is {np.round(given[worst], 4).tolist()}, the truth {np.round(truth[worst], 4).tolist()}, "
        f"off by {off[worst]:.1g}.\nHint: {hint or 'compare with the formula at a single component first (weights 1, 0, 0)'}."
    )
