# %% [markdown]
# # 13 · Probability-flow ODE and likelihood
#
# Notebook 12 ended with one score serving every process: NCSN and DDPM are two clocks of the same noise. This notebook takes the
# noise out of the way back. There is an ordinary differential equation with the same law at every time as the stochastic one. It
# gives each data point a code, and at last the number that a score does not show: the density itself.
#
# Every score but the last one is exact, on `asymmetric()`, three tilted modes of weights 0.5, 0.3 and 0.2. So the truth is known,
# and you can see where each digit of an error comes from. Running time: under 30 seconds on a laptop with two cores and no GPU.

# %% tags=["setup"]
import torch

from toyscore import data, plotting, pretrained, samplers, sde, widgets
from toyscore.distributions import GaussianMixture, asymmetric
from toyscore.likelihood import bits_per_dimension, log_likelihood

torch.set_num_threads(1)
p, generator, vp = asymmetric(), torch.Generator().manual_seed(0), sde.VP()

# %% [markdown]
# ## The same laws without noise
#
# The forward process $dx = f(t)\,x\,dt + g(t)\,dw$ moves its law $p_t$ by the **Fokker-Planck equation**, which says
# only that mass is conserved: it flows with the drift and spreads with the noise. With $\Delta p = \nabla \cdot (p\, \nabla \log p)$
# the noise can be written as one more drift:
#
# $$ \frac{\partial p_t}{\partial t} = -\nabla \cdot (f x\, p_t) + \frac{g^2}{2} \Delta p_t
#    = -\nabla \cdot \Big[ \Big( f x - \frac{g^2}{2} \nabla \log p_t(x) \Big)\, p_t \Big]. $$
#
# The right side is how a law moves that is carried by an ODE, the **probability flow** (Song et al. 2021, Eq. 13):
#
# $$ \frac{dx}{dt} = f(t)\, x - \frac{g(t)^2}{2} \nabla \log p_t(x). $$
#
# Mind the half: the reverse SDE has $g^2$, the flow $g^2/2$. The laws $p_t$ are the same, the paths are not. To see it in one
# picture take one coordinate, the first, so that time can go along the page.

# %% tags=["setup"]
line, times = p.marginal([0]), sde.uniform_times(800, t_min=1e-3)
start = vp.prior_sample((500, 1), generator=generator)
noisy = samplers.reverse_sde(vp, line.score, start, times, generator=generator)
chains = {"reverse SDE": noisy, "probability flow": samplers.probability_flow(vp, line.score, start, times)}
paths = {name: torch.stack([start, *chain])[::8, :, 0] for name, chain in chains.items()}  # [101, 500]
clock, height = times[::8].tolist(), torch.linspace(-6, 6, 121)[:, None]
laws = torch.stack([sde.law_at(vp, line, t).log_prob(height) for t in clock], 1).exp()

# %% [markdown] tags=["predict"]
# **Predict first.** Left and right 500 points begin at the *same* places at $t = 1$ and go back to data at $t = 0$; 20 are drawn,
# two of them, one heavy and one dashed with circles, begin side by side. Left they follow the reverse SDE, right the flow. Do the
# two clouds end with the same law? Does the pair end side by side, left, right, both? And how many of the 190 pairs of lines change
# their order? Vote, then press *play*.

# %% tags=["live"] before="step=0"
figure, axes = plotting.canvas(1, 2, size=4.9)
drawn = {ax: ax.plot([], torch.empty(0, 20), "0.35", lw=0.8) for ax in axes}
for ax, lines in drawn.items():
    ax.imshow(laws, extent=(1, 0, -6, 6), aspect="auto", cmap="Blues", vmax=0.42)
    ax.set(xlim=(1, 0), ylim=(-6, 6), xlabel="t, from noise to data", ylabel="x")
    lines[0].set(color="black", lw=4, zorder=3)
    lines[1].set(color="black", lw=1.6, ls="--", zorder=4, marker="o", markevery=8, ms=6, mfc="white")


def draw(step):
    exact = sde.law_at(vp, line, clock[step]).covariance.item() ** 0.5
    for name, (ax, lines) in zip(paths, drawn.items(), strict=True):
        x = paths[name][step]
        for curve, path in zip(lines, paths[name][: step + 1, :20].T, strict=True):
            curve.set_data(clock[: step + 1], path)
        n_swapped = int(((x[:20, None] > x[:20]) ^ (start[:20] > start[:20, 0])).sum()) // 2
        told = f"std {x.std():.2f}, exactly {exact:.2f}; {n_swapped} of 190 swapped"
        ax.set_title(f"{name}, t = {clock[step]:.2f}\n{told}")
        ax.set_gid(f"The pair is at {x[0]:.1f} and {x[1]:.1f}.")


view = widgets.panel(figure, draw, play="step", name="flow-paths", step=widgets.Slider(0, 100, 100))
view

# %%
print(view.words)

# %% [markdown] tags=["answer"]
# The laws agree, the ends do not: left the noise decides where a point goes, and the pair parts at once; right its start does.
# Lines of the SDE cross as they like. Two lines of an ODE never meet, for where they met they would have the same slope and be one.
# On a line that has a consequence: a path keeps the same share of the mass below it, so the flow carries quantiles to quantiles. In
# the plane there is room to pass, and no such formula; but still no two points share a path.

# %% [markdown]
# ## A code for every point
#
# The flow runs both ways. Forward it **encodes**: a data point becomes a latent code at $t = 1$, without any noise, and backward
# it is decoded. And there is but one flow. Divided by alpha, $y = x / \alpha$, every process has noise level
# $\sigma = s_t / \alpha_t$ (notebook 11). As $\dot\alpha = f \alpha$, the drift $f x$ drops out of $\dot y$, and what is left is
# $\dot y = -\frac{g^2}{2 \alpha} \nabla \log p_t(x) = -\frac{g^2}{2 \alpha^2}\, s(y, \sigma)$. And $g^2 / \alpha^2$ is the rate at
# which the variance of $y$ grows, $d\sigma^2/dt = 2 \sigma\, d\sigma/dt$. So
#
# $$ \frac{dy}{d\sigma} = -\sigma\, s(y, \sigma). $$
#
# VE, VP and sub-VP give the same code, if they stop at the same $\sigma$ and are read in the same units.

# %%
x = p.sample(1000, generator=generator)
for process in (sde.VE(), vp, sde.SubVP()):
    both = [process.time(0.01), process.time(50.0)]  # where the noise is 0.01 and 50 in units of the data
    alpha, alpha_1 = (process.marginal(t)[0] for t in both)
    code = samplers.final(samplers.adaptive_flow(process, p.score, alpha * x, both)) / alpha_1
    off = samplers.final(samplers.adaptive_flow(process, p.score, alpha_1 * code, both[::-1])) / alpha - x
    print(f"{type(process).__name__}: first code {code[0].numpy().round(3)}; back, {off.abs().max():.3f} off")

# %% [markdown]
# What are codes good for? Between two of them lie others. If $a$ and $b$ are independent draws of $N(0, vI)$, so is
# $\cos(\varphi)\, a + \sin(\varphi)\, b$, and `samplers.interpolate` walks along that arc. Decode the arc, and compare it with the
# straight line from one data point to the other.

# %% tags=["setup"]
ends = torch.tensor([[-3.0, 4.0], [4.0, 1.0]])  # the means of the top mode and of the right one
a, b = samplers.final(samplers.adaptive_flow(vp, p.score, ends, [1e-3, 1.0]))
arc = samplers.final(samplers.adaptive_flow(vp, p.score, samplers.interpolate(a, b, 101), [1.0, 1e-3]))
tracks = {"straight": torch.lerp(*ends[:, None], torch.linspace(0, 1, 101)[:, None]), "decoded": arc}
falls = {kind: p.log_prob(points) for kind, points in tracks.items()}
level = p.log_prob(p.sample(100_000, generator=generator)).quantile(0.01)  # 99 % of the data are denser

# %% [markdown] tags=["predict"]
# **Predict first.** Crosses walk on the straight line from the top mode to the right one, at equal speed; at half way they are in
# empty space. Diamonds walk between the *codes* of the same two points, and are decoded. Do they go **round** the empty space,
# **jump** over it, or must they **cross** it too? Vote, then press *play*.

# %% tags=["live"] before="place=0"
figure_2, ax_2 = plotting.canvas(size=5.4)
plotting.density(ax_2, p.log_prob).set_cmap("Blues")
dots = {k: ax_2.plot([], [], f, ms=5, mec="k", label=k)[0] for k, f in zip(tracks, ("kx", "wD"), strict=True)}
ax_2.legend(loc="lower right")


def draw_2(place):
    for kind, marks in dots.items():
        marks.set(data=tracks[kind][: place + 1].T, gid=f"The {kind} way, {place} steps of 100.")
    ax_2.set_title("log density " + ", ".join(f"{falls[kind][place]:.1f} {kind}" for kind in dots))


view_2 = widgets.panel(figure_2, draw_2, play="place", name="flow-codes", place=widgets.Slider(0, 100, 60))
view_2

# %%
print(view_2.words)
print("of 101 places in empty space:", *(f"{kind} {(fall < level).sum()};" for kind, fall in falls.items()))

# %% [markdown] tags=["answer"]
# They must cross, for the flow is continuous and continuous curves do not jump; but they hurry: in one of a hundred equal steps of
# the code the diamonds cross what costs the crosses nearly half of their way. Codes are spread as a Gaussian is, and there is little
# room in it for what has little mass.

# %% [markdown]
# ## The density along a path
#
# A path carries its density along. Volume grows along it at the rate of the divergence of the drift, so the log density falls at
# that rate (Chen et al. 2018):
#
# $$ \log p_0(x(0)) = \log p_1(x(1)) + \int_0^1 \nabla \cdot \Big( f x - \frac{g^2}{2} \nabla \log p_t \Big)\, dt
#    = \log p_1(x(1)) + D \log \alpha_1 - \int \sigma\, \mathrm{tr} \frac{\partial s}{\partial y}\, d\sigma. $$
#
# The second form is the first in $y$, from $\alpha_0 = 1$: the linear part of the drift is $D \log \alpha$, and what is left is the
# same for every process. `log_likelihood` follows $y$ and the integral together, with a solver that chooses its steps for a
# *tolerance*. Here is what it makes of a grid of points, against the closed form; with the true $p_1$ at the end, and in float64, so
# that only the solver can err.

# %% tags=["setup"]
fine, points, maps, calls = p.to(dtype=torch.float64), plotting.grid(8.0, 40).double(), {}, []
law_1, truth = sde.law_at(vp, fine, 1.0), sde.law_at(vp, fine, 1e-5).log_prob(points)
for digits in range(1, 7):
    calls[:], options = [], {"prior": law_1, "rtol": 10.0**-digits, "atol": 10.0**-digits}
    log_p = log_likelihood(vp, lambda x, s: calls.append(s) or fine.score(x, s), points, **options)
    maps[digits] = (error := (log_p - truth).abs()), len(calls), float(error.median()), float(error.max())

# %% [markdown] tags=["predict"]
# **Predict first.** Left: the error of the log density at each point of the plane, in nats, dark where it is large. Ask for one digit
# more of tolerance, ten times less. Does the worst error fall by **about ten**? And what does it cost: ten times the calls of the
# score, **or much less**? Vote, then move *digits*, of the tolerance.

# %% tags=["live"] before="digits=1"
figure_3, (left_3, right_3) = plotting.canvas(1, 2)
image = left_3.imshow(torch.ones(40, 40), extent=(-8, 8, -8, 8), cmap=plotting.ERROR_MAP, vmin=-8, vmax=0)
plotting.frame(left_3, 8.0)
figure_3.colorbar(image, ax=left_3, shrink=0.8, label="log10 of the error, nats")
curves_3 = right_3.semilogy([1], [1], "k^-", [1], [1], "ko--")
right_3.set(xlim=(300, 1200), ylim=(1e-8, 2), xlabel="calls of the score", ylabel="error of log p, nats")
right_3.legend(curves_3, ("worst", "median"))


def draw_3(digits):
    *_, (error, n, middle, worst) = shown = list(maps.values())[:digits]
    image.set_data(error.view(40, 40).mT.clamp(min=1e-8).log10())
    for curve, column in zip(curves_3, (3, 2), strict=True):
        curve.set_data([row[1] for row in shown], [row[column] for row in shown])
    left_3.set(title=f"tolerance 1e-{digits}", gid=f"Worst at {points[error.argmax()].int().tolist()}.")
    right_3.set(title=f"{n} calls: worst {worst:.1g}", gid=f"Median error {middle:.2g} nats.")


view_3 = widgets.panel(figure_3, draw_3, name="flow-tolerance", digits=widgets.Slider(1, 6, 3))
view_3

# %%
print(view_3.words)
for digits, (_, *row) in maps.items():
    print("tolerance 1e-{}: {:4d} calls, median error {:.1e}, worst {:.1e}".format(digits, *row))

# %% [markdown] tags=["answer"]
# Five digits of tolerance buy six digits of the worst error, for 3.4 times the calls. The solver's order is eight: where
# steps are short, a tenth of the tolerance takes about $10^{1/8} = 1.33$ times the steps; from $10^{-3}$ to $10^{-6}$ that makes
# $10^{3/8} = 2.4$, and here it is 534 calls to 1145, 2.1 times. At coarse tolerances the calls have a floor. The worst points lie far
# from all modes, where the score is large; all points share their steps, so the hardest decides.

# %% [markdown]
# ## The prior's share
#
# In practice nobody knows $p_1$. The process's own Gaussian, $N(0, \mathrm{prior\_std}^2 I)$, stands in for it, and with the flow and
# the trace exact, the error is
#
# $$ \log N(x(1)) - \log p_1(x(1)), $$
#
# no more and no less. It can be computed at the end of each path, and taken away. In nats, over 1,000 data points:

# %%
processes = {"VE to 50": sde.VE(), "VE to 10": sde.VE(sigma_max=10.0), "VP": vp, "sub-VP": sde.SubVP()}
for name, process in processes.items():
    law_0, law_1 = sde.law_at(process, p, 1e-5), sde.law_at(process, p, 1.0)
    x = law_0.sample(1000, generator=generator)
    error = log_likelihood(process, p.score, x) - law_0.log_prob(x)
    end = samplers.final(samplers.adaptive_flow(process, p.score, x, [1e-5, 1.0]))
    share = torch.distributions.Normal(0.0, process.prior_std).log_prob(end).sum(1) - law_1.log_prob(end)
    numbers = error.mean(), error.std() / 1000**0.5, error.abs().max(), (error - share).abs().max()
    print("{:8}: mean error {:7.4f} ± {:.4f}, worst {:.4f}; {:.4f} without the share".format(name, *numbers))

# %% [markdown]
# What is left is the solver's. VE that ends at $\sigma = 10$, three times as wide as the data, is wrong at its worst point by most of a
# nat, for no other reason than its prior. Over all data the mean error is minus the Kullback-Leibler divergence
# $\mathrm{KL}(p_1 \| N)$: a wrong prior makes data look less likely on average, never more. But it is small beside the errors of single
# points, of either sign: no mean above is two standard errors from zero.
#
# ## The trace by chance
#
# The exact trace costs $D$ derivatives per call. Hutchinson's estimate, $v^\top \frac{\partial s}{\partial y} v$ with random signs
# $v$, drawn once per path, costs one; so the log density is unbiased, and has a standard error:

# %%
x, law_1 = torch.tensor([[3.0, 2.0]]), sde.law_at(vp, p, 1.0)
each = log_likelihood(vp, p.score, x.repeat(400, 1), prior=law_1, exact_trace=False, generator=generator)
print(f"exact {p.log_prob(x)[0]:.2f}, Hutchinson {each.mean():.2f} ± {each.std() / 20:.2f}")

# %% [markdown]
# ## Bits per dimension
#
# Images are judged by the bits that a pixel costs. The digits have whole numbers from 0 to 16. Seen as a density they lie on a
# grid of no volume, and a density may be as large as it likes there: give each of the 17 values its share and a width of less and less
# noise, and the "bits" of digits it never saw fall without end. So the value is **dequantised**, $x = (k + u)/17$ with $u$ uniform. The
# bits of a pixel are then
#
# $$ \log_2 17 - \frac1D \log_2 p(x), $$
#
# 4.09 for the uniform density $p = 1$. On average over $u$ they are at least what the best code of the whole numbers themselves costs, so
# the narrow law gains nothing. Below, both are held-out digits; then those of the network that comes with the package, dequantised, at
# noise 0.01, by Hutchinson's trace.

# %%
held, ve = data.digits("held-out"), sde.VE(0.01, 160.0)
grey, counts = data.digits("train").tensor().unique(return_counts=True)  # the 17 values, how often each
pixels = {"whole": held.tensor(), "dequantised": held.sample(360, generator=generator)}
for noise in (0.1, 0.01, 0.001):
    law = GaussianMixture(grey[:, None], noise**2, counts / counts.sum())
    bits = {kind: bits_per_dimension(law.log_prob(x.view(-1, 1)), 1, 17) for kind, x in pixels.items()}
    print(f"law of values, width {noise}:", *(f"{b.mean():.2f} bits {kind};" for kind, b in bits.items()))
x = held.sample(8, generator=generator)
options = {"rtol": 0.01, "atol": 0.01, "exact_trace": False, "generator": generator}
bits = bits_per_dimension(log_likelihood(ve, pretrained.digits().network, x, **options), 64, 17)
print(f"network, 8 held-out digits: {bits.mean():.2f} ± {bits.std() / 8**0.5:.2f}")

# %% [markdown]
# ## Check yourself: a log density by the flow
#
# One dimension, Gaussian data, three processes cut short, so that their priors are wrong. Follow the flow from `x` [B] through
# `times`, ascending, by Euler's steps, and return two arrays [B]: the log density at `times[0]` with the process's Gaussian at the
# end, and the prior's share of its error. `process` has `f(t)` and `g(t)` of $dx = f x\,dt + g\,dw$, and `prior_std`; `law` is the
# exact one, with `score(x, t)`, `slope(x, t)` (its derivative in x) and, at the last time alone, `log_prob(x, t)`.

# %% tags=["exercise"]
import numpy as np

from checks import flow


def likelihood(x, times, process, law):
    return -((x / process.prior_std) ** 2) / 2, 0 * x  # of the prior, the exponent alone


flow.likelihood(likelihood)

# %% [markdown]
# The solution is in the next cell (collapsed in JupyterLab: click the bar at its left).


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(x, times, process, law):
    change = 0 * x
    for t, dt in zip(times[:-1], np.diff(times), strict=True):
        f, half = process.f(t), process.g(t) ** 2 / 2
        change = change + dt * (f - half * law.slope(x, t))
        x = x + dt * (f * x - half * law.score(x, t))
    prior = -((x / process.prior_std) ** 2) / 2 - np.log(process.prior_std * np.sqrt(2 * np.pi))
    return prior + change, prior - law.log_prob(x, times[-1])


flow.likelihood(solution)

# %% [markdown]
# The flow has no noise, and its first mistakes are never mended: what a step gets wrong is carried to the end. Noise mends, at a price.
#
# **Next:** notebook 14 steps with noise, corrects with Langevin dynamics between the steps, and asks what each call of the score buys.
