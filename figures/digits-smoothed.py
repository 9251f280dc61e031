"""The same annealed sampler on images, with an exact score: it memorises. Source: song2019, Algorithm 1.

The 1,797 digits of 8 x 8 pixels that scikit-learn ships are smoothed by Gaussian noise; the score of that density is known
in closed form and takes the place of a network. Annealed Langevin dynamics, the same function that samples the two-dimensional
toys, turns noise into digits: into *training* digits, because the exact minimiser of denoising score matching on a data set
has nowhere else to go.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from toyscore import data
from toyscore.distributions import empirical
from toyscore.noise import geometric
from toyscore.operators import normal_like
from toyscore.samplers import annealed_langevin

LEVELS = (6.0, 0.02, 24)
EPSILON_OVER_SIGMA2 = 0.3  # epsilon / sigma_L^2, the same share of every level's variance
N_SHOWN = 10
N_COLUMNS = 9


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Chains of images, each end's nearest training digit, and how near training digits are to each other."""
    digits = data.digits(dequantise=False)
    points = digits.tensor()
    p = empirical(points)
    n, each = (N_SHOWN, 5) if quick else (200, 40)
    generator = torch.Generator().manual_seed(seed)
    sigmas = geometric(*LEVELS)
    start = float(sigmas[0]) * normal_like(points.new_empty(n, 1, 8, 8), generator)
    step_size = EPSILON_OVER_SIGMA2 * float(sigmas[-1]) ** 2
    chain = annealed_langevin(
        p.score, start, sigmas, step_size=step_size, n_steps_each=each, denoise=True, generator=generator
    )
    kept = [start[:N_SHOWN]]
    noisy = last = start
    shown = torch.linspace(0, len(sigmas) - 1, N_COLUMNS - 2).round().long().tolist()
    for i, x in enumerate(chain):
        noisy, last = last, x
        if (i + 1) % each == 0 and i // each in shown and i < each * len(sigmas):
            kept.append(x[:N_SHOWN])
    kept.append(last[:N_SHOWN])
    index, distance = p.nearest(last)
    _, before = p.nearest(noisy)
    between = torch.cdist(points.flatten(1), points.flatten(1)).fill_diagonal_(float("inf")).min(1).values
    return {
        "chains": torch.stack(kept, 1).numpy(),
        "sigmas": np.array([np.inf, *(float(sigmas[i]) for i in shown), 0.0]),
        "nearest": points[index[:N_SHOWN]].numpy(),
        "nearest_index": index.numpy(),
        "distance": distance.numpy(),
        "before": before.numpy(),
        "between": between.numpy(),
        "classes": np.bincount(digits.labels[index.numpy()], minlength=10),
    }


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Distances, and how many different digits came out, within four standard deviations over seeds."""
    return {
        "median_distance_to_training": (float(np.median(arrays["distance"])), 1e-6),
        "median_distance_before_denoising": (float(np.median(arrays["before"])), 0.005),
        "median_distance_between_training": (float(np.median(arrays["between"])), 1e-4),
        "distinct_digits": (float(len(np.unique(arrays["nearest_index"]))), 8.0),
        "classes_reached": (float((arrays["classes"] > 0).sum()), 0.0),
    }


def caption(arrays: dict[str, np.ndarray]) -> str:
    """One sentence of numbers."""
    n, distinct = len(arrays["distance"]), len(np.unique(arrays["nearest_index"]))
    classes, before, after, between = (
        int((arrays["classes"] > 0).sum()),
        *(float(np.median(arrays[key])) for key in ("before", "distance", "between")),
    )
    return (
        f"{n} chains from noise end at {distinct} different training digits of {classes} classes, at a median distance "
        f"of {before:.3f} from the nearest one, {after:.3f} once denoised; training digits are {between:.2f} from each "
        f"other: an exact score of the data set memorises."
    )


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """One row per chain: noise, the levels, the denoised end, and the nearest training digit."""
    chains, sigmas = arrays["chains"], arrays["sigmas"]
    n, columns = chains.shape[:2]
    widths = [1.0] * columns + [1.25, 1.0]
    figure, axes = plt.subplots(n, columns + 2, figsize=(11.4, 10.2), width_ratios=widths, layout="constrained")
    for row in range(n):
        for column in range(columns):
            image, sigma = chains[row, column, 0], sigmas[column]
            reach = 0.5 + 1.5 * min(float(sigma), LEVELS[0])  # grey from white to black covers the digits and the noise
            axes[row, column].imshow(image, cmap="gray_r", vmin=0.5 - reach, vmax=0.5 + reach, origin="upper")
        axes[row, columns].axis("off")
        nearest = axes[row, columns + 1]
        nearest.imshow(arrays["nearest"][row, 0], cmap="gray_r", vmin=0, vmax=1, origin="upper")
        steps = f"{arrays['before'][row]:.3f} noisy\n{arrays['distance'][row]:.3f} clean"
        axes[row, columns].text(0.5, 0.5, steps, ha="center", va="center", linespacing=1.8, fontsize=11)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    for column, sigma in enumerate(sigmas):
        title = "start" if np.isinf(sigma) else "denoised" if sigma == 0 else rf"$\sigma={sigma:.2g}$"
        axes[0, column].set_title(title, fontsize=12)
    axes[0, columns].set_title("distance to", fontsize=12)
    axes[0, columns + 1].set_title("nearest in\ntraining set", fontsize=12)
    axes[0, 0].set_gid(
        f"{n} chains of 8 x 8 images, from noise of standard deviation {LEVELS[0]:g} to digits; the last column shows each end's nearest "
        f"training digit, {arrays['distance'][:n].min():.3f} to {arrays['distance'][:n].max():.3f} away."
    )
    return figure
