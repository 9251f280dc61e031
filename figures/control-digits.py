r"""Digits of a class, and half digits completed, by the same network. Source: song2021, Sec. 5.

1. *A class.* A classifier that knows the noise level is trained on the spot; the gradient of its logarithm is added to the score. A linear
   classifier of clean digits, which took no part, judges what comes out. With the gradient taken more often than once (dhariwal2021,
   Sec. 4.3) more samples are judged to be of the class, and they vary less: no law of Bayes, and not the law of the class.
2. *The upper half*, by taking the clean digit for Gaussian given the noisy one (``of_measurement``), and by ``inpaint``, which holds
   the known pixels at the noise of each level. Fair draws of the lower half are as far from the truth as from each other (squared, on
   average): what can be judged without knowing the law.

No truth is known here; figure ``control`` has one.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor

from shared import N_ROWS, completed, halves, judge, remembered, seeded
from toyscore import data, plotting, pretrained, sde
from toyscore.losses import at_random_sigma, noisy_cross_entropy
from toyscore.models import NoiseClassifier
from toyscore.noise import log_normal
from toyscore.operators import Score, normal_like
from toyscore.pretrained import Pretrained
from toyscore.samplers import ancestral, final, guided, of_class, of_measurement, rows_of
from toyscore.train import fit

STRENGTHS = (1.0, 3.0)
N_CLASS, N_EACH = 8, 4  # per class; completions per digit
N_STEPS, N_HALF = 40, 25  # of ancestral sampling of a class; of a half
ENDS = (0.01, 160.0)  # of the noise, those of the network
UNKNOWN = (0.62, 0.80, 0.92)


def trained_classifier(trained: Pretrained, n_steps: int) -> NoiseClassifier:
    """A classifier of noisy digits, from nothing."""
    moments = {"data_mean": trained.data["mean"], "data_variance": trained.data["variance"]}
    model = seeded(0, lambda: NoiseClassifier(trained.data["event"], 10, ENDS, **moments))
    loss = at_random_sigma(noisy_cross_entropy, log_normal(*ENDS))
    for _ in fit(model, data.Labelled(data.digits("train")), loss, n_steps=n_steps, lr=3e-3):
        pass
    return model.requires_grad_(False)


def sample(score: Score, n: int, n_steps: int, event: list[int], generator: Generator) -> Tensor:
    """Ancestral sampling on VP, to no noise at all."""
    process = sde.VP()
    times = [*sde.karras_times(process, n_steps, t_min=1e-3).tolist(), 0.0]
    return final(
        ancestral(process, score, process.prior_sample((n, *event), generator=generator), times, generator=generator)
    )


def classes(
    trained: Pretrained, n_each: int, n_steps: int, n_learn: int, generator: Generator
) -> dict[str, np.ndarray]:
    """Digits of each class at each strength, and who judges them."""
    model, event = trained_classifier(trained, n_learn), trained.data["event"]
    labels, classifier = torch.arange(10).repeat_interleave(n_each), judge()
    found = {}
    for strength in STRENGTHS:
        score = guided(trained.network, of_class(model, labels), strength=strength)
        x = sample(score, len(labels), n_steps, event, generator)
        found |= {
            f"drawn.{strength:g}": x.numpy(),
            f"judged.{strength:g}": classifier.probabilities(x).argmax(1).numpy(),
        }
    held = data.digits("held-out")
    real, truth = held.sample_labelled(2000, generator=generator)
    told = model(real + 0.5 * normal_like(real, generator), 0.5).argmax(1)
    return found | {
        "labels": labels.numpy(),
        "real": real.numpy(),
        "real.labels": truth.numpy(),
        "real.judged": classifier.probabilities(real).argmax(1).numpy(),
        "noisy": (told == truth).float().mean().numpy(),
    }


def both_halves(
    trained: Pretrained, n_each: int, n_steps: int, inpainted: Tensor, generator: Generator
) -> dict[str, np.ndarray]:
    """Completions of the first held-out digit of each class, by both ways."""
    train, (truth, mask) = data.digits("train"), halves()
    known, operator, score = truth.repeat_interleave(n_each, 0), rows_of(mask), remembered(trained.network)
    flat = train.tensor().flatten(1)
    widest = float(torch.linalg.matrix_norm(flat - flat.mean(0), 2).square()) / (len(flat) - 1)  # along one direction
    y = known.flatten(1) @ operator.mT
    likelihood = of_measurement(score, operator, y, data_variance=widest)
    drawn = {
        "gaussian": sample(guided(score, likelihood), len(known), n_steps, trained.data["event"], generator),
        "inpaint": inpainted[:, :n_each].flatten(0, 1),
    }
    whole, upper = judge(), judge(N_ROWS)
    shape = (len(truth), n_each, *truth.shape[1:])
    return {
        "truth": truth.numpy(),
        "p_half": upper.probabilities(truth[:, :, :N_ROWS]).numpy(),
        **{f"half.{name}": x.view(shape).numpy() for name, x in drawn.items()},
        **{
            f"half.{name}.judged": whole.probabilities(x).argmax(1).view(shape[:2]).numpy() for name, x in drawn.items()
        },
    }


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Both."""
    trained, generator = pretrained.digits(), Generator().manual_seed(seed)
    n_class, n_each, n_steps, n_half, n_learn = (
        (2, 2, 10, 5, 200) if quick else (N_CLASS, N_EACH, N_STEPS, N_HALF, 2000)
    )
    return classes(trained, n_class, n_steps, n_learn, generator) | both_halves(
        trained, n_each, n_half, completed(seed, quick), generator
    )


def asked(arrays: dict[str, np.ndarray], strength: float) -> tuple[float, float]:
    """The share of samples judged to be of the class that was asked for, and its standard error."""
    right = arrays[f"judged.{strength:g}"] == arrays["labels"]
    return float(right.mean()), float((right.mean() * (1 - right.mean()) / len(right)) ** 0.5)


def variety(x: np.ndarray, labels: np.ndarray) -> float:
    """The mean squared distance of two of the same class, over classes."""
    return float(np.mean([2 * x[labels == k].var(0, ddof=1).sum() for k in range(10)]))


def fairness(arrays: dict[str, np.ndarray], name: str) -> tuple[float, float]:
    """Squared distance of the truth from completions over that between completions: 1 for fair draws; and its standard error."""
    drawn, truth = arrays[f"half.{name}"], arrays["truth"]
    among, to_truth = 2 * drawn.var(1, ddof=1).sum((1, 2, 3)), ((drawn - truth[:, None]) ** 2).sum((2, 3, 4)).mean(1)
    r = to_truth.mean() / among.mean()
    return float(r), float((to_truth - r * among).std(ddof=1) / among.mean() / len(truth) ** 0.5)


def met(arrays: dict[str, np.ndarray], name: str) -> float:
    """How far the known pixels are off, root mean square."""
    off = arrays[f"half.{name}"][:, :, :, :N_ROWS] - arrays["truth"][:, None, :, :N_ROWS]
    return float((off**2).mean() ** 0.5)


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Shares judged right, varieties, and how fair completions are, within four standard deviations over seeds."""
    label = np.arange(10)
    found = {
        "right_real": ((arrays["real.judged"] == arrays["real.labels"]).mean(), 0.02),
        "right_noisy": (arrays["noisy"], 0.05),
        "variety_real": (variety(arrays["real"], arrays["real.labels"]), 0.2),
        "true_class_by_upper_half": (arrays["p_half"][label, label].mean(), 1e-3),
    }
    for strength in STRENGTHS:
        found |= {
            f"asked_{strength:g}": (asked(arrays, strength)[0], 0.12),
            f"variety_{strength:g}": (variety(arrays[f"drawn.{strength:g}"], arrays["labels"]), 0.6),
        }
    for name in ("gaussian", "inpaint"):
        found |= {
            f"true_class_{name}": ((arrays[f"half.{name}.judged"] == label[:, None]).mean(), 0.2),
            f"fairness_{name}": (fairness(arrays, name)[0], 0.4),
            f"met_{name}": (met(arrays, name), 0.005),
        }
    return {name: (float(value), tolerance) for name, (value, tolerance) in found.items()}


def caption(arrays: dict[str, np.ndarray]) -> str:
    """Classes, then halves."""
    v, n = {name: pair[0] for name, pair in numbers(arrays).items()}, len(arrays["labels"])
    shares = " and ".join(f"{asked(arrays, s)[0]:.0%} ± {asked(arrays, s)[1]:.0%}" for s in STRENGTHS)
    spread = " and ".join(f"{v[f'variety_{s:g}']:.2f}" for s in STRENGTHS)
    fair = [f"{r:.2f} ± {error:.2f}" for r, error in (fairness(arrays, name) for name in ("gaussian", "inpaint"))]
    rows, each = arrays["half.gaussian"].shape[:2]
    return (
        f"A network that never saw a label, guided by a classifier of noisy digits (right on {v['right_noisy']:.0%} at sigma 0.5). Of {n} "
        f"digits a linear classifier of clean ones finds {shares} in the class asked for, at strengths "
        f"{' and '.join(f'{s:g}' for s in STRENGTHS)} (of real digits {v['right_real']:.0%}); two of one class are {spread} apart, squared "
        f"(real {v['variety_real']:.2f}): a larger strength is surer, and varies less. Right: {rows} upper halves are given. Of {each} "
        f"completions each, {v['true_class_gaussian']:.0%} are seen in the true class with the clean digit as Gaussian, "
        f"{v['true_class_inpaint']:.0%} with inpaint (expected: {v['true_class_by_upper_half']:.0%}); the truth is {fair[0]} and {fair[1]} "
        f"times as far from them as they are from each other, squared (fair draws: 1). Known pixels are met to {v['met_gaussian']:.1g} and "
        f"{v['met_inpaint']:.1g}."
    )


def bare(ax: Axes, cells: np.ndarray, n_columns: int, ticks: dict[float, str], rules: list[float]) -> None:
    """Cells [N, C, 8, 8], black on white, row by row, with words above columns and lines between some."""
    rows = len(cells) // n_columns
    colour = np.repeat(cells, 3, 1) if cells.shape[1] == 1 else cells
    sheet = plotting.mosaic(torch.from_numpy(colour).float(), n_columns=n_columns)
    ax.imshow(sheet, origin="upper", extent=(0, n_columns, rows, 0))
    for rule in rules:
        ax.axvline(rule, color=plotting.ROLES["truth"].colour, linewidth=2)
    ax.set(xticks=list(ticks), yticks=[], xlim=(0, n_columns), ylim=(rows, 0))
    ax.set_xticklabels(list(ticks.values()))
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    for edge in ax.spines.values():
        edge.set_visible(False)


def class_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """A row per class, a block per strength."""
    n = len(arrays["labels"]) // 10
    blocks = [1 - arrays[f"drawn.{s:g}"].reshape(10, n, 1, 8, 8) for s in STRENGTHS]
    cells = np.concatenate(blocks, 1).reshape(-1, 1, 8, 8)
    ticks = {n * (i + 0.5): f"strength {s:g}: {asked(arrays, s)[0]:.0%} as asked" for i, s in enumerate(STRENGTHS)}
    bare(ax, cells, n * len(STRENGTHS), ticks, [n * i for i in range(1, len(STRENGTHS))])
    ax.set_yticks(np.arange(10) + 0.5, [str(k) for k in range(10)], fontsize=14)
    ax.set(ylabel="class that was asked for", title="all that were drawn, a class per row")
    ax.set_gid(f"{2 * 10 * n} digits: {'; '.join(ticks.values())}.")


def trade_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Sure against varied."""
    looks = ((STRENGTHS[0], "annealed"), (STRENGTHS[1], "learned"))
    told = []
    for strength, role in looks:
        (share, error), far = asked(arrays, strength), variety(arrays[f"drawn.{strength:g}"], arrays["labels"])
        look = plotting.ROLES[role]
        ax.errorbar(far, share, yerr=error, marker=look.marker, color=look.colour, markersize=11, capsize=4)
        ax.annotate(f"strength {strength:g}", (far, share), (-14, -4), textcoords="offset points", ha="right")
        told.append(f"strength {strength:g} {share:.2f} at {far:.2f}")
    share, far = numbers(arrays)["right_real"][0], variety(arrays["real"], arrays["real.labels"])
    look = plotting.ROLES["truth"]
    ax.plot(far, share, look.marker, color=look.colour, markersize=12)
    ax.annotate("real digits", (far, share), (0, -24), textcoords="offset points", ha="center")
    ax.set(ylim=(0.7, 1.02), xlim=(0.4 * far, 1.25 * far), xlabel="squared distance of two of a class")
    ax.set_box_aspect(1.5)
    ax.set(ylabel="share judged as asked", title="surer, and less varied")
    ax.set_gid(
        f"Share as asked at the squared distance of two of a class: {'; '.join(told)}; real {share:.2f} at {far:.2f}."
    )


def half_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """What is known, completions by both ways, the truth."""
    truth, drawn = arrays["truth"], [arrays["half.gaussian"], arrays["half.inpaint"]]
    n = drawn[0].shape[1]
    known = np.repeat(1 - truth, 3, 1)
    known[:, :, N_ROWS:] = np.array(UNKNOWN)[:, None, None]
    others = np.repeat(1 - np.concatenate([*drawn, truth[:, None]], 1), 3, 2)
    cells = np.concatenate([known[:, None], others], 1)
    ticks = {0.5: "given", 1 + n / 2: "clean digit as Gaussian", 1 + 1.5 * n: "inpaint", 2 * n + 1.5: "truth"}
    bare(ax, cells.reshape(-1, 3, 8, 8), 2 * n + 2, ticks, [1, 1 + n, 1 + 2 * n])
    ax.set_title("lower halves drawn given upper ones")
    told = [f"{name} {fairness(arrays, name)[0]:.2f}" for name in ("gaussian", "inpaint")]
    ax.set_gid(f"{len(truth)} digits, {n} completions by each way. Fairness (1 for fair draws): {', '.join(told)}.")


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """Classes, the trade, halves."""
    with plt.rc_context(plotting.STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(17, 5.8), layout="constrained", width_ratios=[8.6, 3.2, 5.6])
        figure.get_layout_engine().set(h_pad=0.12)
        class_panel(axes[0], arrays)
        trade_panel(axes[1], arrays)
        half_panel(axes[2], arrays)
    return figure
