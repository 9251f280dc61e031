"""How things look everywhere: roles, typography, descriptions, and files whose bytes are reproducible."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from toyscore._writing import replacing

DENSITY_MAP = "cividis"
ERROR_MAP = "magma_r"
NORM_MAP = "YlOrBr"  # pale enough for arrows at both ends
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
    """How something is drawn, everywhere: ``line`` is its dash, which tells lines without markers apart in grey."""

    colour: str
    marker: str
    name: str
    line: str = "-"


ROLES = {
    "truth": Role("#0072B2", "o", "exact"),
    "learned": Role("#D55E00", "s", "learned", "-."),
    "plain": Role("#CC79A7", "^", "plain Langevin", ":"),
    "annealed": Role("#009E73", "D", "annealed Langevin", "--"),
    # the processes: greys and dashes of their own among themselves
    "ve": Role("#0072B2", ">", "VE"),
    "vp": Role("#E69F00", "<", "VP", "--"),
    "subvp": Role("#000000", "d", "sub-VP", ":"),
    # the objectives, which are drawn with markers: colours of their own among themselves, markers of their own among all
    "explicit": Role("#000000", "*", "explicit"),
    "implicit": Role("#0072B2", "v", "implicit"),
    "sliced": Role("#E69F00", "p", "sliced"),
    "finite_difference": Role("#CC79A7", "X", "finite difference"),
    "denoising": Role("#009E73", "P", "denoising"),
    "yours": Role("#D55E00", "h", "yours"),
}


def look(role: str) -> Role:
    """How a role is drawn.

    Raises:
        ValueError: no such role.
    """
    if role not in ROLES:
        near = get_close_matches(str(role), ROLES, 1)
        meant = f"; did you mean {near[0]!r}?" if near else "; pass one of them"
        raise ValueError(f"role = {role!r}: the roles are {', '.join(ROLES)}{meant}")
    return ROLES[role]


def alt_text(figure: Figure) -> str:
    """What the figure shows, in words and numbers: the titles and descriptions of its panels and their insets, in order."""
    parts = []
    for ax in (part for panel in figure.axes for part in (panel, *panel.child_axes) if isinstance(part, Axes)):
        title = re.sub(r"(?<![:;,.])\n", ", ", ax.get_title()).replace("\n", " ").replace("$", "")
        parts += [f"{title}."] if title else []
        own = [artist for artist in ax.get_children() if artist not in ax.child_axes]
        parts += [gid for artist in (ax, *own) if (gid := artist.get_gid())]
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
    with mpl.rc_context({"svg.hashsalt": STYLE["svg.hashsalt"]}), replacing(path) as new:
        figure.savefig(new, metadata=metadata[path.suffix])


def to_numpy(x: Tensor) -> Any:
    """A tensor as Matplotlib wants it."""
    return x.detach().cpu().numpy()
