"""Every objective is the Fisher divergence plus a constant, for any network. Source: hyvarinen2005, Theorem 1; vincent2011, Sec. 4.

One mixture without symmetries, one noise level, the five objectives with weight one, and four score functions: a network untrained, half
trained and trained, and one that makes no sense. *Above*: losses as they are (open markers) lie anywhere; less the constant that theory
says (filled), each lies on the Fisher divergence F = ½ E |s - s*|², which is integrated on a grid (line). The constants are 0
(explicit), -S (implicit, sliced, finite difference) and D / 2 sigma² - S (denoising), with S = ½ E |s*|². So the gradients agree in
expectation, and losses of different objectives cannot be compared.

*Below*: what is left over, in its standard errors (left): noise, for every objective and every score function. The noise is what
differs. Middle: the standard deviation of the loss of one example *at the exact score*, where there is nothing left to learn. Weight-one
denoising carries the noise's own |z|² / 2 sigma². Right: how many examples a batch must have for the noise in its gradient to equal
the gradient, E |g - E g|² / |E g|²; |E g|² is the same for all, and taken from the explicit objective. The batch of the training is dotted.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from shared import seeded
from toyscore import plotting
from toyscore.diagnostics import exact_fisher, gradient_variance, library_objectives, objective_identities
from toyscore.distributions import GaussianMixture, asymmetric
from toyscore.losses import denoising_score_matching
from toyscore.models import MLP
from toyscore.train import fit

SIGMA = 0.5
BATCH = 128  # of the training, and of the gradients whose noise is measured
SIGMAS = (0.05, 5.0)  # well below the modes' widths, and as wide as their distances
ROLES = ("explicit", "implicit", "sliced", "finite_difference", "denoising")
TRAINED = ("untrained", "half_trained", "trained")
SCORES = (*TRAINED, "sine")


def mixture() -> GaussianMixture:
    """What is learned: change it and every number follows."""
    return asymmetric()


def sine(x: torch.Tensor, sigma: object) -> torch.Tensor:
    """A score function that makes no sense."""
    return x.sin()


def network(seed: int, n_steps: int) -> MLP:
    """The network after a denoising training of so many steps."""
    model = seeded(seed, lambda: MLP(dim=mixture().means.shape[1]))

    def at_sigma(score, clean, *, generator):
        return denoising_score_matching(score, clean, SIGMA, generator=generator)

    if n_steps:
        for _ in fit(model, mixture(), at_sigma, n_steps=n_steps, batch_size=BATCH, seed=seed):
            pass
    return model


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """The identities of every score function, the deviations at the exact score, and the noise of the gradients."""
    n, n_levels, n_batches, n_signal = (1000, 5, 4, 8) if quick else (20_000, 15, 60, 300)
    steps = (0, 6, 20) if quick else (0, 30, 300)
    p, generator = mixture(), torch.Generator().manual_seed(seed)
    models = {name: network(seed, n_steps) for name, n_steps in zip(TRAINED, steps, strict=True)}
    arrays = {"steps": np.array(steps), "n": np.array(n)}
    for name, score in {**models, "sine": sine}.items():
        found = objective_identities(score, p, sigma=SIGMA, n=n, generator=generator)
        for key in ("value", "error", "fisher", "constant", "residual", "residual_error", "variance"):
            arrays[f"{key}.{name}"] = np.array([getattr(found[role], key) for role in ROLES])
    arrays["half_square"] = np.array(exact_fisher(p.score, p, sigma=SIGMA).half_square)

    levels = np.geomspace(*SIGMAS, n_levels)
    exact = [objective_identities(p.score, p, sigma=sigma, n=n, generator=generator) for sigma in levels.tolist()]
    arrays["sigmas"] = levels
    arrays["std"] = np.array([[found[role].variance ** 0.5 for found in exact] for role in ROLES])

    losses = {role: objective.loss for role, objective in library_objectives(p).items()}
    given = {"sigma": SIGMA, "batch_size": BATCH, "generator": generator}
    for name, model in models.items():
        signal, _ = gradient_variance(model, losses["explicit"], p, n_batches=n_signal, **given)
        noise = [gradient_variance(model, losses[role], p, n_batches=n_batches, **given)[1] for role in ROLES]
        arrays[f"signal.{name}"] = np.array(signal)
        arrays[f"noise.{name}"] = np.array(noise)
    return arrays


def residuals(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """What is left over of each score function [4] and objective [5], in standard errors."""
    return np.array([arrays[f"residual.{name}"] / arrays[f"residual_error.{name}"] for name in SCORES])


def examples(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The batch [3, 5] in which the gradient's noise equals the gradient, per network and objective."""
    return np.array([arrays[f"noise.{name}"] / arrays[f"signal.{name}"] for name in TRAINED])


def ratios(arrays: dict[str, np.ndarray], name: str) -> dict[str, float]:
    """How many times the examples of the explicit objective each needs for the gradient of a network."""
    found = examples(arrays)[TRAINED.index(name)]
    return dict(zip(ROLES, (found / found[0]).tolist(), strict=True))


def at_sigma(arrays: dict[str, np.ndarray]) -> dict[str, float]:
    """The deviation of each loss at the exact score and SIGMA."""
    level = int(np.abs(np.log(arrays["sigmas"] / SIGMA)).argmin())
    return {role: float(std[level]) for role, std in zip(ROLES, arrays["std"], strict=True)}


def over_noise(arrays: dict[str, np.ndarray]) -> float:
    """The deviation of denoising at the least sigma, over that of |z|² / 2 sigma²."""
    std = arrays["std"][ROLES.index("denoising"), 0]
    return float(std * arrays["sigmas"][0] ** 2 / (mixture().means.shape[1] / 2) ** 0.5)


FISHERS = {"half_trained": 0.45, "trained": 0.11}  # where there is a training
STDS = {"explicit": 1e-5, "implicit": 0.12, "sliced": 0.12, "finite_difference": 0.11, "denoising": 0.15}
LOG_RATIOS = {"half_trained": 0.45, "trained": 0.5}  # 2.8 and 3.2 times more or less


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """F of each score function, the constants, the largest residual in standard errors; deviations of the losses at the exact score; the
    decimal logarithm of how many times the examples of the explicit objective the others need.

    Constants and the sine's F are integrals, and so is F of the untrained network, which a seed determines; their tolerance is for
    rounding. The others' are four to five standard deviations
    (``run.py --spread 12``), over networks too where there is one; that of the largest residual is where a fault would begin.
    """
    fishers = {name: float(arrays[f"fisher.{name}"][0]) for name in SCORES}
    found = {f"fisher_{name}": (value, FISHERS.get(name, 1e-3 * value)) for name, value in fishers.items()}
    constants = dict(zip(ROLES, arrays["constant.sine"], strict=True))
    found |= {f"constant_{role}": (float(constants[role]), 1e-4) for role in ("implicit", "denoising")}
    found["largest_residual"] = (float(np.abs(residuals(arrays)).max()), 2.0)
    found |= {f"std_{role}": (std, STDS[role]) for role, std in at_sigma(arrays).items()}
    found["std_denoising_over_noise"] = (over_noise(arrays), 0.05)
    for name, tolerance in LOG_RATIOS.items():
        logs = {role: float(np.log10(times)) for role, times in ratios(arrays, name).items()}
        found |= {f"log10_examples_{role}_{name}": (logs[role], tolerance) for role in ROLES[1:]}
    return found


def names(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    """Of the score functions, for titles."""
    steps = {
        name: f"{name.replace('_', ' ')}, {n} steps" for name, n in zip(TRAINED, arrays["steps"], strict=True) if n
    }
    return {"untrained": "untrained", **steps, "sine": "s(x) = sin x"}


def rough(value: float) -> str:
    """One digit."""
    return f"{float(f'{value:.1g}'):,g}"


def caption(arrays: dict[str, np.ndarray]) -> str:
    """How well the identities hold, what comes of comparing losses, and how the noise differs."""
    value = {name: dict(zip(ROLES, arrays[f"value.{name}"], strict=True)) for name in SCORES}
    found = {key: number for key, (number, _) in numbers(arrays).items()}
    low, high = value["untrained"]["implicit"], value["trained"]["denoising"]
    std = dict(zip(ROLES, arrays["std"][:, 0], strict=True))
    needed = ratios(arrays, "trained")
    return (
        f"Five losses of the same network differ by constants that theory knows; without them all equal the Fisher divergence F (of "
        f"{residuals(arrays).size} differences the largest is {found['largest_residual']:.1f} standard errors). So losses of different "
        f"objectives must not be compared: untrained, F = {found['fisher_untrained']:.2f}, the implicit loss is {low:.2f}; trained for "
        f"{arrays['steps'][-1]:,} steps, F = {found['fisher_trained']:.2f}, the denoising loss is {high:.2f}. What differs is noise: at "
        f"sigma = {arrays['sigmas'][0]:g} and the exact score, one example's loss scatters by {std['denoising']:.0f} by denoising, "
        f"{std['sliced']:.1f} sliced, {std['implicit']:.1f} implicit and {std['explicit']:.0f} explicit; at sigma = {SIGMA:g} the trained "
        f"network needs about {rough(needed['denoising'])} times the examples of the explicit objective for as good a gradient by "
        f"denoising, {rough(needed['implicit'])} times by the implicit one."
    )


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """The losses and what they have in common above; what is left over, and the noise of values and gradients below."""
    figure = plt.figure(figsize=(11, 9.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.25])
    panels = above.subplots(1, len(SCORES), sharex=True, sharey=True)
    for ax, (name, title) in zip(panels, names(arrays).items(), strict=True):
        losses(ax, arrays, name, title)
    panels[0].set(yticks=range(len(ROLES)), yticklabels=[plotting.ROLES[role].name for role in ROLES])
    panels[0].invert_yaxis()
    error = max(arrays[f"error.{name}"].max() for name in SCORES)
    above.supxlabel(
        f"mean over {int(arrays['n']):,} examples at σ = {SIGMA:g} [1/x²] (standard errors up to {error:.2g})",
        fontsize=12,
    )
    kinds = (
        Line2D([], [], marker="o", ls="", ms=9, mfc="white", mec="0.2", label="the loss"),
        Line2D([], [], marker="o", ls="", ms=9, color="0.2", label="the loss less its constant"),
        Line2D([], [], color="0.2", ls="--", label="the Fisher divergence F"),
    )
    above.legend(handles=kinds, loc="outside upper center", ncols=3)
    left, middle, right = below.subplots(1, 3, width_ratios=[1, 1.1, 1])
    leftover(left, arrays)
    deviations(middle, arrays)
    batches(right, arrays)
    handles, labels = middle.get_legend_handles_labels()
    below.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return figure


def losses(ax: Axes, arrays: dict[str, np.ndarray], name: str, title: str) -> None:
    """From each objective's value to the value less its constant."""
    value, constant, fisher = (arrays[f"{key}.{name}"] for key in ("value", "constant", "fisher"))
    for row, role in enumerate(ROLES):
        kind = plotting.ROLES[role]
        ends = value[row], value[row] - constant[row]
        ax.plot(ends, [row, row], color=kind.colour, lw=1.5)
        ax.plot(ends[0], row, kind.marker, ms=11, mfc="white", mec=kind.colour, mew=1.5)
        ax.plot(ends[1], row, kind.marker, ms=9, color=kind.colour)
    ax.axvline(fisher[0], color="0.2", ls="--", lw=1.5, zorder=0)
    ax.set_title(f"{title}\nF = {fisher[0]:.3f}", fontsize=12)
    ax.set_ylim(-0.6, len(ROLES) - 0.4)
    ax.grid(axis="x", alpha=0.3)
    told = (
        f"{plotting.ROLES[role].name} {v:.3f}, {v - c:.3f}" for role, v, c in zip(ROLES, value, constant, strict=True)
    )
    ax.set_gid(f"Loss, and less its constant: {'; '.join(told)}.")


def leftover(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Residuals in standard errors."""
    z, titles = residuals(arrays), names(arrays)
    for column, role in enumerate(ROLES):
        kind = plotting.ROLES[role]
        ax.plot(z[:, column], np.arange(len(z)) - 0.24 + 0.12 * column, kind.marker, ms=9, color=kind.colour)
    ax.axvspan(-2, 2, color="0.92", zorder=0)
    ax.axvline(0, color="0.5", lw=1)
    reach = max(4.0, 1.1 * np.abs(z).max())
    ax.set(
        xlim=(-reach, reach),
        yticks=range(len(z)),
        yticklabels=[title.replace(", ", ",\n") for title in titles.values()],
        xlabel="residual [standard errors]",
    )
    ax.set_ylim(len(z) - 0.4, -0.6)
    ax.set_title(f"what is left over: noise\n({z.size} residuals, largest {np.abs(z).max():.1f})", fontsize=12)
    ax.set_gid(f"{z.size} residuals, from {z.min():.2f} to {z.max():.2f} standard errors.")


def deviations(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Of a loss at the exact score, against sigma; a deviation of zero has no place on the axis."""
    sigmas = arrays["sigmas"]
    half = mixture().means.shape[1] / 2
    for role, std in zip(ROLES, arrays["std"], strict=True):
        kind = plotting.ROLES[role]
        line, size = ("--", 5) if role == "finite_difference" else ("-", 9)  # hardly differs from sliced
        ax.plot(
            sigmas,
            np.where(std > 0, std, np.nan),
            line,
            marker=kind.marker,
            ms=size,
            color=kind.colour,
            label=kind.name,
        )
    ax.plot(sigmas, half**0.5 / sigmas**2, ":", color="0.3", lw=1.8, zorder=0)
    ax.text(sigmas[2] * 1.25, half**0.5 / sigmas[2] ** 2, r"$\sqrt{D/2}\,/\,\sigma^2$", va="bottom")
    ax.set(xscale="log", yscale="log", xlabel="noise level σ [x]", ylabel="standard deviation [1/x²]")
    zero = [plotting.ROLES[role].name for role, std in zip(ROLES, arrays["std"], strict=True) if not std.any()]
    ax.set_title("loss of one example, exact score" + (f"\n({', '.join(zero)}: zero)" if zero else ""), fontsize=12)
    ax.grid(which="major", alpha=0.3)
    told = (
        f"{plotting.ROLES[role].name} {std[0]:.3g} to {std[-1]:.3g}"
        for role, std in zip(ROLES, arrays["std"], strict=True)
    )
    ax.set_gid(f"From sigma {sigmas[0]:g} to {sigmas[-1]:g}: {'; '.join(told)}.")


def batches(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """The batch in which noise equals signal, per network and objective."""
    found, titles = examples(arrays), names(arrays)
    for column, role in enumerate(ROLES):
        kind = plotting.ROLES[role]
        ax.plot(found[:, column], np.arange(len(found)) - 0.24 + 0.12 * column, kind.marker, ms=9, color=kind.colour)
    ax.axvline(BATCH, color="0.3", ls=":", lw=1.8)
    ax.set(xscale="log", xlabel=f"examples (dotted: {BATCH})", yticks=range(len(found)))
    ax.set_yticklabels([titles[name].replace(", ", ",\n") for name in TRAINED])
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.grid(axis="x", which="major", alpha=0.3)
    ax.set_title(f"gradient, σ = {SIGMA:g}: examples for\nwhich noise equals signal", fontsize=12)
    for name, row in zip(TRAINED, found, strict=True):
        told = (f"{plotting.ROLES[role].name} {value:.3g}" for role, value in zip(ROLES, row, strict=True))
        ax.set_gid(f"{ax.get_gid() or ''}{titles[name]}: {', '.join(told)}. ")
