"""15: the score of a noisy point given a measurement of the clean one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from checks import judge

MEAN, COVARIANCE = np.array([1.0, -0.5]), np.array([[2.0, 0.7], [0.7, 0.8]])
Y, TAU, SIGMA = 2.5, 0.4, 1.3
POINTS = np.array([[0.5, 0.2], [3.0, -2.0], [-1.0, 1.5], [2.0, 2.0]])


def _log_joint(x: np.ndarray) -> np.ndarray:
    """log N((x, y); their common mean, their common covariance), x [B, 2]: the truth is its gradient, no formula of the answer's."""
    both = np.zeros((3, 3))
    both[:2, :2] = COVARIANCE + SIGMA**2 * np.eye(2)
    both[:2, 2] = both[2, :2] = COVARIANCE[:, 0]  # the noise of x and that of y have nothing in common
    both[2, 2] = COVARIANCE[0, 0] + TAU**2
    off = np.concatenate([x - MEAN, np.full((len(x), 1), Y - MEAN[0])], 1)
    return np.asarray(-0.5 * (off @ np.linalg.inv(both) * off).sum(1))


def score_given_y(answer: Callable[..., object]) -> None:
    """Judge ``answer(x, y, mean, covariance, tau, sigma) -> [B, 2]``, the score of x given y, to 1e-6."""
    h, axes = 1e-4, np.eye(2)
    truth = np.stack([(_log_joint(POINTS + h * e) - _log_joint(POINTS - h * e)) / (2 * h) for e in axes], 1)
    given = judge.call(
        answer,
        POINTS.copy(),
        Y,
        MEAN.copy(),
        COVARIANCE.copy(),
        TAU,
        SIGMA,
        hint="x is [B, 2], mean [2], covariance [2, 2], the others are numbers.",
    )
    if given is None or not judge.shaped(given, POINTS.shape, hint="one arrow per point, [B, 2]."):
        return
    s = np.linalg.inv(COVARIANCE + SIGMA**2 * np.eye(2))
    prior = -(POINTS - MEAN) @ s
    clean = MEAN + (POINTS - MEAN) @ s @ COVARIANCE
    left, own = (COVARIANCE - COVARIANCE @ s @ COVARIANCE)[0, 0], COVARIANCE[0, 0]
    chain, axis = (s @ COVARIANCE)[:, 0], axes[0]
    residual, raw = Y - clean[:, :1], Y - POINTS[:, :1]
    right = residual / (left + TAU**2) * chain
    height = np.exp(-0.5 * residual**2 / (left + TAU**2)) / np.sqrt(2 * np.pi * (left + TAU**2))
    judge.compare(
        given,
        truth,
        tolerance=1e-6,
        right=f"within 1e-6 at all {len(POINTS)} points, at sigma = {SIGMA:g}.",
        known={
            "this is the likelihood of a clean x, (y - x) / tau²: sigma does not occur in it; a noisy x says less about y, so start "
            "from the mean of the clean point": prior + raw / TAU**2 * axis,
            "y is compared with the noisy x: widening the variance to sigma² + tau² is not enough; compare it with the mean of the clean "
            "point": prior + raw / (SIGMA**2 + TAU**2) * axis,
            "the prior's score is missing: Bayes' rule adds the gradient of the likelihood to it": right,
            "the gradient of the likelihood is missing: so far y changes nothing": prior,
            "the two gradients are multiplied: densities are multiplied, so their logarithms, and the gradients, are added": prior
            * right,
            "it is the gradient of p(y | x), not of its logarithm: leave the density itself out": prior
            + right * height,
            "the variance of y given x is tau² only: the clean point is not known exactly, add the first entry of C": prior
            + residual / TAU**2 * chain,
            "the variance is that of y before x is seen, the first entry of the covariance plus tau²: x has told something, take C": prior
            + residual / (own + TAU**2) * chain,
            "the variance is C without tau²: the measurement has noise of its own": prior + residual / left * chain,
            "the variance has tau, not tau²": prior + residual / (left + TAU) * chain,
            "the variance has sigma² in place of C: the clean point is known better than that, by what the data are": prior
            + residual / (SIGMA**2 + TAU**2) * chain,
            "the chain rule is missing: the mean of the clean point moves with x by the first row of covariance times S inverse, in "
            "both coordinates": prior + residual / (left + TAU**2) * axis,
            "only the first coordinate is pulled: the two are correlated, so y tells about the second as well": prior
            + right * axis,
            "check the sign of the pull: it leads to where the clean point would agree with y, y - clean": prior
            - right,
            "sigma² is missing in S: the score of the noisy x has covariance plus sigma²": -(POINTS - MEAN)
            @ np.linalg.inv(COVARIANCE)
            + right,
            "S has sigma in place of sigma²: variances add, S = covariance + sigma² I": _with_sigma(),
            "all zeros so far: begin with the score of x alone": np.zeros_like(truth),
        },
        otherwise="let tau be very large: what must be left then? Then sigma very small: where does y pull",
        place=lambda k: f"at x = {POINTS[k // 2].tolist()}, coordinate {k % 2 + 1}",
    )


def _with_sigma() -> np.ndarray:
    """The answer with S = covariance + sigma I, throughout."""
    s = np.linalg.inv(COVARIANCE + SIGMA * np.eye(2))
    off = POINTS - MEAN
    variance = (COVARIANCE - COVARIANCE @ s @ COVARIANCE)[0, 0] + TAU**2
    residual = Y - (MEAN + off @ s @ COVARIANCE)[:, :1]
    return np.asarray(-off @ s + residual / variance * (s @ COVARIANCE)[:, 0])
