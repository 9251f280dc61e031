r"""The density that a score knows, to the sixth digit, and what the prior hides. Source: song2021, Sec. 4.3 and Appendix D.2.

Along the probability flow :math:`\log p` changes by the divergence of the drift, so that the density at x is that at the flow's end,
x(1), and an integral. On a mixture all of it is known.

1. *The law at the end is given.* Then the error is the solver's, and as small as one asks. Dashed: where 95 % of the mass lie.
2 to 4. *A Gaussian stands in for it*, as it must where the data are unknown. The error is the prior's share,
   :math:`\log N(x(1)) - \log p_1(x(1))`, which is computed here without any divergence, from the flow alone, and is what is measured. It
   depends on the noise at the end, and on nothing else of the process: VE ends with a third of VP's noise, measured against the data,
   and has a larger share; carried on to VP's level ("longer") it has VP's.
5. *No tolerance helps* against it.
6. *Hutchinson's estimate* of the trace is unbiased. In two dimensions :math:`v^\top J v` with signs v has two values, the trace plus and
   minus twice what is off the diagonal; so an estimate has two values, too, and neither need be near the truth.
7. *Images are whole numbers.* With uniform noise in each level a density bounds the bits of the image. Without it nothing does: a law
   that knows how often each grey value occurs, and nothing else, is narrow at each of them, and its bits fall by one whenever sigma is
   halved; spent on whole numbers, the same law costs what the dotted line says. The network learned digits with that noise, and does
   not fall so; yet it, too, looks better on digits without. Its density is that of digits with noise of the level sigma, taken at
   digits without: still a density, so still a bound, and no better one than a right density at sigma = 0. The Gaussian tells what sigma
   costs, as it is known there.
"""

from __future__ import annotations

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from toyscore import data, plotting, pretrained
from toyscore.distributions import GaussianMixture, asymmetric
from toyscore.likelihood import bits_per_dimension, log_likelihood
from toyscore.operators import Score
from toyscore.samplers import adaptive_flow, final
from toyscore.sde import SDE, VE, VP, SubVP, law_at, noise_level

BOX = 8.0
MASS = 0.95
T_MIN = 1e-5
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
PROCESSES: dict[str, SDE] = {"VE": VE(), "VP": VP(), "sub-VP": SubVP(), "VE, longer": VE(0.01, noise_level(VP(), 1.0))}
LOOKS = {look.name: look for look in (plotting.ROLES[role] for role in ("ve", "vp", "subvp"))}
LOOKS["VE, longer"] = plotting.Role(LOOKS["VE"].colour, "x", "VE, longer", "-.")
N_POINTS = 8  # where the trace is estimated
DIGIT_SIGMAS = (0.01, 0.05)
DIGIT_END = 20.0  # far beyond the data, so that the law there is a Gaussian's
DIGIT_TOLERANCE = 1.0  # moves bits per dimension in the third decimal
CURVE = np.geomspace(1e-4, 0.3, 40)


@cache
def mixture() -> GaussianMixture:
    """Whose density is asked for: change it and every number follows."""
    return asymmetric().to(dtype=torch.float64)


def gaussian(sde: SDE) -> GaussianMixture:
    """What stands in for p_1 where the data are unknown."""
    return GaussianMixture(torch.zeros(1, 2, dtype=torch.float64), sde.prior_std**2)


class Counted:
    """A score that counts its calls."""

    def __init__(self, score: Score) -> None:
        self.score, self.calls = score, 0

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        self.calls += 1
        return self.score(x, sigma)


class Exact(Counted):
    """The mixture's score, with its Jacobian in closed form."""

    def __init__(self) -> None:
        super().__init__(mixture().score)

    def jvp(self, x: Tensor, sigma: float | Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        return self(x, sigma), torch.einsum("bij,nbj->nbi", mixture().jacobian(x, sigma), tangents)


class Asked:
    """A law that remembers where its density was asked for."""

    def __init__(self, law: GaussianMixture) -> None:
        self.law = law

    def log_prob(self, x: Tensor) -> Tensor:
        self.x = x
        return self.law.log_prob(x)


def errors(sde: SDE, x: Tensor) -> np.ndarray:
    """At x [B, 2]: the errors with the exact prior and with the Gaussian one, and the latter's share as the flow has it: [3, B], nats."""
    p = mixture()
    exact, end = law_at(sde, p, T_MIN).log_prob(x), law_at(sde, p, 1.0)
    prior = Asked(end)
    given = log_likelihood(sde, Exact(), x, prior=prior, t_min=T_MIN)
    assumed = given - end.log_prob(prior.x) + gaussian(sde).log_prob(prior.x)  # the same integral
    last = final(adaptive_flow(sde, p.score, x, [T_MIN, 1.0]))
    share = gaussian(sde).log_prob(last) - end.log_prob(last)
    return torch.stack([given - exact, assumed - exact, share]).numpy()


def plane(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Maps for VE and VP; errors on samples for every process; and on VP's for every tolerance, with the calls that it takes."""
    p, n_side, n = mixture(), 12 if quick else 24, 40 if quick else 200
    generator = torch.Generator().manual_seed(seed)
    points = plotting.grid(BOX, n_side, p.means)
    arrays = {f"map.{name}": errors(PROCESSES[name], points) for name in ("VE", "VP")}
    samples = {name: law_at(sde, p, T_MIN).sample(n, generator=generator) for name, sde in PROCESSES.items()}
    arrays |= {f"samples.{name}": errors(sde, samples[name]) for name, sde in PROCESSES.items()}
    found = []
    x, sde = samples["VP"], PROCESSES["VP"]
    exact, end = law_at(sde, p, T_MIN).log_prob(x), law_at(sde, p, 1.0)
    for tolerance in TOLERANCES:
        score = Exact()
        value = log_likelihood(sde, score, x, prior=end, t_min=T_MIN, rtol=tolerance, atol=tolerance)
        found.append([float((value - exact).abs().mean()), score.calls])
    return arrays | {"tolerances": np.array(found)}


def hutchinson(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Estimates less the exact log density at a few samples: [points, draws], in nats."""
    p, sde, n = mixture(), PROCESSES["VP"], 16 if quick else 200
    generator = torch.Generator().manual_seed(seed)
    end = law_at(sde, p, 1.0)
    x = law_at(sde, p, T_MIN).sample(N_POINTS, generator=torch.Generator().manual_seed(seed))
    options = {"prior": end, "t_min": T_MIN}
    exact = log_likelihood(sde, Exact(), x, **options)
    many = x.repeat_interleave(n, 0)
    drawn = log_likelihood(sde, Exact(), many, exact_trace=False, generator=generator, **options).view(N_POINTS, n)
    return {"hutchinson": (drawn - exact[:, None]).numpy(), "hutchinson.at": x.numpy()}


def digits(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Bits per dimension of held-out digits: the network's at a few sigmas, the Gaussian's and that of the grey values at many."""
    n = 2 if quick else 12
    train, held = data.digits("train"), data.digits("held-out")
    q, dim, generator = held.n_levels, held.values[0].size, torch.Generator().manual_seed(seed)
    # the first n of a shuffled set, with noise in each level and without
    index = torch.randperm(len(held), generator=generator)
    middle = held.tensor()[index].double()
    noisy = middle + (torch.rand(middle.shape, generator=generator, dtype=torch.float64) - 0.5) / q
    fitted = train.sample(20 * len(train), generator=generator).flatten(1).double()
    normal = GaussianMixture(fitted.mean(0)[None], torch.cov(fitted.mT)[None])
    counts = np.bincount(train.values.ravel(), minlength=q)
    if not counts.all():
        raise ValueError(
            f"a grey value never occurs in training: counts are {counts.tolist()}; a law of values needs all"
        )
    values = (torch.arange(q, dtype=torch.float64)[:, None] + 0.5) / q
    share = torch.from_numpy(counts / counts.sum())

    def bits(log_prob: Tensor, numbers: int) -> Tensor:
        return bits_per_dimension(log_prob.double(), numbers, q)

    network, rows = pretrained.digits().network, torch.cat([noisy[:n], middle[:n]]).float()
    far = GaussianMixture(normal.means.float(), normal.covariances.float())
    score, found, calls = Counted(network), [], []
    for sigma in DIGIT_SIGMAS:
        sde, score.calls = VE(sigma, DIGIT_END), 0
        value = log_likelihood(
            sde,
            score,
            rows,
            prior=far.perturb(DIGIT_END),
            t_min=1e-6,  # where VE is at its sigma_min
            rtol=DIGIT_TOLERANCE,
            atol=DIGIT_TOLERANCE,
            exact_trace=False,
            generator=generator,
        )
        found.append(bits(value, dim).view(2, n))
        calls.append(score.calls)
    curve = CURVE.tolist()
    seen = torch.from_numpy(np.bincount(held.values.ravel(), minlength=q) / held.values.size)  # pixels have few values
    grey = [bits(GaussianMixture(values, sigma**2, share).log_prob(values), 1) @ seen for sigma in curve]
    smooth = [bits(normal.log_prob(noisy.flatten(1), sigma), dim).mean() for sigma in (0.0, *curve)]
    return {
        "bits.network": torch.stack(found).numpy(),
        "bits.calls": np.array(calls),
        "bits.same": np.stack([bits(normal.log_prob(noisy[:n].flatten(1), s), dim).numpy() for s in DIGIT_SIGMAS]),
        "bits.gaussian": np.array([float(b) for b in smooth]),
        "bits.grey": np.array([float(b) for b in grey]),
        "bits.code": -(share.log2() @ seen).numpy(),
        "bits.uniform": np.log2(q),
        "n_held": np.array(len(held)),
    }


def compute(seed: int, quick: bool) -> dict[str, np.ndarray]:
    """The plane, estimates of the trace, and digits."""
    return plane(seed, quick) | hutchinson(seed, quick) | digits(seed, quick)


def share_of(arrays: dict[str, np.ndarray], name: str) -> tuple[float, float]:
    """The prior's share of a process: mean size on samples, and its standard error."""
    size = np.abs(arrays[f"samples.{name}"][1])
    return float(size.mean()), float(size.std(ddof=1) / len(size) ** 0.5)


def predicted(arrays: dict[str, np.ndarray]) -> float:
    """The largest difference of measured and predicted share, on all maps and samples."""
    return max(float(np.abs(v[1] - v[2]).max()) for key, v in arrays.items() if key.startswith(("map.", "samples.")))


def given(arrays: dict[str, np.ndarray]) -> float:
    """The largest error with the exact prior, on all maps and samples."""
    return max(float(np.abs(v[0]).max()) for key, v in arrays.items() if key.startswith(("map.", "samples.")))


def standard(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The means of the estimates less the exact value, in their standard errors: [points]."""
    drawn = arrays["hutchinson"]
    return drawn.mean(1) / (drawn.std(1, ddof=1) / drawn.shape[1] ** 0.5)


def network_bits(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Bits per dimension by sigma, dequantised and not, and standard errors: [sigmas, 2] each."""
    found = arrays["bits.network"]
    return found.mean(2), found.std(2, ddof=1) / found.shape[2] ** 0.5


def below_zero(arrays: dict[str, np.ndarray]) -> float:
    """The sigma below which the law of grey values has negative bits."""
    return float(np.exp(np.interp(0, arrays["bits.grey"], np.log(CURVE))))


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Errors of the solver and of the prior, estimates, and bits, within four deviations over seeds or five standard errors."""
    bits, errors_of = network_bits(arrays)
    less = arrays["bits.network"][:, 0] - arrays["bits.same"]
    found = {
        "largest_error_exact_prior": (given(arrays), 5e-5),
        "largest_error_of_prediction": (predicted(arrays), 5e-5),
        "largest_share_on_map_VE": (np.abs(arrays["map.VE"][1]).max(), 1e-3),
        "largest_share_on_map_VP": (np.abs(arrays["map.VP"][1]).max(), 1e-3),
    }
    for name in PROCESSES:
        mean, error = share_of(arrays, name)
        found[f"share_{name.replace(', ', '_')}"] = (mean, 7 * error)
    for tolerance, (error, calls) in zip(TOLERANCES, arrays["tolerances"], strict=True):
        found |= {
            f"error_at_{tolerance:g}": (error, max(7 * error, tolerance)),
            f"calls_at_{tolerance:g}": (calls, 0.2 * calls),
        }
    found["largest_z_of_hutchinson"] = (np.abs(standard(arrays)).max(), 4.0)
    for k, sigma in enumerate(DIGIT_SIGMAS):
        found[f"bits_network_{sigma:g}"] = (bits[k, 0], 7 * errors_of[k, 0])
        found[f"bits_network_middle_{sigma:g}"] = (bits[k, 1], 7 * errors_of[k, 1])
        found[f"bits_less_than_gaussian_{sigma:g}"] = (
            less[k].mean(),
            7 * less[k].std(ddof=1) / less.shape[1] ** 0.5,
        )
    found |= {
        "bits_gaussian_at_0": (arrays["bits.gaussian"][0], 0.002),
        "bits_grey_values": (arrays["bits.code"], 1e-4),
        "bits_grey_values_least_sigma": (arrays["bits.grey"][0], 1e-4),
        "sigma_of_no_bits": (below_zero(arrays), 1e-4),
    }
    return {name: (float(value), float(tolerance)) for name, (value, tolerance) in found.items()}


def table(arrays: dict[str, np.ndarray]) -> str:
    """A row per process: the noise at its end, and both errors on samples."""
    lines = [
        "| process | sigma at t = 1 | largest error, exact prior | mean share of a Gaussian prior | largest | as predicted, to |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, sde in PROCESSES.items():
        exact, assumed, share = arrays[f"samples.{name}"]
        mean, error = share_of(arrays, name)
        lines.append(
            f"| {name} | {noise_level(sde, 1.0):.0f} | {np.abs(exact).max():.0e} | {mean:.4f} ± {error:.4f} | "
            f"{np.abs(assumed).max():.3f} | {np.abs(assumed - share).max():.0e} |"
        )
    return "\n".join(lines)


def caption(arrays: dict[str, np.ndarray]) -> str:
    """The plane, the estimates, the digits."""
    (ve, _), (vp, _), (longer, _) = (share_of(arrays, name) for name in ("VE", "VP", "VE, longer"))
    bits, error = network_bits(arrays)
    drawn, z = arrays["hutchinson"], standard(arrays)
    grey = float(np.interp(np.log(DIGIT_SIGMAS[0]), np.log(CURVE), arrays["bits.grey"]))
    return (
        f"Log densities by the probability flow. With the exact law at t = 1 none is off by more than {given(arrays):.0e} nats (1); with "
        f"a Gaussian prior by {ve:.3f} on VE, {vp:.4f} on VP, {longer:.4f} on VE carried to VP's noise, on average, and that is the "
        f"prior's share to {predicted(arrays):.0e} (2 to 5). Hutchinson's single estimates have deviations up to "
        f"{drawn.std(1).max():.2f} nats; means of {drawn.shape[1]} are within {np.abs(z).max():.1f} standard errors (6). "
        f"{arrays['bits.network'].shape[2]} held-out digits take {bits[0, 0]:.2f} ± {error[0, 0]:.2f} bits per dimension dequantised, "
        f"{bits[0, 1]:.2f} ± {error[0, 1]:.2f} not, which bounds nothing: a law of grey values worth {arrays['bits.code']:.2f} bits "
        f"reaches {grey:.2f}, and is negative below sigma = {below_zero(arrays):.4f} (7, at sigma = {DIGIT_SIGMAS[0]:g}; squares drawn "
        f"side by side have the same sigma)."
    )


def outline(ax: Axes) -> None:
    """The square, and where most of the mass lies."""
    p = mixture()
    axis = torch.linspace(-BOX, BOX, 200, dtype=torch.float64)
    density = p.log_prob(torch.cartesian_prod(axis, axis)).exp().view(200, 200).mT
    level = plotting.mass_level(density, float(axis[1] - axis[0]) ** 2, MASS)
    ax.contour(axis, axis, density, levels=[level], colors="black", linestyles="--", linewidths=1.3)
    plotting.frame(ax, BOX)


def exact_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """The size of the error with the exact prior."""
    error = np.abs(arrays["map.VP"][0])
    side = int(len(error) ** 0.5)
    image = ax.imshow(
        error.reshape(side, side).T,
        extent=(-BOX, BOX, -BOX, BOX),
        origin="lower",
        cmap=plotting.ERROR_MAP,
        norm=LogNorm(1e-9, 1e-5),
    )
    outline(ax)
    ax.figure.colorbar(image, ax=ax, location="bottom", shrink=0.8, label="|error|, nats")
    ax.set(title="1  VP, exact law at t = 1")
    ax.set_gid(f"Error of the log density, VP: median {np.median(error):.1e}, largest {error.max():.1e} nats.")


def share_panel(ax: Axes, arrays: dict[str, np.ndarray], name: str, number: int, limit: float) -> None:
    """The error with the Gaussian prior, with its sign."""
    error = arrays[f"map.{name}"][1]
    side = int(len(error) ** 0.5)
    values = error.reshape(side, side).T
    image = ax.imshow(
        values,
        extent=(-BOX, BOX, -BOX, BOX),
        origin="lower",
        cmap="PuOr",
        vmin=-limit,
        vmax=limit,
        interpolation="bilinear",
    )
    axis = (np.arange(side) + 0.5) * 2 * BOX / side - BOX
    lines = ax.contour(
        axis, axis, values, levels=[-0.2, -0.1, -0.05, -0.02, 0.0, 0.02, 0.05], colors="0.25", linewidths=0.8
    )
    ax.clabel(lines, fontsize=10.5, fmt=lambda v: f"{v:g}".replace("-", "−"))
    outline(ax)
    label = "error, nats\nsolid: too likely, dashed: too unlikely"
    ax.figure.colorbar(image, ax=ax, location="bottom", shrink=0.8, label=label)
    sigma = noise_level(PROCESSES[name], 1.0)
    ax.set(title=f"{number}  {name}, Gaussian: $\\sigma(1)={sigma:.0f}$")
    ax.set_gid(f"Error of the log density with a Gaussian prior: from {error.min():.3f} to {error.max():.3f} nats.")


def prediction_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Measured against predicted shares, on samples."""
    ax.axline((0, 0), slope=1, color="0.6", lw=1.2)
    for name, look in LOOKS.items():
        _, measured, share = arrays[f"samples.{name}"]
        fill = {} if look.marker == "x" else {"mfc": "none"}
        mean, _ = share_of(arrays, name)
        ax.plot(share, measured, look.marker, color=look.colour, ms=6, mew=1.3, label=f"{name}: {mean:.4f}", **fill)
    ax.set(xlabel=r"$\log N-\log p_1$ at the flow's end, nats", ylabel="measured error, nats")
    ax.set(title="4  the prior's share, on samples")
    ax.set(xticks=[-0.06, -0.03, 0, 0.03, 0.06], yticks=[-0.06, -0.03, 0, 0.03, 0.06])
    ax.legend(fontsize=10.5, loc="lower right", borderaxespad=0.3, title="mean size, nats", title_fontsize=10.5)
    ax.set_gid(f"Measured and predicted errors of the processes agree to {predicted(arrays):.0e} nats.")


def tolerance_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """The error against the tolerance: the solver's falls, the prior's stays."""
    error, calls = arrays["tolerances"].T
    look = plotting.ROLES["truth"]
    ax.plot(TOLERANCES, error, f"{look.marker}-", color=look.colour, ms=7, label="exact law at t = 1")
    for x, y, n in zip(TOLERANCES, error, calls, strict=True):
        ax.annotate(f"{n:.0f}", (x, y), xytext=(8, 4), textcoords="offset points", fontsize=10.5)
    for name in ("VE", "VP"):
        share, prior = share_of(arrays, name)[0], LOOKS[name]
        form = {"color": prior.colour, "marker": prior.marker, "ms": 7, "lw": 2}
        ax.plot(TOLERANCES, [share] * len(TOLERANCES), prior.line, label=f"Gaussian prior, {name}", **form)
    ax.set(xscale="log", yscale="log", xlim=(0.3, 1e-7), xlabel="tolerance (numbers: calls of the score)")
    ax.set(ylim=(1e-9, 0.06), ylabel="mean |error|, nats", title="5  no tolerance mends the prior")
    ax.legend(fontsize=10.5, loc="lower left")
    told = ", ".join(f"{t:g}: {e:.1e} by {n:.0f} calls" for t, e, n in zip(TOLERANCES, error, calls, strict=True))
    ax.set_gid(f"Mean error with the exact prior at tolerance {told}.")


def hutchinson_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Single estimates, and their means with standard errors, less the exact value."""
    drawn, look = arrays["hutchinson"], plotting.ROLES["plain"]
    places = np.arange(1, len(drawn) + 1)
    for k, row in zip(places, drawn, strict=True):
        ends, counts = np.unique(row.round(4), return_counts=True)
        ax.scatter(
            [k] * len(ends), ends, s=0.6 * counts, color=look.colour, alpha=0.6, label=None if k > 1 else "one estimate"
        )
    mean, error = drawn.mean(1), drawn.std(1, ddof=1) / drawn.shape[1] ** 0.5
    ax.errorbar(places, mean, 2 * error, fmt="D", color="black", ms=5, capsize=4, label="mean ± 2 s.e.", zorder=3)
    ax.axhline(0, color=plotting.ROLES["truth"].colour, lw=1.8, zorder=0, label="exact trace")
    top = 1.15 * np.abs(drawn).max()
    ax.set(
        xticks=places,
        xlabel="sample of the mixture",
        ylabel="log density less the exact, nats",
        ylim=(-top, 1.75 * top),
    )
    ax.set_title("6  Hutchinson's estimate, two values in 2-D")
    ax.legend(fontsize=10.5, loc="upper right", markerscale=0.8)
    ax.set_gid(
        f"Means in their standard errors: {', '.join(f'{z:.1f}' for z in standard(arrays))}; n = {drawn.shape[1]}."
    )


def bits_panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Bits per dimension of held-out digits against the noise at which the density is taken."""
    bits, error = network_bits(arrays)
    look, n = plotting.ROLES["learned"], arrays["bits.network"].shape[2]
    ax.axhline(0, color="0.6", lw=1)
    ax.axhline(float(arrays["bits.code"]), color="black", ls=":", lw=1.8)
    ax.plot(
        CURVE, arrays["bits.grey"], color="black", ls="--", lw=2.2, label="law of grey values, digits not dequantised"
    )
    ax.plot(
        CURVE,
        arrays["bits.gaussian"][1:],
        color=plotting.ROLES["annealed"].colour,
        lw=2.2,
        label="Gaussian, dequantised",
    )
    for k, (fill, shift, words) in enumerate(((look.colour, 1.06, "dequantised"), ("white", 0.94, "not dequantised"))):
        ax.errorbar(
            np.array(DIGIT_SIGMAS) * shift,
            bits[:, k],
            2 * error[:, k],
            fmt=look.marker,
            color=look.colour,
            mfc=fill,
            ms=8,
            capsize=4,
            label=f"network, {words}, n = {n}, ± 2 s.e.",
            zorder=3,
        )
    ax.text(
        0.00011,
        float(arrays["bits.code"]) + 0.12,
        "grey values as whole numbers",
        ha="right",
        va="bottom",
        fontsize=10.5,
    )
    ax.set(xscale="log", xlim=(0.4, 1e-4), ylim=(-5.2, 5.6), ylabel="bits per dimension")
    ax.set_xticks([0.1, 0.01, 0.001, 0.0001], ["0.1", "0.01", "0.001", "0.0001"])
    ax.set(
        xlabel=r"noise $\sigma$ at which the density is taken",
        title="7  held-out digits: without dequantisation there is no bound",
    )
    ax.legend(fontsize=10.5, loc="lower left")
    told = "; ".join(
        f"at sigma = {s:g} network {b[0]:.2f} ± {e[0]:.2f}, not dequantised {b[1]:.2f} ± {e[1]:.2f}"
        for s, b, e in zip(DIGIT_SIGMAS, bits, error, strict=True)
    )
    ax.set_gid(
        f"Bits per dimension {told}; Gaussian {arrays['bits.gaussian'][0]:.2f} at sigma = 0; grey values {arrays['bits.code']:.2f}, as "
        f"a density at sigma = {CURVE[0]:g} {arrays['bits.grey'][0]:.2f}."
    )


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """Above, errors in the plane and what they are; below, tolerance, the trace, and digits."""
    with plt.rc_context(plotting.STYLE):
        figure = plt.figure(figsize=(16.6, 8.8), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.07, h_pad=0.07)
        above, below = figure.subfigures(2, 1, height_ratios=[4.7, 4.0])
        axes = above.subplots(1, 4, width_ratios=[4, 4, 4, 4.4])
        exact_panel(axes[0], arrays)
        limit = max(float(np.abs(arrays[f"map.{name}"][1]).max()) for name in ("VE", "VP"))
        share_panel(axes[1], arrays, "VP", 2, limit)
        share_panel(axes[2], arrays, "VE", 3, limit)
        prediction_panel(axes[3], arrays)
        axes = below.subplots(1, 3, width_ratios=[4, 4.4, 6.6])
        tolerance_panel(axes[0], arrays)
        hutchinson_panel(axes[1], arrays)
        bits_panel(axes[2], arrays)
    return figure
