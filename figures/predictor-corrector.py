r"""Does a corrector pay for its calls? And a rule that is wrong in the plane. Source: song2021, Algorithm 1 and Table 1.

1. *Exact score, Gaussian data.* The Gaussian has the toy's mean and covariance. Every sampler here is affine on it, so the law it ends
   with is computed, and its divergence from the right one has neither noise nor floor. A call can go into another time, or into a
   corrector step at the same time. (That Euler-Maruyama is so good on VE is an accident of Gaussian data and equal ratios of sigma: the
   errors of its variance cancel over all levels, see ``samplers-race``. In what it then comes to, the prior is left.)
2. *The same on VP*, at times of the same kind: equal ratios of sigma. VP's corrector steps are alpha_t / alpha_s shorter.
3. *A wrong score.* Too short above a noise level, right below it. The predictor carries what it did wrong to the end, however many
   calls it is given. A corrector asks the score of the level it is at, and forgets. Where the score is wrong to the end nothing helps.
4. *The toy itself, sampled.* The band is what two sets of exact samples are apart: below it nothing can be told.
5. *The trap.* The paper's step size, ``matched_norms``, divides by the squared norm of the score at each row. At one noise level, in the
   plane, such a chain keeps not p but ||score||² p^(D/(D+2)), whatever its snr: the toy's modes widen, and their shares are wrong.
6. *It heals in many dimensions.* The same toy in the first two of D coordinates, noise in the others, as across a manifold of images.
   ``noise_std`` is right in any D, and so is ``batch_norms``, the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from toyscore import plotting
from toyscore.diagnostics import Moments, affine_law, gaussian_divergence, matched_norms_law
from toyscore.distributions import GaussianMixture, asymmetric
from toyscore.metrics import sliced_wasserstein2
from toyscore.operators import Score
from toyscore.samplers import (
    Step,
    ancestral_step,
    batch_norms,
    corrected_step,
    corrector_step,
    euler_maruyama_step,
    final,
    matched_norms,
    noise_std,
    predictor_corrector,
    reverse_diffusion_step,
)
from toyscore.sde import SDE, VE, VP, geometric_times, law_at

COUNTS = (24, 48, 96, 192, 384, 768)  # calls of the score, shared by 1, 2 and 3
FEW = 1  # of COUNTS, that the caption tells, beside the last
SNR = 0.16  # the paper's, on VE
LONG = 0.5  # a corrector step ten times as long
T_MIN = 1e-3
WRONG_ABOVE, WRONG_BY = 3.0, 0.2  # the score is a fifth too short where sigma is larger
SIGMA = 2.0  # of the trap: modes still tell apart, and chains pass between them
DIMS = (2, 8, 32, 128)
SMALL = 0.03  # snr, at which the plane's chain is near its limit
MASS = 0.9  # inside the contours
BOX = 16.0
PROCESSES: dict[str, SDE] = {"VE": VE(), "VP": VP()}


@dataclass(frozen=True)
class Method:
    """A step, the calls it makes, and how it is drawn."""

    name: str
    step: Step
    calls: int
    colour: str
    marker: str
    line: str


def _corrected(n: int, snr: float = SNR, predictor: Step | None = reverse_diffusion_step) -> Step:
    return partial(corrected_step, predictor=predictor, snr=snr, n_corrector_steps=n, width=noise_std)


METHODS = {
    "euler": Method("Euler-Maruyama alone", euler_maruyama_step, 1, "#56B4E9", "^", "-"),
    "ancestral": Method("ancestral alone", ancestral_step, 1, "#0072B2", "v", "-"),
    "predictor": Method("reverse diffusion alone (P)", reverse_diffusion_step, 1, "#000000", "o", "-"),
    "one": Method(f"P + 1 corrector, snr {SNR:g}", _corrected(1), 2, "#E69F00", "s", "--"),
    "two": Method(f"P + 2 correctors, snr {SNR:g}", _corrected(2), 3, "#D55E00", "D", "--"),
    "long": Method(f"P + 1 corrector, snr {LONG:g}", _corrected(1, LONG), 2, "#009E73", "P", "--"),
    "corrector": Method(f"corrector alone, snr {SNR:g}", _corrected(1, predictor=None), 1, "#CC79A7", "X", ":"),
}
SAMPLED = {"predictor": 0, "one": 1, "two": 2, "corrector": 1}  # in panel 4: corrector steps


def mixture() -> GaussianMixture:
    """The toy: change it and every number follows."""
    return asymmetric()


def gaussian() -> GaussianMixture:
    """The Gaussian with the toy's mean and covariance."""
    p = mixture().to(dtype=torch.float64)
    return GaussianMixture(p.mean[None], p.covariance[None])


def shortened(above: bool) -> Score:
    """The Gaussian's score, ``WRONG_BY`` too short above the noise level ``WRONG_ABOVE``, or below it."""
    p = gaussian()

    def score(x: Tensor, sigma: float | Tensor, /) -> Tensor:
        return (1 - WRONG_BY * ((float(sigma) > WRONG_ABOVE) == above)) * p.score(x, sigma)

    return score


def divergence(method: Method, sde: SDE, calls: int, score: Score | None = None) -> float:
    """KL in nats of what a method ends with from the law of x at the last time."""
    times = geometric_times(sde, calls // method.calls, t_min=T_MIN)
    return gaussian_divergence(
        affine_law(method.step, sde, gaussian(), times, score=score), law_at(sde, gaussian(), T_MIN)
    )


def divergences(counts: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Panels 1 to 3: [methods, counts]; the prior's own divergence; and the error where the score is wrong to the end."""
    found = {
        f"kl.{name}": np.array([[divergence(m, sde, n) for n in counts] for m in METHODS.values()])
        for name, sde in PROCESSES.items()
    }
    found["kl.wrong"] = np.array(
        [[divergence(m, PROCESSES["VE"], n, shortened(True)) for n in counts] for m in METHODS.values()]
    )
    found["kl.below"] = np.array(
        [divergence(METHODS[name], PROCESSES["VE"], counts[-1], shortened(False)) for name in ("predictor", "long")]
    )
    for name, sde in PROCESSES.items():
        prior = Moments(torch.zeros(2, dtype=torch.float64), sde.prior_std**2 * torch.eye(2, dtype=torch.float64))
        found[f"prior.{name}"] = np.array(gaussian_divergence(prior, law_at(sde, gaussian(), 1.0)))
    return found


def distances(counts: tuple[int, ...], n: int, generator: torch.Generator) -> dict[str, np.ndarray]:
    """Panel 4: sliced Wasserstein-2 distances to exact samples, and those of pairs of exact samples."""
    p = mixture()

    def distance(x: Tensor) -> float:
        return sliced_wasserstein2(x, p.sample(n, generator=generator), n_projections=64, generator=generator)

    found = {"floor": np.array([distance(p.sample(n, generator=generator)) for _ in range(8)])}
    for name, sde in PROCESSES.items():
        rows = []
        for key, n_steps in SAMPLED.items():
            predictor = None if key == "corrector" else reverse_diffusion_step
            options = {"predictor": predictor, "snr": SNR, "n_corrector_steps": n_steps, "width": noise_std}
            row = []
            for count in counts:
                times = geometric_times(sde, count // METHODS[key].calls, t_min=T_MIN)
                start = sde.prior_sample((n, 2), generator=generator)
                row.append(
                    distance(final(predictor_corrector(sde, p.score, start, times, generator=generator, **options)))
                )
            rows.append(row)
        found[f"w2.{name}"] = np.array(rows)
    return found


def padded(p: GaussianMixture) -> Score:
    """The score of the toy in the first two coordinates of x, whose others hold nothing but noise."""

    def score(x: Tensor, sigma: float | Tensor, /) -> Tensor:
        return torch.cat([p.score(x[:, :2].contiguous(), sigma), -x[:, 2:] / sigma**2], 1)

    return score


def chain(
    width: Callable[..., Tensor | float], dim: int, snr: float, n: int, n_steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Corrector steps alone at the level ``SIGMA``, started from the right law: shares of the modes with their errors, and late states."""
    p, sde = mixture(), PROCESSES["VE"]
    t, score = sde.time(SIGMA), p.score if dim == 2 else padded(p)
    noise = SIGMA * torch.randn(n, dim - 2, generator=generator)
    x = torch.cat([p.perturb(SIGMA).sample(n, generator=generator), noise], 1)
    shares, states, every = [], [], max(1, n_steps // 60)
    with torch.no_grad():
        for i in range(n_steps):
            x = corrector_step(sde, score, x, t, factor=4 * snr**2, width=width, generator=generator)
            if i >= n_steps // 3 and i % every == 0:
                states.append(x[:, :2].contiguous())
                shares.append(p.responsibilities(states[-1], SIGMA))
    rows = torch.stack(shares).mean(0)
    return torch.stack([rows.mean(0), rows.std(0) / n**0.5]), torch.cat(states[-6::2])


WIDTHS = {"matched": matched_norms, "batch": batch_norms, "std": noise_std}


def trap(quick: bool, generator: torch.Generator) -> dict[str, np.ndarray]:
    """Panels 5 and 6."""
    n, n_steps = (60, 60) if quick else (800, 600)
    p = mixture().to(dtype=torch.float64)
    found, predicted = {}, []
    for name, width in WIDTHS.items():
        found[f"shares.{name}"] = np.stack([chain(width, dim, SNR, n, n_steps, generator)[0].numpy() for dim in DIMS])
    for dim in DIMS:
        law = matched_norms_law(p, SIGMA, n_empty=dim - 2)
        predicted.append((law.masses @ p.responsibilities(law.points, SIGMA)).numpy())
    small, states = chain(matched_norms, 2, SMALL, n, n_steps * (2 if quick else 26), generator)
    return found | {"shares.predicted": np.stack(predicted), "shares.small": small.numpy(), "states": states.numpy()}


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """All panels; the first three are determined."""
    generator = torch.Generator().manual_seed(seed)
    counts, n = (COUNTS[: FEW + 1], 200) if quick else (COUNTS, 3000)
    sampled = counts[:-1] if len(counts) > 2 else counts
    return (
        {"counts": np.array(counts), "counts.sampled": np.array(sampled)}
        | divergences(counts)
        | distances(sampled, n, generator)
        | trap(quick, generator)
    )


def pays_from(arrays: dict[str, np.ndarray], panel: str, key: str) -> int:
    """The least count from which a corrected method has the smaller error at every count; 0 if there is none."""
    names = list(METHODS)
    better = arrays[f"kl.{panel}"][names.index(key)] < arrays[f"kl.{panel}"][names.index("predictor")]
    losing = np.flatnonzero(~better)
    first = losing[-1] + 1 if len(losing) else 0
    return int(arrays["counts"][first]) if first < len(better) else 0


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Divergences are determined. Distances and shares are within four standard deviations over seeds."""
    found = {}
    for panel in ("VE", "VP", "wrong"):
        for row, key in enumerate(METHODS):
            for when, column in (("few", FEW), ("many", -1)):
                value = float(arrays[f"kl.{panel}"][row, column])
                found[f"kl_{panel}_{key}_{when}"] = (value, 1e-4 * value)
        for key in ("one", "two", "long"):
            found[f"pays_from_{panel}_{key}"] = (float(pays_from(arrays, panel, key)), 0.0)
    for k, key in enumerate(("predictor", "long")):
        found[f"kl_wrong_below_{key}"] = (float(arrays["kl.below"][k]), 1e-4 * float(arrays["kl.below"][k]))
    found["floor"] = (float(arrays["floor"].mean()), 0.14)
    for name in PROCESSES:
        for row, key in enumerate(SAMPLED):
            value = float(arrays[f"w2.{name}"][row, FEW])
            found[f"w2_{name}_{key}_few"] = (value, TOLERANCE_W2.get(key, 0.4))
    for k, dim in enumerate(DIMS):
        found[f"share_predicted_{dim}"] = (float(arrays["shares.predicted"][k, 0]), 1e-4)
        for name in WIDTHS:
            found[f"share_{name}_{dim}"] = (float(arrays[f"shares.{name}"][k, 0, 0]), 0.07)
    found["share_small_steps"] = (float(arrays["shares.small"][0, 0]), 0.05)
    return found


TOLERANCE_W2 = {"corrector": 2.0}


def caption(arrays: dict[str, np.ndarray]) -> str:
    """Whether a corrector pays, when it does, and what the paper's step size samples."""
    value = {name: pair[0] for name, pair in numbers(arrays).items()}
    few, many = arrays["counts"][FEW], arrays["counts"][-1]

    def kl(panel: str, key: str, when: str) -> str:
        return f"{value[f'kl_{panel}_{key}_{when}']:.2g}"

    def start(panel: str, key: str) -> int:
        return int(value[f"pays_from_{panel}_{key}"])

    def pays(panel: str, key: str) -> str:
        return f"from {start(panel, key)}" if start(panel, key) else f"not by {many}"

    euler = list(METHODS).index("euler")
    wins = sum(int((arrays[f"kl.{name}"].argmin(0) == euler).sum()) for name in PROCESSES)
    races = len(PROCESSES) * len(arrays["counts"])
    right = ", ".join(f"{v:.2f}" for v in mixture().weights.tolist())
    small = ", ".join(f"{v:.2f}" for v in arrays["shares.small"][0])
    return (
        f"Divergence in nats, Gaussian data. Exact score, VE (1), {few} calls: {kl('VE', 'one', 'few')} with one corrector step (snr "
        f"{SNR:g}) after each step of reverse diffusion, {kl('VE', 'predictor', 'few')} without. Correctors pay {pays('VE', 'one')} calls "
        f"on (snr {SNR:g}) or {pays('VE', 'long')} ({LONG:g}); on VP (2) {pays('VP', 'one')}, or {pays('VP', 'long')}. Euler-Maruyama "
        f"alone beats all, in {wins} of {races} races. Score {WRONG_BY:.0%} too short above sigma = {WRONG_ABOVE:g} (3), {many} calls: "
        f"{kl('wrong', 'predictor', 'many')} without, {kl('wrong', 'one', 'many')} with one, {kl('wrong', 'long', 'many')} with snr "
        f"{LONG:g}: what went wrong earlier is mended. Too short below it: {value['kl_wrong_below_predictor']:.2g} without, "
        f"{value['kl_wrong_below_long']:.2g} with the last: what the score says now is not. Grey line: the prior's own divergence, which "
        f"the noise on the way back forgets. In the plane (5) matched norms give weights {small} for {right}; at D = {DIMS[-1]} the first "
        f"is {value[f'share_matched_{DIMS[-1]}']:.3f} (6)."
    )


def kl_panel(ax: Axes, arrays: dict[str, np.ndarray], panel: str, title: str, prior: str) -> None:
    """Divergence against calls, one curve per method."""
    told = []
    for row, method in zip(arrays[f"kl.{panel}"], METHODS.values(), strict=True):
        ax.plot(
            arrays["counts"],
            row,
            method.line,
            color=method.colour,
            marker=method.marker,
            markersize=7,
            linewidth=1.9,
            label=method.name,
        )
        told.append(f"{method.name} {row[0]:.2g} to {row[-1]:.2g}")
    level = float(arrays[f"prior.{prior}"])
    ax.axhline(level, color="0.55", linewidth=1.3)
    ax.annotate(
        "the prior's own",
        (0.45, level),
        (0, -3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=11,
        color="0.35",
    )
    calls_axis(ax, arrays["counts"])
    ax.set(yscale="log", ylim=(3e-7, 10), title=title)
    ax.set_gid(
        f"KL in nats at {arrays['counts'][0]} to {arrays['counts'][-1]} calls: {'; '.join(told)}. The prior's own divergence at t = 1 is "
        f"{level:.2g}."
    )


def calls_axis(ax: Axes, counts: np.ndarray) -> None:
    """Calls of the score."""
    ax.set(xscale="log", xlim=(counts[0] / 1.25, counts[-1] * 1.25), xlabel="calls of the score")
    ax.set_xticks(counts, [str(n) for n in counts])
    ax.minorticks_off()


def w2_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Sliced W2 against calls; VE filled, VP open."""
    told = []
    for name in PROCESSES:
        for row, key in zip(arrays[f"w2.{name}"], SAMPLED, strict=True):
            method = METHODS[key]
            ax.plot(
                arrays["counts.sampled"],
                row,
                "-" if name == "VE" else ":",
                color=method.colour,
                marker=method.marker,
                markersize=7,
                markerfacecolor=method.colour if name == "VE" else "white",
                linewidth=1.9,
            )
            told.append(f"{name} {method.name} {row[0]:.2g} to {row[-1]:.2g}")
    floor = arrays["floor"]
    ax.axhspan(floor.min(), floor.max(), color="0.82", linewidth=0)
    ax.text(0.03, 0.03, "band: exact samples", transform=ax.transAxes, fontsize=11, va="bottom")
    words = "markers as above;\nfilled, solid: VE; open, dotted: VP"
    ax.text(0.97, 0.97, words, transform=ax.transAxes, fontsize=11, va="top", ha="right")
    calls_axis(ax, arrays["counts.sampled"])
    ax.set(
        yscale="log",
        ylim=(0.08, 200),
        ylabel="sliced W2, units of x",
        title="4  the toy of three modes, sampled",
    )
    ax.set_gid(f"Sliced W2: {'; '.join(told)}; pairs of exact samples {floor.min():.2f} to {floor.max():.2f}.")


def plane_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> list[plt.Line2D]:
    """States of the chain with matched norms; contours of the law it should have, and of the one that is predicted."""
    states, p = arrays["states"], mixture().to(dtype=torch.float64)
    points, masses = matched_norms_law(p, SIGMA)
    axes = [points[:, d].unique() for d in range(2)]
    cell = float((axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0]))
    exact = p.log_prob(points, SIGMA).exp()
    for law, colour, line in ((exact, plotting.ROLES["truth"].colour, "-"), (masses / cell, "black", "--")):
        density = law.view(len(axes[0]), len(axes[1])).mT
        level = plotting.mass_level(density, cell, MASS)
        ax.contour(*axes, density, levels=[level], colors=[colour], linestyles=[line], linewidths=2.4)
    ax.plot(*states.T, ".", color=plotting.ROLES["learned"].colour, markersize=2.5, alpha=0.6, zorder=0)
    plotting.frame(ax, BOX)
    inside = float((np.abs(states) <= BOX).all(1).mean())
    ax.set(xlabel="$x_1$", ylabel="$x_2$", title=f"5  matched norms, D = 2, $\\sigma={SIGMA:g}$")
    ax.set_gid(f"{len(states):,} states, {inside:.0%} of them in the picture, with the contours of both laws.")
    return [
        plt.Line2D([], [], color=plotting.ROLES["truth"].colour, lw=2.4, label=f"5: right law, {MASS:.0%} of the mass"),
        plt.Line2D([], [], color="black", ls="--", lw=2.4, label="predicted, the same; inner loops are holes"),
        plt.Line2D([], [], color=plotting.ROLES["learned"].colour, ls="", marker=".", label="sampled"),
    ]


LOOKS = {
    "matched": ("#D55E00", "s", "matched norms"),
    "batch": ("#E69F00", "^", "batch norms"),
    "std": ("#0072B2", "o", "noise std"),
}


def shares_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Shares of the modes against D."""
    places = np.arange(len(DIMS))
    for k, weight in enumerate(mixture().weights.tolist()):
        ax.axhline(weight, color="0.6", linewidth=1.4, label=None if k else "right")
        ax.plot(places, arrays["shares.predicted"][:, k], "k--", linewidth=1.8, label=None if k else "predicted")
        for shift, (name, (colour, marker, words)) in zip((-0.1, 0, 0.1), LOOKS.items(), strict=True):
            mean, error = arrays[f"shares.{name}"][:, :, k].T
            ax.errorbar(
                places + shift,
                mean,
                error,
                fmt=marker,
                color=colour,
                markersize=6,
                capsize=2,
                label=None if k else words,
            )
        ax.errorbar(
            [-0.22],
            arrays["shares.small"][0, k : k + 1],
            arrays["shares.small"][1, k : k + 1],
            fmt="s",
            color=LOOKS["matched"][0],
            markerfacecolor="white",
            capsize=2,
            markersize=7,
            label=None if k else f"matched, snr {SMALL:g}",
        )
    ax.set_xticks(places, [str(d) for d in DIMS])
    ax.set(
        xlim=(-0.5, len(DIMS) - 0.5),
        ylim=(0.1, 0.82),
        xlabel="dimension D",
        ylabel="share of each mode",
        title="6  it heals in many dimensions",
    )
    ax.legend(loc="upper center", ncols=2, fontsize=10.5)
    told = "; ".join(
        f"D = {dim}: "
        + ", ".join(
            f"{name} {', '.join(f'{v:.3f}' for v in values)}"
            for name, values in (
                ("predicted", arrays["shares.predicted"][i]),
                *((words, arrays[f"shares.{key}"][i, 0]) for key, (_, _, words) in LOOKS.items()),
            )
        )
        for i, dim in enumerate(DIMS)
    )
    ax.set_gid(f"Shares of the modes, snr {SNR:g}: {told}.")


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """Above, exact divergences with their one legend; below, the toy and the trap."""
    with plt.rc_context(plotting.STYLE):
        figure = plt.figure(figsize=(14.4, 10.4), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        above, below = figure.subfigures(2, 1, height_ratios=[5.4, 5])
        panels = above.subplots(1, 3, sharey=True)
        kl_panel(panels[0], arrays, "VE", "1  VE, exact score", "VE")
        kl_panel(panels[1], arrays, "VP", "2  VP, exact score", "VP")
        kl_panel(
            panels[2],
            arrays,
            "wrong",
            f"3  VE, score {WRONG_BY:.0%} too short above $\\sigma={WRONG_ABOVE:g}$",
            "VE",
        )
        panels[0].set_ylabel("KL from the exact law, nats")
        above.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        first, second, third = below.subplots(1, 3)
        w2_panel(first, arrays)
        below.legend(handles=plane_panel(second, arrays), loc="outside lower center", ncols=3)
        shares_panel(third, arrays)
    return figure
