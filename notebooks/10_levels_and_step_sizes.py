# %% [markdown]
# # 10 · Choosing levels and step sizes
#
# Notebook 09 ended with a ladder of noise levels whose numbers had been chosen by looking at the two modes. Nobody can look at
# images in 3,072 dimensions. Song & Ermon (2020), *NCSNv2*, give five rules that need the data alone: the first level, the
# ratio of levels, the form of the network, the step size, and an average of the weights. You will apply each to handwritten
# digits, see what it costs and what breaks it, and hold the levels and the steps against the five configurations that were
# published. Running time: under 25 seconds on a laptop with two cores and no GPU.

# %% tags=["setup"]
import math

import torch
from sklearn.datasets import load_digits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from toyscore import diagnostics, losses, metrics, models, plotting, samplers, widgets
from toyscore.distributions import asymmetric, empirical
from toyscore.noise import geometric, levels

torch.set_num_threads(1)
digits = torch.tensor(load_digits().data / 16, dtype=torch.float32)  # [1797, 64], pixels in [0, 1]
SETS = {"digits": digits, "one not divided": torch.cat([digits, 16 * digits[:1]])}  # one more, forgotten

# %% [markdown]
# ## 1. The first level: the largest distance
#
# At $\sigma_1$ a chain must be able to get from any data point to any other. So let $\sigma_1$ be as large as the **largest
# distance** between two of them, $\max_{ij} \|x_i - x_j\|$: then the noise of one point reaches the other. It is a distance in
# all $D$ dimensions, not the range of a pixel, and it grows with $D$.
#
# It is also the number that a single bad image can spoil. A high quantile of the distances is safer, but not any: one point
# takes part in $2/N$ of all pairs, so only a quantile below $1 - 2/N$ can ignore it.

# %% tags=["setup"]
RULES, firsts = {"largest distance": None, "quantile 0.999": 0.999, "quantile 0.99": 0.99}, {}
for rule, q in RULES.items():
    for name, x in SETS.items():
        firsts[rule, name] = diagnostics.distance_quantile(x, q) if q else diagnostics.largest_distance(x)
        print(f"sigma_1 by the {rule}, {name}: {firsts[rule, name]:.2f}")

# %% [markdown]
# (`design_levels`, below, warns where one point in a thousand sets the first level.)
#
# ## 2. The ratio: neighbours must overlap
#
# In $D$ dimensions pure noise of deviation $\sigma$ does not fill a ball: its radius $r$ lies in a thin shell about
# $\sqrt{D}\, \sigma$, a few times $\sigma / \sqrt 2$ thick. A chain that has finished level $i$ sits in the shell of $\sigma_i$. If the
# shell of the next level does not overlap with it, the network has never seen such points at that level. NCSNv2 takes the
# radius for normal, $r \sim N(\sqrt D \sigma, \sigma^2/2)$, and asks for the chance that a radius of the lower level lies
# within three deviations of the shell of the level above; with the ratio $\gamma = \sigma_{i-1} / \sigma_i$ it is
#
# $$ \Phi\big(\sqrt{2D}(\gamma - 1) + 3\gamma\big) - \Phi\big(\sqrt{2D}(\gamma - 1) - 3\gamma\big) \approx \tfrac12, $$
#
# with $\Phi$ the distribution function of the standard normal. The exact law of the radius is chi with $D$ degrees of
# freedom. In many dimensions the two agree; in few they do not:

# %%
for dim in (5, 64, 3072):
    chi, normal = (diagnostics.level_ratio(dim, law=law) for law in ("chi", "normal"))
    print(f"D = {dim:5,}: an overlap of a half at ratio {chi:7.4f} by chi, {normal:7.4f} by the normal law")

# %% [markdown]
# Below $D = 5$ the normal law never falls to a half and would allow any ratio at all, and in the plane the exact one allows a
# ratio above 20. There it is not the overlap that limits a ladder but the time a level needs, and the freezing of notebook 09.
# The rule is one for many dimensions.

# %% tags=["setup"]
DIMS, overlaps = ("2", "64", "784", "3072"), [k / 10 for k in range(1, 10)]
ratios = {(dim, o): diagnostics.level_ratio(int(dim), overlap=o) for dim in DIMS for o in overlaps}


def ladder(first, ratio):
    return geometric(first, 0.02, 1 + math.ceil(math.log(first / 0.02) / math.log(ratio))).tolist()


# %% [markdown] tags=["predict"]
# **Predict first.** The digits have $D = 64$ pixels. By the rule "neighbours overlap by a half" they get 20 levels from the
# largest distance, 4.8, down to 0.02. Now imagine images of $D = 3072$ numbers with the same two ends. Does the ratio of
# neighbouring levels **grow or shrink**? And are there **fewer levels, twice as many, or seven times as many**? Then: what does
# one image with pixels up to 16 do to the ladder?

# %% tags=["live"]
figure, (left, right) = plotting.canvas(1, 2)
green, ticks = plotting.ROLES["annealed"].colour, [0.02, 0.1, 0.5, 2, 10, 50]
left.hist(torch.pdist(digits[:600]).numpy(), bins=40, color=plotting.ROLES["truth"].colour, alpha=0.6)
rungs = left.vlines([1.0], 0, 1, color=green, lw=1, alpha=0.8, transform=left.get_xaxis_transform())
left.set(xscale="log", xlim=(0.015, 80), yticks=[], xlabel="distance of two digits; σ")
left.set(xticks=ticks, xticklabels=ticks)
for dim, style in zip(DIMS, (":", "-", "-.", "--"), strict=True):
    right.plot([ratios[dim, o] - 1 for o in overlaps], overlaps, style, color="k", label=f"D = {dim}")
(mark,) = right.plot([], [], "D", ms=11, color=green)
right.set(xscale="log", xlim=(0.005, 5000), ylim=(0, 1), xlabel="ratio of levels, less 1", ylabel="overlap")
right.legend(loc="upper right", fontsize=11)


def draw(first_level, data, D, overlap):
    sigmas = ladder(firsts[first_level, data], ratio := ratios[D, overlap])
    rungs.set_segments([[(s, 0), (s, 1)] for s in sigmas])
    for dim, curve in zip(DIMS, right.lines, strict=False):
        curve.set_visible(dim == D or D != "64")  # after the vote
    mark.set(data=([ratio - 1], [overlap]), gid=f"An overlap of {overlap} at ratio {ratio:.4g}, D = {D}.")
    left.set_title(f"{len(sigmas)} levels, {5 * len(sigmas):,} score calls")
    left.set_gid(f"Levels from {sigmas[0]:.3g} to 0.02, each up to {ratio:.4g} times the next; 5 calls each.")


options = {"first_level": list(RULES), "data": list(SETS), "D": DIMS[1:] + DIMS[:1]}
choices = {name: widgets.Choice(values, values[0]) for name, values in options.items()}
view = widgets.panel(figure, draw, name="levels", **choices, overlap=widgets.Slider(0.1, 0.9, 0.5, step=0.1))
view

# %%
print(view.words)
for dim, top in [*((dim, 4.81) for dim in DIMS), ("64", 54.42)]:  # the last: one image not divided
    print(f"D = {dim}: ratio {ratios[dim, 0.5]:.4f}, levels from {top}: {len(ladder(top, ratios[dim, 0.5]))}")

# %% [markdown] tags=["answer"]
# The shell has a thickness that does not depend on $D$ and a radius that grows as $\sqrt D$. So the ratio shrinks towards 1,
# its excess about as $1/\sqrt D$, and the number of levels grows as $\sqrt D$: 48 times the dimensions, seven times the levels.
# And the forgotten division buys nine more levels, 29 for 20, all above 5, in which there is nothing to find.

# %% [markdown]
# ## 3. The network: divide by sigma
#
# The score of level $\sigma$ is about $\sqrt D / \sigma$ long (notebook 08). In the loss the weight $\sigma^2$ makes the levels
# count alike, but the network must still give arrows from 1.7 to 399 long. So let the network proper, $s_\theta$, give numbers of
# size one, and divide: $s(x, \sigma) = s_\theta(x) / \sigma$. (`MLP(sigmas=...)` does that, and tells the network the level
# besides.) The exact score of the smoothed digits:

# %%
p, noise = empirical(digits), torch.randn(digits.shape, generator=torch.Generator().manual_seed(0))
lengths = {s: p.score(digits + s * noise, s).norm(dim=1).mean() for s in (4.8, 0.5, 0.02)}
print(*(f"sigma {s}: the score is {n:.1f}, times sigma {s * n:.1f}" for s, n in lengths.items()), sep="\n")

# %% [markdown]
# ## 4. The step: what can T steps do?
#
# In noise alone, a level begins with the variance $\gamma^2 \sigma^2$ that the one above has left and should bring it to
# $\sigma^2$. With steps $\alpha = \epsilon \sigma^2 / \sigma_L^2$ each step multiplies $x$ by $1 - \alpha / 2\sigma^2$ and adds
# noise (notebook 05), so that after $T$ steps the variance is known: `relaxed_variance`. With $f = 1 - \epsilon / 2\sigma_L^2$
# it is, in units of $\sigma^2$,
#
# $$ f^{2T} \gamma^2 + (1 - f^{2T})\, \frac{\epsilon / \sigma_L^2}{1 - f^2}. $$
#
# The first term is what is left of the start, the second is where the chain settles. Too small an $\epsilon$ has not forgotten
# $\gamma^2$, too large a one widens; the rule takes the $\epsilon$ that comes nearest to $\sigma^2$. The whole design, for the
# digits:

# %% tags=["setup"]
design = diagnostics.design_levels(digits, sigma_min=0.02, n_steps_each=5)
plane = asymmetric().sample(1000, generator=torch.Generator().manual_seed(0))
print(f"{design}\n{diagnostics.design_levels(plane, sigma_min=0.1)}".replace("), ", "),\n  "))

# %% [markdown]
# The second one is for a toy in the plane with three modes: three levels, by the overlap; and five steps that leave nearly half
# too much variance. (Pass `n_levels=` to `design_ladder`, or more steps.)
#
# Look at the two variances, the rule's and the one at the end of the ladder. The rule supposes that each level begins with
# $\gamma^2 \sigma^2$, that is, that the one before ended as it should. It did not: it left a little too much, which is handed
# down. For the ladders as published:

# %%
NAMES, SIDES = ("CIFAR-10", "CelebA", "LSUN church", "LSUN bedroom", "FFHQ"), (32, 64, 96, 128, 256)
TOPS, COUNTS, STEPS = (50, 90, 140, 190, 348), (232, 500, 788, 1086, 2311), (5, 5, 4, 3, 3)
ETAS = (6.2e-6, 3.3e-6, 4.9e-6, 1.8e-6, 9e-7)
for name, side, top, n_levels, n, eta in zip(NAMES, SIDES, TOPS, COUNTS, STEPS, ETAS, strict=True):
    given = {"sigma_max": top, "sigma_min": 0.01, "dim": 3 * side**2, "n_steps_each": n, "law": "normal"}
    rule, found = diagnostics.design_ladder(**given), diagnostics.design_ladder(**given, n_levels=n_levels)
    variance = f"variance by the rule {found.relaxed:.3f}, at the end {found.inherited:.3f}"
    print(f"{name}: L {len(rule.sigmas)} : {n_levels}, eta {found.step_size / 2:.1e} : {eta:.1e}; {variance}")
print(f"step_lr = 2e-05 in the official image code is epsilon = {diagnostics.epsilon_from_eta(2e-5):g} here")

# %% [markdown]
# Three things to read there. (Left the rule, right what was published.) The published ladders have a few per cent more levels
# than an overlap of a half asks for. The variance that is left at the end of the ladder is larger than the rule says, in all
# five. And there are **two conventions**: here and in the paper of 2019 a step is $\frac{\epsilon}{2} s + \sqrt{\epsilon}\, z$; in
# NCSNv2, and in much code, it is $\eta s + \sqrt{2 \eta}\, z$ (and NCSNv2 calls $\epsilon$ what is $\eta$ here, at the last
# level). They are the same chain if $\epsilon = 2 \eta$; copy a number without asking which it is, and the steps are wrong by
# two. The published steps are the rule's $\eta$, but for LSUN church, where the number printed is about twice that, as if it
# were our $\epsilon$.
#
# ### Do samples come out?
#
# The designed ladder, 100 score calls, from pure noise, with the exact score of the smoothed digits in place of a network; then
# one step of denoising, $x + \sigma_L^2 s$. You see the end; press *play* for the way:

# %%
generator = torch.Generator().manual_seed(0)
x = design.sigmas[0] * torch.randn(200, 64, generator=generator)
options = {"step_size": design.step_size, "n_steps_each": 5, "denoise": True, "generator": generator}
states = [x, *samplers.annealed_langevin(p.score, x, design.sigmas, **options)]
figure_2, ax_2 = plotting.canvas(1, 1)
image = ax_2.imshow(plotting.mosaic(torch.zeros(36, 1, 8, 8)), origin="upper")
ax_2.set(xticks=[], yticks=[])


def draw_2(step):
    image.set_data(plotting.mosaic(states[step][:36].view(36, 1, 8, 8)))
    ax_2.set_title(f"σ = {design.sigmas[(max(step, 1) - 1) // 5]:.2g}" if step < 101 else "denoised")
    distance = p.nearest(states[step])[1].median()
    ax_2.set_gid(f"After {step} steps the nearest training digit is {distance:.2f} away (median).")


view_2 = widgets.panel(figure_2, draw_2, play="step", name="digits", step=widgets.Slider(0, 101, 101, step=1))
view_2

# %%
print(view_2.words)
index = p.nearest(states[-1])[0]
print(f"200 chains end at {len(index.unique())} digits, of {len(set(load_digits().target[index]))} classes")

# %% [markdown]
# They do, and they are *training* digits: the exact score of a data set has nowhere else to go. New digits would come from the
# errors of a network.
#
# ## 5. The weights: average them
#
# At a constant learning rate the weights $\theta$ of a network do not settle but wander about the minimum, and the samples
# wander with them. NCSNv2 samples with an **exponential moving average** of the weights,
#
# $$ \bar\theta \leftarrow m\, \bar\theta + (1 - m)\, \theta, $$
#
# which remembers about $1/(1 - m)$ steps. One training of a small network, three averages of it, and the exact Fisher
# divergence of each at the lowest level:

# %% tags=["setup"]
torch.manual_seed(0)
toy, sigmas, generator = asymmetric(), geometric(14.0, 0.2, 6), torch.Generator().manual_seed(0)
model = models.MLP(width=64, sigmas=sigmas, data_variance=10.0)
averages = {str(m): AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(m)) for m in (0.9, 0.99, 0.999)}
loss = losses.at_random_sigma(losses.denoising_score_matching, levels(sigmas))
adam = torch.optim.Adam(model.parameters(), lr=0.01)
x, history = toy.perturb(0.2).sample(2000, generator=generator), []
for step in range(1, 1501):
    adam.zero_grad()
    loss(model, toy.sample(64, generator=generator), generator=generator).mean().backward()
    adam.step()
    for average in averages.values():
        average.update_parameters(model)
    if step % 30 == 0:
        history.append([metrics.fisher_divergence(net, toy, x, 0.2) for net in (model, *averages.values())])
curves = dict(zip(("raw", *averages), torch.tensor(history).T, strict=True))

# %% [markdown] tags=["predict"]
# **Predict first.** A small network is trained for 1,500 steps at a constant learning rate; its error, the Fisher divergence,
# jumps up and down. Its weights are averaged over about the last 10, 100 or 1,000 steps ($m$ = 0.9, 0.99, 0.999). Which average
# is **best at the end**, and which **worse than no average at all**?

# %% tags=["live"]
figure_3, ax_3 = plotting.canvas(1, 1, size=5.6)
times, orange = range(30, 1501, 30), plotting.ROLES["learned"].colour
ax_3.plot(times, curves["raw"], color=orange, lw=1, label="the weights themselves")
(line,) = ax_3.plot([], [], color="black", lw=2.4, label="their average")
ax_3.set(yscale="log", xlim=(0, 1500), ylim=(0.3, 10), xlabel="step", ylabel="Fisher divergence at σ = 0.2")
ax_3.legend(loc="upper right")
ends = {m: curve[-10:].log().mean().exp() for m, curve in curves.items()}  # over the last 300 steps


def draw_3(m):
    line.set_data(times, curves[m])
    ax_3.set_title(f"m = {m}: about {ends[m]:.1g} at the end, raw {ends['raw']:.1g}")
    ax_3.set_gid("Fisher divergences, geometric means of the last 300 steps.")


view_3 = widgets.panel(figure_3, draw_3, name="averages", m=widgets.Choice(list(averages), "0.9"))
view_3

# %%
print(view_3.words)
print("at the end:", *(f"{m}: {end:.1g};" for m, end in ends.items()))

# %% [markdown] tags=["answer"]
# An average over some hundred steps takes the jumps out and is better than nearly every single state. One over a thousand still
# remembers the untrained network: it needs a training many times longer. (NCSNv2: $m = 0.999$ over hundreds of thousands of
# steps.) The other way to the same end is a learning rate that falls to nothing, which is what `train.fit` does.

# %% [markdown]
# ## Check yourself: design the levels
#
# Write `design_it(points, sigma_min, ratio)`. `points` is `[N, D]`. Return the `sigmas`, an array `[L]`: decreasing, geometric,
# the first the largest distance of two points, the last `sigma_min` exactly, with as few levels as possible while neighbours
# differ by a factor of at most `ratio`.

# %% tags=["exercise"]
import numpy as np

from checks import design as design_check


def design_it(points, sigma_min, ratio):
    return np.geomspace(np.ptp(points, axis=0).max(), sigma_min, 10)  # from the widest coordinate, ten levels


design_check.sigmas(design_it)

# %% [markdown]
# The solution is in the next cell (collapsed in JupyterLab: click the bar at its left).


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(points, sigma_min, ratio):
    first = np.sqrt(((points[:, None] - points) ** 2).sum(2).max())
    return np.geomspace(first, sigma_min, 1 + int(np.ceil(np.log(first / sigma_min) / np.log(ratio))))


design_check.sigmas(solution)

# %% [markdown]
# **The story in numbers.** Failure one (06): with two modes 13 apart and 10,000 points, a learned score is off by more than
# half on 0.23 of the box, and 0.28 of the chains started there end at another mode than with the exact score. Failure two (07):
# with the exact score, plain chains give the mode of weight 0.8 a share of 0.49, and would need some $3 \times 10^{11}$ steps
# to forget their start. The cure (09): learn the scores of all noise levels and walk down them. The share ends at 0.78, short
# of 0.80, because it freezes where gap × time falls below 1. This notebook chose the levels from the data.
#
# **Next:** notebook 11 takes ever more levels, until the ladder is continuous: a stochastic differential equation.
