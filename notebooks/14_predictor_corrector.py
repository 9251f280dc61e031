# %% [markdown]
# # 14 · Predictor and corrector
#
# Notebook 13 went back from noise to data without noise. Here there are two kinds of steps. A **predictor** is a step of any solver,
# from a time $t$ to an earlier $t'$. A **corrector** is a step of Langevin dynamics *at* $t'$: it uses the score to pull the points
# towards the law $p_{t'}$ that they should have (Song et al. 2021, Algorithm 1). Both call the score, and with a network nearly all
# the time goes into these calls.
#
# So the question is what an error costs, in calls. You will also take a rule that a paper prints, and see why it works on images and
# samples a wrong law in the plane. Running time: under 40 seconds on a laptop with two cores and no GPU.

# %% tags=["setup"]
import torch

from toyscore import diagnostics, losses, metrics, models, plotting, samplers, sde, train, widgets
from toyscore.distributions import GaussianMixture, asymmetric

torch.set_num_threads(1)
p, ve, generator = asymmetric(), sde.VE(), torch.Generator().manual_seed(0)
start, data = ve.prior_sample((4000, 2), generator=generator), p.sample(16_000, generator=generator)


def distance(x):
    return metrics.sliced_wasserstein2(x, data, n_projections=16, generator=torch.Generator().manual_seed(1))


def run(score, n_steps, **options):
    options |= {"times": sde.uniform_times(n_steps), "generator": generator.manual_seed(2)}
    return samplers.final(samplers.predictor_corrector(ve, score, start, width=samplers.noise_std, **options))


floor = torch.tensor([distance(p.sample(4000, generator=generator)) for _ in range(8)])

# %% [markdown]
# ## Predictors at equal calls
#
# Each predictor below takes 4,000 points from the prior of VE ($\sigma = 50$) down to data, with the exact score of three tilted modes.
# *Euler-Maruyama* takes the drift at $t$ for the whole step; *reverse diffusion* turns the exact forward step round;
# *ancestral* draws from the posterior given the best guess of the data (NCSN's, DDPM's); *DDIM* (Song, Meng & Ermon 2021) and
# *Heun* follow the probability flow, the first by one call a step, the second by two. The error is the sliced Wasserstein
# distance to 16,000 samples, in units of $x$. Exact samples have an error, too: the **floor** is what 4,000 of them get, and smaller
# differences than its ± mean nothing.

# %%
print(f"floor {floor.mean():.2f} ± {floor.std():.2f}; errors at 12, 24, 48, 96 calls of the score:")
steps = {"Euler-Maruyama": samplers.euler_maruyama_step, "reverse diffusion": samplers.reverse_diffusion_step}
steps |= {"ancestral": samplers.ancestral_step, "DDIM": samplers.ddim_step, "Heun": samplers.heun_step}
for name, step in steps.items():
    ways = {"predictor": step, "snr": 1.0, "n_corrector_steps": 0}
    errors = [distance(run(p.score, n // (1 + (name == "Heun")), **ways)) for n in (12, 24, 48, 96)]
    print(f"{name:18}", *(f"{error:6.2f}" for error in errors))

# %% [markdown]
# Euler-Maruyama reaches the floor first, with 24 to 48 calls; DDIM is best at 12. Below, the predictor is reverse diffusion, as in the
# paper: not the best one here, so there is something to correct.
#
# ## The corrector
#
# At a fixed time the law $p_t$ is a density like any other, and Langevin dynamics (notebook 05) samples it:
#
# $$ x \leftarrow x + \frac{\epsilon}{2}\, \nabla \log p_t(x) + \sqrt{\epsilon}\, z. $$
#
# How long is a step? The paper fixes the ratio $r$ of the lengths of drift and noise (the control *snr*). In our convention (theirs is
# half of it), with $a = \alpha_t / \alpha_{t'}$ of the step just taken, which is 1 on VE,
#
# $$ \epsilon = 4\, a^2 \Big( r\, \frac{\|z\|}{\|\nabla \log p_t(x)\|} \Big)^2. $$
#
# Where noise is nearly all there is, $\|z\| / \|\nabla \log p_t\|$ is about the noise's standard deviation at that time. We put that
# there for now, `width=noise_std`, so that $\epsilon = (2 r \cdot \text{deviation})^2$ is the same for all points; why not the rule
# itself, comes below. Three scores: the exact one, and those of a small network after 300 steps of training, and after 1,000.

# %% tags=["setup"]
nets, budgets, runs = {"exact": p.score}, (12, 24, 48, 96), {}
for n_train in (300, 1000):
    torch.manual_seed(0)
    net = models.MLP(width=64, sigmas=torch.tensor([50.0, 0.01]), data_variance=15.0)
    loss = losses.at_random_sigma(losses.denoising_score_matching, sde.uniform_in_time(ve))
    *_, last = train.fit(net, p, loss, n_steps=n_train, batch_size=256)
    nets[f"learned in {n_train} steps"] = net
for name, snr, n_each in [(name, snr, n) for name in nets for snr in ("0.16", "0.5") for n in range(5)]:
    options = {"predictor": samplers.reverse_diffusion_step, "snr": float(snr), "n_corrector_steps": n_each}
    clouds = [run(nets[name], budget // (1 + n_each), **options) for budget in budgets]
    calls = [budget - budget % (1 + n_each) for budget in budgets]
    runs[name, snr, n_each] = calls, list(map(distance, clouds)), clouds[2][:800]

# %% [markdown] tags=["predict"]
# **Predict first.** Forty-eight calls of the score can pay 48 steps of the predictor, or 24 with one corrector step after each, or 9
# with four. With the *exact* score, which is **nearest** to the data? And does your answer change for a network that was **hardly
# trained**? The error is the sliced Wasserstein distance to the data; *snr* sets how long a corrector's step is. Vote, then move
# *corrector steps*, and change *score*.

# %% tags=["live"] before="corrector_steps=0"
figure, (left, right) = plotting.canvas(1, 2)
plotting.density(left, p.log_prob).set_cmap("Blues")
(dots,) = left.plot([], [], "k.", ms=3, alpha=0.6)
right.axhline(float(floor.mean()), color=plotting.ROLES["truth"].colour, lw=2.5, label="exact samples")
(alone,) = right.semilogy([12], [1], ".:", color="0.35", label="predictor alone")
(curve,) = right.semilogy([12], [1], "D-", color=plotting.ROLES["annealed"].colour, label="with correctors")
right.set(xlim=(6, 102), ylim=(0.05, 60), xticks=budgets, xlabel="calls of the score", ylabel="distance")
right.legend(loc="upper right")


def draw(corrector_steps, score, snr):
    calls, errors, cloud = runs[score, snr if corrector_steps else "0.5", corrector_steps]
    dots.set_data(*cloud.T)
    alone.set_data(*runs[score, "0.5", 0][:2])  # the same at any snr
    curve.set_data(calls, errors)
    left.set_title(f"{calls[2]} calls: distance {errors[2]:.2f}")
    right.set_title(f"corrector steps: {corrector_steps}; score: {score}")
    told = ", ".join(f"{error:.2f}" for error in errors)
    right.set_gid(f"Distances at {calls} calls: {told}; of exact samples {floor.mean():.2f}.")


controls = {"corrector_steps": widgets.Slider(0, 4, 1), "score": widgets.Choice(list(nets), "exact")}
controls["snr"] = widgets.Choice(("0.16", "0.5"), "0.16")
view = widgets.panel(figure, draw, name="corrector-steps", **controls)
view

# %%
print(view.words)
for (name, snr, n_each), (_, row, _) in runs.items():
    if n_each in (0, 1, 3) and (n_each or snr == "0.5"):
        print(f"{name:21} {n_each} correctors, r {snr if n_each else '-':>4}:", *(f"{e:6.2f}" for e in row))
for name, n_each in (("Euler-Maruyama", 0), ("DDIM", 0), ("DDIM", 1)):
    options = {"predictor": steps[name], "snr": 0.5, "n_corrector_steps": n_each}
    errors = [distance(run(nets["learned in 300 steps"], n // (1 + n_each), **options)) for n in budgets]
    print(f"{name + ', 300 steps':27} {n_each} corrector steps:", *(f"{error:6.2f}" for error in errors))

# %% [markdown] tags=["answer"]
# The verdict, at equal calls, where differences below 0.1 are noise:
#
# 1. **An exact score needs no corrector.** At few calls every corrector step takes a predictor step away, and costs more than it
#    mends; the paper's $r = 0.16$ never pays here. At up to 96 calls an exact score gains nothing here from a long one ($r = 0.5$),
#    either. (In the figure [predictor-corrector](../figures/predictor-corrector.png), which sees smaller errors, a long corrector
#    step pays from 48 calls on; but Euler-Maruyama alone is better still.)
# 2. **A corrector mends a weak predictor.** With 300 steps of training and 48 calls, one or three long corrector steps take reverse
#    diffusion from 1.35 to 1.10 and 1.11, and one takes DDIM, which has no noise to forget an error by, from 1.76 to 1.13. But
#    Euler-Maruyama gets there alone, with 24 calls. Below about one nothing helps: that is the network's own law.
# 3. **A better network gains nothing from correctors, and can lose.** After 1,000 steps of training no number of corrector
#    steps helps, and at 96 calls three with $r = 0.5$ are worse than none. It is not the length of the step: the exact score
#    with the same steps loses less than 0.1. A corrector pulls the points towards the law of the score it is given, errors included.
#
# The paper found that correctors pay on CIFAR-10, with a network and 1,000 steps. A toy neither proves nor refutes that; what you can
# take along is how to ask: equal calls, a floor, and more than one score.

# %% [markdown]
# ## A rule read critically
#
# So far `width` was the noise's standard deviation. The paper's Algorithm 4 has $\|z\| / \|\nabla \log p_t(x)\|$ there, for each point
# and from the very $z$ of the step. On images nobody sees a difference. In the plane it samples the wrong law, however small $r$ is,
# and two lines say which. The step $\epsilon = c\, \|z\|^2 / \|\nabla \log p\|^2$ depends on $x$, and on $z$. In $D$ dimensions
# $E\|z\|^2 = D$ and $E[\|z\|^2 z z^\top] = (D + 2) I$. So for small $c$ the chain has
#
# $$ \text{drift}\ \frac{c D}{2\, \|\nabla \log p\|^2}\, \nabla \log p, \qquad
#    \text{noise of variance}\ \frac{c\,(D + 2)}{\|\nabla \log p\|^2}. $$
#
# The drift carries $\pi$ times drift; the noise spreads back half the gradient of $\pi$ times its variance (the Fokker-Planck equation of
# notebook 13, with the variance inside the derivative, as it depends on $x$). A law $\pi$ does not move if the two are equal. With
# $h = 1/\|\nabla \log p\|^2$ that is $D\, h \pi\, \nabla \log p = (D + 2)\, \nabla (h \pi)$, or
# $\nabla \log (h \pi) = \frac{D}{D + 2} \nabla \log p$:
#
# $$ \pi \ \propto\ \|\nabla \log p\|^2\; p^{\,D/(D+2)}. $$
#
# Two errors. Points linger where steps are short, hence $\|\nabla \log p\|^2$. And a long $z$ makes both a long step and much
# noise, so noise outweighs drift, hence the power: in two dimensions the law of $p^{1/2}$, of twice the variance. Below, 2,000
# points begin as *exact* samples of the law at noise 2, and only the corrector moves them, with $r = 0.03$; so all of what
# changes is its doing. `matched_norms_law` is the law above, on a grid.

# %% tags=["setup"]
sigma = 2.0
q, law = p.perturb(sigma), diagnostics.matched_norms_law(p, sigma)
x = q.sample(100_000, generator=generator.manual_seed(3))
sizes = q.score(x).square().sum(1)
shares = {"p": float(q.weights[0]), "p ‖∇log p‖²": float(sizes @ q.responsibilities(x)[:, 0] / sizes.sum())}
shares["√p ‖∇log p‖²"] = float(law.masses.float() @ q.responsibilities(law.points.float())[:, 0])
widths = samplers.matched_norms, samplers.batch_norms, samplers.noise_std
rules, moves, counted = dict(zip(("each row", "batch means", "noise std"), widths, strict=True)), {}, {}
for name, width in rules.items():
    options = {"factor": 4 * 0.03**2, "width": width, "generator": generator}
    states = [x[:2000]]
    for _ in range(3000):
        states.append(samplers.corrector_step(ve, p.score, states[-1], ve.time(sigma), **options))
    moves[name] = torch.stack(states[::30])
    counted[name] = [float(metrics.mode_weights(x, q)[0]) for x in moves[name]]

# %% [markdown] tags=["predict"]
# **Predict first.** The right mode holds 0.50 of the points. Each takes 3,000 corrector steps at a fixed time, with the exact
# score and a small step, of which the length is given by one of three rules. Which rule keeps the 0.50? And where do points go
# that do not stay: **onto the modes**, or **away** from them? Vote, choose a rule, and press *play*.

# %% tags=["live"] before="step=0"
figure_2, (left_2, right_2) = plotting.canvas(1, 2)
plotting.density(left_2, p.log_prob, sigma=sigma, box=16.0).set_cmap("Blues")
(cloud_2,) = left_2.plot([], [], "k.", ms=3, alpha=0.6)
for (name, share), form in zip(shares.items(), ("-", ":", "--"), strict=True):
    right_2.axhline(share, color="0.4", ls=form, label=f"law {name}")
(curve_2,) = right_2.plot([], [], "D-", ms=4, color=plotting.ROLES["annealed"].colour, label="points")
right_2.set(xlim=(0, 3000), ylim=(0.28, 0.56), xlabel="corrector steps", ylabel="share of the right mode")
right_2.legend(loc="lower left", fontsize=10)


def draw_2(step, rule):
    n = step // 30
    cloud_2.set_data(*moves[rule][n].T)
    curve_2.set_data(range(0, step + 1, 30), counted[rule][: n + 1])
    left_2.set_title(f"{rule}, step {step:,}")
    right_2.set_title(f"share {counted[rule][n]:.2f}, farthest {moves[rule][n].norm(dim=1).max():.0e}")
    right_2.set_gid("Shares by theory: " + ", ".join(f"{name} {share:.2f}" for name, share in shares.items()))


controls = {"step": widgets.Slider(0, 3000, 3000, step=30), "rule": widgets.Choice(list(rules), "each row")}
view_2 = widgets.panel(figure_2, draw_2, play="step", name="corrector-rules", **controls)
view_2

# %%
print(view_2.words)
for name, x in moves.items():
    print(f"{name}: share {sum(counted[name][50:]) / 51:.2f} late, farthest point {x.norm(dim=2).max():.0e}")

# %% [markdown] tags=["answer"]
# The rule of each row's norms moves exact samples to another law, and the share goes where it was computed to go. (The squared norm
# alone would leave it: half of the mistake is hardly seen in this number.) Points go **away** from the modes, and single ones are flung
# far out: at a mode the score is near zero, and where it is, the step is as long as you like. The means over the batch, which the
# authors' *code* takes, keep the share within a few hundredths of 0.50, and so does the noise's standard deviation.

# %% [markdown]
# Why did nobody complain? On $N(0, vI)$ the law above has the variance $(1 + 2/D)^2\, v$ in each
# coordinate, and images have a large $D$. The variance of 1,000 points, of which $N(0, I)$ has 1:

# %%
for dim in (8, 32, 128):
    gaussian, squares = GaussianMixture(torch.zeros(1, dim)), []
    x, options = gaussian.sample(1000, generator=generator), {"factor": 0.01, "generator": generator}
    for _ in range(1200):
        x = samplers.corrector_step(ve, gaussian.score, x, ve.time(0.01), **options)
        squares.append(float(x.square().mean()))
    mean = sum(squares[600:]) / 600
    print(f"D = {dim:4}: {mean:.3f} measured, {(1 + 2 / dim) ** 2:.3f} predicted")
print(f"D = 3072: {(1 + 2 / 3072) ** 2:.4f} predicted")

# %% [markdown]
# ## Check yourself: the step, and what an error costs
#
# First the paper's rule. Return the corrector's $\epsilon$ in *our* convention, $x + \frac{\epsilon}{2} s + \sqrt{\epsilon}\, z$, one for
# each row: `score` and `z` are `[B, D]`, `snr` and `a` numbers. In the paper's, $x + \epsilon s + \sqrt{2 \epsilon}\, z$, it is
# $\epsilon = 2 a^2 (r \|z\| / \|s\|)^2$.

# %% tags=["exercise"]
import numpy as np

from checks import correcting


def step_size(score, z, snr, a):
    return 2 * a**2 * (snr * np.linalg.norm(z, axis=1) / np.linalg.norm(score, axis=1)) ** 2


correcting.step_size(step_size)

# %% [markdown]
# Then the account. Somebody has made R runs: of `n_steps` steps each, whose predictor calls the score `predictor_calls` times, with
# `n_corrector_steps` corrector steps after it, and `errors` at the end, all `[R]`. For each of the `budgets` `[K]`, in calls of the
# score, return the least error among the runs that it can pay.


# %% tags=["exercise"]
def least_error(budgets, n_steps, predictor_calls, n_corrector_steps, errors):
    return [errors[n_steps <= budget].min() for budget in budgets]


correcting.least_error(least_error)

# %% [markdown]
# The solutions are in the next cell (collapsed in JupyterLab: click the bar at its left).


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(score, z, snr, a):
    return 4 * (a * snr) ** 2 * (z**2).sum(1) / (score**2).sum(1)


def solution_2(budgets, n_steps, predictor_calls, n_corrector_steps, errors):
    calls = n_steps * (predictor_calls + n_corrector_steps)
    return [errors[calls <= budget].min() for budget in budgets]


correcting.step_size(solution)
correcting.least_error(solution_2)

# %% [markdown]
# A score can be followed with noise, without, and with corrections. So far it was always the score of all the data.
#
# **Next:** notebook 15 asks for a part of them, controllable generation: what a condition adds to the score.
