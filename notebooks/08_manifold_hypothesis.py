# %% [markdown]
# # 08 · The manifold hypothesis
#
# The two failures before this one, 06 and 07, were those of data with a density. Now to data that has none: images, which fill a
# thin sheet of the space of all pixels. Song and Ermon (2019, Section 3.1 and Figure 1) call it the *manifold hypothesis*. On
# such data there is no score to learn, and training has no end.
#
# You will watch the arrows grow as noise goes away, read the dimension of data off a score, and watch a loss run to minus infinity.
#
# Running time: under 20 seconds on a laptop with two cores and no GPU.

# %% tags=["setup"]
import torch
from sklearn.datasets import load_digits

from toyscore import plotting
from toyscore.diagnostics import intrinsic_dimension, least_normal_loss, normal_loss
from toyscore.distributions import empirical, tilted_circle, tilted_line
from toyscore.losses import perturbed, sliced_score_matching
from toyscore.models import MLP
from toyscore.train import fit
from toyscore.widgets import Choice, Slider, panel

torch.set_num_threads(1)  # tiny tensors are fastest on one thread

# %% [markdown]
# ## Pixels that never light up
#
# The 1797 digits of scikit-learn have 8 x 8 pixels, so each is a point in $\mathbb R^{64}$. Do they fill it?

# %% tags=["setup"]
digits = torch.as_tensor(load_digits().data, dtype=torch.float32) / 16

# %%
spread = torch.linalg.svdvals((digits - digits.mean(0)).double()).square()
shares = (spread / spread.sum()).cumsum(0)
print("pixels that are zero in every image:", int((digits.amax(0) == 0).sum()))
print("directions that hold 90% of the variance:", int((shares < 0.9).sum()) + 1, "of", digits.shape[1])

# %% [markdown]
# Nine tenths of the variance lie in a third of the directions. A pixel that is always zero is a direction with no extent. There
# the "density" is infinitely high and infinitely narrow; $\log p$ is $-\infty$ right beside the data, and it has no gradient.
#
# ## A line in $\mathbb R^D$, with noise
#
# The simplest such data is a standard normal along one direction of $\mathbb R^D$: dimension $d = 1$, and $D - 1$ *normal*
# directions without extent. Noise of standard deviation $\sigma$ gives it a density, and a score. Split $x$ into its part $t$
# along the line and its part $n$ normal to it:
#
# $$ \nabla \log q_\sigma(x) = - \frac{t}{1 + \sigma^2} - \frac{n}{\sigma^2}, \qquad E\|n\|^2 = (D - d)\, \sigma^2 . $$
#
# The first term is tame. The second has the length $\|n\| / \sigma^2 \approx \sqrt{D - d}\, / \sigma$: it grows without bound
# as the noise goes. The same holds for a circle, or for any smooth sheet of dimension $d$, once $\sigma$ is small beside its
# radius of curvature.


# %% tags=["setup"]
def spanned(*directions):
    return torch.linalg.qr(torch.stack(directions, 1)).Q  # [D, 2], the plane of the picture


LEVELS = [0.5**k for k in range(11)]
flat = digits - digits.mean(0)
plane = spanned(*torch.linalg.svd(flat, full_matrices=False)[2][:2])
worlds = {"digits in R⁶⁴": (flat, empirical(flat), plane)}
for D, R in ((3, "R³"), (10, "R¹⁰")):
    generator, axis = torch.Generator().manual_seed(0), torch.arange(1.0, D + 1)
    line, circle = tilted_line(D), tilted_circle(D).sample(2000, generator=generator)
    turn = axis * (2 * torch.pi / D)
    worlds[f"line in {R}"] = line.sample(2000, generator=generator), line, spanned(axis, torch.eye(D)[0])
    worlds[f"circle in {R}"] = circle, empirical(circle), spanned(turn.cos(), turn.sin())
table = {}
for name, (points, p, plane) in worlds.items():
    clean = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(1))[:1000]]
    z = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    for sigma in LEVELS:
        s = p.score(clean + sigma * z, sigma)
        d, error = intrinsic_dimension(p.score, clean, sigma, generator=torch.Generator().manual_seed(2))
        at, arrow = (clean + sigma * z) @ plane, s @ plane
        table[name, sigma] = at[:100], arrow[:100], float(s.square().sum(1).mean().sqrt()), d, error

# %% [markdown] tags=["predict"]
# **Predict first.** Left: data with noise $\sigma$ (dots), and from each dot its exact score as a line, a thirtieth of its
# length, seen in a plane through the data. Middle: the root mean square length of the score. Each step of *halvings* halves the
# noise. What happens to the length, at last: does it **stay**, get **half as long**, **twice as long**, or **four times as
# long**? Vote, then move *halvings* from 3 to 4 and on. Then vote: are the scores longer in $\mathbb R^{10}$ than in
# $\mathbb R^3$?

# %% tags=["live"]
figure, (left, middle, right) = plotting.canvas(1, 3, size=4.0)
first, role = table["line in R³", 0.125], plotting.ROLES["truth"]
(dots,) = left.plot([], [], "o", color="0.4", markersize=2)
arrows = plotting.chains(left, torch.stack([first[0], first[0]]), role="truth", box=2.5)
arrows[0].set(linewidth=1.5, alpha=1)
arrows[1].set_visible(False)
left.set_xlabel("dots: noisy data; lines: score / 30")
(norms,) = middle.loglog([], [], color=role.colour, marker=role.marker, markersize=4)
(norm,) = middle.plot([], [], "o", color="black", markerfacecolor="none", markersize=16)
middle.set(xlabel="1 / σ", xlim=(0.8, 1300), ylim=(0.5, 2e4))
(dimensions,) = right.semilogx([], [], color=role.colour, marker=role.marker, markersize=4)
(dimension,) = right.plot([], [], "o", color="black", markerfacecolor="none", markersize=16)
right.set(xlabel="σ", xlim=(0.0007, 1.4), ylim=(-0.5, 5.5), title="D − σ² E‖s‖²: the dimension that shows")


def draw(data, halvings):
    sigma, shown = LEVELS[halvings], LEVELS if halvings > 3 else [LEVELS[halvings]]  # after the vote
    at, arrow, length, d, _ = table[data, sigma]
    dots.set_data(*at.T)
    plotting.chains(left, torch.stack([at, at + arrow / 30]), role="truth", box=2.5, update=arrows)
    arrows[0].set_gid(f"Arrows of the exact score; its root mean square norm is {length:.3g}.")
    norms.set_data([1 / s for s in shown], [table[data, s][2] for s in shown])
    dimensions.set_data(shown, [table[data, s][3] for s in shown])
    norm.set_data([1 / sigma], [length])
    dimension.set_data([sigma], [d])
    left.set_title(f"{data}, σ = 1/{2**halvings}")
    middle.set_title(f"norm of the score: {length:.3g}")
    right.set_gid(f"The dimension that shows is {d:.1f}.")


data, halvings = Choice(list(worlds), "line in R³"), Slider(0, 10, 3)
view = panel(figure, draw, play="halvings", interval=0.5, name="manifold", data=data, halvings=halvings)
view

# %%
some = [LEVELS[k] for k in (0, 1, 3, 4, 10)]
print(view.words, f"norm of the score, dimension that shows, at sigma {some}:", sep="\n")
for name in ("line in R³", "line in R¹⁰", "circle in R¹⁰", "digits in R⁶⁴"):
    told = (f"{table[name, s][2]:.3g}, {abs(table[name, s][3]):.1f}" for s in some)
    print(f"{name:14}: {'; '.join(told)}")
print(f"standard errors of these dimensions: at most {max(row[4] for row in table.values()):.1f}")

# %% [markdown] tags=["answer"]
# **Twice as long**, from some point on: $\|s\| = \sqrt{D - d}\, / \sigma$, the displacement $n$ shrinks with the noise, but
# $\sigma^2$ in the denominator wins. And longer in $\mathbb R^{10}$, by $\sqrt{9/2}$, since there are more normal directions.
# There is no limit: clean data on a line has no score at all.

# %% [markdown]
# ## The score knows the dimension
#
# Turn this around. The mean squared norm of $\sigma s$ is the codimension $D - d$, so $D - \sigma^2 E\|s\|^2$ is the dimension
# that the data shows at the width $\sigma$. That is the curve on the right. Try:
#
# 1. **The line** shows 1, unless $\sigma$ is as wide as the data: then all is one blur, and the dimension falls.
# 2. **The circle** shows 1 as well, to within a tenth, until $\sigma$ is so small that it tells apart the 2000 points that stand
#    for the circle here. Points have dimension 0.
# 3. **The digits** show between 4 and 5 at half a unit, and 0 from an eighth of a unit down. At small noise a data set is a set
#    of points, and the exact score of its smoothed version leads back to training images. What a network should learn is what
#    *lies between*.
#
# ## A loss without a floor
#
# What does training do, when there is no score to find? Take a score $s = -a\, n$, which pushes back to the line with stiffness
# $a$. On data with noise of standard deviation $\tau$ (not $\sigma$: it is added to the data once, and nobody tells the network),
# $E\|n\|^2 = (D - d)\,\tau^2$, and the trace is $-(D - d)\,a$. (The part along the line is left out: it has no $a$.) So its score
# matching loss $\tfrac12 E\|s\|^2 + E\, \mathrm{tr}(\partial s / \partial x)$ is
#
# $$ L(a) = (D - d) \left( \tfrac12 a^2 \tau^2 - a \right) . $$
#
# With $\tau = 0$ the square is gone: on the data $n = 0$, so the first term is zero however large $a$ is, and the second falls
# without bound. With $\tau > 0$ it has a least value, $-(D - d) / 2\tau^2$ at $a = 1/\tau^2$: large, negative, and finite.

# %%
for tau in (0.0, 0.01, 0.1):
    losses = ", ".join(f"{normal_loss(a, 4, tau):.0f}" for a in (1e2, 1e3, 1e4, 1e5))
    least = least_normal_loss(4, tau)
    print(f"D - d = 4, tau = {tau}: L = {losses} at a = 1e2, 1e3, 1e4, 1e5; least {least:.0f}")

# %% [markdown]
# Now networks, in $\mathbb R^5$: sliced score matching, which knows nothing of lines, on clean data, with $\tau = 0.01$, which is the
# $N(0, 0.0001)$ of the paper, and with $\tau = 0.1$. All losses are negative soon, so the picture shows *minus* the loss on a
# logarithmic axis: up is better. Black, in the same style, are the floors, here ceilings. (The next cell takes some seconds.)


# %% tags=["setup"]
def noisy_loss(tau):
    sliced = perturbed(sliced_score_matching)
    return lambda s, x, *, generator: sliced(s, x, tau, generator=generator)


taus = {0.0: "-", 0.01: "--", 0.1: ":"}  # noise -> how it is drawn
shapes, gains, nets = {"line": tilted_line(5), "circle": tilted_circle(5)}, {}, {}
for key in [(name, tau) for name in shapes for tau in taus]:
    torch.manual_seed(0)
    nets[key] = MLP(5, width=64)
    steps = fit(nets[key], shapes[key[0]], noisy_loss(key[1]), n_steps=400, lr=0.03)
    loss = torch.stack([step.loss for step in steps])
    gains[key] = -loss.unfold(0, 20, 1).median(1).values  # over 20 steps

# %% [markdown] tags=["predict"]
# **Predict first.** Three networks learn from points on a line: on clean data (solid), with noise $\tau = 0.01$ (dashed) and
# $\tau = 0.1$ (dotted). The axis has *minus* the loss, so up is better. The black lines, in the same style, are the best that can be
# reached with each noise. Which of the three come to rest, and where? Vote, then press *play*.

# %% tags=["live"]
figure_2, ax = plotting.canvas(size=5.4)
curves = {}
for tau, style in taus.items():
    colour = plotting.ROLES["sliced"].colour
    (curves[tau],) = ax.semilogy([], [], style, color=colour, linewidth=2.5, label=f"τ = {tau:g}")
    if tau:
        ax.axhline(-least_normal_loss(4, tau), color="black", linestyle=style, linewidth=1)
ax.set(xlabel="step", xlim=(0, 400), ylim=(1, 1e6))
ax.legend(loc="upper left")


def draw_2(data, step):
    for tau, curve in curves.items():
        curve.set_data(range(20, step + 1), gains[data, tau][: step - 19])
    last = ", ".join(f"{gains[data, tau][step - 20]:.2g} at τ = {tau:g}" for tau in taus)
    ax.set_title(f"minus the loss on a {data} in R⁵")
    ax.set_gid(f"Minus the loss at step {step}: {last}.")


data = Choice(list(shapes), "line")
view_2 = panel(figure_2, draw_2, play="step", name="no-floor", data=data, step=Slider(20, 400, 40, step=20))
view_2

# %%
print(view_2.words)
for (name, tau), gain in gains.items():
    print(f"{name}, tau {tau}: minus the loss is {gain[-1]:.2g}, ceiling {-least_normal_loss(4, tau):.2g}")
for name, p in shapes.items():
    x = p.sample(1000, generator=torch.Generator().manual_seed(1))
    noisy = x + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    push = float(nets[name, 0.0](noisy).detach().square().sum(1).mean().sqrt())
    print(f"{name}: 0.01 beside the clean data the network pushes {push:.1g}, the exact score {2 / 0.01:.0f}")

# %% [markdown] tags=["answer"]
# On clean data the loss runs away. It passes the floors of both noises and would go on: the curve bends at the end only because
# the learning rate falls to nothing there. Beside the data the network pushes more than three times as hard as the exact score
# does with the noise of the paper. A lower loss here is no better score; it is a sign that there is none.
#
# With $\tau = 0.1$ the loss settles close to its floor (on the circle a little above it: a curve is harder for a small network
# than a line). With $\tau = 0.01$ it stays above its floor as well, and needs more steps: this is the noise of the paper, which
# changes no pixel by more than the eye can tell.
#
# So the remedy is the one of notebook 06. There noise filled the gaps between modes, here it gives a thin sheet some volume.

# %% [markdown]
# ## Check yourself: the codimension from scores
#
# Someone hands you samples of a score at noise `sigma`, as an array `scores` `[N, D]`. Write the estimate of the codimension
# $D - d$: the mean of $\|\sigma s\|^2$.

# %% tags=["exercise"]
import numpy as np

from checks import manifold


def codimension(scores, sigma):
    return np.mean((sigma * scores) ** 2)


manifold.codimension(codimension)

# %% [markdown]
# The solution is in the next cell (collapsed in JupyterLab: click the bar at its left).


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(scores, sigma):
    return np.mean(np.sum((sigma * scores) ** 2, axis=1))


manifold.codimension(solution)

# %% [markdown]
# All three are within a few hundredths of 5: the noise levels differ by a factor of 25, what they tell does not.
#
# Three failures ask for noise: much of it to fill gaps and to let chains hop, a little of it to give a sheet some volume.
#
# **Next:** notebook 09 takes many levels, from large to small, and lets one network learn them all.
