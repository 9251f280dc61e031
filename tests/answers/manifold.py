"""08: the codimension from scores; the truth is 5."""

import numpy as np

from answers import Exercise
from checks import manifold


def right(s, sigma):
    return (sigma**2 * s**2).sum(1).mean()


def norms(s):
    return np.linalg.norm(s, axis=1)


WRONG = {
    "take the mean of its square": lambda s, h: norms(h * s).mean(),
    "square the norms first": lambda s, h: norms(h * s).mean() ** 2,
    "this is the root": lambda s, h: np.sqrt(right(s, h)),
    "the mean over coordinates too": lambda s, h: ((h * s) ** 2).mean(),
    "sigma is to be squared as well": lambda s, h: h * (s**2).sum(1).mean(),
    "multiply the scores by sigma": lambda s, h: (s**2).sum(1).mean(),
    "multiplies the squared norm, not the norm": lambda s, h: (norms(h**2 * s) ** 2).mean(),
    "this is D minus it": lambda s, h: 7 - right(s, h),
    "this is the sum over examples": lambda s, h: ((h * s) ** 2).sum(),
    "average out": lambda s, h: ((h * s).mean(0) ** 2).sum(),
    "do not divide by it": lambda s, h: (norms(s / h) ** 2).mean(),
    "first multiply the scores by sigma": lambda *_: 5.0,
    "first multiply the scores by": lambda *_: np.nan,
    "sum over coordinates, mean over examples": lambda s, h: ((h * s) ** 2).sum(1),
    "scores is [N, D]": lambda s, h: s @ s,
    "first multiply the scores": lambda *_: None,
}

EXERCISES = [
    Exercise(
        manifold.codimension, {"by hand": right}, r"Correct: (?:(?:4\.[89]|5\.[01])\d*(?:, )?){2,} at the", [], WRONG
    )
]
