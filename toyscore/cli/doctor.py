"""``toyscore doctor``: what is here, what is missing, and the command that adds it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from toyscore._extras import install_line

_EXTRAS = {
    "cli": "the other commands",
    "metrics": "Wasserstein and Fréchet distances",
    "images": "MNIST, CIFAR-10",
    "train": "checkpoints, several processes",
    "diffusers": "networks of diffusers",
    "notebooks": "JupyterLab, sliders, the classroom",
}


def doctor() -> tuple[str, int]:
    """A line for everything, with its remedy where it is missing; and the exit code, 10 where something necessary is missing."""
    lines, broken = [], False
    for kind, what, remedy in _findings():
        lines.append(f"{kind:10}{what}" + (f"\n          -> {remedy}" if remedy else ""))
        broken = broken or kind == "MISSING"
    return "\n".join(lines), 10 if broken else 0


def _findings() -> Iterator[tuple[str, str, str]]:
    """(ok, MISSING or optional; what; the remedy)."""
    from toyscore import __version__

    good = sys.version_info >= (3, 11)
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    yield (
        "ok" if good else "MISSING",
        f"Python {platform.python_version()} on {system}",
        "" if good else "make an environment with Python 3.11 or newer",
    )
    wrong = _missing("")
    yield (
        "MISSING" if wrong else "ok",
        f"toyscore {__version__} and what it needs{_listed(wrong)}",
        install_line() if wrong else "",
    )
    for extra, use in _EXTRAS.items():
        wrong = _missing(extra)
        yield (
            "optional" if wrong else "ok",
            f"{use}{_listed(wrong)}",
            install_line(extra) if wrong else "",
        )
    yield from _arithmetic()
    yield from _pictures()
    for tool, use in {"c++": "torch.compile on a processor", "chromium": "the tests in a browser"}.items():
        found = shutil.which(tool) or shutil.which({"c++": "g++"}.get(tool, tool))
        remedy = f"apt-get install {'g++' if tool == 'c++' else 'chromium chromium-driver'}, or its like"
        yield "ok" if found else "optional", f"{use}: {found or tool + ' is missing'}", "" if found else remedy
    yield _folder()


def _missing(extra: str) -> list[str]:
    """What toyscore, or one of its extras, requires and is not there in the range."""
    from packaging.requirements import Requirement

    wrong = []
    for requirement in map(Requirement, importlib.metadata.requires("toyscore") or []):
        marker = requirement.marker
        if bool(extra) != (marker is not None) or (marker is not None and not marker.evaluate({"extra": extra})):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    return wrong


def _listed(wrong: list[str]) -> str:
    return f": {', '.join(wrong)}" if wrong else ""


def _arithmetic() -> Iterator[tuple[str, str, str]]:
    import torch

    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind = f"{there.type}, {torch.cuda.get_device_name()}" if there and there.type == "cuda" else there
    yield (
        "ok" if there else "optional",
        f"torch {torch.__version__} with an accelerator: {kind or 'none found'}",
        "" if there else "toys and digits need none; for larger images see pytorch.org for a build that fits yours",
    )
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    yield (
        "ok",
        f"{threads} threads of {cores}; toys are fastest on one (torch.set_num_threads(1)), images on as many as are idle",
        "",
    )
    from toyscore import pretrained
    from toyscore.distributions import GaussianMixture

    score = GaussianMixture([[1.0, 2.0]], 4.0).score(torch.tensor([[3.0, 2.0]])).tolist()
    good = score == [[-0.5, 0.0]]
    yield (
        "ok" if good else "MISSING",
        f"the score of a Gaussian, by toyscore and by hand: {score}",
        "" if good else "it must be [[-0.5, 0.0]]: reinstall torch",
    )
    if find_spec("safetensors") is None:  # of an extra, which was listed
        return
    network = pretrained.digits().network
    begun = time.perf_counter()
    network(torch.full((64, 1, 8, 8), 0.5), 0.5)
    yield "ok", f"the digits network loads; 64 scores take {time.perf_counter() - begun:.3f} s here", ""


def _pictures() -> Iterator[tuple[str, str, str]]:
    import matplotlib as mpl
    from matplotlib import font_manager

    family = mpl.rcParams["font.sans-serif"][0]
    path = font_manager.findfont(family, fallback_to_default=True)
    good = family.replace(" ", "").lower() in re.sub(r"[^a-z]", "", Path(path).stem.lower())
    yield (
        "ok" if good else "optional",
        f"fonts: {family} at {path}" if good else f"fonts: {family} is missing, pictures use {Path(path).stem}",
        "" if good else "reinstall matplotlib, which brings it",
    )


def _folder() -> tuple[str, str, str]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    try:
        with tempfile.TemporaryFile(dir=Path.cwd()):
            return "ok", f"this folder can be written to, {free:,.0f} GB free", ""
    except OSError as error:
        return "MISSING", f"this folder cannot be written to ({error.strerror})", "go to a folder of your own"
