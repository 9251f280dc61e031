r"""A data set as a distribution: equal-weight deltas, whose smoothed score is exact.

.. math:: q_\sigma(x) = \frac1N \sum_n N(x; x_n, \sigma^2 I), \qquad
          \nabla \log q_\sigma(x) = \frac{\sum_n r_n(x)\, x_n - x}{\sigma^2}.

This is the global minimiser of denoising score matching on the data set: a network that reached it would only ever
return training points. It stands in for a network anywhere, in any event shape.

Responsibilities come from a matrix product where that loses at most two digits (``max |x_n|^2 <= 100 sigma^2``), from
differences otherwise. The nearest point is split off before the mean is taken, so the score stays accurate next to a data
point, where the mean and x cancel. Rows are taken a few at a time: memory stays near the size of the data set.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.operators import Sigma

_PRODUCT_LIMIT = 100.0  # max |x_n|^2 / sigma^2 up to which the product form loses at most two digits
_CHUNK = 1 << 23  # elements of the [B, N] intermediate held at once: 32 MiB in float32


class Empirical:
    """Equal-weight deltas at ``points`` [N, *event]; made by :func:`empirical`."""

    def __init__(self, points: Tensor) -> None:
        ops.check_batch(points, "points")
        ops.check_finite(points, "points")
        self.points = points.detach()
        self._flat = ops.flatten(self.points)
        self._squares = ops.dot(self._flat, self._flat).to(points.dtype)
        self._largest = float(self._squares.max())

    def __repr__(self) -> str:
        return f"Empirical(N={len(self.points)}, event={list(self.points.shape[1:])}, {self.points.dtype}, {self.points.device})"

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Points drawn with replacement: [n, *event]."""
        ops.check_count(n, "n")
        device = self.points.device if generator is None else generator.device
        index = torch.randint(len(self.points), (n,), generator=generator, device=device)
        return self.points[index.to(self.points.device)]

    def log_prob(self, x: Tensor, sigma: Sigma) -> Tensor:
        r"""Log density of the smoothed data set, :math:`\log q_\sigma(x)`, in nats: [B]. Args and errors as ``score``."""
        dim = self._flat.shape[1]

        def piece(xs: Tensor, variance: Tensor) -> Tensor:
            squared = torch.cdist(xs, self._flat, compute_mode="donot_use_mm_for_euclid_dist").square()
            return (
                torch.logsumexp(-0.5 * squared / variance, 1)
                - math.log(len(self.points))
                - 0.5 * dim * (2 * math.pi * variance[:, 0]).log()
            )

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
        """Index of, and Euclidean distance to, the nearest point: two [B]."""
        found = self._by_chunks(
            lambda xs, _: torch.stack(
                torch.cdist(xs, self._flat, compute_mode="donot_use_mm_for_euclid_dist").min(1), 1
            ),
            x,
            1.0,
        )
        return found[:, 1].long(), found[:, 0]

    def _by_chunks(self, function: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Sigma) -> Tensor:
        ops.check_batch(x)
        if x.dtype != self.points.dtype:
            raise TypeError(
                f"x is {x.dtype}, the points {self.points.dtype}: they must agree; convert x with "
                f".to({self.points.dtype})"
            )
        flat = ops.flatten(x)
        if flat.shape[1] != self._flat.shape[1]:
            raise ValueError(
                f"x has shape {list(x.shape)}, {flat.shape[1]} numbers in an event: the points have "
                f"{self._flat.shape[1]}; pass events of that size"
            )
        ops.check_sigma(sigma, x, positive=True)
        variance = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1).square().expand(len(x), 1)
        rows = max(1, _CHUNK // max(len(self.points), flat.shape[1]))
        return torch.cat([function(xs, v) for xs, v in zip(flat.split(rows), variance.split(rows), strict=True)])

    def _responsibilities(self, x: Tensor, variance: Tensor) -> Tensor:
        if self._largest <= _PRODUCT_LIMIT * float(variance.detach().min()):
            logits = torch.addmm(-0.5 * self._squares, x, self._flat.t()) / variance
        else:
            logits = -0.5 * torch.cdist(x, self._flat, compute_mode="donot_use_mm_for_euclid_dist").square() / variance
        return torch.softmax(logits, 1)

    def _score(self, x: Tensor, variance: Tensor) -> Tensor:
        r = self._responsibilities(x, variance)
        index = r.argmax(1, keepdim=True)
        nearest = self._flat[index[:, 0]]
        others = r.scatter(1, index, 0.0)
        return ((nearest - x) + (others @ self._flat - others.sum(1, keepdim=True) * nearest)) / variance


def empirical(points: Tensor) -> Empirical:
    """A data set as a distribution: ``points`` [N, *event], N >= 1, finite. Not copied.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: no points, or NaN among them.
    """
    return Empirical(points)
