r"""Data to noise and back, by VE and by VP: one bundle of curves, two clocks. Source: song2021, Figure 2.

Three unequal modes on a line, so that everything is known. Time runs to the right: forward from data to noise, then backward from the
prior to data. Colours are the exact density; rough lines are paths of the forward and of the reverse SDE (with the exact score), smooth
ones the probability flow. The variance of VE explodes, so x is divided by the standard deviation of x_t, which stands above each panel.

*One bundle.* In these units both rows are one picture, stretched along time: x over its standard deviation depends on sigma = s / alpha
alone. Below it is drawn against sigma for three processes, each solved in its own x and t. On a line the flow keeps ranks, so its curves
are the quantiles of p_t; that is how they are checked, against a law that no solver had a part in.

*What is judged.* Reverse samples by the largest difference of their distribution function from the exact one, whose law for n exact samples
is Kolmogorov's: 0.87 / sqrt(n) on average, and 1.36 / sqrt(n) once in twenty. Forward paths by the mean and variance of their noise.
"""

from __future__ import annotations

from typing import Any

import matplotlib.patheffects as effects
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp
from scipy.stats import kstwobign, norm

from toyscore import plotting
from toyscore.distributions import GaussianMixture
from toyscore.metrics import mode_weight_errors, mode_weights
from toyscore.samplers import diffuse, reverse_sde
from toyscore.sde import SDE, VE, VP, SubVP, law_at, noise_level, reverse_drift, uniform_times

PROCESSES: dict[str, SDE] = {"VE": VE(), "VP": VP(), "sub-VP": SubVP()}
ROWS = ("VE", "VP")  # drawn along time; sub-VP has no picture of its own
WIDTHS = {"ve": 5.0, "vp": 2.6, "subvp": 1.6}  # of their lines, which lie on each other
N_STEPS = 1000
ENDS = (0.01, 50.0)  # noise levels that all processes have
N_LEVELS = 161  # between them
MARKED = (0.0, 0.25, 0.5, 0.75, 1.0)  # times whose standard deviation is told
PATH = "#FF9A4D"  # of the SDEs: light on the map, and in grey
T_MIN = 1e-3  # where VP and sub-VP are stopped, and VE too, for the same picture
RANKS = np.array([0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98])
CHECKED = (0.1, 0.3, 0.5, 0.7, 0.9)  # times at which forward noise is measured
N_PATHS = 5
KEPT = 45  # paths of which those are shown whose clean ends are evenly spaced in rank
REACH = 3.0  # of x over its standard deviation
CELLS = (201, 241)  # of the map, along t and along x
BINS = 80
POWER = 0.75  # of the density that is coloured, so that the prior stays visible beside the data
LEVEL = 0.05  # of the test by Kolmogorov


def mixture() -> GaussianMixture:
    """What the figure is about: change it and every number follows."""
    return GaussianMixture([[-1.4], [0.2], [1.5]], [0.03, 0.01, 0.06], [0.35, 0.2, 0.45])


def cdf(p: GaussianMixture, x: np.ndarray) -> np.ndarray:
    """The distribution function of a mixture on the line, at x [B]."""
    std = p.covariances[:, 0, 0].sqrt()
    return norm.cdf(x[:, None], p.means[:, 0].numpy(), std.numpy()) @ p.weights.numpy()


def std_at(sde: SDE, t: float) -> float:
    """The standard deviation of x_t."""
    return float(law_at(sde, mixture(), t).covariance[0, 0]) ** 0.5


def farthest(x: np.ndarray, p: GaussianMixture) -> float:
    """The largest difference between the distribution function of samples [n] and that of p."""
    x = np.sort(x)
    exact, n = cdf(p, x), len(x)
    return float(max((np.arange(1, n + 1) / n - exact).max(), (exact - np.arange(n) / n).max()))


def levels(sde: SDE) -> np.ndarray:
    """Noise levels, ascending, of which the first ``N_LEVELS`` are the same for all processes."""
    last = float(noise_level(sde, 1.0))
    beyond = np.geomspace(ENDS[1], last, 25)[1:] if last > 1.01 * ENDS[1] else np.empty(0)
    return np.append(np.geomspace(*ENDS, N_LEVELS), beyond)


def flow(sde: SDE) -> tuple[np.ndarray, np.ndarray]:
    """The curves [L, len(RANKS)] of the flow in x, from the quantiles of p_t at the least of ``levels``, and their times [L].

    The equation is solved as it is printed, with the drift and diffusion of the process, by a method of order eight.
    """
    p = mixture().to(dtype=torch.float64)
    times = sde.time(torch.from_numpy(levels(sde))).clamp(max=1.0).numpy()
    start = law_at(sde, p, times[0])
    fine = np.linspace(-6, 6, 100_001) * float(start.covariance[0, 0]) ** 0.5
    quantiles = np.interp(RANKS, cdf(start, fine), fine)

    def rate(t: float, x: np.ndarray) -> np.ndarray:
        return reverse_drift(sde, p.score, torch.from_numpy(x)[:, None], t, noise=0.0)[:, 0].numpy()  # Eq. (13)

    solved = solve_ivp(rate, times[[0, -1]], quantiles, "DOP853", times, rtol=1e-9, atol=1e-9)
    return times, solved.y.T


def spaced(x: torch.Tensor) -> torch.Tensor:
    """Of the first ``KEPT`` of x [n, 1], the indices of ``N_PATHS`` that are evenly spaced in rank."""
    return x[:KEPT, 0].argsort()[KEPT // N_PATHS // 2 :: KEPT // N_PATHS]


def process(name: str, n: int, generator: torch.Generator) -> dict[str, np.ndarray]:
    """The map of the density, paths, curves of the flow, and what is measured on n paths each way."""
    sde, p = PROCESSES[name], mixture()
    u = torch.linspace(-REACH, REACH, CELLS[1])
    stds = np.array([std_at(sde, t) for t in np.linspace(0, 1, CELLS[0])])
    density = [
        (law_at(sde, p, t).log_prob(std * u[:, None]).exp() * std).numpy()
        for t, std in zip(np.linspace(0, 1, CELLS[0]), stds.tolist(), strict=True)
    ]

    data, (alpha, std) = p.sample(n, generator=generator), sde.marginal(0.0)
    x = alpha * data + std * torch.randn(n, 1, generator=generator)  # at t = 0 VE has some noise
    shown = spaced(x)
    times = torch.linspace(0, 1, N_STEPS + 1)
    marks = {round(t * N_STEPS): t for t in CHECKED}
    forward, noise = [x[shown]], []
    for k, state in enumerate(diffuse(sde, x, times, generator=generator), 1):
        forward.append(state[shown])
        if k in marks:
            alpha, std = sde.marginal(marks[k])
            z = (state - alpha * data) / std  # N(0, 1), whatever the data
            noise.append([float(z.mean()) * n**0.5, (float(z.var()) - 1) / (2 / n) ** 0.5])

    prior = sde.prior_sample((n, 1), generator=generator)
    reverse = [prior[:KEPT]]
    for x in reverse_sde(sde, p.score, prior, uniform_times(N_STEPS, t_min=T_MIN), generator=generator):
        reverse.append(x[:KEPT])
    end = law_at(sde, p, T_MIN)
    times, curves = flow(sde)
    laws = [law_at(sde, p.to(dtype=torch.float64), t) for t in times.tolist()]
    wide = np.linspace(-REACH, REACH, 2001) * sde.prior_std
    return {
        "density": np.stack(density, 1),
        "stds": stds,
        "forward": torch.stack(forward)[..., 0].numpy(),
        "reverse": torch.stack(reverse)[:, spaced(x), 0].numpy(),
        "noise": np.array(noise),
        "samples": x[:, 0].numpy() / end.covariance[0, 0].sqrt().numpy(),
        "farthest": np.array(farthest(x[:, 0].numpy(), end)),
        "shares": torch.stack([mode_weights(x, end), mode_weight_errors(x, end)]).numpy(),
        "prior": np.array(np.abs(norm.cdf(wide / sde.prior_std) - cdf(law_at(sde, p, 1.0), wide)).max()),
        "times": times,
        "curves": curves,
        "curve_stds": np.array([float(law.covariance[0, 0]) ** 0.5 for law in laws]),
        "ranks": np.stack([cdf(law, x) for law, x in zip(laws, curves, strict=True)]),
    }


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Each process, one after the other, from one generator."""
    generator, n = torch.Generator().manual_seed(seed), 500 if quick else 20_000
    found = {name: process(name, n, generator) for name in PROCESSES}
    return {f"{name}.{key}": value for name, arrays in found.items() for key, value in arrays.items()}


def apart(arrays: dict[str, np.ndarray]) -> float:
    """The largest difference between the curves of two processes at one sigma, in standard deviations of x_t."""
    u = np.stack([(arrays[f"{name}.curves"] / arrays[f"{name}.curve_stds"][:, None])[:N_LEVELS] for name in PROCESSES])
    return float(np.ptp(u, axis=0).max())


def ranks_kept(arrays: dict[str, np.ndarray]) -> float:
    """The largest change of a rank along a curve of any process."""
    return max(float(np.abs(arrays[f"{name}.ranks"] - RANKS).max()) for name in PROCESSES)


def largest(arrays: dict[str, np.ndarray], key: str) -> float:
    """Over processes, in standard errors: of the moments of forward noise, or of the shares of modes."""
    if key == "noise":
        return max(float(np.abs(arrays[f"{name}.noise"]).max()) for name in PROCESSES)
    exact = mixture().weights.numpy()
    return max(
        float((np.abs(mean - exact) / error).max()) for mean, error in (arrays[f"{n}.shares"] for n in PROCESSES)
    )


def unit_time(name: str) -> float:
    """When the noise is as wide as the data."""
    return float(PROCESSES[name].time(float(mixture().covariance[0, 0]) ** 0.5))


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Distances and shares of reverse samples, moments of forward noise, and what the flow keeps.

    Distances by five standard deviations of Kolmogorov's law, shares by five standard errors, the largest misses by four of theirs over
    seeds. The rest is determined, what the flow keeps up to the tolerance of its solver.
    """
    found, n = {}, len(arrays["VE.samples"])
    for name in PROCESSES:
        found[f"farthest_{name}"] = (float(arrays[f"{name}.farthest"]), 5 * float(kstwobign.std()) / n**0.5)
        found[f"prior_{name}"] = (float(arrays[f"{name}.prior"]), 1e-5)
        found[f"sigma_at_1_{name}"] = (float(noise_level(PROCESSES[name], 1.0)), 0.01)
        found[f"unit_time_{name}"] = (unit_time(name), 1e-4)
        for k in range(len(mixture().weights)):
            mean, error = arrays[f"{name}.shares"][:, k]
            found[f"share_{k}_{name}"] = (float(mean), 5 * float(error))
    found["noise_in_errors"] = (largest(arrays, "noise"), 1.2)
    found["shares_in_errors"] = (largest(arrays, "shares"), 1.7)
    found["rank_changes"] = (ranks_kept(arrays), 1e-6)
    found["processes_apart"] = (apart(arrays), 1e-6)
    return found


def caption(arrays: dict[str, np.ndarray]) -> str:
    """What reverse samples are worth, what forward paths do, and that the flow is one."""
    n, p = len(arrays["VE.samples"]), mixture()
    each = lambda key, form: ", ".join(f"{arrays[f'{name}.{key}']:{form}}" for name in PROCESSES)  # noqa: E731
    return (
        f"{', '.join(PROCESSES)}, with the exact score of {len(p.weights)} unequal modes; x is divided by its standard deviation. At the "
        f"sides: grey, data and prior; orange, samples, as the paths; blue, exact densities. Of {n:,} samples each from the prior by the "
        f"reverse SDE ({N_STEPS:,} Euler steps) the distribution function is off by at most {each('farthest', '.4f')}, where exact samples "
        f"give {float(kstwobign.mean()) / n**0.5:.4f} on average. The probability flow, solved in each process's own x and t, keeps every "
        f"rank to {ranks_kept(arrays):.0e}; at one sigma the processes are at most {apart(arrays):.0e} standard deviations apart: one "
        f"bundle of curves. What differs is the clock: noise is as wide as the data at "
        f"{', '.join(f't = {unit_time(name):.2f}' for name in PROCESSES)}."
    )


RIM: dict[str, Any] = {"path_effects": [effects.Stroke(linewidth=2.6, foreground="black"), effects.Normal()]}


def map_panel(ax: Axes, arrays: dict[str, np.ndarray], name: str, direction: str, top: float) -> None:
    """The density, paths of one direction, and the flow; time to the right, so it falls in a reverse panel."""
    density, stds = arrays[f"{name}.density"], arrays[f"{name}.stds"]
    t = np.linspace(0, 1, len(stds))
    extent = (0, 1, -REACH, REACH)
    ax.imshow(
        density**POWER,
        extent=extent,
        cmap=plotting.DENSITY_MAP,
        vmin=0,
        vmax=top**POWER,
        aspect="auto",
        interpolation="bilinear",
    )
    curves = arrays[f"{name}.curves"] / arrays[f"{name}.curve_stds"][:, None]
    paths = arrays[f"{name}.{direction}"]
    at = np.linspace(0, 1, len(paths)) if direction == "forward" else np.linspace(1, T_MIN, len(paths))
    ax.plot(at, paths / np.interp(at, t, stds)[:, None], color=PATH, linewidth=0.9)
    ax.plot(arrays[f"{name}.times"], curves, color="white", linewidth=1.4, **RIM)
    ax.set(xlim=(0, 1) if direction == "forward" else (1, 0), ylim=(-REACH, REACH), xticks=MARKED)
    ax.set_xticklabels([f"{m:g}" for m in MARKED])
    above = ax.secondary_xaxis("top")
    above.set_xticks(MARKED, [f"{s:.3g}" for s in np.interp(MARKED, t, stds)])
    ends = "; ".join(f"{m:g}: {s:.3g}" for m, s in zip(MARKED, np.interp(MARKED, t, stds), strict=True))
    ax.set_gid(
        f"{name}, {direction}: density of x over its standard deviation, at most {density[:, 0].max():.2f} at t = 0 and "
        f"{density[:, -1].max():.2f} at t = 1, {N_PATHS} paths and {len(RANKS)} curves of the flow. "
        f"Standard deviation of x by time: {ends}."
    )


def side_panel(ax: Axes, density: np.ndarray, top: float, name: str, samples: np.ndarray | None = None) -> None:
    """A density, upright; samples as a histogram."""
    u = np.linspace(-REACH, REACH, len(density))
    ax.fill_betweenx(u, density, color="0.8", linewidth=0) if samples is None else None
    if samples is not None:
        ax.hist(
            samples,
            bins=BINS,
            range=(-REACH, REACH),
            density=True,
            orientation="horizontal",
            color=PATH,
            alpha=0.55,
            linewidth=0,
        )
    ax.plot(density, u, color=plotting.ROLES["truth"].colour, linewidth=1.8)
    ax.set(xlim=(0, 1.05 * top), ylim=(-REACH, REACH), xticks=[], xlabel=name)
    ax.spines[["top", "right", "bottom"]].set_visible(False)


def bundle_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """The curves of all processes against sigma."""
    for look, width in ((plotting.ROLES[role], width) for role, width in WIDTHS.items()):
        name = look.name
        u = arrays[f"{name}.curves"] / arrays[f"{name}.curve_stds"][:, None]
        drawn = ax.plot(levels(PROCESSES[name]), u, look.line, color=look.colour, linewidth=width)
        drawn[0].set_label(name)
    ax.set(
        xscale="log",
        xlim=(ENDS[0], 320),
        ylim=(-REACH, REACH),
        xlabel=r"noise level $\sigma=s_t/\alpha_t$, units of the data",
    )
    ax.set(ylabel=r"$x_t$ / its std", title=r"against $\sigma$ the flow is one bundle: the quantiles of $p_t$")
    for rank, height in zip(RANKS, u[-1], strict=True):
        ax.text(1.1 * levels(PROCESSES[name])[-1], height, f"{rank:.0%}", fontsize=11, va="center")
    ax.legend(loc="upper left", fontsize=12, ncols=3)
    ax.set_gid(
        f"{len(RANKS)} curves of each of {len(PROCESSES)} processes; at one sigma at most {apart(arrays):.0e} apart."
    )


def clock_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Sigma against time."""
    for look, width in ((plotting.ROLES[role], max(width, 2.2)) for role, width in WIDTHS.items()):
        form = {"color": look.colour, "linewidth": width, "label": look.name}
        ax.plot(arrays[f"{look.name}.times"], levels(PROCESSES[look.name]), look.line, **form)
    unit = float(mixture().covariance[0, 0]) ** 0.5
    ax.axhline(unit, color="0.45", linewidth=1.2)
    ax.text(0.02, unit * 1.2, "std of the data", fontsize=12)
    ax.set(yscale="log", xlim=(0, 1), ylim=(ENDS[0], 200), xlabel="time t", ylabel=r"noise level $\sigma$")
    ax.set_title("what differs is the clock")
    ax.legend(loc="lower right", fontsize=12)
    told = "; ".join(
        f"{name} t = {unit_time(name):.3f}, at the end sigma = {noise_level(PROCESSES[name], 1.0):.0f}"
        for name in PROCESSES
    )
    ax.set_gid(f"Noise level by time; as wide as the data at: {told}.")


def row(figure: Any, arrays: dict[str, np.ndarray], name: str, top: float) -> None:
    """One process: data, forward, prior, reverse, data."""
    axes = figure.subplots(1, 5, sharey=True, width_ratios=[1, 5.5, 1, 5.5, 1])
    density = arrays[f"{name}.density"]
    map_panel(axes[1], arrays, name, "forward", top)
    map_panel(axes[3], arrays, name, "reverse", top)
    side_panel(axes[0], density[:, 0], top, "data")
    side_panel(axes[2], norm.pdf(np.linspace(-REACH, REACH, len(density))), top, "prior")
    side_panel(axes[4], density[:, 0], top, "samples", arrays[f"{name}.samples"])
    axes[0].invert_xaxis()
    for ax in axes[[0, 2]]:
        at, side = (1, "right") if ax is axes[0] else (0.5, "center")
        above = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "baseline", "ha": side}
        ax.annotate("std of $x_t$:", (at, 1), (0, 6), fontsize=12, **above)  # what the ticks beside it are, no title
    axes[0].spines["left"].set_visible(False)
    axes[0].spines["right"].set_visible(True)
    axes[0].set_ylabel(r"$x_t$ / its std")
    axes[1].set(xlabel="time t", title=f"{name}, forward: SDE (rough), flow (smooth)")
    axes[3].set(xlabel="time t, falling", title=f"{name}, reverse: SDE from the prior, flow")


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """A row for each of two processes, and below what three have in common."""
    with plt.rc_context(plotting.STYLE | {"font.size": 13.0}):
        figure = plt.figure(figsize=(14, 12.5), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.04, h_pad=0.06)
        parts = figure.subfigures(3, 1, height_ratios=[1, 1, 1])
        top = max(float(arrays[f"{name}.density"].max()) for name in ROWS)
        for part, name in zip(parts, ROWS, strict=False):
            row(part, arrays, name, top)
        bundle, clock = parts[2].subplots(1, 2, width_ratios=[1.6, 1])
        bundle_panel(bundle, arrays)
        clock_panel(clock, arrays)
    return figure
