"""13: a log density by the probability flow, and the prior's part of its error."""

import numpy as np

from answers import Exercise
from checks import flow


def log_normal(x, std):
    return -((x / std) ** 2) / 2 - np.log(std) - 0.5 * np.log(2 * np.pi)


def answer(*, half=0.5, power=2, sign=1, trace=1.0, f_counts=1, moves=True, prior=log_normal, share=None):
    """An answer with one thing wrong."""

    def written(start, times, process, law):
        x, change = start, 0 * start
        for t, dt in zip(times[:-1], np.diff(times), strict=True):
            f, g = process.f(t), half * process.g(t) ** power
            change = change + dt * (f_counts * f - trace * g * law.slope(x, t))
            x = x + dt * (f * x - g * law.score(x, t))
        used = log_normal(x, process.prior_std)
        told = share(start, x, used, law) if share else used - law.log_prob(x, times[-1])
        return prior(x if moves else start, process.prior_std) + sign * change, told

    return written


def looked_up(x, times, process, law):
    return law.log_prob(x, times[0]), 0 * x


def looked_up_with_its_share(x, times, process, law):
    """Would be right, with a share from the flow, were the density at the first time told."""
    _, share = answer()(x, times, process, law)
    return law.log_prob(x, times[0]) + share, share


def exact_end(x, times, process, law):
    density, share = answer()(x, times, process, law)
    return density - share, share


WRONG = {
    "that is the exact log density": exact_end,
    "not at t = 0: let the flow find": looked_up,
    "known at times[-1] alone": looked_up_with_its_share,
    "check the sign of the divergence": answer(sign=-1),
    "the half is missing": answer(half=1.0),
    "the half is in the drift but not in its divergence": answer(trace=2.0),
    "g is not squared": answer(power=1),
    "the prior is missing": answer(prior=lambda x, std: 0 * x),
    "not N(0, 1)": answer(prior=lambda x, std: log_normal(x, 1.0)),
    "square it in the exponent": answer(prior=lambda x, std: log_normal(x, std**0.5)),
    "- log prior_std": answer(prior=lambda x, std: log_normal(x, std) + np.log(std)),
    "½ log(2 pi)": answer(prior=lambda x, std: log_normal(x, std) + 0.5 * np.log(2 * np.pi)),
    "let x move along": answer(moves=False),
    "f is missing from the divergence": answer(f_counts=0),
    "the slope of the score is missing": answer(trace=0.0),
    "the prior at x, where the flow begins": answer(moves=False, sign=0),
    "the prior at x_1 alone": answer(sign=0),
    "first let x move along": answer(half=3.0),
    "its error is not yet told": answer(share=lambda x, end, used, law: 0 * x),
    "check the sign of the share": answer(share=lambda x, end, used, law: law.log_prob(end, 1.0) - used),
    "not at x": answer(share=lambda x, end, used, law: log_normal(x, used_std(end, used)) - law.log_prob(x, 1.0)),
    "is for the share": answer(share=lambda x, end, used, law: used - law.log_prob(end, 0.0)),
    "a ratio of densities": answer(share=lambda x, end, used, law: np.exp(used - law.log_prob(end, 1.0))),
    "the prior's log density alone": answer(share=lambda x, end, used, law: used),
    "that is log p_1 alone": answer(share=lambda x, end, used, law: law.log_prob(end, 1.0)),
    "the density is right; the share is": answer(share=lambda x, end, used, law: 0 * x + 17),
    "[B] each": lambda x, times, process, law: x,
    "process has f(t), g(t), prior_std": lambda x: x,
}


def used_std(end, used):
    """The prior's standard deviation, from its log density at two ends."""
    fall = (used[0] - used[2]) / ((end[2] ** 2 - end[0] ** 2) / 2)
    return fall**-0.5


def shifted(*given):
    density, share = answer()(*given)
    return density + 0.03, share


SAYS = "Correct: within 1 % on VE, VP and sub-VP"
EXERCISES = [Exercise(flow.likelihood, {"by hand": answer()}, SAYS, [shifted], WRONG)]
