"""Chains of a diffusion: forward, backward by any step, corrected by Langevin dynamics, and along the probability flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.operators import Score
from toyscore.samplers.annealed import tweedie
from toyscore.samplers.chains import check_share, watched
from toyscore.samplers.langevin import langevin_step
from toyscore.samplers.steps import (
    Step,
    ancestral_step,
    ddim_step,
    euler_maruyama_step,
    heun_step,
    reverse_diffusion_step,
)
from toyscore.sde import SDE, check_process, check_times, flow, noise_level, time_score, transition
from toyscore.sde.solver import check_tolerances

Times: TypeAlias = Tensor | Sequence[float]
Width: TypeAlias = Callable[[Tensor, Tensor, float], Tensor | float]
_REMEDY = "a step is too long where sigma changes much, so pass more times, or geometric_times"


def diffuse(sde: SDE, x: Tensor, times: Times, *, generator: Generator | None = None) -> Iterator[Tensor]:
    """The process itself, from data towards noise, with exact steps: len(times) - 1 states. Source: song2021, Eq. (29).

    Args:
        x: [B, *event] at times[0].
        times: ascending.

    Raises:
        TypeError, ValueError: x is no finite batch; times that do not ascend.
    """
    check_process(sde)
    ops.check_batch(x)
    ops.check_finite(x)
    return _diffuse(sde, x, check_times(times, ascending=True), generator)


@torch.no_grad()
def _diffuse(sde: SDE, x: Tensor, times: list[float], generator: Generator | None) -> Iterator[Tensor]:
    for s, t in pairwise(times):
        a, v = transition(sde, s, t)
        x = a * x + v**0.5 * ops.normal_like(x, generator)
        yield x


def reverse_sde(
    sde: SDE, score: Score, x: Tensor, times: Times, *, noise: float = 1.0, generator: Generator | None = None
) -> Iterator[Tensor]:
    """Euler-Maruyama of the reverse SDE: len(times) - 1 states. Source: song2021, Eq. (6).

    Unlike Langevin dynamics it gives the modes their weights:

    >>> import torch
    >>> from toyscore.distributions import two_modes
    >>> from toyscore.metrics import mode_weights
    >>> from toyscore.samplers import final, reverse_sde
    >>> from toyscore.sde import VP, uniform_times
    >>> sde, p, g = VP(), two_modes(), torch.Generator().manual_seed(0)
    >>> x = sde.prior_sample((2000, 2), generator=g)
    >>> x = final(reverse_sde(sde, p.score, x, uniform_times(100), generator=g))
    >>> [round(w, 1) for w in mode_weights(x, p).tolist()]
    [0.8, 0.2]

    Args:
        sde: the process.
        score: any score function ``score(x, sigma)``; it is turned into that of the process.
        x: [B, *event] at times[0], e.g. ``sde.prior_sample`` for time 1.
        times: [N + 1], descending, e.g. ``uniform_times(1000)``.
        noise: 1 is the reverse SDE, 0 Euler's scheme for the probability flow, others in between and beyond share their marginals.
        generator: of the noise.

    Raises:
        TypeError, ValueError: a bad start, times that do not descend, a negative noise.
        DivergenceError: the chain left its bound.
    """
    check_share(noise, "noise")
    return _reverse(partial(euler_maruyama_step, noise=noise), sde, score, x, times, generator)


def reverse_diffusion(
    sde: SDE, score: Score, x: Tensor, times: Times, *, generator: Generator | None = None
) -> Iterator[Tensor]:
    """The reverse diffusion sampler: forward steps turned round. Source: song2021, Eq. (46). Args, errors: as ``reverse_sde``."""
    return _reverse(reverse_diffusion_step, sde, score, x, times, generator)


def ancestral(
    sde: SDE, score: Score, x: Tensor, times: Times, *, generator: Generator | None = None
) -> Iterator[Tensor]:
    """Ancestral sampling: DDPM on VP (with its beta-tilde), SMLD on VE. Source: ho2020, Eq. (7). Args, errors: as ``reverse_sde``.

    ``ancestral(VP(), score, x, [*level_times(VP(), ddpm_levels(betas)), 0.0])`` is DDPM, step by step.
    """
    return _reverse(ancestral_step, sde, score, x, times, generator)


def ddim(
    sde: SDE, score: Score, x: Tensor, times: Times, *, eta: float = 0.0, generator: Generator | None = None
) -> Iterator[Tensor]:
    """DDIM: Euler's scheme along sigma, with ``eta`` of the ancestral noise. Source: song2021ddim, Eq. (12). Errors as ``reverse_sde``.

    If the data are a single point, one step from noise (t = 1) to data (t = 0) finds it:

    >>> import torch
    >>> from toyscore.distributions import empirical
    >>> from toyscore.samplers import ddim, final
    >>> from toyscore.sde import VP
    >>> p, x = empirical(torch.tensor([[3.0]])), torch.tensor([[-1.0], [0.5]])
    >>> x = final(ddim(VP(), p.score, x, [1.0, 0.0]))
    >>> [round(value, 3) for value in x.flatten().tolist()]
    [3.0, 3.0]

    Args:
        eta: from 0, the probability flow, to 1, ancestral sampling. With 0 times may also ascend, to encode.
    """
    check_share(eta, "eta", 1.0)
    step = partial(ddim_step, eta=eta)
    return (
        _reverse(step, sde, score, x, times, generator)
        if eta
        else _steps(step, sde, score, x, check_times(times), None)
    )


def probability_flow(sde: SDE, score: Score, x: Tensor, times: Times) -> Iterator[Tensor]:
    """The probability flow by Heun's method along sigma, of order two: len(times) - 1 states. Source: karras2022, Algorithm 1.

    It needs no noise, has the marginals of the process, and is the same curve for all of them once x is divided by alpha. Euler's scheme
    for it is ``ddim`` (along sigma) or ``reverse_sde(..., noise=0)`` (along t); ``adaptive_flow`` chooses its own steps.

    VP keeps N(0, 1), so that nothing has to move:

    >>> import torch
    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.samplers import final, probability_flow
    >>> from toyscore.sde import VP, geometric_times
    >>> p, x = GaussianMixture([[0.0]]), torch.tensor([[-1.0], [0.5]])
    >>> times = geometric_times(VP(), 100)
    >>> x = final(probability_flow(VP(), p.score, x, times))
    >>> [round(value, 2) for value in x.flatten().tolist()]
    [-1.0, 0.5]

    Args:
        sde, score: as ``reverse_sde``.
        x: [B, *event] at times[0].
        times: descending from noise to data, or ascending from data to their latent code.

    Raises:
        TypeError, ValueError: a bad start; times that go both ways. DivergenceError: the chain left its bound.
    """
    return _steps(heun_step, sde, score, x, check_times(times), None)


def adaptive_flow(
    sde: SDE, score: Score, x: Tensor, times: Times, *, rtol: float = 1e-5, atol: float = 1e-5
) -> Iterator[Tensor]:
    """The probability flow by torchdiffeq, as accurately as asked: len(times) - 1 states. Source: song2021, Eq. (13).

    Args:
        sde, score, x: as ``probability_flow``.
        times: where states are wanted, either way, without 0; the solver chooses its own steps between them.
        rtol, atol: of every number of every row, in units of x / alpha. Rows share their steps; see ``toyscore.sde.solver``.

    Raises:
        ImportError: torchdiffeq is not installed. TypeError, ValueError: a bad start, times or tolerances.
        DivergenceError: the solver could not go on.
    """
    _check(sde, score, x)
    numbers = check_times(times)
    check_tolerances(rtol, atol, x / sde.marginal(numbers[0])[0])
    if noise_level(sde, min(numbers)) == 0:
        raise ValueError(
            f"times go to {min(numbers):g}, where there is no noise and log sigma ends: stop at a positive time, e.g. 1e-5"
        )
    return _adaptive(sde, score, x, numbers, rtol, atol)


@torch.no_grad()
def _adaptive(sde: SDE, score: Score, x: Tensor, times: list[float], rtol: float, atol: float) -> Iterator[Tensor]:
    for t, s in pairwise(times):
        y = x / sde.marginal(t)[0]
        x = sde.marginal(s)[0] * flow(score, y, [noise_level(sde, t), noise_level(sde, s)], rtol=rtol, atol=atol)[-1]
        yield x


def posterior_mean(sde: SDE, score: Score, x: Tensor, t: float) -> Tensor:
    """The mean of the clean data given x at time t, in units of the data: what is left to do where a chain stops short of time 0.
    Source: vincent2011, Sec. 4.

    Args:
        sde, score: as ``reverse_sde``. x: [B, *event] at time t. t: a number.
    """
    check_process(sde)
    ops.check_batch(x)
    alpha, std = sde.marginal(t)
    return tweedie(score, x / alpha, std / alpha)


def matched_norms(grad: Tensor, z: Tensor, std: float) -> Tensor:
    """‖z‖ / ‖score‖ of each row: [B], in units of x. Source: song2021, Algorithm 4.

    Meant for images. It depends on where a row is, and knows z, so small steps sample ‖score‖² p^(D / (D + 2)) instead of p
    (``diagnostics.matched_norms_law``): in two dimensions another law, in hundreds the same.
    """
    return (ops.sum_event(z * z) / ops.sum_event(grad * grad)).sqrt()


def batch_norms(grad: Tensor, z: Tensor, std: float) -> Tensor:
    """Mean ‖z‖ over mean ‖score‖, as the authors' code has it: 0-d. It couples the rows of a batch."""
    return ops.sum_event(z * z).sqrt().mean() / ops.sum_event(grad * grad).sqrt().mean()


def noise_std(grad: Tensor, z: Tensor, std: float) -> float:
    """The noise of the process at this time, which ‖z‖ / ‖score‖ is where noise is all there is; the authors' code has it, too."""
    return std


def predictor_corrector(
    sde: SDE,
    score: Score,
    x: Tensor,
    times: Times,
    *,
    predictor: Step | None = reverse_diffusion_step,
    snr: float,
    n_corrector_steps: int = 1,
    width: Width = matched_norms,
    generator: Generator | None = None,
) -> Iterator[Tensor]:
    r"""A step of any solver, then Langevin dynamics at the time it led to: len(times) - 1 states. Source: song2021, Algorithm 1.

    The corrector's step is :math:`\epsilon = 4 a^2 (r\, w)^2` in our convention (theirs is half of it), r being ``snr``, w the ``width``
    and :math:`a = \alpha_t / \alpha_s` of the step just taken, :math:`a^2 = 1 - \beta` on VP and sub-VP, 1 on VE. So
    on VP few steps make weaker correctors.

    Args:
        sde, score, x, times, generator: as ``reverse_sde``.
        predictor: any step of this module; None moves in time without one, leaving everything to the corrector.
        snr: r, the ratio of signal to noise in a corrector step; song2021 uses 0.16 on VE and 0.01 to 0.16 on VP.
        n_corrector_steps: after each predictor step; 0 leaves them out. There are none at a time without noise.
        width: w as ``width(score, z, s_t)``, 0-d or [B]. ``matched_norms`` is for images: **in few dimensions it samples another law** (on
            a toy of three modes the weights come out nearly equal), and ``noise_std`` is the one to take there; both keep rows
            independent. ``batch_norms`` is the authors' code.

    Raises:
        TypeError, ValueError: as ``reverse_sde``; snr not positive; a negative number of corrector steps.
        DivergenceError: the chain left its bound.
    """
    ops.check_positive(snr, "snr")
    ops.check_count(n_corrector_steps, "n_corrector_steps", 0)
    for function, name in ((predictor, "predictor"), (width, "width")):
        if not callable(function) and not (function is None and name == "predictor"):
            raise TypeError(
                f"{name} is {function!r}: it must be a function; pass e.g. ancestral_step, or noise_std for a width"
            )
    step = partial(corrected_step, predictor=predictor, snr=snr, n_corrector_steps=n_corrector_steps, width=width)
    return _reverse(step, sde, score, x, times, generator)


def corrected_step(
    sde: SDE,
    score: Score,
    x: Tensor,
    t: float,
    s: float,
    *,
    predictor: Step | None = reverse_diffusion_step,
    snr: float,
    n_corrector_steps: int = 1,
    width: Width = matched_norms,
    generator: Generator | None = None,
) -> Tensor:
    """One step of ``predictor_corrector``, from time t to s, for whoever has a loop of their own. Source: song2021, Algorithm 1.

    ``partial(corrected_step, snr=0.16, width=noise_std)`` is a ``Step`` like the others. Arguments as there; x is not looked at.
    """
    if not isinstance(snr, Tensor):
        ops.check_positive(snr, "snr")
    ops.check_count(n_corrector_steps, "n_corrector_steps", 0)
    a, _ = transition(sde, s, t)
    x = _carried(sde, x, t, s) if predictor is None else predictor(sde, score, x, t, s, generator=generator)
    for _ in range(n_corrector_steps if noise_level(sde, s) > 0 else 0):
        x = corrector_step(sde, score, x, s, factor=4 * (a * snr) ** 2, width=width, generator=generator)
    return x


def corrector_step(
    sde: SDE,
    score: Score,
    x: Tensor,
    t: float,
    *,
    factor: float,
    width: Width = matched_norms,
    generator: Generator | None = None,
) -> Tensor:
    """One Langevin step at time t, of size ``factor`` times the width squared. Source: song2021, Algorithm 4."""
    if not isinstance(factor, Tensor):
        ops.check_positive(factor, "factor")
    grad, z = time_score(sde, score)(x, t), ops.normal_like(x, generator)
    w = width(grad, z, sde.marginal(t)[1])
    step_size = factor * w**2
    if isinstance(step_size, Tensor) and step_size.ndim:
        step_size = ops.per_example(step_size, x)
    return langevin_step(x, grad, step_size, noise=lambda *_: z)


def _carried(sde: SDE, x: Tensor, t: float, s: float) -> Tensor:
    """x in the coordinates of time s: what moving in time is where nothing is predicted."""
    return sde.marginal(s)[0] / sde.marginal(t)[0] * x


def _reverse(
    step: Step, sde: SDE, score: Score, x: Tensor, times: Times, generator: Generator | None
) -> Iterator[Tensor]:
    return _steps(step, sde, score, x, check_times(times, ascending=False), generator)


def _steps(
    step: Step, sde: SDE, score: Score, x: Tensor, times: list[float], generator: Generator | None
) -> Iterator[Tensor]:
    """Checked at the call; the loop is below."""
    _check(sde, score, x)
    return _chain(step, sde, score, x, times, generator)


@torch.no_grad()
def _chain(
    step: Step, sde: SDE, score: Score, x: Tensor, times: list[float], generator: Generator | None
) -> Iterator[Tensor]:
    watch = watched(
        x, len(times) - 1, lambda n: f"t = {times[n]:.6g}", sigma_max=sde.marginal(max(times))[1], remedy=_REMEDY
    )
    for n, (t, s) in enumerate(pairwise(times), 1):
        x = step(sde, score, x, t, s, generator=generator)
        watch(x, n)
        yield x


def _check(sde: SDE, score: Score, x: Tensor) -> None:
    check_process(sde)
    ops.check_score(score)
    ops.check_batch(x)
    ops.check_finite(x)
