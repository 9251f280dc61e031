r"""A data set as a distribution: equal-weight deltas, whose smoothed score is exact.

.. math:: q_\sigma(x) = \frac1N \sum_n N(x; x_n, \sigma^2 I), \qquad
          \nabla \log q_\sigma(x) = \frac{\sum_n r_n(x)\, x_n - x}{\sigma^2}.

This is the global minimiser of denoising score matching on the data set: a network that reached it would only ever
return training points. It stands in for a network anywhere, in any event shape.

Points are kept relative to their mean, so that data far from the origin loses no digits: with ``R = max |x_n - mean|`` the
score errs by about a rounding unit times ``R / sigma``, relative to ``1 / sigma``. Responsibilities come from a matrix product
where that loses at most two digits (``R^2 <= 100 sigma^2``) and where x is beyond ``2 R``. Otherwise the product only rules
out points whose share is below a rounding unit, and differences decide between the rest. Rows are taken a few at a time:
memory stays near twice the size of the data set.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore._precision import exact
from toyscore.distributions.components import PRODUCT_LIMIT
from toyscore.operators import Sigma

_FEW = 16  # a part of the points beyond which looking them up takes longer than all differences


class Empirical:
    """Equal-weight deltas at ``points`` [N, *event]; made by :func:`empirical`."""

    @torch.inference_mode(False)  # what is kept must serve later gradients
    def __init__(self, points: Tensor) -> None:
        ops.check_batch(points, "points")
        ops.check_finite(points, "points")
        self.points = points.detach()
        flat = ops.flatten(self.points)
        self._centre = flat.mean(0)
        self._flat = flat - self._centre
        self._squares = ops.dot(self._flat, self._flat).to(points.dtype)
        self._largest = float(self._squares.max())

    def __repr__(self) -> str:
        return f"Empirical(N={len(self.points)}, event={list(self.points.shape[1:])}, {self.points.dtype}, {self.points.device})"

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Points drawn with replacement: [n, *event]."""
        ops.check_count(n, "n")
        device = ops.source(generator, self.points)
        index = torch.randint(len(self.points), (n,), generator=generator, device=device)
        return self.points[index.to(self.points.device)]

    def log_prob(self, x: Tensor, sigma: Sigma) -> Tensor:
        r"""Log density of the smoothed data set, :math:`\log q_\sigma(x)`, in nats: [B]. Args and errors as ``score``."""

        def piece(xs: Tensor, variance: Tensor, _: bool) -> Tensor:
            logits = -0.5 * ops.squared_distances(xs, self._flat) / variance
            norm = 0.5 * self._flat.shape[1] * (2 * math.pi * variance[:, 0]).log()
            return torch.logsumexp(logits, 1) - math.log(len(self.points)) - norm

        return self._by_chunks(piece, x, sigma)

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        r"""Score of the smoothed data set, :math:`(\sum_n r_n x_n - x) / \sigma^2`.

        Args:
            x: [B, *event], any event with as many numbers as a point, of the points' dtype.
            sigma: float | 0-d | [B], positive, in units of x.

        Returns:
            [B, *event].

        Raises:
            TypeError: x of another dtype.
            ValueError: wrong event, empty batch, sigma not positive (deltas have no density).
        """
        return self._by_chunks(self._score, x, sigma).reshape(x.shape)

    def responsibilities(self, x: Tensor, sigma: Sigma) -> Tensor:
        """Posterior probability of each point: [B, N], which the caller must have memory for. Errors as ``score``."""
        return self._by_chunks(self._responsibilities, x, sigma)

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Index of, and Euclidean distance to, the nearest point: two [B], int64 and like x."""
        flat = ops.check_event(x, self._flat.shape[1], self.points, "the data set")
        points = ops.flatten(self.points)
        squared, index = ops.nearest(flat, points)
        return index, squared.sqrt()

    @exact
    def _by_chunks(self, function: Callable[[Tensor, Tensor, bool], Tensor], x: Tensor, sigma: Sigma) -> Tensor:
        """Apply ``function(rows, variances [b, 1], products)`` to a few rows at a time."""
        flat = ops.check_event(x, self._flat.shape[1], self.points, "the data set") - self._centre
        ops.check_sigma(sigma, x, positive=True)
        variance = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1).square()
        least = float(variance.detach().min())
        if not torch.finfo(x.dtype).tiny <= least <= torch.finfo(x.dtype).max:
            raise ValueError(
                f"sigma has the square {least} in {x.dtype}: it must be a normal number; pass sigma nearer to 1"
            )
        products, width = self._largest <= PRODUCT_LIMIT * least, max(self._flat.shape)
        variance = variance.expand(len(x), 1)
        return torch.cat([function(flat[rows], variance[rows], products) for rows in ops.pieces(len(x), width)])

    def _responsibilities(self, x: Tensor, variance: Tensor, products: bool) -> Tensor:
        far = x.square().sum(1, keepdim=True) > 4 * self._largest
        rough = self._products(x)
        if products or bool(far.all()):
            return torch.softmax(rough / variance, 1)
        logits = self._differences(x, variance, rough)
        if bool(far.any()):
            logits = torch.where(far, rough / variance, logits)
        return torch.softmax(logits, 1)

    def _differences(self, x: Tensor, variance: Tensor, rough: Tensor) -> Tensor:
        """[B, N] logits by differences, of the points that ``rough`` does not rule out; within 2 R it errs by less than 2.5 D eps R²."""
        (n, dim), eps = self._flat.shape, torch.finfo(x.dtype).eps
        slack = 5 * dim * eps * self._largest + variance * math.log(n / eps)
        near = rough >= rough.amax(1, keepdim=True) - slack
        n_near = int(near.count_nonzero())
        if n_near * dim > ops.PIECE or n_near > near.numel() / _FEW:
            return -0.5 * ops.squared_distances(x, self._flat) / variance
        rows, points = near.nonzero(as_tuple=True)
        differences = x[rows] - self._flat[points]
        logits = torch.full_like(rough, -math.inf)
        return logits.index_put(
            (rows, points), -0.5 * ops.dot(differences, differences).to(x.dtype) / variance[rows, 0]
        )

    def _products(self, x: Tensor) -> Tensor:
        """[B, N]: minus half the squared distances, less the square of x, which all share."""
        return torch.addmm(-0.5 * self._squares, x, self._flat.t())

    def _score(self, x: Tensor, variance: Tensor, products: bool) -> Tensor:
        return (self._responsibilities(x, variance, products) @ self._flat - x) / variance


def empirical(points: Tensor) -> Empirical:
    """A data set as a distribution: ``points`` [N, *event], N >= 1, finite. Not copied.

    Where the noise is small, the score points to the nearest point y, (y - x) / sigma²:

    >>> import torch
    >>> from toyscore.distributions import empirical
    >>> p = empirical(torch.tensor([[0.0], [1.0]]))
    >>> round(p.score(torch.tensor([[0.8]]), 0.1).item(), 3)  # 0.2 / 0.1**2
    20.0

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: no points, or NaN among them.
    """
    return Empirical(points)
