# %% [markdown]
# # 12 · DDPM is NCSN
#
# Two papers, a year apart. NCSN (Song & Ermon, 2019) learns scores at levels $\sigma_i$ and samples by annealed Langevin
# dynamics; that is this course so far. DDPM (Ho, Jain & Abbeel, 2020) has betas instead of sigmas, a network that predicts
# *noise* instead of a score, and walks a chain back instead of running Langevin dynamics. They read like two methods. You
# will put them side by side, loss by loss and step by step, and find one, to the last digit; then see what difference is
# left.
#
# Running time: under 30 seconds on a laptop with two cores and no GPU.

# %% tags=["setup"]
import torch

from toyscore import losses, metrics, models, plotting, pretrained, samplers, sde, train
from toyscore.distributions import asymmetric
from toyscore.models.adapters import ddpm_clock, from_epsilon
from toyscore.noise import ddpm_levels, geometric, levels, linear_betas, log_normal, log_uniform
from toyscore.widgets import Choice, Slider, panel

torch.set_num_threads(1)
p, vp, ve = asymmetric(), sde.VP(), sde.VE(sigma_min=0.01, sigma_max=160.0)
betas, exact = linear_betas().double(), p.to(dtype=torch.float64)  # DDPM's thousand, 0.0001 to 0.02
alpha_bars, by_step = (1 - betas).cumprod(0), ddpm_levels(betas).flip(0)  # of steps 1 to 1000


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# %% [markdown]
# ## Betas are levels
#
# DDPM adds noise by $x_i = \sqrt{1 - \beta_i}\, x_{i-1} + \sqrt{\beta_i}\, z$. Each step multiplies the mean by its root, and
# what the variance lacks of 1 by $1 - \beta_i$, so from $x_0$ on
#
# $$ x_i = \sqrt{\bar\alpha_i}\, x_0 + \sqrt{1 - \bar\alpha_i}\; \epsilon, \qquad \bar\alpha_i = \prod_{j \le i} (1 - \beta_j). $$
#
# (DDPM's $\epsilon$ is the noise $z$ of this course, not a step size.) By the identity of notebook 11, that is a level of NCSN:
#
# $$ y_i = \frac{x_i}{\sqrt{\bar\alpha_i}} = x_0 + \sigma_i \epsilon, \qquad \sigma_i = \sqrt{\frac{1 - \bar\alpha_i}{\bar\alpha_i}}. $$
#
# (DDPM counts steps upwards, so here $\sigma_1$ is the *smallest*: the ladder of notebook 09, read from below.)
# `ddpm_levels` computes it. The last column is the time at which the VP of notebook 11 has that level: step $i$ of 1000 is
# $t = i / 1000$, nearly.

# %%
for k in (0, 9, 99, 499, 999):
    print(f"{k + 1}: alpha_bar {alpha_bars[k]:.2g}, σ {by_step[k]:.3g}; VP: t = {vp.time(by_step[k]):.4f}")

# %% [markdown]
# So DDPM is a ladder of a thousand levels from 0.01 to 157. (Not a geometric one: you will see below how its levels lie.)
#
# **An error to know.** Some texts write the mean of $p(x_i | x_0)$ as $\sqrt{\bar\alpha_i}\, x_{i-1}$. It is
# $\sqrt{\bar\alpha_i}\, x_0$: all $i$ shrinkings act on $x_0$. Only the last one acts on $x_{i-1}$, and the mean of
# $p(x_i | x_{i-1})$ is $\sqrt{1 - \beta_i}\, x_{i-1}$. Count it for $i = 500$, with 10,000 copies of $x_0 = 3$:

# %%
times, root = [0.0, *sde.level_times(vp, by_step[:500].flip(0)).flip(0)], alpha_bars[499].sqrt()
*_, last, x = samplers.diffuse(vp, torch.full((10_000, 1), 3.0), times, generator=seeded(0))
print(f"mean {x.mean():.3f} ± {x.std() / 100:.3f}; by x_0 {3 * root:.3f}, by x_499 {root * last.mean():.3f}")

# %% [markdown]
# ## The loss is the same number
#
# DDPM's network gets $x_i$ and $i$ and predicts the noise: its "simple" loss is $\|\epsilon - \epsilon_\theta(x_i, i)\|^2$.
# NCSN's is denoising score matching with the weight $\sigma^2$, $\frac12 \| \sigma s(y, \sigma) + \epsilon \|^2$. They are
# equal, but for the $\frac12$, when
#
# $$ s(y, \sigma_i) = -\frac{\epsilon_\theta(\sqrt{\bar\alpha_i}\, y,\, i)}{\sigma_i}. $$
#
# Take any function of $x_i$ and $i$ in place of a network; it need not be a good one. `from_epsilon` is the line above.
# Same examples, same noise:

# %%
torch.manual_seed(0)


def predicted_noise(x, i):  # in place of a network
    return torch.sin(x + i[:, None] / 100)


x_0, i = p.sample(1000), torch.randint(1000, (1000,))  # i counts from 0 here
score = from_epsilon(predicted_noise, ddpm_clock(alpha_bars, whole=True))
ncsn = losses.denoising_score_matching(score, x_0, by_step.float()[i], generator=seeded(1))
z, bar = torch.randn(1000, 2, generator=seeded(1)), alpha_bars.float()[i, None]
ddpm = (z - predicted_noise(bar.sqrt() * x_0 + (1 - bar).sqrt() * z, i)).square().sum(1) / 2
print(f"means {ncsn.mean():.6f} and {ddpm.mean():.6f}; rows equal: {ncsn.allclose(ddpm, atol=1e-5)}")

# %% [markdown]
# The rows agree to rounding, whatever the weights of the network, and so do the gradients. There is one loss.
#
# ## The step is the same step
#
# DDPM goes back by a draw from $p(x_{i-1} | x_i, x_0)$, with its guess of $x_0$ put in (its Algorithm 2, with the smaller
# of its two variances, $\tilde\beta_i$):
#
# $$ x_{i-1} = \frac{1}{\sqrt{1 - \beta_i}} \left( x_i - \frac{\beta_i}{\sqrt{1 - \bar\alpha_i}}\, \epsilon_\theta \right) +
# \sqrt{\tilde\beta_i}\; z, \qquad \tilde\beta_i = \frac{1 - \bar\alpha_{i-1}}{1 - \bar\alpha_i}\, \beta_i. $$
#
# The same draw on NCSN's ladder, from level $\sigma_i$ to $\sigma_{i-1}$ (*ancestral sampling for SMLD*, the 2021
# paper's name for NCSN), needs no alphas:
#
# $$ y_{i-1} = y_i + (\sigma_i^2 - \sigma_{i-1}^2)\, s(y_i, \sigma_i) +
# \sqrt{\frac{\sigma_{i-1}^2 (\sigma_i^2 - \sigma_{i-1}^2)}{\sigma_i^2}}\; z. $$
#
# To see that the two are one, note that $\sigma_i^2 = 1/\bar\alpha_i - 1$, and so
# $\sigma_i^2 - \sigma_{i-1}^2 = \beta_i / \bar\alpha_i$. Divide DDPM's step by $\sqrt{\bar\alpha_{i-1}}$, which is
# $\sqrt{\bar\alpha_i / (1 - \beta_i)}$, and put in $\epsilon_\theta = -\sigma_i s$. The first term becomes $y_i$, the second
# $\frac{\beta_i}{\bar\alpha_i}\, s = (\sigma_i^2 - \sigma_{i-1}^2)\, s$, and the variance of the noise
# $\tilde\beta_i / \bar\alpha_{i-1} = \sigma_{i-1}^2 (\sigma_i^2 - \sigma_{i-1}^2) / \sigma_i^2$.
#
# One step by hand, from $i = 300$, with the exact score:

# %%
z, y = torch.randn(1000, 2, dtype=betas.dtype), exact.perturb(float(by_step[299])).sample(1000)
beta, bar, before, high, low = betas[299], alpha_bars[299], alpha_bars[298], by_step[299], by_step[298]
x, epsilon = bar.sqrt() * y, -high * exact.score(y, high)
x = (x - beta / (1 - bar).sqrt() * epsilon) / (1 - beta).sqrt() + ((1 - before) / (1 - bar) * beta).sqrt() * z
y = y + (high**2 - low**2) * exact.score(y, high) + (low**2 * (high**2 - low**2) / high**2).sqrt() * z
print(f"x is sqrt(alpha_bar) y, to 1e-12: {x.allclose(before.sqrt() * y, rtol=0, atol=1e-12)}")

# %% [markdown]
# Whole chains agree, too. `ancestral` has the step once; on VP it is DDPM's, on VE it is SMLD's. 500 points of each, with
# the same score, the same $z$, and starts that are one start in two coordinates:

# %% tags=["setup"]
z, chains = torch.randn(500, 2, generator=seeded(2), dtype=betas.dtype), {}
for name, process, std in (("DDPM", vp, (1 - alpha_bars[-1]).sqrt()), ("NCSN", ve, by_step[-1])):
    times = sde.level_times(process, by_step.flip(0))
    steps = samplers.ancestral(process, exact.score, std * z, times, generator=seeded(3))
    chains[name] = torch.stack([std * z, *steps])
roots = {"DDPM": alpha_bars.flip(0).sqrt()[:, None, None], "NCSN": torch.ones(1000, 1, 1)}
print("x is alpha y, to 1e-9:", chains["DDPM"].allclose(roots["DDPM"] * chains["NCSN"], rtol=0, atol=1e-9))

# %% [markdown] tags=["predict"]
# **Predict first.** Two chains with the same score and the same random numbers. DDPM's begins with points of deviation 1,
# NCSN's of deviation 157. Stop both on the way, and divide DDPM's $x_i$ by $\sqrt{\bar\alpha_i}$. Are the
# two clouds then **unrelated**, **alike** as two samples of one law are, or **the same points**? And how many of the 999
# steps are over before NCSN's noise, $\sigma$ in the titles, is as small as the data's spread, 3.3: **a tenth**, **a half**,
# or **nine tenths**? Vote, then press *play*.

# %% tags=["live"] before="step=0"
(figure, axes), shown = plotting.canvas(1, 2), {}
for ax, name in zip(axes, chains, strict=True):
    plotting.density(ax, p.log_prob, n=80).set_cmap("Blues")
    lines = ax.plot([], torch.empty(0, 5), "ko-", lw=1, ms=5, markevery=[-1])
    shown[name] = ax, ax.plot([], [], "k.", ms=3, alpha=0.6)[0], lines


def draw(step, coordinates):
    for name, (ax, dots, lines) in shown.items():
        states = chains[name][: step + 1] / (roots[name][: step + 1] if "y" in coordinates else 1)
        dots.set(data=states[-1].T, gid=f"500 points, their largest coordinate {states[-1].abs().max():.3g}.")
        for line, path in zip(lines, states[-181::9, :5].unbind(1), strict=True):
            line.set_data(*path.T)
        ax.set_title(f"{name}, step {step}: σ = {by_step[999 - step]:.3g}, deviation {states[-1].std():.3g}")


options = {"step": Slider(0, 999, 630, step=9), "coordinates": Choice(("own", "y = x / alpha"), "own")}
view = panel(figure, draw, play="step", name="ddpm-ncsn", **options)
view

# %%
spread = p.covariance.trace().div(2).sqrt()
print(view.words, f"\n{(by_step > spread).sum()} steps until σ is as small as the data, {spread:.1f}")
for s in (100.0, 10.0, 3.0, 1.0):
    print(f"σ = {s}, surest mode: {(q := p.perturb(s)).responsibilities(q.sample(4000)).amax(1).mean():.2f}")

# %% [markdown] tags=["answer"]
# 1. **Play.** DDPM's points swell out of a cloud of deviation one, NCSN's fall in from far away. They arrive at the same
#    places.
# 2. **Choose y = x / alpha**, and the pictures are one. Whatever you read about one of the two chains is true of the other.
# 3. **Half of the steps** are over before the noise has the size of the data. Until $\sigma$ is about 10 nothing is decided:
#    the surest mode of a point is hardly surer than 0.50, the largest weight. Most modes are decided between 10 and 1.
#    Where steps are spent is a choice that betas make without saying so.

# %% [markdown]
# ## One network, five samplers
#
# Now train a small network, once for each of three laws. The loss is `denoising_score_matching`, at a $\sigma$ drawn by a
# **law**; that is the last thing in which the papers differ in training. NCSN draws each level of a geometric ladder alike,
# or in the limit $\log\sigma$ uniform. DDPM draws each *step* alike. A third, from later work (Karras et al., 2022), draws
# $\log\sigma$ from a normal law (*EDM's*) and so spends its time where there is something to learn. Each network then goes
# to five samplers, with no line of network or loss changed:

# %% tags=["setup"]
LAWS = {"DDPM's": levels(by_step.flip(0)), "NCSN's": log_uniform(0.01, 157), "EDM's": log_normal(0.01, 157)}


def five_ways(score, z, n):  # n steps each
    ladder, ddpm = geometric(157.0, 0.03, 20), [*sde.level_times(vp, by_step.flip(0)[:: 1000 // n]), 0.0]
    langevin = {"step_size": 0.5 * 0.03**2, "n_steps_each": n // 20, "denoise": True, "generator": seeded(4)}
    yield "NCSN", samplers.annealed_langevin(score, 157 * z, ladder, **langevin)
    yield "DDPM", samplers.ancestral(vp, score, z, ddpm, generator=seeded(4))
    for name, process in {"VE-SDE": ve, "VP-SDE": vp}.items():
        start, times = process.prior_std * z, sde.geometric_times(process, n)
        yield name, samplers.reverse_diffusion(process, score, start, times, generator=seeded(4))
    yield "ODE", samplers.probability_flow(vp, score, z, sde.karras_times(vp, n // 2))


z, scores = torch.randn(1000, 2, generator=seeded(5)), {"exact": p.score}
for law, draw_sigma in LAWS.items():
    torch.manual_seed(0)
    scores[law] = models.MLP(width=64, depth=3, sigmas=(157.0, 0.01), data_variance=10.6)
    loss = losses.at_random_sigma(losses.denoising_score_matching, draw_sigma)
    *_, last = train.fit(scores[law], p, loss, n_steps=1000, batch_size=256, lr=0.02)
clouds = {law: {name: samplers.final(c) for name, c in five_ways(s, z, 200)} for law, s in scores.items()}
held_out = {s: p.perturb(s).sample(2000, generator=seeded(6)) for s in geometric(157.0, 0.01, 9).tolist()}

# %% [markdown] tags=["predict"]
# **Predict first.** One network, trained with DDPM's law, is handed to NCSN's sampler, to DDPM's, to the two reverse SDEs
# and to an ODE. For how many of the five will the three modes come out: **one**, its own; the **two** DDPM-like ones; or
# **all five**? Then change *law*, by which $\sigma$ is drawn in training (middle). At which $\sigma$ will the network of EDM's
# law be worst, **0.01, 1 or 157**, and which of the samplers suffers most from it? Vote, then move the controls.

# %% tags=["live"]
figure_2, (left, middle, right) = plotting.canvas(1, 3, size=3.9)
plotting.density(left, p.log_prob, n=80).set_cmap("Blues")
(cloud,), curves = left.plot([], [], "k.", ms=3, alpha=0.6), {}
for (law, draw_sigma), style in zip(LAWS.items(), ("-", "--", ":"), strict=True):
    logs = draw_sigma(20_000, generator=seeded(7)).log10()
    look = {"color": "black", "ls": style, "label": law}
    middle.hist(logs, bins=40, range=(-2, 2.2), density=True, histtype="step", **look)
    error = [s**2 * metrics.fisher_divergence(scores[law], p, x, s) for s, x in held_out.items()]
    (curves[law],) = right.plot([*held_out], error, **look)
middle.set(xlabel="log10 of σ", title="law of σ in training", ylim=(0, 1.05), xticks=(-2, -1, 0, 1, 2))
middle.legend(handles=[*curves.values()], loc="upper right", fontsize=11)
right.set(xscale="log", yscale="log", xlabel="σ", title="share of the noise mispredicted")


def draw_2(sampler, law):
    cloud.set(data=(x := clouds[law][sampler]).T, gid=f"{len(x)} points by {sampler}; score: {law}.")
    left.set_title(f"{sampler}: weights " + " ".join(f"{w:.2f}" for w in metrics.mode_weights(x, p)))
    for name, curve in curves.items():
        curve.set(lw=4 if name == law else 1.5, visible=name == law or law != "DDPM's")  # after the vote


options_2 = {"sampler": Choice([*clouds["exact"]], "NCSN"), "law": Choice([*scores], "DDPM's")}
view_2 = panel(figure_2, draw_2, name="samplers", **options_2)
view_2

# %%
print(view_2.words)
fresh, distance = p.sample(1000, generator=seeded(8)), metrics.sliced_wasserstein2
for law, drawn in clouds.items():
    far = " ".join(f"{name} {distance(x, fresh, generator=seeded(9)):.1f}" for name, x in drawn.items())
    print(f"{law:6} law, distance to fresh samples: {far}")
for law, curve in curves.items():
    print(f"{law}: off by", *(f"{e:.1g} at σ {s:.3g};" for s, e in curve.get_xydata()[::2]))

# %% [markdown] tags=["answer"]
# 1. **All five.** The first network was trained with DDPM's law. NCSN's annealing draws from it as well as DDPM's own chain
#    does, and so do VE, VP and an ODE. (The distance is the sliced Wasserstein distance: the mean, over directions, of how
#    far one must move points to make one sample the other. The first line is what the exact score makes of 1,000 samples
#    and 200 calls.)
# 2. **The law decides where the error is**, not what is learned. All have the same minimiser, the exact score. Compare the
#    three at one $\sigma$ (but for EDM's at large noise all are worst near 1, where the score is hardest). Where a law
#    seldom draws, the network is worse: at $\sigma = 0.01$, of which DDPM's sees little, its network errs several times
#    as much as NCSN's.
# 3. **EDM's law** (the normal one) **fails** at large noise here. Its published numbers (most draws between 0.09 and 1) are
#    for data of deviation one half; these have 3.3, and a law of $\sigma$ is in units of the data. The ODE shows it worst:
#    it starts from errors at the largest noise and carries each along, while fresh noise lets the others forget.

# %% [markdown]
# ## What difference is left
#
# | | NCSN | DDPM | effect |
# | --- | --- | --- | --- |
# | levels | geometric | from the betas | where the steps go |
# | law of $\sigma$ in training | every level alike | every step alike | where the errors are |
# | weight of $\lVert s + \epsilon/\sigma \rVert^2$ | $\sigma^2$ | $\sigma^2$ (the "simple" loss) | none: the same |
# | what the network sees | $y$ | $x = y / \sqrt{1 + \sigma^2}$ | preconditioning |
# | what it gives | $s$; in NCSNv2 $\sigma s$ | $\epsilon = -\sigma s$ | preconditioning |
# | sampler | Langevin steps at each level | one ancestral step per level | steps needed |
#
# The weight and the law act together: only their product matters to the minimum that is sought. The bound on the
# likelihood, which DDPM's authors set aside for the simple loss, has another weight: $g^2/\alpha^2$ per unit of time, that
# is $d\sigma^2$. And *preconditioning* is why a network of images in practice sees $x$ and not $y$: at $\sigma = 157$ the
# numbers in $y$ are 157 times as large as image data, whose size is about one; in $x$ they are never far from one. It changes
# what is easy to learn, and no equation. (`MLP` divides $y$ by $\sqrt{\sigma^2 + v}$, with $v$ the data's variance.)
#
# ## Digits, by the same function
#
# `five_ways` again, with the digits network of the package (trained by denoising, $\sigma$ from 0.01 to 160) and 20 or 40 steps:

# %%
digits, z = pretrained.digits(), torch.randn(9, 1, 8, 8, generator=seeded(10))
sheets = {k: torch.cat([samplers.final(c) for _, c in five_ways(digits.network, z, k)]) for k in (20, 40)}
figure_3, ax_3 = plotting.canvas(1, 1, size=5.6)
image = ax_3.imshow(plotting.mosaic(sheets[40], n_columns=9), extent=(0, 9, 5, 0))
ax_3.set(xticks=[], yticks=[k + 0.5 for k in range(5)], yticklabels=[*clouds["exact"]])


def draw_3(steps):
    image.set(data=plotting.mosaic(x := sheets[int(steps)], n_columns=9), gid="Five rows of nine digits.")
    ax_3.set_title(f"{steps} steps: mean {x.mean():.2f}, the data's {digits.data['mean']:.2f}")


(view_3 := panel(figure_3, draw_3, name="digits", steps=Choice(("20", "40"), "40")))

# %%
print(view_3.words, "Mean of each row:", *(f"{x.mean():.2f}" for x in sheets[40].split(9)))

# %% [markdown]
# All five draw digits; not the same ones, since they use the noise differently, or not at all. Nine say nothing about which
# is best; the figure [ddpm-is-ncsn](../figures/ddpm-is-ncsn.png) asks that.
#
# ## Check yourself: the score from a predicted noise
#
# Somebody gives you a DDPM: `epsilon` `[B, D]` is what it predicts at step `i`, counted from 1, and `betas` `[N]` are its
# betas, $\beta_1$ first. Return the score of its $x_i$, $\nabla \log p_i(x_i)$, in the coordinates of $x_i$ itself: `[B,
# D]`. (Use $x_i = \sqrt{\bar\alpha_i}\, x_0 + \sqrt{1 - \bar\alpha_i}\, \epsilon$, and what notebook 03 says of the score
# of data with noise.)

# %% tags=["exercise"]
from checks import conversion


def score_of_x(epsilon, betas, i):
    return -epsilon / (1 - betas[i - 1])


conversion.score_from_noise(score_of_x)

# %% [markdown]
# The solution is in the next cell (collapsed in JupyterLab: click the bar at its left).


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(epsilon, betas, i):
    return -epsilon / (1 - (1 - betas[:i]).prod()) ** 0.5  # alpha_bar is the product


conversion.score_from_noise(solution)

# %% [markdown]
# That is notebook 03 again, $-\epsilon$ over the deviation of the noise, and the identity of notebook 11:
# $s(y, \sigma) / \sqrt{\bar\alpha}$ with $s = -\epsilon / \sigma$. Every network of either kind can go to every sampler of either kind.
#
# **Next:** notebook 13 looks at the fifth sampler, the probability-flow ODE: it has no noise, it runs both ways, and so it
# gives every point a likelihood.
