"""Files that are there whole or not at all."""

from __future__ import annotations

import io
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A hidden name beside ``path`` to write to, which takes its place, and its mode, when the block ends.

    Stopped or failing, it leaves what was there; killed, a hidden file besides. Nothing is flushed to the disk: of a file that was
    written just before the power fails, the system decides what is left.

    Raises:
        OSError: of the block or of the renaming; names ``path``.
    """
    path = Path(os.path.realpath(path))  # what a link points to is written, and the link stays
    new = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield new
        with suppress(OSError):  # there was none, or the file system has no modes
            shutil.copymode(path, new)
        new.replace(path)
    except OSError as error:
        if error.filename == str(new):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        new.unlink(missing_ok=True)


def save_array(path: str | Path, array: NDArray[Any]) -> None:
    """An array as ``.npy``, whole or not at all; by way of memory, for NumPy does not notice a disk that is full for the last few bytes.

    Raises:
        OSError: as ``replacing``.
    """
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    with replacing(path) as new:
        new.write_bytes(buffer.getbuffer())
