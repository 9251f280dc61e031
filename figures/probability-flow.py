r"""Without noise the same laws, and a code for every point. Source: song2021, Sec. 4.3.

Three unequal tilted modes in the plane, exact score; paths are drawn in the coordinates of VP, which begin as N(0, I).

1. *The flow* takes each start to one end. Its curves cannot meet at one time, so latents of one mode lie side by side.
2. *The reverse SDE* from the same starts. It all but forgets them: how often it ends in the mode of the flow follows from what x_1 tells of
   its mode, the responsibilities of p_1, and is hardly more than for strangers.
3. *The same laws.* The distance of clouds from larger ones that are exact, over that of exact clouds. A cloud is the same from level to
   level, so its luck comes in runs. Leaving out the noise of the reverse SDE is a common mistake, and no flow: the flow takes half of the
   score.
4. *Codes.* The flow forward gives each point of data its latent. Colours, and the shapes of dots, say which mode a latent decodes to: dots
   are encoded data, regions are decoded latents, two computations, one each way.
5. *What decoding does* to the rings and rays of panel 4. It is continuous, so the plane stays whole; between modes it is stretched thin.
6. *What a step costs.* Accurate codes decoded by Heun's method miss their data by an error that falls with the square of the number of
   steps. The curve is the same for every process; what differs is where steps of equal length in t are spent. Encoding and decoding by the
   same coarse steps comes much nearer: the way back undoes most of the error of the way there. To return is not to be right.
"""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from scipy.integrate import solve_ivp
from torch import Tensor

from toyscore import plotting
from toyscore.distributions import GaussianMixture, asymmetric
from toyscore.metrics import mode_weight_errors, mode_weights, sliced_wasserstein2
from toyscore.samplers import adaptive_flow, final, probability_flow, reverse_sde
from toyscore.sde import SDE, VE, VP, SubVP, karras_times, law_at, noise_level, reverse_drift, uniform_times

PROCESSES: dict[str, SDE] = {"VE": VE(), "VP": VP(), "sub-VP": SubVP()}
KARRAS = "Karras"  # steps, instead of equal ones in t
LOOKS = {
    "VE": plotting.ROLES["ve"],
    "VP": plotting.ROLES["vp"],
    "sub-VP": plotting.ROLES["subvp"],
    KARRAS: plotting.Role("#009E73", "D", KARRAS, "-."),
}
DRAWN = PROCESSES["VP"]
T_MIN = 1e-3
ENDS = (0.01, 50.0)  # noise levels that all processes have
N_STEPS = 1000  # of the reverse SDE
EVERY = 5  # of its times are enough for the flow
N_PATHS = 12
JUDGED = (50.0, 15.0, 5.0, 1.5, 0.5, 0.15, 0.03)  # noise levels near which clouds are compared
N_CLOUDS = 8  # of each kind, so that luck has an error bar
N_EXACT = 24  # clouds of exact samples, for the distance that sampling alone makes
LARGER = 4  # times as many exact samples stand for the law
N_PROJECTIONS = 24
STEPS = (8, 16, 32, 64, 128, 256)
TOLERANCE = 1e-7  # of the accurate round trip
BOX, LATENT = 8.0, 3.5
MASS = 0.95  # inside the grey regions
RINGS = (0.5, 1.0, 1.5, 2.0, 2.5)
N_RAYS = 24
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")  # of modes; their letters and
MARKERS = "os^Dv"  # tell them apart in grey


def mixture() -> GaussianMixture:
    """What the figure is about: change it and every number follows."""
    return asymmetric()


def modes(x: Tensor, p: GaussianMixture) -> Tensor:
    """The likeliest component of each point [B]."""
    return p.responsibilities(x).argmax(1)


def solved(sde: SDE, x: Tensor, times: Tensor, *, noise: float, tolerance: float) -> Tensor:
    """The drift of ``reverse_drift`` without the noise, in the process's own x and t: states [T, B, 2] at descending times [T]."""
    p = mixture().to(dtype=torch.float64)

    def rate(t: float, flat: np.ndarray) -> np.ndarray:
        return reverse_drift(sde, p.score, torch.from_numpy(flat).view(-1, 2), t, noise=noise).flatten().numpy()

    options = {"method": "DOP853", "rtol": tolerance, "atol": tolerance, "t_eval": times.tolist()}
    found = solve_ivp(rate, (float(times[0]), float(times[-1])), x.double().flatten().numpy(), **options)
    return torch.from_numpy(found.y.T).view(len(times), -1, 2)


def clouds(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Panels 1 to 3: some paths, where all of them end, and distances from the law by noise level."""
    n, n_exact = (100, 4) if quick else (1000, N_EXACT)
    p, generator = mixture(), torch.Generator().manual_seed(seed)
    grid = uniform_times(N_STEPS, t_min=T_MIN)
    marks = [EVERY * int((grid[::EVERY] - DRAWN.time(sigma)).abs().argmin()) for sigma in JUDGED]
    start = DRAWN.prior_sample((N_CLOUDS * n, 2), generator=generator)
    paths, states = {"flow": [start[:N_PATHS]], "sde": [start[:N_PATHS]]}, {"flow": [], "sde": []}
    runs = {
        "flow": probability_flow(DRAWN, p.score, start, grid[::EVERY]),
        "sde": reverse_sde(DRAWN, p.score, start, grid, generator=generator),
    }
    for name, run in runs.items():
        for k, x in enumerate(run, 1):
            paths[name].append(x[:N_PATHS])
            if k * (EVERY if name == "flow" else 1) in (*marks, N_STEPS):
                states[name].append(x)
    times = torch.cat([grid[:1], grid[marks], grid[-1:]]).double()
    states["mistake"] = list(solved(DRAWN, start[:n], times, noise=1.0, tolerance=1e-5)[1:].float())
    distances = {name: [] for name in (*states, "exact")}
    for k, mark in enumerate(marks):
        law = law_at(DRAWN, p, float(grid[mark]))
        unit = float(law.covariance.trace() / 2) ** 0.5
        judged = {name: x[k].split(n) for name, x in states.items()}
        for name, parts in (judged | {"exact": law.sample(n_exact * n, generator=generator).split(n)}).items():
            larger = [law.sample(LARGER * n, generator=generator) for _ in parts]
            pairs = zip(parts, larger, strict=True)
            far = [sliced_wasserstein2(*pair, n_projections=N_PROJECTIONS, generator=generator) for pair in pairs]
            distances[name].append(np.array(far) / unit)
    end, last = law_at(DRAWN, p, T_MIN), [states[name][-1] for name in ("flow", "sde")]
    remembered = law_at(DRAWN, p, 1.0).responsibilities(start).gather(1, modes(last[0], p)[:, None])
    return (
        {f"paths.{name}": torch.stack(x).numpy() for name, x in paths.items()}
        | {f"far.{name}": np.stack(rows) for name, rows in distances.items()}
        | {
            "judged": np.array([noise_level(DRAWN, float(grid[mark])) for mark in marks]),
            "remembered": remembered.mean().numpy(),
            "ends": torch.stack([modes(x, p) for x in last]).numpy(),
            "shares": torch.stack(
                [torch.stack([mode_weights(x, end), mode_weight_errors(x, end)]) for x in last]
            ).numpy(),
        }
    )


def codes(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Panels 4 and 5: the mode that each latent decodes to, encoded data, and rings and rays decoded."""
    n, cells, per_line = (60, 40, 200) if quick else (500, 200, 2000)
    p, generator = mixture(), torch.Generator().manual_seed(seed)
    down = karras_times(DRAWN, 60, t_min=T_MIN)
    latents = plotting.grid(LATENT, cells)
    decoded = modes(final(probability_flow(DRAWN, p.score, latents, down)), p)
    data = law_at(DRAWN, p, T_MIN).sample(n, generator=generator)
    encoded = final(probability_flow(DRAWN, p.score, data, down.flip(0)))
    again = modes(final(probability_flow(DRAWN, p.score, encoded, down)), p)
    turn = torch.linspace(0, 2 * math.pi, per_line)
    circle = torch.stack([turn.cos(), turn.sin()], 1)
    rings = torch.stack([radius * circle for radius in RINGS])
    angles = 2 * math.pi * torch.arange(N_RAYS) / N_RAYS
    along = torch.linspace(0, RINGS[-1], per_line)[:, None]
    rays = torch.stack([along * torch.stack([a.cos(), a.sin()]) for a in angles])
    lines = torch.cat([rings, rays])
    image = final(probability_flow(DRAWN, p.score, lines.flatten(0, 1), down)).view_as(lines)
    law = law_at(DRAWN, p, T_MIN)
    fine = plotting.grid(1.5 * BOX, 2 * cells)
    density = law.log_prob(fine).exp()
    priors = [(-0.5 * latents.square().sum(1)).exp(), law_at(DRAWN, p, 1.0).log_prob(latents).exp()]
    return {
        "regions": decoded.view(cells, cells).mT.numpy(),
        "masses": torch.stack([torch.bincount(decoded, q, len(p.weights)) / q.sum() for q in priors]).numpy(),
        "likeliest": torch.bincount(modes(fine, law), density, len(p.weights)).div(density.sum()).numpy(),
        "encoded": encoded.numpy(),
        "data.modes": modes(data, p).numpy(),
        "again.modes": again.numpy(),
        "lines": lines.numpy(),
        "image": image.numpy(),
        "image.modes": modes(image.flatten(0, 1), p).view(lines.shape[:2]).numpy(),
    }


def accuracy(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Panel 6: errors of decoding accurate codes, and of there and back, by Heun's method; the accurate way; one flow by three clocks."""
    n, n_solved = (60, 4) if quick else (1000, 50)
    p, generator = mixture().to(dtype=torch.float64), torch.Generator().manual_seed(seed)
    y = p.perturb(ENDS[0]).sample(n, generator=generator)
    ve, found = PROCESSES["VE"], {}
    ends = [ve.time(sigma) for sigma in ENDS]
    code = final(adaptive_flow(ve, p.score, y, ends, rtol=TOLERANCE, atol=TOLERANCE))
    back = final(adaptive_flow(ve, p.score, code, ends[::-1], rtol=TOLERANCE, atol=TOLERANCE))
    found["accurate"] = (back - y).norm(dim=1).numpy()

    def ladder(name: str, k: int) -> tuple[SDE, Tensor]:
        if name == KARRAS:
            return ve, karras_times(ve, k, t_min=ends[0], t_max=ends[1]).double()
        sde = PROCESSES[name]
        return sde, uniform_times(k, t_min=sde.time(ENDS[0]), t_max=sde.time(ENDS[1])).double()

    for name in LOOKS:
        decoded, returned = [], []
        for k in STEPS:
            sde, times = ladder(name, k)
            first, last = (float(sde.marginal(t)[0]) for t in times[[0, -1]])
            there = final(probability_flow(sde, p.score, last * y, times.flip(0)))
            back = final(probability_flow(sde, p.score, torch.cat([first * code, there]), times)) / last
            for errors, x in zip((decoded, returned), back.split(n), strict=True):
                errors.append((x - y).norm(dim=1).numpy())
        found |= {f"decoded.{name}": np.stack(decoded), f"returned.{name}": np.stack(returned)}

    start = p.perturb(ENDS[1]).sample(n_solved, generator=generator)
    sigmas, states = torch.from_numpy(np.geomspace(ENDS[1], ENDS[0], 30)), []
    for sde in PROCESSES.values():
        times = sde.time(sigmas)
        alpha = torch.as_tensor(sde.marginal(times)[0])[:, None, None]
        states.append(solved(sde, alpha[0] * start, times, noise=0.0, tolerance=1e-9) / alpha)
    found["clocks"] = torch.stack(states).numpy()
    return found


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """All panels."""
    return clouds(seed, quick) | codes(seed, quick) | accuracy(seed, quick)


def agreement(arrays: dict[str, np.ndarray]) -> tuple[float, float, float]:
    """The share of starts whose two ends are in one mode, its standard error, and what strangers would have."""
    flow, sde = arrays["ends"]
    same = float((flow == sde).mean())
    shares = [np.bincount(ends, minlength=len(mixture().weights)) / len(ends) for ends in (flow, sde)]
    return same, (same * (1 - same) / len(flow)) ** 0.5, float(shares[0] @ shares[1])


def excess(arrays: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean distance of clouds from the law over that of exact ones, and its standard error were they exact, too: [levels] each."""
    far, exact = arrays[f"far.{name}"], arrays["far.exact"]
    relative = exact.std(1, ddof=1) / exact.mean(1)
    return far.mean(1) / exact.mean(1), relative * (1 / far.shape[1] + 1 / exact.shape[1]) ** 0.5


def miss(arrays: dict[str, np.ndarray], name: str) -> float:
    """The largest difference of that ratio from one, in standard errors."""
    ratio, error = excess(arrays, name)
    return float((np.abs(ratio - 1) / error).max())


def clocks_apart(arrays: dict[str, np.ndarray]) -> float:
    """The largest difference between processes in y = x / alpha at one sigma."""
    return float(np.ptp(arrays["clocks"], axis=0).max())


def order(arrays: dict[str, np.ndarray], key: str) -> float:
    """The power of the number of steps with which the median error falls over the last doubling."""
    median = np.median(arrays[key], axis=1)
    return float(np.log2(median[-2] / median[-1]))


def largest_mode(arrays: dict[str, np.ndarray], row: int) -> tuple[float, float]:
    """Its share of the ends of the flow (row 0) or of the SDE (1), and five standard errors."""
    mean, error = arrays["shares"][row, :, int(mixture().weights.argmax())]
    return float(mean), 5 * float(error)


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """What paths share and do not, how far laws are apart, what codes are worth.

    Tolerances are four standard deviations over seeds (``run.py --spread 8``), five standard errors for the share of ends; what a grid
    determines may change by its last cells, errors of adaptive solvers by their order of magnitude.
    """
    same, error, strangers = agreement(arrays)
    half = len(STEPS) // 2
    found = {
        "ends_in_one_mode": (same, 5 * error),
        "ends_in_one_mode_exactly": (float(arrays["remembered"]), 0.02),
        "ends_in_one_mode_of_strangers": (strangers, 0.02),
        "flow_over_exact": (float(excess(arrays, "flow")[0].mean()), 0.5),
        "sde_over_exact": (float(excess(arrays, "sde")[0].mean()), 0.5),
        "share_of_the_largest_mode_flow": largest_mode(arrays, 0),
        "share_of_the_largest_mode_sde": largest_mode(arrays, 1),
        "mistake_over_exact": (float(excess(arrays, "mistake")[0].min()), 3.0),
        "codes_that_decode_to_their_mode": (float((arrays["data.modes"] == arrays["again.modes"]).mean()), 0.01),
        "accurate_return": (float(np.median(arrays["accurate"])), 1e-6),
        "processes_apart": (clocks_apart(arrays), 1e-6),
    }
    for k in range(len(mixture().weights)):
        found[f"region_{k}"] = (float(arrays["masses"][0, k]), 0.001)
        found[f"region_{k}_by_p_1"] = (float(arrays["masses"][1, k]), 0.001)
        found[f"likeliest_{k}"] = (float(arrays["likeliest"][k]), 0.001)
    for name in LOOKS:
        median = float(np.median(arrays[f"decoded.{name}"][half]))
        found[f"decoded_{name}"] = (median, 2e-4)
        found[f"order_of_decoding_{name}"] = (order(arrays, f"decoded.{name}"), 0.02)
        found[f"order_of_returning_{name}"] = (order(arrays, f"returned.{name}"), 0.02)
    return found


def caption(arrays: dict[str, np.ndarray]) -> str:
    """Paths, laws, codes, steps."""
    same, error, strangers = agreement(arrays)
    half, n = len(STEPS) // 2, arrays["ends"].shape[1]
    masses = [", ".join(f"{m:.3f}" for m in row) for row in arrays["masses"]]
    missed = [float(np.median(arrays[f"decoded.{name}"][half])) for name in LOOKS]
    returned = float(np.median(arrays["returned.VP"][half]))
    of_shares = max(float((np.abs(m - mixture().weights.numpy()) / e).max()) for m, e in arrays["shares"])
    within = max(miss(arrays, name) for name in ("flow", "sde"))
    ratios = np.stack([excess(arrays, name)[0] for name in ("flow", "sde")])
    mistake = excess(arrays, "mistake")[0]
    return (
        f"From the same {n:,} starts flow and reverse SDE end in the same mode {same:.1%} ± {error:.1%} of the time; two unrelated samples "
        f"do {strangers:.1%} (1, 2). Yet both have the law of p_t: their distances are {ratios.min():.2f} to {ratios.max():.2f} times "
        f"those of exact samples, within {within:.1f} standard errors (shares of modes: {of_shares:.1f}); the reverse SDE without its "
        f"noise is no flow, {mistake.min():.0f} to {mistake.max():.0f} times (3). Codes that decode to a mode hold its weight: {masses[0]} "
        f"of N(0, I), {masses[1]} of p_1 (4, 5). {STEPS[half]} Heun steps miss by {min(missed):.1e} to {max(missed):.1e}, and doubling "
        f"divides that by {2 ** order(arrays, 'decoded.VP'):.1f}; there and back by the same steps points return to {returned:.1e}: to "
        f"return is not to be right (6). Grey: {MASS:.0%} of the mass."
    )


def letters(ax: Axes, places: np.ndarray) -> None:
    """The names of the modes."""
    for k, (x, y) in enumerate(places):
        box = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": COLOURS[k], "linewidth": 2}
        ax.text(x, y, chr(ord("A") + k), ha="center", va="center", fontsize=13, fontweight="bold", bbox=box, zorder=6)


def plane(ax: Axes, title: str) -> None:
    """The data's plane, with the region of most of the mass, and the letters at the edges of the modes."""
    p, n = mixture(), 200
    density = p.log_prob(plotting.grid(BOX, n)).exp().view(n, n).mT
    level = plotting.mass_level(density, (2 * BOX / n) ** 2, MASS)
    axis = plotting.grid(BOX, n)[:n, 1].numpy()
    ax.contourf(axis, axis, density.numpy(), levels=[level, float(density.max())], colors=["0.88"])
    plotting.frame(ax, BOX)
    outward = p.means / p.means.norm(dim=1, keepdim=True)
    precision = torch.einsum("kd,kde,ke->k", outward, torch.linalg.inv(p.covariances), outward)
    edge = (-2 * math.log(1 - MASS) / precision).sqrt()  # of each mode's own ellipse, away from the others
    letters(ax, (p.means + (edge + 0.4)[:, None] * outward).clamp(-BOX + 0.9, BOX - 0.9).numpy())
    ax.set(xlabel="$x_1$", ylabel="$x_2$", title=title)


def draw_paths(ax: Axes, arrays: dict[str, np.ndarray], name: str, title: str) -> None:
    """Paths in the colour of the mode they end in, starts as crosses."""
    plane(ax, title)
    paths, ends = arrays[f"paths.{name}"], arrays["ends"][0 if name == "flow" else 1]
    for k in range(paths.shape[1]):
        colour = COLOURS[ends[k]]
        ax.plot(*paths[:, k].T, color=colour, linewidth=1.8 if name == "flow" else 0.8)
        ax.plot(*paths[-1, k], MARKERS[ends[k]], markersize=8, color=colour, markeredgecolor="white", zorder=4)
        ax.plot(*paths[0, k], "x", markersize=6, color="black", markeredgewidth=1.5, zorder=5)
    start = plt.Line2D([], [], color="black", marker="x", ls="", markersize=7, markeredgewidth=1.5)
    end = tuple(
        plt.Line2D([], [], color="0.45", marker=m, ls="", markersize=7) for m in MARKERS[: len(mixture().weights)]
    )
    form = {"handler_map": {tuple: HandlerTuple(None, pad=0.3)}, "loc": "upper right", "fontsize": 11}
    ax.legend([start, end], ["start", "end, by mode"], **form)
    counts = np.bincount(ends, minlength=len(mixture().weights)) / len(ends)
    told = ", ".join(f"{chr(ord('A') + k)} {share:.3f}" for k, share in enumerate(counts))
    ax.set_gid(f"{paths.shape[1]} of {len(ends):,} paths; shares of ends by mode: {told}.")


def draw_laws(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Distances over that of exact clouds, with twice their standard errors."""
    ax.axhline(1, color="0.3", linewidth=1.4)
    looks = {"flow": ("flow", "#0072B2", "o"), "sde": ("reverse SDE", "#D55E00", "s")}
    judged, told = arrays["judged"], []
    for shift, (name, (label, colour, marker)) in zip((1.07, 1 / 1.07), looks.items(), strict=True):  # side by side
        ratio, error = excess(arrays, name)
        ax.errorbar(shift * judged, ratio, 2 * error, fmt=marker, color=colour, markersize=8, capsize=3, label=label)
        told.append(f"{label} {', '.join(f'{r:.2f}' for r in ratio)}")
    mistake = excess(arrays, "mistake")[0]
    ax.plot(judged, mistake, "X", color="black", markersize=9, markeredgecolor="white", label="SDE without its noise")
    ax.set(xscale="log", yscale="log", xlim=(judged[0] * 1.5, judged[-1] / 1.5), ylim=(0.4, 60))
    ax.set_yticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
    ax.set_xticks([50, 10, 1, 0.1, 0.03], ["50", "10", "1", "0.1", "0.03"])
    ax.minorticks_off()
    ax.set(
        xlabel=r"noise level $\sigma$, sampling to the right", ylabel="distance from the law\n/ that of exact samples"
    )
    ax.set_title("3  one law at every time (± 2 std. errors)")
    ax.legend(loc="center left", fontsize=12, bbox_to_anchor=(0, 0.5))
    told.append(f"SDE without its noise {', '.join(f'{r:.1f}' for r in mistake)}")
    ax.set_gid(
        f"Distance over that of exact samples at sigma {', '.join(f'{s:.2g}' for s in judged)}: {'; '.join(told)}."
    )


def draw_codes(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Latents by the mode they decode to, encoded data on top, rings of N(0, I)."""
    regions, n = arrays["regions"], len(mixture().weights)
    pale = ListedColormap(
        [[1 - 0.45 * (1 - c) for c in plt.matplotlib.colors.to_rgb(colour)] for colour in COLOURS[:n]]
    )
    ax.imshow(regions, extent=(-LATENT, LATENT) * 2, cmap=pale, vmin=-0.5, vmax=n - 0.5, interpolation="nearest")
    for line in arrays["lines"][: len(RINGS)]:
        ax.plot(*line.T, color="black", linewidth=0.9)
    for line in arrays["lines"][len(RINGS) :]:
        ax.plot(*line.T, color="black", linewidth=0.4)
    for k in range(n):
        dots = arrays["encoded"][arrays["data.modes"] == k]
        ax.plot(*dots.T, MARKERS[k], color=COLOURS[k], markersize=5, markeredgecolor="white", markeredgewidth=0.6)
        ax.contour(regions == k, extent=(-LATENT, LATENT) * 2, levels=[0.5], colors="black", linewidths=1.2)
    plotting.frame(ax, LATENT)
    cells = plotting.grid(LATENT, len(regions)).view(*regions.shape, 2).transpose(0, 1).numpy()
    letters(ax, np.stack([0.9 * LATENT * (c := cells[regions == k].mean(0)) / np.hypot(*c) for k in range(n)]))
    ax.set(xlabel="latent 1", ylabel="latent 2", title="4  latents: regions decoded, dots encoded")
    told = ", ".join(f"{chr(ord('A') + k)} {mass:.3f}" for k, mass in enumerate(arrays["masses"][0]))
    ax.set_gid(f"{len(arrays['encoded'])} encoded points of data over regions of latents that hold {told} of N(0, I).")


def draw_image(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Rings and rays, decoded."""
    plane(ax, "5  the same rings and rays, decoded")
    for line, width in zip(arrays["image"], [1.3] * len(RINGS) + [0.5] * N_RAYS, strict=True):
        ax.plot(*line.T, color="black", linewidth=width)
    far = float(np.linalg.norm(np.diff(arrays["image"], axis=1), axis=2).max())
    ax.set_gid(
        f"{len(RINGS)} rings of radius {RINGS[0]:g} to {RINGS[-1]:g} and {N_RAYS} rays; the longest step of a line is {far:.2f}."
    )


def draw_accuracy(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Median errors by the number of steps."""
    told = []
    for name, look in LOOKS.items():
        median = np.median(arrays[f"decoded.{name}"], axis=1)
        label = name if name == KARRAS else f"{name}, equal in t"
        size, width = (11, 3.2) if name == "VP" else (6.5, 1.8)  # that of sub-VP lies on it
        form = {"color": look.colour, "marker": look.marker, "markersize": size, "linewidth": width}
        ax.plot(STEPS, median, look.line, label=label, **form)
        told.append(f"{name} {median[0]:.2g} to {median[-1]:.2g}")
    median = np.median(arrays["returned.VP"], axis=1)
    look = LOOKS["VP"]
    form = {"color": look.colour, "marker": look.marker, "mfc": "white", "markersize": 7, "linewidth": 1.8}
    ax.plot(STEPS, median, ":", label="VP, there and back", **form)
    ax.set(xscale="log", yscale="log", xlabel="Heun steps", ylabel="median error [units of x]")
    ax.set_xticks(STEPS, [str(k) for k in STEPS])
    ax.minorticks_off()
    ax.set_title("6  decoding accurate codes; there and back")
    ax.legend(loc="lower left", fontsize=11)
    returned = f"VP there and back {median[0]:.2g} to {median[-1]:.2g}"
    ax.set_gid(f"Median error of decoding, {STEPS[0]} to {STEPS[-1]} steps: {'; '.join(told)}; {returned}.")


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """Paths and laws above, codes and steps below."""
    with plt.rc_context(plotting.STYLE | {"font.size": 13.0}):
        figure, axes = plt.subplots(2, 3, figsize=(15.5, 10.4), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        draw_paths(axes[0, 0], arrays, "flow", f"1  probability flow, from {N_PATHS} starts")
        draw_paths(axes[0, 1], arrays, "sde", "2  reverse SDE, from the same starts")
        draw_laws(axes[0, 2], arrays)
        draw_codes(axes[1, 0], arrays)
        draw_image(axes[1, 1], arrays)
        draw_accuracy(axes[1, 2], arrays)
    return figure
