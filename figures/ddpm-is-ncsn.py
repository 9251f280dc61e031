r"""DDPM is NCSN: one network, seven ways to sample it. Source: song2021, Sec. 3; ho2020, Sec. 3.

DDPM's :math:`x_t = \alpha_t x_0 + \sqrt{1 - \alpha_t^2}\, \epsilon`, where :math:`\alpha_t^2 = \bar\alpha_t`, divided by :math:`\alpha_t`
is data plus noise of the level :math:`\sigma_t = \sqrt{(1 - \bar\alpha_t) / \bar\alpha_t}`, which is all that NCSN's network ever sees. So
nothing of it has to change.

1. *Sampling.* Every row of digits is of ``pretrained.digits()``, trained with NCSN's loss, and every column but NCSN's starts from the same
   noise. DDPM's ancestral sampling and that of SMLD (NCSN's process, VE) get the same fresh noise too: the digits are the same. Two solvers
   of the probability flow, one on VP and one on VE, share their curve, and so their digits up to the error of the solvers. The other chains
   have noise of their own, and digits of their own.
2. *One chain in two units.* Where DDPM's numbers stay of size one, those of SMLD shrink from the size of the prior; the one is alpha times
   the other at every step, to rounding. That it is rounding is seen in float64.
3. *Training.* Written as in the papers, on the same draws, the four losses are ``at_random_sigma(denoising_score_matching, law)``. What
   differs is the law of sigma alone: where a network spends its time.

Digits are few, and a Fréchet distance of so few says little: sets of as many held-out digits say how little.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from shared import judge
from toyscore import data, plotting, pretrained
from toyscore.build import sampling_chain, sampling_plan
from toyscore.losses import at_random_sigma, denoising_score_matching
from toyscore.metrics import fit_features, frechet_distance, nearest
from toyscore.noise import Draw, ddpm_levels, levels, linear_betas, log_normal
from toyscore.operators import Score, dot, per_example
from toyscore.samplers import (
    adaptive_flow,
    ancestral,
    final,
    predictor_corrector,
    probability_flow,
    reverse_sde,
    tweedie,
)
from toyscore.sde import (
    SDE,
    VE,
    VP,
    geometric_times,
    karras_times,
    level_times,
    noise_level,
    time_score,
    uniform_in_time,
)

N_SHOWN = 12
N_DIGITS = 3 * N_SHOWN  # of each kind
STRIDE = 33  # of DDPM's thousand levels one in so many
N_EACH = 3  # steps at each of NCSN's levels
N_STEPS = {"ve": 35, "vp": 40, "flow": 12}  # with a corrector step to each of VE's, two calls to each of the flow's
SNR = 0.16  # song2021's
TOLERANCE = 3e-2  # of the adaptive flow
N_REFERENCE = 1000  # training digits that every set is compared with
N_SETS = 50  # of held-out digits
N_LOSSES = 16  # digits, each with a draw of its own
JUDGED = ("ncsn", "ddpm", "ve", "vp", "flow")  # SMLD's digits are DDPM's, and the two ODEs share theirs
VP_SDE = VP()
VE_SDE = VE(0.01, noise_level(VP_SDE, 1.0))  # as much noise as VP ends with
ROWS = {  # label, times and noise
    "ncsn": "NCSN: annealed Langevin",
    "ddpm": "DDPM: ancestral, VP",
    "smld": "SMLD: ancestral, VE",
    "ve": "VE SDE: predictor-corrector",
    "vp": "VP SDE: Euler-Maruyama",
    "flow": "ODE, VP: Heun",
    "adaptive": "ODE, VE: adaptive",
}
LAWS = ("ncsn", "ddpm", "ve", "vp")
SHOWN_LEVELS = (157.0, 20.0, 5.0, 2.0, 1.0, 0.5, 0.25, 0.1)  # the nearest ones are shown
DDPM, SMLD = ("#000000", "-"), (plotting.ROLES["ve"].colour, "o")  # SMLD's chain is that of VE
LOOKS = {
    "ncsn": (plotting.ROLES["annealed"].colour, "|"),
    "ddpm": DDPM,
    "ve": (plotting.ROLES["ve"].colour, plotting.ROLES["ve"].line),
    "vp": (plotting.ROLES["vp"].colour, plotting.ROLES["vp"].line),
    "trained": ("0.45", ":"),
}
NAMES = {"ncsn": "NCSN's ladder", "ddpm": "DDPM", "ve": "VE SDE", "vp": "VP SDE", "trained": "this network's"}


def counted(score: Score) -> tuple[Score, Callable[[], int]]:
    """The score, and how often it was called since it was last asked."""
    calls = [0]

    def counting(x: Tensor, sigma: float | Tensor) -> Tensor:
        calls[0] += 1
        return score(x, sigma)

    def taken() -> int:
        n, calls[0] = calls[0], 0
        return n

    return counting, taken


def ladder() -> Tensor:
    """DDPM's levels, one in ``STRIDE``, in float64."""
    return ddpm_levels(linear_betas())[::STRIDE].double()


def states(sde: SDE, score: Score, z: Tensor, mean: float, seed: int) -> tuple[Tensor, Tensor]:
    """Ancestral sampling on VP, which is DDPM's, or on VE, which is SMLD's: states [N, B, *event] divided by alpha, and the alphas [N].

    It starts at the first level and ends at the last, without a step to zero noise.
    """
    times = level_times(sde, ladder())
    alphas = sde.marginal(times)[0].to(z)
    x = alphas[0] * (mean + float(ladder()[0]) * z)
    chain = ancestral(sde, score, x, times, generator=torch.Generator().manual_seed(seed))
    return torch.stack([x, *chain]) / alphas.view(-1, *[1] * z.ndim), alphas


def sampled(seed: int, n: int, quick: bool) -> dict[str, np.ndarray]:
    """The digits of every row, the calls of the score, and the two chains."""
    trained = pretrained.digits()
    score, taken = counted(trained.network)
    mean, like = trained.data["mean"], torch.empty(n, *trained.data["event"])
    z = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    steps = {name: 4 if quick else value for name, value in N_STEPS.items()}
    x: dict[str, Tensor] = {}
    calls: dict[str, int] = {}

    def start(sde: SDE) -> Tensor:
        alpha, std = sde.marginal(1.0)
        return alpha * mean + std * z

    config = replace(trained.config, sampling=replace(trained.config.sampling, n_steps_each=1 if quick else N_EACH))
    x["ncsn"] = final(sampling_chain(trained.network, config, trained.data, n, seed))
    plan = sampling_plan(config)
    calls["ncsn"] = len(plan["sigmas"]) * plan["n_steps_each"] + plan["denoise"]

    last, shown = ladder()[-1].to(z), z[:N_SHOWN]
    smld, _ = states(VE_SDE, score, shown, mean, seed + 2)
    x["smld"] = tweedie(score, smld[-1], last)  # the step to zero noise
    calls["smld"] = taken()
    ddpm, alphas = states(VP_SDE, score, shown, mean, seed + 2)
    x["ddpm"] = tweedie(score, ddpm[-1], last)
    calls["ddpm"] = taken()
    if n > N_SHOWN:
        more, _ = states(VP_SDE, score, z[N_SHOWN:], mean, seed + 3)
        x["ddpm"] = torch.cat([x["ddpm"], tweedie(score, more[-1], last)])
        taken()

    times = geometric_times(VE_SDE, steps["ve"], t_min=1e-5)
    x["ve"] = final(predictor_corrector(VE_SDE, score, start(VE_SDE), times, snr=SNR, generator=generator))
    calls["ve"] = taken()
    x["vp"] = final(reverse_sde(VP_SDE, score, start(VP_SDE), karras_times(VP_SDE, steps["vp"]), generator=generator))
    calls["vp"] = taken()
    x["flow"] = final(probability_flow(VP_SDE, score, start(VP_SDE), karras_times(VP_SDE, steps["flow"])))
    calls["flow"] = taken()
    ends = [1.0, float(VE_SDE.time(noise_level(VP_SDE, 1e-3)))]  # the flow above ends at VP's 1e-3
    few = start(VE_SDE)[:N_SHOWN]
    tolerance = 0.3 if quick else TOLERANCE
    x["adaptive"] = final(adaptive_flow(VE_SDE, score, few, ends, rtol=tolerance, atol=tolerance))
    calls["adaptive"] = taken()

    exact = deepcopy(trained.network).double()
    two = [states(sde, exact, z[:1].double(), mean, seed + 2)[0] for sde in (VP_SDE, VE_SDE)]
    return {
        **{f"x.{name}": value.numpy() for name, value in x.items()},
        "calls": np.array([calls[name] for name in ROWS]),
        "ddpm": ddpm[:, 0].numpy(),
        "smld": smld[:, 0].numpy(),
        "alphas": alphas.numpy(),
        "sigmas": ladder().numpy(),
        "apart.float32": gap(ddpm, smld),
        "apart.float64": gap(*two),
    }


def gap(a: Tensor, b: Tensor) -> np.ndarray:
    """Per state, the largest difference over the level's noise."""
    return ((a - b).abs().flatten(1).amax(1).double() / ladder()).numpy()


def judged(arrays: dict[str, np.ndarray], seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Of each set, held-out digits last, how sure a classifier is, the distance to the nearest training digit, and the standard error of
    each: [sets, 4]; its Fréchet distance, and that of sets of as many held-out digits."""
    train, held = data.digits("train"), data.digits("held-out")
    features, classifier = fit_features(train, n_steps=20 if quick else 200), judge()
    generator = torch.Generator().manual_seed(seed)
    reference = features(train.sample(N_REFERENCE, generator=generator))
    everything = held.sample(len(held), generator=generator)
    seen = features(everything)
    n = len(arrays["x.ncsn"])
    sets = {name: torch.from_numpy(arrays[f"x.{name}"]) for name in JUDGED}
    found = []
    for x in (*sets.values(), everything):
        sure, near = classifier.probabilities(x).max(1).values, nearest(x, train.tensor())[0]
        found.append([float(v) for w in (sure, near) for v in (w.mean(), w.std() / len(w) ** 0.5)])
    far = [frechet_distance(reference, features(x.clamp(0, 1))) for x in sets.values()]
    others = [
        frechet_distance(reference, seen[torch.randperm(len(seen), generator=generator)[:n]]) for _ in range(N_SETS)
    ]
    return {
        "judged": np.array(found),
        "far": np.array(far),
        "far.held_out": np.array(others),
        "n_held": np.array(len(held)),
    }


def laws() -> dict[str, Draw]:
    """The laws of sigma of the four losses, and the one that the network was trained with."""
    config = pretrained.digits().config
    noise = config.noise
    return {
        "ncsn": levels(sampling_plan(config)["sigmas"]),
        "ddpm": levels(ddpm_levels(linear_betas())),
        "ve": uniform_in_time(VE_SDE),
        "vp": uniform_in_time(VP_SDE),
        "trained": log_normal(noise.sigma_min, noise.sigma_max, log_mean=noise.log_mean, log_std=noise.log_std),
    }


def written(name: str, score: Score, x: Tensor, seed: int) -> Tensor:
    """A loss [B] as its paper writes it, with draws of its own; DDPM's with the half that it leaves out."""
    generator = torch.Generator().manual_seed(seed)
    if name == "ncsn":  # song2019, Eq. (5) and (6), with lambda = sigma²
        sigmas = sampling_plan(pretrained.digits().config)["sigmas"]
        sigma = sigmas[torch.randint(len(sigmas), (len(x),), generator=generator)].to(x)
        std = per_example(sigma, x)
        noisy = x + std * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        residual = score(noisy, sigma) + (noisy - x) / std**2
        return 0.5 * sigma**2 * dot(residual, residual)
    if name == "ddpm":  # ho2020, Eq. (14): the network predicts the noise in x_t
        bars = torch.cumprod(1 - linear_betas().double(), 0).flip(0)  # levels are listed from the noisiest
        bar = per_example(bars[torch.randint(len(bars), (len(x),), generator=generator)].to(x), x)
        epsilon = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x_t, std = bar.sqrt() * x + (1 - bar).sqrt() * epsilon, ((1 - bar) / bar).sqrt()
        predicted = -std * score(x_t / bar.sqrt(), std.flatten())
        return 0.5 * dot(epsilon - predicted, epsilon - predicted)
    sde = VE_SDE if name == "ve" else VP_SDE  # song2021, Eq. (7), with lambda = s_t²
    t = (1e-5 + (1 - 1e-5) * torch.rand(len(x), generator=generator)).to(x)
    alpha, std = (per_example(v, x) for v in sde.marginal(t))
    epsilon = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    residual = time_score(sde, score)(alpha * x + std * epsilon, t) + epsilon / std
    return 0.5 * std.flatten() ** 2 * dot(residual, residual)


def trained_alike(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Per law, the largest difference of the two losses of an example over their mean, in float64; and draws of sigma."""
    score = deepcopy(pretrained.digits().network).double()
    generator = torch.Generator().manual_seed(seed)
    x = data.digits("train").sample(8 if quick else N_LOSSES, generator=generator).double()
    drawn = laws()
    found = {f"law.{name}": draw(100_000, generator=generator).numpy() for name, draw in drawn.items()}
    worst = []
    with torch.no_grad():
        for name in LAWS:
            ours = at_random_sigma(denoising_score_matching, drawn[name])
            loss = ours(score, x, generator=torch.Generator().manual_seed(seed))
            worst.append(float((loss - written(name, score, x, seed)).abs().max() / loss.mean()))
    return found | {"worst": np.array(worst), "n_losses": np.array(len(x))}


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Digits of every kind, what a classifier sees of them, and the losses."""
    arrays = sampled(seed, N_SHOWN if quick else N_DIGITS, quick)
    return arrays | judged(arrays, seed, quick) | trained_alike(seed, quick)


def digits_apart(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """How far DDPM's digits are from SMLD's."""
    return np.abs(arrays["x.ddpm"][: len(arrays["x.smld"])] - arrays["x.smld"])


def flows_apart(arrays: dict[str, np.ndarray]) -> float:
    """The root mean square difference of a number of the two flows' digits."""
    few = arrays["x.adaptive"]
    return float(((arrays["x.flow"][: len(few)] - few) ** 2).mean() ** 0.5)


def median(arrays: dict[str, np.ndarray], law: str) -> float:
    """The sigma above which half of the draws of a law lie; of the ladder, of its levels."""
    drawn = arrays[f"law.{law}"]
    return float(np.median(np.unique(drawn) if law == "ncsn" else drawn))


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Differences that are rounding, within what rounding may do; what a classifier sees, within four standard deviations over seeds."""
    found = {
        "chains_apart_float32": (arrays["apart.float32"].max(), 1e-3),
        "chains_apart_float64": (arrays["apart.float64"].max(), 1e-10),
        "digits_apart_ddpm_smld": (digits_apart(arrays).max(), 1e-3),
        "digits_apart_flows": (flows_apart(arrays), 0.03),
    }
    for name, worst in zip(LAWS, arrays["worst"], strict=True):
        found[f"loss_apart_{name}"] = (worst, 1e-5)
    for name in LAWS:
        found[f"median_sigma_{name}"] = (median(arrays, name), 0.05 * median(arrays, name))
    for name, calls in zip(ROWS, arrays["calls"], strict=True):
        found[f"calls_{name}"] = (calls, 60.0 if name == "adaptive" else 0.0)
    for name, row in zip((*JUDGED, "held_out"), arrays["judged"], strict=True):
        found |= {
            f"confidence_{name}": (row[0], 0.03 if name == "held_out" else 0.14),
            f"nearest_{name}": (row[2], 0.005 if name == "held_out" else 0.16),
        }
    for name, far in zip(JUDGED, arrays["far"], strict=True):
        found[f"frechet_{name}"] = (far, 1.5)
    found["frechet_held_out"] = (np.median(arrays["far.held_out"]), 0.3)
    return {name: (float(value), tolerance) for name, (value, tolerance) in found.items()}


def table(arrays: dict[str, np.ndarray]) -> str:
    """A row per way of sampling: calls of the score, and what a classifier and the training digits say of what came out."""
    lines = [
        "| as | calls of the score | confidence | nearest training digit | Fréchet distance |",
        "| --- | --- | --- | --- | --- |",
    ]
    for k, name in enumerate(JUDGED):
        sure, error, near, error_near = arrays["judged"][k]
        calls = arrays["calls"][list(ROWS).index(name)]
        cells = f"{calls} | {sure:.3f} ± {error:.3f} | {near:.2f} ± {error_near:.2f} | {arrays['far'][k]:.2f}"
        lines.append(f"| {ROWS[name]} | {cells} |")
    sure, error, near, error_near = arrays["judged"][-1]
    low, middle, high = np.quantile(arrays["far.held_out"], (0.05, 0.5, 0.95))
    lines.append(
        f"| held-out digits | - | {sure:.3f} ± {error:.3f} | {near:.2f} ± {error_near:.2f} | {middle:.2f} ({low:.2f} to {high:.2f}) |"
    )
    return "\n".join(lines)


def caption(arrays: dict[str, np.ndarray]) -> str:
    """The chains, the flows, the losses, and how good all of it is."""
    n, calls = len(arrays["x.ncsn"]), arrays["calls"].tolist()
    low, high = np.quantile(arrays["far.held_out"], (0.05, 0.95))
    below = int((arrays["far"] <= high).sum())
    medians = {name: f"{median(arrays, name):.2g}" for name in LAWS}
    return (
        f"One network, trained with NCSN's loss, is sampled in {len(ROWS)} ways, by {min(calls)} to {max(calls)} calls of the score. "
        f"With the same noise DDPM's chain over alpha is SMLD's: in units of the level they differ by at most "
        f"{arrays['apart.float32'].max():.0e} in float32, {arrays['apart.float64'].max():.0e} in float64. The flows of VP and VE, by two "
        f"solvers, end {flows_apart(arrays):.3f} apart (root mean square). The losses of NCSN, DDPM, and the VE and VP SDEs, written as in "
        f"their papers, are the denoising loss at four laws of sigma, to {arrays['worst'].max():.0e} of its mean; half of the draws lie "
        f"above sigma = {medians['ncsn']} (NCSN), {medians['ve']} (VE), {medians['ddpm']} (DDPM) and {medians['vp']} (VP). Of {N_SETS} "
        f"sets of {n} held-out digits nine in ten have a Fréchet distance between {low:.2f} and {high:.2f}, and {below} of "
        f"{len(arrays['far'])} kinds of samples (DDPM's and SMLD's are one, and so are the two ODEs') one below {high:.2f}: "
        f"so few digits cannot rank samplers."
    )


def ink(arrays: dict[str, np.ndarray]) -> int:
    """The darkest pixel of the first digit."""
    return int(arrays["x.ddpm"][0].argmax())


def bare(ax: Axes) -> None:
    """Without edges and ticks."""
    ax.tick_params(length=0, top=False, bottom=False)
    for edge in ax.spines.values():
        edge.set_visible(False)


def digits_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """A row of digits per way of sampling; what shares its digits is tied together."""
    shown = np.concatenate([arrays[f"x.{name}"][:N_SHOWN] for name in ROWS])
    sheet = plotting.mosaic(torch.from_numpy(1 - shown), n_columns=N_SHOWN)
    ax.imshow(sheet, origin="upper", extent=(0, N_SHOWN, len(ROWS), 0))
    labels = [f"{label}\n{calls} calls" for label, calls in zip(ROWS.values(), arrays["calls"], strict=True)]
    ax.set_yticks(np.arange(len(ROWS)) + 0.5, labels)
    ax.set(xticks=[], title="one network: rows differ by the sampler alone")
    bare(ax)
    ties = (("ddpm", "smld", "same noise:\nsame digits"), ("flow", "adaptive", "same curve:\nsame digits"))
    for first, second, words in ties:
        top, bottom = list(ROWS).index(first) + 0.12, list(ROWS).index(second) + 0.88
        ax.plot([N_SHOWN + 0.15] * 2, [top, bottom], color="black", lw=2.5, clip_on=False)
        ax.text(
            N_SHOWN + 0.38, (top + bottom) / 2, words, rotation=90, ha="left", va="center", fontsize=11, ma="center"
        )
    ax.set(xlim=(0, N_SHOWN), ylim=(len(ROWS), 0))
    told = ", ".join(f"{label} {calls}" for label, calls in zip(ROWS.values(), arrays["calls"], strict=True))
    ax.set_gid(f"{len(ROWS)} rows of {N_SHOWN} digits of 8 x 8 pixels, black on white. Calls of the score: {told}.")


def chain_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """The first digit's two chains at a few levels in the greys of each level, and their difference, enlarged."""
    sigmas = arrays["sigmas"]
    index = [int(np.abs(np.log(sigmas / level)).argmin()) for level in SHOWN_LEVELS]
    spread = 2 * np.sqrt(sigmas[index] ** 2 + pretrained.digits().data["variance"])[:, None, None, None]
    mean = pretrained.digits().data["mean"]
    rows = [0.5 + (arrays[key][index] - mean) / (2 * spread) for key in ("ddpm", "smld")]
    rows = [np.concatenate([row, arrays[f"x.{key}"][:1]]) for row, key in zip(rows, ("ddpm", "smld"), strict=True)]
    apart = np.concatenate([arrays["ddpm"][index] - arrays["smld"][index], arrays["x.ddpm"][:1] - arrays["x.smld"][:1]])
    rows.append(0.5 + 0.5 * apart / np.maximum(np.abs(apart).max((1, 2, 3), keepdims=True), 1e-30))
    columns = len(index) + 1
    sheet = plotting.mosaic(torch.from_numpy(1 - np.concatenate(rows)).float(), n_columns=columns)
    ax.imshow(sheet, origin="upper", extent=(0, columns, 3, 0))
    ax.set_yticks([0.5, 1.5, 2.5], ["DDPM, $x_t/\\alpha_t$", "SMLD, $y_t$", "difference,\nenlarged"])
    ax.set_xticks(np.arange(columns) + 0.5, [*(f"{s:.2g}" if s < 100 else f"{s:.0f}" for s in sigmas[index]), "0"])
    ax.tick_params(labeltop=True, labelbottom=False)
    bare(ax)
    worst = [*arrays["apart.float32"][index], digits_apart(arrays).max()]
    for k, value in enumerate(worst):
        ax.text(k + 0.5, 3.08, f"{value:.0e}".replace("e-0", "e-"), ha="center", va="top", fontsize=10.5)
    ax.text(-0.15, 3.08, "largest, over $\\sigma$", ha="right", va="top", fontsize=10.5)
    ax.set_title("DDPM's chain over $\\alpha$, and SMLD's; above, the level $\\sigma$")
    ax.set_gid(
        f"The first digit at {columns} levels: DDPM's state over alpha and SMLD's look alike, and their difference, enlarged, is grey "
        f"noise of at most {arrays['apart.float32'].max():.1e} times the level; in float64 {arrays['apart.float64'].max():.1e}."
    )


def pixel_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """A number of the first digit along both chains, each in its own units."""
    sigmas, alphas = arrays["sigmas"], arrays["alphas"]
    ddpm, smld = (arrays[key].reshape(len(sigmas), -1)[:, ink(arrays)] for key in ("ddpm", "smld"))
    ax.axhline(0, color="0.8", lw=1, zorder=0)
    ax.plot(sigmas, alphas * ddpm, color=DDPM[0], lw=2.4, label="DDPM, $x_t$")
    ax.plot(sigmas, ddpm, color=DDPM[0], lw=1.6, ls="--", label="DDPM, $x_t/\\alpha_t$")
    ax.plot(sigmas, smld, SMLD[1], color=SMLD[0], mfc="none", ms=6.5, mew=1.5, label="SMLD, $y_t$")
    ax.set(xscale="log", xlim=(220, 0.03), xlabel=r"level $\sigma$, as chains go")
    ax.set_xticks([100, 10, 1, 0.1], ["100", "10", "1", "0.1"])
    ax.set_yscale("symlog", linthresh=1, linscale=0.8)
    ax.set(ylim=(-600, 600), ylabel="value of the pixel", title="one pixel of that chain")
    ax.set_yticks([-100, -10, -1, 0, 1, 10, 100], ["−100", "−10", "−1", "0", "1", "10", "100"])
    ax.legend(fontsize=10.5, loc="lower right", borderaxespad=0.3)
    size = float(np.abs(alphas * ddpm).max())
    ax.set_gid(
        f"SMLD's goes from {smld[0]:.3g} to {smld[-1]:.3g}; DDPM's is never larger than {size:.2g}, and over alpha it is SMLD's."
    )


def laws_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """The laws of log sigma in training."""
    bins = np.geomspace(0.004, 250, 61)
    width = np.log10(bins[1] / bins[0])
    for name, (colour, style) in LOOKS.items():
        drawn = arrays[f"law.{name}"]
        if name == "ncsn":
            ladder = np.unique(drawn)
            ticks = {"ms": 22, "mew": 1.8, "label": f"{NAMES[name]}: {median(arrays, name):.2g}"}
            ax.plot(ladder, np.full(len(ladder), 0.06), style, color=colour, **ticks)
            continue
        share = np.histogram(drawn, bins)[0] / len(drawn) / width
        middle = np.sqrt(bins[1:] * bins[:-1])
        ax.plot(
            middle,
            share,
            color=colour,
            ls=style,
            lw=3 if name == "ddpm" else 2,
            label=f"{NAMES[name]}: {median(arrays, name):.2g}",
        )
    ax.set(
        xscale="log",
        xlim=(250, 0.004),
        ylim=(0, 1.4),
        xlabel=r"level $\sigma$",
        ylabel=r"density of $\log_{10}\sigma$",
    )
    ax.set_xticks([100, 10, 1, 0.1, 0.01], ["100", "10", "1", "0.1", "0.01"])
    ax.set_title("in training one loss, other laws of $\\sigma$")
    title = {"title": "half of the draws above", "title_fontsize": 10.5}
    legend = ax.legend(fontsize=10.5, loc="upper left", borderaxespad=0.3, **title)
    legend.legend_handles[list(LOOKS).index("ncsn")].set_markersize(11)
    worst = ", ".join(f"{NAMES[name]} {value:.0e}" for name, value in zip(LAWS, arrays["worst"], strict=True))
    told = ", ".join(f"{NAMES[name]} {median(arrays, name):.2g}" for name in LOOKS)
    ax.set_gid(
        f"Median sigma: {told}. Losses written as in the papers differ from ours by at most, over their mean: {worst}."
    )


def judged_panels(sure: Axes, far: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Confidence and Fréchet distance of each kind of digits, beside those of held-out digits."""
    names = JUDGED
    places = np.arange(len(names))
    mean, error = arrays["judged"][:-1, :2].T
    look, truth = plotting.ROLES["learned"], plotting.ROLES["truth"]
    sure.errorbar(
        mean, places, xerr=2 * error, fmt=look.marker, color=look.colour, ms=7, capsize=3, label="samples, ± 2 s.e."
    )
    held, error_held = arrays["judged"][-1, :2]
    sure.axvline(held, color=truth.colour, lw=2, label="held-out digits")
    low, high = np.quantile(arrays["far.held_out"], (0.05, 0.95))
    far.axvspan(
        low,
        high,
        color=truth.colour,
        alpha=0.25,
        lw=0,
        label=f"90 % of sets of {len(arrays['x.ncsn'])}\nheld-out digits",
    )
    far.plot(arrays["far"], places, look.marker, color=look.colour, ms=7)
    sure.set_yticks(places, [ROWS[name].split(":")[0] if name != "flow" else "ODE" for name in names])
    sure.set(xlim=(0.8, 1.0), xlabel="class probability", title="how sure a classifier is")
    sure.legend(fontsize=10, loc="lower left", borderaxespad=0.3)
    far.set(yticks=[], xlim=(0, None), xlabel="less is better", title="Fréchet distance")
    far.legend(fontsize=10, loc="lower right", borderaxespad=0.3)
    for ax in (sure, far):
        ax.set_ylim(len(names) + 0.8, -0.6)
    told = "; ".join(f"{ROWS[name]} {m:.3f}" for name, m in zip(names, mean, strict=True))
    sure.set_gid(f"Mean largest class probability: {told}; held-out digits {held:.3f} ± {error_held:.3f}.")
    told = "; ".join(f"{ROWS[name]} {v:.2f}" for name, v in zip(names, arrays["far"], strict=True))
    far.set_gid(f"{told}; sets of as many held-out digits from {low:.2f} to {high:.2f}.")


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """Above, digits of every kind and one chain in two units; below, a pixel of it, the laws of training, and how good the digits are."""
    with plt.rc_context(plotting.STYLE):
        figure = plt.figure(figsize=(16.4, 8.6), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
        above, below = figure.subfigures(2, 1, height_ratios=[4.6, 4.0])
        left, right = above.subplots(1, 2, width_ratios=[8.2, 7.8])
        digits_panel(left, arrays)
        chain_panel(right, arrays)
        pixels, drawn, sure, far = below.subplots(1, 4, width_ratios=[4.4, 5.4, 3.2, 3.0])
        pixel_panel(pixels, arrays)
        laws_panel(drawn, arrays)
        judged_panels(sure, far, arrays)
    return figure
