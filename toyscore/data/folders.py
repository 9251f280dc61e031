"""A folder of pictures as a set."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toyscore import operators as ops
from toyscore.data.files import stored
from toyscore.data.sets import Images

_RULE = 2  # of what is made of a picture; another number with each change, so that no array of before is taken
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF")  # Pillow's others include one that is run: PostScript


def image_folder(
    path: str | Path,
    size: int,
    *,
    crop: int | None = None,
    flip: bool = False,
    cache: str | Path | None = None,
    dequantise: bool = True,
) -> Images:
    """Every picture under a folder, RGB, its middle square cropped and resized to 3 x ``size`` x ``size``. CelebA: crop=140, size=32.

    Pictures are turned upright, as their EXIF orientation says. Transparent ones are laid on white. Of several frames or pages the first is
    read. A warning counts the pictures of the last two kinds, and the files left out because they end in something else.

    Args:
        path: of the folder, searched with what is below it, in order of names.
        size: side of the result.
        crop: side of the middle square that is kept; default the shorter side of each picture.
        flip: mirror half of what is sampled, left to right: right for faces, wrong for letters and maps.
        cache: folder for the decoded array, which is made anew when a file is added, removed or changed; default the user's cache.

    Raises:
        FileNotFoundError: no such folder. ValueError: no picture in it; one that is no file, cannot be read, is grey or float of more
            than 8 bits per pixel or is smaller than the crop.
    """
    ops.check_count(size, "size")
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder: pass the folder that holds the pictures")
    shown = sorted(p for p in path.rglob("*") if not any(part.startswith(".") for part in p.relative_to(path).parts))
    files = [p for p in shown if p.suffix.lower() in _SUFFIXES]
    others = Counter(p.suffix or p.name for p in shown if p.suffix.lower() not in _SUFFIXES and p.is_file())
    left_out = ", ".join(f"{n:,} {kind}" for kind, n in others.most_common(5)) + ", ..." * (len(others) > 5)
    endings = ", ".join(sorted(_SUFFIXES))
    if not files:
        beside = f", but {left_out}" if others else ""
        raise ValueError(f"{path} holds no picture ({endings}){beside}: pass the folder that does")
    print_of = hashlib.sha256(repr((_RULE, size, crop)).encode())
    for file in files:
        if not file.is_file():  # a pipe would be waited for
            raise ValueError(f"{file} is no file: remove it from the pictures, or rename it")
        seen = file.stat()
        print_of.update(os.fsencode(f"{file.relative_to(path)},{seen.st_size},{seen.st_mtime_ns}\n"))

    def decode() -> dict[str, NDArray[Any]]:
        values = np.empty((len(files), 3, size, size), np.uint8)
        notes = np.empty((len(files), 2), bool)
        for i, file in enumerate(files):
            values[i], notes[i] = _picture(file, size, crop)
        return {"values": values, "notes": notes}

    found = stored(f"folder-{print_of.hexdigest()[:24]}", decode, cache)
    transparent, several = (int(n) for n in found["notes"].sum(0))
    said = {
        f"pictures with transparency, laid on white: {transparent:,}": transparent,
        f"pictures with several frames, of which the first was read: {several:,}": several,
        f"files left out, as they do not end in {endings}: {left_out}": others.total(),
    }
    if any(said.values()):
        counted = "; ".join(words for words, n in said.items() if n)
        warnings.warn(f"{path}: of {len(files):,} pictures and {others.total():,} other files: {counted}", stacklevel=2)
    return Images(found["values"], flip=flip, dequantise=dequantise)


def _picture(file: Path, size: int, crop: int | None) -> tuple[NDArray[np.uint8], tuple[bool, bool]]:
    """The picture [3, size, size]; whether it was transparent, and had several frames."""
    from PIL import Image

    try:
        with Image.open(file, formats=_FORMATS) as opened:
            mode, several = opened.mode, getattr(opened, "n_frames", 1) > 1
            deep = mode == "F" or mode.startswith("I")  # which Pillow would cut off at 255
            opened.load()
            orientation = opened.getexif().get(_ORIENTATION)
            transparent = opened.has_transparency_data
            picture = opened if deep else opened.convert("RGBA" if transparent else "RGB")
    except MemoryError:
        raise
    except Exception as error:  # each format has errors of its own, some without a word
        words = str(error) or type(error).__name__
        raise ValueError(f"{file} cannot be read as a picture: {words}; remove or repair it") from error
    if deep:
        raise ValueError(
            f"{file} has {'numbers that are not whole' if mode == 'F' else 'more than 8 bits per pixel'} (mode {mode}): pictures of 8 "
            "bits are read; choose which grey is black and which white, and save it so"
        )
    if transparent:
        transparent = picture.getchannel("A").getextrema() != (255, 255)
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    if orientation in _TURNED:
        picture = picture.transpose(Image.Transpose[_TURNED[orientation]])
    side = crop or min(picture.size)
    if side > min(picture.size):
        raise ValueError(
            f"{file} is {picture.width}x{picture.height}: a crop of {side} does not fit; lower crop or remove it"
        )
    left, top = (round((length - side) / 2) for length in picture.size)
    square = picture.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(square).transpose(2, 0, 1), (transparent, several)


_ORIENTATION = 0x0112  # of EXIF: what is done to see the picture upright
_TURNED = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
