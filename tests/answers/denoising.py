"""03: the denoising target and its loss."""

import numpy as np

from answers import Exercise, plus
from checks import denoising


def right_target(clean, noisy, sigma):
    return (clean - noisy) / sigma[:, None] ** 2


def right_loss(s, target, sigma):
    return 0.5 * sigma**2 * ((s - target) ** 2).sum(1)


def scaled(factor):
    return lambda c, n, sigma: right_target(c, n, sigma) * factor(sigma[:, None])


TARGETS = {
    "it points back": scaled(lambda s: -1),
    "that is -z / sigma^2": scaled(lambda s: 1 / s),
    "twice wrong": scaled(lambda s: -1 / s),
    "that is -z, the noise": scaled(lambda s: s),
    "that is the noise z": scaled(lambda s: -s),
    "not divided by sigma^2 yet": scaled(lambda s: s**2),
    "take x_clean - x_noisy": scaled(lambda s: -(s**2)),
    "no half here": scaled(lambda s: 0.5),
    "that is the clean point": lambda c, n, sigma: c,
    "zero so far": lambda c, n, sigma: 0 * c,
    "by hand": lambda c, n, sigma: c + 7,
    "nothing is summed here": lambda c, n, sigma: right_target(c, n, sigma).sum(1),
    "write sigma[:, None]": lambda c, n, sigma: (c - n) / sigma**2,
}


LOSSES = {
    "The loss lacks its half": lambda s, t, sigma: 2 * right_loss(s, t, sigma),
    "not their mean.": lambda s, t, sigma: 0.5 * sigma**2 * ((s - t) ** 2).mean(1),
    "not their mean, and has a half": lambda s, t, sigma: sigma**2 * ((s - t) ** 2).mean(1),
    "The weight sigma^2 is missing": lambda s, t, sigma: 0.5 * ((s - t) ** 2).sum(1),
    "The weight sigma^2 and the half are missing": lambda s, t, sigma: ((s - t) ** 2).sum(1),
    "the sum in place of the mean": lambda s, t, sigma: ((s - t) ** 2).mean(1),
    "The weight is sigma squared, not sigma": lambda s, t, sigma: 0.5 * sigma * ((s - t) ** 2).sum(1),
    "Square the differences": lambda s, t, sigma: 0.5 * sigma**2 * np.linalg.norm(s - t, axis=1),
    "it does not divide": lambda s, t, sigma: 0.5 * ((s - t) ** 2).sum(1) / sigma**2,
    "the target has its sign already": lambda s, t, sigma: right_loss(s, -t, sigma),
    "The loss is zero so far": lambda s, t, sigma: 0 * sigma,
    "square, sum over axis 1": lambda s, t, sigma: sigma + 7,
    "the loss is per example": lambda s, t, sigma: right_loss(s, t, sigma).mean(),
    "sigma is [B]": lambda s, t, sigma: s @ t,
}

EXERCISES = [
    Exercise(
        denoising.target_and_loss,
        {"by hand": (right_target, right_loss)},
        "Correct: ",
        [(plus(right_target, 2e-5), right_loss), (right_target, plus(right_loss, 2e-5))],
        {hint: (target, right_loss) for hint, target in TARGETS.items()}
        | {hint: (right_target, loss) for hint, loss in LOSSES.items()},
    )
]
