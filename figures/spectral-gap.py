"""Why weights are forgotten: hops between modes become exponentially rare, and noise brings them back.

Source: bovier2005, Sec. 1; berglund2013, Sec. 3.

The spectral gap of dX = ½ score dt + dW is the rate at which a chain forgets where it started. Above, left: two Gaussians
of unit variance are moved apart. The gap (line) falls about like exp(-a²/2). Chains (triangles, 95 % intervals; an arrow is the upper
limit where none hopped) soon see nothing, and an eigensolver that knows no structure (crosses) returns noise once the gap is below
its rounding. Eyring and Kramers (dashed) look at the height of the pass alone. The strip below is the same, divided by the gap.

Above, right: the gap of the paper's toy with noise, times the time that annealed Langevin dynamics spends at the level. Above 1 a level
forgets where its chains were; below, they stay in their modes. Levels are standard deviations of a mode, as in ``ncsn-fig3``.

Below: the two slowest eigenfunctions of three unequal modes. What a chain forgets last is in which mode it started, so each is nearly
constant on a mode: boxes give its mean there. Lines hold 95 % of the mass; on the dotted one the function is zero.
"""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from scipy.linalg import eigvalsh_tridiagonal

from run import load
from toyscore import plotting
from toyscore.diagnostics import eyring_kramers, hop_rate, reduce, slow_modes, spectral_gap
from toyscore.diagnostics.grids import nodes
from toyscore.distributions import BOX, GaussianMixture, asymmetric, two_modes
from toyscore.noise import geometric
from toyscore.plotting.plane import frame
from toyscore.samplers import langevin

STILL = load("ncsn-fig3")
EPSILON = STILL.EPSILON  # a step; steps are counted in it
N_STEPS = 1000  # of the chains of ncsn-fig3
FAR = 10.0  # where rounding has swallowed the gap
TOLD = (2.0, 4.0, 6.0, FAR)  # whose gaps are numbers
COUNTED = (3.0, 3.5, 4.0, 4.5, 6.0)  # where chains are run: from 3 on hops are rare beside what happens within a mode
EPSILON_COUNTED = 0.04  # at 3 the step hides some 2 % of the hops
NODES_PER_STD = 20  # of the grid, for gap and eigensolver alike: its error is below 1e-4 of the gap up to FAR
LOST = 0.1  # an eigensolver that errs by more is lost
HOPS_TOLERANCE = 0.17
SHOWN = 0.95  # of the mass is within the lines of the maps
MAP = "viridis"  # its lightness rises throughout: it can be read in grey
KRAMERS = "#E69F00"
LIMIT = math.sqrt(math.pi / 2)  # of the estimate over the gap, for Gaussians far apart


def mixture() -> GaussianMixture:
    """What is moved apart, and smoothed: two modes of unit variance. Change it and every number follows; it must have two modes."""
    return two_modes()


def plane() -> GaussianMixture:
    """Whose eigenfunctions are drawn."""
    return asymmetric()


def half_distance() -> float:
    """Between the modes of the mixture, which are two."""
    n_modes = len(mixture().weights)
    if n_modes != 2:
        raise ValueError(
            f"mixture() has {n_modes} modes: it must have two, which are moved apart; return e.g. two_modes(), and put "
            "more into plane()"
        )
    line, _ = reduce(mixture())
    return float((line.means[0] - line.means[1]).norm() / 2)


def apart(a: float, dtype: torch.dtype = torch.float64) -> GaussianMixture:
    """The mixture's weights on two unit Gaussians at a and -a."""
    return GaussianMixture(torch.tensor([[a], [-a]], dtype=dtype), 1.0, mixture().weights.tolist())


def kramers(a: float) -> float:
    """The estimate, or nan where the mixture has no saddle."""
    try:
        return eyring_kramers(apart(a))
    except ValueError:  # one mode: there is no pass
        return math.nan


def eigensolver(a: float, nodes_per_std: float) -> float:
    """What LAPACK makes of the generator on a grid: the second least eigenvalue in size."""
    x = np.linspace(-a - 6.5, a + 6.5, round(2 * (a + 6.5) * nodes_per_std))
    logs = apart(a).log_prob(torch.as_tensor(x)[:, None]).numpy()
    ratio = np.exp(0.5 * np.diff(logs))
    values = eigvalsh_tridiagonal(np.append(ratio, 0) + np.append(0, 1 / ratio), -np.ones(len(ratio)))
    return float(np.sort(np.abs(values))[1] / (2 * (x[1] - x[0]) ** 2))


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Gaps as modes move apart and as noise grows, hops counted, and the slowest eigenfunctions."""
    first, step, fine = (2, 2, NODES_PER_STD / 2) if quick else (1, 0.25, NODES_PER_STD)
    distances = np.union1d(np.arange(first, FAR + step, step), half_distance())
    arrays = {
        "a": distances,
        "toy": np.array(half_distance()),
        "gap": np.array([spectral_gap(apart(a), nodes_per_std=fine) for a in distances]),
        "kramers": np.array([kramers(a) for a in distances]),
        "eigensolver": np.array([eigensolver(a, fine) for a in distances]),
    }
    n_chains, n_steps = (100, 100) if quick else (2500, 4000)
    generator = torch.Generator().manual_seed(seed)
    hops = []
    for a in COUNTED:
        p = apart(a, torch.float32)
        start = p.sample(n_chains, generator=generator)
        chain = langevin(p.score, start, step_size=EPSILON_COUNTED, n_steps=n_steps, generator=generator)
        found = hop_rate(chain, p, step_size=EPSILON_COUNTED, n_discard=n_steps // 10)
        hops.append([a, found.n_hops, found.gap, found.low, found.high, spectral_gap(p, nodes_per_std=fine)])
    arrays |= {"hops": np.array(hops), "chain_steps": np.array(n_chains * n_steps)}

    line, _ = reduce(mixture())
    high, low, n_levels = STILL.LEVELS
    refined = 1 if quick else 3
    levels = geometric(high, low, refined * (n_levels - 1) + 1).double()
    mixed = [
        spectral_gap(line, sigma=stage.sigma, nodes_per_std=fine) * stage.step_size * stage.n_steps
        for stage in STILL.stages(levels, EPSILON, N_STEPS // n_levels)
    ]
    arrays |= {"level": levels.numpy(), "mixed": np.array(mixed), "every": np.array(refined)}

    q = plane().to(dtype=torch.float64)
    slow = slow_modes(q, n_modes=2, nodes_per_std=1.25 if quick else 2.5)
    points = nodes(slow.axes)
    masses = q.log_prob(points).exp() * math.prod(float(axis[1] - axis[0]) for axis in slow.axes)
    shares = q.responsibilities(points) * masses[:, None]
    means = slow.functions.flatten(1) @ shares / shares.sum(0)
    return arrays | {
        "rates": slow.rates.numpy(),
        "errors": slow.errors.numpy(),
        "functions": slow.functions.numpy(),
        "masses": masses.view(slow.functions.shape[1:]).numpy(),
        "x": slow.axes[0].numpy(),
        "y": slow.axes[1].numpy(),
        "means": means.numpy(),  # [function, mode]
        "between": (means.square() @ q.weights).numpy(),  # of the variance 1
    }


def steps(rate: np.ndarray | float) -> np.ndarray | float:
    """Of size EPSILON until half of the memory is lost; its own inverse."""
    return math.log(2) / EPSILON / np.maximum(rate, 1e-300)


def power(value: float, digits: int = 1) -> str:
    """A number as a multiple of a power of ten, in plain text: titles become alternative text."""
    factor, exponent = f"{value:.{digits}e}".split("e")
    return f"{factor} × 10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def toy_gap(arrays: dict[str, np.ndarray]) -> float:
    """The gap of the mixture itself."""
    return float(arrays["gap"][arrays["a"] == arrays["toy"]][0])


def crossing(arrays: dict[str, np.ndarray]) -> float:
    """The level that mixes just once."""
    return float(np.exp(np.interp(0, np.log(arrays["mixed"][::-1]), np.log(arrays["level"][::-1]))))


def lost(arrays: dict[str, np.ndarray]) -> float:
    """The least distance from which the eigensolver is lost, nan where it never is."""
    wrong = np.abs(arrays["eigensolver"] / arrays["gap"] - 1) > LOST
    return float(arrays["a"][wrong].min()) if wrong.any() else math.nan


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Gaps, rates and what follows from them, with relative tolerances of 1e-3 or less; hops, where they are most common.

    The tolerance of hops is five standard deviations (``run.py --spread 6``); where the eigensolver is lost, two distances, because it
    depends on the rounding of LAPACK.
    """
    a, gap = arrays["a"], arrays["gap"]
    found = {f"gap_at_{x:g}": (float(gap[a == x][0]), 1e-4 * float(gap[a == x][0])) for x in TOLD if x in a}
    found |= {"gap_at_the_toy": (toy_gap(arrays), 1e-4 * toy_gap(arrays))}
    found |= {f"eyring_kramers_ratio_at_{a[-1]:g}": (float(arrays["kramers"][-1] / gap[-1]), 1e-3)}
    found |= {f"hops_ratio_at_{COUNTED[0]:g}": (float(arrays["hops"][0, 2] / arrays["hops"][0, 5]), HOPS_TOLERANCE)}
    found |= {"eigensolver_lost_at": (lost(arrays), 0.5), "level_that_mixes_once": (crossing(arrays), 0.004)}
    for k, rate in enumerate(arrays["rates"].tolist(), 1):
        found |= {f"rate_{k}_of_three_modes": (rate, 1e-3 * rate)}
        found |= {f"between_modes_{k}": (float(arrays["between"][k - 1]), 1e-3)}
    return found


def caption(arrays: dict[str, np.ndarray]) -> str:
    """How rare hops are, who sees them, and what noise does."""
    a, gap, toy = arrays["a"], arrays["gap"], toy_gap(arrays)
    first, last = arrays["hops"][0], arrays["hops"][-1]
    mixing = arrays["mixed"][:: int(arrays["every"])] >= 1
    plain = toy * EPSILON * N_STEPS
    return (
        f"Chains hop between two unit Gaussians at ± a at the rate {gap[a == TOLD[0]][0]:.3g} for a = {TOLD[0]:g}, and {toy:.3g} for "
        f"the toy's {float(arrays['toy']):.2f}: there {steps(toy):.2g} steps of {EPSILON:g} pass until half of the start is forgotten. "
        f"{int(arrays['chain_steps']) / 1e6:.3g} million simulated steps show {first[1]:,.0f} hops at a = {first[0]:g} and "
        f"{last[1]:.0f} at {last[0]:g}; a dense eigensolver is lost from {lost(arrays):g} on, and the estimate of Eyring and Kramers is "
        f"{arrays['kramers'][-1] / gap[-1]:.3f} times the rate at {a[-1]:g}, on its way to sqrt(pi/2) = {LIMIT:.3f}. "
        f"Noise brings the hops back: at the first {mixing.sum()} of {len(mixing)} annealed levels, all above {crossing(arrays):.2f}, "
        f"{N_STEPS // len(mixing)} steps last 1 / gap or longer, where {N_STEPS:,} plain steps last {plain:.1g} of it. "
        f"Of three unequal modes the two slowest eigenfunctions are labels: {arrays['between'][0]:.2%} and {arrays['between'][1]:.2%} of "
        "their variance lies between modes."
    )


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """The gap and what it is compared with, what noise makes of it, and two eigenfunctions."""
    figure, axes = plt.subplot_mosaic(
        [["gap", "mixed"], ["ratio", "mixed"], ["first", "second"]],
        figsize=(11.0, 11.0),
        height_ratios=[3.6, 1.7, 4.6],
        layout="constrained",
    )
    axes["ratio"].sharex(axes["gap"])
    draw_gap(axes["gap"], arrays)
    draw_ratio(axes["ratio"], arrays)
    draw_mixed(axes["mixed"], arrays)
    maps = [axes["first"], axes["second"]]
    for k, ax in enumerate(maps):
        colours = draw_function(ax, arrays, k)
    figure.colorbar(colours, ax=maps, label="eigenfunction (mean 0, variance 1)", pad=0.02, aspect=25)
    return figure


def draw_gap(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """The gap over all its decades, and who sees it."""
    truth, plain = plotting.ROLES["truth"], plotting.ROLES["plain"]
    weights = " : ".join(f"{w:.2f}" for w in mixture().weights.tolist())
    a, gap, toy = arrays["a"], arrays["gap"], (float(arrays["toy"]), toy_gap(arrays))
    ax.semilogy(a, gap, color=truth.colour, linewidth=2.5, label="spectral gap, exact")
    ax.semilogy(a, arrays["kramers"], color=KRAMERS, linewidth=2.2, linestyle="--", label="Eyring-Kramers")
    ax.semilogy(a, arrays["eigensolver"], "x", color="black", markersize=6, label="dense eigensolver")
    draw_hops(ax, arrays["hops"], np.ones(len(arrays["hops"])))
    for x, _, _, _, high, _ in arrays["hops"][arrays["hops"][:, 1] == 0]:
        ax.errorbar(x, high, 0.97 * high, uplims=True, color=plain.colour, marker="_", markersize=12, capsize=5)
        ax.annotate("no hop", (x, high), (0, 5), textcoords="offset points", ha="center", fontsize=11)
    ax.plot(*toy, truth.marker, color=truth.colour, markersize=9, markeredgecolor="white")
    ax.annotate(
        f"the toy, a = {toy[0]:.2f}:\n{power(toy[1])}\nhalf is lost in\n{power(steps(toy[1]))} steps",
        toy,
        (0.985, 0.97),
        textcoords="axes fraction",
        ha="right",
        va="top",
        fontsize=11,
        arrowprops={"arrowstyle": "-", "color": "0.4"},
    )
    ax.set(ylabel="rate [per unit of time]", title=f"hops between two unit Gaussians\nat ± a, of weights {weights}")
    ax.tick_params(labelbottom=False)
    ax.legend(loc="lower left", fontsize=11)
    ax.grid(alpha=0.3)
    ax.secondary_yaxis("right", functions=(steps, steps)).set_ylabel(rf"steps of {EPSILON:g} to lose half the memory")
    counted = ", ".join(f"{n:,.0f} at {x:g}" for x, n, *_ in arrays["hops"])
    ax.set_gid(
        f"The gap falls from {gap[0]:.3g} at a = {a[0]:g} over {toy[1]:.3g} at {toy[0]:.2f} to {gap[-1]:.3g} at {a[-1]:g}; hops counted: "
        f"{counted}; the eigensolver returns {arrays['eigensolver'][-1]:.1g} at {a[-1]:g}."
    )


def draw_hops(ax: Axes, hops: np.ndarray, unit: np.ndarray) -> None:
    """Rates counted, where a hop was, and their intervals, in units."""
    plain = plotting.ROLES["plain"]
    a, n_hops, rate, low, high, _ = hops.T
    seen = n_hops > 0
    bars = (np.stack([rate - low, high - rate]) / unit)[:, seen]
    form = {"color": plain.colour, "markersize": 8, "markeredgecolor": "white", "capsize": 4, "zorder": 3}
    ax.errorbar(a[seen], (rate / unit)[seen], bars, fmt=plain.marker, label="hops counted, 95 % interval", **form)


def draw_ratio(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """The same over the gap."""
    a, gap = arrays["a"], arrays["gap"]
    ratio = arrays["kramers"] / gap
    ax.axhline(1, color=plotting.ROLES["truth"].colour, linewidth=2.5)
    ax.axhline(LIMIT, color="0.4", linewidth=1.2, linestyle=":")
    ax.text(a[0], LIMIT + 0.05, r"$\sqrt{\pi/2}$", va="bottom", fontsize=12)
    ax.plot(a, ratio, color=KRAMERS, linewidth=2.2, linestyle="--")
    ax.plot(a, arrays["eigensolver"] / gap, "x", color="black", markersize=6)
    draw_hops(ax, arrays["hops"], arrays["hops"][:, -1])
    ax.set(ylim=(0, 2), yticks=[0, 1, 2], ylabel="rate / gap", xlabel="a [standard deviations of a mode]")
    ax.grid(alpha=0.3)
    ax.set_gid(
        f"Divided by the gap: Eyring-Kramers at most {np.nanmax(ratio):.3f}, {ratio[-1]:.3f} at a = {a[-1]:g}; hops "
        + ", ".join(f"{r / exact:.2f} at {x:g}" for x, n, r, _, _, exact in arrays["hops"] if n)
        + f"; the eigensolver is off by more than {LOST:.0%} from {lost(arrays):g}."
    )


def draw_mixed(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """What each level of the schedule forgets, in the order of the schedule."""
    truth, plain, annealed = (plotting.ROLES[role] for role in ("truth", "plain", "annealed"))
    levels, mixed, every = arrays["level"], arrays["mixed"], int(arrays["every"])
    n_levels = len(levels[::every])
    alone = toy_gap(arrays) * EPSILON * N_STEPS
    ax.axhspan(1, 50, color=annealed.colour, alpha=0.12, linewidth=0)
    ax.loglog(levels, mixed, color=truth.colour, linewidth=2.5)
    label = f"annealed: {n_levels} levels\nof {N_STEPS // n_levels} steps"
    ax.loglog(levels[::every], mixed[::every], annealed.marker, color=annealed.colour, markersize=9, label=label)
    label = f"plain: {N_STEPS:,} steps\nof {EPSILON:g}, no noise"
    ax.loglog(levels[-1:], [alone], plain.marker, color=plain.colour, markersize=11, label=label)
    once = crossing(arrays)
    middle = alone**0.5
    ax.plot([once, once], [middle / 30, 1], color="0.4", linewidth=1.2, linestyle=":")
    ax.text(once * 1.06, middle, f"once in the\ntime of a level:\nat {once:.2f}", ha="right", va="center", fontsize=11)
    ax.text(levels[0], 14, "chains forget in which mode they were", va="center", fontsize=11)
    ax.text(levels[0], 0.1, "chains stay\nin their mode", va="center", fontsize=11)
    ax.set(
        xlim=(levels[0] * 1.15, levels[-1] / 1.15),
        ylim=(alone / 50, 50),
        xlabel="noise level: standard deviation of a mode\n(the schedule runs to the right)",
        ylabel="spectral gap × time spent at the level",
        title="noise brings the hops back\n(to the toy, on the schedule of annealing)",
    )
    ax.set_xticks(ticks := [20, 10, 5, 2, 1], labels=[f"{t}" for t in ticks], minor=False)
    ax.set_xticks([], minor=True)
    ax.grid(alpha=0.3)
    ax.legend(loc="lower left", fontsize=11)
    told = ", ".join(f"{m:.2g} at {level:.3g}" for level, m in zip(levels[::every], mixed[::every], strict=True))
    ax.set_gid(f"Gap times time of a level: {told}; plain Langevin {alone:.2g}.")


def draw_function(ax: Axes, arrays: dict[str, np.ndarray], k: int) -> QuadMesh:
    """An eigenfunction, where the mass is, and its mean on each mode."""
    x, y, f, masses = arrays["x"], arrays["y"], arrays["functions"][k], arrays["masses"]
    lowest, highest = arrays["functions"].min(), arrays["functions"].max()
    image = ax.pcolormesh(x, y, f.T, cmap=MAP, vmin=lowest, vmax=highest, shading="nearest", rasterized=True)
    ax.contour(x, y, f.T, levels=[0], colors="white", linestyles=":", linewidths=2)
    height = plotting.mass_level(torch.as_tensor(masses), 1.0, SHOWN)
    for colour, width in (("white", 3.5), ("black", 1.6)):
        ax.contour(x, y, masses.T, levels=[height], colors=colour, linewidths=width)
    frame(ax, BOX)
    for (u, v), mean in zip(plane().means.tolist(), arrays["means"][k], strict=True):
        ax.annotate(
            f"{mean:+.2f}".replace("-", "\N{MINUS SIGN}"),
            (u, v),
            ha="center",
            va="center",
            fontsize=13,
            fontweight="bold",
            bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": "0.6"},
        )
    rate = float(arrays["rates"][k])
    half = float(f"{steps(rate):.3g}")
    name = ("slowest", "second slowest")[k]
    ax.set_title(
        f"three modes: {name} way to forget\nrate {power(rate, 2)}: half in {half:,.0f} steps of {EPSILON:g}",
        fontsize=12,
    )
    means = ", ".join(f"{mean:+.2f}" for mean in arrays["means"][k])
    ax.set_gid(
        f"Nearly constant on each mode: {means}; {arrays['between'][k]:.2%} of the variance lies between modes. Extrapolation from a "
        f"coarser grid changed the rate by {arrays['errors'][k] / rate:.1%}."
    )
    return image
