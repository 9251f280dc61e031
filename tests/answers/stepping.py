"""05: the variance at which a Langevin chain rests."""

import numpy as np

from answers import Exercise, plus
from checks import stepping
from toyscore import diagnostics


def right(v, e):
    return v / (1 - e / (4 * v)) if e < 4 * v else np.inf


def settles(formula):
    """A formula with the right bound."""
    return lambda v, e: formula(v, e) if e < 4 * v else np.inf


def out_of_reach(v, e):
    raise ZeroDivisionError("float division by zero")


WRONG = {
    "that is v itself": lambda v, e: v,
    "one step after v": settles(lambda v, e: (1 - e / (2 * v)) ** 2 * v + e),
    "f is not squared": settles(lambda v, e: 2 * v),
    "epsilon/2v where epsilon/4v belongs": lambda v, e: v / (1 - e / (2 * v)) if e < 2 * v else np.inf,
    "that is the answer for steps eta s + sqrt(2 eta) z": settles(lambda v, e: v / (1 - e / (2 * v))),
    "halved once too often": settles(lambda v, e: v / (1 - e / (8 * v))),
    "wider than v, not narrower": settles(lambda v, e: v / (1 + e / (4 * v))),
    "adds epsilon to the variance at each step, not epsilon/2": settles(lambda v, e: right(v, e) / 2),
    "not its standard deviation": settles(lambda v, e: e**0.5 / (1 - (1 - e / (2 * v)) ** 2)),
    "that is the standard deviation: square it": settles(lambda v, e: right(v, e) ** 0.5),
    "that is the quotient to v": settles(lambda v, e: right(v, e) / v),
    "the bound is not 2 v": lambda v, e: right(v, e) if e < 2 * v else np.inf,
    "a variance cannot be negative": lambda v, e: v / (1 - e / (4 * v)),
    "at epsilon = 4 v exactly f is -1": lambda v, e: right(v, e) if e != 4 * v else 1e9,
    "for epsilon > 4 v |f| is above 1": lambda v, e: right(v, e) if e <= 4 * v else 7.0,
    "solve settled = f^2 settled + epsilon": lambda v, e: 7.0,
    "with f = 1 - epsilon/2v": lambda v, e: np.inf,
    "ZeroDivisionError": out_of_reach,
    "return one number": lambda v, e: [v, e],
}


def by_toyscore(v, e):
    v, e = float(v), float(e)
    return diagnostics.stationary_variance(v, e) if e < diagnostics.stability_bound(v) else np.inf


NEARLY = [plus(right, 1e-4), lambda v, e: None, lambda v, e: np.nan]
RIGHT = {"by hand": right, "by toyscore": by_toyscore}
EXERCISES = [Exercise(stepping.stationary_variance, RIGHT, "Correct: within 1e-6", NEARLY, WRONG)]
