"""09: the weight that freezes."""

import numpy as np

from answers import Exercise, plus
from checks import annealing


def walk(factor, order=1):
    def answer(weight, gaps, equilibrium):
        for gap, level in zip(gaps[::order], equilibrium[::order], strict=True):
            weight = level + (weight - level) * factor(gap)
        return weight

    return answer


def first_only(weight, gaps, equilibrium):
    for gap, level in zip(gaps, equilibrium, strict=True):
        return level + (weight - level) * np.exp(-gap)


WRONG = {
    "this is the start": lambda w, g, e: w,
    "this is the equilibrium of the last level": lambda w, g, e: e[-1],
    "only the last level was used": lambda w, g, e: e[-1] + (w - e[-1]) * np.exp(-g[-1]),
    "only the first level was used": first_only,
    "the gap times were added up": lambda w, g, e: e[-1] + (w - e[-1]) * np.exp(-g.sum()),
    "an average over the levels": lambda w, g, e: np.mean(e),
    "weighed by gap x time": lambda w, g, e: np.average(e, weights=g),
    "not 1 - gap x time": walk(lambda g: 1 - g),
    "not max(0, 1 - gap x time)": walk(lambda g: max(0, 1 - g)),
    "from last to first": walk(lambda g: np.exp(-g), -1),
    "check the sign": walk(np.exp),
    "what is left of the distance": walk(lambda g: 1 - np.exp(-g)),
    "take a single level first": lambda w, g, e: 17,
    "one number": lambda w, g, e: e + (w - e) * np.exp(-g),
    "go level by level": lambda w, g: w,
}

right = walk(lambda g: np.exp(-g))
SAYS = "Correct: within 1e-9 on two ladders"
EXERCISES = [Exercise(annealing.final_weight, {"by hand": right}, SAYS, [plus(right, 1e-7)], WRONG)]
