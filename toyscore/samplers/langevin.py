"""Langevin dynamics at one noise level."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.operators import Score, Sigma
from toyscore.samplers.chains import at_level, check_start, watched

Noise: TypeAlias = Callable[[Tensor, Generator | None], Tensor]


def langevin_step(
    x: Tensor,
    grad: Tensor,
    step_size: float | Tensor,
    *,
    noise: Noise = ops.normal_like,
    generator: Generator | None = None,
) -> Tensor:
    """One step, x + step_size/2 · grad + sqrt(step_size) · z. Source: song2019, Eq. (4).

    Args:
        x, grad: [B, *event], state and score; differentiable in both. The result takes the memory order of ``grad``.
        step_size: epsilon > 0, in units of x squared; anything that multiplies x.
        noise: z as ``noise(x, generator)``, shaped like x; independent normals, unless chains are to share them (``between``).
        generator: of the noise.

    Raises:
        TypeError, ValueError: a score of another shape than x, or a step size that is not positive.
    """
    if not isinstance(step_size, Tensor):
        ops.check_positive(step_size, "step_size")
    if not (isinstance(x, Tensor) and x.is_floating_point() and isinstance(grad, Tensor)):
        ops.check_batch(x)
        ops.check_batch(grad, "grad")
    if grad.shape != x.shape:
        raise ValueError(
            f"grad has shape {list(grad.shape)}, x {list(x.shape)}: a score is shaped like x; pass one row per point"
        )
    z = noise(x, generator)
    grad = grad if grad.dtype == x.dtype else grad.to(x.dtype)
    if isinstance(step_size, Tensor):
        return x + step_size / 2 * grad + step_size**0.5 * z  # Eq. (4)
    if x.stride() != grad.stride():  # at the first step of a chain, which then keeps the score's memory order
        x = torch.empty_like(grad).copy_(x)
    return torch.add(x, grad, alpha=step_size / 2).add_(z, alpha=step_size**0.5)


def langevin(
    score: Score, x: Tensor, *, step_size: float, n_steps: int, sigma: Sigma = 0.0, generator: Generator | None = None
) -> Iterator[Tensor]:
    """Langevin dynamics at one noise level: ``n_steps`` states. Source: song2019, Eq. (4).

    On N(0, v) the chain settles at the variance v / (1 - step_size / 4v), here 4/3 where v = 1:

    >>> import torch
    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.samplers import final, langevin
    >>> p, g = GaussianMixture([[0.0]]), torch.Generator().manual_seed(0)
    >>> x = torch.zeros(100_000, 1)
    >>> chain = langevin(p.score, x, step_size=1.0, n_steps=10, generator=g)
    >>> round(final(chain).var().item(), 1)
    1.3

    Args:
        score: called as ``score(x, sigma)``, with sigma as given.
        x: [B, *event], the start, one independent chain per row.
        step_size: the paper's epsilon, in units of x squared.
        n_steps: number of states to yield.
        sigma: float | 0-d | [B], in units of x.
        generator: of the noise.

    Raises:
        TypeError, ValueError: bad start, sigma, step size, or fewer than one step.
        DivergenceError: the chain left its bound.
    """
    check_start(score, x, sigma, step_size)
    ops.check_count(n_steps, "n_steps")
    return _langevin(score, x, step_size, n_steps, sigma, generator)


@torch.no_grad()
def _langevin(
    score: Score, x: Tensor, step_size: float, n_steps: int, sigma: Sigma, generator: Generator | None
) -> Iterator[Tensor]:
    watch = watched(x, n_steps, lambda _: at_level(sigma, step_size))
    for n in range(1, n_steps + 1):
        x = langevin_step(x, ops.evaluate(score, x, sigma), step_size, generator=generator)
        watch(x, n)
        yield x
