"""Learned scores are wrong where data is scarce. Source: song2019, Figure 2.

The paper's toy, 0.8 N((5, 5), I) + 0.2 N((-5, -5), I), its 2-128-128-2 softplus network, and sliced score matching with one
Gaussian projection; trained by the default recipe of ``fit`` instead of 10,000 steps at a constant rate, from several seeds:
what a network says where it has seen no data is chance. The first is drawn.
"""

from __future__ import annotations

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerPatch
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrow

from shared import paper_network, seeded
from toyscore import plotting
from toyscore.distributions import BOX, GaussianMixture, two_modes
from toyscore.metrics import fisher_divergence, fisher_divergence_by_region, relative_errors
from toyscore.models import MLP

THRESHOLD = 0.5
GRID = 200


def mixture() -> GaussianMixture:
    """What the figure is about: change it and every number follows."""
    return two_modes()


def network(weights: dict[str, np.ndarray]) -> MLP:
    """The paper's, with these weights."""
    model = seeded(0, MLP)
    model.load_state_dict({name: torch.as_tensor(value) for name, value in weights.items()})
    return model


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Train networks from several seeds, and measure their errors where the data is and where it is not."""
    p = mixture()
    n_steps, n_seeds = (100, 2) if quick else (2000, 4)
    x = p.sample(20_000, generator=torch.Generator().manual_seed(seed))
    box = plotting.grid(BOX, GRID)
    dense = p.log_prob(x).quantile(0.01)  # 99 % of the data lies where the density is higher
    region = (p.log_prob(box) < dense).long()
    weights = [paper_network(p, n_seeds * seed + k, n_steps) for k in range(n_seeds)]
    models = [network(w) for w in weights]
    errors = torch.stack([relative_errors(model, p, box) for model in models])
    fisher = [fisher_divergence_by_region(model, p, box, region) for model in models]
    arrays = {f"weights.{name}": value for name, value in weights[0].items()}
    return arrays | {
        "n_steps": np.array(n_steps),
        "fisher": np.array([fisher_divergence(model, p, x) for model in models]),
        "fisher_dense": np.array([f[0] for f in fisher]),
        "fisher_scarce": np.array([f[1] for f in fisher]),
        "scarce": region.float().mean().numpy(),
        "share": (errors > THRESHOLD).float().mean(1).numpy(),
        "share_dense": (errors[:, region == 0] > THRESHOLD).float().mean(1).numpy(),
    }


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """The figure's claims, means over the networks; tolerances are four standard deviations (``run.py --spread 8``)."""
    return {
        "fisher_divergence": (float(arrays["fisher"].mean()), 0.001),
        "share_above_half": (float(arrays["share"].mean()), 0.08),
        "share_above_half_in_dense_region": (float(arrays["share_dense"].mean()), 0.0015),
        "scarce_share_of_box": (float(arrays["scarce"]), 0.007),
        "fisher_divergence_over_dense_region": (float(arrays["fisher_dense"].mean()), 0.003),
        "fisher_divergence_over_scarce_region": (float(arrays["fisher_scarce"].mean()), 6.0),
    }


def caption(arrays: dict[str, np.ndarray]) -> str:
    """Three clauses of numbers."""
    fisher, share = arrays["fisher"], arrays["share"]
    return (
        f"{len(fisher)} networks after {int(arrays['n_steps']):,} steps of sliced score matching: the exact Fisher divergence "
        f"over the data is {fisher.mean():.4f} ± {fisher.std(ddof=1):.4f}, yet the learned score is off by more than "
        f"{THRESHOLD:.0%} on {share.mean():.0%} ± {share.std(ddof=1):.0%} of the box; of the "
        f"{1 - float(arrays['scarce']):.0%} of the box that holds 99% of the data, on {arrays['share_dense'].mean():.2%}. "
        f"Averaged over the box, the divergence is {arrays['fisher_dense'].mean():.3f} where the data is and "
        f"{arrays['fisher_scarce'].mean():.2f} where it is not."
    )


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """Data, the true field, the learned field, and where it is wrong."""
    p = mixture()
    model = network({k.removeprefix("weights."): v for k, v in arrays.items() if k.startswith("weights.")})
    figure, axes = plt.subplots(2, 2, figsize=(10.8, 9.9), layout="constrained")
    (top_left, top_right), (bottom_left, bottom_right) = axes
    plotting.density(top_left, p.log_prob)
    top_left.set_title("data density")
    scale = plotting.arrow_scale(p.score(plotting.grid()).norm(dim=1))
    plotting.vector_field(top_right, p.score, role="truth", scale=scale)
    top_right.set_title(r"true score $\nabla\log p(x)$")
    plotting.vector_field(bottom_left, model, role="learned", scale=scale)
    bottom_left.set_title(r"a learned score $s_\theta(x)$, same scale")
    shown = plotting.field_comparison(bottom_right, model, p.score, threshold=THRESHOLD, n=GRID, n_arrows=13)
    bottom_right.set_title(f"its relative error; above {THRESHOLD:.0%} on {shown.share:.0%} of the box")
    bar = figure.colorbar(
        shown.image,
        ax=bottom_right,
        shrink=0.8,
        extend="max",
        label=r"$\|s_\theta-\nabla\log p\|\,/\,\|\nabla\log p\|$",
    )
    bar.ax.axhline(THRESHOLD, color="black", linewidth=1.2)
    handles, handlers = [], {}
    for role, field, edge, rim in (("truth", shown.truth, "white", 0.7), ("learned", shown.learned, "black", 0.5)):
        kind = plotting.ROLES[role]
        form = {"facecolor": kind.colour, "edgecolor": edge, "linewidth": rim}
        handles.append(FancyArrow(0, 0, 1, 0, label=kind.name, **form))
        handlers[handles[-1]] = HandlerPatch(partial(arrow, shaft=330 * field.width))  # a panel is 330 points wide
    handles.append(Line2D([], [], color="black", linewidth=1.2, label=f"error {THRESHOLD:.0%}"))
    form = {"ncols": 3, "facecolor": "0.8", "framealpha": 1}  # on grey the white rim shows
    bottom_right.legend(handles=handles, handler_map=handlers, loc="upper center", bbox_to_anchor=(0.5, -0.05), **form)
    return figure


def arrow(*, width: float, height: float, shaft: float, **_: object) -> FancyArrow:
    """For the legend, an arrow of the shape that a field's have."""
    form = {"width": shaft, "head_width": 3 * shaft, "head_length": 5 * shaft, "overhang": 0.1}
    return FancyArrow(0, height / 2, width, 0, length_includes_head=True, **form)
