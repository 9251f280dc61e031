"""From noise to digits with the trained network, level by level. Source: song2019, Algorithm 1 and Figure 4."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from toyscore import data, plotting, pretrained
from toyscore.build import sampling_chain, sampling_plan
from toyscore.metrics import fit_classifier

N_SIDE = 6
FPS = 12.0


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """About fifty states of a batch of chains, and how sure the classifier is at the end of each level."""
    trained = pretrained.digits()
    plan = sampling_plan(trained.config)
    each, n_levels = plan["n_steps_each"], len(plan["sigmas"])
    n = N_SIDE**2
    classifier = fit_classifier(data.digits("train"))
    every = max(1, each * n_levels // 50)
    states, confident = [], []
    for i, x in enumerate(sampling_chain(trained.network, trained.config, trained.data, n, seed)):
        if i % every == 0 or i > each * n_levels:
            states.append(x)
        if i and i % each == 0:
            confident.append(classifier.confidence(x).mean)
    return {
        "states": torch.stack(states).numpy(),
        "confident": np.array([*confident]),
        "sigmas": plan["sigmas"].numpy(),
    }


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """How sure the classifier is at the end, and at which sigma it passes three quarters."""
    return {
        "confidence_at_the_end": (float(arrays["confident"][-1]), 0.09),
        "sigma_of_three_quarters": (float(arrays["sigmas"][(arrays["confident"] > 0.75).argmax()]), 0.2),
    }


def caption(arrays: dict[str, np.ndarray]) -> str:
    """One sentence of numbers."""
    confident, sigmas = arrays["confident"], arrays["sigmas"]
    first = (confident > 0.75).argmax()
    return (
        f"{N_SIDE**2} chains from noise, over {len(sigmas)} levels from sigma = {sigmas[0]:.3g} to {sigmas[-1]:.3g}: a classifier of real digits is "
        f"more than 75% sure of them from sigma = {sigmas[first]:.2g} on, and {confident[-1]:.0%} at the last level."
    )


def frames(arrays: dict[str, np.ndarray]) -> tuple[Iterator[np.ndarray[Any, Any]], float]:
    """The batch as a mosaic, black on white; the end stays for two seconds."""
    states = [torch.from_numpy(state) for state in arrays["states"]]
    shown = [*states, *[states[-1]] * int(2 * FPS)]
    return (plotting.mosaic(1 - state, n_columns=N_SIDE) for state in shown), FPS
