r"""Every sampler, by calls of the score. Source: song2021, Table 1; karras2022, Fig. 2.

1 to 3. *Three toys.* Exact scores on VE, equal ratios of sigma for all (``geometric_times``; on VE they are equal steps of t as well), so a
   call is all that a sampler can save. Sliced Wasserstein-2 distance to exact samples; the band is what two sets of exact samples are
   apart, and below it nothing can be told. The third toy has no formula: each of a few draws is widened to a small Gaussian.
4. *Order.* On a Gaussian each sampler's law is computed, started from the right p_1: no noise, no floor. The root of the divergence is
   proportional to the error of the law, and its slope is the order: one for DDIM, ancestral sampling, reverse diffusion and Euler's
   scheme along t, two for Heun's method, which makes two calls in a step.
5. *Where the steps go.* VP, on which the three kinds of times differ: equal steps of t crowd at large noise.
6. *What an error looks like.* The width of the second toy's modes: the root mean square distance of samples to the nearest mode's
   centre, over that of exact samples. Some samplers leave modes too wide, others too narrow.

That Euler-Maruyama does so well in panel 4 is an accident of VE, equal ratios and Gaussian data: the error of its variance per step h,
4 u² / (v + u) - 2 u times h² with u = sigma², adds up to nothing over all sigma, what is lost at small noise being won at large. On VP its
order is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor

from toyscore import plotting
from toyscore.diagnostics import Moments, affine_law, gaussian_divergence
from toyscore.distributions import TOYS, GaussianMixture, asymmetric, eight_gaussians
from toyscore.metrics import sliced_wasserstein2
from toyscore.noise import geometric
from toyscore.operators import Score
from toyscore.samplers import (
    Step,
    adaptive_flow,
    ancestral,
    ancestral_step,
    annealed_langevin,
    corrected_step,
    ddim,
    ddim_step,
    euler_maruyama_step,
    final,
    heun_step,
    noise_std,
    predictor_corrector,
    probability_flow,
    reverse_diffusion,
    reverse_diffusion_step,
    reverse_sde,
)
from toyscore.sde import SDE, VE, VP, geometric_times, karras_times, law_at, noise_level, uniform_times

COUNTS = (8, 16, 32, 64, 128)  # calls of the score
FEW = 1  # of COUNTS, that the caption tells
ORDER = (16, 32, 64, 128, 256, 512)  # of panels 4 and 5
TOLERANCES = (0.1, 1e-2, 1e-3, 1e-4)  # rtol and atol of the adaptive flow
SNR = 0.16
N_STEPS_EACH = 4  # of annealed Langevin dynamics
EPSILON_OVER_SIGMA2 = 1.0  # its step at each level
T_MIN = 1e-3
N_POINTS, POINT_STD = 24, 0.4  # of the toy that is only sampled
N_PROJECTIONS = 64
RACE, TIMED = VE(), VP()


@dataclass(frozen=True)
class Method:
    """How a sampler is called, its step where its law can be computed, and how it is drawn."""

    name: str
    colour: str
    marker: str
    line: str
    calls: int = 1
    step: Step | None = None


METHODS = {
    "euler_maruyama": Method("Euler-Maruyama", "#56B4E9", "^", "-", 1, euler_maruyama_step),
    "reverse_diffusion": Method("reverse diffusion", "#000000", "o", "-", 1, reverse_diffusion_step),
    "ancestral": Method("ancestral", "#0072B2", "v", "-", 1, ancestral_step),
    "corrected": Method(
        "predictor-corrector", "#E69F00", "s", "-", 2, partial(corrected_step, snr=SNR, width=noise_std)
    ),
    "langevin": Method("annealed Langevin", plotting.ROLES["annealed"].colour, "D", "-", 1),
    "euler": Method("Euler of the flow in t", "#999999", "<", "--", 1, partial(euler_maruyama_step, noise=0.0)),
    "ddim": Method("DDIM", "#CC79A7", "p", "--", 1, ddim_step),
    "heun": Method("Heun", "#D55E00", "P", "--", 2, heun_step),
    "adaptive": Method("adaptive flow", "#8B4513", "*", ":", 0),
}
TIMES = {
    "uniform": ("filled", "equal steps of t"),
    "geometric": ("open", "equal ratios"),
    "karras": ("x", "Karras's times"),
}
COMPARED = ("ancestral", "ddim", "heun")  # in panel 5


def toys() -> dict[str, GaussianMixture]:
    """What is raced on: change them and every number follows."""
    points = TOYS["moons"]().sample(N_POINTS, generator=Generator().manual_seed(0))
    return {
        "asymmetric": asymmetric(),
        "eight Gaussians": eight_gaussians(),
        "moons of points": GaussianMixture(points, POINT_STD**2),
    }


def gaussian() -> GaussianMixture:
    """The Gaussian with the first toy's mean and covariance."""
    p = asymmetric().to(dtype=torch.float64)
    return GaussianMixture(p.mean[None], p.covariance[None])


def chain(key: str, score: Score, x: Tensor, calls: int, generator: Generator) -> Iterator[Tensor]:
    """A sampler with that many calls of the score, along VE."""
    times = geometric_times(RACE, max(1, calls // max(1, METHODS[key].calls)), t_min=T_MIN)
    if key == "langevin":
        ends = (noise_level(RACE, 1.0), noise_level(RACE, T_MIN))
        sigmas = geometric(*ends, calls // N_STEPS_EACH)
        step_size = EPSILON_OVER_SIGMA2 * float(sigmas[-1]) ** 2
        return annealed_langevin(score, x, sigmas, step_size=step_size, n_steps_each=N_STEPS_EACH, generator=generator)
    if key == "corrected":
        return predictor_corrector(RACE, score, x, times, snr=SNR, width=noise_std, generator=generator)
    if key == "heun":
        return probability_flow(RACE, score, x, times)
    if key == "euler":
        return reverse_sde(RACE, score, x, times, noise=0.0)
    noisy = {
        "euler_maruyama": reverse_sde,
        "reverse_diffusion": reverse_diffusion,
        "ancestral": ancestral,
        "ddim": ddim,
    }
    return noisy[key](RACE, score, x, times, generator=generator)


def raced(p: GaussianMixture, counts: tuple[int, ...], n: int, generator: Generator) -> dict[str, np.ndarray]:
    """Distances [methods but the adaptive one, counts]; the adaptive flow's calls and distances [2, tolerances]; the floor; and widths."""

    def distance(x: Tensor) -> float:
        other = p.sample(n, generator=generator)
        return sliced_wasserstein2(x, other, n_projections=N_PROJECTIONS, generator=generator)

    def width(x: Tensor) -> float:
        return float(torch.cdist(x, p.means).amin(1).square().mean()) ** 0.5

    found = {"floor": np.array([distance(p.sample(n, generator=generator)) for _ in range(8)])}
    exact = width(p.sample(20 * n, generator=generator))
    rows, widths = [], []
    for key in list(METHODS)[:-1]:
        row, wide = [], []
        for calls in counts:
            start = RACE.prior_sample((n, 2), generator=generator)
            x = final(chain(key, p.score, start, calls, generator))
            row.append(distance(x))
            wide.append(width(x) / exact)
        rows.append(row)
        widths.append(wide)
    adaptive = []
    for tolerance in TOLERANCES:
        calls = 0

        def counted(x: Tensor, sigma: float | Tensor, /) -> Tensor:
            nonlocal calls
            calls += 1
            return p.score(x, sigma)

        start = RACE.prior_sample((n, 2), generator=generator)
        x = final(adaptive_flow(RACE, counted, start, [1.0, T_MIN], rtol=tolerance, atol=tolerance))
        adaptive.append((calls, distance(x)))
    return found | {"w2": np.array(rows), "widths": np.array(widths), "adaptive": np.array(adaptive).T}


def divergence(step: Step, sde: SDE, times: Tensor) -> float:
    """KL in nats of the law that a chain started from the right one ends with."""
    p1, p0 = law_at(sde, gaussian(), 1.0), law_at(sde, gaussian(), T_MIN)
    return gaussian_divergence(
        affine_law(step, sde, gaussian(), times, start=Moments(p1.means[0], p1.covariances[0])), p0
    )


def orders(counts: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Root divergences of panels 4, [methods with a step, counts], and 5, [times, methods, counts]."""
    steps = {key: method for key, method in METHODS.items() if method.step is not None}
    made = {
        "uniform": lambda n: uniform_times(n, t_min=T_MIN),
        "geometric": lambda n: geometric_times(TIMED, n, t_min=T_MIN),
        "karras": lambda n: karras_times(TIMED, n, t_min=T_MIN),
    }
    return {
        "order": np.array(
            [
                [divergence(m.step, RACE, geometric_times(RACE, n // m.calls, t_min=T_MIN)) ** 0.5 for n in counts]
                for m in steps.values()
            ]
        ),
        "times": np.array(
            [
                [
                    [divergence(steps[key].step, TIMED, made[kind](n // steps[key].calls)) ** 0.5 for n in counts]
                    for key in COMPARED
                ]
                for kind in TIMES
            ]
        ),
    }


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Everything; panels 4 and 5 are determined."""
    generator = Generator().manual_seed(seed)
    counts, ladder, n = (COUNTS[: FEW + 1], ORDER[:2], 200) if quick else (COUNTS, ORDER, 6000)
    found = {"counts": np.array(counts), "ladder": np.array(ladder)} | orders(ladder)
    for name, p in toys().items():
        found |= {f"{name}.{key}": value for key, value in raced(p, counts, n, generator).items()}
    return found


def names(arrays: dict[str, np.ndarray]) -> list[str]:
    """Of the toys."""
    return [key.removesuffix(".w2") for key in arrays if key.endswith(".w2")]


def slopes(arrays: dict[str, np.ndarray]) -> dict[str, float]:
    """Orders of convergence, from the last two counts."""
    steps = [key for key, method in METHODS.items() if method.step is not None]
    ratio = np.log(arrays["ladder"][-1] / arrays["ladder"][-2])
    return {key: float(np.log(row[-2] / row[-1]) / ratio) for key, row in zip(steps, arrays["order"], strict=True)}


def reaches(arrays: dict[str, np.ndarray], toy: str) -> dict[str, int]:
    """Calls from which a sampler is within the band of exact samples, for those that come there."""
    top = arrays[f"{toy}.floor"].max()
    found = {}
    for key, row in zip(METHODS, arrays[f"{toy}.w2"], strict=False):
        inside = np.flatnonzero(row <= top)
        if len(inside):
            found[key] = int(arrays["counts"][inside[0]])
    return found


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Distances are within four standard deviations over seeds; orders and divergences are determined."""
    found = {}
    for toy in names(arrays):
        word = toy.split()[0]
        found[f"floor_{word}"] = (float(arrays[f"{toy}.floor"].mean()), 0.1)
        for key, row in zip(METHODS, arrays[f"{toy}.w2"], strict=False):
            found[f"{word}_{key}_few"] = (float(row[FEW]), 0.33 + 0.1 * float(row[FEW]))
        if toy == names(arrays)[1]:
            for key, row in zip(METHODS, arrays[f"{toy}.widths"], strict=False):
                found[f"width_{key}_few"] = (float(row[FEW]), 0.03 + 0.04 * float(row[FEW]))
        found[f"{word}_adaptive"] = (float(arrays[f"{toy}.adaptive"][1, 1]), 0.3)
        found[f"{word}_adaptive_calls"] = (float(arrays[f"{toy}.adaptive"][0, 1]), 60.0)
    for key, slope in slopes(arrays).items():
        found[f"order_{key}"] = (slope, 1e-3)
    for row, kind in zip(arrays["times"], TIMES, strict=True):
        for key, errors in zip(COMPARED, row, strict=True):
            found[f"times_{kind}_{key}"] = (float(errors[FEW]), 1e-4 * float(errors[FEW]))
    return found


def listed(words: Iterable[str]) -> str:
    """With "and" before the last."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def caption(arrays: dict[str, np.ndarray]) -> str:
    """The winners, what they cost, and the orders."""
    toys_, counts, methods = names(arrays), arrays["counts"], list(METHODS.values())
    first = [arrays[f"{toy}.w2"][:, 0] for toy in toys_]
    least = listed(f"{methods[row.argmin()].name}'s {row.min():.2f}" for row in first)
    blown = listed(f"{row[list(METHODS).index('euler_maruyama')]:.2g}" for row in first)
    there = [reaches(arrays, toy) for toy in toys_]
    soonest = [min(calls.values(), default=0) for calls in there]
    always = [key for key in METHODS if all(calls.get(key) == n for calls, n in zip(there, soonest, strict=True))]
    told = listed(METHODS[key].name for key in always) if always else "no sampler"
    widths = arrays[f"{toys_[1]}.widths"][:, FEW]
    narrow, wide = (f"{widths[k]:.2f} ({methods[k].name})" for k in (widths.argmin(), widths.argmax()))
    found = slopes(arrays)
    others = [slope for key, slope in found.items() if key not in ("heun", "euler_maruyama")]
    kinds = list(TIMES.values())
    best = arrays["times"].argmin(0)
    kind = int(np.bincount(best.ravel()).argmax())
    wins = "best" if (best == kind).all() else f"best {(best == kind).sum()} times in {best.size}"
    return (
        f"Sliced W2 distance to the data by calls of the exact score, on VE with equal ratios of sigma (1 to 3; grey: exact samples). At "
        f"{counts[0]} calls the least error is {least}, where Euler-Maruyama has {blown}; yet {told} {'are' if len(always) > 1 else 'is'} "
        f"among the first not to be told from exact samples on all three, at {listed(map(str, soonest))} calls. At {counts[FEW]} calls the "
        f"modes of {toys_[1]} are {narrow} to {wide} times as wide as they should be (6). Order on a Gaussian (4): Heun "
        f"{found['heun']:.2f}, the others {min(others):.2f} to {max(others):.2f}; Euler-Maruyama's {found['euler_maruyama']:.2f} is an "
        f"accident of Gaussian data on VE. Of three kinds of times on VP, {kinds[kind][1]} are {wins} (5)."
    )


def calls_axis(ax: Axes, counts: np.ndarray) -> None:
    """Calls of the score."""
    ax.set(xscale="log", xlim=(counts[0] / 1.25, counts[-1] * 1.25), xlabel="calls of the score")
    ax.set_xticks(counts, [str(n) for n in counts])
    ax.minorticks_off()


def race_panel(ax: Axes, arrays: dict[str, np.ndarray], toy: str, number: int) -> None:
    """Distances against calls."""
    told = []
    pairs = [(arrays["counts"], row) for row in arrays[f"{toy}.w2"]] + [tuple(arrays[f"{toy}.adaptive"])]
    for (calls, row), method in zip(pairs, METHODS.values(), strict=True):
        ax.plot(
            calls,
            row,
            method.line,
            color=method.colour,
            marker=method.marker,
            markersize=10 if method.marker == "*" else 7,
            linewidth=1.8,
            label=method.name,
        )
        told.append(f"{method.name} {row[0]:.2g} at {calls[0]:.0f} to {row[-1]:.2g} at {calls[-1]:.0f}")
    floor = arrays[f"{toy}.floor"]
    ax.axhspan(floor.min(), floor.max(), color="0.82", linewidth=0, label="exact samples" if number == 1 else None)
    calls_axis(ax, arrays["counts"])
    ax.set_xlim(arrays["counts"][0] / 1.25, max(arrays["counts"][-1], arrays[f"{toy}.adaptive"][0].max()) * 1.25)
    ax.set(yscale="log", ylim=(0.04, 40), title=f"{number}  {toy}")
    ax.set_gid(f"Sliced W2: {'; '.join(told)}; pairs of exact samples {floor.min():.2g} to {floor.max():.2g}.")


def order_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Roots of divergences, with guides of slope one and two."""
    found = slopes(arrays)
    for key, row in zip(found, arrays["order"], strict=True):
        method = METHODS[key]
        ax.plot(
            arrays["ladder"], row, method.line, color=method.colour, marker=method.marker, markersize=7, linewidth=1.8
        )
    x = arrays["ladder"][[0, -1]].astype(float)
    for power, height in ((1, 4.0), (2, 1.2e-2)):
        ax.plot(x, height * (x / x[0]) ** -power, color="0.6", linewidth=1, linestyle=(0, (8, 4)))
        ax.text(x[1] * 1.05, height * (x[1] / x[0]) ** -power, f"{power}", color="0.35", va="center", fontsize=11)
    calls_axis(ax, arrays["ladder"])
    ax.set(
        yscale="log",
        ylim=(1e-5, 10),
        ylabel=r"$\sqrt{\mathrm{KL}}$ from the exact law",
        title="4  order on a Gaussian, VE",
    )
    ax.set_gid("Order of convergence: " + "; ".join(f"{METHODS[key].name} {v:.2f}" for key, v in found.items()) + ".")


def times_look(kind: str, marker: str, colour: str) -> dict[str, object]:
    """Marks of a kind of times: lines and colours tell the samplers, so fillings tell the times; a cross shows in an open mark."""
    if kind == "x":
        return {"marker": "x", "color": colour, "markersize": 5.5, "markeredgewidth": 1.6, "zorder": 4}
    face = "white" if kind == "open" else colour
    return {"marker": marker, "color": colour, "markersize": 9, "markerfacecolor": face, "zorder": 3}


def times_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Roots of divergences by the kind of times."""
    told = []
    for (kind, words), table in zip(TIMES.values(), arrays["times"], strict=True):
        for key, row in zip(COMPARED, table, strict=True):
            method = METHODS[key]
            look = times_look(kind, method.marker, method.colour)
            ax.plot(arrays["ladder"], row, linestyle=method.line, linewidth=1.6, **look)
            told.append(f"{method.name}, {words} {row[0]:.2g} to {row[-1]:.2g}")
    handles = [
        plt.Line2D([], [], linestyle="", label=words, **times_look(kind, "o", "black"))
        for kind, words in TIMES.values()
    ]
    ax.legend(handles=handles, loc="lower left", fontsize=11)
    calls_axis(ax, arrays["ladder"])
    ax.set(yscale="log", ylim=(1e-5, 10), title="5  the kind of times, VP")
    ax.set_gid(f"Root of the KL at {arrays['ladder'][0]} to {arrays['ladder'][-1]} calls: {'; '.join(told)}.")


def width_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Widths of the second toy's modes over the exact one."""
    toy = names(arrays)[1]
    told = []
    for method, row in zip(METHODS.values(), arrays[f"{toy}.widths"], strict=False):
        ax.plot(
            arrays["counts"], row, method.line, color=method.colour, marker=method.marker, markersize=7, linewidth=1.8
        )
        told.append(f"{method.name} {row[0]:.2f} to {row[-1]:.2f}")
    ax.axhline(1, color="0.5", linewidth=1.4)
    calls_axis(ax, arrays["counts"])
    ax.set(ylim=(0.85, 1.9), ylabel="width of a mode / exact", title=f"6  {toy}: width of modes")
    ax.set_gid(f"Widths over the exact one: {'; '.join(told)}.")


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """Above, the races with their one legend; below, orders, times, and a mode."""
    with plt.rc_context(plotting.STYLE):
        figure = plt.figure(figsize=(14.4, 10.4), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        above, below = figure.subfigures(2, 1, height_ratios=[5.4, 5])
        panels = above.subplots(1, 3, sharey=True)
        for number, (ax, toy) in enumerate(zip(panels, names(arrays), strict=True), 1):
            race_panel(ax, arrays, toy, number)
        panels[0].set_ylabel("sliced W2, units of x")
        above.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
        first, second, third = below.subplots(1, 3)
        order_panel(first, arrays)
        times_panel(second, arrays)
        width_panel(third, arrays)
    return figure
