"""Pictures of densities, vector fields, samples and chains in the plane, and of what training gains.

Every function draws on the Axes it is given and returns the artists it made, so that a figure can be composed; none of
them owns a figure. Given those artists back as ``update``, those in the plane change them in place, which is what a slider and
an animation do. Three things are the same in all of them:

- *One colour, marker and dash per role* (``ROLES``: truth, learned, plain, annealed, each process, each objective, ...), from the
  colour-blind-safe palette of Okabe and Ito; what is drawn together differs in grey too; density maps are perceptually uniform.
- *Comparable panels*: the same square box, equal aspect, and, for fields, arrows in data units of one ``scale``, or arrows of one
  length over colours of one pair of ``limits``.
- *Alternative text*: each function writes what it drew, with numbers, on its artist or Axes (as its gid, which SVG readers can
  reach); ``alt_text`` collects it for a figure, and ``save`` and ``save_gif`` store it in the file.

Points come as tensors ``[B, 2]`` on any device. Scores and log densities are called as ``f(x, sigma)`` on a grid in
float32 on the CPU, or like the tensor ``like``.
"""

from toyscore.plotting.curves import curves, history
from toyscore.plotting.frames import animate, canvas, renderer, save_gif
from toyscore.plotting.mosaic import mosaic, save_mosaic
from toyscore.plotting.plane import (
    FieldComparison,
    arrow_scale,
    chains,
    density,
    field_comparison,
    frame,
    grid,
    mass_level,
    samples,
    score_map,
    vector_field,
)
from toyscore.plotting.style import DENSITY_MAP, ERROR_MAP, NORM_MAP, ROLES, STYLE, Role, alt_text, save

__all__ = [
    "DENSITY_MAP",
    "ERROR_MAP",
    "NORM_MAP",
    "ROLES",
    "STYLE",
    "FieldComparison",
    "Role",
    "alt_text",
    "animate",
    "arrow_scale",
    "canvas",
    "chains",
    "curves",
    "density",
    "field_comparison",
    "frame",
    "grid",
    "history",
    "mass_level",
    "mosaic",
    "renderer",
    "samples",
    "save",
    "save_gif",
    "save_mosaic",
    "score_map",
    "vector_field",
]
