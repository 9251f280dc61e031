"""06: where a learned score is wrong, as a share of the box and as a share of the mass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from checks import judge


def wrong_region(answer: Callable[..., object]) -> None:
    """Judge ``answer(s, truth, density, threshold) -> (share of the box, share of the mass)``, to 1e-9.

    The truth is counted point by point, on a coarse grid and with a density that sums to neither one nor the number of points.
    """
    s, truth, density, threshold = _case()
    above = [np.hypot(*(a - b)) / np.hypot(*b) > threshold for a, b in zip(s, truth, strict=True)]
    box, mass = np.mean(above), sum(d for d, wrong in zip(density, above, strict=True) if wrong) / density.sum()
    copies = (a.copy() for a in (s, truth, density))
    given = judge.call(answer, *copies, threshold, hint="s and truth are [N, 2], density is [N]; return two numbers")
    if given is None or not judge.shaped(
        given, (2,), hint="return (share of the box, share of the mass), two numbers."
    ):
        return
    judge.compare(
        given,
        [box, mass],
        tolerance=1e-9,
        right=f"wrong on {box:.0%} of this box, which holds {mass:.1%} of the mass.",
        known=_known(s, truth, density, threshold, box, mass),
        otherwise="first the error at each point, [N], then where it exceeds the threshold, then the two shares of that",
        place=lambda k: ("the share of the box:", "the share of the mass:")[k],
    )


def _case() -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """A field that misses one of two modes, on a grid of 15 x 15 points."""
    axis = np.linspace(-7, 7, 15)
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2) + 0.3
    squares = [((x - m) ** 2).sum(1) for m in (4.0, -4.0)]
    heights = np.stack([0.8 * np.exp(-squares[0] / 4), 0.2 * np.exp(-squares[1] / 4)])
    r = heights[0] / heights.sum(0)
    truth = (r[:, None] * (4.0 - x) + (1 - r)[:, None] * (-4.0 - x)) / 2
    blurred = 1 / (1 + np.exp(-0.6 * x.sum(1) - 0.2 * x[:, 0]))[:, None]
    s = (blurred * (4.0 - x) + (1 - blurred) * (-4.0 - x)) / 2 * (1 + 0.1 * np.sin(x))
    return s, truth, 5 * heights.sum(0), 0.4


def _known(
    s: np.ndarray, truth: np.ndarray, density: np.ndarray, threshold: float, box: float, mass: float
) -> dict[str, object]:
    """Hint -> answer, for each usual error with each usual share of the mass."""
    difference = s - truth
    norms, sizes = np.linalg.norm(difference, axis=1), np.linalg.norm(truth, axis=1)
    ratios = np.abs(difference) / np.abs(truth)
    regions = {
        "": norms / sizes > threshold,
        "this is the absolute error: divide it by the norm of the truth at the same point": norms > threshold,
        "divide by the norm of the truth, not by that of the learned score": norms / np.linalg.norm(s, axis=1)
        > threshold,
        "divide point by point: a single number, such as the largest or the mean norm, makes the error absolute": norms
        / sizes.mean()
        > threshold,
        "each coordinate is compared by itself: an arrow has one error, the norm over its coordinates (axis=1)": (
            ratios > threshold
        ).any(1),
        "each coordinate is compared by itself, and both must be wrong: take the norm over them (axis=1)": (
            ratios > threshold
        ).all(1),
        "a norm has a square root: this is the square of the relative error": (norms / sizes) ** 2 > threshold,
        "count where the error exceeds the threshold, not where it stays below": norms / sizes <= threshold,
    }
    found: dict[str, object] = {
        "first the share of the box, then that of the mass": [mass, box],
        "shares lie between 0 and 1: no percent": [100 * box, 100 * mass],
    }
    for hint, above in regions.items():
        weighed, share = density[above].sum(), above.mean()
        masses = {
            "": weighed / density.sum(),
            "for the share of the mass weigh each point by its density; every point counts alike so far": share,
            "divide the mass of the wrong region by the mass of all points: the density need not sum to one": weighed,
            "the share of the mass is a sum over the wrong region by a sum over all points, not a mean": density[
                above
            ].mean(),
            "divide by the sum of the density, not by the number of points": weighed / len(density),
        }
        for second, value in masses.items():
            if text := "; and ".join(part for part in (hint, second) if part):
                found[text] = [share, value]
        text = "; and ".join(part for part in (hint, "these are counts: divide by the number of points") if part)
        found[text] = [above.sum(), weighed / density.sum()]
    return found
