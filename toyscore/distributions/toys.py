"""Named two-dimensional toys, all in the box ``[-8, 8]^2`` that the paper's figures show.

The mixtures are exact; the others can only be sampled. scikit-learn spaces the points of its moons and circles evenly, so
a draw takes the first n of a longer shuffled set: exchangeable rows, for any n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.distributions.mixture import GaussianMixture

_CPU = torch.empty(())
BOX = 8.0  # the toys live in [-BOX, BOX]^2


def _mixture(means: list[list[float]], covariances: Any, weights: list[float] | None = None) -> GaussianMixture:
    return GaussianMixture(torch.tensor(means, dtype=torch.float32), covariances, weights)


def two_modes() -> GaussianMixture:
    """The paper's toy, 0.8 N((5, 5), I) + 0.2 N((-5, -5), I), float32. Source: song2019, Sec. 3.2.

    >>> from toyscore.distributions import two_modes
    >>> p = two_modes()
    >>> p.means.tolist(), [round(w, 3) for w in p.weights.tolist()]
    ([[5.0, 5.0], [-5.0, -5.0]], [0.8, 0.2])
    """
    return _mixture([[5.0, 5.0], [-5.0, -5.0]], 1.0, [0.8, 0.2])


def eight_gaussians() -> GaussianMixture:
    """Eight equal modes of standard deviation 0.5 on a circle of radius 6."""
    angles = [2 * math.pi * k / 8 for k in range(8)]
    return _mixture([[6 * math.cos(a), 6 * math.sin(a)] for a in angles], 0.25)


def grid() -> GaussianMixture:
    """Twenty-five equal modes of standard deviation 0.4, three apart."""
    return _mixture([[3.0 * i, 3.0 * j] for i in range(-2, 3) for j in range(-2, 3)], 0.16)


def asymmetric() -> GaussianMixture:
    """Three unequal, tilted, off-centre modes: what no symmetry can help to get right."""
    covariances = [[[1.5, 0.9], [0.9, 0.8]], [[0.6, -0.2], [-0.2, 2.0]], [[2.2, -0.5], [-0.5, 0.4]]]
    return _mixture([[4.0, 1.0], [-3.0, 4.0], [-1.0, -4.5]], covariances, [0.5, 0.3, 0.2])


@dataclass(frozen=True)
class SampledToy:
    """A distribution with samples and no formula: ``draw(n, generator) -> [n, D]``, float32, on the generator's device."""

    name: str
    draw: Callable[[int, Generator | None], Tensor]

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Exchangeable rows: [n, D]."""
        ops.check_count(n, "n")
        return self.draw(n, generator)


def _uniform(n: int, generator: Generator | None) -> Tensor:
    return ops.uniform((n,), torch.empty((), dtype=torch.float32, device=ops.source(generator, _CPU)), generator)


def _jitter(x: Tensor, std: float, generator: Generator | None) -> Tensor:
    return x + std * ops.normal_like(x, generator)


def _polar(radius: Tensor, angle: Tensor) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


def _sklearn(
    maker: str, noise: float, transform: Callable[[Tensor], Tensor]
) -> Callable[[int, Generator | None], Tensor]:
    def draw(n: int, generator: Generator | None) -> Tensor:
        from sklearn import datasets

        device = ops.source(generator, _CPU)
        seed = int(torch.randint(2**31 - 1, (), generator=generator, device=device))
        points, *_ = getattr(datasets, maker)(n_samples=max(2 * n, 1000), noise=noise, random_state=seed)
        points = torch.tensor(points, dtype=torch.float32)
        order = torch.randperm(len(points), generator=generator, device=device)[:n]
        return transform(points)[order.to(points.device)].to(order.device)

    return draw


def _rings(n: int, generator: Generator | None) -> Tensor:
    radius = 1.75 * (1 + (4 * _uniform(n, generator)).floor())
    return _jitter(_polar(radius, 2 * math.pi * _uniform(n, generator)), 0.1, generator)


def _checkerboard(n: int, generator: Generator | None) -> Tensor:
    column, row = (4 * _uniform(n, generator)).floor(), (2 * _uniform(n, generator)).floor()
    corner = torch.stack([column, 2 * row + column % 2], 1)
    return 4 * (corner + torch.stack([_uniform(n, generator), _uniform(n, generator)], 1)) - BOX


def _pinwheel(n: int, generator: Generator | None) -> Tensor:
    arm = (5 * _uniform(n, generator)).floor() * (2 * math.pi / 5)
    noise = ops.normal_like(arm.new_empty(n, 2), generator)
    along, across = 3.6 + 1.1 * noise[:, 0], 0.35 * noise[:, 1]
    turned = arm + 0.35 * along
    return _polar(along, turned) + _polar(across, turned + math.pi / 2)


def _two_spirals(n: int, generator: Generator | None) -> Tensor:
    turn = 3 * math.pi * _uniform(n, generator).sqrt()
    arm = math.pi * (2 * _uniform(n, generator)).floor()
    return _jitter(_polar(turn * (7 / (3 * math.pi)), turn + arm), 0.15, generator)


TOYS: Mapping[str, Callable[[], GaussianMixture | SampledToy]] = MappingProxyType(
    {
        "two_modes": two_modes,
        "eight_gaussians": eight_gaussians,
        "grid": grid,
        "asymmetric": asymmetric,
        "moons": lambda: SampledToy(
            "moons", _sklearn("make_moons", 0.05, lambda p: 5 * (p - p.new_tensor([0.5, 0.25])))
        ),
        "circles": lambda: SampledToy("circles", _sklearn("make_circles", 0.03, lambda p: 6 * p)),
        "swiss_roll": lambda: SampledToy("swiss_roll", _sklearn("make_swiss_roll", 0.4, lambda p: 0.5 * p[:, [0, 2]])),
        "s_curve": lambda: SampledToy(
            "s_curve", _sklearn("make_s_curve", 0.05, lambda p: p[:, [0, 2]] * p.new_tensor([5.0, 3.0]))
        ),
        "rings": lambda: SampledToy("rings", _rings),
        "checkerboard": lambda: SampledToy("checkerboard", _checkerboard),
        "pinwheel": lambda: SampledToy("pinwheel", _pinwheel),
        "two_spirals": lambda: SampledToy("two_spirals", _two_spirals),
    }
)
