"""Pictures in the plane: densities, vector fields, samples and chains, all on the square [-box, box]²."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import LogNorm
from matplotlib.contour import QuadContourSet
from matplotlib.image import AxesImage
from matplotlib.quiver import Quiver
from torch import Tensor
from torch.nn import functional

from toyscore import operators as ops
from toyscore.operators import Score, Sigma
from toyscore.plotting.style import DENSITY_MAP, ERROR_MAP, NORM_MAP, look, to_numpy


@dataclass(frozen=True)
class FieldComparison:
    """The artists of ``field_comparison``, and the share of the box where the relative error exceeds ``threshold``."""

    image: AxesImage
    contour: QuadContourSet
    truth: Quiver
    learned: Quiver
    threshold: float
    share: float


def frame(ax: Axes, box: float) -> None:
    """Make an Axes the square [-box, box]² with equal aspect and few ticks."""
    box = _positive(box, "box")
    ax.set(xlim=(-box, box), ylim=(-box, box), aspect="equal", xticks=[-box, 0, box], yticks=[-box, 0, box])


@torch.no_grad()
def density(
    ax: Axes,
    log_prob: Callable[[Tensor, Sigma], Tensor],
    *,
    sigma: Sigma = 0.0,
    box: float = 8.0,
    n: int = 160,
    like: Tensor | None = None,
    update: AxesImage | None = None,
) -> AxesImage:
    """The density exp(log_prob(x, sigma)) as an image of n x n cells of [-box, box]², its colours from zero to its maximum.

    Args:
        ax: where to draw.
        log_prob: ``log_prob(x, sigma)`` -> [B], in nats.
        sigma: float or 0-d, in units of x.
        box: half the side of the square, in units of x.
        n: cells per side.
        like: a tensor whose dtype and device the grid takes; default float32 on the CPU.
        update: the artist of an earlier call with the same box, to be changed instead of drawing anew.

    Raises:
        ValueError: a log density that is not [B].
    """
    logs = log_prob(grid(box, n, like), sigma)
    if logs.shape != (n * n,):
        raise ValueError(
            f"log_prob returned shape {list(logs.shape)} for {n * n} points: it must be [B]; pass e.g. mixture.log_prob"
        )
    values = logs.exp().view(n, n).mT
    if update is None:
        extent = (-box, box, -box, box)
        image = ax.imshow(to_numpy(values), extent=extent, cmap=DENSITY_MAP, interpolation="bilinear", origin="lower")
        frame(ax, box)
    else:
        image = update
        image.set_data(to_numpy(values))
    image.set_clim(0, float(values.max()))
    i, j = divmod(int(values.argmax()), n)
    x, y = (round(-box + (k + 0.5) * 2 * box / n, 1) + 0.0 for k in (j, i))
    inside = float(values.sum()) * (2 * box / n) ** 2
    image.set_gid(
        f"Density map with its maximum {float(values.max()):.3g} near ({x:g}, {y:g}); {inside:.1%} of the mass is in the box."
    )
    return image


@torch.no_grad()
def vector_field(
    ax: Axes,
    score: Score,
    *,
    sigma: Sigma = 0.0,
    role: str = "truth",
    box: float = 8.0,
    n: int = 20,
    scale: float | None = None,
    like: Tensor | None = None,
    update: Quiver | None = None,
) -> Quiver:
    """A score as n x n arrows on [-box, box]², in data units: an arrow is ``scale`` times the score long.

    Args:
        ax: where to draw.
        score: ``score(x, sigma)``.
        sigma: float or 0-d, in units of x.
        role: a key of ``ROLES``.
        box: half the side of the square, in units of x.
        n: arrows per side.
        scale: length of a unit score; pass one value to panels that are compared. Default: the 95th percentile of the
            norms spans one and a half cells.
        like: a tensor whose dtype and device the grid takes; default float32 on the CPU.
        update: the artist of an earlier call with the same role, box and n, to be changed instead of drawing anew.
    """
    if scale is not None:
        scale = _positive(scale, "scale")
    points = grid(box, n, like)
    arrows = score(points, sigma)
    norms = arrows.norm(dim=1)
    scale = arrow_scale(norms, box, n) if scale is None else scale
    x, (u, v) = to_numpy(points), to_numpy(arrows * scale).T
    if update is None:
        quiver = _arrows(ax, x, u, v, role, width=0.0045, pivot="tail")
        frame(ax, box)
    else:
        quiver = update
        quiver.set_UVC(u, v)
    quiver.set_gid(
        f"{n} x {n} arrows of the {look(role).name} score: median norm {float(norms.median()):.3g}, largest {float(norms.max()):.3g}."
    )
    return quiver


def _arrows(ax: Axes, x: Any, u: Any, v: Any, role: str, **form: Any) -> Quiver:
    """Arrows (u, v) at the points x [N, 2], both in data units."""
    colour = look(role).colour
    return ax.quiver(x[:, 0], x[:, 1], u, v, color=colour, angles="xy", scale_units="xy", scale=1, **form)


def arrow_scale(norms: Tensor, box: float = 8.0, n: int = 20) -> float:
    """A scale for which the 95th percentile of ``norms`` spans one and a half of n cells.

    Raises:
        TypeError, ValueError: norms is no tensor of numbers, empty or not finite; a box or an n that is not positive.
    """
    box = _positive(box, "box")
    ops.check_count(n, "n")
    _check_numbers(norms, "norms")
    return 1.5 * (2 * box / n) / max(float(norms.float().quantile(0.95)), 1e-12)


@torch.no_grad()
def field_comparison(
    ax: Axes,
    score: Score,
    target: Score,
    *,
    sigma: Sigma = 0.0,
    box: float = 8.0,
    n: int = 160,
    n_arrows: int = 16,
    threshold: float = 0.5,
    like: Tensor | None = None,
) -> FieldComparison:
    """The relative error ‖s - s*‖ / ‖s*‖ as a map from 0 to 1, its ``threshold`` contour, and both fields' arrows.

    Args:
        ax: where to draw.
        score, target: the learned score and the true one, called as ``f(x, sigma)``.
        sigma, box, n, like: as ``density``.
        n_arrows: arrows per side, both fields in the target's scale; the target's broad with a white rim, the learned
            ones thin with a black one.
        threshold: where the contour lies and above which the share of the box is counted.

    Returns:
        The artists and the share.
    """
    threshold = _positive(threshold, "threshold")
    points = grid(box, n, like)
    truth = target(points, sigma)
    error = ((score(points, sigma) - truth).norm(dim=1) / truth.norm(dim=1)).view(n, n).mT
    extent = (-box, box, -box, box)
    image = ax.imshow(
        to_numpy(error),
        extent=extent,
        cmap=ERROR_MAP,
        vmin=0,
        vmax=1,
        interpolation="nearest",
        origin="lower",
        alpha=0.5,  # pale enough for dark rims
    )
    axis = to_numpy(points[:n, 1])
    contour = ax.contour(axis, axis, to_numpy(error), levels=[threshold], colors="black", linewidths=1.2)
    scale = arrow_scale(target(grid(box, n_arrows, like), sigma).norm(dim=1), box, n_arrows)
    options: dict[str, Any] = {"sigma": sigma, "box": box, "n": n_arrows, "scale": scale, "like": like}
    true_arrows = vector_field(ax, target, role="truth", **options)
    true_arrows.set(edgecolor="white", linewidth=0.7)  # rims and widths tell the two apart in grey
    true_arrows.width = 0.0065
    learned_arrows = vector_field(ax, score, role="learned", **options)
    learned_arrows.set(edgecolor="black", linewidth=0.5)
    learned_arrows.width = 0.004
    share = float((error > threshold).float().mean())
    image.set_gid(
        f"The relative error exceeds {threshold:.0%} on {share:.1%} of the box; its median is {float(error.median()):.2g}."
    )
    return FieldComparison(image, contour, true_arrows, learned_arrows, threshold, share)


@torch.no_grad()
def score_map(
    ax: Axes,
    score: Score,
    *,
    sigma: Sigma = 0.0,
    role: str = "truth",
    box: float = 8.0,
    n: int = 80,
    n_arrows: int = 10,
    limits: tuple[float, float] = (0.01, 100.0),
    like: Tensor | None = None,
    update: tuple[AxesImage, Quiver] | None = None,
) -> tuple[AxesImage, Quiver]:
    """A score whose norm spans decades: the norm as a map of logarithmic colours, the direction as arrows of one length.

    Args:
        ax: where to draw.
        score: ``score(x, sigma)``.
        sigma, box, like: as ``density``.
        role: a key of ``ROLES``.
        n: cells of the map per side.
        n_arrows: arrows per side, each centred on its point; none where the score is zero.
        limits: the norms at the ends of the colours, in units of 1/x; pass one pair to panels that are compared.
        update: the artists of an earlier call with the same role, box and limits, to be changed instead of drawing anew.

    Returns:
        The map and the arrows.
    """
    norms, points = score(grid(box, n, like), sigma).norm(dim=1), grid(box, n_arrows, like)
    x, (u, v) = to_numpy(points), to_numpy(functional.normalize(score(points, sigma)) * (1.5 * box / n_arrows)).T
    values = to_numpy(norms.view(n, n).mT)
    if update is None:
        colours: dict[str, Any] = {"cmap": NORM_MAP, "norm": LogNorm(*limits), "interpolation": "nearest"}
        image = ax.imshow(values, extent=(-box, box, -box, box), origin="lower", **colours)
        heads = {"headwidth": 3.6, "headlength": 4.0, "headaxislength": 3.6}
        quiver = _arrows(ax, x, u, v, role, width=0.014, pivot="mid", **heads)
        frame(ax, box)
    else:
        image, quiver = update
        image.set_data(values)
        quiver.set_UVC(u, v)
    image.set_gid(
        f"Norm and direction of the {look(role).name} score: least norm {float(norms.min()):.2g}, median "
        f"{float(norms.median()):.2g}, largest {float(norms.max()):.2g}.",
    )
    return image, quiver


def samples(
    ax: Axes,
    x: Tensor,
    *,
    role: str = "truth",
    box: float = 8.0,
    size: float = 7.0,
    update: PathCollection | None = None,
) -> PathCollection:
    """Points [B, 2] as a scatter, translucent where they crowd.

    Args:
        ax: where to draw.
        x: [B, 2].
        role: a key of ``ROLES``.
        box: half the side of the square, in units of x.
        size: area of a marker, in points squared.
        update: the artist of an earlier call with the same role, to be changed instead of drawing anew.

    Raises:
        TypeError, ValueError: x is not [B, 2].
    """
    ops.check_batch(x)
    box = _positive(box, "box")
    size = _positive(size, "size")
    if x.shape[1:] != (2,):
        raise ValueError(
            f"x has shape {list(x.shape)}: only points of the plane, [B, 2], can be drawn; pass x[:, :2] of an event of D"
        )
    xy = to_numpy(x)
    kind = look(role)
    if update is None:
        dots = ax.scatter(xy[:, 0], xy[:, 1], s=size, c=kind.colour, marker=kind.marker, alpha=0.7, linewidths=0)
        frame(ax, box)
    else:
        dots = update
        dots.set_offsets(xy)
    outside = int((x.abs() > box).any(1).sum())
    centre = ", ".join(f"{float(m) + 0.0:.2f}" for m in x.mean(0))
    dots.set_gid(f"{len(x)} {kind.name} samples, mean ({centre}); {outside} of them outside the box.")
    return dots


def chains(
    ax: Axes,
    states: Tensor,
    *,
    role: str = "plain",
    box: float = 8.0,
    update: tuple[LineCollection, PathCollection] | None = None,
) -> tuple[LineCollection, PathCollection]:
    """Trajectories [T, B, 2] as thin lines, with a marker at each end.

    Args:
        ax: where to draw.
        states: [T, B, 2], ``torch.stack(list(chain))``.
        role: a key of ``ROLES``.
        box: half the side of the square, in units of x.
        update: the artists of an earlier call with the same role, to be changed instead of drawing anew.

    Raises:
        ValueError: states is not [T, B, 2].
    """
    ops.check_batch(states, "states")
    box = _positive(box, "box")
    if states.ndim != 3 or states.shape[2] != 2:
        raise ValueError(f"states has shape {list(states.shape)}: it must be [T, B, 2]; pass torch.stack(list(chain))")
    kind = look(role)
    paths, ends = list(to_numpy(states.movedim(1, 0))), to_numpy(states[-1])
    if update is None:
        lines = LineCollection(paths, colors=kind.colour, linewidths=0.7, alpha=0.6)
        ax.add_collection(lines)
        edge: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.6, "zorder": 3}
        dots = ax.scatter(ends[:, 0], ends[:, 1], s=28, c=kind.colour, marker=kind.marker, **edge)
        frame(ax, box)
    else:
        lines, dots = update
        lines.set_segments(paths)
        dots.set_offsets(ends)
    travelled = float((states[-1] - states[0]).norm(dim=1).mean())
    lines.set_gid(
        f"{states.shape[1]} chains of {len(states)} {kind.name} states; ends are {travelled:.2f} from starts on average."
    )
    return lines, dots


def mass_level(density: Tensor, cell: float, mass: float) -> float:
    """The density above which a share of the mass lies: the level of the contour that holds it.

    Args:
        density: its values on cells of one size, of any shape.
        cell: area of a cell, in units of x²; 1 if the values are masses.
        mass: the share, between 0 and 1.

    Returns:
        The level; the least value where all cells together hold less.

    Raises:
        TypeError, ValueError: a density that is empty or not finite, a mass that is no share, a cell that is not positive.
    """
    _check_numbers(density, "density")
    ops.check_positive(cell, "cell")
    if not 0 < mass < 1:
        raise ValueError(f"mass = {mass}: it must be between 0 and 1; pass e.g. mass=0.95")
    falling = density.detach().flatten().cpu().sort(descending=True).values
    n_below = int((falling.cumsum(0, dtype=torch.float64) * cell < mass).sum())
    return float(falling[min(n_below, len(falling) - 1)])


def grid(box: float = 8.0, n: int = 20, like: Tensor | None = None) -> Tensor:
    """Centres of n x n cells of [-box, box]², x first: [n * n, 2]."""
    box = _positive(box, "box")
    ops.check_count(n, "n")
    like = torch.empty((), dtype=torch.float32) if like is None else like
    if not isinstance(like, Tensor) or not like.is_floating_point():
        kind = like.dtype if isinstance(like, Tensor) else type(like).__name__
        raise TypeError(f"like is {kind}: it must be a floating-point tensor, whose dtype and device are taken; pass x")
    axis = (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) * (2 * box / n) - box
    return torch.cartesian_prod(axis, axis)


def _positive(value: float, name: str) -> float:
    """A number as ``ops.check_positive`` wants it, or a 0-d tensor of one as a number."""
    number = value.item() if isinstance(value, Tensor) and value.ndim == 0 else value
    ops.check_positive(number, name)
    return number


def _check_numbers(x: Tensor, name: str) -> None:
    """Refuse what is no tensor of any shape, or holds nothing, or something that is not finite."""
    ops.check_batch(
        x.reshape(1, -1).float() if isinstance(x, Tensor) and not x.is_complex() and x.dtype != torch.bool else x, name
    )
    ops.check_finite(x.reshape(-1, 1), name)
