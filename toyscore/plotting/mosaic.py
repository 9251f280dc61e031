"""Images side by side, pixel for pixel."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin
from torch import Tensor

from toyscore import operators as ops
from toyscore._writing import replacing

_LEAST = 560  # pixels across; smaller mosaics are enlarged by a whole factor


def mosaic(x: Tensor, *, n_columns: int | None = None) -> np.ndarray[Any, Any]:
    """Images [N, C, H, W] of values in [0, 1] as one picture, [H', W', 3] bytes, row by row, a margin between them.

    Values outside [0, 1] are shown as the nearest end. Pixels are enlarged by a whole factor, never blurred.

    Args:
        x: one or three channels.
        n_columns: images in a row; default as many as make it square.

    Raises:
        TypeError, ValueError: x is not [N, 1 or 3, H, W]; fewer than one column.
    """
    ops.check_batch(x)
    ops.check_finite(x)
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"x has shape {list(x.shape)}: a mosaic shows [N, 1 or 3, H, W]; reshape it or choose channels"
        )
    columns = math.ceil(math.sqrt(len(x))) if n_columns is None else n_columns
    ops.check_count(columns, "n_columns")
    rows = math.ceil(len(x) / columns)
    height, width = x.shape[2] + 1, x.shape[3] + 1
    sheet = np.full((rows * height + 1, columns * width + 1, 3), 255, np.uint8)
    shown = (x.detach().float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    for i, image in enumerate(shown):
        top, left = i // columns * height + 1, i % columns * width + 1
        sheet[top : top + x.shape[2], left : left + x.shape[3]] = image.transpose(1, 2, 0)
    factor = max(1, -(-_LEAST // sheet.shape[1]))
    return sheet.repeat(factor, 0).repeat(factor, 1)


def save_mosaic(picture: np.ndarray[Any, Any], path: str | Path, description: str) -> None:
    """Write a picture as a PNG whose bytes depend on it alone, with alternative text inside.

    Raises:
        ValueError: another ending.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"path ends in {path.suffix!r}: it must be .png; rename {path.name}")
    text = PngImagePlugin.PngInfo()
    text.add_text("Description", description)
    with replacing(path) as new:
        Image.fromarray(picture).save(new, pnginfo=text, optimize=True)
