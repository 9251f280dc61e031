"""06: where a learned score is wrong, as fractions of the box and of the mass."""

import numpy as np

from answers import Exercise
from checks import density

norm = np.linalg.norm


def shares(above, density):
    return above.mean(), density[above].sum() / density.sum()


def relative(s, truth):
    return norm(s - truth, axis=1) / norm(truth, axis=1)


def right(s, truth, density, threshold):
    return shares(relative(s, truth) > threshold, density)


WRONG = {
    "this is the absolute error": lambda s, t, d, h: shares(norm(s - t, axis=1) > h, d),
    "this is the absolute error: divide it by the norm of the truth at the same point; and for the share of the mass": lambda s, t, d, h: (
        (norm(s - t, axis=1) > h).mean(),
        (norm(s - t, axis=1) > h).mean(),
    ),
    "not by that of the learned score": lambda s, t, d, h: shares(norm(s - t, axis=1) / norm(s, axis=1) > h, d),
    "divide point by point": lambda s, t, d, h: shares(norm(s - t, axis=1) / norm(t, axis=1).mean() > h, d),
    "each coordinate is compared by itself: an arrow": lambda s, t, d, h: shares((abs(s / t - 1) > h).any(1), d),
    "each coordinate is compared by itself, and both": lambda s, t, d, h: shares((abs(s / t - 1) > h).all(1), d),
    "the square of the relative error": lambda s, t, d, h: shares(relative(s, t) ** 2 > h, d),
    "not where it stays below": lambda s, t, d, h: shares(relative(s, t) < h, d),
    "first the share of the box": lambda *a: right(*a)[::-1],
    "no percent": lambda *a: tuple(100 * v for v in right(*a)),
    "weigh each point by its density; every point": lambda *a: (right(*a)[0], right(*a)[0]),
    "the density need not sum to one": lambda s, t, d, h: (right(s, t, d, h)[0], d[relative(s, t) > h].sum()),
    "not a mean": lambda s, t, d, h: (right(s, t, d, h)[0], d[relative(s, t) > h].mean()),
    "not by the number of points": lambda s, t, d, h: (right(s, t, d, h)[0], (d * (relative(s, t) > h)).mean()),
    "these are counts": lambda s, t, d, h: ((relative(s, t) > h).sum(), right(s, t, d, h)[1]),
    "first the error at each point": lambda *a: (0.5, 0.5),
    "first the error at each": lambda *a: (np.nan, np.nan),
    "return (share of the box, share of the mass)": lambda *a: right(*a)[0],
    "s and truth are [N, 2]": lambda s, *_: s @ s,
    "return (share of the box, share of the": lambda *_: None,
}

RIGHT = {"by hand": right, "a list": lambda *a: list(right(*a))}
EXERCISES = [Exercise(density.wrong_region, RIGHT, "Correct: wrong on ", [], WRONG)]
