# %% [markdown]
# # 02 · Fisher divergence and exact score matching
#
# In notebook 01 you wrote the score of a density that you knew. Now the density is unknown: all there is are points drawn from it,
# and a network $s_\theta$ with parameters $\theta$ that is to become their score. How far is it from the true score $s$? On average over
# the data, half the squared distance,
#
# $$ F(\theta) = \tfrac12\, E_p \| s_\theta(x) - s(x) \|^2, $$
#
# the **Fisher divergence**. It cannot be computed from points, since nobody hands you $s$. You will see how one integration by
# parts removes $s$ from it, hold the result against the truth to the sixth digit, watch a network learn by it, and then write it yourself.
# Running time: under 25 seconds on a laptop with two cores and no GPU.

# %% tags=["setup"]
import torch

from toyscore import plotting
from toyscore.diagnostics import objective_identities, quadrature
from toyscore.distributions import asymmetric
from toyscore.losses import explicit_score_matching, implicit_score_matching
from toyscore.models import MLP
from toyscore.train import fit
from toyscore.widgets import Choice, Slider, panel

torch.set_num_threads(1)  # tiny tensors are fastest on one thread
mixture = asymmetric()  # three unequal modes: the data

# %% [markdown]
# ## One integration by parts
#
# Take one dimension, and multiply out the square:
#
# $$ F = E_p\big[\tfrac12 s_\theta^2\big] - E_p[s_\theta\, s] + E_p\big[\tfrac12 s^2\big]. $$
#
# The first term needs only the network and points. The last one needs the truth, but there is no $\theta$ in it. The middle term is the
# problem. But $s$ is a logarithmic derivative, $p\,s = p\,(\log p)' = p'$, and so
#
# $$ E_p[s_\theta\, s] = \int p\, s\, s_\theta\, dx = \int p'\, s_\theta\, dx
# = \Big[\,p\, s_\theta\,\Big]_{\,-\infty}^{\,\infty} - \int p\, s_\theta'\, dx = -E_p[s_\theta']. $$
#
# The bracket is zero if $p\,s_\theta$ vanishes at infinity. In $D$ dimensions do this for each coordinate and add up: the derivatives
# $\partial s_{\theta,i} / \partial x_i$ make the trace of the Jacobian. With $J(\theta)$ for what can be computed,
#
# $$ J(\theta) = E_p\big[\tfrac12 \|s_\theta\|^2 + \mathrm{tr}(\partial s_\theta / \partial x)\big],
# \qquad J(\theta) = F(\theta) - \tfrac12 E_p\|s\|^2. $$
#
# This is **exact score matching** (Hyvärinen 2005; Eq. 1 of Song & Ermon 2019). The constant $-\frac12 E_p\|s\|^2$ belongs to the data: it
# does *not* change with $\theta$. So $\nabla_\theta J = \nabla_\theta F$, with the same sign, and descending on $J$ descends on $F$.
#
# Read the two terms. The first pulls the arrows to zero. The second is the divergence of the field, and rewards arrows that run
# together: at the data points. A balance of the two is the score.
#
# Is it true? Here $p$ is a known mixture, so both sides are integrals, which `quadrature` does on a grid, without sampling.
# The network is untrained: the equation holds for any $\theta$.

# %%
torch.manual_seed(0)
network, exact = MLP(width=16).double(), mixture.to(dtype=torch.float64)
points, masses = quadrature(exact)
F = masses @ explicit_score_matching(network, points, target=exact.score)
J = masses @ implicit_score_matching(network, points)
constant = -masses @ exact.score(points).square().sum(1) / 2
print(f"{len(points):,} points: F = {F:.6f}, J = {J:.6f}, constant = {constant:.6f}", end=", ")
print(f"J - F - constant = {abs(J - F - constant):.6f}")
weights = list(network.layers[:2].parameters())
slope, ours = (torch.cat([g.flatten() for g in torch.autograd.grad(value, weights)]) for value in (F, J))
cosine = torch.cosine_similarity(slope, ours, dim=0)
print(f"gradients of F and of J: cosine {cosine:.6f}, ratio of lengths {ours.norm() / slope.norm():.6f}")

# %% [markdown]
# ## Where it fails
#
# The bracket must vanish. Take points spread evenly over $[-1, 1]$: inside, the density is constant and the score is 0. But the
# density ends in cliffs, and the bracket stays. Try the fields $s_\theta(x) = -c\,x$. Then $J = \frac12 c^2 E[x^2] - c$ with
# $E[x^2] = 1/3$, least at $c = 3$; the true score has $c = 0$. Score matching finds a pull to the middle that is not there.

# %%
c = torch.arange(0, 6.01, 0.5)
J_flat, F_flat = c**2 / 6 - c, c**2 / 6
print(f"least J at c = {c[J_flat.argmin()]:g}, least F at c = {c[F_flat.argmin()]:g}")

# %% [markdown]
# Data with edges, on a grid of grey values, or on a surface without volume: all break the condition. Noise mends it: notebook 03.
#
# ## The same minimum, five ways
#
# The trace is not the only way round the unknown score. The library has five objectives. *Explicit* is $F$ itself, told the truth;
# *implicit* is $J$; *sliced* and *finite difference* (notebook 04) estimate its trace along random directions; *denoising* is notebook
# 03. All have $F$ as expectation, up to a constant free of $\theta$ (finite difference up to the square of its small step).
# Denoising needs noise, so here the data is perturbed with $\sigma = 0.5$, and $F$ is taken against the score of the perturbed data.
# `constant` is each objective's own, and `left over` is the value less $F$ and less the constant, beside its standard error: these
# are means over 20,000 draws, not integrals.

# %%
torch.manual_seed(0)
table = objective_identities(MLP(width=16), mixture, sigma=0.5, generator=torch.Generator().manual_seed(0))
for name, found in table.items():
    sides = f"{found.value:6.2f} = F {found.fisher:.2f} + constant {found.constant:5.2f}"
    print(f"{name:18}{sides}, left over {found.residual:6.3f} ± {found.residual_error:.3f}")

# %% [markdown]
# One network, one $F$, and losses from 0.46 to 4.47. Losses of different objectives cannot be compared, nor can those of different data.
#
# ## Watch it learn
#
# Three networks of the same depth, with 4, 16 and 64 units a layer, are trained on $J$ with batches of 128 points of the clean
# mixture. `fit` is a generator: it yields after every step, and you take what you want. Here: the loss of the batch, and now and then
# a snapshot of the field and the exact $F$, by quadrature. (The next cell takes some seconds.)

# %% tags=["setup"]
points, masses = (t.float() for t in quadrature(mixture, nodes_per_std=2))
truth, floor = mixture.score(points), -float(masses @ mixture.score(points).square().sum(1)) / 2
cells, places = plotting.grid(n=64), plotting.grid(n=16)  # for the error map, for the arrows
steps, runs = list(range(0, 601, 20)), {}


def snapshot(model):
    with torch.no_grad():
        return model(cells), model(places), float(masses @ (model(points) - truth).square().sum(1)) / 2


for width in (4, 16, 64):
    torch.manual_seed(0)
    model, losses = MLP(width=width), []
    shots = [snapshot(model)]
    for step in fit(model, mixture, implicit_score_matching, n_steps=600, lr=0.03):
        losses.append(float(step.loss))
        if step.step in steps:
            shots.append(snapshot(model))
    runs[f"{width}"] = losses, *zip(*shots, strict=True)

# %% [markdown] tags=["predict"]
# **Predict first.** Left: the true arrows (broad, blue, with a white rim) and the learned ones (thin, orange) over a map of the relative
# error, pale for none, dark for 100%; the line encloses 99% of the data. This is step 100 with 16 units. Training goes on to step 600.
# Where will the learned arrows stay wrong: on the modes, between and outside the modes, or nowhere once there are 64 units? And can you
# tell from the loss (middle) when to stop?

# %% tags=["live"]
figure, (field, middle, right) = plotting.canvas(1, 3, size=4.0)
on_cells, looks = mixture.score(cells), plotting.ROLES
view_of = plotting.field_comparison(field, lambda x, _: torch.zeros_like(x), mixture.score, n=64)
view_of.contour.remove()
data = mixture.sample(20_000, generator=torch.Generator().manual_seed(0))
level = float(mixture.log_prob(data).quantile(0.01))
inside = mixture.log_prob(cells) > level
axis, logs = cells[:64, 1].numpy(), mixture.log_prob(cells).view(64, 64).mT.numpy()
field.contour(axis, axis, logs, levels=[level], colors="black", linewidths=1.2, linestyles="solid")
scale = plotting.arrow_scale(mixture.score(places).norm(dim=1), n=16)
style = {"color": looks["implicit"].colour, "marker": looks["implicit"].marker, "markevery": 50}
(of_batches,) = middle.plot([], [], **style, linewidth=0.8, label="loss of a batch")
middle.axhline(floor, color="black", linestyle="--", label="the loss at F = 0")
middle.set(xlim=(0, 600), ylim=(-4.2, 2.2), xlabel="step")
middle.legend(loc="upper right")
(divergence,) = right.semilogy([], [], color=looks["learned"].colour)
(now,) = right.plot([], [], "s", color=looks["learned"].colour, markersize=9)
right.set(xlim=(-15, 615), ylim=(0.02, 5), xlabel="step", yticks=[0.1, 1], yticklabels=["0.1", "1"])


def off(width, n):
    error = (runs[width][1][n] - on_cells).norm(dim=1) / on_cells.norm(dim=1)
    return error, *(float((e > 0.5).float().mean()) for e in (error, error[inside]))


def draw(step, width):
    losses, _, arrows, fisher = runs[width]
    n = step // 20
    error, share, within = off(width, n)
    view_of.image.set_data(error.view(64, 64).mT.numpy())
    view_of.image.set_gid(
        f"The error is over 50% on {share:.0%} of the box, {within:.0%} of the area inside the line."
    )
    form = {"role": "learned", "n": 16, "scale": scale, "update": view_of.learned}
    plotting.vector_field(field, lambda *_: arrows[n], **form)
    view_of.learned.set_gid(f"16 x 16 learned arrows, median norm {arrows[n].norm(dim=1).median():.2g}.")
    field.set_title(f"error > 50%: {share:.0%} of box, {within:.0%} inside line", fontsize=11)
    of_batches.set_data(range(step), losses[:step])
    latest = losses[max(0, step - 20) : step] or losses[:1]
    recent = sum(latest) / len(latest)
    middle.set_title(f"loss J, about {recent:.1f}")
    middle.set_gid(f"The loss after {step} steps is about {recent:.1f}; at the true score it is {floor:.1f}.")
    divergence.set_data(steps[: n + 1], fisher[: n + 1])
    now.set_data([step], [fisher[n]])
    right.set_title(f"Fisher divergence F = {fisher[n]:.2g}")
    right.set_gid(f"F fell from {fisher[0]:.2g} to {fisher[n]:.2g} in {step} steps.")


view = panel(
    figure,
    draw,
    play="step",
    name="exact-score-matching",
    step=Slider(0, 600, 100, step=20),
    width=Choice(list(runs), "16"),
)
view

# %%
print(view.words)
for width, (losses, _, _, fisher) in runs.items():
    print(f"{width:>2} units, the loss at the true score is {floor:.1f}:")
    for n in (200, 600):
        last, (_, share, within) = torch.tensor(losses[n - 20 : n]), off(width, n // 20)
        print(f"  step {n}: F = {fisher[n // 20]:.2g}", end="; ")
        print(f"loss of the last 20 batches {last.mean():.1f}, give or take {last.std():.1f} each")
        print(f"        off by over 50% on {share:.0%} of the box, {within:.0%} of the area inside the line")

# %% [markdown] tags=["answer"]
# Three things to see.
#
# 1. **Arrows stay wrong where there is no data.** *Play* the step with 16 units. $F$ is an average over $p$: what happens where $p$ is
#    nothing costs nothing. The error clears inside the line almost wholly, to 1%; of the whole box 23% stays wrong at step 600, with 16
#    units and with 64 alike. A sampler that starts outside is led astray; that is what noise will be for.
# 2. **A low loss is not a good score.** A loss of $-1.5$ says nothing: you need to know the loss at the true score, the dashed line,
#    and for real data you do not. And the loss of a batch jumps: with 64 units $F$ falls nearly tenfold from step 200 to step 600,
#    while the loss moves by about the size of its jumps. Here the truth is known, so look at $F$.
# 3. **Too small a network stays wrong** with any patience: change *width* to 4. Its loss alone does not say so.

# %% [markdown]
# ## Check yourself: the trace form
#
# Complete the function. You get, at the points of a grid: `s` `[N, 2]`, the values of some field that is nobody's score, its `jacobian`
# `[N, 2, 2]`, the `truth` `[N, 2]`, and the `masses` `[N]` of the points, which sum to one, so that `masses @ f` is $E_p f$. Return two
# numbers: $J$, computed without `truth`, and the constant $J - F$, computed from `truth` and `masses` alone. The check computes $F$ by
# itself, and wants six digits.

# %% tags=["exercise"]
import numpy as np

from checks import trace


def my_trace_form(s, jacobian, truth, masses):
    J = masses @ (0.5 * (s**2).sum(1) + jacobian.sum((1, 2)))
    return J, 0.0


trace.trace_form(my_trace_form)

# %% [markdown]
# The solution is in the next cell (collapsed in JupyterLab: click the bar at its left).


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(s, jacobian, truth, masses):
    J = masses @ (0.5 * (s**2).sum(1) + np.trace(jacobian, axis1=1, axis2=2))
    return J, -0.5 * masses @ (truth**2).sum(1)


trace.trace_form(solution)

# %% [markdown]
# The trace took the derivative of the network along each of its coordinates: two in the plane, 64 for the digits of notebook 08.
#
# **Next:** notebook 03 avoids it by adding noise, which makes a target that needs no derivative; notebook 04 by looking along random
# directions.
