# %% [markdown]
# # 16 · Images: NCSN on digits
#
# Notebook 15 asked a score for a class and for a measurement, always in the plane, where the exact answer is known. Now leave the
# plane: an image of 8 by 8 pixels is a point with 64 coordinates. Nothing that you have learned changes. The loss, the sampler and the
# loop of this notebook are those of the two-dimensional toys, called by the same names; only the network and the data are new.
#
# You will watch a trained network turn noise into digits; train a small one, and see whether its loss tells how good its samples are;
# kill a training and take it up again; and complete digits of which half is missing. Running time: under 60 seconds on a laptop with
# two cores and no GPU.

# %% tags=["setup"]
import torch

from toyscore import data, losses, metrics, models, plotting, pretrained, samplers, train, widgets
from toyscore.noise import geometric, log_normal

torch.set_num_threads(1)
training, held_out = data.digits("train"), data.digits("held-out")  # handwritten, values in [0, 1]
real, digits = held_out.tensor(), pretrained.digits()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# %%
n, noise = sum(weights.numel() for weights in digits.network.parameters()), digits.config.noise
print(f"{len(training)} digits to learn from, {len(real)} held out; {n:,} parameters")
print(f"score(x, σ): x like {list(real.shape)}, σ from {noise.sigma_max:g} to {noise.sigma_min:g}")

# %% [markdown]
# ## Is it a score?
#
# In the plane you could compare a network with the exact score. Of handwritten digits nobody knows it. What can be asked is how much of
# the noise it leaves, on digits that it has not seen:
#
# $$ \frac1D E \lVert \sigma s(x_0 + \sigma z, \sigma) + z \rVert^2. $$
#
# A score that is nothing leaves 1. That is the denoising loss of notebook 03, twice and per pixel. The best *linear* guess, the score of
# one Gaussian with the digits' mean and covariance, is there to compare with. (`models.calibrate` asks more: whether the network has
# the properties that every exact score has. It finds that somebody's network predicts noise, or wants its images in [-1, 1].)

# %%
some = torch.tensor([10.0, 1.0, 0.3, 0.1, 0.03])
left, _ = metrics.denoising_losses(digits.network, real, some, generator=seeded(1))
linear = metrics.linear_losses(training.tensor().flatten(1).T.cov(), some)
for sigma, own, line in zip(some, left, linear, strict=True):
    print(f"σ {sigma:5.2f}: the network leaves {own:.3f} of the noise, a Gaussian {line:.3f}")

# %% [markdown]
# In the middle, where an image is neither lost in noise nor nearly clean, the network knows far more of digits than their covariance. It is
# a score, so Algorithm 1 of notebook 09 can use it as it is: 24 levels, five steps at each.

# %% tags=["setup"]
SIGMAS, N = geometric(1.5, 0.02, 24), 36
PLAN = {"sigmas": SIGMAS, "step_size": 0.4 * 0.02**2, "n_steps_each": 5}


def way(score):  # the start, and the chains at the end of each level
    start = torch.rand(N, 1, 8, 8, generator=seeded(0))
    return [start, *samplers.annealed_langevin(score, start, **PLAN, generator=seeded(1))][::5]


states, judge, levels = way(digits.network), metrics.fit_classifier(training), [SIGMAS[0], *SIGMAS]
clean = [samplers.tweedie(digits.network, x, sigma) for x, sigma in zip(states, levels, strict=True)]
seen = torch.stack([judge.probabilities(x).argmax(1) for x in clean])  # [level, chain]
decided = (seen == seen[-1]).double().mean(1)

# %% [markdown]
# At the end of each level the network can be asked for the mean of the clean image given the noisy one, $x + \sigma^2 s(x, \sigma)$
# (notebook 03). And a classifier, fitted to real digits, can be asked which digit that mean looks like. Call a chain *decided* once
# that is the digit at which it will end.

# %% [markdown] tags=["predict"]
# **Predict first.** 36 chains start from noise and go down a ladder of 24 levels, σ from 1.5 to 0.02. When will half of them have decided
# which digit they become: in **the first half** of the ladder, in **the second half**, or only at **the last levels**? And when can *you*
# tell, from the noisy images alone? Vote, press *play*, then tick *denoised*.

# %% tags=["live"] before="level=0"
figure, (picture, right) = plotting.canvas(1, 2)
image = picture.imshow(plotting.mosaic(1 - states[0]), origin="upper")
picture.set_axis_off()
(curve,) = right.plot([], [], color=plotting.ROLES["annealed"].colour, lw=2.5)
right.set(xlim=(0, 24), ylim=(0, 1.02), xlabel="level", ylabel="share of chains that have decided")


def draw(level, denoised):
    image.set_data(plotting.mosaic(1 - (clean if denoised else states)[level]))
    curve.set_data(range(level + 1), decided[: level + 1])
    picture.set(title=f"level {level}, σ = {levels[level]:.2g}" + ", denoised" * denoised, gid=f"{N} images.")
    right.set(title=f"decided: {decided[level]:.0%}", gid=f"Of {N} chains.")


view = widgets.panel(figure, draw, play="level", level=widgets.Slider(0, 24, 6), denoised=widgets.Toggle())
view

# %%
print(view.words)
print("decided by level 6, 12, 18, 24:", *(f"{share:.2f}" for share in decided[6::6]))

# %% [markdown] tags=["answer"]
# Most chains decide early, while the images still look like noise to us; in the second half of the ladder few change their minds, and
# the strokes get sharp. It is the freezing of notebook 09 again. And it is why the network must be good at *all* levels: which digit it
# becomes is settled at large noise, how well it is drawn at small noise.

# %% [markdown]
# ## The same loss, the same loop
#
# Now train one yourself. The calls are those of notebook 09, and so is the loss:
#
# $$ \ell = E_\sigma\, \sigma^2\, \tfrac12 E \Big\| s(x + \sigma z, \sigma) + \frac{z}{\sigma} \Big\|^2. $$
#
# New are the data, the network (NCSN's layers, with few channels) and the law of $\sigma$, which spends its draws where there is something
# to learn (notebook 12). `EMA` keeps a running average of the weights. At some steps the average is judged by three numbers; for
# all of them lower is better:
#
# - its **loss** on held-out digits, the same draws each time, as the share of the noise that is left;
# - the **doubt** of the classifier about its samples: one less the probability of the class that it finds likeliest;
# - the **Fréchet distance** of its samples from the training digits, in the features of a small convolutional classifier: how far
#   apart the two Gaussians are that have the features' means and covariances.
#
# The samples come by Algorithm 1, always from the same start with the same noise. Last comes the network of the package: four times as
# wide, trained on more than ten times the examples.

# %% tags=["setup"]
loss = losses.at_random_sigma(losses.denoising_score_matching, log_normal(0.01, 160.0))
features, (mean, v) = metrics.fit_features(training, n_steps=200), training.moments
told = "loss {:.2f}, doubt {:.2f}, Fréchet distance {:.1g}"  # features learned elsewhere differ by a tenth
drawn, marks, target = {}, {}, features(training.tensor())


def note(name, score, x):
    share, doubt = loss(score, real, generator=seeded(2)).mean() / 32, 1 - judge.confidence(x).mean
    apart = metrics.frechet_distance(features(x), target)
    drawn[name], marks[name] = x, {"loss": float(share), "doubt": doubt, "Fréchet distance": apart}


# %% [markdown]
# Then train, and take note on the way:

# %% tags=["setup"]
torch.manual_seed(0)
yours = models.EMA(models.ContinuousNCSN(1, 8, 8, (160.0, 0.01), data_mean=mean, data_variance=v), 0.97)
for step in train.fit(yours, training, loss, n_steps=160, batch_size=32, lr=1e-2):
    if step.step in (5, 20, 80, 160):
        note(str(step.step), yours, way(yours)[-1])
note("package", digits.network, states[-1])

# %% [markdown] tags=["predict"]
# **Predict first.** After 160 steps the loss is nearly flat. The network of the package, much larger and trained for much longer, has a
# loss that is lower by about a third. Put side by side, are its samples **hardly better**, better **by about a third**, or **much
# better**? Vote, then move *step* to *package*.

# %% tags=["live"]
figure_2, (picture_2, right_2) = plotting.canvas(1, 2)
image_2 = picture_2.imshow(plotting.mosaic(1 - drawn["5"]), origin="upper")
picture_2.set_axis_off()
forms = {"loss": "o-", "doubt": "s--", "Fréchet distance": "D:"}.items()
lines = {key: right_2.plot([], [], form, label=key)[0] for key, form in forms}
right_2.set(ylim=(0.04, 40), yscale="log", xlabel="step", xticks=range(5), xticklabels=[*marks])
right_2.minorticks_off()
right_2.legend(loc="upper right", fontsize=11)


def draw_2(step):
    n = [*drawn].index(step) + 1
    image_2.set_data(plotting.mosaic(1 - drawn[step]))
    for key, line in lines.items():
        line.set_data(range(n), [mark[key] for mark in marks.values()][:n])
    picture_2.set(title=f"network: {step}" + " steps" * step.isdigit(), gid=f"{N} samples of 8 x 8 pixels.")
    right_2.set(title=told.format(*marks[step].values()), gid=f"Of {N} samples.")


view_2 = widgets.panel(figure_2, draw_2, name="training", step=widgets.Choice([*marks], "160"))
view_2

# %%
print(view_2.words)
note("real digits (loss as above)", digits.network, real[:N])
print(*(f"{name}: {told.format(*mark.values())}" for name, mark in marks.items()), sep="\n")
print("160 to package:", *(f"{k} {marks['package'][k] / v - 1:+.0%}" for k, v in marks["160"].items()))

# %% [markdown] tags=["answer"]
# **Much better.** The last third of the loss is what lies between smudges and digits. So never judge a score network by its loss alone:
# look at samples, and measure them, with real digits measured beside them. No measure is enough by itself. A classifier that knows
# nothing but digits can be sure of a smear, so the doubt says little in the first steps, where the Fréchet distance says much. And both
# scatter with so few samples: the row of real digits, as many, shows how small one must not expect them to be.

# %% [markdown]
# ## Why the loss is flat: much of it is a constant
#
# Notebook 02 found that every objective is the Fisher divergence plus a constant, and notebook 03 what the constant is for this one:
# noise that nobody can tell from the image. Nobody knows it for handwritten digits, but no network gets below it, so the package's loss
# bounds it from above. What is left between the two losses *can* still be gained:

# %%
own, _ = metrics.denoising_losses(yours, real, some, generator=seeded(1))
for sigma, mine, best in zip(some, own, left, strict=True):
    print(f"σ {sigma:5.2f}: yours {mine:.3f}, constant at most {best:.3f}: {1 - best / mine:.0%} to gain")

# %% [markdown]
# (At least: a better network than the package's would show more.) The loss that one watches while training is a sum of a constant and of
# what is still to be learned, averaged over all levels. The constant does not move, so a fall that looks small may be a large part of
# what can fall. Nor is it spread evenly: in the middle of the levels, where digits are told apart, there is
# most to gain, and at large noise, where the loss is small for every network, little.
#
# ## Kill it, and go on
#
# A training of hours will be interrupted. Below the command line trains a tiny network twice, in a folder that is thrown away
# afterwards: once in one go; once killed in the middle by SIGKILL, which leaves no time to save anything, and then taken up again with
# `--resume latest`. What the two have in the end, weights, averages and Adam's moments, is compared byte by byte, by a digest.

# %%
import subprocess
import tempfile
import time
from pathlib import Path
from sys import executable

OPTIONS = "--network.width 2 --training.n_steps 40 --training.checkpoint_every 10 --sampling.n_steps_each 1"


def start(run, *more):
    words = [executable, "-m", "toyscore", "train", *OPTIONS.split(), "--device=cpu", "--folder", run, *more]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


with tempfile.TemporaryDirectory() as folder:
    runs = [Path(folder, name) for name in ("whole", "killed")]
    whole, killed = map(start, runs)
    while killed.poll() is None and not [*runs[1].glob("checkpoints/step-*")]:
        time.sleep(0.01)  # until a first checkpoint is there
    killed.kill()
    codes = killed.wait(), start(runs[1], "--resume", "latest").wait(), whole.wait()
    print(f"killed before its end: {codes[0] != 0}; both came to their end: {codes[1:] == (0, 0)}")
    sums = [(run / "checkpoints/step-00000040/SHA256SUMS").read_text().split()[0] for run in runs]
    print("same digest:", sums[0] == sums[1])

# %% [markdown]
# Two properties make that so. **A step is a function of (seed, t)**: its examples, levels and noise come from a generator that is
# made anew at each step, from a hash of the seed and the step's number; nothing runs on from one step to the next but what is saved.
# And **a checkpoint is there whole or not at all**: it is written to a folder beside its place, and renamed when it is complete, with a
# sum over every byte that is checked on loading. (The same bits on one kind of processor with the same number of threads; the digest
# itself differs between machines, so it is not printed.) [ARCHITECTURE.md](../ARCHITECTURE.md) says more.
#
# ## Half a digit
#
# Part of an image is known, the rest is missing: notebook 15's measurement of some coordinates. `inpaint` is Algorithm 2 of Song & Ermon
# (2019): the chain of Algorithm 1, in which the known pixels are set, at each level, to what they are plus noise of that level. Nothing
# was trained for it. Six held-out digits, the known half in the first row, the
# whole digit in the last, completions in between:

# %%
truth, held, made = real[[0, 1, 2, 4, 5, 7]], real[[0, 1, 2, 4, 5, 7]].repeat(4, 1, 1, 1), {}
for half, mask in (("upper", torch.arange(8).view(8, 1) < 4), ("left", torch.arange(8) < 4)):
    hold = {"known": held, "mask": mask.expand(1, 8, 8), "generator": seeded(4)}
    *_, x = samplers.inpaint(digits.network, 0 * held, **PLAN, **hold)
    made[half] = torch.cat([torch.where(mask, truth, 0.3), x, truth])
figure_3, ax_3 = plotting.canvas(1, 1, size=5.4)
image_3 = ax_3.imshow(plotting.mosaic(1 - made["upper"], n_columns=6), origin="upper")
ax_3.set_axis_off()


def draw_3(half):
    image_3.set_data(plotting.mosaic(1 - made[half], n_columns=6))
    ax_3.set(title=f"{half} half known; 4 completions; the truth", gid="6 digits of 8 x 8 pixels.")


view_3 = widgets.panel(figure_3, draw_3, name="inpainting", half=widgets.Choice([*made], "upper"))
view_3

# %%
print(view_3.words)
for half, x in made.items():
    print(f"{half} half known:", judge.probabilities(x[6:-6]).argmax(1).view(4, 6).T.tolist())

# %% [markdown]
# Where the known half leaves room the completions differ, as they should; where it does not they agree. (The numbers are what the
# classifier takes each for.) The figure
# [digits-inpainting](../figures/digits-inpainting.png) asks of more of them whether each kind comes as often as it
# should.
#
# ## Check yourself: a stream that can be resumed
#
# Write `batch(seed, step, n, size)`: the indices, from 0 to `n - 1`, of the `size` training examples of that step. They must be random,
# and *any* step must be possible without the steps before it, in a process that knows nothing but the arguments. Other seeds and other
# steps must give other batches.

# %% tags=["exercise"]
import numpy as np

from checks import images


def batch(seed, step, n, size):
    return np.random.default_rng(seed + step).integers(n, size=size)


images.batches(batch)

# %% [markdown]
# The solution is in the next cell (collapsed in JupyterLab: click the bar at its left).


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(seed, step, n, size):
    return np.random.default_rng([seed, step]).integers(n, size=size)  # numpy hashes the pair


images.batches(solution)

# %% [markdown]
# `train.fit` does the same with a hash of seed, step and shard, so that several processes can share a step out. (Python's own `hash` of a
# string would not do: it differs from process to process.)
#
# ## Going on
#
# Nothing changes with the size of the images but the time. With a GPU, the paper's network on CIFAR-10 is one command,
#
# ```
# toyscore train --config configs/cifar10.yaml --training.channels_last true --training.compile true --folder runs/cifar10
# toyscore evaluate --folder runs/cifar10 --samples 1000
# ```
#
# and, after a stop, the first once more with `--resume latest`. What it costs is computed in [docs/scaling.md](../docs/scaling.md) from
# the arithmetic of the network: hours on one data-centre GPU, months on a laptop. Computed, not measured: on a GPU none of this has
# been run yet.
#
# This was the last notebook. You can now say what a score is and fit one in five ways; sample with it by chains, by SDEs and by an ODE, and
# say where each goes wrong; give a point a likelihood and a sample a condition; and do all that with images. The
# [README](../README.md) lists what the library holds, and [docs/equations.md](../docs/equations.md) finds the code and the test of each
# equation of the papers. What is left is something of your own: [CONTRIBUTING.md](../CONTRIBUTING.md) shows how to add a loss, and to
# see it at once beside the others in the figure `objectives`.
