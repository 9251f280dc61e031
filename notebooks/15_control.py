# %% [markdown]
# # 15 · Controllable generation
#
# So far every sampler drew *some* sample: predictor and corrector of notebook 14 spend their calls well, but nobody could say
# which mode, which digit, which colour. Now ask for something: samples of a class, or samples that agree with a measurement
# $y$. No network is trained anew for it. Bayes' rule turns the score that is there into the score *given* $y$; all samplers stay
# as they are.
#
# You will ask a mixture for a class and for a measured mix of coordinates, where the exact answer is known, and see which shortcuts
# are exact, which are not, and by how much. Running time: under 30 seconds on a laptop with two cores and no GPU.

# %% tags=["setup"]
import torch

from toyscore import metrics, operators, plotting, samplers, sde, widgets
from toyscore.distributions import GaussianMixture, asymmetric

torch.set_num_threads(1)
torch.set_grad_enabled(False)  # nothing is trained; guided scores take the gradients that they need
p, vp = asymmetric().to(dtype=torch.float64), sde.VP()  # three unequal, tilted modes
times = sde.geometric_times(vp, 60)


def sample(score, n):
    x = vp.prior_sample((n, 2), generator=torch.Generator().manual_seed(0)).double()
    return samplers.final(samplers.probability_flow(vp, score, x, times))


# %% [markdown]
# ## Bayes' rule for scores
#
# Bayes' rule is a product, $q_\sigma(x \mid y) = q_\sigma(x)\, p(y \mid x, \sigma) / p(y)$. In logarithms it is a sum, and in
# gradients $p(y)$ is gone, as the normaliser was in notebook 01:
#
# $$ \nabla_x \log q_\sigma(x \mid y) = \nabla_x \log q_\sigma(x) + \nabla_x \log p(y \mid x, \sigma). $$
#
# (Song et al. 2021, Eq. (14). From here on $y$ is what is asked for, and $x$ is clean data plus noise, which notebooks 11 to 13
# called $y$.) The second term is the gradient of a likelihood: how probable is $y$, when all that is known is the *noisy* point
# $x$? `guided(score, log_likelihood)` is that sum, and is a score like any other.
#
# First let $y$ be a **class**: which of the three modes a point came from. The likelihood is a classifier of noisy points; for
# a mixture it is known, its probabilities are the responsibilities of notebook 01. Guided by it, the score of the mixture must
# become the score of one mode alone, at every noise level:

# %%
classifier = samplers.mixture_classes(p)
parts = [GaussianMixture(p.means[k : k + 1], p.covariances[k : k + 1]) for k in range(3)]
x = p.perturb(2.0).sample(1000, generator=torch.Generator().manual_seed(0))
for k, part in enumerate(parts):
    score = samplers.guided(p.score, samplers.of_class(classifier, k))
    off = [float((score(x, sigma) - part.score(x, sigma)).abs().max()) for sigma in (0.5, 2.0, 20.0)]
    print(f"class {k}: the mode's own score, to 1e-12: {max(off) < 1e-12}")

# %% [markdown]
# Nothing is left but rounding. (`models.NoiseClassifier` learns such a classifier from labelled examples, by
# `losses.noisy_cross_entropy`: it sees noisy points and is told $\sigma$.)
#
# ## A dial that is not Bayes' rule
#
# Often the likelihood is given a **strength** $w$: $\nabla \log q_\sigma(x) + w\, \nabla \log p(y \mid x, \sigma)$. Only $w = 1$ is
# Bayes' rule. Below, the same three modes at half their distances, so that they overlap, and samples for strengths from 0 to 4.

# %% tags=["setup"]
near = GaussianMixture(p.means / 2, p.covariances, p.weights)
alone = [GaussianMixture(near.means[k : k + 1], near.covariances[k : k + 1]) for k in range(3)]
STRENGTHS, drawn = ("0", "1", "2", "4"), {}
for k, w in [(k, w) for k in range(3) for w in STRENGTHS]:
    likelihood = samplers.of_class(samplers.mixture_classes(near), k)
    drawn[k, w] = sample(samplers.guided(near.score, likelihood, strength=float(w)), 600)

# %% [markdown] tags=["predict"]
# **Predict first.** Samples of class 0, the mode on the right, which touches the two others. *Strength* is how many times the
# likelihood of the class is counted; at strength 1 they are that mode. At strength 4, do the samples gather **at the middle of the
# mode**, move **away from the other modes**, or stay **the same mode, only surer**? And is their variance smaller or larger? Vote,
# then move *strength*.

# %% tags=["live"]
figure, ax = plotting.canvas(1, 1, size=5.4)
(image := plotting.density(ax, near.log_prob, like=near.means, n=100)).set_cmap("Blues")
(dots,) = ax.plot([], [], "k.", ms=3, alpha=0.6)
spread = {(k, w): float(x.var(0).sum() / alone[k].covariance.trace()) for (k, w), x in drawn.items()}


def draw(label, strength):
    law, x = alone[int(label)], drawn[int(label), strength]
    plotting.density(ax, law.log_prob, like=law.means, n=100, update=image)
    dots.set(data=x.T, gid=f"{len(x)} samples; colours: class alone.")
    ax.set_title(f"class {label}, strength {strength}: {spread[int(label), strength]:.2f} of its variance")


controls = {"label": widgets.Choice("012", "0"), "strength": widgets.Choice(STRENGTHS, "1")}
view = widgets.panel(figure, draw, name="class", **controls)
view

# %%
print(view.words)
for w in STRENGTHS:
    off, sure = drawn[0, w].mean(0) - alone[0].mean, near.responsibilities(drawn[0, w])[:, 0].mean()
    print(f"strength {w}: {sure:.3f} sure, mean off by {off.norm():.2f}, {spread[0, w]:.2f} of the variance")

# %% [markdown] tags=["answer"]
# Strength 0 is the mixture. At 1 the samples are the mode. Above 1 they are surer to be of the class, and they are no longer the
# class: they have moved away from where classes meet, and vary less. In images that trade is often liked; it is no sampling of
# $q(x \mid y)$. (A tempting thought is that they sample $q(x)\, p(y \mid x)^w$. That holds at each level by itself, but these laws
# are not each other's noisy versions, so the chain that passes through them ends elsewhere.)

# %% [markdown]
# ## A measurement
#
# Now let $y = A x_0 + \tau n$ be a **linear measurement** of the clean point: one coordinate of it, or a tilted mix of both, with
# noise of deviation $\tau$. (Of an image: some of its pixels, *inpainting*; the mean of its channels, *colorization*.) What does
# a noisy $x$ say about $y$? Notebook 03 gave the mean of $x_0$ given $x$, and its Jacobian gives the covariance, both exactly (write the
# mean as an integral over $x_0$, weighed by $N(x; x_0, \sigma^2 I)$, and differentiate in $x$: what comes out is $C / \sigma^2$):
#
# $$ \hat x_0 = x + \sigma^2 s(x, \sigma), \qquad C = \sigma^2 \Big( I + \sigma^2 \frac{\partial s}{\partial x} \Big). $$
#
# If $x_0$ given $x$ were **Gaussian**, $y$ given $x$ would be $N(A \hat x_0,\; A C A^T + \tau^2 I)$. That is `of_measurement`, and
# it needs nothing but the score. For a mixture the exact likelihood is `of_mixture`, and the exact answer is `p.observe`.

# %% tags=["setup"]
TAU, TILTS, YS, N = 0.5, ("0", "45", "90", "135"), [-4.0, -2.0, 0.0, 2.0, 4.0], 500
WAYS, laws, found, fine, curves = ("exact", "Gaussian guess"), {}, {}, torch.linspace(-4, 4, 81).double(), {}
for tilt in TILTS:
    angle, each = torch.tensor(float(tilt)).double().deg2rad(), torch.tensor(YS).double()
    a = torch.stack([angle.cos(), angle.sin()])[None]
    curves[tilt] = torch.stack([p.observe(a, y[None], TAU).weights for y in fine])
    guess = samplers.of_measurement(p.score, a, each.repeat_interleave(N)[:, None], noise_std=TAU)
    x = sample(samplers.guided(p.score, guess), N * len(YS)).view(len(YS), N, 2)
    for i, y in enumerate(YS):
        laws[tilt, y] = p.observe(a, each[i : i + 1], TAU)
        exact = samplers.of_mixture(p, a, each[i : i + 1], noise_std=TAU)
        found[tilt, y, "Gaussian guess"] = x[i]
        found[tilt, y, "exact"] = sample(samplers.guided(p.score, exact), N)
shares = {key: metrics.mode_weights(x, laws[key[:2]]) for key, x in found.items()}
wrong = {key: float((share - laws[key[:2]].weights).abs().sum()) / 2 for key, share in shares.items()}

# %% [markdown] tags=["predict"]
# **Predict first.** One number is measured, $y$: the coordinate of the clean point $x_0$ in the direction *tilt*, with noise of
# deviation 0.5. The mean and the covariance of $x_0$ given the noisy $x$ are exact; only its shape is guessed, as one Gaussian where it
# is three. Where will the guess be wrong: do samples lie **in the wrong places**, are the modes **too wide**, or is only **how
# many** samples each mode gets wrong? By a few per cent, or by half of them? Vote, then set *likelihood* to the guess.

# %% tags=["live"]
figure_2, (left, right) = plotting.canvas(1, 2)
(image_2 := plotting.density(left, p.log_prob, like=p.means, n=100)).set_cmap("Blues")
(dots_2,), blue = left.plot([], [], "k.", ms=3, alpha=0.6), plotting.ROLES["truth"].colour
look = {"ls": "", "color": "k", "ms": 10, "zorder": 3}
marks = [right.plot([], [], marker=f"${k}$", label=f"mode {k}, samples", **look)[0] for k in range(3)]
lines = [right.plot([], [], m, c=blue, label=f"mode {k}, exact")[0] for k, m in enumerate(("-", "--", ":"))]
now = right.axvline(0, color="0.6", lw=1)
right.set(xlim=(-4.4, 4.4), ylim=(-0.03, 1.4), yticks=[0, 0.5, 1], xlabel="y", ylabel="share of a mode")
right.legend(loc="upper center", ncols=2, fontsize=10)


def draw_2(tilt, y, likelihood):
    law, x = laws[tilt, y], found[tilt, y, likelihood]
    plotting.density(left, law.log_prob, like=p.means, n=100, update=image_2)
    dots_2.set(data=x.T, gid=f"{N} samples.")
    for k in range(3):
        lines[k].set_data(fine, curves[tilt][:, k])
        marks[k].set_data(YS, [shares[tilt, v, likelihood][k] for v in YS])
    now.set_xdata([y, y])
    left.set_title(f"{likelihood}; A at {tilt}°, y = {y:g}")
    right.set_title(f"in a wrong mode at y = {y:g}: {wrong[tilt, y, likelihood]:.2f}")
    right.set_gid(f"Exact shares: {', '.join(f'{w:.2f}' for w in law.weights)}.")


ways = {"tilt": widgets.Choice(TILTS, "45"), "y": widgets.Slider(-4.0, 4.0, 0.0, step=2.0)}
view_2 = widgets.panel(figure_2, draw_2, name="measurement", likelihood=widgets.Choice(WAYS, "exact"), **ways)
view_2


# %%
def largest_mode(law, x):  # its offset in its own widths, and its variance by what it should be
    k, nearest = int(law.weights.argmax()), law.responsibilities(x).argmax(1)
    off, trace = x[nearest == k] - law.means[k], law.covariances[k].trace()
    return float(off.mean(0).norm() / (trace / 2).sqrt()), float(off.var(0).sum() / trace)


print(view_2.words)
draws = [laws["45", 0.0].sample(N, generator=torch.Generator().manual_seed(k)) for k in (1, 2)]
for way in WAYS:
    off = {key: share for key, share in wrong.items() if key[2] == way}
    worst = max(off, key=off.get)
    print(f"{way}: misplaced up to {off[worst]:.2f}, at {worst[0]}°, y = {worst[1]:g};", end=" ")
    print(f"energy distance at 45°, y = 0: {metrics.energy_distance(found['45', 0.0, way], draws[0]):.3f};")
    shift, wide = zip(*(largest_mode(laws[key[:2]], found[key]) for key in off), strict=True)
    print(f"  largest mode off by up to {max(shift):.2f} widths, its variance up to {max(wide):.2f} times")
print(f"energy distance of exact draws from each other: {metrics.energy_distance(*draws):.3f}")

# %% [markdown] tags=["answer"]
# With the exact likelihood the shares follow the exact curves. With the guess samples still fall into modes, but these are shifted by
# up to one of their widths and have up to nearly twice the variance; and *how many* come to each can be badly wrong: at high noise
# one Gaussian cannot say "either here or there", and that is when the shares are decided. Once $\sigma$ is so small that one
# mode is left, the guess is exact, and it is too late. It is worst where $y$ lies between what two modes would give. (The
# energy distance is twice the mean distance of a point of one sample to a point of the other, less the mean distances within each. Its
# estimate is unbiased: zero on average where the laws agree, so it can be negative.)

# %% [markdown]
# If the data are one Gaussian, the guess is no guess:

# %%
one, a = GaussianMixture(p.mean[None], p.covariance[None]), torch.tensor([[0.6, 0.8]]).double()
y, x = torch.tensor([1.0]).double(), p.sample(500, generator=torch.Generator().manual_seed(1))
guess = samplers.guided(one.score, samplers.of_measurement(one.score, a, y, noise_std=TAU))
off = [float((guess(x, s) - one.observe(a, y, TAU).score(x, s)).abs().max()) for s in (0.1, 1.0, 10.0)]
print(f"one Gaussian: the guided score is the exact one, to 1e-12: {max(off) < 1e-12}")

# %% [markdown]
# ## The usual mistake
#
# For a clean $x$ the likelihood is $N(y; A x, \tau^2)$. Why not use that? Because $x$ is noisy: it says less about $y$ than
# a clean point would, the less the more noise there is. How hard each of them pulls, root mean square over points as they come:

# %%
exact = samplers.of_mixture(p, a, y, noise_std=TAU)


def clean(x, sigma):  # the mistake: sigma does not occur
    return -0.5 * (x @ a[0] - y).square() / TAU**2


for sigma in (0.1, 1.0, 10.0, 100.0):
    x = p.observe(a, y, TAU).perturb(sigma).sample(N, generator=torch.Generator().manual_seed(0))
    fair, raw = ((samplers.guided(p.score, of)(x, sigma) - p.score(x, sigma)).norm() for of in (exact, clean))
    print(f"σ {sigma:5}: should pull {fair / N**0.5:.3g}, pulls {raw / N**0.5:.3g}: {raw / fair:.2g} times")
try:
    sample(samplers.guided(p.score, clean), 100)
except operators.DivergenceError as error:
    print(f"DivergenceError: {str(error).split(' broke ')[0]}")

# %% [markdown]
# At $\sigma = 100$ it pulls more than a million times too hard, and the sampler diverges. Turning the strength down until it does not
# gives samples of a law that nobody has written down.
#
# ## Check yourself: the score given a measurement
#
# One Gaussian this time, so that there is an exact answer to write down. The clean point is $x_0 \sim N(\mu, \Sigma)$ in the
# plane; $x = x_0 + \sigma z$ is what the sampler sees; $y = x_{0,1} + \tau n$, the first coordinate of the *clean* point with noise,
# is what was measured. Write `given_y(x, y, mean, covariance, tau, sigma)`, the gradient of $\log q_\sigma(x \mid y)$ in $x$. `x`
# is `[B, 2]`, the answer too. What you need: with $S = \Sigma + \sigma^2 I$ the score of $x$ alone is $-S^{-1}(x - \mu)$, and
# $x_0$ given $x$ is Gaussian with
#
# $$ \hat x_0 = \mu + \Sigma S^{-1} (x - \mu), \qquad C = \Sigma - \Sigma S^{-1} \Sigma. $$

# %% tags=["exercise"]
import numpy as np

from checks import control


def given_y(x, y, mean, covariance, tau, sigma):
    inverse = np.linalg.inv(covariance + sigma**2 * np.eye(2))
    return -(x - mean) @ inverse + np.stack([y - x[:, 0], 0 * x[:, 0]], 1) / tau**2  # the usual mistake


control.score_given_y(given_y)

# %% [markdown]
# The solution is in the next cell (collapsed in JupyterLab: click the bar at its left).


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(x, y, mean, covariance, tau, sigma):
    inverse = np.linalg.inv(covariance + sigma**2 * np.eye(2))
    clean = mean + (x - mean) @ inverse @ covariance
    variance = (covariance - covariance @ inverse @ covariance)[0, 0] + tau**2  # of y given the noisy x
    pull = (y - clean[:, :1]) / variance * (inverse @ covariance)[:, 0]  # by the chain rule, through clean
    return -(x - mean) @ inverse + pull


control.score_given_y(solution)

# %% [markdown]
# That is `of_measurement` in one line for each of its three steps: the mean of the clean point, the variance of $y$ around it, and
# the chain rule through the mean.
#
# **Next:** notebook 16 leaves the plane: a network learns images of digits, is stopped, goes on, and draws.
