"""01: the score of a mixture."""

import numpy as np
import torch

from answers import Exercise, plus
from checks import score
from toyscore.distributions import GaussianMixture


def answer(heights=lambda h, v, w: w * h / v, pulls=lambda differences, v: differences / v[:, None]):
    """The mean of the components' scores by these heights, of exp(-distance² / 2 v), variances and weights."""

    def written(x, means, variances, weights):
        differences = means - x[:, None]
        r = heights(np.exp(-(differences**2).sum(2) / (2 * variances)), variances, weights)[..., None]
        return (r * pulls(differences, variances)).sum(1) / r.sum(1)

    return written


def right(x, means, variances, weights):
    p = GaussianMixture(torch.tensor(means), torch.tensor(variances), torch.tensor(weights))
    return p.score(torch.tensor(x)).numpy()


def plain_sum(x, m, v, w, *, weighed=False):
    return (((m - x[:, None]) / v[:, None]) * (w[:, None] if weighed else 1)).sum(1)


def density(x, m, v, w):
    differences = m - x[:, None]
    heights = w * np.exp(-(differences**2).sum(2) / (2 * v)) / (2 * np.pi * v)
    return (heights[..., None] * differences / v[:, None]).sum(1)


WRONG = {
    "plain sum of the components' scores": plain_sum,
    "weighed by the mixture weights alone": lambda *a: plain_sum(*a, weighed=True),
    "leave out the mixture weights": answer(heights=lambda h, v, w: h / v),
    "leave out the normaliser": answer(heights=lambda h, v, w: w * h),
    "divided by its variance": answer(pulls=lambda differences, v: differences),
    "only the far point is wrong": answer(),
    "check the sign": lambda *a: -answer()(*a),
    "the score is the gradient of its logarithm": density,
    "all zeros so far": lambda x, *_: 0 * x,
    "one arrow per point, [B, 2]": lambda x, *_: x[:, 0],
    "x is [B, 2], means [K, 2]": lambda x, *_: x @ x,
    "a single component first": lambda x, *_: x + 7,
}

SAYS = "Correct: within 1e-6 at all 4 points"
EXERCISES = [Exercise(score.mixture_score, {"by toyscore": right}, SAYS, [plus(right, 2e-6)], WRONG)]
