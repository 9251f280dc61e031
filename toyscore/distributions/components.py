r"""K weighted Gaussians, and what a point is to them: the arithmetic behind :class:`GaussianMixture`.

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
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from toyscore import operators as ops
from toyscore._precision import exact, full_precision, reduced
from toyscore.distributions.parameters import Spread
from toyscore.operators import Sigma

PRODUCT_LIMIT = 100.0  # R^2 p up to which products lose at most two digits
_CHUNK = 1 << 24  # elements of the [K, D, B] intermediate held at once: 64 MiB in float32


class Level(NamedTuple):
    """What a noise level fixes; the last axis is 1, or B where sigma is given per row."""

    whiten: Tensor  # [K, D, 1 | B]  inverse standard deviations along the eigenvectors
    log_norm: Tensor  # [K, 1 | B]  log weight + log normaliser, relative to the largest
    largest: Tensor  # [1 | B]  that largest
    precision: Tensor  # [D, 1 | B]  of the first component: of all, where they share one
    offset: Tensor  # [K, 1 | B]  the product form's constant
    products: bool  # may the product form be used everywhere?
    scale: float | None  # the precision, where it is one number for all rows and axes

    def rows(self, cut: slice | Tensor) -> Level:
        """The level of some rows of x."""
        if self.log_norm.shape[1] == 1:
            return self
        whiten, log_norm, largest, precision, offset = (t[..., cut] for t in self[:5])
        return Level(whiten, log_norm, largest, precision, offset, self.products, self.scale)


class Components:
    """Checked means [K, D], covariances and weights [K], with what every noise level shares."""

    @exact
    def __init__(self, means: Tensor, spread: Spread, weights: Tensor) -> None:
        self.means, self.spread, self.weights = means, spread, weights
        variances, bases = self.variances, self.bases = spread.variances, spread.bases
        self._counted = torch.where(weights[:, None] > 0, variances, 1.0)  # what has no weight may be degenerate
        centre = means.mean(0)
        offsets = means - centre
        if float(means.norm(dim=1).max()) <= 2 * float(offsets.norm(dim=1).max()):
            centre, offsets = torch.zeros_like(centre), means
        self._centre = centre[:, None] if centre.any() else None  # what the product form subtracts, where it pays
        self._turned = offsets if bases is None else (offsets[:, None] @ bases)[:, 0]  # along the eigenvectors: [K, D]
        self._halves = 0.5 * self._turned.square()[:, :, None]
        self._log_weights = weights.log()[:, None] - 0.5 * means.shape[1] * math.log(2 * math.pi)
        self._shared = bool((variances == variances[:1]).all()) and (bases is None or bool((bases == bases[:1]).all()))
        self._dim, self._kind = means.shape[1], means.device.type
        self._isotropic = self._shared and bool((variances == variances[0, 0]).all())
        self._smallest = float(variances[weights > 0].min())
        self._radius = float(offsets.norm(dim=1).max())
        self._level_at: tuple[float, Level] | None = None

    def _level(self, sigma: Sigma, x: Tensor) -> Level:
        """The level of a checked sigma; the last one given as a number is remembered."""
        if not isinstance(sigma, Tensor) or (sigma.is_cpu and not sigma.ndim and not sigma.requires_grad):
            number = float(sigma) if isinstance(sigma, Tensor) else sigma
            remembered = self._level_at
            if remembered is not None and remembered[0] == number:
                return remembered[1]
            number, _ = ops.check_sigma(number, x)
            check_square(number, x)
            with torch.inference_mode(False):  # what is remembered must serve later gradients too
                level = self._make_level(number * number, number)
            self._level_at = (number, level)
            return level
        if not sigma.is_cpu:  # reading values would stall the device: samplers and losses have checked them
            if sigma.ndim and sigma.shape != x.shape[:1]:
                ops.check_sigma(sigma, x)
            return self._make_level(sigma.to(x).reshape(-1).square(), None)
        least, largest = ops.check_sigma(sigma, x)
        check_square(largest, x)
        return self._make_level(sigma.to(x).reshape(-1).square(), least)

    def _make_level(self, sigma2: Sigma, least: float | None) -> Level:
        """What ``sigma2`` fixes; ``least`` is the smallest sigma in it, or None where it is not known."""
        smallest = self._smallest + (least * least if least is not None else 0.0)
        if least is not None and smallest < torch.finfo(self.means.dtype).tiny:
            worst = int(self._counted.min(1).values.argmin())
            enough = f">= {math.sqrt(torch.finfo(self.means.dtype).tiny):.2g}" if least else "> 0"
            raise ValueError(
                f"covariances[{worst}] is degenerate (smallest variance {self._smallest:.3g}) and sigma = {least:.3g}: "
                f"a density needs positive variances; pass sigma {enough}, or add a small variance"
            )
        variances = self._counted[:, :, None] + sigma2
        log_norm = self._log_weights - 0.5 * variances.log().sum(1)
        largest = log_norm.amax(0)  # kept apart: it would cost the responsibilities digits in many dimensions
        log_norm = log_norm - largest
        offset = log_norm - (self._halves / variances).sum(1)
        products = self._shared and self._radius**2 <= PRODUCT_LIMIT * smallest
        precision = variances[0].reciprocal()
        scale = float(precision[0, 0]) if self._isotropic and isinstance(sigma2, float) else None
        return Level(variances.rsqrt(), log_norm, largest, precision, offset, products, scale)

    def apply(self, function: Callable[[Tensor, Level], Tensor], x: Tensor, sigma: Sigma, size: int = 1) -> Tensor:
        """Apply ``function`` to ``[D, B]`` pieces of x whose [K, D, B] intermediates, ``size`` times, fit into memory. It
        returns [..., B]; this returns [B, ...]."""
        if reduced(self._kind):
            with full_precision(self._kind):
                return self._apply(function, x, sigma, size)
        return self._apply(function, x, sigma, size)

    def _apply(self, function: Callable[[Tensor, Level], Tensor], x: Tensor, sigma: Sigma, size: int) -> Tensor:
        flat = ops.check_event(x, self._dim, self.means, "the mixture")
        level = self._level(sigma, x)
        rows = max(1, _CHUNK // (self.means.numel() * size))
        if flat.shape[0] <= rows:
            return _rows_first(function(flat.t(), level))
        pieces = []
        for start in range(0, len(flat), rows):
            cut = slice(start, start + rows)
            pieces.append(function(flat[cut].t(), level.rows(cut)))
        return _rows_first(torch.cat(pieces, -1))

    def _whitened(self, xt: Tensor, level: Level) -> Tensor:
        """[K, D, B]: the differences along the eigenvectors, in standard deviations."""
        return self._rotated(xt.contiguous() - self.means[:, :, None]) * level.whiten

    def _rotated(self, differences: Tensor) -> Tensor:
        """[K, D, B]: along each component's eigenvectors."""
        return differences if self.bases is None else self.bases.mT @ differences

    def _logits(self, whitened: Tensor, level: Level) -> Tensor:
        """[K, B]: log of weight times component density, less ``level.largest``, by differences."""
        return level.log_norm - 0.5 * whitened.square().sum(1)

    def _products(self, ut: Tensor, level: Level) -> Tensor:
        """[K, B]: for a shared covariance, the logits by products; ``ut`` is x - c along its eigenvectors."""
        if level.scale is not None:
            return torch.addmm(level.offset, self._turned, ut, alpha=level.scale)
        return torch.addmm(level.offset, self._turned, level.precision * ut)

    def _far_logits(self, xt: Tensor, level: Level) -> Tensor:
        """[K, B]: for any covariances, the logits by products; squares that are equal cancel to the bit."""
        whitened = self._rotated(self._centred(xt)[None]) * level.whiten
        squares = whitened.square().sum(1)
        linear = (self._turned[:, :, None] * level.whiten * whitened).sum(1)
        return level.offset + linear - 0.5 * (squares - squares.amin(0))

    def _centred(self, xt: Tensor) -> Tensor:
        return xt if self._centre is None else xt - self._centre

    def _along(self, xt: Tensor) -> Tensor:
        """x - c along the eigenvectors that the components share."""
        return self._centred(xt) if self.bases is None else self.bases[0].mT @ self._centred(xt)

    def log_prob(self, xt: Tensor, level: Level) -> Tensor:
        """[B], in nats."""
        return torch.logsumexp(self._logits(self._whitened(xt, level), level), 0) + level.largest

    def responsibilities(self, xt: Tensor, level: Level) -> Tensor:
        """[K, B], summing to one."""
        return torch.softmax(self._relative(xt, level), 0)

    def log_responsibilities(self, xt: Tensor, level: Level) -> Tensor:
        """[K, B]."""
        return torch.log_softmax(self._relative(xt, level), 0)

    def _relative(self, xt: Tensor, level: Level) -> Tensor:
        """[K, B]: the logits but for what components share, whichever form is the more accurate."""
        if level.products:
            return self._products(self._along(xt), level)
        xt = xt.contiguous()
        return self._nearest_logits(xt, self._whitened(xt, level), level)

    def _posterior(self, xt: Tensor, whitened: Tensor, level: Level) -> Tensor:
        """[K, B] responsibilities."""
        return torch.softmax(self._nearest_logits(xt, whitened, level), 0)

    def _nearest_logits(self, xt: Tensor, whitened: Tensor, level: Level) -> Tensor:
        """[K, B] logits by differences, by products where those are the more accurate."""
        logits = self._logits(whitened, level)
        if len(self.means) > 1:
            far = self._centred(xt).square().sum(0) > (2 * self._radius) ** 2
            if not far.is_cpu:
                return torch.where(far, self._far_logits(xt, level), logits)
            rows = far.nonzero()[:, 0]
            if len(rows):
                logits = logits.index_copy(1, rows, self._far_logits(xt[:, rows], level.rows(rows)))
        return logits

    def score(self, xt: Tensor, level: Level) -> Tensor:
        """[D, B]."""
        if level.products:
            ut = self._along(xt)
            r = torch.softmax(self._products(ut, level), 0)
            if level.scale is not None:  # a factor of the matrix product costs nothing
                st = torch.addmm(ut, self._turned.t(), r, beta=-level.scale, alpha=level.scale)
            else:
                st = level.precision * torch.addmm(ut, self._turned.t(), r, beta=-1)
            return st if self.bases is None else self.bases[0] @ st
        xt = xt.contiguous()  # rows side by side: differences take their layout, and are thrice as fast
        whitened = self._whitened(xt, level)
        r = self._posterior(xt, whitened, level)
        return -self._unwhitened(r[:, None] * whitened, level).sum(0)

    def _unwhitened(self, whitened: Tensor, level: Level) -> Tensor:
        """[K, D, B]: the precision times the differences, from the whitened differences."""
        along = whitened * level.whiten
        return along if self.bases is None else self.bases @ along

    def jacobian(self, xt: Tensor, level: Level) -> Tensor:
        """[D, D, B]."""
        whitened = self._whitened(xt, level)
        r = self._posterior(xt, whitened, level)
        scores = -self._unwhitened(whitened, level)
        deviations = scores - (r[:, None] * scores).sum(0)
        spread = torch.einsum("kb,kib,kjb->ijb", r, deviations, deviations)
        precisions = r[:, None] * level.whiten.square()
        if self.bases is None:
            return spread - torch.diag_embed(precisions.sum(0).t()).movedim(0, -1)
        return spread - torch.einsum("kib,kdi,kei->deb", precisions, self.bases, self.bases)


def _rows_first(x: Tensor) -> Tensor:
    return x.t() if x.ndim < 3 else x.movedim(-1, 0)


def check_square(value: float, x: Tensor, name: str = "sigma") -> None:
    """Refuse a number whose square is not finite in x's dtype."""
    if abs(value) > math.sqrt(torch.finfo(x.dtype).max):
        raise ValueError(f"{name} = {value}: its square must be finite in {x.dtype}; pass a smaller {name}")
