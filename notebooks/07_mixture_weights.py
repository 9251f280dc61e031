# %% [markdown]
# # 07 · Failure 2: mixture weights
#
# In the last notebook the score was to blame: it had been learned, and where there was hardly any data it was wrong. Now the
# score is exact, everywhere, and the sampler fails all the same: it gives the modes the wrong weights. You will see by how
# much, say so beforehand without running a chain, and find the two causes.
#
# Running time: under 20 seconds on a laptop with two cores and no GPU.

# %% tags=["setup"]
import math
from itertools import islice

import torch

from toyscore import diagnostics, plotting
from toyscore.distributions import GaussianMixture, two_modes
from toyscore.metrics import mode_weight_errors, mode_weights
from toyscore.samplers import final, langevin
from toyscore.widgets import Slider, panel

torch.set_num_threads(1)  # tiny tensors are fastest on one thread


def pair(a, w):
    return GaussianMixture([[a], [-a]], 1.0, [w, 1 - w])


# %% [markdown]
# ## The failure
#
# The toy of the paper has 0.8 of its mass around (5, 5) and 0.2 around (-5, -5). Like its Figure 3, start 1,280 chains anywhere
# in the square, and let them take 1,000 steps along the exact score.

# %%
p, generator = two_modes(), torch.Generator().manual_seed(0)
start = 16 * torch.rand(1280, 2, generator=generator) - 8
ends = final(langevin(p.score, start, step_size=0.1, n_steps=1000, generator=generator))
print(f"weight 0.8, share of chains {mode_weights(ends, p)[0]:.3f} ± {mode_weight_errors(ends, p)[0]:.3f}")

# %% [markdown]
# Within each mode the samples are right, up to the bias of a finite step (notebook 05; the figure `ncsn-fig3` of the
# [gallery](../figures/README.md) shows the clouds). But the share of the chains in the first mode is about one half instead of
# 0.8, and no plot of a single mode would tell you.
#
# ## Are the weights in the score at all?
#
# Some texts say that the score of a mixture is the sum of its components' scores and so does not depend on the weights. Both
# halves are wrong. The score is the responsibility-weighted **mean** of the components' scores, $s(x) = \sum_k r_k(x)\, s_k(x)$,
# and responsibilities contain the weights. For unit modes at $a$ and $-a$ with weights $w$ and $1 - w$, both pulls are simple,
# $s_1 = a - x$ and $s_2 = -a - x$, and so
#
# $$ s(x) = -x + a\,(r_1 - r_2), \qquad r_1 - r_2 = \tanh(a x + \ell), \qquad \ell = \tfrac12 \log \frac{w}{1 - w}, $$
#
# because $\log (r_1/r_2) = 2 a x + 2\ell$. There is the weight: in $\ell$. It moves the place where $\tanh$ turns from $-1$ to $1$,
# the **watershed** $x = -\ell/a$, and does nothing else. Where $\tanh$ is $\pm 1$ to all digits, the weight has dropped out.


# %%
for a in (1.0, 3.0):
    x = torch.tensor([[a], [0.0], [2 * a]])
    for w in (0.8, 0.2):
        by_hand = a * torch.tanh(a * x + math.log(w / (1 - w)) / 2) - x
        at_mode, between, far = pair(a, w).score(x)[:, 0].tolist()
        assert torch.allclose(by_hand, pair(a, w).score(x), atol=1e-5)
        print(f"a = {a:g}, w = {w}: at the mode {at_mode:z6.3f}, between {between:z6.3f}, beyond {far:z6.3f}")
    print(f"       the *sum* of the scores would be {-2 * a:g}, 0 and {-4 * a:g}")

# %% [markdown]
# Compare the two lines of each $a$. At $a = 1$ the weights are visible everywhere. At $a = 3$ they have gone from the modes and
# from beyond them; only between the modes do they show, and there the data have next to no mass. So weights drop out of the score
# where the data are, once the components are nearly disjoint. (The sum is wrong altogether: it would push samples out of the mode
# that they are in.)
#
# ## Cause one: where the data are, the score is blind
#
# Take the toy with weights 0.8 : 0.2 and the same with 0.5 : 0.5. How far apart are they? The Kullback-Leibler divergence, the
# mean of $\log (p/q)$ over $p$, here with $q$ the second density, sees the weights; the Fisher divergence, which every
# score-matching objective minimises, hardly does. (A natural logarithm of densities is counted in *nats*. The figure
# `fisher-blindness` of the [gallery](../figures/README.md) draws both divergences.)

# %%
blind = diagnostics.weight_blindness(p, [0.5, 0.5], [0.0, 1.0, 3.0, 6.0])
for sigma, kl, fisher in zip(blind.sigmas, blind.kl, blind.fisher, strict=True):
    print(f"sigma = {sigma:g}: KL {kl:.4f} nats, Fisher {fisher:.2g}")
line, basis = diagnostics.reduce(p)
box = diagnostics.uniform_cloud(-8, 8, 2, n=400)
box = diagnostics.Cloud(box.points @ basis.double(), box.masses)
law = final(diagnostics.propagate(line, box, [diagnostics.Stage(0.0, 0.1, 1000)]))
nearer = box.masses @ line.responsibilities(box.points)[:, 0]
print(f"of the square, {nearer:.3f} is on the side of the larger mode", end="; ")
print(f"of the chains, predicted, {law.mode_weights(line)[0]:.3f} end there")

# %% [markdown]
# A network trained on clean data would get the modes right and learn next to nothing of their weights. But here the score is
# exact, and knows them: by the place of the watershed. What can a chain make of that? It falls to the side on which it starts.
# So its share is that of the *start* on that side, and the last line says it twice: by the share of the square on either side,
# and by the law of the chain, carried along on a grid for all 1,000 steps (`propagate`) without a random number. Both are half
# and a little. That little is all that the weights 0.8 : 0.2 do.
#
# ## Cause two: hops are exponentially rare
#
# A chain that crossed from mode to mode often enough would forget its start, and the shares would become right. How often does
# it? Let $k_{12}$ be the rate of hops from the first mode to the second and $k_{21}$ that of the way back, in a time of
# $\epsilon$ per step. The share $u(t)$ of the chains in the first mode follows $\dot u = -k_{12} u + k_{21} (1 - u)$. It rests
# at $u = k_{21}/(k_{12} + k_{21})$, which must be the weight $w$, so
#
# $$ u(t) = w + (u_0 - w)\, e^{-\lambda t}, \qquad \lambda = k_{12} + k_{21}. $$
#
# $\lambda$ is the **spectral gap** of Langevin dynamics, and `spectral_gap` computes it from the density. (It has nothing to do
# with the gap between modes in notebook 06; here their distance is $2a$.) In the panel, modes are at $\pm a$ on a line, and 400
# chains start evenly on $[-8, 8]$, so that $u_0 = \frac12 + \ell/16a$.

# %% tags=["setup"]
start = ((torch.arange(400) + 0.5) / 25 - 8)[:, None]
grid = [(k / 2, j / 10) for k in range(2, 11) for j in range(5, 10)]
far, weight = torch.tensor(grid).repeat_interleave(400, 0).T[..., None]  # [18000, 1] each: all chains at once
tilt, start = torch.logit(weight) / 2, start.repeat(len(grid), 1)
options = {"step_size": 0.1, "n_steps": 1000, "generator": torch.Generator().manual_seed(7)}
chain = langevin(lambda x, _: far * torch.tanh(far * x + tilt) - x, start, **options)
states = torch.stack([start, *islice(chain, 9, None, 10)])  # every tenth
shares = torch.sigmoid(2 * (far * states + tilt)).view(101, -1, 400).mean(2).numpy()
states = states.view(101, -1, 400)
gaps = [diagnostics.spectral_gap(pair(a, w)) for a, w in grid]

# %% [markdown] tags=["predict"]
# **Predict first.** Two modes of width 1 stand at $\pm a$, with weights $w$ and $1 - w$. Chains start evenly spread and follow
# the exact score. Doubling the distance, from $a = 2$ to $a = 4$: how many times longer must the chains run until the shares are
# right? About *2*, *4*, *20*, or *200* times? Vote; then set *a* to both: the left title says when half of the start is
# forgotten.

# %% tags=["live"]
figure, (left, right) = plotting.canvas(1, 2)
axis, edges, ticks = torch.linspace(-8, 8, 321)[:, None], torch.linspace(-8, 8, 41), range(0, 1001, 10)
exact, chains = plotting.ROLES["truth"], plotting.ROLES["plain"]
bars = left.stairs([0.0] * 40, edges, fill=True, color=chains.colour, alpha=0.6, label="chains")
(curve,) = left.plot([], [], color=exact.colour, linewidth=2.5, label="exact density")
left.set(xlim=(-8, 8), ylim=(0, 0.6), xlabel="x", xticks=range(-8, 9, 4))
truth = right.axhline(0.8, color=exact.colour, linewidth=2.5, label="weight")
(counted,) = right.plot([], [], color=chains.colour, linewidth=2.5, label="chains")
(theory,) = right.plot([], [], "k--", label="predicted")
right.set(xlim=(0, 1000), ylim=(0.4, 1.2), xlabel="step", ylabel="share at right", yticks=[0.4, 0.6, 0.8, 1])
for ax in (left, right):
    ax.legend(loc="upper left")


def draw(a, weight, step):
    k, n = grid.index((a, weight)), step // 10
    before = 0.5 + math.log(weight / (1 - weight)) / (32 * a)
    predicted = [weight + (before - weight) * math.exp(-gaps[k] * 0.1 * t) for t in ticks]
    density = pair(a, weight).log_prob(axis).exp()
    curve.set_data(axis[:, 0].numpy(), density.numpy())
    bars.set_data(torch.histc(states[n, k], 40, -8, 8).numpy() / 160)
    counted.set_data(ticks[: n + 1], shares[: n + 1, k])
    theory.set_data(ticks, predicted)
    truth.set_ydata([weight, weight])
    left.set_title(f"gap {gaps[k]:.2g}: half forgotten in {math.log(2) / gaps[k] / 0.1:,.0f} steps")
    right.set_title(f"share {shares[n, k]:.2f}, predicted {predicted[n]:.2f}, weight {weight:g}")
    left.set_gid(f"400 chains after {step} steps, and the density of modes at ± {a:g}.")
    right.set_gid(f"Predicted to go from {before:.2f} to {predicted[-1]:.2f} in 1,000 steps.")


places, weights = Slider(1.0, 5.0, 3.0, step=0.5), Slider(0.5, 0.9, 0.8, step=0.1)
steps = Slider(0, 1000, 1000, step=10)
view = panel(figure, draw, play="step", name="mixture-weights", a=places, weight=weights, step=steps)
view

# %%
print(view.words)
rates = {a: diagnostics.spectral_gap(pair(a, 0.8)) for a in (1.0, 2.0, 3.0, 4.0, 5.0, 50**0.5)}
for a, rate in rates.items():
    print(f"a = {a:.2f}: gap {rate:.2g}, 1 / gap = {float(f'{10 / rate:.2g}'):,.0f} steps")
print(f"from a = 2 to a = 4 a chain must run {rates[2.0] / rates[4.0]:.0f} times longer")
spread = diagnostics.uniform_cloud(-8, 8, 1, n=4000)
print("shares after 1,000 steps at weight 0.5, 0.8, 0.9; that at 0.8 by the law of the chain, and predicted")
for a in (1.0, 3.0, 4.0, 5.0):
    found = ", ".join(f"{shares[-1, grid.index((a, w))]:.2f}" for w in (0.5, 0.8, 0.9))
    end = final(diagnostics.propagate(pair(a, 0.8), spread, [diagnostics.Stage(0.0, 0.1, 1000)]))
    told = 0.8 + (0.5 + math.log(4) / (32 * a) - 0.8) * math.exp(-rates[a] * 100)
    print(f"a = {a:g}: {found}; {end.mode_weights(pair(a, 0.8))[0]:.3f}, {told:.3f}")
print(f"a share of 400 chains has a standard error of at most {0.5 / 400**0.5:.3f}")

# %% [markdown] tags=["answer"]
# 1. **From a = 2 to a = 4** it takes nearly 200 times longer. For large $a$ the gap falls like $a\,e^{-a^2/2}$ (the law of Eyring
#    and Kramers, `eyring_kramers`): the exponential is the density at the pass between the modes, relative to that at the modes.
#    For the paper's toy, where $a = \sqrt{50}$, one over the gap is longer than anyone can wait.
# 2. **Set a = 5 and change the weight.** The exact density changes, the chains hardly do. Only $a \le 3$ or so lets the weight
#    in: at weight 0.9 the shares at $a = 1, 3, 4, 5$ are 0.90, 0.77, 0.55 and 0.52.
# 3. **At a = 1**, step through the first 50 steps: the prediction is early, because chains from far away first have to fall into
#    a mode. From $a = 3$ on what you see between the two is mostly chance: the share of 400 chains has a standard error of up to
#    0.025, so that twice that is nothing unusual. And the law of the chain, carried along without sampling, ends where the
#    prediction does, at 0.677 and 0.680 for $a = 3$.

# %% [markdown]
# ## What a chain remembers
#
# The change of the chains' law is linear in the law, like that of a vector under a matrix. Write the law as $p$ times a function.
# Then the constant is one eigenfunction, with rate 0: $p$ stays $p$. The gap is the next smallest rate, and its eigenfunction
# $\varphi$ says *what* is forgotten so slowly: a law $p\,(1 + c\,\varphi)$ turns into $p\,(1 + c\,e^{-\lambda t} \varphi)$. Here
# it is with the label of the mode, scaled alike: mean 0 and variance 1.

# %% tags=["setup"]
slow = {k / 2: diagnostics.slow_modes(pair(k / 2, 0.8)) for k in range(2, 11)}
at_modes = {a: [m.functions[0][(m.axes[0] - b).abs().argmin()] for b in (-a, a)] for a, m in slow.items()}

# %% [markdown] tags=["predict"]
# **Predict first.** A chain forgets most things fast, and one thing slowly. This is the function of $x$ that it forgets most slowly,
# for modes at $\pm 1$. As they move apart, what will it look like: a *straight line*, a *wave*, or a *step*? Vote; then press *play*.

# %% tags=["live"]
figure, ax = plotting.canvas(size=4.8)
(shape,) = ax.plot([], [], color=plotting.ROLES["truth"].colour, linewidth=2.5, label="slowest eigenfunction")
(label,) = ax.plot([], [], "k--", label="label of the mode")
ax.set(xlim=(-8, 8), ylim=(-3, 3), xlabel="x")
ax.legend(loc="upper left")


def draw_two(a):
    x, f, cut = slow[a].axes[0], slow[a].functions[0], -math.log(4) / (2 * a)
    shape.set_data(x.numpy(), f.numpy())
    label.set(data=([-8, cut, cut, 8], [-2, -2, 0.5, 0.5]), visible=a > 1)  # after the vote
    ax.set_title(f"a = {a:g}: gap {float(slow[a].rates[0]):.2g}")
    ax.set_gid("At the modes it is {:.2f} and {:.2f}.".format(*at_modes[a]))


view_2 = panel(figure, draw_two, play="a", name="slow-mode", a=Slider(1.0, 5.0, 1.0, step=0.5))
view_2

# %%
print(view_2.words)
print(*("a = {:g}: {:.2f} and {:.2f} at the modes;".format(a, *at_modes[a]) for a in (2.0, 3.0, 5.0)))

# %% [markdown] tags=["answer"]
# It becomes the label: flat on each mode, $\sqrt{(1-w)/w}$ on one and $-\sqrt{w/(1-w)}$ on the other, with a step at the
# watershed. Everything else is forgotten quickly, so within a mode the samples are right; *which* mode is what a chain remembers.

# %% [markdown]
# ## Counting hops
#
# You can measure the gap from chains. In equilibrium as many chains hop one way as the other, $w\,k_{12} = (1 - w)\,k_{21}$.
# With $\lambda = k_{12} + k_{21}$ that gives $k_{12} = (1 - w) \lambda$ and $k_{21} = w \lambda$. All hops of a chain, both
# ways, come at the rate
#
# $$ w\,k_{12} + (1 - w)\,k_{21} = 2\, w\, (1 - w)\, \lambda. $$
#
# A chain that jitters on the pass has not hopped. So a chain keeps its label until it enters the *core* of the other mode, an
# ellipsoid around its mean that holds most of the mode's mass. `hop_rate` counts like that.

# %%
pairs = pair(3.0, 0.8)
begin = pairs.sample(2000, generator=generator)
chain = langevin(pairs.score, begin, step_size=0.04, n_steps=2000, generator=generator)
found = diagnostics.hop_rate(chain, pairs, step_size=0.04, n_discard=200)
print(f"{found.n_hops} hops: gap {found.gap:.4f}, 95% from {found.low:.4f} to {found.high:.4f}", end="; ")
print(f"exact {rates[3.0]:.4f}")

# %% [markdown]
# ## Check yourself: the gap from labels
#
# Complete `my_gap(labels, weight, step_size)`. `labels` is an integer array `[T, B]`: for each of T states, one step apart, and
# each of B chains, the mode whose core it was in last, 1 for the mode of weight `weight` and 0 for the other. A step takes the
# time `step_size`. Count the hops and turn them into an estimate of $\lambda$.

# %% tags=["exercise"]
from checks import hops


def my_gap(labels, weight, step_size):
    return (labels[1:] != labels[:-1]).sum()


hops.gap(my_gap)

# %% [markdown]
# The solution is in the next cell (collapsed in JupyterLab: click the bar at its left).


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(labels, weight, step_size):
    n_hops = (labels[1:] != labels[:-1]).sum()
    time = (labels.shape[0] - 1) * labels.shape[1] * step_size  # T - 1 steps in each of B chains
    return n_hops / (time * 2 * weight * (1 - weight))


hops.gap(solution)

# %% [markdown]
# Both causes point to one cure. Blur the data with noise of standard deviation $\sigma$, and the Fisher divergence is no longer blind
# to the weights: that was the table above, from $\sigma = 3$ on. And the pass between the modes fills up, so that chains hop:

# %%
for sigma in (0.0, 2.0, 4.0, 6.0):
    print(f"sigma = {sigma:g}: gap of the toy {diagnostics.spectral_gap(line, sigma=sigma):.2g}")

# %% [markdown]
# (At $\sigma = 6$ the modes have merged; what is left to wait for is the way across one wide hill.) So sample the blurred density
# first, and then blur less and less. That is annealed Langevin dynamics, and where this course is going.
#
# **Next:** notebook 08 has one more reason for noise: data that fill no volume have no score at all.
