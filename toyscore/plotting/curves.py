"""Curves of a positive quantity, repeated over seeds: what they agree on, and how far apart they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from torch import Tensor

from toyscore import operators as ops
from toyscore.plotting.style import look, to_numpy


@torch.no_grad()
def curves(ax: Axes, x: Tensor, values: Mapping[str, Tensor]) -> dict[str, tuple[Line2D, PolyCollection]]:
    """Each role's geometric mean over seeds as a line with its dash and marker, in a band from the least to the largest seed.

    The vertical axis is logarithmic; lines are labelled with the names of their roles, for a legend.

    Args:
        ax: where to draw.
        x: [T], what was spent, e.g. steps.
        values: a key of ``ROLES`` -> [n_seeds, T], positive, e.g. Fisher divergences.

    Returns:
        The line and the band of each role.

    Raises:
        ValueError: x is not [T], a role's values are not [n_seeds, T], or not finite and positive.
    """
    _check_axis(x, "x")
    artists: dict[str, tuple[Line2D, PolyCollection]] = {}
    told = []
    for role, y in values.items():
        if y.ndim != 2 or not len(y) or y.shape[1] != len(x):
            raise ValueError(
                f"the values of {role} have shape {list(y.shape)}: they must be [n_seeds, {len(x)}]; stack one row per seed"
            )
        if not bool((torch.isfinite(y) & (y > 0)).all()):
            raise ValueError(
                f"the values of {role} go from {float(y.min()):g} to {float(y.max()):g}: a logarithmic axis needs them "
                "finite and positive; leave the others out"
            )
        kind, mean, low, high = look(role), y.log().mean(0).exp(), y.min(0).values, y.max(0).values
        across, centre = to_numpy(x), to_numpy(mean)
        band = ax.fill_between(across, to_numpy(low), to_numpy(high), color=kind.colour, alpha=0.18, linewidth=0)
        form: dict[str, Any] = {"color": kind.colour, "linestyle": kind.line, "linewidth": 1.8}
        (line,) = ax.plot(across, centre, marker=kind.marker, markersize=7, label=kind.name, **form)
        artists[role] = line, band
        told.append(
            f"{kind.name} from {centre[0]:.3g} to {centre[-1]:.3g} ({float(low[-1]):.3g} to {float(high[-1]):.3g})"
        )
    ax.set_yscale("log")
    seeds = " and ".join(sorted({f"{len(y)}" for y in values.values()}))
    ax.set_gid(
        f"Geometric means over {seeds} seeds (and their range), from {float(x[0]):,g} to {float(x[-1]):,g}: {'; '.join(told)}.",
    )
    return artists


@torch.no_grad()
def history(
    ax: Axes, steps: Tensor, values: Tensor, *, role: str = "learned", smooth: int = 25
) -> tuple[Line2D, Line2D]:
    """What was logged while a network learned: each value as a dot, and the running median, on a logarithmic axis.

    Args:
        ax: where to draw.
        steps, values: [T]; values that are not finite and positive are left out, and counted in the description.
        role: a key of ``ROLES``, for the colour.
        smooth: values that a median spans, fewer at the ends.

    Returns:
        The dots and the line.

    Raises:
        ValueError: steps and values are not [T] both; smooth not a whole number of at least one.
    """
    ops.check_count(smooth, "smooth")
    for given, name in ((steps, "steps"), (values, "values")):
        if not isinstance(given, Tensor):
            raise TypeError(f"{name} is {type(given).__name__}: it must be a tensor [T]; convert it with torch.tensor")
    if steps.ndim != 1 or steps.shape != values.shape or not len(steps):
        raise ValueError(
            f"steps has shape {list(steps.shape)}, values {list(values.shape)}: they must be [T] both; flatten them"
        )
    _check_axis(steps, "steps")
    shown = torch.isfinite(values) & (values > 0)
    x, y, kind = steps[shown], values[shown].cpu().double(), look(role)
    half = (smooth - 1) // 2
    windows = (
        y[max(0, i - half) : i - half + smooth] for i in range(len(y))
    )  # not .median(), the lower of two in the middle
    median = torch.stack([window.quantile(0.5) for window in windows]) if len(y) else y
    (dots,) = ax.plot(to_numpy(x), to_numpy(y), ".", color=kind.colour, alpha=0.25, markersize=4)
    (line,) = ax.plot(to_numpy(x), to_numpy(median), color=kind.colour, linewidth=2.0)
    ax.set_yscale("log")
    left_out = f"; {int((~shown).sum())} are not finite and positive" if not shown.all() else ""
    ends = f", its running median from {float(median[0]):.3g} to {float(median[-1]):.3g}" if len(y) else ""
    ax.set_gid(f"{len(steps):,} values from step {int(steps[0]):,} to {int(steps[-1]):,}{ends}{left_out}.")
    return dots, line


def _check_axis(x: Tensor, name: str) -> None:
    """Refuse what cannot be the horizontal axis of a curve."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is {type(x).__name__}: it must be a tensor [T]; convert it with torch.tensor")
    if x.ndim != 1 or not len(x):
        raise ValueError(
            f"{name} has shape {list(x.shape)}: it must be [T], one number per point of a curve; flatten it"
        )
    ops.check_finite(x[:, None], name)
