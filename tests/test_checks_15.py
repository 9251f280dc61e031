"""15: every usual mistake about a score given a measurement gets its own hint."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "notebooks"))
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


@pytest.mark.parametrize(("hint", "answer"), WRONG.items(), ids=WRONG)
def test_a_wrong_score_gets_the_hint_that_helps(hint, answer, capsys):
    control.score_given_y(answer)
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ")
    assert hint in said


def test_a_right_score_is_right_and_nearly_right_is_not(capsys):
    control.score_given_y(pulled())
    assert capsys.readouterr().out.startswith("Correct: within 1e-6 at all 4 points")
    control.score_given_y(lambda *a: pulled()(*a) + 2e-6)
    assert capsys.readouterr().out.startswith("Not yet: ")


def test_the_truth_is_the_librarys():
    """On Gaussian data the score guided by a measurement is the gradient of the joint density that the check takes for the truth"""
    import torch

    from toyscore.distributions import GaussianMixture
    from toyscore.samplers import guided, of_measurement

    p = GaussianMixture(torch.tensor(control.MEAN[None]), torch.tensor(control.COVARIANCE[None]))
    x, y = torch.tensor(control.POINTS), torch.tensor([control.Y], dtype=torch.float64)
    likelihood = of_measurement(p.score, torch.tensor([[1.0, 0.0]], dtype=torch.float64), y, noise_std=control.TAU)
    found = guided(p.score, likelihood)(x, control.SIGMA).detach().numpy()
    given = (control.POINTS, control.Y, control.MEAN, control.COVARIANCE, control.TAU, control.SIGMA)
    np.testing.assert_allclose(found, pulled()(*given), atol=1e-10)
