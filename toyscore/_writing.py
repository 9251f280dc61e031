"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A hidden name beside ``path`` to write to, which takes its place when the block ends; cut short, it leaves what was there.

    Raises:
        OSError: of the block or of the renaming; names ``path``.
    """
    path = Path(os.path.realpath(path))  # what a link points to is written, and the link stays
    new = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield new
        new.replace(path)
    except OSError as error:
        if error.filename == str(new):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        new.unlink(missing_ok=True)
