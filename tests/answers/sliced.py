"""04: a sliced trace and its confidence interval."""

import numpy as np

from answers import Exercise, plus
from checks import sliced


def forms(J, v):
    return ((v @ J) * v).sum(1)


def right_estimate(J, v):
    return len(J) * forms(J, v)


def around(factor):
    """An interval whose half width is a function of the deviation and n."""

    def interval(e):
        half = factor(e.std(ddof=1), len(e))
        return e.mean() - half, e.mean() + half

    return interval


right_interval = around(lambda std, n: 1.96 * std / n**0.5)


ESTIMATES = {
    "directions of length one": forms,
    "length sqrt(D), not D": lambda J, v: len(J) ** 2 * forms(J, v),
    "here is only sqrt(D)": lambda J, v: len(J) ** 0.5 * forms(J, v),
    "divided by D": lambda J, v: forms(J, v) / len(J),
    "without J": lambda J, v: len(J) * (v * v).sum(1),
    "that adds up J v": lambda J, v: (len(J) ** 0.5 * v @ J.T).sum(1),
    "check the sign": lambda J, v: -right_estimate(J, v),
    "the exact trace, from all of J": lambda J, v: np.full(len(v), np.trace(J)),
    "is no trace": lambda J, v: np.full(len(v), J.sum()),
    "zero so far": lambda J, v: np.zeros(len(v)),
    "for each row of v": lambda J, v: 7 + forms(J, v),
    "one estimate per direction": lambda J, v: right_estimate(J, v).mean(),
    "sum over its axis 1": lambda J, v: J @ v,
}


INTERVALS = {
    "as wide as the estimates are spread": around(lambda std, n: 1.96 * std),
    "holds 95 of 100 single estimates": lambda e: np.percentile(e, [2.5, 97.5]),
    "std / n is too narrow": around(lambda std, n: 1.96 * std / n),
    "holds 68 of 100": around(lambda std, n: std / n**0.5),
    "on *one* side": around(lambda std, n: 1.645 * std / n**0.5),
    "that is 99 of 100": around(lambda std, n: 2.576 * std / n**0.5),
    "take the root": around(lambda std, n: 1.96 * std**2 / n),
    "outside the root": around(lambda std, n: (1.96 / n) ** 0.5 * std),
    "to *each* side": around(lambda std, n: 0.98 * std / n**0.5),
    "low comes first": lambda e: right_interval(e)[::-1],
    "not around zero": lambda e: (-1.96 * e.std() / len(e) ** 0.5, 1.96 * e.std() / len(e) ** 0.5),
    "take the same to the other": lambda e: (right_interval(e)[0], e.mean()),
    "a bound on one side": lambda e: (e.mean() - 1.645 * e.std(ddof=1) / len(e) ** 0.5, 1e9),
    "the interval's middle": lambda e: tuple(np.array(right_interval(e)) + 1),
    "mean ± 1.96": around(lambda std, n: 3.3 * std / n**0.5),
    "not finite": lambda e: (e.mean(), np.nan),
    "return two numbers, (low": lambda e: right_interval(e)[0],
    "the estimates are [n]": lambda e: e[len(e)],
}

RIGHT = {
    "by hand": right_interval,
    "two": around(lambda std, n: 2 * std / n**0.5 * 0.98),
    "over n": lambda e: (e.mean() - 1.96 * e.std() / 20, e.mean() + 1.96 * e.std() / 20),
}
EXERCISES = [
    Exercise(
        sliced.estimate_and_interval,
        {name: (right_estimate, interval) for name, interval in RIGHT.items()},
        r"Correct: .*directions 9([3-6]\d|70) hold",
        [(plus(right_estimate, 1e-6), right_interval)],
        {hint: (estimate, right_interval) for hint, estimate in ESTIMATES.items()}
        | {hint: (right_estimate, interval) for hint, interval in INTERVALS.items()},
    )
]
