r"""A score given something: exact where the likelihood is, and where it is not. Source: song2021, Sec. 5.

Bayes' rule makes the score of x given y out of the score of x and the likelihood of y given *noisy* x. All panels share one mixture,
one process (VP) and ancestral sampling; only the likelihood differs.

1. *A tilted measurement*, y = 0.6 x1 + 0.8 x2 + noise. With the exact likelihood samples are as near to the exact law as its own draws are.
   Taking x_0 given x for Gaussian (song2023) is exact on Gaussian data; on three modes it gives most samples to the wrong one, though
   each mode comes out in its place. The same covariance in all directions is a little worse. The likelihood of clean x pulls
   sigma²/tau² times too hard: no explicit step can follow it from high noise, so here it starts from the exact law at a level where a
   solver can. It ends in the wrong shares, and far too close to y.
2. *A coordinate known exactly*, x1 = 1. The Gaussian guess is wrong alike. ``inpaint`` (song2019, Algorithm 2) has no likelihood at all:
   with few steps per level its shares freeze while what is held is still noisy; with ten times as many they come nearer. More steps do
   not help the Gaussian guess: its error is in the score.
3. *How wrong each score is*, level by level, where the right chain goes. The Gaussian guess is exact at low noise, where one mode is left
   of x_0 given x, and wrong at the levels at which shares are decided.
4. *A class*: a component, its likelihood from the exact classifier of noisy points.
"""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Generator, Tensor

from toyscore import plotting, sde
from toyscore.distributions import GaussianMixture, asymmetric
from toyscore.metrics import mode_weights
from toyscore.noise import geometric
from toyscore.operators import DivergenceError, Score, normal_like
from toyscore.samplers import (
    adaptive_flow,
    ancestral,
    final,
    guided,
    inpaint,
    mixture_classes,
    of_class,
    of_measurement,
    of_mixture,
)

OPERATOR = (0.6, 0.8)  # tilted, of length one
Y, TAU = 1.0, 0.5
HELD = 1.0  # x1 in the second row
N_STEPS = 100
LEVELS = (10.0, 0.05, 20)  # of inpaint
EPSILON_OVER_SIGMA2 = 0.3
FEW, MANY = 20, 200  # its steps per level
FOLLOWED = 20.0  # the noise from which a solver can follow the clean likelihood
BOX = 8.0
BINS = np.linspace(-BOX, BOX, 41)
LOOKS = {"jacobian": "learned", "isotropic": "plain", "clean": "denoising"}  # roles, for the panel by level
NAMES = {
    "mixture": "exact likelihood",
    "jacobian": "$x_0$ given $x$ as Gaussian",
    "isotropic": "the same, isotropic",
    "clean": "likelihood of clean $x$",
    "few": f"inpaint, {FEW} steps a level",
    "many": f"inpaint, {MANY} steps a level",
}


def mixture() -> GaussianMixture:
    """What is sampled: change it and every number follows."""
    return asymmetric().to(dtype=torch.float64)


def measured(held: bool) -> tuple[Tensor, Tensor, float]:
    """Operator, y, and the noise of y: the tilted one, or the first coordinate held."""
    row, y, tau = ((1.0, 0.0), HELD, 0.0) if held else (OPERATOR, Y, TAU)
    return torch.tensor([row], dtype=torch.float64), torch.tensor([y], dtype=torch.float64), tau


def scores(p: GaussianMixture, held: bool) -> dict[str, Score]:
    """The score of x given y, by the ways there are to a likelihood."""
    a, y, tau = measured(held)
    variance = float(torch.linalg.eigvalsh(p.covariance)[-1])  # of the widest direction
    ways: dict[str, Callable[[Tensor, object], Tensor]] = {
        "mixture": of_mixture(p, a, y, noise_std=tau),
        "jacobian": of_measurement(p.score, a, y, noise_std=tau),
        "isotropic": of_measurement(p.score, a, y, noise_std=tau, data_variance=variance),
    }
    if not held:
        ways["clean"] = lambda x, sigma: -0.5 * (x @ a[0] - y).square() / tau**2  # the mistake: sigma is not in it
    return {name: guided(p.score, way) for name, way in ways.items()}


def sample(score: Score, n: int, n_steps: int, generator: Generator) -> Tensor:
    """Ancestral sampling on VP, to no noise at all."""
    process = sde.VP()
    times = [*sde.geometric_times(process, n_steps, t_min=1e-4).tolist(), 0.0]
    start = process.prior_sample((n, 2), generator=generator).double()
    return final(ancestral(process, score, start, times, generator=generator))


def held_by_inpainting(p: GaussianMixture, n: int, n_steps: int, generator: Generator) -> Tensor:
    """song2019, Algorithm 2, with x1 known."""
    sigmas, known = geometric(*LEVELS).double(), torch.tensor([HELD, 0.0], dtype=torch.float64)
    start = LEVELS[0] * normal_like(torch.empty(n, 2, dtype=torch.float64), generator)
    options = {"step_size": EPSILON_OVER_SIGMA2 * LEVELS[1] ** 2, "n_steps_each": n_steps, "denoise": True}
    mask = torch.tensor([True, False])
    return final(inpaint(p.score, start, sigmas, known=known, mask=mask, generator=generator, **options))


def distances(
    drawn: dict[str, Tensor], law: GaussianMixture, n_null: int, generator: Generator
) -> dict[str, np.ndarray]:
    """Energy distances from the law of each way's samples, and the largest of ``n_null`` sets of as many exact ones.

    They are those of ``metrics.energy_distance``, but how far apart the reference's own points are is computed once.
    """
    n = len(next(iter(drawn.values())))
    reference = law.sample(n, generator=generator)

    def between(x: Tensor, y: Tensor) -> Tensor:
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").mean()

    def within(x: Tensor) -> Tensor:
        return between(x, x) * n / (n - 1)  # half the time of torch.pdist

    own = within(reference)

    def far(x: Tensor) -> float:
        return float(2 * between(x, reference) - within(x) - own)

    chance = max(far(law.sample(n, generator=generator)) for _ in range(n_null))
    return {f"distance.{name}": np.array([far(x), chance]) for name, x in drawn.items()}


def errors(p: GaussianMixture, n: int, generator: Generator) -> dict[str, np.ndarray]:
    """Relative errors of the guided scores, root mean square over x given y with the noise of each level."""
    a, y, tau = measured(False)
    sigmas, posterior, found = geometric(150.0, 0.03, 38).double(), p.observe(a, y, tau), {}
    ways = scores(p, False)
    x = posterior.sample(n, generator=generator)
    for name in LOOKS:
        line = []
        for sigma in sigmas:
            noisy = x + sigma * normal_like(x, generator)
            truth, guess = posterior.score(noisy, sigma), ways[name](noisy, sigma).detach()
            line.append(float(((guess - truth).square().sum() / truth.square().sum()).sqrt()))
        found[f"error.{name}"] = np.array(line)
    return found | {"sigmas": sigmas.numpy()}


def gaussian_error(p: GaussianMixture, generator: Generator) -> float:
    """The same for data of one Gaussian, the mixture's own mean and covariance: the largest over levels."""
    a, y, tau = measured(False)
    q = GaussianMixture(p.mean[None], p.covariance[None])
    score, posterior, worst = guided(q.score, of_measurement(q.score, a, y, noise_std=tau)), q.observe(a, y, tau), 0.0
    for sigma in (0.1, 1.0, 10.0, 100.0):
        x = q.perturb(sigma).sample(200, generator=generator)
        truth = posterior.score(x, sigma)
        worst = max(worst, float((score(x, sigma).detach() - truth).norm() / truth.norm()))
    return worst


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Samples of every way, what the exact laws are, and distances between them."""
    n, n_steps, n_null, shorter = (200, 40, 5, 10) if quick else (2000, N_STEPS, 30, 1)
    p, generator = mixture(), Generator().manual_seed(seed)
    a, y, tau = measured(False)
    posterior, slice_ = p.observe(a, y, tau), p.condition([0], torch.tensor([HELD], dtype=p.means.dtype))
    arrays: dict[str, np.ndarray] = {"weights": posterior.weights.numpy(), "weights.held": slice_.weights.numpy()}
    tilted, held, classes = {}, {}, {}
    for name, score in scores(p, False).items():
        try:
            tilted[name] = sample(score, n, n_steps, generator)
        except DivergenceError:
            arrays[f"diverged.{name}"] = np.array(True)
            start = posterior.perturb(FOLLOWED).sample(n, generator=generator)
            flow = adaptive_flow(sde.VE(0.01, FOLLOWED), score, start, [1.0, 1e-5], rtol=1e-4, atol=1e-4)
            tilted[name] = final(flow)
    for name, score in scores(p, True).items():
        held[f"held.{name}"] = sample(score, n, n_steps, generator)[:, 1:]
    for name, steps in (("few", FEW), ("many", MANY)):
        held[f"held.{name}"] = held_by_inpainting(p, n, max(2, steps // shorter), generator)[:, 1:]
    arrays |= distances(tilted, posterior, n_null, generator) | distances(held, slice_, n_null, generator)
    for k in range(len(p.weights)):
        x = sample(guided(p.score, of_class(mixture_classes(p), k)), n // 2, n_steps, generator)
        component = GaussianMixture(p.means[k : k + 1], p.covariances[k : k + 1])
        arrays |= distances({f"class.{k}": x}, component, n_null, generator)
        arrays[f"inside.{k}"] = p.responsibilities(x)[:, k].mean().numpy()
        classes[f"class.{k}"] = x
    arrays |= {f"found.{name}": mode_weights(x, posterior).numpy() for name, x in tilted.items()}
    arrays |= {f"found.{name}": mode_weights(x, slice_).numpy() for name, x in held.items()}
    arrays |= {f"x.{name}": x.numpy() for name, x in (tilted | held | classes).items()}
    arrays["spread.clean"] = (tilted["clean"] @ a[0]).std().numpy()
    arrays["spread.exact"] = (a @ posterior.covariance @ a.mT).sqrt().numpy().reshape(())
    return arrays | errors(p, n, generator) | {"gaussian": np.array(gaussian_error(p, generator))}


def near(arrays: dict[str, np.ndarray], name: str) -> tuple[float, float]:
    """The energy distance of samples, and the largest of as many exact ones."""
    own, chance = arrays[f"distance.{name}"]
    return float(own), float(chance)


def mode(arrays: dict[str, np.ndarray], held: bool = False) -> int:
    """The mode that the exact law prefers."""
    return int(arrays["weights.held" if held else "weights"].argmax())


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Shares of the likeliest mode, distances, and errors, within four standard deviations over seeds."""
    k, j = mode(arrays), mode(arrays, held=True)
    found = {
        "share_exact": (arrays["weights"][k], 1e-6),
        "share_held_exact": (arrays["weights.held"][j], 1e-6),
        "gaussian_data": (arrays["gaussian"], 1e-9),
        "spread_clean": (arrays["spread.clean"], 0.02),
        "spread_exact": (arrays["spread.exact"], 1e-6),
        "worst_jacobian": (arrays["error.jacobian"].max(), 0.1),
        "clean_diverged": ("diverged.clean" in arrays, 0.0),
        "inside_class": (np.mean([arrays[f"inside.{i}"] for i in range(len(arrays["weights"]))]), 1e-3),
    }
    for name in ("mixture", "jacobian", "isotropic", "clean"):
        found |= {
            f"share_{name}": (arrays[f"found.{name}"][k], 0.045),
            f"distance_{name}": (near(arrays, name)[0], 0.12),
        }
    for name in ("mixture", "jacobian", "few", "many"):
        found[f"share_held_{name}"] = (arrays[f"found.held.{name}"][j], 0.045)
    return {name: (float(value), tolerance) for name, (value, tolerance) in found.items()}


def caption(arrays: dict[str, np.ndarray]) -> str:
    """Who is exact, who is not, by how much."""
    v = {name: pair[0] for name, pair in numbers(arrays).items()}
    (own, chance), sigmas, wrong = near(arrays, "mixture"), arrays["sigmas"], arrays["error.jacobian"]
    high = sigmas[wrong > 0.1]
    classes = [near(arrays, f"class.{i}") for i in range(len(arrays["weights"]))]
    right, given = f"exact {v['share_exact']:.3f}", f"{OPERATOR[0]:g} x1 + {OPERATOR[1]:g} x2 + {TAU:g} n = {Y:g}"
    broken = "makes ancestral sampling diverge" if v["clean_diverged"] else "can be followed here"
    text = (
        f"A mixture of three modes, seen through y = {given}. Guided by the exact likelihood of noisy x, {len(arrays['x.mixture']):,} "
        f"samples have an energy distance of {own:.3f} from the exact law (exact draws: up to {chance:.3f}), and the likelier mode gets "
        f"{v['share_mixture']:.3f} ({right}). With x0 given x as Gaussian it gets {v['share_jacobian']:.3f}, isotropic "
        f"{v['share_isotropic']:.3f}: on Gaussian data that score is right to {v['gaussian_data']:.0e}, here it is off by more than a "
        f"tenth at sigma {high.min():.2g} to {high.max():.2g}, where shares are decided. The likelihood of clean x {broken}; solved from "
        f"sigma = {FOLLOWED:g} it gives {v['share_clean']:.3f}. With x1 = {HELD:g} known the likelier mode (exact "
        f"{v['share_held_exact']:.3f}) gets {v['share_held_mixture']:.3f} by the exact likelihood, {v['share_held_jacobian']:.3f} by the "
        f"Gaussian, by inpaint {v['share_held_few']:.3f} with {FEW} steps a level, {v['share_held_many']:.3f} with {MANY}. Classes are at "
        f"most {max(c[0] for c in classes):.3f} away (exact draws: {max(c[1] for c in classes):.3f})."
    )
    return text.replace(" -", " −")


def contours(ax: Axes, law: GaussianMixture) -> None:
    """The regions that hold half of the mass, and 95 % of it."""
    n = 240
    points = plotting.grid(BOX, n, law.means)
    values, axis = law.log_prob(points).exp(), points[:n, 1]
    levels = sorted(plotting.mass_level(values, (2 * BOX / n) ** 2, mass) for mass in (0.5, 0.95))
    colour = plotting.ROLES["truth"].colour
    lines = ax.contour(axis, axis, values.view(n, n).mT, levels=levels, colors=colour, linewidths=1.6)
    lines.set_path_effects([withStroke(linewidth=3.2, foreground="white")])  # else lost in a dense cloud in grey


def plane_panel(ax: Axes, arrays: dict[str, np.ndarray], name: str, law: GaussianMixture) -> None:
    """Samples as dots, the exact law of x given y as contours."""
    x, k = torch.from_numpy(arrays[f"x.{name}"]), mode(arrays)
    plotting.samples(ax, x[:600], role="annealed", box=BOX, size=12).set_gid(
        "600 samples, and the exact law as contours."
    )
    contours(ax, law)
    far, chance = near(arrays, name)
    ax.set_title(f"{NAMES[name]}\nlikelier mode {arrays[f'found.{name}'][k]:.2f}, exact {arrays['weights'][k]:.2f}")
    ax.set_xlabel(f"energy distance {far:.3f}\nexact draws up to {chance:.3f}".replace("-", "−"))
    ax.set_gid(f"Energy distance from the exact law {far:.4f}; of exact draws up to {chance:.4f}.")


def prior_panel(ax: Axes, p: GaussianMixture) -> None:
    """The mixture, and where Ax = y."""
    plotting.density(ax, p.log_prob, box=BOX, like=p.means)
    line = np.array([-BOX, BOX])
    for shift, style in ((0.0, "-"), (TAU, ":"), (-TAU, ":")):
        ax.plot(line, (Y + shift - OPERATOR[0] * line) / OPERATOR[1], style, color="white", linewidth=1.6)
    ax.axvline(HELD, color="white", linewidth=1.6, linestyle="--")
    ax.set(xlim=(-BOX, BOX), ylim=(-BOX, BOX), ylabel="$x_2$", xlabel="$x_1$")
    ax.set_title(f"the data; solid: ${OPERATOR[0]:g}\\,x_1+{OPERATOR[1]:g}\\,x_2={Y:g}$\ndashed: $x_1={HELD:g}$")


def slice_panel(ax: Axes, arrays: dict[str, np.ndarray], names: list[str], law: GaussianMixture) -> None:
    """Histograms of x2 at x1 held, beside the exact density."""
    line = torch.linspace(-BOX, BOX, 800, dtype=law.means.dtype)[:, None]
    k, told, look = mode(arrays, held=True), [], plotting.ROLES["annealed"]
    for name, fill in zip(names, (True, False), strict=False):
        share = f"{arrays[f'found.held.{name}'][k]:.2f}"
        mass = np.histogram(arrays[f"x.held.{name}"], BINS, density=True)[0]
        form = {"alpha": 0.45} if fill else {"linewidth": 1.6, "linestyle": "--"}
        label = None if len(names) == 1 else f"{MANY if name == 'many' else FEW} steps a level: {share}"
        ax.stairs(mass, BINS, fill=fill, color=look.colour, label=label, **form)
        told.append(share)
    ax.plot(line[:, 0], law.log_prob(line).exp(), color=plotting.ROLES["truth"].colour, linewidth=2)
    title = NAMES[names[0]] if len(names) == 1 else "inpaint (Algorithm 2)"
    exact = arrays["weights.held"][k]
    ax.set_title(f"{title}\nlikelier mode{f' {told[0]},' if len(names) == 1 else ':'} exact {exact:.2f}")
    ax.set(xlim=(-BOX, BOX), yticks=[], xticks=[-BOX, 0, BOX], xlabel=f"$x_2$ given $x_1={HELD:g}$", ylim=(0, 0.75))
    if len(names) > 1:
        ax.legend(fontsize=10, loc="upper right")
    ax.set_gid(
        f"Histogram of x2 and its exact density: share of the likelier mode {', '.join(told)}, exact {exact:.2f}."
    )


def error_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Relative errors against the level."""
    told = []
    for name, look in ((name, plotting.ROLES[role]) for name, role in LOOKS.items()):
        line = arrays[f"error.{name}"]
        ax.plot(arrays["sigmas"], line, look.line, color=look.colour, linewidth=2.2, label=NAMES[name])
        told.append(
            f"{NAMES[name].replace('$', '')}: {line[0]:.2g} at most noise, largest {line.max():.2g}, least {line.min():.2g}"
        )
    ax.axhline(1, color="0.6", linewidth=1)
    ax.set(xscale="log", yscale="log", xlim=(200, 0.025), ylim=(1e-3, 1e6), xlabel=r"level $\sigma$")
    ax.set_xticks([100, 10, 1, 0.1], ["100", "10", "1", "0.1"])
    ax.set_title("relative error of the score\ngiven the tilted $y$")
    ax.legend(fontsize=10, loc="upper right")
    ax.set_gid(f"{'; '.join(told)}.")


def class_panel(ax: Axes, arrays: dict[str, np.ndarray], p: GaussianMixture) -> None:
    """Samples of each class."""
    told = []
    for k, marker in enumerate("os^"):
        x = arrays[f"x.class.{k}"][:250]
        ax.scatter(x[:, 0], x[:, 1], s=13, marker=marker, c=plotting.ROLES["annealed"].colour, linewidths=0, alpha=0.5)
        contours(ax, GaussianMixture(p.means[k : k + 1], p.covariances[k : k + 1]))
        told.append(f"{near(arrays, f'class.{k}')[0]:.3f}".replace("-", "−"))
    plotting.frame(ax, BOX)
    ax.set_title("one class at a time:\nguided by the exact classifier")
    most = max(near(arrays, f"class.{k}")[1] for k in range(3))
    ax.set_xlabel(f"energy distances {', '.join(told)}\nexact draws up to {most:.3f}", fontsize=11)
    ax.set_gid(f"Energy distances of the classes {', '.join(told)}; of exact draws up to {most:.3f}.")


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """Above the tilted measurement, below the coordinate, the levels, and the classes."""
    p = mixture()
    a, y, tau = measured(False)
    law, slice_ = p.observe(a, y, tau), p.condition([0], torch.tensor([HELD], dtype=p.means.dtype))
    with plt.rc_context(plotting.STYLE):
        figure, axes = plt.subplots(2, 5, figsize=(18, 9.0), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.12, w_pad=0.06)
        prior_panel(axes[0, 0], p)
        for ax, name in zip(axes[0, 1:], ("mixture", "jacobian", "isotropic", "clean"), strict=True):
            plane_panel(ax, arrays, name, law)
        axes[0, 1].plot([], [], color=plotting.ROLES["truth"].colour, label="exact: 50 %, 95 %")
        axes[0, 1].legend(fontsize=10, loc="lower left")
        for ax, names in zip(axes[1], (["mixture"], ["jacobian"], ["many", "few"]), strict=False):
            slice_panel(ax, arrays, names, slice_)
        axes[1, 0].set_ylabel("density")
        error_panel(axes[1, 3], arrays)
        class_panel(axes[1, 4], arrays, p)
    return figure
