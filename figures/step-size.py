r"""What a finite step does, to the last digit. Source: song2020, Proposition 3; song2019, Sec. 4.3.

1. *The price of a step.* On N(0, v) a chain of step size epsilon settles at the variance v / (1 - epsilon / 4v), always above v. From
   epsilon = 4v on it settles nowhere: ``langevin`` notices and raises DivergenceError. Crosses are measured, and so are the two
   large markers: they are the axes of panel 2, and lie on the same curve.
2. *Every direction has its own v.* One step size for a tilted Gaussian: along the wide axis the chain is nearly right, along the narrow
   one it is far too wide. The narrowest direction bounds the step; with a step that suits it, the widest needs the most of them.
3. *Why annealing takes steps proportional to sigma².* The push of a step against its noise, level by level, for three rules that agree
   at the first level. Above the dashed curve a chain diverges: each level there has its own bound, 4 times its least variance. Steps
   proportional to sigma² keep the ratio alike until sigma is smaller than the modes themselves; the others do not.
4. *How many steps forget the start.* A level begins with the variance of the one above, gamma² v. The fastest step, epsilon = 2v,
   forgets it at once, and settles at twice the variance. Small steps end nearer the truth, and later. Crosses are measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from toyscore import plotting
from toyscore.diagnostics import (
    epsilon_from_eta,
    measured_variance,
    relaxed_variance,
    signal_to_noise,
    stability_bound,
    stationary_variance,
)
from toyscore.distributions import GaussianMixture, two_modes
from toyscore.noise import geometric
from toyscore.operators import DivergenceError
from toyscore.samplers import final, langevin

VARIANCE = 0.25  # v of panels 1 and 4; they show ratios to it, which are alike for any
STEPS = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 3.8)  # over v
SHOWN = 3.0  # the one that the caption tells
STEP_BEYOND = 5.0  # over v: past the bound of 4, far enough to be caught within a hundred states
AXES = (4.0, 0.25)  # variances of the tilted Gaussian along its principal axes
ANGLE = math.pi / 6
PLANE_STEP = 0.75  # 3 times the narrow variance: still stable, and four times too wide
BOX = 6.0  # three standard deviations of the wide axis
LEVELS = (20.0, 1.0, 10)  # the paper's toy
N_LOWER = 6  # levels more, below the modes' own standard deviation
EPSILON = 0.1  # the paper's toy: the step at its last level, for steps proportional to sigma²
RULES = {"squared": 2, "linear": 1, "constant": 0}  # the power of sigma
RELAXING = (0.02, 0.1, 0.5, 2.0)  # over v
LONGEST = 400  # steps of panel 4, enough for the slowest
FORGOTTEN = 0.01  # of the start's excess is left
ETA = 2e-5  # a published step size, in the convention of much code
PREDICTED, MEASURED = "0.15", plotting.ROLES["plain"]
LINES = {  # of the rules: colour, line, marker, words
    "squared": (plotting.ROLES["annealed"].colour, "-", plotting.ROLES["annealed"].marker, r"$\propto\sigma^2$"),
    "linear": ("#E69F00", "--", "s", r"$\propto\sigma$"),
    "constant": ("#D55E00", ":", "v", "constant"),
}


def mixture() -> GaussianMixture:
    """What panel 3 is about: change it and every number follows."""
    return two_modes()


def tilted() -> tuple[GaussianMixture, Tensor]:
    """The Gaussian of panel 2, and its principal axes, one a column: the wide one first."""
    c, s = math.cos(ANGLE), math.sin(ANGLE)
    axes = torch.tensor([[c, -s], [s, c]])
    return GaussianMixture(torch.zeros(1, 2), ((axes * torch.tensor(AXES)) @ axes.mT)[None]), axes


def ladder() -> Tensor:
    """The levels of the paper's toy, and a few below them of the same ratio."""
    lower = geometric(LEVELS[1], LEVELS[1] * ratio() ** -N_LOWER, N_LOWER + 1)
    return torch.cat([geometric(*LEVELS), lower[1:]])


def ratio() -> float:
    """Gamma, of a level to the next lower."""
    return (LEVELS[0] / LEVELS[1]) ** (1 / (LEVELS[2] - 1))


def settled(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Panel 1: the variance that chains settle at, started from the law they should have; and where one beyond the bound stops."""
    n_chains, n_steps = (100, 50) if quick else (512, 2000)
    generator = torch.Generator().manual_seed(seed)
    p = GaussianMixture([[0.0]], VARIANCE)
    found = []
    for step in STEPS:
        start = torch.randn(n_chains, 1, generator=generator) * stationary_variance(VARIANCE, step * VARIANCE) ** 0.5
        chain = langevin(p.score, start, step_size=step * VARIANCE, n_steps=n_steps, generator=generator)
        measured = measured_variance(chain)
        found.append([float(measured.value) / VARIANCE, float(measured.error) / VARIANCE])
    start, n = p.sample(n_chains, generator=generator), 0
    try:
        for _ in langevin(p.score, start, step_size=STEP_BEYOND * VARIANCE, n_steps=1000, generator=generator):
            n += 1
        raise RuntimeError(f"a step of {STEP_BEYOND} v did not diverge in {n} steps: it must lie above 4")
    except DivergenceError:
        stopped = n + 1
    predicted = [stationary_variance(VARIANCE, step * VARIANCE) / VARIANCE for step in STEPS]
    return {"settled": np.array(found), "predicted": np.array(predicted), "stopped": np.array(stopped)}


def plane(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Panel 2: samples of the chain and of the law, and the chain's variance along each axis."""
    n_chains, n_steps = (100, 50) if quick else (500, 4000)
    generator = torch.Generator().manual_seed(seed)
    p, axes = tilted()
    options = {"step_size": PLANE_STEP, "generator": generator}
    start = final(langevin(p.score, p.sample(n_chains, generator=generator), n_steps=n_steps // 10, **options))
    last = start

    def along(chain: Iterator[Tensor]) -> Iterator[Tensor]:
        nonlocal last
        for last in chain:
            yield last @ axes

    measured = measured_variance(along(langevin(p.score, start, n_steps=n_steps, **options)))
    predicted = stationary_variance(torch.tensor(AXES), PLANE_STEP)
    return {
        "samples.truth": p.sample(n_chains, generator=generator).numpy(),
        "samples.plain": last.contiguous().numpy(),
        "plane.measured": torch.stack([measured.value, measured.error]).numpy(),
        "plane.predicted": predicted.numpy(),
    }


def levels(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Panel 3: each rule's ratio of signal to noise at each level, and the ratio at which the narrowest mode diverges."""
    n = 500 if quick else 40000
    generator = torch.Generator().manual_seed(seed)
    p, sigmas = mixture(), ladder()
    least = float(torch.linalg.eigvalsh(p.covariances).min())
    first = EPSILON * (LEVELS[0] / LEVELS[1]) ** 2
    ratios: dict[str, list[float]] = {rule: [] for rule in (*RULES, "bound")}
    for sigma in sigmas.tolist():
        x = p.perturb(sigma).sample(n, generator=generator)
        for rule, power in RULES.items():
            ratios[rule].append(signal_to_noise(p.score, x, sigma, first * (sigma / LEVELS[0]) ** power))
        ratios["bound"].append(signal_to_noise(p.score, x, sigma, stability_bound(least + sigma**2)))
    found = {f"ratios.{rule}": np.array(values) for rule, values in ratios.items()}
    return found | {"sigmas": sigmas.double().numpy(), "narrowest": np.array(least**0.5)}


def relaxing(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Panel 4: the variance after n steps from gamma² v, predicted at each n and measured at a few."""
    n_chains = 500 if quick else 40000
    generator = torch.Generator().manual_seed(seed)
    p, start = GaussianMixture([[0.0]], VARIANCE), ratio() ** 2
    kept = np.unique(np.geomspace(1, LONGEST, 12).round().astype(int))
    found, predicted = [], []
    for step in RELAXING:
        x = torch.randn(n_chains, 1, generator=generator) * (start * VARIANCE) ** 0.5
        chain = langevin(p.score, x, step_size=step * VARIANCE, n_steps=LONGEST, generator=generator)
        measured = [measured_variance([state]) for n, state in enumerate(chain, 1) if n in kept]
        found.append([[float(m.value) / VARIANCE, float(m.error) / VARIANCE] for m in measured])
        predicted.append([start] + [relaxed_variance(start, 1.0, step, n) for n in range(1, LONGEST + 1)])
    return {"relaxed": np.array(predicted), "relaxed.measured": np.array(found), "relaxed.kept": kept}


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """All four panels, each from its own generator."""
    return settled(seed, quick) | plane(seed, quick) | levels(seed, quick) | relaxing(seed, quick)


def spread(arrays: dict[str, np.ndarray], rule: str) -> float:
    """Largest over least ratio of signal to noise, over the levels of the paper's toy."""
    ratios = arrays[f"ratios.{rule}"][: LEVELS[2]]
    return float(ratios.max() / ratios.min())


def forgets(arrays: dict[str, np.ndarray], row: int) -> int:
    """Steps until the start's excess is all but gone."""
    settles = stationary_variance(1.0, RELAXING[row])
    excess = np.abs(arrays["relaxed"][row] - settles)
    return int((excess <= FORGOTTEN * excess[0]).argmax())


TOLERANCES = {"squared": 0.06, "linear": 0.35, "constant": 7.0}


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Predicted and measured variances, the spreads of the rules, and steps until the start is forgotten.

    Predictions are determined. Measured variances may differ by 3 %, five standard deviations of the worst, and spreads by ``TOLERANCES``,
    five of theirs (``run.py --spread 6``). Chains are looked at every 16 states, which is how far the place of a divergence may move.
    """
    found = {}
    for k, step in enumerate(STEPS):
        found[f"variance_at_{step:g}_v"] = (float(arrays["predicted"][k]), 1e-6)
        found[f"variance_at_{step:g}_v_measured"] = (float(arrays["settled"][k, 0]), 0.03 * arrays["predicted"][k])
    found["state_of_the_divergence"] = (float(arrays["stopped"]), 16.0)
    for k, name in enumerate(("wide", "narrow")):
        found[f"{name}_axis"] = (float(arrays["plane.predicted"][k]), 1e-6)
        found[f"{name}_axis_measured"] = (
            float(arrays["plane.measured"][0, k]),
            0.03 * float(arrays["plane.predicted"][k]),
        )
    for rule in RULES:
        found[f"spread_{rule}"] = (spread(arrays, rule), TOLERANCES[rule])
    for row, step in enumerate(RELAXING):
        found[f"forgets_at_{step:g}_v"] = (float(forgets(arrays, row)), 0.0)
    found["epsilon_of_the_published_eta"] = (epsilon_from_eta(ETA), 1e-12)
    return found


def caption(arrays: dict[str, np.ndarray]) -> str:
    """What a step costs in one dimension and in two, what keeps levels alike, and what forgets the start."""
    k = STEPS.index(SHOWN)
    wide, narrow = arrays["plane.measured"][0] / AXES
    spreads = [f"{spread(arrays, rule):.3g}" for rule in RULES]
    fastest = len(RELAXING) - 1
    return (
        f"On N(0, v) a chain of step size {STEPS[k]:g} v settles at the variance {arrays['predicted'][k]:.2f} v (measured "
        f"{arrays['settled'][k, 0]:.2f} ± {arrays['settled'][k, 1]:.2f}), and one of {STEP_BEYOND:g} v is stopped by a DivergenceError at "
        f"state {arrays['stopped']}; on a tilted Gaussian the step size {PLANE_STEP:g} leaves {narrow:.2f} times the variance along the "
        f"narrow axis and {wide:.2f} times along the wide one. "
        f"From sigma = {LEVELS[0]:g} to {LEVELS[1]:g} on a mixture of {len(mixture().weights)} modes the ratio of signal to noise "
        f"varies by a factor of {spreads[0]} with steps proportional to sigma², {spreads[1]} with sigma, "
        f"{spreads[2]} with a constant step. "
        f"Forgetting {1 - FORGOTTEN:.0%} of a start at {ratio() ** 2:.2f} v takes {forgets(arrays, 0)} steps of {RELAXING[0]:g} v and "
        f"{forgets(arrays, fastest)} of {RELAXING[fastest]:g} v, which settles at {stationary_variance(1.0, RELAXING[fastest]):.0f} v."
    )


def draw_settled(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Variance against step size, the bound, and what lies beyond."""
    steps = np.linspace(0.02, 3.97, 400)
    bound = stability_bound(1.0)
    curve = stationary_variance(torch.ones(400, dtype=torch.float64), torch.as_tensor(steps))
    ax.plot(steps, curve.numpy(), color=PREDICTED, lw=2, label=r"predicted, $v/(1-\epsilon/4v)$")
    values, errors = arrays["settled"].T
    ax.errorbar(
        STEPS,
        values,
        errors,
        color=MEASURED.colour,
        fmt="x",
        ms=9,
        mew=2.2,
        capsize=4,
        label="measured ± std. error",
        zorder=3,
    )
    scaled = PLANE_STEP / np.array(AXES)
    for k, (marker, name) in enumerate((("D", "wide"), ("s", "narrow"))):
        ax.plot(
            scaled[k],
            arrays["plane.measured"][0, k] / AXES[k],
            marker,
            ms=11,
            mfc="none",
            mec=plotting.ROLES["learned"].colour,
            mew=2,
            ls="",
            label=f"{name} axis of panel 2",
        )
    ax.axvline(bound, color="black", lw=1.5, ls="--")
    ax.axvspan(bound, 6.2, color="0.88", lw=0)
    ax.annotate(
        "",
        (STEP_BEYOND, 48),
        (STEP_BEYOND, 9),
        arrowprops={"arrowstyle": "-|>", "lw": 2, "color": plotting.ROLES["learned"].colour},
    )  # it has no variance: a marker would claim one
    ax.text(
        5.1,
        1.1,
        f"diverges:\nat {STEP_BEYOND:g}v langevin\nraised\nDivergenceError\nat state {arrays['stopped']}",
        ha="center",
        va="bottom",
        fontsize=11,
    )
    ax.text(bound + 0.1, 46, rf"$\epsilon\geq{bound:.0f}v$", ha="left", va="top")
    ax.set(xlim=(0, 6.2), ylim=(0.85, 50), yscale="log", yticks=[1, 2, 4, 10, 20, 40])
    ax.set_yticklabels(["1", "2", "4", "10", "20", "40"])
    ax.minorticks_off()
    ax.set(xlabel=r"step size $\epsilon/v$", ylabel="stationary variance / v", title="1  a finite step widens the law")
    ax.legend(loc="upper left", fontsize=11)
    told = "; ".join(
        f"{s:g} v, {p:.3f} v predicted and {m:.3f} v measured"
        for s, p, m in zip(STEPS, arrays["predicted"], values, strict=True)
    )
    ax.set_gid(
        f"Stationary variance at each step size: {told}. From {bound:g} v on it diverges, at {STEP_BEYOND:g} v at state "
        f"{arrays['stopped']}."
    )


def draw_plane(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Samples of the chain and of the law, each with its ellipse of two standard deviations."""
    for role in ("truth", "plain"):
        plotting.samples(ax, torch.as_tensor(arrays[f"samples.{role}"]), role=role, box=BOX, size=22)
    _, axes = tilted()
    turn = np.linspace(0, 2 * np.pi, 200)
    circle = 2 * np.stack([np.cos(turn), np.sin(turn)])
    ellipses = {"truth": np.array(AXES), "plain": arrays["plane.predicted"]}
    handles = []
    for role, variances in ellipses.items():
        x, y = axes.numpy() @ (np.sqrt(variances)[:, None] * circle)
        style = "-" if role == "truth" else "--"
        handles += ax.plot(x, y, style, color="black", lw=2.4)
    wide, narrow = arrays["plane.measured"][0] / AXES
    ax.set_title(
        rf"2  one step, $\epsilon={PLANE_STEP:g}$, two axes: variance" + f"\n× {narrow:.2f} narrow, × {wide:.2f} wide"
    )
    dots = {role: next(c for c in ax.collections if plotting.ROLES[role].name in c.get_gid()) for role in ellipses}
    lines = ax.legend(handles, ["exact, 2 std", "predicted, 2 std"], loc="upper left", fontsize=11)
    ax.add_artist(lines)
    ax.legend([dots["truth"], dots["plain"]], ["exact samples", "chain"], loc="lower right", fontsize=11)
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    ax.set_gid(
        f"Variances along the axes: exact {AXES[0]:g} and {AXES[1]:g}, predicted {arrays['plane.predicted'][0]:.3f} and "
        f"{arrays['plane.predicted'][1]:.3f}, measured {arrays['plane.measured'][0, 0]:.3f} and {arrays['plane.measured'][0, 1]:.3f}."
    )


def draw_levels(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Signal to noise by level for the three rules, and where chains diverge."""
    sigmas, bound = arrays["sigmas"], arrays["ratios.bound"]
    top = 4 * max(arrays[f"ratios.{rule}"].max() for rule in RULES)
    bottom = min(arrays[f"ratios.{rule}"].min() for rule in RULES) / 10  # room for the legend
    ax.plot(sigmas, bound, color="black", lw=1.5, ls=(0, (6, 3)))
    ax.fill_between(sigmas, bound, top, color="0.88", lw=0)
    ax.text(sigmas[0] * 0.9, top / 1.5, "a chain diverges", ha="left", va="top", fontsize=11)
    for rule, (colour, line, marker, words) in LINES.items():
        ax.plot(sigmas, arrays[f"ratios.{rule}"], line, color=colour, marker=marker, ms=6, lw=2, label=words)
    narrowest = float(arrays["narrowest"])
    ax.axvline(narrowest, color="0.45", lw=1.2)
    ax.set(xscale="log", yscale="log", xlim=(sigmas[0] * 1.2, sigmas[-1] / 1.2), ylim=(bottom, top))
    ax.annotate(
        "the narrowest\nmode's width",
        (narrowest, bottom * 1.3),
        (6, 0),
        textcoords="offset points",
        va="bottom",
        fontsize=11,
    )
    ax.set_xticks([20, 5, 1, 0.2], ["20", "5", "1", "0.2"])
    ax.set(
        xlabel=r"noise level $\sigma$ [units of x], annealed to the right",
        ylabel="signal / noise of a step (mean squares)",
        title=r"3  steps $\propto\sigma^2$ keep levels alike",
    )
    ax.legend(loc="lower left", fontsize=11, title="step size, alike\nat the first level", title_fontsize=11)
    told = "; ".join(
        f"{rule} from {arrays[f'ratios.{rule}'][0]:.3g} by {arrays[f'ratios.{rule}'][LEVELS[2] - 1]:.3g} at {LEVELS[1]:g} to "
        f"{arrays[f'ratios.{rule}'][-1]:.3g}"
        for rule in RULES
    )
    ax.set_gid(
        f"Signal to noise from sigma {sigmas[0]:g} to {sigmas[-1]:.3g}: {told}; chains diverge above "
        f"{bound.min():.2f} to {bound.max():.2f}."
    )


def draw_relaxing(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Variance against steps, with the step at which the start is forgotten."""
    colours, styles = ("#0072B2", "#009E73", "#E69F00", "#D55E00"), ("-", "--", "-.", ":")
    kept = arrays["relaxed.kept"]
    told = []
    for row, step in enumerate(RELAXING):
        y, n = arrays["relaxed"][row], forgets(arrays, row)
        ax.plot(y, styles[row], color=colours[row], lw=2.2, label=f"{step:g}")
        ax.plot(kept, arrays["relaxed.measured"][row, :, 0], "x", color=colours[row], ms=7, mew=1.6)
        ax.plot(n, y[n], "o", ms=10, mfc="white", mec=colours[row], mew=2.2, zorder=4)
        below = y[n] < y[0]
        place = {"xytext": (0, -10 if below else 12), "ha": "center", "va": "top" if below else "bottom"}
        ax.annotate(f"{n}", (n, y[n]), textcoords="offset points", fontsize=12, **place)
        told.append(f"{step:g} v, {n} steps, {y[-1]:.3f} v in the end")
    ax.axhline(1, color="0.45", lw=1.2)
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    ax.set(
        xlim=(-0.08, LONGEST * 1.4),
        ylim=(0.86, 2.4),
        xlabel="steps",
        ylabel="variance / v",
        title=rf"4  from $\gamma^2v={ratio() ** 2:.2f}v$: circles, start forgotten",
    )
    ax.legend(loc="upper center", fontsize=11, title=r"step size $\epsilon/v$", title_fontsize=11, ncols=len(RELAXING))
    ax.set_gid(f"Steps that forget {1 - FORGOTTEN:.0%} of the start, and the variance reached: {'; '.join(told)}.")


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """The four panels, and the two conventions in a box."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 10.6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    draw_settled(axes[0, 0], arrays)
    draw_plane(axes[0, 1], arrays)
    draw_levels(axes[1, 0], arrays)
    draw_relaxing(axes[1, 1], arrays)
    figure.supxlabel(
        r"Two conventions are in print:  $\frac{\epsilon}{2}$ score + $\sqrt{\epsilon}\,z$  here and in the papers,  "
        r"$\eta$ score + $\sqrt{2\eta}\,z$  in much code."
        "\n"
        rf"$\epsilon=2\eta$:  a published step_lr = {ETA:g} is step_size = {epsilon_from_eta(ETA):g} here.",
        fontsize=12,
        bbox={"boxstyle": "round", "facecolor": "0.95", "edgecolor": "0.6"},
    )
    return figure
