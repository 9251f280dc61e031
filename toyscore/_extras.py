"""Packages that only part of toyscore needs, and the line that installs them."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path


def install_line(extra: str = "") -> str:
    """The pip command that installs toyscore with an extra from where this copy came from: a clone, a wheel, an index."""
    extras = f"[{extra}]" if extra else ""
    clone = Path(__file__).parents[1]
    if (clone / "pyproject.toml").exists():
        return f'pip install -e "{clone}{extras}"'
    origin = json.loads(importlib.metadata.distribution("toyscore").read_text("direct_url.json") or "{}")
    if "url" not in origin:  # installed by its name
        return f'pip install "toyscore{extras}"'
    kind = f"{origin['vcs_info']['vcs']}+" if "vcs_info" in origin else ""
    return f'pip install "toyscore{extras} @ {kind}{origin["url"]}"'


def missing(what: str, package: str, extra: str, verb: str = "needs") -> ImportError:
    """The error of a package that is not installed: ``what`` needs it, ``extra`` brings it."""
    return ImportError(f"{what} {verb} {package}: install it with {install_line(extra)}")
