"""A run's folder: its configuration, its log, its samples and its checkpoints, for one process at a time.

::

    runs/digits/config.yaml     the configuration as it was run
                log.jsonl       a line per logged step: step, loss, lr, grad_norm, seconds, examples per second
                samples/        pictures
                checkpoints/    see toyscore.train.checkpoints
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toyscore._writing import replacing
from toyscore.cli.errors import FolderError
from toyscore.config import Config
from toyscore.train import list_checkpoints


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a folder, which is made if missing, and goes again if nothing came into it.

    Raises:
        FolderError: another process holds it.
    """
    from filelock import FileLock, Timeout

    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FolderError(f"{path} is in use by another run: wait for it, or pass another folder") from error
    if not (path / ".lock").exists():  # what is held is a file that its last holder took away: it holds off nobody
        lock.release()
        raise FolderError(f"{path} was in use by another run until now: try again")
    try:
        yield
    finally:
        try:
            with contextlib.suppress(OSError):  # something came beside it after all, or the folder has gone
                if made and [p.name for p in path.iterdir()] == [".lock"]:
                    (path / ".lock").unlink()
                    for folder in made:
                        folder.rmdir()
        finally:
            lock.release()


class RunFolder:
    """Where a run keeps its things."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config, self.log = self.path / "config.yaml", self.path / "log.jsonl"
        self.samples, self.checkpoints = self.path / "samples", self.path / "checkpoints"

    def check_free(self) -> None:
        """Refuse a folder that holds a run.

        Raises:
            FolderError: it does.
        """
        if list_checkpoints(self.checkpoints):  # a run that ended before its first one left nothing to lose
            raise FolderError(
                f"{self.path} holds a run already: pass --resume latest to go on with it, or another --folder"
            )

    def check_not_beyond(self, step: int) -> None:
        """Refuse to go on from a step before one that the folder holds, which would stay and be taken for the latest.

        Raises:
            FolderError: it holds a later checkpoint.
        """
        later = [path for at, path in list_checkpoints(self.checkpoints) if at > step]
        if later:
            raise FolderError(
                f"{later[-1]} is beyond step {step}: remove what is later to go on from there, or pass another --folder"
            )

    def begin(self, config: Config, done: int) -> None:
        """Write the configuration, and drop what the log holds beyond the step that the run goes on from."""
        import yaml

        self.samples.mkdir(exist_ok=True)
        with replacing(self.config) as new:
            new.write_text(yaml.safe_dump(config.asdict(), sort_keys=False))
        kept = [line for line in self.lines() if line["step"] <= done]
        with replacing(self.log) as new:
            new.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def lines(self) -> list[dict[str, Any]]:
        """The log; a last line that a kill cut short is left out."""
        found = []
        for line in self.log.read_text().splitlines() if self.log.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    def write(self, line: dict[str, Any]) -> None:
        """Append a line to the log."""
        with open(self.log, "a") as file:
            file.write(json.dumps(line) + "\n")
