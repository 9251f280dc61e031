"""The whole story in one picture.

Source: song2019, Sec. 3 and Sec. 4.

A score, two ways in which it fails, one cure, and digits by the same code. In the plane everything has a truth beside it. The score
points to the data (1). Learned from samples alone, it is wrong where there are none (2). And Langevin dynamics forgets the weights of
modes far apart, even with the exact score (3). Noise fills the gaps: at large noise a score is learned everywhere (4). At small noise it
is not; but chains that come down the levels arrive at each where the one before has put them, which is where its data are, and they
find the weights, nearly (5). The same loss and loop give another network a score of digits, and ancestral sampling
draws them (6). What is drawn in 2, 4 and 5 is learned; in 1 and 3 it is exact. The network of 2 is the
paper's, by sliced score matching; that of 4 and 5 is given the level and learns by denoising. Arrows are scaled in each panel by
themselves: noise makes scores short.
"""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

import shared
from toyscore import losses, noise, plotting
from toyscore.distributions import BOX, GaussianMixture, two_modes
from toyscore.metrics import mode_weights, relative_errors
from toyscore.models import MLP
from toyscore.samplers import annealed_langevin, final, langevin
from toyscore.train import fit

THRESHOLD = 0.5
LEVELS = (20.0, 0.5, 10)
LEVEL = 3  # the one whose field is drawn
N_CHAINS = 1280
N_SIDE = 7


def mixture() -> GaussianMixture:
    """What the figure is about: change it and every number follows."""
    return two_modes()


def conditional() -> MLP:
    """A network that is given the level."""
    return MLP(width=64, sigmas=noise.geometric(*LEVELS), data_variance=float(mixture().covariance.trace()) / 2)


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Two networks, two sets of chains, and digits."""
    p, sigmas = mixture(), noise.geometric(*LEVELS)
    n_steps = 100 if quick else 2000
    weights = shared.paper_network(p, seed, n_steps)
    clean, noisy = restored(MLP, weights), shared.seeded(seed, conditional)
    loss = losses.at_random_sigma(losses.denoising_score_matching, noise.levels(sigmas))
    for _ in fit(noisy, p, loss, n_steps=n_steps, seed=seed):
        pass
    box, sigma = plotting.grid(BOX, 200), float(sigmas[LEVEL])
    generator = torch.Generator().manual_seed(seed)
    start = BOX * (2 * torch.rand(200 if quick else N_CHAINS, 2, generator=generator) - 1)
    each, step = n_steps // 20, 0.1 * LEVELS[1] ** 2
    plain = langevin(p.score, start, step_size=0.1, n_steps=1000, generator=generator)
    chains = {"plain": plain}
    for name, score in (("annealed", noisy), ("exact", p.score)):
        chains[name] = annealed_langevin(score, start, sigmas, step_size=step, n_steps_each=each, generator=generator)
    ends = {name: final(chain) for name, chain in chains.items()}
    digits = torch.from_numpy(shared.digits(seed, quick)[: N_SIDE**2])
    judge = shared.judge().probabilities(digits).max(1).values
    arrays = {f"clean.{name}": value for name, value in weights.items()}
    arrays |= {f"noisy.{name}": value.numpy() for name, value in noisy.state_dict().items()}
    arrays |= {f"samples.{name}": x.contiguous().numpy() for name, x in ends.items()}
    arrays |= {f"share.{name}": mode_weights(x, p)[0].numpy() for name, x in ends.items()}
    return arrays | {
        "wrong.clean": (relative_errors(clean, p, box) > THRESHOLD).float().mean().numpy(),
        "wrong.noisy": (relative_errors(noisy, p, box, sigma) > THRESHOLD).float().mean().numpy(),
        "wrong.last": (relative_errors(noisy, p, box, LEVELS[1]) > THRESHOLD).float().mean().numpy(),
        "sigma": np.array(sigma),
        "digits": digits.numpy(),
        "confidence": judge.numpy(),
    }


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """What the titles say, within four standard deviations over seeds."""
    return {
        "wrong_clean": (float(arrays["wrong.clean"]), 0.22),
        "wrong_noisy": (float(arrays["wrong.noisy"]), 0.007),
        "wrong_last": (float(arrays["wrong.last"]), 0.045),
        "share_plain": (float(arrays["share.plain"]), 0.09),
        "share_annealed": (float(arrays["share.annealed"]), 0.11),
        "share_exact": (float(arrays["share.exact"]), 0.06),
        "confidence": (float(arrays["confidence"].mean()), 0.09),
    }


def caption(arrays: dict[str, np.ndarray]) -> str:
    """The six panels in their order."""
    weight, n = float(mixture().weights[0]), len(arrays["samples.plain"])
    share = {name: told(float(arrays[f"share.{name}"]), n) for name in ("plain", "annealed", "exact")}
    return (
        f"A mixture whose larger mode holds {weight:.2f} of the data, and its score (1). A network that has seen samples alone is off by "
        f"more than {THRESHOLD:.0%} on {arrays['wrong.clean']:.0%} of the box (2). Of {n:,} Langevin chains with the exact score "
        f"{share['plain']} end in the larger mode (3). With noise of sigma = {arrays['sigma']:.1f} a network told the level is "
        f"off by as much on {arrays['wrong.noisy']:.1%} of the box (4), at the last level, sigma = {LEVELS[1]:g}, on "
        f"{arrays['wrong.last']:.0%}; yet chains led by it from level to level end in the larger mode with a share of {share['annealed']}, "
        f"with the exact score {share['exact']} (5). The same loss, with a network for images: {len(arrays['digits'])} digits "
        f"that no one wrote, of whose class a classifier is {arrays['confidence'].mean():.2f} sure (6)."
    )


def told(share: float, n: int) -> str:
    """A share of n chains, with its standard error."""
    return f"{share:.2f} ± {(share * (1 - share) / n) ** 0.5:.2f}"


def restored(build: Callable[[], MLP], arrays: dict[str, np.ndarray], prefix: str = "") -> MLP:
    """A network with its weights put back."""
    model = shared.seeded(0, build)
    model.load_state_dict(
        {k.removeprefix(prefix): torch.as_tensor(v) for k, v in arrays.items() if k.startswith(prefix)}
    )
    return model


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """Six panels, to be read like a page."""
    p, sigma = mixture(), float(arrays["sigma"])
    figure, axes = plt.subplots(2, 3, figsize=(14.4, 10.3), layout="constrained")
    (score, wrong, plain), (filled, annealed, images) = axes
    weight = float(p.weights[0])
    plotting.density(score, p.log_prob).set_cmap("Greys")
    plotting.vector_field(score, p.score, role="truth")
    score.set_title("1  a score points to the data")
    clean, noisy = restored(MLP, arrays, "clean."), restored(conditional, arrays, "noisy.")
    plotting.field_comparison(wrong, clean, p.score, threshold=THRESHOLD, n=200, n_arrows=13)
    wrong.set_title(
        f"2  learned, it is wrong where data is scarce:\noff by over half on {arrays['wrong.clean']:.0%} of the box"
    )
    for ax, name in ((plain, "plain"), (annealed, "annealed")):
        plotting.samples(ax, torch.as_tensor(arrays[f"samples.{name}"]), role=name, size=14)
    plain.set_title(
        f"3  even with the exact score Langevin forgets\nweights: {arrays['share.plain']:.2f} of the chains, {weight:.2f} of the data"
    )
    plotting.field_comparison(filled, noisy, p.score, sigma=sigma, threshold=THRESHOLD, n=200, n_arrows=13)
    filled.set_title(
        f"4  noise fills the gaps: off on {arrays['wrong.noisy']:.1%} at $\\sigma$ = {sigma:.1f}\n"
        f"(at $\\sigma$ = {LEVELS[1]:g} still on {arrays['wrong.last']:.0%})"
    )
    for ax in (wrong, filled):
        ax.set_xlabel(
            "arrows: broad, white rim: exact; thin, dark rim: learned\nground: darker where the error is larger"
        )
    annealed.set_title(
        f"5  learned score, from much noise to little:\n{arrays['share.annealed']:.2f} of the chains, nearly the {weight:.2f}"
    )
    images.imshow(plotting.mosaic(torch.from_numpy(1 - arrays["digits"]), n_columns=N_SIDE), origin="upper")
    images.set(xticks=[], yticks=[], title="6  the same loss, another network:\ndigits that no one wrote")
    images.set_gid(f"{len(arrays['digits'])} sampled digits of 8 x 8 pixels, black on white.")
    return figure
