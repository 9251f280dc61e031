"""03: the target of denoising score matching, and its weighted loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from checks import judge

_RIGHT = "target and loss agree with the truth at five noise levels, example by example."


def target_and_loss(target: Callable[..., object], loss: Callable[..., object]) -> None:
    """Judge ``target(x_clean, x_noisy, sigma) -> [B, D]`` and ``loss(s, target, sigma) -> [B]``, to 1e-9, with sigma [B].

    The truth of the target is a difference quotient of the log density of the noise; the loss is 1/2 sigma^2 |s - target|^2.
    """
    draw = np.random.default_rng(0)
    sigma = np.array([0.3, 0.8, 1.5, 2.5, 4.0])
    clean, z, s = draw.normal(size=(3, 5, 3))
    noisy = clean + sigma[:, None] * z
    h = 1e-4

    def log_density(x: np.ndarray) -> np.ndarray:
        return -((x - clean) ** 2).sum(1) / (2 * sigma**2)

    truth = np.stack([(log_density(noisy + h * e) - log_density(noisy - h * e)) / (2 * h) for e in np.eye(3)], 1)
    spread = sigma[:, None]
    advice = "x_clean and x_noisy are [B, D], sigma is [B]: write sigma[:, None] to spread it over the coordinates."
    given = judge.call(target, clean.copy(), noisy.copy(), sigma.copy(), hint=advice)
    if given is None or not judge.shaped(
        given, truth.shape, hint="one arrow per example, [B, D]; nothing is summed here."
    ):
        return
    known = {
        "the target: check the sign; it points back, from the noisy point to the clean one": -truth,
        "the target: that is -z / sigma^2. The difference x_noisy - x_clean already holds one sigma: divide *it* by sigma^2": truth
        / spread,
        "the target: that is z / sigma^2, twice wrong: the sign, and one sigma too many": -truth / spread,
        "the target: that is -z, the noise; divide the difference by sigma^2, not by sigma": truth * spread,
        "the target: that is the noise z; the target is -z / sigma": -truth * spread,
        "the target: the difference is not divided by sigma^2 yet": truth * spread**2,
        "the target: take x_clean - x_noisy, and divide it by sigma^2": -truth * spread**2,
        "the target: no half here; the 2 of 2 sigma^2 goes with the derivative of the square": truth / 2,
        "the target: that is the clean point; the target is an arrow from the noisy point to it, over sigma^2": clean,
        "the target: zero so far": np.zeros_like(truth),
    }
    if np.nan_to_num(np.abs(given - truth) / np.maximum(1, np.abs(truth)), nan=np.inf).max() > 1e-6:
        judge.compare(
            given,
            truth,
            tolerance=1e-6,
            right="",
            known=known,
            otherwise="the target: try one example by hand, with sigma = 1 and then sigma = 2",
            place=lambda k: f"for sigma = {sigma[k // 3]:g}, coordinate {k % 3}, the target:",
        )
        return
    squares = (s - truth) ** 2
    given = judge.call(loss, s.copy(), truth.copy(), sigma.copy(), hint="s and target are [B, D], sigma is [B].")
    if given is None:
        return
    kept = "the loss is per example: sum over the coordinates, axis 1, and leave the batch to the training loop."
    if not judge.shaped(given, sigma.shape, hint=f"the target is right; {kept}"):
        return
    right = sigma**2 * squares.sum(1) / 2
    known = {
        "the target is right. The loss lacks its half": 2 * right,
        "the target is right. The loss is a sum over coordinates, not their mean": right / 3,
        "the target is right. The loss is a sum over coordinates, not their mean, and has a half": 2 * right / 3,
        "the target is right. The weight sigma^2 is missing": squares.sum(1) / 2,
        "the target is right. The weight sigma^2 and the half are missing": squares.sum(1),
        "the target is right. The loss needs the half, the weight sigma^2, and the sum in place of the mean": squares.mean(
            1
        ),
        "the target is right. The weight is sigma squared, not sigma": right / sigma,
        "the target is right. Square the differences: this is half the norm": sigma**2 * np.sqrt(squares.sum(1)) / 2,
        "the target is right. The weight multiplies by sigma^2, it does not divide": squares.sum(1) / (2 * sigma**2),
        "the target is right. The residual is s minus the target: the target has its sign already": sigma**2
        * ((s + truth) ** 2).sum(1)
        / 2,
        "the target is right. The loss is zero so far": np.zeros_like(sigma),
    }
    judge.compare(
        given,
        right,
        tolerance=1e-9,
        right=_RIGHT,
        known=known,
        otherwise="the target is right. For the loss: square, sum over axis 1, times sigma^2 / 2",
        place=lambda k: f"for sigma = {sigma[k]:g} the loss:",
    )
