r"""Single steps of a diffusion from time t to time s < t, all called as ``step(sde, score, x, t, s, generator=...)``.

Two kinds. Euler-Maruyama and reverse diffusion step through x and treat the drift as constant. The others step through
:math:`y = x / \alpha_t` along :math:`\sigma`, where the linear part of the process is gone and what is left is the same for all of them:
with :math:`\hat x_0 = y + \sigma_t^2\, \mathrm{score}(y, \sigma_t)`, the posterior mean,

- *DDIM* keeps the predicted noise: :math:`y_s = \hat x_0 + \sigma_s (y - \hat x_0) / \sigma_t`, which is Euler's step of
  :math:`dy = -\sigma\, \mathrm{score}\, d\sigma`;
- *ancestral* sampling draws from the posterior :math:`q(y_s | y, x_0 = \hat x_0)`: part of the noise is kept, part is new;
- *Heun* repeats the first with the mean of the slopes at both ends.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.operators import Score
from toyscore.samplers.chains import check_share
from toyscore.sde import SDE, noise_level, reverse_drift, time_score, transition
from toyscore.sde.processes import check_time


class Step(Protocol):
    """``step(sde, score, x, t, s, *, generator=None)``: from x [B, *event] at time t to time s, both numbers. Differentiable."""

    def __call__(
        self, sde: SDE, score: Score, x: Tensor, t: float, s: float, /, *, generator: Generator | None = None
    ) -> Tensor: ...


def euler_maruyama_step(
    sde: SDE, score: Score, x: Tensor, t: float, s: float, *, noise: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Euler-Maruyama of the reverse SDE, to first order in t - s. Source: song2021, Eq. (6).

    Args:
        noise: lambda of ``reverse_drift``: 1 is the reverse SDE, 0 Euler's step of the probability flow.

    Raises:
        ValueError: a noise that is negative or not finite; with noise, not 0 <= s <= t.
    """
    check_share(noise, "noise")
    if noise:
        _check_way(t, s)
    x_s = x + (s - t) * reverse_drift(sde, score, x, t, noise=noise)
    x_s = x_s + noise * sde.diffusion(t) * math.sqrt(t - s) * ops.normal_like(x, generator) if noise else x_s
    return x_s.to(x.dtype)


def reverse_diffusion_step(
    sde: SDE, score: Score, x: Tensor, t: float, s: float, *, generator: Generator | None = None
) -> Tensor:
    """The forward step from s to t, exact, with its sign and its score turned round. Source: song2021, Eq. (46).

    On VP it is x (2 - sqrt(1 - beta)) + beta score + sqrt(beta) z with beta = 1 - a².
    """
    a, v = transition(sde, s, t)
    x_s = (2 - a) * x + v * time_score(sde, score)(x, t) + math.sqrt(v) * ops.normal_like(x, generator)  # Eq. (46)
    return x_s.to(x.dtype)


def ddim_step(
    sde: SDE, score: Score, x: Tensor, t: float, s: float, *, eta: float = 0.0, generator: Generator | None = None
) -> Tensor:
    """From the posterior mean, with ``eta`` of the ancestral noise. Source: song2021ddim, Eq. (12).

    Args:
        eta: 0 is deterministic (DDIM), 1 ancestral sampling (DDPM on VP, SMLD on VE).

    Raises:
        ValueError: eta outside [0, 1]; with noise, not 0 <= s <= t.
    """
    ops.check_batch(x)
    check_share(eta, "eta", 1.0)
    if eta:
        _check_way(t, s)
    (alpha_t, _), (alpha_s, _) = sde.marginal(t), sde.marginal(s)
    sigma_t, sigma_s = noise_level(sde, t), noise_level(sde, s)
    new = eta * sigma_s * math.sqrt((sigma_t - sigma_s) * (sigma_t + sigma_s)) / sigma_t if eta and sigma_t else 0.0
    y = x / alpha_t
    y = y + (math.sqrt(max(sigma_s**2 - new**2, 0.0)) - sigma_t) * _slope(score, y, sigma_t)  # Eq. (12)
    return alpha_s * (y + new * ops.normal_like(x, generator) if new else y)


def ancestral_step(
    sde: SDE, score: Score, x: Tensor, t: float, s: float, *, generator: Generator | None = None
) -> Tensor:
    """A draw from the posterior of x_s given x_t and x_0, at the posterior mean of x_0. Source: ho2020, Eq. (7); song2021, Eq. (47)."""
    return ddim_step(sde, score, x, t, s, eta=1.0, generator=generator)


def heun_step(sde: SDE, score: Score, x: Tensor, t: float, s: float, *, generator: Generator | None = None) -> Tensor:
    """Heun's step of the probability flow along sigma, of order two; runs either way. Source: karras2022, Algorithm 1.

    Two calls of the score; one where it starts or ends without noise, where the slope is zero or Euler's step is the posterior mean.
    """
    ops.check_batch(x)
    (alpha_t, _), (alpha_s, _) = sde.marginal(t), sde.marginal(s)
    sigma_t, sigma_s = noise_level(sde, t), noise_level(sde, s)
    y, h = x / alpha_t, sigma_s - sigma_t
    slope = _slope(score, y, sigma_t)
    end = y + h * slope
    if sigma_s > 0:
        end = y + h / 2 * (slope + _slope(score, end, sigma_s))
    return alpha_s * end


def _check_way(t: float, s: float) -> None:
    """Refuse a step with noise that does not lead back in time."""
    if not 0 <= s <= t:
        check_time(t)
        check_time(s)
        raise ValueError(f"t = {t}, s = {s}: a step with noise leads from t back to s, 0 <= s <= t; swap them")


def _slope(score: Score, y: Tensor, sigma: float) -> Tensor:
    """dy/dsigma, the predicted noise."""
    if sigma == 0:
        return torch.zeros_like(y)
    return -sigma * ops.evaluate(score, y, y.new_full((), sigma)).to(y.dtype)
