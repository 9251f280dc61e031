"""The notebooks as copies to write in: ``toyscore course DIR``. What a reader has written is never overwritten."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from toyscore._shipped import shipped
from toyscore._writing import replacing

PATTERNS = ("README.md", "[0-9][0-9]_*.ipynb", "checks/*.py")
RECORD = (
    ".given.json"  # in the folder of copies: file -> digests of the originals that were copied there, the newest last
)


def copy(folder: str | Path) -> list[Path]:
    """Copy the notebooks, and the checks that they call, into ``folder``; call it again for those that are new.

    A copy that is as it was given is replaced by a newer original. Beside one that the reader has changed, run or not, the newer
    original is written as ``NN_name (new).ipynb``. A copy that was deleted comes back.

    Returns:
        The files that were written; empty where every copy is up to date.

    Raises:
        FileNotFoundError: neither a clone nor the installed package has them.
        OSError: where ``folder`` cannot be written to; copies that are there stay whole.
    """
    source, folder = shipped("notebooks", "_course", "checks"), Path(folder)
    (folder / "checks").mkdir(parents=True, exist_ok=True)
    record = folder / RECORD
    given: dict[str, list[str]] = json.loads(record.read_text("utf-8")) if record.exists() else {}
    written = []
    for original in sorted(path for pattern in PATTERNS for path in source.glob(pattern)):
        name, content = original.relative_to(source).as_posix(), original.read_bytes()
        digest, before = hashlib.sha256(content).hexdigest(), given.get(name, [])
        if before[-1:] == [digest] and (folder / name).exists():
            continue
        given[name] = [*(old for old in before if old != digest), digest]
        target = next(path for path in names(folder / name) if not path.exists() or _digest(path) in given[name])
        if not target.exists() or _digest(target) != digest:
            with replacing(target) as new:
                new.write_bytes(content)
            written.append(target)
    with replacing(record) as new:
        new.write_text(json.dumps(given, indent=1), "utf-8")
    return written


def names(path: Path) -> Iterator[Path]:
    """The names that a copy may have: its own, then ``(new)``, ``(new 2)``, and so on."""
    yield path
    yield path.with_stem(f"{path.stem} (new)")
    number = 2
    while True:
        yield path.with_stem(f"{path.stem} (new {number})")
        number += 1


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
