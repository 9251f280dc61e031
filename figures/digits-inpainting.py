"""Half a digit has several completions, and nothing is trained for them. Source: song2019, Algorithm 2.

Nothing was trained for this: the network of the free samples is asked for the score of the whole image, and at each level the known
half is put back with fresh noise of that level. What comes out should be draws of the missing half *given* the other one; several of
them, because the question has several answers. Their mean over pixels, what least squares would give, is near the truth and no digit.

Whether they are fair can be asked without knowing the law: if they are, the truth is one more of them, as far from a completion as
two completions are from each other, and the mean of n lies at (1 + 1/n) / 2 of that squared distance from the truth. And how often
they fall into the true class has a rival that never draws anything, a classifier that was fitted to upper halves.

On mixtures the law is known: ``condition`` gives the density of x2 given x1. Level by level, the share of a mode should follow the
exact one given what is held, which is x1 blurred by the level. It does so until hops between modes become rare, and stays where it is.
While modes overlap that is late, when the blur is small; the same modes further apart freeze early, with the shares of a level at
which x1 is but roughly known.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import shared
from shared import N_ROWS
from toyscore import plotting
from toyscore.distributions import GaussianMixture, asymmetric
from toyscore.metrics import mode_weights
from toyscore.noise import geometric
from toyscore.operators import normal_like
from toyscore.samplers import inpaint

LEVELS = (10.0, 0.05, 20)
EPSILON_OVER_SIGMA2 = 0.3  # as in digits-smoothed: the same share of every level's variance
FAR = 3  # times as far apart as the close modes
HELD = (-3.0, 0.0)  # x1, drawn together like the modes
BOX = 8.0
BINS = np.linspace(-BOX, BOX, 41)
UNKNOWN = (0.62, 0.80, 0.92)


def mixtures() -> dict[str, GaussianMixture]:
    """The same modes close together and far apart."""
    p = asymmetric()
    return {"close": GaussianMixture(p.means / FAR, p.covariances, p.weights), "far": p}


def values(name: str) -> list[float]:
    """Where x1 is held."""
    return [value / FAR if name == "close" else value for value in HELD]


def digits(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """The first held-out digit of each class, its completions, and what classifiers say."""
    truth = shared.halves()[0]
    drawn = shared.completed(seed, quick)
    whole, halves = shared.judge(), shared.judge(N_ROWS)
    return {
        "truth": truth.numpy(),
        "drawn": drawn.numpy(),
        "p": whole.probabilities(drawn.flatten(0, 1)).view(*drawn.shape[:2], -1).numpy(),
        "p_mean": whole.probabilities(drawn.mean(1)).numpy(),
        "p_truth": whole.probabilities(truth).numpy(),
        "p_half": halves.probabilities(truth[:, :, :N_ROWS]).numpy(),
    }


def equilibrium(p: GaussianMixture, value: float, sigmas: torch.Tensor) -> np.ndarray:
    """The exact shares [L, K] of the modes at each level, over what is held: value plus noise of the level."""
    z = torch.special.ndtri((torch.arange(2000) + 0.5) / 2000)[:, None]
    line = p.marginal([0])
    return np.stack([line.responsibilities(value + s * z, s).mean(0).numpy() for s in sigmas])


def toys(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Samples of x2 given x1 on both mixtures, the masses that the exact law gives to the bins, and shares along the levels."""
    n, n_steps = (300, 10) if quick else (4000, 200)
    sigmas, arrays = geometric(*LEVELS), {"sigmas": geometric(*LEVELS).numpy()}
    generator = torch.Generator().manual_seed(seed)
    for name, p in mixtures().items():
        held = torch.tensor([[value, 0.0] for value in values(name)]).repeat_interleave(n, 0)
        chain = inpaint(
            p.score,
            float(sigmas[0]) * normal_like(held, generator),
            sigmas,
            known=held,
            mask=torch.tensor([True, False]),
            step_size=EPSILON_OVER_SIGMA2 * float(sigmas[-1]) ** 2,
            n_steps_each=n_steps,
            denoise=True,
            generator=generator,
        )
        ends = [x for i, x in enumerate(chain, 1) if i % n_steps == 0 or i > n_steps * len(sigmas)]
        split = [x.view(len(HELD), n, 2) for x in ends]
        laws = [p.perturb(float(s)) for s in sigmas]
        for j, value in enumerate(values(name)):
            law = p.condition([0], torch.tensor([value]))
            fine = torch.linspace(-BOX, BOX, 50 * (len(BINS) - 1) + 1)[:, None] + BOX / 50 / (len(BINS) - 1)
            mass = law.log_prob(fine[:-1]).exp().view(-1, 50).mean(1) * (BINS[1] - BINS[0])
            arrays |= {
                f"{name}.{j}.x2": split[-1][j][:, 1].numpy(),
                f"{name}.{j}.exact": mass.numpy(),
                f"{name}.{j}.weights": law.weights.numpy(),
                f"{name}.{j}.found": mode_weights(split[-1][j], p).numpy(),
                f"{name}.{j}.theory": equilibrium(p, value, sigmas),
                f"{name}.{j}.chains": np.stack([mode_weights(x[j], q) for x, q in zip(split, laws, strict=False)]),
            }
    return arrays


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Digits, then mixtures."""
    return digits(seed, quick) | toys(seed, quick)


def shares(arrays: dict[str, np.ndarray], key: str) -> np.ndarray:
    """Of the samples of x2 in the bins."""
    return np.histogram(arrays[f"{key}.x2"], BINS)[0] / len(arrays[f"{key}.x2"])


def variation(arrays: dict[str, np.ndarray], key: str) -> tuple[float, float]:
    """Total variation of the histogram from the exact masses, and its mean for as many exact samples."""
    exact, found = arrays[f"{key}.exact"], shares(arrays, key)
    outside = abs(exact.sum() - found.sum())
    floor = np.sqrt(2 * exact * (1 - exact) / (np.pi * len(arrays[f"{key}.x2"])))
    return float(np.abs(found - exact).sum() + outside) / 2, float(floor.sum()) / 2


def squares(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per digit, squared distances of completions from each other, and of the truth from completions and from their mean."""
    drawn, truth = arrays["drawn"], arrays["truth"]
    among = 2 * drawn.var(1, ddof=1).sum((1, 2, 3))
    return among, ((drawn - truth[:, None]) ** 2).sum((2, 3, 4)).mean(1), ((drawn.mean(1) - truth) ** 2).sum((1, 2, 3))


def ratio(above: np.ndarray, below: np.ndarray) -> tuple[float, float]:
    """Of two means over digits, with its standard error."""
    r = above.mean() / below.mean()
    return float(r), float((above - r * below).std(ddof=1) / below.mean() / len(below) ** 0.5)


def mode(arrays: dict[str, np.ndarray], key: str) -> int:
    """The mode that the exact law prefers."""
    return int(arrays[f"{key}.weights"].argmax())


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """What classifiers see, how far the truth is, and errors on the mixtures, within four standard deviations over seeds."""
    classes, label = arrays["p"].argmax(2), np.arange(len(arrays["p"]))
    among, to_truth, to_mean = squares(arrays)
    found = {
        "true_class_completions": ((classes == label[:, None]).mean(), 0.15),
        "true_class_by_upper_half": (arrays["p_half"][label, label].mean(), 1e-3),
        "true_class_truth": ((arrays["p_truth"].argmax(1) == label).mean(), 1e-6),
        "classes_per_digit": (np.mean([len(set(row)) for row in classes]), 0.7),
        "confidence_completions": (arrays["p"].max(2).mean(), 0.05),
        "confidence_mean": (arrays["p_mean"].max(1).mean(), 0.12),
        "truth_to_completion_over_completions": (ratio(to_truth, among)[0], 0.22),
        "truth_to_mean_over_completions": (ratio(to_mean, among)[0], 0.22),
    }
    for key in (f"{name}.{j}" for name in mixtures() for j in range(len(HELD))):
        name, k = key.replace(".", "_"), mode(arrays, key)
        found |= {
            f"variation_{name}": (variation(arrays, key)[0], 0.03),
            f"share_{name}": (arrays[f"{key}.found"][k], 0.025),
            f"share_exact_{name}": (arrays[f"{key}.weights"][k], 1e-4),
        }
    return {name: (float(value), tolerance) for name, (value, tolerance) in found.items()}


def caption(arrays: dict[str, np.ndarray]) -> str:
    """Digits: how fair, as far as can be told; mixtures: fair where modes are close."""
    value = {name: pair[0] for name, pair in numbers(arrays).items()}
    among, to_truth, to_mean = squares(arrays)
    near, middle = (f"{r:.2f} ± {error:.2f}" for r, error in (ratio(to_truth, among), ratio(to_mean, among)))
    rows, n = arrays["drawn"].shape[:2]

    def told(name: str) -> str:
        found = " and ".join(
            f"{value[f'share_{name}_{j}']:.3f} (exact {value[f'share_exact_{name}_{j}']:.3f}) at x1 = {held:g}"
            for j, held in enumerate(values(name))
        )
        far, floor = zip(*(variation(arrays, f"{name}.{j}") for j in range(len(HELD))), strict=True)
        off, least = (" and ".join(f"{v:.3f}" for v in of) for of in (far, floor))
        return f"{found}, total variations of {off} where exact samples have {least}".replace("= -", "= −")

    return (
        f"Of {rows} held-out digits the upper half is known. Of {n} completions each, a classifier sees "
        f"{value['true_class_completions']:.0%} in the true class (of the originals {value['true_class_truth']:.0%}), where one of "
        f"upper halves expects {value['true_class_by_upper_half']:.0%}; those of one digit fall into "
        f"{value['classes_per_digit']:.1f} classes on average. Squared, the truth is {near} times as far from a completion as two "
        f"completions are from each other (fair draws: 1), and {middle} times from their mean (fair draws: "
        f"{(1 + 1 / n) / 2:.2f}), of which the classifier is less sure, {value['confidence_mean']:.2f} against "
        f"{value['confidence_completions']:.2f}. On a mixture the law is known: with modes close together the likeliest one gets "
        f"{told('close')}; {FAR} times as far apart {told('far')}: there shares freeze while what is held is still noisy."
    )


def digits_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """One row per digit: what is known, completions, their mean, the truth."""
    drawn, truth = arrays["drawn"], arrays["truth"]
    rows, n = drawn.shape[:2]
    known = np.repeat(1 - truth, 3, 1)
    known[:, :, N_ROWS:] = np.array(UNKNOWN)[:, None, None]
    others = np.repeat(1 - np.concatenate([drawn, drawn.mean(1, keepdims=True), truth[:, None]], 1), 3, 2)
    cells = np.concatenate([known[:, None], others], 1)
    columns = n + 3
    sheet = plotting.mosaic(torch.from_numpy(cells.reshape(-1, 3, *truth.shape[2:])).float(), n_columns=columns)
    ax.imshow(sheet, origin="upper", extent=(0, columns, rows, 0))
    side = truth.shape[3] + 1
    for row in range(rows):
        y = rows * (side * row + 1 + N_ROWS) / (side * rows + 1)
        ax.plot([1.05, n + 1.95], [y, y], color=plotting.ROLES["truth"].colour, linewidth=0.7)
    ax.set(xticks=[0.5, 1 + n / 2, n + 1.5, n + 2.5], yticks=[], xlim=(0, columns), ylim=(rows, 0))
    ax.set_xticklabels(["known", f"{n} completions, all that were drawn", "mean", "truth"])
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    for edge in ax.spines.values():
        edge.set_visible(False)
    ax.set_title("lower halves drawn given upper ones")
    among, to_truth, to_mean = (d.mean() for d in squares(arrays))
    ax.set_gid(
        f"{rows} digits of 8 x 8 pixels, black on white, {n} completions each. Mean squared distances: two completions "
        f"{among:.2f}, truth and completion {to_truth:.2f}, truth and mean {to_mean:.2f}."
    )


def slice_panel(ax: Axes, arrays: dict[str, np.ndarray], key: str, held: float, law: GaussianMixture) -> None:
    """Samples of x2 beside the exact density, x2 upwards as in the plane."""
    width = BINS[1] - BINS[0]
    line = torch.linspace(-BOX, BOX, 600)[:, None]
    exact = law.log_prob(line).exp()
    look = plotting.ROLES["annealed"]
    ax.stairs(shares(arrays, key) / width, BINS, orientation="horizontal", fill=True, color=look.colour, alpha=0.45)
    ax.plot(exact, line[:, 0], color=plotting.ROLES["truth"].colour, linewidth=2)
    far, floor = variation(arrays, key)
    ax.set(ylim=(-BOX, BOX), xlim=(0, 1.12 * float(exact.max())), xticks=[], yticks=[-BOX, 0, BOX], yticklabels=[])
    ax.set_title(f"$x_1={held:g}$\nTV {far:.3f}\nfair draws {floor:.3f}", fontsize=11.5)
    ax.set_gid(
        f"Samples of x2 and its exact density at x1 = {held:g}: total variation {far:.3f}, of exact samples {floor:.3f}."
    )


def level_panel(ax: Axes, arrays: dict[str, np.ndarray], name: str) -> None:
    """The share of the likeliest mode, level by level: exact given what is held, and of the chains."""
    sigmas, told = arrays["sigmas"], []
    truth, look = plotting.ROLES["truth"], plotting.ROLES["annealed"]
    for j, held in enumerate(values(name)):
        key = f"{name}.{j}"
        k = mode(arrays, key)
        theory, chains = arrays[f"{key}.theory"][:, k], arrays[f"{key}.chains"][:, k]
        ax.plot(
            sigmas,
            theory,
            color=truth.colour,
            linewidth=2,
            linestyle="-" if j else "--",
            label=f"exact, $x_1={held:g}$",
        )
        fill = look.colour if j else "white"
        ax.plot(
            sigmas,
            chains,
            look.marker,
            color=look.colour,
            markerfacecolor=fill,
            markersize=5,
            label=f"chains, $x_1={held:g}$",
        )
        told.append(f"at x1 = {held:g} exact from {theory[0]:.3f} to {theory[-1]:.3f}, chains to {chains[-1]:.3f}")
    ax.set(xscale="log", xlim=(1.3 * sigmas[0], sigmas[-1] / 1.3), ylim=(0, 1.02), yticks=[0, 0.5, 1])
    ax.set_xticks([10, 1, 0.1], ["10", "1", "0.1"])
    ax.legend(fontsize=9.5, loc="lower right", borderaxespad=0.3, handlelength=1.8, labelspacing=0.3)
    ax.set_title("share of the likeliest mode")
    ax.set_gid(f"Against the level: {'; '.join(told)}.")


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """Digits on the left; on the right, a row per mixture: plane, two slices, shares along the levels."""
    with plt.rc_context(plotting.STYLE):
        figure = plt.figure(figsize=(16, 6.7), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=[6.5, 9.5])
        digits_panel(left.subplots(), arrays)
        axes = right.subplots(2, 4, width_ratios=[2.5, 1.5, 1.5, 2.6])
        titles = {"close": "modes close together", "far": f"{FAR} times as far apart"}
        for row, (name, p) in zip(axes, mixtures().items(), strict=True):
            plotting.density(row[0], p.log_prob, box=BOX)
            row[0].set(title=titles[name], ylabel="$x_2$")
            for j, held in enumerate(values(name)):
                row[0].axvline(held, color="white", linewidth=1.6, linestyle="-" if j else "--")
                slice_panel(row[1 + j], arrays, f"{name}.{j}", held, p.condition([0], torch.tensor([held])))
            level_panel(row[3], arrays, name)
        axes[1, 0].set_xlabel("$x_1$")
        axes[1, 1].set_xlabel("density")
        axes[1, 2].set_xlabel("density")
        axes[1, 3].set_xlabel(r"level $\sigma$")
    return figure
