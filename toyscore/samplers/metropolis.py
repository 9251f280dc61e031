"""Langevin dynamics without the bias of its step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.operators import DivergenceError, Score, Sigma
from toyscore.samplers.chains import CHECK_EVERY, at_level, check_start
from toyscore.samplers.langevin import langevin_step


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

    The variance of N(0, 1) stays 1, where ``langevin`` settles at 4/3 with these steps:

    >>> import torch
    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.samplers import final, metropolis_langevin
    >>> p, g = GaussianMixture([[0.0]]), torch.Generator().manual_seed(0)
    >>> x = p.sample(20_000, generator=g)
    >>> chain = metropolis_langevin(
    ...     p.log_prob, p.score, x, step_size=1.0, n_steps=10, generator=g
    ... )
    >>> round(final(chain).var().item(), 1)
    1.0

    Args:
        log_prob: ``log_prob(x, sigma)`` -> [B], of the density whose score is ``score``, up to a constant.
        score, x, step_size, n_steps, sigma, generator: as ``langevin``.

    Raises:
        TypeError, ValueError: as ``langevin``; a log density that is not [B], or not finite at the start.
        DivergenceError: a proposal of infinite density, or of finite density with a score that is not; one of no density, or NaN, is
            refused.
    """
    check_start(score, x, sigma, step_size)
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
    wrong, checked = ~good, 0
    for n in range(1, n_steps + 1):
        proposal = langevin_step(x, grad, step_size, generator=generator)
        log_p_new, grad_new = log_prob(proposal, sigma), ops.evaluate(score, proposal, sigma)
        there = _log_proposal(proposal, x, grad, step_size)
        back = _log_proposal(x, proposal, grad_new, step_size)
        log_u = ops.uniform((len(x),), log_p, generator).log()
        accept = log_u < log_p_new - log_p + back - there  # False where the proposal's density or score is NaN
        rows = ops.per_example(accept, x)
        x, grad = torch.where(rows, proposal, x), torch.where(rows, grad_new, grad)
        log_p = torch.where(accept, log_p_new, log_p)
        wrong |= (log_p_new == torch.inf) | (torch.isfinite(log_p_new) & ~torch.isfinite(ops.sum_event(grad_new)))
        if n % CHECK_EVERY == 0 or n == n_steps:
            if wrong.any():
                raise DivergenceError(
                    f"the chain diverged between states {checked + 1} and {n}, at {at_level(sigma, step_size)}: row "
                    f"{int(wrong.nonzero()[0])} was offered a state whose log_prob is infinite, or finite where its score is not; look for "
                    "the NaN or infinity in the score, or lower step_size"
                )
            checked = n
        yield x


def _log_proposal(to: Tensor, start: Tensor, grad: Tensor, step_size: float) -> Tensor:
    """log q(to | start) up to a constant: [B]."""
    residual = to - start - step_size / 2 * grad
    return -ops.dot(residual, residual) / (2 * step_size)
