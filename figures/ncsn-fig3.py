"""Langevin dynamics forgets mixture weights, annealing remembers most of them. Source: song2019, Figure 3.

1,280 chains start uniformly on [-8, 8]² and follow the exact score. Plain: 1,000 steps of epsilon 0.1. Annealed: ten geometric
levels from 20 to 1, 100 steps each, epsilon 0.1.

The official toy code *replaces* the components' standard deviation by the level; perturbing data *convolves*. On unit modes
the two agree when the level sigma is read as noise of standard deviation sqrt(sigma² - 1), which is what is done here.
"""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from toyscore import plotting
from toyscore.distributions import BOX, GaussianMixture, two_modes
from toyscore.metrics import mode_weight_errors, mode_weights
from toyscore.noise import geometric
from toyscore.samplers import annealed_langevin, final, langevin

EPSILON = 0.1
LEVELS = (20.0, 1.0, 10)
PANELS = ("exact", "plain", "annealed")
TITLES = {"exact": "exact samples", "plain": "plain Langevin", "annealed": "annealed Langevin"}


def mixture() -> GaussianMixture:
    """What the figure is about: change it and every number follows."""
    return two_modes()


def noise(sigma: torch.Tensor) -> torch.Tensor:
    """The standard deviation by which unit modes convolve to modes of standard deviation sigma."""
    return (sigma.square() - 1).clamp(min=0).sqrt()


def chains(p: GaussianMixture, seed: int, quick: bool) -> tuple[torch.Tensor, dict[str, Iterator[torch.Tensor]]]:
    """The start, and three chains that share a generator: consume them in their order."""
    n_chains, n_steps = (200, 100) if quick else (1280, 1000)
    generator = torch.Generator().manual_seed(seed)
    start = BOX * (2 * torch.rand(n_chains, 2, generator=generator) - 1)
    sigmas = geometric(*LEVELS)

    def replaced(x, sigma):
        return p.score(x, noise(sigma))

    options = {"step_size": EPSILON, "generator": generator}
    return start, {
        "exact": iter([p.sample(n_chains, generator=generator)]),
        "plain": langevin(p.score, start, n_steps=n_steps, **options),
        "annealed": annealed_langevin(replaced, start, sigmas, n_steps_each=n_steps // len(sigmas), **options),
    }


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """The ends of the chains, and the share of each mode with its standard error."""
    p = mixture()
    _, states = chains(p, seed, quick)
    ends = {name: final(chain) for name, chain in states.items()}
    arrays = {f"samples.{name}": x.contiguous().numpy() for name, x in ends.items()}
    arrays |= {f"weights.{name}": mode_weights(x, p).numpy() for name, x in ends.items()}
    return arrays | {f"errors.{name}": mode_weight_errors(x, p).numpy() for name, x in ends.items()}


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """The first mode's share by each sampler, within five standard errors of the difference between two runs, at most."""
    tolerance = 5 * (2 * 0.25 / len(arrays["samples.exact"])) ** 0.5
    return {f"weight_{name}": (float(arrays[f"weights.{name}"][0]), tolerance) for name in PANELS}


def caption(arrays: dict[str, np.ndarray]) -> str:
    """One sentence of numbers."""
    shares = {name: f"{arrays[f'weights.{name}'][0]:.3f} ± {arrays[f'errors.{name}'][0]:.3f}" for name in PANELS}
    n = len(arrays["samples.exact"])
    return (
        f"The mode that holds {float(mixture().weights[0]):.2f} of the mass gets {shares['exact']} of {n:,} exact samples, "
        f"{shares['plain']} of the chains by plain and {shares['annealed']} by annealed Langevin dynamics, all with the exact score."
    )


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """The density and three sets of samples, each with its weights."""
    p = mixture()
    figure, axes = plt.subplots(2, 2, figsize=(10.4, 10.9), layout="constrained")
    first, *others = axes.flat
    plotting.density(first, p.log_prob)
    first.set_title("data density\n" + " : ".join(f"{w:.2f}" for w in p.weights.tolist()))
    for ax, name in zip(others, PANELS, strict=True):
        plotting.samples(
            ax, torch.as_tensor(arrays[f"samples.{name}"]), role="truth" if name == "exact" else name, size=11
        )
        shares = zip(arrays[f"weights.{name}"], arrays[f"errors.{name}"], strict=True)
        ax.set_title(f"{TITLES[name]}\n" + " : ".join(f"{w:.3f} ± {e:.3f}" for w, e in shares))
        for (x, y), weight in zip(p.means.tolist(), arrays[f"weights.{name}"], strict=True):
            ax.annotate(
                f"{weight:.1%}",
                (x, y),
                (x, y + (-3.6 if y > 0 else 3.6)),
                ha="center",
                va="center",
                fontsize=15,
                fontweight="bold",
                bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": "0.6"},
            )
    return figure
