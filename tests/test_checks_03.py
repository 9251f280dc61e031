"""Every usual mistake in the denoising target and its loss gets its hint, and the right answers are right."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "notebooks"))
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


def said(capsys, target, loss):
    denoising.target_and_loss(target, loss)
    return capsys.readouterr().out


@pytest.mark.parametrize("hint", TARGETS)
def test_a_wrong_target_gets_the_hint_that_helps(hint, capsys):
    text = said(capsys, TARGETS[hint], right_loss)
    assert text.startswith("Not yet")
    assert hint in text.split("Hint: ")[1]


@pytest.mark.parametrize("hint", LOSSES)
def test_a_wrong_loss_gets_the_hint_that_helps(hint, capsys):
    text = said(capsys, right_target, LOSSES[hint])
    assert text.startswith("Not yet")
    assert hint in text.split("Hint: ")[1]


def test_right_answers_are_right_and_nearly_right_ones_are_not(capsys):
    assert said(capsys, right_target, right_loss).startswith("Correct: ")
    assert said(capsys, lambda *a: right_target(*a) + 2e-5, right_loss).startswith("Not yet")
    assert said(capsys, right_target, lambda *a: right_loss(*a) + 2e-5).startswith("Not yet")
