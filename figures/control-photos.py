r"""Colour and a missing square, by a network that knows neither. Source: song2021, Sec. 5.

A measurement y = A x of a clean image: the mean of its channels (colorization), or all pixels but those of a square (inpainting). The
likelihood of y given a noisy image takes the clean one for Gaussian (song2023), and its gradient steers the score; the network knows
nothing of grey or of squares. How far that guess can be off is the subject of figure ``control``. What can be told without the truth of
the law: whether y is met, how far draws are from the original, and how far from each other; fair draws are as far from both.

The variance that stands for the data is that of their widest direction, the common brightness and hue of a crop, hundreds of times that of
a pixel. With a pixel's the likelihood believes x_0 to be far better known than it is in that direction, pulls too hard there, and explicit
steps overshoot at high noise: the last column, where colours run away although y is met.

The crops are of the two photographs that the network was trained on.
"""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor

from shared import remembered
from toyscore import data, plotting, pretrained, sde
from toyscore.samplers import ancestral, final, grey, guided, of_measurement, rows_of

N_CROPS, N_EACH, N_STEPS = 3, 3, 18
HOLE = slice(10, 22)  # of rows and of columns
CROPS_SEED = 10  # whatever the seed of the draws; crops with something in them
TASKS = {"colour": "colour given grey", "hole": "a square given the rest"}


def operators(event: tuple[int, int, int]) -> dict[str, Tensor]:
    """What is measured in each task: [M, D]."""
    mask = torch.ones(event, dtype=torch.bool)
    mask[:, HOLE, HOLE] = False
    return {"colour": grey(event), "hole": rows_of(mask)}


def widest(x: Tensor) -> float:
    """The variance of images along the direction in which they vary most."""
    flat = x.flatten(1) - x.flatten(1).mean(0)
    return float(torch.linalg.eigvalsh(flat @ flat.mT)[-1]) / (len(x) - 1)


def given(x: Tensor, task: str) -> Tensor:
    """The measurement as images, and the best that knows nothing: grey in every channel, or the mean of what is known."""
    if task == "colour":
        return x.mean(1, keepdim=True).expand_as(x)
    shown = x.clone()
    n_known = x[0, 0].numel() - x[0, 0, HOLE, HOLE].numel()
    shown[:, :, HOLE, HOLE] = 0
    shown[:, :, HOLE, HOLE] = (shown.sum((2, 3)) / n_known)[:, :, None, None]
    return shown


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Draws given each measurement."""
    trained, crops = pretrained.photos(), data.photos()
    score = remembered(trained.network)
    n_crops, n_each, n_steps = (1, 2, 3) if quick else (N_CROPS, N_EACH, N_STEPS)
    truth = crops.sample(n_crops, generator=Generator().manual_seed(CROPS_SEED))
    generator, process = Generator().manual_seed(seed), sde.VP()
    times = [*sde.karras_times(process, n_steps, t_min=1e-3).tolist(), 0.0]
    found = {"truth": truth.numpy()}
    variances = {
        "drawn": widest(crops.sample(1024, generator=Generator().manual_seed(CROPS_SEED))),
        "pixel": trained.data["variance"],
    }
    found |= {f"v.{name}": np.array(v) for name, v in variances.items()}

    def drawn(operator: Tensor, known: Tensor, v: float) -> Tensor:
        y = known.flatten(1) @ operator.mT
        likelihood = of_measurement(score, operator, y, data_variance=v)
        start = process.prior_sample(tuple(known.shape), generator=generator)
        return final(ancestral(process, guided(score, likelihood), start, times, generator=generator))

    for task, operator in operators(crops.event).items():
        known = truth.repeat_interleave(n_each, 0)
        x = drawn(operator, known, variances["drawn"])
        found |= {
            f"{task}.drawn": x.view(n_crops, n_each, *crops.event).numpy(),
            f"{task}.given": given(truth, task).numpy(),
            f"{task}.met": ((x - known).flatten(1) @ operator.mT).square().mean().sqrt().numpy(),
        }
    found["colour.pixel"] = drawn(operators(crops.event)["colour"], truth, variances["pixel"])[:, None].numpy()
    return found


def errors(arrays: dict[str, np.ndarray], task: str) -> dict[str, float]:
    """Mean squares per number that was not known: of draws, of their mean, of knowing nothing, and between two draws."""
    drawn, truth, blank = arrays[f"{task}.drawn"], arrays["truth"], arrays[f"{task}.given"]
    if task == "hole":
        drawn, truth, blank = (a[..., HOLE, HOLE] for a in (drawn, truth, blank))
    return {
        "draw": float(((drawn - truth[:, None]) ** 2).mean()),
        "mean": float(((drawn.mean(1) - truth) ** 2).mean()),
        "nothing": float(((blank - truth) ** 2).mean()),
        "among": float(2 * drawn.var(1, ddof=1).mean()),
    }


def decibels(square: float) -> float:
    """Peak signal to noise of values in [0, 1]."""
    return -10 * math.log10(square)


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """How exactly y is met, and the errors, within four standard deviations over seeds."""
    found: dict[str, tuple[float, float]] = {}
    for task in TASKS:
        e = errors(arrays, task)
        found |= {
            f"{task}_met": (float(arrays[f"{task}.met"]), 0.005),
            f"{task}_psnr": (decibels(e["draw"]), 3.0),
            f"{task}_psnr_mean": (decibels(e["mean"]), 3.0),
            f"{task}_psnr_nothing": (decibels(e["nothing"]), 1e-3),
            f"{task}_spread": ((e["among"] / 2) ** 0.5, 0.05),
            f"{task}_truth_over_draws": (e["draw"] / e["among"], 2.0),
        }
    found["colour_psnr_pixel"] = (
        decibels(float(((arrays["colour.pixel"] - arrays["truth"][:, None]) ** 2).mean())),
        4.0,
    )
    found["variance_ratio"] = (float(arrays["v.drawn"] / arrays["v.pixel"]), 5.0)
    return found


def caption(arrays: dict[str, np.ndarray]) -> str:
    """Colour, then the square."""
    v = {name: pair[0] for name, pair in numbers(arrays).items()}
    n_crops, n_each = arrays["colour.drawn"].shape[:2]
    colour, plain, hole, flat = (v[f"{task}_psnr{of}"] for task in TASKS for of in ("", "_nothing"))
    far = [v[f"{task}_truth_over_draws"] for task in TASKS]
    costs = ", for a wrong colour costs more than none" if colour < plain else ""
    narrow = ": they vary too little" if min(far) > 1 else ""
    return (
        f"{n_crops} crops of the two photographs the network has learned from, {n_each} draws each, all shown, {N_STEPS} steps. Colour "
        f"given grey: draws have {colour:.1f} dB against the original, plain grey {plain:.1f}{costs}. A square given the rest: "
        f"{hole:.1f} dB, one flat colour {flat:.1f}. Fair draws would be as far from the original as from each other, squared; these are "
        f"{far[0]:.1f} and {far[1]:.1f} times as far{narrow}. What is given is met to {v['colour_met']:.1g} and {v['hole_met']:.1g}. Last "
        f"column of colours: with a pixel's variance in the likelihood, not the {v['variance_ratio']:.0f} times larger one of the widest "
        f"direction, they run away ({v['colour_psnr_pixel']:.1f} dB)."
    )


def panel(ax: Axes, arrays: dict[str, np.ndarray], task: str) -> None:
    """What is given, the draws, the original."""
    drawn, truth, known = arrays[f"{task}.drawn"], arrays["truth"], arrays[f"{task}.given"].copy()
    if task == "hole":
        known[:, :, HOLE, HOLE] = 1.0
    rows, n = drawn.shape[:2]
    columns = [known[:, None], drawn, truth[:, None]] + ([arrays["colour.pixel"]] if task == "colour" else [])
    cells, width = np.concatenate(columns, 1), n + len(columns) - 1
    sheet = plotting.mosaic(torch.from_numpy(cells.reshape(-1, *truth.shape[1:])), n_columns=width)
    ax.imshow(sheet, origin="upper", extent=(0, width, rows, 0))
    for rule in range(1, width):
        if rule in (1, n + 1, n + 2):
            ax.axvline(rule, color="black", linewidth=2)
    ax.set(xticks=[0.5, 1 + n / 2, n + 1.5, n + 2.5][: len(columns)], yticks=[], xlim=(0, width), ylim=(rows, 0))
    ax.set_xticklabels(["given", f"{n} draws", "original", "variance too small"][: len(columns)])
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    for edge in ax.spines.values():
        edge.set_visible(False)
    e = errors(arrays, task)
    ax.set_title(TASKS[task])
    ax.set_xlabel(f"original to draw {decibels(e['draw']):.1f} dB; y met to {float(arrays[f'{task}.met']):.1g}")
    ax.set_gid(
        f"{rows} crops, {n} draws each: {decibels(e['draw']):.1f} dB, knowing nothing {decibels(e['nothing']):.1f} dB."
    )


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """A task per panel."""
    with plt.rc_context(plotting.STYLE):
        figure, axes = plt.subplots(
            1, 2, figsize=(16, 5.4), layout="constrained", width_ratios=[N_EACH + 3, N_EACH + 2]
        )
        for ax, task in zip(axes, TASKS, strict=True):
            panel(ax, arrays, task)
    return figure
