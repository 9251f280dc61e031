"""Twelve toys, and what noise does to their scores.

Norms span decades, so no length of arrow would show them all: arrows are of one length and show directions, and colours, on
one logarithmic scale for all panels, show norms. The title of each field is the share of the noise that the score predicts,

    sigma² E‖s‖² / D,    E over q_sigma:

of x = x_0 + sigma z the best guess of z is -sigma s(x), and this is its part of E‖z‖² = D. It is 0 for a density that is
flat on the scale of sigma, about ½ for a curve in the plane (noise across it shows, noise along it does not), and tends to 1
when sigma outgrows the data.

A mixture is exact. Of a toy that can only be sampled, a data set is drawn, and its exact score (``empirical``) stands in.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from toyscore import plotting
from toyscore.distributions import TOYS, Empirical, GaussianMixture, empirical
from toyscore.operators import dot, normal_like

SIGMAS = (0.5, 1.5, 4.5)
LIMITS = (0.03, 100.0)  # norms at the ends of the colours
N_ROWS = 6


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """A data set of each toy that needs one, and the predicted share of the noise for each toy and level."""
    n = 200 if quick else 4000
    generator = torch.Generator().manual_seed(seed)
    arrays = {}
    for name, make in TOYS.items():
        toy = make()
        if not isinstance(toy, GaussianMixture):
            arrays[f"points.{name}"] = toy.sample(n, generator=generator).contiguous().numpy()
        p = known(name, arrays)
        shares = []
        for sigma in SIGMAS:
            x = p.sample(n, generator=generator)
            s = p.score(x + sigma * normal_like(x, generator), sigma)
            shares.append(float(sigma**2 * dot(s, s).mean() / s.shape[1]))
        arrays[f"shares.{name}"] = np.array(shares)
    return arrays


def known(name: str, arrays: dict[str, np.ndarray]) -> GaussianMixture | Empirical:
    """The mixture, or the data set, whose score is drawn."""
    toy = TOYS[name]()
    return toy if isinstance(toy, GaussianMixture) else empirical(torch.as_tensor(arrays[f"points.{name}"]))


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """The shares at the least and the largest level; tolerances are four standard deviations (``run.py --spread 8``)."""
    return {
        f"{name}_at_{SIGMAS[i]:g}": (float(arrays[f"shares.{name}"][i]), tolerance)
        for name in TOYS
        for i, tolerance in ((0, 0.055), (-1, 0.065))
    }


def caption(arrays: dict[str, np.ndarray]) -> str:
    """Two sentences of numbers."""
    shares = {name: arrays[f"shares.{name}"] for name in TOYS}
    ranges = []
    for i, sigma in enumerate(SIGMAS):
        low, high = (choose(shares, key=lambda name, i=i: shares[name][i]) for choose in (min, max))
        ranges.append(f"from {shares[low][i]:.0%} ({low}) to {shares[high][i]:.0%} ({high}) at sigma = {sigma:g}")
    n = {len(value) for key, value in arrays.items() if key.startswith("points.")}
    return (
        f"{len(TOYS)} toys and their exact scores at {len(SIGMAS)} noise levels; the share of the noise that the score predicts, "
        f"sigma² E‖s‖² / D, goes {', '.join(ranges)}. Of toys without a formula the score is that of "
        f"{' or '.join(f'{count:,}' for count in sorted(n))} smoothed samples; arrows show its direction, colours its norm."
    )


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """Two toys to a row: density or samples, then the score at each level."""
    columns = 1 + len(SIGMAS)
    widths = [1.0] * columns + [0.05] + [1.0] * columns
    figure, axes = plt.subplots(N_ROWS, len(widths), figsize=(10.8, 9.6), width_ratios=widths, layout="constrained")
    for ax in axes[:, columns]:
        ax.remove()
    panels = np.delete(axes, columns, axis=1).reshape(-1, columns)
    for row, name in zip(panels, TOYS, strict=True):
        p = known(name, arrays)
        if isinstance(p, GaussianMixture):
            plotting.density(row[0], p.log_prob)
        else:
            plotting.samples(row[0], p.points, size=1.5)
        row[0].set_title(name, fontsize=11)
        for ax, sigma, share in zip(row[1:], SIGMAS, arrays[f"shares.{name}"], strict=True):
            image, _ = plotting.score_map(ax, p.score, sigma=sigma, limits=LIMITS)
            ax.set_title(rf"$\sigma={sigma:g}$: {share:.0%}", fontsize=11)
    for ax in panels.flat:
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_visible(False)  # cheaper to lay out than no ticks
    figure.colorbar(
        image,
        ax=panels,
        location="bottom",
        aspect=60,
        shrink=0.6,
        pad=0.015,
        extend="both",
        label=r"norm of the score $\|s(x,\sigma)\|$; titles: share of the noise it predicts",
    )
    return figure
