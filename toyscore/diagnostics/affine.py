r"""The law that a diffusion's sampler ends with, computed instead of sampled, where everything is affine: on a Gaussian.

The score of a Gaussian is affine in x. So is then every step of every sampler that does not let the noise's width depend on x or z,

.. math:: x_s = A x_t + b + \sum_j B_j z_j, \qquad z_j \sim N(0, I),

and a chain started at the prior, N(0, prior_std² I), stays Gaussian, its moments following

.. math:: m_s = A m_t + b, \qquad C_s = A C_t A^T + \sum_j B_j B_j^T.

A, b and the B_j of a step are not written down again: they are read off it (:func:`affine_law`). The step is called on a few random rows;
what it drew is drawn again from a generator of the same state, and one least-squares problem, exact but for rounding, has them all. A
step that is not affine, such as a corrector with ``matched_norms``, leaves a residual and is refused.

The divergence of two Gaussians is closed (:func:`gaussian_divergence`), so that the error of a sampler has neither noise nor floor. Two
things go into it: the steps, and the prior, which is not quite p_1. The probability flow carries the second to the end unchanged, since a
smooth one-to-one map leaves a divergence as it is; noise forgets it.

References: song2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from toyscore import operators as ops
from toyscore.distributions import GaussianMixture
from toyscore.operators import DivergenceError, Score
from toyscore.samplers import Step
from toyscore.sde import SDE, check_times

_MOST_DRAWS = 64  # of noise in a step; beyond it something else was drawn
_ROUNDING = 1e-7  # of the largest number, that an affine map may leave


@dataclass(frozen=True)
class Moments:
    """A Gaussian: ``mean`` [D] and ``covariance`` [D, D], float64 on the CPU."""

    mean: Tensor
    covariance: Tensor


@torch.no_grad()
def affine_law(
    step: Step,
    sde: SDE,
    gaussian: GaussianMixture,
    times: Tensor | Sequence[float],
    *,
    score: Score | None = None,
    start: Moments | None = None,
) -> Moments:
    """The law of a chain at the last of its times, exactly. Source: song2021, Algorithm 1.

    Args:
        step: any step of ``toyscore.samplers``, e.g. ``partial(corrected_step, snr=0.16, width=noise_std)``; its noise must come from
            ``operators.normal_like`` of x and the generator it is given.
        sde: the process.
        gaussian: the data, a mixture of a single component of any D.
        times: [N + 1], descending.
        score: another affine score to drive the chain, e.g. a wrong one; called as ``score(x, sigma)`` in float64. Default the exact one.
        start: the law at times[0]; default the prior, N(0, prior_std² I).

    Raises:
        ValueError: more than one component; times that do not descend; a start of another D; a step that is not affine in x and its noise.
        DivergenceError: the moments are no longer finite.
    """
    if len(gaussian.means) != 1:
        raise ValueError(f"{gaussian}: only a single component has an affine score; pass one with K = 1")
    numbers = check_times(times, ascending=False)
    p = gaussian.to("cpu", torch.float64)
    dim = p.means.shape[1]
    law = start or Moments(p.mean.new_zeros(dim), sde.prior_std**2 * torch.eye(dim, dtype=torch.float64, device="cpu"))
    if law.mean.shape != (dim,) or law.covariance.shape != (dim, dim):
        raise ValueError(
            f"start has a mean {list(law.mean.shape)} and a covariance {list(law.covariance.shape)}: they must be [{dim}] and "
            f"[{dim}, {dim}]; pass moments of the data's D"
        )
    given = p.score if score is None else score
    _check_rows(step, sde, given, numbers[0], numbers[1], dim)
    reader = _Reader(dim, 0)
    for t, s in pairwise(numbers):
        a, b, noise = reader.read(step, sde, given, t, s)
        law = Moments(a @ law.mean + b, a @ law.covariance @ a.mT + noise)
        if not bool(torch.isfinite(law.covariance).all()):
            raise DivergenceError(f"the covariance at t = {s:.6g} is not finite: pass more times, or a smaller snr")
    return law


def gaussian_divergence(p: Moments, q: Moments | GaussianMixture) -> float:
    r"""KL(p || q) of two Gaussians, in nats.

    .. math:: \frac12 \sum_i (\lambda_i - 1 - \log \lambda_i) + \frac12 (m_p - m_q)^T C_q^{-1} (m_p - m_q),

    the lambda_i being the eigenvalues of :math:`C_q^{-1} C_p`; written so that it keeps its digits where the two are nearly alike.

    Args:
        p: e.g. of ``affine_law``.
        q: the same, or a mixture of a single component, e.g. of ``law_at``.

    Raises:
        ValueError: q has more than one component, or another D; covariances that are not positive definite.
    """
    if isinstance(q, GaussianMixture):
        if len(q.means) != 1:
            raise ValueError(f"{q}: the divergence is closed between Gaussians; pass a mixture with K = 1")
        q = Moments(q.means[0].cpu().double(), q.covariances[0].cpu().double())
    if p.mean.shape != q.mean.shape:
        raise ValueError(f"p has D = {len(p.mean)}, q D = {len(q.mean)}: they must live in one space; pass marginals")
    root, info = torch.linalg.cholesky_ex(q.covariance)
    if int(info):
        raise ValueError("the covariance of q is not positive definite: q must have a density; pass one with noise")
    excess = _within(root, p.covariance - q.covariance)
    values = torch.linalg.eigvalsh((excess + excess.mT) / 2)  # lambda - 1
    if not bool((values > -1).all()):
        raise ValueError("the covariance of p is not positive definite: p must have a density; pass one with noise")
    away = torch.linalg.solve_triangular(root, (p.mean - q.mean)[:, None], upper=False)
    return 0.5 * float((values - values.log1p()).sum() + away.square().sum())


def _within(root: Tensor, matrix: Tensor) -> Tensor:
    """root^-1 matrix root^-T."""
    left = torch.linalg.solve_triangular(root, matrix, upper=False)
    return torch.linalg.solve_triangular(root, left.mT, upper=False).mT


class _Reader:
    """Reads A [D, D], b [D] and the covariance [D, D] of the noise off a step, from its values at random rows."""

    def __init__(self, dim: int, seed: int) -> None:
        self.dim, self.generator = dim, torch.Generator().manual_seed(seed)
        self._take(8 * dim + 16)

    def _take(self, n_rows: int) -> None:
        """Fresh rows, after which the generator's state is ``before``."""
        self.rows = torch.randn(n_rows, self.dim, dtype=torch.float64, device="cpu", generator=self.generator)
        self.before = self.generator.get_state()
        self.after: Tensor | None = None  # a step; the design below is of what was drawn in between

    def _look(self, after: Tensor) -> None:
        """Draw again what a step drew, for the least-squares problem of all that follow it and draw alike."""
        draws = _drawn(self.rows, self.before, after)
        n_columns = self.dim * (1 + len(draws)) + 1
        if 2 * n_columns > len(self.rows):
            self._take(2 * n_columns)
            return
        self.after, self.design = after, torch.cat([self.rows, torch.ones_like(self.rows[:, :1]), *draws], 1)
        self.inverse = torch.linalg.pinv(self.design)

    def read(self, step: Step, sde: SDE, score: Score, t: float, s: float) -> tuple[Tensor, Tensor, Tensor]:
        size = math.hypot(*sde.marginal(t))
        while True:
            self.generator.set_state(self.before)
            out = step(sde, score, size * self.rows, t, s, generator=self.generator)
            after = self.generator.get_state()
            if self.after is not None and torch.equal(after, self.after):
                break
            self._look(after)
        found = self.inverse @ out
        left = float((self.design @ found - out).abs().max())
        if not left <= _ROUNDING * max(float(out.abs().max()), size):
            raise ValueError(
                f"the step from t = {t:.6g} to {s:.6g} is not affine: the best affine map is off by {left:.3g}; pass one whose noise "
                "does not depend on x, e.g. width=noise_std for a corrector"
            )
        noise = found[self.dim + 1 :]  # B_j transposed, one below the other
        return found[: self.dim].mT / size, found[self.dim], noise.mT @ noise


def _check_rows(step: Step, sde: SDE, score: Score, t: float, s: float, dim: int) -> None:
    """Refuse a step whose map depends on the rows that it is read off: one that couples them."""
    first, second = (_Reader(dim, seed).read(step, sde, score, t, s) for seed in (0, 1))
    for one, other in zip(first, second, strict=True):
        if not torch.allclose(one, other, rtol=_ROUNDING, atol=_ROUNDING * (1 + float(one.abs().max()))):
            raise ValueError(
                f"the step from t = {t:.6g} to {s:.6g} is not affine row by row: its map depends on the batch; pass one that leaves "
                "rows alone, e.g. width=noise_std for a corrector"
            )


def _drawn(x: Tensor, before: Tensor, after: Tensor) -> list[Tensor]:
    """The noise [B, D] that was drawn between two states of a generator."""
    generator, draws = torch.Generator(), list[Tensor]()
    generator.set_state(before)
    while not torch.equal(generator.get_state(), after):
        if len(draws) == _MOST_DRAWS:
            raise ValueError(
                f"the step drew something else than up to {_MOST_DRAWS} tensors of noise like x: its law cannot be read off it; "
                "let it draw by operators.normal_like(x, generator)"
            )
        draws.append(ops.normal_like(x, generator))
    return draws
