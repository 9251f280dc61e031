"""Bad input is refused at the call, in a message with the parameter, the value, the rule and the remedy; what is no mistake is listed."""

import linecache
import re
import traceback
from functools import partial

import numpy as np
import pytest
import torch

from reliability.calls import CALLS
from reliability.substitutes import COUNTS, NUMBERS, OTHERS, PATTERNS, listed, refusals, substitutes
from toyscore import data, plotting, widgets
from toyscore.distributions import GaussianMixture, empirical, two_modes
from toyscore.losses import (
    at_random_sigma,
    denoising_score_matching,
    implicit_score_matching,
    perturbed,
    sliced_score_matching,
)
from toyscore.metrics import fisher_divergence, mmd2, wasserstein2
from toyscore.models import EMA, MLP, NCSN, CompactNCSN
from toyscore.noise import geometric, levels
from toyscore.samplers import annealed_langevin, between, inpaint, metropolis_langevin, tweedie
from toyscore.train import fit

MODULES = sorted({name.split(".")[0] for name in CALLS})
RENAMED = {  # a function, a parameter, and what messages call it; or they do not tell the number, but its dtype
    r".*check_count|plotting.*": {"value": "n", "n_arrows": "n"},
    r".*check_positive": {"value": "step"},
    r".*check_range": {"low": "sigma_min", "high": "sigma_max"},
    r".*heun_step": {"s": "t"},
    r".*of_mixture": {"y": "values"},
    r".*weight_blindness": {"sigmas": "sigma"},
    r".*Seed": {"value": "seed"},
    r".*of_class": {"label": "label"},
    r".*Mixture.*": {"covariances": "covariances"},
}


def refused_by_the_package(error):
    """Not by Python or torch, under one of its lines."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "/toyscore/" in last.filename and linecache.getline(last.filename, last.lineno).lstrip().startswith("raise")


def named(error, name, key, kind, value):
    """Whether a message says what is wrong, in some words: the number, or the parameter, or the dtype or shape that was given."""
    given = [f"{value}", f"{value:g}"] if kind in NUMBERS | COUNTS else [key]
    given += [other[key] for pattern, other in RENAMED.items() if key in other and re.fullmatch(pattern, name)]
    if isinstance(value, torch.Tensor):
        given += [str(value.dtype), str(list(value.shape))]
    found = any(re.search(rf"(?<![\w.]){re.escape(words)}(?!\w)", str(error)) for words in given)
    return found and re.search("[;:] ", str(error)) and len(str(error).split()) >= 4


def wrong(name, key, kind, value, error, finite):
    """What is wrong with the answer to a substitute, in words; None if nothing is."""
    right, spreads = (listed(what, name, key, kind) for what in ("right", "spreads"))
    if error is not None:
        if right is not None or isinstance(error, np.linalg.LinAlgError):
            return f"is refused: {error}"
        if named(error, name, key, kind, value) or (kind in OTHERS and not refused_by_the_package(error)):
            return None
        return f"is not named: {error}"
    if right is None and spreads is None:
        return "is taken"
    return None if finite == (spreads is None) else "comes back as something " + ("finite" if finite else "not finite")


@pytest.mark.parametrize("module", MODULES)
def test_what_is_put_in_place_of_an_argument_is_named_or_no_mistake(module):
    names = [name for name in CALLS if name.startswith(f"{module}.")]
    found = {f"{name}({c[0]} = {c[1]})": wrong(name, *c) for name in names for c in refusals(name)}
    assert {case: words for case, words in found.items() if words} == {}


def test_every_exception_is_one():
    """No rule is left over from what is checked by now."""
    cases = [(name, key, kind) for name in CALLS for key, kind, *_ in substitutes(name)]
    for what in ("right", "spreads"):
        unused = set(range(len(PATTERNS[what]))) - {listed(what, *case) for case in cases}
        assert [PATTERNS[what][i] for i in unused] == []
    assert len(cases) > 5000


NAN = float("nan")
X, MEANS, LEVELS = torch.zeros(3, 2), torch.zeros(3, 2), [1.0, 0.1]
P, CLOUD, AX = two_modes(), empirical(torch.zeros(4, 2)), plotting.canvas()[1]
PIXELS, PICTURES = np.zeros((3, 1, 8, 8), np.uint8), torch.zeros(3, 1, 8, 8)
SHEAR = torch.tensor([[[1.0, 0.5], [0.2, 1.0]]])
INDEFINITE = torch.tensor([[[1.0, 2.0], [2.0, 1.0]]])


class Arrays:
    """A distribution that draws by NumPy."""

    def sample(self, n, *, generator=None):
        return np.zeros((n, 2), np.float32)


def train(**options):
    given = {"model": MLP(width=4), "data": P, "loss": implicit_score_matching, "n_steps": 2, "batch_size": 4}
    return list(fit(**given | options))


def state():
    model = MLP(width=4)
    return next(fit(model, P, implicit_score_matching, n_steps=2, batch_size=4)).state()


def anneal(sigmas=(1.0, 0.5), **options):
    return list(annealed_langevin(P.score, X, sigmas, **{"step_size": 0.1, "n_steps_each": 2} | options))


def reduced(*args, **options):
    return implicit_score_matching(*args).mean()


def detached(*args, **options):
    return implicit_score_matching(*args).detach()


# what no signature says, and what the first checks that everything calls say: words of the message, in this order, and the call
VALUES = {
    "covariances[0] differs from its transpose by 0.3: pass (C + C.mT) / 2": lambda: GaussianMixture(MEANS, SHEAR),
    "covariances[0] has the eigenvalue -1: check": lambda: GaussianMixture(MEANS, INDEFINITE),
    "covariances has shape [2, 2]: K = 3, D = 2 matrix[None]": lambda: GaussianMixture(MEANS, torch.eye(2)),
    "variance -1: not be negative; pass squares": lambda: GaussianMixture(MEANS, -1.0),
    "weights sum to 6: must sum to 1; pass weights / weights.sum()": lambda: GaussianMixture(
        MEANS, weights=[1.0, 2.0, 3.0]
    ),
    "covariances[0] is degenerate sigma = 0: pass sigma > 0": lambda: GaussianMixture(MEANS, 0.0).score(
        X, torch.tensor([1.0, 0.0, 1.0])
    ),
    "dims = []: different coordinates from 0 to 1; pass": lambda: P.marginal([]),
    "dims = [2]: from 0 to 1": lambda: P.marginal([2]),
    "dims = [0, 0]: different": lambda: P.marginal([0, 0]),
    "dims = 0: must name": lambda: P.marginal(0),
    "dims = [0, 1] every coordinate use log_prob": lambda: P.condition([0, 1], [0.0, 0.0]),
    "values has shape [2]: needs [1]; pass one value": lambda: P.condition([0], [0.0, 1.0]),
    "sigma has shape [2]: one noise level; pass": lambda: P.perturb(torch.ones(2)),
    "sigma = 1e+30: square must be finite pass": lambda: P.score(X, 1e30),
    "sigma = 1.0000000200408773e+20: square must be finite pass": lambda: P.score(X, torch.full((3,), 1e20)),
    "sigma square 0.0 torch.float32: normal pass": lambda: CLOUD.score(X, 1e-24),
    "n_levels = 1 sigma_max = 1.0 pass n_levels >= 2": lambda: geometric(1.0, 0.1, 1),
    "sigmas must decrease: sigmas[1] = 0.5 = sigmas[0]; sort": lambda: levels([0.5, 0.5]),
    "sigmas[1] = 0: positive; leave": lambda: anneal([1.0, 1e-60]),
    "clamp = (1.0, 0.0): low < high; pass": lambda: anneal(clamp=(1.0, 0.0)),
    "clamp = 1.0: (low, high) pass": lambda: anneal(clamp=1.0),
    "clamp = ('a', 'b'): (low, high) pass": lambda: anneal(clamp=("a", "b")),
    "x has 3 rows: n = 2 multiple; pass 2 rows per path": lambda: between(2)(X, None),
    "known is not finite mask; change": lambda: list(
        inpaint(P.score, X, LEVELS, known=X[0] + NAN, mask=X[0] == 0, step_size=0.1, n_steps_each=1)
    ),
    "the score returned shape [3, 1] for x of shape [3, 2]: check": lambda: tweedie(lambda x, s: x[:, :1], X, 1.0),
    "log_prob returned shape []: [3]; do not reduce": lambda: list(
        metropolis_langevin(lambda x, s: P.log_prob(x, s).sum(), P.score, X, step_size=0.1, n_steps=2)
    ),
    "weight(sigma) has shape [3, 3]: number or [3]; do not": lambda: denoising_score_matching(
        P.score, X, torch.ones(3), weight=lambda s: s[:, None]
    ),
    "loss = sliced_score_matching: clean x pass perturbed(loss)": lambda: at_random_sigma(
        partial(sliced_score_matching, n_slices=2), levels(LEVELS)
    ),
    "loss = denoising_score_matching: x from q_sigma pass it as it is": lambda: perturbed(denoising_score_matching),
    "the clouds have 3 and 1 points: 2 are needed in each; draw more": lambda: mmd2(X, X[:1]),
    "bandwidth = 0.0: positive; pass": lambda: mmd2(X, X),
    "events of shape [2] of [5] compare": lambda: wasserstein2(X, torch.zeros(3, 5)),
    "x has shape [3, 5], 5 numbers D = 2; pass [B, 2]": lambda: P.score(torch.zeros(3, 5)),
    "image_size = 9: even halves; pad or crop": lambda: NCSN(1, 9, 4, LEVELS),
    "x has shape [3, 1, 8, 8]: [B, 1, 9, 9]; reshape": lambda: CompactNCSN(1, 9, 4, sigmas=LEVELS)(PICTURES, 1.0),
    "model has no trainable parameter pass a network": lambda: train(model=torch.nn.Identity()),
    "batch_size = 4 n_shards = 3: pass batch_size=6": lambda: train(n_shards=3),
    "autocast = torch.float16: torch.bfloat16 or None; scaled": lambda: train(autocast=torch.float16),
    "loss returned shape [] for 4 examples: [4]; do not reduce": lambda: train(loss=reduced),
    "loss returned float for 4 examples": lambda: train(loss=lambda *args, **options: 1.0),
    "does not depend on the model's parameters: do not detach": lambda: train(loss=detached),
    "the state lacks model, optimizer, recipe, step: pass": lambda: train(state={}),
    "seed = 1 state was made with seed = 0 pass the same": lambda: train(seed=1, state=state()),
    "clip = 1.0, clip = None: same recipe; pass the same": lambda: train(clip=1.0, state=state()),
    "layers.0.weight shape [4, 2] in the state, [5, 2] in the model: build": lambda: train(
        model=MLP(width=5), state=state()
    ),
    "torch.float32, in the state, torch.float64, in the model: build the same": lambda: train(
        model=MLP(width=4).double(), state=state()
    ),
    "values has shape [0, 1, 8, 8]: no image; pass": lambda: data.Images(PIXELS[:0]),
    "values reach 20: n_levels = 17 0 to 16; pass": lambda: data.Images(PIXELS + 20, n_levels=17),
    "n_levels = 300: 8 bits, 256; requantise": lambda: data.Images(PIXELS, n_levels=300),
    "labels has 2 3 images: one each; drop": lambda: data.Images(PIXELS, np.zeros(2, int)),
    "no labels: use sample, or pass labels": lambda: data.Images(PIXELS).sample_labelled(2),
    "photos is empty: pass at least one": lambda: data.Crops([]),
    "photos[0] has shape [1, 8, 8]: crop of side 9; lower size": lambda: data.Crops([PIXELS[0]], 9),
    "x has values from -1 to -1: [0, 1]; map [-1, 1] there by (x + 1) / 2": lambda: data.images(PICTURES - 1),
    "log_prob returned shape [16, 2] for 16 points: [B]; pass e.g. mixture.log_prob": lambda: plotting.density(
        AX, P.score, n=4
    ),
    "the values of plain have shape [2, 4]: [n_seeds, 3]; stack": lambda: plotting.curves(
        AX, torch.arange(3.0), {"plain": torch.ones(2, 4)}
    ),
    "x has shape [4, 3]: [B, 2], pass": lambda: plotting.samples(AX, torch.zeros(4, 3)),
    "path ends in '.mp4': .gif; rename chains.mp4": lambda: plotting.save_gif([], "chains.mp4"),
    "no frame: consumed already; pass them anew": lambda: plotting.save_gif([], "x.gif"),
    "fps = 200: 50 frames; pass": lambda: plotting.save_gif([], "x.gif", fps=200),
    "n_colours = 1: 2 to 256; pass": lambda: plotting.save_gif([], "x.gif", n_colours=1),
    "path ends in '.bmp': .png, .svg or .pdf; rename x.bmp": lambda: plotting.save(AX.figure, "x.bmp"),
    "path ends in '.gif': .png; rename x.gif": lambda: plotting.save_mosaic(PIXELS[0, 0], "x.gif", ""),
    "a panel without controls: pass e.g. sigma=Slider": lambda: widgets.panel(AX.figure, print),
    "a slider at 0.25 steps of 0.1 from 0.0: nearest is 0.2; pass": lambda: widgets.Slider(0.0, 1.0, 0.25, step=0.1),
}
TYPES = {
    "x is list: floating-point tensor; convert": lambda: P.score([[1.0, 2.0]]),
    "sigma is str: must be a float or a tensor; pass": lambda: P.score(X, "0.5"),
    "sigmas is str: numbers; pass": lambda: levels("abc"),
    "step_size is str: number; pass": lambda: anneal(step_size="0.1"),
    "n = 1.5: must be an integer; pass": lambda: P.sample(1.5),
    "means is list pass a torch tensor": lambda: GaussianMixture([[1.0], [1.0, 2.0]]),
    "score is GaussianMixture: callable pass mixture.score": lambda: implicit_score_matching(P, X),
    "distribution is method: score(x, sigma); pass the distribution": lambda: fisher_divergence(P.score, P.score, X),
    "draw is Tensor: draw(n, generator=g); pass levels(sigmas)": lambda: at_random_sigma(
        denoising_score_matching, torch.tensor(LEVELS)
    ),
    "data is Tensor: sample wrap empirical": lambda: train(data=X),
    "data.sample returned ndarray: tensor convert it with torch.as_tensor": lambda: train(data=Arrays()),
    "loss is float: callable loss(model, x, generator=g); pass": lambda: train(loss=1.0),
    "missing a required argument: 'sigma' pass at_random_sigma(loss,": lambda: train(loss=denoising_score_matching),
    "unexpected keyword argument 'generator' where it needs sigma": lambda: train(loss=lambda model, x: x),
    "model is method: torch.nn.Module; pass": lambda: train(model=P.score),
    "model is function: torch.nn.Module; pass": lambda: EMA(detached),
    "values is float64 of shape [3, 1, 8, 8]: uint8 array [N, C, H, W]; data.images": lambda: data.Images(PIXELS * 1.0),
    "values is uint8 of shape [3, 8, 8]: [N, C, H, W]; values[:, None]": lambda: data.Images(PIXELS[:, 0]),
    "photos[0] is float64 uint8 [C, H, W]; convert": lambda: data.Crops([PIXELS[0] * 1.0], 4),
    "sigma is float: a control is a Slider, Choice, Toggle or Seed; pass one": lambda: widgets.panel(
        AX.figure, print, sigma=1.0
    ),
}


@pytest.mark.parametrize("words", [*VALUES, *TYPES])
def test_what_no_signature_says_is_named(words):
    with pytest.raises(TypeError if words in TYPES else ValueError) as caught:
        (VALUES | TYPES)[words]()
    message = str(caught.value)
    position = 0
    for word in words.split():  # each word, in this order
        found = message.find(word.rstrip(":;,") if message.find(word, position) < 0 else word, position)
        assert found >= 0, f"{word!r} is missing from {message!r}"
        position = found


def test_good_input_still_passes():
    """What the table changes is good as it is."""
    assert (len(train()), len(train(state=state())), len(anneal())) == (2, 1, 4)
