"""What the notebooks need, each with its remedy where it is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import tempfile
from pathlib import Path

PYTHON = (3, 11)
EXTRA = "notebooks"


def setup() -> None:
    """Print a line for everything the notebooks need, each with its remedy where it is missing."""
    lines = [check() for check in (_python, _packages, _kernel, _widgets, _arithmetic, _folder)]
    for good, what, remedy in lines:
        print(f"{'ok     ' if good else 'MISSING'} {what}" + ("" if good else f"\n        -> {remedy}"))
    wrong = sum(not good for good, *_ in lines)
    print(
        f"\n{'Everything is ready.' if not wrong else f'{wrong} of {len(lines)} to mend, from the top; then restart the kernel.'}"
    )


def _python() -> tuple[bool, str, str]:
    wanted = ".".join(map(str, PYTHON))
    remedy = f"this kernel runs Python {platform.python_version()}: make an environment with {wanted} or newer"
    return sys.version_info >= PYTHON, f"Python {wanted} or newer", remedy


def _packages() -> tuple[bool, str, str]:
    what = "toyscore and what it needs"
    try:
        requirements = importlib.metadata.requires("toyscore") or []
    except importlib.metadata.PackageNotFoundError:
        return (
            False,
            what,
            f'toyscore is not installed for {sys.executable}: in its folder run pip install -e ".[{EXTRA}]"',
        )
    from packaging.requirements import Requirement

    wrong = []
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": EXTRA}):
            try:
                version = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                wrong.append(f"{requirement.name} is missing")
                continue
            if not requirement.specifier.contains(version, prereleases=True):
                wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    return not wrong, what, f'{"; ".join(wrong)}: in toyscore\'s folder run pip install -e ".[{EXTRA}]"'


def _kernel() -> tuple[bool, str, str]:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return (
        hasattr(shell, "kernel"),
        "a notebook kernel",
        "open this notebook in JupyterLab (make lab) instead of running it as a script",
    )


def _widgets() -> tuple[bool, str, str]:
    what = "the browser's half of the sliders"
    folders = [
        Path(sys.prefix) / "share",
        Path.home() / ".local" / "share",
        Path("/usr/local/share"),
        Path("/usr/share"),
    ]
    found = any((f / "jupyter" / "labextensions" / "@jupyter-widgets").is_dir() for f in folders)
    remedy = "sliders would show as text: pip install jupyterlab_widgets, then reload the page"
    return found, what, remedy


def _arithmetic() -> tuple[bool, str, str]:
    what = "the score of a Gaussian, by toyscore and by hand"
    try:
        import torch

        from toyscore.distributions import GaussianMixture
    except Exception as error:  # a broken installation raises all sorts of things
        return False, what, f"{type(error).__name__}: {error}; mend the lines above first, then reinstall torch"
    score = GaussianMixture([[1.0, 2.0]], 4.0).score(torch.tensor([[3.0, 2.0]]))
    good = score.tolist() == [[-0.5, 0.0]]
    return good, what, f"(mean - x) / variance is [[-0.5, 0.0]], toyscore says {score.tolist()}: reinstall torch"


def _folder() -> tuple[bool, str, str]:
    try:
        with tempfile.TemporaryFile(dir=os.getcwd()):
            return True, "a folder that can be written to", ""
    except OSError as error:
        return False, "a folder that can be written to", f"{error}: copy the notebooks to a folder of your own"
