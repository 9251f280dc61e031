"""What all samplers need: checks of the start, an eye on divergence, the end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable

from torch import Tensor

from toyscore import operators as ops
from toyscore.operators import DivergenceError, Score, Sigma

_CHECK_EVERY = 16
_GROWTH = 1e9


def final(chain: Iterable[Tensor]) -> Tensor:
    """The last state of a chain, keeping one state in memory.

    Raises:
        ValueError: the chain has no state left.
    """
    last = deque(chain, maxlen=1)
    if not last:
        raise ValueError("the chain has no state: it was consumed already, or has zero steps; make a new one")
    return last[0]


def check_start(score: Score, x: Tensor, sigma: Sigma, step_size: float) -> None:
    ops.check_score(score)
    ops.check_batch(x)
    ops.check_finite(x)
    ops.check_sigma(sigma, x)
    ops.check_positive(step_size, "step_size")


def watched(
    start: Tensor, n_steps: int, at: Callable[[int], tuple[Sigma, float]], sigma_max: float = 0.0
) -> Callable[[Tensor, int], None]:
    """A function of state and its number that raises when the state has left its bound; ``at(n)`` is (sigma, step size)."""
    bound = _GROWTH * max(1.0, float(start.abs().max()), sigma_max)
    checked = 0

    def watch(x: Tensor, n: int) -> None:
        nonlocal checked
        if n % _CHECK_EVERY and n != n_steps:
            return
        largest = float(x.abs().max())
        if not largest <= bound:
            sigma, step_size = at(n)
            level = (
                f"sigma = {float(sigma):.6g}"
                if not isinstance(sigma, Tensor) or sigma.ndim == 0
                else f"sigma from {float(sigma.min()):.6g} to {float(sigma.max()):.6g}"
            )
            cause = (
                "a Gaussian of variance v is stable only while the step size is below 4 v, so lower step_size"
                if not math.isnan(largest)
                else "if the score is finite there, lower step_size, else look for the NaN in the score"
            )
            raise DivergenceError(
                f"the chain diverged between states {checked + 1} and {n}, at {level} with step size {step_size:.6g}: "
                f"max |x| = {largest:.3g} broke the bound {bound:.3g}; {cause}"
            )
        checked = n

    return watch
