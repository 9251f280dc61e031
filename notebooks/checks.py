"""What the notebooks check: the set-up, and the reader's own answers. Nothing here uses toyscore to judge them.

A check prints what is right or wrong, with a hint, and never raises: a notebook runs from top to bottom whatever the reader
has written so far.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Callable
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


def mixture_score(answer: Callable[..., object]) -> None:
    """Judge ``answer(x, means, variances, weights) -> [B, 2]``, the score of a mixture of round Gaussians, to 1e-6.

    The truth is a difference quotient of the log density, not a formula; the points near the modes come first, one is far away.
    """
    import numpy as np

    means = np.array([[2.0, 1.0], [-1.0, 2.0], [0.5, -2.0]])
    variances, weights = np.array([1.0, 0.5, 2.0]), np.array([0.5, 0.3, 0.2])
    x = np.array([[0.3, -0.4], [2.0, 1.5], [-1.5, 1.0], [80.0, -60.0]])

    def log_density(points: np.ndarray) -> np.ndarray:
        squares = ((points[:, None] - means) ** 2).sum(2)
        logs = np.log(weights) - np.log(2 * np.pi * variances) - squares / (2 * variances)
        return np.logaddexp.reduce(logs, 1)

    h = 1e-5
    truth = np.stack([(log_density(x + h * e) - log_density(x - h * e)) / (2 * h) for e in np.eye(2)], 1)
    try:
        with np.errstate(all="ignore"):
            given = np.asarray(answer(x.copy(), means.copy(), variances.copy(), weights.copy()), dtype=float)
    except Exception as error:
        print(
            f"Not yet: it stops with {type(error).__name__}: {error}.\nHint: x is [B, 2], means [K, 2], the others [K]."
        )
        return
    if given.shape != x.shape:
        print(
            f"Not yet: the shape is {list(given.shape)}.\nHint: one arrow per point, [B, 2] = {list(x.shape)}; sum over K."
        )
        return
    off = np.abs(given - truth).max(1)
    if (off < 1e-6).all():
        print(f"Correct: within 1e-6 at all {len(x)} points, also where every density is zero to machine precision.")
        return
    near = slice(0, 3)
    differences = means - x[near, None]
    pulls = differences / variances[:, None]
    heights = np.exp(-(differences**2).sum(2) / (2 * variances)) / (2 * np.pi * variances)

    def mean(shares: np.ndarray, of: np.ndarray = pulls) -> np.ndarray:
        return (shares[..., None] * of).sum(1) / shares.sum(1)[:, None]

    known = {
        "it is the arrow towards higher density: check the sign, (mean - x), not (x - mean)": -truth[near],
        "this is the plain sum of the components' scores: weigh each by its responsibility, the share of the density it "
        "contributes at x": pulls.sum(1),
        "the components are weighed by the mixture weights alone: at x they count by weight times density at x": (
            weights[:, None] * pulls
        ).sum(1),
        "the responsibilities leave out the mixture weights": mean(heights),
        "the responsibilities leave out the normaliser 1 / (2 pi variance), which differs between components": mean(
            weights * heights * variances
        ),
        "each pull (mean - x) is to be divided by its variance": mean(weights * heights, differences),
        "divide by the density: the score is the gradient of its logarithm": (
            (weights * heights)[..., None] * pulls
        ).sum(1),
        "all zeros so far: start from (mean - x) / variance of one component": np.zeros_like(truth[near]),
        "only the far point is wrong: there every density underflows to 0 and 0/0 follows; work with logarithms and subtract "
        "the largest before exp": truth[near],
    }
    hint = next((text for text, wrong in known.items() if np.allclose(given[near], wrong, atol=1e-6)), None)
    if hint is None and (off < 1e-3).all():
        hint = "nearly: within a thousandth everywhere; compute in float64, and without a difference quotient"
    worst = int(np.nan_to_num(off, nan=np.inf).argmax())
    print(
        f"Not yet: at x = {x[worst].tolist()} it is {np.round(given[worst], 4).tolist()}, the truth {np.round(truth[worst], 4).tolist()}, "
        f"off by {off[worst]:.1g}.\nHint: {hint or 'compare with the formula at a single component first (weights 1, 0, 0)'}."
    )
