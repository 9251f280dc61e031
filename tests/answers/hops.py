"""07: the spectral gap from the labels of chains."""

import numpy as np
import torch

from answers import Exercise, plus
from checks import hops
from toyscore.diagnostics import hop_rate
from toyscore.distributions import GaussianMixture


def n_hops(labels):
    return (labels[1:] != labels[:-1]).sum()


def right(labels, weight, step_size):
    t, b = labels.shape
    return n_hops(labels) / ((t - 1) * b * step_size * 2 * weight * (1 - weight))


def across(labels, weight, step_size):
    return right(labels, weight, step_size) * (labels[:, 1:] != labels[:, :-1]).sum() / n_hops(labels)


def one_way(sign):
    return lambda x, w, e: right(x, w, e) * (np.diff(x, axis=0) == sign).sum() / n_hops(x)


def two_rates(labels, weight, step_size):
    time = (labels.shape[0] - 1) * labels.shape[1] * step_size
    up, down = ((np.diff(labels, axis=0) == sign).sum() for sign in (1, -1))
    return up / ((1 - weight) * time) + down / (weight * time)


def two_rates_as_seen(labels, weight, step_size):
    up, down = ((np.diff(labels, axis=0) == sign).sum() for sign in (1, -1))
    return up / ((labels[:-1] == 0).sum() * step_size) + down / ((labels[:-1] == 1).sum() * step_size)


def out_of_reach(labels, weight, step_size):
    return labels[len(labels)]


WRONG = {
    "that is the number of hops": lambda x, w, e: n_hops(x),
    "that is the rate of hops: divide by 2 w (1 - w)": lambda x, w, e: right(x, w, e) * 2 * w * (1 - w),
    "not w (1 - w)": lambda x, w, e: 2 * right(x, w, e),
    "these are those from 0 to 1": one_way(1),
    "these are those from 1 to 0": one_way(-1),
    "cancel here": lambda x, w, e: right(x, w, e) * np.diff(x, axis=0).sum() / n_hops(x),
    "a step takes the time step_size, not 1": lambda x, w, e: right(x, w, e) * e,
    "divide by step_size instead of multiplying": lambda x, w, e: right(x, w, e) * e**2,
    "each of the B chains has its own": lambda x, w, e: right(x, w, e) * x.shape[1],
    "divide by the time of all chains together": lambda x, w, e: n_hops(x) / (len(x) * e * 2 * w * (1 - w)),
    "divide by the number of steps too": lambda x, w, e: right(x, w, e) * (len(x) - 1),
    "T states are T - 1 steps apart": lambda x, w, e: n_hops(x) / (x.size * e * 2 * w * (1 - w)),
    "this multiplies by 2 w (1 - w): divide": lambda x, w, e: right(x, w, e) * (2 * w * (1 - w)) ** 2,
    "here neighbouring chains are compared": across,
    "each from its own hops: right on average, too": two_rates,
    "the time seen in its mode": two_rates_as_seen,
    "the weight is given: the share": lambda x, w, e: right(x, w, e) * w * (1 - w) / (x.mean() * (1 - x.mean())),
    "nothing was counted": lambda x, w, e: 0,
    "in equilibrium it is 2 w (1 - w) gap": lambda x, w, e: 7.0,
    "labels is [T, B]": out_of_reach,
    "return one number": lambda x, w, e: x.mean(1),
}


def by_toyscore(labels, weight, step_size):
    """Labels as states on a line: every state is in a core."""
    pair = GaussianMixture([[1.0], [0.0]], 1e-4, [weight, 1 - weight])
    return hop_rate(torch.tensor(labels)[:, :, None].float(), pair, step_size=step_size).gap


RIGHT = {"by hand": right, "by toyscore": by_toyscore}
EXERCISES = [Exercise(hops.gap, RIGHT, "Correct: ", [plus(right, 1e-4), lambda *given: None], WRONG)]
