r"""Langevin dynamics: samples from a score alone.

.. math:: x_{t+1} = x_t + \frac{\epsilon}{2} \nabla \log p(x_t) + \sqrt{\epsilon}\, z_t, \qquad z_t \sim N(0, I)

is Euler's scheme for :math:`dX = \frac12 \nabla \log p\, dt + dW`, whose stationary law is p. Three facts rule its use:

- *It is biased.* On N(0, v) the chain is linear with factor :math:`1 - \epsilon / 2v`: it is stable only while
  :math:`\epsilon < 4v`, and settles at variance :math:`v / (1 - \epsilon / 4v)`, not v. A Metropolis test removes the
  bias (:func:`metropolis_langevin`).
- *It forgets weights.* Between modes far apart it almost never hops, so each mode keeps the chains that started near it.
- *Annealing helps.* With noise levels :math:`\sigma_1 > \dots > \sigma_L` and steps :math:`\alpha_i = \epsilon
  \sigma_i^2 / \sigma_L^2` (Algorithm 1) the first levels mix freely, and the ratio of drift to noise is alike at each.

Samplers are generators of states, the start excluded: slice one for a trajectory, wrap it in ``tqdm``, break out of it, or
take its :func:`final` state. Yielded tensors are never modified later. Arguments are checked at the call, not at the first
state. A chain whose values leave ``1e9 * max(1, |x_0|, sigma_1)`` stops with :class:`DivergenceError`, looked for every 16
states and at the last.

Step sizes are the paper's epsilon. Much published code writes eta and ``sqrt(2 eta)``: epsilon = 2 eta.

References: song2019, roberts1996.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.noise import annealed_steps, check_sigmas
from toyscore.operators import DivergenceError, Score, Sigma

_CHECK_EVERY = 16
_GROWTH = 1e9


def langevin_step(x: Tensor, grad: Tensor, step_size: float | Tensor, *, generator: Generator | None = None) -> Tensor:
    """One step, x + step_size/2 · grad + sqrt(step_size) · z. Source: song2019, Eq. (4).

    Args:
        x, grad: [B, *event], state and score; differentiable in both. The result takes the memory order of ``grad``.
        step_size: epsilon > 0, in units of x squared; anything that multiplies x.
        generator: of the noise.

    Raises:
        TypeError, ValueError: a score of another shape than x, or a step size that is not positive.
    """
    if not isinstance(step_size, Tensor):
        ops.check_positive(step_size, "step_size")
    if grad.shape != x.shape:
        raise ValueError(
            f"grad has shape {list(grad.shape)}, x {list(x.shape)}: a score is shaped like x; pass one row per point"
        )
    noise = ops.normal_like(x, generator)
    grad = grad if grad.dtype == x.dtype else grad.to(x.dtype)
    if isinstance(step_size, Tensor):
        return x + step_size / 2 * grad + step_size**0.5 * noise  # Eq. (4)
    if x.stride() != grad.stride():  # at the first step of a chain, which then keeps the score's memory order
        x = torch.empty_like(grad).copy_(x)
    return torch.add(x, grad, alpha=step_size / 2).add_(noise, alpha=step_size**0.5)


def langevin(
    score: Score, x: Tensor, *, step_size: float, n_steps: int, sigma: Sigma = 0.0, generator: Generator | None = None
) -> Iterator[Tensor]:
    """Langevin dynamics at one noise level: ``n_steps`` states. Source: song2019, Eq. (4).

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
    _check_start(score, x, sigma, step_size)
    ops.check_count(n_steps, "n_steps")
    return _langevin(score, x, step_size, n_steps, sigma, generator)


@torch.no_grad()
def _langevin(
    score: Score, x: Tensor, step_size: float, n_steps: int, sigma: Sigma, generator: Generator | None
) -> Iterator[Tensor]:
    watch = _watch(x, n_steps, lambda _: (sigma, step_size))
    for n in range(1, n_steps + 1):
        x = langevin_step(x, ops.evaluate(score, x, sigma), step_size, generator=generator)
        watch(x, n)
        yield x


def annealed_langevin(
    score: Score,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    step_size: float,
    n_steps_each: int,
    denoise: bool = False,
    clamp: tuple[float, float] | None = None,
    generator: Generator | None = None,
) -> Iterator[Tensor]:
    r"""Annealed Langevin dynamics, :math:`\alpha_i = \epsilon \sigma_i^2 / \sigma_L^2`. Source: song2019, Algorithm 1.

    On noise alone level i is stable while :math:`\epsilon < 4 \sigma_L^2`. Even with exact scores the weights of the
    modes come out a little wrong: they freeze at the level where hops become rare, before the target is reached.

    Args:
        score: called as ``score(x, sigma)`` with sigma a 0-d tensor like x.
        x: [B, *event], the start.
        sigmas: [L], strictly decreasing, in units of x.
        step_size: the paper's epsilon, the step at the last level, in units of x squared.
        n_steps_each: steps per level.
        denoise: append :math:`x + \sigma_L^2 s(x, \sigma_L)`, the mean of x given its noisy version.
        clamp: (low, high) for every state; distorts the levels whose sigma is not small beside the range. Off by default.
        generator: of the noise.

    Yields:
        L * n_steps_each states, one more with ``denoise``.

    Raises:
        TypeError, ValueError: as ``langevin``; sigmas not decreasing; clamp not (low, high).
        DivergenceError: the chain left its bound.
    """
    ops.check_batch(x)
    sigmas = check_sigmas(sigmas, dtype=x.dtype).to(x.device)
    _check_start(score, x, sigmas[-1], step_size)
    ops.check_count(n_steps_each, "n_steps_each")
    if clamp is not None and not (
        isinstance(clamp, tuple | list)
        and len(clamp) == 2
        and all(isinstance(c, int | float) for c in clamp)
        and clamp[0] < clamp[1]
    ):
        raise ValueError(f"clamp = {clamp}: it must be (low, high) with low < high; pass e.g. (0.0, 1.0)")
    return _annealed(score, x, sigmas, step_size, n_steps_each, denoise, clamp, generator)


@torch.no_grad()
def _annealed(
    score: Score,
    x: Tensor,
    sigmas: Tensor,
    step_size: float,
    n_steps_each: int,
    denoise: bool,
    clamp: tuple[float, float] | None,
    generator: Generator | None,
) -> Iterator[Tensor]:
    steps = zip(sigmas, annealed_steps(sigmas, step_size), strict=True)
    schedule = [(sigma, alpha) for sigma, alpha in steps for _ in range(n_steps_each)]
    n_states = len(schedule) + denoise
    watch = _watch(x, n_states, lambda n: schedule[min(n, len(schedule)) - 1], float(sigmas[0]))
    for n in range(1, n_states + 1):
        if n <= len(schedule):
            sigma, alpha = schedule[n - 1]
            x = langevin_step(x, ops.evaluate(score, x, sigma), alpha, generator=generator)
        else:
            x = tweedie(score, x, sigmas[-1])
        x = x if clamp is None else x.clamp(*clamp)
        watch(x, n)
        yield x


def tweedie(score: Score, x: Tensor, sigma: Sigma) -> Tensor:
    r"""The posterior mean of the clean point, :math:`E[x_0 \mid x] = x + \sigma^2 s(x, \sigma)`. Source: vincent2011, Sec. 4.

    Args:
        score: the score function.
        x: [B, *event].
        sigma: float | 0-d | [B], in units of x.

    Raises:
        TypeError, ValueError: x or sigma is not what it must be; a score of another shape than x.
    """
    ops.check_batch(x)
    ops.check_sigma(sigma, x)
    std = ops.expand(sigma, x)
    return (x + std * std * ops.evaluate(score, x, sigma)).to(x.dtype)


def metropolis_langevin(
    log_prob: Callable[[Tensor, Sigma], Tensor],
    score: Score,
    x: Tensor,
    *,
    step_size: float,
    n_steps: int,
    sigma: Sigma = 0.0,
    generator: Generator | None = None,
) -> Iterator[Tensor]:
    r"""Metropolis-adjusted Langevin (MALA): the same proposals, accepted so that the law is exact. Source: roberts1996, Sec. 1.4.

    A proposal y from x is taken with probability :math:`\min(1, p(y) q(x|y) / p(x) q(y|x))`, where :math:`q(y|x)` is
    N(x + step_size/2 score(x), step_size I). The unbiased control of ``langevin``: what differs between the two is the
    discretisation. A rejected row repeats, so the share of rows that moved is the acceptance rate.

    Args:
        log_prob: ``log_prob(x, sigma)`` -> [B], of the density whose score is ``score``, up to a constant.
        score, x, step_size, n_steps, sigma, generator: as ``langevin``.

    Raises:
        TypeError, ValueError: as ``langevin``; a log density that is not [B], or not finite at the start.
    """
    _check_start(score, x, sigma, step_size)
    ops.check_count(n_steps, "n_steps")
    return _metropolis(log_prob, score, x, step_size, n_steps, sigma, generator)


@torch.no_grad()
def _metropolis(
    log_prob: Callable[[Tensor, Sigma], Tensor],
    score: Score,
    x: Tensor,
    step_size: float,
    n_steps: int,
    sigma: Sigma,
    generator: Generator | None,
) -> Iterator[Tensor]:
    log_p, grad = log_prob(x, sigma), ops.evaluate(score, x, sigma)
    if log_p.shape != x.shape[:1]:
        raise ValueError(
            f"log_prob returned shape {list(log_p.shape)}: it must be per row, [{len(x)}]; do not reduce it"
        )
    good = torch.isfinite(log_p) & torch.isfinite(ops.sum_event(grad))
    if not good.all():
        row = int((~good).nonzero()[0])
        raise ValueError(
            f"row {row} of x has log_prob {float(log_p[row]):.6g} and a score of norm {float(grad[row].norm()):.6g}: a chain "
            "starts where both are finite; move the start"
        )
    for _ in range(n_steps):
        proposal = langevin_step(x, grad, step_size, generator=generator)
        log_p_new, grad_new = log_prob(proposal, sigma), ops.evaluate(score, proposal, sigma)
        there = _log_proposal(proposal, x, grad, step_size)
        back = _log_proposal(x, proposal, grad_new, step_size)
        log_u = ops.uniform((len(x),), log_p, generator).log()
        accept = log_u < log_p_new - log_p + back - there  # False where the proposal's density or score is NaN
        rows = ops.per_example(accept, x)
        x, grad = torch.where(rows, proposal, x), torch.where(rows, grad_new, grad)
        log_p = torch.where(accept, log_p_new, log_p)
        yield x


def _log_proposal(to: Tensor, start: Tensor, grad: Tensor, step_size: float) -> Tensor:
    """log q(to | start) up to a constant: [B]."""
    residual = to - start - step_size / 2 * grad
    return -ops.dot(residual, residual) / (2 * step_size)


def final(chain: Iterable[Tensor]) -> Tensor:
    """The last state of a chain, keeping one state in memory.

    Raises:
        ValueError: the chain has no state left.
    """
    last = deque(chain, maxlen=1)
    if not last:
        raise ValueError("the chain has no state: it was consumed already, or has zero steps; make a new one")
    return last[0]


def _check_start(score: Score, x: Tensor, sigma: Sigma, step_size: float) -> None:
    ops.check_score(score)
    ops.check_batch(x)
    ops.check_finite(x)
    ops.check_sigma(sigma, x)
    ops.check_positive(step_size, "step_size")


def _watch(
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
