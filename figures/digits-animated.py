"""From noise to digits, and when each chain has made up its mind. Source: song2019, Algorithm 1 and Figure 4.

At the end of each level the posterior mean of the clean image is asked of the network (tweedie), and a classifier which digit that is.
A chain has decided once that is the digit at which it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from toyscore import data, plotting, pretrained
from toyscore.build import sampling_chain, sampling_plan
from toyscore.metrics import fit_classifier
from toyscore.samplers import tweedie

N_SIDE = 5
N_FRAMES = 32
FPS = 10.0


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Some states of a batch of chains, and the digit that each would be at the end of each level."""
    trained = pretrained.digits()
    plan = sampling_plan(trained.config)
    sigmas, each = plan["sigmas"], plan["n_steps_each"]
    n_steps, n = len(sigmas) * each, N_SIDE**2 if quick else 64
    shown = {round(i) for i in np.linspace(0, n_steps + 1, N_FRAMES)}
    classifier = fit_classifier(data.digits("train"))
    states, digit = [], []
    for i, x in enumerate(sampling_chain(trained.network, trained.config, trained.data, n, seed)):
        if i in shown:
            states.append(x[: N_SIDE**2])
        if i and i % each == 0 and i <= n_steps:
            with torch.no_grad():
                clean = tweedie(trained.network, x, sigmas[i // each - 1])
            digit.append(classifier.probabilities(clean).argmax(1))
    final = classifier.probabilities(x).argmax(1)
    decided = (torch.stack(digit) == final).double().mean(1)
    return {"states": torch.stack(states).numpy(), "decided": decided.numpy(), "sigmas": sigmas.numpy()}


def when(arrays: dict[str, np.ndarray], share: float) -> float:
    """The first level at whose end so many of the chains have decided."""
    return float(arrays["sigmas"][(arrays["decided"] >= share).argmax()])


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Where half and where nine tenths have decided: two levels of the ladder more or less."""
    return {"sigma_half_decided": (when(arrays, 0.5), 0.3), "sigma_nine_tenths_decided": (when(arrays, 0.9), 0.15)}


def caption(arrays: dict[str, np.ndarray]) -> str:
    """One sentence of numbers."""
    sigmas = arrays["sigmas"]
    return (
        f"{N_SIDE**2} of 64 chains from noise, over {len(sigmas)} levels from sigma = {sigmas[0]:.3g} to {sigmas[-1]:.3g}: half "
        f"of them have decided which digit "
        f"they become at sigma = {when(arrays, 0.5):.2f}, nine tenths at {when(arrays, 0.9):.2f}; the rest of the way is detail."
    )


def frames(arrays: dict[str, np.ndarray]) -> tuple[Iterator[np.ndarray[Any, Any]], float]:
    """The batch as a mosaic, black on white; the end stays for two seconds."""
    states = [torch.from_numpy(state) for state in arrays["states"]]
    shown = [*states, *[states[-1]] * int(2 * FPS)]
    return (plotting.mosaic(1 - state, n_columns=N_SIDE) for state in shown), FPS
