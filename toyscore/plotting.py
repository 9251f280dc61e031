"""Pictures of densities, vector fields, samples and chains in the plane.

Every function draws on the Axes it is given and returns the artists it made, so that a figure can be composed; none of
them owns a figure. Given those artists back as ``update``, it changes them in place, which is what a slider and an
animation do. Three things are the same in all of them:

- *One colour and marker per role* (``ROLES``: truth, learned, plain, annealed, ...), from the colour-blind-safe palette of
  Okabe and Ito; density maps are perceptually uniform.
- *Comparable panels*: the same square box, equal aspect, and, for fields, arrows in data units of one ``scale``.
- *Alternative text*: each function writes what it drew, with numbers, on its artist (as its gid, which SVG readers can
  reach); ``alt_text`` collects it for a figure, and ``save`` and ``save_gif`` store it in the file.

Points come as tensors ``[B, 2]`` on any device. Scores and log densities are called as ``f(x, sigma)`` on a grid in
float32 on the CPU, or like the tensor ``like``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.quiver import Quiver
from PIL import Image
from torch import Tensor

from toyscore import operators as ops
from toyscore.operators import Score, Sigma

State = TypeVar("State")

DENSITY_MAP = "cividis"
ERROR_MAP = "magma_r"
STYLE: dict[Any, Any] = {
    "font.size": 12.0,
    "axes.titlesize": 13.0,
    "axes.labelsize": 12.0,
    "figure.dpi": 100.0,
    "savefig.dpi": 110.0,
    "svg.hashsalt": "toyscore",
    "image.origin": "lower",
}


@dataclass(frozen=True)
class Role:
    """How something is drawn, everywhere."""

    colour: str
    marker: str
    name: str


ROLES = {
    "truth": Role("#0072B2", "o", "exact"),
    "learned": Role("#D55E00", "s", "learned"),
    "plain": Role("#CC79A7", "^", "plain Langevin"),
    "annealed": Role("#009E73", "D", "annealed Langevin"),
}


@dataclass(frozen=True)
class FieldComparison:
    """The artists of ``field_comparison``, and the share of the box where the relative error exceeds ``threshold``."""

    image: AxesImage
    contour: QuadContourSet
    truth: Quiver
    learned: Quiver
    threshold: float
    share: float


def canvas(n_rows: int = 1, n_columns: int = 1, *, size: float = 4.6) -> tuple[Figure, Any]:
    """A figure of square panels that no notebook shows by itself, and its Axes, one or an array as ``plt.subplots`` has it.

    Args:
        n_rows, n_columns: panels.
        size: of a panel, in inches.
    """
    with mpl.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08)
        figure = Figure(figsize=(size * n_columns, size * n_rows), layout=layout)
        return figure, figure.subplots(n_rows, n_columns)


def frame(ax: Axes, box: float) -> None:
    """Make an Axes the square [-box, box]² with equal aspect and few ticks."""
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
    """The density exp(log_prob(x, sigma)) as an image of n x n cells of [-box, box]².

    Args:
        ax: where to draw.
        log_prob: ``log_prob(x, sigma)`` -> [B], in nats.
        sigma: float or 0-d, in units of x.
        box: half the side of the square, in units of x.
        n: cells per side.
        like: a tensor whose dtype and device the grid takes; default float32 on the CPU.
        update: the artist of an earlier call with the same box, to be changed instead of drawing anew. Its colours span
            the new values.
    """
    values = log_prob(grid(box, n, like), sigma).exp().view(n, n).mT
    if update is None:
        extent = (-box, box, -box, box)
        image = ax.imshow(_numpy(values), extent=extent, cmap=DENSITY_MAP, interpolation="bilinear", origin="lower")
        frame(ax, box)
    else:
        image = update
        image.set(data=_numpy(values), clim=(0, float(values.max())))
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
    points = grid(box, n, like)
    arrows = score(points, sigma)
    norms = arrows.norm(dim=1)
    scale = arrow_scale(norms, box, n) if scale is None else scale
    x, (u, v) = _numpy(points), _numpy(arrows * scale).T
    if update is None:
        options: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "pivot": "tail"}
        quiver = ax.quiver(x[:, 0], x[:, 1], u, v, color=ROLES[role].colour, width=0.0045, **options)
        frame(ax, box)
    else:
        quiver = update
        quiver.set_UVC(u, v)
    quiver.set_gid(
        f"{n} x {n} arrows of the {ROLES[role].name} score: median norm {float(norms.median()):.3g}, largest {float(norms.max()):.3g}."
    )
    return quiver


def arrow_scale(norms: Tensor, box: float = 8.0, n: int = 20) -> float:
    """A scale for which the 95th percentile of ``norms`` spans one and a half of n cells."""
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
        n_arrows: arrows per side, both fields in the target's scale.
        threshold: where the contour lies and above which the share of the box is counted.

    Returns:
        The artists and the share.
    """
    points = grid(box, n, like)
    truth = target(points, sigma)
    error = ((score(points, sigma) - truth).norm(dim=1) / truth.norm(dim=1)).view(n, n).mT
    extent = (-box, box, -box, box)
    image = ax.imshow(
        _numpy(error),
        extent=extent,
        cmap=ERROR_MAP,
        vmin=0,
        vmax=1,
        interpolation="nearest",
        origin="lower",
        alpha=0.75,
    )
    axis = _numpy(points[:n, 1])
    contour = ax.contour(axis, axis, _numpy(error), levels=[threshold], colors="black", linewidths=1.2)
    scale = arrow_scale(target(grid(box, n_arrows, like), sigma).norm(dim=1), box, n_arrows)
    options: dict[str, Any] = {"sigma": sigma, "box": box, "n": n_arrows, "scale": scale, "like": like}
    true_arrows = vector_field(ax, target, role="truth", **options)
    learned_arrows = vector_field(ax, score, role="learned", **options)
    share = float((error > threshold).float().mean())
    image.set_gid(
        f"The relative error exceeds {threshold:.0%} on {share:.1%} of the box; its median is {float(error.median()):.2g}."
    )
    return FieldComparison(image, contour, true_arrows, learned_arrows, threshold, share)


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
    """
    ops.check_batch(x)
    xy = _numpy(x)
    kind = ROLES[role]
    if update is None:
        dots = ax.scatter(xy[:, 0], xy[:, 1], s=size, c=kind.colour, marker=kind.marker, alpha=0.45, linewidths=0)
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
    if states.ndim != 3 or states.shape[2] != 2:
        raise ValueError(f"states has shape {list(states.shape)}: it must be [T, B, 2]; pass torch.stack(list(chain))")
    kind = ROLES[role]
    paths, ends = list(_numpy(states.movedim(1, 0))), _numpy(states[-1])
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


def alt_text(figure: Figure) -> str:
    """What the figure shows, in words and numbers: the titles and descriptions of its panels, in order."""
    parts = []
    for ax in figure.axes:
        title = ax.get_title().replace("\n", ", ").replace("$", "")
        described = [gid for artist in ax.get_children() if (gid := artist.get_gid())]
        if described:
            parts += [f"{title}.", *described] if title else described
    return " ".join(parts)


def save(figure: Figure, path: str | Path, description: str | None = None) -> None:
    """Write a PNG, SVG or PDF whose bytes depend on the figure alone, with its alternative text inside.

    Raises:
        ValueError: another ending.
    """
    path = Path(path)
    text = alt_text(figure) if description is None else description
    metadata: dict[str, dict[str, Any]] = {
        ".png": {"Software": None, "Description": text},
        ".svg": {"Date": None, "Description": text},
        ".pdf": {"CreationDate": None, "Subject": text},
    }
    if path.suffix not in metadata:
        raise ValueError(f"path ends in {path.suffix!r}: it must be .png, .svg or .pdf; rename {path.name}")
    with mpl.rc_context({"svg.hashsalt": STYLE["svg.hashsalt"]}):
        figure.savefig(path, metadata=metadata[path.suffix])


def renderer(figure: Figure) -> Callable[[], np.ndarray[Any, Any]]:
    """A function that renders the figure, [H, W, 3] bytes, again and again.

    The layout is made once and kept, so that frames do not jump. Ticks and their labels, half of the time of a frame, are
    drawn once and kept until the limits or labels of an Axes change; being outside the box they are never drawn over.
    """
    agg = FigureCanvasAgg(figure)
    agg.draw()
    figure.set_layout_engine("none")
    kept: dict[str, Any] = {}

    def decorations() -> list[Any]:
        labelled = [(ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale(), ax.get_yscale()) for ax in figure.axes]
        return [*labelled, *((ax.get_xlim(), ax.get_ylim()) for ax in figure.axes)]

    def render() -> np.ndarray[Any, Any]:
        now, pen = decorations(), agg.get_renderer()
        if kept.get("decorations") != now:
            agg.draw()  # which places what depends on the limits
            pen.clear()
            background: list[Artist] = [
                figure.patch,
                *(a for ax in figure.axes for a in (ax.patch, ax.xaxis, ax.yaxis)),
            ]
            for artist in background:
                artist.draw(pen)
            kept.update(decorations=now, behind={*background, *figure.axes}, pixels=np.array(pen.buffer_rgba()))
        np.asarray(pen.buffer_rgba())[:] = kept["pixels"]
        for owner in (figure, *figure.axes):
            artists = [a for a in owner.get_children() if a not in kept["behind"]]
            for artist in sorted(artists, key=lambda a: a.get_zorder()):
                artist.draw(pen)
        return np.asarray(pen.buffer_rgba())[..., :3].copy()

    return render


def animate(
    figure: Figure, update: Callable[[State], object], states: Iterable[State], *, every: int = 1
) -> Iterator[np.ndarray[Any, Any]]:
    """Frames of a chain, a training run, or any other iterable, made as they are asked for.

    Args:
        figure: what is drawn.
        update: called with a state, changes the figure's artists.
        states: e.g. ``langevin(...)``, ``fit(...)``, or the values of a slider.
        every: a frame after every so many states.

    Yields:
        [H, W, 3] bytes, for ``save_gif``.
    """
    ops.check_count(every, "every")
    render = renderer(figure)
    for state in islice(states, every - 1, None, every):
        update(state)
        yield render()


def save_gif(
    frames: Iterable[np.ndarray[Any, Any]],
    path: str | Path,
    *,
    fps: float = 20.0,
    n_colours: int = 64,
    description: str = "",
) -> None:
    """Write an endless GIF whose bytes depend on the frames alone.

    Args:
        frames: [H, W, 3] bytes each, from ``animate``.
        path: ends in .gif.
        fps: frames a second; a GIF counts in hundredths of a second.
        n_colours: of one palette for all frames, 2 to 256; fewer make a smaller file.
        description: alternative text, stored as the GIF's comment.

    Raises:
        ValueError: another ending, no frame, or numbers out of range.
    """
    path = Path(path)
    if path.suffix != ".gif":
        raise ValueError(f"path ends in {path.suffix!r}: it must be .gif; rename {path.name}")
    if not 0 < fps <= 50:
        raise ValueError(f"fps = {fps}: viewers show at most 50 frames a second; pass e.g. fps=20")
    if not 2 <= n_colours <= 256:
        raise ValueError(f"n_colours = {n_colours}: a GIF has 2 to 256; pass e.g. n_colours=64")
    images = [Image.fromarray(frame) for frame in frames]
    if not images:
        raise ValueError("there is no frame: the states were consumed already, or `every` exceeds them; pass them anew")
    shown = images[:: max(1, len(images) // 4)]  # what the palette is chosen from
    strip = Image.fromarray(np.concatenate([np.asarray(image) for image in shown]))
    palette = strip.quantize(n_colours, method=Image.Quantize.MAXCOVERAGE)
    first, *others = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    options: dict[str, Any] = {"duration": round(100 / fps) * 10, "loop": 0, "comment": description.encode()}
    first.save(path, save_all=True, append_images=others, optimize=False, **options)


def grid(box: float = 8.0, n: int = 20, like: Tensor | None = None) -> Tensor:
    """Centres of n x n cells of [-box, box]², x first: [n * n, 2]."""
    ops.check_positive(box, "box")
    ops.check_count(n, "n")
    like = torch.empty((), dtype=torch.float32) if like is None else like
    axis = (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) * (2 * box / n) - box
    return torch.cartesian_prod(axis, axis)


def _numpy(x: Tensor) -> Any:
    return x.detach().cpu().numpy()
