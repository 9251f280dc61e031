"""A folder of pictures as a set."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toyscore import operators as ops
from toyscore.data.files import stored
from toyscore.data.sets import Images

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF")  # Pillow's others include one that is run: PostScript


def image_folder(
    path: str | Path,
    size: int,
    *,
    crop: int | None = None,
    flip: bool = True,
    cache: str | Path | None = None,
    dequantise: bool = True,
) -> Images:
    """Every picture under a folder, RGB, its middle square cropped and resized to 3 x ``size`` x ``size``. CelebA: crop=140, size=32.

    Args:
        path: of the folder, searched with what is below it, in order of names.
        size: side of the result.
        crop: side of the middle square that is kept; default the shorter side of each picture.
        cache: folder for the decoded array, which is made anew when a file is added, removed or changed; default the user's cache.

    Raises:
        FileNotFoundError: no such folder. ValueError: no picture in it; one that is no file, cannot be read, has more than 8 bits per
            pixel or is smaller than the crop.
    """
    ops.check_count(size, "size")
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder: pass the folder that holds the pictures")
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES and not p.name.startswith("."))
    if not files:
        raise ValueError(f"{path} holds no picture ({', '.join(sorted(_SUFFIXES))}): pass the folder that does")
    print_of = hashlib.sha256(repr((size, crop)).encode())
    for file in files:
        seen = file.stat()
        if not stat.S_ISREG(seen.st_mode):  # a pipe would be waited for
            raise ValueError(f"{file} is no file: remove it from the pictures, or rename it")
        print_of.update(os.fsencode(f"{file.relative_to(path)},{seen.st_size},{seen.st_mtime_ns}\n"))

    def decode() -> dict[str, NDArray[Any]]:
        values = np.empty((len(files), 3, size, size), np.uint8)
        for value, file in zip(values, files, strict=True):
            value[:] = _picture(file, size, crop)
        return {"values": values}

    found = stored(f"folder-{print_of.hexdigest()[:24]}", decode, cache)
    return Images(found["values"], flip=flip, dequantise=dequantise)


def _picture(file: Path, size: int, crop: int | None) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(file, formats=_FORMATS) as opened:
            mode, picture = opened.mode, opened.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # each format has errors of its own, some without a word
        words = str(error) or type(error).__name__
        raise ValueError(f"{file} cannot be read as a picture: {words}; remove or repair it") from error
    if mode == "F" or mode.startswith("I"):  # which Pillow would cut off at 255
        raise ValueError(
            f"{file} has {'numbers that are not whole' if mode == 'F' else 'more than 8 bits per pixel'} (mode {mode}): pictures of 8 "
            "bits are read; choose which grey is black and which white, and save it so"
        )
    side = crop or min(picture.size)
    if side > min(picture.size):
        raise ValueError(
            f"{file} is {picture.width}x{picture.height}: a crop of {side} does not fit; lower crop or remove it"
        )
    left, top = (round((length - side) / 2) for length in picture.size)
    square = picture.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(square).transpose(2, 0, 1)
