r"""Gaussian mixtures: the ground truth of everything else.

With weights :math:`\pi_k`, means :math:`\mu_k` and covariances :math:`\Sigma_k`, noise of standard deviation
:math:`\sigma` turns the mixture into another one, exactly:

.. math:: q_\sigma(x) = \sum_k \pi_k N(x; \mu_k, \Sigma_k + \sigma^2 I).

With the responsibilities :math:`r_k(x) \propto \pi_k N(x; \mu_k, \Sigma_k + \sigma^2 I)`, which sum to one,

.. math:: \nabla \log q_\sigma(x) = \sum_k r_k(x)\, s_k(x), \qquad s_k(x) = -(\Sigma_k + \sigma^2 I)^{-1} (x - \mu_k),

so the score is the responsibility-weighted mean of the components' scores. It is *not* their sum, and it does depend on
the weights, wherever two components share a region. Its Jacobian is the spread of the s_k minus the mean precision.

How it is computed. Each covariance is diagonalised once, :math:`\Sigma_k = Q_k \Lambda_k Q_k^T`, so any sigma, also one
per row, only adds to eigenvalues, and a degenerate covariance becomes proper as soon as sigma > 0. Components come
first in memory (``[K, B]`` logits, ``[D, B]`` states seen as ``[B, D]``): worth a factor of five on a toy. Two forms of
the logits, with R the largest ``|mu_k - c|`` from the centre c of the means:

- *differences*, :math:`-\frac12 (x - \mu_k)^T P_k (x - \mu_k)`: accurate within ``2 R`` of c. Farther away the squares,
  which components of one covariance share, swamp their differences.
- *products*, :math:`(\mu_k - c)^T P_k (x - c) - \frac12 (\mu_k - c)^T P_k (\mu_k - c)` with the remaining square of
  :math:`x - c` taken relative to its least over k, so that equal covariances cancel exactly: used beyond ``2 R``. Where all
  covariances are equal and :math:`R^2 p \le 100`, p being the largest precision, products lose at most two digits
  anywhere; they are two matrix products, and used everywhere.

The responsibilities are then those of a point, means and covariances within a few rounding units of the given, up to
1e18 standard deviations away; in float32 squares overflow soon after, and the score is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.distributions import parameters
from toyscore.distributions.parameters import Spread
from toyscore.operators import Sigma

_PRODUCT_LIMIT = 100.0  # R^2 p up to which products lose at most two digits
_CHUNK = 1 << 24  # elements of the [K, D, B] intermediate held at once: 64 MiB in float32


class _Level(NamedTuple):
    """What a noise level fixes; the last axis is 1, or B where sigma is given per row."""

    whiten: Tensor  # [K, D, 1 | B]  inverse standard deviations along the eigenvectors
    log_norm: Tensor  # [K, 1 | B]  log weight + log normaliser, relative to the largest
    largest: Tensor  # [1 | B]  that largest
    precision: Tensor  # [D, 1 | B]  of the first component: of all, where they share one
    offset: Tensor  # [K, 1 | B]  the product form's constant
    products: bool  # may the product form be used everywhere?

    def rows(self, cut: slice) -> _Level:
        """The level of some rows of x."""
        if self.log_norm.shape[1] == 1:
            return self
        whiten, log_norm, largest, precision, offset = (t[..., cut] for t in self[:5])
        return _Level(whiten, log_norm, largest, precision, offset, self.products)


class GaussianMixture:
    r"""The mixture :math:`p(x) = \sum_k \pi_k N(x; \mu_k, \Sigma_k)`, exact at every noise level.

    Args:
        means: [K, D], a floating-point tensor or nested numbers. Its dtype and device are the mixture's.
        covariances: a scalar or [K] (isotropic variances), [K, D] (variances per axis), [K, D, D] (full); a leading 1
            is shared by all components. Variances, not standard deviations; in units of x squared. Zero variance is
            allowed, and an error where the clean density is asked for.
        weights: [K], non-negative, summing to one; equal by default.

    Raises:
        TypeError: a dtype other than that of ``means``.
        ValueError: wrong shapes; NaN; weights that are negative or do not sum to one; a covariance that is not
            symmetric or not positive semi-definite.

    The mixture is a constant: no gradient flows into its parameters.
    """

    @torch.inference_mode(False)  # what is kept must serve later gradients
    def __init__(self, means: Any, covariances: Any = 1.0, weights: Any = None) -> None:
        means = parameters.as_tensor(means, "means")
        if means.ndim != 2 or means.numel() == 0:
            raise ValueError(
                f"means has shape {list(means.shape)}: it must be [K, D] with K, D >= 1; pass one row per component"
            )
        ops.check_finite(means, "means")
        spread = parameters.spread(parameters.as_tensor(covariances, "covariances", means), means)
        self._set(means, spread, parameters.check_weights(weights, means))

    def _set(self, means: Tensor, spread: Spread, weights: Tensor) -> None:
        self._means, self._spread, self._weights = means, spread, weights
        variances, bases = self._variances, self._bases = spread.variances, spread.bases
        centre = means.mean(0)
        offsets = means - centre
        if float(means.norm(dim=1).max()) <= 2 * float(offsets.norm(dim=1).max()):
            centre, offsets = torch.zeros_like(centre), means
        self._centre = centre[:, None] if centre.any() else None  # what the product form subtracts, where it pays
        self._turned = offsets if bases is None else (offsets[:, None] @ bases)[:, 0]  # along the eigenvectors: [K, D]
        self._shared = bool((variances == variances[:1]).all()) and (bases is None or bool((bases == bases[:1]).all()))
        self._smallest = float(variances.min())
        self._radius = float(offsets.norm(dim=1).max())
        self._level_at: tuple[float, _Level] | None = None

    @classmethod
    def _build(cls, means: Tensor, spread: Spread, weights: Tensor) -> GaussianMixture:
        mixture = cls.__new__(cls)
        mixture._set(means, spread, weights)
        return mixture

    @property
    def means(self) -> Tensor:
        """[K, D]."""
        return self._means

    @property
    def weights(self) -> Tensor:
        """[K], summing to one."""
        return self._weights

    @property
    def covariances(self) -> Tensor:
        """[K, D, D], always full."""
        return torch.diag_embed(self._variances) if self._spread.full is None else self._spread.full

    @property
    def mean(self) -> Tensor:
        """[D], of the whole mixture."""
        return self._weights @ self._means

    @property
    def covariance(self) -> Tensor:
        """[D, D], of the whole mixture: mean of the covariances plus covariance of the means."""
        offsets = self._means - self.mean
        return (
            torch.einsum("k,kij->ij", self._weights, self.covariances) + (self._weights[:, None] * offsets).mT @ offsets
        )

    def __repr__(self) -> str:
        n, dim = self._means.shape
        return f"GaussianMixture(K={n}, D={dim}, {str(self._means.dtype).removeprefix('torch.')}, {self._means.device})"

    @torch.inference_mode(False)
    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> GaussianMixture:
        """The same mixture on another device or in another dtype, its weights summing to one to the new rounding."""
        means, weights = self._means.to(device, dtype), self._weights.to(device, dtype)
        return GaussianMixture._build(means, self._spread.to(device, dtype), weights / weights.sum())

    def log_prob(self, x: Tensor, sigma: Sigma = 0.0) -> Tensor:
        r"""Log density of the perturbed mixture, :math:`\log q_\sigma(x)`, in nats.

        Args:
            x: [B, *event] with D numbers in an event, of the mixture's dtype.
            sigma: float | 0-d | [B], the noise's standard deviation in units of x.

        Returns:
            [B].

        Raises:
            TypeError: x of another dtype.
            ValueError: wrong event, empty batch, sigma negative or NaN, or zero where a covariance is degenerate.
        """

        def piece(xt: Tensor, level: _Level) -> Tensor:
            return torch.logsumexp(self._logits(self._whitened(xt, level), level), 0) + level.largest

        return self._by_chunks(piece, x, sigma)

    def score(self, x: Tensor, sigma: Sigma = 0.0) -> Tensor:
        r"""Score of the perturbed mixture, :math:`\nabla_x \log q_\sigma(x) = \sum_k r_k(x) s_k(x)`. Source: song2019, Sec. 2.

        Args, errors: as ``log_prob``.

        Returns:
            [B, *event], in units of 1/x. Stored components first, whatever the layout of x.
        """
        return self._by_chunks(self._score, x, sigma).view_as(x)

    def responsibilities(self, x: Tensor, sigma: Sigma = 0.0) -> Tensor:
        """Posterior probability of each component given x; args and errors as ``log_prob``. Returns [B, K]."""
        return self._by_chunks(lambda xt, level: self._responsibilities(xt, level), x, sigma)

    def jacobian(self, x: Tensor, sigma: Sigma = 0.0) -> Tensor:
        r"""Jacobian of the score, :math:`\sum_k r_k (s_k - s)(s_k - s)^T - \sum_k r_k (\Sigma_k + \sigma^2 I)^{-1}`.

        Args, errors: as ``log_prob``.

        Returns:
            [B, D, D], symmetric, in units of 1/x squared.
        """
        return self._by_chunks(self._jacobian, x, sigma, size=self._means.shape[1])

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Independent draws from the clean mixture: [n, D]."""
        ops.check_count(n, "n")
        device = ops.source(generator, self._weights)
        index = torch.multinomial(self._weights.to(device), n, replacement=True, generator=generator).to(
            self._means.device
        )
        means = self._means[index]
        noise = ops.normal_like(means, generator) * self._variances[index].sqrt()
        if self._bases is not None:
            noise = torch.einsum("nij,nj->ni", self._bases[index], noise)
        return means + noise

    @torch.inference_mode(False)
    def perturb(self, sigma: float) -> GaussianMixture:
        r"""The exact convolution with N(0, sigma^2 I): covariances :math:`\Sigma_k + \sigma^2 I`, for a single sigma."""
        ops.check_sigma(sigma, self._means)
        if isinstance(sigma, Tensor) and sigma.ndim:
            raise ValueError(f"sigma has shape {list(sigma.shape)}: perturb takes one noise level; pass a float")
        return GaussianMixture._build(self._means, self._spread.plus(float(sigma) ** 2), self._weights)

    def marginal(self, dims: Sequence[int]) -> GaussianMixture:
        """The exact law of the coordinates ``dims``, in that order.

        Raises:
            ValueError: no coordinate, one out of range, or one named twice.
        """
        kept = parameters.check_dims(dims, self._means.shape[1])
        return GaussianMixture(self._means[:, kept], self.covariances[:, kept][:, :, kept], self._weights)

    @torch.inference_mode(False)
    def condition(self, dims: Sequence[int], values: Any) -> GaussianMixture:
        r"""The exact law of the other coordinates, in their order, given that coordinates ``dims`` equal ``values``.

        Per component, with o the others: mean :math:`\mu_o + \Sigma_{od} \Sigma_{dd}^{-1} (v - \mu_d)`, covariance
        :math:`\Sigma_{oo} - \Sigma_{od} \Sigma_{dd}^{-1} \Sigma_{do}`; the weight is multiplied by its density at v.

        Raises:
            ValueError: dims as in ``marginal``, or naming every coordinate; values not [len(dims)] or not finite; a
                degenerate covariance among ``dims``.
        """
        dim = self._means.shape[1]
        given = parameters.check_dims(dims, dim)
        others = [d for d in range(dim) if d not in given]
        if not others:
            raise ValueError(
                f"dims = {list(dims)} names every coordinate: condition leaves at least one free; use log_prob for "
                "the density at a point"
            )
        values = parameters.as_tensor(values, "values", self._means)
        if values.shape != (len(given),):
            raise ValueError(
                f"values has shape {list(values.shape)}: dims = {list(dims)} needs [{len(given)}]; pass one value "
                "per coordinate"
            )
        ops.check_finite(values[None], "values")
        marginal = self.marginal(given)
        weights = marginal.responsibilities(values[None])[0]
        gain, left = parameters.schur(self.covariances, others, given)
        means = self._means[:, others] + torch.einsum("kod,kd->ko", gain, values - marginal.means)
        return GaussianMixture._build(means, left, weights)

    def _level(self, sigma: Sigma, x: Tensor) -> _Level:
        """The level of a checked sigma; the last one given as a number is remembered."""
        if not isinstance(sigma, Tensor) or not (sigma.ndim or sigma.is_cuda or sigma.requires_grad):
            number = float(sigma) if isinstance(sigma, Tensor) else sigma
            remembered = self._level_at
            if remembered is not None and remembered[0] == number:
                return remembered[1]
            ops.check_sigma(number, x)
            number = float(number)
            _check_square(number, x)
            with torch.inference_mode(False):  # what is remembered must serve later gradients too
                level = self._make_level(number * number, number)
            self._level_at = (number, level)
            return level
        if sigma.is_cuda:  # reading values would stall the device: samplers and losses have checked them
            if sigma.ndim and sigma.shape != x.shape[:1]:
                ops.check_sigma(sigma, x)
            return self._make_level(sigma.to(x).reshape(-1).square(), None)
        ops.check_sigma(sigma, x)
        _check_square(float(sigma.detach().max()), x)
        return self._make_level(sigma.to(x).reshape(-1).square(), float(sigma.detach().min()))

    def _make_level(self, sigma2: Sigma, least: float | None) -> _Level:
        """What ``sigma2`` fixes; ``least`` is the smallest sigma in it, or None where it is not known."""
        smallest = self._smallest + (least * least if least is not None else 0.0)
        if least is not None and smallest < torch.finfo(self._means.dtype).tiny:
            worst = int(self._variances.min(1).values.argmin())
            raise ValueError(
                f"covariances[{worst}] is degenerate (smallest variance {self._smallest:.3g}) and sigma = {least:.3g}: "
                "a density needs positive variances; pass sigma > 0, or add a small variance"
            )
        variances = self._variances[:, :, None] + sigma2
        log_norm = self._weights.log()[:, None] - 0.5 * (variances.log() + math.log(2 * math.pi)).sum(1)
        largest = log_norm.amax(0)  # kept apart: it would cost the responsibilities digits in many dimensions
        log_norm = log_norm - largest
        offset = log_norm - 0.5 * (self._turned.square()[:, :, None] / variances).sum(1)
        products = self._shared and self._radius**2 <= _PRODUCT_LIMIT * smallest
        return _Level(variances.rsqrt(), log_norm, largest, variances[0].reciprocal(), offset, products)

    def _by_chunks(
        self, function: Callable[[Tensor, _Level], Tensor], x: Tensor, sigma: Sigma, size: int = 1
    ) -> Tensor:
        """Apply ``function`` to ``[D, B]`` pieces of x, ``size`` [K, D, B] at a time; its last axis comes back first."""
        n, dim = self._means.shape
        flat = ops.check_event(x, dim, self._means.dtype, "the mixture")
        level = self._level(sigma, x)
        rows = max(1, _CHUNK // (n * dim * size))
        if len(flat) <= rows:
            return function(flat.t(), level).movedim(-1, 0)
        pieces = []
        for start in range(0, len(flat), rows):
            cut = slice(start, start + rows)
            pieces.append(function(flat[cut].t(), level.rows(cut)))
        return torch.cat(pieces, -1).movedim(-1, 0)

    def _whitened(self, xt: Tensor, level: _Level) -> Tensor:
        """[K, D, B]: the differences along the eigenvectors, in standard deviations."""
        return self._rotated(xt - self._means[:, :, None]) * level.whiten

    def _rotated(self, differences: Tensor) -> Tensor:
        """[K, D, B]: along each component's eigenvectors."""
        return differences if self._bases is None else self._bases.mT @ differences

    def _logits(self, whitened: Tensor, level: _Level) -> Tensor:
        """[K, B]: log of weight times component density, less ``level.largest``, by differences."""
        return level.log_norm - 0.5 * whitened.square().sum(1)

    def _products(self, ut: Tensor, level: _Level) -> Tensor:
        """[K, B]: for a shared covariance, the logits by products; ``ut`` is x - c along its eigenvectors."""
        return torch.addmm(level.offset, self._turned, level.precision * ut)

    def _far_logits(self, xt: Tensor, level: _Level) -> Tensor:
        """[K, B]: for any covariances, the logits by products; squares that are equal cancel to the bit."""
        whitened = self._rotated(self._centred(xt)[None]) * level.whiten
        squares = whitened.square().sum(1)
        linear = (self._turned[:, :, None] * level.whiten * whitened).sum(1)
        return level.offset + linear - 0.5 * (squares - squares.amin(0))

    def _centred(self, xt: Tensor) -> Tensor:
        return xt if self._centre is None else xt - self._centre

    def _along(self, xt: Tensor) -> Tensor:
        """x - c along the eigenvectors that the components share."""
        return self._centred(xt) if self._bases is None else self._bases[0].mT @ self._centred(xt)

    def _responsibilities(self, xt: Tensor, level: _Level) -> Tensor:
        if level.products:
            return torch.softmax(self._products(self._along(xt), level), 0)
        return self._posterior(xt, self._whitened(xt, level), level)

    def _posterior(self, xt: Tensor, whitened: Tensor, level: _Level) -> Tensor:
        """[K, B] responsibilities by differences, by products where those are the more accurate."""
        logits = self._logits(whitened, level)
        if len(self._means) > 1:
            far = self._centred(xt).square().sum(0) > (2 * self._radius) ** 2
            if far.is_cuda or bool(far.any()):
                logits = torch.where(far, self._far_logits(xt, level), logits)
        return torch.softmax(logits, 0)

    def _score(self, xt: Tensor, level: _Level) -> Tensor:
        if level.products:
            ut = self._along(xt)
            r = torch.softmax(self._products(ut, level), 0)
            st = level.precision * torch.addmm(ut, self._turned.t(), r, beta=-1)
            return st if self._bases is None else self._bases[0] @ st
        whitened = self._whitened(xt, level)
        r = self._posterior(xt, whitened, level)
        return -self._unwhitened(r[:, None] * whitened, level).sum(0)

    def _unwhitened(self, whitened: Tensor, level: _Level) -> Tensor:
        """[K, D, B]: the precision times the differences, from the whitened differences."""
        along = whitened * level.whiten
        return along if self._bases is None else self._bases @ along

    def _jacobian(self, xt: Tensor, level: _Level) -> Tensor:
        whitened = self._whitened(xt, level)
        r = self._posterior(xt, whitened, level)
        scores = -self._unwhitened(whitened, level)
        deviations = scores - (r[:, None] * scores).sum(0)
        spread = torch.einsum("kb,kib,kjb->ijb", r, deviations, deviations)
        precisions = r[:, None] * level.whiten.square()
        if self._bases is None:
            return spread - torch.diag_embed(precisions.sum(0).t()).movedim(0, -1)
        return spread - torch.einsum("kib,kdi,kei->deb", precisions, self._bases, self._bases)


def _check_square(sigma: float, x: Tensor) -> None:
    if sigma * sigma > torch.finfo(x.dtype).max:
        raise ValueError(f"sigma = {sigma}: its square must be finite in {x.dtype}; pass a smaller sigma")
