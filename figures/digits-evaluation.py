"""How good the digits are, beside real ones and beside the best Gaussian. Source: song2019, Sec. 5.

The table in the gallery is that of ``toyscore evaluate``, of 360 samples, as many as there are held-out digits, drawn by ancestral
sampling. Every set is compared with the training digits: the samples, held-out digits (what a perfect network would
get), and draws from a Gaussian with the digits' mean and covariance (what the best linear one would). Next to the network's losses stand
those of the exact score of the training set, which knows nothing but that set: on its own digits it is perfect, on others useless. The
network is good on both.

The features are those of a classifier of digits trained on the spot: compare these distances with each other, never with FID
(``toyscore evaluate --inception true`` adds FID and IS where their network can be fetched).
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import shared
from toyscore import data, plotting, pretrained
from toyscore.distributions import empirical
from toyscore.evaluation import Evaluation, Level, Row, evaluate
from toyscore.metrics import denoising_losses, expected_coverage

N_PAIRS = 24
SETS = ("samples", "held_out", "gaussian")
LABELS = {"samples": "sampled", "held_out": "held out", "gaussian": "Gaussian"}
LOOKS = {
    "samples": plotting.ROLES["learned"],
    "held_out": plotting.ROLES["truth"],
    "gaussian": plotting.Role("#777777", "v", "Gaussian"),
}


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """The rows, the levels, the class shares, samples with their neighbours, and the losses of the exact score of the training set."""
    trained = pretrained.digits()
    found = evaluate(trained.network, torch.from_numpy(shared.digits(seed, quick)), trained.config, seed=seed)
    training = data.digits("train")
    memory = empirical(training.tensor())
    sigmas = torch.tensor([level.sigma for level in found.levels])
    of_memory = [
        denoising_losses(
            memory.score,
            part.tensor()[: 100 if quick else 1000],
            sigmas,
            generator=torch.Generator().manual_seed(seed),
        )[0]
        for part in (training, data.digits("held-out"))
    ]
    return {
        "measures": np.array([row.measure for row in found.rows]),
        "better": np.array([row.better for row in found.rows]),
        "values": np.array([[row.samples, row.held_out, row.gaussian] for row in found.rows]),
        "levels": np.array([list(vars(level).values()) for level in found.levels]),
        "memory": torch.stack(of_memory).numpy(),
        "shares": np.array([found.shares[name] for name in (*SETS, "training")]),
        "pairs": torch.stack([found.samples[:N_PAIRS], found.nearest[:N_PAIRS]], 1).flatten(0, 1).numpy(),
        "n": np.array(found.n),
        "accuracy": np.array(found.facts["accuracy_held_out"]),
    }


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Each measure of the samples and of the held-out digits, within four standard deviations over seeds; losses at the middle levels."""
    tolerances = {
        "Fréchet": (0.08, 0.08, 0.5),
        "kernel": (25.0, 15.0, 120.0),
        "precision": (0.07, 0.04, 0.12),
        "recall": (0.05, 0.04, 0.12),
        "coverage": (0.09, 0.09, 0.1),
        "confidence": (0.03, 0.01, 0.05),
        "class": (0.08, 1e-6, 0.08),
        "median": (0.08, 1e-5, 0.08),
    }
    found: dict[str, tuple[float, float]] = {}
    for measure, values in zip(arrays["measures"], arrays["values"], strict=True):
        key = str(measure).split()[0]
        for name, value, tolerance in zip(SETS, values, tolerances[key], strict=True):
            found[f"{key}_{name}"] = (float(value), tolerance)
    for level in arrays["levels"]:
        if 0.05 < level[0] < 1:
            found[f"left_at_{level[0]:.3g}"] = (float(level[3]), 3 * float(level[4]))
    return found


def row(arrays: dict[str, np.ndarray], key: str) -> np.ndarray:
    """The three values of the measure that begins so."""
    return arrays["values"][[str(m).startswith(key) for m in arrays["measures"]].index(True)]


def expected(arrays: dict[str, np.ndarray]) -> float:
    """The coverage of as many samples of the training digits' own law."""
    return expected_coverage(int(arrays["n"]), len(data.digits("train")))


def caption(arrays: dict[str, np.ndarray]) -> str:
    """Three sentences of numbers."""
    frechet, precision, coverage = (row(arrays, key) for key in ("Fréchet", "precision", "coverage"))
    at = int(np.abs(np.log(arrays["levels"][:, 0] / 0.25)).argmin())
    middle = arrays["levels"][at]
    memory = arrays["memory"][:, at]
    return (
        f"In features of a digits classifier {int(arrays['n'])} samples are at a Fréchet distance of {frechet[0]:.2f} from the training "
        f"digits, as many held-out digits at {frechet[1]:.2f}, and draws from a Gaussian of the same mean and covariance at "
        f"{frechet[2]:.2f}; {precision[0]:.0%} of the samples lie where training digits do ({precision[1]:.0%}; {precision[2]:.0%}), and "
        f"their coverage is {coverage[0]:.2f}, that of held-out digits {coverage[1]:.2f} ({expected(arrays):.2f} is expected of the very "
        f"same law). At sigma = {middle[0]:.2f} the network leaves "
        f"{middle[1]:.1%} of the noise on training and {middle[3]:.1%} on held-out digits ({middle[3] / middle[1]:.2f} times as much), the "
        f"exact score of the training set {memory[0]:.1%} and {memory[1]:.1%} ({memory[1] / memory[0]:.1f} times): that one memorises."
    )


def table(arrays: dict[str, np.ndarray]) -> str:
    """The table of ``toyscore evaluate``."""
    rows = [
        Row(str(measure), str(better), *map(float, values))
        for measure, better, values in zip(arrays["measures"], arrays["better"], arrays["values"], strict=True)
    ]
    levels = [Level(*map(float, level)) for level in arrays["levels"]]
    nothing = torch.empty(0)
    return Evaluation(rows, levels, int(arrays["n"]), {}, nothing, nothing, {}).table()


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """Samples beside their nearest training digits, losses by level, classes, and three measures."""
    with plt.rc_context(plotting.STYLE):
        figure = plt.figure(figsize=(14.6, 8.4), layout="constrained")
        axes = figure.subplot_mosaic(
            [["pairs", "pairs", "losses", "losses"], ["classes", "classes", "shares", "frechet"]],
            width_ratios=[1, 1, 1.5, 0.6],
            height_ratios=[1.35, 1],
        )
        _pairs(axes["pairs"], arrays)
        _losses(axes["losses"], arrays)
        _classes(axes["classes"], arrays)
        _shares(axes["shares"], arrays)
        _frechet(axes["frechet"], arrays)
    return figure


def _pairs(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    sheet = plotting.mosaic(torch.from_numpy(1 - arrays["pairs"]), n_columns=8)
    ax.imshow(sheet, origin="upper")
    for column in range(1, 4):
        ax.axvline(column * sheet.shape[1] / 4, color=LOOKS["samples"].colour, linewidth=1.5)
    ax.set(xticks=[], yticks=[], title="each sample, and on its right the nearest training digit")
    near = row(arrays, "median")
    ax.set_gid(
        f"{N_PAIRS} pairs; the median sample is {near[0]:.2f} from its neighbour, a held-out digit {near[1]:.2f}."
    )


def _losses(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    sigma, training, error, held_out, error_held, linear, _ = arrays["levels"].T
    ax.plot(sigma, linear, color="black", linestyle=":", linewidth=1.8, label="best linear guess")
    for values, style, where in zip(arrays["memory"], ("-", "--"), ("on it", "held out"), strict=True):
        ax.plot(
            sigma,
            values,
            color=LOOKS["held_out"].colour,
            linestyle=style,
            linewidth=1.4,
            label=f"exact score of the training set: {where}",
        )
    for values, errors, marker, where in (
        (training, error, "s", "training digits"),
        (held_out, error_held, "D", "held out"),
    ):
        filled = LOOKS["samples"].colour if marker == "s" else "white"
        ax.errorbar(
            sigma,
            values,
            2 * errors,
            color=LOOKS["samples"].colour,
            marker=marker,
            markerfacecolor=filled,
            linewidth=1.4,
            label=f"network: {where}",
        )
    ax.set(xscale="log", xlim=(sigma.max() * 1.1, sigma.min() / 1.1), ylim=(-0.05, 2.05))
    ax.set(
        xlabel=r"level $\sigma$, as a chain goes through them",
        ylabel="share of the noise left",
        title="what the scores leave of the noise",
    )
    ax.legend(loc="upper left", fontsize=10)
    at = len(sigma) // 2
    ax.set_gid(
        f"At sigma = {sigma[at]:.2g}: network {training[at]:.3f} and {held_out[at]:.3f}, linear {linear[at]:.3f}, exact score of the "
        f"training set {arrays['memory'][0, at]:.3f} and {arrays['memory'][1, at]:.3f}."
    )


def _classes(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    digits = np.arange(arrays["shares"].shape[1])
    for i, (name, hatch) in enumerate((("samples", ""), ("held_out", "//"))):
        share = arrays["shares"][SETS.index(name)]
        ax.bar(
            digits + 0.36 * (i - 0.5),
            share,
            0.34,
            color=LOOKS[name].colour,
            alpha=0.8,
            hatch=hatch,
            edgecolor="white",
            label=LABELS[name],
        )
    ax.step(
        np.arange(-0.5, 10),
        [*arrays["shares"][3], arrays["shares"][3][-1]],
        where="post",
        color="black",
        label="training",
    )
    ax.set(xticks=digits, xlabel="class, by a linear classifier", ylabel="share", title="classes", ylim=(0, 0.235))
    ax.legend(loc="upper center", ncols=3, fontsize=10)
    off = row(arrays, "class")
    ax.set_gid(
        f"Total variation from the training digits' classes: samples {off[0]:.3f}, held-out digits {off[1]:.3f}."
    )


def _shares(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    shown = ("precision", "recall", "coverage")
    for place, key in enumerate(shown):
        ax.axhline(place, color="0.85", zorder=0)
        for shift, name, value in zip((-0.16, 0, 0.16), SETS, row(arrays, key), strict=True):
            form = {"color": LOOKS[name].colour, "markersize": 10, "markeredgecolor": "white"}
            ax.plot(value, place + shift, LOOKS[name].marker, label=LABELS[name] if place == 0 else None, **form)
    ax.plot([expected(arrays)] * 2, [1.75, 2.25], color="black", linewidth=1.5, label="of the same law")
    ax.set(yticks=range(len(shown)), yticklabels=shown, ylim=(2.5, -0.95), xlim=(0, 1.03), xlabel="share")
    ax.set(title="against the training digits")
    ax.legend(loc="upper left", ncols=2, fontsize=10)
    ax.set_gid("; ".join(f"{key}: {', '.join(f'{v:.3f}' for v in row(arrays, key))}" for key in shown) + ".")


def _frechet(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    values = row(arrays, "Fréchet")
    for place, (name, value) in enumerate(zip(SETS, values, strict=True)):
        ax.plot(place, value, LOOKS[name].marker, color=LOOKS[name].colour, markersize=10)
    ax.set(
        xticks=[],
        xlim=(-0.6, 2.6),
        ylim=(0, 1.15 * values.max()),
    )
    ax.set(title="Fréchet distance", xlabel="less is better")
    ax.set_gid(f"{', '.join(f'{LABELS[n]} {v:.3f}' for n, v in zip(SETS, values, strict=True))}: less is better.")
