# %% [markdown]
# # 04 · Sliced score matching
#
# The exact objective of notebook 02, $\frac12\|s\|^2 + \mathrm{tr}(\partial s/\partial x)$, takes a derivative along each of $D$
# coordinates. The denoising one of notebook 03 takes none, and learns the score of noisy data. Sliced score matching keeps the clean
# data and takes one derivative, along a random direction. It is right on average, and noisy.
#
# So this notebook is about noise: which random directions are right, which are least noisy, how sure you may be of a mean, and which
# small changes make it wrong on average. Then you write an estimate that knows how sure it is.
# Running time: under 15 seconds on a laptop with two cores and no GPU.

# %% tags=["setup"]
import torch

from toyscore import operators as ops
from toyscore import plotting
from toyscore.distributions import GaussianMixture
from toyscore.losses import finite_difference_score_matching, implicit_score_matching, sliced_score_matching
from toyscore.widgets import Choice, Slider, panel

torch.set_num_threads(1)  # tiny tensors are fastest on one thread
D, generator = 10, torch.Generator().manual_seed(0)
spreads = torch.randn(4, D, D, dtype=torch.float64, generator=generator) / D**0.5
means = 2 * torch.randn(4, D, dtype=torch.float64, generator=generator)
mixture = GaussianMixture(means, spreads @ spreads.mT + 0.3 * torch.eye(D, dtype=torch.float64))
x = mixture.sample(1, generator=generator)
J = mixture.jacobian(x)[0]  # of the exact score at one point, [D, D]

# %% [markdown]
# ## One direction instead of D
#
# Let $J = \partial s / \partial x$, the Jacobian (from here on; the objective that notebook 02 called $J(\theta)$ is just *the
# loss* here). Automatic differentiation never sees $J$; what it gives at the price of one pass is $J$ along one direction, $v^T J$.
# The trace takes $D$ of them, $\sum_i e_i^T J e_i$, with $e_i$ along coordinate $i$. Now draw $v$ at random:
#
# $$ E[v^T J v] = E\big[\mathrm{tr}(J\, v v^T)\big] = \mathrm{tr}\big(J\, E[v v^T]\big) = \mathrm{tr}\, J \quad\text{if } E[v v^T] = I. $$
#
# That is all that a law of $v$ must satisfy: each coordinate has mean square 1, and no two are correlated. Three laws do: random
# signs (*rademacher*), normal numbers (*gaussian*), and the *sphere* of radius $\sqrt D$. A sphere of radius one does not: there
# $\|v\|^2 = 1$ is shared by $D$ coordinates, so $E[v v^T] = I/D$. Here is a point of a mixture in ten dimensions, and 1,000
# directions of each law:

# %% tags=["setup"]
like = torch.empty(1000, 1, D, dtype=torch.float64)
directions = {
    "rademacher": ops.rademacher_like(like, generator),
    "gaussian": ops.normal_like(like, generator),
    "sphere": ops.sphere_like(like, generator),
}
directions["radius one"] = directions["sphere"] / D**0.5
exact = float(J.trace())
forms = {law: ops.quadratic_form(mixture.score, x, 0.0, v)[1] for law, v in directions.items()}
estimates = {law: form[:, 0].detach() for law, form in forms.items()}

# %%
traced = ops.jacobian_trace(mixture.score, x, 0.0)[1].item()
print(f"exact trace, D = {D} directions: {exact:.3f}; ops.jacobian_trace says {traced:.3f}")
for law, v in directions.items():
    mean = estimates[law].mean()
    print(f"{law:10} mean square of a coordinate {v.square().mean():.2f}, mean of v^T J v {mean:6.2f}")

# %% [markdown] tags=["predict"]
# **Predict first.** Left: how single estimates $v^T J v$ spread. Right: the mean of the first n of them, and the band that holds
# the truth 95 times of 100. All three laws are right on average. Which has the narrowest band: random signs (*rademacher*),
# normal numbers (*gaussian*) or the *sphere*, or are they alike? From 100 to 400 directions, will the band be half as wide or a
# quarter? And what will vectors of length one do (*radius one*)?

# %% tags=["live"]
figure, (left, right) = plotting.canvas(1, 2)
sliced, truth = plotting.ROLES["sliced"].colour, plotting.ROLES["truth"].colour
edges = torch.linspace(-40, 10, 41).double()
bars = left.stairs(torch.zeros(40), edges, fill=True, color=sliced)
left.set(xlim=(-40, 10), ylim=(0, 0.65), xlabel="a single estimate", ylabel="share")
left.axvline(exact, color=truth, linewidth=2.5)
right.axhline(exact, color=truth, linewidth=2.5, label="exact trace")
(mean_line,) = right.plot([], [], color=sliced, linewidth=2.5, label="mean of n directions")
low_line, high_line = (
    right.plot([], [], "k-", linewidth=0.9, label=label)[0] for label in ("95% band", None)
)
right.set(xlim=(0, 1010), ylim=(exact - 7, exact + 14), xlabel="directions n")
right.legend(loc="center right", bbox_to_anchor=(1, 0.65))
counts = torch.arange(1, 1001)
running = {law: e.cumsum(0) / counts for law, e in estimates.items()}
stds = {
    law: ((e.square().cumsum(0) - counts * running[law] ** 2) / (counts - 1).clamp(min=1)).sqrt()
    for law, e in estimates.items()
}


def draw(n_slices, law):
    mean, std = running[law][:n_slices], stds[law][:n_slices]
    half = 1.96 * std / counts[:n_slices].sqrt()
    bars.set_data(torch.histogram(estimates[law][:n_slices], edges).hist / n_slices)
    for line, values in ((mean_line, mean), (low_line, mean - half), (high_line, mean + half)):
        line.set_data(counts[9:n_slices], values[9:])
    left.set_title(f"{law}: standard deviation {std[-1]:.2f}")
    left.set_gid(f"A single estimate is {mean[-1]:.2f} ± {std[-1]:.2f}, the exact trace {exact:.2f}.")
    right.set_title(f"n = {n_slices}: {mean[-1]:.2f} ± {half[-1]:.2f}, exact {exact:.2f}")
    right.set_gid(f"The mean of {n_slices} is {mean[-1]:.2f}, its 95% band ± {half[-1]:.2f}.")


numbers, laws = Slider(20, 1000, 100, step=20), Choice(list(directions), "gaussian")
view = panel(figure, draw, play="n_slices", name="sliced-trace", n_slices=numbers, law=laws)
view

# %%
print(view.words)
S, off = (J + J.T) / 2, J.square().sum() - J.diagonal().square().sum()
theory = {
    "rademacher": (2 * off).sqrt(),
    "gaussian": (2 * S.square().sum()).sqrt(),
    "sphere": (2 * D / (D + 2) * (S.square().sum() - exact**2 / D)).sqrt(),
}
for law, std in theory.items():
    n = [float(1.96 * std / count**0.5) for count in (100, 400)]
    print(f"{law:10} deviation: theory {std:.2f}, measured {estimates[law].std():.2f}", end="; ")
    print(f"band at n = 100: {n[0]:.2f}, at 400: {n[1]:.2f}")
at_300 = running["rademacher"][299], 1.96 * stds["rademacher"][299] / 300**0.5
print(f"rademacher at n = 300: {at_300[0]:.2f} ± {at_300[1]:.2f}, the truth is {exact:.2f}")
bands = (f"{law} {running[law][-1]:.2f} ± {1.96 * stds[law][-1] / 1000**0.5:.2f}" for law in directions)
print("at n = 1,000", *bands, sep="\n  ")

# %% [markdown] tags=["answer"]
# Why the laws differ: write $v^T J v = \sum_i J_{ii} v_i^2 + \sum_{i \ne j} J_{ij} v_i v_j$. For signs $v_i^2 = 1$, always: the
# diagonal, which is what you want, comes without noise, and only the off-diagonal entries add some. Normal numbers make noise of the
# diagonal too. On the sphere the $v_i^2$ at least add up to $D$, so a multiple of the identity comes without noise. For the Jacobian
# of a score, whose diagonal is large and negative, signs and the sphere are better than normal numbers. Some texts say that signs are
# the least noisy of all. Among laws with independent coordinates they are; the coordinates on a sphere are not independent, and here
# it is a shade better. Which of the two wins depends on $J$.
#
# The band shrinks with the root of $n$: four times the directions, half the width. It is wrong 5 times of 100: with signs the
# truth is just outside at n = 300. And vectors of *radius one* have the narrowest band of all, around a wrong value: the trace
# divided by $D$. A band says how sure you are of the mean. It does not say that the mean is right.

# %% [markdown]
# In two dimensions there are only four sign vectors, and their mean is the exact trace, since each off-diagonal entry comes twice
# with each sign:

# %%
signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
small = torch.tensor([[-1.0, 0.7], [0.2, -3.0]])
forms = ((signs @ small) * signs).sum(1)
print("four estimates", forms, "mean", forms.mean(), "trace", small.trace())

# %% [markdown]
# ## From the trace to the loss
#
# Put the estimate in place of the trace, and the loss of one example is $\frac12\|s\|^2 + v^T J v$, Eq. 3 of Song & Ermon (2019). It
# is called *variance reduced*, beside the older form $\frac12 (v^T s)^2 + v^T J v$, which slices both terms:
# $E[(v^T s)^2] = \|s\|^2$, so both have the right mean. But why estimate what you know? Below, both at one point; then the older form
# with ten directions, averaged well and badly. The last line averages $v^T s$ over ten directions *before* the square. The average of
# ten has a tenth of the mean square, so only a tenth of the term that holds the arrows back is left. Averages of directions belong
# outside the square.

# %%
many = x.expand(4000, D)
s, v = mixture.score(x, 0.0)[0], torch.randn(4000, 10, D, dtype=torch.float64, generator=generator)
along, trace = v @ s, torch.einsum("bni,ij,bnj->bn", v, J, v).mean(1)
print(f"exact loss                         {implicit_score_matching(mixture.score, x).item():6.2f}")
for name, reduced in (("variance reduced", True), ("both terms sliced", False)):
    values = sliced_score_matching(mixture.score, many, variance_reduced=reduced, generator=generator)
    print(f"{name:18} mean {values.mean():6.1f}, standard deviation {values.std():5.1f}")
print(f"ten slices, squares averaged       {(along.square().mean(1) / 2 + trace).mean():6.1f}")
print(f"ten slices, the average squared    {(along.mean(1).square() / 2 + trace).mean():6.1f}")

# %% [markdown]
# Now for *radius one*. With both terms sliced, both shrink by $D$: the loss is divided by $D$, and its minimum stays where it was.
# Two functions of the official NCSN code draw their vectors so (those behind its figures draw Gaussian ones). That is right, on its own
# scale: multiply by $D$ to compare. But $\frac12\|s\|^2$ with vectors of length one is wrong: the norm keeps its size and the trace
# shrinks, so the minimum is at the score divided by $D$. Try the fields $c$ times the exact score, over 2,000 points of data:

# %%
data = mixture.sample(2000, generator=generator)
norms = mixture.score(data).square().sum(1).mean()
traces = mixture.jacobian(data).diagonal(dim1=1, dim2=2).sum(1).mean()
kinds = [("radius sqrt(D)", 1, 1), ("radius 1, both", 1 / D, 1 / D), ("radius 1, mixed", 1, 1 / D)]
for name, square, slope in kinds:
    print(f"{name:16} least loss at c = {-slope * traces / (square * norms):.2f}")

# %% [markdown]
# Finally, a derivative along one direction is nearly a difference of two scores, $v^T (s(x + hv) - s(x - hv)) / 2h$, and needs no
# differentiation in $x$ at all. It is off by a multiple of $h^2$: ten times smaller steps, a hundredth of the error.

# %%
for h in (1e-1, 1e-2, 1e-3):
    same = [torch.Generator().manual_seed(1) for _ in range(2)]  # the same signs for both
    difference = finite_difference_score_matching(mixture.score, many[:100], step=h, generator=same[0])
    error = difference - sliced_score_matching(mixture.score, many[:100], generator=same[1])
    print(f"h = {h:g}: largest difference from the sliced loss {error.abs().max():.0e}")

# %% [markdown]
# Is the noise worth it? The figure `objectives` of the [gallery](../figures/README.md) compares all five at equal cost in two
# dimensions, where the exact trace is cheap. In the 64 of the digits of notebook 08 it is not.
#
# ## Check yourself: an estimate, and how sure it is
#
# Your directions are given: `v` `[n, D]`, uniform, of **length one**. Write the estimates of the trace of `J` `[D, D]`, one for each
# direction, `[n]`, right on average; then from the estimates the interval `(low, high)` that holds the truth 95 times of 100.

# %% tags=["exercise"]
from checks import sliced as sliced_checks


def my_estimate(J, v):
    return ((v @ J) * v).sum(1)


def my_interval(estimates):
    half = estimates.std()
    return estimates.mean() - half, estimates.mean() + half


sliced_checks.estimate_and_interval(my_estimate, my_interval)

# %% [markdown]
# The solution is in the next cell (collapsed in JupyterLab: click the bar at its left).


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution_estimate(J, v):
    return v.shape[1] * ((v @ J) * v).sum(1)


def solution_interval(estimates):
    half = 1.96 * estimates.std(ddof=1) / len(estimates) ** 0.5
    return estimates.mean() - half, estimates.mean() + half


sliced_checks.estimate_and_interval(solution_estimate, solution_interval)

# %% [markdown]
# You have three ways to a score: exact, denoised and sliced.
#
# **Next:** notebook 05 puts a score to use, and draws samples with it.
