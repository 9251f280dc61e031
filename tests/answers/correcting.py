"""14: the corrector's step, and what an error costs."""

import numpy as np

from answers import Exercise, plus
from checks import correcting


def norm(x):
    return np.sqrt((x**2).sum(1))


STEPS = {
    "that is the paper's epsilon": lambda s, z, r, a: 2 * a**2 * (r * norm(z) / norm(s)) ** 2,
    "doubled once too often": lambda s, z, r, a: 8 * a**2 * (r * norm(z) / norm(s)) ** 2,
    "the ratio is not squared": lambda s, z, r, a: 4 * a**2 * r * norm(z) / norm(s),
    "snr is squared, the ratio is not": lambda s, z, r, a: 4 * a**2 * r**2 * norm(z) / norm(s),
    "the ratio is squared, snr is not": lambda s, z, r, a: 4 * a**2 * r * (norm(z) / norm(s)) ** 2,
    "a is not squared": lambda s, z, r, a: 4 * a * (r * norm(z) / norm(s)) ** 2,
    "a² is missing": lambda s, z, r, a: 4 * (r * norm(z) / norm(s)) ** 2,
    "upside down": lambda s, z, r, a: 4 * a**2 * (r * norm(s) / norm(z)) ** 2,
    "norms of the whole batch": lambda s, z, r, a: (
        4 * a**2 * (r * np.linalg.norm(z) / np.linalg.norm(s)) ** 2 + 0 * norm(z)
    ),
    "means over the batch": lambda s, z, r, a: 4 * a**2 * (r * norm(z).mean() / norm(s).mean()) ** 2 + 0 * norm(z),
    "squared twice": lambda s, z, r, a: 4 * a**2 * (r * (z**2).sum(1) / (s**2).sum(1)) ** 2,
    "no sum of absolute values": lambda s, z, r, a: 4 * a**2 * (r * abs(z).sum(1) / abs(s).sum(1)) ** 2,
    "take a = 1 and snr": lambda s, z, r, a: norm(z) + 17,
    "one step size per row": lambda s, z, r, a: 4 * a**2 * (r * z / s) ** 2,
    "snr and a are numbers": lambda s, z: s,
}


def right_step(s, z, r, a):
    return 4 * a**2 * (r * norm(z) / norm(s)) ** 2


def best(calls):
    def answer(budgets, n_steps, predictor, corrector, errors):
        spent = calls(n_steps, predictor, corrector)
        return [np.where(spent <= b, errors, np.inf).min() for b in budgets]

    return answer


def right_calls(n, p, m):
    return n * (p + m)


def paid(what):
    def answer(budgets, n_steps, predictor, corrector, errors):
        calls = right_calls(n_steps, predictor, corrector)
        return [what(calls, errors, b) for b in budgets]

    return answer


COSTS = {
    "steps were counted": best(lambda n, p, m: n),
    "the corrector's calls are missing": best(lambda n, p, m: n * p),
    "the predictor's calls are missing": best(lambda n, p, m: n * np.maximum(m, 1)),
    "Heun calls the score twice": best(lambda n, p, m: n * (1 + m)),
    "they do not multiply": best(lambda n, p, m: n * p * (1 + m)),
    "just the budget can be paid": paid(lambda calls, errors, b: np.where(calls < b, errors, np.inf).min()),
    "the place of the run": paid(lambda calls, errors, b: np.where(calls <= b, errors, np.inf).argmin()),
    "the least error of all": paid(lambda calls, errors, b: errors.min()),
    "that is the largest error": paid(lambda calls, errors, b: errors[calls <= b].max()),
    "the dearest run": paid(lambda calls, errors, b: errors[np.where(calls <= b, calls, 0).argmax()]),
    "error per call, literally": paid(lambda calls, errors, b: (errors / calls)[calls <= b].min()),
    "count the calls of each run first": paid(lambda calls, errors, b: 17),
    "one error per budget": lambda budgets, *runs: 0.5,
    "one number per run": lambda budgets, n_steps: 0.5,
}

SAYS = "Correct: the least error of what each budget can pay"
EXERCISES = [
    Exercise(
        correcting.step_size,
        {"by hand": right_step},
        "Correct: within 1e-9 for 4 rows",
        [plus(right_step, 1e-6)],
        STEPS,
    ),
    Exercise(correcting.least_error, {"by hand": best(right_calls)}, SAYS, [], COSTS),
]
