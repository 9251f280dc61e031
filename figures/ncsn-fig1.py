"""Data that fill no volume: the loss runs away, and a little noise stops it. Source: song2019, Figure 1.

A line and a circle in R^10, and scikit-learn's digits, some pixels of which never light up: none fills a volume. A network
learns each by sliced score matching, once from the data as they are and once with noise N(0, 0.0001) added, from the same
seed. The paper shows this for a residual network on CIFAR-10.

*Above*: the loss of each step (pale) and its running median, downwards. Dashed: the floor under the noise, -E||s*||²/2 of the
exact score s*, which no score can undercut. Without noise there is none: a score that pushes back to the data ever harder
pays nothing on the data and earns its divergence. Those curves bend at the end only because the learning rate falls to
nothing there. Dead pixels alone could earn the dotted line.

*Below, left*: how hard the networks push on data with noise, whichever they learned from, in units of the exact score.
*Middle*: the loss of a score -a n, with n the displacement normal to the data, and the networks at their mean stiffness
a = -E tr(ds/dx) / (D - d); one that is not equally stiff everywhere lies above its curve. *Right*: the dimension
D - sigma² E||s*||² that data show at the width sigma, with two standard errors: one on a curve, zero where sigma tells the points
of a data set apart (the circle stands for itself by a few thousand), and zero again where all data are one blur. At the width
of the noise each digit is a point by itself: that floor is far below what a small network reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.datasets import load_digits

from shared import seeded
from toyscore import plotting
from toyscore.diagnostics import intrinsic_dimension, least_normal_loss, normal_loss
from toyscore.distributions import empirical, tilted_circle, tilted_line
from toyscore.losses import perturbed, sliced_score_matching
from toyscore.models import MLP
from toyscore.operators import Distribution, Score, dot, jacobian_trace, normal_like
from toyscore.train import fit

NOISE_STD = 0.01  # the paper's N(0, 0.0001)
DIM = 10
CASES = {"clean": 0.0, "noisy": NOISE_STD}
ROLE = {"clean": "plain", "noisy": "annealed"}  # the colours of what fails and of its remedy
LABEL = {"clean": "learned without noise", "noisy": f"learned with noise N(0, {NOISE_STD**2:.4f})"}
MARKER = {"line": "s", "circle": "o", "digits": "^"}  # a circle for the circle
BATCH = 64
RATE = 0.03  # three times the usual: scores of norm 300 and 800 are far from where weights start
WINDOW = 20  # steps of the running median, which outliers of the sliced loss leave alone
N_KEPT = 30  # points of a curve of norms
SIGMAS = np.logspace(-4, 0.5, 19)  # four to a decade: 0.01, 0.1 and 1 are among them
EXACT = {"color": plotting.ROLES["truth"].colour, "linewidth": 2}


def digits() -> torch.Tensor:
    """[1797, 64] in [0, 1]."""
    return torch.as_tensor(load_digits().data, dtype=torch.float32) / 16


def data() -> dict[str, tuple[Distribution, int]]:
    """Name -> the clean data, and D."""
    images = digits()
    return {
        "line": (tilted_line(DIM), DIM),
        "circle": (tilted_circle(DIM), DIM),
        "digits": (empirical(images), images.shape[1]),
    }


def line_dimension(sigma: float) -> float:
    """Exact: the score of a Gaussian is linear, and E||s*||² = -tr(ds*/dx)."""
    p = tilted_line(DIM)
    return DIM + sigma**2 * float(p.jacobian(p.means, sigma)[0].double().trace())


def trained(
    p: Distribution, dim: int, noise_std: float, seed: int, n_steps: int, look: Callable[[Score, int], None]
) -> tuple[MLP, np.ndarray]:
    """A network, and its loss at each step; ``look`` sees it after every step."""
    model = seeded(seed, lambda: MLP(dim))
    sliced = perturbed(sliced_score_matching)

    def loss(score, clean, *, generator):
        return sliced(score, clean, noise_std, generator=generator)

    losses = []
    for step in fit(model, p, loss, n_steps=n_steps, batch_size=BATCH, lr=RATE, seed=seed):
        losses.append(float(step.loss))
        look(model, step.step)
    return model, np.array(losses)


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Losses and norms of six trainings, what their networks ended as, and the dimensions that the data show."""
    n_steps, n, n_points = (24, 50, 300) if quick else (1500, 1000, 5000)
    kept = np.unique(np.linspace(1, n_steps, N_KEPT).round().astype(int))
    kept_steps = set(kept.tolist())
    generator = torch.Generator().manual_seed(seed)
    points = {"circle": tilted_circle(DIM).sample(n_points, generator=generator), "digits": digits()}
    arrays = {
        "kept": kept,
        "n_points": np.array(n_points),
        "n_dead": np.array(int((points["digits"].amax(0) == 0).sum())),
        "dimension.line": np.array([line_dimension(sigma) for sigma in SIGMAS.tolist()]),
        "error.line": np.zeros(len(SIGMAS)),
    }
    for name, x in points.items():  # the digits last
        p = empirical(x)
        draws = p.sample(n, generator=generator)
        pairs = [intrinsic_dimension(p.score, draws, sigma, generator=generator) for sigma in SIGMAS.tolist()]
        arrays[f"dimension.{name}"], arrays[f"error.{name}"] = np.array(pairs).T
    seen = {
        "line": line_dimension(NOISE_STD),
        "circle": 1.0,  # smooth, and far wider than the noise
        "digits": intrinsic_dimension(p.score, draws, NOISE_STD, generator=generator).value,
    }
    for name, (p, dim) in data().items():
        arrays[f"codimension.{name}"] = np.array(dim - seen[name])
        clean = p.sample(n, generator=generator)
        noisy = clean + NOISE_STD * normal_like(clean, generator)
        for case, noise_std in CASES.items():
            norms: list[float] = []

            @torch.no_grad()
            def look(score: Score, step: int, noisy: torch.Tensor = noisy, norms: list[float] = norms) -> None:
                if step in kept_steps:
                    s = score(noisy, 0.0)
                    norms.append(float(dot(s, s).mean().sqrt()))

            model, losses = trained(p, dim, noise_std, seed, n_steps, look)
            with torch.no_grad():
                s, trace = jacobian_trace(model, noisy if noise_std else clean, noise_std)
            values = 0.5 * dot(s, s) + trace
            arrays[f"losses.{name}.{case}"] = losses
            arrays[f"norms.{name}.{case}"] = np.array(norms)
            arrays[f"loss.{name}.{case}"] = np.array([values.mean(), values.std() / n**0.5])
            arrays[f"stiffness.{name}.{case}"] = np.array(-float(trace.mean()) / (dim - seen[name]))
    return arrays


def floor(arrays: dict[str, np.ndarray], name: str) -> float:
    """The least loss under the noise."""
    return least_normal_loss(float(arrays[f"codimension.{name}"]), NOISE_STD)


def push(arrays: dict[str, np.ndarray], name: str, case: str) -> np.ndarray:
    """Root mean square norms on data with noise, in units of the exact score's."""
    return arrays[f"norms.{name}.{case}"] / (-2 * floor(arrays, name)) ** 0.5


def reached(arrays: dict[str, np.ndarray], name: str, case: str) -> float:
    """The last loss, by the exact trace, in units of the floor."""
    return float(arrays[f"loss.{name}.{case}"][0]) / floor(arrays, name)


def dimension(arrays: dict[str, np.ndarray], name: str, sigma: float) -> float:
    """What the data show at the width of the grid that is nearest to sigma."""
    return float(arrays[f"dimension.{name}"][np.abs(np.log(SIGMAS / sigma)).argmin()])


TOLERANCES = {  # loss over floor, push
    ("line", "clean"): (9.5, 6.5),
    ("line", "noisy"): (0.3, 0.2),
    ("circle", "clean"): (7.5, 3.5),
    ("circle", "noisy"): (0.38, 0.22),
    ("digits", "clean"): (3.7, 10.0),
    ("digits", "noisy"): (0.019, 0.025),
}


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Floors, the last losses and pushes in units of what is exact, and dimensions.

    Floors and the line's dimension are closed forms, and so is the digits' dimension at the noise, where points are far apart. The
    tolerances of what is trained, and of averages over draws, are four to five standard deviations (``run.py --spread 12``).
    """
    found = {"dead_pixels": (float(arrays["n_dead"]), 0.0)}
    for name in MARKER:
        found[f"floor_{name}"] = (floor(arrays, name), 1e-4 * abs(floor(arrays, name)))
        for case in CASES:
            loss, norm = TOLERANCES[name, case]
            found[f"loss_over_floor_{name}_{case}"] = (reached(arrays, name, case), loss)
            found[f"push_{name}_{case}"] = (float(push(arrays, name, case)[-1]), norm)
    return found | {
        "dimension_line_at_0.01": (dimension(arrays, "line", 0.01), 1e-4),
        "dimension_line_at_1": (dimension(arrays, "line", 1.0), 1e-4),
        "dimension_circle_at_0.01": (dimension(arrays, "circle", 0.01), 0.2),
        "dimension_circle_at_0.0001": (dimension(arrays, "circle", 0.0001), 0.1),
        "dimension_digits_at_0.01": (dimension(arrays, "digits", 0.01), 1e-3),
        "largest_dimension_digits": (float(arrays["dimension.digits"].max()), 0.5),
    }


def listed(values: list[str]) -> str:
    """a, b and c."""
    return f"{', '.join(values[:-1])} and {values[-1]}"


def caption(arrays: dict[str, np.ndarray]) -> str:
    """Where the losses end with and without noise, how hard the networks push, and what dimension the data show."""
    names = listed([f"the {name} in R^{dim}" for name, (_, dim) in data().items()])
    share = {case: [reached(arrays, name, case) for name in MARKER] for case in CASES}
    pushes = {case: listed([f"{push(arrays, name, case)[-1]:.2g}" for name in MARKER]) for case in CASES}
    seen = listed([f"{abs(dimension(arrays, name, NOISE_STD)):.2f}" for name in MARKER])
    floors = listed([thousands(floor(arrays, name)) for name in MARKER])
    largest = int(arrays["dimension.digits"].argmax())
    return (
        f"{len(arrays['losses.line.clean']):,} steps of sliced score matching on {names} ({int(arrays['n_dead'])} dead pixels): "
        f"noise N(0, {NOISE_STD**2:.4f}) puts floors under the loss, {floors}, and it ends at "
        f"{listed([f'{value:.0%}' for value in share['noisy']])} of them; without noise it ends, when the learning rate does, at "
        f"{listed([f'{value:.2g}' for value in share['clean']])} times these values. On data with that noise the networks push "
        f"{pushes['noisy']} times as hard as the exact score if they learned with it, {pushes['clean']} times if without. "
        f"At the width of the noise the data show the dimensions {seen}; "
        f"the digits show at most about {arrays['dimension.digits'][largest]:.0f}, at sigma = {SIGMAS[largest]:.2g}."
    )


def thousands(value: float) -> str:
    """Three digits, with a true minus: −45,000."""
    return f"{float(f'{value:.3g}'):,.0f}".replace("-", "−")


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """The losses above; the push, the theory and the dimensions below."""
    figure = plt.figure(figsize=(11.4, 9.4), layout="constrained")
    above = figure.add_gridspec(2, 3)
    losses: list[Axes] = []
    for column, name in enumerate(MARKER):
        losses.append(figure.add_subplot(above[0, column], sharey=losses[0] if losses else None))
        draw_losses(losses[-1], arrays, name)
        losses[-1].tick_params(labelleft=not column)
    losses[0].set_ylabel("loss (linear from −100 to 100, else logarithmic)")
    draw_push(figure.add_subplot(above[1, 0]), arrays)
    draw_theory(figure.add_subplot(above[1, 1]), arrays)
    draw_dimensions(figure.add_subplot(above[1, 2]), arrays)
    learned = [Line2D([], [], label=LABEL[case], **{**style(case, "line"), "marker": "D"}) for case in CASES]
    exact = Line2D([], [], linestyle="--", label="exact score under the noise", **EXACT)
    kinds = [
        Line2D([], [], color="0.25", marker=MARKER[name], linestyle="", markersize=7, label=f"{name} in $R^{{{dim}}}$")
        for name, (_, dim) in data().items()
    ]
    handles = [handle for pair in zip([*learned, exact], kinds, strict=True) for handle in pair]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    return figure


def style(case: str, name: str) -> dict[str, Any]:
    """Colour and filling tell how it was learned, the marker tells the data."""
    colour = plotting.ROLES[ROLE[case]].colour
    face = "white" if case == "clean" else colour
    return {"color": colour, "marker": MARKER[name], "markerfacecolor": face, "markersize": 7, "linewidth": 2}


def loss_axis(ax: Axes, least: float, most: float) -> None:
    """Powers of ten downwards, little room for what is above."""
    ax.set_yscale("symlog", linthresh=100, linscale=0.35)
    ax.set_ylim(least, most)
    ax.grid(alpha=0.3)


def draw_losses(ax: Axes, arrays: dict[str, np.ndarray], name: str) -> None:
    """Both trainings on one data set, and their floor."""
    for case in CASES:
        losses, look = arrays[f"losses.{name}.{case}"], style(case, name)
        steps = np.arange(1, 1 + len(losses))
        median = np.median(np.lib.stride_tricks.sliding_window_view(losses, min(WINDOW, len(losses))), axis=-1)
        ax.plot(steps, losses, color=look["color"], alpha=0.35, linewidth=0.8)
        ax.plot(steps[-len(median) :], median, markevery=(len(median) % 8, max(1, len(median) // 8)), **look)
    least = floor(arrays, name)
    ax.axhline(least, linestyle="--", **EXACT)
    if name == "digits":
        dead = least_normal_loss(float(arrays["n_dead"]), NOISE_STD)
        ax.axhline(dead, color=EXACT["color"], linestyle=":", linewidth=1.5)
        ax.text(
            0.97,
            0.8 * dead,
            f"{arrays['n_dead']} dead pixels\nalone {thousands(dead)}",
            transform=ax.get_yaxis_transform(),
            ha="right",
            va="bottom",
            color=EXACT["color"],
        )
    loss_axis(ax, -6e6, 200)
    ends = {case: reached(arrays, name, case) for case in CASES}
    ax.set_xlabel("step (the learning rate falls to 0)")
    ax.set_title(
        f"{name}: floor {thousands(least)}\n{ends['noisy']:.0%} of it with noise, {ends['clean']:.2g} × without",
        fontsize=12.5,
    )
    told = (f"{LABEL[case]} {thousands(arrays[f'loss.{name}.{case}'][0])}" for case in CASES)
    ax.set_gid(f"Loss of the {name} at the end: {', '.join(told)}; floor under the noise {thousands(least)}.")


def draw_push(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """How hard each network pushes on data with noise, as it learns."""
    for name in MARKER:
        for case in CASES:
            ax.plot(arrays["kept"], push(arrays, name, case), markevery=4, **style(case, name))
    ax.axhline(1, linestyle="--", **EXACT)
    ax.set_yscale("log")
    ax.grid(alpha=0.3)
    ax.set(
        xlabel="step",
        ylabel=r"$(E\|s_\theta\|^2\;/\;E\|s^*\|^2)^{1/2}$",
        title=f"push on data with noise of std {NOISE_STD:g}\nin units of the exact score",
    )
    told = (f"{name} {push(arrays, name, case)[-1]:.2f} ({LABEL[case]})" for case in CASES for name in MARKER)
    ax.set_gid(f"Push at the end, in units of the exact score: {', '.join(told)}.")


def draw_theory(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """The loss of one normal direction against stiffness, and where the networks are."""
    stiffness = np.logspace(2, 6, 400)
    for case, noise_std in CASES.items():
        colour = plotting.ROLES[ROLE[case]].colour
        ax.plot(stiffness, [normal_loss(a, 1, noise_std) for a in stiffness.tolist()], color=colour, linewidth=2)
        for name in MARKER:
            loss = arrays[f"loss.{name}.{case}"][0] / arrays[f"codimension.{name}"]
            ax.plot(arrays[f"stiffness.{name}.{case}"], loss, **{**style(case, name), "markersize": 9})
    ax.axhline(least_normal_loss(1, NOISE_STD), linestyle="--", **EXACT)
    ax.set_xscale("log")
    loss_axis(ax, -1e6, 200)
    ax.set(
        xlabel="stiffness $a$ [1 / x²]",
        ylabel="loss per normal direction (as above)",
        title="a score −a·n with n normal to the data\ntheory (lines), networks (markers)",
    )
    told = (
        f"{name} {thousands(float(arrays[f'stiffness.{name}.{case}']))} ({LABEL[case]})"
        for case in CASES
        for name in MARKER
    )
    ax.set_gid(
        f"With noise the theory is least at {thousands(1 / NOISE_STD**2)}, without it falls for ever. Mean stiffness of the networks: "
        f"{', '.join(told)}."
    )


def draw_dimensions(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """What the exact scores say of the data's dimension."""
    for name in MARKER:
        form = {"marker": MARKER[name], "markersize": 5.5, "capsize": 2, **EXACT, "linewidth": 1.5}
        ax.errorbar(SIGMAS, arrays[f"dimension.{name}"], 2 * arrays[f"error.{name}"], **form)
    ax.axvline(NOISE_STD, color="0.4", linestyle=":", linewidth=1.5)
    top = float(arrays["dimension.digits"].max())
    ax.text(NOISE_STD * 0.8, top, "the noise", ha="right", va="top", color="0.3")
    ax.text(SIGMAS[0], 0.45 * top, "0: points\n1: a curve", va="center")
    ax.set_xscale("log")
    ax.grid(alpha=0.3)
    ax.set(
        xlabel=r"width $\sigma$ [units of x]",
        ylabel=r"$D-\sigma^2 E\|s^*\|^2$",
        title="dimension that the data\nshow at the width σ",
    )
    told = (f"{name} {abs(dimension(arrays, name, NOISE_STD)):.2f}" for name in MARKER)
    ax.set_gid(
        f"Dimension seen at sigma = {NOISE_STD:g}: {', '.join(told)}; the digits show at most {top:.1f}. "
        f"The circle is given by {int(arrays['n_points']):,} points."
    )
