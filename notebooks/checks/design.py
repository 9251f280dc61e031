"""10: noise levels from a data set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from checks import judge

SIGMA_MIN, RATIO = 0.05, 1.3


def _points() -> np.ndarray:
    """Thirty points in five dimensions, not centred, whose farthest two are not those of any one coordinate."""
    return np.random.default_rng(3).normal(size=(30, 5)) * np.array([1.0, 1.5, 2.0, 2.5, 3.0]) + 4.0


def sigmas(answer: Callable[..., object]) -> None:
    """Judge ``answer(points, sigma_min, ratio) -> [L]``: geometric, from the largest distance to sigma_min, the least L; to 1e-6."""
    points = _points()
    given = judge.call(
        answer, points.copy(), SIGMA_MIN, RATIO, hint="points is [N, D]; points[:, None] - points is [N, N, D]."
    )
    if given is None:
        return
    if given.ndim != 1 or len(given) < 2:
        print(f"Not yet: the shape is {list(given.shape)}, it must be [L].\nHint: one number per level, in one row.")
        return
    distances = np.sqrt(((points[:, None] - points) ** 2).sum(2))
    first = distances.max()

    def count(top: float) -> int:
        return 1 + int(np.ceil(np.log(top / SIGMA_MIN) / np.log(RATIO)))

    def ladder(top: float) -> np.ndarray:
        return np.geomspace(top, SIGMA_MIN, count(top))

    truth = ladder(first)
    tops = {
        "sigma_1 is the range of one coordinate: take the distance of two points, over all coordinates": np.ptp(
            points, axis=0
        ).max(),
        "sigma_1 is the largest coordinate: take the largest distance of two points, which does not change when all move": np.abs(
            points
        ).max(),
        "sigma_1 is the squared distance: take the root": first**2,
        "sigma_1 is the distance from the mean: take that of two points, up to twice as far": np.linalg.norm(
            points - points.mean(0), axis=1
        ).max(),
        "sigma_1 is the distance from the origin: take that of two points": np.linalg.norm(points, axis=1).max(),
        "sigma_1 is the mean distance: a chain must get between the farthest two": distances.mean(),
        "sigma_1 is the sum of the coordinates' differences: take the Euclidean distance": np.abs(
            points[:, None] - points
        )
        .sum(2)
        .max(),
        "sigma_1 is the norm of all coordinates' ranges, a corner of the box: take the two points that are farthest": np.linalg.norm(
            np.ptp(points, axis=0)
        ),
    }
    said = None
    if not (np.isfinite(given).all() and (given > 0).all()):
        said = "levels are finite and positive: is a distance of a point to itself among the logarithms"
    elif given[0] < given[-1]:
        said = "the order: sigma_1 is the largest level, and they decrease"
    else:
        said = next((hint for hint, top in tops.items() if np.isclose(given[0], top, rtol=1e-5)), None)
    if said is None and np.isclose(given[0], first, rtol=1e-6):
        steps, ratios = np.diff(given), given[:-1] / given[1:]
        if len(given) > 2 and np.allclose(steps, steps[0], rtol=1e-5):
            said = "the spacing is arithmetic, equal differences: equal ratios are meant, np.geomspace"
        elif not np.isclose(given[-1], SIGMA_MIN, rtol=1e-6):
            said = (
                f"the last level is {given[-1]:.6g}, not sigma_min: dividing by the ratio again and again misses it; first count the "
                "levels, then space them between both ends"
            )
        elif np.allclose(ratios, ratios[0], rtol=1e-5) and len(given) != len(truth):
            said = f"the neighbours' ratio is {ratios[0]:.4f}, at most {RATIO} is allowed: " + (
                "too few levels; L levels have L - 1 ratios, rounded up"
                if len(given) < len(truth)
                else "fewer levels would do; L levels have L - 1 ratios, and round up once"
            )
    if said is None and len(given) == len(truth) and np.allclose(given, truth, rtol=1e-6, atol=0):
        print(
            f"Correct: {len(truth)} levels from {first:.4g} to {SIGMA_MIN}, neighbours {truth[0] / truth[1]:.4f} apart."
        )
        return
    what = f"{len(given)} levels from {given[0]:.6g} to {given[-1]:.6g}, the truth {len(truth)} from {first:.6g} to {SIGMA_MIN}"
    print(f"Not yet: {what}.\nHint: {said or 'begin with sigma_1 alone, the largest distance of two points'}.")
