"""07: the spectral gap from hops between two modes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from checks import judge

_GAP, _WEIGHT, _STEP = 0.4, 0.7, 0.05


def gap(answer: Callable[..., object]) -> None:
    """Judge ``answer(labels, weight, step_size) -> float``, the gap that the labels [T, B] of chains between two modes show, to 1e-6.

    The labels are those of a chain with two states, of known rates; the hops are counted one by one.
    """
    labels = _labels(n_states=301, n_chains=40)
    hint = "labels is [T, B], weight and step_size are numbers; return one number."
    given = judge.call(answer, labels.copy(), _WEIGHT, _STEP, hint=hint)
    if given is None or not judge.shaped(given, (), hint=hint):
        return
    n, b = labels.shape
    up = sum(int(labels[t + 1, c] > labels[t, c]) for t in range(n - 1) for c in range(b))
    down = sum(int(labels[t + 1, c] < labels[t, c]) for t in range(n - 1) for c in range(b))
    across = int((labels[:, 1:] != labels[:, :-1]).sum())
    hops, both, share = up + down, 2 * _WEIGHT * (1 - _WEIGHT), labels.mean()
    rate = hops / ((n - 1) * b * _STEP)
    truth = rate / both
    chains = "divide by the time of all chains together, (T - 1) B step_size: each of the B chains has its own"
    only_rate = (
        "that is the rate of hops: divide by 2 w (1 - w), because a hop needs a chain in the mode that is left, w k12 + "
        "(1 - w) k21 = 2 w (1 - w) gap"
    )
    known = {
        "that is the number of hops: divide by the time in which they happened, (T - 1) B step_size, and by 2 w (1 - w)": hops,
        only_rate: rate,
        "2 w (1 - w), not w (1 - w): hops there and hops back are both counted": 2 * truth,
        "hops there and hops back both count; these are those from 0 to 1": truth * up / hops,
        "hops there and hops back both count; these are those from 1 to 0": truth * down / hops,
        "hops there and back cancel here: count where labels differ, not by how much": truth * (up - down) / hops,
        "a step takes the time step_size, not 1": truth * _STEP,
        "divide by step_size instead of multiplying by it": truth * _STEP**2,
        chains: truth * b,
        chains + ".": truth * b * (n - 1) / n,  # the same mistake, with T for T - 1
        "divide by the number of steps too: the time is (T - 1) B step_size": truth * (n - 1),
        "T states are T - 1 steps apart": truth * (n - 1) / n,
        "this multiplies by 2 w (1 - w): divide": rate * both,
        "compare each chain with itself a step later, labels[1:] and labels[:-1]; here neighbouring chains are compared": truth
        * across
        / hops,
        "the weight is given: the share of the labels is only an estimate of it": rate / (2 * share * (1 - share)),
        "that is k12 + k21, each from its own hops: right on average, too, but here hops both ways are counted together: their rate is "
        "2 w (1 - w) gap": (up / (1 - _WEIGHT) + down / _WEIGHT) / ((n - 1) * b * _STEP),
        "that is k12 + k21, each from its own hops and the time seen in its mode: the weight is given, and with it all hops together have "
        "the rate 2 w (1 - w) gap": (up / int((labels[:-1] == 0).sum()) + down / int((labels[:-1] == 1).sum())) / _STEP,
        "nothing was counted: labels are 0 and 1, and a hop is where labels[1:] != labels[:-1]": 0.0,
    }
    judge.compare(
        given,
        truth,
        tolerance=1e-6,
        right=f"{hops} hops show a gap of {truth:.3f}; the labels were made with {_GAP}.",
        known=known,
        otherwise="hops / ((T - 1) B step_size) is their rate; in equilibrium it is 2 w (1 - w) gap",
    )


def _labels(n_states: int, n_chains: int) -> np.ndarray:
    """Chains between two states with the gap and the weight, from equilibrium: [n_states, n_chains]."""
    random = np.random.default_rng(0)
    forget = 1 - np.exp(-_GAP * _STEP)
    labels = [random.random(n_chains) < _WEIGHT]
    for _ in range(n_states - 1):  # with probability `forget` a chain draws its label anew
        anew = random.random(n_chains) < forget
        labels.append(np.where(anew, random.random(n_chains) < _WEIGHT, labels[-1]))
    return np.array(labels).astype(int)
