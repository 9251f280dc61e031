"""Langevin dynamics along the noise levels: free, and with some of the image known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore._precision import exact
from toyscore.noise import annealed_steps, check_sigmas
from toyscore.operators import Score, Sigma
from toyscore.samplers.chains import at_level, check_start, watched
from toyscore.samplers.langevin import Noise, langevin_step


def annealed_langevin(
    score: Score,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    step_size: float,
    n_steps_each: int,
    denoise: bool = False,
    clamp: tuple[float, float] | None = None,
    noise: Noise = ops.normal_like,
    generator: Generator | None = None,
) -> Iterator[Tensor]:
    r"""Annealed Langevin dynamics, :math:`\alpha_i = \epsilon \sigma_i^2 / \sigma_L^2`. Source: song2019, Algorithm 1.

    On noise alone level i is stable while :math:`\epsilon < 4 \sigma_L^2`. Even with exact scores the weights of the
    modes come out a little wrong: they freeze at the level where hops become rare, before the target is reached.

    Chains that all start in the small mode, which ``langevin`` would not leave, end near the weights of the mixture:

    >>> import torch
    >>> from toyscore.distributions import two_modes
    >>> from toyscore.metrics import mode_weights
    >>> from toyscore.noise import geometric
    >>> from toyscore.samplers import annealed_langevin, final
    >>> p, g = two_modes(), torch.Generator().manual_seed(0)
    >>> x, sigmas = torch.full((2000, 2), -5.0), geometric(20.0, 1.0, 10)
    >>> chain = annealed_langevin(
    ...     p.score, x, sigmas, step_size=0.5, n_steps_each=30, generator=g
    ... )
    >>> [round(w, 1) for w in mode_weights(final(chain), p).tolist()]
    [0.8, 0.2]

    Args:
        score: called as ``score(x, sigma)`` with sigma a 0-d tensor like x.
        x: [B, *event], the start.
        sigmas: [L], strictly decreasing, in units of x.
        step_size: the paper's epsilon, the step at the last level, in units of x squared.
        n_steps_each: steps per level.
        denoise: append :math:`x + \sigma_L^2 s(x, \sigma_L)`, the mean of x given its noisy version.
        clamp: (low, high) for every state; distorts the levels whose sigma is not small beside the range. Off by default.
        noise: as in ``langevin_step``.
        generator: of the noise.

    Yields:
        L * n_steps_each states, one more with ``denoise``.

    Raises:
        TypeError, ValueError: as ``langevin``; sigmas not decreasing; clamp not (low, high).
        DivergenceError: the chain left its bound.
    """
    sigmas = _check_ladder(score, x, sigmas, step_size, n_steps_each)
    if clamp is not None and not (
        isinstance(clamp, tuple | list)
        and len(clamp) == 2
        and all(isinstance(c, int | float) for c in clamp)
        and clamp[0] < clamp[1]
    ):
        raise ValueError(f"clamp = {clamp}: it must be (low, high) with low < high; pass e.g. (0.0, 1.0)")
    return _annealed(score, x, sigmas, step_size, n_steps_each, denoise, clamp, noise, generator)


@torch.no_grad()
def _annealed(
    score: Score,
    x: Tensor,
    sigmas: Tensor,
    step_size: float,
    n_steps_each: int,
    denoise: bool,
    clamp: tuple[float, float] | None,
    noise: Noise,
    generator: Generator | None,
) -> Iterator[Tensor]:
    steps = annealed_steps(sigmas, step_size)
    n_steps = len(sigmas) * n_steps_each
    watch = watched(
        x, n_steps + denoise, lambda n: at_level(*_at(sigmas, steps, n_steps_each, n)), sigma_max=float(sigmas[0])
    )
    for n in range(1, n_steps + denoise + 1):
        if n <= n_steps:
            sigma, alpha = _at(sigmas, steps, n_steps_each, n)
            x = langevin_step(x, ops.evaluate(score, x, sigma), alpha, noise=noise, generator=generator)
        else:
            x = tweedie(score, x, sigmas[-1])
        x = x if clamp is None else x.clamp(*clamp).add_(x, alpha=0)  # 0 times infinity is NaN: no clamp hides it
        watch(x, n)
        yield x


def inpaint(
    score: Score,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    known: Tensor,
    mask: Tensor,
    step_size: float,
    n_steps_each: int,
    denoise: bool = False,
    generator: Generator | None = None,
) -> Iterator[Tensor]:
    r"""Annealed Langevin dynamics where some numbers of the event are known. Source: song2019, Algorithm 2.

    At each level the known numbers are held at :math:`y = \text{known} + \sigma_i z`, z drawn once per level and row. So
    level i samples :math:`q_{\sigma_i}(x_\text{free} \mid x_\text{known} = y)`, at the last level the conditional law up to
    :math:`\sigma_L`: no gradient of a likelihood and no training is needed. Where modes are far apart their weights freeze at a level
    where what is held is still noisy, so they come out blurred towards the unconditional ones; with few steps per level so do those of
    closer modes.

    Args:
        score, x, sigmas, step_size, n_steps_each, generator: as ``annealed_langevin``.
        known: [*event] or like x; looked at only where ``mask``.
        mask: booleans, [*event] or like x: which numbers are known.
        denoise: append the posterior mean, with the known numbers as they are.

    Yields:
        L * n_steps_each states, one more with ``denoise``.

    Raises:
        TypeError, ValueError: as ``annealed_langevin``; known or mask of another shape, type or dtype; known not finite where
            it is looked at.
        DivergenceError: the chain left its bound.
    """
    sigmas = _check_ladder(score, x, sigmas, step_size, n_steps_each)
    for given, name, dtype in ((known, "known", x.dtype), (mask, "mask", torch.bool)):
        if not isinstance(given, Tensor) or given.dtype != dtype:
            kind = given.dtype if isinstance(given, Tensor) else type(given).__name__
            raise TypeError(f"{name} is {kind}: it must be a tensor of {dtype}; convert it")
        if given.shape not in (x.shape, x.shape[1:]):
            raise ValueError(
                f"{name} has shape {list(given.shape)}: it must be that of x, {list(x.shape)}, or of an event; reshape it"
            )
    known, mask = (given.to(x.device).expand_as(x) for given in (known, mask))
    if not bool(torch.isfinite(known[mask]).all()):
        raise ValueError("known is not finite where mask is true: what is known must be a number; change the mask")
    return _inpaint(score, x, sigmas, known, mask, step_size, n_steps_each, denoise, generator)


@torch.no_grad()
def _inpaint(
    score: Score,
    x: Tensor,
    sigmas: Tensor,
    known: Tensor,
    mask: Tensor,
    step_size: float,
    n_steps_each: int,
    denoise: bool,
    generator: Generator | None,
) -> Iterator[Tensor]:
    steps = annealed_steps(sigmas, step_size)
    last, n = len(sigmas) * n_steps_each, 0
    watch = watched(
        x, last + denoise, lambda n: at_level(*_at(sigmas, steps, n_steps_each, n)), sigma_max=float(sigmas[0])
    )
    for sigma, alpha in zip(sigmas, steps, strict=True):
        held = known + sigma * ops.normal_like(x, generator)  # Algorithm 2, line 5
        x = torch.where(mask, held, x)
        for _ in range(n_steps_each):
            x = langevin_step(x, ops.evaluate(score, x, sigma), alpha, generator=generator)
            x, n = torch.where(mask, held, x), n + 1
            watch(x, n)
            yield x
    if denoise:
        x = torch.where(mask, known, tweedie(score, x, sigmas[-1]))
        watch(x, last + 1)
        yield x


def between(n: int) -> Noise:
    r"""Noise for paths of n chains from one independent chain to another, for ``annealed_langevin``. As song2020 interpolates.

    Rows come in paths of n; with a, b the noise of a path's ends, row j has
    :math:`z_j = \cos\varphi_j\, a + \sin\varphi_j\, b`, :math:`\varphi_j = \frac{\pi}{2} \frac{j}{n - 1}`. Each row alone is N(0, I),
    so every chain samples as ever; neighbours share nearly all of their noise, so what they become changes little by little.
    Start them alike: ``x = mean + sigmas[0] * between(n)(like, generator)``.

    Raises:
        TypeError, ValueError: n is not a whole number of at least two; rows that are no multiple of n.
    """
    ops.check_count(n, "n", 2)

    def noise(like: Tensor, generator: Generator | None) -> Tensor:
        if len(like) % n:
            raise ValueError(f"x has {len(like)} rows: paths of n = {n} need a multiple of it; pass {n} rows per path")
        ends = ops.normal_like(like.new_empty(len(like) // n, 2, *like.shape[1:]), generator)
        return _interpolate(ends[:, 0], ends[:, 1], n).transpose(0, 1).flatten(0, 1)

    return noise


def interpolate(a: Tensor, b: Tensor, n: int) -> Tensor:
    r"""From one Gaussian draw to another by draws: :math:`\cos\varphi_j\, a + \sin\varphi_j\, b`, :math:`\varphi_j = \frac{\pi}{2}
    \frac{j}{n - 1}`. As song2020 interpolates.

    If a and b are independent and N(0, v I), so is every row; a straight line between them would pass through too small numbers.

    >>> import torch
    >>> from toyscore.samplers import interpolate
    >>> a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    >>> [round(z.norm().item(), 3) for z in interpolate(a, b, 3)]
    [2.0, 2.0, 2.0]

    Args:
        a, b: [*event], alike. n: rows, both ends included.

    Returns:
        [n, *event].

    Raises:
        TypeError, ValueError: n is not a whole number of at least two; a or b is no floating-point tensor, or not finite; they differ
            in shape or dtype.
    """
    ops.check_count(n, "n", 2)
    for end, name in ((a, "a"), (b, "b")):
        if not isinstance(end, Tensor) or not end.is_floating_point():
            kind = end.dtype if isinstance(end, Tensor) else type(end).__name__
            raise TypeError(f"{name} is {kind}: it must be a floating-point tensor; pass a draw of normal_like")
        ops.check_finite(end[None], name)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(
            f"a is {a.dtype} {list(a.shape)}, b {b.dtype} {list(b.shape)}: they must be alike; draw b by normal_like(a)"
        )
    return _interpolate(a, b, n)


@exact
def _interpolate(a: Tensor, b: Tensor, n: int) -> Tensor:
    angles = torch.linspace(0, math.pi / 2, n, dtype=a.dtype, device=a.device)
    return torch.einsum("jk,k...->j...", torch.stack([angles.cos(), angles.sin()], 1), torch.stack([a, b]))


def tweedie(score: Score, x: Tensor, sigma: Sigma) -> Tensor:
    r"""The posterior mean of the clean point, :math:`E[x_0 \mid x] = x + \sigma^2 s(x, \sigma)`. Source: vincent2011, Sec. 4.

    If x_0 is from N(0, 1), its posterior mean is x / (1 + sigma²):

    >>> import torch
    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.samplers import tweedie
    >>> p, x = GaussianMixture([[0.0]]), torch.tensor([[5.0]])
    >>> round(tweedie(p.score, x, 2.0).item(), 3)
    1.0

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


def _check_ladder(
    score: Score, x: Tensor, sigmas: Tensor | Sequence[float], step_size: float, n_steps_each: int
) -> Tensor:
    ops.check_batch(x)
    levels = check_sigmas(sigmas, dtype=x.dtype).to(x.device)
    check_start(score, x, levels[-1], step_size)
    ops.check_count(n_steps_each, "n_steps_each")
    return levels


def _at(sigmas: Tensor, steps: Sequence[float], n_steps_each: int, n: int) -> tuple[Tensor, float]:
    """Level and step size of state n, counted from 1."""
    level = min((n - 1) // n_steps_each, len(steps) - 1)
    return sigmas[level], steps[level]
