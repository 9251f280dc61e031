"""From noise to digits, and when each chain has made up its mind. Source: song2021, Eq. (47); song2019, Figure 4.

At each level of ancestral sampling the posterior mean of the clean image is asked of the network (tweedie), and a classifier which digit
that is. A chain has decided once that is the digit at which it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

import shared
from toyscore import plotting, pretrained
from toyscore.noise import karras
from toyscore.operators import Sigma
from toyscore.samplers import tweedie

N_SIDE = 5
N_CHAINS = 64
FPS = 10.0


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Some of the states of a batch of chains, and which of them have decided by each level."""
    network, sigmas = pretrained.digits().network, karras(*shared.LEVELS)
    classifier = shared.judge()
    clean = []

    def watched(x: Tensor, sigma: Sigma) -> Tensor:
        """The network, whose guesses of the clean image are kept."""
        score = network(x, sigma)
        clean.append(tweedie(lambda *_: score, x, sigma))
        return score

    *states, end = shared.chain_of_digits(N_SIDE**2 if quick else N_CHAINS, seed, watched)
    digit = torch.stack([classifier.probabilities(x).argmax(1) for x in (*clean, end)])
    return {
        "states": torch.stack([*states, end])[:, : N_SIDE**2].numpy(),
        "decided": (digit[:-1] == digit[-1]).double().mean(1).numpy(),
        "sigmas": sigmas.numpy(),
    }


def when(arrays: dict[str, np.ndarray], share: float) -> float:
    """The first level at whose end so many of the chains have decided."""
    return float(arrays["sigmas"][(arrays["decided"] >= share).argmax()])


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Where half and where nine tenths have decided: a level more or less."""
    return {"sigma_half_decided": (when(arrays, 0.5), 0.3), "sigma_nine_tenths_decided": (when(arrays, 0.9), 0.15)}


def caption(arrays: dict[str, np.ndarray]) -> str:
    """One sentence of numbers."""
    sigmas = arrays["sigmas"]
    return (
        f"{N_SIDE**2} of {N_CHAINS} chains from noise, over {len(sigmas)} levels from sigma = {sigmas[0]:.3g} to {sigmas[-1]:.3g}: half "
        f"of them have decided which digit "
        f"they become at sigma = {when(arrays, 0.5):.2f}, nine tenths at {when(arrays, 0.9):.2f}; the rest of the way is detail."
    )


def frames(arrays: dict[str, np.ndarray]) -> tuple[Iterator[np.ndarray[Any, Any]], float]:
    """The batch as a mosaic, black on white; the end stays for two seconds."""
    states = [torch.from_numpy(state) for state in arrays["states"]]
    shown = [*states, *[states[-1]] * int(2 * FPS)]
    return (plotting.mosaic(1 - state, n_columns=N_SIDE) for state in shown), FPS
