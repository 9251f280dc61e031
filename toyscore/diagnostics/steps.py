r"""What a finite step does, seen where everything is linear: on a Gaussian.

On N(0, v) a step of Langevin dynamics multiplies x by :math:`f = 1 - \epsilon / 2v` and adds N(0, epsilon), so variances follow

.. math:: v_{t+1} = f^2 v_t + \epsilon, \qquad v_n = f^{2n} (v_0 - v_\infty) + v_\infty, \qquad v_\infty = \frac{v}{1 - \epsilon / 4v}.

Three readings: the chain is stable only while :math:`\epsilon < 4v`; what it settles at, :func:`stationary_variance`, is wider than v;
and it forgets the variance of its start at the rate :math:`f^2`, :func:`relaxed_variance`. In several dimensions each principal axis
goes its own way, so the narrowest one bounds the step and the widest one needs the most of them. In noise alone, v is sigma².

That variances no longer change holds on any density, and gives a test of any chain with its score: :func:`stein_numbers`.

The push of a step against its noise is its *signal-to-noise ratio*, :func:`signal_to_noise`; annealed Langevin dynamics takes steps
:math:`\propto \sigma^2` to keep it alike at each level.

Two conventions are in print: :math:`\epsilon/2` times the score with noise :math:`\sqrt\epsilon` (here, and in song2019), and
:math:`\eta` with :math:`\sqrt{2\eta}` (song2020, whose epsilon it is, and much code); :func:`epsilon_from_eta` and
:func:`eta_from_epsilon` convert, and what is cited of song2020 here is written in the first.

References: song2019, song2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from toyscore import operators as ops
from toyscore.operators import Score, Sigma

Number = float | Tensor


def epsilon_from_eta(eta: float) -> float:
    """Step size in our convention of one in the other, 2 eta: a published ``step_lr = 2e-5`` is ``step_size = 4e-5``."""
    ops.check_positive(eta, "eta")
    return 2 * eta


def eta_from_epsilon(step_size: float) -> float:
    """Step size in the other convention of one in ours, epsilon / 2."""
    ops.check_positive(step_size, "step_size")
    return step_size / 2


def stability_bound(variance: Number) -> float:
    """The step size, in units of x squared, from which on a chain on N(0, variance) runs away: 4 times the least variance.

    Raises:
        ValueError: a variance that is not positive.
    """
    return 4 * float(_positive(variance, "variance").min())


def check_stable(variance: Number, step_size: Number, where: str = "") -> None:
    """Refuse step sizes that are not below 4 times their variance; ``where`` says which, e.g. "at sigma = 1".

    Raises:
        ValueError: such a step size, or one that is not positive.
    """
    steps, bounds = torch.broadcast_tensors(_positive(step_size, "step_size"), 4 * _positive(variance, "variance"))
    bad = ~(steps < bounds)
    if bool(bad.any()):
        step, bound = (float(value[bad].flatten()[0]) for value in (steps, bounds))
        raise ValueError(
            f"step size {step:.6g}{' ' * bool(where)}{where}: a chain is stable only below 4 times the variance, {bound:.6g}; lower it"
        )


def stationary_variance(variance: Number, step_size: Number) -> Number:
    r"""The variance that the chain on N(0, v) settles at, :math:`v / (1 - \epsilon / 4v)`. Source: song2020, Proposition 3.

    >>> from toyscore.diagnostics import stationary_variance
    >>> [round(stationary_variance(4.0, epsilon), 3) for epsilon in (0.16, 4.0, 8.0)]
    [4.04, 5.333, 8.0]

    Args:
        variance: v, a float or a tensor of any shape, in units of x squared.
        step_size: epsilon, a float or a tensor that broadcasts with v.

    Returns:
        A float for floats, else a float64 tensor on the CPU.

    Raises:
        ValueError: not positive; a step size of 4 v or more, at which no chain settles.
    """
    check_stable(variance, step_size)
    v = _positive(variance, "variance")
    return _like(v / (1 - _positive(step_size, "step_size") / (4 * v)), variance, step_size)


def relaxed_variance(start: Number, variance: Number, step_size: Number, n_steps: int) -> Number:
    r"""The variance after n steps on N(0, v) from variance :math:`v_0`. Source: song2020, Proposition 3.

    .. math:: v_n = f^{2n} (v_0 - v_\infty) + v_\infty, \qquad f = 1 - \epsilon / 2v

    Args:
        start: :math:`v_0`, not negative.
        variance, step_size: as ``stationary_variance``.
        n_steps: n.

    Returns, errors:
        As ``stationary_variance``.
    """
    ops.check_count(n_steps, "n_steps")
    settled = torch.as_tensor(stationary_variance(variance, step_size), dtype=torch.float64, device="cpu")
    v, v0 = _positive(variance, "variance"), _positive(start, "start", zero=True)
    factor = 1 - _positive(step_size, "step_size") / (2 * v)
    return _like(factor ** (2 * n_steps) * (v0 - settled) + settled, start, variance, step_size)  # Proposition 3


@dataclass(frozen=True)
class Variance:
    """A measured variance and its standard error, [*event] each."""

    value: Tensor
    error: Tensor


@torch.no_grad()
def measured_variance(chain: Iterable[Tensor], *, n_discard: int = 0) -> Variance:
    """The variance of a chain's states about their mean, coordinate by coordinate; the error is from row to row.

    Args:
        chain: states [B, *event] of B independent chains, e.g. ``langevin(...)``.
        n_discard: states to leave out at the start, before it has settled.

    Raises:
        ValueError: no state left, or a single row, whose error cannot be known.
    """
    ops.check_count(n_discard, "n_discard", 0)
    centre: Tensor | None = None
    n = 0
    for step, x in enumerate(chain):
        if step < n_discard:
            continue
        ops.check_batch(x)
        x = x.cpu().double()
        if centre is None:
            centre, first, second = x.mean(0), torch.zeros_like(x), torch.zeros_like(x)
        first += x - centre
        second += (x - centre) ** 2
        n += 1
    if centre is None or len(first) < 2:
        raise ValueError(
            f"{n} states of {0 if centre is None else len(first)} rows were left after n_discard = {n_discard}: a variance and its "
            f"error need "
            "a state and two rows; run more, or discard less"
        )
    mean = (first / n).mean(0)
    rows = second / n - 2 * mean * first / n + mean**2
    return Variance(rows.mean(0), rows.std(0) / math.sqrt(len(rows)))


@torch.no_grad()
def signal_to_noise(score: Score, x: Tensor, sigma: Sigma, step_size: float) -> float:
    r"""Of a step, the mean square of its drift against that of its noise. Source: song2019, Sec. 4.3.

    .. math:: \frac{E \|\frac{\epsilon}{2} s\|^2}{E \|\sqrt\epsilon\, z\|^2} = \frac{\epsilon\, E\|s\|^2}{4 D}

    Where noise rules, :math:`E\|s\|^2 = D / \sigma^2`: with :math:`\alpha_i \propto \sigma_i^2` the ratio is the same at each level,
    :math:`\epsilon / 4 \sigma_L^2`, which is how near the chain is to its stability bound.

    Args:
        score: called as ``score(x, sigma)``.
        x: [B, *event], drawn from q_sigma.
        sigma: float | 0-d | [B], in units of x.
        step_size: epsilon, of this level.

    Raises:
        TypeError, ValueError: bad x, sigma or step size; a score of another shape than x.
    """
    ops.check_batch(x)
    ops.check_finite(x)
    ops.check_sigma(sigma, x)
    ops.check_positive(step_size, "step_size")
    s = ops.evaluate(score, x, sigma)
    return float(step_size / 4 * ops.flatten(s).cpu().double().square().mean())


@torch.no_grad()
def stein_numbers(
    score: Score, x: Tensor, sigma: Sigma = 0.0, *, step_size: float = 0.0, centre: Tensor | float | None = None
) -> Tensor:
    r"""Row by row, a number whose mean over the law of s, or over a settled chain, is one. Source: song2019, Eq. (4).

    .. math:: -\frac1D \left( (x - m) \cdot s(x) + \frac\epsilon4 \|s(x)\|^2 \right)

    For x drawn from the density of s, and :math:`\epsilon = 0`, that is integration by parts. For a chain of steps epsilon it is exact
    as well, whatever the density: once settled, :math:`E\|x - m\|^2` no longer changes. A lost root, sign or factor moves it far from
    one, where the picture may look right; no truth is needed.

    Args:
        score: called as ``score(x, sigma)``.
        x: [B, *event].
        sigma: float | 0-d | [B], in units of x.
        step_size: epsilon of the chain that x is from; zero for exact samples.
        centre: m, any fixed point [*event], or what broadcasts to one; near the middle the numbers vary least. Default the origin;
        x's own mean would bias them by 1/B.

    Returns:
        [B], float64 on the CPU.

    Raises:
        TypeError, ValueError: bad x, sigma, step size or centre; a score of another shape than x.
    """
    ops.check_batch(x)
    ops.check_finite(x)
    ops.check_sigma(sigma, x)
    if step_size != 0:
        ops.check_positive(step_size, "step_size")
    if centre is not None:
        centre = torch.as_tensor(centre).to(x)
        if not _fits(centre.shape, x[:1].shape):
            raise ValueError(
                f"centre has shape {list(centre.shape)}: it must be an event, {list(x.shape[1:])}; reshape it"
            )
        ops.check_finite(centre.reshape(1, -1), "centre")
    s = ops.flatten(ops.evaluate(score, x, sigma)).cpu().double()
    away = ops.flatten(x if centre is None else x - centre).cpu().double()
    return -((away * s).sum(1) + step_size / 4 * s.square().sum(1)) / s.shape[1]


def _fits(shape: torch.Size, whole: torch.Size) -> bool:
    """Whether one broadcasts to the other."""
    return len(shape) <= len(whole) and all(n in (1, m) for n, m in zip(shape[::-1], whole[::-1], strict=False))


def _positive(value: Number, name: str, zero: bool = False) -> Tensor:
    if isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool):
        raise TypeError(f"{name} = {value}: it must be a number; pass a float or a tensor of floats")
    value = value.detach().cpu() if isinstance(value, Tensor) else value
    tensor = torch.as_tensor(value, dtype=torch.float64, device="cpu")
    if tensor.numel() == 0:
        raise ValueError(f"{name} has shape {list(tensor.shape)}: there is no number in it; pass at least one")
    good = torch.isfinite(tensor) & ((tensor >= 0) if zero else (tensor > 0))
    if not bool(good.all()):
        hint = "pass the epsilon of a step" if name == "step_size" else "pass the square of a standard deviation"
        raise ValueError(
            f"{name} = {float(tensor[~good].flatten()[0]):.6g}: it must be finite and {'not negative' if zero else 'positive'}; {hint}"
        )
    return tensor


def _like(result: Tensor, *given: Number) -> Number:
    return result if any(isinstance(value, Tensor) for value in given) else float(result)
