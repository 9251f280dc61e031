r"""The law of a discretised chain, computed instead of sampled.

A step of Langevin dynamics moves x to :math:`m(x) = x + \frac{\epsilon}{2} s(x)` and adds :math:`N(0, \epsilon I)`, so a law with
density p becomes

.. math:: p'(y) = \int p(x)\, N(y; m(x), \epsilon I)\, dx.

On a grid of spacing h this is one sparse matrix, whose rows sum to one, and exact up to an aliasing term of order
:math:`\exp(-2\pi^2 \epsilon / h^2)` where m is smooth on the scale of h: three nodes to two standard deviations of the noise do, where the
modes are not so far apart that m tears what lies between them. The grid is made anew for each level of a
schedule, as fine as its noise and as wide as its chain can go. Every law comes with the total variation between it and the
law on a grid twice as coarse, which is about the error of any probability read off it, and with the mass that left the grid.

Grids are for one and two dimensions. A mixture whose components share a covariance often needs no more, whatever its D: with
:math:`\Delta` the differences of its means, the responsibilities depend on x only through the smallest subspace that contains
:math:`\Delta` and is invariant under the covariance. Chains in it and across it do not see each other, at any noise level, and
across it they are linear. :func:`reduce` finds it: for the paper's toy it is the line through the modes.

Everything is float64 on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from toyscore import operators as ops
from toyscore.diagnostics.grids import CLIPPED, MEMORY, Cloud, check_flat, least_variance, nodes
from toyscore.diagnostics.steps import check_stable
from toyscore.distributions import GaussianMixture
from toyscore.noise import annealed_steps, check_sigmas
from toyscore.operators import Score

_REACH = 7.0  # standard deviations of the noise that are followed
_NEGLIGIBLE = 1e-13  # mass of a node that is not carried to the next grid
_ROWS = 1 << 18  # nodes whose responsibilities are held at once


def uniform_cloud(low: float, high: float, dim: int, n: int = 200) -> Cloud:
    """The uniform law on [low, high]^dim, n midpoints to an axis."""
    ops.check_count(dim, "dim")
    ops.check_count(n, "n")
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"low = {low}, high = {high}: the ends of a box must be finite; pass numbers")
    if not low < high:
        raise ValueError(f"low = {low}, high = {high}: a box needs low < high; pass e.g. high={low + 1:g}")
    axis = low + (torch.arange(n, dtype=torch.float64, device="cpu") + 0.5) * ((high - low) / n)
    points = nodes([axis] * dim)
    return Cloud(points, torch.full_like(points[:, 0], 1 / len(points)))


@dataclass(frozen=True)
class Stage:
    """``n_steps`` steps of size ``step_size`` with the score at ``sigma``."""

    sigma: float
    step_size: float
    n_steps: int


def annealed_stages(sigmas: Tensor | Sequence[float], step_size: float, n_steps_each: int) -> list[Stage]:
    r"""The schedule of annealed Langevin dynamics, :math:`\alpha_i = \epsilon \sigma_i^2 / \sigma_L^2`. Source: song2019, Algorithm 1."""
    with torch.device("cpu"):
        levels = check_sigmas(sigmas.cpu() if isinstance(sigmas, Tensor) else sigmas, dtype=torch.float64)
        ops.check_count(n_steps_each, "n_steps_each")
        steps = annealed_steps(levels, step_size)
    return [Stage(sigma, alpha, n_steps_each) for sigma, alpha in zip(levels.tolist(), steps, strict=True)]


@dataclass(frozen=True)
class Law:
    """A density on a grid.

    Attributes:
        axes: D tensors, the coordinates of the nodes.
        density: [n_1, ..., n_D].
        error: total variation from the law on a grid twice as coarse.
        clipped: mass that left the grid.
        step: steps taken, from 1.
        stage: what they were taken by.
    """

    axes: tuple[Tensor, ...]
    density: Tensor
    error: float
    clipped: float
    step: int
    stage: Stage

    @property
    def points(self) -> Tensor:
        """The nodes, [N, D]."""
        return nodes(self.axes)

    @property
    def masses(self) -> Tensor:
        """Of the nodes, [N]; they sum to one but for what was clipped."""
        return self.density.flatten() * math.prod(float(a[1] - a[0]) for a in self.axes)

    def refined(self, spacing: float) -> Law:
        """The same density on nodes at most so far apart, by Fourier interpolation; itself where they are already.

        Raises:
            ValueError: a spacing that is not positive, or a grid above ``MEMORY`` bytes.
        """
        ops.check_positive(spacing, "spacing")
        factors = [math.ceil(float(axis[1] - axis[0]) / spacing) for axis in self.axes]
        if max(factors) == 1:
            return self
        sizes = [len(axis) * factor for axis, factor in zip(self.axes, factors, strict=True)]
        if 32 * math.prod(sizes) > MEMORY:
            raise ValueError(
                f"spacing = {spacing:.3g} makes a grid of {' x '.join(map(str, sizes))} nodes, {32 * math.prod(sizes):,} bytes: at most "
                f"{MEMORY:,} may be; raise it, or reduce the mixture"
            )
        density, axes = self.density, []
        for d, (axis, factor) in enumerate(zip(self.axes, factors, strict=True)):
            density = factor * torch.fft.irfft(torch.fft.rfft(density, dim=d), n=len(axis) * factor, dim=d)
            numbers = torch.arange(len(axis) * factor, dtype=torch.float64, device="cpu")
            axes.append(axis[0] + (axis[1] - axis[0]) / factor * numbers)
        return replace(self, axes=tuple(axes), density=density)

    def total_variation(self, mixture: GaussianMixture, sigma: float = 0.0) -> float:
        """The total variation between this law and the mixture at sigma: the most by which the two disagree on a probability."""
        p = mixture.to("cpu", torch.float64)
        fine = self.refined(math.sqrt(least_variance(p, sigma)) / 3)
        density = p.log_prob(fine.points, sigma).exp().view(fine.density.shape)
        return 1 - float(torch.minimum(fine.density, density).sum()) * math.prod(float(a[1] - a[0]) for a in fine.axes)

    def mode_weights(self, mixture: GaussianMixture) -> Tensor:
        """The share of each mode, by the mixture's responsibilities: what ``metrics.mode_weights`` estimates. [K]."""
        p = mixture.to("cpu", torch.float64)
        fine = self.refined(1.5 * turning_width(p))
        pairs = zip(fine.points.split(_ROWS), fine.masses.split(_ROWS), strict=True)
        return torch.stack([masses @ p.responsibilities(points) for points, masses in pairs]).sum(0)


def turning_width(mixture: GaussianMixture) -> float:
    """The least distance over which the odds of two components change by a factor e, or half a standard deviation: what a grid must
    resolve."""
    p = mixture.to("cpu", torch.float64)
    if least_variance(p, 0.0) == 0:
        raise ValueError(
            f"{mixture} is degenerate: its clean components have no responsibilities; pass mixture.perturb(sigma)"
        )
    halves = 0.5 * (p.means - p.means[:, None])  # [K, K, D], from each mean to the middle between it and another
    pulls = torch.linalg.solve(
        p.covariances, halves.mT
    ).mT  # towards the first, there; [j, i] is that towards the other
    steepest = (pulls - pulls.transpose(0, 1)).norm(dim=2).max()
    return float(torch.minimum(1 / steepest, torch.linalg.eigvalsh(p.covariances).min().sqrt() / 2))


def separates(mixture: GaussianMixture) -> bool:
    """Whether ``reduce`` applies: several components of one covariance."""
    covariances = mixture.covariances
    return len(covariances) > 1 and torch.allclose(covariances, covariances[0], rtol=1e-6, atol=0)


def reduce(mixture: GaussianMixture) -> tuple[GaussianMixture, Tensor]:
    """The mixture seen where its modes differ, and an orthonormal basis [D, d] of that subspace.

    The components must share a covariance. The subspace is the smallest that contains the differences of the means and is invariant
    under the covariance; responsibilities at any noise level are those of the reduced mixture at ``x @ basis``.

    Raises:
        ValueError: covariances that differ; a single component, which has no modes to weigh.
    """
    p = mixture.to("cpu", torch.float64)
    covariance = p.covariances[0]
    if len(p.means) == 1:
        raise ValueError(
            f"{mixture} has a single component: there are no modes to weigh; propagate any of its coordinates"
        )
    if not separates(p):
        raise ValueError(
            f"the covariances of {mixture} differ: only a shared one separates; propagate in its own D = {len(covariance)}"
        )
    values, vectors = torch.linalg.eigh(covariance)
    differences = (p.means[1:] - p.means[0]) @ vectors
    if not bool(differences.any()):
        raise ValueError(f"the means of {mixture} coincide: there are no modes to weigh; pass one with modes apart")
    rounding = 100 * torch.finfo(mixture.means.dtype).eps
    space = torch.cat(
        [torch.zeros(1, dtype=torch.int64, device="cpu"), (values.diff() > rounding * values[-1]).long().cumsum(0)]
    )
    basis = []
    for number in range(int(space[-1]) + 1):  # of each eigenspace, what the differences span
        inside = (space == number).double()
        left, size, _ = torch.linalg.svd((differences * inside).mT, full_matrices=False)
        basis.append(vectors @ left[:, size > rounding * differences.norm()])
    q = torch.cat(basis, 1)
    return GaussianMixture(p.means @ q, (q.mT @ covariance @ q)[None], p.weights), q


def propagate(
    mixture: GaussianMixture,
    start: Cloud,
    schedule: Sequence[Stage],
    *,
    score: Score | None = None,
    nodes_per_std: float | None = None,
) -> Iterator[Law]:
    """The law of the chain after each step of a schedule.

    Args:
        mixture: D = 1 or 2; its score drives the chain, and its modes tell how wide the grids must be.
        start: the law of the first state, [N, D].
        schedule: e.g. ``[Stage(0.0, 0.1, 1000)]``, or ``annealed_stages(...)``.
        score: another score to drive the chain, e.g. a network's; called as ``score(x, sigma)`` in the mixture's dtype and on its device.
        nodes_per_std: grid nodes to a standard deviation of the noise, and to that of the narrowest mode as many, or 2.5 times as many in
            one dimension; default 4 in one dimension, 1.5 in two.

    Raises:
        ValueError: D above two, a start of another D, an empty schedule, a step size at which the chain is unstable, more than
            ``CLIPPED`` of the mass off the grid, or a transition above ``MEMORY`` bytes.
    """
    dim = check_flat(mixture)
    if start.points.ndim != 2 or start.points.shape[1] != dim or start.masses.shape != start.points.shape[:1]:
        raise ValueError(
            f"start has points {list(start.points.shape)} and masses {list(start.masses.shape)}: they must be [N, {dim}] and [N]; "
            "project the points as reduce does, points @ basis"
        )
    if not schedule:
        raise ValueError("the schedule is empty: it needs a stage; pass e.g. [Stage(0.0, 0.1, 1000)]")
    masses = start.masses.cpu().double()
    if not (
        bool(torch.isfinite(start.points).all())
        and bool((masses >= 0).all())
        and abs(1 - float(masses.sum())) <= CLIPPED
    ):
        raise ValueError(
            f"start has masses from {float(masses.min()):.6g} that sum to {float(masses.sum()):.6g}, at points up to "
            f"{float(start.points.abs().max()):.6g}: points must be finite, masses not negative, their sum one; divide by it"
        )
    for stage in schedule:
        ops.check_count(stage.n_steps, "n_steps")
        ops.check_positive(stage.step_size, "step_size")
        least = least_variance(mixture, stage.sigma)
        if least == 0:
            raise ValueError(f"{mixture} is degenerate at sigma = {stage.sigma}: it has no score there; pass sigma > 0")
        check_stable(least, stage.step_size, f"at sigma = {stage.sigma:.6g}")
    if nodes_per_std is None:
        nodes_per_std = 4.0 if dim == 1 else 1.5
    ops.check_positive(nodes_per_std, "nodes_per_std")
    return _propagate(mixture, start, schedule, mixture.score if score is None else score, nodes_per_std)


@torch.no_grad()
def _propagate(
    mixture: GaussianMixture, start: Cloud, schedule: Sequence[Stage], score: Score, nodes_per_std: float
) -> Iterator[Law]:
    clouds = [
        (start.points.cpu().double().numpy(), start.masses.cpu().double().numpy())
    ] * 2  # on the fine grid, and on the coarse one
    step = 0
    for stage in schedule:
        axes = _axes(mixture, *clouds[0], stage, nodes_per_std)
        grids = [axes, [axis[::2] for axis in axes]]
        points = [nodes(grid).numpy() for grid in grids]
        for n in range(stage.n_steps):
            step += 1
            if n < 2:  # from where the last stage ended to this one's nodes; from then on between its own
                moves = [
                    _transition(score, sources, grid, stage, mixture.means)
                    for (sources, _), grid in zip(clouds, grids, strict=True)
                ]
            clouds = [(ends, move @ masses) for ends, move, (_, masses) in zip(points, moves, clouds, strict=True)]
            yield _law(axes, clouds[0][1], clouds[1][1], step, stage)


def _law(axes: list[Any], fine: Any, coarse: Any, step: int, stage: Stage) -> Law:
    shape = [len(axis) for axis in axes]
    cell = math.prod(axis[1] - axis[0] for axis in axes)
    density = fine.reshape(shape) / cell
    rough = coarse.reshape([len(axis[::2]) for axis in axes]) / (cell * 2 ** len(axes))
    error = 0.5 * float(np.abs(density[(slice(None, None, 2),) * len(axes)] - rough).sum()) * cell * 2 ** len(axes)
    clipped = 1.0 - float(fine.sum())  # NaN, where the score is, comes through
    if not clipped <= CLIPPED:
        raise ValueError(
            f"{clipped:.2g} of the mass left the grid at step {step}, sigma = {stage.sigma:.6g}: at most {CLIPPED:g} may; start nearer "
            "to the modes, or lower the step size"
        )
    return Law(
        tuple(torch.from_numpy(a) for a in axes), torch.from_numpy(density), error, max(0.0, clipped), step, stage
    )


def _axes(mixture: GaussianMixture, points: Any, masses: Any, stage: Stage, nodes_per_std: float) -> list[Any]:
    """Per coordinate, nodes over where the chain is and where it will settle; an odd number."""
    carried = points[masses > _NEGLIGIBLE]
    p = mixture.to("cpu", torch.float64)
    narrowest = math.sqrt(least_variance(p, stage.sigma)) / (2.5 if points.shape[1] == 1 else 1.0)
    variances = torch.linalg.eigvalsh(p.covariances).max() + stage.sigma**2
    std = float((variances / (1 - stage.step_size / (4 * variances)).clamp(min=0.05)).sqrt())
    root = math.sqrt(stage.step_size)
    axes = []
    for d in range(points.shape[1]):
        low = min(float(p.means[:, d].min()) - _REACH * std, carried[:, d].min()) - _REACH * root
        high = max(float(p.means[:, d].max()) + _REACH * std, carried[:, d].max()) + _REACH * root
        n = 2 * math.ceil((high - low) * nodes_per_std / min(root, narrowest) / 2) + 1
        axes.append(np.linspace(low, high, n))
    return axes


def _transition(score: Score, points: Any, target: list[Any], stage: Stage, like: Tensor) -> Any:
    """The sparse matrix [nodes, sources] of the masses that each node gets from each source."""
    x = torch.from_numpy(points)
    drift = ops.evaluate(score, x.to(like), stage.sigma).cpu().double().numpy()
    ends = points + stage.step_size / 2 * drift
    root = math.sqrt(stage.step_size)
    n_cells = math.prod(2 * math.ceil(_REACH * root / (a[1] - a[0])) + 1 for a in target)
    if 12 * n_cells * len(points) > MEMORY:
        raise ValueError(
            f"a transition of {len(points):,} nodes to {n_cells:,} each takes {12 * n_cells * len(points):,} bytes: at most {MEMORY:,} "
            "may; lower nodes_per_std, or raise the step size"
        )
    index, mass = np.zeros((len(points), 1), dtype=np.int64), np.ones((len(points), 1))
    for d, axis in enumerate(target):
        h = axis[1] - axis[0]
        reach = math.ceil(_REACH * root / h)
        near = np.rint((ends[:, d] - axis[0]) / h).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
        inside = (near >= 0) & (near < len(axis))
        z = (axis[0] + h * near - ends[:, d : d + 1]) / root
        weights = np.exp(-0.5 * z * z)
        weights = np.where(inside, weights / weights.sum(1, keepdims=True), 0.0)  # no step makes or loses mass
        index = (index[:, :, None] * len(axis) + near.clip(0, len(axis) - 1)[:, None, :]).reshape(len(points), -1)
        mass = (mass[:, :, None] * weights[:, None, :]).reshape(len(points), -1)
    pointers = np.arange(0, mass.size + 1, mass.shape[1])
    shape = (len(points), math.prod(len(axis) for axis in target))
    return sparse.csr_matrix((mass.ravel(), index.ravel(), pointers), shape=shape).T
