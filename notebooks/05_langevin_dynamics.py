# %% [markdown]
# # 05 · Langevin dynamics
#
# The notebooks so far ended with a score: an exact one, or one that a network has learned. This one turns a score into samples.
# You will watch chains move, derive what a finite step does to them, see where a chain runs away, and learn to test a chain
# whose truth you do not know.
#
# Every score in this notebook is exact, so whatever goes wrong here is the sampler's doing.
# Running time: under 15 seconds on a laptop with two cores and no GPU.

# %% tags=["setup"]
import torch

from toyscore import diagnostics, plotting
from toyscore.distributions import GaussianMixture, asymmetric
from toyscore.operators import DivergenceError
from toyscore.samplers import final, langevin, langevin_step, metropolis_langevin
from toyscore.widgets import Choice, Slider, panel

torch.set_num_threads(1)  # tiny tensors are fastest on one thread

# %% [markdown]
# ## A step: drift and noise
#
# The score says where the density grows. Following it alone leads to the top of a mode. **Langevin dynamics** follows it a
# little way and adds noise:
#
# $$ x_{t+1} = x_t + \frac{\epsilon}{2}\, s(x_t) + \sqrt{\epsilon}\, z_t, \qquad z_t \sim N(0, I). $$
#
# The first term is the *drift*, the second the *noise*; $\epsilon$ is the *step size*, in units of $x^2$. That is the whole
# algorithm. `langevin_step` does one step, `langevin` many.

# %%
p, epsilon = asymmetric(), 0.1  # three tilted modes of weights 0.5, 0.3, 0.2
x, z = torch.tensor([[1.0, 2.0]]), torch.randn(1, 2, generator=torch.Generator().manual_seed(1))
print("by hand      ", x + epsilon / 2 * p.score(x) + epsilon**0.5 * z)
print("langevin_step", langevin_step(x, p.score(x), epsilon, generator=torch.Generator().manual_seed(1)))

# %% [markdown]
# ## Why the noise?
#
# Below, 300 chains start at samples of three modes that were blurred by noise, and take 200 steps: once as above, and once by the
# drift alone. The third picture follows the mean of $\log p(x_t)$ over the chains; for samples of $p$ it is the dashed line.

# %% tags=["setup"]
p, generator = asymmetric(), torch.Generator().manual_seed(5)
start, paths = p.perturb(2.0).sample(300, generator=generator), {}  # (kind, step size) -> [201, 300, 2]
for size in ("0.02", "0.1", "0.4"):
    chain = langevin(p.score, start, step_size=float(size), n_steps=200, generator=generator)
    paths["drift and noise", size], drifts = torch.stack([start, *chain]), [start]
    for _ in range(200):
        drifts.append(drifts[-1] + float(size) / 2 * p.score(drifts[-1]))
    paths["drift alone", size] = torch.stack(drifts)
heights = {key: p.log_prob(x.flatten(0, 1)).view(201, 300).mean(1).numpy() for key, x in paths.items()}
exact_height = p.log_prob(p.sample(100_000, generator=generator)).mean().item()

# %% [markdown] tags=["predict"]
# **Predict first.** The same 300 points follow the score of three modes, on the left with noise, in the middle without. After 200
# steps, where are the points in the middle, and is the density there *higher* than, *equal* to or *lower* than where samples of
# $p$ are, on average? Vote; then press play.

# %% tags=["live"]
figure, (left, middle, right) = plotting.canvas(1, 3, size=3.9)
right.axhline(exact_height, color=plotting.ROLES["truth"].colour, linestyle="--", label="samples of p")
shown, plain = {}, plotting.ROLES["plain"]
for ax, kind, form in ((left, "drift and noise", plain.marker), (middle, "drift alone", "x")):
    plotting.density(ax, p.log_prob).set_cmap("Blues")
    colour = plain.colour if ax is left else "black"
    (dots,) = ax.plot([], [], form, color=colour, markersize=4)
    shown[kind] = ax, dots, *right.plot([], [], color=colour, linewidth=2, label=kind)
right.set(xlim=(0, 200), ylim=(-9, -1.5), xlabel="step", title="mean of log p over the chains")
right.legend()


def draw(step, step_size):
    for kind, (ax, dots, line) in shown.items():
        height = heights[kind, step_size]
        dots.set_data(*paths[kind, step_size][step].T.numpy())
        dots.set_gid(f"300 chains; mean log p is {height[step]:.2f}, that of samples {exact_height:.2f}.")
        line.set_data(range(step + 1), height[: step + 1])
        ax.set_title(f"{kind}, step {step}")


steps, sizes = Slider(0, 200, 8, step=4), Choice(("0.02", "0.1", "0.4"), "0.1")
view = panel(figure, draw, play="step", name="langevin-dynamics", step=steps, step_size=sizes)
view

# %%
print(view.words)
print(*(f"{kind}, {size}: {h[-1]:.2f} after 200 steps" for (kind, size), h in heights.items()), sep="\n")

# %% [markdown] tags=["answer"]
# 1. **Play.** Without noise all chains end on three points: the drift finds the modes, and nothing else. Their mean log density
#    ends far *above* that of samples. A good sample is not a likely one: samples spread, because there is more room around
#    a mode than on it. The noise spreads them, the drift holds them back, and for small steps the law at which the two balance is $p$.
# 2. **Choose 0.02**, then 0.4, and play. With the small step the chains are still on their way at the end. With the large one they are
#    there at once, and stay below the dashed line: they are spread too wide. Below you derive by how much.

# %% [markdown]
# ## Why the *root* of epsilon?
#
# A step takes the time $\epsilon$, so in a time of 1 there are $n = 1/\epsilon$ steps. Variances of independent draws add. Noise
# of standard deviation $\sqrt\epsilon$ adds up to the variance $n\epsilon = 1$, however fine the steps are. Noise of standard
# deviation $\epsilon$ would add up to $n\epsilon^2 = \epsilon$, which vanishes as the steps get finer: only the drift would be
# left.

# %%
for n in (10, 100, 1000):
    sums = torch.randn(n, 4000, generator=generator).sum(0)
    print(f"{n:4d} steps in time 1: root epsilon {(sums / n**0.5).var():.2f}, epsilon {(sums / n).var():.4f}")

# %% [markdown]
# ## What a finite step does: the Gaussian
#
# On $N(0, v)$ the score is $s(x) = -x/v$, and a step is linear:
#
# $$ x_{t+1} = f x_t + \sqrt\epsilon\, z_t, \qquad f = 1 - \frac{\epsilon}{2v}. $$
#
# So the variance $v_t$ of a chain follows $v_{t+1} = f^2 v_t + \epsilon$: the drift multiplies $x$ by $f$, hence the variance by
# $f^2$, and the noise adds $\epsilon$. Where it settles, $v_\infty = f^2 v_\infty + \epsilon$. With
# $1 - f^2 = \epsilon/v - \epsilon^2/4v^2 = \frac{\epsilon}{v}\left(1 - \frac{\epsilon}{4v}\right)$,
#
# $$ v_\infty = \frac{\epsilon}{1 - f^2} = \frac{v}{1 - \epsilon/4v}. $$
#
# It is always wider than $v$. And it is reached only if $|f| < 1$, that is for $\epsilon < 4v$. Between $2v$ and $4v$
# the factor $f$ is negative: the chain jumps over the mean at each step, and still settles. From $4v$ on each jump is as long as
# the last or longer, and nothing settles. `stationary_variance` is that formula; chains agree.

# %%
v, gaussian = 0.25, GaussianMixture([[0.0]], 0.25)
for ratio in (0.1, 1.0, 2.0, 3.0, 3.9):
    x = gaussian.sample(4000, generator=generator)
    chain = langevin(gaussian.score, x, step_size=ratio * v, n_steps=400, generator=generator)
    found = diagnostics.measured_variance(chain, n_discard=200)
    theory = diagnostics.stationary_variance(v, ratio * v)
    print(f"epsilon {ratio} v: predicted {theory:.4f}, measured {found.value[0]:.4f} ± {found.error[0]:.4f}")
try:
    final(langevin(gaussian.score, x, step_size=1.25, n_steps=1000, generator=generator))
except DivergenceError as error:
    print(f"stable below {diagnostics.stability_bound(v)}; beyond it: {str(error).split(':')[0]}")

# %% [markdown]
# A chain that runs away grows by $|f|$ at each step until its numbers overflow. `langevin` looks every 16 steps and stops it
# with that message, so that you do not plot nonsense.
#
# ## Two directions, one step size
#
# In several dimensions each principal axis goes its own way, with its own $v$, but they share one $\epsilon$. Here the variances
# are 1/4 across and 4 along, and all chains start at the corner (6, 6). The ellipses have half-axes of two standard deviations: the
# solid blue one those of the exact law, the dashed black one those at which the chains settle.

# %% tags=["setup"]
variances, generator = torch.tensor([0.25, 4.0]), torch.Generator().manual_seed(12)
tall, corner, runs = GaussianMixture([[0.0, 0.0]], variances[None]), torch.full((800, 2), 6.0), {}
for size in [round(0.05 * k, 2) for k in range(1, 23)]:  # runs: step size -> [101, 800, 2]
    chain = langevin(tall.score, corner, step_size=size, n_steps=100, generator=generator)
    runs[size] = torch.stack([corner, *chain])

# %% [markdown] tags=["predict"]
# **Predict first.** Chains follow the exact score of a Gaussian with variance 1/4 in one direction and 4 in the other. Which is the
# largest step size $\epsilon$ at which they still settle: just below *1/16*, *1/4*, *1/2*, *1*, or *16*? Which of the two directions
# decides? Vote; then move *step size*.

# %% tags=["live"]
figure, (left, right) = plotting.canvas(1, 2)
cloud = plotting.samples(left, corner, role="plain", size=12)
circle = 2 * torch.stack([f(torch.linspace(0, 6.2832, 100)) for f in (torch.cos, torch.sin)])
left.plot(*(variances.sqrt()[:, None] * circle).numpy(), color=plotting.ROLES["truth"].colour, linewidth=2.5)
(ellipse,) = left.plot([], [], "k--")
right.axhline(1, color=plotting.ROLES["truth"].colour, linewidth=2.5)
lines = [right.plot([], [], style, color=plotting.ROLES["plain"].colour)[0] for style in ("-", "-.")]
levels = [right.axhline(1, color="black", linestyle="--") for _ in variances]
right.set(xlim=(1, 100), ylim=(0.02, 100), yscale="log", xlabel="step", ylabel="variance / exact variance")
right.legend([*lines, ellipse], ["narrow: v = 1/4", "wide: v = 4", "where they settle"], loc="upper right")


def draw_two(step_size, step):
    stable = step_size < diagnostics.stability_bound(variances)
    settled = diagnostics.stationary_variance(variances, step_size) if stable else variances * torch.inf
    now = (runs[step_size][: step + 1].var(1) / variances).T
    plotting.samples(left, runs[step_size][step], role="plain", update=cloud)
    ellipse.set_data(*(settled.sqrt()[:, None] * circle).numpy())
    for line, level, values, limit in zip(lines, levels, now.numpy(), settled / variances, strict=True):
        line.set_data(range(step + 1), values)
        level.set_ydata([limit, limit])
    left.set_title(f"ε = {step_size:g}, step {step}{'' if stable else ': never settles'}")
    right.set_title("now {:.3g} and {:.3g} times the exact one".format(*now[:, -1]), fontsize=12)
    right.set_gid("Dashed: narrow settles at {:.2f}, wide at {:.2f}.".format(*settled / variances))


step_sizes = Slider(0.05, 1.1, 0.05, step=0.05)
view_2 = panel(figure, draw_two, play="step", name="step-size", step_size=step_sizes, step=Slider(0, 100, 30))
view_2

# %%
print(view_2.words, "variances after 100 steps, times the exact ones:", sep="\n")
for s in (0.05, 0.75, 1.0, 1.1):
    print("step size {}: narrow {:.3g}, wide {:.3g}".format(s, *runs[s][100].var(0) / variances))

# %% [markdown] tags=["answer"]
# 1. **Move the step size up.** The narrow direction fattens: at 0.75, three times its variance, it settles at four times what it should
#    be. At 1, four times its variance, it no longer settles; at 1.1 it runs away. The wide direction, on its own, could take 16.
# 2. **Set it to 0.05, and play.** Now the narrow direction is nearly right (it settles at 1.05 times its variance), and the wide
#    one needs the steps: after all 100 it has not forgotten where it started.
#
# So the narrowest direction bounds the step, and the widest says how many you need. The ratio of the two is what makes a Gaussian
# hard to sample. Two conventions make it harder, if you mix them.

# %% [markdown]
# ## Two conventions, and a lost root of two
#
# Much code writes $x + \eta\, s(x) + \sqrt{2\eta}\, z$. That is the same step with $\epsilon = 2\eta$. But suppose that you write
# $x + \eta\, s(x) + \sqrt{\eta}\, z$: half of one, half of the other. Read it as our step of size $\eta$ along the score $2s$. Now $2 s$ is
# the score of $p^2$, so you sample $p^2$, and sample it well. For a Gaussian, $p^2$ is a Gaussian of half the variance.

# %%
eta, epsilon = 0.01, diagnostics.epsilon_from_eta(0.01)
print(f"eta = {eta} is epsilon = {epsilon}; on a variance of {v} chains have")
for name, k, h in (("with", 1, epsilon), ("without", 2, eta)):
    run = langevin(lambda x, _, k=k: k * gaussian.score(x), x, step_size=h, n_steps=600, generator=generator)
    print(f"  {name:7} the root of two {diagnostics.measured_variance(run, n_discard=200).value[0]:.3f}")

# %% [markdown]
# ## Taking the bias away: Metropolis
#
# The step is biased because it is finite. There is a cure that does not need $\epsilon \to 0$: take the step as a *proposal*, and
# accept it with a probability that makes the law exactly $p$ (`metropolis_langevin`). It needs the density too, up to its
# normaliser, where Langevin dynamics needs the score alone. And it has its own price: what is rejected stays where it was.

# %%
for ratio in (0.5, 2.0, 3.5, 6.0):
    x = gaussian.sample(2000, generator=generator)
    options = {"step_size": ratio * v, "n_steps": 300, "generator": generator}
    states = torch.stack([x, *metropolis_langevin(gaussian.log_prob, gaussian.score, x, **options)])
    biased = f"{diagnostics.stationary_variance(v, ratio * v):.3f}" if ratio < 4 else "runs away"
    accepted = (states[1:] != states[:-1]).float().mean()
    print(f"epsilon {ratio} v: variance {states.var():.3f} (untested {biased}), accepted {accepted:.0%}")

# %% [markdown]
# The variance is right at every step size, and even a step that would run away only gets rejected more often. A network gives no density,
# so with a learned score you are left with small steps.
#
# ## A test that needs no truth
#
# How can you tell that a chain is right when you do not know $p$, only its score? Once a chain has settled, $E\|x\|^2$ no longer changes
# from step to step. Write the step out, square it and take the mean, in $D$ dimensions. The noise $z_t$ is independent of $x_t$, so
#
# $$ E\|x_{t+1}\|^2 = E\|x_t\|^2 + \epsilon\, E[x_t \cdot s(x_t)] + \frac{\epsilon^2}{4}\, E\|s(x_t)\|^2 + \epsilon D . $$
#
# The first two means are equal, since the chain has settled. Divide the rest by $\epsilon D$:
#
# $$ -\frac1D\, E\left[ x \cdot s(x) + \frac{\epsilon}{4} \|s(x)\|^2 \right] = 1. $$
#
# It holds for every density, and for every step size at which the chain settles. `stein_numbers` gives $-\frac1D$ times the bracket
# for each chain; you look whether its mean is one. Try it on the three modes, and on chains with a mistake.

# %%
x = p.sample(4000, generator=generator)
one_mode = GaussianMixture(p.means[:1], p.covariances[:1]).sample(4000, generator=generator)
cases = [("right", 1, 0.2, x), ("root of two lost", 2, 0.1, x), ("drift without the half", 2, 0.2, x)]
for name, k, size, begin in [*cases, ("right, but all in one mode", 1, 0.2, one_mode)]:
    options = {"step_size": size, "n_steps": 200, "generator": generator}
    ends = final(langevin(lambda x, _, k=k: k * p.score(x), begin, **options))
    number = diagnostics.stein_numbers(p.score, ends, step_size=0.2)
    share = p.responsibilities(ends)[:, 0].mean()
    print(f"{name:26} {number.mean():.2f} ± {number.std() / 4000**0.5:.2f}; share of mode one {share:.2f}")

# %% [markdown]
# Both mistakes double the drift beside the noise, and move the number far from one. But look at the last line: chains that all
# started in the first mode pass, though that mode should hold 0.5 of them. They have settled *within* a mode, and the score there
# does not tell them of the others. Keep that in mind.
#
# ## Check yourself: predict the variance, and find where it diverges
#
# Complete `stationary(v, epsilon)`: the variance at which a chain on $N(0, v)$ settles, and `np.inf` where it never does. The check runs
# the recursion itself, for several `v` and `epsilon`, one pair at a time.

# %% tags=["exercise"]
import numpy as np

from checks import stepping


def stationary(v, epsilon):
    return v


stepping.stationary_variance(stationary)

# %% [markdown]
# The solution is in the next cell (collapsed in JupyterLab: click the bar at its left).


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(v, epsilon):
    f = 1 - epsilon / (2 * v)
    return epsilon / (1 - f**2) if abs(f) < 1 else np.inf  # the same as v / (1 - epsilon / (4 * v)) below 4 v


stepping.stationary_variance(solution)

# %% [markdown]
# You now have a sampler, its bias on a Gaussian to the last digit, and a test of it.
#
# **Next:** notebook 06 shows how it fails with a score learned where there was hardly any data, notebook 07 how it fails with the
# exact one.
