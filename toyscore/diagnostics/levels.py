r"""Noise levels and step size from the data, by the rules of NCSNv2.

1. *First level*: as large as the largest distance between two points, so that a chain can cross from any to any
   (:func:`largest_distance`). One outlier can set it; then a high quantile of the distances serves (:func:`distance_quantile`).
2. *Ratio*: pure noise of deviation sigma in D dimensions has a radius in a thin shell. Neighbouring levels should share a given part of it,
   the *overlap*: the chance that a radius of the lower level lies within three standard deviations of the upper one's mean. NCSNv2
   takes the radius for normal, :math:`N(\sqrt D \sigma, \sigma^2 / 2)`, so that with ratio :math:`\gamma`

   .. math:: \Phi(\sqrt{2D}(\gamma - 1) + 3\gamma) - \Phi(\sqrt{2D}(\gamma - 1) - 3\gamma);

   the exact law is chi with D degrees of freedom. The two agree on images. Below D = 5 the normal one never falls to a half, and the exact
   one allows ratios so large that relaxation, not overlap, limits the ladder.
3. *Network*: unconditional, divided by sigma.
4. *Step size*: given T steps per level, epsilon brings the variance, :math:`\gamma^2 \sigma^2` when a level begins, as near as it can to
   :math:`\sigma^2` (:func:`tuned_step`); that is ``relaxed_variance``, and it stays above. The rule lets each level begin where the
   one before should have ended. It begins where that did end, and the excess is handed down: :attr:`NoiseDesign.inherited` says to
   what it grows.

``design_levels`` does all of it from points, ``design_ladder`` from a first level already known. References: song2020.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from toyscore import operators as ops
from toyscore.diagnostics.grids import MEMORY
from toyscore.diagnostics.steps import eta_from_epsilon, relaxed_variance
from toyscore.noise import geometric

RadiusLaw = Literal["chi", "normal"]

_CHUNK = 1 << 24  # distances held at once: 64 MiB in float32
_OUTLIER_SHARE = 1000  # one point in so many may be an outlier
_OUTLIER_RATIO = 1.5  # and is one if the largest distance shrinks by this much without it


def largest_distance(points: Tensor) -> float:
    """The largest Euclidean distance between two points, exact to the rounding of their dtype. Source: song2020, Technique 1.

    Every pair that can be the farthest is looked at, a block at a time: memory grows with the data, in float64 on the CPU and a few
    copies, and not with the pairs.

    Args:
        points: [N, *event], N >= 2, on any device.

    Raises:
        TypeError, ValueError: not floating-point, not finite, fewer than two points.
    """
    return _farthest(_flat(points), points)


def distance_quantile(points: Tensor, quantile: float) -> float:
    """The distance that a share ``quantile`` of all pairs of points do not exceed, exact. An outlier hardly moves a quantile below 1 - 2/N.

    Args:
        points: as ``largest_distance``.
        quantile: between 0 and 1; the pairs above it are held in memory.

    Raises:
        ValueError: as ``largest_distance``; a quantile that is not between 0 and 1, or above which there are too many pairs.
    """
    flat = _flat(points)
    if not 0 < quantile < 1:
        raise ValueError(f"quantile = {quantile}: it is a share of the pairs, between 0 and 1; pass e.g. 0.999")
    n_pairs = len(flat) * (len(flat) - 1) // 2
    n = n_pairs - math.ceil(quantile * n_pairs * (1 - 1e-12)) + 1  # 0.07 of 300 is 21, not a rounding more
    if 24 * n > MEMORY:
        raise ValueError(
            f"quantile = {quantile} leaves {n:,} of {n_pairs:,} pairs above it: at most {MEMORY // 24:,} may be held; raise it, or "
            f"pass fewer points"
        )
    return _nth_farthest(flat, n)


def _flat(points: Tensor) -> Tensor:
    """[N, D] in float64 on the CPU, about its mean."""
    ops.check_batch(points, "points")
    ops.check_finite(points, "points")
    if len(points) < 2:
        raise ValueError("points has one row: a distance needs two; pass more data")
    flat = ops.flatten(points.detach()).cpu().double()
    return flat - flat.mean(0)


def _ordered(flat: Tensor) -> tuple[Tensor, float]:
    """The rows, farthest from the mean first, and the unit that they are given in: their largest number, at which no square overflows."""
    unit = float(flat.abs().max()) or 1.0
    return flat[flat.norm(dim=1).argsort(descending=True)] / unit, unit


def _blocks(flat: Tensor, least: list[float]) -> Iterator[tuple[int, Tensor]]:
    """By blocks of rows, farthest from the mean first: the first row's index, and squared distances to the rows from there on, each pair
    once (-1 elsewhere), while one can reach the square ``least[0]``."""
    radii, squares = flat.norm(dim=1), ops.dot(flat, flat).to(flat.dtype)
    rows = max(1, min(len(flat), _CHUNK // len(flat)))
    for start in range(0, len(flat), rows):
        last = int(
            (radii[start] + radii >= math.sqrt(max(least[0], 0)) * (1 - 1e-6)).sum()
        )  # beyond, no sum of radii is enough
        if last <= start + 1:
            return
        block = flat[start : start + rows]
        distances = torch.addmm(squares[start:last], block, flat[start:last].T, alpha=-2)
        distances += squares[start : start + rows, None]
        own = distances[:, : len(block)]
        own.masked_fill_(torch.ones_like(own, dtype=torch.bool).tril(), -1)
        yield start, distances


def _farthest(flat: Tensor, points: Tensor) -> float:
    """The largest distance between rows; pairs are ranked in float32 where the points are, unless those are float64: that is right to
    the rounding of float32, at twice the speed and more."""
    ordered, unit = _ordered(flat)
    ranked = ordered if points.dtype == torch.float64 else ordered.float().to(points.device)
    far = ordered[(ordered - ordered[0]).square().sum(1).argmax()]
    best = float((ordered - far).norm(dim=1).max())
    least = [best**2]
    for start, distances in _blocks(ranked, least):
        value, where = distances.view(-1).max(0)
        if float(value) >= least[0] * (1 - 1e-5):
            i, j = divmod(int(where), distances.shape[1])
            best = max(best, float((ordered[start + i] - ordered[start + j]).norm()))
            least[0] = max(least[0], float(value))
    return best * unit


def _nth_farthest(flat: Tensor, n: int) -> float:
    """The n-th largest distance between rows."""
    ordered, unit = _ordered(flat)
    found, least = flat.new_empty(0), [-0.5]
    for _, distances in _blocks(ordered, least):
        found = torch.cat([found, distances[distances > least[0]].clamp(min=0)])
        if len(found) > n:
            found = found.topk(n).values
        if len(found) == n:
            least[0] = float(found.min())
    return math.sqrt(float(found.min())) * unit


def level_overlap(dim: int, ratio: float, law: RadiusLaw = "chi") -> float:
    """The chance that a radius of one level lies within three deviations of that of the next higher. Source: song2020, Technique 2.

    Args:
        dim: D, the numbers of an event.
        ratio: gamma, of a level to the next lower.
        law: of the radius, "chi" (exact; the shell holds what three deviations of a normal do) or "normal" (NCSNv2's).

    Raises:
        ValueError: D below one, a ratio below one, another law.
    """
    from scipy import stats

    ops.check_count(dim, "dim")
    if not 1 <= ratio < math.inf:
        raise ValueError(
            f"ratio = {ratio}: levels decrease, so that it is finite and at least 1; pass sigma_i / sigma_(i+1)"
        )
    if law == "chi":
        radius = stats.chi(dim)
        low, high = radius.ppf(stats.norm.sf(3)), radius.isf(stats.norm.sf(3))
        return float(radius.cdf(ratio * high) - radius.cdf(ratio * low))
    if law == "normal":
        shift = math.sqrt(2 * dim) * (ratio - 1)
        return float(stats.norm.cdf(shift + 3 * ratio) - stats.norm.cdf(shift - 3 * ratio))
    raise ValueError(f'law = {law!r}: the laws of a radius are "chi" and "normal"; pass one of them')


def level_ratio(dim: int, *, overlap: float = 0.5, law: RadiusLaw = "chi") -> float:
    """The ratio of levels at which neighbours overlap by so much. Source: song2020, Technique 2.

    Args:
        dim, law: as ``level_overlap``.
        overlap: between 0 and 0.99; about 0.5 in the paper.

    Raises:
        ValueError: as ``level_overlap``; an overlap that the normal law cannot fall to, as in D below five.
    """
    from scipy import optimize

    if not 0 < overlap <= 0.99:
        raise ValueError(f"overlap = {overlap}: it must lie in (0, 0.99]; the paper takes about 0.5")

    def excess(log_ratio: float) -> float:
        return level_overlap(dim, math.exp(log_ratio), law) - overlap

    if excess(math.log(1e6)) > 0:
        raise ValueError(
            f'D = {dim}: by the {law} law neighbours overlap by more than {overlap:g} at any ratio; pass law="chi", or a larger overlap'
        )
    return math.exp(float(optimize.brentq(excess, 0.0, math.log(1e6), xtol=1e-13)))


def tuned_step(ratio: float, sigma_min: float, n_steps_each: int) -> tuple[float, float]:
    """Epsilon for which n steps at a level leave the variance nearest to sigma², and that variance over sigma². Source: song2020,
    Technique 4.

    Args:
        ratio: of levels, above one.
        sigma_min: the last level; epsilon is the step there, in units of x squared.
        n_steps_each: T.

    Raises:
        ValueError: a ratio that is not above one, a sigma that is not positive, no steps.
    """
    from scipy import optimize

    if not 1 < ratio < math.inf:
        raise ValueError(f"ratio = {ratio}: it must be above 1 and finite; pass sigma_i / sigma_(i+1)")
    ops.check_positive(sigma_min, "sigma_min")
    ops.check_count(n_steps_each, "n_steps_each")

    def variance(log_step: float) -> float:
        return float(relaxed_variance(ratio**2, 1.0, math.exp(log_step), n_steps_each))

    least = math.log(1e-3 * min(ratio**2 - 1, 1.0) / n_steps_each)
    logs = torch.linspace(least, math.log(2.0), 400, dtype=torch.float64, device="cpu")
    best = 1 + int(
        torch.as_tensor(relaxed_variance(ratio**2, 1.0, logs.exp(), n_steps_each), device="cpu")[1:-1].argmin()
    )
    bounds = float(logs[best - 1]), float(logs[best + 1])
    found = optimize.minimize_scalar(variance, bounds=bounds, method="bounded", options={"xatol": 1e-10})
    return math.exp(float(found.x)) * sigma_min**2, float(found.fun)


@dataclass(frozen=True)
class NoiseDesign:
    """A ladder and its step; ``str`` says it in a line.

    Attributes:
        sigmas: [L], geometric.
        step_size: epsilon, for ``annealed_langevin``.
        n_steps_each: T, for ``annealed_langevin``.
        dim: D, the numbers of an event.
        ratio: of neighbouring levels.
        overlap: of neighbouring levels, by the law asked for.
        relaxed: the variance after T steps at a level, over its sigma², by the rule; 1 is perfect.
        inherited: the same at the last level, where the first begins with its own variance and each other with what the one before left.
    """

    sigmas: Tensor
    step_size: float
    n_steps_each: int
    dim: int
    ratio: float
    overlap: float
    relaxed: float
    inherited: float

    def __str__(self) -> str:
        return (
            f"D = {self.dim:,}: sigma {float(self.sigmas[0]):.4g} to {float(self.sigmas[-1]):.4g} in L = {len(self.sigmas):,} levels "
            f"of ratio {self.ratio:.5g} (overlap {self.overlap:.2f}), T = {self.n_steps_each} steps each of epsilon {self.step_size:.3g} "
            f"(eta {eta_from_epsilon(self.step_size):.3g}), which leave {self.relaxed:.3f} times the variance, "
            f"{self.inherited:.3f} at the end of the ladder; "
            f"{len(self.sigmas) * self.n_steps_each:,} score calls"
        )


def design_ladder(
    sigma_max: float,
    sigma_min: float,
    dim: int,
    *,
    n_steps_each: int = 5,
    n_levels: int | None = None,
    overlap: float = 0.5,
    law: RadiusLaw = "chi",
) -> NoiseDesign:
    """Levels between two given ones, and their step. Source: song2020, Technique 2, Technique 4.

    Args:
        sigma_max, sigma_min: the first level and the last, in units of x.
        dim: D, the numbers of an event.
        n_steps_each: T.
        n_levels: L; default the least for which neighbours overlap by ``overlap``.
        overlap, law: as ``level_ratio``.

    Raises:
        ValueError: as ``geometric``, ``level_ratio`` and ``tuned_step``.
    """
    if n_levels is None:
        ops.check_positive(sigma_max, "sigma_max")
        ops.check_positive(sigma_min, "sigma_min")
        n_levels = max(
            2, 1 + math.ceil(math.log(sigma_max / sigma_min) / math.log(level_ratio(dim, overlap=overlap, law=law)))
        )
    else:
        ops.check_count(n_levels, "n_levels", 2)
    sigmas = geometric(sigma_max, sigma_min, n_levels)
    ratio = (sigma_max / sigma_min) ** (1 / (n_levels - 1))
    step_size, relaxed = tuned_step(ratio, sigma_min, n_steps_each)
    inherited = 1 / ratio**2  # a chain begins at the first level as that level has it
    for _ in range(n_levels):
        inherited = float(relaxed_variance(ratio**2 * inherited, 1.0, step_size / sigma_min**2, n_steps_each))
    return NoiseDesign(sigmas, step_size, n_steps_each, dim, ratio, level_overlap(dim, ratio, law), relaxed, inherited)


def design_levels(
    points: Tensor,
    *,
    sigma_min: float = 0.01,
    n_steps_each: int = 5,
    quantile: float | None = None,
    overlap: float = 0.5,
    law: RadiusLaw = "chi",
) -> NoiseDesign:
    """Levels and step size for a data set. Source: song2020, Technique 1, Technique 2, Technique 4.

    Args:
        points: [N, *event], clean data.
        sigma_min: the last level, in units of x: small beside what must be resolved; 0.01 in the paper, for images in [0, 1].
        n_steps_each: T.
        quantile: of the pairwise distances, for the first level; default the largest distance.
        overlap, law: as ``level_ratio``.

    Warns:
        UserWarning: an outlier sets the first level: without one point in a thousand, the farthest from the median, the largest distance
            shrinks by more than a third.

    Raises:
        ValueError: as ``largest_distance``, ``distance_quantile`` and ``design_ladder``.
    """
    if quantile is None:
        sigma_max = largest_distance(points)
        _warn_of_outliers(ops.flatten(points.detach()), sigma_max)
    else:
        sigma_max = distance_quantile(points, quantile)
    dim = ops.flatten(points).shape[1]
    if not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"sigma_min = {sigma_min}, and the points are {sigma_max:.6g} apart: it must be positive and below that; pass e.g. "
            f"sigma_min={sigma_max / 100:.3g}"
        )
    return design_ladder(sigma_max, sigma_min, dim, n_steps_each=n_steps_each, overlap=overlap, law=law)


def _warn_of_outliers(flat: Tensor, largest: float) -> None:
    n_out = math.ceil(len(flat) / _OUTLIER_SHARE)
    if len(flat) < n_out + 2:
        return
    centre = flat.median(0).values
    kept = flat[(flat - centre).norm(dim=1).argsort()[: len(flat) - n_out]]
    without = largest_distance(kept)
    if largest > _OUTLIER_RATIO * without:
        warnings.warn(
            f"sigma_1 = {largest:.6g} is set by {'an outlier' if n_out == 1 else 'outliers'}: without {n_out} of {len(flat):,} points, the "
            f"farthest from the median, the largest distance is {without:.6g}; look at them, or pass quantile=0.99",
            stacklevel=3,
        )
