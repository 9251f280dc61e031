# %% [markdown]
# # 01 · What is a score?
#
# The **score** of a density $p$ is the gradient of its logarithm,
#
# $$ s(x) = \nabla_x \log p(x), $$
#
# an arrow at every point $x$ that says in which direction the density grows, relative to itself, and how fast. A density must be
# positive and integrate to one, which is hard to ask of a network. A score needs no normaliser, and a network can be fitted to it
# directly: that is why this course is about it.
#
# You will see the score of a mixture in closed form, move its modes, its weights and its noise, and then write it yourself.
# Running time: under 10 seconds on a laptop with two cores and no GPU.

# %% tags=["setup"]
import torch

from toyscore import plotting
from toyscore.distributions import GaussianMixture
from toyscore.widgets import Slider, Toggle, panel

torch.set_num_threads(1)  # tiny tensors are fastest on one thread
torch.set_printoptions(precision=3, sci_mode=False)

# %% [markdown]
# ## A mixture knows its score
#
# With weights $\pi_k$ and Gaussian components, each with its own simple score $s_k(x) = \Sigma_k^{-1}(\mu_k - x)$, a pull
# towards its mean, the score of the mixture is
#
# $$ \nabla \log p(x) = \sum_k r_k(x)\, s_k(x), \qquad r_k(x) = \frac{\pi_k N(x; \mu_k, \Sigma_k)}{\sum_j \pi_j N(x; \mu_j, \Sigma_j)}. $$
#
# Why: $\nabla N = N\, s_k$ for each component, so $\nabla p / p$ is the sum of $\pi_k N(x; \mu_k, \Sigma_k)\, s_k(x)$ over $k$,
# divided by $p(x)$. The *responsibility* $r_k(x)$ is the share of the density at $x$ that component $k$ contributes. So the score is
# a weighted **mean** of the pulls, not their sum. `mixture.score(x, sigma)` computes it; let us hold it against the definition, by
# automatic differentiation of the log density.

# %% tags=["setup"]
mixture = GaussianMixture([[3.0, 2.0], [-4.0, -2.0]], [1.0, 2.0], [0.8, 0.2])

# %%
x = torch.tensor([[0.0, 0.0], [2.0, 1.0], [-5.0, 1.0]], requires_grad=True)
(gradient,) = torch.autograd.grad(mixture.log_prob(x).sum(), x)
print("closed form", mixture.score(x).detach(), "autograd of log p", gradient, sep="\n")
print("responsibilities", mixture.responsibilities(x).detach(), sep="\n")

# %% [markdown]
# Near a mode that mode has all the responsibility, and the score is its pull alone; in between, both pull. Now for the whole plane,
# and with noise: *sigma* is the standard deviation of Gaussian noise added to the data, which turns $p$ into
# $q_\sigma = p * N(0, \sigma^2 I)$, where the star is convolution: the density of a sum of independent draws. For a mixture it only
# adds $\sigma^2$ to each variance.
#
# Left: the density $q_\sigma$, its colours stretched to its own maximum. Right: its score.

# %% [markdown] tags=["predict"]
# **Predict first.** You will change the weight of the first mode from 0.99 to 0.01 and watch the arrows *near the modes*. Vote:
# (a) they turn around, (b) they shrink, (c) they hardly move. Then move *weight*, press *reset*, and vote again for *sigma*, from 0 to 6.

# %% tags=["live"]
figure, (left, right) = plotting.canvas(1, 2)
density = plotting.density(left, mixture.log_prob)
arrows = plotting.vector_field(right, mixture.score)
(marks,) = left.plot([], [], "o", color="white", markeredgecolor="black", markersize=7)
clean = plotting.arrow_scale(mixture.score(plotting.grid()).norm(dim=1))


def draw(x, y, weight, sigma, same_arrows):
    p = GaussianMixture([[x, y], [-4.0, -2.0]], [1.0, 2.0], [weight, 1 - weight])
    scale = clean if same_arrows else plotting.arrow_scale(p.score(plotting.grid(), sigma).norm(dim=1))
    plotting.density(left, p.log_prob, sigma=sigma, update=density)
    plotting.vector_field(right, p.score, sigma=sigma, scale=scale, update=arrows)
    marks.set_data(*p.means.numpy().T)
    left.set_title(f"density, weights {weight:g} and {1 - weight:.2g}")
    right.set_title(f"score, σ = {sigma:g}; an arrow of length 1 is {1 / scale:.2g}")


view = panel(
    figure,
    draw,
    play="sigma",
    name="what-is-a-score",
    x=Slider(-7.0, 7.0, 3.0, step=0.25),
    y=Slider(-7.0, 7.0, 2.0, step=0.25),
    weight=Slider(0.01, 0.99, 0.8, step=0.01),
    sigma=Slider(0.0, 6.0, 0.0, step=0.1),
    same_arrows=Toggle(False),
)
view

# %%
print(view.words)

# %% [markdown] tags=["answer"]
# Try, in this order:
#
# 1. **Move the first mode** (*x*, *y*) away from the other one, then towards it. Between two modes lies a valley of the density,
#    and along its floor the arrows part, to one mode or the other. Where is the parting sharp, and where is there none? (Sharp when
#    the modes are far apart; there is none once they have merged into one hill.)
# 2. Press *reset*, then **change the weight** from 0.99 to 0.01 and watch the arrows *near the modes*. They hardly move: by less
#    than a ten-thousandth. A score near one mode knows almost nothing of the weight of the other. Remember this when a sampler
#    forgets mixture weights.
# 3. Press *reset*, then **play sigma.** Noise fills the valley, the parting softens, and the arrows shorten: those of a mode of
#    variance $v$ to $v/(v + \sigma^2)$ of their length. Tick *same arrows* to see how much: without it each picture has its own
#    arrow length, which the title gives. From $\sigma = 0$ to 6 their median length falls from 3.05 to 0.15.
#
# The line *state* below the picture is where you are: copy it to a neighbour, who pastes it and presses enter. *Reset* brings
# you back.

# %%
near, between = torch.tensor([[3.5, 1.0], [-4.5, -3.0]]), torch.tensor([[-0.8, -0.2]])
scores = {}
for weight in (0.99, 0.5, 0.01):
    p = GaussianMixture([[3.0, 2.0], [-4.0, -2.0]], [1.0, 2.0], [weight, 1 - weight])
    scores[weight] = p.score(near)
    print(f"weight {weight:4.2f}: near the modes {scores[weight].flatten().numpy().round(3)}", end=", ")
    print(f"between them {p.score(between).flatten().numpy().round(3)}")
print(f"largest change near the modes: {(scores[0.99] - scores[0.01]).abs().max():.0e}")
lengths = {s: mixture.score(plotting.grid(), s).norm(dim=1).median() for s in (0.0, 1.0, 3.0, 6.0)}
print("median arrow:", "; ".join(f"{length:.2f} at sigma {s:g}" for s, length in lengths.items()))

# %% [markdown]
# ## Why the normaliser does not matter
#
# Multiply $p$ by any constant $c$: $\nabla \log (c\,p) = \nabla \log c + \nabla \log p = \nabla \log p$. So a model of the score
# never needs the integral that makes a density hard. And the score is enough to get the density back, up to that constant:
# integrate it along any path. (A true score is a gradient, so every path gives the same; a network's score need not be one.)

# %%
start, end = torch.tensor([-4.0, -2.0]), torch.tensor([3.0, 2.0])
path = start + torch.linspace(0, 1, 2001)[:, None] * (end - start)
along = mixture.score(path) @ (end - start)
print(f"log p(end) - log p(start), from the score alone: {torch.trapezoid(along, dx=1 / 2000):.4f}")
at_start, at_end = mixture.log_prob(torch.stack([start, end]))
print(f"and from the density:                            {at_end - at_start:.4f}")

# %% [markdown]
# ## Check yourself: write the score of a mixture
#
# Complete the function: NumPy in, NumPy out, to 1e-6, at four points of which one is far from every mode. Run the cell as
# often as you like; the check compares with a difference quotient of the log density, and says what it recognises.
#
# `x` is `[B, 2]`, `means` `[K, 2]`, `variances` and `weights` `[K]`; return the score, `[B, 2]`. The components are round, so
# $\Sigma_k = v_k I$.

# %% tags=["exercise"]
import numpy as np

import checks


def my_score(x, means, variances, weights):
    pulls = (means - x[:, None]) / variances[:, None]  # [B, K, 2], the score of each component
    return pulls.sum(1)


checks.mixture_score(my_score)

# %% [markdown]
# The solution is in the next cell (collapsed in JupyterLab: click the bar at its left).


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(x, means, variances, weights):
    differences = means - x[:, None]  # [B, K, 2]
    logs = np.log(weights / variances) - (differences**2).sum(2) / (2 * variances)  # [B, K], less log 2 pi
    r = np.exp(logs - logs.max(1, keepdims=True))  # the largest is 1: nothing underflows that matters
    r = r / r.sum(1, keepdims=True)
    return (r[:, :, None] * differences / variances[:, None]).sum(1)


checks.mixture_score(solution)

# %% [markdown]
# You wrote the score of a density that you knew.
#
# **Next:** notebook 02 fits a network to the score of one that nobody knows.
