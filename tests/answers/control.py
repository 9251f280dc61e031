"""15: the score given a measurement."""

import numpy as np

from answers import Exercise, plus
from checks import control


def parts(x, y, mean, covariance, tau, sigma):
    """Prior score, the mean of the clean point, the first entry of its covariance, and the first column of the mean's derivative."""
    s = np.linalg.inv(covariance + sigma**2 * np.eye(2))
    gain = covariance @ s
    return -(x - mean) @ s, mean + (x - mean) @ gain.T, (covariance - gain @ covariance)[0, 0], gain[0]


def pulled(variance=lambda left, tau, sigma, own: left + tau**2, along=lambda gain: gain, sign=1.0, alone=False):
    def answer(x, y, mean, covariance, tau, sigma):
        prior, clean, left, gain = parts(x, y, mean, covariance, tau, sigma)
        pull = sign * (y - clean[:, :1]) / variance(left, tau, sigma, covariance[0, 0]) * along(gain)
        return pull if alone else prior + pull

    return answer


def raw(variance):
    def answer(x, y, mean, covariance, tau, sigma):
        prior, *_ = parts(x, y, mean, covariance, tau, sigma)
        return prior + np.stack([y - x[:, 0], 0 * x[:, 0]], 1) / variance(tau, sigma)

    return answer


def product(*a):
    return parts(*a)[0] * pulled(alone=True)(*a)


def density(x, y, mean, covariance, tau, sigma):
    prior, clean, left, gain = parts(x, y, mean, covariance, tau, sigma)
    v = left + tau**2
    height = np.exp(-((y - clean[:, :1]) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v)
    return prior + height * (y - clean[:, :1]) / v * gain


def no_noise(x, y, mean, covariance, tau, sigma):
    return -(x - mean) @ np.linalg.inv(covariance) + pulled(alone=True)(x, y, mean, covariance, tau, sigma)


WRONG = {
    "likelihood of a clean x": raw(lambda tau, sigma: tau**2),
    "widening the variance to sigma² + tau² is not enough": raw(lambda tau, sigma: tau**2 + sigma**2),
    "the prior's score is missing": pulled(alone=True),
    "so far y changes nothing": lambda *a: parts(*a)[0],
    "the two gradients are multiplied": product,
    "leave the density itself out": density,
    "the variance of y given x is tau² only": pulled(lambda left, tau, sigma, own: tau**2),
    "that of y before x is seen": pulled(lambda left, tau, sigma, own: own + tau**2),
    "the variance is C without tau²": pulled(lambda left, tau, sigma, own: left),
    "the variance has tau, not tau²": pulled(lambda left, tau, sigma, own: left + tau),
    "the variance has sigma² in place of C": pulled(lambda left, tau, sigma, own: sigma**2 + tau**2),
    "the chain rule is missing": pulled(along=lambda gain: np.array([1.0, 0.0])),
    "only the first coordinate is pulled": pulled(along=lambda gain: gain * [1, 0]),
    "check the sign of the pull": pulled(sign=-1.0),
    "sigma² is missing in S": no_noise,
    "S has sigma in place of sigma²": lambda x, y, mean, c, tau, sigma: pulled()(x, y, mean, c, tau, sigma**0.5),
    "all zeros so far": lambda x, *_: 0 * x,
    "let tau be very large": lambda x, *_: x + 7,
    "one arrow per point": lambda x, *_: x[:, 0],
    "x is [B, 2], mean [2]": lambda x, y: x,
}

right = pulled()
SAYS = "Correct: within 1e-6 at all 4 points"
EXERCISES = [Exercise(control.score_given_y, {"by hand": right}, SAYS, [plus(right, 2e-6)], WRONG)]
