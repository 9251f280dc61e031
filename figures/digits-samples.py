"""Digits that no one wrote: a network in place of the exact score. Source: song2019, Sec. 5; song2021, Eq. (47).

The network of ``toyscore.pretrained.digits`` learned the 8 x 8 digits of scikit-learn by denoising score matching, with the loss and the
loop of the toys; the sampler is one of theirs, too, ancestral sampling: as good here as annealed Langevin dynamics, with a tenth of its
calls. How good the samples are is asked of a classifier that was fitted to real training digits: how sure it is of the samples, and how
sure of real digits that it has not seen.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

import shared
from toyscore import data, plotting

N_SIDE = 8


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Real and sampled digits, what the classifier says of both, and the nearest training digit of each sample."""
    x = torch.from_numpy(shared.digits(seed, quick))
    real = data.digits("held-out").sample(4000, generator=torch.Generator().manual_seed(seed))
    classifier = shared.judge()
    training = data.digits("train").tensor().flatten(1)
    held_out = data.digits("held-out").tensor().flatten(1)
    return {
        "samples": x.numpy(),
        "real": real[: N_SIDE**2].numpy(),
        "p": classifier.probabilities(x).numpy(),
        "p_real": classifier.probabilities(real).numpy(),
        "nearest": torch.cdist(x.flatten(1), training).min(1).values.numpy(),
        "nearest_real": torch.cdist(held_out, training).min(1).values.numpy(),
    }


def shares(p: np.ndarray) -> np.ndarray:
    """Of the ten classes, as the classifier sees them."""
    return np.bincount(p.argmax(1), minlength=p.shape[1]) / len(p)


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Confidence on both, the rarest class, and distances, within four standard deviations over seeds."""
    return {
        "confidence_samples": (float(arrays["p"].max(1).mean()), 0.03),
        "confidence_real": (float(arrays["p_real"].max(1).mean()), 0.01),
        "rarest_class": (float(shares(arrays["p"]).min()), 0.04),
        "median_distance_to_training": (float(np.median(arrays["nearest"])), 0.08),
        "median_distance_of_real": (float(np.median(arrays["nearest_real"])), 1e-5),
    }


def caption(arrays: dict[str, np.ndarray]) -> str:
    """Two sentences of numbers."""
    p, found = arrays["p"], shares(arrays["p"])
    error, real = p.max(1).std() / len(p) ** 0.5, arrays["p_real"].max(1).mean()
    near, near_real = (float(np.median(arrays[key])) for key in ("nearest", "nearest_real"))
    return (
        f"A classifier of real digits is {p.max(1).mean():.3f} ± {error:.3f} sure of {len(p)} sampled ones and {real:.3f} of real ones "
        f"that it has not seen; every class holds between {found.min():.1%} and {found.max():.1%} of the samples, drawn in "
        f"{shared.LEVELS[2]} calls of the network. The median sample is "
        f"{near:.2f} from the nearest training digit, the median real digit {near_real:.2f}: they are not copies."
    )


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """Real digits, sampled digits, and how sure the classifier is of both."""
    with plt.rc_context(plotting.STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(14.4, 5.2), width_ratios=[1, 1, 1.05], layout="constrained")
        for ax, images, title in zip(
            axes, (arrays["real"], arrays["samples"]), ("real, held out", "sampled"), strict=False
        ):
            sheet = plotting.mosaic(torch.from_numpy(1 - images[: N_SIDE**2]), n_columns=N_SIDE)
            ax.imshow(sheet, origin="upper")
            ax.set(xticks=[], yticks=[], title=f"{title}: the first {N_SIDE**2}")
            ax.set_gid(f"{N_SIDE**2} digits of 8 x 8 pixels, black on white.")
        ax = axes[2]
        bins = np.linspace(0, 1, 21)
        for p, role, label in ((arrays["p_real"], "truth", "real"), (arrays["p"], "learned", "sampled")):
            top, look = p.max(1), plotting.ROLES[role]
            share = np.histogram(top, bins)[0] / len(top)
            style = "-" if role == "truth" else "--"
            ax.stairs(
                share, bins, color=look.colour, linewidth=2.5, linestyle=style, label=f"{label}, mean {top.mean():.3f}"
            )
        ax.set(
            xlabel="largest class probability",
            ylabel="share of digits",
            title="how sure the classifier is",
            xlim=(0, 1),
        )
        ax.legend(loc="upper left")
        real, sampled = (arrays[key].max(1).mean() for key in ("p_real", "p"))
        ax.set_gid(
            f"Shares by the largest class probability: mean {real:.3f} for real digits, {sampled:.3f} for sampled ones."
        )
    return figure
