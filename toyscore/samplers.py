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

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.noise import check_sigmas
from toyscore.operators import DivergenceError, Score, Sigma

_CHECK_EVERY = 16
_GROWTH = 1e9


def langevin_step(x: Tensor, grad: Tensor, step_size: float | Tensor, *, generator: Generator | None = None) -> Tensor:
    """One step, x + step_size/2 · grad + sqrt(step_size) · z. Source: song2019, Eq. (4).

    Args:
        x, grad: [B, *event], state and score; differentiable in both. The result takes the memory order of ``grad``.
        step_size: epsilon > 0, in units of x squared; anything that multiplies x.
        generator: of the noise.
    """
    noise = ops.normal_like(x, generator)
    return (grad.to(x.dtype) * (step_size / 2)).add_(x).add_(noise.mul_(step_size**0.5))  # Eq. (4), on fresh tensors


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
    _check_start(x, sigma, step_size)
    ops.check_count(n_steps, "n_steps")
    return _langevin(score, x, step_size, n_steps, sigma, generator)


@torch.no_grad()
def _langevin(
    score: Score, x: Tensor, step_size: float, n_steps: int, sigma: Sigma, generator: Generator | None
) -> Iterator[Tensor]:
    watch = _watch(x, n_steps, lambda _: (sigma, step_size))
    for n in range(1, n_steps + 1):
        x = langevin_step(x, score(x, sigma), step_size, generator=generator)
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

    On unit noise alone level i is stable while :math:`\epsilon < 4 \sigma_L^2`. Even with exact scores the weights of the
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
    sigmas = check_sigmas(sigmas).to(x)
    _check_start(x, sigmas[-1], step_size)
    ops.check_count(n_steps_each, "n_steps_each")
    if clamp is not None and not clamp[0] < clamp[1]:
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
    alphas = [step_size * (float(sigma) / float(sigmas[-1])) ** 2 for sigma in sigmas]  # Algorithm 1, line 3
    watch = _watch(
        x,
        len(sigmas) * n_steps_each,
        lambda n: (sigmas[(n - 1) // n_steps_each], alphas[(n - 1) // n_steps_each]),
        float(sigmas[0]),
    )
    n = 0
    for sigma, alpha in zip(sigmas, alphas, strict=True):
        for _ in range(n_steps_each):
            x = langevin_step(x, score(x, sigma), alpha, generator=generator)
            x = x if clamp is None else x.clamp(*clamp)
            watch(x, n := n + 1)
            yield x
    if denoise:
        yield tweedie(score, x, sigmas[-1])


def tweedie(score: Score, x: Tensor, sigma: Sigma) -> Tensor:
    r"""The posterior mean of the clean point, :math:`E[x_0 \mid x] = x + \sigma^2 s(x, \sigma)`. Source: vincent2011, Sec. 4.

    Args:
        score: the score function.
        x: [B, *event].
        sigma: float | 0-d | [B], in units of x.
    """
    std = ops.expand(sigma, x)
    return x + std * std * score(x, sigma)


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
        TypeError, ValueError: as ``langevin``.
        DivergenceError: NaN from ``log_prob`` or ``score`` at the current state.
    """
    _check_start(x, sigma, step_size)
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
    watch = _watch(x, n_steps, lambda _: (sigma, step_size))
    log_p, grad = log_prob(x, sigma), score(x, sigma)
    for n in range(1, n_steps + 1):
        proposal = langevin_step(x, grad, step_size, generator=generator)
        log_p_new, grad_new = log_prob(proposal, sigma), score(proposal, sigma)
        there = _log_proposal(proposal, x, grad, step_size)
        back = _log_proposal(x, proposal, grad_new, step_size)
        accept = ops.uniform((len(x),), log_p, generator).log() < log_p_new - log_p + back - there
        rows = ops.per_example(accept, x)
        x, grad, log_p = (
            torch.where(rows, proposal, x),
            torch.where(rows, grad_new, grad),
            torch.where(accept, log_p_new, log_p),
        )
        watch(x + 0 * log_p.view_as(rows), n)
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


def _check_start(x: Tensor, sigma: Sigma, step_size: float) -> None:
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
            raise DivergenceError(
                f"the chain diverged between states {checked + 1} and {n}, at {level} with step size "
                f"{step_size:.6g}: max |x| = {largest:.3g} "
                f"broke the bound {bound:.3g}; a Gaussian of variance v is stable only while the step size is below "
                "4 v, so lower step_size"
            )
        checked = n

    return watch
