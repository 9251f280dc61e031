# %% [markdown]
# # 11 · SDEs: VE and VP
#
# Notebooks 09 and 10 walked down a ladder of noise levels. Notebook 10 let the data choose the levels, so close that
# neighbours overlap. Ask for more overlap, and the rungs come together until noise grows *continuously*, in a time $t$
# from 0 (data) to 1 (noise). What comes out is a stochastic differential equation. Three of them are in use, VE, VP and sub-VP
# (Song et al., 2021); you will watch data become noise under each, see that they are one process in three coordinates, and run
# them backwards.
#
# Every score in this notebook is exact. Running time: under 20 seconds on a laptop with two cores and no GPU.

# %% tags=["setup"]
import torch

from toyscore import metrics, plotting, samplers, sde
from toyscore.distributions import GaussianMixture, asymmetric
from toyscore.widgets import Choice, Slider, panel

torch.set_num_threads(1)
p, vp = asymmetric(), sde.VP()  # three tilted modes of weights 0.5, 0.3, 0.2; beta from 0.1 to 20
SDES = {"VE": sde.VE(sigma_min=0.01, sigma_max=20.0), "VP": vp, "sub-VP": sde.SubVP()}

# %% [markdown]
# ## From a ladder to an equation
#
# Read the ladder of notebook 09 upwards, from the least noise to the most. To get from level $\sigma$ to the next,
# $\sigma'$, add the variance that is missing; DDPM (Ho et al., 2020) also shrinks $x$ a little at each step, by its
# $\beta_i$:
#
# $$ \text{NCSN: } x' = x + \sqrt{\sigma'^2 - \sigma^2}\; z, \qquad
# \text{DDPM: } x' = \sqrt{1 - \beta_i}\; x + \sqrt{\beta_i}\; z, \qquad z \sim N(0, I). $$
#
# Now take $N$ steps of length $dt = 1/N$, and more and more of them. With $\beta_i = \beta(t)\, dt$ the root is
# $1 - \frac12 \beta(t)\, dt$, and both become
#
# $$ dx = f(t)\, x\, dt + g(t)\, dw, $$
#
# where $dw$ is noise of variance $dt$: a drift that shrinks, and noise that spreads. (The *root* of $dt$ in the noise is
# that of notebook 05.)
#
# | | $f(t)$ | $g(t)^2$ |
# | --- | --- | --- |
# | **VE**, variance exploding (NCSN) | $0$ | $d\sigma^2/dt$ |
# | **VP**, variance preserving (DDPM) | $-\frac12 \beta(t)$ | $\beta(t)$ |
# | **sub-VP** | $-\frac12 \beta(t)$ | $\beta(t)\,(1 - e^{-2\int_0^t \beta})$ |
#
# `transition` gives an exact step of finite length, $x_t = a\, x_{t'} + \sqrt{v}\, z$. Here from $t = \frac12$, for steps of a
# tenth to a ten-thousandth; their rates tend to those of the equation:

# %%
for name, process in SDES.items():
    steps = [(n, *sde.transition(process, 0.5, 0.5 + 1 / n)) for n in (10, 100, 1000, 10_000)]
    print(f"{name:6} (1 - a)/dt, v/dt:", *(f"{n * (1 - a):.3f}, {n * v:.3f};" for n, a, v in steps), end=" ")
    print(
        f"limit -f, g²: {process.drift(-torch.ones(1, 1), 0.5).item():.3f}, {process.diffusion(0.5) ** 2:.3f}"
    )

# %% [markdown]
# ## The law of x at time t
#
# The equation is linear and its noise is Gaussian, so given $x_0$ there is only a mean and a variance to find. In a time
# $dt$ the mean $m$ is multiplied by $1 + f dt$, hence the variance $v$ by $1 + 2 f dt$, and the noise adds $g^2 dt$:
#
# $$ \frac{dm}{dt} = f m, \qquad \frac{dv}{dt} = 2 f v + g^2. $$
#
# For VP the second reads $\dot v = -\beta v + \beta$. Begun at a point, with $v(0) = 0$ and $B = \int_0^t \beta$, this
# gives
#
# $$ x_t = \alpha_t x_0 + s_t z, \qquad
# \begin{array}{lll} \text{VE:} & \alpha_t = 1, & s_t = \sigma_{min} (\sigma_{max}/\sigma_{min})^t \\
# \text{VP:} & \alpha_t = e^{-B/2}, & s_t^2 = 1 - \alpha_t^2 \\
# \text{sub-VP:} & \alpha_t = e^{-B/2}, & s_t = 1 - \alpha_t^2 \end{array} $$
#
# ($\alpha_t$ is a factor of $x$, not the step $\alpha_i$ of notebook 09; $s_t$, with a time, is a standard deviation, and
# $s(x, \sigma)$ the score.)
#
# **VE here does not subtract** $\sigma_{min}^2$. Begun at clean data, its variance would be $s_t^2 - \sigma_{min}^2$. But
# the ladder of NCSN ends at $\sigma_{min}$, not at zero, and so the process begins there, with $s_0 = \sigma_{min}$.

# %%
for name, process in SDES.items():
    rows = [(*process.marginal(t), sde.noise_level(process, t)) for t in (0.0, 0.25, 0.5, 1.0)]
    print(f"{name:6} (alpha, s, s/alpha):", *(f"({a:.3g}, {b:.3g}, {c:.3g})" for a, b, c in rows))

# %% [markdown]
# ## Watch it
#
# Where the data are a Gaussian mixture the law of $x_t$ is one, too: means times $\alpha_t$, covariances times $\alpha_t^2$
# plus $s_t^2$. So `law_at` has its density and its score for every $t$, exactly. Below it is the map, and dots are 400
# points carried by the process itself (`samplers.diffuse`), six of them with the way they came.
#
# `coordinates` divides by $\alpha_t$. `clock` says when the three are compared: at the same time $t$, or all when they have
# the noise level $\sigma = s_t / \alpha_t$ that VE has at $t$.

# %% tags=["setup"]
ticks, forward = torch.linspace(0, 1, 51).double(), {}
start = p.perturb(0.01).sample(400, generator=torch.Generator().manual_seed(1))
for name, process in SDES.items():
    for clock, times in {"own": ticks, "VE's": process.time(sde.noise_level(SDES["VE"], ticks))}.items():
        generator = torch.Generator().manual_seed(2)  # the same noise for all
        begun = process.marginal(float(times[0]))[0] * start
        paths = torch.stack([begun, *samplers.diffuse(process, begun, times, generator=generator)])
        laws = [sde.law_at(process, p, float(t)) for t in times]
        forward[name, clock, "x"] = times, laws, paths
        scaled = paths / process.marginal(times)[0][:, None, None].float()
        laws = [p.perturb(float(sde.noise_level(process, t))) for t in times]
        forward[name, clock, "x / alpha"] = times, laws, scaled
print(f"the data have a variance of {p.covariance.diagonal().mean():.1f} per coordinate")

# %% [markdown] tags=["predict"]
# **Predict first.** The data are three modes, with a variance of about 10.6 per coordinate. VE adds noise up to
# $\sigma = 20$. VP is called *variance preserving*: is its variance at $t = 1$ still **10.6**, or **11.6**, or **1**? And at
# $t = 0.3$: which of VP and sub-VP has the *smaller* variance? Vote, then press *play*. Last, find the setting of *coordinates* and
# *clock* at which all three panels are the same to the dot.

# %% tags=["live"] before="time=0"
(figure, axes), shown = plotting.canvas(1, 3, size=3.9), {}
for ax, name in zip(axes, SDES, strict=True):
    _, laws, paths = forward[name, "own", "x"]
    image = plotting.density(ax, laws[0].log_prob, box=12.0, n=80)
    image.set(cmap="Greys", alpha=1)
    dots = plotting.samples(ax, paths[0], role="truth", box=12.0, size=5)
    lines = plotting.chains(ax, paths[:1, :6], role="truth", box=12.0)
    lines[0].set(color="black", linewidth=1, alpha=0.8)
    shown[name] = ax, image, dots, lines


def draw(time, coordinates, clock):
    k = round(50 * time)
    for name, (ax, image, dots, lines) in shown.items():
        times, laws, paths = forward[name, clock, coordinates]
        plotting.density(ax, laws[k].log_prob, box=12.0, n=80, update=image)
        plotting.samples(ax, paths[k], box=12.0, update=dots)
        plotting.chains(ax, paths[: k + 1, :6], role="truth", update=lines)
        ax.set_title(f"{name} at t = {times[k]:.2f}: variance {laws[k].covariance.diagonal().mean():.3g}")


controls = {"coordinates": Choice(("x", "x / alpha"), "x"), "clock": Choice(("own", "VE's"), "own")}
view = panel(figure, draw, play="time", name="three-sdes", time=Slider(0.0, 1.0, 0.3, step=0.02), **controls)
view

# %%
print(view.words)
ends = {name: forward[name, "own", "x"][1][-1].covariance.diagonal().mean() for name in SDES}
print("variance at t = 1:", *(f"{name} {v:.3g};" for name, v in ends.items()))

# %% [markdown] tags=["answer"]
# 1. **Play.** VE leaves the box: its variance ends at 411, the data's and the noise's. VP's ends at **1**: the data are
#    shrunk to nothing and replaced by noise of variance one. What VP *preserves* is the variance 1, for data that were
#    brought to variance 1 before. These were not. (From $\dot v = -\beta v + \beta$: 1 is where it rests.)
# 2. **Stop at 0.3.** sub-VP's is smaller. It shrinks at the same rate and adds less noise at every time; its $s_t$ is the
#    square of VP's.
# 3. **Set coordinates to x / alpha**, and the clock to VE's. Now the panels agree to the dot.

# %% [markdown]
# ## One process, three clocks
#
# It is no accident that the three agree. Divide $x_t = \alpha_t x_0 + s_t z$ by $\alpha_t$:
#
# $$ y = \frac{x_t}{\alpha_t} = x_0 + \sigma z, \qquad \sigma = \frac{s_t}{\alpha_t}. $$
#
# It is data plus noise, whatever the process was. VE, VP and sub-VP differ in how $y$ is *scaled*, and in *when* it has
# which $\sigma$. So a score function of the course, $s(y, \sigma) = \nabla \log q_\sigma(y)$, is the score of all of them,
# by the chain rule:
#
# $$ \nabla \log p_t(x) = \frac{1}{\alpha_t}\, s\!\left( \frac{x}{\alpha_t}, \frac{s_t}{\alpha_t} \right). $$
#
# This is `time_score`. Below it is compared with the score of the exact law of $x_t$, and the paths of $y$ with those of
# VE, at the same $\sigma$, for the 400 points above.

# %%
for name, process in SDES.items():
    law, points = sde.law_at(process, p, 0.3), forward[name, "own", "x"][2][15]
    off = (sde.time_score(process, p.score)(points, 0.3) - law.score(points)).abs().max()
    away = (forward[name, "VE's", "x / alpha"][2] - forward["VE", "own", "x"][2]).norm(dim=2).max()
    print(f"{name:6}: score within 1e-5: {bool(off < 1e-5)}, paths within 1e-4: {bool(away < 1e-4)}")

# %% [markdown]
# ## Backwards
#
# To make data from noise, run the process backwards. A step from $t$ to $t' = t - dt$ must be drawn from $p(x_{t'} | x_t)$,
# and by Bayes' rule
#
# $$ p(x_{t'} | x_t) \;\propto\; p(x_t | x_{t'})\; p_{t'}(x_{t'}), \qquad
# \log p_{t'}(x_{t'}) \approx \log p_t(x_t) + (x_{t'} - x_t) \cdot \nabla \log p_t(x_t). $$
#
# The first factor knows only the step: it says that $x_{t'}$ is about $x_t - f x_t\, dt$, give or take $g \sqrt{dt}$. It does
# not know where the data are. That is in the second factor, and to first order all of it is the **score**. The product is
# again a Gaussian of variance $g^2 dt$ (complete the square), and its mean is moved by $g^2 dt$ times the score:
#
# $$ x_{t'} \approx x_t - \left[ f x_t - g^2\, \nabla \log p_t(x_t) \right] dt + g \sqrt{dt}\; z. $$
#
# Written for a time that runs backwards, with $dt < 0$ and $\bar w$ the noise of a walk backwards, that is the **reverse
# SDE** (Anderson, 1982),
#
# $$ dx = \left[ f x - g^2\, \nabla \log p_t(x) \right] dt + g\, d\bar w. $$
#
# `reverse_sde` takes its steps: Euler-Maruyama, 500 of them here, from samples of the exact $p_1$. To see what the score
# does in it, take half of it, and none.

# %% tags=["setup"]
SCORES = {"exact": p.score, "half of it": lambda y, sigma: p.score(y, sigma) / 2, "none": lambda y, _: 0 * y}
times, backward = sde.uniform_times(500), {}
for name, process in SDES.items():
    x = sde.law_at(process, p, 1.0).sample(600, generator=torch.Generator().manual_seed(3))
    laws = [sde.law_at(process, p, float(t)) for t in times[::10]]
    exact = [q.log_prob(q.sample(4000, generator=torch.Generator().manual_seed(4))).mean() for q in laws]
    for which, score in SCORES.items():
        generator = torch.Generator().manual_seed(5)
        states = [x, *samplers.reverse_sde(process, score, x, times, generator=generator)][::10]
        heights = [q.log_prob(at).mean() for q, at in zip(laws, states, strict=True)]
        backward[name, which] = laws, exact, torch.stack(states), heights

# %% [markdown] tags=["predict"]
# **Predict first.** 600 points of pure noise are run backwards in time: with the exact score, with half of it, and without
# it, all with fresh noise at each step. Where do they end *without* the score: **at the data**, **where they began**, or
# **farther out than that**? And with *half* of it: at the data, but **too narrow**, **too wide**, or **just right**? Vote,
# then press *play*.

# %% tags=["live"] before="step=0"
figure_2, (left, right) = plotting.canvas(1, 2)
image = plotting.density(left, p.log_prob, box=12.0, n=80)
image.set_cmap("Blues")
(cloud,) = left.plot([], [], "k.", ms=3, alpha=0.6)
(told,) = right.plot([], [], color="0.75", lw=6, label="exact law of x at t")
styles = dict(zip(SCORES, ("k-", "k-.", "k:"), strict=True))
curves = {w: right.plot([], [], style, lw=2, label=f"score: {w}")[0] for w, style in styles.items()}
right.set(xlim=(1, 0), ylim=(-20, 0), xlabel="time t, backwards", ylabel="mean of log p at t over the points")
right.legend(loc="lower right")


def draw_2(step, process, score):
    k, (laws, exact, states, _) = step // 10, backward[process, score]
    plotting.density(left, laws[k].log_prob, box=12.0, n=80, update=image)
    cloud.set_data(*states[k].T)
    cloud.set_gid(f"600 points, mean ({', '.join(f'{m:.2f}' for m in states[k].mean(0))}); score: {score}.")
    told.set_data(times[::10], exact)
    for which, curve in curves.items():
        curve.set_data(times[: step + 1 : 10], backward[process, which][3][: k + 1])
    spread, truth = states[k].var(0).mean(), laws[k].covariance.diagonal().mean()
    left.set_title(f"{process}, t = {times[step]:.2f}: variance {spread:,.1f}, exact {truth:,.1f}")
    right.set_title("; ".join(f"{w} {backward[process, w][3][k]:,.0f}" for w in SCORES))
    right.set_gid(f"Mean of log p over the points; of the exact law {exact[k]:.2f}.")


controls_2 = {"process": Choice(list(SDES), "VP"), "score": Choice(list(SCORES), "exact")}
view_2 = panel(figure_2, draw_2, play="step", name="reverse", step=Slider(0, 500, 350, step=10), **controls_2)
view_2

# %%
print(view_2.words)
for name in SDES:
    ends = (f"{w} {backward[name, w][2][-1].var(0).mean():.3g};" for w in SCORES)
    print(f"{name:6}: variance at the end, by score:", *ends)
for which in ("exact", "half of it"):
    weights = (f"{w:.2f}" for w in metrics.mode_weights(backward["VP", which][2][-1], p))
    print(f"VP, score: {which}, weights of the modes at the end:", *weights)

# %% [markdown] tags=["answer"]
# 1. **Exact**: the points come back to three modes, and on the right they lie on the grey line: at every time their law is
#    that of $x_t$.
# 2. **None**: they run away. Backwards, a drift that shrank is one that blows up, and the noise spreads as it did forwards.
#    The film of a drop of ink cannot be run back by turning velocities round; something must say where the ink was. That is
#    the score.
# 3. **Half of it**: three modes, too wide, and with the wrong weights, for they should be 0.50, 0.30 and 0.20. The half
#    belongs to another way back, which has *no* noise: the probability flow of notebook 13. Half the score *with* noise is a
#    mistake of one character that still draws three modes.

# %% [markdown]
# ## Where to start: the prior
#
# Above, the start was a sample of the exact $p_1$. For real data nobody has that, and one starts from the process's
# **prior**: $N(0, \sigma_{max}^2 I)$ for VE, $N(0, I)$ for VP. It is not quite $p_1$; the difference is the *prior
# mismatch*. Run back without error, it can only shrink: the divergence of the end from the data, in nats, is at most that
# of $p_1$ from the prior. How large it is at $t = 1$:

# %%
for process in (sde.VE(sigma_max=3.0), sde.VE(sigma_max=10.0), sde.VE(), sde.VP(beta_max=5.0), vp):
    q, prior = sde.law_at(process, p, 1.0), GaussianMixture([[0.0, 0.0]], process.prior_std**2)
    x = q.sample(20_000, generator=torch.Generator().manual_seed(6))
    log_ratio = q.log_prob(x) - prior.log_prob(x)
    nats = (log_ratio + (-log_ratio).exp() - 1).mean()  # the last two have mean zero, and calm the estimate
    widths = f"variance {q.covariance.diagonal().mean():.4g}, the prior's {process.prior_std**2:.4g}"
    print(f"{process}: sigma {sde.noise_level(process, 1.0):.3g}, {widths}, {nats:.1g} nats")

# %% [markdown]
# In VE the data are still there at $t = 1$, under the noise: their mean is not moved and their variance is added. So
# $\sigma_{max}$ must be large beside the *width* of the data, which is the rule of notebook 10. In VP they are shrunk to
# $\alpha_1$ of their size, 0.7 % with the usual betas; with too small ones the mismatch is as large as with a low
# $\sigma_{max}$. By the identity it must be nearly so: what counts is $\sigma$ at $t = 1$; VP's prior, in units of $y$, is
# wider by one, of variance $\sigma^2 + 1$.
#
# ## Check yourself: the variance at time t
#
# The data have the variance $v$ at $t = 0$, *clean*. Solve $\dot v = 2 f v + g^2$ for the variance at time $t$:
#
# - `ve_variance(v, t, sigma_min, sigma_max)`: VE, $f = 0$, $g^2 = d\sigma^2/dt$ with
#   $\sigma(t) = \sigma_{min} (\sigma_{max}/\sigma_{min})^t$;
# - `vp_variance(v, t, beta_min, beta_max)`: VP, with $\beta$ growing linearly from `beta_min` at $t = 0$ to `beta_max` at
#   $t = 1$.

# %% tags=["exercise"]
import numpy as np

from checks import diffusing


def ve_variance(v, t, sigma_min, sigma_max):
    return v + sigma_min * (sigma_max / sigma_min) ** t


def vp_variance(v, t, beta_min, beta_max):
    return v  # as the name says


diffusing.variances(ve_variance, vp_variance)

# %% [markdown]
# The solution is in the next cell (collapsed in JupyterLab: click the bar at its left).


# %% tags=["solution"] jupyter={"source_hidden": true}
def ve_solution(v, t, sigma_min, sigma_max):
    return v + sigma_min**2 * ((sigma_max / sigma_min) ** (2 * t) - 1)


def vp_solution(v, t, beta_min, beta_max):
    return 1 + (v - 1) * np.exp(-t * (beta_min + t / 2 * (beta_max - beta_min)))


diffusing.variances(ve_solution, vp_solution)

# %% [markdown]
# With $v$ the variance of a point, 0, they are the marginals $s_t^2$ of the beginning (VE's less $\sigma_{min}^2$). With
# $v = 1$, VP's stays at 1: that is all its name says.
#
# **Next:** notebook 12 takes a DDPM and an NCSN apart, loss and sampler, and finds one algorithm.
