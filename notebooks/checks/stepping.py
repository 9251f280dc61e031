"""05: the variance at which Langevin dynamics settles on a Gaussian."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from checks import judge

_STABLE = [(1.0, 0.1), (1.0, 1.0), (0.25, 0.9), (4.0, 3.0), (2.0, 6.0)]  # v, epsilon
_UNSTABLE = [(1.0, 5.0), (0.25, 1.0), (0.5, 7.0)]  # the second exactly at the bound


def stationary_variance(answer: Callable[..., object]) -> None:
    """Judge ``answer(v, epsilon) -> float``, infinite where no chain settles, to 1e-6.

    The truth is the recursion of the variance, run until it no longer moves, not a formula.
    """
    hint = "v and epsilon are single numbers; return one number, np.inf where the chain does not settle."
    given = []
    for v, epsilon in _STABLE + _UNSTABLE:
        one = judge.call(answer, np.float64(v), np.float64(epsilon), hint=hint)
        if one is None or not judge.shaped(one, (), hint=hint):
            return
        given.append(float(one))
    settled, runaway = np.array(given[: len(_STABLE)]), np.array(given[len(_STABLE) :])
    v, epsilon = np.array(_STABLE).T
    f, truth = 1 - epsilon / (2 * v), v.copy()
    for _ in range(20_000):
        truth = f**2 * truth + epsilon
    kept = ~np.isposinf(settled)  # the others are judged below: only where those kept are right is the bound to blame
    known = {
        "that is v itself: a finite step settles wider; solve settled = f^2 settled + epsilon for settled": v,
        "that is the variance one step after v: what is multiplied by f^2 is the variance that has settled, not v": f**2
        * v
        + epsilon,
        "f is not squared: the drift multiplies x by f, and the variance by f^2": epsilon / (1 - f),
        "epsilon/2v where epsilon/4v belongs: that is the answer for steps eta s + sqrt(2 eta) z; here the drift is epsilon/2 times "
        "the score, so f = 1 - epsilon/2v, and 1 - f^2 = epsilon/v (1 - epsilon/4v)": v / (1 - epsilon / (2 * v)),
        "epsilon is halved once too often: it is ours already, and f = 1 - epsilon/2v": v / (1 - epsilon / (8 * v)),
        "the sign of epsilon/4v: the chain settles wider than v, not narrower": v / (1 + epsilon / (4 * v)),
        "half of it: the noise is sqrt(epsilon) z, so it adds epsilon to the variance at each step, not epsilon/2": truth
        / 2,
        "the noise adds its variance, epsilon, at each step, not its standard deviation": np.sqrt(epsilon) / (1 - f**2),
        "that is the standard deviation: square it": np.sqrt(truth),
        "that is the quotient to v: multiply by v": truth / v,
    }
    right = "within 1e-6 of the recursion, and infinite from 4 v on."
    if not kept.any() or not (np.abs(settled - truth)[kept] <= 1e-6 * np.maximum(1.0, truth)[kept]).all():
        kept = kept if kept.any() else ~kept
        judge.compare(
            settled[kept],
            truth[kept],
            tolerance=1e-6,
            right=right,
            known={text: wrong[kept] for text, wrong in known.items()},
            otherwise="solve settled = f^2 settled + epsilon for settled, with f = 1 - epsilon/2v",
            place=lambda k: f"for v = {v[kept][k]:g}, epsilon = {epsilon[kept][k]:g}",
        )
        return
    if not kept.all():
        worst = int(kept.argmin())
        print(
            f"Not yet: for v = {v[worst]:g}, epsilon = {epsilon[worst]:g} it is inf, but the chain settles at {truth[worst]:.6g}.\n"
            "Hint: the bound is not 2 v: from there on f = 1 - epsilon/2v is negative, the chain jumps over the mean, and still "
            "settles as long as |f| < 1."
        )
        return
    if np.isposinf(runaway).all():
        print(f"Correct: {right}")
        return
    worst = int((~np.isposinf(runaway)).argmax())
    at, size = _UNSTABLE[worst]
    advice = (
        "at epsilon = 4 v exactly f is -1: the variance grows by epsilon at each step, for ever; return np.inf there too"
        if size == 4 * at
        else "a variance cannot be negative: the fixed point is there, but the chain moves away from it; return np.inf where |f| >= 1"
        if runaway[worst] < 0
        else "each step multiplies x by f, and for epsilon > 4 v |f| is above 1; return np.inf there"
    )
    print(f"Not yet: for v = {at:g}, epsilon = {size:g} it is {runaway[worst]:.6g}, the truth inf.\nHint: {advice}.")
