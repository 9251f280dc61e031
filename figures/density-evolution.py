"""The law of the annealed chain, predicted without a sample, and 20,000 chains. Source: song2019, Algorithm 1.

Prediction samples nothing: on the line through the modes a step turns one density into the next, and ``diagnostics.propagate``
applies it to the uniform start of ``ncsn-fig3``, under that figure's ladder. Beside it run chains of the same algorithm in the plane.

Left, some of the chains over contours of the density of the level, q. Right, all of them on the line: bars are counted, the solid line
is predicted, the dashed one is q. The windows follow the level, so look at their ticks. Below, the share of the larger mode: dashed
steps are what q holds, the equilibrium of the level, the solid line is predicted, dots are counted, with the difference of the two
underneath in standard errors. Chains are the same from frame to frame, so differences come in runs.

Numbers above the shares say how much of the way from the solid line to the dashed one a level goes, by prediction: nearly all while
chains cross between modes at will, nothing once they no longer do. From there on hardly any mass moves. Part of it needs no hop: when
the level falls, what lay between the modes falls into one of them. So mass moves for longer than hops do (``freeze-out``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.interpolate import CubicSpline
from scipy.stats import binom
from torch import Tensor

from run import load
from toyscore import plotting
from toyscore.diagnostics import Cloud, propagate, reduce, turning_width, uniform_cloud
from toyscore.distributions import BOX, GaussianMixture, two_modes
from toyscore.metrics import mode_weight_errors, mode_weights
from toyscore.noise import geometric
from toyscore.samplers import annealed_langevin

STILL = load("ncsn-fig3")
EVERY = 10  # steps from frame to frame
SHOWN = 200  # chains drawn
BINS = 44  # of a window
REACH = 3.3  # standard deviations of a mode that a window shows
STOPPED = 0.1  # a level that goes less of the way from the chains' share to equilibrium hardly moves mass
FPS = 10.0
BELOW = 0.8  # the zorder of what never moves: it is drawn once
HOLD = 3.0  # seconds on the end
CELLS = 120  # of the plane, per side, for its contours
HEIGHTS = np.exp([-4.5, -2.0, -0.5])  # of the maximum: of one round mode, three, two and one standard deviations
PREDICTED = "#000000"
SHARES = ("predicted", "counted", "error")


def mixture() -> GaussianMixture:
    """What the figure is about: components of one covariance with means on one line; every number follows."""
    return two_modes()


def through_modes(p: GaussianMixture) -> tuple[GaussianMixture, Tensor]:
    """The mixture on the line through its modes and the line's direction [2, 1], towards the mode that weighs most."""
    line, direction = reduce(p)
    sign = 1.0 if bool(line.means[line.weights.argmax()] >= line.means.mean(0)) else -1.0
    return GaussianMixture(sign * line.means, line.covariances, line.weights), sign * direction


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Per frame: some chains, bars and lines of the window, masses of the bars, shares and the error of the grid. Per level: its end."""
    p = mixture()
    n_chains, n_each, n_cloud = (500, 10, 60) if quick else (20_000, 100, 200)
    line, direction = through_modes(p)
    top = int(p.weights.argmax())
    levels = geometric(*STILL.LEVELS)
    stages = STILL.stages(levels, STILL.EPSILON, n_each)
    noises = [stage.sigma for stage in stages]
    stds = [math.sqrt(float(line.covariances.max()) + noise**2) for noise in noises]
    windows = [math.ceil(float(line.means.abs().max()) + REACH * std) for std in stds]

    generator = torch.Generator().manual_seed(seed)
    start = BOX * (2 * torch.rand(n_chains, 2, generator=generator) - 1)
    chain = annealed_langevin(
        lambda x, sigma: p.score(x, STILL.noise(sigma)),
        start,
        levels,
        step_size=STILL.EPSILON,
        n_steps_each=n_each,
        generator=generator,
    )
    box = uniform_cloud(-BOX, BOX, 2, n_cloud)
    laws = propagate(line, Cloud(box.points @ direction, box.masses), stages)

    kept: dict[str, list] = {}
    ends = []
    for law, x in zip(laws, chain, strict=True):
        if law.step % n_each and law.step % EVERY:
            continue
        level = stages.index(law.stage)
        law = law.refined(turning_width(line))
        stationary = replace(law, density=line.log_prob(law.points, law.stage.sigma).exp())
        shares = [float(of.mode_weights(line)[top]) for of in (law, stationary)]
        if law.step % n_each == 0:
            ends.append(shares)
        if law.step % EVERY:
            continue
        edges = np.linspace(-windows[level], windows[level], BINS + 1)
        within = torch.linspace(-windows[level], windows[level], 301, dtype=torch.float64)
        density = CubicSpline(law.axes[0].numpy(), law.density.numpy())
        inside = np.array([density.integrate(a, b) for a, b in pairwise(edges)])
        on_line = (x.double() @ direction)[:, 0].numpy()
        frame = {
            "states": x[:SHOWN].numpy(),
            "counts": np.histogram(on_line, edges)[0],
            "masses": inside,
            "predicted": density(within.numpy()),
            "stationary": line.log_prob(within[:, None], law.stage.sigma).exp().numpy(),
            "share_counted": float(mode_weights(x, p)[top]),
            "share_error": float(mode_weight_errors(x, p)[top]),
            "share_predicted": shares[0],
            "grid_error": law.error,
            "step": law.step,
            "level": level,
        }
        for name, value in frame.items():
            kept.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in kept.items()} | {
        "share_start": (box.masses @ line.responsibilities(box.points @ direction))[top].numpy(),
        "end_predicted": np.array(ends)[:, 0],
        "end_stationary": np.array(ends)[:, 1],
        "noise": np.array(noises),
        "std": np.array(stds),
        "window": np.array(windows),
        "n_chains": np.array(n_chains),
        "n_each": np.array(n_each),
    }


def differences(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Per frame, counted minus predicted share, in standard errors."""
    return (arrays["share_counted"] - arrays["share_predicted"]) / arrays["share_error"]


def variations(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Per frame, the total variation between bars and prediction, and what it is on average for as many independent draws from it."""
    n = int(arrays["n_chains"])
    counts, masses = (
        np.column_stack([a, total - a.sum(1)]) for a, total in ((arrays["counts"], n), (arrays["masses"], 1))
    )
    masses = masses.clip(0, 1)
    above = np.floor(n * masses) + 1
    expected = 2 * above * (1 - masses) * binom.pmf(above, n, masses)  # of |count - n mass|, binomial
    return 0.5 * np.abs(counts / n - masses).sum(1), 0.5 * (expected / n).sum(1)


def way(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Per level, the part of the way from the predicted share to equilibrium that its steps go."""
    ends = arrays["end_predicted"]
    before = np.append(arrays["share_start"], ends[:-1])
    return (ends - before) / (arrays["end_stationary"] - before)


def stopped(arrays: dict[str, np.ndarray]) -> int:
    """The first level, from 0, that goes less than ``STOPPED`` of the way; the number of levels if none does."""
    return int(np.append(way(arrays) < STOPPED, True).argmax())


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """The last share, predicted and counted; how far the two ever are apart; how far the last level goes that
    still moves mass.

    Predicted numbers owe nothing to a seed, and what grids do to them is in ``grid_error``. Tolerances of counted ones are five standard
    errors for the share, four standard deviations over seeds (``run.py --spread 6``) for the largest difference of the shares, in standard
    errors, and for the ratio of the total variation to what sampling alone gives, both of a difference between two runs.
    """
    found, expected = variations(arrays)
    error = float(arrays["share_error"][-1])
    return {
        "share_predicted": (float(arrays["share_predicted"][-1]), 1e-4),
        "share_counted": (float(arrays["share_counted"][-1]), 5 * 2**0.5 * error),
        "largest_difference": (float(np.abs(differences(arrays)).max()), 2.3),
        "variation_to_sampling": (float((found / expected).mean()), 0.12),
        "way_of_last_level_that_moves": (float(way(arrays)[stopped(arrays) - 1]), 1e-3),
        "grid_error": (float(arrays["grid_error"].max()), 1e-5),
    }


def caption(arrays: dict[str, np.ndarray]) -> str:
    """What is predicted and counted, how well the two agree, and where mass stops moving."""
    found, expected = variations(arrays)
    z, level, last = (
        np.abs(differences(arrays)).max(),
        stopped(arrays),
        {key: arrays[f"share_{key}"][-1] for key in SHARES},
    )
    stops = (
        f"From the level on at which a mode has standard deviation {arrays['std'][level]:.3g} hardly any mass moves: it goes "
        f"{way(arrays)[level]:.1%} of the way to its own share, the level before {way(arrays)[level - 1]:.1%}."
        if level < len(arrays["std"])
        else f"Mass moves to the end: every level goes {STOPPED:.0%} of the way to its own share."
    )
    return (
        f"The mode that holds {float(mixture().weights.max()):.2f} of the mass ends with {last['predicted']:.4f} of it by prediction, "
        f"without a sample, and with {last['counted']:.4f} ± {last['error']:.4f} of {int(arrays['n_chains']):,} chains. Over {len(found)} "
        f"frames, of the same chains, the two shares are at most {z:.1f} standard errors apart, and the histogram is on average "
        f"{found.mean():.4f} from the predicted law in total variation, where sampling alone gives {expected.mean():.4f}. "
        f"{stops}"
    )


def scene(arrays: dict[str, np.ndarray]) -> tuple[Figure, Callable[[int], None]]:
    """The figure, and what makes it show a frame."""
    p, truth = mixture(), plotting.ROLES["truth"].colour
    role = plotting.ROLES["annealed"]
    figure = Figure(figsize=(8.0, 6.6), dpi=80, layout="constrained")
    axes = figure.subplot_mosaic(
        [["plane", "line"], ["share", "share"], ["apart", "apart"]],
        height_ratios=[3.9, 2.1, 0.85],
        width_ratios=[1, 1.35],
    )
    plane, line, share, apart = (axes[name] for name in ("plane", "line", "share", "apart"))
    for ax in axes.values():
        ax.set_axisbelow(True)  # with all that moves above the axes a frame is put together, not drawn whole
    n_levels, n_each = len(arrays["std"]), int(arrays["n_each"])
    n_steps, window = n_levels * n_each, arrays["window"]
    _, direction = through_modes(p)

    dots = plotting.samples(plane, torch.as_tensor(arrays["states"][0]), role="annealed", box=window[0], size=14)
    dots.set_alpha(1)
    first = p.means[0].double()
    plane.axline(first.tolist(), (first + direction[:, 0]).tolist(), color="0.6", linewidth=1.2, zorder=0.9)
    plane.tick_params(axis="x", pad=6)
    contours: list = []

    edges = np.linspace(-1, 1, BINS + 1)
    bars = line.stairs(np.zeros(BINS), edges, fill=True, color=role.colour, alpha=0.45, label="counted")
    (predicted,) = line.plot([], [], color=PREDICTED, linewidth=1.8, label="predicted")
    (stationary,) = line.plot([], [], color=truth, linestyle="--", linewidth=1.8, label="q of the level")
    plane.set_xlabel(f"{len(arrays['states'][0])} chains, contours of q")
    line.set(yticks=[], ylabel="density", xlabel="position on the grey line, larger mode right")
    line.set_title(f"all {int(arrays['n_chains']):,} chains, on the grey line")
    line.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    line.legend(loc="upper left", fontsize=10, framealpha=0.6, borderaxespad=0.3).set_zorder(BELOW)
    line.spines[["top", "right", "left"]].set_visible(False)

    exact = float(p.weights.max())
    steps = np.append(0, arrays["step"])
    shares = np.append(arrays["share_start"], arrays["share_predicted"])
    held = arrays["end_stationary"]
    share.stairs(
        held,
        n_each * np.arange(n_levels + 1),
        baseline=None,
        color=truth,
        linestyle="--",
        linewidth=1.8,
        label="equilibrium",
    )
    share.axhline(exact, color=truth, linestyle=":", linewidth=1.8, label=f"data, {exact:.2f}")
    (told,) = share.plot([], [], color=PREDICTED, linewidth=1.8, label="predicted")
    (counted,) = share.plot(
        [],
        [],
        color=role.colour,
        marker=role.marker,
        markersize=4.5,
        markeredgewidth=0,
        linestyle="none",
        label="counted",
    )
    low, high = min(shares.min(), held.min()), max(shares.max(), held.max(), exact)
    margin = 0.12 * (high - low)
    share.set(xlim=(0, n_steps), ylim=(low - margin, high + margin))
    share.tick_params(labelbottom=False)
    share.legend(loc="lower right", fontsize=11, ncols=2, borderaxespad=0.3, framealpha=1)
    stop = stopped(arrays)
    halt = share.text(
        0.99 * n_steps,
        exact - 0.3 * (high - low),
        "mass hardly moves",
        ha="right",
        color=PREDICTED,
        fontsize=13,
        fontweight="bold",
        visible=False,
    )
    rows = {
        "std of a mode": [f"{std:.3g}" for std in arrays["std"]],
        "way to q": [f"{round(100 * part)} %" for part in way(arrays)],
    }
    above = share.get_xaxis_transform()
    for row, (name, cells) in enumerate(rows.items()):
        height = 1.16 - 0.13 * row
        share.text(-0.008 * n_steps, height, name, transform=above, ha="right", fontsize=11, zorder=BELOW)
        for level, cell in enumerate(cells):
            share.text((level + 0.5) * n_each, height, cell, transform=above, ha="center", fontsize=11, zorder=BELOW)

    z = differences(arrays)
    limit = max(3.0, math.ceil(np.abs(z).max()))
    apart.axhspan(-2, 2, color="0.88", linewidth=0)
    apart.axhline(0, color=PREDICTED, linewidth=1.2)
    (errors,) = apart.plot(
        [], [], color=role.colour, marker=role.marker, markersize=4.5, markeredgewidth=0, linestyle="none"
    )
    apart.set(xlim=(0, n_steps), ylim=(-limit, limit), yticks=[-2, 0, 2], xlabel="step")
    for ax, name in ((share, "share of the\nlarger mode"), (apart, "counted −\npredicted\n[std errors]")):
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=11)
    ticks = n_each * np.arange(n_levels + 1)
    share.set_xticks(ticks)
    apart.set_xticks(ticks)
    now = [ax.axvspan(0, n_each, color="#E69F00", alpha=0.22, linewidth=0, zorder=0.9) for ax in (share, apart)]

    def enter(level: int) -> None:
        side, noise = float(window[level]), float(arrays["noise"][level])
        while contours:
            contours.pop().remove()
        plotting.frame(plane, side)
        points = plotting.grid(side, CELLS)
        x, q = points[:CELLS, 1].numpy(), p.log_prob(points, noise).exp().view(CELLS, CELLS).mT.numpy()
        contours.append(plane.contour(x, x, q, levels=q.max() * HEIGHTS, colors=truth, linewidths=1.4))
        line.set(xlim=(-side, side), ylim=(0, 1.45 * arrays["stationary"][arrays["level"] == level].max()))
        for span in now:
            span.set_x(level * n_each)

    entered: list[int] = []

    def update(frame: int) -> None:
        level = int(arrays["level"][frame])
        if entered != [level]:
            enter(level)
            entered[:] = [level]
        side = float(window[level])
        plotting.samples(plane, torch.as_tensor(arrays["states"][frame]), role="annealed", box=side, update=dots)
        plane.set_title(f"level {level + 1} of {n_levels}, step {arrays['step'][frame]:,}")
        halt.set_visible(level >= stop)
        width = 2 * side / BINS
        bars.set_data(arrays["counts"][frame] / (int(arrays["n_chains"]) * width), side * edges)
        x = np.linspace(-side, side, arrays["predicted"].shape[1])
        predicted.set_data(x, arrays["predicted"][frame])
        stationary.set_data(x, arrays["stationary"][frame])
        told.set_data(steps[: frame + 2], shares[: frame + 2])
        counted.set_data(steps[1 : frame + 2], arrays["share_counted"][: frame + 1])
        errors.set_data(steps[1 : frame + 2], z[: frame + 1])

    update(0)
    return figure, update


def frames(arrays: dict[str, np.ndarray]) -> tuple[Iterator[np.ndarray], float]:
    """The frames and how many there are in a second."""
    n = len(arrays["step"])
    drawn = plotting.animate(*scene(arrays), range(n))
    return (image for k, image in enumerate(drawn) for _ in range(round(HOLD * FPS) if k == n - 1 else 1)), FPS
