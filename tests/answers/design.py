"""10: noise levels for a data set."""

import numpy as np

from answers import Exercise
from checks import design


def largest(x):
    return np.sqrt(((x[:, None] - x) ** 2).sum(2)).max()


def count(first, last, ratio):
    return 1 + int(np.ceil(np.log(first / last) / np.log(ratio)))


def from_top(top):
    return lambda x, last, ratio: np.geomspace(top(x), last, count(top(x), last, ratio))


def shifted(by):
    return lambda x, last, ratio: np.geomspace(largest(x), last, count(largest(x), last, ratio) + by)


RIGHT = from_top(largest)


WRONG = {
    "range of one coordinate": from_top(lambda x: np.ptp(x, axis=0).max()),
    "the largest coordinate": from_top(lambda x: np.abs(x).max()),
    "take the root": from_top(lambda x: largest(x) ** 2),
    "distance from the mean": from_top(lambda x: np.linalg.norm(x - x.mean(0), axis=1).max()),
    "distance from the origin": from_top(lambda x: np.linalg.norm(x, axis=1).max()),
    "mean distance": from_top(lambda x: np.sqrt(((x[:, None] - x) ** 2).sum(2)).mean()),
    "sum of the coordinates' differences": from_top(lambda x: np.abs(x[:, None] - x).sum(2).max()),
    "a corner of the box": from_top(lambda x: np.linalg.norm(np.ptp(x, axis=0))),
    "arithmetic": lambda x, last, ratio: np.linspace(largest(x), last, count(largest(x), last, ratio)),
    "the order": lambda *a: RIGHT(*a)[::-1],
    "too few levels": shifted(-1),
    "fewer levels would do": shifted(1),
    "not sigma_min": lambda x, last, ratio: largest(x) / ratio ** np.arange(count(largest(x), last, ratio)),
    "in one row": lambda x, last, ratio: largest(x),
    "finite and positive": lambda *a: np.log(RIGHT(*a)),
    "begin with sigma_1 alone": lambda x, last, ratio: np.geomspace(17.0, last, 20),
    "points[:, None] - points": lambda x, last, ratio: x @ x,
}

NEARLY = [lambda *a: RIGHT(*a) * np.r_[1.0, 1.001, np.ones(len(RIGHT(*a)) - 2)]]
KINDS = {"by hand": RIGHT, "float32": lambda *a: RIGHT(*a).astype(np.float32)}
EXERCISES = [Exercise(design.sigmas, KINDS, "Correct: ", NEARLY, WRONG)]
