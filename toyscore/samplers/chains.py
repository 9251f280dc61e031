"""What all samplers need: checks of the start, an eye on divergence, the end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from numbers import Real

from torch import Tensor

from toyscore import operators as ops
from toyscore.operators import DivergenceError, Score, Sigma

CHECK_EVERY = 16
_GROWTH = 1e9


def final(chain: Iterable[Tensor]) -> Tensor:
    """The last state of a chain, keeping one state in memory.

    >>> import torch
    >>> from toyscore.distributions import two_modes
    >>> from toyscore.samplers import final, langevin
    >>> p, x = two_modes(), torch.zeros(5, 2)
    >>> g = torch.Generator().manual_seed(0)
    >>> chain = langevin(p.score, x, step_size=0.1, n_steps=20, generator=g)
    >>> final(chain).shape
    torch.Size([5, 2])
    >>> list(chain)  # used up: for more samples make a new chain
    []

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


def check_share(value: float, name: str, largest: float = math.inf) -> None:
    """Refuse a share of the noise that is not a number from 0 to ``largest``."""
    if type(value) is float and 0 <= value <= largest and value < math.inf:  # the common case, at every step of a chain
        return
    if isinstance(value, Tensor) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real) or not (0 <= value <= largest and math.isfinite(value)):
        upto = f" and at most {largest:g}" if largest < math.inf else ""
        raise ValueError(
            f"{name} = {value!r}: it must be a number of at least 0{upto}; pass 0 for no noise, 1 for all of it"
        )


def watched(
    start: Tensor,
    n_steps: int,
    where: Callable[[int], str],
    *,
    sigma_max: float = 0.0,
    remedy: str = "a Gaussian of variance v is stable only while the step size is below 4 v, so lower step_size",
) -> Callable[[Tensor, int], None]:
    """A function of state and its number that raises when the state has left its bound; ``where(n)`` is of what state n was made."""
    bound = _GROWTH * max(1.0, float(start.abs().max()), sigma_max)
    checked = 0

    def watch(x: Tensor, n: int) -> None:
        nonlocal checked
        if n % CHECK_EVERY and n != n_steps:
            return
        largest = float(x.abs().max())
        if not largest <= bound:
            first, last = where(checked + 1), where(n)
            at = f"at {last}" if first == last else f"from {first} to {last}"
            row = int((~(ops.flatten(x).abs().amax(1) <= bound)).nonzero()[0])
            cause = f"if the score is finite there, {remedy.split(', so ')[-1]}, else look for the NaN in the score"
            raise DivergenceError(
                f"the chain diverged between states {checked + 1} and {n}, {at}: max |x| = {largest:.3g} (first in row {row}) broke the "
                f"bound {bound:.3g}; {cause if math.isnan(largest) else remedy}"
            )
        checked = n

    return watch


def at_level(sigma: Sigma, step_size: float) -> str:
    """The level and the step size of a Langevin step, in words."""
    level = (
        f"sigma = {float(sigma):.6g}"
        if not isinstance(sigma, Tensor) or sigma.ndim == 0
        else f"sigma from {float(sigma.min()):.6g} to {float(sigma.max()):.6g}"
    )
    return f"{level} with step size {step_size:.6g}"
