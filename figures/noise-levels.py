r"""Noise levels from the data, by NCSNv2's rules, beside what was published. Source: song2020, Technique 1, Technique 2, Technique 4.

1. *Technique 1, the first level.* Sigma_1 is the largest distance between two points: here of 999 handwritten digits, and of the same
   with one image left in its raw units, 0 to 16. That one image sets the largest distance, and every quantile above 1 - 2/N as well,
   since it takes part in 2/N of the pairs; a lower quantile stays. ``design_levels`` warns, in the words quoted.
2. *Technique 2, the ratio.* Neighbouring levels should overlap by about a half. Full lines are the exact law of a radius, chi; broken ones
   NCSNv2's normal approximation. They agree in as many dimensions as images have. In few dimensions they do not, and below D = 5 the
   normal one never falls to a half.
3. *Technique 4, the step.* A level begins with the variance gamma² sigma²; after T steps it should be as near sigma² as it can be. Too
   small a step does not forget, too large a one widens; circles are the best, the star is what was published.
4. *Published against the rules.* One row a data set: the rules' number over the published one. Step sizes are eta, half our
   epsilon, at the published number of levels, so that each rule is asked alone.

Nothing here is random.
"""

from __future__ import annotations

import math
import textwrap
import warnings
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from toyscore import plotting
from toyscore.diagnostics import (
    design_ladder,
    design_levels,
    distance_quantile,
    epsilon_from_eta,
    eta_from_epsilon,
    largest_distance,
    level_overlap,
    level_ratio,
    relaxed_variance,
    tuned_step,
)


class Published(NamedTuple):
    """A configuration of song2020: the side of its colour images, sigma_1, L, T and eta."""

    name: str
    side: int
    sigma_max: float
    n_levels: int
    n_steps_each: int
    eta: float

    @property
    def dim(self) -> int:
        """D, three colours a pixel."""
        return 3 * self.side**2


PUBLISHED = (
    Published("CIFAR-10", 32, 50, 232, 5, 6.2e-6),
    Published("CelebA", 64, 90, 500, 5, 3.3e-6),
    Published("LSUN church", 96, 140, 788, 4, 4.9e-6),
    Published("LSUN bedroom", 128, 190, 1086, 3, 1.8e-6),
    Published("FFHQ", 256, 348, 2311, 3, 9e-7),
)
SIGMA_MIN = 0.01  # of all five
OVERLAP = 0.5  # Technique 2
AGREES = 0.05  # a published step size this near the rule's is called the same
N_DIGITS = 999  # with the outlier a thousand, of which the designer looks for one outlier
RAW = 16.0  # what the largest pixel of a digit is before it is divided by it
QUANTILES = (0.999, 0.99)
DIMS = (2, 10, 64, 784, 3072)
STEPS_EACH = (1, 5, 20, 100)
COLOURS = ("#000000", "#D55E00", "#E69F00", "#009E73", "#0072B2")
MARKERS = ("v", "s", "D", "^", "o")
STYLES = (":", "-", "-.", "--")
GREYS = ("0.68", "0.5", "0.3", "0.0")  # of T, beside a style each; colours are dimensions


def digits() -> Tensor:
    """Images of 8 x 8 pixels in [0, 1]: [N_DIGITS, 64]."""
    from sklearn.datasets import load_digits

    return torch.tensor(load_digits().data[:N_DIGITS] / RAW, dtype=torch.float32)


def distances(quick: bool) -> dict[str, np.ndarray]:
    """Panel 1: all distances as a histogram; the largest and the quantiles, without the outlier and with it; the warning; the design."""
    clean = digits()
    spoilt = torch.cat([clean, RAW * clean[:1]])
    heights, edges = np.histogram(torch.pdist(clean).numpy(), bins=20 if quick else 60)
    found = [[largest_distance(x), *(distance_quantile(x, q) for q in QUANTILES)] for x in (clean, spoilt)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        design_levels(spoilt)
    design = design_levels(clean)
    return {
        "distances": heights / heights.sum() / np.diff(edges),
        "edges": edges,
        "reach": np.array(found),
        "warning": np.array(str(caught[0].message)),
        "report.digits": np.array(str(design)),
        "levels.digits": np.array(len(design.sigmas)),
    }


def overlaps(quick: bool) -> dict[str, np.ndarray]:
    """Panel 2: overlap against ratio by both laws, the ratios at which it is a half, and the least D in which the normal law gets there."""
    excess = np.geomspace(0.003, 100, 20 if quick else 120)
    laws = ("chi", "normal")
    curves = [[[level_overlap(dim, 1 + e, law) for e in excess] for law in laws] for dim in DIMS]
    least = next(dim for dim in range(1, 100) if level_overlap(dim, 1e6, "normal") < OVERLAP)
    crossings = [
        [level_ratio(dim, overlap=OVERLAP, law=law) if law == "chi" or dim >= least else math.nan for law in laws]
        for dim in DIMS
    ]
    return {
        "excess": excess,
        "overlaps": np.array(curves),
        "crossings": np.array(crossings),
        "least_dim": np.array(least),
    }


def rules() -> dict[str, np.ndarray]:
    """Panel 4: for each data set L of the rule by both laws, the overlap of the published L, eta and the variance that the rule leaves."""
    rows = []
    for p in PUBLISHED:
        given = {"n_steps_each": p.n_steps_each, "overlap": OVERLAP}
        ours = [len(design_ladder(p.sigma_max, SIGMA_MIN, p.dim, law=law, **given).sigmas) for law in ("normal", "chi")]
        theirs = design_ladder(p.sigma_max, SIGMA_MIN, p.dim, n_levels=p.n_levels, law="normal", **given)
        rows.append([*ours, theirs.overlap, eta_from_epsilon(theirs.step_size), theirs.relaxed, theirs.ratio])
    first = PUBLISHED[0]
    design = design_ladder(first.sigma_max, SIGMA_MIN, first.dim, n_steps_each=first.n_steps_each)
    return {"rules": np.array(rows), "report.published": np.array(str(design))}


def steps(ratio: float, quick: bool) -> dict[str, np.ndarray]:
    """Panel 3: the variance after T steps against the step size, its minima, and where the published step lands; all over sigma²."""
    sizes = np.geomspace(2e-4, 2, 50 if quick else 400)
    curves = [relaxed_variance(ratio**2, 1.0, torch.as_tensor(sizes), n).numpy() for n in STEPS_EACH]
    first = PUBLISHED[0]
    size = epsilon_from_eta(first.eta) / SIGMA_MIN**2
    return {
        "sizes": sizes,
        "relaxed": np.array(curves),
        "best": np.array([tuned_step(ratio, 1.0, n) for n in STEPS_EACH]),
        "star": np.array([size, relaxed_variance(ratio**2, 1.0, size, first.n_steps_each)]),
    }


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """All four panels; the seed changes nothing."""
    found = rules()
    return distances(quick) | overlaps(quick) | found | steps(float(found["rules"][0, 5]), quick)


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Levels, overlaps, step sizes, ratios and distances. All are determined: counts to nothing, the others to a relative 1e-4.

    Distances are of float32 points, and the place of a minimum is known to about 1e-7; all else is rounding.
    """
    exact: dict[str, float] = {}
    near: dict[str, float] = {}
    for p, (normal, chi, overlap, eta, relaxed, _) in zip(PUBLISHED, arrays["rules"], strict=True):
        key = p.name.lower().replace(" ", "_")
        exact |= {f"levels_{key}": normal, f"levels_{key}_chi": chi}
        near |= {f"overlap_{key}_published": overlap, f"eta_{key}": eta, f"variance_{key}": relaxed}
    exact |= {
        "least_dim_of_the_normal_law": float(arrays["least_dim"]),
        "levels_digits": float(arrays["levels.digits"]),
    }
    for dim, (chi, normal) in zip(DIMS, arrays["crossings"], strict=True):
        near |= {f"ratio_{dim}_chi": chi} | ({} if math.isnan(normal) else {f"ratio_{dim}_normal": normal})
    for name, row in zip(("clean", "outlier"), arrays["reach"], strict=True):
        near |= dict(zip([f"largest_{name}", *(f"quantile_{q}_{name}" for q in QUANTILES)], row.tolist(), strict=True))
    for n, (size, least) in zip(STEPS_EACH, arrays["best"], strict=True):
        near |= {f"step_{n}": size, f"variance_{n}": least}
    found = {key: (float(value), 0.0) for key, value in exact.items()}
    return found | {key: (float(value), 1e-4 * float(f"{value:.1g}")) for key, value in near.items()}


def apart(arrays: dict[str, np.ndarray]) -> list[int]:
    """The data sets whose published step size is not the rule's."""
    return [k for k, p in enumerate(PUBLISHED) if abs(arrays["rules"][k, 3] / p.eta - 1) > AGREES]


def caption(arrays: dict[str, np.ndarray]) -> str:
    """What the rules give beside what was published, and what one outlier does."""
    ours, _, overlap, etas, *_ = arrays["rules"].T
    etas_published = np.array([p.eta for p in PUBLISHED])
    others = [k for k in range(len(PUBLISHED)) if k not in apart(arrays)]
    off = np.abs(etas / etas_published - 1)[others].max()
    odd = "".join(
        f", but for {PUBLISHED[k].name}, where it gives {etas[k]:.3g} and {PUBLISHED[k].eta:.3g} is published "
        f"(as epsilon, 2 eta, it gives {epsilon_from_eta(etas[k]):.3g})"
        for k in apart(arrays)
    )
    (largest, high, low), (largest_out, high_out, low_out) = arrays["reach"]
    return (
        f"With an overlap of {OVERLAP:g} by the normal approximation the rules ask for {', '.join(f'{n:,.0f}' for n in ours)} levels on "
        f"{', '.join(p.name for p in PUBLISHED)}, where {', '.join(f'{p.n_levels:,}' for p in PUBLISHED)} are published, which overlap by "
        f"{overlap.min():.3f} to {overlap.max():.3f}. "
        f"For those, technique 4 gives the published step sizes eta within {off:.1%}{odd}. "
        f"One raw image among {N_DIGITS + 1:,} digits moves the largest distance from {largest:.2f} to {largest_out:.2f}, the quantile "
        f"{QUANTILES[0]:g} from {high:.2f} to {high_out:.2f}, and the quantile {QUANTILES[-1]:g} from {low:.2f} to {low_out:.2f}."
    )


def draw_distances(above: Axes, below: Axes, arrays: dict[str, np.ndarray]) -> None:
    """The histogram, and beneath it what one outlier does to each candidate for sigma_1."""
    blue, orange = plotting.ROLES["truth"].colour, plotting.ROLES["learned"].colour
    above.stairs(arrays["distances"], arrays["edges"], fill=True, color=blue, alpha=0.6)
    above.set(xscale="log", ylabel="density of pairs", yticks=[])
    above.set_title(
        "1  technique 1: $\\sigma_1$ = largest distance\n"
        + f"(one outlier is in {2 / (N_DIGITS + 1):.1%} of the pairs)"
    )
    names = ["largest", *(f"quantile {q:g}" for q in QUANTILES)]
    clean, spoilt = arrays["reach"]
    for row, (a, b) in enumerate(zip(clean, spoilt, strict=True)):
        below.plot([a, b], [row, row], color="0.6", lw=2, zorder=1)
        below.plot(a, row, "o", ms=10, color=blue, label=f"{N_DIGITS} digits" if row == 0 else None)
        below.plot(b, row, "X", ms=10, color=orange, label="and one not scaled" if row == 0 else None)
        below.annotate(f"{a:.2f}", (a, row), (-10, 0), textcoords="offset points", ha="right", va="center", fontsize=11)
        below.annotate(f"{b:.2f}", (b, row), (10, 0), textcoords="offset points", va="center", fontsize=11)
    below.set(xscale="log", xlim=(0.7, 180), ylim=(len(names) - 0.4, -0.6), yticks=range(len(names)), yticklabels=names)
    below.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    below.minorticks_off()
    quoted = textwrap.fill(f"design_levels warns: {arrays['warning']}", 56)
    below.set_xlabel(f"distance of two points [units of x]\n{quoted}", fontsize=11)
    above.tick_params(labelbottom=False)
    above.legend(*below.get_legend_handles_labels(), loc="upper right", fontsize=11)
    told = "; ".join(f"{n} {a:.3f} without and {b:.3f} with" for n, a, b in zip(names, clean, spoilt, strict=True))
    above.set_gid(f"Distances of {N_DIGITS} digits, and one outlier: {told}.")


def draw_overlaps(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Overlap against ratio, a pair of lines for each dimension."""
    told = []
    for k, dim in enumerate(DIMS):
        chi, normal = arrays["overlaps"][k]
        ax.plot(arrays["excess"], chi, "-", color=COLOURS[k], lw=2)
        ax.plot(arrays["excess"], normal, "--", color=COLOURS[k], lw=2)
        ax.plot([], [], MARKERS[k], color=COLOURS[k], ms=8, label=f"D = {dim:,}")
        exact, approximate = arrays["crossings"][k]
        ax.plot(exact - 1, OVERLAP, MARKERS[k], color=COLOURS[k], ms=9, zorder=3)
        never = math.isnan(approximate)
        told.append(
            f"D = {dim:,}, {exact:.4g} exact and {'never' if never else f'{approximate:.4g}'} by the normal law"
        )
    ax.plot([], [], "-", color="0.3", lw=2, label="exact (chi)")
    ax.plot([], [], "--", color="0.3", lw=2, label="normal")
    ax.axhline(OVERLAP, color="0.45", lw=1.2)
    ax.set(xscale="log", xlim=(0.003, 100), ylim=(-0.03, 1.05))
    ax.set_xticks([0.01, 0.1, 1, 10, 100], ["1.01", "1.1", "2", "11", "101"])
    ax.minorticks_off()
    ax.set(
        xlabel=r"ratio of levels $\gamma=\sigma_i/\sigma_{i+1}$ ($\gamma-1$ logarithmic)",
        ylabel="overlap of neighbours",
        title="2  technique 2: the ratio of levels\n"
        + f"(normal law: never {OVERLAP:g} below D = {arrays['least_dim']})",
    )
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.48, -0.17), fontsize=11, ncols=3, handlelength=1.8, columnspacing=1.4
    )
    ax.set_gid(f"The ratio at which neighbours overlap by {OVERLAP:g}: {'; '.join(told)}.")


def draw_steps(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Variance left after T steps, with the best step of each T and the published one."""
    first, told = PUBLISHED[0], []
    ratio = float(arrays["rules"][0, 5])
    for k, n in enumerate(STEPS_EACH):
        size, least = arrays["best"][k]
        ax.plot(arrays["sizes"], arrays["relaxed"][k], STYLES[k], color=GREYS[k], lw=2.2)
        ax.annotate(f"T = {n}", (size, least), (-5, -7), textcoords="offset points", ha="right", va="top", fontsize=11)
        ax.plot(size, least, "o", ms=10, mfc="white", mec=GREYS[k], mew=2.2, zorder=3)
        told.append(f"T = {n}, {size:.3g} leaves {least:.4f}")
    size, left = arrays["star"]
    ax.plot(size, left, "*", ms=11, color="black", zorder=4)
    ax.set(xscale="log", xlim=(arrays["sizes"][0], 2), ylim=(1 - 0.004, 1 + 1.08 * (ratio**2 - 1)))
    ax.axhline(1, color="0.45", lw=1.2)
    ax.set(
        xlabel=r"step size $\epsilon/\sigma^2$",
        ylabel=r"variance after T steps / $\sigma^2$",
        title=rf"3  technique 4: the step ({first.name}, $\gamma={ratio:.4f}$)"
        + "\n"
        + rf"circles best, star published ($\eta={first.eta * 1e6:g}\times10^{{-6}}$)",
    )
    ax.set_gid(f"Best steps over sigma²: {'; '.join(told)}; the published one, {size:.3g}, leaves {left:.4f}.")


def draw_published(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """The rules' numbers over the published ones, a row a data set."""
    told, overlaps = [], arrays["rules"][:, 2]
    for row, (p, (ours, _, _, eta, *_)) in enumerate(zip(PUBLISHED, arrays["rules"], strict=True)):
        odd = row in apart(arrays)
        for k, (value, given, form) in enumerate(((ours, p.n_levels, ",.0f"), (eta, p.eta, ".3g"))):
            y = row - 0.17 + 0.34 * k
            colour = plotting.ROLES["truth"].colour if k == 0 else plotting.ROLES["learned"].colour
            ax.plot(
                value / given,
                y,
                "os"[k],
                ms=9,
                color=colour,
                label=("levels L", r"step $\eta$")[k] if row == 0 else None,
            )
            words = f"{value:{form}} : {given:{form}}"
            ax.annotate(
                words,
                (value / given, y),
                (10 if k else -10, 0),
                ha="left" if k else "right",
                textcoords="offset points",
                va="center",
                fontsize=10.5,
                fontweight="bold" if odd and k else "normal",
            )
            told.append(f"{p.name} {('L', 'eta')[k]} {value:{form}} against {given:{form}}")
    ax.axvline(1, color="0.45", lw=1.2)
    ax.set(
        xlim=(0.4, 1.4),
        ylim=(len(PUBLISHED) - 0.4, -0.6),
        yticks=range(len(PUBLISHED)),
        yticklabels=[f"{p.name}\n{p.side}×{p.side}" for p in PUBLISHED],
        xlabel="rule / published",
        title="4  five designs, rule (normal law) : published\n"
        + f"(the published L overlap by {overlaps.min():.3f} to {overlaps.max():.3f})",
    )
    ax.legend(loc="upper left", fontsize=11)
    ax.set_gid(f"{'; '.join(told)}.")


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """The four panels, and two reports of the designer."""
    figure, axes = plt.subplot_mosaic(
        [["distances", "overlaps"], ["reach", "overlaps"], ["steps", "published"]],
        figsize=(11, 11),
        height_ratios=[0.85, 1, 2],
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    axes["distances"].sharex(axes["reach"])
    draw_distances(axes["distances"], axes["reach"], arrays)
    draw_overlaps(axes["overlaps"], arrays)
    draw_steps(axes["steps"], arrays)
    draw_published(axes["published"], arrays)
    reports = {"digits": arrays["report.digits"], PUBLISHED[0].name: arrays["report.published"]}
    lines = [
        textwrap.fill(f"{name}, ratio by the exact law: {report}", 112, subsequent_indent="   ")
        for name, report in reports.items()
    ]
    figure.supxlabel(
        "\n".join(lines),
        fontsize=11,
        ha="center",
        multialignment="left",
        bbox={"boxstyle": "round", "facecolor": "0.95", "edgecolor": "0.6"},
    )
    return figure
