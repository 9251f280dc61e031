"""Score matching is blind to weights, and noise gives it sight. Source: song2019, Sec. 3.2; lyu2009, Theorem 1.

Two mixtures that differ in nothing but their weights. *Above*, on the line through their two heaviest modes: the clean densities are
plainly different, and the scores are one curve. Where the scores do differ, in the enlarged middle column, there is no mass. At the
noise level where the modes meet (right) there is.

*Below, left*: the Kullback-Leibler divergence KL = E_p log p/q knows the weights on clean data, the Fisher divergence
F = ½ E_p |∇log p - ∇log q|² does not. *Middle*: under heat flow d KL / d sigma² = -F, so the area under 2 sigma² F over ln sigma is the
whole KL. A geometric ladder with the weight sigma² sees the part between its ends (dark); what lies above its first level has to come from
where the chains start. The ladder is the paper's, its levels read as standard deviations of the noise. *Right*: the further the modes, the
blinder: for unit modes at ±a, F falls like a exp(-a²/2), and KL tends to that of the weights.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure

from toyscore import plotting
from toyscore.diagnostics import divergences, weight_blindness
from toyscore.distributions import GaussianMixture, asymmetric, two_modes
from toyscore.noise import geometric

LADDER = (20.0, 1.0)  # the first and the last level of the paper's toy
DECADES = (-1, 3)  # of sigma: below and above lies less than a ten-thousandth of the area
SHARE = 0.99  # of the area, for the first level that is enough
N_LINE = 2001  # points of a section
N_STDS = 4  # of a mode that a section shows: all of it, for the eye
VISIBLE = 0.01  # of the largest difference of the scores: where the enlarged section ends

OURS, THEIRS = plotting.ROLES["truth"].colour, "#E69F00"
KL, FISHER, WEIGHTED = "#000000", "#56B4E9", "#D55E00"


def mixture() -> GaussianMixture:
    """What the figure is about: change it and every number follows."""
    return two_modes()


def other() -> GaussianMixture:
    """A mixture without symmetries, for which the area must be the KL too."""
    return asymmetric()


def equal(p: GaussianMixture) -> list[float]:
    """The weights that p is compared with."""
    return [1 / len(p.weights)] * len(p.weights)


def line(p: GaussianMixture) -> tuple[torch.Tensor, torch.Tensor]:
    """Through p's two heaviest modes: the middle between them, and the direction."""
    first, second = p.means[p.weights.argsort(descending=True)[:2].sort().values]
    return (first + second) / 2, (first - second) / (first - second).norm()


def places(p: GaussianMixture, sigma: float) -> torch.Tensor:
    """On the line, from four standard deviations beyond the projection of one mode to as far beyond that of another."""
    middle, along = line(p)
    centres = (p.means - middle) @ along
    stds = (torch.einsum("i,kij,j->k", along, p.covariances, along) + sigma**2).sqrt()
    low, high = float((centres - N_STDS * stds).min()), float((centres + N_STDS * stds).max())
    return torch.linspace(low, high, N_LINE, dtype=torch.float64)


def section(p: GaussianMixture, q: GaussianMixture, t: torch.Tensor, sigma: float) -> dict[str, np.ndarray]:
    """Densities and scores on the line, at a distance t from its middle."""
    middle, along = line(p)
    x = middle + t[:, None] * along
    return {
        "t": t.numpy(),
        "density": torch.stack([r.log_prob(x, sigma).exp() for r in (p, q)]).numpy(),
        "score": torch.stack([r.score(x, sigma) @ along for r in (p, q)]).numpy(),
    }


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Divergences by quadrature; there is nothing random, and the seed changes nothing."""
    per_decade, n_levels, n_distances = (2, 5, 8) if quick else (40, 10, 57)
    arrays = {}
    sigmas = torch.logspace(*DECADES, per_decade * (DECADES[1] - DECADES[0]) + 1, dtype=torch.float64)
    for name, p in (("", mixture()), ("other.", other())):
        for kind, levels in (("clean", [0.0]), ("curve", sigmas), ("ladder", geometric(*LADDER, n_levels).flip(0))):
            found = weight_blindness(p, equal(p), levels)
            values = torch.stack([found.sigmas, found.kl, found.fisher, found.weighted])
            arrays[f"{name}{kind}"] = values.numpy()

    p = mixture().to(dtype=torch.float64)
    q = GaussianMixture(p.means, p.covariances, equal(p))
    half = float(torch.pdist(p.means).max()) / 2
    wide = places(p, 0.0)
    clean = section(p, q, wide, 0.0)
    gap = np.abs(clean["score"][0] - clean["score"][1])
    seen = clean["t"][gap > VISIBLE * gap.max()]
    near = torch.linspace(float(seen.min()), float(seen.max()), N_LINE, dtype=torch.float64)
    noisy = peak(arrays["curve"])[0]
    for name, t, sigma in (("clean", wide, 0.0), ("near", near, 0.0), ("noisy", places(p, noisy), noisy)):
        arrays |= {f"{name}.{key}": value for key, value in section(p, q, t, sigma).items()}

    distances = torch.linspace(0.5, half, n_distances, dtype=torch.float64)
    found = [divergences(unit_modes(a, p), unit_modes(a, q)) for a in distances]
    arrays["distance"] = np.array([distances.numpy(), [d.kl for d in found], [d.fisher for d in found]])
    return arrays


def unit_modes(a: torch.Tensor, p: GaussianMixture) -> GaussianMixture:
    """Two modes of unit variance at a and -a; the first has the weight of p's first."""
    return GaussianMixture(torch.stack([a, -a])[:, None], 1.0, torch.stack([p.weights[0], 1 - p.weights[0]]))


def area(curve: np.ndarray) -> float:
    """Under 2 sigma² F over ln sigma, by the trapezoidal rule."""
    return float(np.trapezoid(2 * curve[3], np.log(curve[0])))


def peak(curve: np.ndarray) -> tuple[float, float]:
    """Where 2 sigma² F is largest, and how large, by a parabola in ln sigma."""
    top = int(curve[3, 1:-1].argmax()) + 1
    x, y = np.log(curve[0, top - 1 : top + 2]), 2 * curve[3, top - 1 : top + 2]
    centre = x[1]
    a, b, c = np.polyfit(x - centre, y, 2)
    return float(np.exp(centre - b / (2 * a))), float(c - b * b / (4 * a))


def sigma_of(curve: np.ndarray, clean: np.ndarray, share: float) -> float:
    """The level below which this share of the area lies: where KL has fallen to the rest."""
    return float(np.exp(np.interp(-np.log((1 - share) * clean[1, 0]), -np.log(curve[1]), np.log(curve[0]))))


def facts(arrays: dict[str, np.ndarray], name: str = "") -> dict[str, float]:
    """What is claimed of a mixture."""
    clean, curve, ladder = (arrays[name + kind] for kind in ("clean", "curve", "ladder"))
    return {
        "kl": float(clean[1, 0]),
        "fisher": float(clean[2, 0]),
        "area": area(curve),
        "sigma_peak": peak(curve)[0],
        "sigma_needed": sigma_of(curve, clean, SHARE),
        "ladder_share": float((ladder[1, 0] - ladder[1, -1]) / clean[1, 0]),
        "ladder_sum": area(ladder) / float(ladder[1, 0] - ladder[1, -1]),
    }


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Of both mixtures: KL and F on clean data; the area; where its curve peaks, and below which sigma most of it lies; the share of it
    between the ends of the ladder, and the trapezoidal sum over the levels in units of that. Of the pair: how far its scores differ, and
    the density where they do; F at its distance in units of a exp(-a²/2).

    All are quadratures, or interpolations between levels or points; the tolerance, a thousandth of the value, is for rounding. The area
    differs from KL by what lies outside the levels, less than a ten-thousandth of it.
    """
    found = {
        f"{key}{name}": value
        for name, prefix in (("", ""), ("_asymmetric", "other."))
        for key, value in facts(arrays, prefix).items()
    }
    found["largest_difference_of_scores"], found["density_there"] = largest_difference(arrays)
    found["fisher_over_law"] = float(arrays["distance"][2, -1] / law(arrays["distance"][0, -1]))
    return {key: (value, 1e-3 * value) for key, value in found.items()}


def largest_difference(arrays: dict[str, np.ndarray]) -> tuple[float, float]:
    """Between the clean scores on the line, and the density there, in units of the largest on the line."""
    gap = np.abs(arrays["near.score"][0] - arrays["near.score"][1])
    return float(gap.max()), float(arrays["near.density"][0, gap.argmax()] / arrays["clean.density"][0].max())


def law(a: np.ndarray | float) -> np.ndarray:
    """How F falls with the distance."""
    return a * np.exp(-np.square(a) / 2)


def ratio(weights: torch.Tensor | list[float]) -> str:
    """Weights in words."""
    return " : ".join(f"{w:.2f}" for w in torch.as_tensor(weights).tolist())


def caption(arrays: dict[str, np.ndarray]) -> str:
    """What each divergence sees, the area, and what a ladder covers of it."""
    p, found, others = mixture(), facts(arrays), facts(arrays, "other.")
    gap, density = largest_difference(arrays)
    return (
        f"Weights {ratio(p.weights)} against {ratio(equal(p))}: on clean data KL is {found['kl']:.4f} nats and the Fisher divergence "
        f"{found['fisher']:.1e}, although the scores differ by up to {gap:.2f}: where they do, the density is {density:.0e} of its peak. "
        f"Twice sigma² times the Fisher divergence has the area {found['area']:.4f} over ln sigma, the KL (with "
        f"{len(other().weights)} asymmetric modes {others['area']:.4f}, KL {others['kl']:.4f}). It peaks at sigma = "
        f"{found['sigma_peak']:.1f}; {found['ladder_share']:.1%} of the area lies between the levels {LADDER[1]:g} and {LADDER[0]:g}, "
        f"{SHARE:.0%} below sigma = {found['sigma_needed']:.0f}."
    )


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """Densities and scores above; below the divergences against the noise, the area, and the divergences against the distance."""
    figure = plt.figure(figsize=(11, 10.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    p, found = mixture(), facts(arrays)
    sections(above, arrays)
    levels, weighted, distance = below.subplots(1, 3, width_ratios=[1, 1.35, 1])

    curve, ladder = arrays["curve"], arrays["ladder"]
    for row, label, colour, marker, style in (
        (1, "KL [nats]", KL, "o", "-"),
        (2, "F [1/x²]", FISHER, "v", "--"),
        (3, "2 σ² F", WEIGHTED, "s", "-"),
    ):
        times = 2 if row == 3 else 1
        levels.loglog(curve[0], times * curve[row], style, color=colour, lw=2)
        levels.loglog(ladder[0], times * ladder[row], marker, color=colour, ms=5)
        levels.plot([], [], style, marker=marker, color=colour, lw=2, ms=5, label=label)
    levels.axvspan(ladder[0, 0], ladder[0, -1], color="0.9", zorder=0)
    levels.legend(loc="lower center", fontsize=11)
    levels.set(xlabel=r"noise level $\sigma$ [x]", ylabel="divergence")
    levels.set_title("noise lifts the blindness\n(markers, grey: the ladder)", fontsize=12)
    levels.set_gid(
        f"At sigma 0 KL is {found['kl']:.4f} nats and F {found['fisher']:.2g}; at sigma {ladder[0, -1]:g} {ladder[1, -1]:.3g} and "
        f"{ladder[2, -1]:.3g}."
    )

    inside = (curve[0] >= ladder[0, 0]) & (curve[0] <= ladder[0, -1])
    height = 2 * curve[3]
    weighted.fill_between(curve[0], height, color=WEIGHTED, alpha=0.2, lw=0)
    weighted.fill_between(
        np.r_[ladder[0, 0], curve[0, inside], ladder[0, -1]],
        np.r_[2 * ladder[3, 0], height[inside], 2 * ladder[3, -1]],
        color=WEIGHTED,
        alpha=0.45,
        lw=0,
        label=f"{found['ladder_share']:.1%} within the ladder",
    )
    weighted.semilogx(curve[0], height, color=WEIGHTED, lw=2, label=f"area {found['area']:.4f}, KL {found['kl']:.4f}")
    weighted.semilogx(ladder[0], 2 * ladder[3], "s", color=WEIGHTED, ms=5)
    others, asymmetric_curve = facts(arrays, "other."), arrays["other.curve"]
    weighted.semilogx(
        asymmetric_curve[0],
        2 * asymmetric_curve[3],
        "--",
        color="black",
        lw=1.8,
        label=f"{len(other().weights)} asymmetric modes:\narea {others['area']:.4f}, KL {others['kl']:.4f}",
    )
    weighted.axvline(found["sigma_needed"], color="0.3", ls=":", lw=1.8)
    weighted.text(
        1.12 * found["sigma_needed"],
        0.55 * height.max(),
        f"{SHARE:.0%} of the\narea below\nσ = {found['sigma_needed']:.0f}",
        fontsize=11,
        va="center",
    )
    weighted.set(
        xlabel=r"noise level $\sigma$ [x], logarithmic",
        ylabel=r"$2\,\sigma^2 F$",
        ylim=(0, 1.65 * max(height.max(), 2 * asymmetric_curve[3].max())),
    )
    weighted.legend(loc="upper left", fontsize=10, framealpha=1)
    weighted.set_title("the area over ln σ is the KL\nof the clean data", fontsize=12)
    weighted.set_gid(
        f"The area is {found['area']:.4f} nats, KL {found['kl']:.4f}; the curve peaks at sigma {found['sigma_peak']:.2f}; "
        f"{found['ladder_share']:.1%} of the area lies within the ladder, {SHARE:.0%} below sigma {found['sigma_needed']:.1f}. "
        f"Asymmetric modes: area {others['area']:.4f}, KL {others['kl']:.4f}."
    )

    a, kl, fisher = arrays["distance"]
    distance.semilogy(a, kl, "o-", markevery=8, color=KL, lw=2, ms=5, label="KL [nats]")
    distance.semilogy(a, fisher, "v--", markevery=8, color=FISHER, lw=2.5, ms=6, label="F [1/x²]")
    distance.semilogy(a, fisher[-1] / law(a[-1]) * law(a), ":", color="black", lw=1.8, label=r"$\propto a\,e^{-a^2/2}$")
    distance.legend(loc="lower left", fontsize=11)
    distance.set(xlabel="half the distance, a [x]", ylabel="divergence")
    first, second = float(p.weights[0]), equal(p)[0]
    distance.set_title(
        f"unit modes at ±a, clean data\n{ratio([first, 1 - first])} against {ratio([second, 1 - second])}", fontsize=12
    )
    distance.set_gid(
        f"From a = {a[0]:.2g} to {a[-1]:.3g}, KL goes from {kl[0]:.3g} to {kl[-1]:.3g} and F from {fisher[0]:.2g} to {fisher[-1]:.2g}."
    )
    return figure


def sections(figure: Figure | SubFigure, arrays: dict[str, np.ndarray]) -> None:
    """Three columns of densities above scores."""
    axes = figure.subplots(2, 3, sharex="col")
    p, sigma = mixture(), facts(arrays)["sigma_peak"]
    titles = {
        "clean": "clean data",
        "near": "the grey part, enlarged",
        "noisy": f"noise σ = {sigma:.1f}",
    }
    looks = ((OURS, "-", 3.2, p.weights), (THEIRS, "--", 2.0, equal(p)))
    for (density, score), (name, title) in zip(axes.T, titles.items(), strict=True):
        t, densities, scores = (arrays[f"{name}.{key}"] for key in ("t", "density", "score"))
        exponent = int(np.floor(np.log10(densities.max())))
        exponent = exponent if exponent < -2 else 0
        for k, (colour, style, width, weights) in enumerate(looks):
            density.plot(
                t, densities[k] / 10.0**exponent, style, color=colour, lw=width, label=f"weights {ratio(weights)}"
            )
            score.plot(t, scores[k], style, color=colour, lw=width)
        density.set_title(title, fontsize=12)
        unit = rf"10^{{{exponent}}}" if exponent else "1"
        density.set_ylabel(rf"density [${unit}/\mathrm{{x}}^{{{p.means.shape[1]}}}$]")
        density.set_ylim(bottom=0)
        score.set(ylabel="score [1/x]", xlim=(t[0], t[-1]))
        gap = np.abs(scores[0] - scores[1]).max()
        score.set_gid(f"{titles[name]}: the scores differ by at most {gap:.3g}.".replace("\n", " "))
        density.set_gid(f"The densities reach {densities[0].max():.3g} and {densities[1].max():.3g}.")
    axes[0, 0].axvspan(arrays["near.t"][0], arrays["near.t"][-1], color="0.85", zorder=0)
    axes[1, 0].axvspan(arrays["near.t"][0], arrays["near.t"][-1], color="0.85", zorder=0)
    axes[1, 1].set_xlabel("place on the line through the modes [x]")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
