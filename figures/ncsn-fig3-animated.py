"""The chains of plain and of annealed Langevin dynamics in motion.

Above, plain beside annealed chains from one start; below, the share of them that is in the larger mode. All chains are
counted, some are drawn, and the box is wider than in the still figure because the first levels fill it. A level is
given as the standard deviation that it makes the unit modes have, as in the official code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from matplotlib.figure import Figure

from run import load
from toyscore import plotting
from toyscore.distributions import GaussianMixture, two_modes
from toyscore.metrics import mode_weights
from toyscore.noise import geometric

STILL = load("ncsn-fig3")
NAMES = ("plain", "annealed")
BOX = 16.0
SHOWN = 250  # chains drawn
FPS = 20.0
HOLD = 30  # frames on the end


def mixture() -> GaussianMixture:
    """What the figure is about: change it and every number follows."""
    return two_modes()


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Every tenth state of some chains, and the larger mode's share of all."""
    p = mixture()
    start, chains = STILL.chains(p, seed, quick)
    next(chains["exact"])
    arrays = {"start": start[:SHOWN].numpy()}
    for name in NAMES:
        states = [start, *(x for n, x in enumerate(chains[name], 1) if n % 10 == 0)]
        modes = [p.responsibilities(x).argmax(1) for x in (states[len(states) // 10], states[-1])]
        arrays[f"states.{name}"] = torch.stack([x[:SHOWN] for x in states]).numpy()
        arrays[f"share.{name}"] = torch.stack([mode_weights(x, p)[int(p.weights.argmax())] for x in states]).numpy()
        arrays[f"moved.{name}"] = (modes[0] != modes[1]).float().mean().numpy()
    sigmas = geometric(*STILL.LEVELS)
    n_frames = len(arrays["share.plain"])
    level = ((torch.arange(n_frames) - 1) * len(sigmas)).div(n_frames - 1, rounding_mode="floor").clamp(min=0)
    return arrays | {"sigma": sigmas[level].numpy(), "n_chains": np.array(len(start))}


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Shares, within five standard errors of the difference between two runs at most."""
    tolerance = 5 * (2 * 0.25 / int(arrays["n_chains"])) ** 0.5
    shares = {f"share_{name}": (float(arrays[f"share.{name}"][-1]), tolerance) for name in NAMES}
    moved = {f"moved_{name}": (float(arrays[f"moved.{name}"]), tolerance) for name in NAMES}
    return shares | moved | {"moved_plain": (float(arrays["moved.plain"]), 0.003)}


def caption(arrays: dict[str, np.ndarray]) -> str:
    """One sentence of numbers."""
    n_steps = 10 * (len(arrays["share.plain"]) - 1)
    moved, end = ({name: float(arrays[f"{key}.{name}"].flat[-1]) for name in NAMES} for key in ("moved", "share"))
    return (
        f"{int(arrays['n_chains']):,} chains over {n_steps:,} steps: after the first {n_steps // 10}, {moved['plain']:.1%} of the plain "
        f"chains still change their mode, and {moved['annealed']:.1%} of the annealed ones do; the mode that holds "
        f"{float(mixture().weights.max()):.2f} of the mass ends with {end['plain']:.3f} and {end['annealed']:.3f} of them."
    )


def scene(arrays: dict[str, np.ndarray]) -> tuple[Figure, Callable[[int], None]]:
    """The figure, and what makes it show a frame."""
    figure = Figure(figsize=(7.2, 5.6), dpi=80, layout="constrained")
    axes = figure.subplot_mosaic([["plain", "annealed"], ["share", "share"]], height_ratios=[3, 1.05])
    dots, lines = {}, {}
    steps = 10 * np.arange(len(arrays["share.plain"]))
    share, truth = axes["share"], float(mixture().weights.max())
    for name in NAMES:
        role = plotting.ROLES[name]
        dots[name] = plotting.samples(axes[name], torch.as_tensor(arrays["start"]), role=name, box=BOX, size=9)
        dots[name].set_alpha(0.8)
        marks = {"marker": role.marker, "markevery": 10, "markersize": 5}
        (lines[name],) = share.plot([], [], color=role.colour, linestyle=role.line, linewidth=2, label=name, **marks)
    exact = share.axhline(truth, color=plotting.ROLES["truth"].colour, linewidth=1.5, label=f"exact, {truth:.2f}")
    share.set(
        xlim=(0, steps[-1]), ylim=(0.4, 1), yticks=[0.5, 0.75, 1], xlabel="step", ylabel="share in the\nlarger mode"
    )
    share.legend(
        handles=[exact, *lines.values()], loc="upper right", ncols=3, fontsize=9, borderaxespad=0.2, handlelength=1.6
    )
    axes["plain"].set_title("plain Langevin\nalways the data's own score")

    def update(frame: int) -> None:
        for name in NAMES:
            x = torch.as_tensor(arrays[f"states.{name}"][frame])
            plotting.samples(axes[name], x, role=name, box=BOX, update=dots[name])
            lines[name].set_data(steps[: frame + 1], arrays[f"share.{name}"][: frame + 1])
        axes["annealed"].set_title(f"annealed Langevin\nstd of a mode: {arrays['sigma'][frame]:.1f}")

    update(0)
    return figure, update


def frames(arrays: dict[str, np.ndarray]) -> tuple[Iterator[np.ndarray], float]:
    """The frames and how many there are in a second."""
    n = len(arrays["share.plain"])
    return plotting.animate(*scene(arrays), [*[0] * 8, *range(n), *[n - 1] * HOLD]), FPS
