# %% [markdown]
# # 03 · Denoising score matching
#
# Notebook 02 fitted a network to a score that nobody can see, at the price of a derivative along every coordinate. Here is another
# way, without any derivative: add noise to the data. Then there is a target to aim at, one per example, and score matching becomes
# plain least squares. It is how most score models are trained today.
#
# You will see why the target of a single example is nearly always far off and still right on average, why the loss never reaches zero
# and grows without bound as the noise shrinks, and what it is that is learned. Then you write the target yourself.
# Running time: under 25 seconds on a laptop with two cores and no GPU.

# %% tags=["setup"]
import torch

from toyscore import plotting
from toyscore.diagnostics import quadrature
from toyscore.distributions import GaussianMixture, asymmetric
from toyscore.losses import denoising_score_matching
from toyscore.metrics import fisher_divergence
from toyscore.models import MLP
from toyscore.samplers import tweedie
from toyscore.train import fit
from toyscore.widgets import Choice, Slider, Toggle, panel

torch.set_num_threads(1)  # tiny tensors are fastest on one thread
mixture = asymmetric()  # three unequal modes: the clean data

# %% [markdown]
# ## A target for free
#
# Take a clean point $x$ and add noise, $\tilde x = x + \sigma z$ with $z$ standard normal. Given $x$, the density of $\tilde x$
# is $q_\sigma(\tilde x \,|\, x) = N(\tilde x; x, \sigma^2 I)$, whatever the data. Its logarithm is
# $-\|\tilde x - x\|^2 / 2\sigma^2$ plus a constant, and its gradient in $\tilde x$ is
#
# $$ t(\tilde x, x) := \nabla_{\tilde x} \log q_\sigma(\tilde x \,|\, x) = -\frac{\tilde x - x}{\sigma^2} = -\frac{z}{\sigma}, $$
#
# the *target*.
#
# Mind the sign: the target points *back* to the clean point. And mind the power: $\tilde x - x$ is divided by $\sigma^2$, but it
# already holds one $\sigma$, so $z$ is divided by $\sigma$. Units tell you: a score is one over a length, $z$ has none. The library's
# score of a single point with noise, a mixture of one component without variance, says the same:

# %%
x, sigma, z = torch.tensor([[1.0, -2.0]]), 0.5, torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
score = GaussianMixture(x, 0.0).score(x + sigma * z, sigma)
print("score of the noisy point", score, "-z / sigma", -z / sigma, sep="\n")

# %% [markdown]
# ## Why the mean of the targets is the score
#
# A noisy point $\tilde x$ may have come from many clean ones, and each has its own target. The density of noisy points is
# $q_\sigma(\tilde x) = \int p(x)\, N(\tilde x; x, \sigma^2 I)\, dx$. Differentiate under the integral, where
# $\nabla N = N\, t(\tilde x, x)$, and divide by $q_\sigma(\tilde x)$:
#
# $$ \nabla \log q_\sigma(\tilde x) = \int \frac{p(x)\, N(\tilde x; x, \sigma^2 I)}{q_\sigma(\tilde x)}\, t(\tilde x, x)\, dx
# = E\big[t(\tilde x, x) \,\big|\, \tilde x\big]. $$
#
# The fraction is the density of $x$ given $\tilde x$, by Bayes. So the score of the noisy density is the **mean of the targets** over
# the clean points that may have led to $\tilde x$. And least squares finds means: the best answer $s_\theta(\tilde x)$ to
#
# $$ \tfrac12\, E\, \| s_\theta(\tilde x) - t(\tilde x, x) \|^2 $$
#
# is that mean, the score of $q_\sigma$ (Vincent 2011; Eq. 2 of Song & Ermon 2019, and Eq. 5 with this target). Why: given
# $\tilde x$, the difference $t - \nabla \log q_\sigma$ has mean zero, so the square splits without a cross term,
#
# $$ \tfrac12\, E\, \| s_\theta - t \|^2 = \tfrac12\, E\, \| s_\theta - \nabla \log q_\sigma \|^2 +
# \tfrac12\, E\, \| \nabla \log q_\sigma - t \|^2. $$
#
# The first part is the Fisher divergence from the score of $q_\sigma$. There is no $\theta$ in the second, the *floor*.
#
# Put $t = -(\tilde x - x)/\sigma^2$ into the mean and solve for the mean of $x$, and you have **Tweedie's formula**:
# $E[x \,|\, \tilde x] = \tilde x + \sigma^2\, \nabla \log q_\sigma(\tilde x)$. To know the score is to know the best guess of
# the clean point.
#
# Both at one $\tilde x$, by 200,000 clean points, each weighed by how likely it is to have led there:

# %%
noisy, sigma = torch.tensor([[0.5, 0.5]]), 2.0
clean = mixture.sample(200_000, generator=torch.Generator().manual_seed(0))
chances = torch.softmax(-(noisy - clean).square().sum(1) / (2 * sigma**2), 0)
targets = -(noisy - clean) / sigma**2
mean = chances @ targets
print("mean of the targets", mean, "exact score", mixture.score(noisy, sigma)[0])
print("spread of the targets, a standard deviation", (chances @ (targets - mean).square()).sqrt())
print("mean of the clean points", chances @ clean, "Tweedie", tweedie(mixture.score, noisy, sigma)[0])

# %% [markdown]
# Look at the spread: a single target is off by more than the score is long. The network sees only such targets.
#
# The next cell prepares a picture of this: the law of the clean point given the noisy one (a mixture again: `condition`), and three
# curves over sigma, all exact, which the text below the picture explains.

# %% tags=["setup"]
levels, floors, bias = torch.arange(1, 41) / 10, [], []
at_clean, masses = (t.float() for t in quadrature(mixture, nodes_per_std=2))
for level in levels.tolist():  # D / 2 is 1
    at, noisy_masses = (t.float() for t in quadrature(mixture, level, nodes_per_std=2))
    floors.append(1 / level**2 - float(noisy_masses @ mixture.score(at, level).square().sum(1)) / 2)
    change = mixture.score(at_clean, level) - mixture.score(at_clean)
    bias.append(float(masses @ change.square().sum(1)) / 2)


def possible_clean_points(x, sigma, n=20_000):  # by the law of clean and noisy together
    covariances = mixture.covariances.repeat(1, 2, 2) + torch.diag(torch.tensor([0, 0, sigma**2, sigma**2]))
    joint = GaussianMixture(mixture.means.repeat(1, 2), covariances, mixture.weights)
    return joint.condition([2, 3], x).sample(n, generator=torch.Generator().manual_seed(0))


# %% [markdown] tags=["predict"]
# **Predict first.** Left: a noisy point (black), and lines to 60 clean points that may have led to it, drawn from their exact
# law; the circle is Tweedie's best guess. Middle: the targets of 300 such points (plus signs), the mean of 20,000 (white cross),
# and the exact score (circle). Make *sigma* small: will the targets (1) agree ever better with each other, or (2) disagree ever
# more? And the best loss that any network can reach, right: will it go to zero, stay, or grow?

# %% tags=["live"]
figure, (left, middle, right) = plotting.canvas(1, 3, size=4.0)
green, blue, orange = (plotting.ROLES[role].colour for role in ("denoising", "truth", "learned"))
plotting.samples(left, mixture.sample(500, generator=torch.Generator().manual_seed(1)), size=4).set_alpha(0.3)
lines = plotting.chains(left, torch.zeros(2, 60, 2), role="denoising")
(start,) = left.plot([], [], "ko", markersize=8)
left.set_title("clean points behind a noisy one")
dots = plotting.samples(middle, torch.zeros(300, 2), role="denoising", box=10.0, size=14)
(cross,) = middle.plot([], [], "X", color="white", markeredgecolor="black", markersize=13, zorder=6)
circles = [ax.plot([], [], "o", color=blue, ms=17, mfc="none", mew=2.5, zorder=5)[0] for ax in (left, middle)]
rows = {"best loss": floors, "best loss, times σ²": levels**2 * torch.tensor(floors), "bias": bias}
looks = ({"color": green}, {"color": green, "linestyle": "--"}, {"color": "black", "linestyle": ":"})
curves = [right.loglog([], [], label=k, **look)[0] for k, look in zip(rows, looks, strict=True)]
(now,) = right.plot([], [], "P", color=green, markersize=9)
right.set(xlabel="σ", xlim=(0.09, 4.4), ylim=(1e-4, 1e3), xticks=[0.1, 1], xticklabels=["0.1", "1"])
right.legend(loc="lower center")


def draw(sigma, x, y):
    noisy, n = torch.tensor([[x, y]]), round(10 * sigma) - 1
    clean = possible_clean_points(noisy[0], sigma)
    exact, targets = mixture.score(noisy, sigma)[0], -(noisy - clean) / sigma**2
    mean, spread = targets.mean(0), float(targets.var(0).sum().sqrt())
    plotting.chains(left, torch.stack([noisy.expand(60, 2), clean[:60]]), role="denoising", update=lines)
    lines[0].set_gid(f"60 lines from ({x:g}, {y:g}); mean length {(noisy - clean).norm(dim=1).mean():.2f}.")
    plotting.samples(middle, targets[:300], role="denoising", box=10.0, update=dots)
    dots.set_gid(f"300 targets; the mean of 20,000 is ({mean[0]:.2f}, {mean[1]:.2f}).")
    start.set_data([x], [y])
    cross.set_data(*mean[:, None])
    circles[0].set_data(*tweedie(mixture.score, noisy, sigma).T)
    circles[1].set_data(*exact[:, None])
    middle.set_title(f"targets: spread {spread:.2g}, score {exact.norm():.2f}")
    for curve, values in zip(curves, rows.values(), strict=True):
        curve.set_data(levels[n:], values[n:])
    now.set_data([sigma], [floors[n]])
    right.set_title(f"σ = {sigma:g}: best loss {floors[n]:.3g}, times σ² {sigma**2 * floors[n]:.2g}")
    right.set_gid(f"Of the clean score the score at {sigma:g} is off by {bias[n]:.2g}.")


place, noise = Slider(-7.0, 7.0, 0.5, step=0.5), Slider(0.1, 4.0, 1.0, step=0.1)
view = panel(figure, draw, play="sigma", name="denoising-targets", sigma=noise, x=place, y=place)
view

# %%
print(view.words)
for n in (0, 4, 9, 19, 39):
    behind = possible_clean_points(torch.tensor([0.5, 0.5]), float(levels[n])) / levels[n] ** 2
    print(f"sigma {levels[n]:.1f}: spread of the targets {behind.var(0).sum().sqrt():5.2f}", end=", ")
    print(f"best loss {floors[n]:5.2f}, times sigma² {levels[n] ** 2 * floors[n]:.2f}; bias {bias[n]:.3f}")

# %% [markdown] tags=["answer"]
# The mean of the targets and the score agree, at any place and any sigma, up to the noise of 20,000 draws. Now move *sigma* down
# to 0.1: on the right each step draws the curves a little further.
#
# - **Small sigma, left and middle.** All clean points that may have led to $\tilde x$ are near it, so you might think that the
#   targets agree. But a target is a difference *divided by* $\sigma^2$: the differences shrink like $\sigma$, and the spread of the
#   targets grows like $1/\sigma$. The score stays their mean.
# - **Small sigma, right.** That spread cannot be predicted by any network. It is the floor under the loss,
#
#   $$ \tfrac12 E\,\| \nabla \log q_\sigma - t \|^2 = \tfrac12 E\,\|t\|^2 -
#   \tfrac12 E_{q_\sigma}\|\nabla \log q_\sigma\|^2 = \frac{D}{2\sigma^2} - \tfrac12 E_{q_\sigma}\|\nabla \log q_\sigma\|^2, $$
#
#   by the same split, with $E\,\|t\|^2 = E\,\|z\|^2/\sigma^2 = D/\sigma^2$: loss = Fisher divergence + floor. It explodes as
#   $1/\sigma^2$ while the score is fine. Multiplied by the weight $\sigma^2$ it tends to $D/2$, here 1. Hence the default weight
#   of the library: it makes levels comparable.
# - **Large sigma, right.** The black curve, *bias*, is the price. What is learned is the score of $q_\sigma$, *not* that of $p$; the
#   curve is the Fisher divergence between them, over the clean data. Small sigma is noisy, large sigma is biased. Noise-conditional
#   models do not choose: they learn all levels.

# %% [markdown]
# ## A loss that hardly moves
#
# Three networks learn the score of $q_\sigma$ by denoising, each at a sigma of its own, and the Fisher divergence from the exact
# score, over 20,000 points, stands beside the loss. (The next cell takes some seconds.)

# %% tags=["setup"]
runs = {}
for level in (0.1, 0.3, 1.0):
    points = mixture.perturb(level).sample(20_000, generator=torch.Generator().manual_seed(0))

    def at_level(model, x, *, generator, level=level):
        return denoising_score_matching(model, x, level, weight=lambda _: 1.0, generator=generator)

    torch.manual_seed(0)
    model, losses, fishers = MLP(width=64), [], []
    for step in fit(model, mixture, at_level, n_steps=600):
        losses.append(float(step.loss))
        if step.step % 20 == 0:
            fishers.append(fisher_divergence(model, mixture, points, level))
    means, fishers = torch.tensor(losses).view(30, 20).mean(1), torch.tensor(fishers)
    runs[f"{level:g}"] = means, fishers, floors[round(10 * level) - 1]

# %% [markdown] tags=["predict"]
# **Predict first.** This is sigma = 0.3: the loss, its floor, and the exact Fisher divergence F. At sigma = 0.1 the loss is about ten
# times as large. Will F at the end be (1) ten times as large too, (2) larger, but by less, or (3) the same? And from the loss alone,
# could you tell that the network learns anything?

# %% tags=["live"]
(figure_2, axes), ticks = plotting.canvas(size=5.4), [0.01, 1, 100]
(loss_line,) = axes.semilogy([], [], color=green, marker="P", markevery=5, label="denoising loss")
(floor_line,) = axes.semilogy([], [], color="black", linestyle="--", label="its floor")
(fisher_line,) = axes.semilogy([], [], color=orange, marker="s", markevery=5, label="Fisher divergence")
axes.set(xlim=(0, 610), ylim=(0.0004, 400), xlabel="step", yticks=ticks, yticklabels=ticks)
axes.legend(loc="lower left")


def draw_2(sigma, weighted):
    loss, fisher, floor = (v * (float(sigma) ** 2 if weighted else 1.0) for v in runs[sigma])
    loss_line.set_data(range(20, 601, 20), loss)
    floor_line.set_data([0, 610], [floor, floor])
    fisher_line.set_data(range(20, 601, 20), fisher)
    unit = ", times σ²" if weighted else ""
    axes.set_title(f"σ = {sigma}{unit}: loss {loss[-5:].mean():.2g}, F {fisher[-1]:.1g}")
    axes.set_gid(f"Loss from {loss[0]:.2g} in 600 steps, its floor {floor:.2g}; F from {fisher[0]:.1g}.")


view_2 = panel(figure_2, draw_2, name="denoising-loss", sigma=Choice(list(runs), "0.3"), weighted=Toggle())
view_2

# %%
print(view_2.words, "from step 20 to step 600:", sep="\n")
for level, (loss, fisher, floor) in runs.items():
    ends = f"loss {loss[0]:.3g} to {loss[-5:].mean():.2g}, F {fisher[0]:.1g} to {fisher[-1]:.1g}"
    print(f"sigma {level:>3}: {ends}; floor {floor:.3g}; weighted {loss[-5:].mean() * float(level) ** 2:.2g}")

# %% [markdown] tags=["answer"]
# It was (2): 0.8 against 0.2, while the losses are 99 and 9.7. At sigma = 0.1 the loss stands at a hundred and hardly moves, yet
# more than half of the error is gone. Two things are true at once: *the size* of the loss means nothing, since the floor is known
# noise; and *the noise* of the loss is real, and makes small sigma slow to learn: among these three, $F$ is largest at the end
# where sigma is least. Tick *weighted* and change *sigma*: now the losses lie between one half and one, and one network can learn
# all levels together.

# %% [markdown]
# ## Check yourself: target and loss
#
# Write both. `x_clean` and `x_noisy` are `[B, D]` and `sigma` is `[B]`, one per example. The target is the score of the noisy point
# *given* the clean one, `[B, D]`. The loss is $\frac12 \sigma^2 \|s - \text{target}\|^2$ for each example, `[B]`: weighted, summed
# over coordinates.

# %% tags=["exercise"]
from checks import denoising


def my_target(x_clean, x_noisy, sigma):
    return (x_noisy - x_clean) / sigma[:, None] ** 2


def my_loss(s, target, sigma):
    return ((s - target) ** 2).mean(1)


denoising.target_and_loss(my_target, my_loss)

# %% [markdown]
# The solution is in the next cell (collapsed in JupyterLab: click the bar at its left).


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution_target(x_clean, x_noisy, sigma):
    return (x_clean - x_noisy) / sigma[:, None] ** 2


def solution_loss(s, target, sigma):
    return 0.5 * sigma**2 * ((s - target) ** 2).sum(1)


denoising.target_and_loss(solution_target, solution_loss)

# %% [markdown]
# A wrong target does not crash, and its loss falls too. With the sign turned, the network learns a field that pushes chains away
# from the data. With $1/\sigma^2$ on $z$ in place of $1/\sigma$ its arrows are $1/\sigma$ times as long as they should be: right
# at $\sigma = 1$ and nowhere else. The figure `bug-museum` of the [gallery](../figures/README.md) has the first, and one like the
# second.
#
# Denoising gave up the clean score for a target without derivatives.
#
# **Next:** notebook 04 keeps the clean score, and pays for one derivative instead of $D$.
