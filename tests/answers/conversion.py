"""12: a score from a predicted noise."""

import numpy as np
import torch

from answers import Exercise
from checks import conversion
from toyscore import sde
from toyscore.models.adapters import ddpm_clock, from_epsilon
from toyscore.noise import ddpm_levels


def bar(betas, i):
    return np.prod(1 - betas[:i])


def right(e, b, i):
    return -e / np.sqrt(1 - bar(b, i))


WRONG = {
    "check the sign": lambda *a: -right(*a),
    "not by the variance": lambda e, b, i: -e / (1 - bar(b, i)),
    "sign and root": lambda e, b, i: e / (1 - bar(b, i)),
    "the noise of all i steps": lambda e, b, i: -e / np.sqrt(b[i - 1]),
    "this divides by 1 - beta_i": lambda e, b, i: -e / (1 - b[i - 1]),
    "this divides by beta_i": lambda e, b, i: -e / b[i - 1],
    "this is the score of y": lambda e, b, i: -e / np.sqrt((1 - bar(b, i)) / bar(b, i)),
    "the fraction in the root is upside down": lambda e, b, i: -e / np.sqrt(bar(b, i) / (1 - bar(b, i))),
    "it does not multiply": lambda e, b, i: -e * bar(b, i) / np.sqrt(1 - bar(b, i)),
    "what is left of x_0": lambda e, b, i: -e / np.sqrt(bar(b, i)),
    "divide by the deviation: the score grows": lambda e, b, i: -e * np.sqrt(1 - bar(b, i)),
    "this is minus the noise itself": lambda e, b, i: -e,
    "this is the noise itself": lambda e, b, i: e,
    "one step too many": lambda e, b, i: right(e, b, i + 1),
    "one step too few": lambda e, b, i: right(e, b, i - 1),
    "over all steps": lambda e, b, i: right(e, b, len(b)),
    "not one minus a sum": lambda e, b, i: -e / np.sqrt(np.sum(b[:i])),
    "x_i is Gaussian about": lambda e, b, i: e + 17,
    "one score per row": lambda e, b, i: right(e, b, i)[:, 0],
    "i a whole number": lambda e, b: e,
}


def by_toyscore(epsilon, betas, i):
    """A network that predicts epsilon, as ``from_epsilon`` reads it, by the identity of the processes."""
    betas, vp = torch.tensor(betas), sde.VP()
    score = from_epsilon(lambda x, t: torch.tensor(epsilon), ddpm_clock((1 - betas).cumprod(0)))
    t = vp.time(float(ddpm_levels(betas).flip(0)[i - 1]))
    return sde.time_score(vp, score)(torch.zeros(epsilon.shape, dtype=torch.float64), t).numpy()


RIGHT = {"by hand": right, "by toyscore": by_toyscore}
NEARLY = [lambda *a: right(*a) * (1 + 1e-7)]
EXERCISES = [Exercise(conversion.score_from_noise, RIGHT, "Correct: within 1e-9 at three steps", NEARLY, WRONG)]
