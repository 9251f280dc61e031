"""Five objectives, one budget: what counts is the price of a step and the noise of its gradient.

Source: song2019sliced, Sec. 3; pang2020, Sec. 3; vincent2011, Sec. 4.

All have the same minimiser; they differ in what a step costs and in how noisy its gradient is. One network learns the score of a
mixture without symmetries at one noise level, by each objective, until the budget is spent: cheap objectives take more steps, each
along the whole schedule of ``fit``. The explicit one knows the truth and is there for reference.

Compute is counted, not timed: the floating-point operations of the matrix products in a step's loss and backward pass, in
units of the network's forward pass of the same batch. In D dimensions the exact trace costs about 3 (1 + D) of them, a slice 6. A network
that carries its tangents by hand (``jvp``) does no less arithmetic than autograd, but in fewer tensor operations, which is what
small networks spend their time on; both are counted.
"""

from __future__ import annotations

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from shared import seeded
from toyscore import plotting
from toyscore.distributions import GaussianMixture, asymmetric
from toyscore.losses import (
    Loss,
    denoising_score_matching,
    explicit_score_matching,
    finite_difference_score_matching,
    implicit_score_matching,
    perturbed,
    sliced_score_matching,
)
from toyscore.metrics import fisher_divergence
from toyscore.models import MLP
from toyscore.operators import Score
from toyscore.train import fit

SIGMA = 0.5
BATCH = 128
N_POINTS = 12  # of a curve, after its start


def mixture() -> GaussianMixture:
    """What is learned: change it and every number follows."""
    return asymmetric()


def objectives() -> dict[str, Loss]:
    """Role -> a loss of clean x."""
    return {
        "explicit": perturbed(partial(explicit_score_matching, target=mixture().score)),
        "implicit": perturbed(implicit_score_matching),
        "sliced": perturbed(sliced_score_matching),
        "finite_difference": perturbed(finite_difference_score_matching),
        "denoising": denoising_score_matching,
    }


class Counter(TorchDispatchMode):
    """Counts the floating-point operations of matrix products, and the tensor operations other than views."""

    def __init__(self) -> None:
        super().__init__()
        self.arithmetic = self.operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket in flop_registry:
            self.arithmetic += flop_registry[function.overloadpacket](*args, **(kwargs or {}), out_val=result)
        self.operations += not function.is_view
        return result


def cost(loss: Loss, x: torch.Tensor, by_hand: bool) -> tuple[float, int]:
    """Of one step on the batch x: its arithmetic in forward passes, and its tensor operations."""
    model = seeded(0, MLP)
    score: Score = model if by_hand else lambda x, sigma: model(x, sigma)  # a function has no jvp
    with torch.no_grad(), Counter() as forward:
        score(x, SIGMA)
    with Counter() as step:
        loss(score, x, SIGMA, generator=torch.Generator()).mean().backward()
    return step.arithmetic / forward.arithmetic, step.operations


def trained(loss: Loss, seed: int, n_steps: int, checkpoints: list[int], x: torch.Tensor) -> list[float]:
    """The Fisher divergence over x after each of the steps named in ``checkpoints``."""
    p = mixture()
    model = seeded(seed, MLP)
    found = {0: fisher_divergence(model, p, x, SIGMA)}

    def at_sigma(score, clean, *, generator):
        return loss(score, clean, SIGMA, generator=generator)

    for step in fit(model, p, at_sigma, n_steps=n_steps, batch_size=BATCH, seed=seed):
        if step.step in checkpoints:
            found[step.step] = fisher_divergence(model, p, x, SIGMA)
    return [found[step] for step in checkpoints]


def compute(seed: int, quick: bool, yours: Loss | None = None) -> dict[str, np.ndarray]:
    """What a step of each objective costs, and the Fisher divergence of several networks as the budget is spent.

    ``yours`` is one more loss of clean x.
    """
    p = mixture()
    budget, n_seeds = (240, 2) if quick else (2400, 3)
    generator = torch.Generator().manual_seed(seed)
    x = p.perturb(SIGMA).sample(5000, generator=generator)
    batch = p.sample(BATCH, generator=generator)
    spent = np.linspace(0, budget, 1 + N_POINTS)
    arrays = {"spent": spent}
    for role, loss in (objectives() | ({} if yours is None else {"yours": yours})).items():
        trained(loss, seed, 1, [0], x)  # a loss that fits no network meets the library's own errors first
        by_hand, by_autograd = cost(loss, batch, True), cost(loss, batch, False)
        if by_hand[0] > budget:
            raise ValueError(
                f"a step of {role} costs {by_hand[0]:,.0f} forward passes: the budget is {budget:,}; make the step cheaper"
            )
        checkpoints = [int(share // by_hand[0]) for share in spent]
        arrays[f"cost.{role}"] = np.array([by_hand, by_autograd])
        arrays[f"n_steps.{role}"] = np.array(checkpoints[-1])
        arrays[f"fisher.{role}"] = np.array(
            [trained(loss, n_seeds * seed + k, checkpoints[-1], checkpoints, x) for k in range(n_seeds)]
        )
    return arrays


def roles(arrays: dict[str, np.ndarray]) -> list[str]:
    """The objectives there are, in order."""
    return [key.removeprefix("fisher.") for key in arrays if key.startswith("fisher.")]


def ends(arrays: dict[str, np.ndarray], role: str) -> tuple[float, float, float]:
    """The geometric mean of the last divergences over seeds, the least and the largest."""
    last = arrays[f"fisher.{role}"][:, -1]
    return float(np.exp(np.log(last).mean())), float(last.min()), float(last.max())


TOLERANCES = {"explicit": 0.004, "implicit": 0.015, "sliced": 0.01, "finite_difference": 0.03, "denoising": 0.0065}


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """The divergence that each of the five reaches, and what its steps cost, by hand-carried tangents and by autograd.

    Tolerances of the divergences are four standard deviations (``run.py --spread 8``); costs depend on no seed, and on the version of
    torch by a few operations.
    """
    found = {}
    for role, tolerance in TOLERANCES.items():
        (arithmetic, operations), (arithmetic_autograd, operations_autograd) = arrays[f"cost.{role}"]
        found |= {
            f"fisher_divergence_{role}": (ends(arrays, role)[0], tolerance),
            f"forward_passes_{role}": (arithmetic, 0.05),
            f"forward_passes_{role}_by_autograd": (arithmetic_autograd, 0.05),
            f"operations_{role}": (operations, 5.0),
            f"operations_{role}_by_autograd": (operations_autograd, 5.0),
        }
    return found


def overlapping(arrays: dict[str, np.ndarray]) -> list[str]:
    """The pairs of objectives whose ranges over seeds meet: what this experiment cannot rank."""
    names = roles(arrays)
    pairs = []
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            (_, low_a, high_a), (_, low_b, high_b) = ends(arrays, a), ends(arrays, b)
            if low_a <= high_b and low_b <= high_a:
                pairs.append(f"{plotting.ROLES[a].name} and {plotting.ROLES[b].name}")
    return pairs


def caption(arrays: dict[str, np.ndarray]) -> str:
    """What the same budget buys, who cannot be ranked, and what carrying tangents by hand saves."""
    names = roles(arrays)
    reached = []
    for role in sorted(names, key=lambda role: ends(arrays, role)[0]):
        mean, low, high = ends(arrays, role)
        steps = int(arrays[f"n_steps.{role}"])
        reached.append(f"{plotting.ROLES[role].name} {mean:.4f} ({low:.4f} to {high:.4f}; {steps:,} steps)")
    pairs = overlapping(arrays)
    ranked = (
        f"the ranges of {', of '.join(pairs)} overlap"
        if pairs
        else "no two ranges overlap, which few seeds may do by chance"
    )
    (arithmetic, operations), (arithmetic_autograd, operations_autograd) = arrays["cost.implicit"]
    return (
        f"The exact Fisher divergence at sigma = {SIGMA:g} that {arrays['spent'][-1]:,.0f} forward passes' worth of arithmetic buys, "
        f"as the geometric mean (range) over {len(arrays['fisher.explicit'])} seeds: {', '.join(reached)}; {ranked}. "
        f"A step with the exact trace costs {arithmetic:.1f} forward passes in {operations:.0f} tensor operations with tangents "
        f"carried by hand, {arithmetic_autograd:.1f} in {operations_autograd:.0f} by autograd."
    )


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """The divergence against what was spent, and what a step costs."""
    figure, axes = plt.subplot_mosaic(
        [["curves", "arithmetic"], ["curves", "operations"]],
        figsize=(10.8, 6.0),
        width_ratios=[1.75, 1],
        layout="constrained",
    )
    fisher = {role: torch.as_tensor(arrays[f"fisher.{role}"]) for role in roles(arrays)}
    plotting.curves(axes["curves"], torch.as_tensor(arrays["spent"]), fisher)
    axes["curves"].set(
        xlabel="arithmetic spent [forward passes of a batch]\n(the schedule of a run spans the budget: compare the ends)",
        ylabel=r"exact Fisher divergence $\frac{1}{2}\,E\|s_\theta-\nabla\log q_\sigma\|^2$",
        title=rf"what this budget buys at $\sigma={SIGMA:g}$"
        + f"\n(geometric mean and range of {len(arrays['fisher.explicit'])} seeds)",
    )
    axes["curves"].grid(which="major", alpha=0.3)
    axes["curves"].legend(loc="upper right")
    costs = {role: arrays[f"cost.{role}"].T for role in fisher}
    bars(axes["arithmetic"], {role: cost[0] for role, cost in costs.items()}, "forward passes", ".1f")
    bars(axes["operations"], {role: cost[1] for role, cost in costs.items()}, "tensor operations", ".0f")
    axes["arithmetic"].set_title("what a step costs with tangents\nby hand (full) and by autograd (pale)", fontsize=12)
    return figure


def bars(ax: Axes, costs: dict[str, np.ndarray], unit: str, form: str) -> None:
    """A pair of bars for each objective: tangents carried by hand above, autograd below."""
    for row, (role, values) in enumerate(costs.items()):
        for k, value in enumerate(values):
            ax.barh(
                row - 0.2 + 0.4 * k,
                value,
                0.36,
                color=plotting.ROLES[role].colour,
                alpha=1.0 if k == 0 else 0.35,
            )
            ax.text(value, row - 0.2 + 0.4 * k, f" {value:{form}}", va="center", fontsize=10)
    ax.set(yticks=range(len(costs)), yticklabels=[plotting.ROLES[role].name for role in costs])
    ax.set_xlabel(unit)
    ax.set_xlim(0, 1.15 * max(values.max() for values in costs.values()))
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    told = (
        f"{plotting.ROLES[role].name} {v[0]:{form}} by hand, {v[1]:{form}} by autograd" for role, v in costs.items()
    )
    ax.set_gid(f"{unit[0].upper()}{unit[1:]} of a step: {'; '.join(told)}.")
