"""Are the samples like the data, and is all of the data there? Two questions that a distance answers with one number.

Around each point of a set a ball reaches to its k-th nearest neighbour in the set; the balls together are the set's guess of where its
law lives. *Precision* is the share of samples in a ball of the data, *recall* the share of data in a ball of the samples
(kynkaanniemi2019). *Coverage* is the share of the data's balls that hold a sample (naeem2020): an outlier among the samples, whose
ball is large, cannot inflate it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor

from toyscore import operators as ops
from toyscore.metrics.clouds import as_clouds, paired


@dataclass(frozen=True)
class Overlap:
    """Shares in [0, 1]."""

    precision: float
    recall: float
    coverage: float


def overlap(samples: Tensor, data: Tensor, *, k: int = 3) -> Overlap:
    """Precision, recall and coverage. Source: kynkaanniemi2019, Eq. (2), and naeem2020, Eq. (5).

    Args:
        samples, data: [N, F] and [M, F], points or features, N and M above k.
        k: neighbours that a ball reaches.

    Raises:
        TypeError, ValueError: not two clouds of like points; no more than k in one; k not a whole number of at least one.
    """
    ops.check_count(k, "k")
    a, b = as_clouds(samples, data, k + 1, ("samples", "data"))
    of_samples, of_data = (_radii(points, k) for points in (a, b))
    precise, recalled, covered = [], [], []
    for rows in paired(a, b):
        across = ops.squared_distances(a[rows], b)  # [n, M]
        inside = across <= of_data  # sample n in the ball of datum m
        precise.append(inside.any(1))
        recalled.append((across <= of_samples[rows, None]).any(0))
        covered.append(inside.any(0))
    return Overlap(
        precision=float(torch.cat(precise).cpu().double().mean()),
        recall=float(torch.stack(recalled).any(0).cpu().double().mean()),
        coverage=float(torch.stack(covered).any(0).cpu().double().mean()),
    )


def expected_coverage(n_samples: int, n_data: int, *, k: int = 3) -> float:
    r"""The mean coverage of N samples from the very law of M data, :math:`1 - \binom{M - 1}{k} / \binom{N + M - 1}{k}`, in any dimension.
    Source: naeem2020, Sec. 3.3.

    A ball stays empty when of the other points, N + M - 1 in all and in any order of distance, the k nearest are all data.

    Raises:
        TypeError, ValueError: not whole numbers, or M not above k.
    """
    ops.check_count(k, "k")
    ops.check_count(n_samples, "n_samples")
    ops.check_count(n_data, "n_data", k + 1)
    return 1 - comb(n_data - 1, k) / comb(n_samples + n_data - 1, k)


def nearest(x: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Distance and index of the nearest of ``data`` [M, *event] to each of ``x`` [B, *event]: two [B]."""
    a, b = as_clouds(x, data, 1, ("x", "data"))
    squared, index = ops.nearest(a, b)
    return squared.sqrt(), index


def _radii(points: Tensor, k: int) -> Tensor:
    """The squared distance of each point to its k-th nearest other: [N]."""
    radii = points.new_empty(len(points))  # a list of small pieces would fragment the memory
    for rows in paired(points, points):
        radii[rows] = ops.squared_distances(points[rows], points).kthvalue(k + 1).values  # the nearest is itself
    return radii
