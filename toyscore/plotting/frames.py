"""Frames: a figure rendered again and again, for sliders, and written as a GIF."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from toyscore import operators as ops
from toyscore._writing import replacing
from toyscore.plotting.style import STYLE

State = TypeVar("State")


def canvas(n_rows: int = 1, n_columns: int = 1, *, size: float = 4.6) -> tuple[Figure, Any]:
    """A figure of square panels that no notebook shows by itself, and its Axes, one or an array as ``plt.subplots`` has it.

    Args:
        n_rows, n_columns: panels.
        size: of a panel, in inches.
    """
    ops.check_count(n_rows, "n_rows")
    ops.check_count(n_columns, "n_columns")
    ops.check_positive(size, "size")
    with mpl.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08)
        figure = Figure(figsize=(size * n_columns, size * n_rows), layout=layout)
        return figure, figure.subplots(n_rows, n_columns)


def renderer(figure: Figure) -> Callable[[], np.ndarray[Any, Any]]:
    """A function that renders the figure, [H, W, 3] bytes, again and again.

    The layout is made once and kept, so that frames do not jump. Ticks and their labels, half of the time of a frame, are
    kept too, until limits, ticks, labels, colours or the size change; and so is what lies below, by
    ``zorder``, all that has moved in its Axes. Whether the picture can be put together like that is tried once for each such state, and
    whenever another artist moves, against the figure drawn whole; where it cannot, as with a grid over an image, it is always drawn whole.
    """
    agg = FigureCanvasAgg(figure)
    kept: dict[str, Any] = {
        "decorations": None,
        "pixels": None,
        "still": [],
        "moved": set(),
        "tried": False,
        "whole": False,
    }

    def whole() -> np.ndarray[Any, Any]:
        agg.draw()
        return np.array(agg.get_renderer().buffer_rgba())

    def assembled() -> np.ndarray[Any, Any]:
        pen = agg.get_renderer()
        behind: list[Artist] = [figure.patch, *(a for ax in figure.axes for a in (ax.patch, ax.xaxis, ax.yaxis))]
        apart = {*behind, *figure.axes}
        layers = [
            sorted((a for a in owner.get_children() if a not in apart), key=lambda a: a.get_zorder())
            for owner in (*figure.axes, figure)
        ]
        kept["moved"] |= {a for layer in layers for a in layer if a.stale}
        still = [a for layer in layers[:-1] for a in takewhile(lambda a: a not in kept["moved"], layer)]
        if kept["pixels"] is None or still != kept["still"]:
            pen.clear()
            for artist in (*behind, *still):
                artist.draw(pen)
            kept.update(pixels=np.array(pen.buffer_rgba()), still=still, tried=False)
        np.asarray(pen.buffer_rgba())[:] = kept["pixels"]
        below = set(still)
        for artist in (a for layer in layers for a in layer if a not in below):
            artist.draw(pen)
        return np.array(pen.buffer_rgba())

    def render() -> np.ndarray[Any, Any]:
        if kept["decorations"] is None:
            agg.draw()
            figure.set_layout_engine("none")
        now = _decorations(figure)
        if kept["decorations"] != now:  # new: drawn whole, and put together from the next frame on, should it stay
            kept.update(decorations=now, pixels=None, whole=False)
            pixels = whole()
        elif kept["whole"]:
            pixels = whole()
        else:
            pixels = assembled()
            if not kept["tried"]:
                drawn = whole()
                kept.update(tried=True, whole=not np.array_equal(pixels, drawn))
                pixels = drawn
        return pixels[..., :3]

    return render


def _decorations(figure: Figure) -> list[Any]:
    """What the kept part of a picture depends on."""
    found: list[Any] = [figure.get_size_inches().tolist(), figure.dpi, figure.get_facecolor()]
    for ax in figure.axes:
        found += [ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale(), ax.get_yscale(), ax.get_xlim(), ax.get_ylim()]
        found += [ax.get_xticks().tolist(), ax.get_yticks().tolist(), ax.axison, ax.get_visible(), ax.get_facecolor()]
    return found


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
    with replacing(path) as new:
        first.save(new, save_all=True, append_images=others, optimize=True, **options)
