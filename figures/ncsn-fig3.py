"""Langevin dynamics forgets mixture weights; annealing remembers most of them. Source: song2019, Figure 3.

1,280 chains start uniformly on [-8, 8]² and follow the exact score. Plain: 1,000 steps of epsilon 0.1. Annealed: ten geometric
levels from 20 to 1, 100 steps each, epsilon 0.1.

The official toy code *replaces* the components' standard deviation by the level; perturbing data *convolves*. On unit modes
the two agree when the level sigma is read as noise of standard deviation sqrt(sigma² - 1), which is what is done here.

What the chains must give is computed as well, by carrying the law of the chain along on a grid (``diagnostics.propagate``): beside each
measured share stands the predicted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from toyscore import plotting
from toyscore.diagnostics import Cloud, Stage, annealed_stages, propagate, reduce, separates, uniform_cloud
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


def n_steps_of(quick: bool) -> int:
    """How long the chains are."""
    return 100 if quick else 1000


def stages(levels: torch.Tensor, epsilon: float, n_steps: int) -> list[Stage]:
    """Algorithm 1 of so many steps a level, with levels read as standard deviations of the modes."""
    noises = noise(levels.double()).tolist()
    return [replace(s, sigma=std) for s, std in zip(annealed_stages(levels, epsilon, n_steps), noises, strict=True)]


def schedules(n_steps: int) -> dict[str, list[Stage]]:
    """What the two chains do, for ``propagate``."""
    sigmas = geometric(*LEVELS)
    return {
        "plain": [Stage(0.0, EPSILON, n_steps)],
        "annealed": stages(sigmas, EPSILON, n_steps // len(sigmas)),
    }


def start_cloud(p: GaussianMixture) -> tuple[GaussianMixture, Cloud]:
    """The mixture and the start of its chains, on the line or plane through the modes where that is enough."""
    box = uniform_cloud(-BOX, BOX, 2)
    if not separates(p):
        return p, box
    reduced, basis = reduce(p)
    return reduced, Cloud(box.points @ basis, box.masses)


def chains(p: GaussianMixture, seed: int, quick: bool) -> tuple[torch.Tensor, dict[str, Iterator[torch.Tensor]]]:
    """The start, and three chains that share a generator: consume them in their order."""
    n_chains, n_steps = 200 if quick else 1280, n_steps_of(quick)
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
    """The ends of the chains, the share of each mode with its standard error, and the share it must have."""
    p = mixture()
    _, states = chains(p, seed, quick)
    ends = {name: final(chain) for name, chain in states.items()}
    arrays = {f"samples.{name}": x.contiguous().numpy() for name, x in ends.items()}
    arrays |= {f"weights.{name}": mode_weights(x, p).numpy() for name, x in ends.items()}
    arrays |= {f"errors.{name}": mode_weight_errors(x, p).numpy() for name, x in ends.items()}
    arrays["predicted.exact"] = p.weights.double().numpy()
    reduced, start = start_cloud(p)
    for name, schedule in schedules(n_steps_of(quick)).items():
        law = final(propagate(reduced, start, schedule))
        arrays[f"predicted.{name}"] = law.mode_weights(reduced).numpy()
        arrays[f"grid_error.{name}"] = np.array(law.error)
    return arrays


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """The first mode's share by each sampler, within five standard errors of the difference between two runs, at most, and as predicted."""
    tolerance = 5 * (2 * 0.25 / len(arrays["samples.exact"])) ** 0.5
    measured = {f"weight_{name}": (float(arrays[f"weights.{name}"][0]), tolerance) for name in PANELS}
    return measured | {f"predicted_{name}": (float(arrays[f"predicted.{name}"][0]), 1e-4) for name in PANELS[1:]}


def caption(arrays: dict[str, np.ndarray]) -> str:
    """Two sentences of numbers."""
    shares = {name: f"{arrays[f'weights.{name}'][0]:.3f} ± {arrays[f'errors.{name}'][0]:.3f}" for name in PANELS}
    predicted = {name: f"{arrays[f'predicted.{name}'][0]:.3f}" for name in PANELS}
    worst = max(float(arrays[f"grid_error.{name}"]) for name in PANELS[1:])
    n = len(arrays["samples.exact"])
    return (
        f"The mode that holds {float(mixture().weights[0]):.2f} of the mass gets {shares['exact']} of {n:,} exact samples, "
        f"{shares['plain']} of the chains by plain and {shares['annealed']} by annealed Langevin dynamics, all with the exact score. "
        f"The law of the chains, carried along on a grid without sampling, predicts {predicted['plain']} and {predicted['annealed']} "
        f"(grid error {worst:.0e})."
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
        expected = " : ".join(f"{w:.3f}" for w in arrays[f"predicted.{name}"])
        ax.set_title(
            f"{TITLES[name]}\n{' : '.join(f'{w:.3f} ± {e:.3f}' for w, e in shares)}\n"
            f"{'true' if name == 'exact' else 'predicted'} {expected}"
        )
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
