r"""How slowly Langevin dynamics mixes: the slow end of its spectrum.

Langevin dynamics :math:`dX = \frac12 \nabla \log p\, dt + dW` has the generator

.. math:: L f = \tfrac12 \nabla \log p \cdot \nabla f + \tfrac12 \Delta f,

reversible with respect to p. The *rates* :math:`0 = \lambda_0 < \lambda_1 \le \dots` are the eigenvalues of -L: the part of a law along
the k-th eigenfunction dies as :math:`e^{-\lambda_k t}`. The *spectral gap* :math:`\lambda_1` is the rate at which a chain forgets its
start; between two modes far apart it is the rate of hops, there and back together. A step of size epsilon takes the time epsilon.

On a grid of spacing h, L becomes a network of resistors between neighbouring nodes,

.. math:: c_{ij} = \tfrac12 h^{D-2} \sqrt{p_i p_j}, \qquad (L f)_i = \frac{1}{\pi_i} \sum_j c_{ij} (f_j - f_i), \qquad \pi_i = h^D p_i,

reversible for every h and of second order in it; two grids are extrapolated. Where modes are far apart the gap is smaller than
what rounding does to the matrix, and a general eigensolver returns noise. So inverse iteration solves the network without
subtracting (``network``), and rates are quotients of positive sums, :math:`\sum c_{ij} (f_i - f_j)^2 / \sum \pi_i f_i^2`: right to
many digits where the gap is 1e-30.

References: bovier2005, berglund2013.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from toyscore import operators as ops
from toyscore.diagnostics.grids import CLIPPED, MEMORY, check_mass, check_mixture, density_axes, nodes
from toyscore.diagnostics.network import Network
from toyscore.distributions import GaussianMixture

_TOLERANCE = 1e-9
_ITERATIONS = 200
_UNCERTAIN = 0.05  # of a gap, that a grid within bounds may be off

LogProb: TypeAlias = Callable[..., Tensor]  # a log density: x [N, D] -> [N], and with noise (x, sigma) -> [N]


class Density(Protocol):
    """Anything that has its log density as ``log_prob``."""

    @property
    def log_prob(self) -> LogProb: ...


@dataclass(frozen=True)
class SlowModes:
    """The slowest ways in which a law relaxes.

    Attributes:
        rates: [k], ascending, per unit of time; the first is the spectral gap.
        functions: [k, n_1, ..., n_D], of mean zero and unit variance under the density, positive where it says more of the first mode.
        axes: D tensors, the coordinates of the nodes.
        errors: [k], what extrapolation from the coarser grid changed.
    """

    rates: Tensor
    functions: Tensor
    axes: tuple[Tensor, ...]
    errors: Tensor


def spectral_gap(
    distribution: GaussianMixture | Density | LogProb,
    *,
    sigma: float = 0.0,
    nodes_per_std: float | None = None,
    bounds: Sequence[tuple[float, float]] | None = None,
    n_nodes: int | None = None,
) -> float:
    """The rate, per unit of time, at which Langevin dynamics forgets its start. Source: bovier2005, Sec. 1.

    Of a mixture, on a grid that follows from it; of any other density, on one within bounds, whose walls nothing passes.

    >>> from toyscore.diagnostics import spectral_gap
    >>> from toyscore.distributions import GaussianMixture
    >>> p = GaussianMixture([[0.0]], covariances=4.0)
    >>> round(spectral_gap(p), 3)  # on N(0, v) it is 1 / (2 * v)
    0.125

    Args:
        distribution: a mixture, D = 1 or 2; or a log density, normalised or not: a function of x [N, D], in float64, that returns [N], or
            anything that has it as ``log_prob``. It is called as ``log_prob(x)``, with noise as ``log_prob(x, sigma)``.
        sigma: the noise level, in units of x.
        nodes_per_std: grid nodes to the least standard deviation of a mixture; default 20 in one dimension, 6 in two.
        bounds: (low, high) of each coordinate, in units of x; needed unless it is a mixture.
        n_nodes: nodes within the wider bounds; default 501 in one dimension, 101 in two.

    Raises:
        TypeError: distribution has no log density.
        ValueError: D above two; more than 1e-6 of the mass off the grid, or beside the bounds; a network above 2 GiB; bounds that are none,
            or missing; a grid within bounds that leaves the gap uncertain by more than five percent.
    """
    found = slow_modes(distribution, sigma=sigma, nodes_per_std=nodes_per_std, bounds=bounds, n_nodes=n_nodes)
    gap, error = float(found.rates[0]), float(found.errors[0])
    if bounds is not None and not error <= _UNCERTAIN * gap:
        raise ValueError(
            f"the gap is {gap:.3g}, of which {error:.2g} may be the grid's error: at most {_UNCERTAIN:.0%} of it may be; raise n_nodes, or "
            "narrow bounds"
        )
    return gap


def slow_modes(
    distribution: GaussianMixture | Density | LogProb,
    *,
    sigma: float = 0.0,
    n_modes: int = 1,
    nodes_per_std: float | None = None,
    bounds: Sequence[tuple[float, float]] | None = None,
    n_nodes: int | None = None,
) -> SlowModes:
    """The slowest rates of the generator and their eigenfunctions; args and errors as ``spectral_gap``.

    Within bounds a function is positive where the first coordinate is larger, and what the grid does is in ``errors`` alone.
    """
    ops.check_count(n_modes, "n_modes")
    if bounds is None and isinstance(distribution, GaussianMixture):
        if n_nodes is not None:
            raise ValueError(f"n_nodes = {n_nodes}: it counts nodes within bounds; pass bounds, or nodes_per_std")
        p = distribution.to("cpu", torch.float64)
        axes = density_axes(p, sigma, nodes_per_std)
        _check_memory(axes, "nodes_per_std")
        logs = p.log_prob(nodes(axes), sigma)
        first = p.responsibilities(nodes(axes), sigma)[:, 0] - 0.5
        remedy = "the modes are too far apart; raise sigma"
    else:
        if nodes_per_std is not None:
            raise ValueError(
                f"nodes_per_std = {nodes_per_std}: only a mixture without bounds has standard deviations; pass n_nodes"
            )
        log_prob = _log_prob(distribution)
        axes = _box(bounds, n_nodes)
        _check_memory(axes, "n_nodes")
        logs = _values(log_prob, nodes(axes), sigma)
        logs = logs - logs.logsumexp(0) - len(axes) * math.log(axes[0][1] - axes[0][0])
        _check_walls(logs, axes)
        first = nodes(axes)[:, 0] - float(axes[0].mean())
        remedy = "narrow bounds, or raise sigma"
    shape = [len(axis) for axis in axes]
    grid, h = logs.numpy().reshape(shape), axes[0][1] - axes[0][0]
    coarse = grid[tuple(slice(None, None, 2) for _ in axes)]
    if bounds is None:
        for masses, spacing in ((np.exp(grid), h), (np.exp(coarse), 2 * h)):
            check_mass(float(masses.sum()) * spacing ** len(axes))
    try:
        rates, functions = _solve(grid, h, nodes(axes), n_modes)
        rough, _ = _solve(coarse, 2 * h, nodes([axis[::2] for axis in axes]), n_modes)
    except FloatingPointError as error:
        raise ValueError(
            f"the density of {distribution} at sigma = {sigma} falls below what a float can hold on the grid: {remedy}"
        ) from error
    signs = np.where((functions * first.numpy()[:, None]).sum(0) < 0, -1.0, 1.0)
    return SlowModes(
        torch.from_numpy((4 * rates - rough) / 3),  # of second order in h
        torch.from_numpy((functions * signs).T.reshape(n_modes, *shape).copy()),
        tuple(torch.from_numpy(axis) for axis in axes),
        torch.from_numpy(np.abs(rates - rough) / 3),
    )


def _check_memory(axes: list[Any], name: str) -> None:
    sizes = sorted(len(axis) for axis in axes)
    needed = 8 * math.prod(sizes) * (sizes[0] if len(sizes) == 2 else 1)
    if needed > MEMORY:
        raise ValueError(
            f"a network of {' x '.join(map(str, sizes))} nodes takes {needed:,} bytes: at most {MEMORY:,} may; lower {name}"
        )


def _log_prob(distribution: object) -> LogProb:
    if isinstance(distribution, GaussianMixture):
        return distribution.to("cpu", torch.float64).log_prob
    found = getattr(distribution, "log_prob", distribution)
    if not callable(found):
        raise TypeError(
            f"distribution is {type(distribution).__name__}: it has no log_prob; pass a mixture, or a function of x [N, D] that returns "
            "the log density [N], and bounds"
        )
    return found


def _box(bounds: Sequence[tuple[float, float]] | None, n_nodes: int | None) -> list[Any]:
    """Axes of one spacing, of an odd number of nodes each, about the middle of the bounds."""
    if bounds is None:
        raise ValueError("bounds is None: only a mixture tells where it lies; pass e.g. bounds=[(-5.0, 5.0)]")
    ends = np.asarray(bounds, dtype=float)
    if ends.ndim != 2 or ends.shape[1] != 2 or len(ends) not in (1, 2):
        raise ValueError(
            f"bounds has shape {list(ends.shape)}: it must be (low, high) for one or two coordinates; pass e.g. bounds=[(-5.0, 5.0)]"
        )
    widths = ends[:, 1] - ends[:, 0]
    if not (np.isfinite(widths).all() and (widths > 0).all()):
        raise ValueError(f"bounds = {ends.tolist()}: they must be finite, low < high; pass e.g. bounds=[(-5.0, 5.0)]")
    n_nodes = (501 if len(ends) == 1 else 101) if n_nodes is None else n_nodes
    ops.check_count(n_nodes, "n_nodes", 15)
    h = widths.max() / (2 * ((n_nodes - 1) // 2))
    halves = [max(2, round(width / h / 2)) for width in widths]
    return [middle + h * np.arange(-half, half + 1) for middle, half in zip(ends.mean(1), halves, strict=True)]


def _values(log_prob: LogProb, points: Tensor, sigma: float) -> Tensor:
    ops.check_sigma(sigma, points)
    found = log_prob(points, sigma) if sigma else log_prob(points)
    if not isinstance(found, Tensor) or found.shape != points.shape[:1]:
        kind = f"shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"log_prob returned {kind} for {len(points)} points: it must be [{len(points)}]; sum over the coordinates"
        )
    logs = found.detach().cpu().double()
    if bool(logs.isnan().any() | (logs == math.inf).any()):
        raise ValueError("log_prob returned NaN or infinity within bounds: a density must be finite there; move them")
    return logs


def _check_walls(logs: Tensor, axes: list[Any]) -> None:
    """Refuse bounds beside which there is mass: what is beyond is not on the grid."""
    masses = logs.exp().reshape([len(axis) for axis in axes]) * (axes[0][1] - axes[0][0]) ** len(axes)
    beside = max(float(masses.select(d, end).sum()) for d in range(len(axes)) for end in (0, -1))
    if not beside <= CLIPPED:
        raise ValueError(
            f"the nodes at one of bounds hold {beside:.2g} of the mass: at most {CLIPPED:g} may, or more lies beyond; widen bounds"
        )


def _solve(logs: Any, h: float, points: Tensor, n_modes: int) -> tuple[Any, Any]:
    """Rates [k] and eigenfunctions [nodes, k] of log densities on a grid of spacing h."""
    shape = logs.shape
    masses = np.exp(logs) * h ** len(shape)
    edges = []
    for d in range(len(shape)):
        low, high = (np.take(logs, np.arange(n, shape[d] - 1 + n), d) for n in (0, 1))
        edges.append(0.5 * h ** (len(shape) - 2) * np.exp(0.5 * (low + high)))
    if min(float(e.min()) for e in edges) < np.finfo(float).tiny:
        raise FloatingPointError
    network = Network(edges, masses)

    def energies(f: Any) -> Any:
        steps = [np.diff(f.reshape(*shape, -1), axis=d).reshape(e.size, -1) for d, e in enumerate(edges)]
        return sum(s.T @ (s * e.reshape(-1, 1)) for s, e in zip(steps, edges, strict=True))

    pi = masses.reshape(-1)
    pi = pi / pi.sum()
    waves = [np.cos(math.pi * k * (np.arange(len(pi)) + 0.5) / len(pi)) for k in range(1, n_modes + 3)]
    f = np.stack([*points.numpy().T, *waves], 1)
    rates = np.zeros(n_modes)
    for _ in range(_ITERATIONS):
        for _ in range(2):  # the slowest mode leaves traces in the others, and once is not enough to remove them
            f = f - pi @ f
            f = f @ np.linalg.inv(np.linalg.qr(np.sqrt(pi)[:, None] * f)[1])
        f = f @ np.linalg.eigh(energies(f))[1]
        before, rates = rates, np.array([energies(g[:, None])[0, 0] / (pi @ (g - pi @ g) ** 2) for g in f.T[:n_modes]])
        if np.allclose(rates, before, rtol=_TOLERANCE, atol=0):
            return rates, f[:, :n_modes]
        f = network.solve(pi[:, None] * f)
    raise RuntimeError(
        f"inverse iteration did not settle in {_ITERATIONS} steps: rates {rates}; ask for another number of modes"
    )


def eyring_kramers(mixture: GaussianMixture, *, sigma: float = 0.0) -> float:
    r"""The spectral gap between two modes by the height of the pass alone. Source: berglund2013, Sec. 3.

    With H the Hessian of :math:`-\frac12 \log p`, chains leave a maximum m over the saddle z at the rate

    .. math:: \frac{|\mu(z)|}{2\pi} \sqrt{\frac{\det H(m)}{|\det H(z)|}}\, \frac{p(z)}{p(m)},

    :math:`\mu(z)` being H's negative eigenvalue; the gap is the sum of both ways. The formula takes modes and pass for parabolas.
    The pass between two Gaussians of one covariance is none, :math:`\log \cosh`, so that there the estimate tends to
    :math:`\sqrt{\pi/2} = 1.25` times the gap, however far apart they are.

    Args:
        mixture: K = 2, in any D.
        sigma: the noise level, in units of x.

    Raises:
        ValueError: another K; no saddle between the means, as when they are one mode.
    """
    check_mixture(mixture)
    p = mixture.to("cpu", torch.float64).perturb(sigma)
    if len(p.means) != 2:
        raise ValueError(
            f"{mixture} has K = {len(p.means)}: there is one pass between two modes; pass a mixture of two"
        )
    maxima = [_stationary(p, x) for x in p.means]
    line = maxima[0] + torch.linspace(0, 1, 513, dtype=torch.float64, device="cpu")[:, None] * (maxima[1] - maxima[0])
    lowest = int(p.log_prob(line).argmin())
    saddle = _stationary(p, line[lowest])
    downhill = torch.linalg.eigvalsh(-0.5 * p.jacobian(saddle[None])[0])
    if lowest in (0, 512) or not (downhill[0] < 0 and (len(downhill) == 1 or downhill[1] > 0)):
        raise ValueError(
            f"between the means of {mixture} at sigma = {sigma} there is no saddle: they are one mode; "
            f"{'lower sigma' if sigma else 'move the means apart'}"
        )
    rate = 0.0
    for m in maxima:
        curvature = torch.linalg.eigvalsh(-0.5 * p.jacobian(m[None])[0])
        height = (p.log_prob(saddle[None]) - p.log_prob(m[None])).exp()
        rate += float(-downhill[0] / (2 * math.pi) * (curvature.prod() / downhill.prod().abs()).sqrt() * height)
    return rate


def _stationary(p: GaussianMixture, x: Tensor) -> Tensor:
    """A zero of the score near x, by Newton's method."""
    for _ in range(50):
        step = torch.linalg.solve(p.jacobian(x[None])[0], p.score(x[None])[0])
        x = x - step
        if float(step.norm()) < 1e-13 * max(1.0, float(x.norm())):
            break
    return x


@dataclass(frozen=True)
class HopRate:
    """Hops counted: ``gap``, what they say of the spectral gap, and its 95 % confidence interval ``low`` to ``high``."""

    n_hops: int
    gap: float
    low: float
    high: float


@torch.no_grad()
def hop_rate(
    chain: Iterable[Tensor],
    mixture: GaussianMixture,
    *,
    step_size: float,
    sigma: float = 0.0,
    core: float = 0.68,
    n_discard: int = 0,
) -> HopRate:
    r"""Count the hops of chains in equilibrium between two modes, and say what spectral gap they show.

    A chain hops when it enters the core of a mode having last been in that of the other; in equilibrium that happens
    :math:`2 w_1 w_2 \lambda_1` times per unit of time, as a Poisson process, where hops are rare beside what happens within a mode: the
    second rate should be thirty times the first, or the core decides the count.

    Args:
        chain: states [B, *event] one step apart, started from the mixture's own samples: ``langevin(...)``.
        mixture: K = 2.
        step_size: of the chain; a step takes that much time.
        sigma: the noise level, in units of x.
        core: the share of a mode that is in its core, an ellipsoid around its mean.
        n_discard: states in which pasts are learnt and nothing is counted. Chains on their way at the start have no past yet, so that
            without it
            a run of time T misses a share of hops of about the time of a crossing over T.

    Raises:
        ValueError: another K, a core that is not between 0 and 1, fewer than two states after those discarded.
    """
    from scipy import stats

    check_mixture(mixture)
    if len(mixture.means) != 2:
        raise ValueError(
            f"{mixture} has K = {len(mixture.means)}: hops are counted between two modes; pass a mixture of two"
        )
    if not 0 < core < 1:
        raise ValueError(f"core = {core}: it is a share of a mode, between 0 and 1; pass e.g. core=0.68")
    ops.check_positive(step_size, "step_size")
    ops.check_count(n_discard, "n_discard", 0)
    p = mixture.to("cpu", torch.float64).perturb(sigma)
    whiten = torch.linalg.inv(torch.linalg.cholesky(p.covariances))
    radius = math.sqrt(stats.chi2.ppf(core, p.means.shape[1]))
    last, n_hops, time = None, 0, 0.0
    for n, x in enumerate(chain):
        flat = ops.flatten(x).cpu().double()
        distances = (whiten @ (flat.mT - p.means[:, :, None])).norm(dim=1)  # [K, B]
        inside = distances.min(0)
        now = torch.where(inside.values < radius, 2 * inside.indices - 1, 0)
        if last is not None:
            if n > n_discard:
                n_hops += int((now * last < 0).sum())
                time += step_size * len(x)
            now = torch.where(now == 0, last, now)
        last = now
    if time == 0:
        raise ValueError(
            f"the chain has fewer than {n_discard + 2} states: nothing can hop; run it longer, or discard less"
        )
    unit = float(2 * mixture.weights.prod()) * time
    low = float(stats.chi2.ppf(0.025, 2 * n_hops)) / 2 if n_hops else 0.0
    return HopRate(n_hops, n_hops / unit, low / unit, float(stats.chi2.ppf(0.975, 2 * n_hops + 2)) / 2 / unit)
