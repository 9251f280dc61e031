"""A path from one sample to another: every image on it is a sample, so it has to jump.

Chains are driven by noise cos(phi) a + sin(phi) b, from a at 0 to b at 90 degrees, the start included. Each chain alone gets fresh
N(0, I) at each step, so its end is as fair a sample as any: its law does not depend on phi. Only the law of two chains together does.
Neighbours share nearly all of their noise; 90 degrees apart, chains are independent. Digits are drawn by ancestral sampling, points of
the plane by annealed Langevin dynamics with the exact score. (That all of them give the modes shares a little
off the data's is freezing, which ``freeze-out`` explains, and has nothing to do with paths.)

How fast do they part? Were the data Gaussian, a chain would be linear in its noise, and two chains would have 1 - cos(angle) of the
squared distance of strangers: a parabola at first. Where the data have modes a path has to jump: the chance of a jump is proportional
to the angle, its length is not small, and so the squared distance starts as a straight line. A blend of two samples walks through
the empty space between modes instead; the mean of two digits is no digit. The angle is no time: all chains of a path run at
once, and none is made from its neighbour.
"""

from __future__ import annotations

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import shared
from toyscore import plotting, pretrained
from toyscore.distributions import GaussianMixture, asymmetric
from toyscore.noise import geometric, karras
from toyscore.samplers import annealed_langevin, between, final, tweedie

N_COLUMNS = 12  # images in a path
N_POINTS = 13  # in a path, for laws to be compared
N_FINE = 91  # in a path that is drawn
LEVELS = (20.0, 0.1, 20)
EPSILON_OVER_SIGMA2 = 0.3  # as in digits-smoothed: the same share of every level's variance
INSIDE = 0.99  # the mass of what is not called empty
BOX = 8.0


def mixture() -> GaussianMixture:
    """What the paths of the plane lead through: change it and every number follows."""
    return asymmetric()


def digits(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Paths of digits, and how sure a classifier is of them and of the means of their ends."""
    n = 4 if quick else 8
    trained, sigmas = pretrained.digits(), karras(*shared.LEVELS).tolist()
    generator, noise = torch.Generator().manual_seed(seed), between(N_COLUMNS)
    like = torch.empty(n * N_COLUMNS, *trained.data["event"])
    x = trained.data["mean"] + sigmas[0] * noise(like, generator)
    with torch.no_grad():
        for sigma, lower in pairwise([*sigmas, 0.0]):  # ancestral sampling, with noise that chains share
            clean, ratio = tweedie(trained.network, x, sigma), (lower / sigma) ** 2
            x = clean + ratio * (x - clean) + lower * (1 - ratio) ** 0.5 * noise(x, generator)
    paths = x.view(n, N_COLUMNS, *trained.data["event"])
    classifier = shared.judge()
    return {
        "digits": paths.numpy(),
        "p": classifier.probabilities(x).view(n, N_COLUMNS, -1).numpy(),
        "p_blend": classifier.probabilities((paths[:, 0] + paths[:, -1]) / 2).numpy(),
    }


def walk(p: GaussianMixture, n_paths: int, n: int, n_steps: int, generator: torch.Generator) -> torch.Tensor:
    """Paths [n_paths, n, 2] of samples with exact scores."""
    sigmas, noise = geometric(*LEVELS), between(n)
    start = p.mean + float(sigmas[0]) * noise(torch.empty(n_paths * n, 2), generator)
    step_size = EPSILON_OVER_SIGMA2 * float(sigmas[-1]) ** 2
    options = {"step_size": step_size, "n_steps_each": n_steps, "noise": noise, "generator": generator}
    return final(annealed_langevin(p.score, start, sigmas, denoise=True, **options)).view(n_paths, n, 2)


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Paths of digits; many on the mixture, whose laws are compared by angle, and the first two fine ones between different modes."""
    p, (n, n_steps) = mixture(), (200, 10) if quick else (4000, 40)
    generator = torch.Generator().manual_seed(seed)
    paths, fine = walk(p, n, N_POINTS, n_steps, generator), walk(p, 20, N_FINE, n_steps, generator)
    exact = p.sample(100_000, generator=generator)
    level = p.log_prob(exact).quantile(1 - INSIDE)
    t = torch.linspace(0, 1, N_POINTS)[1:-1, None]
    blend = paths[:, :1] * (1 - t) + paths[:, -1:] * t
    ends = p.responsibilities(fine[:, [0, -1]].flatten(0, 1)).argmax(1).view(-1, 2)
    return digits(seed, quick) | {
        "paths": paths.numpy(),
        "modes": p.responsibilities(paths.flatten(0, 1)).view(n, N_POINTS, -1).numpy(),
        "fine": fine[ends[:, 0] != ends[:, 1]][:2].numpy(),
        "level": level.numpy(),
        "empty": np.array(
            [
                float((p.log_prob(x.flatten(0, 1)) < level).float().mean())
                for x in (paths[:, [0, -1]], paths[:, 1:-1], blend)
            ]
        ),
    }


def parting(paths: np.ndarray) -> np.ndarray:
    """Mean squared distance of chains by the angle between them, over that of strangers, and its standard error over paths: [2, n]."""
    n_paths, n = paths.shape[:2]
    flat = paths.reshape(n_paths, n, -1)
    strangers = 2 * flat.reshape(n_paths * n, -1).var(0, ddof=1).sum()
    by_path = np.stack([((flat[:, k:] - flat[:, : n - k]) ** 2).sum(2).mean(1) for k in range(n)], 1) / strangers
    return np.stack([by_path.mean(0), by_path.std(0, ddof=1) / n_paths**0.5])


def jumps(arrays: dict[str, np.ndarray]) -> tuple[float, float]:
    """Of neighbours on the mixture, the share in different modes, and theirs in the sum of squared distances."""
    changed = np.diff(arrays["modes"].argmax(2), axis=1) != 0
    squares = (np.diff(arrays["paths"], axis=1) ** 2).sum(2)
    return float(changed.mean()), float(squares[changed].sum() / squares.sum())


def shift(arrays: dict[str, np.ndarray]) -> tuple[float, float]:
    """Shares of modes at 45 degrees less those at the ends: the largest difference, and the largest in its standard errors."""
    modes = arrays["modes"]
    less = modes[:, N_POINTS // 2] - (modes[:, 0] + modes[:, -1]) / 2
    mean = np.abs(less.mean(0))
    return float(mean.max()), float((mean / (less.std(0, ddof=1) / len(less) ** 0.5)).max())


def sure(arrays: dict[str, np.ndarray]) -> tuple[float, float, float]:
    """How sure the classifier is of the ends, of the images between, and of the means of the ends."""
    p = arrays["p"].max(2)
    return float(p[:, [0, -1]].mean()), float(p[:, 1:-1].mean()), float(arrays["p_blend"].max(1).mean())


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """How far apart chains are, how alike in law, and what lies between modes, within four standard deviations over seeds."""
    near, near_exact = parting(arrays["digits"])[0], parting(arrays["paths"])[0]
    classes = arrays["p"].argmax(2)
    ends, within, blend = sure(arrays)
    return {
        "digits_neighbours_over_strangers": (float(near[1]), 0.1),
        "digits_ends_over_strangers": (float(near[-1]), 0.45),
        "digits_classes_per_path": (float(np.mean([len(set(row)) for row in classes])), 1.6),
        "digits_neighbours_of_one_class": (float((np.diff(classes, axis=1) == 0).mean()), 0.17),
        "confidence_ends": (ends, 0.13),
        "confidence_within": (within, 0.1),
        "confidence_of_means": (blend, 0.25),
        "mixture_neighbours_over_strangers": (float(near_exact[1]), 0.01),
        "mixture_ends_over_strangers": (float(near_exact[-1]), 0.07),
        "mixture_neighbours_in_two_modes": (jumps(arrays)[0], 0.007),
        "mixture_square_in_jumps": (jumps(arrays)[1], 0.003),
        "shift_of_the_middle_in_errors": (shift(arrays)[1], 4.0),
        "empty_ends": (float(arrays["empty"][0]), 0.005),
        "empty_within": (float(arrays["empty"][1]), 0.005),
        "empty_straight": (float(arrays["empty"][2]), 0.025),
    }


def gaussian(n: int) -> np.ndarray:
    """The squared distance of n chains by angle, over that of strangers, were the data Gaussian."""
    return 1 - np.cos(np.linspace(0, np.pi / 2, n))


def caption(arrays: dict[str, np.ndarray]) -> str:
    """Digits, then the mixture where all can be checked."""
    value = {name: pair[0] for name, pair in numbers(arrays).items()}
    empty = {name: f"{value[f'empty_{name}']:.1%}" for name in ("ends", "within", "straight")}
    return (
        f"Of {len(arrays['digits'])} paths of {N_COLUMNS} sampled digits, neighbours are {90 / (N_COLUMNS - 1):.1f} degrees of noise "
        f"apart: their squared distance is {value['digits_neighbours_over_strangers']:.2f} of that of strangers, "
        f"{gaussian(N_COLUMNS)[1]:.2f} were the data Gaussian; the ends' is {value['digits_ends_over_strangers']:.2f}. A path visits "
        f"{value['digits_classes_per_path']:.1f} classes; a classifier is {value['confidence_within']:.2f} sure of the images "
        f"between the ends, {value['confidence_ends']:.2f} of the ends, {value['confidence_of_means']:.2f} of their mean. On a mixture, "
        f"with exact scores, {len(arrays['paths']):,} paths of {N_POINTS}: the shares of the modes at 45 degrees are within "
        f"{shift(arrays)[0]:.3f} of those at the ends ({value['shift_of_the_middle_in_errors']:.1f} standard errors). Where only "
        f"{1 - INSIDE:.0%} of the data lie, there are {empty['ends']} of the ends, {empty['within']} of what is between, and "
        f"{empty['straight']} of straight lines from end to end: paths jump. {value['mixture_neighbours_in_two_modes']:.0%} of "
        f"neighbours are in two modes, and make {value['mixture_square_in_jumps']:.0%} of the squared distance."
    )


def digits_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """One path per row."""
    paths = arrays["digits"]
    n = len(paths)
    sheet = plotting.mosaic(torch.from_numpy(1 - paths.reshape(-1, *paths.shape[2:])), n_columns=N_COLUMNS)
    ax.imshow(sheet, origin="upper", extent=(0, N_COLUMNS, n, 0))
    angles = np.linspace(0, 90, N_COLUMNS)
    ax.set_xticks(np.arange(N_COLUMNS) + 0.5, [f"{a:.0f}°" for a in angles])
    ax.set(yticks=[], title=f"{n} paths of samples, by the angle of their noise")
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    for edge in ax.spines.values():
        edge.set_visible(False)
    ends, within, blend = sure(arrays)
    ax.set_gid(
        f"{n} rows of {N_COLUMNS} digits, black on white. The classifier is {ends:.2f} sure of the ends, {within:.2f} of those between, "
        f"{blend:.2f} of the mean of the ends."
    )


def parting_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Squared distances against the angle between two chains."""
    fine = np.linspace(0, 90, 91)
    ax.plot(fine, gaussian(91), color="black", linestyle="--", linewidth=1.8, label="any Gaussian, exact")
    told = []
    for key, role, label in (("paths", "truth", "mixture, exact score"), ("digits", "learned", "digits, network")):
        mean, error = parting(arrays[key])
        look, angles = plotting.ROLES[role], np.linspace(0, 90, len(mean))
        form = {"fmt": f"{look.marker}{look.line}", "color": look.colour, "markersize": 6, "capsize": 3}
        ax.errorbar(angles, mean, error, label=label, **form)
        told.append(f"{label} {mean[1]:.3f} at {angles[1]:.1f} degrees and {mean[-1]:.2f} at 90")
    ax.axhline(1, color="0.6", linewidth=1)
    ax.set(xlim=(0, 92), ylim=(0, None), xticks=[0, 30, 60, 90], xlabel="angle between two chains, degrees")
    ax.set(ylabel="squared distance / that of strangers", title="how fast chains part")
    ax.legend(loc="lower right")
    ax.set_gid(f"Mean squared distance over that of independent samples: {'; '.join(told)}.")


def plane_panels(plane: Axes, height: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Two fine paths among the contours of the density, and their height against the angle."""
    p, axis = mixture(), torch.linspace(-BOX, BOX, 200)
    density = p.log_prob(torch.cartesian_prod(axis, axis)).view(200, 200).mT
    plane.contourf(axis, axis, density, levels=[float(arrays["level"]), float(density.max())], colors=["0.88"])
    plotting.frame(plane, BOX)
    angles = np.linspace(0, 90, N_FINE)
    looks = ((plotting.ROLES["annealed"].colour, "D", (7, 8)), ("black", "o", (-26, -12)))
    for letter, path, (colour, marker, offset) in zip("AB", arrays["fine"], looks, strict=False):
        plane.plot(*path[[0, -1]].T, color=colour, linestyle=":", linewidth=1.6)
        plane.plot(*path.T, marker, color=colour, markersize=4, markeredgewidth=0)
        for end, angle in ((path[0], "0°"), (path[-1], "90°")):
            plane.annotate(f"{letter} {angle}", end, xytext=offset, textcoords="offset points", fontsize=11)
        height.plot(angles, path[:, 1], marker, color=colour, markersize=4, markeredgewidth=0)
        height.annotate(letter, (0, path[0, 1]), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=11)
    plane.set(xlabel="$x_1$", ylabel="$x_2$", title="two paths; dotted: blends")
    height.set(
        xlabel="angle of the noise, degrees",
        ylabel="$x_2$",
        xticks=[0, 30, 60, 90],
        ylim=(-BOX, BOX),
        title="the same paths jump",
    )
    height.set_yticks([-BOX, 0, BOX])
    longest = [float(np.linalg.norm(np.diff(path, axis=0), axis=1).max()) for path in arrays["fine"]]
    plane.set_gid(
        f"Where {INSIDE:.0%} of the mass lies, in grey, and paths whose longest steps are {' and '.join(f'{s:.1f}' for s in longest)}."
    )


def shares_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Shares of the modes by angle."""
    modes, p = arrays["modes"], mixture()
    mean, error, angles = modes.mean(0), modes.std(0, ddof=1) / len(modes) ** 0.5, np.linspace(0, 90, N_POINTS)
    truth, look = plotting.ROLES["truth"], plotting.ROLES["annealed"]
    for k, weight in enumerate(p.weights.tolist()):
        ax.axhline(weight, color=truth.colour, linewidth=1.6, label=None if k else truth.name)
        ax.errorbar(
            angles,
            mean[:, k],
            error[:, k],
            fmt=look.marker,
            color=look.colour,
            markersize=5,
            capsize=3,
            label=None if k else f"{len(modes):,} chains ± s.e.",
        )
    ax.set(
        xlabel="angle of the noise, degrees",
        ylabel="share of each mode",
        xticks=[0, 30, 60, 90],
        ylim=(0, 0.7),
        title="every angle has the same law",
    )
    ax.legend(loc="upper center", ncols=2, fontsize=11)
    rows = "; ".join(
        f"{angles[i]:.0f} degrees: {', '.join(f'{m:.3f}' for m in mean[i])}" for i in (0, N_POINTS // 2, N_POINTS - 1)
    )
    ax.set_gid(f"Shares of the modes, exactly {', '.join(f'{w:.1f}' for w in p.weights.tolist())}; {rows}.")


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """Above, paths of digits and how fast chains part; below, the mixture."""
    with plt.rc_context(plotting.STYLE):
        figure = plt.figure(figsize=(13.6, 9), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
        above, below = figure.subfigures(2, 1, height_ratios=[5, 4])
        left, right = above.subplots(1, 2, width_ratios=[7.6, 6])
        digits_panel(left, arrays)
        parting_panel(right, arrays)
        plane, height, shares = below.subplots(1, 3)
        plane_panels(plane, height, arrays)
        shares_panel(shares, arrays)
    return figure
