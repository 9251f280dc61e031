"""Files of data sets: fetched once and verified, decoded once and mapped into memory."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toyscore._extras import missing
from toyscore._writing import replacing, save_array


class DownloadError(OSError):
    """A data set could not be fetched, or what came is not it; names the address and what to do by hand."""


def cache_folder(folder: str | Path | None = None) -> Path:
    """The folder, or the user's cache: where pooch has it, which only downloads need."""
    if folder is not None:
        return Path(folder)
    if sys.platform == "win32":
        return Path(
            os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local", "toyscore", "toyscore", "Cache"
        )
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "toyscore"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "toyscore")


def fetched(url: str, sha256: str, folder: str | Path | None) -> Path:
    """The file of an address, from the folder or fetched into it, if it is the right one."""
    try:
        import pooch
        import requests
    except ImportError as error:
        raise missing(url, "pooch", "images", "is fetched with") from error

    place = cache_folder(folder)
    try:
        return Path(pooch.retrieve(url, f"sha256:{sha256}", fname=url.rsplit("/", 1)[1], path=place, progressbar=False))
    except requests.RequestException as error:
        raise DownloadError(
            f"{url} cannot be fetched ({type(error).__name__}): check the network, or put the file into {place} by hand"
        ) from error
    except ValueError as error:
        raise DownloadError(
            f"{url} gave another file than expected: its SHA-256 is not {sha256}; fetch it elsewhere, into {place}"
        ) from error


def idx_array(file: Path) -> NDArray[np.uint8]:
    """An array in the IDX format: two zeros, a type, the number of axes, their lengths, the numbers."""
    content = gzip.decompress(file.read_bytes())
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, 4).astype(int)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def stored(
    name: str, decode: Callable[[], dict[str, NDArray[Any]]], folder: str | Path | None
) -> dict[str, NDArray[Any]]:
    """Arrays decoded once, kept as ``.npy`` files, and mapped into memory."""
    place = cache_folder(folder) / "arrays"
    place.mkdir(parents=True, exist_ok=True)
    index = place / f"{name}.txt"  # written last: where it stands, the arrays are whole
    if not index.exists():
        arrays = decode()
        for key, array in arrays.items():
            save_array(place / f"{name}-{key}.npy", array)
        with replacing(index) as new:
            new.write_text(" ".join(arrays))
    keys = index.read_text().split()
    return {key: np.load(place / f"{name}-{key}.npy", mmap_mode="r", allow_pickle=False) for key in keys}
