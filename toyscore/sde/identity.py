"""What makes a score function the score of a process, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.distributions import GaussianMixture
from toyscore.noise import Draw
from toyscore.operators import Score, Sigma
from toyscore.sde.processes import SDE, T, Time, check_time


def noise_level(sde: SDE, t: T) -> T:
    """sigma = s_t / alpha_t: the noise of x_t in units of the data. Float, 0-d or [B], like t.

    >>> from toyscore.sde import VP, noise_level
    >>> sigma = noise_level(VP(), 0.3)
    >>> round(VP().time(sigma), 3)  # time is the inverse
    0.3
    """
    alpha, std = sde.marginal(t)
    return std / alpha


def time_score(sde: SDE, score: Score) -> Callable[[Tensor, Time], Tensor]:
    r"""The score of the process at time t, :math:`\nabla \log p_t(x) = \mathrm{score}(x / \alpha_t, s_t / \alpha_t) / \alpha_t`.

    VP keeps N(0, 1) at all times, so that its score stays -x:

    >>> import torch
    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.sde import VP, time_score
    >>> s = time_score(VP(), GaussianMixture([[0.0]]).score)
    >>> [round(s(torch.tensor([[1.0]]), t).item(), 3) for t in (0.0, 0.5, 1.0)]
    [-1.0, -1.0, -1.0]

    Args:
        sde: the process.
        score: any score function.

    Returns:
        ``(x, t)`` -> like x, for x [B, *event] and t float | 0-d | [B]. Sigma reaches the score as a tensor like x, 0-d or [B].

    Raises:
        TypeError, ValueError: score cannot be called; a time out of range; x of another type, a t of neither one value nor one per row.
    """
    ops.check_score(score)

    def at(x: Tensor, t: Time) -> Tensor:
        ops.check_batch(x)
        if isinstance(t, Tensor):
            check_time(t, x)
            t = t.to(x).expand(len(x)) if t.ndim else t.to(x)
        alpha, std = sde.marginal(t)
        sigma = _like(std / alpha, x)
        shrink = ops.expand(alpha, x)
        return ops.evaluate(score, x / shrink, sigma) / shrink

    return at


def sigma_score(sde: SDE, score: Callable[[Tensor, Time], Tensor]) -> Score:
    r"""The inverse of :func:`time_score`: a score function from a score of time, :math:`\alpha_t\, s(\alpha_t x, t)` at the t of sigma.

    Args:
        sde: the process that the score is of.
        score: ``(x_t, t)`` -> like x_t, t 0-d or [B], e.g. a network of the score-SDE kind.

    Raises:
        ValueError: a sigma that the process does not have.
    """
    ops.check_score(score)

    def at(x: Tensor, sigma: Sigma) -> Tensor:
        t = sde.time(_like(sigma, x))
        alpha = ops.expand(sde.marginal(t)[0], x)
        return alpha * score(alpha * x, t)

    return at


def _like(value: Sigma, x: Tensor) -> Tensor:
    """A tensor of x's dtype on its device; a number is written there, which waits for nothing, and not copied from here."""
    return value.to(x) if isinstance(value, Tensor) else x.new_full((), value)


def transition(sde: SDE, s: float, t: float) -> tuple[float, float]:
    r"""The forward step from s to t > s, exactly: :math:`x_t = a x_s + \sqrt{v}\, \epsilon`; returns :math:`(a, v)`.

    :math:`a = \alpha_t / \alpha_s` and :math:`v = \alpha_t^2 (\sigma_t^2 - \sigma_s^2)`. On VP :math:`v = 1 - a^2` is DDPM's beta.

    Raises:
        ValueError: not s <= t.
    """
    if not s <= t:
        check_time(s)
        check_time(t)
        raise ValueError(f"s = {s}, t = {t}: a forward step leads from s to a later t; swap them")
    (before, std_s), (after, std_t) = sde.marginal(s), sde.marginal(t)
    low, high = std_s / before, std_t / after
    return after / before, after**2 * (high - low) * (high + low)


def reverse_drift(sde: SDE, score: Score, x: Tensor, t: Time, *, noise: float = 1.0) -> Tensor:
    r"""The drift of the process run backwards, :math:`f - \frac{1 + \lambda^2}{2} g^2 \nabla \log p_t`. Source: song2021, Eq. (6).

    With noise :math:`\lambda g\, d\bar w` beside it every lambda has the marginals of the forward process: 1 is the reverse SDE, 0 the
    probability flow (Eq. (13)), which needs no noise.

    Args:
        x: [B, *event]. t: float | 0-d | [B]. noise: lambda.

    Raises:
        TypeError, ValueError: as ``time_score``; a noise that is not finite.
    """
    if not isinstance(noise, Tensor) and not math.isfinite(noise):  # nor is one looked at on an accelerator
        raise ValueError(f"noise = {noise}: it must be finite; pass 1 for the reverse SDE, 0 for the probability flow")
    g = ops.expand(sde.diffusion(t), x)
    return sde.drift(x, t) - 0.5 * (1 + noise**2) * g**2 * time_score(sde, score)(x, t)  # Eq. (6)


def law_at(sde: SDE, mixture: GaussianMixture, t: float) -> GaussianMixture:
    """The exact law of x_t where the data are a mixture: another mixture.

    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.sde import VE, law_at
    >>> p = GaussianMixture([[5.0]], covariances=3.0)
    >>> q = law_at(VE(0.01, 100.0), p, 0.75)  # the noise is 10 then
    >>> round(q.mean.item(), 3), round(q.covariance.item(), 3)
    (5.0, 103.0)
    """
    check_time(t)
    alpha, std = sde.marginal(float(t))
    return mixture.perturb(std / alpha).scaled(alpha)


def uniform_in_time(sde: SDE, *, t_min: float = 1e-5) -> Draw:
    r"""The law of sigma where t is uniform on [t_min, 1], as in continuous-time training. Source: song2021, Eq. (7).

    ``at_random_sigma(denoising_score_matching, uniform_in_time(sde))`` is the continuous loss of every process: weighted with
    :math:`s_t^2` its :math:`s_t^2 \|\nabla \log p_t - \dots\|^2` is :math:`\|\sigma\, \mathrm{score}(y, \sigma) + z\|^2`, which is what
    the denoising loss is already. On VP that is DDPM's simple loss, on VE NCSN's, whose law is then log-uniform.

    Raises:
        ValueError: not 0 < t_min < 1.
    """
    if not 0 < t_min < 1:
        raise ValueError(f"t_min = {t_min}: it must lie between 0 and 1; song2021 uses 1e-5 to train")

    def draw(n: int, *, generator: Generator | None = None) -> Tensor:
        ops.check_count(n, "n")
        like = torch.empty((), device=ops.source(generator, torch.empty(())))
        return noise_level(sde, t_min + (1 - t_min) * ops.uniform((n,), like, generator))

    return draw


def likelihood_weight(sde: SDE) -> Callable[[Sigma], Sigma]:
    r"""The weight of ``denoising_score_matching`` under :func:`uniform_in_time` that bounds the likelihood, :math:`g^2 / \alpha^2 =
    d\sigma^2 / dt`. Source: song2021likelihood, Theorem 1.

    Integrated over time it is :math:`\int \frac12 \|\mathrm{score} + z/\sigma\|^2\, d\sigma^2`: no trace of the process is left.
    """

    def weight(sigma: Sigma) -> Sigma:
        t = sde.time(sigma)
        return sde.diffusion(t) ** 2 / sde.marginal(t)[0] ** 2

    return weight


def gaussian_log_prob(x: Tensor, std: float) -> Tensor:
    """log N(x; 0, std² I) [B], in nats."""
    dim = x[0].numel()
    return -ops.dot(x, x) / (2 * std**2) - dim * (math.log(std) + 0.5 * math.log(2 * math.pi))
