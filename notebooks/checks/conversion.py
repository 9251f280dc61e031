"""12: the score of a DDPM's x_i from the noise that it predicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from checks import judge

BETAS = np.array([0.02, 0.05, 0.11, 0.2, 0.32, 0.27, 0.4])  # with no order that could hide a wrong index
STEPS = (2, 4, 6)


def score_from_noise(answer: Callable[..., object]) -> None:
    """Judge ``answer(epsilon [B, D], betas [N], i) -> [B, D]``, the score of x_i, i counted from 1, to 1e-9."""
    noises = [np.random.default_rng(i).normal(size=(3, 2)) for i in STEPS]
    given = []
    for i, epsilon in zip(STEPS, noises, strict=True):
        value = judge.call(
            answer, epsilon.copy(), BETAS.copy(), i, hint="epsilon is [B, D], betas [N], i a whole number."
        )
        if value is None or not judge.shaped(
            value, epsilon.shape, hint="one score per row of epsilon; alpha_bar is one number, of step i."
        ):
            return
        given.append(value)
    bars, alphas = np.cumprod(1 - BETAS), 1 - BETAS

    def of(factor: Callable[[int], Any]) -> np.ndarray:
        return np.array([factor(i) * epsilon for i, epsilon in zip(STEPS, noises, strict=True)])

    def root(i: int) -> Any:
        return np.sqrt(1 - bars[i - 1])

    def sigma(i: int) -> Any:
        return root(i) / np.sqrt(bars[i - 1])

    judge.compare(
        given,
        of(lambda i: -1 / root(i)),
        tolerance=1e-9,
        right="within 1e-9 at three steps of a DDPM with seven betas.",
        known={
            "check the sign: the score points back, against the noise that was added": of(lambda i: 1 / root(i)),
            "divide by the standard deviation of the noise in x_i, the root of 1 - alpha_bar, not by the variance": of(
                lambda i: -1 / root(i) ** 2
            ),
            "sign and root: the score is minus epsilon over the root of 1 - alpha_bar": of(lambda i: 1 / root(i) ** 2),
            "the noise of all i steps is in x_i, not that of the last: alpha_bar is the product of 1 - beta up to step i, and "
            "sqrt(beta_i) is the noise of step i alone": of(lambda i: -1 / np.sqrt(1 - alphas[i - 1])),
            "alpha_bar, the product of 1 - beta up to step i, and then the root of one minus it; this divides by 1 - beta_i": of(
                lambda i: -1 / alphas[i - 1]
            ),
            "this divides by beta_i: alpha_bar is the product over all steps up to i, and the root is missing": of(
                lambda i: -1 / BETAS[i - 1]
            ),
            "this is the score of y = x / sqrt(alpha_bar), s(y, sigma) = -epsilon / sigma: divide by sqrt(alpha_bar) once more to be in "
            "the coordinates of x": of(lambda i: -1 / sigma(i)),
            "the identity divides the score of y by sqrt(alpha_bar), it does not multiply: x is y made smaller, so its gradients are "
            "larger": of(lambda i: -np.sqrt(bars[i - 1]) / sigma(i)),
            "the fraction in the root is upside down: sigma² is (1 - alpha_bar) / alpha_bar, and grows with the step; besides, that "
            "gives the score of y: divide by sqrt(alpha_bar) once more": of(lambda i: -sigma(i)),
            "sqrt(alpha_bar) is what is left of x_0; the noise has the deviation sqrt(1 - alpha_bar)": of(
                lambda i: -1 / np.sqrt(bars[i - 1])
            ),
            "divide by the deviation: the score grows as the noise shrinks": of(lambda i: -root(i)),
            "this is minus the noise itself: a score is in units of 1/x, the noise divided by its deviation": of(
                lambda i: -1.0
            ),
            "this is the noise itself: turn it round and divide by its deviation": of(lambda i: 1.0),
            "one step too many: i counts from 1, so the product has i factors, betas[:i]": of(
                lambda i: -1 / root(i + 1)
            ),
            "one step too few: i counts from 1, so the product has i factors, betas[:i]": of(
                lambda i: -1 / root(i - 1)
            ),
            "the product is over all steps, whatever i is: take the first i": of(lambda i: -1 / root(len(BETAS))),
            "alpha_bar is a product of 1 - beta, not one minus a sum of betas: the two agree for small betas alone": of(
                lambda i: -1 / np.sqrt(BETAS[:i].sum())
            ),
        },
        otherwise="x_i is Gaussian about sqrt(alpha_bar) x_0 with the deviation sqrt(1 - alpha_bar); notebook 03 has the score of that",
        place=lambda k: f"at step {STEPS[k // 6]}",
    )
