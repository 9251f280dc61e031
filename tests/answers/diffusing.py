"""11: the variances of VE and VP."""

import numpy as np

from answers import Exercise, plus
from checks import diffusing
from toyscore import sde


def level(t, low, high):
    return low * (high / low) ** t


def ve(v, t, low, high):
    return v + level(t, low, high) ** 2 - low**2


def total(t, low, high):
    return t * (low + t / 2 * (high - low))


def vp(v, t, low, high):
    return 1 + (v - 1) * np.exp(-total(t, low, high))


def kept(*a):
    return np.exp(-total(*a))


WRONG_VE = {
    "subtract sigma_min²": lambda v, t, *e: v + level(t, *e) ** 2,
    "VE moves nothing": lambda v, t, *e: v,
    "this is the noise's variance alone": lambda v, t, *e: level(t, *e) ** 2 - e[0] ** 2,
    "this is sigma(t)²": lambda v, t, *e: level(t, *e) ** 2,
    "this is the standard deviation": lambda *a: np.sqrt(ve(*a)),
    "do not: square sigma": lambda v, t, *e: v + level(t, *e),
    "not sigma(t) - sigma_min": lambda v, t, *e: v + level(t, *e) - e[0],
    "square each sigma before": lambda v, t, *e: v + (level(t, *e) - e[0]) ** 2,
    "do not take its last value": lambda v, t, *e: v + t * 2 * np.log(e[1] / e[0]) * level(t, *e) ** 2,
    "a factor 2 is lost": lambda v, t, *e: v + (level(t, *e) ** 2 - e[0] ** 2) / 2,
    "a factor 2 too many": lambda v, t, *e: v + 2 * (level(t, *e) ** 2 - e[0] ** 2),
    "not linearly": lambda v, t, low, high: v + (low + t * (high - low)) ** 2 - low**2,
    "try t = 0": lambda v, t, *e: 17.0,
    "one number": lambda v, t, *e: np.array([v, t]),
    "all four are numbers": lambda v, t: v,
}


WRONG_VP = {
    "only a variance of 1 is preserved": lambda v, t, *e: v,
    "this is the standard deviation": lambda *a: np.sqrt(vp(*a)),
    "the noise is missing": lambda v, *a: v * kept(*a),
    "this is the noise's variance, that of a point": lambda v, *a: 1 - kept(*a),
    "the data shrink, too": lambda v, *a: v + 1 - kept(*a),
    "the two shares are swapped": lambda v, *a: kept(*a) + v * (1 - kept(*a)),
    "the exponent of the noise is halved": lambda v, *a: v * kept(*a) + 1 - np.sqrt(kept(*a)),
    "multiplied by its square": lambda v, *a: v * np.sqrt(kept(*a)) + 1 - kept(*a),
    "a factor 2 is lost": lambda v, *a: 1 + (v - 1) * np.sqrt(kept(*a)),
    "a factor 2 too many": lambda v, *a: 1 + (v - 1) * kept(*a) ** 2,
    "rests at 1": lambda v, *a: 2 + (v - 2) * np.sqrt(kept(*a)),
    "beta(t) times t": lambda v, t, low, high: 1 + (v - 1) * np.exp(-t * (low + t * (high - low))),
    "it grows with t²": lambda v, t, low, high: 1 + (v - 1) * np.exp(-t * (low + high) / 2),
    "does not stay at beta_min": lambda v, t, low, high: 1 + (v - 1) * np.exp(-t * low),
    "check the sign": lambda v, *a: 1 + (v - 1) / kept(*a),
    "this is sub-VP": lambda v, *a: v * kept(*a) + (1 - kept(*a)) ** 2,
    "VP: try t = 0": lambda v, t, *e: 17.0,
    "one number": lambda v, t, *e: [v],
    "all four are numbers": lambda v, t: v,
}


def from_marginal(process, less):
    def variance(v, t, low, high):
        alpha, std = process(low, high).marginal(t)
        return alpha**2 * v + std**2 - less(low)

    return variance


RIGHT = {
    "by hand": (ve, vp),  # at clean data; VE's marginal, which begins at sigma_min, has that variance more
    "by toyscore": (from_marginal(sde.VE, lambda low: low**2), from_marginal(sde.VP, lambda low: 0.0)),
}
SAYS = "Correct: VE within 1e-9.*\n"
EXERCISES = [
    Exercise(
        diffusing.variances,
        RIGHT,
        SAYS + "Correct: VP within",
        [(plus(ve, 1e-7), vp)],
        {hint: (wrong, vp) for hint, wrong in WRONG_VE.items()},
    ),
    Exercise(
        diffusing.variances,
        {},
        "",
        [(ve, plus(vp, 1e-7))],
        {hint: (ve, wrong) for hint, wrong in WRONG_VP.items()},
        before=SAYS,
    ),
]
