"""Ten classic mistakes, the pictures they make, and the laws that give them away. Source: song2019, Eq. (1) to (5) and Algorithm 1.

Every tile aims at one law, a mixture without symmetries under noise of standard deviation SIGMA; contours hold half and 95 % of its
mass. Dots are where chains with the mistake end, arrows the field it learns. Below stand what a law demands, what the mistake
gives, and what the right code gives, with standard errors. Wrong formulas are written here; the right ones are the library's. The
last tile sets what an eye could see, the distance between the chains and the law, against the standard errors by which the
mistake misses.

The first two need no truth, so they judge a network and its chain as well:

- *mean score*, 0: E[s(x)] under the score's own law. Noise of mean 1/2 moves a chain until it is -1/sqrt(epsilon).
- *Stein number*, 1: -E[(x - m) . s(x)] / D under the score's own law, for any fixed m. For a chain of step epsilon,
  -E[(x - m) . s + epsilon/4 |s|²] / D, whatever the score: then E|x - m|² no longer changes. On a Gaussian this is
  ``stationary_variance``. A forgotten root of two halves it. The number of E is taken at the first level, sigma = SIGMA_MAX, its picture
  at the end of the last.
- *best factor*, 1: the a for which a times the true score minimises an objective; the chain follows what it finds.
- *integral*, 1: of a density, by importance sampling from a wider one.
- *weight off*, 0: of the heaviest mode, from what ``propagate`` predicts for the right code.

The paper's toy, of unit isotropic components, hides some of them. D stands in its code and cancels in the score. At its last level,
sigma = 1, replacing leaves the clean components (F) and dividing by sigma is dividing by its square (H). Unit slices (I) move
the minimiser only beside ½|s|²; beside ½(v . s)² they divide the whole objective by D.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore import plotting
from toyscore.diagnostics import Stage, annealed_stages, propagate, stein_numbers, uniform_cloud
from toyscore.distributions import BOX, GaussianMixture, asymmetric
from toyscore.losses import Loss, denoising_score_matching, perturbed, sliced_score_matching
from toyscore.metrics import mmd2
from toyscore.noise import geometric
from toyscore.operators import Score
from toyscore.samplers import annealed_langevin, final, langevin

SIGMA = 0.7  # the last level: not 1, where two mistakes vanish
SIGMA_MAX, N_LEVELS = 20.0, 8  # wide enough to mix, far too wide for the box
EPSILON = 0.2  # the step at SIGMA; the least variance there is 0.67
N_DRAWN = 500
N_SEEN = 2000  # ends whose distance from the law is measured
BANDWIDTH = 1.0  # of the kernel that compares samples: the width of a mode
CONSPICUOUS = 5  # standard errors that chance does not give
RUNAWAY = 60  # steps of the chain that leaves for infinity

TITLES = {
    "A": ("uniform noise in the chain", r"$z\sim U[0,1)$, not $N(0,1)$"),
    "B": ("a root of two forgotten", r"$x+\eta s+\sqrt{\eta}\,z$, not $\sqrt{2\eta}\,z$"),
    "C": ("the target's sign flipped", r"$s$ learns $+z/\sigma$, not $-z/\sigma$"),
    "D": ("a normaliser without D", r"$\frac{1}{2}\log 2\pi$, not $\frac{D}{2}\log 2\pi$"),
    "E": ("every state clamped", r"to the box, from the first $\sigma$ on"),
    "F": ("noise replaces the spread", r"$\sigma^2 I$, not $\Sigma_k+\sigma^2 I$"),
    "G": ("all scores added up", r"$\sum\,s_k$, not $\sum\,r_k s_k$"),
    "H": (r"the target divided by $\sigma$", r"$(x-\tilde x)/\sigma$, not $(x-\tilde x)/\sigma^2$"),
    "I": ("slices of unit length", r"$E[vv^T]=I/D$, not $I$"),
    "J": ("one step size for all levels", r"$\epsilon$, not $\epsilon\,\sigma_i^2/\sigma_L^2$"),
}
LAWS = {  # what is measured, and its value
    "A": ("mean score", 0.0),
    "B": ("Stein number", 1.0),
    "C": ("best factor", 1.0),
    "D": ("integral", 1.0),
    "E": ("Stein number", 1.0),
    "F": ("Stein number", 1.0),
    "G": ("Stein number", 1.0),
    "H": ("best factor", 1.0),
    "I": ("best factor", 1.0),
    "J": ("weight off", 0.0),
}


def mixture() -> GaussianMixture:
    """What is aimed at, before the noise: change it and every number follows."""
    return asymmetric()


# The mistakes.


def uniform_noise(x: Tensor, grad: Tensor, step_size: float, generator: Generator) -> Tensor:
    """A: ``langevin_step`` with rand where randn is meant."""
    return x + step_size / 2 * grad + step_size**0.5 * torch.rand(x.shape, generator=generator)


def no_root_of_two(x: Tensor, grad: Tensor, step_size: float, generator: Generator) -> Tensor:
    """B: ``langevin_step`` written with eta = epsilon / 2."""
    eta = step_size / 2
    return x + eta * grad + eta**0.5 * ops.normal_like(x, generator)


def flipped_target(score: Score, x: Tensor, sigma: float, *, generator: Generator) -> Tensor:
    """C: ``denoising_score_matching`` with the wrong sign."""
    z = ops.normal_like(x, generator)
    residual = score(x + sigma * z, sigma) - z / sigma
    return 0.5 * ops.dot(residual, residual)


def without_dimension(q: GaussianMixture, x: Tensor) -> Tensor:
    """D: ``log_prob`` with log 2 pi once, however many dimensions there are."""
    offsets = x[:, None] - q.means
    squares = torch.einsum("bki,kij,bkj->bk", offsets, torch.linalg.inv(q.covariances), offsets)
    log_norms = -0.5 * torch.log(2 * math.pi * torch.linalg.det(q.covariances))
    return torch.logsumexp(q.weights.log() + log_norms - 0.5 * squares, 1)


CLAMP = (-BOX, BOX)  # E: an option of ``annealed_langevin``, made for images


def replaced(p: GaussianMixture, x: Tensor, sigma: float) -> Tensor:
    """F: ``score`` of components whose covariance is the noise's alone."""
    return GaussianMixture(p.means, sigma**2, p.weights).score(x)


def summed(p: GaussianMixture, x: Tensor, sigma: float) -> Tensor:
    """G: ``score`` with the components' scores added up."""
    q = p.perturb(sigma)
    return -torch.einsum("kij,bkj->bi", torch.linalg.inv(q.covariances), x[:, None] - q.means)


def divided_by_sigma(score: Score, x: Tensor, sigma: float, *, generator: Generator) -> Tensor:
    """H: ``denoising_score_matching`` with the displacement over sigma instead of sigma squared."""
    noisy = x + sigma * ops.normal_like(x, generator)
    residual = score(noisy, sigma) - (x - noisy) / sigma
    return 0.5 * ops.dot(residual, residual)


def unit_slices(score: Score, x: Tensor, sigma: float, *, generator: Generator) -> Tensor:
    """I: ``sliced_score_matching`` with projections of length 1 instead of sqrt(D)."""
    v = torch.nn.functional.normalize(ops.normal_like(x, generator))
    s, forms = ops.quadratic_form(score, x, sigma, v[None])
    return 0.5 * ops.dot(s, s) + forms[0]


def one_step_size(sigmas: Tensor, step_size: float, n_steps_each: int) -> list[Stage]:
    """J: ``annealed_stages`` with the last level's step at each."""
    return [Stage(float(sigma), step_size, n_steps_each) for sigma in sigmas]


# The laws.


def estimate(values: Tensor) -> tuple[float, float]:
    """The mean of independent values [N], and its standard error."""
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def best_factor(loss: Loss, score: Score, x: Tensor, seed: int) -> tuple[float, float]:
    """The a that minimises the loss of a times the score, and its standard error; all losses here are quadratic in a."""

    def values(a: float) -> Tensor:
        generator = torch.Generator().manual_seed(seed)  # the same noise for each a
        return loss(lambda y, sigma: a * score(y, sigma), x, SIGMA, generator=generator).detach()

    minus, zero, plus = (values(a) for a in (-1.0, 0.0, 1.0))
    slope, curvature = (minus - plus) / 2, plus + minus - 2 * zero
    a = float(slope.mean() / curvature.mean())
    return a, estimate(slope - a * curvature)[1] / float(curvature.mean())


def walk(step: Callable[..., Tensor], score: Score, x: Tensor, n_steps: int, generator: Generator) -> Iterator[Tensor]:
    """The states of a chain that takes wrong steps: the loop of ``langevin``."""
    for _ in range(n_steps):
        x = step(x, score(x, SIGMA), EPSILON, generator)
        yield x


def settled(
    chain: Iterable[Tensor], score: Score, centre: Tensor, sigma: float, step_size: float, burn_in: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The last state [B, 2] and, per row and over the states after the first ones, the mean score [B] and Stein number [B]."""
    scores, steins, n = 0.0, 0.0, 0
    for x in islice(chain, burn_in, None):
        s = score(x, sigma)
        scores, steins, n = (
            scores + s.mean(1),
            steins + stein_numbers(lambda x, sigma, s=s: s, x, sigma, step_size=step_size, centre=centre),
            n + 1,
        )
    return x, scores / n, steins / n


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Per mistake: where its chains end, their distance from the law, and the test of the mistake and of the right code."""
    n_chains, n_settle, n_kept, n_points = (400, 60, 40, 4000) if quick else (5000, 300, 150, 100_000)
    n_each, n_cloud, nodes_per_std = (8, 20, 1.0) if quick else (30, 100, 1.5)
    generator = torch.Generator().manual_seed(seed)
    p = mixture()
    q = p.perturb(SIGMA)
    dim, centre = q.means.shape[1], q.mean
    clean, points = p.sample(n_points, generator=generator), q.sample(n_points, generator=generator)
    start = q.sample(n_chains, generator=generator)
    found: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {}  # mistake, right code
    ends: dict[str, Tensor] = {}

    def chain(score: Score, x: Tensor = start[:N_SEEN], n: int = n_settle) -> Iterator[Tensor]:
        return langevin(score, x, step_size=EPSILON, n_steps=n, sigma=SIGMA, generator=generator)

    rest = partial(settled, score=p.score, centre=centre, sigma=SIGMA, step_size=EPSILON, burn_in=n_settle)
    ends["right"], mean_score, number = rest(chain(p.score, start, n_settle + n_kept))
    ends["A"], drifting, _ = rest(walk(uniform_noise, p.score, start, n_settle + n_kept, generator))
    found["A"] = estimate(drifting), estimate(mean_score)
    ends["B"], _, sharpened = rest(walk(no_root_of_two, p.score, start, n_settle + n_kept, generator))
    found["B"] = estimate(sharpened), estimate(number)

    objectives = {
        "C": (flipped_target, denoising_score_matching),
        "H": (divided_by_sigma, denoising_score_matching),
        "I": (perturbed(unit_slices), perturbed(partial(sliced_score_matching, slices="sphere"))),
    }
    noise = int(torch.randint(2**31 - 1, (), generator=generator))
    for letter, losses in objectives.items():
        found[letter] = tuple(best_factor(loss, p.score, clean, noise) for loss in losses)
        a = found[letter][0][0]
        ends[letter] = final(chain(lambda x, sigma, a=a: a * p.score(x, sigma), n=RUNAWAY if a < 0 else n_settle))

    wide = q.perturb(1.0)
    y = wide.sample(n_points, generator=generator)
    found["D"] = tuple(estimate((f(y) - wide.log_prob(y)).exp()) for f in (partial(without_dimension, q), q.log_prob))

    def gradient(x: Tensor, sigma: float) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(without_dimension(q, x).sum(), x)[0]

    ends["D"] = final(chain(gradient))

    for letter, mistake in (("F", replaced), ("G", summed)):
        score = partial(mistake, p)
        found[letter] = tuple(estimate(stein_numbers(f, points, SIGMA, centre=centre)) for f in (score, p.score))
        ends[letter] = final(chain(score))

    sigmas = geometric(SIGMA_MAX, SIGMA, N_LEVELS)
    box = BOX * (2 * torch.rand(n_chains, dim, generator=generator) - 1)
    stages = annealed_stages(sigmas, EPSILON, n_each)
    first, number_at_first = stages[0], {}
    for name, clamp in (("E", CLAMP), ("annealed", None)):
        states = annealed_langevin(
            p.score, box, sigmas, step_size=EPSILON, n_steps_each=n_each, clamp=clamp, generator=generator
        )
        level = islice(states, n_each)
        *_, number = settled(level, p.score, centre, first.sigma, first.step_size, n_each // 2)
        number_at_first[name] = estimate(number)
        ends[name] = final(states)
    found["E"] = number_at_first["E"], number_at_first["annealed"]

    law = final(propagate(p, uniform_cloud(-BOX, BOX, dim, n=n_cloud), stages, nodes_per_std=nodes_per_std))
    heaviest = int(q.weights.argmax())
    predicted = float(law.mode_weights(q)[heaviest])
    x = box
    for stage in one_step_size(sigmas, EPSILON, n_each):
        options = {"step_size": stage.step_size, "n_steps": stage.n_steps, "sigma": stage.sigma}
        x = final(langevin(p.score, x, generator=generator, **options))
    ends["J"] = x
    shares = (q.responsibilities(ends[name])[:, heaviest] - predicted for name in ("J", "annealed"))
    found["J"] = tuple(estimate(share) for share in shares)

    sample = q.sample(min(n_chains, N_SEEN), generator=generator)
    arrays = {"predicted": np.array([predicted, law.error])}
    for name, x in ends.items():
        arrays[f"samples.{name}"] = x[:N_DRAWN].contiguous().numpy()
        arrays[f"mmd2.{name}"] = np.array(mmd2(x[: len(sample)], sample, bandwidth=BANDWIDTH))
    for letter, pair in found.items():
        arrays[f"test.{letter}"] = np.array(pair)
    return arrays


def misses(arrays: dict[str, np.ndarray], letter: str) -> tuple[float, float]:
    """The standard errors by which the mistake and the right code miss the law."""
    wrong, right = ((value - LAWS[letter][1]) / error for value, error in arrays[f"test.{letter}"])
    return abs(wrong), abs(right)


TOLERANCES = {  # of the mistake, of the right code
    "A": (0.005, 0.022),
    "B": (0.045, 0.055),
    "C": (0.0125, 0.0125),
    "D": (0.02, 0.008),
    "E": (0.001, 0.036),
    "F": (0.1, 0.035),
    "G": (0.3, 0.035),
    "H": (0.0085, 0.0125),
    "I": (0.012, 0.024),
    "J": (0.036, 0.04),
}


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """The test of each mistake and of the right code, and the weight that the right annealed chain must give the heaviest mode.

    Tolerances are four to five standard deviations (``run.py --spread 8``); the predicted weight depends on no
    seed; its grid error, in the arrays, is small beside the standard errors.
    """
    found = {"predicted_weight": (float(arrays["predicted"][0]), 1e-5)}
    for letter, tolerances in TOLERANCES.items():
        words = f"{letter}_{LAWS[letter][0].replace(' ', '_')}"
        for kind, (value, _), tolerance in zip(("mistake", "right"), arrays[f"test.{letter}"], tolerances, strict=True):
            found[f"{words}_{kind}"] = (float(value), tolerance)
    return found


def caption(arrays: dict[str, np.ndarray]) -> str:
    """How far the laws are missed, and which pictures say least."""
    off = {letter: misses(arrays, letter) for letter in LAWS}
    least = min(off, key=lambda letter: off[letter][0])
    first, second = sorted(LAWS, key=lambda letter: float(arrays[f"mmd2.{letter}"]))[:2]
    return (
        f"{len(LAWS)} mistakes, and for each a number that the right code gets right within {max(right for _, right in off.values()):.1f} "
        f"standard errors. The smallest miss, {least} ({TITLES[least][0]}), is {off[least][0]:,.0f} standard errors; {first} "
        f"({TITLES[first][0]}) and {second} ({TITLES[second][0]}) make pictures that look right, and miss by {off[first][0]:,.0f} and "
        f"{off[second][0]:,.0f}."
    )


def told(value: float, error: float) -> str:
    """Both to the error's first digit."""
    digits = max(0, -math.floor(math.log10(error)))
    return f"{value + 0.0:.{digits}f} ± {error:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def contours(ax: Axes, q: GaussianMixture, box: float, n: int = 160) -> None:
    """Where the density holds 95 % and half of the mass."""
    points = plotting.grid(box, n)
    density = q.log_prob(points).exp()
    levels = [plotting.mass_level(density, (2 * box / n) ** 2, mass) for mass in (0.95, 0.5)]
    axis = points[:n, 1].numpy()
    colour = plotting.ROLES["truth"].colour
    lines = ax.contour(axis, axis, density.view(n, n).mT.numpy(), levels=levels, colors=colour, linewidths=1.3)
    lines.set_path_effects([withStroke(linewidth=3, foreground="white")])  # else lost in a dense cloud in grey


def tile(ax: Axes, arrays: dict[str, np.ndarray], letter: str, q: GaussianMixture) -> None:
    """A mistake: its picture and its test."""
    x = torch.as_tensor(arrays[f"samples.{letter}"])
    box = BOX
    if letter == "D":
        plotting.density(ax, lambda x, _: without_dimension(q, x))
    elif letter == "C":
        a = float(arrays["test.C"][0, 0])
        plotting.vector_field(ax, lambda x, _: a * q.score(x), role="learned", n=9).width = 0.009
    else:
        if float((x.abs() > BOX).any(1).float().mean()) > 0.05:  # a cloud that left is followed
            box = 2.0 * math.ceil(float(x.abs().max()) / 2)
        plotting.samples(ax, x, role="annealed" if letter in "EJ" else "plain", box=box, size=14)
    if letter != "D":
        contours(ax, q, box)
    name, law = LAWS[letter]
    reach = f" (to ±{box:g})" if box != BOX else ""
    ax.set_title(f"{letter}  {TITLES[letter][0]}\n{TITLES[letter][1]}{reach}", fontsize=11)
    wrong, right = (told(*pair) for pair in arrays[f"test.{letter}"])
    off = misses(arrays, letter)
    value, error = wrong.split(" ± ")
    ax.set_xlabel(
        f"{name}{f' at σ = {SIGMA_MAX:g}' if letter == 'E' else ''}, by law {law:g}\n"
        + rf"here $\mathbf{{{value}}}$ ± {error}"
        + f"\nright code {right}",
        fontsize=10.5,
    )
    ax.set_gid(
        f"{name.capitalize()}, by law {law:g}: {wrong}, {off[0]:,.0f} standard errors off; the right code {right}, {off[1]:.1f} off."
    )


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """The right code, ten mistakes, and what the eye sees against what the laws do."""
    q = mixture().perturb(SIGMA)
    figure, axes = plt.subplots(3, 4, figsize=(10.9, 11.0), layout="constrained")
    first, *tiles, last = axes.flat
    plotting.samples(first, torch.as_tensor(arrays["samples.right"]), role="plain", size=14)
    contours(first, q, BOX)
    first.set_title("the right code\n" + r"$x+\frac{\epsilon}{2}s+\sqrt{\epsilon}\,z$", fontsize=11)
    first.set_xlabel(
        "contours: half and 95 % of\nthe mass; triangles: plain,\ndiamonds: annealed chains", fontsize=10.5
    )
    for ax, letter in zip(tiles, LAWS, strict=True):
        tile(ax, arrays, letter, q)
    for ax in axes.flat[:-1]:
        ax.tick_params(labelsize=10)
    summary(last, arrays)
    return figure


def summary(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """What an eye could see, to the right, against what the law sees, upwards; a negative squared MMD counts as zero."""
    distances = {name: max(0.0, float(arrays[f"mmd2.{name}"])) ** 0.5 for name in (*LAWS, "right", "annealed")}
    widest = max(distances.values())
    for letter in LAWS:
        wrong, right = misses(arrays, letter)
        ax.text(distances[letter], wrong, letter, ha="center", va="center", fontsize=11, fontweight="bold")
        ax.plot(
            distances["annealed" if letter in "EJ" else "right"],
            right,
            "o",
            mfc="none",
            mec=plotting.ROLES["truth"].colour,
        )
    ax.axhline(CONSPICUOUS, color="0.4", linestyle="--", linewidth=1)
    ax.set(yscale="log", ylim=(0.05, 2e4), xlim=(-0.1 * widest, 1.15 * widest))
    ax.set_title("what the eye sees,\nwhat the law sees", fontsize=11)
    rightmost = max(distances["right"], distances["annealed"])
    ax.text(rightmost + 0.1 * widest, 0.5, "the right code", fontsize=10.5)
    ax.text(1.14 * widest, 1.1 * CONSPICUOUS, f"{CONSPICUOUS:g} standard errors", ha="right", fontsize=10)
    ax.set_xlabel("MMD from chains to law", fontsize=10.5)
    ax.set_ylabel("law missed by [standard errors]", fontsize=10.5)
    ax.tick_params(labelsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_gid(
        "Maximum mean discrepancy and standard errors: "
        + "; ".join(f"{letter} {distances[letter]:.3f} and {misses(arrays, letter)[0]:,.0f}" for letter in LAWS)
        + "."
    )
