r"""The state of a training run on disk, as a folder that is there whole or not at all.

::

    step-00001000/tensors.safetensors   weights, their average, Adam's moments
                  checkpoint.json       step, recipe, configuration, levels, seed, versions, revision
                  SHA256SUMS            of the two, as ``sha256sum --check`` reads it

A checkpoint is written to a hidden folder beside its place, flushed to the disk, and renamed; the one before is kept, and
older ones go only after that. A process killed at any moment therefore leaves the newest or the one before. (A step that is
there already is saved again only if its bytes differ, and then it is moved aside for the time of two renames, where it is
still found.) Loading first compares the sums over every byte: a flipped bit would otherwise change a weight unnoticed.
Nothing in the files is ever run.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import stat
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toyscore._extras import missing

FORMAT = 1
_TENSORS, _ABOUT, _SUMS = "tensors.safetensors", "checkpoint.json", "SHA256SUMS"
_NAME = "step-{:08d}"
_ASIDE = ".old.tmp"
_KEEP = 2


class CheckpointError(ValueError):
    """A checkpoint that is damaged, incomplete or of another kind; names the file, the cause and the way out."""


@dataclass(frozen=True)
class Checkpoint:
    """What was loaded: ``.state`` for ``fit(..., state=)``, ``.about`` as saved, ``.path`` of the folder."""

    state: dict[str, Any]
    about: dict[str, Any]
    path: Path


def save_checkpoint(folder: str | Path, state: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> Path:
    """Put a state under ``folder``, as a folder named by its step, and keep only the one before it.

    Args:
        folder: of the checkpoints; made if missing.
        state: from ``Step.state()``; tensors are stored in their dtype.
        about: further facts that JSON can hold (configuration, levels).

    Returns:
        The checkpoint's own folder.

    Raises:
        OSError: the disk is full or refuses; what was there before still is.
        TypeError: ``about`` holds what JSON cannot.
    """
    safetensors = _safetensors()
    folder = Path(folder)
    tensors = {f"model.{name}": value for name, value in state["model"].items()}
    for i, moments in enumerate(state["optimizer"]):
        tensors |= {f"optimizer.{i}.{name}": value for name, value in moments.items()}
    facts = {
        "format": FORMAT,
        "step": state["step"],
        "recipe": state["recipe"],
        "versions": _versions(),
        "git": _revision(),
    }
    if without := [i for i, moments in enumerate(state["optimizer"]) if not moments]:  # no gradient came to them yet
        facts["without_moments"] = without
    files = {
        _TENSORS: safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}),
        _ABOUT: json.dumps(facts | {"about": dict(about or {})}, indent=1, sort_keys=True).encode(),
    }
    files[_SUMS] = _sums(files)
    folder.mkdir(parents=True, exist_ok=True)
    _tidy(folder)
    place = folder / _NAME.format(state["step"])
    new, old = folder / f".{place.name}.tmp", folder / f".{place.name}{_ASIDE}"
    try:
        new.mkdir()
        for name, content in files.items():
            _write(new / name, content)
        _flush(new)
        if place.exists() and _holds(place, files):  # the same step, saved before
            shutil.rmtree(new)
        elif place.exists():
            place.rename(old)
            new.rename(place)
            shutil.rmtree(old)
        else:
            new.rename(place)
        _flush(folder)
    except BaseException:  # Ctrl-C, too; that something is left is not what must be told
        with suppress(OSError):
            if old.exists() and not place.exists():
                old.rename(place)
            for left in (new, old):
                shutil.rmtree(left, ignore_errors=True)
        raise
    for older in [p for step, p in list_checkpoints(folder) if step < state["step"]][: 1 - _KEEP]:
        shutil.rmtree(
            older, ignore_errors=True
        )  # on a network file system a reader may hold it; the next save tries again
    return place


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint back, after comparing every byte with its sums.

    Args:
        path: the checkpoint's own folder; or a folder of checkpoints or of a run, for the latest.

    Raises:
        CheckpointError: missing, incomplete, damaged, or of another format; names the file, the cause, and the newest other
            checkpoint that is whole.
    """
    safetensors = _safetensors()
    path = Path(path)
    if (path / "checkpoints").is_dir():
        path = path / "checkpoints"
    if not (path / _SUMS).exists() and list_checkpoints(path):
        path = latest_checkpoint(path)
    if not (path.name.startswith("step-") or any((path / name).exists() for name in (_TENSORS, _ABOUT, _SUMS))):
        raise CheckpointError(
            f"{path} holds no checkpoint: pass a run folder, its checkpoints, or a step-... among them"
        )
    files = _verified(path)
    try:
        facts = json.loads(files[_ABOUT])
        version = facts["format"]
        if version == FORMAT:
            state = _state(facts, safetensors.torch.load(files[_TENSORS]))
            about = facts["about"] | {name: facts[name] for name in ("versions", "git")}
    except (KeyError, TypeError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path} is as it was written, but it is no checkpoint ({type(error).__name__}: {error}); save it anew"
        ) from error
    if version != FORMAT:
        raise CheckpointError(
            f"{path / _ABOUT} has format {version!r}: this version reads {FORMAT}; load it with the version of toyscore that wrote it"
        )
    return Checkpoint(state, about, path)


def _safetensors() -> Any:
    """The package, which only files of weights need."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise missing("a checkpoint", "safetensors", "train") from error
    return safetensors


def _state(facts: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    if type(facts["step"]) is not int or not isinstance(facts["recipe"], dict):
        raise TypeError("its step must be a whole number, and its recipe a group of keys")
    state: dict[str, Any] = {"step": facts["step"], "recipe": facts["recipe"], "model": {}, "optimizer": []}
    moments: dict[int, dict[str, Tensor]] = {int(i): {} for i in facts.get("without_moments", [])}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "model":
            state["model"][rest] = value
        else:
            index, _, rest = rest.partition(".")
            moments.setdefault(int(index), {})[rest] = value
    state["optimizer"] = [moments[i] for i in sorted(moments)]
    return state


def latest_checkpoint(folder: str | Path) -> Path:
    """The newest checkpoint in a folder; whether it is whole is seen when it is loaded.

    Raises:
        CheckpointError: there is none.
    """
    found = list_checkpoints(Path(folder))
    if not found:
        raise CheckpointError(f"{folder} holds no checkpoint: nothing to go on from; start without resuming")
    return found[-1][1]


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The steps of the checkpoints in a folder, oldest first, and where each is; whether they are whole is seen when they are loaded."""
    found = {int(p.name[5:]): p for p in folder.glob("step-" + "[0-9]" * 8 + "*") if p.name[5:].isdigit()}
    aside = (p for p in folder.glob(".step-*" + _ASIDE) if p.name[6 : -len(_ASIDE)].isdigit())
    return sorted(({int(p.name[6 : -len(_ASIDE)]): p for p in aside} | found).items())


def _tidy(folder: Path) -> None:
    """Take back what a save that was cut short has begun."""
    for left in folder.glob(".*.tmp"):
        place = folder / left.name[1:].removesuffix(_ASIDE)
        if left.name.endswith(_ASIDE) and not place.exists():
            left.rename(place)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _sums(files: Mapping[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in (_TENSORS, _ABOUT)).encode()


def _verified(path: Path) -> dict[str, bytes]:
    """The bytes of the files, if they are those that were written."""
    try:
        return _read(path)
    except CheckpointError as error:
        whole = [other for _, other in list_checkpoints(path.parent) if other != path and _is_whole(other)]
        way_out = (
            f"the newest whole one is {whole[-1]}: resume from that" if whole else "no other one is whole: start anew"
        )
        raise CheckpointError(f"{error}; {way_out}") from error


def _is_whole(path: Path) -> bool:
    try:
        _read(path)
    except CheckpointError:
        return False
    return True


def _read(path: Path) -> dict[str, bytes]:
    files = {}
    for name in (_TENSORS, _ABOUT, _SUMS):
        try:
            if not stat.S_ISREG((path / name).stat().st_mode):  # a pipe would be waited for, a device read without end
                raise OSError(errno.EINVAL, "it is no file")
            files[name] = (path / name).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path / name} cannot be read: {error.strerror}") from error
    expected = _sums(files)
    if files[_SUMS] == expected:
        return files
    lines = files[_SUMS].splitlines()
    wrong = [name for name, line in zip((_TENSORS, _ABOUT), expected.splitlines(), strict=True) if line not in lines]
    if len(wrong) != 1:  # both at once are not as likely
        raise CheckpointError(
            f"{path / _SUMS} is damaged: its {len(files[_SUMS])} bytes are not the sums of the files beside it"
        )
    raise CheckpointError(
        f"{path / wrong[0]} is damaged: its {len(files[wrong[0]])} bytes do not agree with {path / _SUMS}, unless that is what was changed"
    )


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    try:
        return all((folder / name).read_bytes() == content for name, content in files.items())
    except OSError:
        return False


def _flush(folder: Path) -> None:
    """Make names in a folder as lasting as the files; some systems have no such call."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _versions() -> dict[str, str]:
    from toyscore import __version__

    return {"toyscore": __version__, "torch": torch.__version__, "python": platform.python_version()}


@cache
def _revision() -> str | None:
    """The git revision of the code, where it runs from a checkout."""
    package = Path(__file__).resolve().parent
    if not (package.parents[1] / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=package, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
