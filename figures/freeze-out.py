"""Why annealing with exact scores stops short of 0.80: weights freeze on the way down. Source: song2019, Algorithm 1 and Figure 3.

The ladder, its steps and the start are those of ``ncsn-fig3``, whose levels are the standard deviations that they give the unit modes.
Left, level by level: smeared over each other, modes trade mass, and in equilibrium they hold shares that near the true ones only as the
level falls. But mass moves only while the spectral gap times the time spent there (steps times step size) is above about one;
below, chains keep what they have. *Theory* follows the slowest mode of relaxation in continuous time; the *law* of the
discretised chain is computed on a grid; chains are simulated in the plane. What ever finer steps of the same time would mend is the
fault of finite steps, the rest is freezing.

Right, what the same score calls could buy: larger steps are more time, so that mass moves further down, but they settle at
wider modes; more levels of fewer steps help a little. The honest measure is the total variation between the final law and the data,
which sees weights and widths alike. All laws are on the line through the modes, where their shares are decided; across it, modes
are too wide as well.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from run import load
from toyscore import plotting
from toyscore.diagnostics import (
    Cloud,
    Law,
    freeze_out,
    last_laws,
    quadrature,
    reduce,
    stationary_variance,
    uniform_cloud,
)
from toyscore.distributions import BOX, GaussianMixture, two_modes
from toyscore.metrics import mode_weight_errors, mode_weights
from toyscore.noise import geometric
from toyscore.samplers import annealed_langevin

STILL = load("ncsn-fig3")
EPSILON = STILL.EPSILON
FINER = 4  # times as many steps of a size so many times smaller: what remains wrong is not their fault
N_MIDPOINTS = 50  # of the start, per axis: ten to the noise of the first step
BUDGETS = (0.3, 1.0, 3.0)  # of score calls, in units of the official one
MARKS = (("#56B4E9", "^", ":"), (plotting.ROLES["annealed"].colour, "D", "-"), ("#E69F00", "v", "-."))  # of the budgets
THEORY, WIDENING = "#000000", "#000000"


def mixture() -> GaussianMixture:
    """What the figure is about: change it and every number follows. Its modes have covariance I and lie on a line."""
    return two_modes()


def larger() -> int:
    """The mode whose share is followed."""
    return int(mixture().weights.argmax())


def ladder(n_levels: int, top: float = STILL.LEVELS[0]) -> torch.Tensor:
    """Geometric levels down to the official last one."""
    return geometric(top, STILL.LEVELS[1], n_levels).double()


def laws(line: GaussianMixture, start: Cloud, levels: torch.Tensor, epsilon: float, n_steps: int) -> list[Law]:
    """The law at the end of each level."""
    return last_laws(line, start, STILL.stages(levels, epsilon, n_steps))


def simulated(p: GaussianMixture, seed: int, n_chains: int, n_levels: int, n_steps: int) -> np.ndarray:
    """The share of the larger mode at the end of each level and its standard error, [2, L], of chains in all dimensions."""
    generator = torch.Generator().manual_seed(seed)
    start = BOX * (2 * torch.rand(n_chains, p.means.shape[1], generator=generator) - 1)

    def replaced(x, sigma):
        return p.score(x, STILL.noise(sigma))

    chain = annealed_langevin(
        replaced,
        start,
        ladder(n_levels).float(),
        step_size=EPSILON,
        n_steps_each=n_steps,
        generator=generator,
    )
    ends = (x for n, x in enumerate(chain, 1) if n % n_steps == 0)
    return np.array([[f(x, p)[larger()].item() for f in (mode_weights, mode_weight_errors)] for x in ends]).T


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """The official ladder level by level, and final laws by number of levels, step size and budget."""
    p = mixture()
    line, basis = reduce(p)
    box = uniform_cloud(-BOX, BOX, len(basis), N_MIDPOINTS)
    start = Cloud(box.points @ basis, box.masses)
    n_levels, n_steps, n_chains = (5, 20, 500) if quick else (STILL.LEVELS[2], 100, 50000)
    rows = [5, 10] if quick else [5, 10, 20, 50, 100]
    epsilons = [0.1, 0.4] if quick else [0.025, 0.05, 0.1, 0.2, 0.4, 0.8]
    budget, middle, k = n_levels * n_steps, len(rows) // 2, larger()
    official = ladder(n_levels)
    found = freeze_out(line, start, STILL.stages(official, EPSILON, n_steps))
    frozen = n_levels if found.frozen is None else found.frozen
    finer = laws(line, start, official, EPSILON / FINER, n_steps * FINER)[-1]

    def end(levels: torch.Tensor, epsilon: float, n_calls: float) -> tuple[float, float, float]:
        """The total variation from the data, the larger mode's share, and the error of the grid."""
        law = laws(line, start, levels, epsilon, round(n_calls / len(levels)))[-1]
        return law.total_variation(line), float(law.mode_weights(line)[k]), law.error

    table = np.array([[end(ladder(n), epsilon, budget) for epsilon in epsilons] for n in rows])
    curves = [
        table[middle, :, 0]
        if part == 1
        else [end(ladder(rows[middle]), epsilon, part * budget)[0] for epsilon in epsilons]
        for part in BUDGETS
    ]
    top = float(official[min(max(frozen - 1, 0), n_levels - 2)])
    floor = []
    for epsilon in epsilons:
        wide = GaussianMixture(line.means, stationary_variance(line.covariances, epsilon), line.weights)
        points, masses = quadrature(wide)
        floor.append(0.5 * float(masses @ (1 - (line.log_prob(points) - wide.log_prob(points)).exp()).abs()))
    return {
        "levels": official.numpy(),
        "gap_times": found.gap_times.numpy(),
        "equilibrium": found.equilibrium[:, k].numpy(),
        "predicted": found.predicted[:, k].numpy(),
        "law": found.weights[:, k].numpy(),
        "simulated": simulated(p, seed, n_chains, n_levels, n_steps),
        "frozen": np.array(frozen),
        "finer": finer.mode_weights(line)[k].numpy(),
        "n_chains": np.array(n_chains),
        "n_steps": np.array(n_steps),
        "rows": np.array(rows),
        "epsilons": np.array(epsilons),
        "variations": table[:, :, 0],
        "shares": table[:, :, 1],
        "errors": table[:, :, 2],
        "curves": np.array(curves),
        "floor": np.array(floor),
        "top": np.array(top),
        "shorter": np.array(end(ladder(n_levels, top), EPSILON, budget)),
        "official": np.array(end(official, EPSILON, budget)),
        "errors_of_levels": found.errors.numpy(),
        "error_of_finer": np.array(finer.error),
    }


def best(arrays: dict[str, np.ndarray], of: np.ndarray) -> tuple[int, float, int, int]:
    """Levels and epsilon where a table is least, and its row and column."""
    i, j = (int(n) for n in np.unravel_index(of.argmin(), of.shape))
    return int(arrays["rows"][i]), float(arrays["epsilons"][j]), i, j


def calls(arrays: dict[str, np.ndarray]) -> int:
    """Score calls of a chain down the official ladder."""
    return len(arrays["levels"]) * int(arrays["n_steps"])


def continuous(arrays: dict[str, np.ndarray]) -> float:
    """The share that ever smaller steps of the same time would end with: the bias of steps is of first order in them."""
    return float(FINER * arrays["finer"] - arrays["law"][-1]) / (FINER - 1)


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """The larger mode's share at the end and why, and the total variation that ladders and steps leave.

    Laws depend on no seed and on rounding by far less than 1e-4. The simulated share has five standard errors of the difference of two
    runs; its distance from the law, in standard errors, four.
    """
    truth = float(mixture().weights[larger()])
    n_levels, epsilon, i, j = best(arrays, arrays["variations"])
    simulated, error = arrays["simulated"][:, -1].tolist()
    frozen = min(int(arrays["frozen"]), len(arrays["levels"]) - 1)
    found = {
        "share_law": arrays["law"][-1],
        "share_theory": arrays["predicted"][-1],
        "share_finer_steps": arrays["finer"],
        "share_continuous_time": continuous(arrays),
        "bias_freezing": continuous(arrays) - truth,
        "bias_steps": arrays["law"][-1] - continuous(arrays),
        "equilibrium_at_freezing": arrays["equilibrium"][frozen],
        "gap_time_at_freezing": arrays["gap_times"][frozen],
        "level_at_freezing": arrays["levels"][frozen],
        "variation_official": arrays["official"][0],
        "variation_best": arrays["variations"][i, j],
        "share_best": arrays["shares"][i, j],
        "best_n_levels": n_levels,
        "best_epsilon": epsilon,
        "largest_share": arrays["shares"].max(),
        "variation_shorter_ladder": arrays["shorter"][0],
        "share_shorter_ladder": arrays["shorter"][1],
    }
    found |= {
        f"variation_at_{budget:g}_times_the_calls": row.min()
        for budget, row in zip(BUDGETS, arrays["curves"], strict=True)
    }
    return {name: (float(value), 1e-4) for name, value in found.items()} | {
        "share_simulated": (simulated, float(f"{5 * 2**0.5 * error:.2g}")),
        "simulated_minus_law_in_errors": ((simulated - float(arrays["law"][-1])) / error, 4.0),
    }


def caption(arrays: dict[str, np.ndarray]) -> str:
    """Where it froze, what is missing by whose fault, and what the same calls could buy."""
    value = {name: pair[0] for name, pair in numbers(arrays).items()}
    truth, frozen, n_levels = float(mixture().weights[larger()]), int(arrays["frozen"]), len(arrays["levels"])
    where = (
        f"mass begins to freeze where modes are {value['level_at_freezing']:.1f} wide, gap times time falls to "
        f"{value['gap_time_at_freezing']:.2f} and equilibrium is {value['equilibrium_at_freezing']:.3f}"
        if frozen < n_levels
        else "no level is frozen"
    )
    last = ", the last level that mixes," if 0 < frozen < n_levels else ""
    *_, i, j = best(arrays, arrays["variations"])
    errors = *arrays["errors_of_levels"], arrays["error_of_finer"], arrays["errors"][i, j], arrays["shorter"][2]
    return (
        f"With exact scores the mode that holds {truth:.2f} of the data gets {value['share_law']:.4f} by the law of the official "
        f"chain ({value['share_simulated']:.4f} ± {arrays['simulated'][1, -1]:.4f} of {int(arrays['n_chains']):,} chains): {where}. "
        f"With {FINER} times as many steps, {FINER} times smaller, it gets {value['share_finer_steps']:.4f}, hence in continuous time "
        f"{value['share_continuous_time']:.4f} (theory of the slowest modes: {value['share_theory']:.4f}): of the error, "
        f"{signed(value['bias_freezing'])} is freezing and {signed(value['bias_steps'])} finite steps. "
        f"At the same {calls(arrays):,} calls, {value['best_n_levels']:.0f} levels with epsilon {value['best_epsilon']:g} bring the "
        f"total variation from the data from {value['variation_official']:.2%} to {value['variation_best']:.2%}; the official steps on "
        f"{n_levels} levels from {float(arrays['top']):.1f} on{last} bring it to {value['variation_shorter_ladder']:.2%}, with a "
        f"share of {value['share_shorter_ladder']:.4f}. Grids twice as coarse change none of these laws by more than "
        f"{float(max(errors)):.1g} in total variation."
    )


def signed(value: float) -> str:
    """A bias in print."""
    return f"{value:+.4f}".replace("-", "−")


def along(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """The axis of levels, as the chain goes, and where mass freezes."""
    levels, frozen = arrays["levels"], int(arrays["frozen"])
    top, bottom = 1.12 * levels[0], levels[-1] / 1.12
    ax.set(xscale="log", xlim=(top, bottom), xticks=levels, xticklabels=[f"{s:.2g}" for s in levels])
    ax.xaxis.set_minor_locator(NullLocator())
    if frozen < len(levels):
        start = (levels[frozen - 1] * levels[frozen]) ** 0.5 if frozen else top
        ax.axvspan(start, bottom, color="0.9", zorder=0)


def by_level(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Equilibrium, theory, law and chains, with the end enlarged."""
    truth, levels = float(mixture().weights[larger()]), arrays["levels"]
    roles = plotting.ROLES
    share, error = arrays["simulated"]
    n_last = max(2, len(levels) // 2 - 1)
    inset = ax.inset_axes((0.58, 0.09, 0.4, 0.43))
    for part, size in ((ax, 7), (inset, 8)):
        along(part, arrays)
        part.axhline(truth, color=roles["truth"].colour, linewidth=1.6, label=f"true share, {truth:.2f}")
        part.plot(
            levels,
            arrays["equilibrium"],
            color=roles["truth"].colour,
            linestyle="--",
            linewidth=1.8,
            label="equilibrium",
        )
        part.plot(levels, arrays["predicted"], "-.", color=THEORY, linewidth=1.8, label="theory: slowest mode")
        part.plot(
            levels,
            arrays["law"],
            roles["annealed"].marker,
            color=roles["annealed"].colour,
            markersize=size,
            label="law of the chain",
        )
        part.errorbar(
            levels,
            share,
            error,
            fmt="o",
            color="black",
            markerfacecolor="none",
            markersize=size + 4,
            capsize=3,
            label=f"{int(arrays['n_chains']):,} chains ± s.e.",
        )
    shares = np.concatenate([[truth], *(arrays[key] for key in ("equilibrium", "predicted", "law"))])
    height = shares.max() - shares.min()
    ax.set(ylim=(shares.min() - 0.12 * height, shares.max() + 0.36 * height), ylabel="share of the larger mode")
    ax.legend(loc="upper center", ncols=2, fontsize=10.5, columnspacing=1.2, handlelength=2.2, borderaxespad=0.3)
    limit, law = continuous(arrays), arrays["law"][-1]
    low, high = min(limit, law, truth), max(limit, law, truth)
    inset.set(
        xlim=(1.12 * levels[-n_last], levels[-1] / 1.12),
        ylim=(low - 0.35 * (high - low), high + 0.25 * (high - low)),
        yticks=[low, truth],
        yticklabels=[f"{low:.3f}", f"{truth:.2f}"],
    )
    inset.tick_params(labelsize=10)
    across = (levels[-2] * levels[-1]) ** 0.5
    inset.annotate("", (across, limit), (across, truth), arrowprops={"arrowstyle": "<->", "shrinkA": 0, "shrinkB": 0})
    inset.text(
        1.03 * across,
        (truth + limit) / 2,
        f"freezing\n{signed(limit - truth)} ",
        ha="right",
        va="center",
        fontsize=11,
    )
    inset.set_title(f"finite steps {signed(law - limit)}", fontsize=11)
    ax.set_title("the share freezes before it is right")
    told = "; ".join(
        f"{s:.2g}: {e:.3f}, {t:.3f}, {w:.3f}, {m:.3f}"
        for s, e, t, w, m in zip(levels, arrays["equilibrium"], arrays["predicted"], arrays["law"], share, strict=True)
    )
    ax.set_gid(f"Level: the larger mode's share in equilibrium, by theory, by the law and among chains. {told}.")


def mixing(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Gap times time, with its values."""
    levels, values = arrays["levels"], arrays["gap_times"]
    along(ax, arrays)
    ax.axhline(1, color="black", linewidth=1.2, linestyle="--")
    ax.plot(levels, values, color=THEORY, marker="o", markersize=7, linewidth=1.8)
    ax.set_yscale("log")
    ax.set_ylim(min(values) / 30, max(values) * 60)
    for n, (level, value) in enumerate(zip(levels, values, strict=True)):
        steep = n >= int(arrays["frozen"])
        place = {"xytext": (-9, -10), "ha": "right"} if steep else {"xytext": (0, 9), "ha": "center"}
        ax.annotate(printed(value), (level, value), textcoords="offset points", fontsize=11, **place)
    ax.set(
        xlabel="level: standard deviation of a mode [units of x]\n(the chain goes to the right)",
        ylabel="spectral gap × time at the level",
    )
    ax.set_title("above 1 a level mixes, far below 1 it is frozen")
    told = ", ".join(f"{value:.2g} at {level:.2g}" for level, value in zip(levels, values, strict=True))
    ax.set_gid(f"Gap times time: {told}.")


def printed(value: float) -> str:
    """Two digits, or a power of ten."""
    power = int(np.floor(np.log10(value)))
    return f"{value:#.2g}".rstrip(".") if power >= -3 else rf"${value / 10**power:.0f}\times10^{{{power}}}$"


def trade_off(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Total variation and share by levels and epsilon, with the least one and the official one framed."""
    values, rows, epsilons = arrays["variations"], arrays["rows"].tolist(), arrays["epsilons"].tolist()
    ax.imshow(np.log(values), cmap=plotting.ERROR_MAP, aspect="auto", origin="upper", alpha=0.75)
    low, high = np.log(values.min()), np.log(values.max())
    for (i, j), value in np.ndenumerate(values):
        dark = np.log(value) > low + 0.65 * (high - low)
        text = f"{value:.2%}\n{arrays['shares'][i, j]:.3f}"
        ax.text(j, i, text, ha="center", va="center", fontsize=10, color="white" if dark else "black")
    frames = [(*best(arrays, values)[2:], "-")]
    if len(arrays["levels"]) in rows and EPSILON in epsilons:
        frames.append((rows.index(len(arrays["levels"])), epsilons.index(EPSILON), "--"))
    for row, column, style in frames:
        ax.add_patch(
            plt.Rectangle(
                (column - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor="black", linewidth=2.4, linestyle=style
            )
        )
    ax.set(
        yticks=range(len(rows)),
        yticklabels=[f"{n} × {calls(arrays) // n}" for n in rows],
        ylabel="levels × steps at each",
    )
    ax.set_title(
        f"{calls(arrays):,} calls: total variation from the data,\nshare of the larger mode (best —, official - -)"
    )
    told = "; ".join(
        f"{n} levels: "
        + ", ".join(
            f"{v:.1%} and {s:.3f} at {e:g}" for v, s, e in zip(values[i], arrays["shares"][i], epsilons, strict=True)
        )
        for i, n in enumerate(rows)
    )
    ax.set_gid(
        f"Total variation and share by levels and epsilon. {told}. Grids twice as coarse change a law by at most "
        f"{arrays['errors'].max():.1g} in total variation."
    )


def by_budget(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Total variation against epsilon, per budget, over what wider modes alone cost."""
    epsilons, n = arrays["epsilons"].tolist(), np.arange(len(arrays["epsilons"]))
    told = []
    for budget, row, (colour, marker, style) in zip(BUDGETS, arrays["curves"], MARKS, strict=True):
        n_calls = round(budget * calls(arrays))
        ax.plot(
            n,
            row,
            color=colour,
            marker=marker,
            linestyle=style,
            markersize=7,
            linewidth=1.8,
            label=f"{n_calls:,} calls",
        )
        ax.plot(
            row.argmin(),
            row.min(),
            "o",
            color="black",
            markerfacecolor="none",
            markersize=15,
            markeredgewidth=1.6,
            label="least of these" if budget == BUDGETS[-1] else None,
        )
        told.append(f"{n_calls:,} calls, least {row.min():.2%} at {epsilons[row.argmin()]:g}")
    ax.plot(n, arrays["floor"], color=WIDENING, linestyle="--", linewidth=1.6, label="wider modes alone")
    if EPSILON in epsilons:
        label = f"{calls(arrays):,} calls, {len(arrays['levels'])} levels from {float(arrays['top']):.1f} on"
        ax.plot(
            epsilons.index(EPSILON),
            arrays["shorter"][0],
            "*",
            color="#CC79A7",
            markeredgecolor="black",
            markersize=17,
            label=label,
        )
    ax.set_yscale("log")
    ax.set(xlabel=r"step size $\epsilon$ at the last level [units of x²]", ylabel="total variation from the data")
    ax.set_xticks(n, [f"{e:g}" for e in epsilons])
    ax.grid(which="major", alpha=0.3)
    ax.set_ylim(arrays["floor"].min() / 1.5, 3.5 * arrays["curves"].max())
    ax.legend(fontsize=10.5, loc="upper right")
    ax.set_title(f"{arrays['rows'][len(arrays['rows']) // 2]} levels: small steps freeze, large ones widen")
    told.append(f"{arrays['shorter'][0]:.2%} for the ladder from {float(arrays['top']):.1f} on at {EPSILON:g}")
    ax.set_gid(f"Total variation: {'; '.join(told)}.")


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """The official ladder on the left, what else its calls could buy on the right."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 10), width_ratios=[1, 1.02], sharex="col", layout="constrained")
    by_level(axes[0, 0], arrays)
    mixing(axes[1, 0], arrays)
    trade_off(axes[0, 1], arrays)
    by_budget(axes[1, 1], arrays)
    axes[0, 1].tick_params(labelbottom=True)
    axes[0, 1].set_xlabel(r"step size $\epsilon$")
    return figure
